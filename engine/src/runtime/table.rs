//! Tables, and the handle that embedders use.

use std::ptr::{self, NonNull};

use super::store::{AsStore, StoreId, StoreInner, get, get_mut};
use super::types::{TableType, ValType};
use super::usage::TableShare;
use super::val::Val;
use super::vmcontext::{FuncRef, Stable, TableDef};

/// Why a table cannot be made or changed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum TableError {
    #[error("table of {elements} elements is over the limit of {limit}")]
    Limit { elements: u64, limit: u64 },
    #[error("value does not have the table's element type")]
    ElementType,
    #[error("index {index} is outside of the table of {size} elements")]
    OutOfBounds { index: u64, size: u64 },
}

/// The elements as compiled code reads them.
#[derive(Debug)]
enum Elements {
    Funcs(Vec<*mut FuncRef>),
    Handles(Vec<u32>),
}

/// A table. Its definition lies in the defining instance's context or, for one that the host made,
/// beside it.
#[derive(Debug)]
pub(super) struct TableInner {
    elements: Elements,
    ty: TableType,
    limit: u64,
    share: TableShare,
    def: NonNull<TableDef>,
    own_def: Option<Stable<TableDef>>,
}

impl TableInner {
    /// A table of the type's minimum size, all null. `limit` is the most elements it may have.
    pub(super) fn new(ty: TableType, limit: u64) -> Result<TableInner, TableError> {
        let limit = if ty.table64 { limit } else { limit.min(u64::from(u32::MAX)) };
        if ty.min > limit {
            return Err(TableError::Limit { elements: ty.min, limit });
        }
        let size = ty.min as usize;
        // Zeroed allocations of large tables cost nothing until they are touched.
        let elements = match ty.element.heap.is_func() {
            true => Elements::Funcs(vec![ptr::null_mut(); size]),
            false => Elements::Handles(vec![0; size]),
        };
        let share = TableShare::new(ty.min);
        Ok(TableInner { elements, ty, limit, share, def: NonNull::dangling(), own_def: None })
    }

    /// Lets the definition lie at `def` from now on, and fills it in.
    ///
    /// # Safety
    /// `def` must be valid for writes as long as this table lives.
    pub(super) unsafe fn attach(&mut self, def: NonNull<TableDef>) {
        self.def = def;
        self.publish();
    }

    /// Keeps the definition beside the table: for tables of the host.
    pub(super) fn attach_own(&mut self) {
        let own = Stable::new(Box::new(TableDef { base: ptr::null_mut(), length: 0 }));
        self.def = own.pointer();
        self.own_def = Some(own);
        self.publish();
    }

    fn publish(&mut self) {
        let base = match &mut self.elements {
            Elements::Funcs(elements) => elements.as_mut_ptr().cast(),
            Elements::Handles(elements) => elements.as_mut_ptr().cast(),
        };
        let def = TableDef { base, length: self.size() };
        // SAFETY: `attach` was given a place that is valid for writes; only this thread uses it,
        // and no compiled code runs while the host holds `&mut self`.
        unsafe { self.def.write(def) };
    }

    /// What compiled code reads.
    pub(super) fn def(&self) -> NonNull<TableDef> {
        self.def
    }

    /// The type, with the current size as its minimum.
    pub(super) fn current_type(&self) -> TableType {
        TableType { min: self.size(), ..self.ty }
    }

    /// Current size in elements.
    pub(super) fn size(&self) -> u64 {
        match &self.elements {
            Elements::Funcs(elements) => elements.len() as u64,
            Elements::Handles(elements) => elements.len() as u64,
        }
    }

    /// The elements, unless they are functions.
    pub(super) fn handles(&self) -> &[u32] {
        match &self.elements {
            Elements::Funcs(_) => &[],
            Elements::Handles(elements) => elements,
        }
    }

    /// The raw element at `index`.
    pub(super) fn get(&self, index: u64) -> Option<u64> {
        let index = usize::try_from(index).ok()?;
        match &self.elements {
            Elements::Funcs(elements) => {
                elements.get(index).map(|func| func.expose_provenance() as u64)
            }
            Elements::Handles(elements) => elements.get(index).map(|&handle| u64::from(handle)),
        }
    }

    /// Writes one raw element to all of `dst..dst + len`; `None` when out of bounds.
    pub(super) fn fill(&mut self, dst: u64, value: u64, len: u64) -> Option<()> {
        let range = self.range(dst, len)?;
        match &mut self.elements {
            Elements::Funcs(elements) => elements[range].fill(func_pointer(value)),
            Elements::Handles(elements) => elements[range].fill(value as u32),
        }
        Some(())
    }

