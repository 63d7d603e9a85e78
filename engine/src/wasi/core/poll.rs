//! Readiness: waiting for descriptors and points in time together.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use smallvec::SmallVec;

use super::clock::{Clock, timespec};
use super::error::{Error, Result};
use super::signals;

/// How many wishes are handed to the kernel as they are, without looking for descriptors that are
/// in there twice.
const ONE_BY_ONE: usize = 64;

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
    wishes: SmallVec<[Wish<'a>; 8]>,
    results: SmallVec<[PollFlags; 8]>,
    monotonic: Option<u64>,
    realtime: Option<u64>,
}

/// A descriptor, what it is waited for, and the index of the result that it counts for.
#[derive(Debug)]
struct Wish<'a> {
    fd: BorrowedFd<'a>,
    flags: PollFlags,
    owner: usize,
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
            self.wishes.push(Wish { fd, flags: interest.flags(), owner: index });
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
        let (mut fds, places) = self.list();
        let polled = match self.realtime {
            None => poll_until(&mut fds, self.monotonic).map(|()| answers(&fds))?,
            // A timer on the wall clock also notices when that clock is set.
            Some(at) => {
                let timer = wall_timer(at)?;
                let mut fds: SmallVec<[PollFd<'_>; 8]> = fds.iter().cloned().collect();
                fds.push(PollFd::new(&timer, PollFlags::IN));
                poll_until(&mut fds, self.monotonic).map(|()| answers(&fds))?
            }
        };
        let always = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        self.results.fill(PollFlags::empty());
        for (wish, place) in self.wishes.iter().zip(places) {
            self.results[wish.owner] |= polled[place] & (wish.flags | always);
        }
        Ok(())
    }

    /// What the kernel is asked for, and where in it each wish is. A long list names no descriptor
    /// twice: the kernel takes no list that is longer than the process's limit of descriptors, and
    /// the guest may name one in thousands of subscriptions.
    fn list(&self) -> (SmallVec<[PollFd<'a>; 8]>, SmallVec<[usize; 8]>) {
        let wishes = &self.wishes;
        if wishes.len() <= ONE_BY_ONE {
            let fds = wishes.iter().map(|wish| PollFd::from_borrowed_fd(wish.fd, wish.flags));
            return (fds.collect(), (0..wishes.len()).collect());
        }
        let number = |n: &usize| wishes[*n].fd.as_raw_fd();
        let mut order: Vec<usize> = (0..wishes.len()).collect();
        order.sort_unstable_by_key(number);
        let (mut fds, mut places) = (SmallVec::new(), SmallVec::from_elem(0, wishes.len()));
        for same in order.chunk_by(|a, b| number(a) == number(b)) {
            let flags = same.iter().fold(PollFlags::empty(), |all, &n| all | wishes[n].flags);
            same.iter().for_each(|&n| places[n] = fds.len());
            fds.push(PollFd::from_borrowed_fd(wishes[same[0]].fd, flags));
        }
        (fds, places)
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

/// What the kernel answered.
fn answers(fds: &[PollFd<'_>]) -> SmallVec<[PollFlags; 8]> {
    fds.iter().map(PollFd::revents).collect()
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
            Err(Errno::INTR) => signals::check()?,
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
    fn a_long_list_tells_each_wish_its_own() {
        let (reader, writer) = pipe().unwrap();
        let (near, _far) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut waiter = Waiter::default();
        let wishes: [(BorrowedFd<'_>, Interest, bool); 4] = [
            (reader.as_fd(), Interest::Read, false),
            (writer.as_fd(), Interest::Write, true),
            (near.as_fd(), Interest::Read, false),
            (near.as_fd(), Interest::Write, true),
        ];
        for n in 0..400 {
            let (fd, interest, _) = wishes[n % 4];
            assert_eq!(waiter.add([fd], interest), n);
        }
        assert_eq!(waiter.list().0.len(), 3);
        for realtime in [false, true] {
            if realtime {
                waiter.until(Clock::Realtime, u64::MAX).unwrap();
            }
            waiter.wait().unwrap();
            for n in 0..400 {
                assert_eq!(waiter.readiness(n).ready, wishes[n % 4].2, "wish {n}");
            }
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
