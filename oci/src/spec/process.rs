//! The container's process: arguments, environment, user, limits and rights.
//!
//! Source: OCI runtime spec, `config.md`, section "Process".

use std::path::PathBuf;

use oci_spec::runtime as json;

use super::check;
use crate::error::SpecError;

/// The process to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Arguments, the program first. May be empty: an image with a wasm layer needs none.
    pub args: Vec<String>,
    /// Environment, `KEY=value`, as written.
    pub env: Vec<String>,
    /// Working directory inside the container; absolute.
    pub cwd: PathBuf,
    /// Whether a terminal is wanted.
    pub terminal: bool,
    /// Columns and rows of the terminal, if known.
    pub console_size: Option<(u16, u16)>,
    /// User and groups.
    pub user: User,
    /// Resource limits, at most one of a kind.
    pub rlimits: Vec<Rlimit>,
    /// Capability sets; all empty when the spec has none.
    pub capabilities: Capabilities,
    /// Whether `no_new_privs` is asked for.
    pub no_new_privileges: bool,
    /// The kernel's out-of-memory preference, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// AppArmor profile, if one is asked for.
    pub apparmor_profile: Option<String>,
    /// SELinux label, if one is asked for.
    pub selinux_label: Option<String>,
    /// Processors that a further process of a container may use (`execCPUAffinity.final`), ascending; empty
    /// for those of its cgroup. It is born in that group, so `initial`, which says where to be before, has
    /// nothing to hold for.
    pub processors: Vec<u32>,
    /// Settings of the spec that this runtime does not have, by name. They mean nothing to a WebAssembly
    /// program; a Linux program must not run without them.
    pub unsupported: Vec<&'static str>,
}

/// User and groups of the process; every id is below 2^32-1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// File creation mask, if the spec has one; at most 0o777.
    pub umask: Option<u32>,
}

/// One resource limit of `setrlimit(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// Which resource.
    pub kind: RlimitKind,
    /// Soft limit; `u64::MAX` is no limit.
    pub soft: u64,
    /// Hard limit, not below the soft one; `u64::MAX` is no limit.
    pub hard: u64,
}

/// Resources of `setrlimit(2)`, valued by their number in Linux' `asm-generic/resource.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum RlimitKind {
    /// Seconds of CPU time.
    Cpu = 0,
    /// Size of created files, in bytes.
    Fsize = 1,
    /// Size of the data segment, in bytes.
    Data = 2,
    /// Size of the stack, in bytes.
    Stack = 3,
    /// Size of a core dump, in bytes.
    Core = 4,
    /// Resident set, in bytes; ignored by Linux.
    Rss = 5,
    /// Processes of the user.
    Nproc = 6,
    /// Open descriptors.
    Nofile = 7,
    /// Locked memory, in bytes.
    Memlock = 8,
    /// Address space, in bytes.
    As = 9,
    /// File locks; ignored by Linux.
    Locks = 10,
    /// Queued signals.
    Sigpending = 11,
    /// POSIX message queues, in bytes.
    Msgqueue = 12,
    /// Ceiling of the nice value.
    Nice = 13,
    /// Ceiling of the real-time priority.
    Rtprio = 14,
    /// CPU time without blocking under real-time scheduling, in microseconds.
    Rttime = 15,
}

impl RlimitKind {
    /// The `RLIMIT_*` number for `setrlimit(2)` and `prlimit(2)`.
    #[must_use]
    pub fn number(self) -> u32 {
        self as u32
    }
}

/// The five capability sets of `capabilities(7)`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Upper bound of what can ever be gained.
    pub bounding: CapabilitySet,
    /// What the kernel checks.
    pub effective: CapabilitySet,
    /// What survives `execve` of a program that has it too.
    pub inheritable: CapabilitySet,
    /// Upper bound of the effective set.
    pub permitted: CapabilitySet,
    /// What survives `execve` of any program.
    pub ambient: CapabilitySet,
}

/// A set of capabilities as the kernel counts them: bit `n` is capability number `n`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CapabilitySet(u64);

impl CapabilitySet {
    /// All bits.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Whether capability `number` (see `linux/capability.h`) is in the set.
    #[must_use]
    pub fn contains(self, number: u8) -> bool {
        number < 64 && self.0 >> number & 1 == 1
    }

    /// Numbers of the capabilities in the set, ascending.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..64).filter(move |number| self.contains(*number))
    }

    fn parse(names: Option<&json::Capabilities>) -> Self {
        let number = |name: &json::Capability| CAPABILITIES.iter().position(|known| known == name);
        Self(names.into_iter().flatten().filter_map(number).fold(0, |set, n| set | 1 << n))
    }
}

