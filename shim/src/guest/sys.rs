//! The shim's only unsafe code: the system calls that no safe wrapper covers.
//!
//! The main part is [`Launch::clone_and_exec`]. Between `clone3` and `execveat` the child is a copy of
//! one thread of a process that may have had others, so it must not allocate, lock or panic: all its
//! arguments are prepared before, and it uses nothing but plain system calls.

pub(super) mod kernel;

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{c_char, c_int, c_long, c_void};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub(super) mod query;

use super::early::{EARLY_FRAME, EARLY_LEN, Step};

/// The descriptor on which a guest process finds its channel to the shim.
pub(super) const CHANNEL_FD: RawFd = 3;

/// Lowest number for descriptors that the child still needs while it fills 0 to [`CHANNEL_FD`].
pub(super) const FIRST_SAFE_FD: RawFd = 10;

/// clone3(2); `libc` declares it with a type that is too narrow for its value.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct mount_attr` of mount_setattr(2).
#[derive(Debug)]
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// A namespace to join: an open namespace file and its `CLONE_NEW*` type.
#[derive(Debug)]
pub(super) struct Join {
    /// The namespace file.
    pub(super) file: OwnedFd,
    /// Its type, so that the kernel refuses a file of another kind.
    pub(super) kind: c_int,
}

/// Everything that the child touches before `execveat`, prepared by the parent.
///
/// Every descriptor must be numbered [`FIRST_SAFE_FD`] or above.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    /// `CLONE_NEW*` flags of the namespaces to create.
    pub(super) new_namespaces: u64,
    /// Namespaces to join; they need an intermediate process if `intermediate`.
    pub(super) joins: &'a [Join],
    /// Whether the joins include one that only takes effect on children (pid, time) or that must
    /// come before the creation of the new namespaces (user).
    pub(super) intermediate: bool,
    /// The cgroup v2 folder to be born in.
    pub(super) cgroup_v2: Option<BorrowedFd<'a>>,
    /// The cgroup v1 `tasks` files to enter.
    pub(super) cgroup_v1: &'a [OwnedFd],
    /// Standard input, output and error.
    pub(super) stdio: [BorrowedFd<'a>; 3],
    /// The guest's end of the channel.
    pub(super) channel: BorrowedFd<'a>,
    /// The shim's end of it, of which the child gets a copy.
    pub(super) peer: BorrowedFd<'a>,
    /// The executable.
    pub(super) executable: BorrowedFd<'a>,
    /// Its arguments. The environment is empty.
    pub(super) arguments: &'a [&'a CStr],
    /// Whether to take uid and gid 0 of a user namespace, once its mappings are written.
    pub(super) become_root: bool,
}

/// The process that [`Launch::clone_and_exec`] made, a direct child of the caller.
#[derive(Debug)]
pub(super) struct Launched {
    /// Its pid in the caller's pid namespace.
    pub(super) pid: i32,
    /// A pidfd for it.
    pub(super) pidfd: OwnedFd,
}

