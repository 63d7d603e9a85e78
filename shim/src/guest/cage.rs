//! The cage of a program that the runner runs itself: what a WebAssembly guest could do if it got out of
//! the engine and owned its process.
//!
//! Once its code is mapped it needs files that are given to it, sockets, clocks, memory without execution, and
//! threads. All else fails with `EPERM`, from now on and for ever: no new program, process, namespace,
//! mount or key, no other process looked at, no executable memory, no device. An error rather than a
//! death, since a call that a library tries in vain must not end a program, and for one who has broken
//! out it makes no difference. Landlock, where the kernel has it, says the same of files once more: below
//! the container's root all but execution, devices and their ioctls.

use std::os::fd::BorrowedFd;

use coracle_oci::spec::{Seccomp, SeccompAction};
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope,
};
use libc::sock_filter;
use syscalls::Sysno;

use super::filter::{self, Call, OWN_PID, Rule, any, is, only, without};
use super::runner::{Act, Failure};
use super::sys;

/// What a new thread shares with its process.
const THREAD: u32 = libc::CLONE_THREAD as u32;

/// What WASI, the engine and the C library use once a program is loaded. On other architectures than x86-64
/// there are no older twins of calls.
const WASM: [Call; WASM_COUNT] = filter::sorted([
    // Streams and files.
    any(libc::SYS_read),
    any(libc::SYS_write),
    any(libc::SYS_readv),
    any(libc::SYS_writev),
    any(libc::SYS_pread64),
    any(libc::SYS_pwrite64),
    any(libc::SYS_preadv),
    any(libc::SYS_pwritev),
    any(libc::SYS_preadv2),
    any(libc::SYS_pwritev2),
    any(libc::SYS_openat),
    any(libc::SYS_openat2),
    any(libc::SYS_close),
    any(libc::SYS_lseek),
    any(libc::SYS_fstat),
    any(libc::SYS_newfstatat),
    any(libc::SYS_statx),
    any(libc::SYS_fstatfs),
    any(libc::SYS_getdents64),
    any(libc::SYS_readlinkat),
    any(libc::SYS_mkdirat),
    any(libc::SYS_unlinkat),
    any(libc::SYS_linkat),
    any(libc::SYS_symlinkat),
    any(libc::SYS_renameat),
    any(libc::SYS_renameat2),
    any(libc::SYS_utimensat),
    any(libc::SYS_ftruncate),
    any(libc::SYS_fallocate),
    any(libc::SYS_fadvise64),
    any(libc::SYS_fsync),
    any(libc::SYS_fdatasync),
    any(libc::SYS_pipe2),
    only(
        libc::SYS_fcntl,
        &[&[
            is(1, libc::F_DUPFD_CLOEXEC as u32),
            is(1, libc::F_GETFD as u32),
            is(1, libc::F_SETFD as u32),
            is(1, libc::F_GETFL as u32),
            is(1, libc::F_SETFL as u32),
        ]],
    ),
    only(
        libc::SYS_ioctl,
        &[&[
            is(1, libc::FIONBIO as u32),
            is(1, libc::FIONREAD as u32),
            is(1, libc::TCGETS as u32),
            is(1, libc::TIOCGWINSZ as u32),
        ]],
    ),
    any(libc::SYS_ppoll),
    any(libc::SYS_eventfd2),
    any(libc::SYS_timerfd_create),
    any(libc::SYS_timerfd_settime),
    // Sockets: what arrives is bounded by the network namespace, and by the program's policy above.
    only(
        libc::SYS_socket,
        &[
            &[is(0, libc::AF_INET as u32), is(0, libc::AF_INET6 as u32)],
            &[kind(libc::SOCK_STREAM), kind(libc::SOCK_DGRAM)],
        ],
    ),
    any(libc::SYS_connect),
    any(libc::SYS_bind),
    any(libc::SYS_listen),
    any(libc::SYS_accept4),
    any(libc::SYS_getsockname),
    any(libc::SYS_getpeername),
    any(libc::SYS_getsockopt),
    any(libc::SYS_setsockopt),
    any(libc::SYS_sendto),
    any(libc::SYS_recvfrom),
    any(libc::SYS_sendmsg),
    any(libc::SYS_recvmsg),
    any(libc::SYS_shutdown),
    // Memory, never to be executed: the code is mapped by now.
    only(libc::SYS_mmap, &[&[without(2, libc::PROT_EXEC as u32)]]),
    only(libc::SYS_mprotect, &[&[without(2, libc::PROT_EXEC as u32)]]),
    any(libc::SYS_munmap),
    any(libc::SYS_mremap),
    any(libc::SYS_madvise),
    any(libc::SYS_brk),
    // Threads, no processes. The flags of `clone3` are in memory, where no filter sees them; the C
    // library takes `clone` where it does not exist.
    only(libc::SYS_clone, &[&[filter::Test { argument: 0, mask: THREAD, value: THREAD }]]),
    Call { number: libc::SYS_clone3 as u32, rule: Rule::Refuse(libc::ENOSYS as u32) },
    any(libc::SYS_futex),
    any(libc::SYS_set_robust_list),
    any(libc::SYS_rseq),
    any(libc::SYS_sched_yield),
    // The C library asks it of each thread, by its number, when it looks for the thread's stack.
    any(libc::SYS_sched_getaffinity),
    any(libc::SYS_gettid),
    any(libc::SYS_getpid),
    any(libc::SYS_exit),
    any(libc::SYS_exit_group),
    only(libc::SYS_prctl, &[&[is(0, libc::PR_SET_NAME as u32)]]),
    // Signals: traps are some, and a program may end itself by one.
    any(libc::SYS_rt_sigaction),
    any(libc::SYS_rt_sigprocmask),
    any(libc::SYS_rt_sigreturn),
    any(libc::SYS_sigaltstack),
    any(libc::SYS_restart_syscall),
    only(libc::SYS_tgkill, &[&[is(0, OWN_PID)]]),
    any(libc::SYS_setitimer),
    // Clocks, random numbers, and what the process itself may have.
    any(libc::SYS_clock_gettime),
    any(libc::SYS_clock_getres),
    any(libc::SYS_clock_nanosleep),
    any(libc::SYS_nanosleep),
    any(libc::SYS_getrandom),
    only(libc::SYS_prlimit64, &[&[is(0, 0), is(0, OWN_PID)], &[is(2, 0)]]),
    #[cfg(target_arch = "x86_64")]
    any(libc::SYS_poll),
    #[cfg(target_arch = "x86_64")]
    any(libc::SYS_open),
]);
#[cfg(target_arch = "x86_64")]
const WASM_COUNT: usize = 86;
#[cfg(not(target_arch = "x86_64"))]
const WASM_COUNT: usize = 84;

