//! The side of containerd: a state folder, an events service, and calls to a real shim process.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use containerd_shim_protos::api::{self, Empty};
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::{Client, Events, create_events};
use containerd_shim_protos::ttrpc::asynchronous::{Server, TtrpcContext, transport::Listener};
use containerd_shim_protos::ttrpc::{self, Code, Request};

/// Nothing here takes longer, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const V2: &str = "containerd.task.v2.Task";
pub(crate) const V3: &str = "containerd.task.v3.Task";
pub(crate) const NAMESPACE: &str = "tests";

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Envelope>>>);

#[async_trait::async_trait]
impl Events for Seen {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        self.0.lock().unwrap().push(request.envelope().clone());
        Ok(Empty::default())
    }
}

/// One containerd with its state folder.
pub(crate) struct Containerd {
    pub(crate) dir: tempfile::TempDir,
    /// The folder of the node's cache.
    node: PathBuf,
    seen: Seen,
    _server: Server,
}

impl Containerd {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let seen = Seen::default();
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("ttrpc")).unwrap();
        let mut server = Server::new()
            .add_listener(Listener::try_from(listener).unwrap())
            .register_service(create_events(Arc::new(seen.clone())));
        server.start().await.unwrap();
        let node = dir.path().to_owned();
        Self { dir, node, seen, _server: server }
    }

    /// One of several on a node, which has its cache in this folder.
    pub(crate) async fn on_node(node: &Path) -> Self {
        Self { node: node.to_owned(), ..Self::new().await }
    }

    /// The folder of the node's cache.
    pub(crate) fn node(&self) -> &Path {
        &self.node
    }

    /// The topics seen so far.
    pub(crate) fn topics(&self) -> Vec<String> {
        self.seen.0.lock().unwrap().iter().map(|event| event.topic.clone()).collect()
    }

    /// The first event of a topic.
    pub(crate) fn event<M: Message>(&self, topic: &str) -> M {
        let events = self.seen.0.lock().unwrap();
        let found = events.iter().find(|event| event.topic == topic);
        let found = found.unwrap_or_else(|| panic!("no event {topic}"));
        assert_eq!(found.namespace, NAMESPACE);
        M::parse_from_bytes(&found.event.value).unwrap()
    }

    /// All events of a topic.
    pub(crate) fn all_events<M: Message>(&self, topic: &str) -> Vec<M> {
        let events = self.seen.0.lock().unwrap();
        let found = events.iter().filter(|event| event.topic == topic);
        found.map(|event| M::parse_from_bytes(&event.event.value).unwrap()).collect()
    }

    /// Waits until `count` events have come.
    pub(crate) async fn events(&self, count: usize) -> Vec<String> {
        within("events", async {
            while self.topics().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        self.topics()
    }

    /// A control group that no other test has.
    pub(crate) fn cgroup(&self, id: &str) -> String {
        let dir = self.dir.path().file_name().unwrap().to_str().unwrap();
        format!("/coracle-test-{}-{id}", dir.trim_start_matches('.'))
    }

    /// A bundle folder with this `config.json`, and a group of its own unless that names one.
    pub(crate) fn bundle(&self, id: &str, spec: &serde_json::Value) -> PathBuf {
        let bundle = self.dir.path().join("bundles").join(id);
        std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
        let mut spec = spec.clone();
        if spec.get("linux").is_some_and(|linux| linux.get("cgroupsPath").is_none()) {
            spec["linux"]["cgroupsPath"] = self.cgroup(id).into();
        }
        std::fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
        bundle
    }

    /// The shim's program with containerd's flags and environment.
    pub(crate) fn shim(&self, id: &str, bundle: &Path, action: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_containerd-shim-wasm-v1"));
        command
            .args(["-namespace", NAMESPACE, "-publish-binary", "/bin/false", "-id", id])
            .arg("-address")
            .arg(self.dir.path().join("grpc"))
            .current_dir(bundle)
            .env("CORACLE_CACHE_DIR", self.node.join("cache"))
            .env("CORACLE_RUN_DIR", self.node.join("run"))
            .env("CORACLE_LOG", "info")
            .env("TTRPC_ADDRESS", self.dir.path().join("ttrpc"));
        if action == "delete" {
            command.arg("-bundle").arg(bundle);
        }
        command.arg(action);
        command
    }

    /// What containerd 2.3 writes to the standard input of `start`.
    pub(crate) fn params(&self, id: &str) -> BootstrapParams {
        BootstrapParams {
            instance_id: id.into(),
            namespace: NAMESPACE.into(),
            containerd_ttrpc_address: self.dir.path().join("ttrpc").to_str().unwrap().into(),
            containerd_grpc_address: self.dir.path().join("grpc").to_str().unwrap().into(),
            socket_dir: Some(self.dir.path().join("s").to_str().unwrap().into()),
            ..Default::default()
        }
    }

    /// `start` by the protocol of containerd 2.3, with the sockets in this folder.
    pub(crate) async fn start(&self, id: &str, bundle: &Path) -> Shim {
        let output = feed(self.shim(id, bundle, "start"), &self.params(id)).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let result = BootstrapResult::parse_from_bytes(&output.stdout).unwrap();
        assert_eq!((result.version, result.protocol.as_str()), (3, "ttrpc"));
        Shim::connect(&result.address).await
    }
}

/// Runs a command with a message on its standard input.
pub(crate) async fn feed(command: Command, message: &impl Message) -> Output {
    let bytes = message.write_to_bytes().unwrap();
    run(command, bytes).await
}

/// Runs a command with bytes on its standard input.
pub(crate) async fn run(mut command: Command, input: Vec<u8>) -> Output {
    let work = tokio::task::spawn_blocking(move || {
        use std::io::Write;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&input).unwrap();
        child.wait_with_output().unwrap()
    });
    within("a command", work).await.unwrap()
}

