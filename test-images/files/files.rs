//! Works through the file operations of WASI in the directory given as argument and prints one
//! line for each, the same in every language (expected.txt). With `--read-only DIR` it expects a
//! read-only directory that holds seed.txt (expected-read-only.txt).

use std::ffi::{CString, c_char, c_int};
use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::exit;
use std::time::{Duration, UNIX_EPOCH};

/// Error numbers of WASI preview 1 (`errno` in its witx file) that the report names.
const NAMES: [(i32, &str); 8] = [
    (2, "EACCES"),
    (20, "EEXIST"),
    (31, "EISDIR"),
    (44, "ENOENT"),
    (54, "ENOTDIR"),
    (55, "ENOTEMPTY"),
    (63, "EPERM"),
    (69, "EROFS"),
];

// The standard library's symlink for WASI is unstable; the C library's is there all the same.
unsafe extern "C" {
    fn symlink(target: *const c_char, link: *const c_char) -> c_int;
}

fn make_symlink(target: &str, link: &Path) -> io::Result<()> {
    let target = CString::new(target)?;
    let link = CString::new(link.as_os_str().as_encoded_bytes())?;
    // SAFETY: both pointers come from live C strings, and the call keeps neither.
    match unsafe { symlink(target.as_ptr(), link.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn name_of(error: &io::Error) -> String {
    let number = error.raw_os_error();
    let known = NAMES.iter().find(|(errno, _)| Some(*errno) == number);
    known.map_or_else(|| error.to_string(), |(_, name)| (*name).into())
}

fn show<T: Display>(step: &str, result: io::Result<T>) {
    match result {
        Ok(value) => println!("{step}: {value}"),
        Err(error) => println!("{step}: {}", name_of(&error)),
    }
}

fn report<T>(step: &str, result: io::Result<T>) {
    show(step, result.map(|_| "ok"));
}

fn write_file(options: &mut OpenOptions, path: &Path, text: &str) -> io::Result<()> {
    options.open(path)?.write_all(text.as_bytes())
}

fn read_text(path: &Path, from: u64, most: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut text = String::new();
    file.take(most).read_to_string(&mut text)?;
    Ok(format!("\"{}\"", text.replace('\n', "\\n")))
}

fn kind(at: fs::Metadata) -> String {
    if at.is_file() {
        format!("file, {} bytes", at.len())
    } else if at.is_symlink() {
        "symlink".into()
    } else if at.is_dir() {
        "directory".into()
    } else {
        "other".into()
    }
}

fn list(path: &Path) -> io::Result<String> {
    let names: io::Result<Vec<_>> = fs::read_dir(path)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect();
    let mut names = names?;
    names.sort();
    Ok(if names.is_empty() { "(empty)".into() } else { names.join(" ") })
}

fn modified(path: &Path) -> io::Result<u64> {
    let time = fs::metadata(path)?.modified()?;
    time.duration_since(UNIX_EPOCH).map(|since| since.as_secs()).map_err(io::Error::other)
}

fn read_only(dir: &Path) {
    let (seed, fresh) = (dir.join("seed.txt"), dir.join("new.txt"));
    show("read seed.txt", read_text(&seed, 0, 64));
    show("stat seed.txt", fs::metadata(&seed).map(kind));
    show("list .", list(dir));
    report("open seed.txt for writing", OpenOptions::new().write(true).open(&seed));
    report("write new.txt", fs::write(&fresh, "new\n"));
    report("mkdir new", fs::create_dir(dir.join("new")));
    report("rename seed.txt to new.txt", fs::rename(&seed, &fresh));
    report("symlink new to seed.txt", make_symlink("seed.txt", &dir.join("new")));
    report("remove seed.txt", fs::remove_file(&seed));
    show("read seed.txt", read_text(&seed, 0, 64));
}

fn set_time(path: &Path) -> io::Result<()> {
    let then = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let times = fs::FileTimes::new().set_accessed(then).set_modified(then);
    OpenOptions::new().write(true).open(path)?.set_times(times)
}

fn truncate(path: &Path, length: u64) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.set_len(length)
}

fn contents(work: &Path) {
    let (a, b) = (work.join("a.txt"), work.join("b.txt"));
    let (c, link) = (work.join("c.txt"), work.join("link"));
    let create = &mut OpenOptions::new();
    report("write a.txt", write_file(create.write(true).create_new(true), &a, "hello world\n"));
    show("stat a.txt", fs::metadata(&a).map(kind));
    report("append a.txt", write_file(OpenOptions::new().append(true), &a, "and more\n"));
    show("read a.txt", read_text(&a, 0, 64));
    show("read a.txt from 6", read_text(&a, 6, 5));
    report("set time of a.txt", set_time(&a));
    show("stat time of a.txt", modified(&a));
    report("rename a.txt to b.txt", fs::rename(&a, &b));
    show("read a.txt", read_text(&a, 0, 64));
    report("hard link b.txt to c.txt", fs::hard_link(&b, &c));
    show("read c.txt", read_text(&c, 0, 64));
    report("symlink link to b.txt", make_symlink("b.txt", &link));
    show("readlink link", fs::read_link(&link).map(|target| target.display().to_string()));
    show("stat link", fs::metadata(&link).map(kind));
    show("lstat link", fs::symlink_metadata(&link).map(kind));
    report("truncate b.txt to 5", truncate(&b, 5));
    show("read c.txt", read_text(&c, 0, 64));
}

fn folders(work: &Path) {
    let sub = work.join("sub");
    report("mkdir sub", fs::create_dir(&sub));
    report("write sub/d.txt", fs::write(sub.join("d.txt"), "d\n"));
    show("list .", list(work));
    show("list sub", list(&sub));
    report("remove sub as a file", fs::remove_file(&sub));
    report("rmdir sub", fs::remove_dir(&sub));
    report("remove sub/d.txt", fs::remove_file(sub.join("d.txt")));
    report("rmdir sub", fs::remove_dir(&sub));
    show("read b.txt as a directory", list(&work.join("b.txt")));
    for name in ["link", "c.txt", "b.txt"] {
        report(&format!("remove {name}"), fs::remove_file(work.join(name)));
    }
    show("list .", list(work));
}

fn read_write(dir: &Path) {
    let work = dir.join("work");
    report("mkdir work", fs::create_dir(&work));
    report("mkdir work again", fs::create_dir(&work));
    if let Err(error) = fs::metadata(&work) {
        eprintln!("files: cannot work in {}: {error}", work.display());
        exit(1);
    }
    contents(&work);
    folders(&work);
    report("rmdir work", fs::remove_dir(&work));
    show("stat work", fs::metadata(&work).map(kind));
}

fn main() {
    let mut args = std::env::args().skip(1).peekable();
    let run = if args.next_if(|arg| arg == "--read-only").is_some() { read_only } else { read_write };
    let dir = args.next().unwrap_or_else(|| "/data".into());
    if let Err(error) = fs::metadata(&dir) {
        eprintln!("files: cannot use {dir}: {error}");
        exit(1);
    }
    run(Path::new(&dir));
}
