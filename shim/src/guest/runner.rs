//! The guest's half: what the new process does until it is the container's program.
//!
//! It is the shim's binary again, executed right after `clone3`, so nothing of the shim's memory,
//! threads or descriptors is inherited. It has one thread, no async runtime and no logger: what goes
//! wrong is told to the shim in one sentence.

use std::ffi::CString;
use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::OFlags;

use super::channel::GuestEnd;
use super::confine::Confinement;
use super::hooks::{self, HookStage, HookState};
use super::mounts::{self, Root};
use super::plan::{FromGuest, Plan, Program, ToGuest};
use super::procfs::Proc;
use super::program::{self, Grants};
use super::termination::Message;
use super::{
    cage, devices, identity, limit, native, path, pause, pty, seccomp, signals, sys, toolbox,
};

/// Exit code of a guest that could not be set up or started; the shim knows the reason.
const SETUP_FAILED: u8 = 125;

/// Why the set-up cannot go on: one sentence.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure(String);

impl Failure {
    /// A failure that is no system call's.
    pub(super) fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Says what was tried when a system call failed.
pub(super) trait Act<T> {
    /// Turns an error into "cannot `act` `object`: reason".
    fn act(self, act: &str, object: impl Display) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Act<T> for Result<T, E> {
    fn act(self, act: &str, object: impl Display) -> Result<T, Failure> {
        self.map_err(|error| Failure(format!("cannot {act} {object}: {}", error.into())))
    }
}

/// The `guest` sub-command of the shim's binary: builds the container around this process, waits for
/// the word to go, and becomes the program. Expects the channel of its shim as descriptor 3.
#[must_use]
pub fn runner_main() -> ExitCode {
    let channel = match sys::take_channel() {
        Ok(channel) => GuestEnd::new(channel),
        Err(_) => {
            eprintln!("this sub-command is for the shim itself, which starts it with a channel");
            return ExitCode::from(2);
        }
    };
    ExitCode::from(live(channel))
}

/// From birth to exit code.
fn live(mut channel: GuestEnd) -> u8 {
    let mut parked = match be_built(&mut channel) {
        Ok(parked) => parked,
        Err(End::ShimGone) => return SETUP_FAILED,
        Err(End::Failed(failure)) => return report(channel, failure),
    };
    let code = match channel.receive() {
        Ok((ToGuest::Start, fds)) => program::Code::new(fds),
        Ok((ToGuest::GiveUp(reason), _)) => {
            if let Some(message) = parked.termination {
                message.write(&reason);
            }
            return SETUP_FAILED;
        }
        // The shim died or gave this container up.
        _ => return SETUP_FAILED,
    };
    let message = parked.termination.take();
    match parked.become_program(code) {
        Ok(ready) => {
            if channel.send(&FromGuest::Started).is_err() {
                return SETUP_FAILED;
            }
            match ready {
                // The channel closes when the program is there, and tells when it is not.
                Ready::Linux(program) => cannot_start(channel, message, program.execute()),
                Ready::Pause(sleeper) => {
                    drop(channel);
                    sleeper.sleep()
                }
                Ready::Wasm(loaded) => {
                    drop(channel);
                    loaded.run(message)
                }
            }
        }
        Err(failure) => cannot_start(channel, message, failure),
    }
}

/// Tells the shim, and Kubernetes.
fn cannot_start(channel: GuestEnd, message: Option<Message>, failure: Failure) -> u8 {
    if let Some(message) = message {
        message.write(&failure.to_string());
    }
    report(channel, failure)
}

fn report(mut channel: GuestEnd, failure: Failure) -> u8 {
    // If nobody listens any more, nobody needs to know.
    let _ = channel.send(&FromGuest::Failed(failure.0));
    SETUP_FAILED
}

/// Why a guest ends before it is parked.
enum End {
    /// Nobody is left to tell.
    ShimGone,
    /// To be told.
    Failed(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<io::Error> for End {
    /// Only the channel gives plain I/O errors here.
    fn from(_: io::Error) -> Self {
        Self::ShimGone
    }
}

/// A container that is built, and its process parked in it.
struct Parked {
    plan: Plan,
    root: OwnedFd,
    cwd: OwnedFd,
    confinement: Confinement,
    /// For programs only.
    memory: Option<limit::Files>,
    termination: Option<Message>,
}

/// A program that only has to be entered.
enum Ready {
    Pause(pause::Sleeper),
    Wasm(Box<program::Loaded>),
    Linux(native::Executable),
}

fn be_built(channel: &mut GuestEnd) -> Result<Parked, End> {
    let first = rustix::process::getpid().is_init();
    signals::set_up(first).act("set up", "signals")?;
    let (plan, fds) = match channel.receive()? {
        (ToGuest::Plan(plan), fds) => (*plan, fds),
        _ => return Err(Failure::new("the shim did not send a plan").into()),
    };
    name_process(&plan);
    // Fails only if this is a session leader already, which is what it is for.
    let _ = rustix::process::setsid();
    // Modes in plans and mount options are exact.
    rustix::process::umask(rustix::fs::Mode::empty());
    let parked = if plan.joins { take_place(plan, fds)? } else { build(channel, plan, fds)? };
    channel.send(&FromGuest::Ready)?;
    Ok(parked)
}

/// For `ps` and `top`; the kernel keeps 15 bytes.
fn name_process(plan: &Plan) {
    let name = match &plan.program {
        Program::Pause => Some("pause"),
        Program::Wasm { args, .. } | Program::Linux { args, .. } => {
            args.first().and_then(|arg| Path::new(arg).file_name()).and_then(|name| name.to_str())
        }
    };
    if let Some(name) = name.and_then(|name| CString::new(name).ok()) {
        // A wrong name hurts nobody.
        let _ = rustix::thread::set_name(&name);
    }
}

/// Builds the container around this process; `foreign` are mounts that the shim has opened.
fn build(channel: &mut GuestEnd, plan: Plan, foreign: Vec<OwnedFd>) -> Result<Parked, End> {
    let files = &plan.files;
    name_host(&plan)?;
    let proc = if plan.sysctls.is_empty() { None } else { Some(Proc::open()?) };
    let linux = matches!(plan.program, Program::Linux { .. });
    let confinement = Confinement::open(&plan.identity, linux)?;
    let memory = match (&plan.program, &plan.memory) {
        (Program::Wasm { .. }, Some(memory)) => {
            limit::open(memory).act("look up", "the container's memory limit")?
        }
        _ => None,
    };
    let root = Root::prepare(files)?;
    root.mount_all(&files.mounts, &plan.groups, foreign)?;
    if plan.cgroup_namespace {
        sys::unshare_cgroup().act("make", "a cgroup namespace")?;
    }
    if files.own_dev {
        devices::make_all(root.fd(), &files.devices, plan.user_namespace)?;
    }
    if plan.identity.terminal {
        let master = pty::set_up(root.fd(), &plan)?;
        channel.send_with(&FromGuest::Terminal, master.as_fd())?;
    }
    if plan.host_hooks {
        channel.send(&FromGuest::HooksDue)?;
        match channel.receive()? {
            (ToGuest::Proceed, _) => {}
            _ => return Err(Failure::new("the shim did not say how its hooks went").into()),
        }
    }
    run_hooks(HookStage::CreateContainer, &plan, "creating")?;
    if let Some(proc) = proc {
        proc.write_sysctls(&plan.sysctls)?;
    }
    let null = devices::host_null()?;
    root.protect(&files.readonly_paths)?;
    root.mask(&files.masked, null.as_fd())?;
    if files.cwd != Path::new("/") {
        let made = path::make_dir(root.fd(), &files.cwd);
        made.act("make the working directory", files.cwd.display())?;
    }
    root.enter(files)?;
    let root = rustix::fs::open(
        "/",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .act("open", "the container's root")?;
    if files.readonly {
        mounts::freeze_root(root.as_fd())?;
    }
    let cwd = path::open_in(root.as_fd(), &files.cwd, OFlags::RDONLY | OFlags::DIRECTORY)
        .act("open the working directory", files.cwd.display())?;
    rustix::process::fchdir(&cwd).act("enter the working directory", files.cwd.display())?;
    let termination = plan.termination.as_ref().and_then(|path| Message::open(root.as_fd(), path));
    Ok(Parked { plan, root, cwd, confinement, memory, termination })
}

/// Takes place in a container that is there: this process was made in its namespaces, at its root.
/// `memory` are the files of its limit.
fn take_place(plan: Plan, memory: Vec<OwnedFd>) -> Result<Parked, Failure> {
    if plan.identity.terminal {
        pty::take_control(plan.identity.uid)?;
    }
    if plan.identity.apparmor.is_some() || plan.identity.selinux.is_some() {
        // The labels' files are the container's now, and an image may have put others in their place.
        Proc::open()?;
    }
    let linux = matches!(plan.program, Program::Linux { .. });
    let confinement = Confinement::open(&plan.identity, linux)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let root = rustix::fs::open("/", flags | OFlags::CLOEXEC, rustix::fs::Mode::empty())
        .act("open", "the container's root")?;
    let wanted = &plan.files.cwd;
    // Nothing of the shim can be reached through it, not even by way of /proc: magic links are refused.
    let cwd = path::open_in(root.as_fd(), wanted, flags)
        .and_then(|cwd| Ok(rustix::process::fchdir(&cwd).map(|()| cwd)?))
        .map_err(|error| no_cwd(wanted, &error))?;
    let memory = limit::Files::received(memory);
    Ok(Parked { plan, root, cwd, confinement, memory, termination: None })
}

/// In runc's words, by which Docker chooses the exit code.
fn no_cwd(cwd: &Path, error: &io::Error) -> Failure {
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::NotADirectory => "not a directory".to_owned(),
        _ => error.to_string(),
    };
    Failure::new(format!("chdir to cwd ({cwd:?}) set in config.json failed: {reason}"))
}

fn name_host(plan: &Plan) -> Result<(), Failure> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).act("set the hostname to", name)?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes()).act("set the domainname to", name)?;
    }
    Ok(())
}