/// Fails instead of hanging.
pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what} did not come in time"),
    }
}

/// A connection to a shim. The process is ended by the test that started it, or when this drops.
pub(crate) struct Shim {
    client: Client,
    pub(crate) socket: PathBuf,
    pub(crate) pid: u32,
}

impl Shim {
    pub(crate) async fn connect(address: &str) -> Self {
        let socket = PathBuf::from(address.strip_prefix("unix://").unwrap());
        let client = Client::connect(address).await.unwrap();
        let mut shim = Self { client, socket, pid: 0 };
        let id = || api::ConnectRequest { id: "x".into(), ..Default::default() };
        let answer: api::ConnectResponse = shim.call(V3, "Connect", id()).await.unwrap();
        shim.pid = answer.shim_pid;
        shim
    }

    /// One call of the Task API.
    pub(crate) async fn call<R: Message>(
        &self,
        service: &str,
        method: &str,
        request: impl Message,
    ) -> Result<R, (Code, String)> {
        let wire = Request {
            service: service.into(),
            method: method.into(),
            payload: request.write_to_bytes().unwrap(),
            ..Default::default()
        };
        match within(method, self.client.request(wire)).await {
            Ok(response) => Ok(R::parse_from_bytes(&response.payload).unwrap()),
            Err(ttrpc::Error::RpcStatus(status)) => {
                Err((status.code.enum_value().unwrap(), status.message))
            }
            Err(other) => panic!("{method}: {other}"),
        }
    }

    pub(crate) async fn create(&self, id: &str, bundle: &Path) -> Result<u32, (Code, String)> {
        self.create_with(request(id, bundle)).await
    }

    pub(crate) async fn create_with(
        &self,
        r: api::CreateTaskRequest,
    ) -> Result<u32, (Code, String)> {
        self.call::<api::CreateTaskResponse>(V2, "Create", r).await.map(|answer| answer.pid)
    }

    pub(crate) async fn start(&self, id: &str) -> Result<u32, (Code, String)> {
        let request = api::StartRequest { id: id.into(), ..Default::default() };
        self.call::<api::StartResponse>(V2, "Start", request).await.map(|answer| answer.pid)
    }

    pub(crate) async fn state(&self, id: &str) -> Result<api::StateResponse, (Code, String)> {
        let request = api::StateRequest { id: id.into(), ..Default::default() };
        self.call(V3, "State", request).await
    }

    pub(crate) async fn status(&self, id: &str) -> api::Status {
        self.state(id).await.unwrap().status.enum_value().unwrap()
    }

