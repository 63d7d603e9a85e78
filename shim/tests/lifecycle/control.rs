//! The container's control group as containerd drives it: Stats, Update, Pause, Resume, Kill
//! of all. On whichever version of cgroups the host has.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use containerd_shim_protos::api::{self, Empty, Status};
use containerd_shim_protos::cgroups::metrics::Metrics as V1Metrics;
use containerd_shim_protos::cgroups_v2::metrics::Metrics as V2Metrics;
use containerd_shim_protos::events::task::{TaskPaused, TaskResumed};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::ttrpc::Code;
use serde_json::{Value, json};

use crate::harness::{Containerd, Shim, V2, alive, gone, pause_spec, request, run, spec, within};

/// What runs until it is killed, and uses the processor for it.
const SPIN: &str =
    r#"(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))"#;

/// Whether the host has cgroup v2.
pub(crate) fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A container of a shim of its own.
pub(crate) struct Container {
    pub(crate) containerd: Containerd,
    pub(crate) shim: Shim,
    bundle: PathBuf,
}

impl Container {
    /// The pod sleeper with these limits.
    pub(crate) async fn sleeper(resources: Value) -> Self {
        Self::new(pause_spec("c"), None, resources).await
    }

    /// A program with these limits.
    pub(crate) async fn program(text: &str, resources: Value) -> Self {
        Self::new(spec(&["/app.wat"]), Some(text), resources).await
    }

    async fn new(mut spec: Value, program: Option<&str>, resources: Value) -> Self {
        spec["linux"]["resources"] = resources;
        let fill = |bundle: &Path| {
            if let Some(text) = program {
                std::fs::write(bundle.join("rootfs/app.wat"), text).unwrap();
            }
        };
        Self::with(spec, fill).await
    }

    /// Any container; `fill` puts its root file system into the bundle.
    pub(crate) async fn with(spec: Value, fill: impl FnOnce(&Path)) -> Self {
        let containerd = Containerd::new().await;
        let bundle = containerd.bundle("c", &spec);
        fill(&bundle);
        let shim = containerd.start("c", &bundle).await;
        Self { containerd, shim, bundle }
    }

    async fn create(&self) -> u32 {
        self.shim.create("c", &self.bundle).await.unwrap()
    }

    pub(crate) async fn up(&self) -> u32 {
        let pid = self.create().await;
        self.shim.start("c").await.unwrap();
        pid
    }

    pub(crate) async fn leave(&self) {
        self.shim.delete("c").await.unwrap();
        self.shim.shut_down().await;
    }

    async fn call(&self, method: &str, request: impl Message) -> Result<(), (Code, String)> {
        self.shim.call::<Empty>(V2, method, request).await.map(drop)
    }

    async fn pause(&self) -> Result<(), (Code, String)> {
        self.call("Pause", api::PauseRequest { id: "c".into(), ..Default::default() }).await
    }

    async fn resume(&self) -> Result<(), (Code, String)> {
        self.call("Resume", api::ResumeRequest { id: "c".into(), ..Default::default() }).await
    }

