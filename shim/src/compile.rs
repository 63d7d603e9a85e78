//! One compilation: an unprivileged process that gets a module and gives a code image.
//!
//! `coracle compile-worker` runs as nobody, with no way to gain rights, three descriptors (module,
//! image, one line of error) and hard limits. It is a child of the shim and not of the pod: it is
//! outside the container's cgroup. It is killed when its task ends, when its time is up, and by the
//! kernel when the shim dies. What it wrote is inert data until [`Header::decode`] accepts it.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use coracle_engine::image::{HEADER_SIZE, Header};

use crate::cache::{Slot, Turn};
use crate::config::CompileLimits;

/// The compiler's executable.
const COMPILER: &str = "coracle";
/// Its sub-command.
const SUBCOMMAND: &str = "compile-worker";
/// The uid and gid of nobody.
const NOBODY: u32 = 65534;
/// Descriptors the worker may have: the three it gets and a few of its own.
const WORKER_FILES: u64 = 16;
/// The longest error line taken from the worker, in bytes.
const ERROR_LINE: u64 = 4096;
/// Of all processes here, the kernel shall take the worker first when memory runs out: it costs one
/// start (`proc_pid_oom_score_adj(5)`).
const WORKER_OOM_SCORE: &str = "500";

/// Why there is no code image.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The compiler's executable is not there.
    #[error(
        "cannot find the compiler {COMPILER}: put it beside the shim or into PATH, or set CORACLE_BIN"
    )]
    NoCompiler,
    /// A system call of the preparation failed.
    #[error("cannot {act} for the compiler: {source}")]
    Os {
        /// What was tried.
        act: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The compiler said what is wrong with the module.
    #[error("cannot compile {origin}: {reason}")]
    Rejected {
        /// Where the module came from.
        origin: String,
        /// The compiler's sentence.
        reason: String,
    },
    /// The compiler ended without a word.
    #[error("cannot compile {origin}: the compiler {how}")]
    Broken {
        /// Where the module came from.
        origin: String,
        /// How it ended.
        how: String,
    },
    /// The compiler was killed, by the kernel for want of memory or by somebody else.
    #[error(
        "cannot compile {origin}: the compiler was killed, perhaps because the machine has no memory left"
    )]
    Killed {
        /// Where the module came from.
        origin: String,
    },
    /// The time was up.
    #[error(
        "cannot compile {origin}: not done after {seconds} s, the runtime option CompileTimeoutSeconds sets the limit"
    )]
    TooSlow {
        /// Where the module came from.
        origin: String,
        /// The limit in seconds.
        seconds: u64,
    },
    /// What came back is no code image.
    #[error("cannot use the code of {origin}: {reason}")]
    BadImage {
        /// Where the module came from.
        origin: String,
        /// What the check found.
        reason: String,
    },
    /// The task ended first.
    #[error("the task ended while {origin} was being compiled")]
    Cancelled {
        /// Where the module came from.
        origin: String,
    },
}

/// Code that is there or on its way. Dropping it lets a compilation run on; a [`Stop`] ends it.
#[derive(Debug)]
pub struct Compilation {
    work: Work,
    stop: Arc<Notify>,
}

#[derive(Debug)]
enum Work {
    Done(OwnedFd),
    UnderWay(JoinHandle<Result<OwnedFd, CompileError>>),
}

/// Ends a [`Compilation`], also while its result is awaited.
#[derive(Debug, Clone)]
pub struct Stop(Arc<Notify>);

impl Stop {
    /// Kills the worker, now or as soon as there is one.
    pub fn stop(&self) {
        self.0.notify_one();
    }
}

/// What is compiled, and with what.
#[derive(Debug)]
pub struct Job {
    /// The module: a sealed memory file at its beginning.
    pub module: File,
    /// Where it came from, for messages.
    pub origin: String,
    /// The bounds.
    pub limits: CompileLimits,
    /// The compiler.
    pub compiler: PathBuf,
    /// Where the code belongs in the cache; `None` without one.
    pub slot: Option<Slot>,
}

impl Compilation {
    /// Starts the worker on the current runtime, whose thread must live as long as the worker: the
    /// kernel ties the worker's life to the thread that made it (`PR_SET_PDEATHSIG`).
    pub fn begin(job: Job) -> Self {
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        Self { work: Work::UnderWay(tokio::spawn(async move { run(&job, &stopped).await })), stop }
    }

