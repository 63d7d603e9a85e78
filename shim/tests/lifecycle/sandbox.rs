//! A pod whose sandbox is the shim's own: the sandbox service, and containers that join its namespaces.

use std::fs;
use std::path::{Path, PathBuf};

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::sandbox_api as api;
use containerd_shim_protos::ttrpc::Code;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clean::groups;
use crate::control::Usage;
use crate::harness::{Containerd, Shim, alive, gone, run, spec};
use crate::programs::{hello, loops};

const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";

/// A containerd with a shim for the sandbox `s`, in an empty bundle as containerd makes it.
struct Pod {
    containerd: Containerd,
    shim: Shim,
    bundle: PathBuf,
}

impl Pod {
    async fn new() -> Self {
        let containerd = Containerd::new().await;
        let bundle = containerd.dir.path().join("bundles/s");
        fs::create_dir_all(bundle.join("rootfs")).unwrap();
        let shim = containerd.start("s", &bundle).await;
        Self { containerd, shim, bundle }
    }

    /// The pod's control group, which is containerd's to remove.
    fn group(&self) -> String {
        self.containerd.cgroup("pod")
    }

    async fn call<R: Message>(
        &self,
        method: &str,
        request: impl Message,
    ) -> Result<R, (Code, String)> {
        self.shim.call(SERVICE, method, request).await
    }

    async fn create(&self) -> Result<(), (Code, String)> {
        self.create_with(options("web", &self.group())).await
    }

    async fn create_with(&self, options: Vec<u8>) -> Result<(), (Code, String)> {
        let options = Any {
            type_url: "types.googleapis.com/runtime.v1.PodSandboxConfig".into(),
            value: options,
            ..Default::default()
        };
        let request = api::CreateSandboxRequest {
            sandbox_id: "s".into(),
            bundle_path: self.bundle.to_str().unwrap().into(),
            options: Some(options).into(),
            ..Default::default()
        };
        self.call::<api::CreateSandboxResponse>("CreateSandbox", request).await.map(drop)
    }

    async fn start(&self) -> Result<u32, (Code, String)> {
        let request = api::StartSandboxRequest { sandbox_id: "s".into(), ..Default::default() };
        let answer = self.call::<api::StartSandboxResponse>("StartSandbox", request).await?;
        assert!(answer.created_at.seconds > 0);
        Ok(answer.pid)
    }

    async fn stop(&self) {
        let request = api::StopSandboxRequest { sandbox_id: "s".into(), ..Default::default() };
        self.call::<api::StopSandboxResponse>("StopSandbox", request).await.unwrap();
    }

    async fn wait(&self) -> u32 {
        let request = api::WaitSandboxRequest { sandbox_id: "s".into(), ..Default::default() };
        let end: api::WaitSandboxResponse = self.call("WaitSandbox", request).await.unwrap();
        assert!(end.exited_at.seconds > 0);
        end.exit_status
    }

    async fn status(&self, id: &str) -> Result<api::SandboxStatusResponse, (Code, String)> {
        let request = api::SandboxStatusRequest {
            sandbox_id: id.into(),
            verbose: true,
            ..Default::default()
        };
        self.call("SandboxStatus", request).await
    }

    async fn metrics(&self) -> Result<api::SandboxMetricsResponse, (Code, String)> {
        let request = api::SandboxMetricsRequest { sandbox_id: "s".into(), ..Default::default() };
        self.call("SandboxMetrics", request).await
    }

    /// ShutdownSandbox, and then the end of the process.
    async fn shut_down(&self) {
        let request = api::ShutdownSandboxRequest { sandbox_id: "s".into(), ..Default::default() };
        self.call::<api::ShutdownSandboxResponse>("ShutdownSandbox", request).await.unwrap();
        // The connection outlives the answer: containerd's client may see its end first.
        assert_eq!(self.status("s").await.unwrap_err().0, Code::NOT_FOUND);
        self.shim.gone().await;
        assert!(!self.shim.socket.exists());
    }

