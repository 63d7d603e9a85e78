//! A bed that one test has for itself, so that it may end the daemon and start it again.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::snapshots::MountsRequest;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{CreateTaskRequest, GetContainerRequest, StartRequest};
use containerd_client::tonic::Request;
use rustix::process::Signal;

use crate::bed::{Containerd, Daemon, RUNTIME, alive, eventually, finish};

/// A bed with one containerd.
pub(crate) struct OwnBed {
    pub(crate) daemon: Daemon,
    /// The daemon's name in the bed: `c17` or `c21`.
    key: String,
    variables: HashMap<String, String>,
    /// The daemon, if this has started it.
    child: Option<Child>,
}

/// What a daemon was started with.
pub(crate) struct Launch {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

/// Runs `check` beside itself on a bed with each containerd, and then sees that nothing is left there.
pub(crate) fn on_each_containerd(check: impl Fn(&mut OwnBed) -> Result<(), String> + Sync) {
    let run = |key: &str| {
        let mut bed = OwnBed::up(key)?;
        let checked = check(&mut bed).and_then(|()| bed.assert_clean());
        checked.map_err(|why| format!("{why}; the daemon's last words: {}", bed.last_words()))
    };
    let results = std::thread::scope(|scope| {
        let both = ["c17", "c21"].map(|key| (key, scope.spawn(move || run(key))));
        both.map(|(key, thread)| thread.join().expect("no panic").map_err(|why| (key, why)))
    });
    let failures: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert!(failures.is_empty(), "failed on: {failures:#?}");
}

fn of_bed(variable: &str) -> String {
    let value = std::env::var(variable);
    value.expect("no test bed: run these tests with deploy/testbed/with.sh (make test-e2e)")
}

fn script(name: &str) -> Command {
    Command::new(Path::new(&of_bed("TESTBED_SOURCE")).join(name))
}

impl OwnBed {
    fn up(key: &str) -> Result<Self, String> {
        let name = crate::bed::unique("").replace('-', "x");
        let name = format!("r{name}");
        let mut up = script("up.sh");
        up.args(["--name", &name, "--daemons", key, "--owner", &std::process::id().to_string()]);
        up.env("CORACLE_BIN_DIR", of_bed("TESTBED_BIN_DIR"));
        let done = finish(up, None);
        done.expect("a bed", done.code == 0)?;
        let text = std::fs::read_to_string(done.stdout.trim()).map_err(|e| e.to_string())?;
        let lines = text.lines().filter_map(|line| line.split_once('='));
        let variables: HashMap<String, String> = lines
            .map(|(key, value)| (key.to_owned(), value.trim_matches('\'').to_owned()))
            .collect();
        let daemon = Daemon::of_bed(key, |key| variables.get(key).cloned());
        Ok(Self { daemon, key: key.to_owned(), variables, child: None })
    }

