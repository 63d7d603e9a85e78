//! Statistics, limits, pauses and the end of memory, as users of the daemons see them.

use std::path::{Path, PathBuf};

use crate::bed::{Daemon, Kind, Mount, Spec, eventually, on_some};
use crate::faults::guest_pid;

/// Takes 72 MB of a table, of which `memory.grow` knows nothing, then leaves with 0.
pub(crate) const TABLE: &str = r#"(module (memory (export "memory") 1) (table $all 0 funcref)
    (elem declare func $self)
    (func $self (export "_start")
        (drop (table.grow $all (ref.func $self) (i32.const 9000000)))))"#;

const SPIN: Spec<'static> =
    Spec { image: "spin:rootfs", args: &[], env: &[], mounts: &[], stdin: None, flags: &[] };

/// A file of the group that a container is in, by its names on v1 and v2.
pub(crate) fn group_file(
    daemon: &Daemon,
    id: &str,
    controller: &str,
    v1: &str,
    v2: &str,
) -> Result<String, String> {
    let pid = guest_pid(daemon, id)?;
    let groups = read(Path::new(&format!("/proc/{pid}/cgroup")))?;
    let of = |wanted: &str| {
        let find = |line: &str| {
            let mut parts = line.splitn(3, ':').skip(1);
            let names = parts.next()?;
            names.split(',').any(|name| name == wanted).then(|| parts.next().map(str::to_owned))?
        };
        groups.lines().find_map(find)
    };
    let root = PathBuf::from("/sys/fs/cgroup");
    let file = match (of(controller), of("")) {
        (Some(path), _) => root.join(controller).join(path.trim_start_matches('/')).join(v1),
        (None, Some(path)) => root.join(path.trim_start_matches('/')).join(v2),
        (None, None) => return Err(format!("no group of {controller} in {groups}")),
    };
    Ok(read(&file)?.trim().to_owned())
}

fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

fn inspect(daemon: &Daemon, id: &str, field: &str) -> String {
    let format = format!("{{{{{field}}}}}");
    daemon.call(&["inspect", "--format", &format, id], None).stdout.trim().to_owned()
}

/// What `ctr tasks list` says of a task.
pub(crate) fn listed(daemon: &Daemon, id: &str, status: &str) -> bool {
    let list = daemon.call(&["tasks", "list"], None).stdout;
    list.lines().any(|line| line.starts_with(id) && line.contains(status))
}

#[test]
fn docker_stats_and_update() {
    on_some(
        |daemon| daemon.kind == Kind::Docker,
        |daemon| {
            let flags = ["--memory", "64m", "--memory-swap", "64m", "--cpus", "0.5"];
            let id = daemon.start(&Spec { flags: &flags, ..SPIN })?;
            let format = "{{.CPUPerc}} {{.MemUsage}} {{.PIDs}}";
            let stats = daemon.call(&["stats", "--no-stream", "--format", format, &id], None);
            let words: Vec<&str> = stats.stdout.split_whitespace().collect();
            let [cpu, memory, _, limit, pids] = words.as_slice() else {
                return Err(format!("five words of statistics, got {stats:?}"));
            };
            let cpu = cpu.trim_end_matches('%').parse::<f64>().unwrap_or(0.0);
            stats.expect("half a processor", (5.0..80.0).contains(&cpu))?;
            stats.expect("memory", *memory != "0B" && *limit == "64MiB" && *pids == "1")?;

            let update = [
                "update",
                "--memory",
                "96m",
                "--memory-swap",
                "96m",
                "--cpus",
                "0.25",
                "--pids-limit",
                "33",
                &id,
            ];
            let done = daemon.call(&update, None);
            done.expect("new limits", done.code == 0)?;
            for (controller, v1, v2, value) in [
                ("memory", "memory.limit_in_bytes", "memory.max", "100663296"),
                ("cpu", "cpu.cfs_quota_us", "cpu.max", "25000"),
                ("pids", "pids.max", "pids.max", "33"),
            ] {
                let found = group_file(daemon, &id, controller, v1, v2)?;
                if found.split(' ').next() != Some(value) {
                    return Err(format!("{controller} is {found}, not {value}"));
                }
            }
            daemon.remove(&id)
        },
    );
}

