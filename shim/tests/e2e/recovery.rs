//! containerd goes and comes back, and shims are killed: in every phase of a container's life.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::bed::{Daemon, RUNTIME, Spec, alive, eventually, unique};
use crate::exec::talk;
use crate::faults::{guest_pid, kill, remove_fifos};
use crate::own_bed::{OwnBed, exit_code, on_each_containerd, pids, shims_of};

/// A container that sleeps.
pub(crate) fn sleeper(daemon: &Daemon) -> Result<String, String> {
    daemon.start(&Spec { image: "sleep:rootfs", args: &["1000"], ..Spec::default() })
}

/// Calls `ctr` and wants success.
pub(crate) fn ctr(daemon: &Daemon, words: &[&str]) -> Result<String, String> {
    let done = daemon.call(words, None);
    done.expect(&format!("success of {words:?}"), done.code == 0)?;
    Ok(done.stdout)
}

/// `ctr events`, collected in a file from now on.
pub(crate) struct Events {
    client: Child,
    file: tempfile::NamedTempFile,
}

impl Events {
    pub(crate) fn listen(daemon: &Daemon) -> Result<Self, String> {
        let file = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
        let out = file.reopen().map_err(|error| error.to_string())?;
        let client = Command::new(daemon.client())
            .arg("events")
            .stdin(Stdio::null())
            .stdout(out)
            .spawn()
            .map_err(|error| error.to_string())?;
        Ok(Self { client, file })
    }

    pub(crate) fn seen(&self, topic: &str, id: &str) -> bool {
        let text = std::fs::read_to_string(self.file.path()).unwrap_or_default();
        text.lines().any(|line| line.contains(&format!(" {topic} ")) && line.contains(id))
    }
}

/// The client is a script that has become `timeout`, which passes the signal on.
impl Drop for Events {
    fn drop(&mut self) {
        if let Some(pid) =
            i32::try_from(self.client.id()).ok().and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        let _ = self.client.wait();
    }
}

/// One container in each phase, while containerd is gone and comes back.
fn comes_back(bed: &mut OwnBed, signal: Signal) -> Result<(), String> {
    let created = unique("created");
    bed.create("sleep:rootfs", &created)?;
    let running = sleeper(&bed.daemon)?;
    let before = exec_beside(&bed.daemon, &running)?;
    let paused = sleeper(&bed.daemon)?;
    ctr(&bed.daemon, &["tasks", "pause", &paused])?;
    let exit = Spec { image: "exit-code:rootfs", args: &["42"], ..Spec::default() };
    let exited = bed.daemon.start(&exit)?;
    bed.becomes(&exited, "STOPPED")?;
    let ending = sleeper(&bed.daemon)?;
    let last = guest_pid(&bed.daemon, &ending)?;

    let launch = bed.end(signal)?;
    kill(last);
    eventually("its end", || !alive(last))?;
    bed.start(&launch)?;

    for (id, status) in [(&created, "CREATED"), (&running, "RUNNING"), (&paused, "PAUSED")] {
        bed.becomes(id, status)?;
    }
    // containerd takes shims without a process for leaked ones and removes them, runc's too. One whose end
    // the shim still is about to tell may be kept.
    eventually("what has ended to be known", || bed.status(&ending) != "RUNNING")?;
    if bed.status(&ending) == "STOPPED" {
        is_code(&ending, exit_code(&bed.daemon, &ending)?, 137)?;
    }
    for id in [&exited, &ending] {
        name_is_free(bed, id)?;
    }
    let events = Events::listen(&bed.daemon)?;
    goes_on(bed, &running, &before)?;
    ends(bed, &running, "SIGTERM", 143)?;
    let topics =
        ["exec-added", "exec-started", "paused", "resumed", "exit", "delete"].map(|topic| {
            let topic = format!("/tasks/{topic}");
            eventually(&format!("the event {topic}"), || events.seen(&topic, &running))
        });
    topics.into_iter().collect::<Result<(), String>>()?;
    ctr(&bed.daemon, &["tasks", "resume", &paused])?;
    ends(bed, &paused, "SIGKILL", 137)?;
    bed.start_task(&created)?;
    ends(bed, &created, "SIGKILL", 137)?;
    for id in [&created, &running, &paused] {
        ctr(&bed.daemon, &["containers", "delete", id])?;
        remove_fifos(id);
    }
    remove_fifos(&before);
    Ok(())
}

