//! The cache on a real file system: what it keeps, what it refuses, who may fill it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File, Permissions};
use std::io::{Cursor, Read};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use coracle_engine::cache::{Bounds, Cache, Fault, Key, Place, Scope};
use coracle_engine::compile::compile;
use coracle_engine::config::Settings;
use coracle_engine::image::{HEADER_SIZE, SEAL};
use coracle_engine::runtime::{Engine, Module, Store};

/// A cache in a folder of its own.
struct Bed {
    place: Place,
    _folder: tempfile::TempDir,
}

impl Bed {
    fn new() -> Bed {
        let folder = tempfile::tempdir().unwrap();
        let (dir, run) = (folder.path().join("a/cache"), Some(folder.path().join("run")));
        Bed { place: Place { dir, run, bounds: Bounds::default() }, _folder: folder }
    }

    fn open(&self) -> Cache {
        Cache::open(&self.place).unwrap()
    }

    fn file(&self, key: &Key) -> PathBuf {
        self.place.dir.join(key.to_string())
    }

    /// As after a restart of the machine.
    fn restart(&self) {
        fs::remove_dir_all(self.place.run.as_ref().unwrap()).unwrap();
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.place.dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn image(result: u32) -> Vec<u8> {
    let text = format!("(module (func (export \"f\") (result i32) (i32.const {result})))");
    compile(text.as_bytes(), &Settings::default()).unwrap()
}

fn key(n: u8) -> Key {
    Key::new(&[n; 32], &Settings::default(), Scope::Node)
}

fn put(cache: &Cache, key: &Key, image: &[u8]) {
    let entry = cache.write(key, &mut Cursor::new(image)).unwrap();
    cache.publish(entry).unwrap();
}

/// What the function of [`image`] gives.
fn run(file: &File) -> i32 {
    let engine = Engine::new();
    let module = Module::from_file(&engine, file).unwrap();
    let mut store = Store::new(&engine).unwrap();
    let instance =
        coracle_engine::runtime::Linker::new(&engine).instantiate(&mut store, &module).unwrap();
    let func = instance.func(&store, "f").unwrap();
    match func.invoke(&mut store, &[]).unwrap()[..] {
        [coracle_engine::runtime::Val::I32(result)] => result,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_published_is_found_and_runs() {
    let bed = Bed::new();
    let cache = bed.open();
    assert!(cache.get(&key(1)).unwrap().is_none());
    let entry = cache.write(&key(1), &mut Cursor::new(image(42))).unwrap();
    assert_eq!(run(&entry.file().unwrap()), 42);
    assert!(cache.get(&key(1)).unwrap().is_none(), "it is not published yet");
    cache.publish(entry).unwrap();
    for cache in [cache, bed.open()] {
        assert_eq!(run(&cache.get(&key(1)).unwrap().unwrap()), 42);
        assert!(cache.get(&key(2)).unwrap().is_none());
        assert!(cache.verify(&key(1)).unwrap().is_none());
    }
    bed.restart();
    assert_eq!(run(&bed.open().get(&key(1)).unwrap().unwrap()), 42);
    let mode = fs::metadata(bed.file(&key(1))).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o400);
    assert_eq!(bed.names(), [key(1).to_string()]);
}

#[test]
fn the_first_of_two_entries_stays() {
    let bed = Bed::new();
    let cache = bed.open();
    let late = cache.write(&key(1), &mut Cursor::new(image(2))).unwrap();
    put(&cache, &key(1), &image(1));
    cache.publish(late).unwrap();
    assert_eq!(run(&cache.get(&key(1)).unwrap().unwrap()), 1);
    assert_eq!(bed.names().len(), 1);
}

#[test]
fn what_is_no_image_is_never_written() {
    let bed = Bed::new();
    let cache = bed.open();
    let good = image(1);
    let mut other_build = good.clone();
    other_build[16] ^= 1;
    let long = [good.clone(), vec![0]].concat();
    let bad: [&[u8]; 6] =
        [b"", b"\0asm", &[0x7f; 8192], &good[..good.len() - 1], &long, &other_build];
    for bytes in bad {
        assert!(cache.write(&key(1), &mut Cursor::new(bytes)).is_err());
    }
    assert!(bed.names().is_empty());
}

/// C1: no changed bit of the header page goes unseen, and none of 10,000 of the body.
#[test]
fn every_flipped_bit_is_found() {
    let bed = Bed::new();
    let cache = bed.open();
    put(&cache, &key(1), &image(1));
    let path = bed.file(&key(1));
    let good = fs::read(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    let header = 0..HEADER_SIZE * 8;
    let body = (good.len() - HEADER_SIZE) * 8;
    let scattered = (0..10_000).map(|n| HEADER_SIZE * 8 + n * 7919 % body);
    for bit in header.chain(scattered) {
        let byte = good[bit / 8] ^ 1 << (bit % 8);
        file.write_all_at(&[byte], bit as u64 / 8).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert!(cache.verify(&key(1)).unwrap().is_some(), "bit {bit}");
        file.write_all_at(&[good[bit / 8]], bit as u64 / 8).unwrap();
    }
    assert!(cache.verify(&key(1)).unwrap().is_none());
}

/// Changes an entry's file with the rights of its owner, as a program that has got them could.
fn change(bed: &Bed, key: &Key, change: impl FnOnce(&File)) {
    let path = bed.file(key);
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    change(&File::options().read(true).write(true).open(&path).unwrap());
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
}

/// A7, and a change while the machine runs.
#[test]
fn a_damaged_entry_is_a_miss_and_goes() {
    let cut = |file: &File| file.set_len(file.metadata().unwrap().len() - 4096).unwrap();
    let zero = |file: &File| file.write_all_at(&[0; 4096], HEADER_SIZE as u64).unwrap();
    let empty = |file: &File| file.set_len(0).unwrap();
    let huge = |file: &File| file.set_len(10 << 30).unwrap();
    let damages: [&dyn Fn(&File); 4] = [&cut, &zero, &empty, &huge];
    for damage in damages {
        for restart in [false, true] {
            let bed = Bed::new();
            put(&bed.open(), &key(1), &image(1));
            change(&bed, &key(1), damage);
            if restart {
                bed.restart();
            }
            let cache = bed.open();
            assert!(cache.get(&key(1)).unwrap().is_none());
            assert!(bed.names().is_empty(), "it was kept");
            put(&cache, &key(1), &image(1));
            assert_eq!(run(&cache.get(&key(1)).unwrap().unwrap()), 1);
        }
    }
}

/// C3.
#[test]
fn an_entry_under_another_key_is_refused() {
    let bed = Bed::new();
    let cache = bed.open();
    put(&cache, &key(1), &image(1));
    fs::rename(bed.file(&key(1)), bed.file(&key(2))).unwrap();
    assert!(matches!(cache.verify(&key(2)).unwrap(), Some(Fault::OtherKey(of)) if of == key(1)));
    assert!(cache.get(&key(2)).unwrap().is_none());
    assert!(bed.names().is_empty());
}

/// C2 and C7: right digests do not make an image.
#[test]
fn a_sealed_entry_that_is_no_image_is_refused() {
    use sha2::{Digest, Sha256};
    let bed = Bed::new();
    let cache = bed.open();
    put(&cache, &key(1), &image(1));
    // Version, build, length, beginning and length of the second section.
    for at in [8, 16, 48, 56 + 16, 56 + 24] {
        put(&cache, &key(1), &image(1));
        change(&bed, &key(1), |file| {
            let mut bytes = Vec::new();
            (&*file).read_to_end(&mut bytes).unwrap();
            bytes[at..at + 8].fill(0xff);
            bytes[SEAL].fill(0);
            let digest = Sha256::digest(&bytes);
            bytes[SEAL][..32].copy_from_slice(&hex(&key(1)));
            bytes[SEAL][32..].copy_from_slice(&digest);
            file.write_all_at(&bytes, 0).unwrap();
        });
        assert!(matches!(cache.verify(&key(1)).unwrap(), Some(Fault::Image(_))), "at {at}");
        assert!(cache.get(&key(1)).unwrap().is_none());
    }
}

fn hex(key: &Key) -> Vec<u8> {
    let text = key.to_string();
    (0..32).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap()).collect()
}

/// C5.
#[test]
fn what_is_no_entry_is_never_opened_for_one() {
    let makers: [&dyn Fn(&Bed); 6] = [
        &|bed| symlink("/etc/passwd", bed.file(&key(1))).unwrap(),
        &|bed| {
            put(&bed.open(), &key(2), &image(1));
            symlink(bed.file(&key(2)), bed.file(&key(1))).unwrap();
        },
        &|bed| {
            put(&bed.open(), &key(1), &image(1));
            fs::hard_link(bed.file(&key(1)), bed.place.dir.join("other")).unwrap();
        },
        &|bed| {
            put(&bed.open(), &key(1), &image(1));
            fs::set_permissions(bed.file(&key(1)), Permissions::from_mode(0o444)).unwrap();
        },
        &|bed| {
            let mode = rustix::fs::Mode::from_raw_mode(0o400);
            rustix::fs::mkfifoat(rustix::fs::CWD, bed.file(&key(1)), mode).unwrap();
        },
        &|bed| {
            drop(std::os::unix::net::UnixListener::bind(bed.file(&key(1))).unwrap());
        },
    ];
    for make in makers {
        let bed = Bed::new();
        let cache = bed.open();
        make(&bed);
        assert!(cache.get(&key(1)).unwrap().is_none());
        put(&cache, &key(1), &image(3));
        assert_eq!(run(&cache.get(&key(1)).unwrap().unwrap()), 3);
    }
}

/// C5: a folder in an entry's place is no entry, and what is in it stays.
#[test]
fn a_folder_in_an_entrys_place_is_left_alone() {
    let bed = Bed::new();
    let cache = bed.open();
    fs::create_dir(bed.file(&key(1))).unwrap();
    assert!(cache.get(&key(1)).is_err());
    let entry = cache.write(&key(1), &mut Cursor::new(image(1))).unwrap();
    let file = entry.file().unwrap();
    assert!(cache.publish(entry).is_err());
    assert_eq!(run(&file), 1);
}

/// C6: an entry that was opened stays what it was.
#[test]
fn replacing_an_entry_does_not_change_an_open_one() {
    let bed = Bed::new();
    let cache = bed.open();
    put(&cache, &key(1), &image(1));
    let open = cache.get(&key(1)).unwrap().unwrap();
    cache.remove(&key(1)).unwrap();
    put(&cache, &key(1), &image(2));
    assert_eq!(run(&open), 1);
    assert_eq!(run(&cache.get(&key(1)).unwrap().unwrap()), 2);
}

/// C4: a folder that others can change is no cache.
#[test]
fn a_folder_that_is_not_private_is_refused() {
    for which in ["dir", "run"] {
        let bed = Bed::new();
        drop(bed.open());
        let path = if which == "dir" { &bed.place.dir } else { bed.place.run.as_ref().unwrap() };
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        let error = Cache::open(&bed.place).unwrap_err().to_string();
        assert!(error.contains("0700"), "{error}");
    }
    let bed = Bed::new();
    fs::create_dir_all(bed.place.dir.parent().unwrap()).unwrap();
    symlink("/tmp", &bed.place.dir).unwrap();
    assert!(Cache::open(&bed.place).is_err());
}

/// C9: under scopes of namespaces nobody finds what others made.
#[test]
fn namespaces_may_be_kept_apart() {
    let bed = Bed::new();
    let cache = bed.open();
    let scoped = |name| Key::new(&[1; 32], &Settings::default(), Scope::Namespace(name));
    put(&cache, &scoped("k8s.io"), &image(1));
    assert!(cache.get(&scoped("moby")).unwrap().is_none());
    assert!(cache.get(&key(1)).unwrap().is_none());
    assert!(cache.get(&scoped("k8s.io")).unwrap().is_some());
}

/// B16: what was not used for the longest time goes first, and who runs it does not notice.
#[test]
fn bounds_hold() {
    let bed = Bed::new();
    let size = image(1).len() as u64;
    let place = Place { bounds: Bounds { bytes: 3 * size, entries: 10 }, ..bed.place.clone() };
    let cache = Cache::open(&place).unwrap();
    for n in 1..=3 {
        put(&cache, &key(n), &image(n.into()));
    }
    let open = cache.get(&key(2)).unwrap().unwrap();
    // The first was used last, the second not for an hour.
    let used = |n, ago| {
        let note = place.run.as_ref().unwrap().join("verified").join(key(n).to_string());
        let time = SystemTime::now() - Duration::from_secs(ago);
        File::options().write(true).open(note).unwrap().set_modified(time).unwrap();
    };
    for n in 1..=3 {
        fs::set_permissions(bed.file(&key(n)), Permissions::from_mode(0o600)).unwrap();
        let file = File::options().write(true).open(bed.file(&key(n))).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(9000)).unwrap();
        fs::set_permissions(bed.file(&key(n)), Permissions::from_mode(0o400)).unwrap();
        drop(cache.get(&key(n)).unwrap().unwrap());
    }
    used(1, 0);
    used(2, 3600);
    used(3, 60);
    put(&cache, &key(4), &image(4));
    let found = |n| cache.get(&key(n)).unwrap().is_some();
    assert_eq!([1, 2, 3, 4].map(found), [true, false, true, true]);
    assert_eq!(run(&open), 2);
    let pruned = cache.prune(Bounds { entries: 1, ..Bounds::default() }).unwrap();
    assert_eq!((pruned.entries, pruned.bytes), (2, 2 * size));
    assert_eq!(cache.prune(Bounds::NOTHING).unwrap().entries, 1);
    assert!(cache.entries().unwrap().is_empty());
}

/// A6: an entry that was never published leaves nothing behind.
#[test]
fn what_was_left_behind_is_removed() {
    let bed = Bed::new();
    let cache = bed.open();
    drop(cache.write(&key(1), &mut Cursor::new(image(1))).unwrap());
    assert!(bed.names().is_empty());
    for (name, age) in [(".new-old", 700), (".new-young", 10)] {
        let file = File::create(bed.place.dir.join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
    }
    put(&cache, &key(1), &image(1));
    let mut names = bed.names();
    names.sort();
    assert_eq!(names, [".new-young", &key(1).to_string()]);
}

#[test]
fn one_at_a_time_compiles() {
    let bed = Bed::new();
    let (one, other) = (bed.open(), bed.open());
    let lock = one.try_lock(&key(1)).unwrap().unwrap();
    assert!(other.try_lock(&key(1)).unwrap().is_none());
    assert!(other.try_lock(&key(2)).unwrap().is_some());
    drop(lock);
    assert!(other.try_lock(&key(1)).unwrap().is_some());
    let left = fs::read_dir(bed.place.run.as_ref().unwrap().join("locks")).unwrap().count();
    assert_eq!(left, 0);
}

/// C10.
#[test]
fn pruning_and_loading_do_not_disturb_each_other() {
    let bed = Bed::new();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let cache = bed.open();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                cache.prune(Bounds::NOTHING).unwrap();
            }
        });
        let cache = bed.open();
        let mut hits = 0;
        for _ in 0..300 {
            match cache.get(&key(1)).unwrap() {
                Some(file) => {
                    assert_eq!(run(&file), 1);
                    hits += 1;
                }
                None => put(&cache, &key(1), &image(1)),
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        println!("{hits} hits");
    });
}

#[test]
fn digests_of_modules_are_known_as_long_as_the_file_is_the_same() {
    use coracle_engine::cache::FileIdentity;
    let bed = Bed::new();
    let cache = bed.open();
    let path = bed.place.dir.join("module");
    fs::write(&path, "one").unwrap();
    let identity = || FileIdentity::of(&rustix::fs::stat(&path).unwrap());
    let first = identity();
    assert!(cache.known_digest(&first).is_none());
    cache.keep_digest(&first, &[7; 32]);
    assert!(cache.known_digest(&first).is_none(), "it was written just now");
    std::thread::sleep(Duration::from_millis(3100));
    cache.keep_digest(&first, &[7; 32]);
    assert_eq!(cache.known_digest(&identity()), Some([7; 32]));
    fs::write(&path, "two").unwrap();
    assert!(cache.known_digest(&identity()).is_none());
}
