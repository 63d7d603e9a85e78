//! Hooks of the OCI runtime specification ("POSIX-platform Hooks"): programs of the host that run at
//! fixed points of a container's life and get its state as JSON on standard input.
//!
//! The code is the same on both sides of the guest: the shim runs the hooks of the host's namespaces
//! on a blocking thread, the runner those of the container's namespaces by itself.

use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::Serialize;

use super::GuestError;
use super::plan::Hook;

/// The specification version that the state follows.
const OCI_VERSION: &str = "1.2.0";

/// How many bytes at the end of a failed hook's output go into its error.
const OUTPUT_TAIL: usize = 512;

/// The lists of hooks in a spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HookStage {
    /// Deprecated form of `CreateRuntime`, still used by Docker up to 27.
    Prestart,
    /// In the host's namespaces, once the container's exist.
    CreateRuntime,
    /// In the container's namespaces, before its root is entered.
    CreateContainer,
    /// In the container, before its program.
    StartContainer,
    /// In the host's namespaces, when the program runs.
    Poststart,
    /// In the host's namespaces, when the container is gone.
    Poststop,
}

impl HookStage {
    /// The name in the spec.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

/// What a hook is told.
#[derive(Debug, Clone)]
pub(super) struct HookState {
    pub(super) id: String,
    pub(super) status: &'static str,
    /// As the host sees it; 0 is left out.
    pub(super) pid: i32,
    pub(super) bundle: PathBuf,
    pub(super) annotations: Vec<(String, String)>,
}

impl HookState {
    /// The JSON of the specification, section "State".
    fn to_json(&self) -> io::Result<Vec<u8>> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct State<'a> {
            oci_version: &'a str,
            id: &'a str,
            status: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            pid: Option<i32>,
            bundle: &'a std::path::Path,
            annotations: std::collections::BTreeMap<&'a str, &'a str>,
        }
        let annotations = self.annotations.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let pid = Some(self.pid).filter(|pid| *pid != 0);
        let (id, status, bundle) = (&self.id, self.status, &self.bundle);
        let state = State { oci_version: OCI_VERSION, id, status, pid, bundle, annotations };
        Ok(serde_json::to_vec(&state)?)
    }
}

/// Runs hooks in order, on the calling thread, up to the first failure.
pub(super) fn run_all(
    stage: HookStage,
    hooks: &[Hook],
    state: &HookState,
) -> Result<(), GuestError> {
    hooks.iter().try_for_each(|hook| run(stage, hook, state))
}

/// Runs hooks in order on a blocking thread of the runtime and collects all failures.
pub(super) async fn run_all_on_host(
    stage: HookStage,
    hooks: &[Hook],
    state: &HookState,
) -> Vec<GuestError> {
    on_blocking_thread(hooks, state, move |hooks, state| {
        hooks.iter().filter_map(|hook| run(stage, hook, state).err()).collect()
    })
    .await
}

/// Runs hooks in order on a blocking thread of the runtime, up to the first failure.
pub(super) async fn run_until_failure(
    stage: HookStage,
    hooks: &[Hook],
    state: &HookState,
) -> Result<(), GuestError> {
    let failures = on_blocking_thread(hooks, state, move |hooks, state| {
        run_all(stage, hooks, state).err().into_iter().collect()
    });
    failures.await.into_iter().next().map_or(Ok(()), Err)
}

async fn on_blocking_thread(
    hooks: &[Hook],
    state: &HookState,
    work: impl FnOnce(&[Hook], &HookState) -> Vec<GuestError> + Send + 'static,
) -> Vec<GuestError> {
    if hooks.is_empty() {
        return Vec::new();
    }
    let (hooks, state) = (hooks.to_vec(), state.clone());
    let done = tokio::task::spawn_blocking(move || work(&hooks, &state)).await;
    done.unwrap_or_else(|error| {
        let source = io::Error::other(error);
        vec![GuestError::Os { act: "run hooks".to_owned(), source }]
    })
}

fn run(stage: HookStage, hook: &Hook, state: &HookState) -> Result<(), GuestError> {
    let failed = |why| GuestError::Hook { stage: stage.name(), path: hook.path.clone(), why };
    let (mut child, output) =
        spawn(hook, state).map_err(|error| failed(format!("cannot be started: {error}")))?;
    let mut tail = Vec::new();
    let waited = wait(&mut child, output, hook.timeout, &mut tail);
    let said = String::from_utf8_lossy(&tail);
    let said = said.trim();
    let with_output = |why: String| {
        failed(if said.is_empty() { why } else { format!("{why}; its output ends with: {said}") })
    };
    match waited.map_err(|error| with_output(format!("cannot be waited for: {error}")))? {
        None => {
            let limit = hook.timeout.unwrap_or_default().as_secs();
            Err(with_output(format!("did not finish within its limit of {limit} s")))
        }
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(with_output(match (status.code(), status.signal()) {
            (Some(code), _) => format!("failed with exit code {code}"),
            (None, signal) => format!("was killed by signal {}", signal.unwrap_or_default()),
        })),
    }
}

