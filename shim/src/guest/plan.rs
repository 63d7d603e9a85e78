//! What the two halves of a guest say to each other.
//!
//! The shim sends one [`Plan`] to the fresh process and then single words; the process answers with
//! [`FromGuest`]. A plan holds only what the guest's half needs, in the kernel's terms: the runner
//! never sees a spec. Both halves are the same executable, so the encoding needs no version.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::seccomp::Filter;
use super::settings::Settings;

/// A message of the shim.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToGuest {
    /// Build this and park. Always the first message. To the first process of a container come along its
    /// foreign mounts in their order, to a further one the two files of [`Plan::memory`]: what it could
    /// not open itself.
    Plan(Box<Plan>),
    /// The shim's hooks are done; answers [`FromGuest::HooksDue`].
    Proceed,
    /// Run. The code comes along as descriptors: its image, and the socket of its compiler if that
    /// is still at work.
    Start,
    /// The program cannot run, and why: to be told to Kubernetes, from inside. The process ends.
    GiveUp(String),
}

/// A message of the guest's half.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromGuest {
    /// The container's terminal was made; its master comes along.
    Terminal,
    /// Mounts are in place; the hooks of the host may run.
    HooksDue,
    /// Something asked for could not be had, but it may go on.
    Warning(String),
    /// Set up and parked.
    Ready,
    /// The program is linked and about to run; the last message.
    Started,
    /// Set-up or start failed; the process ends. One sentence.
    Failed(String),
}

/// How to build one container around the process that receives this, or how to take place in it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Plan {
    /// Whether the container is there: the process was made in its namespaces and at its root, and of
    /// `files` only the working directory counts.
    pub(super) joins: bool,
    /// Columns and rows of the terminal, where [`Identity::terminal`] asks for one.
    pub(super) console_size: Option<(u16, u16)>,
    /// The container's id, for hooks and the process name.
    pub(super) id: String,
    /// The bundle folder, for hooks.
    pub(super) bundle: PathBuf,
    /// The pid as the host sees it, for hooks.
    pub(super) pid: i32,
    /// The annotations, for hooks; empty if no hook of the container runs.
    pub(super) annotations: Vec<(String, String)>,
    /// Whether the process is in a new user namespace, where device nodes cannot be made.
    pub(super) user_namespace: bool,
    /// Whether to make a cgroup namespace. It must come after the cgroup was entered.
    pub(super) cgroup_namespace: bool,
    /// The container's groups, one a hierarchy, for a mount that shows them.
    pub(super) groups: Vec<Group>,
    /// The files of its limit of memory and of what it uses.
    pub(super) memory: Option<[PathBuf; 2]>,
    /// Host name for the UTS namespace.
    pub(super) hostname: Option<String>,
    /// NIS domain name for the UTS namespace.
    pub(super) domainname: Option<String>,
    /// The root file system and what is mounted in it.
    pub(super) files: Files,
    /// The file for the reason of the program's end, in the container.
    pub(super) termination: Option<PathBuf>,
    /// Sysctls, as paths below `/proc/sys`, with their values.
    pub(super) sysctls: Vec<(PathBuf, String)>,
    /// Whether the shim has hooks to run once the mounts are in place.
    pub(super) host_hooks: bool,
    /// Hooks to run in the container's namespaces, before the root changes.
    pub(super) create_container: Vec<Hook>,
    /// Hooks to run in the container right before the program.
    pub(super) start_container: Vec<Hook>,
    /// Who the program runs as.
    pub(super) identity: Identity,
    /// The spec's filters of system calls, in the order in which they are installed.
    pub(super) seccomp: Vec<Filter>,
    /// The program.
    pub(super) program: Program,
}

/// The file system view of a container.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Files {
    /// The root, absolute on the host.
    pub(super) rootfs: PathBuf,
    /// Whether it ends up read-only.
    pub(super) readonly: bool,
    /// `MS_*` propagation of the root; 0 is the default, slave.
    pub(super) propagation: u64,
    /// Mounts, in order.
    pub(super) mounts: Vec<Mount>,
    /// Whether device nodes work that the image or a volume brings along: rules of the cgroup say which.
    pub(super) nodes_work: bool,
    /// Whether `/dev` is the container's own; the host's is left as it is.
    pub(super) own_dev: bool,
    /// Device nodes for an own `/dev`.
    pub(super) devices: Vec<Device>,
    /// Paths to hide.
    pub(super) masked: Vec<PathBuf>,
    /// Paths to make read-only.
    pub(super) readonly_paths: Vec<PathBuf>,
    /// The working directory, created if missing.
    pub(super) cwd: PathBuf,
}

/// The container's cgroup in one hierarchy.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    /// The name of the hierarchy's folder below `/sys/fs/cgroup`, like `memory` or `cpu,cpuacct`.
    pub(super) name: String,
    /// The group's folder on the host.
    pub(super) folder: PathBuf,
    /// Whether this is the one hierarchy of cgroup v2.
    pub(super) unified: bool,
}

