//! `start`, `delete`, `-v` and `-info` of the real binary.

use crate::harness::{Containerd, Shim, feed, pause_spec, run, spec, within};
use containerd_shim_protos::bootstrap_api::BootstrapResult;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::types::introspection::RuntimeInfo;
use std::os::unix::fs::PermissionsExt;

#[tokio::test]
async fn containerd_before_2_3_gets_a_plain_address() {
    let containerd = Containerd::new().await;
    let bundle = containerd.bundle("c", &spec(&["/a.wasm"]));
    // Runtime options as an Any with only a type: it decodes as a bootstrap message too.
    let options = containerd_shim_protos::protobuf::well_known_types::any::Any {
        type_url: "runtimeoptions.v1.Options".into(),
        ..Default::default()
    };
    let output = feed(containerd.shim("c", &bundle, "start"), &options).await;
    assert!(output.status.success());
    assert!(output.stderr.is_empty(), "containerd would take it for the address");
    let address = String::from_utf8(output.stdout).unwrap();
    assert!(address.starts_with("unix:///run/containerd/s/"), "{address}");
    assert_eq!(std::fs::read_to_string(bundle.join("address")).unwrap(), address);
    let shim = Shim::connect(&address).await;
    let mode = std::fs::metadata(&shim.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    shim.shut_down().await;
}

#[tokio::test]
async fn containerd_2_3_gets_a_result_message() {
    let containerd = Containerd::new().await;
    let bundle = containerd.bundle("c", &spec(&["/a.wasm"]));
    let shim = containerd.start("c", &bundle).await;
    assert!(shim.socket.starts_with(containerd.dir.path().join("s")));
    shim.shut_down().await;
}

#[tokio::test]
async fn containers_of_a_pod_share_a_shim_even_when_started_at_once() {
    let containerd = Containerd::new().await;
    let starts = (0..8).map(|n| {
        let id = format!("c{n}");
        let bundle = containerd.bundle(&id, &pause_spec("pod1"));
        let command = containerd.shim(&id, &bundle, "start");
        let params = containerd.params(&id);
        tokio::spawn(async move { feed(command, &params).await })
    });
    let mut addresses = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        let output = within("a start", start).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        addresses.push(BootstrapResult::parse_from_bytes(&output.stdout).unwrap().address);
    }
    let mut pids = Vec::new();
    for address in &addresses {
        pids.push(Shim::connect(address).await.pid);
    }
    addresses.dedup();
    pids.dedup();
    assert_eq!((addresses.len(), pids.len()), (1, 1));
    Shim::connect(&addresses[0]).await.shut_down().await;
}

#[tokio::test]
async fn a_dead_socket_is_replaced() {
    let containerd = Containerd::new().await;
    let bundle = containerd.bundle("c", &spec(&["/a.wasm"]));
    let first = containerd.start("c", &bundle).await;
    let pid = nix::unistd::Pid::from_raw(first.pid.cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    first.gone().await;
    assert!(first.socket.exists());
    let second = containerd.start("c", &bundle).await;
    assert_ne!(first.pid, second.pid);
    second.shut_down().await;
}

#[tokio::test]
async fn bad_starts_say_why_and_leave_nothing() {
    let containerd = Containerd::new().await;
    let bundle = containerd.bundle("c", &spec(&["/a.wasm"]));
    let mut no_events = containerd.shim("c", &bundle, "start");
    no_events.env_remove("TTRPC_ADDRESS");
    let mut foreign = containerd.params("somebody-else");
    foreign.containerd_version = "2.3.0".into();
    let mut long = containerd.params("c");
    long.socket_dir = Some(format!("{}/{}", containerd.dir.path().display(), "d".repeat(60)));
    let broken = containerd.bundle("b", &serde_json::json!("no object"));
    for (output, sentence) in [
        (run(no_events, Vec::new()).await, "TTRPC_ADDRESS"),
        (feed(containerd.shim("c", &bundle, "start"), &foreign).await, "somebody-else"),
        (feed(containerd.shim("c", &bundle, "start"), &long).await, "107 is the limit"),
        (feed(containerd.shim("b", &broken, "start"), &containerd.params("b")).await, "parse "),
        (run(containerd.shim("a/b", &bundle, "start"), Vec::new()).await, "container id"),
    ] {
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains(sentence), "{text}");
        assert_eq!(text.lines().count(), 1, "one sentence: {text}");
        assert!(output.stdout.is_empty());
    }
    assert!(!bundle.join("address").exists());
    assert!(!containerd.dir.path().join("s").exists());
}

