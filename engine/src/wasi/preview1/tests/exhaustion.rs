//! As much as a guest can ask for: an error number, and nothing that grows with it.

use super::*;
use crate::wasi::preview1::{poll, sock};
use std::collections::BTreeSet;
use std::fs::File;
use std::net::{TcpListener, TcpStream};

/// Opens `path` as a directory with all rights that it can have.
fn open_below(guest: &mut Guest, dir: u32, path: &str) -> Result<u32, Errno> {
    let rights = !Rights::FD_WRITE.bits();
    guest.open_full(dir, 0, path, DIRECTORY, (rights, ALL), 0)
}

#[test]
fn a_full_table_leaves_everything_as_it_was() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut guest = Guest::with(|grants| {
        grants.socket(listener.into()).max_descriptors(6);
    });
    fs::write(guest.host("f"), "content").unwrap();
    let _client = TcpStream::connect(address).unwrap();
    let mut last = 0;
    while let Ok(fd) = guest.open("f", 0) {
        last = fd;
    }
    for oflags in [0, CREATE, CREATE | EXCLUSIVE, TRUNCATE] {
        assert_eq!(guest.open("f", oflags), Err(Errno::Mfile));
    }
    assert_eq!(guest.open("new", CREATE), Err(Errno::Mfile));
    let out = guest.room(4);
    let accept = |guest: &mut Guest| guest.call(|c, m| sock::sock_accept(c, m, 4, 4, out));
    assert_eq!(accept(&mut guest), Err(Errno::Mfile));
    assert_eq!(fs::read(guest.host("f")).unwrap(), b"content", "not truncated");
    assert!(!guest.host("new").exists());
    guest.close(last).unwrap();
    assert_eq!(accept(&mut guest), Ok(()), "the connection still waits");
}

#[test]
fn renumbering_for_ever_leaves_nothing_behind() {
    let mut guest = Guest::new();
    let keep = guest.open("keep", CREATE).unwrap();
    for _ in 0..100_000 {
        let fd = guest.open("f", CREATE).unwrap();
        guest.call(|c, m| fds::fd_renumber(c, m, fd, keep)).unwrap();
        assert_eq!(guest.call(|c, m| fds::fd_renumber(c, m, keep, fd)), Err(Errno::Badf));
        guest.call(|c, m| fds::fd_renumber(c, m, keep, keep)).unwrap();
    }
    assert_eq!(guest.open("f", 0), Ok(keep + 1), "numbers are not used up");
    guest.call(|c, m| fds::fd_renumber(c, m, keep, ROOT)).unwrap();
    assert_eq!(guest.open("f", 0), Err(Errno::Notdir), "the preopen is a file now");
    let prestat = guest.call(|c, m| fds::fd_prestat_get(c, m, ROOT, 0));
    assert_eq!(prestat, Err(Errno::Badf), "and no preopen");
}

/// The kernel refuses lists longer than the limit of descriptors, however often one is named.
#[test]
fn thousands_of_subscriptions_of_the_same_descriptors_work() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const COUNT: u32 = 4096;
    // For good: the tests of this program need fewer, and this is what most systems set.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(1024), ..limit }).unwrap();
    let (idle, _writer) = rustix::pipe::pipe().unwrap();
    let (ready, writer) = rustix::pipe::pipe().unwrap();
    rustix::io::write(&writer, b"x").unwrap();
    let mut guest = Guest::with(|grants| {
        grants.stdin(idle).stdout(writer).stderr(ready);
    });
    guest.memory = vec![0; 1 << 20];
    let (subscriptions, events) = (8192, 8192 + 48 * COUNT);
    for n in 0..COUNT {
        let at = (subscriptions + 48 * n) as usize;
        guest.memory[at..at + 4].copy_from_slice(&n.to_le_bytes());
        // Reads of the idle pipe, room in the other one, what is in it.
        guest.memory[at + 8] = [1, 2, 1][n as usize % 3];
        guest.memory[at + 16] = [0, 1, 2][n as usize % 3];
    }
    guest.call(|c, m| poll::poll_oneoff(c, m, subscriptions, events, COUNT, 64)).unwrap();
    let happened: Vec<u32> = (0..guest.u32_at(64)).map(|n| guest.u32_at(events + 32 * n)).collect();
    let expected: Vec<u32> = (0..COUNT).filter(|n| n % 3 != 0).collect();
    assert_eq!(happened, expected);
}

