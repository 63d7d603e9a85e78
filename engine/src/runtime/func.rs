//! Functions: the handle that embedders use to call them.

use std::ptr::{self, NonNull};

use smallvec::SmallVec;

use super::call;
use super::exception::Exception;
use super::host::{self, Caller, HostError, IntoHostFunc};
use super::registry::TypeId;
use super::store::{AsStore, StoreId, StoreInner, get, get_mut, pointer};
use super::trap::{self, Pending, Trap};
use super::types::{FuncType, ValType};
use super::val::Val;
use super::vmcontext::{FuncRef, Slot};

/// Why a call did not return.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum CallError {
    #[error(transparent)]
    Trap(#[from] Trap),
    #[error("{0}")]
    Host(HostError),
    /// An exception that nothing in the guest caught.
    #[error(transparent)]
    Exception(#[from] Exception),
    #[error("arguments do not have the function's parameter types: {params}")]
    Arguments { params: String },
}

/// A function of a store, of a module or of the host: core specification, "Function Instances". A
/// copyable handle; using it with another store panics.
///
/// ```
/// use coracle_engine::{compile::compile, config::Settings, runtime::{Engine, Linker, Module, Store, Val}};
/// let wat = r#"(module (func (export "add") (param i32 i32) (result i32)
///     (i32.add (local.get 0) (local.get 1))))"#;
/// let engine = Engine::new();
/// let module = Module::from_bytes(&engine, &compile(&wat::parse_str(wat)?, &Settings::default())?)?;
/// let mut store = Store::new(&engine)?;
/// let instance = Linker::new(&engine).instantiate(&mut store, &module)?;
/// let add = instance.func(&store, "add").ok_or("no add")?;
/// assert_eq!(add.ty(&store).to_string(), "(i32, i32) -> (i32)");
/// assert_eq!(add.invoke(&mut store, &[Val::I32(40), Val::I32(2)])?, [Val::I32(42)]);
/// assert!(add.invoke(&mut store, &[Val::I64(40)]).is_err(), "other parameters");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Func {
    pub(super) store: StoreId,
    pub(super) record: NonNull<FuncRef>,
}

