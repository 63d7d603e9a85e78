//! Where a signal interrupted a thread: what its handler may look at.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr;

/// The moment at which a signal interrupted the thread that handles it now.
///
/// It cannot leave the handler: it borrows what the kernel passed to it.
#[derive(Debug)]
pub struct Interrupted<'a> {
    /// The instruction that comes next.
    pub(in crate::runtime) pc: usize,
    /// The stack pointer.
    pub(in crate::runtime) sp: usize,
    /// The frame pointer, if the code there keeps one.
    pub(in crate::runtime) fp: usize,
    /// Whether another handler was interrupted, on the stack of signals.
    pub(in crate::runtime) in_handler: bool,
    context: PhantomData<*const &'a c_void>,
}

impl Interrupted<'_> {
    /// Reads the registers from a signal handler's third argument.
    ///
    /// # Safety
    /// `context` must be what the kernel passed to a handler that was installed with `SA_SIGINFO`, runs
    /// on the calling thread and has not returned when the result is used for the last time.
    #[must_use]
    pub unsafe fn new(context: *const c_void) -> Self {
        // SAFETY: the caller's promise: such a handler's third argument points to a ucontext_t.
        let context = unsafe { &*context.cast::<libc::ucontext_t>() };
        let register = |name: libc::c_int| context.uc_mcontext.gregs[name as usize] as usize;
        let sp = register(libc::REG_RSP);
        let stack = &context.uc_stack;
        let low = stack.ss_sp.addr();
        let in_handler = stack.ss_flags & libc::SS_DISABLE == 0
            && (low..low.saturating_add(stack.ss_size)).contains(&sp);
        Interrupted {
            pc: register(libc::REG_RIP),
            sp,
            fp: register(libc::REG_RBP),
            in_handler,
            context: PhantomData,
        }
    }

    /// Where the return address lies if the interrupted instruction, which must be compiled code, stands
    /// where its function has no frame: on `push rbp` and `mov rbp, rsp`, with which functions begin, or
    /// on the return.
    pub(in crate::runtime) fn return_without_frame(&self) -> Option<usize> {
        let byte = |n: usize| {
            let at = ptr::with_exposed_provenance::<u8>(self.pc + n);
            // SAFETY: compiled code lies in pages that can be read; the second and third byte are
            // only asked for behind a first one of an instruction of three bytes.
            unsafe { at.read() }
        };
        match byte(0) {
            0x55 | 0xc2 | 0xc3 => Some(self.sp),
            0x48 if byte(1) == 0x89 && byte(2) == 0xe5 => self.sp.checked_add(8),
            _ => None,
        }
    }
}
