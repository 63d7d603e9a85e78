//! A [`Workload`] becomes a [`Plan`]: from the spec's terms to the kernel's.

use std::path::{Path, PathBuf};

use coracle_oci::spec::{
    self, DeviceKind, MountFlags, NamespaceKind, Propagation, PropagationKind, Workload,
};

use super::identity::USEFUL;
use super::lifecycle::HostHooks;
use super::namespaces::Namespaces;
use super::plan::{Device, Files, Hook, Identity, Mount, MountWhat, Plan, Program, Rights};
use super::seccomp::{self, Filter};
use super::settings::Settings;
use super::{GuestError, Runner, cage, termination};

/// File creation mask of a process whose spec has none.
const DEFAULT_UMASK: u32 = 0o022;

/// `MS_*` bits that are attributes of a mount, with their `MOUNT_ATTR_*` counterpart.
const ATTRIBUTES: [(MountFlags, u64); 6] = [
    (MountFlags::READ_ONLY, libc::MOUNT_ATTR_RDONLY),
    (MountFlags::NO_SUID, libc::MOUNT_ATTR_NOSUID),
    (MountFlags::NO_DEV, libc::MOUNT_ATTR_NODEV),
    (MountFlags::NO_EXEC, libc::MOUNT_ATTR_NOEXEC),
    (MountFlags::NO_DIR_ATIME, libc::MOUNT_ATTR_NODIRATIME),
    (MountFlags::NO_SYMFOLLOW, libc::MOUNT_ATTR_NOSYMFOLLOW),
];

/// Access time modes; they share one field of the attributes, of which relatime is the zero.
const TIMES: [(MountFlags, u64); 3] = [
    (MountFlags::NO_ATIME, libc::MOUNT_ATTR_NOATIME),
    (MountFlags::STRICT_ATIME, libc::MOUNT_ATTR_STRICTATIME),
    (MountFlags::REL_ATIME, libc::MOUNT_ATTR_RELATIME),
];

/// `MS_*` bits that are options of a file system, by their name there.
const FILE_SYSTEM: [(MountFlags, &str); 4] = [
    (MountFlags::SYNCHRONOUS, "sync"),
    (MountFlags::DIR_SYNC, "dirsync"),
    (MountFlags::LAZY_TIME, "lazytime"),
    (MountFlags::MAND_LOCK, "mand"),
];

/// Builds the plan of a container; pid and cgroup are filled in when they are known.
pub(super) fn plan(
    id: &str,
    bundle: &Path,
    workload: &Workload,
    runner: &Runner,
    namespaces: &Namespaces,
) -> Result<Plan, GuestError> {
    let process = &workload.process;
    let hooks = &workload.hooks;
    if let (Runner::Linux, Some(setting)) = (runner, process.unsupported.first()) {
        return Err(GuestError::Spec {
            what: (*setting).to_owned(),
            why: "is not supported for Linux programs; leave it out".to_owned(),
        });
    }
    let own_hooks = !hooks.create_container.is_empty() || !hooks.start_container.is_empty();
    Ok(Plan {
        joins: false,
        console_size: process.console_size,
        id: id.to_owned(),
        bundle: bundle.to_path_buf(),
        pid: 0,
        annotations: if own_hooks { annotations(workload) } else { Vec::new() },
        user_namespace: namespaces.user,
        cgroup_namespace: namespaces.new_cgroup,
        groups: Vec::new(),
        memory: None,
        hostname: workload.hostname.clone(),
        domainname: workload.domainname.clone(),
        files: files(workload, *runner == Runner::Linux, namespaces.user)?,
        termination: termination::path_of(workload),
        sysctls: sysctls(workload)?,
        host_hooks: !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty(),
        create_container: hooks.create_container.iter().map(hook).collect(),
        start_container: hooks.start_container.iter().map(hook).collect(),
        identity: identity(process, *runner == Runner::Linux),
        seccomp: filters(workload, runner)?,
        program: match runner {
            Runner::Pause => Program::Pause,
            Runner::Wasm { entry } => Program::Wasm {
                args: process.args.clone(),
                env: process.env.clone(),
                export: entry.export.clone(),
                settings: Settings::read(&workload.id_annotations)?,
                toolbox: false,
            },
            Runner::Toolbox => Program::Wasm {
                args: process.args.clone(),
                env: process.env.clone(),
                export: None,
                settings: Settings::default(),
                toolbox: true,
            },
            Runner::Linux => {
                Program::Linux { args: process.args.clone(), env: process.env.clone() }
            }
        },
    })
}

