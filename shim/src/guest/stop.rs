//! What signals do while the program runs: SIGTERM stops a program that listens; one that handles signals
//! itself gets them; any other ends.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use coracle_engine::wasi::{Stop, signals};

use super::sys;

/// Exit code of a program that was told to stop: 128 + SIGTERM.
const STOPPED: i32 = 143;
/// Signals that a program may handle.
const HANDLED: [i32; 6] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGTERM];
/// After this time a program that has not handled its signal yet is interrupted once more.
const NUDGE: Duration = Duration::from_millis(20);

/// Stops the program of this process.
pub(super) static STOP: Stop = Stop::new(finish);
/// How long it may take to stop, in milliseconds.
static DRAIN_MS: AtomicU64 = AtomicU64::new(0);
/// Whether the handlers are set.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// Whether the program was given a SIGTERM to handle.
static TOLD: AtomicBool = AtomicBool::new(false);
/// Whether the next SIGALRM is to interrupt the program, no more.
static NUDGING: AtomicBool = AtomicBool::new(false);

/// A program that was asked to stop has nothing left to do.
fn finish() {
    sys::leave(STOPPED);
}

/// Takes care of signals from now on. A program that listens has `drain` to finish what it does.
pub(super) fn set_up(drain: Duration) -> io::Result<()> {
    DRAIN_MS.store(drain.as_millis() as u64, Ordering::Relaxed);
    if TAKEN.load(Ordering::Relaxed) { Ok(()) } else { take_signals() }
}

/// Sets the handlers, which end the process as long as there is no program.
pub(super) fn take_signals() -> io::Result<()> {
    for signal in HANDLED {
        sys::on_signal(signal, on_signal)?;
    }
    sys::on_signal(libc::SIGALRM, on_alarm)?;
    TAKEN.store(true, Ordering::Relaxed);
    Ok(())
}

/// Whether a signal has its handler here.
pub(super) fn takes(signal: i32) -> bool {
    signal == libc::SIGALRM || HANDLED.contains(&signal)
}

/// The exit code of a program that ended with `code`: however it ended, it was told to.
pub(super) fn exit_code(code: u8) -> u8 {
    if STOP.is_asked() { STOPPED as u8 } else { code }
}

/// A signal of [`HANDLED`]. SIGTERM counts once, however it is answered; the second ends all.
extern "C" fn on_signal(signal: i32) {
    let terminate = signal == libc::SIGTERM;
    if terminate && (STOP.is_asked() || TOLD.load(Ordering::Relaxed)) {
        sys::leave(STOPPED);
    }
    if signals::note(signal) {
        TOLD.fetch_or(terminate, Ordering::Relaxed);
        // The one timer may count already how long the program has left.
        if !STOP.is_asked() {
            nudge();
        }
    } else if terminate && STOP.is_armed() {
        STOP.ask();
        sys::alarm(Duration::from_millis(DRAIN_MS.load(Ordering::Relaxed)));
    } else {
        sys::leave(128 + signal);
    }
}

/// SIGALRM: time to interrupt the program once more, or the time to finish is over. Nothing else
/// sends it; from outside it does what it does to any program.
extern "C" fn on_alarm(signal: i32) {
    if NUDGING.swap(false, Ordering::Relaxed) {
        // A signal that came between the timer's end and this call set it again: what it would send
        // next must not be taken for somebody else's. Before the look at what waits, or a signal that
        // comes just now would be left without its timer.
        if !STOP.is_asked() {
            sys::alarm_off();
        }
        if signals::is_pending() {
            nudge();
        }
        return;
    }
    sys::leave(if STOP.is_asked() { STOPPED } else { 128 + signal });
}

fn nudge() {
    NUDGING.store(true, Ordering::Relaxed);
    sys::alarm(NUDGE);
}