fn run_hooks(stage: HookStage, plan: &Plan, status: &'static str) -> Result<(), Failure> {
    let hooks = match stage {
        HookStage::CreateContainer => &plan.create_container,
        _ => &plan.start_container,
    };
    let state = HookState {
        id: plan.id.clone(),
        status,
        pid: plan.pid,
        bundle: plan.bundle.clone(),
        annotations: plan.annotations.clone(),
    };
    hooks::run_all(stage, hooks, &state).map_err(|error| Failure(error.to_string()))
}

impl Parked {
    /// Gives up every right and links the program.
    fn become_program(self, code: Option<program::Code>) -> Result<Ready, Failure> {
        run_hooks(HookStage::StartContainer, &self.plan, "created")?;
        self.confinement.enter()?;
        // Ports below 1024 need rights that the program will not have.
        let sockets = match &self.plan.program {
            Program::Wasm { settings, .. } => program::listen(settings)?,
            Program::Pause | Program::Linux { .. } => Vec::new(),
        };
        let mut filters = self.plan.seccomp;
        match &self.plan.program {
            Program::Linux { .. } => {
                sys::kernel::new_session_keyring().act("make", "a session keyring")?;
                // Without no_new_privs a filter takes rights that will be gone.
                if !self.plan.identity.rights.no_new_privileges() {
                    seccomp::install(&std::mem::take(&mut filters))?;
                }
            }
            Program::Wasm { args, toolbox: true, .. } => toolbox::prepare(args),
            Program::Wasm { .. } | Program::Pause => {}
        }
        identity::take(&self.plan.identity)?;
        match (self.plan.program, code) {
            (Program::Pause, _) => {
                let sleeper = pause::Sleeper::new()
                    .act("set up", "the pause container's signals")
                    .map(Ready::Pause)?;
                cage::close_around_pause()?;
                Ok(sleeper)
            }
            (Program::Wasm { args, env, export, settings, toolbox }, Some(code)) => {
                let kind = if toolbox { cage::Kind::Toolbox } else { cage::Kind::Wasm };
                cage::confine_files(self.root.as_fd(), kind)?;
                let grants = Grants {
                    root: self.root,
                    cwd: self.cwd,
                    sockets,
                    memory: self.memory,
                    toolbox,
                };
                let loaded = program::load(code, args, env, export, grants, &settings)?;
                seccomp::install(&filters)?;
                cage::close_around_wasm(kind)?;
                Ok(Ready::Wasm(Box::new(loaded)))
            }
            (Program::Linux { args, env }, _) => {
                native::Executable::find(&args, env, filters).map(Ready::Linux)
            }
            (Program::Wasm { .. }, None) => Err(Failure::new("the shim sent no code image")),
        }
    }
}
