//! Hooks: where, when and with what they run, and what their failure does.

use std::io::Read;

use coracle_shim::guest::Stdio;
use serde_json::{Value, json};

use crate::support::*;

/// A hook that appends its stage, its network namespace and the state to a file.
fn record(log: &std::path::Path, stage: &str) -> Value {
    let log = log.display();
    sh(&format!("{{ echo {stage} $(readlink /proc/self/ns/net); cat; echo; }} >> {log}"))
}

#[test]
fn every_stage_runs_once_in_order_in_its_namespaces_with_the_state() {
    block_on(async {
        let mut bundle = Bundle::new();
        bundle.with_programs();
        let log = bundle.path().join("rootfs/log");
        let inner = std::path::Path::new("/log");
        bundle.spec["hooks"] = json!({
            "prestart": [record(&log, "prestart")],
            "createRuntime": [record(&log, "createRuntime")],
            "createContainer": [record(&log, "createContainer")],
            "startContainer": [record(inner, "startContainer")],
            "poststart": [record(&log, "poststart")],
            "poststop": [record(&log, "poststop")],
        });
        let mut guest = bundle.spawn().await.unwrap();
        let (host, own) = (namespace("self", "net"), namespace(guest.pid(), "net"));
        guest.start().await.unwrap();
        guest.cleanup().await.unwrap();
        guest.cleanup().await.unwrap();
        let text = std::fs::read_to_string(&log).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let expected = [
            ("prestart", &host, "creating"),
            ("createRuntime", &host, "creating"),
            ("createContainer", &own, "creating"),
            ("startContainer", &own, "created"),
            ("poststart", &host, "running"),
            ("poststop", &host, "stopped"),
        ];
        assert_eq!(lines.len(), 2 * expected.len(), "{text}");
        for (pair, (stage, net, status)) in lines.chunks(2).zip(expected) {
            assert_eq!(pair[0], format!("{stage} {net}"));
            let state: Value = serde_json::from_str(pair[1]).unwrap();
            assert_eq!(state["id"], bundle.id.as_str());
            assert_eq!(state["status"], status, "{stage}");
            assert_eq!(state["bundle"], bundle.path().to_str().unwrap());
            assert_eq!(state["annotations"]["colour"], "blue");
            let pid = (status != "stopped").then(|| guest.pid());
            assert_eq!(state["pid"].as_i64(), pid.map(i64::from), "{stage}");
        }
    });
}

#[test]
fn a_prestart_hook_can_reach_the_namespaces_by_pid_as_docker_does() {
    block_on(async {
        let mut bundle = Bundle::new();
        let script = "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); \
                      nsenter -t $pid -n ip link set lo up";
        bundle.spec["hooks"] = json!({"prestart": [sh(script)]});
        let mut guest = bundle.spawn().await.unwrap();
        let output = std::process::Command::new("nsenter")
            .args(["-t", &guest.pid().to_string(), "-n", "ip", "-br", "link", "show", "lo"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("UP"), "{text}");
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
    });
}

#[test]
fn a_failing_hook_fails_create_and_is_named() {
    block_on(async {
        for stage in ["prestart", "createRuntime", "createContainer"] {
            let mut bundle = Bundle::new();
            bundle.spec["hooks"] = json!({stage: [sh("echo no route; exit 4")]});
            let error = bundle.refused().await;
            let expected = format!("the {stage} hook /bin/sh failed with exit code 4");
            assert!(error.contains(&expected) && error.contains("no route"), "{error}");
        }
        let mut bundle = Bundle::new();
        bundle.spec["hooks"] = json!({"createRuntime": [
            {"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}
        ]});
        let error = bundle.refused().await;
        assert!(error.contains("did not finish within its limit of 1 s"), "{error}");
    });
}

#[test]
fn a_failing_start_hook_fails_start_and_later_ones_only_warn() {
    block_on(async {
        let mut bundle = Bundle::new();
        bundle.with_programs();
        bundle.spec["hooks"] = json!({"startContainer": [sh("exit 7")]});
        let mut guest = bundle.spawn().await.unwrap();
        let error = guest.start().await.unwrap_err().to_string();
        assert!(error.contains("startContainer hook /bin/sh failed with exit code 7"), "{error}");
        guest.cleanup().await.unwrap();
        bundle.assert_clean();

        let mut bundle = Bundle::new();
        bundle.spec["hooks"] = json!({"poststart": [sh("exit 7")], "poststop": [sh("exit 8")]});
        let mut guest = bundle.spawn().await.unwrap();
        guest.start().await.unwrap();
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
    });
}

#[test]
fn a_start_hook_sees_the_container_from_inside() {
    block_on(async {
        let mut bundle = Bundle::new();
        bundle.with_programs();
        bundle.spec["root"]["readonly"] = true.into();
        let (mut reader, writer) = pipe();
        // Hooks write to the shim, so this one speaks through a file of its own.
        let script = "{ pwd; hostname; ls -d /proc/[0-9]*; touch /x 2>&1 || true; \
                      cat /proc/1/comm; } > /dev/shm/seen";
        bundle.spec["hooks"] = json!({"startContainer": [sh(script)]});
        let stdio = Stdio { stdout: Some(writer), ..Stdio::default() };
        let mut guest = bundle.spawn_with(stdio).await.unwrap();
        guest.start().await.unwrap();
        let seen = std::fs::read_to_string(inside(&guest, "/dev/shm/seen")).unwrap();
        assert!(seen.starts_with("/\nboat\n/proc/1\n"), "{seen}");
        assert!(seen.contains("Read-only file system"), "{seen}");
        assert!(seen.ends_with("pause\n"), "{seen}");
        guest.cleanup().await.unwrap();
        // The guest was the only one to hold its standard output.
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "");
        bundle.assert_clean();
    });
}
