//! `tar`: archives to and from a stream, as `kubectl cp` wants them. No compression, no owners.
//!
//! Format: ustar, as pax of POSIX.1-2017 describes it; for names that do not fit, GNU's entries before the file's. Of pax' own
//! entries `path` and `size` are read.

use std::fs::{self, File};
use std::io::{self, Read, Write};

use crate::error::{Failure, reason};
use crate::host;
use crate::out::{Context, plain};

const BLOCK: usize = 512;
/// Two of zeros end an archive.
const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];
/// What a name in a header may have.
const NAME: usize = 100;
/// What a longer name or the records of a pax entry may have.
const LONGEST: u64 = 1 << 20;
const LONG_NAME: u8 = b'L';
const PAX: u8 = b'x';
const PAX_GLOBAL: u8 = b'g';
const FOLDER: u8 = b'5';
const PLAIN: u8 = b'0';

/// What to do.
#[derive(Default)]
struct Order {
    create: bool,
    extract: bool,
    list: bool,
    verbose: bool,
    archive: Option<String>,
    folder: Option<String>,
    names: Vec<String>,
}

impl Order {
    /// Reads the words. The first group of letters may lack its dash, and takes its values from the words behind it.
    fn parse(words: Vec<String>) -> Result<Order, Failure> {
        let mut order = Order::default();
        let mut words = words.into_iter().enumerate();
        while let Some((index, word)) = words.next() {
            let letters = match word.strip_prefix('-') {
                Some("") | None if index > 0 => {
                    order.names.push(word);
                    continue;
                }
                Some("-no-same-permissions" | "-no-same-owner" | "-") => continue,
                Some(letters) => letters.to_owned(),
                None => word.clone(),
            };
            for letter in letters.chars() {
                match letter {
                    'c' => order.create = true,
                    'x' => order.extract = true,
                    't' => order.list = true,
                    'v' => order.verbose = true,
                    // Times and modes of files are not kept in any case.
                    'm' | 'p' | 'o' | 'h' => {}
                    'f' => order.archive = words.next().map(|(_, word)| word),
                    'C' => order.folder = words.next().map(|(_, word)| word),
                    _ => {
                        return Err(Failure::usage(format_args!(
                            "unknown option: {}",
                            plain(&word)
                        )));
                    }
                }
            }
        }
        let acts = [order.create, order.extract, order.list];
        if acts.iter().filter(|act| **act).count() != 1 {
            return Err(Failure::usage("say one of c, x and t"));
        }
        if order.archive.as_deref().unwrap_or("-") != "-" {
            return Err(Failure::usage(
                "archives are read from standard input and written to standard output: f -",
            ));
        }
        Ok(order)
    }

    /// A path below the folder of `-C`.
    fn at(&self, name: &str) -> String {
        match &self.folder {
            Some(folder) if !name.starts_with('/') => {
                format!("{}/{name}", folder.trim_end_matches('/'))
            }
            _ => name.to_owned(),
        }
    }
}

/// Archives.
pub fn run(context: &mut Context, words: Vec<String>) -> Result<(), Failure> {
    let order = Order::parse(words)?;
    if !order.create {
        return unpack(context, &order);
    }
    if order.names.is_empty() {
        return Err(Failure::usage("say what to put into the archive"));
    }
    for name in &order.names {
        pack(context, &order, name.trim_end_matches('/'))?;
    }
    context.bytes(&END)
}

fn pack(context: &mut Context, order: &Order, name: &str) -> Result<(), Failure> {
    let path = order.at(if name.is_empty() { "/" } else { name });
    let stat = match host::stat(&path, false) {
        Ok(stat) => stat,
        Err(error) => {
            context.fault(&path, &error);
            return Ok(());
        }
    };
    if order.verbose {
        eprintln!("{}", plain(name));
    }
    match stat.mode & 0o170_000 {
        0o040_000 => {
            header(context, name, FOLDER, stat.mode, 0, stat.modified)?;
            let names = fs::read_dir(&path).and_then(|entries| {
                entries
                    .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                    .collect::<io::Result<Vec<_>>>()
            });
            match names {
                Ok(mut names) => {
                    names.sort();
                    let below = |inner: String| format!("{name}/{inner}");
                    names.into_iter().map(below).try_for_each(|inner| pack(context, order, &inner))
                }
                Err(error) => {
                    context.fault(&path, &error);
                    Ok(())
                }
            }
        }
        0o100_000 => match File::open(&path) {
            Ok(file) => {
                header(context, name, PLAIN, stat.mode, stat.size, stat.modified)?;
                content(context, file, &path, stat.size)
            }
            Err(error) => {
                context.fault(&path, &error);
                Ok(())
            }
        },
        _ => {
            context
                .complain(format_args!("{}: neither a file nor a folder, left out", plain(&path)));
            Ok(())
        }
    }
}

