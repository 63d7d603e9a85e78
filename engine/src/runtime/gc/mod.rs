//! The garbage-collected heap of a store: structures, arrays and exceptions.
//!
//! * `space` is the reserved address space, `block` what is known of its parts;
//! * `heap` allocates and frees, `mark` finds what is reachable;
//! * `object` and `constant` make objects for the runtime, `builtins` for compiled code;
//! * `host` is what embedders see, `roots` the references that they hold;
//! * this file says where the search begins and when.
//!
//! Objects never move. Precise roots are globals, tables, evaluated segments and what the host
//! holds; the native stack, registers and the bodies of objects are searched for anything that
//! looks like a reference.

mod block;
pub(super) mod builtins;
mod constant;
mod heap;
mod host;
mod mark;
mod object;
mod roots;
mod space;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::io;
use std::num::NonZeroU32;
use std::ops::Range;

use heap::Heap;
pub use host::{ArrayRef, ObjectError, StructRef};
pub(super) use mark::Marker;
pub(super) use roots::{Reference, Roots, release};

use super::store::StoreInner;
use super::sys;
use super::vmcontext::Activation;
use crate::abi::gc::{ObjectKind, header};

/// A store's heap, if it has one yet, and what keeps objects alive besides guests.
#[derive(Debug, Default)]
pub(super) struct Gc {
    heap: Option<Heap>,
    /// References that the host holds. Reading a value makes one, which a shared borrow may do.
    pub(super) roots: RefCell<Roots>,
    /// Objects that are being made part of an instance.
    pinned: Vec<NonZeroU32>,
}

impl Gc {
    /// Addresses that an access through null hits, for the fault handler.
    pub(super) fn null_zone(&self) -> Range<usize> {
        self.heap.as_ref().map_or(0..0, |heap| heap.space.null_zone())
    }

    /// Bytes of memory in use for objects.
    pub(super) fn used_bytes(&self) -> u64 {
        self.heap.as_ref().map_or(0, Heap::used_bytes)
    }
}

impl StoreInner {
    /// Makes sure that there is a heap, and gives its base for a context.
    ///
    /// # Errors
    /// When the system refuses the address space.
    pub(super) fn gc_base(&mut self) -> io::Result<*mut u8> {
        let heap = match &mut self.gc.heap {
            Some(heap) => heap,
            none => none.insert(Heap::new(self.config.max_gc_heap_bytes, self.config.gc_stress)?),
        };
        Ok(heap.space.base())
    }

    /// Allocates an object of `bytes`, of which the header is written and the rest zero. `scan`
    /// says whether it may hold references to objects. `None` when the heap's limit, or the system,
    /// has no room for it even after a collection.
    ///
    /// The object lives as long as a reference to it lies in a root, on the stack or in another
    /// object; until compiled code has it, nothing else may be allocated without
    /// [`gc_pin`](Self::gc_pin).
    pub(super) fn gc_allocate(
        &mut self,
        kind: ObjectKind,
        type_id: u32,
        bytes: u64,
        scan: bool,
    ) -> Option<NonZeroU32> {
        self.gc_base().ok()?;
        let kind = kind as u32 | if scan { header::SCAN } else { 0 };
        let mut collected = false;
        loop {
            let heap = self.gc.heap.as_mut()?;
            if collected || !heap.wants_collection(bytes) {
                if let Some(object) = heap.allocate(kind, type_id, bytes) {
                    return Some(object);
                }
                if collected {
                    return None;
                }
            }
            // Hopeless requests are not worth a collection.
            if bytes > self.config.max_gc_heap_bytes {
                return None;
            }
            self.gc_collect();
            collected = true;
        }
    }

    /// The address of the `bytes` of an object from `offset` on.
    ///
    /// # Panics
    /// When they are not within the accessible part of the heap.
    pub(super) fn gc_address(&self, object: NonZeroU32, offset: u32, bytes: u64) -> *mut u8 {
        let place = u64::from(object.get()) + u64::from(offset);
        match &self.gc.heap {
            Some(heap) => heap.space.check(place, bytes),
            None => unreachable!("a reference to an object of a heap that does not exist"),
        }
    }

    /// Keeps an object alive until [`gc_unpin`](Self::gc_unpin).
    pub(super) fn gc_pin(&mut self, object: NonZeroU32) {
        self.gc.pinned.push(object);
    }

    /// How many objects are pinned: what to give to [`gc_unpin`](Self::gc_unpin) later.
    pub(super) fn gc_pinned(&self) -> usize {
        self.gc.pinned.len()
    }

    /// Lets go of all objects that were pinned since there were `before`.
    pub(super) fn gc_unpin(&mut self, before: usize) {
        self.gc.pinned.truncate(before);
    }

    /// Frees every object that cannot be reached.
    pub(super) fn gc_collect(&mut self) {
        // Taken out, so that the rest of the store can be read meanwhile.
        let Some(mut heap) = self.gc.heap.take() else { return };
        let mut marker = Marker::new(&mut heap);
        for object in &self.gc.pinned {
            marker.reference(object.get());
        }
        for object in self.gc.roots.borrow().objects() {
            marker.reference(object.get());
        }
        self.mark_roots(&mut marker);
        self.mark_stack(&mut marker);
        marker.finish();
        self.gc.heap = Some(heap);
    }

    /// Marks what lies on the stack between here and the outermost entry into compiled code:
    /// frames of compiled code, and of the host between them.
    fn mark_stack(&self, marker: &mut Marker<'_>) {
        let Some(end) = outermost_entry(&self.record.activation) else { return };
        sys::with_registers(|stack_pointer, registers| {
            for &register in registers {
                marker.ambiguous(register as u32);
            }
            // SAFETY: the stack pointer is this thread's, and `end` is the frame of an entry
            // trampoline that waits for the code that led here.
            unsafe { sys::stack_words(stack_pointer..end, |word| marker.ambiguous(word)) };
        });
    }
}

/// The frame pointer of the outermost entry into compiled code; `None` when none is active.
fn outermost_entry(innermost: &Activation) -> Option<usize> {
    let mut outermost = None;
    let mut activation = Some(innermost);
    while let Some(current) = activation.filter(|activation| activation.entry_fp != 0) {
        outermost = Some(current.entry_fp);
        // SAFETY: outer activations lie on the stack of `call`, below which all of this runs.
        activation = unsafe { current.outer.as_ref() };
    }
    outermost
}
