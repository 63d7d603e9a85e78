//! Target `wasi`: every function of preview 1 with senseless pointers, lengths and flags, against a
//! real folder, once with a memory of the guest's own and once with one that threads could share.
//! Nothing may panic or trap, take much memory, leave a descriptor open, or reach what lies outside
//! of the folder.

mod place;

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use arbitrary::{Arbitrary, Unstructured};
use coracle_engine::compile::compile;
use coracle_engine::config::Settings;
use coracle_engine::runtime::{CallError, Engine, Linker, Memory, Module, Store, Val};
use coracle_engine::wasi::preview1::{self, ProcExit};
use coracle_engine::wasi::{WasiCtx, WasiCtxBuilder};

use self::place::{SECRET, lay_out, open_descriptors, outside, scratch};
use crate::{meter, stats};

/// All functions with their parameters (`i` is i32, `l` is i64); all but `proc_exit` give an errno.
const FUNCTIONS: [(&str, &str); 46] = [
    ("args_get", "ii"),
    ("args_sizes_get", "ii"),
    ("clock_res_get", "ii"),
    ("clock_time_get", "ili"),
    ("environ_get", "ii"),
    ("environ_sizes_get", "ii"),
    ("fd_advise", "illi"),
    ("fd_allocate", "ill"),
    ("fd_close", "i"),
    ("fd_datasync", "i"),
    ("fd_fdstat_get", "ii"),
    ("fd_fdstat_set_flags", "ii"),
    ("fd_fdstat_set_rights", "ill"),
    ("fd_filestat_get", "ii"),
    ("fd_filestat_set_size", "il"),
    ("fd_filestat_set_times", "illi"),
    ("fd_pread", "iiili"),
    ("fd_prestat_dir_name", "iii"),
    ("fd_prestat_get", "ii"),
    ("fd_pwrite", "iiili"),
    ("fd_read", "iiii"),
    ("fd_readdir", "iiili"),
    ("fd_renumber", "ii"),
    ("fd_seek", "ilii"),
    ("fd_sync", "i"),
    ("fd_tell", "ii"),
    ("fd_write", "iiii"),
    ("path_create_directory", "iii"),
    ("path_filestat_get", "iiiii"),
    ("path_filestat_set_times", "iiiilli"),
    ("path_link", "iiiiiii"),
    ("path_open", "iiiiillii"),
    ("path_readlink", "iiiiii"),
    ("path_remove_directory", "iii"),
    ("path_rename", "iiiiii"),
    ("path_symlink", "iiiii"),
    ("path_unlink_file", "iii"),
    ("poll_oneoff", "iiii"),
    ("proc_exit", "i"),
    ("proc_raise", "i"),
    ("random_get", "ii"),
    ("sched_yield", ""),
    ("sock_accept", "iii"),
    ("sock_recv", "iiiiii"),
    ("sock_send", "iiiii"),
    ("sock_shutdown", "ii"),
];

/// Paths that a guest may try, from 64 on in its memory, each in a slot of 64 bytes.
const PATHS: [&str; 32] = [
    "file",
    "dir",
    "dir/inner",
    "link",
    "out",
    "abs",
    "loop",
    "deep/er",
    "..",
    ".",
    "/",
    "",
    "../outside/secret",
    "dir/../../outside/secret",
    "dir/out/secret",
    "new",
    "dir/new",
    "file/",
    "new/",
    "./file",
    "dir//inner",
    "/etc/passwd",
    "nul\0byte",
    "out/../secret",
    "out/",
    "dir/out/",
    "dir/out/new",
    "link/",
    "/..",
    "dir/..",
    "loop/",
    "magic/etc/passwd",
];
const SLOT: u32 = 64;
const PATHS_AT: u32 = 64;
/// Bytes of the guest's memory.
const MEMORY: u32 = 2 << 16;
/// Most calls of an input.
const MAX_CALLS: usize = 64;
/// Bytes of heap that one call may take.
const HEAP: usize = 8 << 20;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Argument {
    Small(u8),
    /// One of the paths' addresses.
    Path(u8),
    /// One of the paths' lengths.
    PathLen(u8),
    /// An address that is aligned.
    Aligned(u16),
    /// Near the end of memory.
    Last(u8),
    Address(u16),
    Flags(u16),
    Rights,
    Minus(u8),
    Any(u64),
}

#[derive(Arbitrary, Debug)]
struct Call {
    function: u8,
    arguments: [Argument; 9],
}

#[derive(Arbitrary, Debug)]
enum Step {
    Call(Call),
    /// A call of the right shape: a path, flags that are few bits, a result at an aligned place.
    Open {
        dir: u8,
        path: u8,
        oflags: u8,
        fdflags: u8,
        follow: bool,
        all_rights: bool,
    },
    /// Writes two words: a pointer and a length of a list of buffers, or part of a structure.
    Words {
        at: u16,
        first: Argument,
        second: Argument,
    },
    Bytes {
        at: u16,
        bytes: [u8; 8],
    },
}

