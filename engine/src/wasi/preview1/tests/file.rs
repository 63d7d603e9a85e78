//! Reading, writing, positions, listing.

use super::*;
use std::collections::BTreeSet;
use std::io::{Read, Write};

#[test]
fn bytes_written_are_read_back_at_positions() {
    let mut guest = Guest::new();
    let fd = guest.open("f", CREATE).unwrap();
    assert_eq!(guest.write(fd, b"hello world"), Ok(11));
    assert_eq!(guest.seek(fd, 0, 1), Ok(11));
    assert_eq!(guest.seek(fd, -5, 2), Ok(6));
    assert_eq!(guest.read(fd, 100), Ok(b"world".to_vec()));
    assert_eq!(guest.read(fd, 100), Ok(vec![]));
    assert_eq!(guest.seek(fd, 2, 0), Ok(2));
    let out = guest.room(8);
    guest.call(|c, m| files::fd_tell(c, m, fd, out)).unwrap();
    assert_eq!(guest.u64_at(out), 2);

    assert_eq!(guest.seek(fd, -1, 0), Err(Errno::Inval));
    assert_eq!(guest.seek(fd, -100, 1), Err(Errno::Inval));
    assert_eq!(guest.seek(fd, 0, 3), Err(Errno::Inval));
    assert_eq!(guest.seek(ROOT, 0, 0), Err(Errno::Isdir));
    assert_eq!(guest.seek(99, 0, 0), Err(Errno::Badf));
    assert_eq!(guest.call(|c, m| files::fd_tell(c, m, ROOT, out)), Err(Errno::Isdir));
    assert_eq!(guest.read(ROOT, 1), Err(Errno::Isdir));
    assert_eq!(guest.write(ROOT, b"x"), Err(Errno::Isdir));
    assert_eq!(guest.read(99, 1), Err(Errno::Badf));
}

#[test]
fn positioned_calls_leave_the_position_alone() {
    let mut guest = Guest::new();
    let fd = guest.open("f", CREATE).unwrap();
    guest.write(fd, b"0123456789").unwrap();
    let ((list, buffer), out) = (guest.iovec(b"ab"), guest.room(4));
    guest.call(|c, m| files::fd_pwrite(c, m, fd, list, 1, 4, out)).unwrap();
    assert_eq!(guest.u32_at(out), 2);
    guest.call(|c, m| files::fd_pread(c, m, fd, list, 1, 3, out)).unwrap();
    assert_eq!(&guest.memory[buffer as usize..][..2], b"3a");
    assert_eq!(guest.seek(fd, 0, 1), Ok(10));
    assert_eq!(fs::read(guest.host("f")).unwrap(), b"0123ab6789");
    for offset in [u64::MAX, i64::MAX as u64 + 1] {
        let read = guest.call(|c, m| files::fd_pread(c, m, fd, list, 1, offset, out));
        let write = guest.call(|c, m| files::fd_pwrite(c, m, fd, list, 1, offset, out));
        assert_eq!((read, write), (Err(Errno::Inval), Err(Errno::Inval)));
    }
    let dir = guest.call(|c, m| files::fd_pread(c, m, ROOT, list, 1, 0, out));
    assert_eq!(dir, Err(Errno::Isdir));
}

#[test]
fn append_mode_comes_and_goes() {
    let mut guest = Guest::new();
    let fd = guest.open_full(ROOT, 0, "f", CREATE, (ALL, 0), 1).unwrap();
    guest.write(fd, b"aa").unwrap();
    guest.seek(fd, 0, 0).unwrap();
    guest.write(fd, b"bb").unwrap();
    assert_eq!(guest.seek(fd, 0, 1), Ok(4));
    let ((list, _), out) = (guest.iovec(b"X"), guest.room(4));
    guest.call(|c, m| files::fd_pwrite(c, m, fd, list, 1, 0, out)).unwrap();
    guest.call(|c, m| fds::fd_fdstat_set_flags(c, m, fd, 0)).unwrap();
    guest.seek(fd, 1, 0).unwrap();
    guest.write(fd, b"cc").unwrap();
    assert_eq!(fs::read(guest.host("f")).unwrap(), b"Xccb");
    guest.call(|c, m| fds::fd_fdstat_set_flags(c, m, fd, 1 | 2 | 8 | 16)).unwrap();
    guest.write(fd, b"!").unwrap();
    assert_eq!(fs::read(guest.host("f")).unwrap(), b"Xccb!");
}