/// The toolbox acts on other processes of its container, as its host's functions let it.
const TOOLBOX: [Call; WASM_COUNT + 3] = {
    let mut all = [any(libc::SYS_kill); WASM_COUNT + 3];
    let mut n = 0;
    while n < WASM_COUNT {
        all[n] = WASM[n];
        n += 1;
    }
    all[n] = any(libc::SYS_rt_tgsigqueueinfo);
    all[n + 1] = any(libc::SYS_statfs);
    filter::sorted(all)
};

/// What the built-in sleeper uses.
const PAUSE: [Call; 13] = filter::sorted([
    any(libc::SYS_rt_sigtimedwait),
    any(libc::SYS_wait4),
    any(libc::SYS_rt_sigprocmask),
    any(libc::SYS_rt_sigreturn),
    any(libc::SYS_sigaltstack),
    any(libc::SYS_restart_syscall),
    any(libc::SYS_brk),
    any(libc::SYS_munmap),
    only(libc::SYS_mmap, &[&[without(2, libc::PROT_EXEC as u32)]]),
    any(libc::SYS_write),
    any(libc::SYS_sendto),
    any(libc::SYS_close),
    any(libc::SYS_exit_group),
]);

const WASM_PROGRAM: [sock_filter; filter::length(&WASM)] = filter::program(&WASM);
const TOOLBOX_PROGRAM: [sock_filter; filter::length(&TOOLBOX)] = filter::program(&TOOLBOX);
const PAUSE_PROGRAM: [sock_filter; filter::length(&PAUSE)] = filter::program(&PAUSE);

