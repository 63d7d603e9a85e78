//! Paths: opening, changing, and staying inside.

use super::*;
use std::os::unix::fs::symlink;

#[test]
fn opening_creates_truncates_and_excludes() {
    let mut guest = Guest::new();
    assert_eq!(guest.open("f", 0), Err(Errno::Noent));
    let fd = guest.open("f", CREATE | EXCLUSIVE).unwrap();
    guest.write(fd, b"content").unwrap();
    assert_eq!(guest.open("f", CREATE | EXCLUSIVE), Err(Errno::Exist));
    guest.open("f", CREATE).unwrap();
    assert_eq!(fs::read(guest.host("f")).unwrap(), b"content");
    guest.open("f", TRUNCATE).unwrap();
    assert_eq!(fs::read(guest.host("f")).unwrap(), b"");
    assert_eq!(guest.open("f", DIRECTORY), Err(Errno::Notdir));
    assert_eq!(guest.open("f", 16), Err(Errno::Inval));
    for path in ["f", "new", "."] {
        assert_eq!(guest.open(path, CREATE | DIRECTORY), Err(Errno::Inval), "{path}");
    }
    assert!(!guest.host("new").exists());
    assert_eq!(guest.open_full(ROOT, 2, "f", 0, (0, 0), 0), Err(Errno::Inval));
    assert_eq!(guest.open_full(ROOT, 0, "f", 0, (0, 0), 32), Err(Errno::Inval));
    assert_eq!(guest.open_full(fd, 0, "f", 0, (0, 0), 0), Err(Errno::Notdir));
    assert_eq!(guest.open_full(99, 0, "f", 0, (0, 0), 0), Err(Errno::Badf));
    let mode = fs::metadata(guest.host("f")).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o111, 0);
}

#[test]
fn rights_decide_what_a_file_is_opened_for() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), "abc").unwrap();
    let read = Rights::FD_READ.bits();
    let write = Rights::FD_WRITE.bits();
    let reader = guest.open_full(ROOT, 0, "f", 0, (read, 0), 0).unwrap();
    assert_eq!(guest.read(reader, 9), Ok(b"abc".to_vec()));
    assert_eq!(guest.write(reader, b"x"), Err(Errno::Notcapable));
    let writer = guest.open_full(ROOT, 0, "f", 0, (write, 0), 0).unwrap();
    assert_eq!(guest.write(writer, b"x"), Ok(1));
    assert_eq!(guest.read(writer, 1), Err(Errno::Notcapable));
    let both = guest.open_full(ROOT, 0, "f", 0, (read | write, 0), 0).unwrap();
    assert_eq!(guest.read(both, 9), Ok(b"xbc".to_vec()));
    assert_eq!(guest.write(both, b"!"), Ok(1));
    guest.mkdir("d").unwrap();
    let dir = guest.open_full(ROOT, 0, "d", DIRECTORY, (read | write, 0), 0);
    assert_eq!(dir, Err(Errno::Isdir));
    let dir = guest.open_full(ROOT, 0, "d", DIRECTORY, (Rights::FD_SEEK.bits(), 0), 4).unwrap();
    assert_eq!(guest.rights(dir).0, Rights::NONE);
    assert_eq!(guest.seek(dir, 0, 1), Err(Errno::Isdir));
}

