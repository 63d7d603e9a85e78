//! Threads that wait at addresses of a shared memory.
//!
//! Not the kernel's futexes: those know 32-bit words only, and a program may wait for 64 bits.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How a wait ended; the number is what the operator gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Woken {
    /// By a notification.
    Notified = 0,
    /// At once: the value was another.
    NotEqual = 1,
    /// Its time was up.
    TimedOut = 2,
}

/// The threads that wait, by address, those that came first in front.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    queues: Mutex<HashMap<u64, VecDeque<Arc<Waiter>>>>,
}

/// One waiting thread. `woken` is read and written under the lock of [`Waiters::queues`] only.
#[derive(Debug, Default)]
struct Waiter {
    wake: Condvar,
    woken: std::sync::atomic::AtomicBool,
}

impl Waiter {
    fn is_woken(&self) -> bool {
        self.woken.load(std::sync::atomic::Ordering::Relaxed)
    }
}

type Queues<'a> = MutexGuard<'a, HashMap<u64, VecDeque<Arc<Waiter>>>>;

impl Waiters {
    fn lock(&self) -> Queues<'_> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits at an address if `holds` is true, until woken or for `timeout` at most; for ever
    /// without one.
    ///
    /// No notification is lost: it takes the lock under which `holds` looks at the memory.
    pub(super) fn wait(
        &self,
        address: u64,
        holds: impl FnOnce() -> bool,
        timeout: Option<Duration>,
    ) -> Woken {
        // What the clock cannot hold is for ever.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut queues = self.lock();
        if !holds() {
            return Woken::NotEqual;
        }
        let waiter = Arc::new(Waiter::default());
        queues.entry(address).or_default().push_back(Arc::clone(&waiter));
        while !waiter.is_woken() {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            queues = match left {
                Some(Duration::ZERO) => {
                    leave(&mut queues, address, &waiter);
                    return Woken::TimedOut;
                }
                Some(left) => {
                    let result = waiter.wake.wait_timeout(queues, left);
                    result.unwrap_or_else(PoisonError::into_inner).0
                }
                None => waiter.wake.wait(queues).unwrap_or_else(PoisonError::into_inner),
            };
        }
        Woken::Notified
    }

    /// Wakes up to `count` of those that wait at an address, and says how many.
    pub(super) fn notify(&self, address: u64, count: u32) -> u32 {
        let mut queues = self.lock();
        let Some(queue) = queues.get_mut(&address) else { return 0 };
        let woken = queue.len().min(count as usize);
        for waiter in queue.drain(..woken) {
            waiter.woken.store(true, std::sync::atomic::Ordering::Relaxed);
            waiter.wake.notify_one();
        }
        if queue.is_empty() {
            queues.remove(&address);
        }
        woken as u32
    }
}

/// Takes a waiter that was not woken out of its queue.
fn leave(queues: &mut Queues<'_>, address: u64, waiter: &Arc<Waiter>) {
    if let Some(queue) = queues.get_mut(&address) {
        queue.retain(|other| !Arc::ptr_eq(other, waiter));
        if queue.is_empty() {
            queues.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_at_once_in_time_or_by_a_notification() {
        let waiters = Waiters::default();
        assert_eq!(waiters.wait(0, || false, None), Woken::NotEqual);
        assert_eq!(waiters.wait(0, || true, Some(Duration::ZERO)), Woken::TimedOut);
        let begin = Instant::now();
        let short = Duration::from_millis(20);
        assert_eq!(waiters.wait(0, || true, Some(short)), Woken::TimedOut);
        assert!(begin.elapsed() >= short);
        assert!(waiters.lock().is_empty(), "who leaves leaves nothing behind");
        assert_eq!(waiters.notify(0, u32::MAX), 0);
    }

    #[test]
    fn as_many_wake_as_were_asked_for_and_only_at_their_address() {
        let waiters = Waiters::default();
        std::thread::scope(|scope| {
            let waiting: Vec<_> = (0..5)
                .map(|n| {
                    let address = if n == 4 { 16 } else { 8 };
                    let waiters = &waiters;
                    scope.spawn(move || waiters.wait(address, || true, None))
                })
                .collect();
            while waiters.lock().values().map(VecDeque::len).sum::<usize>() < 5 {
                std::thread::yield_now();
            }
            assert_eq!(waiters.notify(24, 10), 0);
            assert_eq!(waiters.notify(8, 0), 0);
            assert_eq!(waiters.notify(8, 3), 3);
            assert_eq!(waiters.notify(8, 3), 1);
            assert_eq!(waiters.notify(16, u32::MAX), 1);
            for thread in waiting {
                assert_eq!(thread.join().unwrap(), Woken::Notified);
            }
        });
        assert!(waiters.lock().is_empty());
    }

    #[test]
    fn a_time_that_no_clock_holds_is_for_ever() {
        let waiters = Waiters::default();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| waiters.wait(8, || true, Some(Duration::MAX)));
            while waiters.notify(8, 1) == 0 {
                std::thread::yield_now();
            }
            assert_eq!(waiting.join().unwrap(), Woken::Notified);
        });
    }
}
