//! containerd's `ctr`: the sub-commands that reach a shim, as far as no other test calls them.

use std::fs;

use crate::bed::{Daemon, Kind, RUNTIME, Spec, eventually, on_some, unique};
use crate::control::{group_file, listed};
use crate::faults::guest_pid;
use crate::own_bed::exit_code;
use crate::recovery::{Events, ctr, is_code, sleeper};

const BUSYBOX: &str = "busybox:rootfs";

fn on_each_ctr(check: impl Fn(&Daemon) -> Result<(), String> + Sync) {
    on_some(|daemon| daemon.kind == Kind::Ctr, check);
}

/// The network namespace of a process.
fn network(pid: u32) -> Result<String, String> {
    let link = fs::read_link(format!("/proc/{pid}/ns/net")).map_err(|error| error.to_string())?;
    Ok(link.display().to_string())
}

#[test]
fn run_takes_environment_and_working_directory() {
    on_each_ctr(|daemon| {
        let script = "pwd; echo $COLOUR; exit 7";
        let flags = ["--cwd", "/bin", "--env", "COLOUR=blue"];
        let args = ["sh", "-c", script];
        let done =
            daemon.run(&Spec { image: BUSYBOX, args: &args, flags: &flags, ..Spec::default() })?;
        done.expect("both", done.code == 7 && done.stdout == "/bin\nblue\n")
    });
}

#[test]
fn run_takes_limits_namespaces_and_a_file_for_the_pid() {
    on_each_ctr(|daemon| {
        let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
        let file = scratch.path().join("pid");
        let other = sleeper(daemon)?;
        let home = guest_pid(daemon, &other)?;
        let namespace = format!("network:/proc/{home}/ns/net");
        let flags = [
            "--memory-limit",
            "67108864",
            "--cpus",
            "0.5",
            "--with-ns",
            &namespace,
            "--pid-file",
            file.to_str().ok_or("path is not UTF-8")?,
        ];
        let spec =
            Spec { image: "sleep:rootfs", args: &["1000"], flags: &flags, ..Spec::default() };
        let id = daemon.start(&spec)?;
        let pid = guest_pid(daemon, &id)?;
        let written = fs::read_to_string(&file).map_err(|error| error.to_string())?;
        let memory = group_file(daemon, &id, "memory", "memory.limit_in_bytes", "memory.max")?;
        let quota = group_file(daemon, &id, "cpu", "cpu.cfs_quota_us", "cpu.max")?;
        let networks = (network(home)?, network(pid)?);
        daemon.remove(&id)?;
        daemon.remove(&other)?;
        if networks.0 != networks.1 {
            return Err(format!("two namespaces: {networks:?}"));
        }
        let quota = quota.split(' ').next().unwrap_or_default();
        match (written == pid.to_string(), memory.as_str(), quota) {
            (true, "67108864", "50000") => Ok(()),
            other => Err(format!("pid {pid} is {written:?}; {other:?}")),
        }
    });
}

#[test]
fn run_logs_into_a_file() {
    on_each_ctr(|daemon| {
        let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
        let log = scratch.path().join("log");
        let url = format!("file://{}", log.display());
        let flags = ["--log-uri", &url];
        let id = daemon.start(&Spec { image: "hello:rootfs", flags: &flags, ..Spec::default() })?;
        eventually("the words in the file", || {
            fs::read_to_string(&log).is_ok_and(|text| text.contains("hello from"))
        })?;
        eventually("its end", || listed(daemon, &id, "STOPPED"))?;
        daemon.remove(&id)
    });
}

