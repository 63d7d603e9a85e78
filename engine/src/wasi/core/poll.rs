//! Readiness: waiting for descriptors and points in time together.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use smallvec::SmallVec;

use super::clock::{Clock, timespec};
use super::error::{Error, Result};

/// What a descriptor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// There are bytes to read, a connection to accept, or the end.
    Read,
    /// There is room to write.
    Write,
}

impl Interest {
    fn flags(self) -> PollFlags {
        match self {
            Interest::Read => PollFlags::IN,
            Interest::Write => PollFlags::OUT,
        }
    }
}

/// What became of a descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// The operation would not block.
    pub ready: bool,
    /// The other side is gone.
    pub hangup: bool,
}

/// A set of descriptors and the earliest points in time to wait for.
#[derive(Debug, Default)]
pub struct Waiter<'a> {
    fds: SmallVec<[PollFd<'a>; 8]>,
    /// Whose each of them is.
    owners: SmallVec<[usize; 8]>,
    results: SmallVec<[PollFlags; 8]>,
    monotonic: Option<u64>,
    realtime: Option<u64>,
}

impl<'a> Waiter<'a> {
    /// Adds descriptors that stand for one thing, which is ready when any of them is; the result is
    /// its index for [`Waiter::readiness`]. Without any it is never ready.
    pub fn add(
        &mut self,
        fds: impl IntoIterator<Item = BorrowedFd<'a>>,
        interest: Interest,
    ) -> usize {
        let index = self.results.len();
        self.results.push(PollFlags::empty());
        for fd in fds {
            self.fds.push(PollFd::from_borrowed_fd(fd, interest.flags()));
            self.owners.push(index);
        }
        index
    }

    /// Waits no longer than until `clock` shows `at` nanoseconds.
    ///
    /// # Errors
    /// [`Error::NotSupported`] for clocks of CPU time, which nothing can wait for.
    pub fn until(&mut self, clock: Clock, at: u64) -> Result<()> {
        let earliest = match clock {
            Clock::Monotonic => &mut self.monotonic,
            Clock::Realtime => &mut self.realtime,
            Clock::ProcessCpu | Clock::ThreadCpu => return Err(Error::NotSupported),
        };
        *earliest = Some(earliest.map_or(at, |other| other.min(at)));
        Ok(())
    }

