//! What a program does at the moment, as another process of its container asks it: for `backtrace` and
//! `mem` of the toolbox.
//!
//! The asked process answers in a signal's handler, by writing to a place in its own memory. It makes no
//! system call for it, so neither its cage nor its descriptors matter, and as long as nobody asks it pays
//! nothing. The asking process reads that place by `/proc/PID/mem`, which it must open before it gives up
//! its rights: nobody with the program's rights alone can look into it. Both run the same executable,
//! which is checked, so the place is known. The bytes are a possibly hostile program's: they are read
//! with care and printed plainly.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::path;
use super::procfs;
use super::program::{MAX_REPORT, Report};
use super::sys::query;

/// How long an answer may take, how often it is looked for, and how often it is asked for.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(1);
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// The key of the auxiliary vector under which the executable's entry stands; see getauxval(3).
const AT_ENTRY: u64 = 9;
/// Most bytes of a small file of `/proc`.
const MOST: u64 = 1 << 16;

/// A process that can be asked.
#[derive(Debug)]
pub(super) struct Observed {
    pid: i32,
    memory: File,
    /// Of the answer.
    address: u64,
}

impl Observed {
    /// Opens a process of the container by its pid there. Takes the rights to look into it, which the
    /// caller gives up afterwards.
    ///
    /// # Errors
    /// `ESRCH` if there is none, `EOPNOTSUPP` if it runs something else than this executable.
    pub(super) fn open(pid: i32) -> Result<Self, Errno> {
        let proc = procfs::open_proc().map_err(|error| errno(&error))?;
        let gone = |error: Errno| if error == Errno::NOENT { Errno::SRCH } else { error };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let folder = path::open_strict(proc.as_fd(), Path::new(&pid.to_string()), flags);
        let folder = folder.map_err(|error| gone(errno(&error)))?;
        let folder = folder.as_fd();
        if !is_same_program(folder)? || !handles_queries(folder)? {
            return Err(Errno::OPNOTSUPP);
        }
        let entry =
            |folder| auxiliary(folder, AT_ENTRY).and_then(|found| found.ok_or(Errno::OPNOTSUPP));
        let own =
            path::open_in(proc.as_fd(), Path::new("self"), flags).map_err(|error| errno(&error))?;
        let address =
            query::address().wrapping_sub(entry(own.as_fd())?).wrapping_add(entry(folder)?);
        Ok(Self { pid, memory: open(folder, "mem")?, address })
    }

    /// The pid that it was opened by.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Asks one of its threads.
    ///
    /// # Errors
    /// `ESRCH` if there is none, `EPERM` if it is another user's, `ETIMEDOUT` if it does not answer.
    pub(super) fn ask(&self, thread: i32) -> Result<Report, Errno> {
        let begun = Instant::now();
        let mut asked: Option<Instant> = None;
        let question = question()?;
        loop {
            if asked.is_none_or(|asked| asked.elapsed() >= ASK_AGAIN) {
                query::query(self.pid, thread, question).map_err(|error| errno(&error))?;
                asked = Some(Instant::now());
            }
            if let Some(report) = self.answer(question)? {
                return Ok(report);
            }
            if begun.elapsed() >= PATIENCE {
                return Err(Errno::TIMEDOUT);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The answer to a question, if it is there.
    fn answer(&self, question: u64) -> Result<Option<Report>, Errno> {
        let mut head = [0; query::HEAD];
        let (number, length) = match self.memory.read_exact_at(&mut head, self.address) {
            Ok(()) => {
                let (number, length) = head.split_at(8);
                let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
                (word(number), word(length))
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Errno::SRCH),
            Err(error) => return Err(errno(&error)),
        };
        if number != question {
            return Ok(None);
        }
        let length = usize::try_from(length).ok().filter(|&length| length <= MAX_REPORT);
        let mut bytes = vec![0; length.ok_or(Errno::PROTO)?];
        let at = self.address + query::HEAD as u64;
        self.memory.read_exact_at(&mut bytes, at).map_err(|error| errno(&error))?;
        Report::read(&bytes).map(Some).ok_or(Errno::PROTO)
    }
}

/// A number that nobody asked by before; not 0.
fn question() -> Result<u64, Errno> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_le_bytes(bytes) | 1)
}

fn is_same_program(folder: BorrowedFd<'_>) -> Result<bool, Errno> {
    let own = rustix::fs::statat(CWD, "/proc/self/exe", AtFlags::empty())?;
    match rustix::fs::statat(folder, "exe", AtFlags::empty()) {
        Ok(its) => Ok((its.st_dev, its.st_ino) == (own.st_dev, own.st_ino)),
        // A thread of the kernel has none, and a process that has ended no more.
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the signal would not end it, as it would end the shim.
fn handles_queries(folder: BorrowedFd<'_>) -> Result<bool, Errno> {
    let status = String::from_utf8(read(folder, "status")?).map_err(|_| Errno::PROTO)?;
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    Ok(caught >> (query::signal() - 1) & 1 == 1)
}

/// A value of a process's auxiliary vector.
fn auxiliary(folder: BorrowedFd<'_>, key: u64) -> Result<Option<u64>, Errno> {
    let vector = read(folder, "auxv")?;
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
    let mut pairs = vector.chunks_exact(16).map(|pair| pair.split_at(8));
    Ok(pairs.find(|(found, _)| word(found) == key).map(|(_, value)| word(value)))
}

fn open(folder: BorrowedFd<'_>, name: &str) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat(folder, name, flags, Mode::empty())?.into())
}

fn read(folder: BorrowedFd<'_>, name: &str) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::new();
    let read = open(folder, name)?.take(MOST).read_to_end(&mut bytes);
    read.map_err(|error| errno(&error))?;
    Ok(bytes)
}

/// The system's number of an error.
pub(super) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
