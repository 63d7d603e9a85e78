//! The heap: where objects are allocated and freed.
//!
//! Blocks of 64 KiB hold objects of one size class each; larger objects have blocks to themselves.
//! Whether a cell holds an object is known from bits outside of the blocks, so that any number can
//! be asked whether it points into an object. Free cells are handed out as runs of zeroed cells
//! behind a cursor, from which compiled code allocates by itself.

use std::num::NonZeroU32;
use std::ops::Range;

use super::block::{Block, Cells, State};
use super::space::{MAX_BLOCKS, Space, block_offset};
use crate::abi::gc::{BLOCK, FIRST_OBJECT, SIZE_CLASSES, header, size_class};

/// Bytes that are handed out between two collections at least. A collection of a small heap costs
/// some ten microseconds; more would only leave the processor's cache.
const MIN_THRESHOLD: u64 = 4 << 20;
/// Most bytes of a run behind a cursor: what is zeroed at a time should stay in the first cache.
const MAX_RUN: u32 = 8 << 10;
/// Large objects of at least this many bytes get fresh pages from the system instead of zeros.
const DISCARD_BYTES: u64 = 256 << 10;

/// Memory for objects, and what is known about it.
#[derive(Debug)]
pub(in crate::runtime) struct Heap {
    pub(super) space: Space,
    pub(super) blocks: Vec<Block>,
    /// Most blocks in use.
    limit: u32,
    used: u32,
    /// No block below is free.
    first_free: u32,
    classes: Vec<Class>,
    /// Bytes handed out since the last collection.
    allocated: u64,
    /// How many of these bytes ask for a collection.
    threshold: u64,
    /// Hand out one object at a time: every allocation comes through [`allocate`](Heap::allocate).
    one_by_one: bool,
}

/// Where a size class allocates.
#[derive(Clone, Debug, Default)]
struct Class {
    /// The block that cells are taken from.
    current: Option<u32>,
    /// The cell of it where the search for free ones goes on.
    position: u32,
    /// Other blocks with free cells.
    partial: Vec<u32>,
}

impl Heap {
    /// An empty heap that may use at most `limit` bytes.
    ///
    /// # Errors
    /// When the system refuses the address space.
    pub(super) fn new(limit: u64, one_by_one: bool) -> std::io::Result<Heap> {
        Ok(Heap {
            space: Space::new()?,
            blocks: Vec::new(),
            limit: (limit / u64::from(BLOCK)).min(u64::from(MAX_BLOCKS)) as u32,
            used: 0,
            first_free: 0,
            classes: vec![Class::default(); SIZE_CLASSES.len()],
            allocated: 0,
            threshold: MIN_THRESHOLD,
            one_by_one,
        })
    }

    /// Whether it is time for a collection before `bytes` more are allocated.
    pub(super) fn wants_collection(&self, bytes: u64) -> bool {
        self.one_by_one || self.allocated.saturating_add(bytes) > self.threshold
    }

    /// Bytes in blocks that are in use.
    pub(super) fn used_bytes(&self) -> u64 {
        u64::from(self.used) * u64::from(BLOCK)
    }

    /// Allocates an object of `bytes` (header included) with its header written and everything else
    /// zero; `None` when there is no room. The memory is not touched unless it succeeds.
    pub(super) fn allocate(&mut self, kind: u32, type_id: u32, bytes: u64) -> Option<NonZeroU32> {
        debug_assert!(bytes >= u64::from(header::SIZE));
        let offset = match size_class(bytes) {
            Some(class) => self.allocate_cell(class)?,
            None => self.allocate_large(bytes)?,
        };
        self.space.write(u64::from(offset + header::KIND), kind);
        self.space.write(u64::from(offset + header::TYPE_ID), type_id);
        NonZeroU32::new(offset)
    }

    fn allocate_cell(&mut self, class: usize) -> Option<u32> {
        let size = SIZE_CLASSES[class];
        let (mut next, mut limit) = self.space.cursor(class);
        if limit - next < size {
            (next, limit) = self.next_run(class)?;
        }
        self.space.set_cursor(class, (next + size, limit));
        Some(next)
    }

