//! Taking the container's identity and giving up every right that a WebAssembly guest has no use
//! for. The order matters: limits while they may still be raised, groups while they may still be
//! changed, the capability bounds before the user, and the death signal last, since a change of
//! user clears it.

use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid};

use super::plan::Identity;
use super::runner::{Act, Failure};
use super::sys;

/// The capabilities that mean something to a guest, as far as the spec grants them: access to files
/// of other owners on a volume, as root in any container has it, and listening below port 1024. All
/// others stand for calls that no WASI function makes.
pub(super) const USEFUL: u64 = CapabilitySet::DAC_OVERRIDE
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .bits();

/// Becomes the user of the plan with what [`Identity::capabilities`] names and nothing else.
pub(super) fn take(identity: &Identity) -> Result<(), Failure> {
    for &(number, soft, hard) in &identity.rlimits {
        sys::set_rlimit(number, soft, hard)
            .act("set the resource limit", format_args!("{number} to {soft}:{hard}"))?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(identity.umask));
    set_groups(identity)?;
    drop_bounds()?;
    rustix::thread::set_keep_capabilities(true).act("keep", "capabilities")?;
    let uid = Uid::from_raw(identity.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).act("become user", identity.uid)?;
    rustix::thread::set_keep_capabilities(false).act("stop keeping", "capabilities")?;
    set_capabilities(identity.capabilities)?;
    rustix::thread::set_no_new_privs(true).act("set", "no_new_privs")?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .act("forbid", "memory dumps")?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .act("set", "the parent death signal")?;
    verify(identity)
}

fn set_groups(identity: &Identity) -> Result<(), Failure> {
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    rustix::thread::set_thread_groups(&groups).act("set", "the supplementary groups")?;
    let gid = Gid::from_raw(identity.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).act("take group", identity.gid)
}

/// Empties the bounding and ambient sets. The kernel says with EINVAL where its list ends.
fn drop_bounds() -> Result<(), Failure> {
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error).act("drop capability", number),
        }
    }
    rustix::thread::clear_ambient_capability_set().act("clear", "the ambient capabilities")
}

fn set_capabilities(keep: u64) -> Result<(), Failure> {
    let keep = CapabilitySet::from_bits_retain(keep & USEFUL);
    let sets =
        CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).act("set", "capabilities")
}

/// Trust is good: a wrapper or a kernel that quietly did less must not go unnoticed.
fn verify(identity: &Identity) -> Result<(), Failure> {
    let sets = rustix::thread::capabilities(None).act("read back", "capabilities")?;
    let kept = CapabilitySet::from_bits_retain(identity.capabilities & USEFUL);
    let right = rustix::process::getuid().as_raw() == identity.uid
        && rustix::process::geteuid().as_raw() == identity.uid
        && rustix::process::getgid().as_raw() == identity.gid
        && sets.effective == kept
        && sets.permitted == kept
        && sets.inheritable.is_empty();
    if right {
        return Ok(());
    }
    Err(Failure::new("the process did not take the identity that the spec asks for"))
}
