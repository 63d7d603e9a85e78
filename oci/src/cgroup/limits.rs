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
    /// File and value that do the same where that file does not exist.
    pub instead: Option<(String, String)>,
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
            instead: None,
        }
    }

    /// The same, but a kernel without the file takes `value` in another one.
    pub(super) fn or(self, file: &str, value: impl ToString) -> Self {
        Self { instead: Some((file.to_owned(), value.to_string())), ..self }
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
        match write_one(setting, dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => absent(setting, dir)?,
            Err(error) if may_pass_later(&error) => refused.push((setting, dir)),
            Err(source) => return Err(refusal(setting, dir, source)),
        }
    }
    for (setting, dir) in refused {
        write_one(setting, dir).map_err(|source| refusal(setting, dir, source))?;
    }
    Ok(())
}

fn write_one(setting: &Setting, dir: &Path) -> io::Result<()> {
    match (write(&dir.join(&setting.file), &setting.value), &setting.instead) {
        (Err(error), Some((file, value))) if error.kind() == io::ErrorKind::NotFound => {
            write(&dir.join(file), value)
        }
        (done, _) => done,
    }
}

/// The kernel's answer, with what is likely to be behind it.
fn refusal(setting: &Setting, dir: &Path, source: io::Error) -> CgroupError {
    use rustix::io::Errno;
    let hint = match (setting.field, Errno::from_io_error(&source)) {
        ("memory.limit" | "memory.swap", Some(Errno::BUSY)) => match used(dir) {
            Some(bytes) => format!("; {bytes} bytes are in use and cannot be freed, ask for more"),
            None => String::new(),
        },
        ("memory.limit" | "memory.swap", Some(Errno::INVAL)) => {
            "; memory.swap counts memory too and cannot be below memory.limit, set both".to_owned()
        }
        ("cpu.quota" | "cpu.period" | "cpu.burst", Some(Errno::INVAL)) => {
            "; a group cannot have more than the groups around it, nor save up more than its quota"
                .to_owned()
        }
        (_, Some(Errno::NODEV)) => "; there is no such device, look at lsblk".to_owned(),
        _ => String::new(),
    };
    let (file, value) = match &setting.instead {
        Some((file, value)) if !dir.join(&setting.file).exists() => (file, value),
        _ => (&setting.file, &setting.value),
    };
    let (file, value) = (dir.join(file), value.clone());
    CgroupError::Refused { setting: setting.field, file, value, source, hint }
}

/// Bytes of memory in use.
fn used(dir: &Path) -> Option<u64> {
    let files = ["memory.usage_in_bytes", "memory.current"];
    let text = files.iter().find_map(|file| crate::file::read_text(&dir.join(file)).ok())?;
    text.trim().parse().ok()
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
