//! The forms that files of a group have: one number, names with numbers, pressure.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::str::FromStr;

use crate::error::CgroupError;

/// A file of lines `name number`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flat(BTreeMap<String, u64>);

impl Flat {
    /// Reads a file; `None` if this kernel does not have it.
    ///
    /// # Errors
    /// [`CgroupError::Read`] if it cannot be read.
    pub fn read(file: &Path) -> Result<Option<Self>, CgroupError> {
        Ok(read(file)?.map(|text| Self::parse(&text)))
    }

    /// Lines of another form are left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let entry = |line: &str| {
            let (name, number) = line.split_once(' ')?;
            Some((name.to_owned(), number.trim().parse().ok()?))
        };
        Self(text.lines().filter_map(entry).collect())
    }

    /// The number behind a name, if it is there.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// The number behind a name; 0 if it is not there.
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        self.find(name).unwrap_or(0)
    }
}

/// How long tasks waited for a resource. Source: Linux `accounting/psi.rst`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// At least one task waited.
    pub some: Option<Stall>,
    /// All tasks that were not idle waited.
    pub full: Option<Stall>,
}

/// Time lost by waiting.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stall {
    /// Percent of the last 10 seconds.
    pub avg10: f64,
    /// Percent of the last minute.
    pub avg60: f64,
    /// Percent of the last five minutes.
    pub avg300: f64,
    /// Microseconds in all.
    pub total: u64,
}

impl Pressure {
    /// Reads a file; `None` if this kernel does not count pressure.
    pub(super) fn read(file: &Path) -> Result<Option<Self>, CgroupError> {
        Ok(read(file)?.map(|text| Self::parse(&text)))
    }

    /// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same with `full`.
    pub(super) fn parse(text: &str) -> Self {
        let stall = |kind: &str| {
            let values = text.lines().find_map(|line| line.strip_prefix(kind))?;
            fn number<N: FromStr + Default>(values: &str, key: &str) -> N {
                value_of(values, key).and_then(|text| text.parse().ok()).unwrap_or_default()
            }
            Some(Stall {
                avg10: number(values, "avg10"),
                avg60: number(values, "avg60"),
                avg300: number(values, "avg300"),
                total: number(values, "total"),
            })
        };
        Self { some: stall("some "), full: stall("full ") }
    }
}

/// What follows `key=` among words.
pub(super) fn value_of<'t>(words: &'t str, key: &str) -> Option<&'t str> {
    let value = |word: &'t str| word.strip_prefix(key)?.strip_prefix('=');
    words.split_whitespace().find_map(value)
}

/// The text of a file; `None` where the kernel has none or does not count this.
pub(super) fn read(file: &Path) -> Result<Option<String>, CgroupError> {
    use rustix::io::Errno;
    match crate::file::read_text(file) {
        Ok(text) => Ok(Some(text)),
        Err(source) => match Errno::from_io_error(&source) {
            // Pressure that is switched off is "not supported"; a group that goes meanwhile has "no device".
            Some(Errno::NOENT | Errno::OPNOTSUPP | Errno::NODEV) => Ok(None),
            _ => Err(CgroupError::Read { file: file.to_path_buf(), source }),
        },
    }
}

/// A file with one number; `max` is [`u64::MAX`].
pub(super) fn number(file: &Path) -> Result<Option<u64>, CgroupError> {
    let Some(text) = read(file)? else { return Ok(None) };
    let text = text.trim();
    let number = if text == "max" { Ok(u64::MAX) } else { text.parse() };
    number.map(Some).map_err(|error| CgroupError::Read {
        file: file.to_path_buf(),
        source: io::Error::new(io::ErrorKind::InvalidData, error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_names_and_numbers() {
        let flat = Flat::parse("oom_kill_disable 0\nunder_oom 0\noom_kill 3\nno number\nalone\n");
        assert_eq!((flat.get("oom_kill"), flat.find("under_oom")), (3, Some(0)));
        assert_eq!((flat.get("absent"), flat.find("absent")), (0, None));
        assert_eq!(flat.find("no"), None);
    }

    #[test]
    fn pressure_with_and_without_full() {
        let both = Pressure::parse(
            "some avg10=1.50 avg60=0.20 avg300=0.03 total=12345\n\
             full avg10=0.50 avg60=0.00 avg300=0.00 total=678\n",
        );
        let some = both.some.unwrap();
        assert_eq!((some.avg10, some.avg60, some.avg300, some.total), (1.5, 0.2, 0.03, 12345));
        assert_eq!(both.full.unwrap().total, 678);
        // Of processors, Linux before 5.13 has no full.
        assert_eq!(Pressure::parse("some avg10=0.00 total=1\n").full, None);
    }

    #[test]
    fn numbers_and_what_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        assert_eq!(number(&file).unwrap(), None);
        for (text, value) in [("17\n", 17), ("max\n", u64::MAX)] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(number(&file).unwrap(), Some(value));
        }
        std::fs::write(&file, "-1\n").unwrap();
        assert!(number(&file).unwrap_err().to_string().contains("file"));
        assert_eq!(value_of("rbytes=1 wbytes=22", "wbytes"), Some("22"));
        assert_eq!(value_of("rbytes=1", "bytes"), None);
    }
}