    pub(crate) async fn update(&self, resources: Value) -> Result<(), (Code, String)> {
        let any = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".into(),
            value: resources.to_string().into_bytes(),
            ..Any::default()
        };
        let resources = Some(any).into();
        let update = api::UpdateTaskRequest { id: "c".into(), resources, ..Default::default() };
        self.call("Update", update).await
    }

    async fn kill_all(&self, signal: i32) -> Result<(), (Code, String)> {
        let signal = signal.unsigned_abs();
        let kill = api::KillRequest { id: "c".into(), signal, all: true, ..Default::default() };
        self.call("Kill", kill).await
    }

    async fn stats(&self) -> Result<Any, (Code, String)> {
        let request = api::StatsRequest { id: "c".into(), ..Default::default() };
        let answer: api::StatsResponse = self.shim.call(V2, "Stats", request).await?;
        Ok(answer.stats.unwrap())
    }

    /// What both versions have.
    pub(crate) async fn usage(&self) -> Usage {
        Usage::of(&self.stats().await.unwrap())
    }

    /// Folders of the container's group.
    fn folders(&self) -> Vec<PathBuf> {
        let name = self.containerd.cgroup("c");
        let mounts =
            std::fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
        let all = mounts.chain([PathBuf::from("/sys/fs/cgroup")]);
        all.map(|mount| mount.join(&name[1..])).filter(|dir| dir.exists()).collect()
    }

    /// The content of a file of the group, by its name on v1 or v2.
    fn file(&self, v1: &str, v2: &str) -> String {
        let name = if unified() { v2 } else { v1 };
        let text =
            self.folders().iter().find_map(|dir| std::fs::read_to_string(dir.join(name)).ok());
        text.unwrap_or_else(|| panic!("no {name}")).trim().to_owned()
    }

    /// A process of this test's, in the container's group as an exec of it would be.
    pub(crate) fn process(&self, script: &str) -> Child {
        let script = format!("read go; {script}");
        let mut child =
            Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
        for dir in self.folders() {
            std::fs::write(dir.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        // Nothing of it is outside of the group.
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        child
    }
}

/// Statistics as both versions tell them.
#[derive(Debug)]
pub(crate) struct Usage {
    pub(crate) cpu_ns: u64,
    memory: u64,
    memory_limit: u64,
    pub(crate) oom_kills: u64,
    pub(crate) pids: u64,
    pids_limit: u64,
}

impl Usage {
    pub(crate) fn of(any: &Any) -> Self {
        if unified() {
            assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
            let m = V2Metrics::parse_from_bytes(&any.value).unwrap();
            return Self {
                cpu_ns: m.cpu.usage_usec * 1000,
                memory: m.memory.usage,
                memory_limit: m.memory.usage_limit,
                oom_kills: m.memory_events.oom_kill,
                pids: m.pids.current,
                pids_limit: m.pids.limit,
            };
        }
        assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
        let m = V1Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!(m.cpu.usage.per_cpu.iter().sum::<u64>(), m.cpu.usage.total);
        Self {
            cpu_ns: m.cpu.usage.total,
            memory: m.memory.usage.usage,
            memory_limit: m.memory.usage.limit,
            oom_kills: m.memory_oom_control.oom_kill,
            pids: m.pids.current,
            pids_limit: m.pids.limit,
        }
    }
}

fn refused<T: std::fmt::Debug>(answer: Result<T, (Code, String)>, code: Code, word: &str) {
    let (found, sentence) = answer.expect_err("this call must be refused");
    assert_eq!(found, code, "{sentence}");
    assert!(sentence.contains(word), "{word}: {sentence}");
}

#[tokio::test]
async fn statistics_from_create_to_delete() {
    let limits = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 50}});
    let c = Container::sleeper(limits).await;
    refused(c.stats().await, Code::NOT_FOUND, "c");
    c.create().await;
    let created = c.usage().await;
    assert_eq!((created.pids, created.pids_limit, created.memory_limit), (1, 50, 64 << 20));
    assert!(created.memory > 0 && created.cpu_ns > 0, "{created:?}");
    c.shim.start("c").await.unwrap();
    assert_eq!(c.usage().await.oom_kills, 0);
    c.shim.kill("c", libc::SIGKILL).await.unwrap();
    c.shim.wait("c").await.unwrap();
    let stopped = c.usage().await;
    assert!(stopped.pids == 0 && stopped.cpu_ns >= created.cpu_ns, "{stopped:?}");
    c.shim.delete("c").await.unwrap();
    refused(c.stats().await, Code::NOT_FOUND, "c");
    c.shim.shut_down().await;
}

#[tokio::test]
async fn a_program_that_works_uses_processor_time() {
    let c = Container::program(SPIN, json!({"cpu": {"quota": 10_000, "period": 100_000}})).await;
    c.up().await;
    let begun = Instant::now();
    let before = c.usage().await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let any = c.stats().await.unwrap();
    let used = Usage::of(&any).cpu_ns - before.cpu_ns;
    // A tenth, and what of it was left over before.
    let most = begun.elapsed().as_nanos() as u64 / 10 + 200_000_000;
    assert!((10_000_000..most).contains(&used), "{used} ns in {:?}", begun.elapsed());
    let throttled = if unified() {
        V2Metrics::parse_from_bytes(&any.value).unwrap().cpu.throttled_usec
    } else {
        V1Metrics::parse_from_bytes(&any.value).unwrap().cpu.throttling.throttled_time
    };
    assert!(throttled > 0, "it is held back, and that is told");
    c.shim.kill("c", libc::SIGKILL).await.unwrap();
    c.shim.wait("c").await.unwrap();
    c.leave().await;
}