fn spawn(hook: &Hook, state: &HookState) -> io::Result<(Child, OwnedFd)> {
    // A file rather than a pipe, so that a hook which never reads cannot block us.
    let memory = rustix::fs::memfd_create("hook-state", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut stdin = std::fs::File::from(memory);
    stdin.write_all(&state.to_json()?)?;
    stdin.rewind()?;
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&reader, true)?;
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    let pairs = hook.env.iter().map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    command.env_clear().envs(pairs);
    command.stdin(stdin).stdout(Stdio::from(writer.try_clone()?)).stderr(Stdio::from(writer));
    // A group of its own, so that the time limit also ends what the hook started.
    command.process_group(0);
    let child = command.spawn()?;
    // The command still holds the pipe's writing end.
    drop(command);
    Ok((child, reader))
}

/// Waits for the hook and keeps the end of its output; `None` means that its time was up.
fn wait(
    child: &mut Child,
    output: OwnedFd,
    limit: Option<Duration>,
    tail: &mut Vec<u8>,
) -> io::Result<Option<ExitStatus>> {
    let pid = Pid::from_child(child);
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let deadline = limit.map(|limit| Instant::now() + limit);
    let mut output = Some(std::fs::File::from(output));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        let mut polled = vec![PollFd::new(&pidfd, PollFlags::IN)];
        polled.extend(output.as_ref().map(|file| PollFd::new(file, PollFlags::IN)));
        let ready =
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, timeout.as_ref()))?;
        let ended = polled.first().is_some_and(|p| p.revents().contains(PollFlags::IN));
        if output.as_mut().is_some_and(|file| drain(file, tail)) {
            output = None;
        }
        if ended {
            return child.wait().map(Some);
        }
        if ready == 0 {
            // It may have ended in this very moment, which is as good.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            child.wait()?;
            return Ok(None);
        }
    }
}

/// Reads what is there; true when there will be no more.
fn drain(file: &mut std::fs::File, tail: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 4096];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return true,
            Ok(n) => {
                tail.extend_from_slice(chunk.get(..n).unwrap_or_default());
                let excess = tail.len().saturating_sub(OUTPUT_TAIL);
                tail.drain(..excess);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, timeout: Option<u64>) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: vec!["hook".into(), "-c".into(), script.into()],
            env: vec!["GREETING=hi=there".into(), "PATH=/usr/bin:/bin".into()],
            timeout: timeout.map(Duration::from_secs),
        }
    }

    fn state() -> HookState {
        HookState {
            id: "c1".into(),
            status: "creating",
            pid: 42,
            bundle: "/b".into(),
            annotations: vec![("a".into(), "x".repeat(200_000))],
        }
    }

    fn run_one(hook: Hook) -> Result<(), String> {
        run_all(HookStage::Prestart, &[hook], &state()).map_err(|e| e.to_string())
    }

    #[test]
    fn gets_state_and_exactly_its_environment() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("state");
        let script = format!(
            "test \"$0\" = hook || exit 1; test \"$GREETING\" = hi=there || exit 2; \
             test -z \"$HOME\" || exit 3; cat > {}",
            out.display()
        );
        run_one(sh(&script, Some(10))).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap();
        assert_eq!(json["id"], "c1");
        assert_eq!(json["status"], "creating");
        assert_eq!(json["pid"], 42);
        assert_eq!(json["bundle"], "/b");
        assert_eq!(json["annotations"]["a"].as_str().unwrap().len(), 200_000);
        assert!(json["ociVersion"].is_string());
    }

    #[test]
    fn a_failure_names_the_hook_and_what_it_said() {
        let error =
            run_one(sh("yes | head -c 100000; echo no network >&2; exit 3", None)).unwrap_err();
        assert!(error.starts_with("the prestart hook /bin/sh failed with exit code 3"), "{error}");
        assert!(error.ends_with("no network"), "{error}");
        assert!(error.len() < 1000);
        let error = run_one(sh("kill -9 $$", None)).unwrap_err();
        assert!(error.contains("signal 9"), "{error}");
        let error = run_one(Hook { path: "/nowhere".into(), ..sh("", None) }).unwrap_err();
        assert!(error.contains("/nowhere cannot be started"), "{error}");
    }

    #[test]
    fn the_time_limit_ends_the_hook_and_its_children() {
        let begun = Instant::now();
        let error = run_one(sh("sleep 60 & sleep 60", Some(1))).unwrap_err();
        assert!(error.contains("did not finish within its limit of 1 s"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_hook_that_leaves_a_daemon_behind_does_not_block() {
        let begun = Instant::now();
        run_one(sh("sleep 5 & exit 0", Some(30))).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(4));
    }
}
