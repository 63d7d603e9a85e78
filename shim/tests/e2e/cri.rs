//! The containerds with CRI of the test bed, and pods on them by `crictl`.

use std::cell::Cell;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bed::{Finished, finish, tar_of, unique};

/// Longest that anything of a pod may take: a compilation on a busy machine included.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A containerd with CRI.
#[derive(Debug)]
pub(crate) struct Cri {
    pub(crate) name: String,
    /// The bed's scripts for `crictl` and `ctr`.
    client: PathBuf,
    ctr: PathBuf,
    /// The folder of more clients, and the socket they want.
    tools: PathBuf,
    socket: String,
    pub(crate) netns: String,
    /// Where pods' control groups are: the bed's, so that it finds what they leave.
    group: String,
    imported: Mutex<Vec<String>>,
    /// Held by each test, and alone by one that ends the daemon.
    pub(crate) up: RwLock<()>,
}

/// The bed's containerds with CRI.
fn daemons() -> &'static [Cri] {
    static DAEMONS: OnceLock<Vec<Cri>> = OnceLock::new();
    DAEMONS.get_or_init(|| {
        let names = std::env::var("TESTBED_DAEMONS").unwrap_or_default();
        names.split_whitespace().filter(|name| name.starts_with('k')).map(Cri::from_env).collect()
    })
}

/// Runs `check` with each runtime handler of ours on each containerd, and fails with the list of those
/// that did not pass.
pub(crate) fn on_each_handler(check: impl Fn(&Cri, &str) -> Result<(), String> + Sync) {
    let daemons = daemons();
    assert!(!daemons.is_empty(), "no CRI: run these tests with with.sh --daemons all");
    let mut failures = Vec::new();
    for daemon in daemons {
        for handler in daemon.handlers() {
            let _shared = daemon.up.read().unwrap_or_else(PoisonError::into_inner);
            if let Err(reason) = check(daemon, handler) {
                failures.push(format!("--- {}, {handler}: {reason}\n", daemon.name));
            }
        }
    }
    assert!(failures.is_empty(), "failed on:\n{}", failures.concat());
}

/// The same for a test that ends the daemon and starts it again.
pub(crate) fn on_each_alone(check: impl Fn(&Cri, &str) -> Result<(), String>) {
    for daemon in daemons() {
        for handler in daemon.handlers() {
            let _alone = daemon.up.write().unwrap_or_else(PoisonError::into_inner);
            check(daemon, handler)
                .unwrap_or_else(|why| panic!("{}, {handler}: {why}", daemon.name));
        }
    }
    assert!(!daemons().is_empty(), "no CRI: run these tests with with.sh --daemons all");
}

impl Cri {
    fn from_env(name: &str) -> Cri {
        let var = |suffix: &str| {
            let name = format!("TESTBED_{}{suffix}", name.to_uppercase());
            std::env::var(&name).unwrap_or_else(|_| panic!("the bed names {name}"))
        };
        let prefix = std::env::var("TESTBED_PREFIX").expect("the bed has a prefix");
        Cri {
            name: name.to_owned(),
            client: var("").into(),
            ctr: var("_CTR").into(),
            tools: var("_TOOLS").into(),
            socket: var("_SOCKET"),
            netns: var("_NETNS"),
            group: format!("/{prefix}pods"),
            imported: Mutex::default(),
            up: RwLock::new(()),
        }
    }

