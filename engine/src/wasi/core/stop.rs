//! Stopping a guest that serves others: it accepts nothing new, and what it has accepted may end.
//!
//! A guest that never listened needs none of this: a signal ends it at once. One that listens gets
//! told, and time: accepting fails once with [`Error::Stopped`](super::error::Error::Stopped) and
//! waits from then on; when the last accepted connection is closed and the guest waits for new
//! ones, its work is done. How long that may take is the embedder's to measure.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use super::error::Result;

/// The switch that stops a guest. It is static, since a signal handler works it.
#[derive(Debug)]
pub struct Stop {
    /// Readable from the moment it is asked; there is none before the guest listens.
    wake: OnceLock<OwnedFd>,
    asked: AtomicBool,
    /// Accepted connections that are open.
    open: Mutex<usize>,
    closed: Condvar,
    /// Called when the guest has nothing left to do; should end the process.
    done: fn(),
}

impl Stop {
    /// A switch for a guest that does not listen yet. `done` is called, perhaps more than once, when
    /// a guest that was asked to stop has closed all its connections and waits for more.
    #[must_use]
    pub const fn new(done: fn()) -> Stop {
        Stop {
            wake: OnceLock::new(),
            asked: AtomicBool::new(false),
            open: Mutex::new(0),
            closed: Condvar::new(),
            done,
        }
    }

    /// Whether the guest listens, so that asking makes a difference.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.wake.get().is_some()
    }

    /// Asks the guest to stop. Safe in a signal handler: an atomic store and a system call.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        if let Some(wake) = self.wake.get() {
            // It cannot fail but by being full, which is readable as well.
            let _ = rustix::io::write(wake, &1_u64.to_ne_bytes());
        }
    }

    /// Whether it was asked.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// The guest listens from now on.
    pub(super) fn arm(&self) -> Result<()> {
        if self.wake.get().is_none() {
            let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            // Another thread's descriptor is as good.
            let _ = self.wake.set(fd);
        }
        Ok(())
    }

    /// Readable once it is asked.
    pub(super) fn wake(&self) -> Option<BorrowedFd<'_>> {
        self.wake.get().map(AsFd::as_fd)
    }

    /// A connection was accepted.
    pub(super) fn begin(&'static self) -> Flight {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Flight(self)
    }

    /// The guest waits for new connections only, which never come: done as soon as none is open.
    pub(super) fn wait_for_the_end(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        while *open > 0 {
            open = self.closed.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
        drop(open);
        (self.done)();
    }

    /// The guest waits for connections among other things: done if none is open.
    pub(super) fn note_waiting(&self) {
        let open = *self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open == 0 {
            (self.done)();
        }
    }
}

/// An accepted connection, for as long as it is open.
#[derive(Debug)]
pub(super) struct Flight(&'static Stop);

impl Drop for Flight {
    fn drop(&mut self) {
        *self.0.open.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.closed.notify_all();
    }
}
