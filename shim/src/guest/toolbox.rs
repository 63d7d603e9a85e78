//! What the toolbox can ask of its host beyond WASI: the other side of `shim/box/src/host.rs`.
//!
//! Only the module that the shim itself brings is linked with these functions: no guest's module can import
//! them, whatever it is called. They act in the container's namespaces, with the rights that the container's
//! user has there and no more, as a program of the image would. The one exception is opened before those
//! rights are taken: the memory of the process that `backtrace` or `mem` is to look at.

use std::sync::OnceLock;

use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;

use super::observe::{Observed, errno};
use super::program::{Caller, Linker, WasiErrno};
use super::sys::query;

/// What the functions are imported from.
const MODULE: &str = "coracle_box";
/// Longest path that is looked at, in bytes: the kernel's limit.
const MOST_PATH: u32 = 4096;
/// The name of the toolbox itself, and the commands that look at another process.
const BOX: &str = "coracle-box";
const OBSERVERS: [&str; 2] = ["backtrace", "mem"];

/// The process to look at, or why there is none. There is one program in a process.
static OBSERVED: OnceLock<Result<Observed, Errno>> = OnceLock::new();

/// Opens what the command line asks to look at. Comes before the rights to do so are given up.
pub(super) fn prepare(args: &[String]) {
    if let Some(pid) = observed_pid(args) {
        // Nobody has set it before.
        let _ = OBSERVED.set(Observed::open(pid));
    }
}

/// The pid that `backtrace` or `mem` is to look at: the container's first process, if none is named.
fn observed_pid(args: &[String]) -> Option<i32> {
    let mut words = args.iter().map(String::as_str);
    let name = |word: &str| word.rsplit('/').next().unwrap_or_default().to_owned();
    let mut command = name(words.next()?);
    if command == BOX {
        command = words.next()?.to_owned();
    }
    if !OBSERVERS.contains(&command.as_str()) {
        return None;
    }
    words.next().map_or(Some(1), |word| word.parse().ok()).filter(|&pid| pid > 0)
}

/// Defines the functions.
pub(super) fn imports(linker: &mut Linker) {
    linker.func_wrap(MODULE, "kill", |_: Caller<'_>, pid: i32, signal: i32| {
        number(query::kill(pid, signal).map_err(|error| errno(&error)))
    });
    linker.func_wrap(
        MODULE,
        "stat",
        |mut caller: Caller<'_>, path: u32, length: u32, follow: u32, out: u32| {
            let numbers =
                path_at(&mut caller, path, length).and_then(|path| stat(&path, follow != 0));
            number(numbers.and_then(|numbers| write(&mut caller, out, &numbers)))
        },
    );
    linker.func_wrap(
        MODULE,
        "statfs",
        |mut caller: Caller<'_>, path: u32, length: u32, out: u32| {
            let numbers = path_at(&mut caller, path, length).and_then(|path| space(&path));
            number(numbers.and_then(|numbers| write(&mut caller, out, &numbers)))
        },
    );
    linker.func_wrap(
        MODULE,
        "inspect",
        |mut caller: Caller<'_>,
         pid: i32,
         thread: i32,
         what: u32,
         to: u32,
         room: u32,
         used: u32| {
            let text = inspect(pid, thread, what);
            number(text.and_then(|text| write_text(&mut caller, &text, to, room, used)))
        },
    );
}

/// The number that the program gets: WASI's of an error.
fn number(result: Result<(), Errno>) -> u32 {
    result.map_or_else(|error| WasiErrno::from(error) as u32, |()| 0)
}

/// Bytes of the program's memory.
fn bytes<'c>(caller: &'c mut Caller<'_>, at: u32, length: u32) -> Result<&'c mut [u8], Errno> {
    let memory = caller.memory().ok_or(Errno::FAULT)?;
    let rest = memory.get_mut(at as usize..).ok_or(Errno::FAULT)?;
    rest.get_mut(..length as usize).ok_or(Errno::FAULT)
}

