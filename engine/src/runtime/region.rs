//! Address space of linear memories: how much is reserved, where, and what of it is accessible.
//!
//! ```text
//! guard before │ capacity: the first bytes accessible, the rest not │ guard
//!              ▲ base
//! ```
//!
//! A region never moves. One for 32-bit indices always has a capacity of 4 GiB, since compiled code
//! does without checks there; when that much address space is not to be had, there is no memory. One
//! for 64-bit indices is checked against the length by compiled code, so a smaller one will do:
//! what is wanted is halved until the system gives it.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::ceiling::{Ceiling, Share};
use super::memory::MemoryError;
use super::sys::{self, Mapping};
use crate::config::{
    DEDICATED_BASE, MEMORY_GUARD, MEMORY_RESERVATION, MEMORY64_GUARD, MEMORY64_RESERVATION,
};
use crate::module::types::MemoryType;

/// Inaccessible bytes before a memory at the fixed address, where the executable and its heap lie
/// lower.
const DEDICATED_GUARD_BEFORE: usize = 16 << 20;

/// Where a memory is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    Anywhere,
    Dedicated,
}

/// The right to the fixed address: one at a time in a process.
#[derive(Debug)]
struct DedicatedClaim;

static DEDICATED_TAKEN: AtomicBool = AtomicBool::new(false);

impl DedicatedClaim {
    fn take() -> Result<DedicatedClaim, MemoryError> {
        match DEDICATED_TAKEN.swap(true, Ordering::AcqRel) {
            true => Err(MemoryError::SecondDedicated),
            false => Ok(DedicatedClaim),
        }
    }
}

impl Drop for DedicatedClaim {
    fn drop(&mut self) {
        DEDICATED_TAKEN.store(false, Ordering::Release);
    }
}

/// How much address space a memory gets. All in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Capacity that is asked for first.
    wanted: usize,
    /// Capacity below which there is no memory.
    least: usize,
    /// Inaccessible bytes behind the capacity.
    guard: usize,
}

impl Plan {
    /// The plan for a memory that must hold `length` bytes now and at most `limit` ever.
    pub(super) fn new(ty: &MemoryType, length: usize, limit: u64) -> Plan {
        if !ty.memory64 {
            let capacity = MEMORY_RESERVATION as usize;
            return Plan { wanted: capacity, least: capacity, guard: MEMORY_GUARD as usize };
        }
        let page = sys::page_size();
        let most = limit.min(MEMORY64_RESERVATION) as usize;
        let least = length.max(1).next_multiple_of(page);
        let wanted = most.next_multiple_of(page).max(least);
        Plan { wanted, least, guard: MEMORY64_GUARD as usize }
    }
}

/// Reserved address space with its accessible beginning.
#[derive(Debug)]
pub(super) struct Region {
    mapping: Mapping,
    guard_before: usize,
    /// Most bytes from the base that can be made accessible.
    capacity: usize,
    // Dropped after the mapping: fields drop in order.
    claim: Option<DedicatedClaim>,
    share: Share,
}

impl Region {
    /// Reserves a region; nothing of it is accessible.
    pub(super) fn new(
        plan: Plan,
        placement: Placement,
        ceiling: Option<&'static Ceiling>,
    ) -> Result<Region, MemoryError> {
        let share = Share::new(ceiling);
        match placement {
            Placement::Anywhere => {
                // As much before it as behind it, against an address computed too low.
                let reserve = |capacity| Mapping::reserve(plan.guard + capacity + plan.guard);
                let (mapping, capacity) = halving(plan, reserve).map_err(|source| {
                    MemoryError::Reserve { bytes: plan.least + 2 * plan.guard, source }
                })?;
                Ok(Region { mapping, guard_before: plan.guard, capacity, claim: None, share })
            }
            Placement::Dedicated => {
                let claim = DedicatedClaim::take()?;
                let guard_before = DEDICATED_GUARD_BEFORE;
                let start = DEDICATED_BASE as usize - guard_before;
                let reserve =
                    |capacity| Mapping::reserve_at(start, guard_before + capacity + plan.guard);
                let (mapping, capacity) =
                    halving(plan, reserve).map_err(MemoryError::FixedAddress)?;
                Ok(Region { mapping, guard_before, capacity, claim: Some(claim), share })
            }
        }
    }

    /// Address of byte 0.
    pub(super) fn base(&self) -> *mut u8 {
        self.mapping.as_ptr().wrapping_add(self.guard_before)
    }

