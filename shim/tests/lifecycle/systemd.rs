//! Control groups by paths of systemd's form: as units where systemd runs, as plain groups elsewhere. On cgroup v2;
//! `make test-cgroupv2` has a machine of each kind.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::control::{Container, unified};
use crate::harness::{gone, pause_spec, run, within};

const SLICE: &str = "coracle-test.slice";

/// Whether systemd manages this machine. Where it must, `CORACLE_TEST_SYSTEMD` is set, and nothing is passed over.
fn booted() -> bool {
    let booted = Path::new("/run/systemd/system").exists() && unified();
    assert!(booted || std::env::var_os("CORACLE_TEST_SYSTEMD").is_none(), "systemd must run");
    if !booted {
        eprintln!("units of systemd: NOT RUN, this machine has no systemd with cgroup v2");
    }
    booted
}

/// A container that is to be a unit, with limits.
struct Unit {
    container: Container,
    name: String,
}

impl Unit {
    async fn new(id: &str) -> Self {
        let id = format!("{id}-{}", std::process::id());
        let mut spec = pause_spec("c");
        spec["linux"]["cgroupsPath"] = format!("{SLICE}:test:{id}").into();
        spec["linux"]["resources"] = json!({
            "memory": {"limit": 64 << 20},
            "cpu": {"quota": 50_000, "period": 100_000, "shares": 512, "cpus": "0"},
            "pids": {"limit": 9},
        });
        let container = Container::with(spec, |_| ()).await;
        Self { container, name: format!("test-{id}.scope") }
    }

    fn folder(&self) -> PathBuf {
        Path::new("/sys/fs/cgroup/coracle.slice").join(SLICE).join(&self.name)
    }

    fn file(&self, name: &str) -> String {
        let file = self.folder().join(name);
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file:?}: {e}"));
        text.trim().to_owned()
    }

    /// What systemd says of the unit.
    fn shown(&self, property: &str) -> String {
        systemctl(&["show", "--value", "--property", property, &self.name])
    }

    async fn is_gone(&self) {
        within("the end of the unit", async {
            while self.shown("ActiveState") != "inactive" || self.folder().exists() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }

    fn check(&self, memory: &str, tasks: &str, cpu: &str) {
        assert_eq!(self.file("memory.max"), memory);
        assert_eq!(self.file("pids.max"), tasks);
        assert_eq!(self.file("cpu.max"), cpu);
        assert_eq!(self.file("cpu.weight"), "59");
        assert_eq!(self.file("cpuset.cpus"), "0");
    }
}

fn systemctl(words: &[&str]) -> String {
    let done = Command::new("systemctl").args(words).output().unwrap();
    assert!(done.status.success(), "systemctl {words:?}: {done:?}");
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn limits_of_a_unit_survive_a_reload_of_systemd() {
    if !booted() {
        return;
    }
    let unit = Unit::new("limits").await;
    let c = &unit.container;
    let pid = c.up().await;
    assert_eq!(unit.shown("ActiveState"), "active");
    assert_eq!(unit.shown("Slice"), SLICE);
    assert_eq!(unit.shown("Delegate"), "yes");
    assert_eq!(unit.shown("MemoryMax"), (64 << 20).to_string());
    assert_eq!(unit.shown("TasksMax"), "9");
    assert_eq!(unit.file("cgroup.procs"), pid.to_string());
    let before = ((64 << 20).to_string(), "9", "50000 100000");
    unit.check(&before.0, before.1, before.2);
    // systemd writes the files of its units anew.
    systemctl(&["daemon-reload"]);
    systemctl(&["set-property", "--runtime", SLICE, "MemoryMax=1G", "CPUWeight=200"]);
    systemctl(&["set-property", "--runtime", &unit.name, "IOWeight=200"]);
    unit.check(&before.0, before.1, before.2);

    let new =
        json!({"memory": {"limit": 96 << 20}, "cpu": {"quota": 25_000}, "pids": {"limit": 7}});
    c.update(new).await.unwrap();
    let after = ((96 << 20).to_string(), "7", "25000 100000");
    unit.check(&after.0, after.1, after.2);
    systemctl(&["daemon-reload"]);
    systemctl(&["set-property", "--runtime", &unit.name, "IOWeight=300"]);
    unit.check(&after.0, after.1, after.2);
    assert_eq!(unit.shown("MemoryMax"), after.0);

    c.shim.kill("c", libc::SIGKILL).await.unwrap();
    c.shim.wait("c").await.unwrap();
    c.shim.delete("c").await.unwrap();
    unit.is_gone().await;
    // Another one of the same name, and a program in it.
    c.up().await;
    assert_eq!(unit.shown("ActiveState"), "active");
    c.shim.kill("c", libc::SIGKILL).await.unwrap();
    c.shim.wait("c").await.unwrap();
    c.leave().await;
    unit.is_gone().await;
}

#[tokio::test]
async fn a_unit_goes_with_a_lost_shim() {
    if !booted() {
        return;
    }
    let unit = Unit::new("lost").await;
    let c = &unit.container;
    let pid = c.up().await;
    assert_eq!(unit.shown("ActiveState"), "active");
    let shim = nix::unistd::Pid::from_raw(c.shim.pid.cast_signed());
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).unwrap();
    c.shim.gone().await;
    gone(pid).await;
    let bundle = c.containerd.dir.path().join("bundles/c");
    let done = run(c.containerd.shim("c", &bundle, "delete"), Vec::new()).await;
    assert!(done.status.success(), "{done:?}");
    unit.is_gone().await;
}

#[tokio::test]
async fn without_systemd_the_group_lies_where_the_unit_would() {
    if Path::new("/run/systemd/system").exists() || !unified() {
        eprintln!("groups by systemd's paths: NOT RUN, this machine has systemd, or cgroup v1");
        return;
    }
    let unit = Unit::new("plain").await;
    let c = &unit.container;
    c.up().await;
    unit.check(&(64 << 20).to_string(), "9", "50000 100000");
    c.update(json!({"pids": {"limit": 7}})).await.unwrap();
    assert_eq!(unit.file("pids.max"), "7");
    c.shim.kill("c", libc::SIGKILL).await.unwrap();
    c.shim.wait("c").await.unwrap();
    c.leave().await;
    assert!(!unit.folder().exists());
    // The slices are nobody's now.
    let slice = unit.folder();
    let slices = slice.ancestors().skip(1).take(2);
    slices.for_each(|slice| drop(std::fs::remove_dir(slice)));
}