    /// Waits until a descriptor is ready or a point in time is reached.
    ///
    /// # Errors
    /// What `ppoll(2)` and `timerfd_create(2)` say.
    pub fn wait(&mut self) -> Result<()> {
        self.results.fill(PollFlags::empty());
        match self.realtime {
            None => {
                poll_until(&mut self.fds, self.monotonic)?;
                note(&mut self.results, &self.owners, &self.fds);
            }
            // A timer on the wall clock also notices when that clock is set.
            Some(at) => {
                let timer = wall_timer(at)?;
                let own = self.fds.as_slice().iter().cloned();
                let mut fds: SmallVec<[PollFd<'_>; 8]> = own.collect();
                fds.push(PollFd::new(&timer, PollFlags::IN));
                poll_until(&mut fds, self.monotonic)?;
                note(&mut self.results, &self.owners, &fds);
            }
        }
        Ok(())
    }

    /// What became of the descriptor added as number `index`.
    #[must_use]
    pub fn readiness(&self, index: usize) -> Readiness {
        let flags = self.results.get(index).copied().unwrap_or(PollFlags::empty());
        Readiness {
            ready: !flags.is_empty(),
            hangup: flags.intersects(PollFlags::HUP | PollFlags::ERR),
        }
    }
}

/// Adds what became of the descriptors to their owners' results.
fn note(results: &mut [PollFlags], owners: &[usize], fds: &[PollFd<'_>]) {
    for (fd, &owner) in fds.iter().zip(owners) {
        results[owner] |= fd.revents();
    }
}

/// Whether an operation on `fd` would not block.
pub(super) fn is_ready(fd: BorrowedFd<'_>, interest: PollFlags) -> Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(fd, interest)];
    poll_until(&mut fds, Some(0))?;
    Ok(!fds[0].revents().is_empty())
}

/// Waits until an operation on `fd` would not block.
pub(super) fn until_ready(fd: BorrowedFd<'_>, interest: PollFlags) -> Result<()> {
    poll_until(&mut [PollFd::from_borrowed_fd(fd, interest)], None)
}

/// Waits until an operation on any of these would not block, or the monotonic clock shows
/// `deadline`: `false` then. Without any descriptor and deadline it waits for good.
pub(super) fn until_any_ready<'f>(
    fds: impl Iterator<Item = BorrowedFd<'f>>,
    interest: PollFlags,
    deadline: Option<u64>,
) -> Result<bool> {
    let mut fds: SmallVec<[PollFd<'_>; 2]> =
        fds.map(|fd| PollFd::from_borrowed_fd(fd, interest)).collect();
    poll_until(&mut fds, deadline)?;
    Ok(fds.iter().any(|fd| !fd.revents().is_empty()))
}

/// Polls until something is ready or the monotonic clock shows `deadline`.
fn poll_until(fds: &mut [PollFd<'_>], deadline: Option<u64>) -> Result<()> {
    loop {
        let left = deadline.map(|at| at.saturating_sub(Clock::Monotonic.now()));
        match rustix::event::poll(fds, left.map(timespec).as_ref()) {
            Ok(0) if left != Some(0) => {}
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn wall_timer(at: u64) -> Result<OwnedFd> {
    let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC)?;
    // Zero would disarm the timer; the first nanosecond of 1970 is long past as well.
    let new = Itimerspec { it_interval: timespec(0), it_value: timespec(at.max(1)) };
    timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME, &new)?;
    Ok(timer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::pipe;
    use std::os::fd::AsFd;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_point_in_time_ends_the_wait_on_either_clock() {
        for clock in [Clock::Monotonic, Clock::Realtime] {
            let start = Clock::Monotonic.now();
            let mut waiter = Waiter::default();
            waiter.until(clock, clock.now() + 3600 * 1000 * MS).unwrap();
            waiter.until(clock, clock.now() + 20 * MS).unwrap();
            waiter.wait().unwrap();
            let waited = Clock::Monotonic.now() - start;
            assert!((20 * MS..10_000 * MS).contains(&waited), "{clock:?}: {waited} ns");
        }
        let mut waiter = Waiter::default();
        assert_eq!(waiter.until(Clock::ProcessCpu, 1), Err(Error::NotSupported));
    }

    #[test]
    fn times_in_the_past_do_not_wait() {
        for clock in [Clock::Monotonic, Clock::Realtime] {
            let mut waiter = Waiter::default();
            waiter.until(clock, 0).unwrap();
            waiter.wait().unwrap();
        }
    }

    #[test]
    fn pipes_report_data_room_and_hangup() {
        let (reader, writer) = pipe().unwrap();
        let mut waiter = Waiter::default();
        let idle = waiter.add([reader.as_fd()], Interest::Read);
        let room = waiter.add([writer.as_fd()], Interest::Write);
        waiter.until(Clock::Realtime, u64::MAX).unwrap();
        waiter.wait().unwrap();
        assert!(!waiter.readiness(idle).ready);
        assert_eq!(waiter.readiness(room), Readiness { ready: true, hangup: false });

        rustix::io::write(&writer, b"x").unwrap();
        assert!(is_ready(reader.as_fd(), PollFlags::IN).unwrap());
        drop(waiter);
        drop(writer);
        let mut waiter = Waiter::default();
        let end = waiter.add([reader.as_fd()], Interest::Read);
        waiter.wait().unwrap();
        assert_eq!(waiter.readiness(end), Readiness { ready: true, hangup: true });
    }
}