#[test]
fn docker_pauses_and_unpauses() {
    on_some(
        |daemon| daemon.kind == Kind::Docker,
        |daemon| {
            let id = daemon.start(&SPIN)?;
            let used = || group_file(daemon, &id, "cpuacct", "cpuacct.usage", "cpu.stat");
            for _ in 0..2 {
                let done = daemon.call(&["pause", &id], None);
                done.expect("a pause", done.code == 0)?;
                let status = inspect(daemon, &id, ".State.Status");
                let before = used()?;
                std::thread::sleep(std::time::Duration::from_millis(300));
                if status != "paused" || used()? != before {
                    return Err(format!("it is {status}, and used {before} before {}", used()?));
                }
                let exec = daemon.call(&["exec", &id, "/app.wasm"], None);
                exec.expect("no exec in a paused container", exec.code != 0)?;
                let done = daemon.call(&["unpause", &id], None);
                done.expect("the end of the pause", done.code == 0)?;
                eventually("it to work again", || used().is_ok_and(|now| now != before))?;
            }
            daemon.call(&["pause", &id], None);
            let killed = daemon.call(&["kill", &id], None);
            killed.expect("a kill of a paused container", killed.code == 0)?;
            eventually("its end", || inspect(daemon, &id, ".State.Status") == "exited")?;
            let code = inspect(daemon, &id, ".State.ExitCode");
            daemon.remove(&id)?;
            if code == "137" { Ok(()) } else { Err(format!("it ended with {code}")) }
        },
    );
}

#[test]
fn memory_that_runs_out_has_a_name() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let module = scratch.path().join("app.wat");
    std::fs::write(&module, TABLE).expect("the module can be written");
    let mounts = [Mount { host: &module, guest: "/app.wat", readonly: true }];
    let spec = Spec { image: "hello-wat:wat", mounts: &mounts, ..Spec::default() };
    on_some(
        |daemon| daemon.kind == Kind::Docker,
        |daemon| {
            for (memory, code, oom) in [("256m", "0", "false"), ("32m", "137", "true")] {
                let flags = ["--memory", memory, "--memory-swap", memory];
                let id = daemon.start(&Spec { flags: &flags, ..spec })?;
                let waited = daemon.call(&["wait", &id], None);
                waited.expect(code, waited.stdout.trim() == code)?;
                let told = inspect(daemon, &id, ".State.OOMKilled");
                daemon.remove(&id)?;
                if told != oom {
                    return Err(format!("with {memory} OOMKilled is {told}"));
                }
            }
            Ok(())
        },
    );
    on_some(
        |daemon| daemon.kind == Kind::Ctr,
        |daemon| {
            let limit = (32 << 20).to_string();
            let done = daemon.run(&Spec { flags: &["--memory-limit", &limit], ..spec })?;
            done.expect("137", done.code == 137)
        },
    );
}

#[test]
fn ctr_metrics_pause_and_resume() {
    on_some(
        |daemon| daemon.kind == Kind::Ctr,
        |daemon| {
            let id = daemon.start(&SPIN)?;
            let metrics = daemon.call(&["tasks", "metrics", "--format", "json", &id], None);
            metrics.expect("memory", metrics.code == 0 && metrics.stdout.contains("\"memory\""))?;
            let table = daemon.call(&["tasks", "metrics", &id], None);
            let usage = table.stdout.lines().any(|line| {
                let mut words = line.split_whitespace();
                let name = words.next().unwrap_or_default();
                name.starts_with("memory.usage") && words.next().is_some_and(|n| n != "0")
            });
            table.expect("the memory in use", table.code == 0 && usage)?;
            let done = daemon.call(&["tasks", "pause", &id], None);
            done.expect("a pause", done.code == 0 && listed(daemon, &id, "PAUSED"))?;
            let done = daemon.call(&["tasks", "resume", &id], None);
            done.expect("its end", done.code == 0 && listed(daemon, &id, "RUNNING"))?;
            daemon.call(&["tasks", "pause", &id], None);
            let done = daemon.call(&["tasks", "kill", "--signal", "SIGKILL", "--all", &id], None);
            done.expect("a kill of a paused task", done.code == 0)?;
            eventually("the task to stop", || listed(daemon, &id, "STOPPED"))?;
            daemon.remove(&id)
        },
    );
}
