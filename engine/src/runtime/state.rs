//! What an instance holds, for [snapshots](crate::snapshot): read as it is, compared, never changed.

use super::instance::Instance;
use super::instantiate::{self, InstantiateError};
use super::memory::Memory;
use super::store::{AsStore, get, get_mut, pointer};
use crate::module::index::MemoryIndex;

/// What an instance that imports nothing but functions holds besides its memories, in the order of
/// the module's index spaces.
#[derive(Debug)]
pub(crate) struct State {
    /// Values of globals, as compiled code holds them.
    pub(crate) globals: Vec<u128>,
    /// Elements of tables, likewise.
    pub(crate) tables: Vec<Vec<u64>>,
    /// Whether element segments have elements left.
    pub(crate) elements: Vec<bool>,
    /// Whether data segments have bytes left.
    pub(crate) data: Vec<bool>,
    /// Whether there may be objects on the store's heap.
    pub(crate) objects: bool,
}

impl Instance {
    /// Runs the start function of an instance whose start function has not run.
    pub(crate) fn run_start(self, store: &mut impl AsStore) -> Result<(), InstantiateError> {
        get(store).assert_owns(self.store);
        // SAFETY: the store is borrowed exclusively and no reference to its inside is alive; the
        // instance is its own.
        unsafe { instantiate::start(pointer(store), self) }
    }

    /// A memory by its index.
    pub(crate) fn memory_at(self, store: &impl AsStore, index: MemoryIndex) -> Memory {
        self.inner(get(store)).memory(index)
    }

    /// What it holds, after a collection of garbage.
    pub(crate) fn state(self, store: &mut impl AsStore) -> State {
        get_mut(store).gc_collect();
        let store = get(store);
        let inner = self.inner(store);
        let info = inner.module.info();
        // SAFETY: globals were initialised with the instance and live as long as the store; no
        // compiled code runs while it is borrowed.
        let global = |index| u128::from_le_bytes(unsafe { inner.global(index).as_ref().0 });
        let table = |index| {
            let table = store.table(inner.table(index));
            (0..table.size()).map_while(|n| table.get(n)).collect()
        };
        State {
            globals: info.globals.keys().map(global).collect(),
            tables: info.tables.keys().map(table).collect(),
            elements: info.elements.keys().map(|n| inner.element_count(n) != 0).collect(),
            data: info.data.keys().map(|n| !inner.data(n).is_empty()).collect(),
            objects: store.gc.used_bytes() != 0,
        }
    }
}