#[test]
fn several_buffers_are_gathered_and_scattered_in_order() {
    let mut guest = Guest::new();
    let fd = guest.open("f", CREATE).unwrap();
    let parts: Vec<(u32, u32)> =
        [&b"one "[..], b"", b"two ", b"three"].iter().map(|part| guest.put(part)).collect();
    let list: Vec<u8> = parts
        .iter()
        .rev()
        .flat_map(|(at, len)| [at.to_le_bytes(), len.to_le_bytes()].concat())
        .collect();
    let ((list, _), out) = (guest.put(&list), guest.room(4));
    guest.call(|c, m| files::fd_write(c, m, fd, list, 4, out)).unwrap();
    assert_eq!(fs::read(guest.host("f")).unwrap(), b"threetwo one ");
    guest.seek(fd, 0, 0).unwrap();
    for (at, len) in &parts {
        guest.memory[*at as usize..][..*len as usize].fill(0);
    }
    guest.call(|c, m| files::fd_read(c, m, fd, list, 4, out)).unwrap();
    assert_eq!(guest.u32_at(out), 13);
    let (three, one) = (parts[3].0 as usize, parts[0].0 as usize);
    assert_eq!(
        (&guest.memory[three..][..5], &guest.memory[one..][..4]),
        (&b"three"[..], &b"one "[..])
    );
    guest.call(|c, m| files::fd_write(c, m, fd, list, 0, out)).unwrap();
    assert_eq!(guest.u32_at(out), 0);
}

#[test]
fn pipes_respect_the_guests_mode_and_not_the_hosts() {
    let (reader, mut far_writer) = std::io::pipe().unwrap();
    let (mut far_reader, writer) = std::io::pipe().unwrap();
    // The host's side happens not to block, as pipes of some parents.
    rustix::io::ioctl_fionbio(&reader, true).unwrap();
    let mut guest = Guest::with(|grants| {
        grants.stdin(reader.into()).stdout(writer.into());
    });
    for fd in [0, 1] {
        guest.call(|c, m| fds::fd_fdstat_set_flags(c, m, fd, 4)).unwrap();
    }
    assert_eq!(guest.read(0, 4), Err(Errno::Again));
    far_writer.write_all(b"data").unwrap();
    assert_eq!(guest.read(0, 9), Ok(b"data".to_vec()));
    let mut sent = 0;
    let full = loop {
        match guest.write(1, &[b'x'; 10_000]) {
            Ok(count) => sent += count as usize,
            Err(error) => break error,
        }
    };
    assert_eq!(full, Errno::Again);
    let mut buffer = vec![0; sent];
    far_reader.read_exact(&mut buffer).unwrap();
    assert!(sent >= 4096 && buffer.iter().all(|&b| b == b'x'));

    guest.call(|c, m| fds::fd_fdstat_set_flags(c, m, 0, 0)).unwrap();
    let late = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(30));
        far_writer.write_all(b"late").unwrap();
        drop(far_writer);
    });
    assert_eq!(guest.read(0, 9), Ok(b"late".to_vec()), "waits though the host's end does not");
    late.join().unwrap();
    assert_eq!(guest.read(0, 9), Ok(vec![]));
    drop(far_reader);
    assert_eq!(guest.write(1, b"x"), Err(Errno::Pipe), "and no SIGPIPE");
    let ((list, _), out) = (guest.iovec(b"X"), guest.room(4));
    let at = guest.call(|c, m| files::fd_pread(c, m, 0, list, 1, 0, out));
    assert_eq!(at, Err(Errno::Spipe));
}

#[test]
fn advice_is_checked() {
    let mut guest = Guest::new();
    let fd = guest.open("f", CREATE).unwrap();
    for advice in 0..6 {
        guest.call(|c, m| files::fd_advise(c, m, fd, 10, 50, advice)).unwrap();
    }
    let bad = |guest: &mut Guest, fd, offset, len, advice| {
        guest.call(|c, m| files::fd_advise(c, m, fd, offset, len, advice)).unwrap_err()
    };
    assert_eq!(bad(&mut guest, fd, 0, 0, 6), Errno::Inval);
    assert_eq!(bad(&mut guest, fd, u64::MAX, 1, 0), Errno::Inval);
    assert_eq!(bad(&mut guest, fd, i64::MAX as u64, 1, 0), Errno::Inval);
    assert_eq!(bad(&mut guest, ROOT, 0, 0, 0), Errno::Isdir);
}

