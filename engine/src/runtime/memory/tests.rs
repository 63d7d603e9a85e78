//! Growth, limits, guards and copies of linear memories.

use super::*;
use crate::config::{MEMORY_GUARD, MEMORY_RESERVATION};

fn ty(min: u64, max: Option<u64>) -> MemoryType {
    MemoryType { memory64: false, shared: false, min, max, page_size_log2: 16 }
}

fn memory_of(ty: MemoryType, limit: u64) -> LinearMemory {
    let mut memory = LinearMemory::new(ty, Placement::Anywhere, limit.into()).unwrap();
    memory.attach_own();
    memory
}

fn memory(min: u64, max: Option<u64>, limit: u64) -> LinearMemory {
    memory_of(ty(min, max), limit)
}

#[test]
fn growth_keeps_the_base_and_the_bytes_and_stops_at_each_limit() {
    let mut memory = memory(1, Some(4), 3 << 16);
    memory.bytes_mut()[65535] = 7;
    let base = memory.base();
    assert_eq!(memory.grow(0), Some(1));
    assert_eq!(memory.grow(2), Some(1));
    assert_eq!(memory.base(), base);
    assert_eq!((memory.bytes()[65535], memory.bytes()[65536]), (7, 0));
    assert_eq!(memory.bytes().len(), 3 << 16);
    // SAFETY: the definition is the memory's own.
    assert_eq!(unsafe { memory.def().as_ref() }.length, 3 << 16);
    assert_eq!(memory.grow(1), None, "over the limit in bytes");
    assert_eq!(memory.grow(u64::MAX), None);
    let mut typed = self::memory(1, Some(2), u64::MAX);
    assert_eq!((typed.grow(2), typed.grow(1), typed.grow(1)), (None, Some(1), None));
}

#[test]
fn all_four_gibibytes_can_be_reached_and_no_more() {
    let mut memory = memory(0, None, u64::MAX);
    assert_eq!(memory.grow(65536), Some(0));
    let last = memory.bytes().len() - 1;
    memory.bytes_mut()[last] = 1;
    assert_eq!(last, u32::MAX as usize);
    assert_eq!(memory.grow(1), None);
}

#[test]
fn a_size_in_single_bytes_is_a_value_of_the_index_type() {
    let ty = MemoryType { page_size_log2: 0, ..ty(3, None) };
    let mut memory = memory_of(ty, u64::MAX);
    assert_eq!(memory.bytes().len(), 3);
    assert_eq!(memory.grow(u64::from(u32::MAX) - 2), None);
    assert_eq!(memory.grow(4095), Some(3));
    assert_eq!(memory.bytes().len(), 4098);
    assert_eq!(memory.grow(u64::from(u32::MAX) - 4098), Some(4098));
    assert_eq!(memory.grow(1), None);
}

#[test]
fn sixty_four_bits_reach_past_four_gibibytes() {
    let ty = MemoryType { memory64: true, ..ty(1, None) };
    let mut memory = memory_of(ty, 6 << 30);
    assert_eq!(memory.grow(u64::MAX), None);
    assert_eq!(memory.grow(1 << 48), None);
    assert_eq!(memory.grow(5 << 14), Some(1));
    memory.write(5 << 30, &[9]).unwrap();
    assert_eq!(memory.write((5 << 30) + 65535, &[1, 1]), None);
    assert_eq!(memory.bytes()[5 << 30], 9);
    assert_eq!(memory.grow(1 << 14), None, "over the limit in bytes");
}

