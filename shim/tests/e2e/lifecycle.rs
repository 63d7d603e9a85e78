//! Containers that are started, watched, stopped and killed.

use std::time::{Duration, Instant};

use crate::bed::{Daemon, Finished, Kind, Spec, eventually, on_each, on_some};

const SPIN: Spec<'static> =
    Spec { image: "spin:rootfs", args: &[], env: &[], mounts: &[], stdin: None, flags: &[] };

fn docker_exit_code(daemon: &Daemon, id: &str) -> Result<i32, String> {
    let done = daemon.call(&["inspect", "--format", "{{.State.ExitCode}}", id], None);
    done.stdout.trim().parse().map_err(|_| format!("no exit code in {done:?}"))
}

/// Ends a spinning container by `command` and checks how it ended.
fn ends_spinning(daemon: &Daemon, command: &[&str], code: i32) -> Result<(), String> {
    let id = daemon.start(&SPIN)?;
    let start = Instant::now();
    let mut args = command.to_vec();
    args.push(&id);
    let done = daemon.call(&args, None);
    done.expect("the command to succeed", done.code == 0)?;
    eventually("the container to end", || {
        let state = daemon.call(&["inspect", "--format", "{{.State.Status}}", &id], None);
        state.stdout.trim() == "exited"
    })?;
    let took = start.elapsed();
    let found = docker_exit_code(daemon, &id)?;
    daemon.remove(&id)?;
    if found != code {
        return Err(format!("{command:?} ended it with {found}, not {code}"));
    }
    if took > Duration::from_secs(8) {
        return Err(format!("{command:?} took {took:?}: it waited for the grace period"));
    }
    Ok(())
}

#[test]
fn docker_kill_and_stop_end_an_endless_loop() {
    on_some(
        |daemon| daemon.kind == Kind::Docker,
        |daemon| {
            ends_spinning(daemon, &["kill"], 137)?;
            ends_spinning(daemon, &["kill", "--signal", "TERM"], 143)?;
            ends_spinning(daemon, &["stop", "--time", "10"], 143)
        },
    );
}

#[test]
fn ctr_kills_with_any_signal() {
    on_some(
        |daemon| daemon.kind == Kind::Ctr,
        |daemon| {
            for (signal, code) in [("SIGTERM", "143"), ("SIGKILL", "137")] {
                let id = daemon.start(&SPIN)?;
                let done = daemon.call(&["tasks", "kill", "--signal", signal, &id], None);
                done.expect("the signal to be sent", done.code == 0)?;
                eventually("the task to stop", || {
                    daemon
                        .call(&["tasks", "list"], None)
                        .stdout
                        .lines()
                        .any(|line| line.starts_with(&id) && line.contains("STOPPED"))
                })?;
                let deleted = daemon.call(&["tasks", "delete", &id], None);
                let told = format!("{}{}", deleted.stdout, deleted.stderr);
                deleted.expect(code, deleted.code.to_string() == code || told.contains(code))?;
                daemon.remove(&id)?;
            }
            Ok(())
        },
    );
}

#[test]
fn docker_logs_show_both_streams() {
    on_some(
        |daemon| daemon.kind == Kind::Docker,
        |daemon| {
            let id = daemon.start(&Spec { image: "trap:rootfs", ..Spec::default() })?;
            let waited = daemon.call(&["wait", &id], None);
            waited.expect("134", waited.stdout.trim() == "134")?;
            let logs = daemon.call(&["logs", &id], None);
            daemon.remove(&id)?;
            logs.expect("the trap on stderr", logs.stderr.contains("unreachable"))
        },
    );
}

#[test]
fn docker_top_shows_the_guest() {
    on_some(
        |daemon| daemon.kind == Kind::Docker,
        |daemon| {
            let id = daemon.start(&SPIN)?;
            let top = daemon.call(&["top", &id, "-o", "pid"], None);
            daemon.remove(&id)?;
            top.expect("one process", top.code == 0 && top.stdout.lines().count() == 2)
        },
    );
}

#[test]
fn twenty_in_a_row() {
    on_each(|daemon| {
        for round in 0..20 {
            let done = hello(daemon)?;
            done.expect(&format!("a hello in round {round}"), done.stdout.contains("hello from"))?;
        }
        Ok(())
    });
}

#[test]
fn ten_at_once() {
    on_each(|daemon| {
        daemon.image("hello:rootfs")?;
        let results: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> = (0..10).map(|_| scope.spawn(|| hello(daemon))).collect();
            running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        for done in results {
            let done = done?;
            done.expect("a hello", done.code == 0 && done.stdout.contains("hello from"))?;
        }
        Ok(())
    });
}

fn hello(daemon: &Daemon) -> Result<Finished, String> {
    daemon.run(&Spec { image: "hello:rootfs", ..Spec::default() })
}