/// One mount in the container.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Mount {
    /// Absolute in the container, without `..`.
    pub(super) destination: PathBuf,
    /// What is mounted.
    pub(super) what: MountWhat,
    /// `MOUNT_ATTR_*` to set and to clear on the mount itself.
    pub(super) attributes: (u64, u64),
    /// `MOUNT_ATTR_*` to set and to clear on the mount and all below it.
    pub(super) recursive: (u64, u64),
    /// `MS_*` propagation and whether it is recursive.
    pub(super) propagation: Option<(u64, bool)>,
}

/// What a mount shows.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum MountWhat {
    /// A file or folder of the host.
    Bind {
        /// Absolute on the host.
        source: PathBuf,
        /// With the mounts below it.
        recursive: bool,
    },
    /// A file or folder of the host that the shim has opened, with all attributes of the mount.
    Foreign {
        /// Absolute on the host.
        source: PathBuf,
        /// With the mounts below it.
        recursive: bool,
    },
    /// A file system of its own.
    New {
        /// File system type.
        kind: String,
        /// Source, as shown in mountinfo.
        source: Option<String>,
        /// Flags of the file system (`ro`, `sync`) and `key=value` options, in order.
        options: Vec<String>,
        /// Copy into it what the image has at its destination.
        copy_up: bool,
    },
    /// The container's own part of the host's cgroup hierarchies.
    Cgroup,
    /// Other attributes for what is already mounted there.
    Remount,
}

/// One device node.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Device {
    /// Absolute in the container.
    pub(super) path: PathBuf,
    /// File type, `S_IF*`.
    pub(super) kind: u32,
    /// Device number.
    pub(super) major: u32,
    /// Device number.
    pub(super) minor: u32,
    /// Permission bits.
    pub(super) mode: u32,
    /// Owner and group, as seen in the container.
    pub(super) owner: (u32, u32),
}

/// One hook; see the OCI runtime specification, "POSIX-platform Hooks".
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Hook {
    /// Absolute path of the executable.
    pub(super) path: PathBuf,
    /// Its arguments, `argv[0]` included; may be empty.
    pub(super) args: Vec<String>,
    /// Its whole environment, `KEY=value`.
    pub(super) env: Vec<String>,
    /// How long it may take.
    pub(super) timeout: Option<Duration>,
}

/// Who a program runs as and within which limits.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Identity {
    /// User id in the container.
    pub(super) uid: u32,
    /// Group id in the container.
    pub(super) gid: u32,
    /// Supplementary groups.
    pub(super) groups: Vec<u32>,
    /// File creation mask.
    pub(super) umask: u32,
    /// Resource limits: number, soft, hard.
    pub(super) rlimits: Vec<(u32, u64, u64)>,
    /// What it may do besides.
    pub(super) rights: Rights,
    /// Whether it has a terminal: a further process has it for its streams already, the first one makes
    /// it.
    pub(super) terminal: bool,
    /// Processors to run on; empty for those of the cgroup.
    pub(super) processors: Vec<u32>,
    /// AppArmor profile to change to.
    pub(super) apparmor: Option<String>,
    /// SELinux label to change to.
    pub(super) selinux: Option<String>,
}

/// What a program may do; in the numbers bit `n` stands for capability number `n`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Rights {
    /// A program that the runner runs itself: capabilities to keep, and none to be gained.
    Guest(u64),
    /// A Linux program: the sets of the spec.
    Linux {
        /// What can ever be gained.
        bounding: u64,
        /// What the kernel checks.
        effective: u64,
        /// What survives execve(2) of a program that has it too.
        inheritable: u64,
        /// Upper bound of the effective set.
        permitted: u64,
        /// What survives execve(2) of any program.
        ambient: u64,
        /// Whether execve(2) can give no right.
        no_new_privileges: bool,
    },
}

impl Rights {
    /// Whether execve(2) will give no right.
    pub(super) fn no_new_privileges(&self) -> bool {
        match self {
            Self::Guest(_) => true,
            Self::Linux { no_new_privileges, .. } => *no_new_privileges,
        }
    }

    /// Takes the right to make device nodes, `CAP_MKNOD`, out of all sets.
    pub(super) fn forbid_nodes(&mut self) {
        const MKNOD: u64 = 1 << 27;
        if let Self::Linux { bounding, effective, inheritable, permitted, ambient, .. } = self {
            for set in [bounding, effective, inheritable, permitted, ambient] {
                *set &= !MKNOD;
            }
        }
    }
}

impl Default for Rights {
    fn default() -> Self {
        Self::Guest(0)
    }
}

/// What runs in the container.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) enum Program {
    /// The built-in sleeper.
    #[default]
    Pause,
    /// A WebAssembly command.
    Wasm {
        /// Arguments, the program's name first.
        args: Vec<String>,
        /// Environment, `KEY=value`.
        env: Vec<String>,
        /// The export to call, if not `_start`.
        export: Option<String>,
        /// What the annotations say.
        settings: Settings,
        /// Whether it is the shim's own toolbox.
        toolbox: bool,
    },
    /// A Linux program of the root file system.
    Linux {
        /// Arguments, the program first: a path, or a name to be looked up in `PATH`.
        args: Vec<String>,
        /// Environment, `KEY=value`.
        env: Vec<String>,
    },
}
