//! Every operation without the right that it needs: one list, from the table itself.

use super::*;
use crate::wasi::preview1::link::FUNCTIONS;
use crate::wasi::preview1::rights::OPERATIONS;
use crate::wasi::preview1::{poll, sock};

/// A guest for one operation: a file as 0, a connected socket as 1, a listener as 2, a second
/// directory as 4.
fn guest() -> (Guest, TestPeers) {
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    let other = tempfile::tempdir().unwrap();
    let path = other.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let client = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let mut guest = Guest::with(|grants| {
        grants.preopen(open_dir(other.path()), "/other", false);
        grants.socket(near.into()).socket(listener.into());
    });
    let file = guest.open("file", CREATE).unwrap();
    assert_eq!(file, 0);
    guest.call(|c, m| fds::fd_renumber(c, m, 5, 5)).unwrap();
    guest.mkdir("dir").unwrap();
    guest.symlink("file", "link").unwrap();
    std::io::Write::write_all(&mut &far, b"bytes").unwrap();
    (guest, TestPeers { _far: far, _client: client, _other: other })
}

struct TestPeers {
    _far: std::os::unix::net::UnixStream,
    _client: std::os::unix::net::UnixStream,
    _other: tempfile::TempDir,
}

const FILE: u32 = 0;
const OTHER: u32 = 4;
const SOCKET: u32 = 5;
const LISTENER: u32 = 6;

/// The descriptor whose rights count, and the call.
fn attempt(guest: &mut Guest, operation: &str) -> Result<(), Errno> {
    let out = guest.room(64);
    let (list, _) = guest.iovec(b"x");
    match operation {
        "fd_advise" => guest.call(|c, m| files::fd_advise(c, m, FILE, 0, 0, 0)),
        "fd_allocate" => guest.call(|c, m| files::fd_allocate(c, m, FILE, 0, 9)),
        "fd_datasync" => guest.call(|c, m| fds::fd_datasync(c, m, FILE)),
        "fd_fdstat_set_flags" => guest.call(|c, m| fds::fd_fdstat_set_flags(c, m, FILE, 1)),
        "fd_filestat_get" => guest.filestat(FILE).map(drop),
        "fd_filestat_set_size" => guest.call(|c, m| fds::fd_filestat_set_size(c, m, FILE, 3)),
        "fd_filestat_set_times" => {
            guest.call(|c, m| fds::fd_filestat_set_times(c, m, FILE, 1, 1, 5))
        }
        "fd_pread" => guest.call(|c, m| files::fd_pread(c, m, FILE, list, 1, 0, out)),
        "fd_pwrite" => guest.call(|c, m| files::fd_pwrite(c, m, FILE, list, 1, 0, out)),
        "fd_read" => guest.read(FILE, 1).map(drop),
        "fd_readdir" => guest.call(|c, m| files::fd_readdir(c, m, ROOT, 8192, 64, 0, out)),
        "fd_seek" => guest.seek(FILE, 1, 0).map(drop),
        "fd_sync" => guest.call(|c, m| fds::fd_sync(c, m, FILE)),
        "fd_tell" => guest.call(|c, m| files::fd_tell(c, m, FILE, out)),
        "fd_write" => guest.write(FILE, b"x").map(drop),
        "path_create_directory" => guest.mkdir("new"),
        "path_filestat_get" => guest.path_filestat("file", 0).map(drop),
        "path_filestat_set_times" => guest.set_times("file", 0, 1, 5),
        "path_link_source" => guest.link_at(ROOT, 0, "file", OTHER, "linked"),
        "path_link_target" => guest.link_at(OTHER, 0, "socket", ROOT, "linked"),
        "path_open" => guest.open("file", 0).map(drop),
        "path_open_creating" => guest.open("new", CREATE).map(drop),
        "path_open_truncating" => guest.open("file", TRUNCATE).map(drop),
        "path_readlink" => guest.readlink("link", 9).map(drop),
        "path_remove_directory" => guest.rmdir("dir"),
        "path_rename_source" => guest.rename_at(ROOT, "file", OTHER, "moved"),
        "path_rename_target" => guest.rename_at(OTHER, "socket", ROOT, "moved"),
        "path_symlink" => guest.symlink("file", "new"),
        "path_unlink_file" => guest.unlink("file"),
        "poll_read" => poll_one(guest, 1),
        "poll_write" => poll_one(guest, 2),
        "sock_accept" => guest.call(|c, m| sock::sock_accept(c, m, LISTENER, 0, out)),
        "sock_recv" => guest.call(|c, m| sock::sock_recv(c, m, SOCKET, list, 1, 0, out, out + 4)),
        "sock_send" => guest.call(|c, m| sock::sock_send(c, m, SOCKET, list, 1, 0, out)),
        "sock_shutdown" => guest.call(|c, m| sock::sock_shutdown(c, m, SOCKET, 3)),
        other => panic!("{other} has no attempt"),
    }
}