    /// The next run of free cells of a class, zeroed and counted as objects.
    fn next_run(&mut self, class: usize) -> Option<(u32, u32)> {
        let size = SIZE_CLASSES[class];
        let most = if self.one_by_one { 1 } else { (MAX_RUN / size).max(1) };
        loop {
            let Some(block) = self.classes[class].current else {
                let next = self.classes[class].partial.pop();
                let block = next.or_else(|| self.new_block_of(class))?;
                self.classes[class].current = Some(block);
                self.classes[class].position = 0;
                continue;
            };
            let position = self.classes[class].position;
            let Block { state: State::Small(cells), dirty } = &mut self.blocks[block as usize]
            else {
                unreachable!("a size class allocates from blocks of small objects")
            };
            let Some(run) = cells.free_run(position, most) else {
                self.classes[class].current = None;
                continue;
            };
            cells.set_live(run.clone(), true);
            let start = block_offset(block) + u64::from(run.start * size);
            let bytes = u64::from((run.end - run.start) * size);
            if *dirty {
                self.space.zero(start, bytes);
            }
            self.allocated += bytes;
            self.classes[class].position = run.end;
            // The end of the last block's last cell may be 2^32 only if cells filled a block
            // without a remainder up to the end of the reservation: see `acquire`.
            return Some((start as u32, (start + bytes) as u32));
        }
    }

    fn new_block_of(&mut self, class: usize) -> Option<u32> {
        let block = self.acquire(1)?;
        self.blocks[block as usize].state = State::Small(Cells::new(class));
        Some(block)
    }

    fn allocate_large(&mut self, bytes: u64) -> Option<u32> {
        let blocks = u32::try_from(bytes.div_ceil(u64::from(BLOCK))).ok()?;
        let head = self.acquire(blocks)?;
        let range = head..head + blocks;
        let dirty = range.clone().any(|block| self.blocks[block as usize].dirty);
        if dirty {
            self.clean(range.clone(), bytes);
        }
        self.blocks[head as usize].state = State::Large { blocks, marked: false };
        for tail in range.skip(1) {
            self.blocks[tail as usize].state = State::Tail { head };
        }
        self.allocated += u64::from(blocks) * u64::from(BLOCK);
        Some(block_offset(head) as u32)
    }

    /// Makes free blocks read as zero.
    fn clean(&mut self, blocks: Range<u32>, bytes: u64) {
        let discarded = bytes >= DISCARD_BYTES && self.space.discard(blocks.clone()).is_ok();
        if !discarded {
            let len = u64::from(blocks.end - blocks.start) * u64::from(BLOCK);
            self.space.zero(block_offset(blocks.start), len);
        }
        for block in blocks {
            self.blocks[block as usize].dirty = false;
        }
    }

    /// Takes `count` adjacent free blocks, the lowest there are.
    fn acquire(&mut self, count: u32) -> Option<u32> {
        // The very last block stays free, so that no end of a run or object is 2^32.
        let limit = self.limit.min(MAX_BLOCKS - 1);
        if count > limit - self.used.min(limit) {
            return None;
        }
        let start = self.find_free(count);
        let end = start.checked_add(count).filter(|&end| end < MAX_BLOCKS)?;
        self.space.commit(end).ok()?;
        while (self.blocks.len() as u32) < end {
            self.blocks.push(Block { state: State::Free, dirty: false });
        }
        self.used += count;
        if start == self.first_free {
            self.first_free = end;
        }
        Some(start)
    }

    /// The first of `count` adjacent free blocks, or the end of all.
    fn find_free(&mut self, count: u32) -> u32 {
        let all = self.blocks.len() as u32;
        let is_free = |blocks: &[Block], n: u32| matches!(blocks[n as usize].state, State::Free);
        while self.first_free < all && !is_free(&self.blocks, self.first_free) {
            self.first_free += 1;
        }
        let mut run = 0;
        for block in self.first_free..all {
            run = if is_free(&self.blocks, block) { run + 1 } else { 0 };
            if run == count {
                return block + 1 - count;
            }
        }
        // Free blocks at the end are the beginning of what is new.
        all - run
    }

    /// Before marking: takes back what cursors have not given out.
    pub(super) fn retire_cursors(&mut self) {
        for (class, size) in SIZE_CLASSES.into_iter().enumerate() {
            let (next, limit) = self.space.cursor(class);
            if next < limit {
                let (block, start) = block_of(limit - 1);
                if let State::Small(cells) = &mut self.blocks[block as usize].state {
                    cells.set_live((next - start) / size..(limit - start) / size, false);
                }
            }
            self.space.set_cursor(class, (0, 0));
            self.classes[class] = Class::default();
        }
    }