    /// The runtime handlers for the shim under test. 1.6 knows only sandboxes of its own, 1.7 the shim's
    /// only with a switch.
    fn handlers(&self) -> &'static [&'static str] {
        match self.name.as_str() {
            "k16" | "k17" => &["wasm"],
            "k17s" => &["wasm-sandbox"],
            _ => &["wasm", "wasm-sandbox"],
        }
    }

    /// Calls `crictl`.
    pub(crate) fn call(&self, args: &[&str], stdin: Option<&[u8]>) -> Finished {
        let mut command = Command::new(&self.client);
        command.args(args);
        finish(command, stdin)
    }

    /// Calls `crictl` and wants success; the result is what it says.
    pub(crate) fn ask(&self, args: &[&str]) -> Result<String, String> {
        let done = self.call(args, None);
        done.expect(&format!("success of {args:?}"), done.code == 0)?;
        Ok(done.stdout.trim().to_owned())
    }

    /// The client's script, for calls that go on.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.client);
        command.args(args);
        command
    }

    /// Connects to the streams of a container's first process.
    pub(crate) fn attach(&self, container: &str, stdin: &[u8]) -> Finished {
        let mut command = Command::new("timeout");
        command.args([&PATIENCE.as_secs().to_string(), "nsenter"]);
        command.arg(format!("--net=/run/netns/{}", self.netns)).arg(self.tools.join("attach"));
        command.args([&self.socket, container]);
        finish(command, Some(stdin))
    }

    /// A program of this machine in the daemon's network namespace, beside the pods.
    pub(crate) fn beside(&self, args: &[&str]) -> Finished {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns)).args(args);
        finish(command, None)
    }

    /// Ends containerd by SIGKILL and starts it again, as the bed has started it.
    pub(crate) fn restart(&self) -> Result<(), String> {
        let run = std::env::var("TESTBED_RUN").map_err(|error| error.to_string())?;
        let note = Path::new(&run).join("pid").join(&self.name);
        let text = |path: &Path| {
            fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let noted = text(&note)?;
        let process = Path::new("/proc").join(noted.split(' ').next().unwrap_or_default());
        let words = |file: &str| -> Result<Vec<String>, String> {
            Ok(text(&process.join(file))?.split_terminator('\0').map(str::to_owned).collect())
        };
        let (arguments, variables) = (words("cmdline")?, words("environ")?);
        let kill = Command::new("kill")
            .args(["-KILL"])
            .arg(noted.split(' ').next().unwrap_or_default())
            .status();
        kill.map_err(|error| error.to_string())?;
        eventually("containerd to end", || Ok(!runs(&process)))?;
        let log =
            fs::File::options().append(true).open(Path::new(&run).join("log").join(&self.name));
        let log = log.map_err(|error| format!("the daemon's log: {error}"))?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns)).args(arguments).process_group(0);
        command.env_clear().envs(variables.iter().filter_map(|pair| pair.split_once('=')));
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(|error| error.to_string())?);
        let child = command.stderr(log).spawn().map_err(|error| format!("containerd: {error}"))?;
        // By pid and time of birth the bed knows it.
        let stat = text(Path::new(&format!("/proc/{}/stat", child.id())))?;
        let born = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19));
        let noted = format!("{} {}\n", child.id(), born.unwrap_or_default());
        fs::write(&note, noted).map_err(|error| error.to_string())?;
        eventually("containerd to answer", || Ok(self.call(&["info"], None).code == 0))
    }

    /// Imports a test image once and gives its name.
    fn image(&self, image: &str) -> Result<String, String> {
        let name = format!("coracle.test/{image}");
        let mut imported = self.imported.lock().map_err(|_| "another test panicked")?;
        if !imported.iter().any(|known| known == image) {
            let mut command = Command::new(&self.ctr);
            command.args(["images", "import", "--all-platforms", "--no-unpack"]).arg(tar_of(image));
            let done = finish(command, None);
            done.expect("the image to be imported", done.code == 0)?;
            // CRI learns of it by an event.
            eventually("CRI to know the image", || {
                Ok(self.call(&["inspecti", "--quiet", &name], None).code == 0)
            })?;
            imported.push(image.to_owned());
        }
        Ok(name)
    }
}

/// Whether a process is there, and no zombie: a daemon that a test has started is waited for by nobody.
fn runs(process: &Path) -> bool {
    fs::read_to_string(process.join("stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

/// Polls until `done` holds.
pub(crate) fn eventually(
    what: &str,
    mut done: impl FnMut() -> Result<bool, String>,
) -> Result<(), String> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if done()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(format!("not within {PATIENCE:?}: {what}"))
}

/// A pod, removed with this.
pub(crate) struct Pod<'d> {
    pub(crate) cri: &'d Cri,
    pub(crate) id: String,
    /// Its configuration, logs and whatever a test mounts.
    pub(crate) dir: tempfile::TempDir,
    group: String,
    removed: Cell<bool>,
}

/// A container of a pod; it goes with the pod.
pub(crate) struct Container<'p> {
    pub(crate) pod: &'p Pod<'p>,
    pub(crate) id: String,
}

/// As the kubelet has it, unless a pod says `shareProcessNamespace`: each container has pids of its own.
fn own_processes() -> Value {
    const CONTAINER: u32 = 1;
    json!({ "namespace_options": { "pid": CONTAINER } })
}

/// Writes `over` into `under`, member by member.
fn merge(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                merge(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over.clone(),
    }
}

impl<'d> Pod<'d> {
    pub(crate) fn start(cri: &'d Cri, handler: &str) -> Result<Self, String> {
        Self::with(cri, handler, &json!({}))
    }

    /// Starts a pod whose configuration says this, too.
    pub(crate) fn with(cri: &'d Cri, handler: &str, more: &Value) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let name = unique("pod");
        let group = format!("{}/{name}", cri.group);
        let mut config = json!({
            "metadata": { "name": name, "namespace": "e2e", "uid": name, "attempt": 0 },
            "hostname": "web",
            "log_directory": dir.path().join("log"),
            "linux": { "cgroup_parent": group, "security_context": own_processes() },
        });
        merge(&mut config, more);
        let mut pod = Pod { cri, id: String::new(), dir, group, removed: Cell::new(true) };
        let file = pod.write("pod.json", &config.to_string())?;
        pod.id = cri.ask(&["runp", "--runtime", handler, &file])?;
        pod.removed.set(false);
        Ok(pod)
    }

