//! Descriptors as such.

use super::*;
use std::os::unix::fs::FileTypeExt;

#[test]
fn preopens_are_named_and_nothing_else_is() {
    let mut guest = Guest::new();
    let out = guest.room(8);
    guest.call(|c, m| fds::fd_prestat_get(c, m, ROOT, out)).unwrap();
    assert_eq!((guest.memory[out as usize], guest.u32_at(out + 4)), (0, 1));
    let name = guest.room(4);
    guest.call(|c, m| fds::fd_prestat_dir_name(c, m, ROOT, name, 4)).unwrap();
    assert_eq!(&guest.memory[name as usize..][..2], b"/\0");
    let short = guest.call(|c, m| fds::fd_prestat_dir_name(c, m, ROOT, name, 0));
    assert_eq!(short, Err(Errno::Nametoolong));

    let file = guest.open("file", CREATE).unwrap();
    for fd in [file, 0, 99] {
        assert_eq!(guest.call(|c, m| fds::fd_prestat_get(c, m, fd, out)), Err(Errno::Badf));
        let name = guest.call(|c, m| fds::fd_prestat_dir_name(c, m, fd, name, 9));
        assert_eq!(name, Err(Errno::Badf));
    }
}

#[test]
fn closing_frees_the_number_and_the_host_descriptor() {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let mut guest = Guest::with(|grants| {
        grants.stdout(writer);
    });
    assert_eq!(guest.write(1, b"x"), Ok(1));
    guest.close(1).unwrap();
    assert_eq!(guest.close(1), Err(Errno::Badf));
    let mut buffer = [0; 8];
    assert_eq!(rustix::io::read(&reader, &mut buffer), Ok(1));
    assert_eq!(rustix::io::read(&reader, &mut buffer), Ok(0), "the write end is closed");
    assert_eq!(guest.open("file", CREATE), Ok(0), "lowest free number");
    guest.close(ROOT).unwrap();
    let out = guest.room(8);
    assert_eq!(guest.call(|c, m| fds::fd_prestat_get(c, m, ROOT, out)), Err(Errno::Badf));
}

#[test]
fn renumbering_moves_over_open_descriptors_only() {
    let mut guest = Guest::new();
    let (a, b) = (guest.open("a", CREATE).unwrap(), guest.open("b", CREATE).unwrap());
    guest.write(a, b"from a").unwrap();
    guest.call(|c, m| fds::fd_renumber(c, m, a, b)).unwrap();
    assert_eq!(guest.close(a), Err(Errno::Badf));
    assert_eq!(guest.seek(b, 0, 1), Ok(6));
    assert_eq!(guest.call(|c, m| fds::fd_renumber(c, m, b, a)), Err(Errno::Badf));
    assert_eq!(guest.call(|c, m| fds::fd_renumber(c, m, 77, b)), Err(Errno::Badf));
    guest.call(|c, m| fds::fd_renumber(c, m, b, b)).unwrap();
    guest.call(|c, m| fds::fd_renumber(c, m, b, ROOT)).unwrap();
    assert_eq!(guest.open("c", CREATE), Err(Errno::Notdir), "the preopen is gone");
}

#[test]
fn a_full_table_refuses_before_it_creates() {
    let mut guest = Guest::with(|grants| {
        grants.max_descriptors(6);
    });
    let opened: Vec<u32> = (0..5).map(|n| guest.open(&n.to_string(), CREATE).unwrap()).collect();
    assert_eq!(opened, [0, 1, 2, 4, 5]);
    assert_eq!(guest.open("more", CREATE), Err(Errno::Mfile));
    assert!(!guest.host("more").exists());
    guest.close(4).unwrap();
    assert_eq!(guest.open("more", CREATE), Ok(4));
}

