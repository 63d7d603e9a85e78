//! The questions asked of the tables that come with code: of a whole image, or of one function.

use super::code::CodePosition;
use crate::abi::trap::TrapKind;
use crate::image::{ANY_TAG, INLINED, InlinedPosition, OWN_CONTEXT};
use crate::module::index::FuncIndex;

/// Tables as [`Section`](crate::image::Section) describes them. Offsets in them count from the
/// beginning of the code.
pub(super) struct Tables<'a> {
    pub(super) trap_offsets: Words<'a>,
    pub(super) trap_codes: &'a [u8],
    pub(super) address_offsets: Words<'a>,
    pub(super) address_positions: Words<'a>,
    pub(super) inlined: Words<'a>,
    pub(super) catch_sites: Words<'a>,
    pub(super) catch_frames: Words<'a>,
    pub(super) catches: &'a [u8],
}

impl<'a> Tables<'a> {
    /// The trap of the instruction at an offset.
    pub(super) fn trap_at(&self, offset: u32) -> Option<TrapKind> {
        let offsets = self.trap_offsets;
        let n = offsets.last_not_above(offset).filter(|&n| offsets.get(n) == offset)?;
        TrapKind::from_code(*self.trap_codes.get(n)?)
    }

    /// Shows the functions and wasm positions of the instruction at an offset, innermost first, in
    /// the code of the function `outermost`; `is_known` tells which functions there are. Runs inside
    /// of signal handlers: no allocation, no lock.
    pub(super) fn positions(
        &self,
        offset: u32,
        outermost: FuncIndex,
        is_known: impl Fn(FuncIndex) -> bool,
        mut see: impl FnMut(CodePosition),
    ) {
        let entries = self.inlined;
        let mut below = entries.0.len() / InlinedPosition::SIZE;
        let mut position = self.position(offset);
        while let Some(word) = position.filter(|word| word & INLINED != 0) {
            let n = (word & !INLINED) as usize;
            // Callers come first, so a damaged table cannot lead in a circle.
            if n >= below {
                position = None;
                break;
            }
            let func = FuncIndex::from_u32(entries.get(3 * n));
            if is_known(func) {
                see(CodePosition { func, wasm_offset: Some(entries.get(3 * n + 1)) });
            }
            (position, below) = (Some(entries.get(3 * n + 2)), n);
        }
        see(CodePosition { func: outermost, wasm_offset: position });
    }

    fn position(&self, offset: u32) -> Option<u32> {
        let n = self.address_offsets.last_not_above(offset)?;
        Some(self.address_positions.get(n)).filter(|&position| position != u32::MAX)
    }

    /// What catches exceptions around a call that returns to an offset; `base` is the address of
    /// the code.
    pub(super) fn catch_site(&self, offset: u32, base: usize) -> Option<CatchSite<'a>> {
        let sites = self.catch_sites;
        let n = sites.last_not_above(offset).filter(|&n| sites.get(n) == offset)?;
        let frames = self.catch_frames;
        let first = if n == 0 { 0 } else { frames.get(2 * n - 1) as usize };
        let clauses = first * CLAUSE_LEN..frames.get(2 * n + 1) as usize * CLAUSE_LEN;
        let clauses = self.catches.get(clauses)?;
        Some(CatchSite { frame: frames.get(2 * n), base, clauses })
    }
}

/// Bytes of a clause in the image.
const CLAUSE_LEN: usize = 12;

/// A call inside a `try_table`.
pub(super) struct CatchSite<'a> {
    /// The frame pointer less the stack pointer, in bytes.
    pub(super) frame: u32,
    /// Where the code begins to which offsets belong.
    base: usize,
    clauses: &'a [u8],
}

/// A clause of a `try_table` around a call.
pub(super) struct CatchClause {
    /// The tag of the module that it catches; `None` catches everything.
    pub(super) tag: Option<u32>,
    /// Where the frame keeps its context, from the stack pointer up. `None`: the throwing runtime
    /// call was given it.
    pub(super) context: Option<u32>,
    /// The address of its landing pad.
    pub(super) landing_pad: usize,
}

impl CatchSite<'_> {
    /// The clauses in the order in which they are tried.
    pub(super) fn clauses(&self) -> impl Iterator<Item = CatchClause> {
        self.clauses.chunks_exact(CLAUSE_LEN).filter_map(|clause| {
            let clause = Words(clause);
            let (tag, context) = (clause.get(0), clause.get(1));
            Some(CatchClause {
                tag: (tag != ANY_TAG).then_some(tag),
                context: (context != OWN_CONTEXT).then_some(context),
                landing_pad: self.base.checked_add(clause.get(2) as usize)?,
            })
        })
    }
}

/// A view of a section that holds little-endian `u32`s.
#[derive(Clone, Copy)]
pub(super) struct Words<'a>(pub(super) &'a [u8]);

impl Words<'_> {
    pub(super) fn get(&self, n: usize) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&self.0[4 * n..4 * n + 4]);
        u32::from_le_bytes(word)
    }

    /// In an ascending array, the index of the last element that is at most `value`.
    pub(super) fn last_not_above(&self, value: u32) -> Option<usize> {
        partition_point(self.0.len() / 4, |n| self.get(n) <= value).checked_sub(1)
    }
}

/// The number of leading indices below `len` for which `holds` is true.
pub(super) fn partition_point(len: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_searched_like_a_sorted_slice() {
        let values = [3u32, 5, 5, 9];
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let words = Words(&bytes);
        for probe in 0..12 {
            let expected = values.partition_point(|&v| v <= probe).checked_sub(1);
            assert_eq!(words.last_not_above(probe), expected, "{probe}");
        }
    }
}