fn path_at(caller: &mut Caller<'_>, at: u32, length: u32) -> Result<Vec<u8>, Errno> {
    if length > MOST_PATH {
        return Err(Errno::NAMETOOLONG);
    }
    bytes(caller, at, length).map(|path| path.to_vec())
}

fn write(caller: &mut Caller<'_>, at: u32, numbers: &[u64]) -> Result<(), Errno> {
    let room = bytes(caller, at, size_of_val(numbers) as u32)?;
    for (to, number) in room.chunks_exact_mut(8).zip(numbers) {
        to.copy_from_slice(&number.to_le_bytes());
    }
    Ok(())
}

fn write_text(
    caller: &mut Caller<'_>,
    text: &str,
    to: u32,
    room: u32,
    used: u32,
) -> Result<(), Errno> {
    let length = text.floor_char_boundary(text.len().min(room as usize));
    bytes(caller, to, length as u32)?.copy_from_slice(&text.as_bytes()[..length]);
    bytes(caller, used, 4)?.copy_from_slice(&(length as u32).to_le_bytes());
    Ok(())
}

/// See stat(2); the numbers in the order of the program's side.
fn stat(path: &[u8], follow: bool) -> Result<[u64; 11], Errno> {
    let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
    let stat = rustix::fs::statat(CWD, path, flags | AtFlags::NO_AUTOMOUNT)?;
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Ok([
        stat.st_mode.into(),
        stat.st_nlink as u64,
        stat.st_uid.into(),
        stat.st_gid.into(),
        stat.st_size.cast_unsigned(),
        major.into(),
        minor.into(),
        stat.st_mtime.cast_unsigned(),
        stat.st_mtime_nsec as u64,
        stat.st_ino,
        stat.st_blocks.cast_unsigned(),
    ])
}

/// See statfs(2); the numbers in the order of the program's side.
fn space(path: &[u8]) -> Result<[u64; 6], Errno> {
    let space = rustix::fs::statvfs(path)?;
    let block = if space.f_frsize == 0 { space.f_bsize } else { space.f_frsize };
    Ok([block, space.f_blocks, space.f_bfree, space.f_bavail, space.f_files, space.f_ffree])
}

fn inspect(pid: i32, thread: i32, what: u32) -> Result<String, Errno> {
    let observed = match OBSERVED.get() {
        Some(Ok(observed)) if observed.pid() == pid => observed,
        Some(Err(error)) => return Err(*error),
        _ => return Err(Errno::INVAL),
    };
    let report = observed.ask(thread)?;
    match what {
        0 => Ok(report.to_string()),
        1 => Ok(format!("{} {}", report.sight.memory_bytes, report.sight.table_elements)),
        _ => Err(Errno::INVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_commands_look_at_another_process() {
        let pid = |words: &[&str]| {
            observed_pid(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(pid(&["backtrace"]), Some(1));
        assert_eq!(pid(&["/bin/mem", "7"]), Some(7));
        assert_eq!(pid(&["coracle-box", "mem"]), Some(1));
        assert_eq!(pid(&["/x/coracle-box", "backtrace", "12"]), Some(12));
        for words in [&["ls", "1"][..], &["coracle-box"], &["mem", "-1"], &["mem", "x"], &[]] {
            assert_eq!(pid(words), None, "{words:?}");
        }
    }

    #[test]
    fn numbers_of_files_and_file_systems_are_the_kernels() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "seven b").unwrap();
        let path = file.path().as_os_str().as_encoded_bytes();
        let [mode, links, .., inode, _] = stat(path, true).unwrap();
        use std::os::unix::fs::MetadataExt;
        let known = std::fs::metadata(file.path()).unwrap();
        assert_eq!((mode, links, inode), (known.mode().into(), known.nlink(), known.ino()));
        assert_eq!(stat(path, true).unwrap()[4], 7);
        assert_eq!(stat(b"/no/such/file", true), Err(Errno::NOENT));
        assert_eq!(stat(b"nul\0", true), Err(Errno::INVAL));
        let [block, blocks, ..] = space(b"/").unwrap();
        assert!(block > 0 && blocks > 0);
    }
}