#[tokio::test]
async fn limits_change_while_it_runs() {
    let c = Container::sleeper(json!({"memory": {"limit": 64 << 20, "swap": 64 << 20}})).await;
    c.up().await;
    let limit = || c.file("memory.limit_in_bytes", "memory.max").parse::<u64>().unwrap();
    // Up and down again, memory and swap in whatever order the kernel wants.
    for bytes in [128_u64 << 20, 32 << 20] {
        c.update(json!({
            "memory": {"limit": bytes, "swap": bytes},
            "cpu": {"shares": 512, "quota": 20_000, "period": 50_000, "cpus": "0"},
            "pids": {"limit": 7},
        }))
        .await
        .unwrap();
        assert_eq!(limit(), bytes);
    }
    assert_eq!(c.file("cpu.cfs_quota_us", "cpu.max").split(' ').next(), Some("20000"));
    assert_eq!(c.file("cpu.shares", "cpu.weight"), if unified() { "59" } else { "512" });
    assert_eq!(c.file("cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(c.file("pids.max", "pids.max"), "7");
    // What is not named stays.
    c.update(json!({"pids": {"limit": -1}})).await.unwrap();
    assert_eq!((c.file("pids.max", "pids.max").as_str(), limit()), ("max", 32 << 20));

    let bad = Code::INVALID_ARGUMENT;
    refused(c.update(json!({"cpu": {"cpus": "999"}})).await, bad, "cpu.cpus");
    refused(c.update(json!({"blockIO": {"weight": 1}})).await, bad, "blockIO.weight");
    let swap = json!({"memory": {"limit": 9 << 20, "swap": 8 << 20}});
    refused(c.update(swap).await, bad, "memory.swap");
    let none = api::UpdateTaskRequest { id: "c".into(), ..Default::default() };
    refused(c.call("Update", none).await, bad, "no resources");
    assert_eq!(limit(), 32 << 20);

    c.shim.kill("c", libc::SIGKILL).await.unwrap();
    c.shim.wait("c").await.unwrap();
    refused(c.update(json!({"pids": {"limit": 1}})).await, Code::FAILED_PRECONDITION, "stopped");
    c.leave().await;
}

#[tokio::test]
async fn a_program_gets_the_memory_that_an_update_gives() {
    // Takes what there is, and then goes on trying until it has 40 MiB.
    let text = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "_start")
            (loop $more
                (drop (memory.grow (i32.const 16)))
                (br_if $more (i32.lt_u (memory.size) (i32.const 640))))
            (call $exit (i32.const 42))))"#;
    let c = Container::program(text, json!({"memory": {"limit": 24 << 20}})).await;
    c.up().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(c.shim.status("c").await, Status::RUNNING, "24 MiB are too little");
    c.update(json!({"memory": {"limit": 64 << 20}})).await.unwrap();
    assert_eq!(c.shim.wait("c").await.unwrap().exit_status, 42);
    assert!(!c.containerd.topics().contains(&"/tasks/oom".to_owned()));
    c.leave().await;
}

#[tokio::test]
async fn a_limit_below_what_is_in_use() {
    // 20 MiB, all of it written to.
    let text = r#"(module (memory (export "memory") 320)
        (func (export "_start")
            (memory.fill (i32.const 0) (i32.const 1) (i32.const 20971520))
            (loop (br 0))))"#;
    let c = Container::program(text, json!({"memory": {"limit": 64 << 20}})).await;
    c.up().await;
    within("the memory to be used", async {
        while c.usage().await.memory < 20 << 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let lower = c.update(json!({"memory": {"limit": 4 << 20}})).await;
    if unified() {
        // The kernel takes the limit and makes room by force.
        lower.unwrap();
    } else {
        refused(lower, Code::INVALID_ARGUMENT, "cannot set memory.limit");
        assert_eq!(c.usage().await.memory_limit, 64 << 20);
        c.shim.kill("c", libc::SIGKILL).await.unwrap();
    }
    assert_eq!(c.shim.wait("c").await.unwrap().exit_status, 137);
    assert_eq!(c.containerd.topics().contains(&"/tasks/oom".to_owned()), unified());
    c.leave().await;
}

#[tokio::test]
async fn paused_and_resumed() {
    let c = Container::program(SPIN, json!({})).await;
    let pid = c.create().await;
    refused(c.pause().await, Code::FAILED_PRECONDITION, "cannot pause container c: it is created");
    c.shim.start("c").await.unwrap();
    refused(c.resume().await, Code::FAILED_PRECONDITION, "it is running");
    c.pause().await.unwrap();
    assert_eq!(c.shim.status("c").await, Status::PAUSED);
    // Every call in this state.
    let before = c.usage().await;
    refused(c.pause().await, Code::FAILED_PRECONDITION, "it is paused");
    refused(c.shim.start("c").await, Code::FAILED_PRECONDITION, "cannot start");
    refused(c.shim.delete("c").await, Code::FAILED_PRECONDITION, "cannot delete");
    c.update(json!({"pids": {"limit": 9}})).await.unwrap();
    assert_eq!(c.shim.pids("c").await, [pid]);
    c.shim.kill("c", libc::SIGTERM).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(c.shim.status("c").await, Status::PAUSED, "the signal waits");
    // On v2 the signal wakes it up for the moment in which it sees that it is paused.
    let worked = Duration::from_nanos(c.usage().await.cpu_ns - before.cpu_ns);
    assert!(worked < Duration::from_millis(50), "it works: {worked:?}");
    let waiting = c.shim.wait("c");
    c.resume().await.unwrap();
    assert_eq!(within("the end", waiting).await.unwrap().exit_status, 143);
    let topics = c.containerd.events(5).await;
    let wanted = ["create", "start", "paused", "resumed", "exit"].map(|t| format!("/tasks/{t}"));
    assert_eq!(topics, wanted);
    assert_eq!(c.containerd.event::<TaskPaused>("/tasks/paused").container_id, "c");
    assert_eq!(c.containerd.event::<TaskResumed>("/tasks/resumed").container_id, "c");
    refused(c.pause().await, Code::FAILED_PRECONDITION, "stopped");
    refused(c.resume().await, Code::FAILED_PRECONDITION, "stopped");
    c.leave().await;
}

#[tokio::test]
async fn a_paused_container_can_be_killed() {
    for all in [false, true] {
        let c = Container::sleeper(json!({})).await;
        let pid = c.up().await;
        c.pause().await.unwrap();
        let waiting = c.shim.wait("c");
        if all {
            c.kill_all(libc::SIGKILL).await.unwrap();
        } else {
            c.shim.kill("c", libc::SIGKILL).await.unwrap();
        }
        assert_eq!(within("the end", waiting).await.unwrap().exit_status, 137);
        assert!(!alive(pid));
        c.leave().await;
    }
}

#[tokio::test]
async fn a_lost_shim_leaves_no_paused_container() {
    let c = Container::sleeper(json!({})).await;
    let pid = c.up().await;
    c.pause().await.unwrap();
    let shim = nix::unistd::Pid::from_raw(c.shim.pid.cast_signed());
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).unwrap();
    gone(c.shim.pid).await;
    let output = run(c.containerd.shim("c", &c.bundle, "delete"), Vec::new()).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer = api::DeleteResponse::parse_from_bytes(&output.stdout).unwrap();
    assert_eq!((answer.pid, answer.exit_status), (pid, 137));
    gone(pid).await;
    assert!(c.folders().is_empty(), "{:?}", c.folders());
}

