//! A container that sleeps, for the tests of its further processes, and their calls.

use std::path::{Path, PathBuf};

use containerd_shim_protos::api::{self, Empty, Status};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::ttrpc::Code;
use serde_json::{Value, json};

use crate::harness::{Containerd, Shim, V2, V3, pause_spec, request_with};
use crate::programs::{Reader, module, read};

/// A process as clients describe it.
pub(crate) fn process(args: &[&str]) -> Value {
    json!({ "args": args, "cwd": "/", "env": ["PATH=/bin", "A=b"], "user": { "uid": 0, "gid": 0 } })
}

/// An Exec call without streams.
pub(crate) fn call(exec: &str, process: &Value) -> api::ExecProcessRequest {
    api::ExecProcessRequest {
        id: "c".into(),
        exec_id: exec.into(),
        spec: Some(Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
            value: process.to_string().into_bytes(),
            ..Default::default()
        })
        .into(),
        ..Default::default()
    }
}

impl Shim {
    pub(crate) async fn exec(&self, call: api::ExecProcessRequest) -> Result<(), (Code, String)> {
        self.call::<Empty>(V2, "Exec", call).await.map(drop)
    }

    pub(crate) async fn start_exec(&self, exec: &str) -> Result<u32, (Code, String)> {
        let start =
            api::StartRequest { id: "c".into(), exec_id: exec.into(), ..Default::default() };
        self.call::<api::StartResponse>(V2, "Start", start).await.map(|answer| answer.pid)
    }

    pub(crate) async fn exec_state(
        &self,
        exec: &str,
    ) -> Result<api::StateResponse, (Code, String)> {
        let state =
            api::StateRequest { id: "c".into(), exec_id: exec.into(), ..Default::default() };
        self.call(V3, "State", state).await
    }

    pub(crate) async fn wait_exec(&self, exec: &str) -> Result<u32, (Code, String)> {
        let wait = api::WaitRequest { id: "c".into(), exec_id: exec.into(), ..Default::default() };
        self.call::<api::WaitResponse>(V2, "Wait", wait).await.map(|answer| answer.exit_status)
    }

    pub(crate) async fn kill_exec(&self, exec: &str, signal: i32) -> Result<(), (Code, String)> {
        let (id, exec_id, signal) = ("c".into(), exec.into(), signal.unsigned_abs());
        let kill = api::KillRequest { id, exec_id, signal, ..Default::default() };
        self.call::<Empty>(V2, "Kill", kill).await.map(drop)
    }

    pub(crate) async fn delete_exec(
        &self,
        exec: &str,
    ) -> Result<api::DeleteResponse, (Code, String)> {
        let (id, exec_id) = ("c".into(), exec.into());
        self.call(V2, "Delete", api::DeleteRequest { id, exec_id, ..Default::default() }).await
    }

    pub(crate) async fn resize(&self, exec: &str, size: (u32, u32)) -> Result<(), (Code, String)> {
        let (id, exec_id, (width, height)) = ("c".into(), exec.into(), size);
        let resize = api::ResizePtyRequest { id, exec_id, width, height, ..Default::default() };
        self.call::<Empty>(V2, "ResizePty", resize).await.map(drop)
    }

    pub(crate) async fn close_input(&self, exec: &str) -> Result<(), (Code, String)> {
        let close = api::CloseIORequest {
            id: "c".into(),
            exec_id: exec.into(),
            stdin: true,
            ..Default::default()
        };
        self.call::<Empty>(V2, "CloseIO", close).await.map(drop)
    }
}

/// A container that sleeps, with programs in its root file system.
pub(crate) struct Home {
    pub(crate) containerd: Containerd,
    pub(crate) shim: Shim,
    pub(crate) bundle: PathBuf,
    pub(crate) pid: u32,
}

impl Home {
    pub(crate) async fn new() -> Self {
        Self::with(pause_spec("c")).await
    }

    pub(crate) async fn with(spec: Value) -> Self {
        let home = Self::created(spec).await;
        home.shim.start("c").await.unwrap();
        home
    }

    pub(crate) async fn created(spec: Value) -> Self {
        Self::created_with(spec, "LazyAboveKiB = 1048576").await
    }

    /// With these runtime options.
    pub(crate) async fn created_with(mut spec: Value, options: &str) -> Self {
        let beside =
            Path::new(env!("CARGO_BIN_EXE_containerd-shim-wasm-v1")).with_file_name("coracle");
        assert!(beside.exists(), "build the compiler first: cargo build -p coracle-deploy");
        let containerd = Containerd::new().await;
        spec["mounts"].as_array_mut().unwrap().extend([
            json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                    "options": ["mode=755"] }),
            json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                    "options": ["newinstance", "ptmxmode=0666", "mode=0620"] }),
        ]);
        let bundle = containerd.bundle("c", &spec);
        let exit = |code: u32| {
            module(&format!(r#"(func (export "_start") (call $exit (i32.const {code})))"#))
        };
        let programs = [
            ("exit.wat", exit(42)),
            ("spin.wat", module(r#"(func (export "_start") (loop (br 0)))"#)),
            ("echo.wat", crate::programs::echo()),
            ("hello.wat", crate::programs::hello()),
            ("named.wat", exit(1).replace("_start", "other")),
            ("text.txt", "no program".into()),
        ];
        std::fs::create_dir(bundle.join("rootfs/bin")).unwrap();
        for (name, text) in programs {
            std::fs::write(bundle.join("rootfs/bin").join(name), text).unwrap();
        }
        if spec["linux"].get("uidMappings").is_some() {
            // As its snapshotter does for containerd.
            std::os::unix::fs::chown(bundle.join("rootfs"), Some(100_000), Some(100_000)).unwrap();
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(containerd.dir.path(), open).unwrap();
        }
        let shim = containerd.start("c", &bundle).await;
        let pid = shim.create_with(request_with("c", &bundle, options)).await.unwrap();
        Self { containerd, shim, bundle, pid }
    }

    /// Adds a process and starts it.
    pub(crate) async fn launch(&self, exec: &str, process: &Value) -> Result<u32, (Code, String)> {
        self.shim.exec(call(exec, process)).await.unwrap();
        self.shim.start_exec(exec).await
    }

    pub(crate) fn fifo(&self, name: &str) -> PathBuf {
        let path = self.containerd.dir.path().join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        path
    }

    /// Connects a call's standard output.
    pub(crate) fn reads(&self, call: &mut api::ExecProcessRequest) -> Reader {
        let out = self.fifo(&format!("out-{}", call.exec_id));
        call.stdout = out.to_str().unwrap().into();
        read(out)
    }

    pub(crate) async fn leave(&self) {
        if self.shim.status("c").await != Status::STOPPED {
            self.shim.kill("c", libc::SIGKILL).await.unwrap();
            self.shim.wait("c").await.unwrap();
        }
        self.shim.delete("c").await.unwrap();
        self.shim.shut_down().await;
    }
}
