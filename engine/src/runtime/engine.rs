//! `Engine`: what all modules and stores of a process share.

use std::sync::Arc;

use super::registry::{TypeId, TypeRegistry};
use super::types::{FuncType, SubType};
use crate::module::ModuleInfo;

/// What modules and stores share: the numbers of their types. Cheap to clone, and usable from any
/// thread. Modules, linkers and stores work together only if they are of one engine.
///
/// Equal types get equal numbers within an engine, which is what makes the check of an indirect
/// call one comparison, also across modules.
///
/// ```
/// use coracle_engine::runtime::{Engine, Store};
/// let engine = Engine::new();
/// let store = Store::new(&engine)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Engine {
    types: Arc<TypeRegistry>,
}

impl Engine {
    /// An engine without any module.
    #[must_use]
    pub fn new() -> Engine {
        Engine::default()
    }

    /// Whether both are the same engine.
    pub(super) fn is(&self, other: &Engine) -> bool {
        Arc::ptr_eq(&self.types, &other.types)
    }

    /// The definition of a type that one of this engine's modules or functions has.
    ///
    /// # Panics
    /// May panic when `id` comes from another engine.
    #[must_use]
    pub fn defined_type(&self, id: TypeId) -> &SubType {
        self.types.get(id)
    }

    /// A function type that any module may define: `(type (func …))`, hence final, without supertype
    /// and a recursion group of its own.
    ///
    /// ```
    /// use coracle_engine::runtime::{Engine, Func, FuncType, HeapType, RefType, Store, Val, ValType};
    /// let engine = Engine::new();
    /// let mut store = Store::new(&engine)?;
    /// let unary = FuncType::new([ValType::I32], []);
    /// let heap = HeapType::ConcreteFunc(engine.define_func(unary.clone()));
    /// let func = Func::new(&mut store, unary, |_, _, _| Ok(()));
    /// let ty = Val::FuncRef(Some(func)).ty(&store);
    /// assert_eq!(ty, ValType::Ref(RefType { nullable: false, heap }));
    /// assert!(engine.is_subtype(ty, ValType::FUNCREF));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn define_func(&self, ty: FuncType) -> TypeId {
        self.types.register_func(ty)
    }

    pub(super) fn types(&self) -> &TypeRegistry {
        &self.types
    }

    /// The numbers of a module's types, in order. Its description must have been checked.
    pub(super) fn type_ids(&self, info: &ModuleInfo) -> Box<[TypeId]> {
        self.types.register(info)
    }

    /// The function type behind the number of a function's type.
    pub(crate) fn func_type(&self, id: TypeId) -> &FuncType {
        match self.types.get(id).as_func() {
            Some(ty) => ty,
            None => unreachable!("{id} is no function type"),
        }
    }
}