#[test]
fn allocation_extends_and_never_shrinks() {
    let mut guest = Guest::new();
    let fd = guest.open("f", CREATE).unwrap();
    let mut allocate = |offset, len| {
        let result = guest.call(|c, m| files::fd_allocate(c, m, fd, offset, len));
        (result, fs::metadata(guest.host("f")).unwrap().len())
    };
    assert_eq!(allocate(0, 100), (Ok(()), 100));
    assert_eq!(allocate(10, 10), (Ok(()), 100));
    assert_eq!(allocate(90, 20), (Ok(()), 110));
    assert_eq!(allocate(0, 0), (Err(Errno::Inval), 110));
    assert_eq!(allocate(u64::MAX, 2), (Err(Errno::Inval), 110));
    let reader = guest.open_read("f").unwrap();
    let refused = guest.call(|c, m| files::fd_allocate(c, m, reader, 0, 500));
    assert_eq!(refused, Err(Errno::Notcapable));
}

struct Listed {
    name: String,
    next: u64,
    kind: u8,
    inode: u64,
}

/// One call of `fd_readdir`: the whole entries, and whether the directory ended.
fn list(guest: &mut Guest, fd: u32, cookie: u64, room: usize) -> (Vec<Listed>, bool) {
    let (buffer, out) = (16_384, guest.room(4));
    guest.call(|c, m| files::fd_readdir(c, m, fd, buffer, room as u32, cookie, out)).unwrap();
    let used = guest.u32_at(out) as usize;
    let mut rest = &guest.memory[buffer as usize..][..used];
    let mut entries = Vec::new();
    while rest.len() >= 24 {
        let word = |at: usize| u64::from_le_bytes(rest[at..at + 8].try_into().unwrap());
        let len = word(16) as u32 as usize;
        if rest.len() < 24 + len {
            break;
        }
        let name = String::from_utf8(rest[24..24 + len].to_vec()).unwrap();
        entries.push(Listed { name, next: word(0), inode: word(8), kind: rest[20] });
        rest = &rest[24 + len..];
    }
    (entries, used < room)
}

#[test]
fn an_empty_directory_lists_itself_and_its_parent() {
    let mut guest = Guest::new();
    let (mut entries, end) = list(&mut guest, ROOT, 0, 4096);
    assert!(end);
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!([&*entries[0].name, &*entries[1].name], [".", ".."]);
    assert!(entries.iter().all(|entry| entry.kind == 3));
    assert_eq!(entries[0].inode, guest.filestat(ROOT).unwrap()[1]);
}

#[test]
fn a_listing_continues_at_any_cookie_with_any_buffer() {
    let mut guest = Guest::new();
    let mut expected: BTreeSet<String> = [".".into(), "..".into()].into();
    for n in 0..700 {
        let name = format!("{n}{}", "x".repeat(n % 40));
        fs::write(guest.host(&name), "").unwrap();
        expected.insert(name);
    }
    fs::create_dir(guest.host("sub")).unwrap();
    std::os::unix::fs::symlink("sub", guest.host("link")).unwrap();
    expected.extend(["sub".into(), "link".into()]);
    for room in [100, 333, 4096, 32_768] {
        let (mut seen, mut cookie, mut order) = (BTreeSet::new(), 0, Vec::new());
        loop {
            let (entries, end) = list(&mut guest, ROOT, cookie, room);
            for entry in entries {
                cookie = entry.next;
                match &*entry.name {
                    "sub" => assert_eq!(entry.kind, 3),
                    "link" => assert_eq!(entry.kind, 7),
                    _ => {}
                }
                assert!(seen.insert(entry.name.clone()), "{} twice", entry.name);
                order.push(entry);
            }
            if end {
                break;
            }
        }
        assert_eq!(seen, expected, "buffer of {room}");
        // Any entry can be returned to, in any order.
        for at in [500, 3, 699, 0, 350] {
            let (entries, _) = list(&mut guest, ROOT, order[at].next, room);
            assert_eq!(entries[0].name, order[at + 1].name);
        }
    }
}

#[test]
fn a_listing_from_the_beginning_is_fresh() {
    let mut guest = Guest::new();
    assert_eq!(list(&mut guest, ROOT, 0, 4096).0.len(), 2);
    fs::write(guest.host("new"), "").unwrap();
    assert_eq!(list(&mut guest, ROOT, 0, 4096).0.len(), 3);
    let out = guest.room(4);
    let call = |guest: &mut Guest, fd, cookie| {
        guest.call(|c, m| files::fd_readdir(c, m, fd, 16_384, 4096, cookie, out)).unwrap_err()
    };
    assert_eq!(call(&mut guest, ROOT, u64::MAX), Errno::Inval);
    assert_eq!(call(&mut guest, 99, 0), Errno::Badf);
    let file = guest.open("new", 0).unwrap();
    assert_eq!(call(&mut guest, file, 0), Errno::Notdir);
}