    /// A variable of the bed's.
    pub(crate) fn variable(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    fn name(&self) -> &str {
        self.variable("TESTBED_NAME")
    }

    /// How others than its client reach it.
    pub(crate) fn containerd(&self) -> &Containerd {
        self.daemon.containerd.as_ref().expect("a containerd")
    }

    /// Where the bed notes the daemon's pid and time of birth, by which `down.sh` finds it.
    fn note(&self) -> PathBuf {
        Path::new(self.variable("TESTBED_RUN")).join("pid").join(&self.key)
    }

    fn pid(&self) -> Result<u32, String> {
        let note = std::fs::read_to_string(self.note()).map_err(|error| error.to_string())?;
        let pid = note.split_whitespace().next().and_then(|pid| pid.parse().ok());
        pid.ok_or_else(|| format!("no pid in {note:?}"))
    }

    /// Ends the daemon by a signal; the result starts it again.
    pub(crate) fn end(&mut self, signal: Signal) -> Result<Launch, String> {
        let pid = self.pid()?;
        let words = |file: &str| -> Result<Vec<String>, String> {
            let text = std::fs::read_to_string(format!("/proc/{pid}/{file}"));
            let text = text.map_err(|error| format!("{file} of the daemon: {error}"))?;
            Ok(text.split_terminator('\0').map(str::to_owned).collect())
        };
        let pairs = words("environ")?;
        let pairs = pairs.iter().filter_map(|pair| pair.split_once('='));
        let environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let launch = Launch { arguments: words("cmdline")?, environment };
        let raw = rustix::process::Pid::from_raw(pid.cast_signed()).ok_or("no pid")?;
        rustix::process::kill_process(raw, signal).map_err(|error| error.to_string())?;
        if let Some(mut child) = self.child.take() {
            child.wait().map_err(|error| error.to_string())?;
        }
        eventually("the daemon to end", || !alive(pid))?;
        Ok(launch)
    }

    /// Starts the daemon as it was started before, and waits until it answers.
    pub(crate) fn start(&mut self, launch: &Launch) -> Result<(), String> {
        let log = File::options().append(true).open(&self.containerd().log);
        let log = log.map_err(|error| format!("the daemon's log: {error}"))?;
        let (program, rest) = launch.arguments.split_first().ok_or("no command line")?;
        let path = launch.environment.iter().find(|(name, _)| name == "PATH");
        let found = path.and_then(|(_, path)| {
            path.split(':').map(|dir| Path::new(dir).join(program)).find(|file| file.exists())
        });
        let mut command = Command::new(found.ok_or("the daemon's program is gone")?);
        command.args(rest).env_clear().envs(launch.environment.iter().cloned()).process_group(0);
        command
            .stdin(Stdio::null())
            .stderr(log.try_clone().map_err(|e| e.to_string())?)
            .stdout(log);
        let child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id()));
        let stat = stat.map_err(|error| error.to_string())?;
        let born = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19));
        let note = format!("{} {}\n", child.id(), born.unwrap_or_default());
        std::fs::write(self.note(), note).map_err(|error| error.to_string())?;
        self.child = Some(child);
        eventually("the daemon to answer", || self.daemon.call(&["version"], None).code == 0)
    }

    /// The end of the daemon's log.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.containerd().log).unwrap_or_default();
        let lines: Vec<&str> =
            log.lines().filter(|line| !line.contains("loading plugin")).collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// The folder in which containerd has a container's bundle.
    pub(crate) fn bundle(&self, id: &str) -> PathBuf {
        let state = self.variable(&format!("TESTBED_{}_STATE", self.key.to_uppercase()));
        let tasks = Path::new(state).join("io.containerd.runtime.v2.task");
        tasks.join(&self.containerd().namespace).join(id)
    }

    /// Nothing is left of the bed's containers.
    fn assert_clean(&self) -> Result<(), String> {
        let mut check = script("clean-check.sh");
        check.args(["--name", self.name(), "--wait", "60"]);
        let done = finish(check, None);
        done.expect("nothing left behind", done.code == 0)
    }

    /// A container without a task, and then its task, which is not started.
    pub(crate) fn create(&self, image: &str, id: &str) -> Result<(), String> {
        let image = self.daemon.image(image)?;
        let words = ["containers", "create", "--runtime", RUNTIME, &image, id];
        let done = self.daemon.call(&words, None);
        done.expect("a container", done.code == 0)?;
        block_on(self.create_task(id)).map_err(|error| format!("create {id}: {error}"))
    }

    /// Starts a task that is there, which `ctr` does only for one that it has made.
    pub(crate) fn start_task(&self, id: &str) -> Result<(), String> {
        let start = async {
            let channel = containerd_client::connect(&self.containerd().socket).await?;
            let namespace = self.containerd().namespace.parse()?;
            let request = StartRequest { container_id: id.to_owned(), ..Default::default() };
            TasksClient::new(channel).start(within(request, &namespace)).await?;
            Ok(())
        };
        block_on(start).map_err(|error| format!("start {id}: {error}"))
    }

    async fn create_task(&self, id: &str) -> Result<(), Box<dyn std::error::Error>> {
        let Containerd { socket, namespace, .. } = self.containerd();
        let channel = containerd_client::connect(socket).await?;
        let namespace = namespace.parse()?;
        let request = GetContainerRequest { id: id.to_owned() };
        let mut containers = ContainersClient::new(channel.clone());
        let record = containers.get(within(request, &namespace)).await?.into_inner();
        let record = record.container.unwrap_or_default();
        let request = MountsRequest { snapshotter: record.snapshotter, key: record.snapshot_key };
        let mut snapshots = SnapshotsClient::new(channel.clone());
        let rootfs = snapshots.mounts(within(request, &namespace)).await?.into_inner().mounts;
        let request = CreateTaskRequest { container_id: id.into(), rootfs, ..Default::default() };
        TasksClient::new(channel).create(within(request, &namespace)).await?;
        Ok(())
    }

    /// What `ctr tasks list` says of a task; nothing if there is none.
    pub(crate) fn status(&self, id: &str) -> String {
        let list = self.daemon.call(&["tasks", "list"], None).stdout;
        let line = list.lines().find(|line| line.split_whitespace().next() == Some(id));
        line.and_then(|line| line.split_whitespace().nth(2)).unwrap_or_default().to_owned()
    }

    /// Waits until `ctr tasks list` says so.
    pub(crate) fn becomes(&self, id: &str, status: &str) -> Result<(), String> {
        eventually(&format!("{id} to be {status:?}"), || self.status(id) == status)
    }
}

/// Talks to containerd.
fn block_on(
    work: impl Future<Output = Result<(), Box<dyn std::error::Error>>>,
) -> Result<(), Box<dyn std::error::Error>> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// A message in a namespace.
fn within<T>(
    message: T,
    namespace: &containerd_client::tonic::metadata::AsciiMetadataValue,
) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", namespace.clone());
    request
}

/// Deletes the task, which has ended, and gives its exit code: `ctr` says it, but only of a failure.
pub(crate) fn exit_code(daemon: &Daemon, id: &str) -> Result<i32, String> {
    let done = daemon.call(&["tasks", "delete", id], None);
    done.expect("the task to be deleted", done.code == 0)?;
    let Some((_, rest)) = done.stderr.split_once("exit with non-zero exit code ") else {
        return Ok(0);
    };
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().map_err(|_| format!("no exit code in {done:?}"))
}

/// All processes.
pub(crate) fn pids() -> impl Iterator<Item = u32> {
    let folders = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    folders.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The shims that were started for a container.
pub(crate) fn shims_of(id: &str) -> Vec<u32> {
    let is_its = |pid: &u32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&str> = line.split('\0').collect();
        words.windows(2).any(|pair| pair == ["-id", id]) && words.contains(&"start")
    };
    pids().filter(is_its).collect()
}

/// Also a test that failed takes its bed down.
impl Drop for OwnBed {
    fn drop(&mut self) {
        let mut down = script("down.sh");
        down.args(["--name", self.name()]);
        let done = finish(down, None);
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
        if done.code != 0 {
            eprintln!("taking the bed down: {done:?}");
        }
    }
}
