//! A timer that interrupts what waits, by the way that a signal for the guest takes.

use coracle_engine::wasi::signals;

/// Comes from timers only.
const SIGNAL: libc::c_int = 40;
/// After this time, and again and again, a wait is interrupted.
const NANOSECONDS: libc::c_long = 2_000_000;

thread_local! {
    static TIMER: libc::timer_t = create();
}

/// Makes a call that is not to wait for longer than [`NANOSECONDS`].
pub(super) fn bounded<T>(call: impl FnOnce() -> T) -> T {
    TIMER.with(|timer| {
        set(*timer, NANOSECONDS);
        let result = call();
        set(*timer, 0);
        result
    })
}

/// A timer whose signal goes to this thread.
fn create() -> libc::timer_t {
    let mut timer = std::ptr::null_mut();
    // SAFETY: both structures are plain numbers, for which zeros are valid; their pointers are valid for
    // the calls. The handler does what a handler may: atomic operations.
    let results = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = SIGNAL;
        event.sigev_notify_thread_id = libc::gettid();
        [
            libc::sigaction(SIGNAL, &action, std::ptr::null_mut()),
            libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer),
        ]
    };
    assert_eq!(results, [0, 0], "cannot make a timer");
    timer
}

extern "C" fn on_signal(signal: libc::c_int) {
    // Without a handler the guest has no wait either.
    let _ = signals::note(signal);
}

fn set(timer: libc::timer_t, nanoseconds: libc::c_long) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: nanoseconds };
    let times = libc::itimerspec { it_interval: time, it_value: time };
    // SAFETY: the timer is this thread's, which never deletes it; `times` is valid for the call.
    let result = unsafe { libc::timer_settime(timer, 0, &times, std::ptr::null_mut()) };
    assert_eq!(result, 0, "cannot set a timer");
}