#[test]
fn paths_stay_beneath_their_directory() {
    let mut guest = Guest::new();
    fs::write(guest.dir.path().join("secret"), "secret").unwrap();
    fs::create_dir(guest.dir.path().join("outside")).unwrap();
    fs::create_dir_all(guest.host("a/b")).unwrap();
    fs::write(guest.host("a/b/f"), "inside").unwrap();
    let absolute = guest.dir.path().join("secret");
    symlink(&absolute, guest.host("absolute")).unwrap();
    symlink("../secret", guest.host("up")).unwrap();
    symlink("../outside", guest.host("updir")).unwrap();
    symlink("/", guest.host("slash")).unwrap();
    symlink("..", guest.host("a/parent")).unwrap();
    symlink("/proc/self/root", guest.host("magic")).unwrap();
    symlink("a/b", guest.host("fine")).unwrap();

    for path in [
        "/etc/passwd",
        "/",
        "//",
        "/..",
        "..",
        "../",
        "../secret",
        "a/../../secret",
        "a/b/../../../secret",
        "absolute",
        "up",
        "updir",
        "updir/",
        "updir/x",
        "slash/etc/passwd",
        "slash",
        "slash/",
        "a/parent/../secret",
        "a/parent/up",
        "magic/etc/passwd",
        "./../root/a",
    ] {
        assert_eq!(guest.open_read(path), Err(Errno::Perm), "open {path}");
        assert_eq!(guest.path_filestat(path, FOLLOW), Err(Errno::Perm), "stat {path}");
        assert_eq!(guest.set_times(path, FOLLOW, 1, 4), Err(Errno::Perm), "times {path}");
        let create = guest.open_full(ROOT, FOLLOW, path, CREATE, (ALL, 0), 0);
        // The kernel refuses to create under a name that ends with a slash before it resolves it.
        let error = if path.ends_with('/') { Errno::Isdir } else { Errno::Perm };
        assert!(matches!(create, Err(e) if e == error || e == Errno::Perm), "create {path}");
    }
    for path in ["../new", "a/../../new", "/new", "updir/new", "slash/tmp/new", "a/parent/../new"] {
        assert_eq!(guest.mkdir(path), Err(Errno::Perm), "mkdir {path}");
        assert_eq!(guest.rmdir(path), Err(Errno::Perm), "rmdir {path}");
        assert_eq!(guest.unlink(path), Err(Errno::Perm), "unlink {path}");
        assert_eq!(guest.rename("a/b/f", path), Err(Errno::Perm), "rename to {path}");
        assert_eq!(guest.rename(path, "x"), Err(Errno::Perm), "rename from {path}");
        assert_eq!(guest.link(0, "a/b/f", path), Err(Errno::Perm), "link to {path}");
        assert_eq!(guest.link(0, path, "x"), Err(Errno::Perm), "link from {path}");
        assert_eq!(guest.symlink("x", path), Err(Errno::Perm), "symlink at {path}");
        assert_eq!(guest.readlink(path, 9), Err(Errno::Perm), "readlink {path}");
    }
    assert_eq!(guest.unlink("../secret"), Err(Errno::Perm));
    for path in ["a/.//b/../../a/b/../b///./f", "fine/f", "a/parent/a/b/f", "./a/b/../b/f"] {
        let fd = guest.open_read(path).unwrap();
        assert_eq!(guest.read(fd, 9), Ok(b"inside".to_vec()), "{path}");
        guest.close(fd).unwrap();
    }
    let outside: Vec<_> = fs::read_dir(guest.dir.path().join("outside")).unwrap().collect();
    assert!(outside.is_empty());
    assert_eq!(fs::read(&absolute).unwrap(), b"secret");
}

#[test]
fn the_directory_itself_and_its_parent_are_no_place_to_change() {
    let mut guest = Guest::new();
    guest.mkdir("d").unwrap();
    fs::write(guest.host("f"), "").unwrap();
    for (path, inside) in
        [(".", true), ("./", true), ("d/..", true), ("..", false), ("d/../..", false)]
    {
        let error = |inner| if inside { inner } else { Errno::Perm };
        assert_eq!(guest.path_filestat(path, 0).is_ok(), inside, "{path}");
        assert_eq!(guest.mkdir(path), Err(error(Errno::Exist)), "{path}");
        assert_eq!(guest.rmdir(path), Err(error(Errno::Inval)), "{path}");
        assert_eq!(guest.unlink(path), Err(error(Errno::Isdir)), "{path}");
        assert_eq!(guest.rename(path, "new"), Err(error(Errno::Busy)), "{path}");
        assert_eq!(guest.rename("d", path), Err(error(Errno::Busy)), "{path}");
        assert_eq!(guest.link(0, path, "new"), Err(error(Errno::Perm)), "{path}");
        assert_eq!(guest.link(0, "f", path), Err(error(Errno::Exist)), "{path}");
        assert_eq!(guest.symlink("f", path), Err(error(Errno::Exist)), "{path}");
        assert_eq!(guest.readlink(path, 9), Err(error(Errno::Inval)), "{path}");
    }
    assert_eq!(fs::read_dir(guest.host(".")).unwrap().count(), 2);
}

