//! What the heap knows about its blocks, outside of them: kind, which cells hold objects, marks.

use crate::abi::gc::{BLOCK, SIZE_CLASSES};

/// A block of the heap.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) state: State,
    /// Its memory may hold something other than zeros where no object lies.
    pub(super) dirty: bool,
}

/// What a block is used for.
#[derive(Debug)]
pub(super) enum State {
    Free,
    Small(Cells),
    /// The first block of a large object of this many blocks.
    Large {
        blocks: u32,
        marked: bool,
    },
    /// Another block of a large object, and the number of its first.
    Tail {
        head: u32,
    },
}

/// The cells of a block of small objects.
#[derive(Debug)]
pub(super) struct Cells {
    pub(super) class: u8,
    /// Bytes of a cell, and 2^32 divided by that, rounded up: multiplying is faster than dividing.
    size: u32,
    reciprocal: u32,
    /// Two bits a cell, in two halves: it holds an object (or was handed out to be filled); it was
    /// marked.
    bits: Box<[u64]>,
}

/// Cells of a block of a size class.
pub(super) fn cell_count(class: usize) -> u32 {
    BLOCK / SIZE_CLASSES[class]
}

impl Cells {
    pub(super) fn new(class: usize) -> Cells {
        let words = cell_count(class).div_ceil(64) as usize;
        let size = SIZE_CLASSES[class];
        let reciprocal = (1u64 << 32).div_ceil(u64::from(size)) as u32;
        Cells { class: class as u8, size, reciprocal, bits: vec![0; words * 2].into() }
    }

    /// Bytes of a cell.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// The cell that a byte of the block lies in.
    pub(super) fn cell_at(&self, byte: u32) -> u32 {
        debug_assert!(byte < BLOCK);
        ((u64::from(byte) * u64::from(self.reciprocal)) >> 32) as u32
    }

    pub(super) fn count(&self) -> u32 {
        cell_count(self.class as usize)
    }

    fn live(&self) -> &[u64] {
        &self.bits[..self.bits.len() / 2]
    }

    /// Whether a cell holds an object.
    pub(super) fn is_live(&self, cell: u32) -> bool {
        cell < self.count() && self.live()[cell as usize / 64] >> (cell % 64) & 1 == 1
    }

    /// Says which cells of a range hold objects.
    pub(super) fn set_live(&mut self, cells: std::ops::Range<u32>, live: bool) {
        debug_assert!(cells.end <= self.count());
        for cell in cells {
            let word = &mut self.bits[cell as usize / 64];
            let bit = 1 << (cell % 64);
            if live { *word |= bit } else { *word &= !bit }
        }
    }

    /// Marks a cell if it holds an object; whether it does and was unmarked.
    pub(super) fn mark(&mut self, cell: u32) -> bool {
        let (live, marks) = self.bits.split_at_mut(self.bits.len() / 2);
        let (word, bit) = (cell as usize / 64, 1 << (cell % 64));
        let (Some(live), Some(mark)) = (live.get(word), marks.get_mut(word)) else { return false };
        let fresh = *live & !*mark & bit != 0;
        if fresh {
            *mark |= bit;
        }
        fresh
    }

    /// Frees all cells that are not marked and takes the marks away. How many are left.
    pub(super) fn sweep(&mut self) -> u32 {
        let half = self.bits.len() / 2;
        let (live, marks) = self.bits.split_at_mut(half);
        let mut left = 0;
        for (live, mark) in live.iter_mut().zip(marks) {
            debug_assert_eq!(*mark & !*live, 0, "only objects are marked");
            *live = *mark;
            left += mark.count_ones();
            *mark = 0;
        }
        left
    }

    /// The first run of free cells from `from` on, of at most `most` cells.
    pub(super) fn free_run(&self, from: u32, most: u32) -> Option<std::ops::Range<u32>> {
        let start = self.first_free(from)?;
        let mut end = start + 1;
        while end < self.count() && end - start < most && !self.is_live(end) {
            end += 1;
        }
        Some(start..end)
    }

    fn first_free(&self, from: u32) -> Option<u32> {
        let mut word = from as usize / 64;
        let mut skip = from % 64;
        while word < self.live().len() {
            let free = !self.live()[word] & (u64::MAX << skip);
            if free != 0 {
                let cell = word as u32 * 64 + free.trailing_zeros();
                return (cell < self.count()).then_some(cell);
            }
            (word, skip) = (word + 1, 0);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_free_cells_are_found_between_objects() {
        // 21 cells of 3072 bytes.
        let class = SIZE_CLASSES.iter().position(|&size| size == 3072).unwrap();
        let mut cells = Cells::new(class);
        assert_eq!(cells.count(), 21);
        assert_eq!(cells.free_run(0, 100), Some(0..21));
        cells.set_live(2..4, true);
        cells.set_live(20..21, true);
        assert_eq!(cells.free_run(0, 100), Some(0..2));
        assert_eq!(cells.free_run(2, 100), Some(4..20));
        assert_eq!(cells.free_run(2, 3), Some(4..7));
        assert_eq!(cells.free_run(20, 3), None);
        assert_eq!(cells.free_run(64, 3), None);
    }

    #[test]
    fn every_byte_of_a_block_finds_its_cell() {
        for class in 0..SIZE_CLASSES.len() {
            let cells = Cells::new(class);
            assert!((0..BLOCK).all(|byte| cells.cell_at(byte) == byte / cells.size()));
        }
    }

    #[test]
    fn a_sweep_keeps_what_is_marked_and_forgets_the_marks() {
        let mut cells = Cells::new(0);
        cells.set_live(0..200, true);
        assert!(cells.mark(3) && cells.mark(130));
        assert!(!cells.mark(3), "marked once");
        assert!(!cells.mark(200) && !cells.mark(4096), "no objects");
        assert_eq!(cells.sweep(), 2);
        assert!(cells.is_live(3) && cells.is_live(130) && !cells.is_live(4));
        assert_eq!(cells.sweep(), 0);
        assert!(!cells.is_live(5000));
    }
}
