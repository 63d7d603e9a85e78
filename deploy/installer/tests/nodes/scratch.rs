//! A scratch node: a namespace of its own whose file system is this machine's with a layer above it that is thrown away, so
//! that all paths are those of a node and nothing of the machine changes. The containerd in it is a real one.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chroot, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// What a machine may have and a fresh node has not.
const NOT_THERE: [&str; 10] = [
    "/etc/containerd",
    "/etc/k0s",
    "/opt/coracle",
    "/var/lib/coracle",
    "/var/lib/rancher",
    "/var/lib/k0s",
    "/var/snap",
    "/snap",
    "/usr/bin/containerd",
    "/usr/local/bin/containerd",
];

/// Stand-ins for our programs, which the installer only copies.
pub(crate) const SOURCES: &str = "/srv/coracle";

/// Runs a test on a scratch node of its own.
pub(crate) fn on_a_node(test: impl FnOnce() + Send) {
    // Out here, where its path means the folder also when it is removed.
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            enter(folder.path());
            test();
        });
        if let Err(panic) = run.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn enter(folder: &Path) {
    // Only of this thread, which by that has a root and a working directory of its own, too.
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
    tmpfs(folder);
    let at = |name: &str| folder.join(name);
    for name in ["upper", "work", "root"] {
        fs::create_dir(at(name)).unwrap();
    }
    let (upper, work, root) = (at("upper"), at("work"), at("root"));
    let options = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .unwrap();
    for name in ["proc", "sys", "dev"] {
        let from = Path::new("/").join(name);
        mount(
            Some(&from),
            &root.join(name),
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )
        .unwrap();
    }
    chroot(&root).unwrap();
    std::env::set_current_dir("/").unwrap();
    tmpfs(Path::new("/run"));
    for path in NOT_THERE {
        let path = Path::new(path);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else if path.symlink_metadata().is_ok() {
            fs::remove_file(path).unwrap();
        }
    }
    // An overlay can be no layer of another, which snapshots are.
    fs::create_dir_all("/var/lib/containerd").unwrap();
    tmpfs(Path::new("/var/lib/containerd"));
    write_sources("first");
}

pub(crate) fn tmpfs(path: &Path) {
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
}

/// Makes a path read-only.
pub(crate) fn read_only(path: &str) {
    fs::create_dir_all(path).unwrap();
    mount(Some(path), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(Some(path), path, None::<&str>, flags, None::<&str>).unwrap();
}

/// Programs of some release.
pub(crate) fn write_sources(release: &str) {
    fs::create_dir_all(SOURCES).unwrap();
    for name in ["containerd-shim-wasm-v1", "coracle", "coracle-node"] {
        write(&format!("{SOURCES}/{name}"), &format!("#!/bin/sh\necho {name} {release}\n"));
    }
}

pub(crate) fn write(path: &str, text: &str) {
    fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

pub(crate) fn link(target: &Path, path: &str) {
    fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
    symlink(target, path).unwrap();
}

/// All files below the folders that an installation may touch, with their bytes and modes.
pub(crate) fn tree() -> Vec<(PathBuf, u32, Vec<u8>)> {
    let folders = [
        "/etc/containerd",
        "/etc/k0s",
        "/opt/coracle",
        "/var/lib/coracle",
        "/var/snap/microk8s/current/args",
        "/var/lib/rancher/k3s/agent/etc",
        "/var/lib/rancher/rke2/agent/etc",
        "/usr/local/bin",
    ];
    let mut out = Vec::new();
    for folder in folders {
        walk(Path::new(folder), &mut out);
    }
    out.sort();
    out
}

fn walk(path: &Path, out: &mut Vec<(PathBuf, u32, Vec<u8>)>) {
    let Ok(meta) = path.symlink_metadata() else { return };
    let bytes = if meta.is_file() { fs::read(path).unwrap() } else { Vec::new() };
    out.push((path.to_owned(), meta.permissions().mode(), bytes));
    if meta.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| walk(&entry.unwrap().path(), out));
    }
}
