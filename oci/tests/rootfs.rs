//! Modules from files: `PATH`, working directory, links, bind mounts, and what is refused.

#![allow(clippy::unwrap_used, reason = "a failing test should panic")]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;

use common::{COMPONENT, ELF, MemoryStore, WASM, config, load, rootfs_file};
use coracle_oci::ImageError;
use coracle_oci::digest::Digest;
use coracle_oci::image::{self, EntryFault, Format, MODULE_LIMIT, Module};
use serde_json::{Value, json};
use tempfile::TempDir;

fn resolve(bundle: &Path, config: &Value) -> Result<Module, ImageError> {
    let workload = load(bundle, config).unwrap();
    image::resolve(&workload, &bundle.join("rootfs"), None, &MemoryStore::default())
}

fn refusal(bundle: &Path, config: &Value) -> String {
    let message = resolve(bundle, config).unwrap_err().to_string();
    assert!(!message.contains('\n'), "one sentence: {message}");
    message
}

fn bundle() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn absolute_path_with_export() {
    let bundle = bundle();
    rootfs_file(bundle.path(), "/app.wasm", WASM);
    let module = resolve(bundle.path(), &config(&["/app.wasm#run", "x"])).unwrap();
    assert_eq!(module.digest, Digest::of(WASM));
    assert_eq!(module.format, Format::Wasm);
    assert_eq!(module.entry.path, "/app.wasm");
    assert_eq!(module.entry.export.as_deref(), Some("run"));
    assert_eq!(module.origin, "/app.wasm");
}

#[test]
fn path_comes_before_the_working_directory() {
    let bundle = bundle();
    rootfs_file(bundle.path(), "/srv/app", b"(module $cwd)");
    let mut config = config(&["app"]);
    config["process"]["cwd"] = json!("/srv");
    assert_eq!(resolve(bundle.path(), &config).unwrap().origin, "/srv/app");
    rootfs_file(bundle.path(), "/bin/app", b"(module $path)");
    let module = resolve(bundle.path(), &config).unwrap();
    assert_eq!(module.origin, "/bin/app");
    assert_eq!(module.format, Format::Wat);
    // A folder of that name earlier in PATH is no program.
    std::fs::create_dir_all(bundle.path().join("rootfs/usr/bin/app")).unwrap();
    assert_eq!(resolve(bundle.path(), &config).unwrap().origin, "/bin/app");
}

#[test]
fn relative_paths_start_in_the_working_directory() {
    let bundle = bundle();
    rootfs_file(bundle.path(), "/srv/sub/app.wasm", WASM);
    let mut config = config(&["./sub/app.wasm"]);
    config["process"]["cwd"] = json!("/srv");
    assert_eq!(resolve(bundle.path(), &config).unwrap().origin, "/srv/sub/app.wasm");
    config["process"]["args"] = json!(["../../srv/sub/app.wasm"]);
    assert_eq!(resolve(bundle.path(), &config).unwrap().origin, "/srv/sub/app.wasm");
}

#[test]
fn links_stay_inside_the_container() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret.wasm"), WASM).unwrap();
    let bundle = bundle();
    rootfs_file(bundle.path(), "/opt/v1/app.wasm", WASM);
    let rootfs = bundle.path().join("rootfs");
    symlink("/opt/v1", rootfs.join("current")).unwrap();
    symlink("../current/app.wasm", rootfs.join("opt/link")).unwrap();
    let module = resolve(bundle.path(), &config(&["/opt/link"])).unwrap();
    assert_eq!(module.origin, "/opt/v1/app.wasm");

    let host = outside.path().join("secret.wasm");
    symlink(&host, rootfs.join("absolute")).unwrap();
    symlink(
        Path::new("../../../../../../../../..").join(host.strip_prefix("/").unwrap()),
        rootfs.join("climbing"),
    )
    .unwrap();
    symlink("/proc/self/root", rootfs.join("magic")).unwrap();
    for entry in ["/absolute", "/climbing", &format!("/magic{}", host.display())] {
        let message = refusal(bundle.path(), &config(&[entry]));
        assert!(message.contains("not in the container's file system"), "{entry}: {message}");
    }
    symlink("/loop", rootfs.join("loop")).unwrap();
    let message = refusal(bundle.path(), &config(&["/loop"]));
    assert!(message.contains("too many links"), "{message}");
}

