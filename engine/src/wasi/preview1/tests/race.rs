//! A tree that changes while the guest acts in it.

use super::*;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the guest acts in each race, at least.
const ROUNDS: u32 = 100_000;
/// A race that has not shown both states by then has proved nothing.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a guest met.
#[derive(Debug, Default)]
struct Met {
    inside: u32,
    refused: u32,
    again: u32,
}

impl Met {
    fn both(&self) -> bool {
        self.inside > 0 && self.refused > 0
    }
}

/// A guest with `real/inside` and `leaf`, and beside them links of the same names but `evil` that
/// lead to a folder outside, which holds the same.
fn world() -> (Guest, PathBuf) {
    let guest = Guest::new();
    let outside = guest.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(guest.host("real")).unwrap();
    for (dir, content) in [(&outside, "outside"), (&guest.host("real"), "inside")] {
        fs::write(dir.join("inside"), content).unwrap();
    }
    fs::write(outside.join("canary"), "canary").unwrap();
    fs::write(guest.host("leaf"), "inside").unwrap();
    symlink("../outside", guest.host("evil")).unwrap();
    symlink("../outside/inside", guest.host("evil-leaf")).unwrap();
    (guest, outside)
}

/// Ends the other thread also when this one fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Lets the guest act while another thread swaps two names for each other.
fn race(guest: &mut Guest, names: [&str; 2], mut act: impl FnMut(&mut Guest, u32, &mut Met)) {
    let stop = AtomicBool::new(false);
    let root = open_dir(&guest.host("."));
    let mut met = Met::default();
    let mut rounds = 0;
    let swaps = std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let mut swaps = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(&root, names[0], &root, names[1], exchange).unwrap();
                swaps += 1;
            }
            swaps
        });
        let _stop = StopAtEnd(&stop);
        let begun = Instant::now();
        while rounds < ROUNDS || !met.both() && begun.elapsed() < PATIENCE {
            act(guest, rounds, &mut met);
            rounds += 1;
        }
        stop.store(true, Ordering::Relaxed);
        swapper.join().unwrap()
    });
    println!("{rounds} rounds, {swaps} swaps: {met:?}");
    assert!(met.both() && swaps > 1000, "both states were met: {met:?}, {swaps} swaps");
    // The kernel asks to try again when a rename races with `..`; that is done here, not by guests.
    assert!(met.again < rounds / 100, "{met:?}");
}

/// Notes what became of an open, whose file must be the one inside.
fn note(guest: &mut Guest, opened: Result<u32, Errno>, met: &mut Met) {
    match opened {
        Ok(fd) => {
            assert_eq!(guest.read(fd, 16), Ok(b"inside".to_vec()));
            guest.close(fd).unwrap();
            met.inside += 1;
        }
        Err(Errno::Perm | Errno::Loop) => met.refused += 1,
        Err(Errno::Again) => met.again += 1,
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn opening_through_a_directory_that_turns_into_a_link_stays_inside() {
    let (mut guest, outside) = world();
    let secret = fs::metadata(outside.join("inside")).unwrap().ino();
    race(&mut guest, ["real", "evil"], |guest, round, met| {
        // The second path makes the kernel look back over its shoulder.
        let path = ["real/inside", "real/../real/./inside"][round as usize % 2];
        let opened = guest.open_read(path);
        note(guest, opened, met);
        match guest.path_filestat(path, round / 2 % 2) {
            Ok(stat) => assert_ne!(stat[1], secret, "{path}"),
            Err(Errno::Perm | Errno::Again) => {}
            Err(other) => panic!("{path}: {other:?}"),
        }
    });
}

#[test]
fn a_file_that_turns_into_a_link_is_never_the_one_outside() {
    let (mut guest, outside) = world();
    let secret = fs::metadata(outside.join("inside")).unwrap();
    race(&mut guest, ["leaf", "evil-leaf"], |guest, round, met| {
        let follow = round % 2;
        let read = Rights::FD_READ.bits();
        let opened = guest.open_full(ROOT, follow, "leaf", 0, (read, 0), 0);
        note(guest, opened, met);
        if let Ok(stat) = guest.path_filestat("leaf", follow) {
            assert_ne!(stat[1], secret.ino());
        }
        match guest.set_times("leaf", follow, 1_000_000_007, 4) {
            Ok(()) | Err(Errno::Perm | Errno::Again) => {}
            other => panic!("{other:?}"),
        }
        if round % 16 == 0 {
            let appended = guest.open_full(ROOT, FOLLOW, "leaf", CREATE, (ALL, 0), 0);
            assert!(matches!(appended, Ok(_) | Err(Errno::Perm | Errno::Again)), "{appended:?}");
            if let Ok(fd) = appended {
                guest.close(fd).unwrap();
            }
        }
    });
    let after = fs::metadata(outside.join("inside")).unwrap();
    assert_eq!((after.mtime(), after.len()), (secret.mtime(), secret.len()));
}

#[test]
fn changes_beneath_a_directory_that_turns_into_a_link_stay_inside() {
    let (mut guest, outside) = world();
    let before = snapshot(&outside);
    race(&mut guest, ["real", "evil"], |guest, round, met| {
        let opened = guest.open_full(ROOT, FOLLOW, "real/new", CREATE, (ALL, 0), 0);
        match opened {
            Ok(fd) => {
                guest.write(fd, b"x").unwrap();
                guest.close(fd).unwrap();
                met.inside += 1;
            }
            Err(Errno::Perm) => met.refused += 1,
            Err(Errno::Again) => met.again += 1,
            Err(other) => panic!("{other:?}"),
        }
        let done = match round % 10 {
            0 => guest.mkdir("real/dir"),
            1 => guest.rename("real/new", "real/moved"),
            2 => guest.rename("real/new", "out-of-real"),
            3 => guest.unlink("real/moved"),
            4 => guest.rmdir("real/dir"),
            5 => guest.link(0, "real/inside", "real/linked"),
            6 => guest.unlink("real/linked"),
            7 => guest.symlink("inside", "real/soft"),
            8 => guest.unlink("real/soft"),
            _ => guest.set_times("real/inside", FOLLOW, 5, 4),
        };
        let usual = [Errno::Perm, Errno::Noent, Errno::Exist, Errno::Again];
        assert!(done.is_ok() || usual.map(Err).contains(&done), "{round}: {done:?}");
        assert_ne!(guest.unlink("real/canary"), Ok(()), "only outside is one");
        assert_ne!(guest.rename("real/canary", "canary"), Ok(()));
        assert!(guest.readlink("real/canary", 9).is_err());
    });
    assert_eq!(snapshot(&outside), before);
}

/// The names in a folder, with what they hold and when that was changed.
fn snapshot(dir: &Path) -> Vec<(std::ffi::OsString, Vec<u8>, i64, i64)> {
    let mut entries: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            (entry.file_name(), fs::read(entry.path()).unwrap(), meta.mtime(), meta.ctime_nsec())
        })
        .collect();
    entries.sort();
    entries
}