    /// Code that was found, so that there is nothing to do.
    pub fn done(image: OwnedFd) -> Self {
        Self { work: Work::Done(image), stop: Arc::default() }
    }

    /// A handle that ends it.
    pub fn stopper(&self) -> Stop {
        Stop(Arc::clone(&self.stop))
    }

    /// The code image: a file of the cache, or a memory file that is sealed against any change.
    ///
    /// # Errors
    /// See [`CompileError`].
    pub async fn image(self) -> Result<OwnedFd, CompileError> {
        let work = match self.work {
            Work::Done(image) => return Ok(image),
            Work::UnderWay(work) => work,
        };
        work.await.unwrap_or_else(|error| {
            Err(CompileError::Os { act: "wait", source: io::Error::other(error) })
        })
    }
}

/// Finds the compiler: beside the shim's real executable, in `PATH`, where the configuration says.
///
/// # Errors
/// [`CompileError::NoCompiler`].
pub fn find_compiler(configured: Option<&Path>) -> Result<PathBuf, CompileError> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|shim| shim.canonicalize().ok())
        .map(|shim| shim.with_file_name(COMPILER));
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(std::env::split_paths(&path).map(|folder| folder.join(COMPILER)))
        .chain(configured.map(Path::to_owned))
        .find(|candidate| candidate.is_file())
        .ok_or(CompileError::NoCompiler)
}

/// Gets the code from whoever makes it first.
async fn run(job: &Job, stop: &Notify) -> Result<OwnedFd, CompileError> {
    let Some(slot) = &job.slot else { return Ok(compile(job, stop).await?.into()) };
    let turn = tokio::select! {
        biased;
        () = stop.notified() => return Err(CompileError::Cancelled { origin: job.origin.clone() }),
        turn = slot.turn(&job.origin, job.limits.wall) => turn,
    };
    let lock = match turn {
        Turn::Done(image) => return Ok(image.into()),
        Turn::Ours(lock) => lock,
    };
    let image = compile(job, stop).await?;
    match slot.store(&image).await {
        Some((stored, publication)) => {
            publication.publish(lock);
            Ok(stored.into())
        }
        None => Ok(image.into()),
    }
}

/// Compiles; once more if the worker was killed by somebody else.
async fn compile(job: &Job, stop: &Notify) -> Result<File, CompileError> {
    match attempt(job, stop).await {
        Err(CompileError::Killed { origin }) => {
            tracing::warn!(%origin, "compiler killed: trying once more");
            attempt(job, stop).await
        }
        result => result,
    }
}

async fn attempt(job: &Job, stop: &Notify) -> Result<File, CompileError> {
    let image = memory_file().map_err(os("make a memory file"))?;
    let mut child = spawn(job, &image)?;
    let stderr = child.stderr.take();
    let outcome = tokio::select! {
        biased;
        () = stop.notified() => Err(CompileError::Cancelled { origin: job.origin.clone() }),
        () = tokio::time::sleep(job.limits.wall) => Err(CompileError::TooSlow {
            origin: job.origin.clone(),
            seconds: job.limits.wall.as_secs(),
        }),
        ended = finish(&mut child, stderr) => Ok(ended),
    };
    let (status, line) = match outcome {
        Ok(ended) => ended.map_err(os("wait"))?,
        Err(error) => {
            // Reaps it too, so no zombie stays.
            if let Err(error) = child.kill().await {
                tracing::warn!(%error, "compiler not killed");
            }
            return Err(error);
        }
    };
    if !status.success() {
        return Err(failure(job.origin.clone(), status, &line, &job.limits));
    }
    accept(image, job.origin.clone())
}

/// Waits for the worker's end and for its error line.
async fn finish(
    child: &mut Child,
    stderr: Option<ChildStderr>,
) -> io::Result<(ExitStatus, String)> {
    let mut line = Vec::new();
    if let Some(stderr) = stderr {
        let mut bounded = stderr.take(ERROR_LINE);
        bounded.read_to_end(&mut line).await?;
        // What is beyond the bound is thrown away, but must not stop the worker.
        tokio::io::copy(bounded.get_mut(), &mut tokio::io::sink()).await?;
    }
    Ok((child.wait().await?, String::from_utf8_lossy(&line).into_owned()))
}