/// Runs an input.
///
/// # Panics
/// When it is a finding.
pub fn run(data: &[u8]) {
    let Ok(steps) = Vec::<Step>::arbitrary_take_rest(Unstructured::new(data)) else { return };
    for kind in [Kind::Own, Kind::Shared] {
        run_with(kind, &steps);
    }
}

/// Whose the guest's memory is.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Own,
    /// As guests with threads have it, and their descriptors.
    Shared,
}

fn run_with(kind: Kind, steps: &[Step]) {
    let scratch = scratch();
    lay_out(&scratch.join("root"));
    let (descriptors, before) = (open_descriptors(), outside(scratch));
    {
        let mut guest = Guest::new(scratch, kind);
        steps.iter().take(MAX_CALLS).for_each(|step| guest.step(step));
        let data = guest.read(0, MEMORY as usize);
        let seen = data.windows(SECRET.len()).any(|window| window == SECRET);
        assert!(!seen, "the guest read what lies outside of its folder");
    }
    assert_eq!(open_descriptors(), descriptors, "descriptors open after the guest's end");
    assert_eq!(outside(scratch), before, "the guest changed what lies outside of its folder");
    let secret = fs::read(scratch.join("outside/secret")).unwrap_or_default();
    assert_eq!(secret, SECRET, "the guest wrote outside of its folder");
}

struct Guest {
    listener: PathBuf,
    store: Store,
    memory: Memory,
    instance: coracle_engine::runtime::Instance,
}

impl Guest {
    fn new(scratch: &Path, kind: Kind) -> Guest {
        let made = || -> Result<Guest, Box<dyn std::error::Error>> {
            let engine = Engine::new();
            let module = Module::from_bytes(&engine, image(kind))?;
            let mut store = Store::new(&engine)?;
            let mut linker = Linker::new(&engine);
            preview1::add_to_linker(&mut linker, grants(scratch, kind)?);
            let instance = linker.instantiate(&mut store, &module)?;
            let memory = instance.memory(&store, "memory").ok_or("no memory")?;
            for (n, path) in (0..).zip(PATHS) {
                memory.write(&mut store, u64::from(PATHS_AT + SLOT * n), path.as_bytes())?;
            }
            Ok(Guest { listener: scratch.join("listener"), store, memory, instance })
        };
        match made() {
            Ok(guest) => guest,
            Err(error) => panic!("cannot set up a guest: {error}"),
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Call(call) => {
                let (name, params) = FUNCTIONS[usize::from(call.function) % FUNCTIONS.len()];
                let values = params.chars().zip(&call.arguments);
                let values: Vec<u64> = values.map(|(_, argument)| argument.value()).collect();
                self.call(name, params, &values);
            }
            &Step::Open { dir, path, oflags, fdflags, follow, all_rights } => {
                let path = Argument::Path(path);
                let len = match path {
                    Argument::Path(n) => Argument::PathLen(n).value(),
                    _ => 0,
                };
                let rights = if all_rights { (1 << 30) - 1 } else { 0x42 };
                let values = [
                    3 + u64::from(dir % 2),
                    u64::from(follow),
                    path.value(),
                    len,
                    u64::from(oflags % 16),
                    rights,
                    rights,
                    u64::from(fdflags % 32),
                    32,
                ];
                self.call("path_open", "iiiiillii", &values);
            }
            Step::Words { at, first, second } => {
                self.write(*at, &(first.value() as u32).to_le_bytes());
                self.write(at.wrapping_add(4), &(second.value() as u32).to_le_bytes());
            }
            Step::Bytes { at, bytes } => self.write(*at, bytes),
        }
    }

    fn write(&mut self, at: u16, bytes: &[u8]) {
        let at = u64::from(at) & !3;
        if let Err(error) = self.memory.write(&mut self.store, at, bytes) {
            panic!("the guest's memory is small: {error}");
        }
    }

    fn read(&self, at: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        if let Err(error) = self.memory.read(&self.store, at as u64, &mut bytes) {
            panic!("the guest's memory is small: {error}");
        }
        bytes
    }

    fn call(&mut self, name: &'static str, params: &str, values: &[u64]) {
        if name == "poll_oneoff" {
            self.shorten_waits(values[0] as u32, values[2] as u32);
        }
        if matches!(name, "poll_oneoff" | "sock_accept") {
            // Somebody wants to be accepted, so that nothing waits; refused if the guest has shut
            // the listener down, which then does not wait either.
            drop(UnixStream::connect(&self.listener));
        }
        let arguments: Vec<Val> = params
            .chars()
            .zip(values)
            .map(
                |(ty, &value)| {
                    if ty == 'l' { Val::I64(value as i64) } else { Val::I32(value as i32) }
                },
            )
            .collect();
        let Some(func) = self.instance.func(&self.store, name) else {
            panic!("the module lacks {name}");
        };
        let store = &mut self.store;
        let (result, cost) = meter::measure(|| func.call(store, &arguments, &mut Vec::new()));
        assert!(cost.heap <= HEAP, "{name} took {} bytes of heap", cost.heap);
        stats::add("calls", 1);
        match result {
            Ok(()) => {}
            Err(CallError::Host(error)) if error.is::<ProcExit>() => {}
            Err(error) => panic!("{name}({values:x?}): {error}"),
        }
    }