/// A further process that sleeps in the background.
fn exec_beside(daemon: &Daemon, id: &str) -> Result<String, String> {
    let exec = unique("exec");
    ctr(daemon, &["tasks", "exec", "--detach", "--exec-id", &exec, id, "sleep", "500"])?;
    Ok(exec)
}

/// All that can be done with a container that runs.
fn goes_on(bed: &OwnBed, id: &str, before: &str) -> Result<(), String> {
    let daemon = &bed.daemon;
    let exec = |exec, words: &[&str]| {
        daemon.call(&[&["tasks", "exec", "--exec-id", exec, id], words].concat(), None)
    };
    let done = exec("after", &["ps"]);
    done.expect("the processes", done.code == 0 && done.stdout.contains("sleep"))?;
    let done = exec("absent", &["cat", "/none"]);
    done.expect("its exit code", done.code == 1)?;
    let words = ["tasks", "exec", "--tty", "--exec-id", "seated", id, "cat"];
    let done = talk(daemon, &words, &[("", "ahoy\n"), ("ahoy", ""), ("ahoy", "\u{4}")])?;
    done.expect("an end", done.code == 0)?;
    // A process that runs since before.
    ctr(daemon, &["tasks", "kill", "--exec-id", before, "--signal", "SIGTERM", id])?;
    eventually("the process to end", || {
        let done = daemon.call(&["tasks", "delete", "--exec-id", before, id], None);
        done.code == 143
    })?;
    ctr(daemon, &["tasks", "pause", id])?;
    bed.becomes(id, "PAUSED")?;
    ctr(daemon, &["tasks", "resume", id])?;
    bed.becomes(id, "RUNNING")?;
    let metrics = ctr(daemon, &["tasks", "metrics", id])?;
    if metrics.contains("memory") { Ok(()) } else { Err(format!("no memory in {metrics}")) }
}

/// Ends a container by a signal; its exit code is kept.
fn ends(bed: &OwnBed, id: &str, signal: &str, code: i32) -> Result<(), String> {
    ctr(&bed.daemon, &["tasks", "kill", "--signal", signal, id])?;
    bed.becomes(id, "STOPPED")?;
    is_code(id, exit_code(&bed.daemon, id)?, code)
}

pub(crate) fn is_code(id: &str, found: i32, code: i32) -> Result<(), String> {
    if found == code { Ok(()) } else { Err(format!("{id} ended with {found}, not {code}")) }
}

#[test]
fn containerd_is_restarted() {
    on_each_containerd(|bed| comes_back(bed, Signal::TERM));
}

#[test]
fn containerd_is_killed() {
    on_each_containerd(|bed| comes_back(bed, Signal::KILL));
}

/// A logger that holds Create until it is let go: the shim waits until it is ready.
struct Gate {
    folder: tempfile::TempDir,
    client: Child,
}

