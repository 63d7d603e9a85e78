//! Pods by CRI, as the kubelet makes them: containers, logs, network, sidecars, and their end.

use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::cri::{Container, Cri, Pod, eventually, on_each_handler};

const BUSYBOX: &str = "busybox:rootfs";

/// A child that ends with this.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        // Not by SIGKILL: the client's script has children, which must end as well.
        if let Some(pid) = Pid::from_raw(self.0.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

#[test]
fn a_container_runs_and_its_words_and_exit_code_arrive() {
    on_each_handler(|cri, handler| {
        let pod = Pod::start(cri, handler)?;
        let hello = pod.run("hello-rust:rootfs", &[])?;
        let code = pod.run("exit-code:rootfs", &["42"])?;
        let trap = pod.run("trap:rootfs", &[])?;
        let check = |container: &Container<'_>, code, reason: &str| {
            let ended = container.ended()?;
            if ended == (code, reason.to_owned()) { Ok(()) } else { Err(format!("{ended:?}")) }
        };
        check(&hello, 0, "Completed")?;
        let logs = hello.logs()?;
        logs.expect("a hello", logs.stdout == "hello from Rust\n" && logs.stderr.is_empty())?;
        check(&code, 42, "Error")?;
        check(&trap, 134, "Error")?;
        let logs = trap.logs()?;
        logs.expect("a report", logs.stderr.contains("unreachable"))?;
        let status = pod.status()?;
        if status["status"]["state"] != "SANDBOX_READY" {
            return Err(format!("{status}"));
        }
        pod.remove()
    });
}

#[test]
fn a_container_that_cannot_start_says_why_and_can_be_removed() {
    on_each_handler(|cri, handler| {
        let pod = Pod::start(cri, handler)?;
        for (image, word) in [("bad-imports:rootfs", "import"), ("bad-not-wasm:rootfs", "app.wasm")]
        {
            let bad = pod.create(image, &[], &json!({}))?;
            let done = cri.call(&["start", &bad.id], None);
            done.expect("a sentence", done.code != 0 && done.stderr.contains(word))?;
            let (code, reason) = bad.ended()?;
            if code == 0 || !["StartError", "ContainerCannotRun"].contains(&reason.as_str()) {
                return Err(format!("{image} ended with {code}, {reason}"));
            }
            cri.ask(&["rm", &bad.id])?;
        }
        let good = pod.run("hello:rootfs", &[])?;
        good.ended()?;
        pod.remove()
    });
}

/// Asks until there is an answer that holds these words.
fn answers(words: &str, mut ask: impl FnMut() -> crate::bed::Finished) -> Result<(), String> {
    let mut last = None;
    let answered = eventually("an answer", || {
        let done = ask();
        let found = done.stdout.contains(words);
        last = Some(done);
        Ok(found)
    });
    answered.map_err(|why| format!("{why}; the last was {last:?}"))
}

#[test]
fn a_sidecar_and_a_wasm_container_talk_over_the_pods_loopback() {
    on_each_handler(|cri, handler| {
        let pod = Pod::start(cri, handler)?;
        let server = pod.run("sockets:rootfs", &["serve", "8080", "100"])?;
        let script = "mkdir /www; echo hello from busybox >/www/index.html; \
                      exec busybox httpd -f -p 127.0.0.1:8081 -h /www";
        let sidecar = pod.run(BUSYBOX, &["sh", "-c", script])?;
        let wget = ["busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/"];
        answers("hello from C", || sidecar.exec_sync(&wget))?;
        let wget = ["wget", "-q", "-O", "-", "http://127.0.0.1:8081/"];
        answers("hello from busybox", || server.exec_sync(&wget))?;
        // By name: the pod's /etc/hosts.
        let client = pod.run("sockets-rust:rootfs", &["get", "localhost", "8081"])?;
        let ended = client.ended()?;
        if ended.0 != 0 {
            return Err(format!("{ended:?}: {:?}", client.logs()));
        }
        client.said("hello from busybox")?;
        pod.remove()
    });
}

#[test]
fn a_pods_address_and_its_forwarded_port_reach_a_wasm_server() {
    // Of the daemon's network namespace, where nobody else listens.
    let next = AtomicU16::new(20_000);
    on_each_handler(|cri, handler| {
        let pod = Pod::start(cri, handler)?;
        let _server = pod.run("sockets:rootfs", &["serve", "8080", "100"])?;
        let get = |host: &str, port: u16| {
            let url = format!("http://{host}:{port}/");
            cri.beside(&["busybox", "wget", "-q", "-O", "-", &url])
        };
        let ip = pod.ip()?;
        answers("hello from C", || get(&ip, 8080))?;
        let local = next.fetch_add(1, Ordering::Relaxed);
        let ports = format!("{local}:8080");
        let mut forward = cri.command(&["port-forward", &pod.id, &ports]);
        let _forward =
            Ending(forward.stdout(Stdio::null()).spawn().map_err(|error| error.to_string())?);
        answers("hello from C", || get("127.0.0.1", local))?;
        pod.remove()
    });
}