    pub(crate) async fn wait(&self, id: &str) -> Result<api::WaitResponse, (Code, String)> {
        let request = api::WaitRequest { id: id.into(), ..Default::default() };
        self.call(V2, "Wait", request).await
    }

    pub(crate) async fn pids(&self, id: &str) -> Vec<u32> {
        let request = api::PidsRequest { id: id.into(), ..Default::default() };
        let answer: api::PidsResponse = self.call(V2, "Pids", request).await.unwrap();
        answer.processes.iter().map(|process| process.pid).collect()
    }

    pub(crate) async fn kill(&self, id: &str, signal: i32) -> Result<(), (Code, String)> {
        let signal = signal.unsigned_abs();
        let request = api::KillRequest { id: id.into(), signal, ..Default::default() };
        self.call::<Empty>(V2, "Kill", request).await.map(drop)
    }

    pub(crate) async fn delete(&self, id: &str) -> Result<api::DeleteResponse, (Code, String)> {
        let request = api::DeleteRequest { id: id.into(), ..Default::default() };
        self.call(V2, "Delete", request).await
    }

    /// Shutdown, and then the end of the process.
    pub(crate) async fn shut_down(&self) {
        let request = api::ShutdownRequest { id: "x".into(), ..Default::default() };
        self.call::<Empty>(V2, "Shutdown", request).await.unwrap();
        self.gone().await;
        assert!(!self.socket.exists(), "the socket was left behind");
    }

    pub(crate) async fn gone(&self) {
        gone(self.pid).await;
    }
}

/// A failed test leaves no shim behind, and with it no guest.
impl Drop for Shim {
    fn drop(&mut self) {
        if std::thread::panicking() && is_shim(self.pid) {
            let pid = nix::unistd::Pid::from_raw(self.pid.cast_signed());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
    }
}

fn is_shim(pid: u32) -> bool {
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
    line.is_ok_and(|line| line.contains(env!("CARGO_BIN_EXE_containerd-shim-wasm-v1")))
}

/// Waits for the end of a process, which may stay a zombie of whoever adopted it.
pub(crate) async fn gone(pid: u32) {
    within("the end of a process", async {
        while alive(pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Whether a process runs; a zombie does not.
/// Waits until a shim has only its own thread: those for blocking work go after an idle second.
pub(crate) async fn calm(pid: u32) {
    within("the threads to go", async {
        while std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count() != 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // The last one's end wakes the shim.
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// How often a process went to sleep.
pub(crate) fn sleeps(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

pub(crate) fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    state.is_some_and(|state| state != "Z" && state != "X")
}

/// A Create request without streams. No module is so large that its program starts before all of its
/// code is there.
pub(crate) fn request(id: &str, bundle: &Path) -> api::CreateTaskRequest {
    request_with(id, bundle, "LazyAboveKiB = 1048576")
}

/// A Create request without streams, with these runtime options.
pub(crate) fn request_with(id: &str, bundle: &Path, options: &str) -> api::CreateTaskRequest {
    // Field 3 of the message is the text.
    let mut value = vec![0x1a, u8::try_from(options.len()).unwrap()];
    assert!(options.len() < 0x80, "one byte of length");
    value.extend_from_slice(options.as_bytes());
    api::CreateTaskRequest {
        id: id.into(),
        bundle: bundle.to_str().unwrap().into(),
        options: Some(Any {
            type_url: "runtimeoptions.v1.Options".into(),
            value,
            ..Default::default()
        })
        .into(),
        ..Default::default()
    }
}

/// A spec as containerd makes it, short.
pub(crate) fn spec(args: &[&str]) -> serde_json::Value {
    serde_json::json!({
        "ociVersion": "1.1.0",
        "process": {
            "args": args, "cwd": "/", "env": ["A=b"], "user": { "uid": 0, "gid": 0 },
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs" },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": { "namespaces": [
            { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" },
            { "type": "network" },
        ] },
    })
}

/// The spec of a pod's sandbox: the built-in sleeper.
pub(crate) fn pause_spec(sandbox: &str) -> serde_json::Value {
    let mut spec = spec(&["/pause"]);
    spec["annotations"] = serde_json::json!({
        "io.kubernetes.cri.container-type": "sandbox",
        "io.kubernetes.cri.sandbox-id": sandbox,
    });
    spec
}