impl Gate {
    /// `ctr run --detach`, which is held.
    fn hold(daemon: &Daemon, id: &str) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (script, at) = (folder.path().join("logger"), folder.path().display());
        let text = format!(
            "#!/bin/sh\ntouch {at}/waits\nuntil [ -e {at}/go ] || ! [ -e {at}/waits ]; do sleep 0.1; done\n\
             exec 5>&-\ncat <&3 >/dev/null & cat <&4 >/dev/null; wait\n"
        );
        std::fs::write(&script, text).map_err(|error| error.to_string())?;
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(|error| error.to_string())?;
        let image = daemon.image("sleep:rootfs")?;
        let log = format!("binary://{}", script.display());
        let client = Command::new(daemon.client())
            .args(["run", "--detach", "--runtime", RUNTIME, "--log-uri", &log, &image, id])
            .args(["/app.wasm", "1000"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let gate = Self { folder, client };
        eventually("the logger", || gate.file("waits").exists())?;
        Ok(gate)
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }

    fn open(&self) -> Result<(), String> {
        std::fs::write(self.file("go"), "").map_err(|error| error.to_string())
    }

    /// Waits for the client; did it succeed?
    fn done(&mut self) -> Result<bool, String> {
        let mut code = None;
        eventually("the client to end", || {
            code = self.client.try_wait().ok().flatten();
            code.is_some()
        })?;
        Ok(code.is_some_and(|status| status.success()))
    }
}

/// The name is free again, and a container of that name runs.
fn name_is_free(bed: &OwnBed, id: &str) -> Result<(), String> {
    bed.becomes(id, "")?;
    eventually("the bundle to be removed", || !bed.bundle(id).exists())?;
    let _ = bed.daemon.call(&["containers", "delete", id], None);
    remove_fifos(id);
    let image = bed.daemon.image("hello:rootfs")?;
    let done = bed.daemon.call(&["run", "--rm", "--runtime", RUNTIME, &image, id], None);
    done.expect("a hello", done.code == 0 && done.stdout.contains("hello from"))
}

/// containerd waits for a Create that it finds at work, and removes what it makes: its caller was told of
/// a failure. One that is done before it comes back is a task as any other.
#[test]
fn containerd_is_killed_while_create_runs() {
    on_each_containerd(|bed| {
        for done_before in [false, true] {
            let id = unique("gate");
            let mut gate = Gate::hold(&bed.daemon, &id)?;
            let launch = bed.end(Signal::KILL)?;
            if gate.done()? {
                return Err("the client heard of no failure".into());
            }
            if done_before {
                gate.open()?;
                eventually("the guest", || guests_of(&id) == 1)?;
            }
            bed.start(&launch)?;
            gate.open()?;
            if done_before {
                // That there is a guest does not mean yet that Create is done.
                eventually("either", || shims_of(&id).is_empty() || bed.status(&id) == "CREATED")?;
                let _ = bed.daemon.call(&["tasks", "delete", "--force", &id], None);
            }
            eventually("the shim to end", || shims_of(&id).is_empty())?;
            name_is_free(bed, &id)?;
        }
        Ok(())
    });
}

/// How many processes of a container wait for their Start, or run.
fn guests_of(id: &str) -> usize {
    let line = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok();
    let is_guest = |line: &String| line.ends_with(&format!("\0guest\0{id}\0"));
    pids().filter_map(|pid| line(&pid)).filter(is_guest).count()
}

#[test]
fn a_shim_is_killed_while_create_runs() {
    on_each_containerd(|bed| {
        let id = unique("gate");
        let mut gate = Gate::hold(&bed.daemon, &id)?;
        for shim in shims_of(&id) {
            kill(shim);
        }
        gate.open()?;
        if gate.done()? {
            return Err("the client heard of no failure".into());
        }
        name_is_free(bed, &id)
    });
}

#[test]
fn a_shim_is_killed_in_every_other_phase() {
    on_each_containerd(|bed| {
        let created = unique("created");
        bed.create("sleep:rootfs", &created)?;
        let running = sleeper(&bed.daemon)?;
        let beside = exec_beside(&bed.daemon, &running)?;
        let paused = sleeper(&bed.daemon)?;
        ctr(&bed.daemon, &["tasks", "pause", &paused])?;
        let exit = Spec { image: "exit-code:rootfs", args: &["42"], ..Spec::default() };
        let exited = bed.daemon.start(&exit)?;
        bed.becomes(&exited, "STOPPED")?;
        for id in [&created, &running, &paused, &exited] {
            let guest = guest_pid(&bed.daemon, id)?;
            let shims = shims_of(id);
            if shims.len() != 1 {
                return Err(format!("one shim of {id}, got {shims:?}"));
            }
            kill(shims[0]);
            eventually("the guest to die", || !alive(guest))?;
        }
        for id in [&created, &running, &paused, &exited] {
            eventually("containerd to notice", || ["", "STOPPED"].contains(&&*bed.status(id)))?;
            // What it still lists is to be deleted as ever.
            let _ = bed.daemon.call(&["tasks", "delete", "--force", id], None);
            name_is_free(bed, id)?;
        }
        remove_fifos(&beside);
        Ok(())
    });
}
