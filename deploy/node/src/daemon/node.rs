//! The node as this process reaches it: directly, or from a pod by way of one of the node's processes.
//!
//! In a pod this process stays in the pod's own mount namespace, where the kubelet renews its token, and reaches the
//! node's files by `/proc/PID/root`. Only the compiler's processes enter the node's namespaces: they mount what
//! containerd's snapshotter says, which names folders of the node, and make their control group in the node's tree.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The namespaces that the compiler needs, with their files.
const NAMESPACES: [(&str, LinkNameSpaceType); 2] =
    [("cgroup", LinkNameSpaceType::ControlGroup), ("mnt", LinkNameSpaceType::Mount)];

/// The node.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pid: Option<u32>,
}

/// The node's namespaces, for a process that is about to be.
#[derive(Debug, Default)]
pub(crate) struct Entrance(Vec<(File, LinkNameSpaceType)>);

impl Node {
    /// The node, seen from a process of which `pid` is one of the node's; `None` if this is one itself.
    pub(crate) fn new(pid: Option<u32>) -> Self {
        Self { pid }
    }

    /// A path of the node, for this process.
    pub(crate) fn path(&self, path: &Path) -> PathBuf {
        match (self.pid, path.strip_prefix("/")) {
            (Some(pid), Ok(rest)) => Path::new(&format!("/proc/{pid}/root")).join(rest),
            _ => path.to_owned(),
        }
    }

    /// The way in for a child.
    ///
    /// # Errors
    /// When the node's process is gone, or may not be looked at.
    pub(crate) fn entrance(&self) -> io::Result<Entrance> {
        let Some(pid) = self.pid else { return Ok(Entrance::default()) };
        let open = |(name, kind)| Ok((File::open(format!("/proc/{pid}/ns/{name}"))?, kind));
        NAMESPACES.into_iter().map(open).collect::<io::Result<_>>().map(Entrance)
    }
}

impl Entrance {
    /// Moves the calling process in; it must have one thread. Nothing but system calls: it is made between fork and exec.
    ///
    /// # Errors
    /// What the kernel says; without CAP_SYS_ADMIN and CAP_SYS_CHROOT it refuses.
    pub(crate) fn enter(&self) -> io::Result<()> {
        for (file, kind) in &self.0 {
            move_into_link_name_space(file.as_fd(), Some(*kind))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_node() {
        let path = Path::new("/run/containerd/containerd.sock");
        assert_eq!(Node::new(None).path(path), path);
        let seen = Node::new(Some(1)).path(path);
        assert_eq!(seen, Path::new("/proc/1/root/run/containerd/containerd.sock"));
    }

    #[test]
    fn a_process_that_is_gone_gives_no_entrance() {
        assert!(Node::new(None).entrance().unwrap().0.is_empty());
        assert!(Node::new(Some(u32::MAX)).entrance().is_err());
        let own = Node::new(Some(std::process::id())).entrance().unwrap();
        assert_eq!(own.0.len(), 2);
    }
}
