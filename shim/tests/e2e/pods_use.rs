//! What the kubelet and its users do with the containers of a pod: exec, probes, attach, statistics, limits, and the reasons
//! of an end.

use std::fs;

use serde_json::{Value, json};

use crate::control::TABLE;
use crate::cri::{Container, Pod, eventually, on_each_alone, on_each_handler};

const BUSYBOX: &str = "busybox:rootfs";

/// A member of a statistics message, by names with dots between.
fn number(value: &Value, path: &str) -> u64 {
    let found = path.split('.').fold(value, |value, key| &value[key]);
    found.as_str().and_then(|text| text.parse().ok()).or(found.as_u64()).unwrap_or(0)
}

#[test]
fn probes_and_exec_find_the_toolbox_and_linux_programs() {
    on_each_handler(|cri, handler| {
        let pod = Pod::start(cri, handler)?;
        let wasm = pod.run("sleep:rootfs", &["1000"])?;
        let sidecar = pod.run(BUSYBOX, &["sleep", "1000"])?;
        for (container, words, said) in [
            (&wasm, &["ls", "/"][..], "app.wasm\n"),
            (&wasm, &["/bin/cat", "/etc/hostname"], "web\n"),
            (&wasm, &["ps"], "COMMAND\n"),
            (&wasm, &["backtrace"], "(pid 1)"),
            (&sidecar, &["sh", "-c", "echo hi from $0"], "hi from sh\n"),
        ] {
            for done in [container.exec_sync(words), container.exec(words)] {
                done.expect(said, done.code == 0 && done.stdout.contains(said))?;
            }
        }
        for (container, words, code, said) in [
            (&wasm, &["cat", "/none"][..], 1, "No such file"),
            (&sidecar, &["sh", "-c", "echo oops >&2; exit 7"], 7, "oops"),
        ] {
            let done = container.exec_sync(words);
            let code = format!("exited with {code}");
            done.expect(&code, done.stderr.contains(&code) && done.stderr.contains(said))?;
            let done = container.exec(words);
            done.expect(said, done.code == 1 && done.stderr.contains(said))?;
        }
        for container in [&wasm, &sidecar] {
            let done = container.exec_sync(&["/nothing"]);
            done.expect("a refusal", done.code != 0 && done.stderr.contains("no such file"))?;
        }
        let script = "head -c 300000 /dev/zero | busybox tr '\\0' a";
        let done = sidecar.exec_sync(&["sh", "-c", script]);
        done.expect("all output", done.stdout.trim() == "a".repeat(300_000))?;
        pod.remove()
    });
}

#[test]
fn a_probe_that_takes_too_long_is_ended() {
    on_each_handler(|cri, handler| {
        let pod = Pod::start(cri, handler)?;
        for (image, args, ps) in [
            ("sleep:rootfs", &["1000"][..], &["ps"][..]),
            (BUSYBOX, &["sleep", "1000"], &["busybox", "ps"]),
        ] {
            let container = pod.run(image, args)?;
            let processes = || container.exec_sync(ps).stdout.trim().lines().count();
            let before = processes();
            let words = ["exec", "--sync", "--timeout", "1", &container.id, "sleep", "1000"];
            let done = cri.call(&words, None);
            done.expect("its time to be up", done.code != 0 && done.stderr.contains("timeout"))?;
            eventually("the probe to end", || Ok(processes() == before))?;
            if before < 2 {
                return Err(format!("{before} lines of processes"));
            }
        }
        pod.remove()
    });
}

#[test]
fn attach_brings_input_and_takes_output() {
    on_each_handler(|cri, handler| {
        let pod = Pod::start(cri, handler)?;
        let input: Vec<u8> = (0..100_000_u32).map(|n| b'a' + (n % 26) as u8).collect();
        let once = json!({ "stdin": true, "stdin_once": true });
        for (image, args) in [("stdin-echo:rootfs", &[][..]), (BUSYBOX, &["cat"])] {
            let container = pod.run_with(image, args, &once)?;
            let done = cri.attach(&container.id, &input);
            done.expect("success", done.code == 0)?;
            if done.stdout.as_bytes() != input {
                return Err(format!("{image} gave back {} bytes", done.stdout.len()));
            }
            let ended = container.ended()?;
            if ended.0 != 0 {
                return Err(format!("{image}: {ended:?}"));
            }
        }
        pod.remove()
    });
}

#[test]
fn statistics_have_memory_and_processor_time() {
    on_each_handler(|cri, handler| {
        let pod = Pod::start(cri, handler)?;
        let spin = pod.run("spin:rootfs", &[])?;
        let sidecar = pod.run(BUSYBOX, &["sh", "-c", "while :; do :; done"])?;
        for container in [&spin, &sidecar] {
            let mut stats = Value::Null;
            let counted = eventually("memory and processor time", || {
                let text = cri.ask(&["stats", "--output", "json", "--id", &container.id])?;
                stats = serde_json::from_str(&text).map_err(|error| error.to_string())?;
                let stats = &stats["stats"][0];
                Ok(number(stats, "memory.workingSetBytes.value") > 10_000
                    && number(stats, "cpu.usageCoreNanoSeconds.value") > 1_000_000)
            });
            counted.map_err(|why| format!("{why}: {stats}"))?;
        }
        // Of pods, 1.6 knows nothing but their containers.
        if cri.name != "k16" {
            let text = cri.ask(&["statsp", "--output", "json", "--id", &pod.id])?;
            let stats: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            let linux = &stats["stats"][0]["linux"];
            if linux["containers"].as_array().map(Vec::len) != Some(2) {
                return Err(format!("of two containers: {stats}"));
            }
        }
        pod.remove()
    });
}