/// Exactly as many bytes as the header has said: a file that became shorter is filled up, one that grew is cut.
fn content(context: &mut Context, file: File, path: &str, size: u64) -> Result<(), Failure> {
    let mut left = size;
    let mut file = file.take(size);
    let mut buffer = vec![0; 1 << 15];
    while left > 0 {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                context.bytes(&buffer[..count])?;
                left -= count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                context.fault(path, &error);
                break;
            }
        }
    }
    if left > 0 {
        context.complain(format_args!("{}: shorter by {left} bytes than it was", plain(path)));
    }
    let zeros = vec![0; 1 << 15];
    let mut fill = left + (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    while fill > 0 {
        let count = fill.min(zeros.len() as u64) as usize;
        context.bytes(&zeros[..count])?;
        fill -= count as u64;
    }
    Ok(())
}

/// An entry's header, after one with its name where that is too long. Archives hold no names from the root on.
fn header(
    context: &mut Context,
    name: &str,
    kind: u8,
    mode: u32,
    size: u64,
    time: i64,
) -> Result<(), Failure> {
    let name = match (name.trim_start_matches('/'), kind) {
        ("", _) => "./".to_owned(),
        (name, FOLDER) => format!("{name}/"),
        (name, _) => name.to_owned(),
    };
    if name.len() > NAME {
        let mut long = name.clone().into_bytes();
        long.push(0);
        context.bytes(&block("././@LongLink", LONG_NAME, 0, long.len() as u64, 0))?;
        long.resize(long.len().next_multiple_of(BLOCK), 0);
        context.bytes(&long)?;
    }
    context.bytes(&block(&name, kind, mode, size, time))
}

fn block(name: &str, kind: u8, mode: u32, size: u64, time: i64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name.as_bytes()[..name.len().min(NAME)]);
    put(100, format!("{:07o}\0", mode & 0o7777).as_bytes());
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if size < 1 << 33 {
        put(124, format!("{size:011o}\0").as_bytes());
    } else {
        // GNU's way for what eleven octal digits cannot say.
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    }
    put(136, format!("{:011o}\0", time.max(0)).as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// An entry of an archive that is read.
struct Entry {
    name: String,
    kind: u8,
    size: u64,
}

impl Entry {
    /// `None` at the end.
    fn read(input: &mut dyn Read) -> Result<Option<Entry>, Failure> {
        let (mut long, mut sized) = (None, None);
        loop {
            let mut block = [0; BLOCK];
            if !fill(input, &mut block)? || block == [0; BLOCK] {
                return Ok(None);
            }
            let entry = Entry::of(&block)?;
            match entry.kind {
                LONG_NAME => {
                    let text = records(input, entry.size)?;
                    long = Some(text.trim_end_matches('\0').to_owned());
                }
                PAX => {
                    let text = records(input, entry.size)?;
                    long = record(&text, "path").map(str::to_owned).or(long);
                    sized = record(&text, "size").and_then(|size| size.parse().ok()).or(sized);
                }
                PAX_GLOBAL => drop(records(input, entry.size)?),
                _ => {
                    let (name, size) = (long.unwrap_or(entry.name), sized.unwrap_or(entry.size));
                    return Ok(Some(Entry { name, size, kind: entry.kind }));
                }
            }
        }
    }

    fn of(block: &[u8; BLOCK]) -> Result<Entry, Failure> {
        let text = |from: usize, to: usize| {
            let bytes = &block[from..to];
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(&bytes[..end]).into_owned()
        };
        let octal = |from: usize, to: usize| u64::from_str_radix(text(from, to).trim(), 8).ok();
        let mut plain = *block;
        plain[148..156].fill(b' ');
        let sum: u64 = plain.iter().map(|byte| u64::from(*byte)).sum();
        let size = if block[124] & 0x80 == 0 {
            octal(124, 136)
        } else {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&block[128..136]);
            (block[124] == 0x80 && block[125..128] == [0; 3]).then_some(u64::from_be_bytes(bytes))
        };
        let (Some(size), true) = (size, octal(148, 156) == Some(sum)) else {
            return Err(Failure::Told("this is no archive of tar, or it is damaged".to_owned()));
        };
        let prefix = if &block[257..263] == b"ustar\0" { text(345, 500) } else { String::new() };
        let name =
            if prefix.is_empty() { text(0, NAME) } else { format!("{prefix}/{}", text(0, NAME)) };
        Ok(Entry { name, kind: block[156], size })
    }

    /// Where it belongs: never above the folder, never from the root on.
    fn place(&self) -> Option<String> {
        let parts: Vec<&str> =
            self.name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        (!parts.contains(&"..")).then(|| parts.join("/"))
    }
}