#[test]
fn a_chain_of_links_has_an_end() {
    let mut guest = Guest::new();
    fs::write(guest.host("link-0"), "end").unwrap();
    for n in 1..=41 {
        guest.symlink(&format!("link-{}", n - 1), &format!("link-{n}")).unwrap();
    }
    let fd = guest.open_read("link-40").unwrap();
    assert_eq!(guest.read(fd, 9), Ok(b"end".to_vec()));
    assert_eq!(guest.open_read("link-41"), Err(Errno::Loop));
    assert_eq!(guest.path_filestat("link-41", FOLLOW), Err(Errno::Loop));
    let create = guest.open_full(ROOT, FOLLOW, "link-41", CREATE, (ALL, 0), 0);
    assert_eq!(create, Err(Errno::Loop));
}

/// Links of `/proc` lead to what a process holds and not to a path: they would leave any directory.
#[test]
fn links_of_the_kernel_lead_nowhere() {
    let mut guest = Guest::with(|grants| {
        grants.preopen(open_dir(Path::new("/proc/self")), "/proc/self", false);
    });
    let read = (Rights::FD_READ.bits(), 0);
    for path in ["root", "root/etc/passwd", "cwd", "cwd/Cargo.toml", "exe", "fd/0", "fd/0/x"] {
        let opened = guest.open_full(4, FOLLOW, path, 0, read, 0);
        assert_eq!(opened, Err(Errno::Loop), "open {path}");
        let ((at, len), out) = (guest.put(path.as_bytes()), guest.room(64));
        let stat = guest.call(|c, m| paths::path_filestat_get(c, m, 4, FOLLOW, at, len, out));
        assert_eq!(stat, Err(Errno::Loop), "stat {path}");
    }
    let (at, len) = guest.put(b"root/tmp/new");
    let mkdir = guest.call(|c, m| paths::path_create_directory(c, m, 4, at, len));
    assert_eq!(mkdir, Err(Errno::Loop));
    let status = guest.open_full(4, FOLLOW, "status", 0, read, 0).unwrap();
    assert!(guest.read(status, 5).unwrap().starts_with(b"Name:"), "its files are what they are");
}

#[test]
fn devices_in_a_directory_never_hang_an_open() {
    let mut guest = Guest::with(|grants| {
        grants.preopen(open_dir(Path::new("/dev")), "/dev", true);
    });
    let read = (Rights::FD_READ.bits(), 0);
    let null = guest.open_full(4, FOLLOW, "null", 0, read, 0).unwrap();
    assert_eq!(guest.fdstat(null).unwrap()[0], 2);
    assert_eq!(guest.read(null, 9), Ok(vec![]));
    let zero = guest.open_full(4, FOLLOW, "zero", 0, read, 0).unwrap();
    assert_eq!(guest.read(zero, 3), Ok(vec![0; 3]));
    // Whether there is a terminal or not, nothing waits and none becomes this process's own.
    let terminal = guest.open_full(4, FOLLOW, "tty", 0, read, 0);
    assert!(matches!(terminal, Ok(_) | Err(Errno::Nxio | Errno::Noent)), "{terminal:?}");
}

