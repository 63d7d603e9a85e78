//! Where a cache is.

use std::ffi::OsString;
use std::path::PathBuf;

use super::Bounds;

/// The folder of the entries, instead of the usual one.
pub const ENV_DIR: &str = "CORACLE_CACHE_DIR";
/// The folder of what a restart of the machine forgets, instead of the usual one.
pub const ENV_RUN: &str = "CORACLE_RUN_DIR";
/// What the entries may take of the disk, in MiB, instead of 2048.
pub const ENV_MIB: &str = "CORACLE_CACHE_MIB";
/// Most MiB that can be asked for.
const MAX_MIB: u64 = 1 << 30;

/// Where a cache is and how large it may become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The folder of the entries; made if it is not there.
    pub dir: PathBuf,
    /// The folder of what a restart of the machine empties. Without one, every look-up computes the
    /// entry's digest, and nobody waits for anybody else's compilation.
    pub run: Option<PathBuf>,
    /// What is kept.
    pub bounds: Bounds,
}

/// A size that is no size.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{ENV_MIB}={0:?}: use a number of MiB, at most {MAX_MIB}")]
pub struct BadSize(OsString);

impl Place {
    /// The node's cache, which root alone can use; the environment may say where it is.
    ///
    /// # Errors
    /// When the environment gives a size that is none.
    pub fn of_the_node(env: impl Fn(&str) -> Option<OsString>) -> Result<Place, BadSize> {
        let dir = "/var/lib/coracle/cache".into();
        let run = Some("/run/coracle".into());
        Place { dir, run, bounds: Bounds::default() }.with_environment(env)
    }

    /// A user's own cache, in the folders that the XDG Base Directory Specification names. `None` if the
    /// environment says neither of these nor where the user's home is.
    ///
    /// # Errors
    /// As [`Place::of_the_node`].
    pub fn of_a_user(env: impl Fn(&str) -> Option<OsString>) -> Result<Option<Place>, BadSize> {
        let folder = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = || Some(folder("HOME")?.join(".cache"));
        let base = folder("XDG_CACHE_HOME").or_else(home).map(|base| base.join("coracle/code"));
        let Some(dir) = base.or_else(|| folder(ENV_DIR)) else { return Ok(None) };
        let run = folder("XDG_RUNTIME_DIR").map(|base| base.join("coracle"));
        Place { dir, run, bounds: Bounds::default() }.with_environment(env).map(Some)
    }

    fn with_environment(
        mut self,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Place, BadSize> {
        let set = |name| env(name).filter(|value| !value.is_empty());
        if let Some(dir) = set(ENV_DIR) {
            self.dir = dir.into();
        }
        if let Some(run) = set(ENV_RUN) {
            self.run = Some(run.into());
        }
        if let Some(text) = set(ENV_MIB) {
            let mib = text.to_str().and_then(|text| text.parse::<u64>().ok());
            let mib = mib.filter(|mib| *mib <= MAX_MIB).ok_or(BadSize(text))?;
            self.bounds.bytes = mib << 20;
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'v>(values: &'v [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> + 'v {
        |name| values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
    }

    #[test]
    fn the_environment_may_move_and_bound_it() {
        let usual = Place::of_the_node(env(&[(ENV_DIR, "")])).unwrap();
        assert_eq!(usual.dir, PathBuf::from("/var/lib/coracle/cache"));
        let values = [(ENV_DIR, "/a"), (ENV_RUN, "/b"), (ENV_MIB, "3")];
        let moved = Place::of_the_node(env(&values)).unwrap();
        assert_eq!((moved.dir, moved.run), ("/a".into(), Some("/b".into())));
        assert_eq!(moved.bounds.bytes, 3 << 20);
        for bad in ["much", "-1", "99999999999"] {
            assert_eq!(Place::of_the_node(env(&[(ENV_MIB, bad)])), Err(BadSize(bad.into())));
        }
    }

    #[test]
    fn a_user_has_one_of_his_own() {
        let place = |values: &[_]| Place::of_a_user(env(values)).unwrap();
        let home = place(&[("HOME", "/home/u")]).unwrap();
        assert_eq!((home.dir, home.run), ("/home/u/.cache/coracle/code".into(), None));
        let xdg = place(&[("XDG_CACHE_HOME", "/c"), ("XDG_RUNTIME_DIR", "/r"), ("HOME", "/h")]);
        let xdg = xdg.unwrap();
        assert_eq!((xdg.dir, xdg.run), ("/c/coracle/code".into(), Some("/r/coracle".into())));
        assert_eq!(place(&[("HOME", "relative")]), None);
        assert_eq!(place(&[(ENV_DIR, "/a")]).unwrap().dir, PathBuf::from("/a"));
    }
}