    /// After marking: frees every object without a mark, and sets the next threshold.
    pub(super) fn sweep(&mut self) {
        let mut live = 0;
        let mut freed = 0;
        for number in 0..self.blocks.len() as u32 {
            let block = &mut self.blocks[number as usize];
            match &mut block.state {
                State::Free | State::Tail { .. } => {}
                State::Small(cells) => {
                    let left = cells.sweep();
                    block.dirty = true;
                    live += u64::from(left) * u64::from(cells.size());
                    if left == 0 {
                        block.state = State::Free;
                        freed += 1;
                        self.first_free = self.first_free.min(number);
                    } else if left < cells.count() {
                        let class = cells.class as usize;
                        self.classes[class].partial.push(number);
                    }
                }
                &mut State::Large { blocks, ref mut marked } => {
                    let keep = std::mem::take(marked);
                    if keep {
                        live += u64::from(blocks) * u64::from(BLOCK);
                        continue;
                    }
                    for block in &mut self.blocks[number as usize..][..blocks as usize] {
                        *block = Block { state: State::Free, dirty: true };
                    }
                    freed += blocks;
                    self.first_free = self.first_free.min(number);
                }
            }
        }
        for class in &mut self.classes {
            // Taken from the end: lower blocks first, so that higher ones become free.
            class.partial.reverse();
        }
        self.used -= freed;
        self.allocated = 0;
        self.threshold = live.max(MIN_THRESHOLD);
        self.release();
    }

    /// Gives memory back that the time to the next collection cannot use, from the end.
    fn release(&mut self) {
        let is_idle = |block: &Block| block.dirty && matches!(block.state, State::Free);
        let keep = (self.threshold / u64::from(BLOCK)) as usize;
        let mut surplus =
            self.blocks.iter().filter(|block| is_idle(block)).count().saturating_sub(keep);
        let mut end = self.blocks.len();
        while surplus > 0 && end > 0 {
            if !is_idle(&self.blocks[end - 1]) {
                end -= 1;
                continue;
            }
            let mut start = end - 1;
            while start > 0 && end - start < surplus && is_idle(&self.blocks[start - 1]) {
                start -= 1;
            }
            if self.space.discard(start as u32..end as u32).is_err() {
                return;
            }
            self.blocks[start..end].iter_mut().for_each(|block| block.dirty = false);
            surplus -= end - start;
            end = start;
        }
    }

    /// Marks the object that an offset lies in, or only one that begins there. `None` if there is
    /// none, or it is marked already.
    #[inline]
    pub(super) fn mark(&mut self, offset: u32, exact: bool) -> Option<Object> {
        let byte = offset.checked_sub(FIRST_OBJECT)?;
        let (number, within) = (byte / BLOCK, byte % BLOCK);
        let block = self.blocks.get_mut(number as usize)?;
        let head = match &mut block.state {
            State::Small(cells) => {
                let cell = cells.cell_at(within);
                let start = cell * cells.size();
                let hit = (!exact || start == within) && cells.mark(cell);
                let object = Object { offset: offset - within + start, cell: cells.size() };
                return hit.then_some(object);
            }
            State::Free => return None,
            State::Large { .. } if exact && within != 0 => return None,
            State::Large { .. } => number,
            State::Tail { .. } if exact => return None,
            State::Tail { head } => *head,
        };
        match &mut self.blocks[head as usize].state {
            State::Large { blocks, marked } => {
                let fresh = !std::mem::replace(marked, true);
                let object = Object { offset: block_offset(head) as u32, cell: *blocks * BLOCK };
                fresh.then_some(object)
            }
            _ => None,
        }
    }

    /// The object that an offset lies in.
    #[cfg(test)]
    pub(super) fn object_at(&self, offset: u32) -> Option<u32> {
        let (number, start) = offset.checked_sub(FIRST_OBJECT).map(|_| block_of(offset))?;
        match &self.blocks.get(number as usize)?.state {
            State::Free => None,
            State::Small(cells) => {
                let cell = cells.cell_at(offset - start);
                cells.is_live(cell).then_some(start + cell * cells.size())
            }
            State::Large { .. } => Some(start),
            &State::Tail { head } => Some(block_offset(head) as u32),
        }
    }
}

/// An object that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) offset: u32,
    /// Bytes of the cell or blocks that it has.
    pub(super) cell: u32,
}

/// The block that an offset lies in, and that block's offset.
fn block_of(offset: u32) -> (u32, u32) {
    ((offset - FIRST_OBJECT) / BLOCK, offset & !(BLOCK - 1))
}