#[test]
fn modules_in_volumes_are_found_before_they_are_mounted() {
    let bundle = bundle();
    let volume = tempfile::tempdir().unwrap();
    std::fs::write(volume.path().join("app.wasm"), WASM).unwrap();
    symlink("/data/app.wasm", volume.path().join("latest")).unwrap();
    rootfs_file(bundle.path(), "/data/app.wasm", ELF);
    let file = volume.path().join("app.wasm");
    let mut config = config(&["/data/latest"]);
    config["mounts"] = json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/data", "type": "bind", "source": volume.path(), "options": ["rbind", "ro"]},
        {"destination": "/deep/new/file.wasm", "type": "bind", "source": file, "options": ["bind"]},
        {"destination": "/scratch", "type": "tmpfs", "source": "tmpfs"},
    ]);
    assert_eq!(resolve(bundle.path(), &config).unwrap().origin, "/data/app.wasm");
    config["process"]["args"] = json!(["/deep/new/file.wasm"]);
    assert_eq!(resolve(bundle.path(), &config).unwrap().origin, "/deep/new/file.wasm");
    config["process"]["args"] = json!(["/scratch/app.wasm"]);
    let message = refusal(bundle.path(), &config);
    assert!(message.contains("tmpfs mount, which is empty before the start"), "{message}");
    config["process"]["args"] = json!(["/deep/old/file.wasm"]);
    let message = refusal(bundle.path(), &config);
    assert!(message.contains("not in the container's file system"), "{message}");
}

#[test]
fn the_last_mount_over_a_path_counts() {
    let bundle = bundle();
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(first.path().join("app"), WASM).unwrap();
    std::fs::write(second.path().join("app"), b"(module)").unwrap();
    let bind = |source: &Path| json!({"destination": "/d", "type": "bind", "source": source});
    let mut config = config(&["/d/app"]);
    config["mounts"] = json!([bind(first.path()), bind(second.path())]);
    assert_eq!(resolve(bundle.path(), &config).unwrap().format, Format::Wat);
}

#[test]
fn other_content_is_refused_by_name() {
    let bundle = bundle();
    let mut wasmtime = ELF.to_vec();
    wasmtime[7] = 200;
    let cases: [(&str, &[u8], &str); 8] = [
        ("elf.wasm", ELF, "is an ELF file, that is native code"),
        ("script.wasm", b"#!/bin/sh\necho hi\n", "is a script (\"#!/bin/sh\")"),
        ("component.wasm", COMPONENT, "is a wasm component, which this version cannot run"),
        ("aot.wasm", &wasmtime, "machine code precompiled by wasmtime"),
        ("empty.wasm", b"", "is an empty file"),
        ("cut.wasm", b"\0asm\x01", "truncated wasm module of only 5 bytes"),
        ("text.wasm", b"hello", "a text file that is no .wat module"),
        ("packed.wasm", b"\x1f\x8b\x08\0", "is a gzip file"),
    ];
    for (name, bytes, wanted) in cases {
        rootfs_file(bundle.path(), name, bytes);
        let message = refusal(bundle.path(), &config(&[&format!("/{name}")]));
        assert!(message.contains(wanted), "{name}: {message}");
        assert!(
            message.contains("accepted is a core wasm module, binary or .wat text"),
            "{message}"
        );
        assert!(message.contains(&format!("/{name}")), "{message}");
    }
}

#[test]
fn what_is_no_file_is_refused_without_waiting() {
    let bundle = bundle();
    let rootfs = bundle.path().join("rootfs");
    std::fs::create_dir_all(rootfs.join("folder")).unwrap();
    let pipe = rootfs.join("pipe");
    let made = rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    );
    made.unwrap();
    rootfs_file(bundle.path(), "/file", WASM);
    for (entry, wanted) in [
        ("/", "is a directory, not a file"),
        ("/folder", "is a directory, not a file"),
        ("/pipe", "is a pipe, not a file"),
        ("/file/below", "not in the container's file system"),
        ("/none.wasm", "not in the container's file system"),
        ("none", "looked for /usr/bin/none, /bin/none, /none"),
        ("", "names no entry point"),
        ("#run", "names no entry point"),
    ] {
        let message = refusal(bundle.path(), &config(&[entry]));
        assert!(message.contains(wanted), "{entry}: {message}");
        assert!(message.contains("record names no image"), "{message}");
    }
    assert!(refusal(bundle.path(), &config(&[])).contains("names no entry point"));
}