    /// Writes a file beside the pod; the result is its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<String, String> {
        let path = self.dir.path().join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// Starts a container of a test image with these arguments.
    pub(crate) fn run(&self, image: &str, args: &[&str]) -> Result<Container<'_>, String> {
        self.run_with(image, args, &json!({}))
    }

    /// Starts a container whose configuration says this, too.
    pub(crate) fn run_with(
        &self,
        image: &str,
        args: &[&str],
        more: &Value,
    ) -> Result<Container<'_>, String> {
        let container = self.create(image, args, more)?;
        self.cri.ask(&["start", &container.id])?;
        Ok(container)
    }

    pub(crate) fn create(
        &self,
        image: &str,
        args: &[&str],
        more: &Value,
    ) -> Result<Container<'_>, String> {
        let name = unique("c");
        let mut config = json!({
            "metadata": { "name": name, "attempt": 0 },
            "image": { "image": self.cri.image(image)? },
            "args": args,
            "log_path": format!("{name}.log"),
            "linux": { "security_context": own_processes() },
        });
        merge(&mut config, more);
        let file = self.write(&format!("{name}.json"), &config.to_string())?;
        let pod = self.dir.path().join("pod.json");
        let id = self.cri.ask(&["create", &self.id, &file, &pod.to_string_lossy()])?;
        Ok(Container { pod: self, id })
    }

    /// What CRI says of the pod.
    pub(crate) fn status(&self) -> Result<Value, String> {
        parse(&self.cri.ask(&["inspectp", &self.id])?)
    }

    /// Its address.
    pub(crate) fn ip(&self) -> Result<String, String> {
        let status = self.status()?;
        let ip = status["status"]["network"]["ip"].as_str();
        ip.map(str::to_owned).ok_or_else(|| format!("no address in {status}"))
    }

    /// Stops and removes it, which must go well.
    pub(crate) fn remove(self) -> Result<(), String> {
        self.cri.ask(&["stopp", &self.id])?;
        self.cri.ask(&["rmp", &self.id])?;
        self.removed.set(true);
        self.remove_group()
    }

    /// Its control group in a hierarchy of version 1, else its only one; none when it is gone.
    pub(crate) fn group(&self, hierarchy: &str) -> Option<PathBuf> {
        let roots = ["/sys/fs/cgroup".to_owned(), format!("/sys/fs/cgroup/{hierarchy}")];
        let group = self.group.trim_start_matches('/');
        roots.iter().map(|root| Path::new(root).join(group)).find(|path| path.exists())
    }

    /// Removes the pod's own group, as the kubelet does. It must be empty.
    fn remove_group(&self) -> Result<(), String> {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").map_err(|error| error.to_string())?;
        for hierarchy in hierarchies.filter_map(Result::ok) {
            let Some(group) = self.group(&hierarchy.file_name().to_string_lossy()) else {
                continue;
            };
            fs::remove_dir(&group).map_err(|error| format!("{}: {error}", group.display()))?;
        }
        Ok(())
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        if !self.removed.get() {
            self.cri.call(&["stopp", &self.id], None);
            self.cri.call(&["rmp", "--force", &self.id], None);
            let _ = self.remove_group();
        }
    }
}

impl Container<'_> {
    /// What CRI says of it.
    pub(crate) fn inspect(&self) -> Result<Value, String> {
        parse(&self.pod.cri.ask(&["inspect", &self.id])?)
    }

    /// Waits until it has ended; the result is its exit code and CRI's reason.
    pub(crate) fn ended(&self) -> Result<(i64, String), String> {
        let mut status = Value::Null;
        eventually("the container to end", || {
            status = self.inspect()?["status"].take();
            Ok(status["state"] == "CONTAINER_EXITED")
        })?;
        let reason = status["reason"].as_str().unwrap_or_default().to_owned();
        Ok((status["exitCode"].as_i64().unwrap_or(0), reason))
    }

    /// What it has written, by streams.
    pub(crate) fn logs(&self) -> Result<Finished, String> {
        let done = self.pod.cri.call(&["logs", &self.id], None);
        done.expect("its logs", done.code == 0)?;
        Ok(done)
    }

    /// Waits until it has written this on standard output.
    pub(crate) fn said(&self, words: &str) -> Result<(), String> {
        let said = eventually(words, || Ok(self.logs()?.stdout.contains(words)));
        said.map_err(|why| format!("{why}; it said {:?}", self.logs()))
    }

    /// Runs a program in it by the call that probes use.
    pub(crate) fn exec_sync(&self, args: &[&str]) -> Finished {
        self.pod.cri.call(&[&["exec", "--sync", &self.id][..], args].concat(), None)
    }

    /// Runs a program in it over a stream, as `kubectl exec` does.
    pub(crate) fn exec(&self, args: &[&str]) -> Finished {
        self.pod.cri.call(&[&["exec", &self.id][..], args].concat(), None)
    }

    /// Its group, like the pod's.
    pub(crate) fn group(&self, hierarchy: &str) -> Option<PathBuf> {
        let group = self.pod.group(hierarchy)?.join(&self.id);
        group.exists().then_some(group)
    }
}

fn parse(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("{error}: {text}"))
}