impl Func {
    /// Makes a function of the host from a closure `Fn(Caller<'_>, args…) -> result`, whose types
    /// give the function's: see [`IntoHostFunc`] and [`HostResult`](super::HostResult).
    ///
    /// ```
    /// use coracle_engine::runtime::{Caller, Engine, Func, Store, Val};
    /// let mut store = Store::new(&Engine::new())?;
    /// let half = Func::wrap(&mut store, |_: Caller<'_>, n: u32| (n / 2, n % 2));
    /// assert_eq!(half.invoke(&mut store, &[Val::I32(7)])?, [Val::I32(3), Val::I32(1)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wrap<Args, R>(store: &mut impl AsStore, func: impl IntoHostFunc<Args, R>) -> Func {
        let inner = get_mut(store);
        let record = inner.add_host_func(host::host_func(func));
        Func { store: inner.id, record }
    }

    /// Makes a function of the host of any type.
    ///
    /// It gets its arguments, and its results as zeros and nulls to be set. What the types ask for
    /// is checked: results that do not fit end the guest's call with [`HostResultError`].
    ///
    /// ```
    /// use coracle_engine::runtime::{Engine, Func, FuncType, Store, Val, ValType};
    /// let mut store = Store::new(&Engine::new())?;
    /// let ty = FuncType::new([ValType::I64; 2], [ValType::I64]);
    /// let max = Func::new(&mut store, ty, |_, args, results| {
    ///     if let [Val::I64(a), Val::I64(b)] = *args {
    ///         results[0] = Val::I64(a.max(b));
    ///     }
    ///     Ok(())
    /// });
    /// assert_eq!(max.invoke(&mut store, &[Val::I64(3), Val::I64(5)])?, [Val::I64(5)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// [`HostResultError`]: super::HostResultError
    pub fn new(
        store: &mut impl AsStore,
        ty: FuncType,
        func: impl Fn(Caller<'_>, &[Val], &mut [Val]) -> Result<(), HostError> + 'static,
    ) -> Func {
        let inner = get_mut(store);
        let record = inner.add_host_func(host::dynamic_func(ty, func));
        Func { store: inner.id, record }
    }

    /// The function behind a reference as compiled code holds it.
    ///
    /// # Safety
    /// `raw` must be 0 or the address of a function reference record of `store`.
    pub(super) unsafe fn from_raw(raw: usize, store: &StoreInner) -> Option<Func> {
        let record = NonNull::new(ptr::with_exposed_provenance_mut(raw))?;
        Some(Func { store: store.id, record })
    }

    /// The function reference record, after a check that it belongs to `store`.
    pub(super) fn record(self, store: &StoreInner) -> NonNull<FuncRef> {
        store.assert_owns(self.store);
        self.record
    }

    /// What the record holds.
    fn parts(self, store: &StoreInner) -> (*const u8, *mut u8, TypeId) {
        // SAFETY: records live as long as their store, which is `store` (checked by `record`).
        let func = unsafe { self.record(store).as_ref() };
        (func.code, func.ctx, func.type_id)
    }

    /// The engine's number of its type.
    pub(super) fn type_id(self, store: &StoreInner) -> TypeId {
        self.parts(store).2
    }

    /// The type that it was defined with; [`Engine::defined_type`](super::Engine::defined_type)
    /// tells what it is made of, [`Func::ty`] its parameters and results.
    #[must_use]
    pub fn defined_type(self, store: &impl AsStore) -> TypeId {
        self.type_id(get(store))
    }

    /// Its parameters and results.
    #[must_use]
    pub fn ty(self, store: &impl AsStore) -> &FuncType {
        let inner = get(store);
        inner.engine.func_type(self.type_id(inner))
    }

    /// Calls it and gives its results: [`Func::call`] for those who do not keep a vector.
    ///
    /// # Errors
    /// As [`Func::call`].
    ///
    /// # Panics
    /// As [`Func::call`].
    pub fn invoke(self, store: &mut impl AsStore, args: &[Val]) -> Result<Vec<Val>, CallError> {
        let mut results = Vec::new();
        self.call(store, args, &mut results).map(|()| results)
    }

    /// Calls it. `results` is emptied first and holds the results afterwards. Core specification,
    /// "Invocation".
    ///
    /// # Errors
    /// When the arguments do not fit, the guest traps or throws an exception that it does not catch,
    /// or a host function that it called fails.
    ///
    /// # Panics
    /// When the function or an argument belongs to another store, or an argument was released.
    pub fn call(
        self,
        store: &mut impl AsStore,
        args: &[Val],
        results: &mut Vec<Val>,
    ) -> Result<(), CallError> {
        results.clear();
        let inner = get(store);
        let (code, ctx, type_id) = self.parts(inner);
        let engine = inner.engine.clone();
        let ty = engine.func_type(type_id);
        let fits = args.len() == ty.params.len()
            && args.iter().zip(&ty.params).all(|(arg, &ty)| arg.matches(ty, inner));
        if !fits {
            return Err(CallError::Arguments { params: words(&ty.params) });
        }
        let mut slots: SmallVec<[Slot; 8]> =
            args.iter().map(|arg| arg.to_raw(inner).to_le_bytes()).collect();
        slots.resize(ty.params.len().max(ty.results.len()), [0; 16]);
        let signature = inner.signature(type_id);
        let raw = pointer(store);
        // SAFETY: the record belongs to this store, its code has the signature whose trampoline is
        // used, the slots suffice, and no reference to the store is alive.
        unsafe {
            match signature {
                Some(signature) => {
                    call::enter(raw, signature.entry, ctx, code, slots.as_mut_ptr())?;
                }
                // No module knows the type, so it can only be a function of the host.
                None => {
                    if host::call_directly(ctx.cast(), slots.as_mut_ptr()) != 0 {
                        return Err(direct_error(&mut *raw.as_ptr()));
                    }
                }
            }
        }
        let inner = get(store);
        results.extend(ty.results.iter().zip(&slots).map(|(&ty, slot)| {
            // SAFETY: compiled code or a host function of this store wrote the results.
            unsafe { Val::from_raw(u128::from_le_bytes(*slot), ty, inner) }
        }));
        Ok(())
    }
}

fn words(types: &[ValType]) -> String {
    types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn direct_error(store: &mut StoreInner) -> CallError {
    match store.pending.take() {
        Some(Pending::Host(error)) => trap::host_error(error),
        Some(Pending::Trap(kind)) => CallError::Trap(Trap::without_frames(kind)),
        Some(Pending::Raised(exception)) => CallError::Exception(exception),
        Some(Pending::Thrown(_)) | None => unreachable!("a failed host function left no error"),
    }
}