/// The server's environment is looked at before there is a server.
#[tokio::test]
async fn a_bad_environment_is_told_at_once_and_leaves_nothing() {
    let containerd = Containerd::new().await;
    let bundle = containerd.bundle("c", &spec(&["/a.wasm"]));
    let mut start = containerd.shim("c", &bundle, "start");
    start.env("CORACLE_LOG", "loud").env("CORACLE_CACHE_MIB", "much");
    let output = feed(start, &containerd.params("c")).await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(text.contains("CORACLE_LOG") && text.contains("CORACLE_CACHE_MIB"), "{text}");
    assert!(!bundle.join("address").exists());
    let sockets = std::fs::read_dir(containerd.dir.path().join("s")).unwrap();
    assert_eq!(sockets.count(), 0);
}

/// A server that nobody knows of must not stay.
#[tokio::test]
async fn an_answer_that_nobody_takes_leaves_no_server() {
    let containerd = Containerd::new().await;
    let bundle = containerd.bundle("c", &spec(&["/a.wasm"]));
    let (reader, writer) = nix::unistd::pipe().unwrap();
    drop(reader);
    let params = containerd.dir.path().join("params");
    std::fs::write(&params, containerd.params("c").write_to_bytes().unwrap()).unwrap();
    let mut start = containerd.shim("c", &bundle, "start");
    start.stdin(std::fs::File::open(&params).unwrap()).stdout(writer);
    let output = start.spawn().unwrap().wait_with_output().unwrap();
    assert!(!output.status.success());
    assert!(!bundle.join("address").exists());
    within("the end of the server", async {
        while !containerd.shims().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    containerd.assert_clean(&["c"]);
}

/// An exec of them maps one file and looks for no library (`.cargo/rustc.sh`).
#[test]
fn the_executables_are_static() {
    let shim = std::path::Path::new(env!("CARGO_BIN_EXE_containerd-shim-wasm-v1"));
    for file in [shim.to_owned(), shim.with_file_name("coracle")] {
        let elf = std::fs::read(&file).unwrap();
        let number = |at: usize, len: usize| {
            elf[at..at + len].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
        };
        // `elf(5)`: e_phoff, e_phentsize, e_phnum; p_type of PT_INTERP.
        let (first, size, count) = (number(0x20, 8), number(0x36, 2), number(0x38, 2));
        let interpreted = (0..count).any(|n| number(first + n * size, 4) == 3);
        assert!(!interpreted, "{} needs an interpreter", file.display());
    }
}

#[tokio::test]
async fn version_and_info() {
    let containerd = Containerd::new().await;
    let mut version = std::process::Command::new(env!("CARGO_BIN_EXE_containerd-shim-wasm-v1"));
    version.arg("-v");
    let output = run(version, Vec::new()).await;
    assert!(String::from_utf8(output.stdout).unwrap().contains(env!("CARGO_PKG_VERSION")));
    let mut info = containerd.shim("c", containerd.dir.path(), "start");
    info.arg("-info");
    let mut info = std::process::Command::new(info.get_program());
    info.arg("-info");
    let output = run(info, Vec::new()).await;
    let info = RuntimeInfo::parse_from_bytes(&output.stdout).unwrap();
    assert_eq!(info.name, "io.containerd.wasm.v1");
    let features: serde_json::Value = serde_json::from_slice(&info.features.value).unwrap();
    assert!(features["hooks"].as_array().unwrap().contains(&"prestart".into()));
    // Without it kubelet gives a pod no user namespace.
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
}

#[tokio::test]
async fn delete_of_what_never_was_answers() {
    let containerd = Containerd::new().await;
    let bundle = containerd.bundle("c", &spec(&["/a.wasm"]));
    let output = run(containerd.shim("c", &bundle, "delete"), Vec::new()).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer = containerd_shim_protos::api::DeleteResponse::parse_from_bytes(&output.stdout);
    assert_eq!(answer.unwrap().exit_status, 137);
    assert!(output.stderr.is_empty());
}
