//! A daemon beside a bed's containerd, and what it says.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::bed::{Finished, eventually};
use crate::own_bed::OwnBed;
use crate::pack::{Form, Image};

/// A running daemon; ended with the value.
pub(crate) struct Node {
    pub(crate) child: Child,
    log: tempfile::NamedTempFile,
    address: SocketAddr,
}

/// Where a daemon works.
struct Place {
    socket: PathBuf,
    programs: PathBuf,
    /// The folder of its cache and of its socket.
    run: String,
}

impl Place {
    fn of(bed: &OwnBed) -> Self {
        Self {
            socket: bed.containerd().socket.clone(),
            programs: bed.variable("TESTBED_BIN_DIR").into(),
            run: bed.variable("TESTBED_RUN").to_owned(),
        }
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_coracle-node"))
}

/// An answer of its server.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) body: String,
    pub(crate) time: Duration,
}

impl Node {
    /// Starts one and waits until it is ready.
    pub(crate) fn start(bed: &OwnBed, args: &[&str], env: &[(&str, &str)]) -> Result<Self, String> {
        Self::begin(bed, args, env)?.ready()
    }

    fn ready(self) -> Result<Self, String> {
        let ready = || self.get("/readyz").is_ok_and(|page| page.status == 200);
        eventually("the daemon to be ready", ready)
            .map_err(|why| format!("{why}: {}", self.log()))?;
        Ok(self)
    }

    /// Starts one as in a pod of the node, whose files are not its own, and waits until it is ready.
    pub(crate) fn start_in_pod(bed: &OwnBed) -> Result<Self, String> {
        let pid = std::process::id().to_string();
        // The bed's folder is empty there, and control groups begin at its own.
        let beds = Path::new(bed.variable("TESTBED_RUN")).parent().ok_or("no folder of beds")?;
        let hide = format!("mount -t tmpfs none {} && exec \"$@\"", beds.display());
        let mut command = Command::new("unshare");
        command.args(["--mount", "--cgroup", "--propagation", "private", "sh", "-c", &hide, "sh"]);
        command.arg(program().get_program());
        Self::spawn(&Place::of(bed), command, &["--node-pid", &pid], &[])?.ready()
    }

    /// Starts one.
    pub(crate) fn begin(bed: &OwnBed, args: &[&str], env: &[(&str, &str)]) -> Result<Self, String> {
        Self::spawn(&Place::of(bed), program(), args, env)
    }

