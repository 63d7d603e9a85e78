//! One life of a container, driven as containerd drives it, with a time for each step.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use containerd_shim_protos::api::{self, Empty};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::shim_async::Client;
use containerd_shim_protos::ttrpc::Request;
use containerd_shim_protos::types::mount::Mount;

use crate::containerd::{self, NAMESPACE};
use crate::subject::Bundle;

/// Nothing takes longer, or it hangs.
const PATIENCE: Duration = Duration::from_secs(180);

/// What runs containers.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    /// The shim's executable.
    pub(crate) shim: PathBuf,
    /// Its environment besides what containerd gives.
    pub(crate) env: Vec<(&'static str, PathBuf)>,
}

/// The times of a life, from the exec of the shim's `start` on, and of single calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    /// `start` has printed its address and ended.
    pub(crate) shim_start: Duration,
    /// The Create call alone.
    pub(crate) create: Duration,
    /// The Start call alone.
    pub(crate) start: Duration,
    /// From the beginning to the first byte of output.
    pub(crate) first_output: Duration,
    /// From the beginning to the exit as Wait tells it.
    pub(crate) exit: Duration,
    /// The Delete call alone.
    pub(crate) delete: Duration,
    /// From the beginning until the shim has shut down.
    pub(crate) whole: Duration,
    /// Compilations that the shim has logged.
    pub(crate) compiled: usize,
}

/// A container that has been started.
pub(crate) struct Started {
    id: String,
    shim: Client,
    service: &'static str,
    begun: Instant,
    shim_start: Duration,
    create: Duration,
    start: Duration,
    log: File,
    output: tokio::sync::oneshot::Receiver<Duration>,
}

/// The whole life of the container of a bundle.
pub(crate) async fn live(runtime: &Runtime, bundle: &Bundle, events: &Path) -> Result<Life> {
    let started = start(runtime, bundle, events).await?;
    started.end().await
}

/// Up to the answer of Start.
pub(crate) async fn start(runtime: &Runtime, bundle: &Bundle, events: &Path) -> Result<Started> {
    let Bundle { id, path, .. } = bundle;
    let [stdout, stderr, log] = ["stdout", "stderr", "log"].map(|name| path.join(name));
    for fifo in [&stdout, &stderr, &log] {
        nix::unistd::mkfifo(fifo, nix::sys::stat::Mode::S_IRWXU)?;
    }
    // containerd reads the shim's log.
    let log = File::options().read(true).write(true).open(log)?;
    let mut command = Command::new(&runtime.shim);
    command.args(["-namespace", NAMESPACE, "-publish-binary", "/bin/true", "-id", id.as_str()]);
    command.arg("-address").arg(containerd::socket()?).arg("start");
    command.current_dir(path).stdin(Stdio::null());
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("TTRPC_ADDRESS", events);
    command.envs(runtime.env.iter().map(|(name, value)| (name, value)));

    let begun = Instant::now();
    let reader = stdout.clone();
    // A thread of its own: the runtime would wait for one that waits for a writer in vain.
    let (first, output) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || read(&reader, || first.send(begun.elapsed())));
    let reader = stderr.clone();
    std::thread::spawn(move || read(&reader, || Ok(())));
    let said = command.output().context("starting the shim")?;
    let shim_start = begun.elapsed();
    ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let (address, service) = address(&String::from_utf8(said.stdout)?)?;
    let shim = Client::connect(&address).await.context("connecting to the shim")?;

    let before = Instant::now();
    let mount = Mount {
        type_: "overlay".into(),
        source: "overlay".into(),
        options: bundle.overlay(),
        ..Default::default()
    };
    let request = api::CreateTaskRequest {
        id: id.into(),
        bundle: path.display().to_string(),
        rootfs: vec![mount],
        stdout: stdout.display().to_string(),
        stderr: stderr.display().to_string(),
        ..Default::default()
    };
    let _: api::CreateTaskResponse = call(&shim, service, "Create", request).await?;
    let create = before.elapsed();
    let before = Instant::now();
    let request = api::StartRequest { id: id.into(), ..Default::default() };
    let _: api::StartResponse = call(&shim, service, "Start", request).await?;
    let start = before.elapsed();
    let id = id.clone();
    Ok(Started { id, shim, service, begun, shim_start, create, start, output, log })
}