#[test]
fn fdstat_tells_type_and_flags() {
    let mut guest = Guest::new();
    assert_eq!(guest.fdstat(ROOT).unwrap()[..4], [3, 0, 0, 0]);
    let fd = guest.open_full(ROOT, 0, "f", CREATE, (ALL, 0), 1 | 16).unwrap();
    assert_eq!(guest.fdstat(fd).unwrap()[..4], [4, 0, 17, 0]);
    guest.call(|c, m| fds::fd_fdstat_set_flags(c, m, fd, 2 | 4 | 8)).unwrap();
    assert_eq!(guest.fdstat(fd).unwrap()[2], 14);
    assert_eq!(guest.call(|c, m| fds::fd_fdstat_set_flags(c, m, fd, 32)), Err(Errno::Inval));
    assert_eq!(guest.call(|c, m| fds::fd_fdstat_set_flags(c, m, 99, 0)), Err(Errno::Badf));
    assert_eq!(guest.fdstat(99), Err(Errno::Badf));
}

#[test]
fn rights_can_be_given_up_but_not_gained() {
    let mut guest = Guest::new();
    let fd = guest.open("f", CREATE).unwrap();
    let (base, _) = guest.rights(fd);
    guest.drop_rights(fd, Rights::FD_READ);
    assert_eq!(guest.rights(fd).0, base & !Rights::FD_READ);
    let back = guest.call(|c, m| fds::fd_fdstat_set_rights(c, m, fd, base.bits(), 0));
    assert_eq!(back, Err(Errno::Notcapable));
    let inherit = guest.call(|c, m| fds::fd_fdstat_set_rights(c, m, fd, 0, 1));
    assert_eq!(inherit, Err(Errno::Notcapable));
    assert_eq!(guest.call(|c, m| fds::fd_fdstat_set_rights(c, m, 99, 0, 0)), Err(Errno::Badf));
}

#[test]
fn attributes_and_times_are_the_hosts() {
    use std::os::unix::fs::MetadataExt;
    let mut guest = Guest::new();
    let fd = guest.open("f", CREATE).unwrap();
    guest.write(fd, b"12345").unwrap();
    let stat = guest.filestat(fd).unwrap();
    let host = fs::metadata(guest.host("f")).unwrap();
    assert_eq!(stat[..5], [host.dev(), host.ino(), 4, 1, 5]);
    assert_eq!(stat[6], host.mtime() as u64 * 1_000_000_000 + host.mtime_nsec() as u64);

    let set = |guest: &mut Guest, flags| {
        guest.call(|c, m| fds::fd_filestat_set_times(c, m, fd, 1_500_000_001, 7, flags))
    };
    set(&mut guest, 1).unwrap();
    let after = guest.filestat(fd).unwrap();
    assert_eq!((after[5], after[6]), (1_500_000_001, stat[6]));
    set(&mut guest, 4 | 2).unwrap();
    let after = guest.filestat(fd).unwrap();
    assert!(after[5] > 1_600_000_000_000_000_000);
    assert_eq!(after[6], 7);
    for flags in [3, 12, 16] {
        assert_eq!(set(&mut guest, flags), Err(Errno::Inval));
    }
    guest.call(|c, m| fds::fd_filestat_set_times(c, m, ROOT, 5, 5, 5)).unwrap();
    assert_eq!(guest.filestat(ROOT).unwrap()[6], 5);
    assert_eq!(guest.filestat(99), Err(Errno::Badf));
}

#[test]
fn times_that_do_not_fit_are_told_as_the_nearest_that_do() {
    use std::time::{Duration, SystemTime};
    let mut guest = Guest::new();
    let fd = guest.open("f", CREATE).unwrap();
    let epoch = SystemTime::UNIX_EPOCH;
    let far = Duration::from_secs(1 << 36);
    for (time, expected) in [
        (epoch - Duration::from_millis(10_500), Some(0)),
        (epoch - far, Some(0)),
        (epoch + Duration::from_secs(10), Some(10_000_000_000)),
        // File systems keep less than that, each as much as it can.
        (epoch + far, None),
    ] {
        let times = fs::FileTimes::new().set_modified(time).set_accessed(time);
        fs::File::options().write(true).open(guest.host("f")).unwrap().set_times(times).unwrap();
        let told = guest.filestat(fd).unwrap();
        assert_eq!((told[5], told[6]), (told[6], expected.unwrap_or(told[6])), "{time:?}");
        assert_eq!(guest.path_filestat("f", 0), Ok(told));
    }
}

