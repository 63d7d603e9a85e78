//! The daemons of the test bed and one way to run a container on any of them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The runtime under test, by the name that users give.
pub(crate) const RUNTIME: &str = "io.containerd.wasm.v1";

/// Longest that any call of a client may take: compiling the biggest module included.
const CALL_LIMIT: Duration = Duration::from_secs(240);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ctr,
    Docker,
}

/// One daemon, reached through the client script that the bed made for it.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    client: PathBuf,
    /// Whether images with wasm layers run: not with containerd 1.6, which takes none but tar
    /// layers, not with Docker's graph-driver store, which holds images of the host's platform only,
    /// and not with Docker 26, whose container records in containerd name no image.
    pub(crate) runs_layers: bool,
    /// Whether this is a Docker with the graph-driver store.
    pub(crate) graph_store: bool,
    /// Name of a Docker's network namespace.
    pub(crate) netns: Option<String>,
    /// Where its images are in containerd; not those of the graph-driver store.
    pub(crate) containerd: Option<Containerd>,
    imported: Mutex<Vec<String>>,
}

/// A containerd as others than its clients reach it.
#[derive(Clone, Debug)]
pub(crate) struct Containerd {
    pub(crate) socket: PathBuf,
    pub(crate) namespace: String,
    /// What it and its shims have logged.
    pub(crate) log: PathBuf,
}

/// A container to run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spec<'a> {
    /// `name:form` of a test image.
    pub(crate) image: &'a str,
    pub(crate) args: &'a [&'a str],
    pub(crate) env: &'a [(&'a str, &'a str)],
    pub(crate) mounts: &'a [Mount<'a>],
    pub(crate) stdin: Option<&'a [u8]>,
    /// More flags for the client's `run`.
    pub(crate) flags: &'a [&'a str],
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Mount<'a> {
    pub(crate) host: &'a Path,
    pub(crate) guest: &'a str,
    pub(crate) readonly: bool,
}

/// How a client call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// An error that shows everything unless `condition` holds.
    pub(crate) fn expect(&self, what: &str, condition: bool) -> Result<(), String> {
        if condition { Ok(()) } else { Err(format!("expected {what}, got {self:#?}")) }
    }
}

/// The daemons of the bed.
pub(crate) fn daemons() -> &'static [Daemon] {
    static DAEMONS: OnceLock<Vec<Daemon>> = OnceLock::new();
    DAEMONS.get_or_init(|| {
        let names = std::env::var("TESTBED_DAEMONS")
            .expect("no test bed: run these tests with deploy/testbed/with.sh (make test-e2e)");
        // Those with CRI are for `pods`.
        let names = names.split_whitespace().filter(|name| !name.starts_with('k'));
        let of_bed = |key: &str| std::env::var(key).ok();
        names.map(|name| Daemon::of_bed(name, of_bed)).collect()
    })
}

/// Runs `check` on each daemon and fails with the list of those that did not pass.
pub(crate) fn on_each(check: impl Fn(&Daemon) -> Result<(), String> + Sync) {
    on_some(|_| true, check);
}

/// The same for the daemons that `applies` picks; there must be one.
pub(crate) fn on_some(
    applies: impl Fn(&Daemon) -> bool,
    check: impl Fn(&Daemon) -> Result<(), String> + Sync,
) {
    let mut failures = String::new();
    let mut ran = 0;
    for daemon in daemons().iter().filter(|daemon| applies(daemon)) {
        ran += 1;
        if let Err(reason) = check(daemon) {
            let _ = writeln!(failures, "--- {}: {reason}", daemon.name);
        }
    }
    assert!(ran > 0, "no daemon of this bed is fit for the test");
    assert!(failures.is_empty(), "failed on:\n{failures}");
}

/// A process that exists, zombies not counted.
pub(crate) fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
}

/// Polls until `done` holds.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) -> Result<(), String> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        if done() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(format!("not within 60 s: {what}"))
}

