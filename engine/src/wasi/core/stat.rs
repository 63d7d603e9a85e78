//! What there is to know about an object, and changes of its times.

use rustix::fs::{FileType, Stat as HostStat, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::net::SocketType;
use rustix::time::Timespec;

use super::clock::{nanoseconds, timespec};

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Kind {
    Unknown,
    BlockDevice,
    CharacterDevice,
    Directory,
    RegularFile,
    Pipe,
    StreamSocket,
    DatagramSocket,
    SymbolicLink,
}

impl Kind {
    pub(super) fn of(stat: &HostStat) -> Kind {
        Kind::from_file_type(FileType::from_raw_mode(stat.st_mode))
    }

    pub(super) fn from_file_type(file_type: FileType) -> Kind {
        match file_type {
            FileType::RegularFile => Kind::RegularFile,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::SymbolicLink,
            FileType::Fifo => Kind::Pipe,
            FileType::Socket => Kind::StreamSocket,
            FileType::CharacterDevice => Kind::CharacterDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Unknown => Kind::Unknown,
        }
    }

    pub(super) fn of_socket(socket_type: SocketType) -> Kind {
        match socket_type {
            SocketType::DGRAM => Kind::DatagramSocket,
            SocketType::STREAM | SocketType::SEQPACKET => Kind::StreamSocket,
            _ => Kind::Unknown,
        }
    }
}

/// Attributes of an object. Times are nanoseconds since 1970; earlier ones count as 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Stat {
    pub device: u64,
    pub inode: u64,
    pub kind: Kind,
    pub links: u64,
    pub size: u64,
    pub accessed: u64,
    pub modified: u64,
    pub changed: u64,
}

impl Stat {
    #[allow(clippy::unnecessary_cast, reason = "the kernel's field types differ by architecture")]
    pub(super) fn from_host(stat: &HostStat) -> Stat {
        let time = |tv_sec: i64, tv_nsec: i64| nanoseconds(Timespec { tv_sec, tv_nsec });
        Stat {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            kind: Kind::of(stat),
            links: stat.st_nlink as u64,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            accessed: time(stat.st_atime as i64, stat.st_atime_nsec as i64),
            modified: time(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed: time(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }
}

/// What becomes of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewTime {
    /// It stays.
    Keep,
    /// The time now.
    Now,
    /// This many nanoseconds since 1970.
    At(u64),
}

impl NewTime {
    fn timespec(self) -> Timespec {
        match self {
            NewTime::Keep => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            NewTime::Now => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
            NewTime::At(ns) => timespec(ns),
        }
    }
}

/// New times of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct NewTimes {
    pub accessed: NewTime,
    pub modified: NewTime,
}

impl NewTimes {
    pub(super) fn to_host(self) -> Timestamps {
        Timestamps {
            last_access: self.accessed.timespec(),
            last_modification: self.modified.timespec(),
        }
    }
}