#[test]
fn impossible_paths_are_refused() {
    let mut guest = Guest::new();
    assert_eq!(guest.open("", CREATE), Err(Errno::Noent));
    assert_eq!(guest.open("a\0b", CREATE), Err(Errno::Inval));
    assert_eq!(guest.open(&"x".repeat(256), CREATE), Err(Errno::Nametoolong));
    assert_eq!(guest.open(&"x/".repeat(2100), CREATE), Err(Errno::Nametoolong));
    let (at, len) = guest.put(b"\xff\xfe");
    let mkdir = guest.call(|c, m| paths::path_create_directory(c, m, ROOT, at, len));
    assert_eq!(mkdir, Err(Errno::Ilseq));
    for (content, path) in [(&b"\xff"[..], &b"new"[..]), (b"f", b"\xc0\xaf"), (b"a\0", b"new")] {
        let ((o, ol), (n, nl)) = (guest.put(content), guest.put(path));
        let symlink = guest.call(|c, m| paths::path_symlink(c, m, o, ol, ROOT, n, nl));
        assert!(matches!(symlink, Err(Errno::Ilseq | Errno::Inval)), "{content:?} {path:?}");
        let rename = guest.call(|c, m| paths::path_rename(c, m, ROOT, o, ol, ROOT, n, nl));
        assert!(rename.is_err());
    }
    assert_eq!(fs::read_dir(guest.host(".")).unwrap().count(), 0);
    let fault = guest.call(|c, m| paths::path_create_directory(c, m, ROOT, 65_530, 100));
    assert_eq!(fault, Err(Errno::Fault));
}

#[test]
fn links_are_followed_only_when_asked() {
    let mut guest = Guest::new();
    guest.mkdir("dir").unwrap();
    guest.symlink("dir", "todir").unwrap();
    guest.symlink("missing", "dangling").unwrap();
    guest.symlink("loop", "loop").unwrap();
    assert_eq!(guest.open("todir", DIRECTORY), Err(Errno::Notdir));
    assert_eq!(guest.open("todir", 0), Err(Errno::Loop));
    assert_eq!(guest.open("dangling", 0), Err(Errno::Loop));
    assert_eq!(guest.open("dangling", DIRECTORY), Err(Errno::Notdir));
    assert_eq!(guest.open_read("dangling"), Err(Errno::Noent));
    assert_eq!(guest.open_read("loop"), Err(Errno::Loop));
    assert_eq!(guest.path_filestat("loop", FOLLOW), Err(Errno::Loop));
    let rights = (Rights::FD_READDIR.bits(), 0);
    assert!(guest.open_full(ROOT, FOLLOW, "todir", DIRECTORY, rights, 0).is_ok());
    assert!(guest.open_full(ROOT, 0, "todir/", DIRECTORY, rights, 0).is_ok(), "as lstat does");
    assert_eq!(guest.path_filestat("todir", 0).unwrap()[2], 7);
    assert_eq!(guest.path_filestat("todir", FOLLOW).unwrap()[2], 3);
    assert_eq!(guest.path_filestat("todir/", 0).unwrap()[2], 3);
    assert_eq!(guest.path_filestat("dir/.", 0).unwrap()[2], 3);
    assert_eq!(guest.path_filestat(".", 0).unwrap()[1], guest.filestat(ROOT).unwrap()[1]);
    // Creating through a dangling link makes its target, inside.
    guest.open_full(ROOT, FOLLOW, "dangling", CREATE, (ALL, 0), 0).unwrap();
    assert!(guest.host("missing").is_file());
    assert_eq!(guest.path_filestat("dir", 2), Err(Errno::Inval));
    assert_eq!(guest.path_filestat("nothing", 0), Err(Errno::Noent));
}