    /// Lets no subscription of a clock wait for more than two milliseconds.
    fn shorten_waits(&mut self, subscriptions: u32, count: u32) {
        const SIZE: usize = 48;
        let Some(len) = MEMORY.checked_sub(subscriptions) else { return };
        let mut data = self.read(subscriptions as usize, len as usize);
        for subscription in data.chunks_exact_mut(SIZE).take(count as usize) {
            if subscription[8] == 0 {
                // The time's upper bytes, so that absolute times lie in the past.
                subscription[24 + 2..24 + 8].fill(0);
                subscription[24 + 2] = 20;
            }
        }
        if let Err(error) = self.memory.write(&mut self.store, subscriptions.into(), &data) {
            panic!("what was read can be written: {error}");
        }
    }
}

impl Argument {
    fn value(self) -> u64 {
        match self {
            Argument::Small(n) => u64::from(n % 16),
            Argument::Path(n) => u64::from(PATHS_AT + SLOT * (u32::from(n) % PATHS.len() as u32)),
            Argument::PathLen(n) => PATHS[usize::from(n) % PATHS.len()].len() as u64,
            Argument::Aligned(n) => u64::from(n) & !7,
            Argument::Last(n) => u64::from(MEMORY) - u64::from(n),
            Argument::Address(n) | Argument::Flags(n) => u64::from(n),
            Argument::Rights => (1 << 30) - 1,
            Argument::Minus(n) => u64::MAX - u64::from(n),
            Argument::Any(n) => n,
        }
    }
}

/// A module that exports every function.
fn image(kind: Kind) -> &'static [u8] {
    static IMAGES: [OnceLock<Vec<u8>>; 2] = [OnceLock::new(), OnceLock::new()];
    let (image, memory) = match kind {
        Kind::Own => (&IMAGES[0], "2"),
        Kind::Shared => (&IMAGES[1], "2 2 shared"),
    };
    image.get_or_init(|| {
        let (mut imports, mut exports) = (String::new(), String::new());
        for (name, params) in FUNCTIONS {
            let types = params.chars().map(|c| if c == 'l' { " i64" } else { " i32" });
            let types: String = types.collect();
            let result = if name == "proc_exit" { "" } else { "(result i32)" };
            let ty = format!("(param{types}) {result}");
            imports += &format!("(import \"{}\" \"{name}\" (func ${name} {ty}))", preview1::MODULE);
            let gets: String = (0..params.len()).map(|n| format!("(local.get {n})")).collect();
            exports += &format!("(func (export \"{name}\") {ty} (call ${name} {gets}))");
        }
        let text = format!("(module {imports} (memory (export \"memory\") {memory}) {exports})");
        match compile(text.as_bytes(), &Settings::default()) {
            Ok(image) => image,
            Err(error) => panic!("the module of all functions does not compile: {error}"),
        }
    })
}

fn grants(scratch: &Path, kind: Kind) -> Result<WasiCtx, Box<dyn std::error::Error>> {
    // Whose other end is gone, so that nothing ever waits for it.
    let (socket, mut peer) = UnixStream::pair()?;
    peer.write_all(b"some bytes to receive")?;
    drop(peer);
    let (input, mut writer) = std::io::pipe()?;
    writer.write_all(b"some bytes to read")?;
    drop(writer);
    let null = || File::options().write(true).open("/dev/null");
    let mut builder = WasiCtxBuilder::new();
    builder.arg("program").arg("two words").env("NAME", "value");
    builder.stdin(input.into()).stdout(null()?.into()).stderr(null()?.into());
    let dir = |name: &str| File::open(scratch.join(name)).map(OwnedFd::from);
    builder.preopen(dir("root")?, "/", false).preopen(dir("root/dir")?, "/read-only", true);
    let path = scratch.join("listener");
    if path.exists() {
        fs::remove_file(&path)?;
    }
    builder.socket(socket.into()).socket(UnixListener::bind(&path)?.into());
    builder.threads(matches!(kind, Kind::Shared));
    Ok(builder.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_opens_and_reads_its_file() {
        for kind in [Kind::Own, Kind::Shared] {
            let scratch = scratch();
            lay_out(&scratch.join("root"));
            let mut guest = Guest::new(scratch, kind);
            guest.step(&Step::Open {
                dir: 0,
                path: 0,
                oflags: 0,
                fdflags: 0,
                follow: false,
                all_rights: false,
            });
            let opened = guest.read(32, 1)[0];
            assert!(opened > 4, "descriptor {opened}");
            guest.step(&Step::Words {
                at: 8,
                first: Argument::Aligned(4096),
                second: Argument::Small(7),
            });
            guest.call("fd_read", "iiii", &[u64::from(opened), 8, 1, 16]);
            assert_eq!(guest.read(4096, 7), b"content");
            guest.call("sock_accept", "iii", &[6, 0, 24]);
            assert_eq!(guest.read(24, 1)[0], opened + 1);
        }
    }
}
