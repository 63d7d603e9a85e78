//! Filters and rules that are handed to the kernel as programs.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use libc::{c_char, c_long, sock_filter};

use super::{Launched, clone_args, clone3};

/// Commands, a program type and an attach type of bpf(2); `linux/bpf.h`.
const BPF_PROG_LOAD: c_long = 5;
const BPF_PROG_ATTACH: c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs of other makers, and of groups above, go on being asked.
const BPF_F_ALLOW_MULTI: u32 = 2;

/// Installs a filter of system calls for this thread and those that it makes; see seccomp(2). Without
/// `no_new_privs` this takes `CAP_SYS_ADMIN`. `flags` are `SECCOMP_FILTER_FLAG_*` but none that gives back
/// a descriptor.
pub(in crate::guest) fn seccomp(program: &[sock_filter], flags: u64) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // The kernel reads it only.
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: a live struct that points to a live array of the length given; the kernel copies it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            ptr::from_ref(&program),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The part of `union bpf_attr` that loads a program without a log.
#[repr(C)]
struct Load {
    program_type: u32,
    instructions: u32,
    code: *const u64,
    license: *const c_char,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that attaches a program.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// Has a program of type `BPF_PROG_TYPE_CGROUP_DEVICE` decide on devices for a group of cgroup v2, as long
/// as that exists; see bpf(2). The kernel verifies the program.
pub(in crate::guest) fn limit_devices(group: BorrowedFd<'_>, code: &[u64]) -> io::Result<()> {
    let load = Load {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instructions: u32::try_from(code.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        code: code.as_ptr(),
        // It calls no function of the kernel, so it may have any.
        license: c"Apache-2.0".as_ptr(),
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    let loaded = bpf(BPF_PROG_LOAD, &load)?;
    let number = i32::try_from(loaded).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    let program = unsafe { OwnedFd::from_raw_fd(number) };
    let attach = Attach {
        target: group.as_raw_fd().unsigned_abs(),
        program: program.as_raw_fd().unsigned_abs(),
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &attach).map(drop)
}

fn bpf<T>(command: c_long, attributes: &T) -> io::Result<c_long> {
    // SAFETY: the private callers above give the struct of their command, live and with pointers to live
    // data of the lengths that it names; the kernel only reads it.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Makes a process in a user namespace of its own, which it only holds: kill it. It is a child of this
/// one, and ends with the calling thread.
pub(in crate::guest) fn hold_user_namespace() -> io::Result<Launched> {
    let mut pidfd = -1;
    let mut args = clone_args((libc::CLONE_NEWUSER | libc::CLONE_PIDFD) as u64, None);
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    match clone3(&args)? {
        0 => loop {
            // SAFETY: integers only; neither call touches memory of this copy of the process, and it never
            // goes on to anything else.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                libc::pause();
            }
        },
        pid => {
            // SAFETY: CLONE_PIDFD made the kernel store a new descriptor here, ours alone.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Launched { pid: pid as i32, pidfd })
        }
    }
}

/// Takes a session keyring of its own, so that the container's processes reach no key of the host's; see
/// keyctl(2). A kernel without keys has none to reach.
pub(in crate::guest) fn new_session_keyring() -> io::Result<()> {
    // KEYCTL_JOIN_SESSION_KEYRING, without a name: a new one.
    // SAFETY: an integer and a null pointer, which stands for no name.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, 1, ptr::null::<c_char>()) };
    match (result < 0).then(io::Error::last_os_error) {
        Some(error) if error.raw_os_error() != Some(libc::ENOSYS) => Err(error),
        _ => Ok(()),
    }
}

/// Makes a system call by its number, with arguments that stand for nothing in memory but null; gives what
/// the kernel gave.
#[cfg(test)]
pub(in crate::guest) fn raw(number: i64, arguments: [u64; 6]) -> i64 {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: for tests of calls that a filter refuses. Should one be made after all, its null pointers and
    // numbers make the kernel refuse it too, or change what only this test process has.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 {
        -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or_default())
    } else {
        result
    }
}