#[test]
fn a_slash_at_the_end_means_a_directory() {
    let mut guest = Guest::new();
    fs::write(guest.host("file"), "").unwrap();
    guest.mkdir("dir///").unwrap();
    guest.symlink("dir", "link").unwrap();
    assert_eq!(guest.mkdir("dir/"), Err(Errno::Exist));
    assert_eq!(guest.mkdir("dir/."), Err(Errno::Exist));
    assert_eq!(guest.open("file/", 0), Err(Errno::Notdir));
    assert_eq!(guest.open("file///", 0), Err(Errno::Notdir));
    assert_eq!(guest.open("new/", CREATE), Err(Errno::Isdir));
    assert_eq!(guest.path_filestat("file/", 0), Err(Errno::Notdir));
    assert_eq!(guest.unlink("file/"), Err(Errno::Notdir));
    assert_eq!(guest.unlink("dir"), Err(Errno::Isdir));
    assert_eq!(guest.unlink("dir/"), Err(Errno::Isdir));
    assert_eq!(guest.unlink("link/"), Err(Errno::Notdir));
    assert_eq!(guest.unlink("none/"), Err(Errno::Noent));
    assert_eq!(guest.rmdir("file/"), Err(Errno::Notdir));
    assert_eq!(guest.rmdir("link/"), Err(Errno::Notdir));
    assert_eq!(guest.rmdir("dir/."), Err(Errno::Inval));
    assert_eq!(guest.rename("file/", "x"), Err(Errno::Notdir));
    assert_eq!(guest.rename("file", "x/"), Err(Errno::Notdir));
    assert_eq!(
        guest.rename("link/", "x"),
        Err(Errno::Notdir),
        "links are not moved as directories"
    );
    assert_eq!(guest.rename("link", "x/"), Err(Errno::Notdir));
    assert_eq!(guest.rename("dir", "."), Err(Errno::Busy));
    assert_eq!(guest.link(0, "file", "new/"), Err(Errno::Noent));
    assert_eq!(guest.link(0, "file/", "new"), Err(Errno::Notdir));
    assert_eq!(guest.symlink("x", "new/"), Err(Errno::Noent));
    assert_eq!(guest.symlink("x", "dir/"), Err(Errno::Exist));
    assert_eq!(guest.symlink("x", "file/"), Err(Errno::Notdir));
    assert_eq!(guest.readlink("link/", 9), Err(Errno::Inval));
    assert!(guest.host("link").is_symlink() && guest.host("dir").is_dir());
    for (old, new) in [("dir/", "moved"), ("moved", "dir/"), ("dir/", "moved/"), ("moved", "dir")] {
        guest.rename(old, new).unwrap();
        assert!(guest.host(new).is_dir());
    }
    guest.rmdir("dir/").unwrap();
}

#[test]
fn renaming_replaces_as_posix_says() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), "f").unwrap();
    fs::write(guest.host("g"), "g").unwrap();
    guest.mkdir("d").unwrap();
    guest.mkdir("e").unwrap();
    fs::write(guest.host("e/x"), "").unwrap();
    guest.rename("f", "g").unwrap();
    assert_eq!(fs::read(guest.host("g")).unwrap(), b"f");
    assert_eq!(guest.rename("f", "g"), Err(Errno::Noent));
    assert_eq!(guest.rename("g", "d"), Err(Errno::Isdir));
    assert_eq!(guest.rename("d", "g"), Err(Errno::Notdir));
    assert_eq!(guest.rename("d", "e"), Err(Errno::Notempty));
    assert_eq!(guest.rename("e", "e/sub"), Err(Errno::Inval));
    guest.rename("e", "d").unwrap();
    assert!(guest.host("d/x").exists() && !guest.host("e").exists());
    assert_eq!(guest.rmdir("d"), Err(Errno::Notempty));
    guest.unlink("d/x").unwrap();
    guest.rmdir("d").unwrap();
    assert_eq!(guest.rmdir("d"), Err(Errno::Noent));
    assert_eq!(guest.rmdir("g"), Err(Errno::Notdir));
}

