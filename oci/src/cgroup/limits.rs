//! Limits as a list of files and values: planned purely, written afterwards.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::error::CgroupError;

/// One value for one control file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Controller whose file it is.
    pub controller: String,
    /// Name of the file.
    pub file: String,
    /// Value to write.
    pub value: String,
    /// The limit's name in the spec, for messages.
    pub field: &'static str,
    /// What to do when the file does not exist.
    pub absent: Absent,
}

/// What a missing control file means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// The limit cannot be kept, so the container must not start.
    Fail,
    /// The kernel was built without it (swap accounting): warn and go on.
    Warn,
    /// Nothing was limited anyway.
    Ignore,
}

impl Setting {
    /// A limit that must be kept, unless it says that there is none.
    pub(super) fn limit(
        controller: &str,
        file: &str,
        value: impl ToString,
        field: &'static str,
        unlimited: bool,
    ) -> Self {
        Self {
            controller: controller.to_owned(),
            file: file.to_owned(),
            value: value.to_string(),
            field,
            absent: if unlimited { Absent::Ignore } else { Absent::Fail },
        }
    }

    /// The same, but a kernel without the file gets along with a warning.
    pub(super) fn optional(self) -> Self {
        let absent = if self.absent == Absent::Fail { Absent::Warn } else { self.absent };
        Self { absent, ..self }
    }
}

/// A number, or the word for none.
pub(super) fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// Writes settings in order; `folder` tells where a controller's files lie.
///
/// A file may refuse a value because of another one that is not written yet (memory beyond memory
/// and swap, quota beyond period), so what is refused as invalid or busy gets a second try at the
/// end.
pub(super) fn write_all<'a>(
    settings: &[Setting],
    folder: impl Fn(&str) -> Option<&'a Path>,
    fallback: &Path,
) -> Result<(), CgroupError> {
    let mut refused = Vec::new();
    for setting in settings {
        let Some(dir) = folder(&setting.controller) else {
            absent(setting, fallback)?;
            continue;
        };
        let file = dir.join(&setting.file);
        match write(&file, &setting.value) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => absent(setting, dir)?,
            Err(error) if may_pass_later(&error) => refused.push((file, &setting.value)),
            Err(source) => return Err(write_error(file, &setting.value, source)),
        }
    }
    for (file, value) in refused {
        if let Err(source) = write(&file, value) {
            return Err(write_error(file, value, source));
        }
    }
    Ok(())
}

fn may_pass_later(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::INVAL | Errno::BUSY))
}

fn absent(setting: &Setting, dir: &Path) -> Result<(), CgroupError> {
    match setting.absent {
        Absent::Ignore => {}
        Absent::Warn => tracing::warn!(
            field = setting.field,
            file = %setting.file,
            "this kernel has no such control file, the limit is not kept"
        ),
        Absent::Fail => {
            return Err(CgroupError::NoController {
                setting: setting.field,
                controller: setting.controller.clone(),
                dir: dir.to_path_buf(),
            });
        }
    }
    Ok(())
}

/// Writes a control file in one call, as the kernel demands; never creates one.
pub(super) fn write(file: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).truncate(true).open(file)?.write_all(value.as_bytes())
}

pub(super) fn write_error(file: PathBuf, value: &str, source: io::Error) -> CgroupError {
    CgroupError::Write { file, value: value.to_owned(), source }
}
