//! Marking: finds every object that can be reached.

use super::heap::{Heap, Object};
use crate::abi::gc::{BLOCK, ObjectKind, array_bytes, header};

/// Words of an object that are looked at before the objects found in them. Bounds what a wide
/// object leaves on the stack of work.
const CHUNK: usize = 128;

/// A collection in progress.
pub(in crate::runtime) struct Marker<'a> {
    heap: &'a mut Heap,
    /// Ranges of words still to look at: offset, and number of words. It takes the place of
    /// recursion, so a list of any length is fine.
    work: Vec<(u32, u32)>,
}

impl<'a> Marker<'a> {
    pub(super) fn new(heap: &'a mut Heap) -> Marker<'a> {
        heap.retire_cursors();
        Marker { heap, work: Vec::new() }
    }

    /// Marks what a reference as compiled code holds it refers to, if it refers to an object.
    #[inline]
    pub(in crate::runtime) fn reference(&mut self, raw: u32) {
        // An object's body, too, holds numbers that only look like references.
        if let Some(object) = self.heap.mark(raw, true) {
            self.look_into(object);
        }
    }

    /// Marks the object that a word of a stack or register points to or into, if any.
    ///
    /// The heap's base is a multiple of 4 GiB: the low half of an address is the offset, so
    /// references and addresses look the same.
    pub(in crate::runtime) fn ambiguous(&mut self, word: u32) {
        if let Some(object) = self.heap.mark(word, false) {
            self.look_into(object);
        }
    }

    /// Notes what is to be searched of a newly found object.
    #[inline]
    fn look_into(&mut self, object: Object) {
        let kind = self.heap.space.read(u64::from(object.offset + header::KIND));
        if kind & header::SCAN == 0 {
            return;
        }
        let mut bytes = object.cell;
        if bytes >= BLOCK && kind & header::KIND_MASK == ObjectKind::Array as u32 {
            // The blocks of a large array may end in pages that were never used.
            let place = u64::from(object.offset + header::ARRAY_LENGTH);
            bytes = array_bytes(4, self.heap.space.read(place)) as u32;
        }
        self.work.push((object.offset + header::SIZE, (bytes - header::SIZE) / 4));
    }

    /// Follows everything found so far, and frees what was not found.
    pub(super) fn finish(mut self) {
        let mut words = [0; CHUNK];
        while let Some((start, count)) = self.work.pop() {
            let now = count.min(CHUNK as u32);
            if count > now {
                self.work.push((start + now * 4, count - now));
            }
            let words = &mut words[..now as usize];
            self.heap.space.read_words(u64::from(start), words);
            for &word in words.iter().filter(|&&word| word != 0) {
                self.reference(word);
            }
        }
        self.heap.sweep();
    }
}
