//! Clocks: time in nanoseconds. Reading one makes no system call on common kernels (vDSO).

use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

/// A clock that the guest may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Time since 1970-01-01T00:00Z; jumps when the host's clock is set.
    Realtime,
    /// Never goes back; its start is unspecified (`CLOCK_MONOTONIC`).
    Monotonic,
    /// CPU time that this process has used.
    ProcessCpu,
    /// CPU time that the calling thread has used.
    ThreadCpu,
}

impl Clock {
    fn id(self) -> ClockId {
        match self {
            Clock::Realtime => ClockId::Realtime,
            Clock::Monotonic => ClockId::Monotonic,
            Clock::ProcessCpu => ClockId::ProcessCPUTime,
            Clock::ThreadCpu => ClockId::ThreadCPUTime,
        }
    }

    /// The time now, in nanoseconds.
    #[must_use]
    pub fn now(self) -> u64 {
        nanoseconds(clock_gettime(self.id()))
    }

    /// The clock's resolution, in nanoseconds; at least 1.
    #[must_use]
    pub fn resolution(self) -> u64 {
        nanoseconds(clock_getres(self.id())).max(1)
    }
}

/// Nanoseconds of a time span; times before the epoch count as 0, far ones saturate.
pub(super) fn nanoseconds(time: Timespec) -> u64 {
    // Before the epoch the nanoseconds count upwards from the second before.
    let Ok(seconds) = u64::try_from(time.tv_sec) else { return 0 };
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// The time span of this many nanoseconds.
pub(super) fn timespec(nanoseconds: u64) -> Timespec {
    Timespec {
        tv_sec: (nanoseconds / 1_000_000_000).cast_signed(),
        tv_nsec: (nanoseconds % 1_000_000_000).cast_signed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_go_forward_and_have_a_resolution() {
        for clock in [Clock::Realtime, Clock::Monotonic, Clock::ProcessCpu, Clock::ThreadCpu] {
            let first = clock.now();
            assert!(clock.now() >= first, "{clock:?}");
            assert!((1..1_000_000_000).contains(&clock.resolution()), "{clock:?}");
        }
        let year_2020 = 1_577_836_800_000_000_000;
        assert!(Clock::Realtime.now() > year_2020);
    }

    #[test]
    fn time_spans_convert_both_ways_and_saturate() {
        for ns in [0, 1, 999_999_999, 1_000_000_000, u64::MAX] {
            assert_eq!(nanoseconds(timespec(ns)), ns);
        }
        assert_eq!(nanoseconds(Timespec { tv_sec: -1, tv_nsec: 5 }), 0);
        assert_eq!(nanoseconds(Timespec { tv_sec: i64::MAX, tv_nsec: 5 }), u64::MAX);
    }
}
