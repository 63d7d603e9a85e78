//! Which code a store's guests may run: asked whenever a fault is looked at.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::runtime::code::Module;

/// The code that belongs to a store: a list that only grows.
///
/// The fault handler walks it on the thread that owns the store. It may interrupt any instruction
/// of that thread, even one that is adding to the list, so nodes are complete before they are
/// published and live as long as the list.
#[derive(Debug, Default)]
pub(in crate::runtime) struct CodeList {
    head: AtomicPtr<CodeNode>,
}

#[derive(Debug)]
struct CodeNode {
    module: Module,
    next: *mut CodeNode,
}

impl CodeList {
    /// Adds a module's code unless it is there already.
    pub(super) fn add(&mut self, module: &Module) -> bool {
        if self.iter().any(|known| known.text() == module.text()) {
            return false;
        }
        let next = *self.head.get_mut();
        let node = Box::new(CodeNode { module: module.clone(), next });
        self.head.store(Box::into_raw(node), Ordering::Release);
        true
    }

    fn iter(&self) -> impl Iterator<Item = &Module> {
        let mut node = self.head.load(Ordering::Acquire);
        std::iter::from_fn(move || {
            // SAFETY: published nodes are complete and live as long as the list (see above).
            let current = unsafe { node.as_ref() }?;
            node = current.next;
            Some(&current.module)
        })
    }

    /// The module whose text holds an address. Runs inside the signal handler.
    pub(in crate::runtime) fn find(&self, pc: usize) -> Option<&Module> {
        self.iter().find(|module| module.text().contains(&pc))
    }
}

impl Drop for CodeList {
    fn drop(&mut self) {
        let mut node = std::mem::replace(self.head.get_mut(), ptr::null_mut());
        while !node.is_null() {
            // SAFETY: every node was leaked from a box by `add` and is freed once.
            let current = unsafe { Box::from_raw(node) };
            node = current.next;
        }
    }
}
