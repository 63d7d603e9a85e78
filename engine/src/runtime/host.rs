//! Host functions: closures with typed arguments behind the one signature that trampolines call.
//!
//! A call allocates nothing and takes no lock: the exit trampoline passes the host record, which
//! holds the closure's address, and the arguments in slots on its stack.

mod dynamic;
mod references;

use std::any::Any;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::rc::Rc;

use super::shared::SharedMemory;
use super::store::sealed::{Sealed, StorePointer};
use super::store::{AsStore, StoreInner, get, get_mut};
use super::throw;
use super::trap::Pending;
use super::types::ValType;
use super::vmcontext::{CallersMemory, HostCall, HostRecord, Slot, StoreRecord};
use crate::abi::layout::host_status;

/// What a host function fails with; it ends the guest's call as
/// [`CallError::Host`](super::CallError::Host) and can be downcast there.
///
/// Two kinds of errors are more: a [`CallError`](super::CallError), from a nested call, ends the
/// outer one as itself, and an [`Exception`](super::Exception), alone or inside of a `CallError`,
/// is raised in the guest, which may catch it.
pub type HostError = Box<dyn Error + Send + Sync>;

/// A host function panicked. The panic ends the guest's call like any other error.
#[derive(Debug, thiserror::Error)]
#[error("host function panicked: {message}")]
pub struct HostPanic {
    message: String,
}

pub use dynamic::HostResultError;
pub(super) use dynamic::dynamic_func;

/// The guest's side of a call of a host function.
///
/// It also stands for the store, so that a host function can call into guests:
/// `func.call(&mut caller, …)`.
///
/// ```
/// use coracle_engine::{compile::compile, config::Settings};
/// use coracle_engine::runtime::{Caller, Engine, HostError, Linker, Module, Store, Val};
/// let wat = r#"(module (import "host" "sum" (func $sum (param i32 i32) (result i32)))
///     (memory 1) (data (i32.const 8) "\01\02\27")
///     (func (export "run") (result i32) (call $sum (i32.const 8) (i32.const 3))))"#;
/// let engine = Engine::new();
/// let module = Module::from_bytes(&engine, &compile(&wat::parse_str(wat)?, &Settings::default())?)?;
/// let mut linker = Linker::new(&engine);
/// linker.func_wrap("host", "sum", |mut caller: Caller<'_>, at: u32, len: u32| {
///     let memory = caller.memory().ok_or("no memory")?;
///     let bytes = memory.get(at as usize..).and_then(|rest| rest.get(..len as usize));
///     Ok::<u32, HostError>(bytes.ok_or("outside of the memory")?.iter().map(|&b| u32::from(b)).sum())
/// });
/// let mut store = Store::new(&engine)?;
/// let instance = linker.instantiate(&mut store, &module)?;
/// let run = instance.func(&store, "run").ok_or("no run")?;
/// assert_eq!(run.invoke(&mut store, &[])?, [Val::I32(42)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Caller<'a> {
    record: NonNull<HostRecord>,
    // Whoever waits for the guest on the stack holds this borrow.
    store: PhantomData<&'a mut super::Store>,
}

impl Caller<'_> {
    /// The bytes of the memory of the instance that imported the function: what it exports as
    /// `memory`, else its memory 0. `None` if it has no memory, or one that is shared between
    /// threads: see [`Caller::memory_view`].
    pub fn memory(&mut self) -> Option<&mut [u8]> {
        match self.memory_view() {
            MemoryView::Own(bytes) => Some(bytes),
            MemoryView::None | MemoryView::Shared(_) => None,
        }
    }

    /// The memory of the instance that imported the function, of either kind: what it exports as
    /// `memory`, else its memory 0.
    pub fn memory_view(&mut self) -> MemoryView<'_> {
        // SAFETY: the record and what it points to live as long as the store. The bytes are
        // committed, and the guest waits as long as `self` is borrowed: only calls through `self`
        // let it run.
        unsafe {
            match self.record.as_ref().memory {
                CallersMemory::None => MemoryView::None,
                CallersMemory::Own(def) => {
                    let def = def.as_ref();
                    MemoryView::Own(std::slice::from_raw_parts_mut(def.base, def.length))
                }
                CallersMemory::Shared(shared) => MemoryView::Shared(shared.as_ref()),
            }
        }
    }
}

/// A guest's memory as a host function may use it.
#[derive(Debug)]
pub enum MemoryView<'a> {
    /// There is none.
    None,
    /// The bytes of a memory that nobody else uses during the call.
    Own(&'a mut [u8]),
    /// A memory that other threads may read and write at any moment.
    Shared(&'a SharedMemory),
}

impl AsStore for Caller<'_> {}
impl Sealed for Caller<'_> {
    fn pointer(&self) -> StorePointer {
        // SAFETY: the record lives as long as the store; its store pointer is the address of the
        // whole store, whose first field the record is.
        unsafe {
            StorePointer(NonNull::new_unchecked(self.record.as_ref().store.cast::<StoreInner>()))
        }
    }
}