#[test]
fn a_memory_that_outgrows_its_reservation_moves_with_its_bytes() {
    let ty = MemoryType { memory64: true, ..ty(2, None) };
    let mut memory = memory_of(ty, 1 << 30);
    // As if the system had not given more.
    let region = Region::new(Plan::new(&ty, 2 << 16, 2 << 16), Placement::Anywhere, None).unwrap();
    region.commit(0..2 << 16).unwrap();
    memory.backing = Backing::Own { region, length: 2 << 16 };
    memory.write(0, b"first").unwrap();
    memory.write(131_067, b"last.").unwrap();
    let base = memory.base();
    assert_eq!(memory.grow(1), Some(2));
    assert_ne!(memory.base(), base);
    // SAFETY: the definition is the memory's own.
    let def = unsafe { memory.def().as_ref() };
    assert_eq!((def.base, def.length), (memory.base(), 3 << 16));
    assert_eq!(&memory.bytes()[..5], b"first");
    assert_eq!(&memory.bytes()[131_067..131_073], b"last.\0");
    let base = memory.base();
    assert_eq!(memory.grow(1), Some(3), "there is room for more now");
    assert_eq!(memory.base(), base);
    assert_eq!(memory.grow(1 << 14), None);
}

#[test]
fn a_memory_at_the_fixed_address_grows_in_its_reservation_only() {
    let _alone = super::super::region::tests::fixed_address();
    let ty = MemoryType { memory64: true, ..ty(1, None) };
    let mut memory = LinearMemory::new(ty, Placement::Dedicated, (8 << 16).into()).unwrap();
    memory.attach_own();
    assert_eq!(memory.base().addr() as u64, DEDICATED_BASE);
    assert_eq!(memory.grow(7), Some(1));
    memory.bounds = Bounds::new(&ty, u64::MAX);
    assert_eq!(memory.grow(1), None);
    assert_eq!(memory.pages(), 8);
}

#[test]
fn guards_are_all_that_is_reserved_but_not_accessible() {
    let memory = memory(1, None, u64::MAX);
    let base = memory.base().addr();
    for inside in [base, base + 65535] {
        assert!(!memory.guards(inside));
    }
    let end = base + (MEMORY_RESERVATION + MEMORY_GUARD) as usize;
    for outside in [base - 1, base + 65536, base + (4 << 30), end - 1] {
        assert!(memory.guards(outside), "{outside:x}");
    }
    assert!(!memory.guards(end));
    assert!(!memory.guards(0));
}

#[test]
fn too_large_a_minimum_is_an_error() {
    let error = LinearMemory::new(ty(2, None), Placement::Anywhere, 65536.into()).unwrap_err();
    assert!(matches!(error, MemoryError::Limit { pages: 2, limit: 65536 }));
    assert!(LinearMemory::new(ty(u64::MAX, None), Placement::Anywhere, u64::MAX.into()).is_err());
    let wide = MemoryType { memory64: true, ..ty(1 << 48, None) };
    assert!(LinearMemory::new(wide, Placement::Anywhere, u64::MAX.into()).is_err());
}

#[test]
fn bytes_pass_between_memories_of_every_kind() {
    let shared = MemoryType { shared: true, ..ty(1, Some(1)) };
    for (to, from) in [(ty(1, None), ty(1, None)), (shared, ty(1, None)), (ty(1, None), shared)]
        .into_iter()
        .chain([(shared, shared)])
    {
        let (mut to, mut from) = (memory_of(to, u64::MAX), memory_of(from, u64::MAX));
        from.fill(10, 7, 5).unwrap();
        to.copy_from(65533, &from, 12, 3).unwrap();
        assert_eq!(to.copy_from(65533, &from, 11, 4), None);
        assert_eq!(to.copy_from(0, &from, 65533, 4), None);
        let mut out = [0; 4];
        to.read(65532, &mut out).unwrap();
        assert_eq!(out, [0, 7, 7, 7]);
        to.copy_within(65531, 65532, 4).unwrap();
        to.read(65531, &mut out).unwrap();
        assert_eq!(out, [0, 7, 7, 7]);
    }
}

#[test]
fn images_are_private_copies_of_the_file() {
    let file = crate::runtime::sys::anonymous_file(&[5; 8192]).unwrap();
    let mut first = memory(1, None, u64::MAX);
    let mut second = memory(1, None, u64::MAX);
    for memory in [&mut first, &mut second] {
        memory.map_image(4096..8192, &file, 4096).unwrap();
    }
    first.bytes_mut()[5000] = 9;
    assert_eq!((first.bytes()[5000], second.bytes()[5000]), (9, 5));
    assert_eq!((second.bytes()[4095], second.bytes()[8192]), (0, 0));
}
