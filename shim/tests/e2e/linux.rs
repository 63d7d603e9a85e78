//! Linux programs under the same runtime name: what users of runc see, they see here.

use std::time::{Duration, Instant};

use crate::bed::{Daemon, Finished, Kind, Spec, eventually, on_each, on_some};

const BUSYBOX: &str = "busybox:rootfs";

fn run(daemon: &Daemon, flags: &[&str], args: &[&str]) -> Result<Finished, String> {
    daemon.run(&Spec { image: BUSYBOX, args, flags, ..Spec::default() })
}

fn sh(daemon: &Daemon, flags: &[&str], script: &str) -> Result<Finished, String> {
    run(daemon, flags, &["sh", "-c", script])
}

fn docker(daemon: &Daemon) -> bool {
    daemon.kind == Kind::Docker
}

#[test]
fn a_shell_says_hello_and_its_exit_code_arrives() {
    on_each(|daemon| {
        let done = sh(daemon, &[], "echo hello from $$; echo oops >&2; exit 42")?;
        done.expect("exit code 42", done.code == 42)?;
        done.expect("both streams", done.stdout == "hello from 1\n" && done.stderr.contains("oops"))
    });
}

#[test]
fn standard_input_arrives_whole_and_ends() {
    let input: Vec<u8> = (0..300_000u32).map(|n| b'a' + (n % 26) as u8).collect();
    on_each(|daemon| {
        let spec = Spec { image: BUSYBOX, args: &["cat"], stdin: Some(&input), ..Spec::default() };
        let done = daemon.run(&spec)?;
        done.expect("success", done.code == 0)?;
        if done.stdout.as_bytes() == input.as_slice() {
            return Ok(());
        }
        Err(format!("expected the input back, got {} bytes", done.stdout.len()))
    });
}

#[test]
fn docker_takes_126_and_127_from_our_words() {
    on_some(docker, |daemon| {
        for (program, code) in [("nosuch", 127), ("/nosuch", 127), ("/bin", 126), ("/plain", 126)] {
            let image = daemon.image(BUSYBOX)?;
            let flags = ["run", "--rm", "--runtime", crate::bed::RUNTIME, "--pull=never"];
            let call = [&flags[..], &["--entrypoint", program, &image]].concat();
            let done = daemon.call(&call, None);
            done.expect(&format!("exit code {code} for {program}"), done.code == code)?;
        }
        Ok(())
    });
}

#[test]
fn user_read_only_root_and_limits_are_dockers() {
    on_some(docker, |daemon| {
        let done = sh(daemon, &["--user", "1000:1001"], "id -u; id -g; echo x > /dev/stdout")?;
        done.expect("the user, who owns the streams", done.stdout == "1000\n1001\nx\n")?;
        let done = sh(daemon, &["--read-only"], "touch /x")?;
        done.expect("a read-only root", done.code == 1 && done.stderr.contains("Read-only"))?;
        let done = sh(daemon, &["--ulimit", "nofile=100:200"], "ulimit -n; ulimit -Hn")?;
        done.expect("the limits", done.stdout == "100\n200\n")
    });
}

#[test]
fn dockers_default_profile_and_capabilities_hold() {
    const STATUS: &str = "grep -E '^(Seccomp|CapEff|NoNewPrivs):' /proc/self/status";
    on_some(docker, |daemon| {
        let done = sh(daemon, &[], STATUS)?;
        done.expect("a filter", done.stdout.contains("Seccomp:\t2\n"))?;
        done.expect("Docker's capabilities", done.stdout.contains("CapEff:\t00000000a80425fb\n"))?;
        done.expect("no no_new_privs", done.stdout.contains("NoNewPrivs:\t0\n"))?;
        let done = sh(daemon, &[], "unshare -m true; mount -t tmpfs none /tmp; echo done")?;
        done.expect("refusals", done.stdout == "done\n")?;
        let refused = done.stderr.to_lowercase();
        let count = refused.matches("not permitted").count() + refused.matches("denied").count();
        done.expect("two refusals", count == 2)?;
        let done = sh(daemon, &["--security-opt", "no-new-privileges"], STATUS)?;
        done.expect("no_new_privs", done.stdout.contains("NoNewPrivs:\t1\n"))?;
        let done = sh(daemon, &["--security-opt", "seccomp=unconfined"], STATUS)?;
        done.expect("no filter", done.stdout.contains("Seccomp:\t0\n"))
    });
}

