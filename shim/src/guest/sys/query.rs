//! The signal by which a process of a container asks another one what it does: see
//! [`observe`](crate::guest::observe).

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use libc::c_void;

use super::leave;
use crate::guest::program::{Interrupted, MAX_REPORT, describe};

/// The highest number, for which nobody has a use.
pub(in crate::guest) fn signal() -> c_int {
    libc::SIGRTMAX()
}

/// What the asking process reads in the memory of the asked one: its place in the executable is the same.
#[repr(C)]
struct Answer {
    /// The question that is answered; 0 while there is no answer.
    question: AtomicU64,
    length: AtomicU64,
    bytes: UnsafeCell<[u8; MAX_REPORT]>,
    /// Whether a thread writes.
    busy: AtomicBool,
}

/// Bytes before those of the description.
pub(in crate::guest) const HEAD: usize = 16;

// SAFETY: only the thread that has changed `busy` from false to true touches `bytes`.
unsafe impl Sync for Answer {}

static ANSWER: Answer = Answer {
    question: AtomicU64::new(0),
    length: AtomicU64::new(0),
    bytes: UnsafeCell::new([0; MAX_REPORT]),
    busy: AtomicBool::new(false),
};

/// Where the answer lies in this process.
pub(in crate::guest) fn address() -> u64 {
    (&raw const ANSWER).addr() as u64
}

/// Has questions answered from now on. The signal without a question ends the process, as ever.
pub(in crate::guest) fn answer_queries() -> io::Result<()> {
    // SAFETY: zero is a valid initial value of this C struct; the handler has the type that SA_SIGINFO
    // announces. What it interrupts goes on, system calls too as far as the kernel can.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_query as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigfillset(&raw mut action.sa_mask);
        libc::sigaction(signal(), &raw const action, ptr::null_mut())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Writes the answer. Makes no system call, and needs little stack: before a program is loaded, the stack
/// of signals is small.
extern "C" fn on_query(number: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid pointer; whatever the code, there is a value behind it.
    let (code, question) = unsafe { ((*info).si_code, (*info).si_value().sival_ptr.addr() as u64) };
    if code != libc::SI_QUEUE || question == 0 {
        leave(128 + number);
    }
    if ANSWER.busy.swap(true, Ordering::Acquire) {
        // Another thread answers another question; who asked asks again.
        return;
    }
    ANSWER.question.store(0, Ordering::Release);
    // SAFETY: `busy` was false, so nobody else has a reference; the third argument of a handler, which
    // is used before it returns.
    let length = unsafe { describe(&Interrupted::new(context), &mut *ANSWER.bytes.get()) };
    ANSWER.length.store(length as u64, Ordering::Relaxed);
    ANSWER.question.store(question, Ordering::Release);
    ANSWER.busy.store(false, Ordering::Release);
}

/// `siginfo_t` of a queued signal; see sigaction(2) and the kernel's `asm-generic/siginfo.h`.
#[repr(C)]
struct Queued {
    signo: c_int,
    errno: c_int,
    code: c_int,
    pad: c_int,
    pid: libc::pid_t,
    uid: libc::uid_t,
    value: u64,
    rest: [u64; 12],
}

const _: () = assert!(size_of::<Queued>() == size_of::<libc::siginfo_t>());

/// Asks a thread.
pub(in crate::guest) fn query(pid: i32, thread: i32, question: u64) -> io::Result<()> {
    let info = Queued {
        signo: signal(),
        errno: 0,
        code: libc::SI_QUEUE,
        pad: 0,
        // Nobody asks who asks.
        pid: 0,
        uid: 0,
        value: question,
        rest: [0; 12],
    };
    // SAFETY: numbers, and a live struct of the kernel's size and layout.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid, thread, signal(), ptr::from_ref(&info))
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends any signal, also 0, to whatever `pid` stands for in kill(2).
pub(in crate::guest) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: numbers alone.
    if unsafe { libc::kill(pid, signal) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