    /// Writes raw elements from `dst` on; `None`, and nothing written, when out of bounds.
    pub(super) fn write(
        &mut self,
        dst: u64,
        values: impl ExactSizeIterator<Item = u64>,
    ) -> Option<()> {
        let range = self.range(dst, values.len() as u64)?;
        match &mut self.elements {
            Elements::Funcs(elements) => {
                elements[range].iter_mut().zip(values).for_each(|(e, v)| *e = func_pointer(v));
            }
            Elements::Handles(elements) => {
                elements[range].iter_mut().zip(values).for_each(|(e, v)| *e = v as u32);
            }
        }
        Some(())
    }

    /// Moves elements within the table; `None` when out of bounds.
    pub(super) fn copy_within(&mut self, dst: u64, src: u64, len: u64) -> Option<()> {
        let (to, from) = (self.range(dst, len)?, self.range(src, len)?);
        match &mut self.elements {
            Elements::Funcs(elements) => elements.copy_within(from, to.start),
            Elements::Handles(elements) => elements.copy_within(from, to.start),
        }
        Some(())
    }

    /// Copies elements from another table of the same kind; `None` when out of bounds.
    pub(super) fn copy_from(
        &mut self,
        dst: u64,
        other: &TableInner,
        src: u64,
        len: u64,
    ) -> Option<()> {
        let (to, from) = (self.range(dst, len)?, other.range(src, len)?);
        match (&mut self.elements, &other.elements) {
            (Elements::Funcs(to_elements), Elements::Funcs(elements)) => {
                to_elements[to].copy_from_slice(&elements[from]);
            }
            (Elements::Handles(to_elements), Elements::Handles(elements)) => {
                to_elements[to].copy_from_slice(&elements[from]);
            }
            // Validation allows copies between matching element types only.
            _ => return None,
        }
        Some(())
    }

    /// Grows by `delta` elements of raw value `init`; the previous size, or `None` when a limit or
    /// the allocator forbids it.
    pub(super) fn grow(&mut self, delta: u64, init: u64) -> Option<u64> {
        let old = self.size();
        let max = self.ty.max.unwrap_or(u64::MAX).min(self.limit);
        let new = old.checked_add(delta).filter(|&new| new <= max)?;
        let (added, new) = (usize::try_from(delta).ok()?, new as usize);
        match &mut self.elements {
            Elements::Funcs(elements) => {
                elements.try_reserve(added).ok()?;
                elements.resize(new, func_pointer(init));
            }
            Elements::Handles(elements) => {
                elements.try_reserve(added).ok()?;
                elements.resize(new, init as u32);
            }
        }
        self.share.grow(delta);
        self.publish();
        Some(old)
    }

    fn range(&self, start: u64, len: u64) -> Option<std::ops::Range<usize>> {
        let end = start.checked_add(len).filter(|&end| end <= self.size())?;
        Some(start as usize..end as usize)
    }
}

fn func_pointer(raw: u64) -> *mut FuncRef {
    ptr::with_exposed_provenance_mut(raw as usize)
}

/// A table of a store: core specification, "Table Instances". A copyable handle; using it with
/// another store panics. Sizes and indices count elements.
///
/// ```
/// use coracle_engine::runtime::{Engine, ExternRef, HeapType, RefType, Store, Table, TableType, Val};
/// let mut store = Store::new(&Engine::new())?;
/// let element = RefType { nullable: true, heap: HeapType::Extern };
/// let ty = TableType { element, table64: false, min: 2, max: Some(10) };
/// let table = Table::new(&mut store, ty, Val::null(HeapType::Extern))?;
/// let seven = Val::ExternRef(ExternRef::new(7));
/// table.set(&mut store, 1, seven)?;
/// assert_eq!(table.get(&store, 0), Some(Val::ExternRef(None)));
/// assert_eq!(table.get(&store, 1), Some(seven));
/// assert_eq!(table.get(&store, 2), None, "outside");
/// assert_eq!(table.grow(&mut store, 3, seven)?, 2, "the size before");
/// assert_eq!(table.size(&store), 5);
/// assert!(table.set(&mut store, 0, Val::I32(0)).is_err(), "no reference");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    pub(super) store: StoreId,
    pub(super) index: u32,
}

impl Table {
    /// Makes a table that belongs to no module, with every element `init`.
    ///
    /// # Errors
    /// When the store's limits do not allow it or `init` has another type.
    pub fn new(store: &mut impl AsStore, ty: TableType, init: Val) -> Result<Table, TableError> {
        let inner = get_mut(store);
        let mut table = TableInner::new(ty, inner.config.max_table_elements)?;
        let init = element(init, ty, inner)?.to_raw(inner) as u64;
        table.attach_own();
        table.fill(0, init, ty.min).ok_or(TableError::OutOfBounds { index: 0, size: ty.min })?;
        Ok(inner.add_table(table))
    }

    /// Its type, with the current size as the minimum.
    #[must_use]
    pub fn ty(self, store: &impl AsStore) -> TableType {
        get(store).table(self).current_type()
    }

