//! A shim that is killed in the middle of a Create: `delete` removes what was made until then.

use std::path::Path;
use std::time::Duration;

use containerd_shim_protos::api;
use containerd_shim_protos::protobuf::Message;

use crate::first::until;
use crate::harness::{Containerd, gone, pause_spec, request, run};

/// Kills a shim when `until` is over, in the middle of Create, and cleans up as containerd does.
async fn killed_in_create<T: Future<Output = ()>>(
    hold: impl FnOnce(&Path),
    until: impl FnOnce(u32) -> T,
) {
    let containerd = Containerd::new().await;
    let bundle = containerd.bundle("c", &pause_spec("c"));
    let shim = containerd.start("c", &bundle).await;
    hold(&bundle);
    let mut create = request("c", &bundle);
    create.rootfs = vec![containerd_shim_protos::types::mount::Mount {
        type_: "tmpfs".into(),
        source: "tmpfs".into(),
        ..Default::default()
    }];
    let pid = nix::unistd::Pid::from_raw(shim.pid.cast_signed());
    let moment = until(shim.pid);
    tokio::select! {
        _ = shim.create_with(create) => {}
        () = moment => {}
    }
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    gone(shim.pid).await;
    let output = run(containerd.shim("c", &bundle, "delete"), Vec::new()).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer = api::DeleteResponse::parse_from_bytes(&output.stdout).unwrap();
    assert_eq!(answer.exit_status, 137);
    containerd.assert_clean(&["c"]);
    let again = run(containerd.shim("c", &bundle, "delete"), Vec::new()).await;
    assert!(again.status.success() && again.stderr.is_empty(), "{again:?}");
}

/// A pipe that nobody reads holds whoever opens it for writing.
#[tokio::test]
async fn before_its_state_is_written() {
    let hold = |bundle: &Path| {
        let draft = bundle.join("coracle-guest.json.new");
        nix::unistd::mkfifo(&draft, nix::sys::stat::Mode::S_IRWXU).unwrap();
    };
    let waits = |pid| async move {
        let place = || std::fs::read_to_string(format!("/proc/{pid}/wchan"));
        until("the shim to wait", || place().is_ok_and(|place| place == "wait_for_partner")).await;
    };
    killed_in_create(hold, waits).await;
}

/// A hook that does not end holds Create when all is made but the answer.
#[tokio::test]
async fn while_a_hook_runs() {
    let scratch = tempfile::tempdir().unwrap();
    let note = scratch.path().join("pid");
    let script = format!("echo $$ > {}; exec sleep 1000", note.display());
    let hold = |bundle: &Path| {
        let config = bundle.join("config.json");
        let text = std::fs::read(&config).unwrap();
        let mut spec: serde_json::Value = serde_json::from_slice(&text).unwrap();
        spec["hooks"] = serde_json::json!({
            "createRuntime": [{
                "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"],
            }],
        });
        std::fs::write(&config, spec.to_string()).unwrap();
    };
    let hook = || std::fs::read_to_string(&note).ok()?.strip_suffix('\n')?.parse().ok();
    killed_in_create(hold, |_| until("the hook", || hook().is_some())).await;
    // As with runc, it is not the runtime's death that ends a hook.
    let pid = nix::unistd::Pid::from_raw(hook().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// Wherever it happens to be; a Create takes some ten milliseconds.
#[tokio::test]
async fn at_any_moment() {
    for tenths in (0..200).step_by(9) {
        let moment = Duration::from_micros(100 * tenths);
        killed_in_create(|_| {}, |_| tokio::time::sleep(moment)).await;
    }
}
