//! WebAssembly programs in a guest: signals, exit codes, streams, what they hold.

use std::io::Read;
use std::time::{Duration, Instant};

use coracle_shim::guest::{Exit, Stdio};

use crate::support::*;

const SPIN: &str = r#"(module (func (export "_start") (loop (br 0))))"#;

#[test]
fn a_spinning_program_ends_at_once_by_sigterm() {
    block_on(async {
        let bundle = Bundle::new();
        let mut guest = bundle.run(SPIN, Stdio::default()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let begun = Instant::now();
        guest.signal(libc::SIGTERM, false).unwrap();
        assert_eq!(guest.wait().await.exit, Exit::Code(143));
        assert!(begun.elapsed() < Duration::from_secs(1));
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
    });
}

#[test]
fn a_running_program_holds_only_its_streams_and_folders_and_no_rights() {
    block_on(async {
        let mut bundle = Bundle::new();
        bundle.spec["process"]["args"] = serde_json::json!(["/bin/my-app.wasm"]);
        bundle.spec["process"]["user"] = serde_json::json!({"uid": 1000, "gid": 1000});
        let mut guest = bundle.run(SPIN, Stdio::default()).await.unwrap();
        let open = descriptors(&guest);
        let targets: Vec<_> = open.iter().map(|(_, target)| target.as_str()).collect();
        assert_eq!(targets[..3], ["/dev/null"; 3]);
        // The engine may keep the code image, which is open for reading only.
        for (number, _) in open[3..].iter().filter(|(_, target)| target != "/") {
            let info = proc(&guest, &format!("fdinfo/{number}"));
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
            assert_eq!(flags & libc::O_ACCMODE as u32, libc::O_RDONLY as u32, "{open:?}");
        }
        assert!(open.len() <= 7, "{open:?}");
        assert_eq!(proc(&guest, "comm"), "my-app.wasm\n");
        let tasks = std::fs::read_dir(format!("/proc/{}/task", guest.pid())).unwrap();
        for task in tasks {
            let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            assert!(status.contains("CapEff:\t0000000000000000\n"), "{status}");
            assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
            assert!(status.contains("Uid:\t1000\t1000\t1000\t1000\n"), "{status}");
        }
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
    });
}

#[test]
fn exit_codes_and_traps_arrive() {
    let exit = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (func (export "_start") (call $exit (i32.const 42))))"#;
    let trap = r#"(module (func $lookout (unreachable)) (func (export "_start") (call $lookout)))"#;
    block_on(async {
        for (text, code, words) in [(exit, 42, ""), (trap, 134, "unreachable")] {
            let bundle = Bundle::new();
            let (mut reader, writer) = pipe();
            let stdio = Stdio { stderr: Some(writer), ..Stdio::default() };
            let mut guest = bundle.run(text, stdio).await.unwrap();
            assert_eq!(guest.wait().await.exit, Exit::Code(code));
            let mut said = String::new();
            reader.read_to_string(&mut said).unwrap();
            assert!(said.contains(words) && said.is_empty() == words.is_empty(), "{said}");
            guest.cleanup().await.unwrap();
            bundle.assert_clean();
        }
    });
}

#[test]
fn a_program_that_cannot_be_linked_says_why_and_leaves_nothing() {
    block_on(async {
        let bundle = Bundle::new();
        let text = r#"(module (import "env" "nothing" (func)) (func (export "_start")))"#;
        let error = bundle.run(text, Stdio::default()).await.map(|g| g.pid()).unwrap_err();
        assert!(error.to_string().contains("nothing"), "{error}");
        coracle_shim::guest::cleanup_bundle(bundle.path(), &bundle.id).unwrap();
        bundle.assert_clean();
    });
}

#[test]
fn a_file_is_written_where_the_mount_allows_it() {
    // path_open with O_CREAT and write rights; the errno becomes the exit code.
    let text = r#"(module
        (import "wasi_snapshot_preview1" "path_open"
            (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (data (i32.const 64) "data/new")
        (func (export "_start")
            (call $exit (call $open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 8)
                (i32.const 1) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 0)))))"#;
    const ROFS: u8 = 69;
    block_on(async {
        for (mode, code) in [("rw", 0), ("ro", ROFS)] {
            let volume = tempfile::tempdir().unwrap();
            // Somebody else's folder: root in the container gets in by CAP_DAC_OVERRIDE.
            std::os::unix::fs::chown(volume.path(), Some(4711), Some(4711)).unwrap();
            let mut bundle = Bundle::new();
            bundle.mount(bind(volume.path(), "/data", &["rbind", mode]));
            let mut guest = bundle.run(text, Stdio::default()).await.unwrap();
            assert_eq!(guest.wait().await.exit, Exit::Code(code), "{mode}");
            assert_eq!(volume.path().join("new").exists(), mode == "rw");
            guest.cleanup().await.unwrap();
            bundle.assert_clean();
        }
    });
}