/// Capabilities in the order of `linux/capability.h`, so that the index is the number.
pub(super) const CAPABILITIES: [json::Capability; 41] = {
    use json::Capability as C;
    [
        C::Chown,
        C::DacOverride,
        C::DacReadSearch,
        C::Fowner,
        C::Fsetid,
        C::Kill,
        C::Setgid,
        C::Setuid,
        C::Setpcap,
        C::LinuxImmutable,
        C::NetBindService,
        C::NetBroadcast,
        C::NetAdmin,
        C::NetRaw,
        C::IpcLock,
        C::IpcOwner,
        C::SysModule,
        C::SysRawio,
        C::SysChroot,
        C::SysPtrace,
        C::SysPacct,
        C::SysAdmin,
        C::SysBoot,
        C::SysNice,
        C::SysResource,
        C::SysTime,
        C::SysTtyConfig,
        C::Mknod,
        C::Lease,
        C::AuditWrite,
        C::AuditControl,
        C::Setfcap,
        C::MacOverride,
        C::MacAdmin,
        C::Syslog,
        C::WakeAlarm,
        C::BlockSuspend,
        C::AuditRead,
        C::Perfmon,
        C::Bpf,
        C::CheckpointRestore,
    ]
};

impl Process {
    pub(super) fn parse(process: &json::Process) -> Result<Self, SpecError> {
        let args = process.args().clone().unwrap_or_default();
        let env = process.env().clone().unwrap_or_default();
        check::strings("process.args", &args)?;
        check::strings("process.env", &env)?;
        let cwd = check::absolute("process.cwd", process.cwd())?.to_path_buf();
        if let Some(score) = process.oom_score_adj()
            && !(-1000..=1000).contains(&score)
        {
            let problem = "it must lie between -1000 and 1000";
            return Err(check::value("process.oomScoreAdj", score, problem));
        }
        Ok(Self {
            args,
            env,
            cwd,
            terminal: process.terminal().unwrap_or(false),
            console_size: process.console_size().map(console_size),
            user: User::parse(process.user())?,
            rlimits: rlimits(process.rlimits().as_deref().unwrap_or_default())?,
            capabilities: process.capabilities().as_ref().map(capabilities).unwrap_or_default(),
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            oom_score_adj: process.oom_score_adj(),
            apparmor_profile: non_empty(process.apparmor_profile()),
            selinux_label: non_empty(process.selinux_label()),
            processors: processors(process.exec_cpu_affinity().as_ref())?,
            unsupported: unsupported(process),
        })
    }
}

impl User {
    fn parse(user: &json::User) -> Result<Self, SpecError> {
        let additional_gids = user.additional_gids().clone().unwrap_or_default();
        for gid in &additional_gids {
            check::id("process.user.additionalGids", *gid)?;
        }
        if let Some(umask) = user.umask()
            && umask > 0o777
        {
            let problem = "a file creation mask has nine bits; use at most 511 (0o777)";
            return Err(check::value("process.user.umask", umask, problem));
        }
        Ok(Self {
            uid: check::id("process.user.uid", user.uid())?,
            gid: check::id("process.user.gid", user.gid())?,
            additional_gids,
            umask: user.umask(),
        })
    }
}

/// Most processors that `sched_setaffinity(2)` is asked for, as glibc's `cpu_set_t` has them.
const PROCESSORS: u32 = 1024;

/// The processors of a list like `0-3,7`.
fn processors(affinity: Option<&json::ExecCPUAffinity>) -> Result<Vec<u32>, SpecError> {
    const FIELD: &str = "process.execCPUAffinity";
    let Some(affinity) = affinity else { return Ok(Vec::new()) };
    let parse = |list: &str| {
        let mut all = std::collections::BTreeSet::new();
        for part in list.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (first.parse::<u32>(), last.parse::<u32>()) {
                (Ok(first), Ok(last)) if first <= last && last < PROCESSORS => {
                    all.extend(first..=last)
                }
                _ => {
                    let problem = "list processors below 1024 and ascending ranges, like 0-3,7";
                    return Err(check::value(FIELD, list, problem));
                }
            }
        }
        Ok(all.into_iter().collect())
    };
    affinity.initial().as_deref().map_or(Ok(Vec::new()), parse)?;
    affinity.cpu_affinity_final().as_deref().map_or(Ok(Vec::new()), parse)
}

fn unsupported(process: &json::Process) -> Vec<&'static str> {
    let given = [
        ("process.scheduler", process.scheduler().is_some()),
        ("process.ioPriority", process.io_priority().is_some()),
    ];
    given.into_iter().filter_map(|(name, given)| given.then_some(name)).collect()
}