    /// The bundle of a container that joins the sandbox of this pid.
    fn container(&self, pid: u32, program: &str) -> PathBuf {
        let mut spec = spec(&["/app.wat"]);
        let join = |kind, file| serde_json::json!({ "type": kind, "path": format!("/proc/{pid}/ns/{file}") });
        spec["linux"]["namespaces"] = serde_json::json!([
            { "type": "pid" }, { "type": "mount" }, join("ipc", "ipc"), join("uts", "uts"),
        ]);
        let bundle = self.containerd.bundle("c", &spec);
        fs::write(bundle.join("rootfs/app.wat"), program).unwrap();
        bundle
    }

    /// Nothing is left but what containerd itself made.
    fn assert_clean(&self) {
        // containerd refuses to remove a bundle whose root file system holds anything.
        let left: Vec<_> = fs::read_dir(self.bundle.join("rootfs")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        let group = self.group();
        let group = group.trim_start_matches('/');
        for pod in groups().iter().filter(|path| path.ends_with(group)) {
            let sandbox = Path::new(pod).join("s");
            assert!(!sandbox.exists(), "{}", sandbox.display());
            fs::remove_dir(pod).unwrap();
        }
        self.containerd.assert_clean(&["s", "c"]);
    }
}

/// CRI's `PodSandboxConfig`: host name, name servers, and the control group's parent.
fn options(hostname: &str, parent: &str) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| {
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()][..], bytes].concat()
    };
    let dns = field(1, b"10.0.0.10");
    let linux = field(1, parent.as_bytes());
    [field(2, hostname.as_bytes()), field(4, &dns), field(8, &linux)].concat()
}

fn namespace(pid: u32, kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap()
}

#[tokio::test]
async fn a_pod_with_a_container() {
    let pod = Pod::new().await;
    pod.create().await.unwrap();
    let status = pod.status("s").await.unwrap();
    assert_eq!((status.state.as_str(), status.pid), ("SANDBOX_NOTREADY", 0));
    assert_eq!(pod.metrics().await.unwrap_err().0, Code::FAILED_PRECONDITION);
    let pid = pod.start().await.unwrap();
    let status = pod.status("s").await.unwrap();
    assert_eq!((status.state.as_str(), status.pid), ("SANDBOX_READY", pid));
    let metrics = pod.metrics().await.unwrap().metrics.unwrap();
    assert!(metrics.id == "s" && metrics.timestamp.seconds > 0);
    let usage = Usage::of(&metrics.data);
    assert!(usage.pids == 1 && usage.cpu_ns > 0, "{usage:?}");
    assert!(status.info["info"].contains("\"ready\""), "{:?}", status.info);
    for kind in ["ipc", "uts", "mnt", "pid"] {
        assert_ne!(namespace(pid, kind), namespace(std::process::id(), kind), "{kind}");
    }
    // No network namespace was named, so it is the node's.
    assert_eq!(namespace(pid, "net"), namespace(std::process::id(), "net"));

    let bundle = pod.container(pid, &loops(&hello()));
    let guest = pod.shim.create("c", &bundle).await.unwrap();
    assert_eq!(namespace(guest, "uts"), namespace(pid, "uts"));
    pod.shim.start("c").await.unwrap();
    let etc = |name: &str| fs::read_to_string(format!("/proc/{guest}/root/etc/{name}")).unwrap();
    assert_eq!(etc("resolv.conf"), "nameserver 10.0.0.10\n");
    assert_eq!(etc("hostname"), "web\n");
    assert!(etc("hosts").contains("localhost web"), "{}", etc("hosts"));
    pod.shim.kill("c", libc::SIGKILL).await.unwrap();
    assert_eq!(pod.shim.wait("c").await.unwrap().exit_status, 137);
    pod.shim.delete("c").await.unwrap();

    // The last container's Shutdown leaves the pod alone.
    let request = containerd_shim_protos::api::ShutdownRequest::default();
    pod.shim
        .call::<containerd_shim_protos::api::Empty>(crate::harness::V2, "Shutdown", request)
        .await
        .unwrap();
    assert!(alive(pid));
    // Only tasks have events.
    let topics = pod.containerd.events(4).await;
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);

    pod.stop().await;
    assert_eq!(pod.wait().await, 0);
    assert!(!alive(pid));
    pod.stop().await;
    let status = pod.status("s").await.unwrap();
    assert_eq!(status.state, "SANDBOX_NOTREADY");
    assert!(status.exited_at.seconds > 0);
    pod.shut_down().await;
    pod.assert_clean();
}

