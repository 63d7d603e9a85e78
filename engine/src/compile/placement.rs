//! Where a function's code begins within a line of the instruction cache.
//!
//! A processor fetches and decodes instructions a line at a time, so a short loop that begins in one
//! line and ends in the next costs up to half of its speed. The code generator does not align loops;
//! but a function may begin anywhere, so it begins where the fewest of its short loops cross a line.

use std::cmp::Reverse;

use cranelift_codegen::CompiledCode;

/// A line of the instruction cache, and of the caches of decoded instructions, in bytes.
const LINE: u32 = 64;
/// Longer loops lose nothing that could be measured by one more line.
const LONGEST: u32 = 4 * LINE;
/// Places are looked for in steps of this many bytes.
const STEP: u32 = 8;
/// How many times as often a loop is taken to run as the one around it, as a binary logarithm.
const REPEATS_LOG2: u32 = 3;
/// Loops inside each other that count.
const DEEPEST: u32 = 6;

/// Where code begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    /// At a multiple of this, in bytes; a power of two.
    pub(super) align: u32,
    /// And so many bytes behind it.
    pub(super) offset: u32,
}

impl Default for Placement {
    /// Anywhere.
    fn default() -> Placement {
        Placement::aligned(1)
    }
}

/// A loop as a range of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Loop {
    start: u32,
    end: Reverse<u32>,
}

impl Placement {
    /// At a multiple of `align`.
    pub(super) fn aligned(align: u32) -> Placement {
        Placement { align, offset: 0 }
    }

    /// The best place for code with these blocks that has to be aligned to `required` and is better
    /// aligned to `preferred`.
    pub(super) fn of(compiled: &CompiledCode, required: u32, preferred: u32) -> Placement {
        let loops = loops(compiled);
        if required > LINE || loops.is_empty() {
            return Placement::aligned(required.max(preferred));
        }
        let offsets = (0..LINE).step_by(required.max(STEP) as usize);
        // Of equals the first: the one that is best aligned.
        let best = offsets.min_by_key(|&offset| cost(&loops, offset)).unwrap_or(0);
        Placement { align: LINE, offset: best }
    }

    /// Bytes to leave out behind `end` so that the code begins where it should.
    pub(super) fn gap(self, end: u64) -> u64 {
        let align = u64::from(self.align);
        let over = (end + align - u64::from(self.offset) % align) % align;
        if over == 0 { 0 } else { align - over }
    }
}

/// The short loops, outer ones before inner ones.
fn loops(compiled: &CompiledCode) -> Vec<Loop> {
    let starts = &compiled.bb_starts;
    let end_of = |block: u32| {
        let next = starts.partition_point(|&start| start <= block);
        starts.get(next).copied().unwrap_or(compiled.buffer.data().len() as u32)
    };
    let back = compiled.bb_edges.iter().filter(|(from, to)| to <= from);
    let mut loops: Vec<Loop> = back
        .map(|&(from, to)| Loop { start: to, end: Reverse(end_of(from)) })
        .filter(|found| found.end.0 - found.start <= LONGEST)
        .collect();
    loops.sort_unstable();
    // Several ways back are one loop.
    loops.dedup_by_key(|found| found.start);
    loops
}

/// What it costs that loops cross lines if the code begins at `offset` in a line.
fn cost(loops: &[Loop], offset: u32) -> u64 {
    let mut open: Vec<u32> = Vec::new();
    let mut sum = 0;
    for found in loops {
        while open.last().is_some_and(|&end| end <= found.start) {
            open.pop();
        }
        open.push(found.end.0);
        let least = (found.end.0 - found.start).div_ceil(LINE);
        let lines = (offset + found.end.0 - 1) / LINE - (offset + found.start) / LINE + 1;
        let depth = (open.len() as u32).min(DEEPEST);
        // In 1/64 of what one more line costs a loop of one line.
        sum += u64::from((lines - least) * 64 / least) << (REPEATS_LOG2 * depth);
    }
    sum
}
