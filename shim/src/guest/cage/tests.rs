//! What is refused and what is let through, asked of the kernel.

use super::*;
use std::os::fd::AsFd;
use std::path::Path;

use sys::kernel::raw;

/// Runs something in a thread of its own, which a filter then holds for the rest of its life.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

/// What an intruder who owns the process would try: each with an error, none done.
#[test]
fn ways_out_are_closed() {
    const NONE: [u64; 6] = [0; 6];
    let first = |value: i32| [value as u64, 0, 0, 0, 0, 0];
    let second = |value: u64| [0, value, 0, 0, 0, 0];
    let socket = |family: i32, kind: i32| [family as u64, kind as u64, 0, 0, 0, 0];
    let attempts = [
        // Programs and processes.
        (libc::SYS_execve, NONE),
        (libc::SYS_execveat, NONE),
        (libc::SYS_clone, first(libc::SIGCHLD)),
        (libc::SYS_clone, first(libc::CLONE_NEWUSER)),
        (libc::SYS_ptrace, NONE),
        (libc::SYS_process_vm_readv, first(1)),
        (libc::SYS_process_vm_writev, first(1)),
        (libc::SYS_kill, first(1)),
        (libc::SYS_tkill, first(1)),
        (libc::SYS_tgkill, first(1)),
        (libc::SYS_pidfd_open, first(1)),
        (libc::SYS_pidfd_getfd, NONE),
        (libc::SYS_pidfd_send_signal, NONE),
        (libc::SYS_prlimit64, first(1)),
        // Namespaces and mounts.
        (libc::SYS_setns, NONE),
        (libc::SYS_unshare, first(libc::CLONE_NEWUSER)),
        (libc::SYS_mount, NONE),
        (libc::SYS_umount2, NONE),
        (libc::SYS_pivot_root, NONE),
        (libc::SYS_chroot, NONE),
        (libc::SYS_fsopen, NONE),
        (libc::SYS_open_tree, NONE),
        (libc::SYS_move_mount, NONE),
        (libc::SYS_mount_setattr, NONE),
        (libc::SYS_open_by_handle_at, NONE),
        // The kernel's doors.
        (libc::SYS_bpf, NONE),
        (libc::SYS_userfaultfd, NONE),
        (libc::SYS_io_uring_setup, NONE),
        (libc::SYS_perf_event_open, NONE),
        (libc::SYS_keyctl, NONE),
        (libc::SYS_add_key, NONE),
        (libc::SYS_init_module, NONE),
        (libc::SYS_finit_module, NONE),
        (libc::SYS_seccomp, NONE),
        // Identity.
        (libc::SYS_setuid, NONE),
        (libc::SYS_setresuid, NONE),
        (libc::SYS_capset, NONE),
        (libc::SYS_personality, NONE),
        (libc::SYS_prctl, first(libc::PR_SET_DUMPABLE)),
        (libc::SYS_prlimit64, [0, 7, 1, 0, 0, 0]),
        // Executable memory.
        (libc::SYS_mmap, [0, 4096, 5, 0x22, u64::MAX, 0]),
        (libc::SYS_mprotect, [0, 4096, 5, 0, 0, 0]),
        (libc::SYS_pkey_mprotect, [0, 4096, 5, 0, 0, 0]),
        (libc::SYS_memfd_create, NONE),
        // Devices, terminals, other families of sockets.
        (libc::SYS_mknodat, [u64::MAX, 0, libc::S_IFCHR.into(), 0, 0, 0]),
        (libc::SYS_ioctl, second(libc::TIOCSTI)),
        (libc::SYS_socket, socket(libc::AF_UNIX, libc::SOCK_STREAM)),
        (libc::SYS_socket, socket(libc::AF_NETLINK, libc::SOCK_DGRAM)),
        (libc::SYS_socket, socket(libc::AF_INET, libc::SOCK_RAW)),
        (libc::SYS_socket, socket(libc::AF_PACKET, libc::SOCK_DGRAM)),
        (libc::SYS_fcntl, second(libc::F_SETOWN as u64)),
    ];
    let (answers, threads, code) = apart(|| {
        close_around_wasm(Kind::Wasm).unwrap();
        let answers: Vec<_> = attempts.map(|(call, args)| raw(call, args)).into();
        (answers, raw(libc::SYS_clone3, NONE), raw(libc::SYS_getpid, NONE))
    });
    for ((call, args), answer) in attempts.iter().zip(answers) {
        assert_eq!(answer, -i64::from(libc::EPERM), "{:?} {args:?}", name(*call));
    }
    assert_eq!(threads, -i64::from(libc::ENOSYS));
    assert!(code > 0);
}

fn name(call: i64) -> Option<Sysno> {
    Sysno::new(usize::try_from(call).unwrap())
}