/// The text of an entry that is about the next one.
fn records(input: &mut dyn Read, size: u64) -> Result<String, Failure> {
    if size > LONGEST {
        return Err(Failure::Told(format!("an entry's name or attributes take {size} bytes")));
    }
    let mut bytes = vec![0; (size as usize).next_multiple_of(BLOCK)];
    if !fill(input, &mut bytes)? && size > 0 {
        return Err(short());
    }
    bytes.truncate(size as usize);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A value of pax' records, `LENGTH KEY=VALUE\n` each.
fn record<'a>(text: &'a str, wanted: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?.1.split_once('=')?;
        (key == wanted).then_some(value)
    })
}

/// Fills all of it; `false` if there was nothing at all any more.
fn fill(input: &mut dyn Read, bytes: &mut [u8]) -> Result<bool, Failure> {
    let mut filled = 0;
    while filled < bytes.len() {
        match input.read(&mut bytes[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(short()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::of("standard input", reason(&error))),
        }
    }
    Ok(true)
}

fn short() -> Failure {
    Failure::Told("the archive ends in the middle of an entry".to_owned())
}

fn unpack(context: &mut Context, order: &Order) -> Result<(), Failure> {
    let mut input = io::stdin().lock();
    while let Some(entry) = Entry::read(&mut input)? {
        let Some(place) = entry.place() else {
            context.complain(format_args!(
                "{}: leads out of the folder, left out",
                plain(&entry.name)
            ));
            skip_content(&mut input, entry.size)?;
            continue;
        };
        if order.list {
            let name = context.shown(&entry.name).into_owned();
            context.line(name)?;
            skip_content(&mut input, entry.size)?;
            continue;
        }
        if order.verbose {
            eprintln!("{}", plain(&place));
        }
        let path = order.at(&place);
        match entry.kind {
            FOLDER => folder(context, &path),
            PLAIN | 0 => file(context, &mut input, &path, entry.size)?,
            _ => {
                context.complain(format_args!(
                    "{}: neither a file nor a folder, left out",
                    plain(&entry.name)
                ));
                skip_content(&mut input, entry.size)?;
            }
        }
    }
    // What sends an archive may write more zeros, and must not find the reader gone.
    let _ = io::copy(&mut input, &mut io::sink());
    Ok(())
}

fn folder(context: &mut Context, path: &str) {
    if let Err(error) = fs::create_dir_all(if path.is_empty() { "." } else { path }) {
        context.fault(path, &error);
    }
}

/// Writes a file; one that cannot be written is told of, and the archive is read on.
fn file(context: &mut Context, input: &mut dyn Read, path: &str, size: u64) -> Result<(), Failure> {
    let made = match path.rsplit_once('/') {
        Some((above, _)) if !above.is_empty() => fs::create_dir_all(above),
        _ => Ok(()),
    };
    let mut output = match made.and_then(|()| File::create(path)) {
        Ok(file) => Some(file),
        Err(error) => {
            context.fault(path, &error);
            None
        }
    };
    let mut buffer = vec![0; 1 << 15];
    let mut left = size;
    while left > 0 {
        let count = left.min(buffer.len() as u64) as usize;
        if !fill(input, &mut buffer[..count])? {
            return Err(short());
        }
        let written = output.as_mut().map_or(Ok(()), |file| file.write_all(&buffer[..count]));
        if let Err(error) = written {
            context.fault(path, &error);
            output = None;
        }
        left -= count as u64;
    }
    skip(input, (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64)
}

/// Reads over an entry's content.
fn skip_content(input: &mut dyn Read, size: u64) -> Result<(), Failure> {
    skip(input, size.next_multiple_of(BLOCK as u64))
}

fn skip(input: &mut dyn Read, size: u64) -> Result<(), Failure> {
    let mut left = size;
    let mut buffer = vec![0; 1 << 15];
    while left > 0 {
        let count = left.min(buffer.len() as u64) as usize;
        if !fill(input, &mut buffer[..count])? {
            return Err(short());
        }
        left -= count as u64;
    }
    Ok(())
}
