//! Taking the container's identity: of a Linux program to the letter of the spec, of a WebAssembly guest
//! without every right that it has no use for. The order matters: limits while they may still be raised, groups while they may still be
//! changed, the capability bounds before the user, and the death signal last, since a change of
//! user clears it.

use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets, CpuSet, Gid, Uid};

use super::plan::{Identity, Rights};
use super::runner::{Act, Failure};
use super::{native, sys};

/// The capabilities that mean something to a guest, as far as the spec grants them: access to files
/// of other owners on a volume, as root in any container has it, and listening below port 1024. All
/// others stand for calls that no WASI function makes.
pub(super) const USEFUL: u64 = CapabilitySet::DAC_OVERRIDE
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .bits();

/// The sets that this process is to have in the end.
#[derive(Clone, Copy)]
struct Wanted {
    bounding: CapabilitySet,
    sets: CapabilitySets,
    ambient: CapabilitySet,
    no_new_privileges: bool,
}

impl Wanted {
    fn of(rights: &Rights) -> Result<Self, Failure> {
        match *rights {
            Rights::Guest(keep) => {
                let keep = CapabilitySet::from_bits_retain(keep & USEFUL);
                let inheritable = CapabilitySet::empty();
                let sets = CapabilitySets { effective: keep, permitted: keep, inheritable };
                let (bounding, ambient) = (CapabilitySet::empty(), CapabilitySet::empty());
                Ok(Self { bounding, sets, ambient, no_new_privileges: true })
            }
            Rights::Linux {
                bounding,
                effective,
                inheritable,
                permitted,
                ambient,
                no_new_privileges,
            } => {
                // What a nested containerd lacks itself it cannot give, as under runc.
                let own = rustix::thread::capabilities(None).act("read", "capabilities")?;
                let own = own.permitted;
                let set = |bits| CapabilitySet::from_bits_retain(bits) & own;
                let sets = CapabilitySets {
                    effective: set(effective),
                    permitted: set(permitted),
                    inheritable: set(inheritable),
                };
                let (bounding, ambient) = (set(bounding), set(ambient));
                Ok(Self { bounding, sets, ambient, no_new_privileges })
            }
        }
    }
}

/// Binds the process to these processors, if any are named. The kernel leaves out those that its cgroup does
/// not have, and refuses when none is left.
fn bind(processors: &[u32]) -> Result<(), Failure> {
    if processors.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    processors.iter().for_each(|processor| set.set(*processor as usize));
    rustix::thread::sched_setaffinity(None, &set)
        .act("bind the process to", format_args!("processors {processors:?} (execCPUAffinity)"))
}

/// Becomes the user of the plan with what its rights name and nothing else.
pub(super) fn take(identity: &Identity) -> Result<(), Failure> {
    let wanted = Wanted::of(&identity.rights)?;
    if matches!(identity.rights, Rights::Linux { .. }) {
        native::give_streams(identity.uid)?;
    }
    for &(number, soft, hard) in &identity.rlimits {
        sys::set_rlimit(number, soft, hard)
            .act("set the resource limit", format_args!("{number} to {soft}:{hard}"))?;
    }
    bind(&identity.processors)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(identity.umask));
    set_groups(identity)?;
    drop_bounds(wanted.bounding)?;
    rustix::thread::set_keep_capabilities(true).act("keep", "capabilities")?;
    let uid = Uid::from_raw(identity.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).act("become user", identity.uid)?;
    rustix::thread::set_keep_capabilities(false).act("stop keeping", "capabilities")?;
    rustix::thread::set_capabilities(None, wanted.sets).act("set", "capabilities")?;
    for one in wanted.ambient.iter() {
        rustix::thread::configure_capability_in_ambient_set(one, true)
            .act("raise", format_args!("the ambient capability {one:?}"))?;
    }
    if wanted.no_new_privileges {
        rustix::thread::set_no_new_privs(true).act("set", "no_new_privs")?;
    }
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .act("forbid", "memory dumps")?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .act("set", "the parent death signal")?;
    verify(identity, wanted.sets)
}

fn set_groups(identity: &Identity) -> Result<(), Failure> {
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    rustix::thread::set_thread_groups(&groups).act("set", "the supplementary groups")?;
    let gid = Gid::from_raw(identity.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).act("take group", identity.gid)
}

/// Leaves of the bounding set only `keep`, and nothing of the ambient one. The kernel says with EINVAL
/// where its list ends.
fn drop_bounds(keep: CapabilitySet) -> Result<(), Failure> {
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if keep.contains(one) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error).act("drop capability", number),
        }
    }
    rustix::thread::clear_ambient_capability_set().act("clear", "the ambient capabilities")
}

/// Trust is good: a wrapper or a kernel that quietly did less must not go unnoticed.
fn verify(identity: &Identity, wanted: CapabilitySets) -> Result<(), Failure> {
    let sets = rustix::thread::capabilities(None).act("read back", "capabilities")?;
    let right = rustix::process::getuid().as_raw() == identity.uid
        && rustix::process::geteuid().as_raw() == identity.uid
        && rustix::process::getgid().as_raw() == identity.gid
        && sets.effective == wanted.effective
        && sets.permitted == wanted.permitted
        && sets.inheritable == wanted.inheritable;
    if right {
        return Ok(());
    }
    Err(Failure::new("the process did not take the identity that the spec asks for"))
}