#[test]
fn hard_links_never_follow() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), "f").unwrap();
    guest.mkdir("d").unwrap();
    guest.link(0, "f", "d/same").unwrap();
    assert_eq!(
        guest.path_filestat("d/same", 0).unwrap()[1],
        guest.path_filestat("f", 0).unwrap()[1]
    );
    assert_eq!(guest.path_filestat("f", 0).unwrap()[3], 2);
    for existing in ["f", "d", "d/same"] {
        assert_eq!(guest.link(0, "f", existing), Err(Errno::Exist));
    }
    assert_eq!(guest.link(0, "d", "x"), Err(Errno::Perm));
    assert_eq!(guest.link(0, "none", "x"), Err(Errno::Noent));
    guest.symlink("none", "dangling").unwrap();
    guest.link(0, "dangling", "dangling2").unwrap();
    assert_eq!(guest.readlink("dangling2", 9), Ok(b"none".to_vec()));
    assert_eq!(guest.link(0, "f", "dangling"), Err(Errno::Exist));
    assert_eq!(guest.link(FOLLOW, "dangling", "x"), Err(Errno::Inval));
}

#[test]
fn link_contents_are_read_whole_or_cut() {
    let mut guest = Guest::new();
    guest.symlink("../some/where", "link").unwrap();
    assert_eq!(guest.readlink("link", 100), Ok(b"../some/where".to_vec()));
    assert_eq!(guest.readlink("link", 4), Ok(b"../s".to_vec()));
    assert_eq!(guest.readlink("link", 0), Ok(vec![]));
    fs::write(guest.host("f"), "").unwrap();
    assert_eq!(guest.readlink("f", 4), Err(Errno::Inval));
    assert_eq!(guest.readlink("f", 0), Err(Errno::Inval));
    assert_eq!(guest.readlink("none", 4), Err(Errno::Noent));
    assert_eq!(guest.symlink("/etc/passwd", "bad"), Err(Errno::Perm));
    assert_eq!(guest.symlink("", "bad"), Err(Errno::Noent));
    assert_eq!(guest.symlink("x", "link"), Err(Errno::Exist));
}

#[test]
fn times_of_links_and_their_targets_differ() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), "").unwrap();
    guest.symlink("f", "l").unwrap();
    guest.set_times("l", 0, 1_000_000_007, 1 | 4).unwrap();
    assert_eq!(guest.path_filestat("l", 0).unwrap()[6], 1_000_000_007);
    assert_ne!(guest.path_filestat("f", 0).unwrap()[6], 1_000_000_007);
    guest.set_times("l", FOLLOW, 9, 4).unwrap();
    assert_eq!(guest.path_filestat("f", 0).unwrap()[6], 9);
    assert_eq!(guest.path_filestat("l", 0).unwrap()[6], 1_000_000_007);
    assert_eq!(guest.set_times("f", 0, 9, 3), Err(Errno::Inval));
    assert_eq!(guest.set_times("none", 0, 9, 4), Err(Errno::Noent));
}

#[test]
fn pipes_and_devices_never_hang_an_open() {
    let mut guest = Guest::new();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, guest.host("fifo"), mode).unwrap();
    let reader = guest.open_read("fifo").unwrap();
    assert_eq!(guest.fdstat(reader).unwrap()[0], 0);
    let write = (Rights::FD_WRITE.bits(), 0);
    let writer = guest.open_full(ROOT, 0, "fifo", 0, write, 0).unwrap();
    assert_eq!(guest.write(writer, b"through"), Ok(7));
    assert_eq!(guest.read(reader, 20), Ok(b"through".to_vec()));
    guest.close(reader).unwrap();
    guest.close(writer).unwrap();
    assert_eq!(guest.open_full(ROOT, 0, "fifo", 0, write, 0), Err(Errno::Nxio));
    let socket = guest.host("socket");
    let _listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    assert_eq!(guest.open_read("socket"), Err(Errno::Nxio));
    assert_eq!(guest.path_filestat("socket", 0).unwrap()[2], 6);
}