#[test]
fn a_new_thread_is_in_the_cage_too() {
    let answer = apart(|| {
        close_around_wasm(Kind::Wasm).unwrap();
        std::thread::spawn(|| raw(libc::SYS_unshare, [0; 6])).join().unwrap()
    });
    assert_eq!(answer, -i64::from(libc::EPERM));
}

#[test]
fn files_are_those_below_the_root_and_none_is_executed_or_a_device() {
    let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("secret"), "x").unwrap();
    std::fs::copy("/bin/true", inside.path().join("true")).unwrap();
    let root = std::fs::File::open(inside.path()).unwrap();
    let (within, beyond) = (inside.path().to_owned(), outside.path().to_owned());
    let denied = |result: std::io::Result<()>| {
        result.unwrap_err().kind() == std::io::ErrorKind::PermissionDenied
    };
    apart(move || {
        confine_files(root.as_fd(), Kind::Wasm).unwrap();
        std::fs::create_dir(within.join("sub")).unwrap();
        std::fs::write(within.join("sub/a"), "a").unwrap();
        std::fs::rename(within.join("sub/a"), within.join("b")).unwrap();
        assert_eq!(std::fs::read_to_string(within.join("b")).unwrap(), "a");
        assert!(denied(std::fs::read(beyond.join("secret")).map(drop)));
        assert!(denied(std::fs::write(beyond.join("new"), "")));
        assert!(denied(std::process::Command::new(within.join("true")).status().map(drop)));
        let node = |path: &Path| {
            let kind = rustix::fs::FileType::CharacterDevice;
            let null = rustix::fs::makedev(1, 3);
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, null)
        };
        assert_eq!(node(&within.join("null")), Err(rustix::io::Errno::ACCESS));
    });
}