impl Started {
    /// To the end of container and shim.
    pub(crate) async fn end(self) -> Result<Life> {
        let status = self.wait().await?;
        let exit = self.begun.elapsed();
        ensure!(status == 0, "exit code {status}");
        let delete = self.remove().await?;
        let Started { begun, shim_start, create, start, output, log, .. } = self;
        let whole = begun.elapsed();
        // A program may have nothing to say; its end is the first that is heard of it then.
        let first_output = output.await.unwrap_or(exit);
        let compiled = compilations(log)?;
        Ok(Life { shim_start, create, start, first_output, exit, delete, whole, compiled })
    }

    /// Waits for the first output.
    pub(crate) async fn said(&mut self) -> Result<()> {
        let said = tokio::time::timeout(PATIENCE, &mut self.output).await;
        said.context("the program says nothing")??;
        Ok(())
    }

    /// Pids of the container's process and of the shim.
    pub(crate) async fn pids(&self) -> Result<[u32; 2]> {
        let request = api::ConnectRequest { id: self.id.clone(), ..Default::default() };
        let answer: api::ConnectResponse =
            call(&self.shim, self.service, "Connect", request).await?;
        Ok([answer.task_pid, answer.shim_pid])
    }

    /// Ends a program that does not end by itself.
    pub(crate) async fn kill(self) -> Result<()> {
        let signal = libc::SIGKILL.unsigned_abs();
        let request = api::KillRequest { id: self.id.clone(), signal, ..Default::default() };
        let _: Empty = call(&self.shim, self.service, "Kill", request).await?;
        self.wait().await?;
        self.remove().await?;
        Ok(())
    }

    /// The exit code, when there is one.
    async fn wait(&self) -> Result<u32> {
        let request = api::WaitRequest { id: self.id.clone(), ..Default::default() };
        let ended: api::WaitResponse = call(&self.shim, self.service, "Wait", request).await?;
        Ok(ended.exit_status)
    }

    /// Removes container and shim; the time of the Delete call alone.
    async fn remove(&self) -> Result<Duration> {
        let before = Instant::now();
        let request = api::DeleteRequest { id: self.id.clone(), ..Default::default() };
        let _: api::DeleteResponse = call(&self.shim, self.service, "Delete", request).await?;
        let delete = before.elapsed();
        let request = api::ShutdownRequest { id: self.id.clone(), ..Default::default() };
        // The connection may close before the answer.
        let _ = call::<Empty>(&self.shim, self.service, "Shutdown", request).await;
        Ok(delete)
    }
}

/// Tells of the first byte, and reads to the end.
fn read(fifo: &Path, first: impl FnOnce() -> Result<(), Duration>) {
    let Ok(mut fifo) = File::open(fifo) else { return };
    let mut bytes = [0; 4096];
    if fifo.read(&mut bytes).is_ok_and(|len| len > 0) {
        // Nobody may want to know.
        let _ = first();
        while fifo.read(&mut bytes).is_ok_and(|len| len > 0) {}
    }
}

/// How many compilations a shim has logged.
fn compilations(mut log: File) -> Result<usize> {
    rustix::io::ioctl_fionbio(&log, true)?;
    let mut text = Vec::new();
    // It ends with the error that nothing more is there.
    let _ = log.read_to_end(&mut text);
    Ok(String::from_utf8_lossy(&text).matches("compiled").count())
}

/// What `start` prints: an address, or JSON with one.
fn address(text: &str) -> Result<(String, &'static str)> {
    let text = text.trim();
    if !text.starts_with('{') {
        return Ok((text.to_owned(), "containerd.task.v2.Task"));
    }
    let said: serde_json::Value = serde_json::from_str(text)?;
    let Some(address) = said["address"].as_str() else { bail!("no address in {text}") };
    let service =
        if said["version"] == 3 { "containerd.task.v3.Task" } else { "containerd.task.v2.Task" };
    Ok((address.to_owned(), service))
}

async fn call<R: Message>(
    shim: &Client,
    service: &str,
    method: &str,
    request: impl Message,
) -> Result<R> {
    let payload = request.write_to_bytes()?;
    let (service, method) = (service.to_owned(), method.to_owned());
    let wire = Request { service, method: method.clone(), payload, ..Default::default() };
    let answer = tokio::time::timeout(PATIENCE, shim.request(wire)).await;
    let answer = answer.with_context(|| format!("{method} does not answer"))?;
    Ok(R::parse_from_bytes(&answer.with_context(|| method)?.payload)?)
}