impl Launch<'_> {
    /// Creates the process. It waits for one byte on its channel before it takes an identity and
    /// executes, so that the caller can write id mappings first. See clone3(2).
    ///
    /// The kernel ties the child's death signal to the calling *thread*: call this on a thread that
    /// lives as long as the shim.
    pub(super) fn clone_and_exec(&self) -> io::Result<Launched> {
        let mut argv: Vec<*const c_char> = self.arguments.iter().map(|a| a.as_ptr()).collect();
        argv.push(ptr::null());
        if self.intermediate {
            return self.clone_through_intermediate(&argv);
        }
        let mut pidfd: c_int = -1;
        let mut args = clone_args(self.new_namespaces, self.cgroup_v2);
        args.flags |= libc::CLONE_PIDFD as u64;
        args.pidfd = &raw mut pidfd as u64;
        args.exit_signal = libc::SIGCHLD as u64;
        match clone3(&args)? {
            0 => self.child(&argv, true),
            pid => {
                // SAFETY: CLONE_PIDFD made the kernel store a new descriptor here, ours alone.
                let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
                Ok(Launched { pid: pid as i32, pidfd })
            }
        }
    }

    /// Joins in a short-lived process, which then creates the final one as its own sibling.
    fn clone_through_intermediate(&self, argv: &[*const c_char]) -> io::Result<Launched> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let mut middle_fd: c_int = -1;
        // Born in the cgroup, where its child then is too: within the namespaces that it joins, entering
        // may be forbidden.
        let mut args = clone_args(libc::CLONE_PIDFD as u64, self.cgroup_v2);
        args.pidfd = &raw mut middle_fd as u64;
        args.exit_signal = libc::SIGCHLD as u64;
        if clone3(&args)? == 0 {
            self.intermediate(argv, writer.as_raw_fd());
        }
        drop(writer);
        // SAFETY: as above, the kernel stored a new descriptor here.
        let middle = unsafe { OwnedFd::from_raw_fd(middle_fd) };
        let mut bytes = [0; size_of::<i32>()];
        let got = read_full(reader.as_fd(), &mut bytes);
        // The intermediate exits right after its write, so this does not block for long.
        let id = rustix::process::WaitId::PidFd(middle.as_fd());
        let options = rustix::process::WaitIdOptions::EXITED;
        rustix::io::retry_on_intr(|| rustix::process::waitid(id.clone(), options))?;
        if got? < bytes.len() {
            // The reason is on the channel.
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let pid = i32::from_le_bytes(bytes);
        let named = rustix::process::Pid::from_raw(pid)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        // Our own unreaped child, so the number cannot have been given to another process.
        let pidfd = rustix::process::pidfd_open(named, rustix::process::PidfdFlags::empty())?;
        Ok(Launched { pid, pidfd })
    }

    /// The intermediate process. Allocates nothing, never returns.
    fn intermediate(&self, argv: &[*const c_char], report: RawFd) -> ! {
        self.join_all();
        if self.joins.iter().any(|j| j.kind == libc::CLONE_NEWUSER) {
            self.take_root();
        }
        let mut args = clone_args(self.new_namespaces | libc::CLONE_PARENT as u64, None);
        // With CLONE_PARENT the signal is that of the intermediate; the kernel wants zero here.
        args.exit_signal = 0;
        match clone3(&args) {
            Ok(0) => self.child(argv, false),
            Ok(pid) => {
                let bytes = (pid as i32).to_le_bytes();
                // SAFETY: writes from a live local array of the given length; then leaves at once.
                unsafe {
                    libc::write(report, bytes.as_ptr().cast(), bytes.len());
                    libc::_exit(0)
                }
            }
            Err(_) => self.fail(Step::Clone),
        }
    }

    /// The new process until `execveat`. Allocates nothing, never returns.
    fn child(&self, argv: &[*const c_char], join: bool) -> ! {
        // As long as this is open here, the channel does not end with the shim, and the wait below neither.
        // SAFETY: an integer; nothing in this copy of the process uses the descriptor.
        unsafe { libc::close(self.peer.as_raw_fd()) };
        for tasks in self.cgroup_v1 {
            // SAFETY: writes one byte from a static array to a descriptor that is open.
            if unsafe { libc::write(tasks.as_raw_fd(), c"0".as_ptr().cast(), 1) } != 1 {
                self.fail(Step::EnterCgroup);
            }
        }
        if join {
            self.join_all();
        }
        let mut go = 0_u8;
        loop {
            // SAFETY: reads at most one byte into a live local.
            match unsafe { libc::read(self.channel.as_raw_fd(), (&raw mut go).cast(), 1) } {
                1 => break,
                -1 if errno() == libc::EINTR => {}
                // The shim is gone or gave up.
                // SAFETY: ends the process without running anything of the copied one.
                _ => unsafe { libc::_exit(1) },
            }
        }
        if self.become_root {
            self.take_root();
        }
        let [stdin, stdout, stderr] = self.stdio;
        for (target, source) in [stdin, stdout, stderr, self.channel].into_iter().enumerate() {
            // SAFETY: both numbers are descriptors; the sources are above every target.
            if unsafe { libc::dup2(source.as_raw_fd(), target as c_int) } < 0 {
                self.fail(Step::PlaceFds);
            }
        }
        let environment: [*const c_char; 1] = [ptr::null()];
        // SAFETY: close_range and prctl take integers only. execveat gets an open descriptor, an
        // empty path and two null-terminated arrays of strings that the parent keeps alive in the
        // memory of which this process has a copy.
        unsafe {
            libc::syscall(
                libc::SYS_close_range,
                CHANNEL_FD + 1,
                c_long::from(u32::MAX),
                libc::CLOSE_RANGE_CLOEXEC,
            );
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
            libc::syscall(
                libc::SYS_execveat,
                self.executable.as_raw_fd(),
                c"".as_ptr(),
                argv.as_ptr(),
                environment.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
        }
        self.fail(Step::Exec)
    }

    /// Joins everything that the present rights allow, then the user namespace, then the rest.
    fn join_all(&self) {
        let has_user = self.joins.iter().any(|j| j.kind == libc::CLONE_NEWUSER);
        let mut deferred = 0_u64;
        for (i, join) in self.joins.iter().enumerate() {
            if join.kind == libc::CLONE_NEWUSER {
                continue;
            }
            if !setns(join) {
                if has_user && errno() == libc::EPERM && i < 64 {
                    deferred |= 1 << i;
                } else {
                    self.fail(Step::JoinNamespace);
                }
            }
        }
        for join in self.joins.iter().filter(|j| j.kind == libc::CLONE_NEWUSER) {
            if !setns(join) {
                self.fail(Step::JoinNamespace);
            }
        }
        for (i, join) in self.joins.iter().enumerate().take(64) {
            if deferred & (1 << i) != 0 && !setns(join) {
                self.fail(Step::JoinNamespace);
            }
        }
    }

    /// Takes uid and gid 0 of the user namespace. The libc functions of these names would try to
    /// reach other threads of the process, which do not exist in this copy.
    fn take_root(&self) {
        // SAFETY: integers only, and a null list of length zero.
        let failed = unsafe {
            libc::syscall(libc::SYS_setresgid, 0, 0, 0) != 0
                || libc::syscall(libc::SYS_setgroups, 0, ptr::null::<libc::gid_t>()) != 0
                || libc::syscall(libc::SYS_setresuid, 0, 0, 0) != 0
        };
        if failed {
            self.fail(Step::BecomeRoot);
        }
    }

    /// Tells the shim what failed and leaves.
    fn fail(&self, step: Step) -> ! {
        let mut frame = [0_u8; 4 + EARLY_LEN];
        let (header, body) = frame.split_at_mut(4);
        header.copy_from_slice(&(EARLY_FRAME | EARLY_LEN as u32).to_le_bytes());
        if let [first, number @ ..] = body {
            *first = step as u8;
            number.copy_from_slice(&errno().to_le_bytes());
        }
        // SAFETY: writes from a live local array; then ends the process without running anything of
        // the copied one.
        unsafe {
            libc::write(self.channel.as_raw_fd(), frame.as_ptr().cast(), frame.len());
            libc::_exit(1)
        }
    }
}

