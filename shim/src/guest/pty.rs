//! Pseudo-terminals: made from the container's own devpts, or from the host's where it has none.
//!
//! The master goes to the shim; the slave becomes the three streams of a process and its controlling
//! terminal. See pty(7) and devpts in mount_namespaces(7).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::plan::Plan;
use super::runner::{Act, Failure};
use super::{mounts, path};

/// Where a devpts of its own has its multiplexer.
const PTMX: &str = "/dev/pts/ptmx";
/// Where a container finds the terminal of its first process.
const CONSOLE: &str = "/dev/console";
/// `f_type` of devpts; see statfs(2).
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
/// Device number of the multiplexer.
const PTMX_DEVICE: (u32, u32) = (5, 2);

/// Both ends of a pseudo-terminal.
#[derive(Debug)]
pub(crate) struct Pty {
    /// The side of whoever sits at it.
    pub(crate) master: OwnedFd,
    /// The side of the programs.
    pub(crate) slave: OwnedFd,
}

impl Pty {
    /// Makes one from the devpts below `root`, or else from that of this process's own root. Columns and
    /// rows are set, if they are known.
    ///
    /// # Errors
    /// What the kernel says, such as `ENOSPC` when there are as many terminals as there may be.
    pub(crate) fn make(root: BorrowedFd<'_>, size: Option<(u16, u16)>) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let found = match own_multiplexer(root)? {
            Some(found) => found,
            None => host_multiplexer()?,
        };
        // Just what was looked at, and no longer a name that an image controls.
        let path = format!("/proc/self/fd/{}", found.as_raw_fd());
        let master = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        rustix::pty::unlockpt(&master)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        if let Some(size) = size {
            resize(master.as_fd(), size)?;
        }
        Ok(Self { master, slave })
    }
}

/// Tells the terminal its columns and rows; the kernel sends SIGWINCH to its foreground programs if that
/// is news.
///
/// # Errors
/// When it is no terminal any more.
pub(crate) fn resize(terminal: BorrowedFd<'_>, (columns, rows): (u16, u16)) -> io::Result<()> {
    let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// The multiplexer of the container's devpts; `None` where there is none, or something that only has its
/// name.
fn own_multiplexer(root: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let found = match path::open_in(root, Path::new(PTMX), OFlags::PATH | OFlags::NOFOLLOW) {
        Ok(found) => found,
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            _ => return Err(error),
        },
    };
    let stat = rustix::fs::fstat(&found)?;
    let number = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let genuine = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && number == PTMX_DEVICE
        && rustix::fs::fstatfs(&found)?.f_type as i64 == DEVPTS_SUPER_MAGIC;
    Ok(genuine.then_some(found))
}

/// That of this process's own devpts. `/dev/ptmx`, which is no file of it, would not do: the kernel looks for
/// the devpts beside it when the slave is opened, and the container's root may be all that is left by then.
fn host_multiplexer() -> io::Result<OwnedFd> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let none = || io::Error::new(io::ErrorKind::NotFound, "neither it nor the host has a /dev/pts");
    own_multiplexer(root.as_fd())?.ok_or_else(none)
}

/// Makes the terminal of a container's first process: its streams, its controlling terminal, and what
/// `/dev/console` shows. Gives the master, which is for the shim.
pub(super) fn set_up(root: BorrowedFd<'_>, plan: &Plan) -> Result<OwnedFd, Failure> {
    let Pty { master, slave } = Pty::make(root, plan.console_size).act("make", "a terminal")?;
    // A mount in the host's own folder would need a file made there.
    if plan.files.own_dev {
        show(root, slave.as_fd()).act("show the terminal as", CONSOLE)?;
    }
    become_streams(slave.as_fd()).act("take", "the container's terminal")?;
    take_control(plan.identity.uid)?;
    Ok(master)
}

/// Mounts the slave on the console; see "Default Devices" in the OCI runtime spec's config-linux.md.
fn show(root: BorrowedFd<'_>, slave: BorrowedFd<'_>) -> io::Result<()> {
    let target = path::make_file(root, Path::new(CONSOLE))?;
    mounts::attach(mounts::clone_tree(slave, false)?.as_fd(), target.as_fd())
}

/// Makes a slave the three standard streams of this process.
fn become_streams(slave: BorrowedFd<'_>) -> io::Result<()> {
    rustix::stdio::dup2_stdin(slave)?;
    rustix::stdio::dup2_stdout(slave)?;
    Ok(rustix::stdio::dup2_stderr(slave)?)
}

/// Makes standard input the controlling terminal of this session, and gives it to the user that the
/// program will be, who could not open it by its name otherwise.
pub(super) fn take_control(uid: u32) -> Result<(), Failure> {
    let terminal = rustix::stdio::stdin();
    rustix::process::ioctl_tiocsctty(terminal).act("take", "the container's terminal")?;
    match rustix::fs::fchown(terminal, Some(Uid::from_raw(uid)), None::<Gid>) {
        // A user of whom the namespace or the file system knows nothing.
        Ok(()) | Err(Errno::INVAL | Errno::PERM | Errno::ROFS) => Ok(()),
        Err(error) => Err(error).act("give the user", "the container's terminal"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let fd = rustix::fs::open(dir.path(), OFlags::PATH, Mode::empty()).unwrap();
        (dir, fd)
    }

    #[test]
    fn words_and_sizes_pass_between_the_ends() {
        let (_dir, root) = root();
        let pty = Pty::make(root.as_fd(), Some((132, 43))).unwrap();
        let size = rustix::termios::tcgetwinsize(&pty.slave).unwrap();
        assert_eq!((size.ws_col, size.ws_row), (132, 43));
        resize(pty.master.as_fd(), (80, 24)).unwrap();
        assert_eq!(rustix::termios::tcgetwinsize(&pty.slave).unwrap().ws_row, 24);
        rustix::io::write(&pty.slave, b"ahoy\n").unwrap();
        let mut bytes = [0; 16];
        let count = rustix::io::read(&pty.master, &mut bytes).unwrap();
        assert_eq!(&bytes[..count], b"ahoy\r\n");
    }

    #[test]
    fn what_only_has_the_name_is_not_opened() {
        for case in 0..3 {
            let (dir, root) = root();
            let ptmx = dir.path().join("dev/pts/ptmx");
            std::fs::create_dir_all(dir.path().join("dev/pts")).unwrap();
            match case {
                0 => std::fs::write(&ptmx, "").unwrap(),
                1 => symlink("/dev/ptmx", &ptmx).unwrap(),
                // The device itself, but on no devpts.
                _ => {
                    let kind = FileType::CharacterDevice;
                    let number = rustix::fs::makedev(5, 2);
                    rustix::fs::mknodat(CWD, &ptmx, kind, Mode::RWXU, number).unwrap();
                }
            }
            assert!(own_multiplexer(root.as_fd()).unwrap().is_none(), "case {case}");
        }
    }
}