/// The plan of a further process of the container: of its annotations, what the container's program listens
/// on and is initialised by is not meant for it.
pub(super) fn plan_beside(
    id: &str,
    bundle: &Path,
    workload: &Workload,
    runner: &Runner,
    namespaces: &Namespaces,
) -> Result<Plan, GuestError> {
    let mut plan = plan(id, bundle, workload, runner, namespaces)?;
    plan.joins = true;
    plan.identity.processors.clone_from(&workload.process.processors);
    if let Program::Wasm { settings, .. } = &mut plan.program {
        settings.listen.clear();
        settings.initialize = None;
    }
    Ok(plan)
}

/// The hooks that the shim runs itself.
pub(super) fn host_hooks(workload: &Workload) -> HostHooks {
    let list = |hooks: &[spec::Hook]| hooks.iter().map(hook).collect();
    HostHooks {
        prestart: list(&workload.hooks.prestart),
        create_runtime: list(&workload.hooks.create_runtime),
        poststart: list(&workload.hooks.poststart),
        poststop: list(&workload.hooks.poststop),
        annotations: annotations(workload),
    }
}

fn annotations(workload: &Workload) -> Vec<(String, String)> {
    workload.id_annotations.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn hook(hook: &spec::Hook) -> Hook {
    Hook {
        path: hook.path.clone(),
        args: hook.args.clone(),
        env: hook.env.clone(),
        timeout: hook.timeout,
    }
}

/// The spec's filters, as far as they forbid what would be allowed without them: the runner's own
/// programs are in a cage that mostly is narrower.
fn filters(workload: &Workload, runner: &Runner) -> Result<Vec<Filter>, GuestError> {
    let Some(profile) = &workload.seccomp else { return Ok(Vec::new()) };
    match runner {
        Runner::Pause => Ok(Vec::new()),
        Runner::Wasm { .. } if cage::is_within(profile) => Ok(Vec::new()),
        Runner::Wasm { .. } | Runner::Toolbox | Runner::Linux => seccomp::compile(profile),
    }
}

fn files(workload: &Workload, linux: bool, user: bool) -> Result<Files, GuestError> {
    let nodes_work = linux && !user;
    let host_dev = |mount: &spec::Mount| mount.is_bind() && mount.destination == Path::new("/dev");
    Ok(Files {
        rootfs: workload.rootfs.path.clone(),
        readonly: workload.rootfs.readonly,
        propagation: workload.rootfs_propagation.map(Propagation::bits).unwrap_or_default(),
        mounts: workload
            .mounts
            .iter()
            .map(|one| mount(one, nodes_work, user))
            .collect::<Result<_, _>>()?,
        nodes_work,
        own_dev: !workload.mounts.iter().any(host_dev),
        devices: workload.devices.iter().map(device).collect(),
        masked: workload.masked_paths.clone(),
        readonly_paths: workload.readonly_paths.clone(),
        cwd: workload.process.cwd.clone(),
    })
}

fn mount(mount: &spec::Mount, nodes_work: bool, user: bool) -> Result<Mount, GuestError> {
    let mut what = what(mount);
    if user || mount.id_map.is_some() {
        what = match what {
            MountWhat::Bind { source, recursive } => MountWhat::Foreign { source, recursive },
            other if mount.id_map.is_none() => other,
            _ => {
                return Err(GuestError::Spec {
                    what: format!("mapped ids for the mount on {}", mount.destination.display()),
                    why: "is none of a folder or file of the host (bind); leave out idmap, \
                          uidMappings and gidMappings"
                        .to_owned(),
                });
            }
        };
    }
    Ok(Mount {
        destination: mount.destination.clone(),
        what,
        attributes: attributes(mount),
        recursive: (
            mount.recursive.set | if nodes_work { 0 } else { no_devices(mount) },
            mount.recursive.clear,
        ),
        propagation: mount.propagation.map(|p| (propagation_kind(p.kind), p.recursive)),
    })
}

fn what(mount: &spec::Mount) -> MountWhat {
    if mount.flags.contains(MountFlags::REMOUNT) {
        return MountWhat::Remount;
    }
    if mount.is_bind() {
        return MountWhat::Bind {
            source: mount.source.clone().unwrap_or_default(),
            recursive: mount.flags.contains(MountFlags::RECURSIVE),
        };
    }
    if mount.kind == "cgroup" {
        return MountWhat::Cgroup;
    }
    let flags = FILE_SYSTEM.iter().filter(|(flag, _)| mount.flags.contains(*flag));
    let data = mount.data.split(',').filter(|option| !option.is_empty());
    MountWhat::New {
        kind: mount.kind.clone(),
        source: mount.source.as_ref().map(|source| source.to_string_lossy().into_owned()),
        options: flags.map(|(_, name)| *name).chain(data).map(str::to_owned).collect(),
        copy_up: mount.copy_up,
    }
}

fn attributes(mount: &spec::Mount) -> (u64, u64) {
    let pick = |flags: MountFlags| {
        let chosen = ATTRIBUTES.iter().filter(|(flag, _)| flags.contains(*flag));
        chosen.fold(0, |bits, (_, attribute)| bits | attribute)
    };
    let (mut set, mut clear) = (pick(mount.flags), pick(mount.cleared));
    if let Some((_, time)) = TIMES.iter().find(|(flag, _)| mount.flags.contains(*flag)) {
        set |= time;
        clear |= libc::MOUNT_ATTR__ATIME;
    } else if TIMES.iter().any(|(flag, _)| mount.cleared.contains(*flag)) {
        clear |= libc::MOUNT_ATTR__ATIME;
    }
    (set, clear)
}

/// Device nodes in a folder of the host work only if the spec says so, where there are no device rules of a
/// cgroup in between: and what a volume holds is not the container's list of devices.
fn no_devices(mount: &spec::Mount) -> u64 {
    let asked = mount.cleared.contains(MountFlags::NO_DEV)
        || mount.recursive.clear & libc::MOUNT_ATTR_NODEV != 0
        || mount.destination.starts_with("/dev");
    if mount.is_bind() && !mount.flags.contains(MountFlags::REMOUNT) && !asked {
        libc::MOUNT_ATTR_NODEV
    } else {
        0
    }
}

fn propagation_kind(kind: PropagationKind) -> u64 {
    Propagation { kind, recursive: false }.bits()
}

fn device(device: &spec::Device) -> Device {
    Device {
        path: device.path.clone(),
        kind: match device.kind {
            DeviceKind::Char => libc::S_IFCHR,
            DeviceKind::Block => libc::S_IFBLK,
            DeviceKind::Fifo => libc::S_IFIFO,
        },
        major: device.major,
        minor: device.minor,
        mode: device.mode,
        owner: (device.uid, device.gid),
    }
}

/// Who a program runs as; `linux` for one that is executed.
pub(super) fn identity(process: &spec::Process, linux: bool) -> Identity {
    let sets = &process.capabilities;
    let rights = if linux {
        Rights::Linux {
            bounding: sets.bounding.bits(),
            effective: sets.effective.bits(),
            inheritable: sets.inheritable.bits(),
            permitted: sets.permitted.bits(),
            ambient: sets.ambient.bits(),
            no_new_privileges: process.no_new_privileges,
        }
    } else {
        // As after the execve of an ordinary program: root keeps its permitted set, others the ambient.
        let granted = if process.user.uid == 0 { sets.effective } else { sets.ambient };
        Rights::Guest(granted.bits() & USEFUL)
    };
    Identity {
        uid: process.user.uid,
        gid: process.user.gid,
        groups: process.user.additional_gids.clone(),
        umask: process.user.umask.unwrap_or(DEFAULT_UMASK),
        rlimits: process.rlimits.iter().map(|l| (l.kind.number(), l.soft, l.hard)).collect(),
        rights,
        terminal: process.terminal,
        // Means nothing to the container's first process, says the specification.
        processors: Vec::new(),
        apparmor: process.apparmor_profile.clone(),
        selinux: process.selinux_label.clone(),
    }
}

/// Settings as paths below `/proc/sys`. Only those that belong to a namespace which the container
/// has for itself are allowed: the others would change the host.
fn sysctls(workload: &Workload) -> Result<Vec<(PathBuf, String)>, GuestError> {
    let own = |kind| workload.namespace(kind).is_some();
    let path = |name: &str| PathBuf::from(sysctl_path(name));
    let mut settings = Vec::with_capacity(workload.sysctl.len());
    for (name, value) in &workload.sysctl {
        let path = path(name);
        let Some((kind, needed)) = sysctl_namespace(&path) else {
            return Err(GuestError::Spec {
                what: format!("the sysctl {name}"),
                why: "belongs to the whole host; set it there".to_owned(),
            });
        };
        if !own(kind) {
            return Err(GuestError::Spec {
                what: format!("the sysctl {name}"),
                why: format!("would change the host; add a namespace of type {needed}"),
            });
        }
        settings.push((path, value.clone()));
    }
    Ok(settings)
}

/// `net.ipv4.ip_forward` or `net/ipv4/conf/eth0.1/x`: the separator that comes first is the one that
/// counts, and the other then stands for itself; see sysctl(8).
fn sysctl_path(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.get(at..=at) == Some(".") => name
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// The namespace that a setting belongs to; see namespaces(7), ipc_namespaces(7).
fn sysctl_namespace(path: &Path) -> Option<(NamespaceKind, &'static str)> {
    const IPC: [&str; 8] =
        ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];
    let rest = |prefix: &str| path.strip_prefix(prefix).ok().and_then(Path::to_str);
    if rest("net").is_some() {
        return Some((NamespaceKind::Network, "network"));
    }
    if rest("fs/mqueue").is_some() || rest("kernel").is_some_and(|name| IPC.contains(&name)) {
        return Some((NamespaceKind::Ipc, "ipc"));
    }
    match rest("kernel") {
        Some("domainname" | "hostname") => Some((NamespaceKind::Uts, "uts")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_names_become_paths() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(sysctl_path("net/ipv4/conf/eth0.1/x"), "net/ipv4/conf/eth0.1/x");
        assert_eq!(sysctl_path("net.ipv4.conf.eth0/1.x"), "net/ipv4/conf/eth0.1/x");
        assert_eq!(sysctl_path("plain"), "plain");
    }

    #[test]
    fn only_settings_of_namespaces_are_known() {
        let kind = |name: &str| sysctl_namespace(Path::new(name)).map(|(kind, _)| kind);
        assert_eq!(kind("net/core/somaxconn"), Some(NamespaceKind::Network));
        assert_eq!(kind("kernel/shmmax"), Some(NamespaceKind::Ipc));
        assert_eq!(kind("fs/mqueue/msg_max"), Some(NamespaceKind::Ipc));
        assert_eq!(kind("kernel/hostname"), Some(NamespaceKind::Uts));
        assert_eq!(kind("kernel/core_pattern"), None);
        assert_eq!(kind("vm/overcommit_memory"), None);
        assert_eq!(kind("network/x"), None);
    }
}
