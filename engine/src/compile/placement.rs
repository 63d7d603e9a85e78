//! Where a function's code begins within a line of the instruction cache.
//!
//! A processor fetches and decodes instructions a line at a time, so a short loop that begins in one
//! line and ends in the next costs up to half of its speed. The code generator does not align loops;
//! but a function may begin anywhere, so it begins where the fewest of its short loops cross a line.

use std::cmp::Reverse;

use cranelift_codegen::CompiledCode;

/// A line of the instruction cache, and of the caches of decoded instructions, in bytes.
const LINE: u32 = 64;
/// Of longer loops each block counts by itself, since an iteration takes some of them and jumps.
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

/// What is fetched again and again: a short loop, or the blocks of a long one that are in no inner loop.
#[derive(Debug)]
struct Body {
    /// Number of loops around it, itself included.
    depth: u32,
    /// Ranges of code.
    pieces: Vec<(u32, u32)>,
}

impl Placement {
    /// At a multiple of `align`.
    pub(super) fn aligned(align: u32) -> Placement {
        Placement { align, offset: 0 }
    }

    /// The best place for code with these blocks that has to be aligned to `required` and is better
    /// aligned to `preferred`.
    pub(super) fn of(compiled: &CompiledCode, required: u32, preferred: u32) -> Placement {
        let bodies = bodies(compiled);
        if required > LINE || bodies.is_empty() {
            return Placement::aligned(required.max(preferred));
        }
        let offsets = (0..LINE).step_by(required.max(STEP) as usize);
        // Of equals the first: the one that is best aligned.
        let best = offsets.min_by_key(|&offset| cost(&bodies, offset)).unwrap_or(0);
        Placement { align: LINE, offset: best }
    }

    /// Bytes to leave out behind `end` so that the code begins where it should.
    pub(super) fn gap(self, end: u64) -> u64 {
        let align = u64::from(self.align);
        let over = (end + align - u64::from(self.offset) % align) % align;
        if over == 0 { 0 } else { align - over }
    }
}

/// The loops, outer ones before inner ones.
fn loops(compiled: &CompiledCode) -> Vec<Loop> {
    let back = compiled.bb_edges.iter().filter(|(from, to)| to <= from);
    let mut loops: Vec<Loop> =
        back.map(|&(from, to)| Loop { start: to, end: Reverse(end_of(compiled, from)) }).collect();
    loops.sort_unstable();
    // Several ways back are one loop.
    loops.dedup_by_key(|found| found.start);
    loops
}

/// Where the block that begins at `block` ends.
fn end_of(compiled: &CompiledCode, block: u32) -> u32 {
    let starts = &compiled.bb_starts;
    let next = starts.partition_point(|&start| start <= block);
    starts.get(next).copied().unwrap_or(compiled.buffer.data().len() as u32)
}

fn bodies(compiled: &CompiledCode) -> Vec<Body> {
    let mut loops = loops(compiled).into_iter().peekable();
    let mut bodies: Vec<Body> = Vec::new();
    // Ends of the loops around a block, and where in `bodies` they are.
    let mut open: Vec<(u32, usize)> = Vec::new();
    for &start in &compiled.bb_starts {
        open.retain(|&(end, _)| end > start);
        while let Some(found) = loops.next_if(|found| found.start <= start) {
            let (start, end) = (found.start, found.end.0);
            open.push((end, bodies.len()));
            let short = end - start <= LONGEST;
            let pieces = if short { vec![(start, end)] } else { Vec::new() };
            bodies.push(Body { depth: (open.len() as u32).min(DEEPEST), pieces });
        }
        if let Some(&(_, innermost)) = open.last() {
            let pieces = &mut bodies[innermost].pieces;
            // Of a short loop there is one piece already, which this block is in.
            if pieces.last().is_none_or(|&(_, end)| end <= start) {
                pieces.push((start, end_of(compiled, start).min(start + LINE)));
            }
        }
    }
    bodies
}

/// What it costs that loops cross lines if the code begins at `offset` in a line.
fn cost(bodies: &[Body], offset: u32) -> u64 {
    let lines =
        |&(start, end): &(u32, u32)| (offset + end - 1) / LINE - (offset + start) / LINE + 1;
    let least = |&(start, end): &(u32, u32)| (end - start).div_ceil(LINE);
    let cost_of = |body: &Body| {
        let least: u32 = body.pieces.iter().map(least).sum();
        let lines: u32 = body.pieces.iter().map(lines).sum();
        // In 1/64 of what one more line costs a loop of one line.
        let share = (lines - least) * 64 / least.max(1);
        u64::from(share) << (REPEATS_LOG2 * body.depth)
    };
    bodies.iter().map(cost_of).sum()
}