#[test]
fn a_container_is_made_described_labelled_and_its_task_started_and_listed() {
    on_each_ctr(|daemon| {
        let events = Events::listen(daemon)?;
        let (image, id) = (daemon.image("spin:rootfs")?, unique("e2e"));
        ctr(daemon, &["containers", "create", "--runtime", RUNTIME, &image, &id])?;
        ctr(daemon, &["containers", "label", &id, "colour=blue"])?;
        let info = ctr(daemon, &["containers", "info", &id])?;
        for word in [RUNTIME, "\"colour\": \"blue\"", "cgroupsPath"] {
            if !info.contains(word) {
                return Err(format!("no {word} in {info}"));
            }
        }
        ctr(daemon, &["tasks", "start", "--detach", &id])?;
        let pid = guest_pid(daemon, &id)?;
        let quiet = ctr(daemon, &["tasks", "list", "--quiet"])?;
        let processes = ctr(daemon, &["tasks", "ps", &id])?;
        if !quiet.lines().any(|line| line == id) || !processes.contains(&pid.to_string()) {
            return Err(format!("{id} with pid {pid} is not in {quiet:?}, {processes:?}"));
        }
        let refused = daemon.call(&["containers", "delete", &id], None);
        refused.expect("a refusal while it runs", refused.code != 0)?;
        let refused = daemon.call(&["tasks", "delete", &id], None);
        refused.expect("a refusal while it runs", refused.code != 0)?;
        ctr(daemon, &["tasks", "delete", "--force", &id])?;
        ctr(daemon, &["containers", "delete", &id])?;
        for topic in ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"] {
            eventually(topic, || events.seen(topic, &id))?;
        }
        Ok(())
    });
}

#[test]
fn a_checkpoint_is_refused_as_unimplemented() {
    on_each_ctr(|daemon| {
        let id = sleeper(daemon)?;
        let done = daemon.call(&["tasks", "checkpoint", &id], None);
        let said = done.stderr.contains("checkpoints of wasm containers are not supported");
        // Newer clients leave the code out.
        let code = done.stderr.contains("not implemented") || !daemon.name.contains("(1.");
        let refused = done.expect("a refusal", done.code != 0 && said && code);
        let runs = listed(daemon, &id, "RUNNING");
        daemon.remove(&id)?;
        refused?;
        if runs { Ok(()) } else { Err("it does not run any more".into()) }
    });
}

/// `ctr tasks attach` to what runs: it hears the end with its code.
#[test]
fn attach_hears_the_end() {
    on_each_ctr(|daemon| {
        let id = sleeper(daemon)?;
        let attached = std::thread::scope(|scope| {
            let client = scope.spawn(|| daemon.call(&["tasks", "attach", &id], None));
            // Whoever attaches later finds a task that has ended, which is as good.
            let killed = ctr(daemon, &["tasks", "kill", "--signal", "SIGTERM", &id]);
            killed.map(|_| client.join().expect("no panic"))
        })?;
        daemon.remove(&id)?;
        attached.expect("143", attached.code == 143)
    });
}

#[test]
fn every_signal_that_ends_a_program_arrives() {
    on_each_ctr(|daemon| {
        let spin = Spec { image: "spin:rootfs", ..Spec::default() };
        for (signal, code) in [("SIGHUP", 129), ("2", 130), ("SIGQUIT", 131), ("SIGUSR1", 138)] {
            let id = daemon.start(&spin)?;
            ctr(daemon, &["tasks", "kill", "--signal", signal, &id])?;
            eventually(signal, || listed(daemon, &id, "STOPPED"))?;
            let found = exit_code(daemon, &id)?;
            ctr(daemon, &["containers", "delete", &id])?;
            is_code(&id, found, code)?;
        }
        let id = daemon.start(&spin)?;
        // What is ignored by default.
        for signal in ["SIGCHLD", "SIGWINCH", "SIGURG"] {
            ctr(daemon, &["tasks", "kill", "--signal", signal, &id])?;
        }
        let refused = daemon.call(&["tasks", "kill", "--signal", "99", &id], None);
        refused.expect("no such signal", refused.code != 0)?;
        let runs = listed(daemon, &id, "RUNNING");
        ctr(daemon, &["tasks", "kill", "--all", "--signal", "SIGKILL", &id])?;
        eventually("the end", || listed(daemon, &id, "STOPPED"))?;
        daemon.remove(&id)?;
        if runs { Ok(()) } else { Err("a signal that is ignored has ended it".into()) }
    });
}