#[test]
fn a_pods_namespaces_name_and_annotations_are_its_own() {
    on_each_handler(|cri, handler| {
        let resolver =
            json!({ "dns_config": { "servers": ["10.96.0.10"], "searches": ["svc.local"] } });
        let pod = Pod::with(cri, handler, &resolver)?;
        let one = pod.run(BUSYBOX, &["sleep", "1000"])?;
        let two = pod.run(BUSYBOX, &["sleep", "1000"])?;
        for (shared, file) in [(true, "net"), (true, "ipc"), (true, "uts"), (false, "mnt")] {
            let path = format!("/proc/self/ns/{file}");
            let words = ["readlink", path.as_str()];
            let (first, second) = (one.exec_sync(&words), two.exec_sync(&words));
            first.expect("a namespace", first.code == 0)?;
            second.expect(file, (first.stdout == second.stdout) == shared)?;
        }
        for (words, said) in [
            (&["busybox", "hostname"][..], "web\n"),
            (&["cat", "/etc/hostname"], "web\n"),
            (&["cat", "/etc/resolv.conf"], "nameserver 10.96.0.10\n"),
        ] {
            let done = one.exec_sync(words);
            done.expect(said, done.code == 0 && done.stdout.contains(said))?;
        }
        pod.remove()
    });
}

/// How it ended after a stop with this patience.
fn stopped(cri: &Cri, container: &Container<'_>, seconds: &str) -> Result<i64, String> {
    cri.ask(&["stop", "--timeout", seconds, &container.id])?;
    Ok(container.ended()?.0)
}

#[test]
fn stopping_waits_as_long_as_it_is_told_to() {
    on_each_handler(|cri, handler| {
        let pod = Pod::start(cri, handler)?;
        let spin = pod.run("spin:rootfs", &[])?;
        spin.said("spinning")?;
        let deaf =
            pod.run(BUSYBOX, &["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"])?;
        deaf.said("ready")?;
        let polite = pod.run(
            BUSYBOX,
            &["sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done"],
        )?;
        polite.said("ready")?;
        for (container, seconds, code) in
            [(&spin, "60", 143), (&deaf, "1", 137), (&polite, "60", 9)]
        {
            let ended = stopped(cri, container, seconds)?;
            if ended != code {
                return Err(format!("expected {code}, got {ended}"));
            }
        }
        // A pod is stopped with what runs in it, and it may be stopped twice.
        let _running = pod.run("spin:rootfs", &[])?;
        cri.ask(&["stopp", &pod.id])?;
        cri.ask(&["stopp", &pod.id])?;
        let status = pod.status()?;
        if status["status"]["state"] != "SANDBOX_NOTREADY" {
            return Err(format!("{status}"));
        }
        pod.remove()
    });
}

#[test]
fn a_removed_pod_leaves_nothing() {
    on_each_handler(|cri, handler| {
        let pod = Pod::start(cri, handler)?;
        let ended = pod.run("hello:rootfs", &[])?;
        ended.ended()?;
        let running = pod.run("spin:rootfs", &[])?;
        let pid = running.inspect()?["info"]["pid"].as_u64().ok_or("no pid")?;
        let group = running.group("memory").ok_or("no control group")?;
        drop((ended, running));
        pod.remove()?;
        if group.exists() || std::path::Path::new(&format!("/proc/{pid}")).exists() {
            return Err(format!("left: {} or process {pid}", group.display()));
        }
        Ok(())
    });
}

#[test]
fn containers_of_a_pod_that_shares_its_processes_see_each_other() {
    on_each_handler(|cri, handler| {
        const POD: u32 = 0;
        let shared =
            json!({ "linux": { "security_context": { "namespace_options": { "pid": POD } } } });
        let pod = Pod::with(cri, handler, &shared)?;
        let wasm = pod.run_with("spin:rootfs", &[], &shared)?;
        let sidecar = pod.run_with(BUSYBOX, &["sleep", "1234"], &shared)?;
        for done in [sidecar.exec_sync(&["busybox", "ps"]), wasm.exec_sync(&["ps"])] {
            let both = done.stdout.contains("app.wasm") && done.stdout.contains("sleep 1234");
            done.expect("both programs", done.code == 0 && both)?;
        }
        pod.remove()
    });
}

#[test]
fn images_with_wasm_layers_and_artifacts_run_in_pods() {
    on_each_handler(|cri, handler| {
        // It takes none but tar layers.
        if cri.name == "k16" {
            return Ok(());
        }
        let pod = Pod::start(cri, handler)?;
        // An artifact has no entry point, and CRI wants a command.
        for (image, more) in
            [("hello:layer", json!({})), ("hello:artifact", json!({ "command": ["/"] }))]
        {
            let hello = pod.run_with(image, &[], &more)?;
            let ended = hello.ended()?;
            let logs = hello.logs()?;
            logs.expect(
                &format!("{image}: {ended:?}"),
                logs.stdout == "hello from C\n" && ended.0 == 0,
            )?;
        }
        pod.remove()
    });
}
