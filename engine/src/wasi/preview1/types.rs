//! Flags, enumerations and structures of preview 1, and their translation to the host core's.

use rustix::fs::Advice;

use super::errno::Errno;
use crate::wasi::core::clock::Clock;
use crate::wasi::core::mode::Mode;
use crate::wasi::core::stat::{Kind, NewTime, NewTimes, Stat};
use crate::wasi::guest_mem::GuestMemory;

/// `filetype`. Pipes have no number of their own and read as unknown.
pub(super) fn filetype(kind: Kind) -> u8 {
    match kind {
        Kind::Unknown | Kind::Pipe => 0,
        Kind::BlockDevice => 1,
        Kind::CharacterDevice => 2,
        Kind::Directory => 3,
        Kind::RegularFile => 4,
        Kind::DatagramSocket => 5,
        Kind::StreamSocket => 6,
        Kind::SymbolicLink => 7,
    }
}

/// `clockid`.
pub(super) fn clock(id: u32) -> Result<Clock, Errno> {
    match id {
        0 => Ok(Clock::Realtime),
        1 => Ok(Clock::Monotonic),
        2 => Ok(Clock::ProcessCpu),
        3 => Ok(Clock::ThreadCpu),
        _ => Err(Errno::Inval),
    }
}

/// `advice`.
pub(super) fn advice(number: u32) -> Result<Advice, Errno> {
    match number {
        0 => Ok(Advice::Normal),
        1 => Ok(Advice::Sequential),
        2 => Ok(Advice::Random),
        3 => Ok(Advice::WillNeed),
        4 => Ok(Advice::DontNeed),
        5 => Ok(Advice::NoReuse),
        _ => Err(Errno::Inval),
    }
}

pub(super) const FDFLAGS_APPEND: u32 = 1;
pub(super) const FDFLAGS_DSYNC: u32 = 2;
pub(super) const FDFLAGS_NONBLOCK: u32 = 4;
pub(super) const FDFLAGS_RSYNC: u32 = 8;
pub(super) const FDFLAGS_SYNC: u32 = 16;

/// `fdflags` to the host core's terms.
pub(super) fn mode(flags: u32) -> Result<Mode, Errno> {
    if flags & !0x1f != 0 {
        return Err(Errno::Inval);
    }
    Ok(Mode {
        append: flags & FDFLAGS_APPEND != 0,
        nonblock: flags & FDFLAGS_NONBLOCK != 0,
        data_sync: flags & FDFLAGS_DSYNC != 0,
        read_sync: flags & FDFLAGS_RSYNC != 0,
        sync: flags & FDFLAGS_SYNC != 0,
    })
}

/// `fdflags` from the host core's terms.
pub(super) fn fdflags(mode: Mode) -> u16 {
    let bits = [
        (mode.append, FDFLAGS_APPEND),
        (mode.data_sync, FDFLAGS_DSYNC),
        (mode.nonblock, FDFLAGS_NONBLOCK),
        (mode.read_sync, FDFLAGS_RSYNC),
        (mode.sync, FDFLAGS_SYNC),
    ];
    bits.iter().filter(|(set, _)| *set).fold(0, |flags, (_, bit)| flags | *bit as u16)
}

/// `lookupflags`: whether a symbolic link as the last component is followed.
pub(super) fn follow(flags: u32) -> Result<bool, Errno> {
    match flags {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Errno::Inval),
    }
}

/// `oflags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenFlags {
    pub create: bool,
    pub directory: bool,
    pub exclusive: bool,
    pub truncate: bool,
}

impl OpenFlags {
    pub(super) fn new(flags: u32) -> Result<OpenFlags, Errno> {
        // Nothing creates a directory by opening it. Linux refuses this since 6.4; before, it made a
        // file and failed.
        if flags & !0xf != 0 || flags & 3 == 3 {
            return Err(Errno::Inval);
        }
        Ok(OpenFlags {
            create: flags & 1 != 0,
            directory: flags & 2 != 0,
            exclusive: flags & 4 != 0,
            truncate: flags & 8 != 0,
        })
    }
}

/// `fstflags` with their times.
pub(super) fn new_times(accessed: u64, modified: u64, flags: u32) -> Result<NewTimes, Errno> {
    if flags & !0xf != 0 {
        return Err(Errno::Inval);
    }
    let choose = |bits: u32, time| match bits & 3 {
        0 => Ok(NewTime::Keep),
        1 => Ok(NewTime::At(time)),
        2 => Ok(NewTime::Now),
        _ => Err(Errno::Inval),
    };
    Ok(NewTimes { accessed: choose(flags, accessed)?, modified: choose(flags >> 2, modified)? })
}

/// Writes a `filestat`.
pub(super) fn write_filestat(
    memory: &mut GuestMemory<'_>,
    address: u32,
    stat: &Stat,
) -> Result<(), Errno> {
    let fields = [
        stat.device,
        stat.inode,
        u64::from(filetype(stat.kind)),
        stat.links,
        stat.size,
        stat.accessed,
        stat.modified,
        stat.changed,
    ];
    let mut bytes = [0; 64];
    for (place, field) in bytes.chunks_exact_mut(8).zip(fields) {
        place.copy_from_slice(&field.to_le_bytes());
    }
    Ok(memory.write_struct(address, 8, &bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fdflags_survive_both_ways() {
        for flags in 0..32 {
            assert_eq!(u32::from(fdflags(mode(flags).unwrap())), flags);
        }
        assert_eq!(mode(32), Err(Errno::Inval));
    }

    #[test]
    fn contradictory_times_are_refused() {
        assert_eq!(new_times(1, 2, 3), Err(Errno::Inval));
        assert_eq!(new_times(1, 2, 12), Err(Errno::Inval));
        assert_eq!(new_times(1, 2, 16), Err(Errno::Inval));
        let times = NewTimes { accessed: NewTime::At(1), modified: NewTime::Now };
        assert_eq!(new_times(1, 2, 1 | 8), Ok(times));
    }
}
