//! A bundle with a rootfs and a cgroup of its own, and what it must leave behind: nothing.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use coracle_engine::config::{Addressing, Settings};
use coracle_oci::image::Entrypoint;
use coracle_oci::spec::{self, Workload};
use coracle_shim::guest::{Guest, GuestError, Runner, SpawnRequest, Stdio};
use serde_json::{Value, json};

/// The shim's binary, whose `guest` sub-command is the runner.
pub(crate) const RUNNER: &str = env!("CARGO_BIN_EXE_containerd-shim-wasm-v1");

/// One container's folder.
pub(crate) struct Bundle {
    dir: tempfile::TempDir,
    pub(crate) id: String,
    pub(crate) spec: Value,
}

impl Bundle {
    /// A bundle as containerd makes it, with an empty rootfs.
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("coracle-guest-").tempdir().unwrap();
        std::fs::create_dir(dir.path().join("rootfs")).unwrap();
        let id = dir.path().file_name().unwrap().to_str().unwrap().to_owned();
        let spec = json!({
            "ociVersion": "1.2.0",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": ["/pause"],
                "cwd": "/",
                "capabilities": {"effective": ["CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"]},
            },
            "root": {"path": "rootfs"},
            "hostname": "boat",
            "annotations": {"colour": "blue"},
            "mounts": [
                mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
                mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
                mount("/dev/pts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620"]),
                mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777"]),
                mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
                mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
                mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]),
            ],
            "linux": {
                "namespaces": [
                    {"type": "pid"}, {"type": "mount"}, {"type": "uts"}, {"type": "ipc"},
                    {"type": "network"}, {"type": "cgroup"},
                ],
                "cgroupsPath": format!("/{id}"),
                "resources": {"memory": {"limit": 64 << 20}, "pids": {"limit": 50}},
            },
        });
        Self { dir, id, spec }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path on the host below the rootfs.
    pub(crate) fn rootfs(&self, path: &str) -> PathBuf {
        self.dir.path().join("rootfs").join(path.trim_start_matches('/'))
    }

    /// Adds a mount.
    pub(crate) fn mount(&mut self, mount: Value) -> &mut Self {
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
        self
    }

    /// Leaves out the mounts of the default spec whose destination begins with `prefix`.
    pub(crate) fn unmount(&mut self, prefix: &str) -> &mut Self {
        let all = self.spec["mounts"].as_array_mut().unwrap();
        all.retain(|mount| !mount["destination"].as_str().unwrap().starts_with(prefix));
        self
    }

    /// Gives the container the host's programs, for hooks that run inside.
    pub(crate) fn with_programs(&mut self) -> &mut Self {
        for folder in ["/usr", "/etc"] {
            self.mount(bind(folder, folder, &["rbind", "ro"]));
        }
        for folder in ["bin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{folder}"), self.rootfs(folder)).unwrap();
        }
        self
    }

    pub(crate) fn workload(&self) -> Workload {
        std::fs::write(self.path().join("config.json"), self.spec.to_string()).unwrap();
        spec::load(self.path()).unwrap()
    }

    /// Creates the guest as a pause container.
    pub(crate) async fn spawn(&self) -> Result<Guest, GuestError> {
        self.spawn_with(Stdio::default()).await
    }

    pub(crate) async fn spawn_with(&self, stdio: Stdio) -> Result<Guest, GuestError> {
        self.spawn_as(Runner::Pause, stdio).await
    }

    /// Creates a guest that runs the WebAssembly text `wat`, and starts it.
    pub(crate) async fn run(&self, wat: &str, stdio: Stdio) -> Result<Guest, GuestError> {
        self.run_module(&wat::parse_str(wat).unwrap(), stdio).await
    }

    /// Creates a guest that runs a module, and starts it.
    pub(crate) async fn run_module(&self, wasm: &[u8], stdio: Stdio) -> Result<Guest, GuestError> {
        let entry = Entrypoint::parse("/app.wasm");
        let mut guest = self.spawn_as(Runner::Wasm { entry }, stdio).await?;
        let addressing = Addressing::Dedicated;
        let settings = Settings { addressing, ..Settings::default() };
        let image = coracle_engine::compile::compile(wasm, &settings).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&image).unwrap();
        guest.provide_code(OwnedFd::from(file).into())?;
        guest.start().await.map(|()| guest)
    }

    /// Creates a guest that runs the toolbox with these words, and starts it.
    pub(crate) async fn run_toolbox(
        &mut self,
        words: &[&str],
        stdio: Stdio,
    ) -> Result<Guest, GuestError> {
        self.spec["process"]["args"] = json!(words);
        let mut guest = self.spawn_as(Runner::Toolbox, stdio).await?;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(toolbox_code()).unwrap();
        guest.provide_code(OwnedFd::from(file).into())?;
        guest.start().await.map(|()| guest)
    }

    async fn spawn_as(&self, runner: Runner, stdio: Stdio) -> Result<Guest, GuestError> {
        let workload = self.workload();
        let request =
            SpawnRequest { id: &self.id, bundle: self.path(), workload: &workload, stdio, runner };
        Guest::spawn_with_runner(request, Path::new(RUNNER)).await
    }

    /// Creates the guest and expects a refusal that leaves nothing; gives its sentence.
    pub(crate) async fn refused(&self) -> String {
        let error = self.spawn().await.map(|guest| guest.pid()).unwrap_err().to_string();
        self.assert_clean();
        error
    }

    /// No cgroup, no state file, no mount is left.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new());
        let mut names: Vec<_> = std::fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["config.json", "rootfs"]);
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.path().to_str().unwrap()), "{mounts}");
    }

    /// The folders of the container's cgroup that exist.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let all = std::fs::read_dir("/sys/fs/cgroup").unwrap();
        let mut found: Vec<_> = all
            .map(|entry| entry.unwrap().path())
            .chain([PathBuf::from("/sys/fs/cgroup")])
            .map(|hierarchy| hierarchy.join(&self.id))
            .filter(|dir| dir.exists())
            .collect();
        found.sort();
        found.dedup();
        found
    }
}