/// The kernel's `winsize` holds 16 bits; larger sizes are cut, as a terminal would.
fn console_size(size: json::Box) -> (u16, u16) {
    let cut = |length: u64| u16::try_from(length).unwrap_or(u16::MAX);
    (cut(size.width()), cut(size.height()))
}

fn non_empty(text: &Option<String>) -> Option<String> {
    text.clone().filter(|text| !text.is_empty())
}

fn capabilities(sets: &json::LinuxCapabilities) -> Capabilities {
    Capabilities {
        bounding: CapabilitySet::parse(sets.bounding().as_ref()),
        effective: CapabilitySet::parse(sets.effective().as_ref()),
        inheritable: CapabilitySet::parse(sets.inheritable().as_ref()),
        permitted: CapabilitySet::parse(sets.permitted().as_ref()),
        ambient: CapabilitySet::parse(sets.ambient().as_ref()),
    }
}

fn rlimits(limits: &[json::PosixRlimit]) -> Result<Vec<Rlimit>, SpecError> {
    let mut parsed: Vec<Rlimit> = Vec::with_capacity(limits.len());
    for limit in limits {
        let kind = rlimit_kind(limit.typ());
        if parsed.iter().any(|earlier| earlier.kind == kind) {
            let problem = "the limit is given twice; keep one";
            return Err(check::value("process.rlimits", limit.typ(), problem));
        }
        if limit.soft() > limit.hard() {
            let problem = "the soft limit is above the hard one; raise hard or lower soft";
            return Err(check::value("process.rlimits", limit.typ(), problem));
        }
        parsed.push(Rlimit { kind, soft: limit.soft(), hard: limit.hard() });
    }
    Ok(parsed)
}

fn rlimit_kind(kind: json::PosixRlimitType) -> RlimitKind {
    use json::PosixRlimitType as J;
    match kind {
        J::RlimitCpu => RlimitKind::Cpu,
        J::RlimitFsize => RlimitKind::Fsize,
        J::RlimitData => RlimitKind::Data,
        J::RlimitStack => RlimitKind::Stack,
        J::RlimitCore => RlimitKind::Core,
        J::RlimitRss => RlimitKind::Rss,
        J::RlimitNproc => RlimitKind::Nproc,
        J::RlimitNofile => RlimitKind::Nofile,
        J::RlimitMemlock => RlimitKind::Memlock,
        J::RlimitAs => RlimitKind::As,
        J::RlimitLocks => RlimitKind::Locks,
        J::RlimitSigpending => RlimitKind::Sigpending,
        J::RlimitMsgqueue => RlimitKind::Msgqueue,
        J::RlimitNice => RlimitKind::Nice,
        J::RlimitRtprio => RlimitKind::Rtprio,
        J::RlimitRttime => RlimitKind::Rttime,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_of_a_further_process() {
        let of = |initial: &str, last: &str| {
            let text = format!(r#"{{ "initial": "{initial}", "final": "{last}" }}"#);
            let affinity: json::ExecCPUAffinity = serde_json::from_str(&text).unwrap();
            processors(Some(&affinity)).map_err(|error| error.to_string())
        };
        assert_eq!(of("0", "5,0-2,1").unwrap(), [0, 1, 2, 5]);
        assert_eq!(of("0", "1023").unwrap(), [1023]);
        for (initial, last) in [("0", "3-1"), ("0", "1024"), ("0", "0-4294967296"), ("9-8", "0")] {
            let error = of(initial, last).unwrap_err();
            assert!(error.contains("process.execCPUAffinity"), "{error}");
        }
        assert_eq!(processors(None).unwrap(), [0; 0]);
        let initial: json::ExecCPUAffinity = serde_json::from_str(r#"{ "initial": "0" }"#).unwrap();
        assert_eq!(processors(Some(&initial)).unwrap(), [0; 0]);
    }

    #[test]
    fn capability_numbers_match_the_kernel() {
        // Fixed points of linux/capability.h; the table between them has no gaps.
        for (name, number) in [
            (json::Capability::Chown, 0),
            (json::Capability::NetBindService, 10),
            (json::Capability::SysAdmin, 21),
            (json::Capability::Mknod, 27),
            (json::Capability::Setfcap, 31),
            (json::Capability::AuditRead, 37),
            (json::Capability::CheckpointRestore, 40),
        ] {
            let set = CapabilitySet::parse(Some(&[name].into_iter().collect()));
            assert_eq!(set.iter().collect::<Vec<_>>(), [number]);
            assert_eq!(set.bits(), 1 << number);
        }
        assert!(!CapabilitySet(u64::MAX).contains(64));
    }
}