/// A closure ready to be imported: see [`IntoHostFunc`].
pub struct HostFunc {
    pub(super) params: Cow<'static, [ValType]>,
    pub(super) results: Cow<'static, [ValType]>,
    call: HostCall,
    closure: Rc<dyn Any>,
}

impl fmt::Debug for HostFunc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostFunc({:?} -> {:?})", self.params, self.results)
    }
}

impl HostFunc {
    /// What compiled code gets as the function's context. It must not outlive `self`.
    pub(super) fn record(&self, store: *mut StoreRecord, memory: CallersMemory) -> HostRecord {
        HostRecord { call: self.call, store, closure: Rc::as_ptr(&self.closure).cast(), memory }
    }
}

/// A type of arguments and results: numbers, and references that may be null (`Option` of
/// [`Func`](super::Func), [`ExternRef`](super::ExternRef), [`AnyRef`](super::AnyRef) and
/// [`ExnRef`](super::ExnRef)).
pub trait WasmValue: Sized + private::Value {}

/// What a host function may return: nothing, one [`WasmValue`], a tuple of up to four, or a
/// `Result` of these with an error that becomes a [`HostError`].
pub trait HostResult: private::Results {}

/// Closures `Fn(Caller<'_>, args…) -> R` of up to twelve [`WasmValue`] arguments.
pub trait IntoHostFunc<Args, R>: private::Closure<Args, R> {}

mod private {
    use super::{Caller, HostError, HostFunc, Slot, ValType};