impl Drop for Bundle {
    /// Also a failed test leaves nothing behind.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let done = coracle_shim::guest::cleanup_bundle(self.path(), &self.id);
            eprintln!("cleanup after the failure: {done:?}");
        }
    }
}

/// The toolbox's code, made once.
fn toolbox_code() -> &'static [u8] {
    static CODE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    CODE.get_or_init(|| {
        let addressing = Addressing::Dedicated;
        let settings = Settings { addressing, ..Settings::default() };
        coracle_engine::compile::compile(coracle_shim::toolbox::MODULE, &settings).unwrap()
    })
}

/// A mount of a file system.
pub(crate) fn mount(destination: &str, kind: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": kind, "options": options})
}

/// A bind mount.
pub(crate) fn bind(source: impl AsRef<Path>, destination: &str, options: &[&str]) -> Value {
    let source = source.as_ref();
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}

/// A hook that is a shell script.
pub(crate) fn sh(script: &str) -> Value {
    let env = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"];
    json!({"path": "/bin/sh", "args": ["sh", "-ec", script], "env": env, "timeout": 20})
}

/// Runs an async test the way the shim runs: on one thread.
pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let limit = std::time::Duration::from_secs(60);
        tokio::time::timeout(limit, test).await.expect("the test takes too long")
    })
}

/// Waits until the guest's program waits for a time, a descriptor or a signal.
pub(crate) async fn asleep(guest: &Guest) {
    let waits = [
        libc::SYS_poll,
        libc::SYS_ppoll,
        libc::SYS_clock_nanosleep,
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_recvfrom,
        libc::SYS_recvmsg,
    ]
    .map(|n| n.to_string());
    let waits = |call: String| call.split(' ').next().is_some_and(|n| waits.iter().any(|w| w == n));
    while !waits(proc(guest, "syscall")) {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// A path as the process sees it, reached from outside.
pub(crate) fn inside(guest: &Guest, path: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root{path}", guest.pid()))
}

/// A file of `/proc/PID`.
pub(crate) fn proc(guest: &Guest, file: &str) -> String {
    let path = format!("/proc/{}/{file}", guest.pid());
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A field of `/proc/PID/status`.
pub(crate) fn status(guest: &Guest, field: &str) -> String {
    let text = proc(guest, "status");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The options of the topmost mount at `point` in the guest's view.
pub(crate) fn mount_options(guest: &Guest, point: &str) -> Vec<String> {
    let table = proc(guest, "mountinfo");
    let last = table.lines().rfind(|line| line.split(' ').nth(4) == Some(point));
    let last = last.unwrap_or_else(|| panic!("{point} is no mount in\n{table}"));
    last.split(' ').nth(5).unwrap().split(',').map(str::to_owned).collect()
}

/// The file of a namespace of a process.
pub(crate) fn namespace(pid: impl std::fmt::Display, kind: &str) -> String {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    link.to_str().unwrap().to_owned()
}

/// Open descriptors of a guest by number.
pub(crate) fn descriptors(guest: &Guest) -> Vec<(u32, String)> {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", guest.pid())).unwrap();
    let mut all: Vec<_> = entries
        .map(|entry| entry.unwrap())
        .filter_map(|entry| {
            let number = entry.file_name().to_str().unwrap().parse().unwrap();
            // One that was closed in the meantime is not open.
            let link = std::fs::read_link(entry.path()).ok()?;
            Some((number, link.display().to_string()))
        })
        .collect();
    all.sort();
    all
}

/// A pipe whose writing end is for a guest.
pub(crate) fn pipe() -> (std::fs::File, OwnedFd) {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (reader.into(), writer)
}