#[tokio::test]
async fn calls_are_refused_in_the_wrong_state() {
    let pod = Pod::new().await;
    let code = |answer: Result<(), (Code, String)>| answer.unwrap_err().0;
    assert_eq!(code(pod.start().await.map(drop)), Code::NOT_FOUND);
    assert_eq!(code(pod.create_with(b"\x12\x7f".to_vec()).await), Code::INVALID_ARGUMENT);
    // A host name that the kernel does not take, and a group outside of its hierarchy.
    let long = "x".repeat(65);
    assert_eq!(code(pod.create_with(options(&long, "/p")).await), Code::INVALID_ARGUMENT);
    pod.create_with(options("web", "/../p")).await.unwrap();
    let (refused, sentence) = pod.start().await.unwrap_err();
    assert_eq!(refused, Code::INVALID_ARGUMENT, "{sentence}");
    assert!(sentence.contains("/../p"), "{sentence}");
    assert_eq!(code(pod.create().await), Code::ALREADY_EXISTS);
    assert_eq!(code(pod.status("t").await.map(drop)), Code::NOT_FOUND);
    assert_eq!(code(pod.status("../s").await.map(drop)), Code::INVALID_ARGUMENT);
    pod.shut_down().await;
    pod.assert_clean();

    let pod = Pod::new().await;
    pod.create().await.unwrap();
    let pid = pod.start().await.unwrap();
    assert_eq!(code(pod.start().await.map(drop)), Code::FAILED_PRECONDITION);
    assert!(alive(pid));
    pod.shut_down().await;
    assert!(!alive(pid));
    pod.assert_clean();
}

#[tokio::test]
async fn the_end_of_a_sandbox_that_is_killed_is_told() {
    let pod = Pod::new().await;
    pod.create().await.unwrap();
    let pid = pod.start().await.unwrap();
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
    assert_eq!(pod.wait().await, 137);
    pod.shut_down().await;
    pod.assert_clean();
}

#[tokio::test]
async fn delete_removes_the_sandbox_of_a_lost_shim() {
    let pod = Pod::new().await;
    pod.create().await.unwrap();
    let pid = pod.start().await.unwrap();
    kill(Pid::from_raw(pod.shim.pid.cast_signed()), Signal::SIGKILL).unwrap();
    gone(pod.shim.pid).await;
    let done = run(pod.containerd.shim("s", &pod.bundle, "delete"), Vec::new()).await;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    gone(pid).await;
    pod.assert_clean();
}

#[tokio::test]
async fn a_sandbox_answers_pings_and_says_its_platform() {
    let pod = Pod::new().await;
    pod.create().await.unwrap();
    let ping = |id: &str| api::PingRequest { sandbox_id: id.into(), ..Default::default() };
    pod.call::<api::PingResponse>("PingSandbox", ping("s")).await.unwrap();
    let (code, _) = pod.call::<api::PingResponse>("PingSandbox", ping("x")).await.unwrap_err();
    assert_eq!(code, Code::NOT_FOUND);
    let request = api::PlatformRequest { sandbox_id: "s".into(), ..Default::default() };
    let answer: api::PlatformResponse = pod.call("Platform", request).await.unwrap();
    assert_eq!(
        (answer.platform.os.as_str(), answer.platform.architecture.as_str()),
        ("linux", "amd64")
    );
    pod.shut_down().await;
    pod.assert_clean();
}