#[test]
fn directories_deeper_than_any_path_are_reached_step_by_step() {
    const DEPTH: usize = 200;
    let mut guest = Guest::new();
    let name = "d".repeat(250);
    let mut way = vec![ROOT];
    for _ in 0..DEPTH {
        let at = *way.last().unwrap();
        let (address, len) = guest.put(name.as_bytes());
        guest.call(|c, m| paths::path_create_directory(c, m, at, address, len)).unwrap();
        way.push(open_below(&mut guest, at, &name).unwrap());
    }
    let deepest = *way.last().unwrap();
    let file = guest.open_full(deepest, 0, "f", CREATE, (ALL, 0), 0).unwrap();
    assert_eq!(guest.write(file, b"x"), Ok(1));
    assert_eq!(guest.open_full(deepest, 0, "..", 0, (0, 0), 0), Err(Errno::Perm));
    let whole = vec![&*name; 16].join("/");
    assert_eq!(guest.path_filestat(&whole, 0).unwrap()[2], 3, "{} bytes", whole.len());
    let whole = vec![&*name; 17].join("/");
    assert_eq!(guest.path_filestat(&whole, 0), Err(Errno::Nametoolong));
    let (address, len) = guest.put(b"f");
    guest.call(|c, m| paths::path_unlink_file(c, m, deepest, address, len)).unwrap();
    for at in way.into_iter().rev().skip(1) {
        let (address, len) = guest.put(name.as_bytes());
        guest.call(|c, m| paths::path_remove_directory(c, m, at, address, len)).unwrap();
    }
}

#[test]
fn names_and_paths_have_the_hosts_lengths() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), "").unwrap();
    let (longest, too_long) = ("ä".repeat(127) + "x", "ä".repeat(128));
    let open = guest.open(&longest, CREATE).unwrap();
    guest.close(open).unwrap();
    guest.rename(&longest, "g").unwrap();
    guest.rename("g", &longest).unwrap();
    let all: [(&str, Result<(), Errno>); 11] = [
        ("open", guest.open(&too_long, CREATE).map(drop)),
        ("mkdir", guest.mkdir(&too_long)),
        ("rmdir", guest.rmdir(&too_long)),
        ("unlink", guest.unlink(&too_long)),
        ("stat", guest.path_filestat(&too_long, 0).map(drop)),
        ("times", guest.set_times(&too_long, 0, 1, 4)),
        ("rename from", guest.rename(&too_long, "x")),
        ("rename to", guest.rename("f", &too_long)),
        ("link to", guest.link(0, "f", &too_long)),
        ("symlink", guest.symlink("f", &too_long)),
        ("readlink", guest.readlink(&too_long, 9).map(drop)),
    ];
    for (operation, result) in all {
        assert_eq!(result, Err(Errno::Nametoolong), "{operation}");
    }
    let path = "./".repeat(2047) + "f";
    assert_eq!(path.len(), 4095);
    assert!(guest.path_filestat(&path, 0).is_ok());
    assert_eq!(guest.path_filestat(&format!("/{path}"), 0), Err(Errno::Nametoolong));
    assert_eq!(guest.symlink(&format!("{path}f"), "l"), Err(Errno::Nametoolong));
    guest.symlink(&path, "l").unwrap();
    assert_eq!(guest.readlink("l", 5000).map(|content| content.len()), Ok(4095));
    let huge = guest.call(|c, m| paths::path_unlink_file(c, m, ROOT, 0, u32::MAX));
    assert_eq!(huge, Err(Errno::Nametoolong));
}

