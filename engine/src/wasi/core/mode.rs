//! How a descriptor behaves, which the guest may change at any time.

use std::sync::atomic::{AtomicU8, Ordering};

use rustix::io::ReadWriteFlags;

/// How a descriptor behaves; the guest may change it. All of it is applied call by call, so that
/// descriptions shared with other processes (a terminal, a log pipe) are never altered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// Every write goes to the end of the file.
    pub append: bool,
    /// Operations fail with `EAGAIN` instead of waiting.
    pub nonblock: bool,
    /// Writes return when the data is on disk.
    pub data_sync: bool,
    /// Reads are as synchronised as writes. Recorded only: Linux has no weaker form to apply.
    pub read_sync: bool,
    /// Writes return when data and attributes are on disk.
    pub sync: bool,
}

impl Mode {
    /// As flags of a write.
    pub(super) fn write_flags(self) -> ReadWriteFlags {
        let mut flags = ReadWriteFlags::empty();
        flags.set(ReadWriteFlags::APPEND, self.append);
        flags.set(ReadWriteFlags::DSYNC, self.data_sync);
        flags.set(ReadWriteFlags::SYNC, self.sync);
        flags
    }
}

/// A [`Mode`] that several threads of a guest may change.
#[derive(Debug)]
pub struct ModeCell(AtomicU8);

impl ModeCell {
    /// The mode.
    #[must_use]
    pub fn get(&self) -> Mode {
        let bits = self.0.load(Ordering::Relaxed);
        let is = |bit: u8| bits & (1 << bit) != 0;
        Mode { append: is(0), nonblock: is(1), data_sync: is(2), read_sync: is(3), sync: is(4) }
    }

    /// Changes it.
    pub fn set(&self, mode: Mode) {
        self.0.store(bits(mode), Ordering::Relaxed);
    }
}

impl From<Mode> for ModeCell {
    fn from(mode: Mode) -> ModeCell {
        ModeCell(bits(mode).into())
    }
}

fn bits(mode: Mode) -> u8 {
    let Mode { append, nonblock, data_sync, read_sync, sync } = mode;
    let set = [append, nonblock, data_sync, read_sync, sync];
    (0..).zip(set).map(|(bit, set)| u8::from(set) << bit).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_keeps_every_choice() {
        let cell = ModeCell::from(Mode::default());
        assert_eq!(cell.get(), Mode::default());
        for bit in 0..5 {
            let cell = ModeCell(AtomicU8::new(1 << bit));
            let mode = cell.get();
            assert_ne!(mode, Mode::default());
            cell.set(mode);
            assert_eq!(cell.0.into_inner(), 1 << bit);
        }
    }
}