    /// Most bytes that can be made accessible.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Makes the bytes of `range` accessible; those before it are already. They are zero.
    pub(super) fn commit(&self, range: Range<usize>) -> io::Result<()> {
        assert!(range.end <= self.capacity, "a memory stays within its reservation");
        let page = sys::page_size();
        let start = self.guard_before + range.start.next_multiple_of(page);
        let end = self.guard_before + range.end.next_multiple_of(page);
        let bytes = (end - start) as u64;
        if !self.share.take(bytes) {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, "over the limit of memory"));
        }
        self.mapping.make_writable(start..end).inspect_err(|_| self.share.give_back(bytes))
    }

    /// A larger region with the same contents, `length` bytes of which are accessible here and
    /// `new_length` there; `None` when the system does not give it or the place is fixed.
    pub(super) fn grown(&self, length: usize, new_length: usize, limit: u64) -> Option<Region> {
        if self.claim.is_some() {
            return None;
        }
        let page = sys::page_size();
        let least = new_length.checked_next_multiple_of(page)?;
        // Twice as much as needed, so that a memory that grows in small steps seldom moves.
        let wanted = (least.saturating_mul(2) as u64).min(limit) as usize;
        let wanted = wanted.checked_next_multiple_of(page)?.max(least);
        let plan = Plan { wanted, least, guard: MEMORY64_GUARD as usize };
        let region = Region::new(plan, Placement::Anywhere, self.share.ceiling()).ok()?;
        region.commit(0..new_length).ok()?;
        // SAFETY: `length` bytes are accessible at both bases, which belong to different mappings;
        // the caller holds the memory exclusively.
        unsafe { std::ptr::copy_nonoverlapping(self.base(), region.base(), length) };
        Some(region)
    }

    /// Maps part of a file over accessible bytes: shared pages, copied when written.
    pub(super) fn map_file(
        &self,
        range: Range<usize>,
        file: &std::fs::File,
        offset: u64,
    ) -> io::Result<()> {
        assert!(range.end <= self.capacity, "a memory stays within its reservation");
        let range = self.guard_before + range.start..self.guard_before + range.end;
        self.mapping.overlay_file(range, file, offset)
    }

    /// Whether an address belongs to it, guards included. Runs inside the signal handler.
    pub(super) fn contains(&self, address: usize) -> bool {
        let start = self.mapping.address();
        (start..start + self.mapping.len()).contains(&address)
    }
}

/// Reserves with the largest capacity that the system gives: what is wanted, half of it, and so on,
/// at last what is needed.
fn halving(
    plan: Plan,
    reserve: impl Fn(usize) -> io::Result<Mapping>,
) -> io::Result<(Mapping, usize)> {
    let page = sys::page_size();
    let mut capacity = plan.wanted;
    loop {
        match reserve(capacity) {
            Ok(mapping) => return Ok((mapping, capacity)),
            Err(error) if capacity <= plan.least => return Err(error),
            Err(_) => capacity = (capacity / 2).next_multiple_of(page).max(plan.least),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// For tests that need the fixed address: one at a time.
    pub(in crate::runtime) fn fixed_address() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ty(memory64: bool) -> MemoryType {
        MemoryType { memory64, shared: false, min: 0, max: None, page_size_log2: 16 }
    }

    #[test]
    fn plans_follow_the_index_type_the_limit_and_the_length() {
        let narrow = Plan::new(&ty(false), 65536, 65536);
        assert_eq!((narrow.wanted, narrow.least), (4 << 30, 4 << 30));
        let wide = |length, limit| {
            let plan = Plan::new(&ty(true), length, limit);
            (plan.wanted, plan.least)
        };
        assert_eq!(wide(65536, u64::MAX), (64 << 30, 65536));
        assert_eq!(wide(65536, 1 << 20), (1 << 20, 65536));
        assert_eq!(wide(0, 5000), (8192, 4096), "whole pages, at least one");
        assert_eq!(wide(65 << 30, u64::MAX), (65 << 30, 65 << 30), "what it needs from the start");
    }

    #[test]
    fn a_smaller_reservation_serves_when_the_wanted_one_is_not_to_be_had() {
        let plan = Plan { wanted: 1 << 30, least: 3 << 20, guard: 0 };
        let asked = std::cell::RefCell::new(Vec::new());
        let most = |most: usize| {
            let asked = &asked;
            move |capacity: usize| {
                asked.borrow_mut().push(capacity);
                match capacity <= most {
                    true => Mapping::reserve(capacity),
                    false => Err(io::Error::from_raw_os_error(libc::ENOMEM)),
                }
            }
        };
        assert_eq!(halving(plan, most(300 << 20)).unwrap().1, 256 << 20);
        assert_eq!(asked.take(), [1 << 30, 512 << 20, 256 << 20]);
        assert_eq!(halving(plan, most(3 << 20)).unwrap().1, 3 << 20);
        assert!(halving(plan, most(2 << 20)).is_err());
        assert_eq!(asked.take().last(), Some(&(3 << 20)));
    }

    #[test]
    fn guards_lie_on_both_sides() {
        for memory64 in [false, true] {
            let plan = Plan::new(&ty(memory64), 65536, u64::MAX);
            let region = Region::new(plan, Placement::Anywhere, None).unwrap();
            let base = region.base().addr();
            for inside in [base - plan.guard, base, base + region.capacity() + plan.guard - 1] {
                assert!(region.contains(inside));
            }
            assert!(!region.contains(base - plan.guard - 1));
            assert!(!region.contains(base + region.capacity() + plan.guard));
        }
    }

    #[test]
    fn the_fixed_address_is_given_out_once_at_a_time() {
        let _alone = fixed_address();
        for memory64 in [false, true] {
            let plan = Plan::new(&ty(memory64), 65536, u64::MAX);
            let first = Region::new(plan, Placement::Dedicated, None).unwrap();
            assert_eq!(first.base().addr() as u64, DEDICATED_BASE);
            let second = Region::new(plan, Placement::Dedicated, None);
            assert!(matches!(second, Err(MemoryError::SecondDedicated)));
            drop(first);
            Region::new(plan, Placement::Dedicated, None).unwrap();
        }
    }
}
