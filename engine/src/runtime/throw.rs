//! Throwing: from an exception to the landing pad that catches it.
//!
//! Nothing but frames of compiled code lies between the two. A frame of the host ends the search:
//! there the exception leaves the innermost call into compiled code as an error, and whoever made
//! that call may raise it again.

use std::ptr;

use super::exception::{Exception, RawException};
use super::instance::InstanceInner;
use super::store::StoreInner;
use super::trap::{self, Pending};
use super::vmcontext::{Header, StoreRecord, TagRecord};
use crate::module::index::TagIndex;

/// Where a thread goes on; `sys` reads it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Resume {
    pub(super) sp: usize,
    pub(super) fp: usize,
    pub(super) pc: usize,
    /// For a landing pad of the guest the exception, else 0.
    pub(super) payload: usize,
}

/// The frame of compiled code that throws.
struct Thrower {
    /// Where its call returns to.
    pc: usize,
    fp: usize,
    /// Its context, or null for an exit trampoline, which has none.
    ctx: *const Header,
}

/// Compiled code throws an exception.
///
/// # Safety
/// Only for `sys`, which passes on what compiled code gave with its frame pointer and the address
/// to which the call returns.
pub(super) unsafe extern "C" fn on_throw(
    ctx: *mut Header,
    exception: u32,
    fp: usize,
    pc: usize,
) -> *const Resume {
    // SAFETY: compiled code passes its own context; while it waits nobody else uses the store.
    let store = unsafe { &mut *(*ctx).store.cast::<StoreInner>() };
    let Some(raw) = RawException::new(exception) else {
        unreachable!("compiled code throws no null reference")
    };
    // SAFETY: the caller's promise.
    if let Some(resume) = unsafe { find(store, raw, Thrower { pc, fp, ctx }) } {
        return store.resume_at(resume);
    }
    // SAFETY: the caller's promise.
    unsafe { trap::capture(store, None, pc, fp) };
    store.pending = Some(Pending::Thrown(raw));
    store.resume_at_entry()
}

/// The host raises the exception that is pending, from an exit trampoline.
///
/// # Safety
/// Only for `sys`, as [`on_throw`].
pub(super) unsafe extern "C" fn on_raise(
    store: *mut StoreRecord,
    _: usize,
    fp: usize,
    pc: usize,
) -> *const Resume {
    // SAFETY: the exit trampoline passes the store's record; while it waits nobody else uses the
    // store.
    let store = unsafe { &mut *store.cast::<StoreInner>() };
    let exception = match store.pending.take() {
        Some(Pending::Raised(exception)) => exception,
        other => unreachable!("the host raised no exception but {other:?}"),
    };
    let thrower = Thrower { pc, fp, ctx: ptr::null() };
    // SAFETY: the caller's promise.
    if let Some(resume) = unsafe { find(store, exception.raw(), thrower) } {
        return store.resume_at(resume);
    }
    // SAFETY: the caller's promise.
    unsafe { trap::capture(store, None, pc, fp) };
    store.pending = Some(Pending::Raised(exception));
    store.resume_at_entry()
}

impl StoreInner {
    fn resume_at(&mut self, resume: Resume) -> *const Resume {
        self.resume = resume;
        &raw const self.resume
    }

    /// Ends the innermost call into compiled code: its trampoline returns that it failed.
    fn resume_at_entry(&mut self) -> *const Resume {
        let activation = &self.record.activation;
        let (sp, fp) = (activation.entry_sp, activation.entry_fp);
        let pc = activation.entry_handler;
        self.resume_at(Resume { sp, fp, pc, payload: 0 })
    }
}

/// The landing pad of the innermost clause that catches the exception, up to the innermost entry
/// trampoline.
///
/// # Safety
/// `thrower` must be a frame of compiled code that runs below the store's innermost entry
/// trampoline: compiled code keeps frame pointers, so `[fp]` is its caller's frame pointer and
/// `[fp + 8]` its return address.
unsafe fn find(store: &StoreInner, raw: RawException, thrower: Thrower) -> Option<Resume> {
    let tag = raw.tag(store);
    let entry_fp = store.record.activation.entry_fp;
    let Thrower { mut pc, mut fp, mut ctx } = thrower;
    // The stack grows down: a frame pointer that does not rise is none.
    while fp < entry_fp && fp.is_multiple_of(align_of::<usize>()) && fp != 0 {
        // SAFETY: the caller's promise; a call that returns to `pc` waits in this frame.
        if let Some((pc, sp)) = unsafe { catching(store, tag, pc, fp, ctx) } {
            return Some(Resume { sp, fp, pc, payload: raw.bits() as usize });
        }
        let frame = ptr::with_exposed_provenance::<usize>(fp);
        // SAFETY: the caller's promise; two words lie at every frame pointer.
        let (next, return_address) = unsafe { (frame.read(), frame.add(1).read()) };
        if next <= fp {
            return None;
        }
        (pc, fp, ctx) = (return_address, next, ptr::null());
    }
    None
}

/// The landing pad and its stack pointer for an exception with this tag in one frame.
///
/// # Safety
/// A call of compiled code that returns to `pc` must wait in the frame of `fp`; `ctx` must be that
/// frame's context or null.
unsafe fn catching(
    store: &StoreInner,
    tag: *const TagRecord,
    pc: usize,
    fp: usize,
    ctx: *const Header,
) -> Option<(usize, usize)> {
    // The return address may already belong to the next module's text.
    let site = store.codes.find(pc.checked_sub(1)?)?.catch_site(pc)?;
    let sp = fp.checked_sub(site.frame as usize)?;
    let caught = site.clauses().find(|clause| {
        let Some(index) = clause.tag else { return true };
        let ctx = match clause.context {
            // SAFETY: the compiler keeps the frame's context in this place of the frame while
            // the call waits.
            Some(offset) => unsafe {
                ptr::with_exposed_provenance::<*const Header>(sp + offset as usize).read()
            },
            None => ctx,
        };
        // SAFETY: the frame's context, null only if the frame is an exit trampoline's, which has
        // no clauses.
        unsafe { ctx.as_ref() }.is_some_and(|header| {
            // SAFETY: a context's instance lives as long as the store.
            let instance = unsafe { &*header.instance.cast::<InstanceInner>() };
            let index = TagIndex::from_u32(index);
            // Anything else is a damaged image.
            let known = instance.module.info().tags.is_valid(index);
            known && ptr::eq(instance.tag(index), tag)
        })
    });
    Some((caught?.landing_pad, sp))
}

/// The exception behind what a host function failed with, if it is one of this store.
pub(super) fn raised(
    store: &StoreInner,
    error: super::HostError,
) -> Result<Exception, super::HostError> {
    let own = |exception: &Exception| exception.belongs_to(store);
    let error = match error.downcast::<Exception>() {
        Ok(exception) if own(&exception) => return Ok(*exception),
        Ok(exception) => return Err(exception),
        Err(error) => error,
    };
    match error.downcast::<super::CallError>() {
        Ok(error) => match *error {
            super::CallError::Exception(exception) if own(&exception) => Ok(exception),
            other => Err(other.into()),
        },
        Err(error) => Err(error),
    }
}