#[test]
fn a_read_only_grant_changes_nothing() {
    let mut guest = Guest::read_only(|root| {
        fs::write(root.join("f"), "f").unwrap();
        fs::create_dir(root.join("d")).unwrap();
        symlink("f", root.join("l")).unwrap();
    });
    let fd = guest.open_read("f").unwrap();
    assert_eq!(guest.read(fd, 9), Ok(b"f".to_vec()));
    assert_eq!(guest.readlink("l", 9), Ok(b"f".to_vec()));
    let times = guest.call(|c, m| fds::fd_filestat_set_times(c, m, fd, 1, 1, 5));
    assert_eq!(times, Err(Errno::Rofs));
    let times = guest.call(|c, m| fds::fd_filestat_set_times(c, m, ROOT, 1, 1, 5));
    assert_eq!(times, Err(Errno::Rofs));
    assert_eq!(guest.set_times("f", 0, 1, 4), Err(Errno::Rofs));
    assert_eq!(guest.open("f", 0), Err(Errno::Rofs), "for writing");
    let read = (Rights::FD_READ.bits(), 0);
    for (path, oflags, error) in [
        ("f", TRUNCATE, Errno::Rofs),
        ("new", CREATE, Errno::Rofs),
        ("new", CREATE | EXCLUSIVE, Errno::Rofs),
        ("f", CREATE | EXCLUSIVE, Errno::Exist),
    ] {
        assert_eq!(guest.open_full(ROOT, 0, path, oflags, read, 0), Err(error), "{path} {oflags}");
    }
    assert!(guest.open_full(ROOT, 0, "f", CREATE, read, 0).is_ok(), "it exists");
    assert_eq!(guest.mkdir("new"), Err(Errno::Rofs));
    assert_eq!(guest.rmdir("d"), Err(Errno::Rofs));
    assert_eq!(guest.unlink("f"), Err(Errno::Rofs));
    assert_eq!(guest.rename("f", "g"), Err(Errno::Rofs));
    assert_eq!(guest.link(0, "f", "g"), Err(Errno::Rofs));
    assert_eq!(guest.symlink("f", "g"), Err(Errno::Rofs));
    let size = guest.call(|c, m| fds::fd_filestat_set_size(c, m, fd, 0));
    let room = guest.call(|c, m| files::fd_allocate(c, m, fd, 0, 100));
    assert_eq!((size, room), (Err(Errno::Notcapable), Err(Errno::Notcapable)));
    assert_eq!(guest.write(fd, b"x"), Err(Errno::Notcapable));
    assert_eq!(fs::read(guest.host("f")).unwrap(), b"f");
    let sub = guest.open_full(ROOT, 0, "d", DIRECTORY, (!Rights::FD_WRITE.bits(), ALL), 0).unwrap();
    let below = guest.open_full(sub, 0, "new", CREATE, (ALL, 0), 0);
    assert_eq!(below, Err(Errno::Rofs), "and so beneath");
}

#[test]
fn nothing_moves_between_a_read_only_and_a_writable_grant() {
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("f"), "f").unwrap();
    let mut guest = Guest::with(|grants| {
        grants.preopen(open_dir(other.path()), "/ro", true);
    });
    fs::write(guest.host("mine"), "").unwrap();
    assert_eq!(guest.link_at(4, 0, "f", ROOT, "f"), Err(Errno::Rofs), "would be writable");
    assert_eq!(guest.link_at(ROOT, 0, "mine", 4, "mine"), Err(Errno::Rofs));
    assert_eq!(guest.rename_at(4, "f", ROOT, "f"), Err(Errno::Rofs));
    assert_eq!(guest.rename_at(ROOT, "mine", 4, "mine"), Err(Errno::Rofs));
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);
}
