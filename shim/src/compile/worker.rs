//! The worker's process: its descriptors, its limits, its cgroup.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::group::Group;
use super::{CompileError, Job, os};
use crate::config::CompileLimits;

/// Its sub-command.
const SUBCOMMAND: &str = "compile-worker";
/// The flag for code that is made while the guest runs.
const FIRST: &str = "--first";
/// The flag for the snapshot of a code image, with the export that initialises it.
const INITIALIZE: &str = "--initialize=";
/// Descriptors the worker may have: the three it gets and a few of its own.
const WORKER_FILES: u64 = 16;
/// Address space that a thread may take without using it: its stack and the allocator's reserve.
const THREAD_SPACE: u64 = 128 << 20;
/// Of all processes here, the kernel shall take the worker first when memory runs out: it costs one
/// start (`proc_pid_oom_score_adj(5)`).
const WORKER_OOM_SCORE: &str = "500";

/// What a worker makes.
pub(super) enum Output {
    /// All of the code; its standard error is a pipe for one line that says why not.
    Whole,
    /// The code image of what is left when this export of the code image that it reads has run; errors
    /// as above.
    Initialized(String),
    /// Code for a guest that runs; its standard error is its end of their socket.
    First(OwnedFd),
}

/// Starts the worker; everything it may not have is gone before its first instruction.
pub(super) fn spawn(
    job: &Job,
    input: &File,
    image: &File,
    group: &Group,
    output: Output,
) -> Result<Child, CompileError> {
    let program = File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(&job.compiler)
        .map_err(os("open the executable"))?;
    let input = read_only(input).map_err(os("reopen what it reads"))?;
    let image = image.try_clone().map_err(os("share the code image"))?;
    let entrance = group.entrance()?;
    let confinement = Confinement::new(&job.limits, &program, &job.compiler, entrance, &output);
    let mut command = Command::new(&job.compiler);
    command
        .arg(SUBCOMMAND)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(image))
        .stderr(match output {
            Output::Whole | Output::Initialized(_) => Stdio::piped(),
            Output::First(socket) => socket.into(),
        });
    // SAFETY: the closure runs in the forked child before exec and makes only system calls through
    // libc, on values prepared here; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(move || confinement.enter()) };
    let child = command.spawn().map_err(os("start the executable"))?;
    drop(program);
    if let Some(pid) = child.id() {
        let file = format!("/proc/{pid}/oom_score_adj");
        if let Err(error) = std::fs::write(file, WORKER_OOM_SCORE) {
            tracing::warn!(%error, "oom score of the compiler not set");
        }
    }
    Ok(child)
}

/// The same memory file, without the right to write.
fn read_only(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// What happens to the worker between fork and exec; prepared before, so that nothing allocates.
struct Confinement {
    limits: [(libc::__rlimit_resource_t, u64); 5],
    shim: libc::pid_t,
    program: RawFd,
    /// What is executed, the sub-command and its flag, if there is one.
    argv: [CString; 3],
    flags: usize,
    /// Files of the cgroup to enter; open in this process until the spawn returned.
    entrance: Vec<File>,
}

impl Confinement {
    fn new(
        limits: &CompileLimits,
        program: &File,
        path: &Path,
        entrance: Vec<File>,
        output: &Output,
    ) -> Self {
        // A worker has one thread a processor.
        let processors = super::group::processors();
        let space = limits.memory + processors * THREAD_SPACE;
        let (flag, space) = match output {
            Output::Whole => (None, space),
            // Linear memories reserve much more than they use, which the cgroup bounds.
            Output::Initialized(export) => (Some(format!("{INITIALIZE}{export}")), u64::MAX),
            // It maps the whole image, most of which is never touched.
            Output::First(_) => (Some(FIRST.to_owned()), space + limits.output),
        };
        let flags = usize::from(flag.is_some());
        let flag = flag.unwrap_or_default();
        let text = |text: &OsStr| CString::new(text.as_bytes()).unwrap_or_default();
        Self {
            limits: [
                (libc::RLIMIT_AS, space),
                (libc::RLIMIT_FSIZE, limits.output),
                (libc::RLIMIT_CPU, cpu_seconds(limits.wall, processors)),
                (libc::RLIMIT_NOFILE, WORKER_FILES),
                (libc::RLIMIT_CORE, 0),
            ],
            shim: std::process::id().cast_signed(),
            program: program.as_raw_fd(),
            argv: [path.as_os_str(), OsStr::new(SUBCOMMAND), OsStr::new(&flag)].map(text),
            flags,
            entrance,
        }
    }

    /// Enters the cgroup, sets the limits and becomes the compiler; returns only if that fails. The
    /// compiler takes its rights away itself.
    ///
    /// The program is executed by descriptor: what was looked at is what runs.
    fn enter(&self) -> io::Result<()> {
        for file in &self.entrance {
            // SAFETY: writes one byte of a static string to a descriptor that is open.
            if unsafe { libc::write(file.as_raw_fd(), c"0".as_ptr().cast(), 1) } != 1 {
                return Err(io::Error::last_os_error());
            }
        }
        for (resource, value) in self.limits {
            let limit = libc::rlimit64 { rlim_cur: value, rlim_max: value };
            // SAFETY: `limit` is a valid rlimit that outlives the call.
            check_call(unsafe { libc::setrlimit64(resource, &raw const limit) })?;
        }
        // SAFETY: plain system calls without pointers.
        unsafe {
            check_call(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            check_call(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            // The shim may have died before the line above.
            if libc::getppid() != self.shim {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
            check_call(libc::close_range(3, libc::c_uint::MAX, flags))?;
        }
        let null = std::ptr::null();
        let flag = if self.flags == 0 { null } else { self.argv[2].as_ptr() };
        let argv = [self.argv[0].as_ptr(), self.argv[1].as_ptr(), flag, null];
        let envp = [std::ptr::null::<libc::c_char>()];
        // SAFETY: `program` is open (its File lives until the spawn returned), the path is an empty
        // C string, and both arrays end with a null pointer and hold pointers into `self`.
        unsafe {
            libc::execveat(
                self.program,
                c"".as_ptr(),
                argv.as_ptr().cast(),
                envp.as_ptr().cast(),
                libc::AT_EMPTY_PATH,
            );
        }
        Err(io::Error::last_os_error())
    }
}

fn check_call(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn cpu_seconds(wall: Duration, processors: u64) -> u64 {
    wall.as_secs().max(1).saturating_mul(processors)
}
