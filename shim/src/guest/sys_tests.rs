//! The launch itself, with a program of the host in place of the runner.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rustix::fs::{Mode, OFlags};

use super::*;

fn high(fd: impl AsFd) -> OwnedFd {
    rustix::io::fcntl_dupfd_cloexec(fd, FIRST_SAFE_FD).unwrap()
}

fn open(path: &str, flags: OFlags) -> OwnedFd {
    high(rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap())
}

/// Launches `program` in the given cgroup v2 folder and tries to release it.
fn launch(
    program: &str,
    arguments: &[&CStr],
    cgroup: Option<BorrowedFd<'_>>,
) -> (Launched, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (theirs, null) = (high(theirs), open("/dev/null", OFlags::RDWR));
    let executable = open(program, OFlags::RDONLY);
    let launch = Launch {
        new_namespaces: 0,
        joins: &[],
        intermediate: false,
        cgroup_v2: cgroup,
        cgroup_v1: &[],
        stdio: [null.as_fd(); 3],
        channel: theirs.as_fd(),
        executable: executable.as_fd(),
        arguments,
        become_root: false,
    };
    (launch.clone_and_exec().unwrap(), ours)
}

fn end(launched: &Launched) -> rustix::process::WaitIdStatus {
    let id = rustix::process::WaitId::PidFd(launched.pidfd.as_fd());
    let options = rustix::process::WaitIdOptions::EXITED;
    rustix::process::waitid(id, options).unwrap().unwrap()
}

/// A mounted cgroup v2, with or without controllers.
fn unified() -> Option<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.split(' ').nth(4).map(str::to_owned)
}

#[test]
fn a_process_is_born_in_its_cgroup_and_waits_for_its_release() {
    let unified = unified().expect("a machine with cgroup2 mounted somewhere");
    let dir = format!("{unified}/coracle-launch-{}", std::process::id());
    std::fs::create_dir(&dir).unwrap();
    let folder = open(&dir, OFlags::RDONLY | OFlags::DIRECTORY);
    let (launched, mut ours) = launch("/bin/sleep", &[c"sleep", c"60"], Some(folder.as_fd()));
    let members = std::fs::read_to_string(format!("{dir}/cgroup.procs")).unwrap();
    let own = std::fs::read_link(format!("/proc/{}/exe", launched.pid)).unwrap();
    ours.write_all(&[1]).unwrap();
    let begun = std::time::Instant::now();
    while std::fs::read_to_string(format!("/proc/{}/cmdline", launched.pid)).unwrap()
        != "sleep\x0060\0"
    {
        assert!(begun.elapsed().as_secs() < 10);
    }
    let open: Vec<_> = std::fs::read_dir(format!("/proc/{}/fd", launched.pid))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    pidfd_send_signal(launched.pidfd.as_fd(), libc::SIGKILL).unwrap();
    assert_eq!(end(&launched).terminating_signal(), Some(libc::SIGKILL));
    std::fs::remove_dir(&dir).unwrap();
    assert_eq!(members, format!("{}\n", launched.pid));
    assert_eq!(own, std::env::current_exe().unwrap());
    assert_eq!(open.len(), 4, "{open:?}");
}

#[test]
fn a_failure_before_the_runner_is_told_in_words() {
    let (launched, mut ours) = launch("/etc/passwd", &[c"x"], None);
    ours.write_all(&[1]).unwrap();
    let mut frame = Vec::new();
    ours.read_to_end(&mut frame).unwrap();
    assert_eq!(end(&launched).exit_status(), Some(1));
    let (header, body) = frame.split_first_chunk().unwrap();
    assert_eq!(u32::from_le_bytes(*header), EARLY_FRAME | EARLY_LEN as u32);
    let text = super::super::early::EarlyFailure::from_bytes(body.try_into().unwrap()).to_string();
    assert!(text.contains("cannot execute the shim's own binary"), "{text}");
    assert!(text.contains("Permission denied"), "{text}");
}

#[test]
fn a_process_that_is_never_released_leaves() {
    let (launched, ours) = launch("/bin/sleep", &[c"sleep", c"60"], None);
    drop(ours);
    assert_eq!(end(&launched).exit_status(), Some(1));
}