#[test]
fn a_wasm_guest_has_its_own_cage_alone_since_dockers_profile_forbids_no_more() {
    on_some(docker, |daemon| {
        let id = daemon.start(&Spec { image: "spin:rootfs", ..Spec::default() })?;
        let inspected = daemon.call(&["inspect", "--format", "{{.State.Pid}}", &id], None);
        let status = std::fs::read_to_string(format!("/proc/{}/status", inspected.stdout.trim()));
        daemon.remove(&id)?;
        let status = status.map_err(|error| error.to_string())?;
        for line in ["Seccomp:\t2\n", "Seccomp_filters:\t1\n", "NoNewPrivs:\t1\n"] {
            if !status.contains(line) {
                return Err(format!("expected {line:?} in {status}"));
            }
        }
        Ok(())
    });
}

#[test]
fn devices_are_those_that_docker_allows() {
    const DISK: &str =
        "mknod /disk b 254 0 && head -c 1 /disk; mknod /null c 1 3 && echo > /null && echo null";
    on_some(docker, |daemon| {
        let done = sh(daemon, &[], DISK)?;
        let refused = done.stderr.contains("Operation not permitted");
        done.expect("no disk", refused && done.stdout == "null\n")?;
        let done = sh(daemon, &["--device", "/dev/kmsg"], "test -c /dev/kmsg && echo there")?;
        done.expect("the device", done.stdout == "there\n")
    });
}

#[test]
fn the_first_process_is_stopped_as_under_runc() {
    on_some(docker, |daemon| {
        // A signal without a handler does nothing to it; one with a handler ends it as it likes.
        for (script, code, patience, patient) in [
            ("echo ready; while :; do sleep 1; done", "137", 2, true),
            ("trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done", "9", 20, false),
        ] {
            let args = ["sh", "-c", script];
            let id = daemon.start(&Spec { image: BUSYBOX, args: &args, ..Spec::default() })?;
            eventually("the program's word", || {
                daemon.call(&["logs", &id], None).stdout.contains("ready")
            })?;
            let begun = Instant::now();
            let stopped = daemon.call(&["stop", "--time", &patience.to_string(), &id], None);
            stopped.expect("success", stopped.code == 0)?;
            let took = begun.elapsed();
            let waited = daemon.call(&["wait", &id], None);
            daemon.remove(&id)?;
            waited.expect(code, waited.stdout.trim() == code)?;
            if (took >= Duration::from_secs(patience)) != patient {
                return Err(format!("{script:?} took {took:?} to stop"));
            }
        }
        Ok(())
    });
}

#[test]
fn a_sidecar_beside_a_wasm_container_shares_its_network() {
    on_some(docker, |daemon| {
        let id = daemon.start(&Spec { image: "spin:rootfs", ..Spec::default() })?;
        let network = format!("container:{id}");
        let inspected = daemon.call(&["inspect", "--format", "{{.State.Pid}}", &id], None);
        let pid = inspected.stdout.trim().to_owned();
        let of_wasm = std::fs::read_link(format!("/proc/{pid}/ns/net"));
        let done = sh(daemon, &["--network", &network], "readlink /proc/self/ns/net");
        daemon.remove(&id)?;
        let done = done?;
        let of_wasm = of_wasm.map_err(|error| error.to_string())?;
        done.expect(&format!("{of_wasm:?}"), of_wasm.to_str() == Some(done.stdout.trim()))
    });
}

#[test]
fn ctr_runs_and_kills_it() {
    on_some(
        |daemon| daemon.kind == Kind::Ctr,
        |daemon| {
            let args = ["sleep", "1000"];
            let id = daemon.start(&Spec { image: BUSYBOX, args: &args, ..Spec::default() })?;
            let killed = daemon.call(&["tasks", "kill", "--signal", "SIGKILL", &id], None);
            killed.expect("the signal to be sent", killed.code == 0)?;
            eventually("the task to stop", || {
                let listed = daemon.call(&["tasks", "list"], None);
                listed.stdout.lines().any(|line| line.starts_with(&id) && line.contains("STOPPED"))
            })?;
            daemon.remove(&id)
        },
    );
}