#[test]
fn size_is_bounded() {
    let bundle = bundle();
    rootfs_file(bundle.path(), "/big.wasm", WASM);
    let file = File::options().write(true).open(bundle.path().join("rootfs/big.wasm")).unwrap();
    file.set_len(MODULE_LIMIT + 1).unwrap();
    let message = refusal(bundle.path(), &config(&["/big.wasm"]));
    assert!(message.contains("268435457 bytes, more than the 268435456"), "{message}");
}

#[test]
fn sealing_copies_what_was_hashed_and_nothing_else() {
    let bundle = bundle();
    rootfs_file(bundle.path(), "/app.wasm", WASM);
    let mut module = resolve(bundle.path(), &config(&["/app.wasm"])).unwrap();
    let mut sealed = module.seal().unwrap();
    let mut bytes = Vec::new();
    sealed.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, WASM);
    sealed.write_all(b"x").unwrap_err();
    sealed.set_len(0).unwrap_err();

    // Somebody writes to the volume between hashing and compiling.
    rootfs_file(bundle.path(), "/app.wasm", b"\0asm\x01\0\0\0\0\x01\0");
    assert!(matches!(module.seal(), Err(ImageError::Changed { .. })));
}

#[test]
fn a_missing_root_file_system_is_named() {
    let bundle = bundle();
    let workload = load(bundle.path(), &config(&["/a"])).unwrap();
    let nowhere = bundle.path().join("nowhere");
    let error = image::resolve(&workload, &nowhere, None, &MemoryStore::default()).unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[test]
fn hostile_paths_end_soon_and_read_well() {
    let bundle = bundle();
    std::fs::create_dir(bundle.path().join("rootfs")).unwrap();
    std::fs::create_dir(bundle.path().join("rootfs/a")).unwrap();
    let message = refusal(bundle.path(), &config(&[&"/a/..".repeat(1_000_000)]));
    assert!(message.contains("File name too long") && message.len() < 1000, "{message}");
    let mut document = config(&["app\n\u{1b}[31m"]);
    let folders: Vec<String> = (0..200_000).map(|number| format!("/f{number}")).collect();
    document["process"]["env"] = json!([format!("PATH={}", folders.join(":"))]);
    let message = refusal(bundle.path(), &document);
    assert!(message.contains("/f7/app") && message.contains(" and elsewhere"), "{message}");
    assert!(!message.contains('\u{1b}') && message.len() < 1000, "{message}");
}

#[test]
fn in_a_container_that_runs_its_own_root_counts() {
    let bundle = bundle();
    rootfs_file(bundle.path(), "/bin/app", WASM);
    rootfs_file(bundle.path(), "/bin/native", ELF);
    symlink("/bin/app", bundle.path().join("rootfs/link")).unwrap();
    symlink("../../../../../../../../bin/sh", bundle.path().join("rootfs/out")).unwrap();
    let locate = |program: &str| {
        let process = json!({
            "args": [program], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0},
        });
        let process = coracle_oci::spec::process(process.to_string().as_bytes()).unwrap();
        let root = File::open(bundle.path().join("rootfs")).unwrap();
        image::locate_running(&process, root.into())
    };
    for (program, export) in [("app", None), ("/link#run", Some("run")), ("bin/../bin/app", None)] {
        let located = locate(program).unwrap();
        assert_eq!(located.origin, "/bin/app", "{program}");
        assert_eq!(located.entry.export.as_deref(), export);
    }
    assert!(locate("native").unwrap_err().is_linux_program());
    for nothing in ["none", "/out", "/bin/none"] {
        let fault = locate(nothing).unwrap_err();
        assert!(matches!(fault, EntryFault::NotFound { .. }), "{nothing}: {fault}");
    }
}