#[tokio::test]
async fn a_shim_that_must_go_takes_a_paused_container_along() {
    let c = Container::sleeper(json!({})).await;
    let pid = c.up().await;
    c.pause().await.unwrap();
    let now = api::ShutdownRequest { id: "c".into(), now: true, ..Default::default() };
    c.call("Shutdown", now).await.unwrap();
    c.shim.gone().await;
    assert!(!alive(pid) && c.folders().is_empty(), "{:?}", c.folders());
}

#[tokio::test]
async fn every_process_is_listed_and_signalled() {
    let c = Container::sleeper(json!({})).await;
    let pid = c.up().await;
    // Ends by SIGTERM, and has a child.
    let mut parent = c.process("sleep 1000 & wait");
    let pids = within("all processes", async {
        loop {
            let pids = c.shim.pids("c").await;
            if pids.len() == 3 {
                return pids;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(pids.contains(&pid) && pids.contains(&parent.id()), "{pids:?}");
    assert_eq!(c.usage().await.pids, 3);
    c.kill_all(libc::SIGTERM).await.unwrap();
    assert_eq!(c.shim.wait("c").await.unwrap().exit_status, 0, "the sleeper ends in good order");
    let status = parent.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGTERM));
    for pid in pids {
        gone(pid).await;
    }
    c.leave().await;
}

#[tokio::test]
async fn nobody_escapes_a_kill_of_all() {
    let c = Container::sleeper(json!({"pids": {"limit": 200}})).await;
    c.up().await;
    // Each starts the next one and ends: no list of processes is ever complete.
    let mut first = c.process("f() { sh -c 'exec sleep 0.01' & f & wait; }; f 2>/dev/null");
    tokio::time::sleep(Duration::from_millis(300)).await;
    c.kill_all(libc::SIGKILL).await.unwrap();
    assert_eq!(c.shim.wait("c").await.unwrap().exit_status, 137);
    first.wait().unwrap();
    within("all processes to end", async {
        while c.usage().await.pids != 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    c.leave().await;
}

#[tokio::test]
async fn limits_that_this_kernel_does_not_have_are_named() {
    let mut spec = pause_spec("c");
    let pages = json!([{"pageSize": "3MB", "limit": 3 << 20}]);
    spec["linux"]["resources"] = json!({"hugepageLimits": pages});
    let containerd = Containerd::new().await;
    let bundle = containerd.bundle("c", &spec);
    let shim = containerd.start("c", &bundle).await;
    let (_, sentence) = shim.create_with(request("c", &bundle)).await.unwrap_err();
    assert!(sentence.contains("hugepageLimits") && sentence.contains("hugetlb"), "{sentence}");
    shim.shut_down().await;
}