fn profile(text: serde_json::Value) -> Seccomp {
    let dir = tempfile::tempdir().unwrap();
    let spec = serde_json::json!({
        "ociVersion": "1.1.0",
        "process": { "args": ["/a"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
        "root": { "path": "rootfs" },
        "linux": { "seccomp": text },
    });
    std::fs::write(dir.path().join("config.json"), spec.to_string()).unwrap();
    coracle_oci::spec::load(dir.path()).unwrap().seccomp.unwrap()
}

#[test]
fn a_profile_that_forbids_nothing_of_the_cage_need_not_be_installed() {
    let all = |except: &[&str]| {
        let names = WASM.iter().map(|call| name(call.number.into()).unwrap().name());
        names.filter(|name| !except.contains(name)).collect::<Vec<_>>()
    };
    let with = |except: &[&str], more: serde_json::Value| {
        let mut calls = vec![serde_json::json!(
            { "names": all(except), "action": "SCMP_ACT_ALLOW" }
        )];
        calls.extend(more.as_array().unwrap().iter().cloned());
        let text = serde_json::json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": calls });
        is_within(&profile(text))
    };
    let none = serde_json::json!([]);
    assert!(with(&[], none.clone()));
    assert!(with(&["clone3"], none.clone()), "the cage forbids it as well");
    assert!(!with(&["socket"], none.clone()) && !with(&["clone"], none));
    // As Docker has them.
    let docker = serde_json::json!([
        { "names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
            { "index": 0, "value": 2_114_060_288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" },
        ] },
        { "names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [
            { "index": 0, "value": 40, "op": "SCMP_CMP_NE" },
        ] },
        { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
    ]);
    assert!(with(&["clone", "socket", "clone3"], docker));
    let forbids = serde_json::json!([{ "names": ["openat"], "action": "SCMP_ACT_TRAP" }]);
    assert!(!with(&[], forbids));
    let open = serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW" });
    assert!(is_within(&profile(open)));
}

/// What functions of rustix and nix, by which WASI's host reaches the kernel, come down to. Those that are
/// not here only work on what is in memory already.
const FUNCTIONS: &[(&str, &[i64])] = &[
    ("accept_with", &[libc::SYS_accept4]),
    ("bind", &[libc::SYS_bind]),
    ("clock_getres", &[libc::SYS_clock_getres]),
    ("clock_gettime", &[libc::SYS_clock_gettime]),
    ("connect", &[libc::SYS_connect]),
    ("eventfd", &[libc::SYS_eventfd2]),
    ("fadvise", &[libc::SYS_fadvise64]),
    ("fallocate", &[libc::SYS_fallocate]),
    ("fcntl_getfl", &[libc::SYS_fcntl]),
    ("fcntl_setfl", &[libc::SYS_fcntl]),
    ("fdatasync", &[libc::SYS_fdatasync]),
    ("fstat", &[libc::SYS_fstat]),
    ("fsync", &[libc::SYS_fsync]),
    ("ftruncate", &[libc::SYS_ftruncate]),
    ("futimens", &[libc::SYS_utimensat]),
    ("getpeername", &[libc::SYS_getpeername]),
    ("getpid", &[libc::SYS_getpid]),
    ("getrandom", &[libc::SYS_getrandom]),
    ("getrlimit", &[libc::SYS_prlimit64]),
    ("getsockname", &[libc::SYS_getsockname]),
    ("getsockopt", &[libc::SYS_getsockopt]),
    ("gettid", &[libc::SYS_gettid]),
    ("ioctl_fionbio", &[libc::SYS_ioctl]),
    ("ioctl_fionread", &[libc::SYS_ioctl]),
    ("isatty", &[libc::SYS_ioctl]),
    ("linkat", &[libc::SYS_linkat]),
    ("listen", &[libc::SYS_listen]),
    ("mkdirat", &[libc::SYS_mkdirat]),
    ("open", &[libc::SYS_openat]),
    ("openat", &[libc::SYS_openat]),
    ("openat2", &[libc::SYS_openat2]),
    ("poll", &[libc::SYS_ppoll]),
    ("pread", &[libc::SYS_pread64]),
    ("preadv", &[libc::SYS_preadv]),
    ("pwrite", &[libc::SYS_pwrite64]),
    ("pwritev", &[libc::SYS_pwritev]),
    ("pwritev2", &[libc::SYS_pwritev2]),
    ("read", &[libc::SYS_read]),
    ("readlinkat_raw", &[libc::SYS_readlinkat]),
    ("readv", &[libc::SYS_readv]),
    ("recv", &[libc::SYS_recvfrom]),
    ("recvmsg", &[libc::SYS_recvmsg]),
    ("renameat", &[libc::SYS_renameat, libc::SYS_renameat2]),
    ("sched_yield", &[libc::SYS_sched_yield]),
    ("seek", &[libc::SYS_lseek]),
    ("send", &[libc::SYS_sendto]),
    ("sendmsg", &[libc::SYS_sendmsg]),
    ("sendmsg_addr", &[libc::SYS_sendmsg]),
    ("setsockopt", &[libc::SYS_setsockopt]),
    ("shutdown", &[libc::SYS_shutdown]),
    ("socket_acceptconn", &[libc::SYS_getsockopt]),
    ("socket_type", &[libc::SYS_getsockopt]),
    ("socket_with", &[libc::SYS_socket]),
    ("sockopt", &[libc::SYS_getsockopt, libc::SYS_setsockopt]),
    ("statat", &[libc::SYS_newfstatat, libc::SYS_statx]),
    ("symlinkat", &[libc::SYS_symlinkat]),
    ("tell", &[libc::SYS_lseek]),
    ("timerfd_create", &[libc::SYS_timerfd_create]),
    ("timerfd_settime", &[libc::SYS_timerfd_settime]),
    ("unlinkat", &[libc::SYS_unlinkat]),
    ("utimensat", &[libc::SYS_utimensat]),
    ("write", &[libc::SYS_write]),
    ("writev", &[libc::SYS_writev]),
    // Of no call, or of those above again.
    ("as", &[]),
    ("more", &[]),
    ("retry_on_intr", &[]),
    ("stderr", &[]),
    ("stdin", &[]),
    ("stdout", &[]),
];

/// Names in lower case that a file takes from rustix and nix; modules are none.
fn functions(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let uses = text.split(';').filter_map(|part| {
        let at = part.rfind("use ")?;
        let names = part.get(at + 4..)?.trim();
        ["rustix::", "nix::"].iter().any(|from| names.starts_with(from)).then_some(names)
    });
    let mut all = Vec::new();
    for names in uses {
        let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':');
        let names = names.split(word).filter(|name| !name.ends_with(':') && !name.is_empty());
        all.extend(names.map(|name| name.rsplit("::").next().unwrap().to_owned()));
    }
    for call in text.split("rustix::").skip(1) {
        let path: String = call
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'))
            .collect();
        if call[path.len()..].starts_with('(') {
            all.push(path.rsplit("::").next().unwrap().to_owned());
        }
    }
    all.retain(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
    all
}

fn sources(folder: &Path, all: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let test = path.file_stem().is_some_and(|name| name == "tests");
        if path.is_dir() && !test {
            sources(&path, all);
        } else if path.extension().is_some_and(|end| end == "rs") && !test {
            all.push(path);
        }
    }
}

/// Whoever makes WASI call something new learns here that the cage must know.
#[test]
fn what_wasi_calls_is_in_the_list() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/src/wasi"), &mut files);
    let mut seen = 0;
    for file in &files {
        for function in functions(&std::fs::read_to_string(file).unwrap()) {
            let known = FUNCTIONS.iter().find(|(name, _)| *name == function);
            let Some((_, calls)) = known else {
                panic!("{}: which system calls does {function} make?", file.display());
            };
            for call in *calls {
                let listed = WASM.iter().any(|one| i64::from(one.number) == *call);
                assert!(listed, "{}: {function} makes {:?}", file.display(), name(*call));
                seen += 1;
            }
        }
    }
    assert!(seen > 50, "only {seen} calls were found: the test looks for them wrongly");
}
