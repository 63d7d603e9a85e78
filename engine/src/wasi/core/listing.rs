//! Directory listings that can be continued from any entry.
//!
//! The cookie of an entry is the kernel's own (`d_off`, what `telldir(3)` returns), so nothing is
//! remembered on behalf of the guest but one batch of entries, however large the directory is.

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, RawDir, SeekFrom};

use super::error::{Error, Result};
use super::stat::Kind;

/// Bytes of kernel entries that are read at once.
const BATCH: usize = 8192;

/// An entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Continues the listing after this entry.
    pub next: u64,
    /// Inode number as the directory records it.
    pub inode: u64,
    /// What it is.
    pub kind: Kind,
    /// The name's bytes.
    pub name: &'a [u8],
}

#[derive(Debug)]
struct Record {
    next: u64,
    inode: u64,
    kind: Kind,
    name: std::ops::Range<usize>,
}

/// One batch of entries and where it stands.
#[derive(Debug, Default)]
pub(super) struct Listing {
    records: Vec<Record>,
    names: Vec<u8>,
    /// The next record to hand out.
    at: usize,
    /// Cookie of the record at `at`.
    cookie: u64,
}

impl Listing {
    /// Goes to the entry after the one with this cookie; 0 is the beginning, read afresh.
    pub(super) fn seek(&mut self, fd: BorrowedFd<'_>, cookie: u64) -> Result<()> {
        if cookie != 0 && cookie == self.cookie {
            return Ok(());
        }
        let offset = i64::try_from(cookie).map_err(|_| Error::Invalid)?;
        rustix::fs::seek(fd, SeekFrom::Start(offset.cast_unsigned()))?;
        self.clear();
        self.cookie = cookie;
        Ok(())
    }

    /// The entry at hand, or `None` at the end.
    pub(super) fn peek(&mut self, fd: BorrowedFd<'_>) -> Result<Option<Entry<'_>>> {
        if self.at == self.records.len() {
            self.fill(fd)?;
        }
        Ok(self.records.get(self.at).map(|record| Entry {
            next: record.next,
            inode: record.inode,
            kind: record.kind,
            name: &self.names[record.name.clone()],
        }))
    }

    /// Goes on to the entry after the one at hand.
    pub(super) fn advance(&mut self) {
        if let Some(record) = self.records.get(self.at) {
            self.cookie = record.next;
            self.at += 1;
        }
    }

    fn clear(&mut self) {
        self.records.clear();
        self.names.clear();
        self.at = 0;
    }

    /// Reads the next batch at the kernel's position.
    fn fill(&mut self, fd: BorrowedFd<'_>) -> Result<()> {
        self.clear();
        let mut buffer = [MaybeUninit::uninit(); BATCH];
        let mut entries = RawDir::new(fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let start = self.names.len();
            self.names.extend_from_slice(entry.file_name().to_bytes());
            let kind = match Kind::from_file_type(entry.file_type()) {
                // The file system does not record it.
                Kind::Unknown => {
                    let flags = AtFlags::SYMLINK_NOFOLLOW;
                    let stat = rustix::fs::statat(fd, entry.file_name(), flags);
                    stat.map_or(Kind::Unknown, |stat| Kind::of(&stat))
                }
                kind => kind,
            };
            self.records.push(Record {
                next: entry.next_entry_cookie(),
                inode: entry.ino(),
                kind,
                name: start..self.names.len(),
            });
            if entries.is_buffer_empty() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn one_batch_is_kept_however_large_the_directory_is() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..5_000 {
            std::fs::write(dir.path().join(format!("{n}{}", "x".repeat(n % 200))), "").unwrap();
        }
        let fd = std::fs::File::open(dir.path()).unwrap();
        let mut listing = Listing::default();
        listing.seek(fd.as_fd(), 0).unwrap();
        let mut count = 0;
        while listing.peek(fd.as_fd()).unwrap().is_some() {
            count += 1;
            listing.advance();
        }
        assert_eq!(count, 5_002);
        // The shortest entry of the kernel has 24 bytes, and vectors grow to twice what they need.
        assert!(listing.names.capacity() <= 2 * BATCH, "{}", listing.names.capacity());
        assert!(listing.records.capacity() <= 2 * BATCH / 24, "{}", listing.records.capacity());
    }
}
