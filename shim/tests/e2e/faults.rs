//! What happens when something is killed that should not be.

use std::path::Path;

use crate::bed::{Daemon, Kind, Spec, alive, eventually, on_each};

pub(crate) fn guest_pid(daemon: &Daemon, id: &str) -> Result<u32, String> {
    let text = match daemon.kind {
        Kind::Docker => daemon.call(&["inspect", "--format", "{{.State.Pid}}", id], None).stdout,
        Kind::Ctr => daemon
            .call(&["tasks", "list"], None)
            .stdout
            .lines()
            .find(|line| line.starts_with(id))
            .and_then(|line| line.split_whitespace().nth(1))
            .unwrap_or_default()
            .to_owned(),
    };
    text.trim().parse().map_err(|_| format!("no pid of {id} in {text:?}"))
}

pub(crate) fn parent_of(pid: u32) -> Result<u32, String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .map_err(|error| format!("reading the status of {pid}: {error}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    line.and_then(|pid| pid.trim().parse().ok()).ok_or(format!("no parent of {pid}"))
}

pub(crate) fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it can be killed");
}

/// Removes the FIFOs that `ctr run --detach` made: it leaves that to `ctr tasks delete`, which finds
/// no task any more once containerd has cleaned up after a dead shim, with any runtime.
pub(crate) fn remove_fifos(id: &str) {
    let Ok(folders) = std::fs::read_dir("/run/containerd/fifo") else { return };
    for folder in folders.flatten().map(|folder| folder.path()) {
        if folder.join(format!("{id}-stdout")).exists() {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

#[test]
fn a_killed_shim_leaves_no_guest() {
    on_each(|daemon| {
        let id = daemon.start(&Spec { image: "spin:rootfs", ..Spec::default() })?;
        let guest = guest_pid(daemon, &id)?;
        let shim = parent_of(guest)?;
        let name = std::fs::read_link(format!("/proc/{shim}/exe")).unwrap_or_default();
        if name.file_name() != Some("containerd-shim-wasm-v1".as_ref()) {
            return Err(format!("the guest's parent is {name:?}, not the shim"));
        }
        kill(shim);
        eventually("the guest to die", || !alive(guest))?;
        eventually("the guest to be reaped", || !Path::new(&format!("/proc/{guest}")).exists())?;
        if daemon.kind == Kind::Docker {
            eventually("docker to notice", || {
                let state = daemon.call(&["inspect", "--format", "{{.State.Running}}", &id], None);
                state.stdout.trim() == "false"
            })?;
        }
        daemon.remove(&id)?;
        remove_fifos(&id);
        let done = daemon.run(&Spec { image: "hello:rootfs", ..Spec::default() })?;
        done.expect("the next container to run", done.code == 0)
    });
}

#[test]
fn a_killed_guest_is_an_ordinary_exit() {
    on_each(|daemon| {
        let id = daemon.start(&Spec { image: "spin:rootfs", ..Spec::default() })?;
        kill(guest_pid(daemon, &id)?);
        match daemon.kind {
            Kind::Docker => {
                let waited = daemon.call(&["wait", &id], None);
                waited.expect("137", waited.stdout.trim() == "137")?;
            }
            Kind::Ctr => eventually("the task to stop", || {
                let list = daemon.call(&["tasks", "list"], None).stdout;
                list.lines().any(|line| line.starts_with(&id) && line.contains("STOPPED"))
            })?,
        }
        daemon.remove(&id)
    });
}