#[test]
fn long_lists_of_buffers_are_cut_and_huge_ones_refused() {
    let (null, zero) = (File::create("/dev/null").unwrap(), File::open("/dev/zero").unwrap());
    let mut guest = Guest::with(|grants| {
        grants.stdin(zero.into()).stdout(null.into());
    });
    let file = guest.open("f", CREATE).unwrap();
    // 2,000 buffers of one byte each.
    for n in 0..2000_u32 {
        let at = 16_384 + 8 * n as usize;
        guest.memory[at..at + 4].copy_from_slice(&n.to_le_bytes());
        guest.memory[at + 4..at + 8].copy_from_slice(&1_u32.to_le_bytes());
    }
    let write = |guest: &mut Guest, fd, count| {
        guest.call(|c, m| files::fd_write(c, m, fd, 16_384, count, 8192))?;
        Ok(guest.u32_at(8192))
    };
    assert_eq!(write(&mut guest, file, 2000), Ok(1024));
    assert_eq!(fs::metadata(guest.host("f")).unwrap().len(), 1024);
    assert_eq!(write(&mut guest, file, 100_000), Err(Errno::Fault), "past the end of memory");
    assert_eq!(write(&mut guest, file, 1 << 29), Err(Errno::Overflow));
    assert_eq!(write(&mut guest, file, u32::MAX), Err(Errno::Overflow));
    let read = |guest: &mut Guest, count| {
        guest.call(|c, m| files::fd_read(c, m, 0, 16_384, count, 8192))?;
        Ok::<_, Errno>(guest.u32_at(8192))
    };
    assert_eq!(read(&mut guest, 2000), Ok(1024));
    // 1,024 times the whole memory: no copy is made of it.
    for n in 0..1024 {
        let at = 16_384 + 8 * n;
        guest.memory[at..at + 8].copy_from_slice(&[0, 0, 0, 0, 0, 0, 1, 0]);
    }
    assert_eq!(write(&mut guest, 1, 1024), Ok(1024 << 16));
    assert_eq!(read(&mut guest, 1024), Ok(1 << 16), "the second buffer overlaps the first");
}

/// One call of `fd_readdir` with a buffer of `room` bytes: names and their cookies.
fn list(guest: &mut Guest, cookie: u64, room: u32) -> (Vec<(String, u64)>, bool) {
    const BUFFER: u32 = 16_384;
    guest.call(|c, m| files::fd_readdir(c, m, ROOT, BUFFER, room, cookie, 8192)).unwrap();
    let used = guest.u32_at(8192);
    let (mut at, mut entries) = (BUFFER, Vec::new());
    while at + 24 <= BUFFER + used {
        let len = guest.u32_at(at + 16);
        if at + 24 + len > BUFFER + used {
            break;
        }
        let name = &guest.memory[(at + 24) as usize..][..len as usize];
        entries.push((String::from_utf8(name.to_vec()).unwrap(), {
            let next = &guest.memory[at as usize..][..8];
            u64::from_le_bytes(next.try_into().unwrap())
        }));
        at += 24 + len;
    }
    (entries, used < room)
}

/// Every entry from the beginning.
fn list_all(guest: &mut Guest, room: u32) -> Vec<(String, u64)> {
    let (mut all, mut cookie) = (Vec::new(), 0);
    loop {
        let (entries, end) = list(guest, cookie, room);
        cookie = entries.last().map_or(cookie, |(_, next)| *next);
        all.extend(entries);
        if end {
            return all;
        }
    }
}

#[test]
fn a_hundred_thousand_entries_are_listed_while_some_disappear() {
    const COUNT: usize = 100_000;
    let mut guest = Guest::new();
    let name = |n: usize| format!("entry-{n}");
    for n in 0..COUNT {
        fs::write(guest.host(&name(n)), "").unwrap();
    }
    let all = list_all(&mut guest, 300);
    let names: BTreeSet<&str> = all.iter().map(|(name, _)| &**name).collect();
    assert_eq!((all.len(), names.len()), (COUNT + 2, COUNT + 2), "each once");

    // Cookies in any order, while every third entry is removed.
    let mut random = 1_usize;
    for n in 0..COUNT / 3 {
        fs::remove_file(guest.host(&name(3 * n))).unwrap();
        if n % 16 != 0 {
            continue;
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = (random >> 33) % (COUNT - 200);
        let (entries, _) = list(&mut guest, all[at].1, 200);
        // Those that are gone may be missing, the others follow in their order.
        let mut rest = all[at + 1..].iter();
        for (name, _) in &entries {
            assert!(rest.by_ref().any(|(known, _)| known == name), "{name} out of order");
        }
    }
    let left: BTreeSet<String> = list_all(&mut guest, 4096).into_iter().map(|e| e.0).collect();
    let expected = COUNT - COUNT / 3 + 2;
    assert_eq!(left.len(), expected);

    // As a recursive removal does: what a call lists is gone before the next one.
    let mut cookie = 0;
    loop {
        let (entries, end) = list(&mut guest, cookie, 1000);
        for (name, next) in entries {
            cookie = next;
            if !name.starts_with('.') {
                guest.unlink(&name).unwrap();
            }
        }
        if end {
            break;
        }
    }
    assert_eq!(fs::read_dir(guest.host(".")).unwrap().count(), 0);
}
