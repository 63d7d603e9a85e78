//! Host functions whose type is known when the program runs.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::rc::Rc;

use smallvec::SmallVec;

use super::{Caller, HostError, HostFunc, finish};
use crate::runtime::store::get;
use crate::runtime::types::{FuncType, ValType};
use crate::runtime::val::Val;
use crate::runtime::vmcontext::{HostRecord, Slot};

/// A host function made by [`Func::new`](crate::runtime::Func::new) returned a value that does not
/// have the type of its result. It ends the guest's call like any other error.
#[derive(Debug, thiserror::Error)]
#[error("host function set result {index} to a value that is no {ty}")]
pub struct HostResultError {
    /// Which result, counted from 0.
    pub index: usize,
    /// What it must be.
    pub ty: ValType,
}

/// A closure with its type.
struct Dynamic<F> {
    ty: FuncType,
    func: F,
}

/// Erases a closure's type.
pub(in crate::runtime) fn dynamic_func<F>(ty: FuncType, func: F) -> Rc<HostFunc>
where
    F: Fn(Caller<'_>, &[Val], &mut [Val]) -> Result<(), HostError> + 'static,
{
    Rc::new(HostFunc {
        params: Cow::Owned(ty.params.clone()),
        results: Cow::Owned(ty.results.clone()),
        call: call::<F>,
        closure: Rc::new(Dynamic { ty, func }),
    })
}

unsafe extern "C" fn call<F>(record: *mut HostRecord, values: *mut Slot) -> u32
where
    F: Fn(Caller<'_>, &[Val], &mut [Val]) -> Result<(), HostError> + 'static,
{
    // SAFETY: the exit trampoline passes a record made for this very function, hence with a closure
    // of this type, and as many slots as the larger of parameters and results, which it uses only
    // after this returns. It never passes null.
    let (dynamic, slots, record) = unsafe {
        let dynamic = &*(*record).closure.cast::<Dynamic<F>>();
        let slots = dynamic.ty.params.len().max(dynamic.ty.results.len());
        let slots = match slots {
            // Nobody promises an address then.
            0 => &mut [],
            slots => std::slice::from_raw_parts_mut(values, slots),
        };
        (dynamic, slots, NonNull::new_unchecked(record))
    };
    finish(record, || dynamic.run(record, slots))
}

impl<F> Dynamic<F>
where
    F: Fn(Caller<'_>, &[Val], &mut [Val]) -> Result<(), HostError> + 'static,
{
    fn run(&self, record: NonNull<HostRecord>, slots: &mut [Slot]) -> Result<(), HostError> {
        let caller = || Caller { record, store: PhantomData };
        let params = self.ty.params.iter().zip(&*slots);
        let args: SmallVec<[Val; 8]> = params
            .map(|(&ty, slot)| {
                // SAFETY: compiled code of this store passes values of the parameters' types.
                unsafe { Val::from_raw(u128::from_le_bytes(*slot), ty, get(&caller())) }
            })
            .collect();
        let mut results: SmallVec<[Val; 4]> =
            self.ty.results.iter().map(|&ty| Val::default_of(ty)).collect();
        (self.func)(caller(), &args, &mut results)?;
        let caller = caller();
        let store = get(&caller);
        for (index, (value, &ty)) in results.iter().zip(&self.ty.results).enumerate() {
            if !value.matches(ty, store) {
                return Err(Box::new(HostResultError { index, ty }));
            }
            slots[index] = value.to_raw(store).to_le_bytes();
        }
        Ok(())
    }
}