fn poll_one(guest: &mut Guest, kind: u8) -> Result<(), Errno> {
    let mut subscription = [0; 48];
    subscription[8] = kind;
    subscription[16] = FILE as u8;
    let (at, _) = guest.put(&subscription);
    let out = guest.room(40);
    guest.call(|c, m| poll::poll_oneoff(c, m, at, out, 1, out + 32))?;
    match guest.memory[out as usize + 8] {
        0 => Ok(()),
        76 => Err(Errno::Notcapable),
        other => panic!("errno {other}"),
    }
}

#[test]
fn each_operation_works_with_its_rights_and_not_without_any_of_them() {
    for (operation, needed) in OPERATIONS {
        let (mut with, _peers) = guest();
        assert_eq!(attempt(&mut with, operation), Ok(()), "{operation} with all rights");
        for bit in (0..64).map(|n| 1 << n).filter(|bit| needed.bits() & bit != 0) {
            let right = Rights::from_bits(bit);
            let (mut without, _peers) = guest();
            for fd in [FILE, ROOT, SOCKET, LISTENER] {
                without.drop_rights(fd, right);
            }
            let result = attempt(&mut without, operation);
            assert_eq!(result, Err(Errno::Notcapable), "{operation} without {right:?}");
            assert!(without.host("file").exists() && !without.host("new").exists());
            assert_eq!(fs::metadata(without.host("file")).unwrap().len(), 0);
        }
    }
}

#[test]
fn each_operation_works_with_nothing_but_its_rights() {
    for (operation, needed) in OPERATIONS {
        let (mut guest, _peers) = guest();
        let opening = if operation.starts_with("path_open") { Rights::PATH_OPEN } else { *needed };
        for fd in [FILE, ROOT, SOCKET, LISTENER] {
            guest.drop_rights(fd, !(*needed | opening));
        }
        assert_eq!(attempt(&mut guest, operation), Ok(()), "{operation} with {needed:?} alone");
    }
}

#[test]
fn opened_files_get_no_right_that_the_directory_does_not_hand_on() {
    let (mut guest, _peers) = guest();
    let (base, inheriting) = guest.rights(ROOT);
    let kept = inheriting & !Rights::FD_WRITE;
    guest.call(|c, m| fds::fd_fdstat_set_rights(c, m, ROOT, base.bits(), kept.bits())).unwrap();
    assert_eq!(guest.open("file", 0), Err(Errno::Notcapable));
    let write = Rights::FD_WRITE.bits();
    let inherit = guest.open_full(ROOT, 0, "dir", DIRECTORY, (0, write), 0);
    assert_eq!(inherit, Err(Errno::Notcapable), "nor to what is opened beneath");
    let fd = guest.open_full(ROOT, 0, "file", 0, (kept.bits(), 0), 0).unwrap();
    assert_eq!(guest.write(fd, b"x"), Err(Errno::Notcapable));
    let kept = kept & !(Rights::FD_DATASYNC | Rights::FD_SYNC);
    guest.call(|c, m| fds::fd_fdstat_set_rights(c, m, ROOT, base.bits(), kept.bits())).unwrap();
    for fdflags in [2, 8, 16] {
        let opened = guest.open_full(ROOT, 0, "file", 0, (0, 0), fdflags);
        assert_eq!(opened, Err(Errno::Notcapable), "flags {fdflags}");
    }
}

/// Functions that act on a descriptor and need no right by the specification.
const FREE: [&str; 6] = [
    "fd_close",
    "fd_fdstat_get",
    "fd_fdstat_set_rights",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_renumber",
];

#[test]
fn the_list_has_every_function_that_acts_on_a_descriptor() {
    let mut rows = 0;
    for name in FUNCTIONS.iter().map(|function| function.name) {
        let of = |operation: &str| {
            operation
                .strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        };
        let listed = OPERATIONS.iter().filter(|(operation, _)| of(operation)).count();
        let by_descriptor = ["fd_", "path_", "sock_"].iter().any(|family| name.starts_with(family));
        assert_eq!(listed > 0, by_descriptor && !FREE.contains(&name), "{name}");
        rows += listed;
    }
    // The two of `poll_oneoff` are named by what is waited for.
    assert_eq!(rows + 2, OPERATIONS.len());
}

#[test]
fn what_needs_no_right_works_without_any() {
    let (mut guest, _peers) = guest();
    for fd in [FILE, ROOT] {
        guest.drop_rights(fd, Rights::ALL);
        assert_eq!(guest.rights(fd).0, Rights::NONE);
    }
    let out = guest.room(8);
    guest.call(|c, m| fds::fd_prestat_get(c, m, ROOT, out)).unwrap();
    guest.call(|c, m| fds::fd_prestat_dir_name(c, m, ROOT, out, 1)).unwrap();
    guest.call(|c, m| fds::fd_fdstat_set_rights(c, m, ROOT, 0, 0)).unwrap();
    guest.call(|c, m| fds::fd_renumber(c, m, FILE, ROOT)).unwrap();
    guest.close(ROOT).unwrap();
}
