//! Globals: the handle that embedders use. Values lie in contexts, or beside the store for globals
//! that the host made.

use std::ptr::NonNull;

use super::store::{AsStore, StoreId, get, get_mut};
use super::types::GlobalType;
use super::val::Val;
use super::vmcontext::GlobalCell;

/// Why a global cannot be made or set.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum GlobalError {
    #[error("value does not have the global's type")]
    Type,
    #[error("global is immutable")]
    Immutable,
}

/// A global of a store: core specification, "Global Instances". A copyable handle; using it with
/// another store panics.
///
/// ```
/// use coracle_engine::runtime::{Engine, Global, GlobalType, Store, Val, ValType};
/// let mut store = Store::new(&Engine::new())?;
/// let ty = GlobalType { content: ValType::I64, mutable: true };
/// let global = Global::new(&mut store, ty, Val::I64(1))?;
/// global.set(&mut store, Val::I64(2))?;
/// assert_eq!(global.get(&store), Val::I64(2));
/// assert!(global.set(&mut store, Val::I32(2)).is_err(), "another type");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Global {
    pub(super) store: StoreId,
    pub(super) cell: NonNull<GlobalCell>,
    pub(super) ty: GlobalType,
}

impl Global {
    /// Makes a global that belongs to no module.
    ///
    /// # Errors
    /// When the value does not have the type.
    pub fn new(
        store: &mut impl AsStore,
        ty: GlobalType,
        value: Val,
    ) -> Result<Global, GlobalError> {
        let inner = get_mut(store);
        if !value.matches(ty.content, inner) {
            return Err(GlobalError::Type);
        }
        let cell = GlobalCell(value.to_raw(inner).to_le_bytes());
        Ok(Global { store: inner.id, cell: inner.add_global(cell), ty })
    }

    /// Its type.
    #[must_use]
    pub fn ty(self) -> GlobalType {
        self.ty
    }

    /// Its value.
    #[must_use]
    pub fn get(self, store: &impl AsStore) -> Val {
        let inner = get(store);
        inner.assert_owns(self.store);
        // SAFETY: the cell lives as long as the store, which is the right one (asserted). Its
        // content was written by this store's code or by `set`.
        unsafe {
            let raw = u128::from_le_bytes(self.cell.as_ref().0);
            Val::from_raw(raw, self.ty.content, inner)
        }
    }

    /// Changes its value.
    ///
    /// # Errors
    /// When the global is immutable or the value has another type.
    pub fn set(self, store: &mut impl AsStore, value: Val) -> Result<(), GlobalError> {
        if !self.ty.mutable {
            return Err(GlobalError::Immutable);
        }
        let inner = get_mut(store);
        inner.assert_owns(self.store);
        if !value.matches(self.ty.content, inner) {
            return Err(GlobalError::Type);
        }
        let cell = GlobalCell(value.to_raw(inner).to_le_bytes());
        // SAFETY: the cell lives as long as the store, which is the right one (asserted) and
        // exclusively borrowed.
        unsafe { self.cell.write(cell) };
        Ok(())
    }
}
