//! Checks that every part of the spec shares: no NUL bytes, absolute paths, usable ids.

use std::path::{Component, Path, PathBuf};

use crate::error::SpecError;

/// Longest excerpt of a bad value in a message, in characters.
const EXCERPT: usize = 120;

/// A [`SpecError::Value`] with the value shortened.
pub(super) fn value(field: &'static str, value: impl ToString, problem: &'static str) -> SpecError {
    let value = value.to_string().chars().take(EXCERPT).collect();
    SpecError::Value { field, value, problem }
}

/// Refuses a NUL byte, which would end the string early for the kernel.
pub(super) fn string(field: &'static str, text: &str) -> Result<(), SpecError> {
    if text.contains('\0') {
        return Err(value(field, text, "it contains a NUL byte; remove it"));
    }
    Ok(())
}

/// [`string`] for a list.
pub(super) fn strings(field: &'static str, texts: &[String]) -> Result<(), SpecError> {
    texts.iter().try_for_each(|text| string(field, text))
}

/// [`string`] for a path.
pub(super) fn path(field: &'static str, path: &Path) -> Result<(), SpecError> {
    string(field, &path.to_string_lossy())
}

/// A path that must be absolute and free of NUL bytes.
pub(super) fn absolute<'a>(field: &'static str, given: &'a Path) -> Result<&'a Path, SpecError> {
    path(field, given)?;
    if given.is_absolute() {
        return Ok(given);
    }
    Err(value(field, given.display(), "the path must be absolute"))
}

/// Refuses `(uid_t)-1`: the kernel reads it as "leave unchanged", so the guest would stay root.
pub(super) fn id(field: &'static str, id: u32) -> Result<u32, SpecError> {
    if id == u32::MAX {
        return Err(SpecError::Id { field, value: id.to_string() });
    }
    Ok(id)
}

/// A path inside the container, without `.`, `..` and doubled slashes, always absolute.
///
/// Purely lexical, as `..` above the root stays at the root.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning_never_leaves_the_root() {
        for (given, wanted) in [
            ("/a/../../b/./c//d", "/b/c/d"),
            ("a/b", "/a/b"),
            ("../..", "/"),
            ("", "/"),
            ("/proc/", "/proc"),
        ] {
            assert_eq!(clean(Path::new(given)), Path::new(wanted), "{given}");
        }
    }

    #[test]
    fn minus_one_is_no_id() {
        assert!(id("process.user.uid", u32::MAX).is_err());
        assert_eq!(id("process.user.uid", u32::MAX - 1).unwrap(), u32::MAX - 1);
    }
}
