//! References that the host holds.
//!
//! A handle of an object names an entry of the store's list of roots, which keeps the object alive.
//! The list is a stack: what a host function got is let go when it returns, what was got outside of
//! any call stays until it is released. Every entry has a number of its own in the process, so that
//! a handle that outlived its entry, or is used with another store, is found out.

use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::runtime::store::{AsStore, Store, StoreInner, get_mut};

/// A reference that is not null and to no function, as the host holds it.
#[derive(Clone, Copy, Debug)]
pub(in crate::runtime) struct Reference {
    raw: NonZeroU32,
    /// The place of the entry that keeps the object alive.
    index: u32,
    /// The entry's number; 0 for what is no object and needs none.
    serial: u64,
}

impl Reference {
    /// A reference that is no object: an `i31` or something of the host.
    pub(in crate::runtime) fn inline(raw: NonZeroU32) -> Reference {
        debug_assert!(raw.get() & 0b11 != 0);
        Reference { raw, index: 0, serial: 0 }
    }

    /// As compiled code holds it. An object behind it may be gone: ask the store instead wherever
    /// the number is given to a guest.
    pub(in crate::runtime) fn bits(self) -> u32 {
        self.raw.get()
    }
}

/// The same object, number or thing of the host. Objects do not move.
impl PartialEq for Reference {
    fn eq(&self, other: &Reference) -> bool {
        self.raw == other.raw
    }
}

impl Eq for Reference {}

impl Hash for Reference {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.raw.hash(state);
    }
}

/// The entries, innermost last.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Roots {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// `None` once it is released.
    object: Option<NonZeroU32>,
    serial: u64,
}

impl Roots {
    fn add(&mut self, object: NonZeroU32) -> Reference {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let index = self.entries.len() as u32;
        self.entries.push(Entry { object: Some(object), serial });
        Reference { raw: object, index, serial }
    }

    fn entry(&mut self, reference: Reference) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(reference.index as usize)?;
        (entry.serial == reference.serial && entry.object.is_some()).then_some(entry)
    }

    fn release(&mut self, reference: Reference) {
        if let Some(entry) = self.entry(reference) {
            entry.object = None;
        }
        while self.entries.pop_if(|entry| entry.object.is_none()).is_some() {}
    }

    /// How many entries there are: what to give to [`truncate`](Self::truncate) later.
    pub(in crate::runtime) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Lets go of all entries that came since there were `len`.
    pub(in crate::runtime) fn truncate(&mut self, len: usize) {
        self.entries.truncate(len);
    }

    /// The objects that they keep alive.
    pub(super) fn objects(&self) -> impl Iterator<Item = NonZeroU32> {
        self.entries.iter().filter_map(|entry| entry.object)
    }
}

impl StoreInner {
    /// A handle of a reference that compiled code gave.
    pub(in crate::runtime) fn reference(&self, raw: NonZeroU32) -> Reference {
        match raw.get() & 0b11 {
            0 => self.gc.roots.borrow_mut().add(raw),
            _ => Reference::inline(raw),
        }
    }

    /// What compiled code holds for a handle.
    ///
    /// # Panics
    /// When the handle was released, outlived the host function that got it, or is an object of
    /// another store: a bug of the embedder.
    pub(in crate::runtime) fn raw_reference(&self, reference: Reference) -> NonZeroU32 {
        let live = reference.serial == 0 || self.gc.roots.borrow_mut().entry(reference).is_some();
        assert!(live, "reference used after it was released, or with another store");
        reference.raw
    }

    /// Lets go of a handle.
    pub(in crate::runtime) fn release(&self, reference: Reference) {
        if reference.serial != 0 {
            self.gc.roots.borrow_mut().release(reference);
        }
    }
}

/// The heap of structures, arrays and exceptions.
impl Store {
    /// Frees all objects that neither guests nor the host can reach.
    ///
    /// Garbage is collected by itself as objects are made; this is for a moment when there is time
    /// for it. Objects never move.
    pub fn gc(&mut self) {
        get_mut(self).gc_collect();
    }

    /// Bytes of memory that objects take, in whole blocks of 64 KiB, garbage not yet collected
    /// among them.
    #[must_use]
    pub fn gc_heap_bytes(&self) -> u64 {
        self.inner().gc.used_bytes()
    }

    /// Runs `f` and lets go of all references to objects that it got: results of calls, values of
    /// globals, tables and fields, new objects. Outside of host functions they stay until they are
    /// released, so a loop that calls guests wants a scope for each turn.
    ///
    /// ```
    /// use coracle_engine::runtime::{Engine, Store};
    /// let mut store = Store::new(&Engine::new())?;
    /// store.ref_scope(|store| {
    ///     // Calls that return references …
    ///     store.gc();
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ref_scope<R>(&mut self, f: impl FnOnce(&mut Store) -> R) -> R {
        let len = self.inner().gc.roots.borrow().len();
        let result = f(self);
        get_mut(self).gc.roots.get_mut().truncate(len);
        result
    }

    fn inner(&self) -> &StoreInner {
        crate::runtime::store::get(self)
    }
}

/// Lets go of a handle: see the `release` methods of references.
pub(in crate::runtime) fn release(store: &mut impl AsStore, reference: Reference) {
    get_mut(store).release(reference);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n * 16).unwrap()
    }

    #[test]
    fn a_handle_is_good_until_its_entry_goes() {
        let mut roots = Roots::default();
        let first = roots.add(object(1));
        let len = roots.len();
        let second = roots.add(object(2));
        assert!(roots.entry(first).is_some() && roots.entry(second).is_some());
        roots.truncate(len);
        assert!(roots.entry(first).is_some() && roots.entry(second).is_none());
        // The place is taken by another entry now.
        let third = roots.add(object(2));
        assert!(roots.entry(second).is_none() && roots.entry(third).is_some());
        assert_eq!(second, third, "they name the same object nevertheless");
    }

    #[test]
    fn released_entries_are_used_again_once_they_are_on_top() {
        let mut roots = Roots::default();
        let [a, b, c] = [1, 2, 3].map(|n| roots.add(object(n)));
        roots.release(a);
        roots.release(a);
        assert_eq!((roots.len(), roots.objects().count()), (3, 2));
        roots.release(c);
        assert_eq!(roots.len(), 2);
        roots.release(b);
        assert_eq!(roots.len(), 0);
    }

    #[test]
    fn an_entry_of_another_list_is_not_taken_for_ones_own() {
        let (mut ours, mut theirs) = (Roots::default(), Roots::default());
        ours.add(object(1));
        assert!(ours.entry(theirs.add(object(1))).is_none());
    }
}
