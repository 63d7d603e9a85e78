//! The cage of the compile worker: what it takes from itself before it looks at the first byte.
//!
//! It starts as root, since only root can make an empty world on every kernel, and ends as nobody in
//! namespaces of its own, without a file system, a network, a capability, or a way to get one. What is
//! left are the descriptors and limits that it was started with, memory, threads and [about forty
//! system calls](ALLOWED). Whatever cannot be taken away is an error: nothing is compiled then.
//!
//! There is no user namespace, which some kernels forbid, and no pid namespace, which would take a
//! second process: without a capability and the calls that look at processes both would guard nothing.

use std::collections::BTreeMap;
use std::io;

use anyhow::{Context, Result, ensure};
use caps::CapSet;
use nix::sched::CloneFlags;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{DumpableBehavior, Gid, Signal, Uid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// The uid and gid of nobody.
const NOBODY: u32 = 65534;
/// A folder that is on every node, to put the empty root on; the old root is gone afterwards.
const PLACE: &str = "/proc";

/// What is done in the cage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Nothing is executed but the compiler.
    Compile,
    /// Code is mapped and executed that comes with the image.
    Run,
}

/// Enters the cage. No other thread may exist yet.
pub(super) fn enter(work: Work) -> Result<()> {
    let parent = rustix::process::getppid();
    let filter = filter(work).context("making the filter of system calls")?;
    close_others().context("closing what it was not given")?;
    empty_world().context("making namespaces without files and network, as only root can")?;
    become_nobody()?;
    // Changing ids has cleared it; whoever was to be noticed may have gone in between.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .context("tying its life to the shim's")?;
    ensure!(rustix::process::getppid() == parent, "the shim has ended");
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context("closing itself to debuggers")?;
    seccompiler::apply_filter(&filter).context("installing the filter of system calls")?;
    Ok(())
}

/// Closes all descriptors but the three, which the shim has done already.
fn close_others() -> io::Result<()> {
    let mut others = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        others.extend(number.filter(|number| *number > 2));
    }
    for number in others {
        // That of the folder is gone already.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

/// New namespaces, and nothing in them: no file, no device of a network but a loopback that is down.
fn empty_world() -> io::Result<()> {
    nix::sched::unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP,
    )?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    let bare = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("none", PLACE, "tmpfs", bare, c"size=4k,nr_inodes=2,mode=555")?;
    rustix::process::chdir(PLACE)?;
    // The old root lies on the new one for a moment: pivot_root(2), "pivot_root(".", ".")".
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    rustix::mount::mount_remount("/", bare | MountFlags::RDONLY, c"")?;
    Ok(())
}

fn become_nobody() -> Result<()> {
    // Dropping from the bounding set takes a right that the other ids do not have.
    caps::clear(None, CapSet::Bounding).context("dropping capabilities")?;
    caps::clear(None, CapSet::Ambient).context("dropping capabilities")?;
    rustix::thread::set_thread_groups(&[]).context("leaving all groups")?;
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    rustix::thread::set_thread_res_gid(gid, gid, gid).context("changing the group")?;
    // No other thread exists yet, and with the ids go the effective capabilities.
    rustix::thread::set_thread_res_uid(uid, uid, uid).context("changing the user")?;
    caps::clear(None, CapSet::Inheritable).context("dropping capabilities")?;
    rustix::thread::set_no_new_privs(true).context("forbidding new rights")?;
    Ok(())
}

/// What remains besides what [`filter`] allows in part. Everything else answers that it does not exist.
const ALLOWED: &[i64] = &[
    // The module, the image, one line of error; and what the standard library asks about them.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_lseek,
    // Under `--first` the image grows once, and a guest asks.
    libc::SYS_ftruncate,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_sendto,
    // Memory; executable memory is taken out below.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Threads.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Hash tables, time.
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
];

/// `prctl(2)`: the name of a thread.
const PR_SET_NAME: u64 = libc::PR_SET_NAME as u64;

fn filter(work: Work) -> Result<BpfProgram> {
    let anything = || Vec::new();
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|call| (*call, anything())).collect();
    // The third argument is the protection of the pages.
    let never = |protection: i32| masked(2, protection as u64, 0);
    rules.insert(libc::SYS_mmap, vec![never(libc::PROT_EXEC)?]);
    let mut protections = vec![never(libc::PROT_EXEC)?];
    if work == Work::Run {
        // Code is made executable when it is mapped: what is executable is not writable.
        protections.push(never(libc::PROT_WRITE)?);
        // The image's descriptor is kept with its mapping.
        rules.insert(libc::SYS_fcntl, vec![equal(1, libc::F_DUPFD_CLOEXEC as u64)?]);
    }
    rules.insert(libc::SYS_mprotect, protections);
    rules.insert(libc::SYS_prctl, vec![equal(0, PR_SET_NAME)?]);
    // Its own limits, which threads ask for; no other process's.
    rules.insert(libc::SYS_prlimit64, vec![equal(0, 0)?]);
    // An abort, for want of memory; no other process can be meant.
    let own = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
    rules.insert(libc::SYS_tgkill, vec![equal(0, own.into())?]);
    // New threads, never processes: `clone3` has its flags in memory, where no filter sees them, and
    // does not exist here; the C library uses `clone` then.
    rules.insert(
        libc::SYS_clone,
        vec![masked(0, libc::CLONE_THREAD as u64, libc::CLONE_THREAD as u64)?],
    );
    let allow = SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::ENOSYS as u32),
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?;
    Ok(BpfProgram::try_from(allow)?)
}

fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompRule> {
    condition(argument, SeccompCmpOp::MaskedEq(mask), value)
}

fn equal(argument: u8, value: u64) -> Result<SeccompRule> {
    condition(argument, SeccompCmpOp::Eq, value)
}

fn condition(argument: u8, how: SeccompCmpOp, value: u64) -> Result<SeccompRule> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, how, value)?;
    Ok(SeccompRule::new(vec![condition])?)
}