/// Sockets of a type, whatever flags come with it.
const fn kind(kind: i32) -> filter::Test {
    filter::Test { argument: 1, mask: 0xf, value: kind as u32 }
}

/// Whose cage it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A program of an image.
    Wasm,
    /// The shim's own toolbox.
    Toolbox,
}

/// Closes the cage around a WebAssembly program that is loaded. Threads must not exist yet.
pub(super) fn close_around_wasm(kind: Kind) -> Result<(), Failure> {
    match kind {
        Kind::Wasm => install(&WASM_PROGRAM),
        Kind::Toolbox => install(&TOOLBOX_PROGRAM),
    }
}

/// Closes the cage around the sleeper.
pub(super) fn close_around_pause() -> Result<(), Failure> {
    install(&PAUSE_PROGRAM)
}

fn install<const N: usize>(program: &[sock_filter; N]) -> Result<(), Failure> {
    let pid = rustix::process::getpid().as_raw_pid().unsigned_abs();
    let program = filter::for_process(program, pid);
    sys::kernel::seccomp(&program, 0).act("install", "the filter of system calls")
}

/// Confines a program's files to those below `root`, as far as the kernel knows Landlock: it comes on top
/// of the container's own file system view, so that a kernel without it is no reason not to start.
pub(super) fn confine_files(root: BorrowedFd<'_>, kind: Kind) -> Result<(), Failure> {
    restrict(root, kind)
        .map_err(|error| Failure::new(format!("cannot confine the program's files: {error}")))
}

fn restrict(root: BorrowedFd<'_>, kind: Kind) -> Result<(), RulesetError> {
    let handled = AccessFs::from_all(ABI::V6);
    let never: BitFlags<AccessFs> =
        AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
    // Processes outside of it are those of the container that the toolbox is to act on.
    let scopes = match kind {
        Kind::Wasm => Scope::from_all(ABI::V6),
        Kind::Toolbox => Scope::AbstractUnixSocket.into(),
    };
    Ruleset::default()
        // Before Linux 5.19 Landlock forbids every move from one folder to another, which programs may do:
        // then it is left out as a whole.
        .set_compatibility(CompatLevel::SoftRequirement)
        .handle_access(AccessFs::Refer)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(handled)?
        .scope(scopes)?
        .create()?
        // It is set already.
        .no_new_privs(false)
        .add_rule(PathBeneath::new(root, handled & !never))?
        .restrict_self()?;
    Ok(())
}

/// Whether a profile of the spec lets happen whatever the cage does: then it would add nothing.
pub(super) fn is_within(profile: &Seccomp) -> bool {
    let mut allowed = [matches!(profile.default, SeccompAction::Allow); WASM_COUNT];
    let mut forbidden = [false; WASM_COUNT];
    for rule in &profile.rules {
        for name in &rule.names {
            let number = name.parse::<Sysno>().ok().and_then(|call| u32::try_from(call.id()).ok());
            let at = number.and_then(|n| WASM.binary_search_by_key(&n, |call| call.number).ok());
            let Some(at) = at else { continue };
            if rule.action != SeccompAction::Allow {
                forbidden[at] = true;
            } else if samples(&WASM[at]).iter().all(|arguments| rule.applies(arguments)) {
                allowed[at] = true;
            }
        }
    }
    let refused = |call: &Call| matches!(call.rule, Rule::Refuse(_));
    (0..WASM_COUNT).all(|at| refused(&WASM[at]) || allowed[at] && !forbidden[at])
}

/// Arguments with which the cage lets a call happen.
fn samples(call: &Call) -> Vec<[u64; 6]> {
    let one = |first: i32, second: i32| [first as u64, second as u64, 0, 0, 0, 0];
    match i64::from(call.number) {
        libc::SYS_clone => vec![one(0x7d_0f00, 0)],
        libc::SYS_socket => [libc::AF_INET, libc::AF_INET6]
            .into_iter()
            .flat_map(|family| [one(family, libc::SOCK_STREAM), one(family, libc::SOCK_DGRAM)])
            .collect(),
        // A rule with conditions is not taken to hold for all.
        _ => vec![[0; 6], [u64::MAX; 6]],
    }
}

#[cfg(test)]
mod tests;
