//! The address space of a heap: reserved at once, made accessible as it grows.

use std::io;
use std::ops::Range;
use std::ptr;

use crate::abi::gc::{BLOCK, FIRST_OBJECT, RESERVATION, cursor};
use crate::runtime::sys::Mapping;

/// Bytes before the base, which hold the cursors.
const BEFORE: usize = cursor::TABLE.unsigned_abs() as usize;
/// Inaccessible bytes behind the reservation.
const GUARD: usize = 1 << 20;
/// Least bytes made accessible at a time: a system call for each block would cost more than the
/// address space that this leaves unused.
const COMMIT_STEP: u64 = 1 << 20;

/// Blocks that a heap can have.
pub(super) const MAX_BLOCKS: u32 = ((RESERVATION - FIRST_OBJECT as u64) / BLOCK as u64) as u32;

/// The reservation and how much of it is accessible.
#[derive(Debug)]
pub(super) struct Space {
    mapping: Mapping,
    /// Blocks that are accessible: the first ones.
    committed: u32,
}

/// Offset of a block from the base.
pub(super) fn block_offset(block: u32) -> u64 {
    u64::from(FIRST_OBJECT) + u64::from(block) * u64::from(BLOCK)
}

impl Space {
    /// Reserves the address space; only the cursors' page is accessible.
    pub(super) fn new() -> io::Result<Space> {
        let reservation = RESERVATION as usize;
        let mapping = Mapping::reserve_aligned(BEFORE, reservation + GUARD, reservation)?;
        mapping.make_writable(0..BEFORE)?;
        Ok(Space { mapping, committed: 0 })
    }

    /// Address of offset 0.
    pub(super) fn base(&self) -> *mut u8 {
        self.mapping.as_ptr().wrapping_add(BEFORE)
    }

    /// Addresses that no object has although an access through null hits them.
    pub(super) fn null_zone(&self) -> Range<usize> {
        let base = self.base().addr();
        base..base + FIRST_OBJECT as usize
    }

    /// Makes the first `blocks` blocks accessible.
    pub(super) fn commit(&mut self, blocks: u32) -> io::Result<()> {
        if blocks <= self.committed {
            return Ok(());
        }
        let step = (COMMIT_STEP / u64::from(BLOCK)) as u32;
        let wanted = blocks.next_multiple_of(step).min(MAX_BLOCKS);
        let range = self.in_mapping(self.committed)..self.in_mapping(wanted);
        self.mapping.make_writable(range)?;
        self.committed = wanted;
        Ok(())
    }

    /// Gives the memory of blocks back to the system; they read as zero afterwards.
    pub(super) fn discard(&mut self, blocks: Range<u32>) -> io::Result<()> {
        assert!(blocks.end <= self.committed, "discard of blocks that are accessible");
        self.mapping.discard(self.in_mapping(blocks.start)..self.in_mapping(blocks.end))
    }

    fn in_mapping(&self, block: u32) -> usize {
        BEFORE + block_offset(block) as usize
    }

    /// Writes zeros.
    ///
    /// # Panics
    /// When the range is not accessible.
    pub(super) fn zero(&mut self, offset: u64, bytes: u64) {
        let start = self.check(offset, bytes);
        // SAFETY: the range is accessible (checked), and it is free memory of the heap, to which
        // no reference exists.
        unsafe { ptr::write_bytes(start, 0, bytes as usize) };
    }

    /// Reads a word of an object.
    ///
    /// # Panics
    /// When the word is not accessible.
    #[inline]
    pub(super) fn read(&self, offset: u64) -> u32 {
        let start = self.check(offset, 4);
        // SAFETY: the word is accessible (checked) and compiled code, which also writes it, waits
        // meanwhile. No reference to memory of the heap is ever made.
        unsafe { start.cast::<u32>().read_unaligned() }
    }

    /// Reads adjacent words.
    ///
    /// # Panics
    /// When one of them is not accessible.
    pub(super) fn read_words(&self, offset: u64, words: &mut [u32]) {
        let start = self.check(offset, size_of_val(words) as u64);
        // SAFETY: the words are accessible (checked) and aligned or not, which bytes do not mind;
        // `words` is not part of the heap. Otherwise as in `read`.
        unsafe { ptr::copy_nonoverlapping(start, words.as_mut_ptr().cast(), size_of_val(words)) };
    }

    /// Writes a word of an object.
    ///
    /// # Panics
    /// When the word is not accessible.
    pub(super) fn write(&mut self, offset: u64, value: u32) {
        let start = self.check(offset, 4);
        // SAFETY: as in `read`.
        unsafe { start.cast::<u32>().write_unaligned(value) };
    }

    /// The address of `bytes` accessible bytes at an offset.
    ///
    /// # Panics
    /// When they are not accessible.
    #[inline]
    pub(super) fn check(&self, offset: u64, bytes: u64) -> *mut u8 {
        let end = offset.checked_add(bytes);
        assert!(
            offset >= u64::from(FIRST_OBJECT)
                && end.is_some_and(|end| end <= block_offset(self.committed)),
            "access within the accessible part of the heap"
        );
        self.base().wrapping_add(offset as usize)
    }

    /// The cursor of a size class: next free cell and end of the run.
    pub(super) fn cursor(&self, class: usize) -> (u32, u32) {
        let place = self.cursor_place(class);
        // SAFETY: the page before the base is accessible and the place lies within (checked by
        // `cursor_place`); compiled code, which also writes it, waits meanwhile.
        unsafe { (place.read(), place.add(1).read()) }
    }

    /// Sets the cursor of a size class.
    pub(super) fn set_cursor(&mut self, class: usize, (next, limit): (u32, u32)) {
        let place = self.cursor_place(class);
        // SAFETY: as in `cursor`.
        unsafe {
            place.write(next);
            place.add(1).write(limit);
        }
    }

    fn cursor_place(&self, class: usize) -> *mut u32 {
        let offset = class * cursor::SIZE as usize;
        assert!(offset + cursor::SIZE as usize <= BEFORE, "cursor of a size class");
        self.mapping.as_ptr().wrapping_add(offset).cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_aligned_and_only_committed_blocks_are_accessible() {
        let mut space = Space::new().unwrap();
        assert!((space.base().addr() as u64).is_multiple_of(RESERVATION));
        space.commit(1).unwrap();
        space.write(block_offset(0), 7);
        assert_eq!(space.read(block_offset(0)), 7);
        space.discard(0..1).unwrap();
        assert_eq!(space.read(block_offset(0)), 0);
        space.set_cursor(36, (1, 2));
        assert_eq!(space.cursor(36), (1, 2));
        space.commit(MAX_BLOCKS).unwrap();
        space.write(RESERVATION - 4, 9);
        assert_eq!(space.read(RESERVATION - 4), 9);
    }

    #[test]
    #[should_panic(expected = "within the accessible part")]
    fn an_access_through_null_is_refused() {
        Space::new().unwrap().read(0);
    }
}