#[test]
fn sizes_change_only_through_writable_descriptors() {
    let mut guest = Guest::new();
    let fd = guest.open("f", CREATE).unwrap();
    guest.call(|c, m| fds::fd_filestat_set_size(c, m, fd, 100)).unwrap();
    assert_eq!(fs::metadata(guest.host("f")).unwrap().len(), 100);
    let huge = guest.call(|c, m| fds::fd_filestat_set_size(c, m, fd, u64::MAX));
    assert_eq!(huge, Err(Errno::Inval));
    let reader = guest.open_read("f").unwrap();
    let refused = guest.call(|c, m| fds::fd_filestat_set_size(c, m, reader, 0));
    assert_eq!(refused, Err(Errno::Notcapable));
    let dir = guest.call(|c, m| fds::fd_filestat_set_size(c, m, ROOT, 0));
    assert_eq!(dir, Err(Errno::Isdir));
    assert_eq!(fs::metadata(guest.host("f")).unwrap().len(), 100);
}

#[test]
fn syncing_works_on_files_and_directories() {
    let mut guest = Guest::new();
    let fd = guest.open("f", CREATE).unwrap();
    for fd in [fd, ROOT] {
        guest.call(|c, m| fds::fd_sync(c, m, fd)).unwrap();
        guest.call(|c, m| fds::fd_datasync(c, m, fd)).unwrap();
    }
    assert_eq!(guest.call(|c, m| fds::fd_sync(c, m, 99)), Err(Errno::Badf));
    assert_eq!(guest.call(|c, m| fds::fd_datasync(c, m, 99)), Err(Errno::Badf));
    let (_reader, writer) = rustix::pipe::pipe().unwrap();
    let mut guest = Guest::with(|grants| {
        grants.stdout(writer);
    });
    assert_eq!(guest.call(|c, m| fds::fd_sync(c, m, 1)), Err(Errno::Inval));
}

#[test]
fn only_terminals_look_like_terminals() {
    let is_terminal = |guest: &mut Guest, fd| {
        let seeks = Rights::FD_SEEK | Rights::FD_TELL;
        guest.fdstat(fd).unwrap()[0] == 2 && guest.rights(fd).0 & seeks == Rights::NONE
    };
    let null = fs::File::open("/dev/null").unwrap();
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    let terminal = fs::OpenOptions::new().read(true).write(true).open("/dev/ptmx").unwrap();
    let mut guest = Guest::with(|grants| {
        grants.stdin(null.into()).stdout(reader).stderr(terminal.into());
    });
    assert!(!is_terminal(&mut guest, 0), "/dev/null");
    assert_eq!(guest.fdstat(1).unwrap()[0], 0, "a pipe has no type of its own");
    assert!(is_terminal(&mut guest, 2));
    assert_eq!(guest.seek(2, 0, 1), Err(Errno::Spipe));
    assert_eq!(guest.seek(1, 0, 1), Err(Errno::Spipe));
    assert_eq!(guest.rights(1).0 & Rights::FD_WRITE, Rights::NONE, "a read end");
}

#[test]
fn inherited_streams_are_those_of_the_process() {
    let mut guest = Guest::with(|grants| {
        grants.inherit_stdio();
    });
    let stdout = fs::metadata("/proc/self/fd/1").unwrap();
    let kind = match stdout.file_type() {
        t if t.is_file() => 4,
        t if t.is_char_device() => 2,
        t if t.is_socket() => 6,
        _ => 0,
    };
    assert_eq!(guest.fdstat(1).unwrap()[0], kind);
    guest.close(1).unwrap();
    assert!(fs::metadata("/proc/self/fd/1").is_ok(), "the process keeps its own");
}
