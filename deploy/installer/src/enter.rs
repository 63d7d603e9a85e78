//! Enters the system that is to be worked on, when it is not the one that this process started in.

use std::fs::File;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::cli::NodeArgs;

/// Mount namespace of the node's first process, as one with the node's process ids sees it.
const NODE: &str = "/proc/1/ns/mnt";

/// From here on paths are those of the node, or of the folder that was named.
pub(crate) fn enter(args: &NodeArgs) -> Result<()> {
    if let Some(root) = &args.root {
        std::os::unix::fs::chroot(root)
            .with_context(|| format!("--root: entering {}", root.display()))?;
        std::env::set_current_dir("/").context("--root: going to /")?;
    }
    if args.node { enter_node() } else { Ok(()) }
}

fn enter_node() -> Result<()> {
    let first = std::fs::read_to_string("/proc/1/cgroup").unwrap_or_default();
    let own =
        std::fs::read_link("/proc/self/ns/mnt").context("--node: reading /proc/self/ns/mnt")?;
    let node = std::fs::read_link(NODE).with_context(|| {
        format!(
            "--node: reading {NODE}: this container needs privileges (securityContext.privileged)"
        )
    })?;
    if own == node {
        // A container without hostPID sees itself as the first process.
        if first.contains("kubepods") || first.contains("docker") || std::process::id() == 1 {
            bail!(
                "--node: the first process is not the node's: this container's pod needs hostPID"
            );
        }
        return Ok(());
    }
    let file = File::open(NODE).with_context(|| format!("--node: opening {NODE}"))?;
    setns(file, CloneFlags::CLONE_NEWNS).context(
        "--node: entering the node's mount namespace: this container needs privileges (securityContext.privileged)",
    )
}
