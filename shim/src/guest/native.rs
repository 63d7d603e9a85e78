//! A Linux program of the root file system: from the confined runner to execve(2).
//!
//! Its process was made like any guest's; what differs is its identity, which is the spec's to the
//! letter, and that the runner's own code ends here. Messages are worded as runc words them, since
//! Docker takes its exit codes 126 and 127 from the words.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::runner::{Act, Failure};
use super::seccomp::{self, Filter};
use super::sys;

/// Bytes of `/etc/passwd` that are looked at: a hostile image may hold a huge one.
const PASSWD_LIMIT: u64 = 1 << 20;
/// The home of a user whom `/etc/passwd` does not have.
const NO_HOME: &str = "/";

/// A program that only has to be executed.
#[derive(Debug)]
pub(super) struct Executable {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
    filters: Vec<Filter>,
}

impl Executable {
    /// Finds the program as execvp(3) does, with the rights that this process has by now. Paths are
    /// those of the container, which is this process's root.
    /// `filters` are installed last.
    pub(super) fn find(
        args: &[String],
        mut env: Vec<String>,
        filters: Vec<Filter>,
    ) -> Result<Self, Failure> {
        let name = args.first().map(String::as_str).unwrap_or_default();
        let path = lookup(name, variable(&env, "PATH"))?;
        if variable(&env, "HOME").is_none_or(str::is_empty) {
            env.retain(|pair| !pair.starts_with("HOME="));
            env.push(format!("HOME={}", home(rustix::process::getuid().as_raw())));
        }
        Ok(Self {
            path: c_string(path.as_os_str().as_bytes())?,
            args: args.iter().map(|arg| c_string(arg.as_bytes())).collect::<Result<_, _>>()?,
            env: env.iter().map(|pair| c_string(pair.as_bytes())).collect::<Result<_, _>>()?,
            filters,
        })
    }

    /// Becomes the program; returns only with the reason why that failed.
    ///
    /// Nothing of the runner reaches it: handlers of signals go with the old memory, all descriptors
    /// but the three streams are closed, and the one ignored signal gets its default back.
    pub(super) fn execute(self) -> Failure {
        sys::default_signal(libc::SIGPIPE);
        if let Err(error) = sys::close_from(3) {
            return Failure::new(format!("cannot close what the program may not have: {error}"));
        }
        if let Err(failure) = seccomp::install(&self.filters) {
            return failure;
        }
        let failed: Result<Infallible, _> = nix::unistd::execve(&self.path, &self.args, &self.env);
        let errno = failed.err().unwrap_or(nix::errno::Errno::EINVAL);
        let reason = words(io::Error::from(errno));
        Failure::new(format!("exec {}: {reason}", self.path.to_string_lossy()))
    }
}

/// The kernel's words as Go has them: in lower case, without the number.
fn words(error: io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

fn c_string(bytes: &[u8]) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|_| Failure::new("an argument of the program has a NUL byte"))
}

/// The value of a variable; of several the last one counts, as for runc.
fn variable<'e>(env: &'e [String], name: &str) -> Option<&'e str> {
    env.iter().rev().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn lookup(name: &str, path: Option<&str>) -> Result<PathBuf, Failure> {
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok(PathBuf::from(name)),
            Err(Errno::NOENT) => {
                Err(Failure::new(format!("exec: {name:?}: stat {name}: no such file or directory")))
            }
            Err(errno) => Err(Failure::new(format!("exec: {name:?}: {}", words(errno.into())))),
        };
    }
    let folders = path.unwrap_or_default().split(':').filter(|folder| !folder.is_empty());
    let mut candidates = folders.map(|folder| Path::new(folder).join(name));
    let found = candidates.find(|at| !name.is_empty() && executable(at).is_ok());
    found.ok_or_else(|| Failure::new(format!("exec: {name:?}: executable file not found in $PATH")))
}

/// Whether this process may execute a file.
fn executable(path: &Path) -> rustix::io::Result<()> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

/// The home folder of a user by the container's `/etc/passwd`; see passwd(5).
fn home(uid: u32) -> String {
    let text = read_passwd().unwrap_or_default();
    let uid = uid.to_string();
    let entry = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut homes = entry.filter(|fields| fields.get(2) == Some(&uid.as_str()));
    let home = homes.next().and_then(|fields| fields.get(5).map(|home| (*home).to_owned()));
    home.filter(|home| !home.is_empty()).unwrap_or_else(|| NO_HOME.to_owned())
}

fn read_passwd() -> io::Result<String> {
    // An image may have put a pipe there, which must not make the start wait.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open("/etc/passwd", flags, Mode::empty())?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
    if kind != FileType::RegularFile {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    File::from(file).take(PASSWD_LIMIT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Gives the streams to the user of the program, who could not open `/dev/stdout` anew otherwise.
/// What cannot be given, or is the null device of all, stays as it is.
pub(super) fn give_streams(uid: u32) -> Result<(), Failure> {
    let (stdin, stdout, stderr) =
        (rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr());
    for stream in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        let stat = rustix::fs::fstat(stream).act("look at", "a standard stream")?;
        let null = rustix::fs::makedev(1, 3);
        if stat.st_uid == uid || stat.st_rdev == null {
            continue;
        }
        match rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None::<Gid>) {
            Ok(()) | Err(Errno::PERM | Errno::INVAL | Errno::ROFS | Errno::NOTSUP) => {}
            Err(error) => return Err(error).act("give the program", "its standard streams"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, path: Option<&str>) -> String {
        lookup(name, path).unwrap_err().to_string()
    }

    #[test]
    fn names_are_looked_up_in_the_path_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = format!("/nonexistent::{}:/bin", dir.path().display());
        let found = lookup("sh", Some(&path)).unwrap();
        assert_eq!(found, Path::new("/bin/sh"));
        // A file that nobody may execute is passed over, and a folder too.
        std::fs::write(dir.path().join("sh"), "").unwrap();
        assert_eq!(lookup("sh", Some(&path)).unwrap(), Path::new("/bin/sh"));
        let missing = "exec: \"none\": executable file not found in $PATH";
        assert_eq!(refused("none", Some(&path)), missing);
        assert_eq!(refused("sh", None), "exec: \"sh\": executable file not found in $PATH");
        assert_eq!(refused("", Some(&path)), "exec: \"\": executable file not found in $PATH");
    }

    #[test]
    fn paths_are_taken_as_they_are_and_refused_in_the_words_of_runc() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("x").display().to_string();
        let missing = format!("exec: {at:?}: stat {at}: no such file or directory");
        assert_eq!(refused(&at, Some("/bin")), missing);
        std::fs::write(&at, "").unwrap();
        assert_eq!(refused(&at, None), format!("exec: {at:?}: permission denied"));
        assert_eq!(refused("/", None), "exec: \"/\": is a directory");
        assert_eq!(lookup("/bin/sh", None).unwrap(), Path::new("/bin/sh"));
    }

    #[test]
    fn the_last_of_several_variables_counts() {
        let env = ["PATH=/a".to_owned(), "PATHS=/b".to_owned(), "PATH=/c".to_owned()];
        assert_eq!(variable(&env, "PATH"), Some("/c"));
        assert_eq!(variable(&env, "HOME"), None);
    }

    #[test]
    fn the_home_is_that_of_the_user() {
        assert_eq!(home(0), "/root");
        assert_eq!(home(4_000_000), NO_HOME);
    }
}