    /// Starts one beside a daemon of the bed that all tests share, in folders of its own.
    pub(crate) fn beside(
        daemon: &str,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Self, String> {
        let of_bed = |name: &str| {
            std::env::var(format!("TESTBED_{name}")).map_err(|_| format!("no {name} of a bed"))
        };
        let run = format!("{}/{}", of_bed("RUN")?, crate::bed::unique("node"));
        let place = Place {
            socket: of_bed(&format!("{daemon}_SOCKET"))?.into(),
            programs: of_bed("BIN_DIR")?.into(),
            run,
        };
        Self::spawn(&place, program(), args, env)
    }

    fn spawn(
        place: &Place,
        mut command: Command,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Self, String> {
        let log = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
        let Place { socket, programs, run } = place;
        command
            .args(["daemon", "--listen", "127.0.0.1:0"])
            .args(["--log-format", "json", "--log-level", "debug"])
            .arg("--address")
            .arg(socket)
            .arg("--shim")
            .arg(programs.join("containerd-shim-wasm-v1"))
            .args(args)
            .env("CORACLE_CACHE_DIR", format!("{run}/cache"))
            .env("CORACLE_RUN_DIR", format!("{run}/coracle"))
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.reopen().map_err(|error| error.to_string())?);
        let child = command.spawn().map_err(|error| format!("coracle-node: {error}"))?;
        let mut node = Self { child, log, address: SocketAddr::from(([0; 4], 0)) };
        let mut address = None;
        eventually("the daemon's address", || {
            address = node
                .said("coracle daemon")
                .first()
                .and_then(|line| line["address"].as_str()?.parse().ok());
            address.is_some()
        })
        .map_err(|why| format!("{why}: {}", node.log()))?;
        node.address = address.expect("there is one");
        Ok(node)
    }

    /// Asks its server.
    pub(crate) fn get(&self, path: &str) -> Result<Page, String> {
        let begun = Instant::now();
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.address)?;
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
            write!(stream, "GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().map_err(|error| format!("GET {path}: {error}"))?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
        let status =
            head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or("no status")?;
        Ok(Page { status, body: body.to_owned(), time: begun.elapsed() })
    }

    /// All figures.
    pub(crate) fn metrics(&self) -> Result<Metrics, String> {
        let page = self.get("/metrics")?;
        if page.status == 200 { Ok(Metrics(page.body)) } else { Err(format!("{page:?}")) }
    }

    /// Waits until a figure has this value.
    pub(crate) fn becomes(&self, name: &str, value: f64) -> Result<(), String> {
        let mut last = None;
        eventually("the figure", || {
            last = self.metrics().ok().and_then(|metrics| metrics.value(name));
            last == Some(value)
        })
        .map_err(|why| format!("{why} {name} to be {value}, not {last:?}: {}", self.log()))
    }

    /// The log's lines with this message.
    pub(crate) fn said(&self, message: &str) -> Vec<Value> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == message).collect()
    }

    /// The whole log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    /// Processes that it has started.
    pub(crate) fn children(&self) -> Vec<u32> {
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        children.unwrap_or_default().split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).map_err(|error| error.to_string())
    }

    /// Sends it a signal and waits for its end; its exit code, or none if the signal was it.
    pub(crate) fn end(&mut self, signal: Signal) -> Result<Option<i32>, String> {
        self.signal(signal)?;
        let mut status = None;
        eventually("the daemon to end", || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        })?;
        Ok(status.and_then(|status| status.code()))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The text of `/metrics`.
#[derive(Debug)]
pub(crate) struct Metrics(pub(crate) String);

impl Metrics {
    /// The value of the series with exactly this name and these labels.
    pub(crate) fn value(&self, series: &str) -> Option<f64> {
        let line = self
            .0
            .lines()
            .find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// The same, 0 if there is none.
    pub(crate) fn count(&self, series: &str) -> f64 {
        self.value(series).unwrap_or(0.0)
    }
}

/// Wants that a figure has this value.
pub(crate) fn is(metrics: &Metrics, series: &str, value: f64) -> Result<(), String> {
    let found = metrics.count(series);
    if found == value {
        Ok(())
    } else {
        Err(format!("{series} is {found}, not {value}:\n{}", metrics.0))
    }
}

/// Gives an image to a bed's containerd: its files unpacked afterwards, as `ctr` does; wasm layers as they are.
pub(crate) fn import(bed: &OwnBed, image: &Image) -> Result<(), String> {
    import_archive(bed, image.archive(), image.form == Form::Rootfs)
}

/// The same of an archive.
pub(crate) fn import_archive(bed: &OwnBed, archive: PathBuf, unpack: bool) -> Result<(), String> {
    let archive = archive.to_str().ok_or("path is not UTF-8")?;
    let flags: &[&str] = if unpack { &[] } else { &["--all-platforms", "--no-unpack"] };
    let words = [&["images", "import"], flags, &[archive]].concat();
    bed.daemon.call(&words, None).expect_success(&words)
}

/// A container of an image, to its end.
pub(crate) fn run(bed: &OwnBed, image: &Image, flags: &[&str]) -> Finished {
    let id = crate::bed::unique("node");
    let platform: &[&str] =
        if image.form == Form::Layer { &["--platform", "wasip1/wasm"] } else { &[] };
    let runtime = ["run", "--rm", "--runtime", crate::bed::RUNTIME];
    let words = [&runtime[..], platform, flags, &[image.name.as_str(), id.as_str()]].concat();
    bed.daemon.call(&words, None)
}

/// Calls that must succeed.
pub(crate) trait ExpectSuccess {
    fn expect_success(&self, words: &[&str]) -> Result<(), String>;
}

impl ExpectSuccess for Finished {
    fn expect_success(&self, words: &[&str]) -> Result<(), String> {
        self.expect(&format!("success of {words:?}"), self.code == 0)
    }
}
