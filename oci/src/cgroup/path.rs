//! Where a container's control group lies within a hierarchy.
//!
//! Two forms are in use: a plain path (`cgroupfs` driver), and `slice:prefix:name` (systemd
//! driver), which systemd's own naming rules turn into a path; `systemd.slice(5)`.

use std::path::{Component, Path, PathBuf};

use super::unit::Unit;
use crate::error::CgroupError;

/// A control group's path, parsed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CgroupPath {
    /// Counted from the hierarchy's root.
    Absolute(PathBuf),
    /// Counted from the group of the calling process.
    Relative(PathBuf),
    /// A unit within a slice of systemd.
    Systemd {
        /// The slice, like `kubepods-burstable.slice`.
        slice: String,
        /// Prefix of the unit's name, like `cri-containerd`; may be empty.
        prefix: String,
        /// The rest of the unit's name, mostly the container's id.
        name: String,
    },
}

/// The slice that is meant when none is named.
const DEFAULT_SLICE: &str = "system.slice";

impl CgroupPath {
    /// Parses `linux.cgroupsPath`; without one the group is named by `id`, beneath our own.
    ///
    /// A text with exactly two colons whose first part is empty or ends in `.slice` is taken for
    /// systemd's form; no engine writes such a plain path.
    ///
    /// # Errors
    /// [`CgroupError::Path`] for a path that climbs, is empty or names a malformed slice.
    pub fn parse(spec: Option<&str>, id: &str) -> Result<Self, CgroupError> {
        let text = spec.unwrap_or(id);
        let parts: Vec<&str> = text.split(':').collect();
        if let [slice, prefix, name] = parts.as_slice()
            && (slice.is_empty() || slice.ends_with(".slice"))
        {
            let slice = if slice.is_empty() { DEFAULT_SLICE } else { slice };
            let parsed = Self::Systemd {
                slice: slice.to_owned(),
                prefix: (*prefix).to_owned(),
                name: (*name).to_owned(),
            };
            parsed.check_systemd(text)?;
            return Ok(parsed);
        }
        let path = Path::new(text);
        let normal =
            path.components().all(|part| matches!(part, Component::Normal(_) | Component::RootDir));
        if !normal || path.file_name().is_none() {
            return Err(bad(text, "name a group without `.` and `..`, like /docker/ID"));
        }
        let inner: PathBuf =
            path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        Ok(if path.is_absolute() { Self::Absolute(inner) } else { Self::Relative(inner) })
    }

    /// The path within a hierarchy; `own` is the calling process' group in it.
    ///
    /// The result is never absolute, so that it can be joined to a mount point.
    #[must_use]
    pub fn within(&self, own: &Path) -> PathBuf {
        match self {
            Self::Absolute(path) => path.clone(),
            Self::Relative(path) => own.strip_prefix("/").unwrap_or(own).join(path),
            Self::Systemd { slice, prefix, name } => {
                slice_folders(slice).join(unit_name(prefix, name))
            }
        }
    }

    /// The unit of systemd's form; a name that is a slice's is none, for slices hold no processes.
    #[must_use]
    pub fn unit(&self) -> Option<Unit> {
        let Self::Systemd { slice, prefix, name } = self else { return None };
        let name = unit_name(prefix, name);
        name.ends_with(".scope").then(|| Unit { name, slice: slice.clone() })
    }

    fn check_systemd(&self, text: &str) -> Result<(), CgroupError> {
        let Self::Systemd { slice, prefix, name } = self else { return Ok(()) };
        let stem = slice.strip_suffix(".slice").unwrap_or(slice);
        // "-.slice" is the root slice; otherwise every dash separates two names.
        if stem != "-" && stem.split('-').any(str::is_empty) {
            return Err(bad(text, "a slice is named like kubepods-burstable.slice"));
        }
        if name.is_empty() {
            return Err(bad(text, "the part after the last colon must name the unit"));
        }
        if [slice, prefix, name].iter().any(|part| part.contains('/')) {
            return Err(bad(text, "a slice, prefix or name has no `/`"));
        }
        Ok(())
    }
}

fn bad(path: &str, problem: &'static str) -> CgroupError {
    CgroupError::Path { path: path.chars().take(256).collect(), problem }
}

/// `a-b-c.slice` lies in `a.slice/a-b.slice/a-b-c.slice`.
fn slice_folders(slice: &str) -> PathBuf {
    let stem = slice.strip_suffix(".slice").unwrap_or(slice);
    if stem == "-" {
        return PathBuf::new();
    }
    let mut folders = PathBuf::new();
    for (at, _) in stem.match_indices('-') {
        folders.push(format!("{}.slice", &stem[..at]));
    }
    folders.push(slice);
    folders
}

/// `prefix-name.scope`; a name that is a slice itself stays as it is.
fn unit_name(prefix: &str, name: &str) -> String {
    if name.ends_with(".slice") {
        name.to_owned()
    } else if prefix.is_empty() {
        format!("{name}.scope")
    } else {
        format!("{prefix}-{name}.scope")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(spec: &str) -> String {
        let path = CgroupPath::parse(Some(spec), "id").unwrap();
        path.within(Path::new("/own/group")).display().to_string()
    }

    #[test]
    fn cgroupfs_form() {
        assert_eq!(within("/default/hello"), "default/hello");
        assert_eq!(within("//kubepods//besteffort/pod1/c"), "kubepods/besteffort/pod1/c");
        assert_eq!(within("docker/abc"), "own/group/docker/abc");
        // Colons alone do not make systemd's form.
        assert_eq!(within("/a:b:c"), "a:b:c");
        let unnamed = CgroupPath::parse(None, "c1").unwrap();
        assert_eq!(unnamed.within(Path::new("/")), Path::new("c1"));
    }

    #[test]
    fn systemd_form() {
        assert_eq!(within("system.slice:docker:abc"), "system.slice/docker-abc.scope");
        assert_eq!(within(":docker:abc"), "system.slice/docker-abc.scope");
        assert_eq!(
            within("kubepods-burstable-pod1_2.slice:cri-containerd:abc"),
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/\
             cri-containerd-abc.scope"
        );
        assert_eq!(within("-.slice:x:abc"), "x-abc.scope");
        assert_eq!(within("user.slice::abc"), "user.slice/abc.scope");
        assert_eq!(within("a.slice:x:b.slice"), "a.slice/b.slice");
    }

    #[test]
    fn bad_paths() {
        for spec in
            ["/", "..", "/a/../../b", "./a", "a--b.slice:x:y", "a.slice:x:", "a.slice:x/../y:z"]
        {
            let error = CgroupPath::parse(Some(spec), "id").unwrap_err().to_string();
            assert!(error.contains(&format!("{spec:?}")), "{spec}: {error}");
        }
        assert!(CgroupPath::parse(None, "").is_err());
    }
}