#[test]
fn limits_of_a_running_container_change() {
    on_each_handler(|cri, handler| {
        let pod = Pod::start(cri, handler)?;
        let limits = json!({ "linux": { "resources": {
            "memory_limit_in_bytes": 256 << 20, "cpu_period": 100_000, "cpu_quota": 100_000, "cpu_shares": 512 } } });
        let spin = pod.run_with("spin:rootfs", &[], &limits)?;
        let read = |hierarchy: &str, files: [&str; 2]| {
            let group = spin.group(hierarchy).ok_or("no control group")?;
            let found = files.iter().find_map(|file| fs::read_to_string(group.join(file)).ok());
            found.map(|text| text.trim().to_owned()).ok_or(format!("{files:?}"))
        };
        let memory = ["memory.limit_in_bytes", "memory.max"];
        let quota = ["cpu.cfs_quota_us", "cpu.max"];
        let before = (read("memory", memory)?, read("cpu", quota)?);
        let (bytes, words) = ((128 << 20).to_string(), "50000");
        cri.ask(&["update", "--memory", &bytes, "--cpu-quota", words, &spin.id])?;
        let after = (read("memory", memory)?, read("cpu", quota)?);
        if before.0 != (256 << 20).to_string() || after.0 != bytes || !after.1.starts_with(words) {
            return Err(format!("from {before:?} to {after:?}"));
        }
        pod.remove()
    });
}

#[test]
fn memory_that_runs_out_is_the_reason_of_the_end() {
    on_each_handler(|cri, handler| {
        let pod = Pod::start(cri, handler)?;
        let module = pod.write("app.wat", TABLE)?;
        let limit = json!({ "linux": { "resources": { "memory_limit_in_bytes": 32 << 20, "memory_swap_limit_in_bytes": 32 << 20 } } });
        let mut greedy = limit.clone();
        greedy["mounts"] =
            json!([{ "host_path": module, "container_path": "/app.wat", "readonly": true }]);
        let wasm = pod.run_with("hello-wat:wat", &[], &greedy)?;
        let sidecar = pod.run_with(BUSYBOX, &["busybox", "tail", "/dev/zero"], &limit)?;
        for container in [&wasm, &sidecar] {
            let ended = container.ended()?;
            if ended != (137, "OOMKilled".to_owned()) {
                return Err(format!("{ended:?}"));
            }
        }
        pod.remove()
    });
}

#[test]
fn a_trap_is_told_in_the_termination_message() {
    on_each_handler(|cri, handler| {
        let pod = Pod::start(cri, handler)?;
        for at in ["/dev/termination-log", "/var/log/last-words"] {
            let file = pod.write("last-words", "")?;
            let config = json!({
                "annotations": { "io.kubernetes.container.terminationMessagePath": at },
                "mounts": [{ "host_path": file, "container_path": at }],
            });
            let trap = pod.run_with("trap:rootfs", &["divide"], &config)?;
            trap.ended()?;
            let message = fs::read_to_string(&file).map_err(|error| error.to_string())?;
            if !message.contains("divide") || !message.contains("inner_divide") {
                return Err(format!("the message at {at} is {message:?}"));
            }
        }
        pod.remove()
    });
}

#[test]
fn a_pod_goes_on_when_containerd_starts_again() {
    on_each_alone(|cri, handler| {
        let pod = Pod::start(cri, handler)?;
        let spin = pod.run("spin:rootfs", &[])?;
        let script = "trap 'exit 5' TERM; while :; do sleep 0.1; done";
        let sidecar = pod.run(BUSYBOX, &["sh", "-c", script])?;
        let pid = |container: &Container<'_>| -> Result<u64, String> {
            container.inspect()?["info"]["pid"].as_u64().ok_or_else(|| "no pid".to_owned())
        };
        let before = (pid(&spin)?, pid(&sidecar)?);
        // Of a process that ends meanwhile, containerd itself forgets how: it takes its shim for a leaked one.
        cri.restart()?;
        let after = (pid(&spin)?, pid(&sidecar)?);
        if before != after {
            return Err(format!("pids were {before:?}, are {after:?}"));
        }
        let done = spin.exec_sync(&["ps"]);
        done.expect("a process list", done.code == 0 && done.stdout.contains("COMMAND"))?;
        for (container, code) in [(&spin, 143), (&sidecar, 5)] {
            cri.ask(&["stop", "--timeout", "60", &container.id])?;
            let ended = container.ended()?;
            if ended.0 != code {
                return Err(format!("{ended:?}"));
            }
        }
        let another = pod.run("hello:rootfs", &[])?;
        another.ended()?;
        another.said("hello from C")?;
        pod.remove()
    });
}
