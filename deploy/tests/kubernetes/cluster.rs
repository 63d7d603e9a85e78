//! A cluster, as kubectl shows it.

use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// How long a cluster may take for anything; slow machines that run several tests need patience.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A namespace of one test, and where the images are.
pub(crate) struct Namespace {
    pub(crate) name: String,
    images: String,
    node: Option<String>,
}

/// Ends with this.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Tries until there is something.
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let last = probe();
        if let Ok(Some(found)) = last {
            return Ok(found);
        }
        if Instant::now() > deadline {
            last?;
            bail!("no {what} after {} s", PATIENCE.as_secs());
        }
        thread::sleep(Duration::from_millis(200));
    }
}

fn words(output: Output) -> Result<String> {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    ensure!(
        output.status.success(),
        "{}: {}{}",
        output.status,
        text(output.stdout),
        text(output.stderr)
    );
    Ok(text(output.stdout))
}

impl Namespace {
    /// Makes one; the accounts that pods need are there when this returns.
    pub(crate) fn create(test: &str, images: &str, node: Option<&str>) -> Result<Self> {
        let this = Self {
            name: format!("coracle-{test}"),
            images: images.to_owned(),
            node: node.map(str::to_owned),
        };
        this.cluster(&["create", "namespace", &this.name])?;
        eventually("service account", || {
            this.kubectl(&["get", "serviceaccount", "default"]).map(Some)
        })?;
        Ok(this)
    }

    pub(crate) fn delete(&self) -> Result<()> {
        self.cluster(&["delete", "namespace", &self.name, "--wait=true", "--timeout=120s"])
            .map(drop)
    }

    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.images)
    }

    /// A kubectl that is still to be started, in this namespace.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.args(["--namespace", &self.name]).args(args).stdin(Stdio::null());
        command
    }

    /// What kubectl prints.
    ///
    /// # Errors
    /// It cannot be run or fails; the error holds its words.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Result<String> {
        let output = self.command(args).output().context("cannot run kubectl")?;
        words(output).with_context(|| format!("kubectl {}", args.join(" ")))
    }

    /// The same for what belongs to no namespace.
    pub(crate) fn cluster(&self, args: &[&str]) -> Result<String> {
        let output = Command::new("kubectl")
            .args(args)
            .stdin(Stdio::null())
            .output()
            .context("cannot run kubectl")?;
        words(output).with_context(|| format!("kubectl {}", args.join(" ")))
    }

    /// What a command on the node prints.
    pub(crate) fn node(&self, args: &[&str]) -> Result<String> {
        let node = self.node.as_deref().context("no --node")?;
        let output = Command::new(node)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {node}"))?;
        words(output).with_context(|| format!("{} on the node", args.join(" ")))
    }

    pub(crate) fn get(&self, object: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&["get", object, "--output", "json"])?)?)
    }

    pub(crate) fn apply(&self, object: &Value) -> Result<()> {
        self.send(&["apply", "--filename", "-"], object).map(drop)
    }

    /// What kubectl prints that is given an object.
    pub(crate) fn send(&self, args: &[&str], object: &Value) -> Result<String> {
        let mut command = self.command(args);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut input = child.stdin.take().context("kubectl has no standard input")?;
        input.write_all(object.to_string().as_bytes())?;
        drop(input);
        words(child.wait_with_output()?)
            .with_context(|| format!("kubectl {} of {object}", args.join(" ")))
    }

    /// A pod of the RuntimeClass `wasm` with these containers, that is not started again.
    pub(crate) fn pod(&self, name: &str, containers: &[Value]) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "labels": { "app": name } },
            "spec": Self::pod_spec(containers),
        })
    }

    pub(crate) fn pod_spec(containers: &[Value]) -> Value {
        json!({
            "runtimeClassName": "wasm", "restartPolicy": "Never", "terminationGracePeriodSeconds": 2,
            "containers": containers,
        })
    }

    pub(crate) fn container(&self, name: &str, image: &str, args: &[&str]) -> Value {
        json!({ "name": name, "image": self.image(image), "args": args, "imagePullPolicy": "IfNotPresent" })
    }

    /// Waits until a pod is in one of these phases.
    pub(crate) fn phase(&self, pod: &str, wanted: &[&str]) -> Result<Value> {
        let object = format!("pod/{pod}");
        eventually(&format!("pod {pod} that is {}", wanted.join(" or ")), || {
            let pod = self.get(&object)?;
            let phase = pod["status"]["phase"].as_str().unwrap_or_default();
            Ok(wanted.contains(&phase).then_some(pod))
        })
    }

    /// Waits until a pod is ready.
    pub(crate) fn ready(&self, pod: &str) -> Result<Value> {
        let object = format!("pod/{pod}");
        eventually(&format!("pod {pod} that is ready"), || {
            let pod = self.get(&object)?;
            let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready =
                conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
            Ok(ready.then_some(pod))
        })
    }

    pub(crate) fn logs(&self, pod: &str, container: &str) -> Result<String> {
        self.kubectl(&["logs", pod, "--container", container])
    }

    /// All that can explain why something is not as it should be.
    pub(crate) fn describe(&self) -> String {
        let parts = [&["describe", "pods"][..], &["get", "all"][..]];
        parts
            .iter()
            .map(|args| self.kubectl(args).unwrap_or_else(|error| format!("{error:#}")))
            .collect()
    }
}

/// How a container of a pod ended: the exit code, and the whole state.
pub(crate) fn ended(pod: &Value, index: usize) -> Result<(i64, &Value)> {
    let state = &pod["status"]["containerStatuses"][index]["state"]["terminated"];
    let code = state["exitCode"].as_i64();
    Ok((
        code.with_context(|| format!("no exit code: {}", pod["status"]["containerStatuses"]))?,
        state,
    ))
}
