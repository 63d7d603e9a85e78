//! Positions in the module of what code does, through bodies that stand in place of calls.
//!
//! A position is one `u32`: the byte offset of an operator, or, with [`INLINED`] set, the number of
//! an [`InlinedPosition`]. So it fits the code generator's source positions.

use crate::image::{INLINED, InlinedPosition as Entry};

pub(super) use crate::image::InlinedPosition;

/// A position for code that comes from no place in the module.
pub(super) const NO_POSITION: u32 = u32::MAX;

/// Positions of one function that lie in bodies in place of calls.
#[derive(Default)]
pub(super) struct Inlined {
    entries: Vec<Entry>,
}

impl Inlined {
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Adds one and gives the position that stands for it.
    pub(super) fn push(&mut self, entry: Entry) -> u32 {
        if self.entries.last() != Some(&entry) {
            self.entries.push(entry);
        }
        INLINED | (self.entries.len() - 1) as u32
    }
}

/// Takes over the positions that code really has.
pub(super) struct Kept<'a> {
    all: &'a [Entry],
    kept: Vec<Entry>,
    /// For each of all, its number among the kept ones.
    numbers: Vec<Option<u32>>,
}

impl<'a> Kept<'a> {
    pub(super) fn new(inlined: &'a Inlined) -> Self {
        let all = &inlined.entries[..];
        Kept { all, kept: Vec::new(), numbers: vec![None; all.len()] }
    }

    /// A position with its number among the kept ones. Callers come before their callees.
    pub(super) fn keep(&mut self, position: u32) -> u32 {
        let Some(n) = number(position) else { return position };
        let Some(&entry) = self.all.get(n) else { return NO_POSITION };
        if let Some(kept) = self.numbers[n] {
            return INLINED | kept;
        }
        // As deep as bodies lie in each other.
        let caller = self.keep(entry.caller);
        let kept = self.kept.len() as u32;
        self.kept.push(Entry { caller, ..entry });
        self.numbers[n] = Some(kept);
        INLINED | kept
    }

    pub(super) fn finish(self) -> Box<[Entry]> {
        self.kept.into()
    }
}

/// A position moved behind `before` others.
pub(super) fn moved(position: u32, before: u32) -> u32 {
    if number(position).is_some() { position + before } else { position }
}

fn number(position: u32) -> Option<usize> {
    (position & INLINED != 0 && position != NO_POSITION).then_some((position & !INLINED) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_used_positions_and_their_callers_are_kept() {
        let mut inlined = Inlined::default();
        let entry = |func, offset, caller| Entry { func, offset, caller };
        let _unused = inlined.push(entry(1, 10, 5));
        let call = inlined.push(entry(1, 12, 5));
        assert_eq!(inlined.push(entry(1, 12, 5)), call);
        let inner = inlined.push(entry(2, 20, call));
        let mut kept = Kept::new(&inlined);
        assert_eq!(kept.keep(7), 7);
        assert_eq!(kept.keep(NO_POSITION), NO_POSITION);
        assert_eq!(kept.keep(inner), INLINED | 1);
        assert_eq!(kept.keep(inner), INLINED | 1);
        assert_eq!(*kept.finish(), [entry(1, 12, 5), entry(2, 20, INLINED)]);
        assert_eq!(moved(INLINED | 1, 4), INLINED | 5);
        assert_eq!(moved(9, 4), 9);
        assert_eq!(moved(NO_POSITION, 4), NO_POSITION);
    }
}