    pub trait Value {
        const TYPE: ValType;
        fn load(slot: &Slot, caller: &Caller<'_>) -> Self;
        fn store(self, slot: &mut Slot, caller: &Caller<'_>);
    }

    pub trait Results {
        const TYPES: &'static [ValType];
        fn store(self, slots: &mut [Slot], caller: &Caller<'_>) -> Result<(), HostError>;
    }

    pub trait Closure<Args, R> {
        fn into_host_func(self) -> HostFunc;
    }
}

/// Erases a closure's type.
pub(super) fn host_func<Args, R>(func: impl IntoHostFunc<Args, R>) -> Rc<HostFunc> {
    Rc::new(func.into_host_func())
}

macro_rules! values {
    ($($ty:ty: $bits:ty => $variant:ident, $from:expr, $to:expr;)*) => {$(
        impl WasmValue for $ty {}
        impl private::Value for $ty {
            const TYPE: ValType = ValType::$variant;
            fn load(slot: &Slot, _: &Caller<'_>) -> $ty {
                let mut bytes = [0; size_of::<$bits>()];
                bytes.copy_from_slice(&slot[..size_of::<$bits>()]);
                $from(<$bits>::from_le_bytes(bytes))
            }
            fn store(self, slot: &mut Slot, _: &Caller<'_>) {
                *slot = u128::from($to(self)).to_le_bytes();
            }
        }
        single_result!($ty);
    )*};
}

/// Makes a value one that can be returned alone.
macro_rules! single_result {
    ($ty:ty) => {
        impl HostResult for $ty {}
        impl private::Results for $ty {
            const TYPES: &'static [ValType] = &[<$ty as private::Value>::TYPE];
            fn store(self, slots: &mut [Slot], caller: &Caller<'_>) -> Result<(), HostError> {
                private::Value::store(self, &mut slots[0], caller);
                Ok(())
            }
        }
    };
}
use single_result;

values! {
    i32: u32 => I32, |bits| bits as i32, |value| value as u32;
    u32: u32 => I32, |bits| bits, |value| value;
    i64: u64 => I64, |bits| bits as i64, |value| value as u64;
    u64: u64 => I64, |bits| bits, |value| value;
    f32: u32 => F32, f32::from_bits, f32::to_bits;
    f64: u64 => F64, f64::from_bits, f64::to_bits;
    u128: u128 => V128, |bits| bits, |value| value;
}

impl<T: HostResult, E: Into<HostError>> HostResult for Result<T, E> {}
impl<T: HostResult, E: Into<HostError>> private::Results for Result<T, E> {
    const TYPES: &'static [ValType] = T::TYPES;
    fn store(self, slots: &mut [Slot], caller: &Caller<'_>) -> Result<(), HostError> {
        self.map_err(Into::into)?.store(slots, caller)
    }
}

macro_rules! result_tuples {
    ($(($($name:ident $n:tt)*);)*) => {$(
        impl<$($name: WasmValue),*> HostResult for ($($name,)*) {}
        impl<$($name: WasmValue),*> private::Results for ($($name,)*) {
            const TYPES: &'static [ValType] = &[$($name::TYPE),*];
            fn store(
                self,
                _slots: &mut [Slot],
                _caller: &Caller<'_>,
            ) -> Result<(), HostError> {
                $(self.$n.store(&mut _slots[$n], _caller);)*
                Ok(())
            }
        }
    )*};
}

result_tuples! {
    ();
    (A 0);
    (A 0 B 1);
    (A 0 B 1 C 2);
    (A 0 B 1 C 2 D 3);
}

macro_rules! closures {
    ($(($($arg:ident $n:tt)*);)*) => {$(
        impl<F, R, $($arg),*> IntoHostFunc<($($arg,)*), R> for F
        where
            F: Fn(Caller<'_>, $($arg),*) -> R + 'static,
            R: HostResult,
            $($arg: WasmValue,)*
        {}

        impl<F, R, $($arg),*> private::Closure<($($arg,)*), R> for F
        where
            F: Fn(Caller<'_>, $($arg),*) -> R + 'static,
            R: HostResult,
            $($arg: WasmValue,)*
        {
            fn into_host_func(self) -> HostFunc {
                unsafe extern "C" fn call<F, R, $($arg),*>(
                    record: *mut HostRecord,
                    values: *mut Slot,
                ) -> u32
                where
                    F: Fn(Caller<'_>, $($arg),*) -> R + 'static,
                    R: HostResult,
                    $($arg: WasmValue,)*
                {
                    const ARGS: usize = 0 $(+ { let _ = $n; 1 })*;
                    // SAFETY: the exit trampoline passes a record made by `record` for this very
                    // function, hence with a closure of type `F`, and as many slots as the larger
                    // of parameters and results, which it uses only after this returns.
                    let (closure, slots) = unsafe {
                        (
                            &*(*record).closure.cast::<F>(),
                            std::slice::from_raw_parts_mut(values, ARGS.max(R::TYPES.len())),
                        )
                    };
                    // SAFETY: trampolines never pass null.
                    let record = unsafe { NonNull::new_unchecked(record) };
                    finish(record, || {
                        let caller = || Caller { record, store: PhantomData };
                        closure(caller(), $(<$arg as private::Value>::load(&slots[$n], &caller())),*)
                            .store(slots, &caller())
                    })
                }
                HostFunc {
                    params: Cow::Borrowed(const { &[$(<$arg as private::Value>::TYPE),*] }),
                    results: Cow::Borrowed(R::TYPES),
                    call: call::<F, R, $($arg),*>,
                    closure: Rc::new(self),
                }
            }
        }
    )*};
}

closures! {
    ();
    (A 0);
    (A 0 B 1);
    (A 0 B 1 C 2);
    (A 0 B 1 C 2 D 3);
    (A 0 B 1 C 2 D 3 E 4);
    (A 0 B 1 C 2 D 3 E 4 G 5);
    (A 0 B 1 C 2 D 3 E 4 G 5 H 6);
    (A 0 B 1 C 2 D 3 E 4 G 5 H 6 I 7);
    (A 0 B 1 C 2 D 3 E 4 G 5 H 6 I 7 J 8);
    (A 0 B 1 C 2 D 3 E 4 G 5 H 6 I 7 J 8 K 9);
    (A 0 B 1 C 2 D 3 E 4 G 5 H 6 I 7 J 8 K 9 L 10);
    (A 0 B 1 C 2 D 3 E 4 G 5 H 6 I 7 J 8 K 9 L 10 M 11);
}

/// Runs a host function; leaves its error with the store and returns the status, one of
/// [`host_status`]. No panic leaves it: frames of compiled code cannot be unwound.
fn finish(record: NonNull<HostRecord>, run: impl FnOnce() -> Result<(), HostError>) -> u32 {
    let mut caller = Caller { record, store: PhantomData };
    let roots = get(&caller).gc.roots.borrow().len();
    let outcome = catch_unwind(AssertUnwindSafe(run));
    // What the function got is the guest's again, or garbage.
    let store = get_mut(&mut caller);
    store.gc.roots.get_mut().truncate(roots);
    // So that nobody takes a runtime call, which leaves no frame pointer, for this one.
    store.record.activation.last_exit_fp = 0;
    let error = match outcome {
        Ok(Ok(())) => return host_status::RETURNED,
        Ok(Err(error)) => error,
        Err(payload) => {
            let text = payload.downcast_ref::<&str>().copied();
            let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
            let message = text.unwrap_or("no message").to_owned();
            // A payload whose drop panics would unwind from here.
            std::mem::forget(payload);
            Box::new(HostPanic { message })
        }
    };
    let store = get_mut(&mut caller);
    let (pending, status) = match throw::raised(store, error) {
        Ok(exception) => (Pending::Raised(exception), host_status::RAISED),
        Err(error) => (Pending::Host(error), host_status::FAILED),
    };
    store.pending = Some(pending);
    status
}

/// Calls a host function from the host, without a trampoline.
///
/// # Safety
/// `record` must be a live record of a host function, `values` as many slots as the larger of its
/// parameters and results, and no reference to the store may be alive.
pub(super) unsafe fn call_directly(record: *mut HostRecord, values: *mut Slot) -> u32 {
    debug_assert!(!ptr::eq(record, ptr::null()));
    // SAFETY: the caller's promise is the one that the function asks for. The record's store is alive as
    // long as it; where the guest below waits is the same after the call as before it.
    unsafe {
        let activation = &raw mut (*(*record).store).activation;
        let exit = (*activation).last_exit_fp;
        let status = ((*record).call)(record, values);
        (*activation).last_exit_fp = exit;
        status
    }
}