fn clone_args(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> libc::clone_args {
    // SAFETY: clone_args is a plain C struct of integers, for which all-zero is the default.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags;
    if let Some(dir) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = dir.as_raw_fd() as u64;
    }
    args
}

fn errno() -> i32 {
    // SAFETY: the address of this thread's own errno is always valid.
    unsafe { *libc::__errno_location() }
}

fn setns(join: &Join) -> bool {
    // SAFETY: two integers, one of them an open descriptor.
    unsafe { libc::setns(join.file.as_raw_fd(), join.kind) == 0 }
}

fn clone3(args: &libc::clone_args) -> io::Result<c_long> {
    // SAFETY: `args` is initialised and of the size given; no CLONE_VM and no stack is ever asked
    // for, so the child continues on its own copy of this stack, as after fork.
    let result = unsafe {
        libc::syscall(libc::SYS_clone3, ptr::from_ref(args), size_of::<libc::clone_args>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn read_full(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::io::read(fd, rest) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(filled)
}

/// Takes over the channel that [`Launch`] left at [`CHANNEL_FD`].
///
/// Fails if the descriptor is not open, as when somebody runs the sub-command by hand.
pub(super) fn take_channel() -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD takes an integer, and fails if the number is not open.
    if unsafe { libc::fcntl(CHANNEL_FD, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and nothing in this freshly executed process has claimed it:
    // the only caller is the runner's first statement.
    Ok(unsafe { OwnedFd::from_raw_fd(CHANNEL_FD) })
}

/// Changes attributes and propagation of the mount that `fd` is the root of; see
/// mount_setattr(2). `recursive` includes every mount below it.
pub(super) fn mount_setattr(
    fd: BorrowedFd<'_>,
    set: u64,
    clear: u64,
    propagation: u64,
    recursive: bool,
) -> io::Result<()> {
    set_mount(fd, &MountAttr { set, clear, propagation, userns_fd: 0 }, recursive)
}

/// Has the mount that `fd` is the root of show other owners: the ids inside of this user namespace become
/// those outside.
pub(super) fn map_ids(
    fd: BorrowedFd<'_>,
    namespace: BorrowedFd<'_>,
    recursive: bool,
) -> io::Result<()> {
    let userns_fd = u64::from(namespace.as_raw_fd().unsigned_abs());
    let attributes = MountAttr { set: libc::MOUNT_ATTR_IDMAP, clear: 0, propagation: 0, userns_fd };
    set_mount(fd, &attributes, recursive)
}

fn set_mount(fd: BorrowedFd<'_>, attributes: &MountAttr, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: an open descriptor, an empty C string and a live struct of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            ptr::from_ref(attributes),
            size_of::<MountAttr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Puts this process into a new cgroup namespace, whose root is its present cgroup; see
/// cgroup_namespaces(7).
pub(super) fn unshare_cgroup() -> io::Result<()> {
    // SAFETY: only the view of the cgroup hierarchy changes; the flag leaves the descriptor table and
    // everything else that Rust code relies on alone.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWCGROUP)? };
    Ok(())
}

/// Has tokio watch a descriptor for reading. Must be called within its runtime.
pub(super) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open and always gives the same number, and the AsyncFd that owns it hands
    // out no mutable reference by which its owner could replace it: `wait::Child` and `oom::OomWatch`
    // keep it private.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Sends any signal number the kernel knows, real-time ones included; see pidfd_send_signal(2).
pub(super) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: integers and a null pointer, which stands for default signal information.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            ptr::null::<c_void>(),
            0,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives `signal` its default action. That of SIGKILL, SIGSTOP and the numbers that libc keeps for itself
/// cannot be changed, which is of no consequence.
pub(super) fn default_signal(signal: i32) {
    // SAFETY: installs no function.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Lets all signals through.
pub(super) fn unblock_signals() {
    // SAFETY: fills a local set and installs it as the mask of this only thread.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Makes `signal` be ignored.
pub(super) fn ignore_signal(signal: i32) {
    // SAFETY: installs no function.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// A handler that ends the process with code 128 + `signal`, as its default action would look to a shell.
pub(super) extern "C" fn end(signal: c_int) {
    leave(128 + signal);
}

/// Ends the process at once, without any clean-up; for handlers of signals.
pub(super) fn leave(code: i32) -> ! {
    // SAFETY: _exit is async-signal-safe and does not return.
    unsafe { libc::_exit(code) }
}

/// Has `signal` handled by `handler`, which must do nothing but what signal-safety(7) allows.
pub(super) fn on_signal(signal: i32, handler: extern "C" fn(c_int)) -> io::Result<()> {
    // SAFETY: zero is a valid initial value of this C struct; the handler is an `extern "C"`
    // function of the type that sa_flags without SA_SIGINFO announces. SA_ONSTACK lets it run
    // although a guest may have used up its stack.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_ONSTACK;
        libc::sigfillset(&raw mut action.sa_mask);
        libc::sigaction(signal, &raw const action, ptr::null_mut())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has SIGALRM sent after this time, once; at the shortest after a microsecond.
pub(super) fn alarm(after: std::time::Duration) {
    set_timer(after.max(std::time::Duration::from_micros(1)));
}

/// Has no SIGALRM sent any more.
pub(super) fn alarm_off() {
    set_timer(std::time::Duration::ZERO);
}

fn set_timer(after: std::time::Duration) {
    let value = libc::itimerval {
        it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
        it_value: libc::timeval {
            tv_sec: after.as_secs() as libc::time_t,
            tv_usec: libc::suseconds_t::from(after.subsec_micros()),
        },
    };
    // SAFETY: a live struct; the old value is not asked for. A bare system call, which cannot fail
    // with a valid timer and time.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const value, ptr::null_mut()) };
}

/// Sets both values of a resource limit by its number; see setrlimit(2).
pub(super) fn set_rlimit(number: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: a live struct of the kernel's layout; the old value is not asked for.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            number,
            ptr::from_ref(&limit),
            ptr::null_mut::<libc::rlimit64>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has every descriptor from `first` on closed when this process executes a program.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: three integers; descriptors stay open and only change their flag.
    let result = unsafe {
        let last = c_long::from(u32::MAX);
        libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