fn failure(origin: String, status: ExitStatus, line: &str, limits: &CompileLimits) -> CompileError {
    let how = match status.signal() {
        Some(libc::SIGKILL) => return CompileError::Killed { origin },
        Some(libc::SIGXCPU) => "used up its processor time".to_owned(),
        Some(libc::SIGXFSZ) => format!("made more than {} MiB of code", limits.output >> 20),
        Some(libc::SIGABRT) => {
            format!("gave up, perhaps for want of memory beyond {} MiB", limits.memory >> 20)
        }
        Some(signal) => format!("was ended by signal {signal}"),
        None => {
            let reason = line.lines().map(str::trim).find(|line| !line.is_empty());
            match reason {
                Some(reason) => {
                    return CompileError::Rejected { origin, reason: reason.to_owned() };
                }
                None => format!("ended with exit code {}", status.code().unwrap_or_default()),
            }
        }
    };
    CompileError::Broken { origin, how }
}

/// Seals the image, then checks it: nothing can change what was checked.
fn accept(image: File, origin: String) -> Result<File, CompileError> {
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&image, seals)
        .map_err(|errno| CompileError::Os { act: "seal the code image", source: errno.into() })?;
    check(&image).map_err(|reason| CompileError::BadImage { origin, reason })?;
    Ok(image)
}

/// Whether the header is one this build made and its lengths fit the file.
fn check(image: &File) -> Result<(), String> {
    let length = image.metadata().map_err(|error| error.to_string())?.len();
    let mut page = vec![0; usize::try_from(length).map_or(HEADER_SIZE, |n| n.min(HEADER_SIZE))];
    image.read_exact_at(&mut page, 0).map_err(|error| error.to_string())?;
    Header::decode(&page, length).map(drop).map_err(|error| error.to_string())
}

fn memory_file() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    Ok(rustix::fs::memfd_create("code-image", flags)?.into())
}

fn os(act: &'static str) -> impl FnOnce(io::Error) -> CompileError {
    move |source| CompileError::Os { act, source }
}

/// Starts the worker; everything it may not have is gone before its first instruction.
fn spawn(job: &Job, image: &File) -> Result<Child, CompileError> {
    let program = File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(&job.compiler)
        .map_err(os("open the executable"))?;
    let module = read_only(&job.module).map_err(os("reopen the module"))?;
    let image = image.try_clone().map_err(os("share the code image"))?;
    let confinement = Confinement::new(&job.limits, &program, &job.compiler);
    let mut command = Command::new(&job.compiler);
    command
        .arg(SUBCOMMAND)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(module))
        .stdout(Stdio::from(image))
        .stderr(Stdio::piped());
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
    argv: [CString; 2],
}

impl Confinement {
    fn new(limits: &CompileLimits, program: &File, path: &Path) -> Self {
        // A worker with one thread a processor uses this much before its wall time is up.
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        let text = |text: &OsStr| CString::new(text.as_bytes()).unwrap_or_default();
        Self {
            limits: [
                (libc::RLIMIT_AS, limits.memory),
                (libc::RLIMIT_FSIZE, limits.output),
                (libc::RLIMIT_CPU, cpu_seconds(limits.wall, processors)),
                (libc::RLIMIT_NOFILE, WORKER_FILES),
                (libc::RLIMIT_CORE, 0),
            ],
            shim: std::process::id().cast_signed(),
            program: program.as_raw_fd(),
            argv: [text(path.as_os_str()), text(OsStr::new(SUBCOMMAND))],
        }
    }

    /// Drops everything and becomes the compiler; returns only if that fails.
    ///
    /// The program is executed by descriptor: nobody may not be able to walk to its folder.
    fn enter(&self) -> io::Result<()> {
        for (resource, value) in self.limits {
            let limit = libc::rlimit64 { rlim_cur: value, rlim_max: value };
            // SAFETY: `limit` is a valid rlimit that outlives the call.
            check_call(unsafe { libc::setrlimit64(resource, &raw const limit) })?;
        }
        // SAFETY: plain system calls without pointers, except setgroups, which reads no list of
        // length zero. The order matters: groups and gid need the rights that setresuid gives up,
        // and changing ids clears the parent-death signal.
        unsafe {
            check_call(libc::setgroups(0, std::ptr::null()))?;
            check_call(libc::setresgid(NOBODY, NOBODY, NOBODY))?;
            check_call(libc::setresuid(NOBODY, NOBODY, NOBODY))?;
            check_call(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            check_call(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            // The shim may have died before the line above.
            if libc::getppid() != self.shim {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
            check_call(libc::close_range(3, libc::c_uint::MAX, flags))?;
        }
        let argv = [self.argv[0].as_ptr(), self.argv[1].as_ptr(), std::ptr::null()];
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