/// A name that no other container of this run has.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Daemon {
    /// One of a bed that is described by these variables.
    pub(crate) fn of_bed(name: &str, of_bed: impl Fn(&str) -> Option<String>) -> Daemon {
        let key = format!("TESTBED_{}", name.to_uppercase());
        let var = |suffix: &str| of_bed(&format!("{key}{suffix}"));
        Daemon {
            name: format!("{name} ({})", var("_VERSION").unwrap_or_default()),
            kind: if name.starts_with('c') { Kind::Ctr } else { Kind::Docker },
            client: var("").expect("the bed names a client script for each daemon").into(),
            runs_layers: !name.starts_with("d26") && name != "c16",
            graph_store: var("_STORE").is_some_and(|store| store == "graph"),
            netns: var("_NETNS"),
            containerd: containerd(name, &of_bed),
            imported: Mutex::default(),
        }
    }

    /// The client's script.
    pub(crate) fn client(&self) -> &Path {
        &self.client
    }

    /// Calls the client with these arguments.
    pub(crate) fn call(&self, args: &[&str], stdin: Option<&[u8]>) -> Finished {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", &CALL_LIMIT.as_secs().to_string()]);
        command.arg(&self.client).args(args);
        finish(command, stdin)
    }

    /// Imports a test image once and gives its name.
    pub(crate) fn image(&self, image: &str) -> Result<String, String> {
        let name = format!("coracle.test/{image}");
        let mut imported = self.imported.lock().map_err(|_| "another test panicked")?;
        if !imported.iter().any(|known| known == image) {
            let tar = tar_of(image);
            let tar = tar.to_str().ok_or("path is not UTF-8")?;
            let args: &[&str] = match self.kind {
                // Wasm images are not for the host's platform.
                Kind::Ctr => &["images", "import", "--all-platforms", "--no-unpack", tar],
                Kind::Docker => &["load", "--quiet", "--input", tar],
            };
            let done = self.call(args, None);
            done.expect("the image to be imported", done.code == 0)?;
            imported.push(image.to_owned());
        }
        Ok(name)
    }

    /// Runs a container in the foreground and removes it.
    pub(crate) fn run(&self, spec: &Spec<'_>) -> Result<Finished, String> {
        let id = unique("e2e");
        let args = self.run_args(spec, &id, &["--rm"])?;
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Ok(self.call(&args, spec.stdin))
    }

    /// Starts a container in the background; the result is its id.
    pub(crate) fn start(&self, spec: &Spec<'_>) -> Result<String, String> {
        let id = unique("e2e");
        let args = self.run_args(spec, &id, &["--detach"])?;
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let done = self.call(&args, None);
        done.expect("the container to start", done.code == 0)?;
        Ok(id)
    }

    /// Removes a container, running or not.
    pub(crate) fn remove(&self, id: &str) -> Result<(), String> {
        let done = match self.kind {
            Kind::Docker => self.call(&["rm", "--force", id], None),
            Kind::Ctr => {
                self.call(&["tasks", "delete", "--force", id], None);
                self.call(&["containers", "delete", id], None)
            }
        };
        done.expect("the container to be removed", done.code == 0)
    }

    fn run_args(&self, spec: &Spec<'_>, id: &str, flags: &[&str]) -> Result<Vec<String>, String> {
        let image = self.image(spec.image)?;
        let mut args: Vec<String> = vec!["run".into(), "--runtime".into(), RUNTIME.into()];
        args.extend(flags.iter().chain(spec.flags).map(|flag| (*flag).to_owned()));
        for (name, value) in spec.env {
            args.extend(["--env".into(), format!("{name}={value}")]);
        }
        for mount in spec.mounts {
            let (host, guest) = (mount.host.display(), mount.guest);
            args.extend(match self.kind {
                Kind::Ctr => {
                    let mode = if mount.readonly { "ro" } else { "rw" };
                    [
                        "--mount".to_owned(),
                        format!("type=bind,src={host},dst={guest},options=rbind:{mode}"),
                    ]
                }
                Kind::Docker => {
                    let mode = if mount.readonly { ":ro" } else { "" };
                    ["--volume".to_owned(), format!("{host}:{guest}{mode}")]
                }
            });
        }
        match self.kind {
            Kind::Ctr => {
                if foreign_platform(spec.image) {
                    args.extend(["--platform".into(), "wasip1/wasm".into()]);
                }
                args.extend([image, id.to_owned()]);
                if !spec.args.is_empty() {
                    // ctr replaces the whole command line, entry point included.
                    args.push(entry_point(spec.image).into());
                }
            }
            Kind::Docker => {
                args.extend(["--pull=never".into(), "--name".into(), id.to_owned()]);
                if spec.stdin.is_some() {
                    args.push("--interactive".into());
                }
                if foreign_platform(spec.image) {
                    args.extend(["--platform".into(), "wasip1/wasm".into()]);
                }
                args.push(image);
            }
        }
        args.extend(spec.args.iter().map(|arg| (*arg).to_owned()));
        Ok(args)
    }
}

/// The containerd of a daemon, itself one or a Docker.
fn containerd(name: &str, of_bed: &impl Fn(&str) -> Option<String>) -> Option<Containerd> {
    let var = |suffix: &str| of_bed(&format!("TESTBED_{}{suffix}", name.to_uppercase()));
    if var("_STORE").is_some_and(|store| store == "graph") {
        return None;
    }
    let below = var("_CONTAINERD").unwrap_or_else(|| name.to_owned()).to_uppercase();
    let of = |suffix: &str| of_bed(&format!("TESTBED_{below}{suffix}"));
    Some(Containerd {
        socket: of("_SOCKET")?.into(),
        namespace: var("_NETNS").or_else(|| var("_NAMESPACE"))?,
        log: of("_LOG")?.into(),
    })
}

/// Images with wasm layers are for the platform wasip1/wasm.
pub(crate) fn foreign_platform(image: &str) -> bool {
    image.contains(":layer")
}

fn entry_point(image: &str) -> &'static str {
    match image {
        _ if image.starts_with("busybox:") => "/bin/busybox",
        _ if image.ends_with(":wat") => "/app.wat",
        _ => "/app.wasm",
    }
}

pub(crate) fn tar_of(image: &str) -> PathBuf {
    let scripts = std::env::var("TESTBED_SOURCE").expect("a test bed: see make test-e2e");
    let root = Path::new(&scripts).join("../../test-images/build");
    root.join(format!("{}.tar", image.replace(':', "--")))
}

/// Runs a command to its end with all output collected.
pub(crate) fn finish(mut command: Command, stdin: Option<&[u8]>) -> Finished {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().expect("the command can be started");
    let input = child.stdin.take().zip(stdin.map(<[u8]>::to_vec));
    let writer = std::thread::spawn(move || {
        // The reader may end before it has read everything: that is its good right.
        input.map(|(mut pipe, bytes)| pipe.write_all(&bytes))
    });
    let output = child.wait_with_output().expect("the command can be waited for");
    let _ = writer.join();
    Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
