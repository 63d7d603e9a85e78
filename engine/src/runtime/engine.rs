//! `Engine`: what all modules and stores of a process share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::module::types::FuncType;

/// What modules and stores share: the canonical numbers of function types. Cheap to clone.
///
/// Equal signatures get equal numbers within an engine, which is what makes the check of an
/// indirect call one comparison, also across modules.
///
/// ```
/// use coracle_engine::runtime::{Engine, Store};
/// let engine = Engine::new();
/// let store = Store::new(&engine)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Engine {
    types: Arc<Mutex<TypeRegistry>>,
}

#[derive(Debug, Default)]
struct TypeRegistry {
    numbers: HashMap<Arc<FuncType>, u32>,
    types: Vec<Arc<FuncType>>,
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

    /// The number of a signature, given out on first use.
    pub(super) fn type_id(&self, ty: &FuncType) -> u32 {
        self.registry().number(ty)
    }

    /// The numbers of a module's signatures, in order.
    pub(super) fn type_ids<'a>(&self, types: impl Iterator<Item = &'a FuncType>) -> Box<[u32]> {
        let mut registry = self.registry();
        types.map(|ty| registry.number(ty)).collect()
    }

    /// The signature behind a number that this engine gave out.
    pub(super) fn func_type(&self, id: u32) -> Arc<FuncType> {
        Arc::clone(&self.registry().types[id as usize])
    }

    fn registry(&self) -> MutexGuard<'_, TypeRegistry> {
        // The registry only grows and is consistent between any two statements.
        self.types.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TypeRegistry {
    fn number(&mut self, ty: &FuncType) -> u32 {
        if let Some(&number) = self.numbers.get(ty) {
            return number;
        }
        let number = self.types.len() as u32;
        let ty = Arc::new(ty.clone());
        self.types.push(Arc::clone(&ty));
        self.numbers.insert(ty, number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::types::ValType;

    #[test]
    fn equal_types_share_a_number_and_others_do_not() {
        let engine = Engine::new();
        let unary = FuncType { params: vec![ValType::I32], results: vec![] };
        let first = engine.type_id(&unary);
        assert_ne!(first, engine.type_id(&FuncType::default()));
        assert_eq!(first, engine.clone().type_id(&unary.clone()));
        assert_eq!(*engine.func_type(first), unary);
    }
}