    /// Its size in elements.
    #[must_use]
    pub fn size(self, store: &impl AsStore) -> u64 {
        get(store).table(self).size()
    }

    /// The element at `index`, or `None` outside of the table.
    #[must_use]
    pub fn get(self, store: &impl AsStore, index: u64) -> Option<Val> {
        let inner = get(store);
        let table = inner.table(self);
        let raw = table.get(index)?;
        // SAFETY: elements are written by this store's code and by `set`, which checks the store.
        Some(unsafe { Val::from_raw(u128::from(raw), ValType::Ref(table.ty.element), inner) })
    }

    /// Replaces the element at `index`.
    ///
    /// # Errors
    /// When the value has another type or `index` is outside of the table.
    pub fn set(self, store: &mut impl AsStore, index: u64, value: Val) -> Result<(), TableError> {
        let inner = get_mut(store);
        let table = inner.table(self);
        let (size, raw) = (table.size(), element(value, table.ty, inner)?.to_raw(inner) as u64);
        let table = inner.table_mut(self);
        table.fill(index, raw, 1).ok_or(TableError::OutOfBounds { index, size })
    }

    /// Grows it by `delta` elements of value `init` and returns the previous size.
    ///
    /// # Errors
    /// When the value has another type, or the table's type or the store's limits forbid it.
    pub fn grow(self, store: &mut impl AsStore, delta: u64, init: Val) -> Result<u64, TableError> {
        let inner = get_mut(store);
        let table = inner.table(self);
        let elements = table.size().saturating_add(delta);
        let limit = table.ty.max.unwrap_or(u64::MAX).min(table.limit);
        let raw = element(init, table.ty, inner)?.to_raw(inner) as u64;
        inner.table_mut(self).grow(delta, raw).ok_or(TableError::Limit { elements, limit })
    }
}

fn element(value: Val, ty: TableType, store: &StoreInner) -> Result<Val, TableError> {
    value.matches(ValType::Ref(ty.element), store).then_some(value).ok_or(TableError::ElementType)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::types::{HeapType, RefType};

    fn table(heap: HeapType, min: u64, max: Option<u64>, limit: u64) -> TableInner {
        let element = RefType { nullable: true, heap };
        let ty = TableType { element, table64: false, min, max };
        let mut table = TableInner::new(ty, limit).unwrap();
        table.attach_own();
        table
    }

    #[test]
    fn growth_stops_at_type_and_limit_and_updates_the_definition() {
        let mut table = table(HeapType::Extern, 1, Some(8), 5);
        assert_eq!(table.grow(2, 7), Some(1));
        assert_eq!((table.get(0), table.get(2), table.get(3)), (Some(0), Some(7), None));
        // SAFETY: the definition is the table's own.
        let def = unsafe { table.def().as_ref() };
        assert_eq!(def.length, 3);
        // SAFETY: three elements of four bytes lie there.
        assert_eq!(unsafe { def.base.cast::<u32>().add(2).read() }, 7);
        assert_eq!(table.grow(3, 0), None);
        assert_eq!(table.grow(u64::MAX, 0), None);
        assert_eq!(table.grow(0, 0), Some(3));
    }

    #[test]
    fn out_of_bounds_operations_change_nothing() {
        let mut table = table(HeapType::Extern, 4, None, 100);
        assert_eq!(table.fill(3, 1, 2), None);
        assert_eq!(table.fill(u64::MAX, 1, 2), None);
        assert_eq!(table.write(3, [1, 1].into_iter()), None);
        assert_eq!(table.copy_within(3, 0, 2), None);
        assert_eq!(table.copy_within(0, 3, 2), None);
        assert!((0..4).all(|n| table.get(n) == Some(0)));
        assert_eq!(table.fill(4, 1, 0), Some(()), "empty at the end is in bounds");
        assert_eq!(table.fill(5, 1, 0), None, "empty past the end is not");
    }

    #[test]
    fn copies_overlap_correctly() {
        let mut table = table(HeapType::Extern, 5, None, 100);
        table.write(0, [1, 2, 3, 4, 5].into_iter()).unwrap();
        table.copy_within(1, 0, 4).unwrap();
        assert_eq!((0..5).filter_map(|n| table.get(n)).collect::<Vec<_>>(), [1, 1, 2, 3, 4]);
        let mut other = self::table(HeapType::Extern, 2, None, 100);
        other.copy_from(0, &table, 3, 2).unwrap();
        assert_eq!((other.get(0), other.get(1)), (Some(3), Some(4)));
        assert_eq!(other.copy_from(1, &table, 3, 2), None);
    }

    #[test]
    fn limits_apply_to_the_start_size() {
        let element = RefType { nullable: true, heap: HeapType::Func };
        let ty = TableType { element, table64: false, min: 11, max: None };
        assert!(matches!(
            TableInner::new(ty, 10),
            Err(TableError::Limit { elements: 11, limit: 10 })
        ));
    }
}
