//! Target `wasi`: every function of preview 1 and of the dialects of sockets with senseless pointers,
//! lengths and flags, against a real folder and this machine's loopback device, once with a memory of
//! the guest's own and once with one that threads could share. Nothing may panic or trap, wait for
//! ever, take much memory, leave a descriptor open, or reach what lies outside of the folder.

mod functions;
mod interrupt;
mod place;
mod steps;

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use arbitrary::{Arbitrary, Unstructured};
use coracle_engine::runtime::{CallError, Engine, Instance, Linker, Memory, Module, Store, Val};
use coracle_engine::wasi::preview1::ProcExit;
use coracle_engine::wasi::{self, Host, NameFiles, WasiCtx, WasiCtxBuilder};

use self::functions::{Function, Kind, Part};
use self::place::{SECRET, lay_out, open_descriptors, outside, scratch};
use self::steps::Step;
use crate::{meter, stats};

/// Bytes of the guest's memory.
const MEMORY: u32 = 2 << 16;
/// Most calls of an input.
const MAX_CALLS: usize = 64;
/// Bytes of heap that one call may take.
const HEAP: usize = 8 << 20;
/// The first of the ports that a guest may use.
const PORT: u16 = 47_000;

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

fn run_with(kind: Kind, steps: &[Step]) {
    let scratch = scratch();
    lay_out(&scratch.join("root"));
    let (descriptors, before) = (open_descriptors(), outside(scratch));
    let mut guest = Guest::new(scratch, kind);
    steps.iter().take(MAX_CALLS).for_each(|step| guest.step(step));
    let data = guest.read(0, MEMORY as usize);
    let seen = data.windows(SECRET.len()).any(|window| window == SECRET);
    assert!(!seen, "the guest read what lies outside of its folder");
    // Closing waits where a socket is told to linger.
    interrupt::bounded(|| drop(guest));
    assert_eq!(open_descriptors(), descriptors, "descriptors open after the guest's end");
    assert_eq!(outside(scratch), before, "the guest changed what lies outside of its folder");
    let secret = fs::read(scratch.join("outside/secret")).unwrap_or_default();
    assert_eq!(secret, SECRET, "the guest wrote outside of its folder");
}

struct Guest {
    listener: PathBuf,
    store: Store,
    memory: Memory,
    main: Instance,
    first: Instance,
    wamr: Instance,
}

impl Guest {
    fn new(scratch: &Path, kind: Kind) -> Guest {
        let made = || -> Result<Guest, Box<dyn std::error::Error>> {
            let engine = Engine::new();
            let mut store = Store::new(&engine)?;
            let host: Rc<Host> = grants(scratch, kind)?.into();
            let linker = || Linker::new(&engine);
            let mut make = |part, linker: &mut Linker| {
                instantiate(&mut store, linker, &host, functions::image(kind, part))
            };
            let main = make(Part::Main, &mut linker())?;
            let first = make(Part::First, linker().instance("main", main))?;
            let wamr = make(Part::Wamr, linker().instance("main", main))?;
            host.handle_signals(main.func(&store, "coracle_signal").ok_or("no handler")?);
            let memory = main.memory(&store, "memory").ok_or("no memory")?;
            Ok(Guest { listener: scratch.join("listener"), store, memory, main, first, wamr })
        };
        let mut guest = match made() {
            Ok(guest) => guest,
            Err(error) => panic!("cannot set up a guest: {error}"),
        };
        steps::furnish(&mut guest);
        guest
    }

    fn put(&mut self, at: u32, bytes: &[u8]) {
        if let Err(error) = self.memory.write(&mut self.store, at.into(), bytes) {
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

    fn call(&mut self, function: Function, values: &[u64]) {
        let name = function.name;
        if matches!(name, "poll_oneoff" | "epoll_oneoff" | "sock_accept") {
            // Somebody wants to be accepted; refused if the guest has shut the listener down.
            drop(UnixStream::connect(&self.listener));
        }
        let value = |(ty, &value): (char, &u64)| match ty {
            'l' => Val::I64(value as i64),
            _ => Val::I32(value as i32),
        };
        let arguments: Vec<Val> = function.params.chars().zip(values).map(value).collect();
        let instance = match function.part {
            Part::Main => self.main,
            Part::First => self.first,
            Part::Wamr => self.wamr,
        };
        let Some(func) = instance.func(&self.store, &function.export()) else {
            panic!("no module has {name}");
        };
        let store = &mut self.store;
        let call = || func.call(store, &arguments, &mut Vec::new());
        let (result, cost) = meter::measure(|| interrupt::bounded(call));
        assert!(cost.heap <= HEAP, "{name} took {} bytes of heap", cost.heap);
        stats::add("calls", 1);
        match result {
            Ok(()) => {}
            Err(CallError::Host(error)) if error.is::<ProcExit>() => {}
            Err(error) => panic!("{name}({values:x?}): {error}"),
        }
    }
}

fn instantiate(
    store: &mut Store,
    linker: &mut Linker,
    host: &Rc<Host>,
    image: &[u8],
) -> Result<Instance, Box<dyn std::error::Error>> {
    let module = Module::from_bytes(store.engine(), image)?;
    wasi::add_to_linker(linker, &module, Rc::clone(host))?;
    Ok(linker.instantiate(store, &module)?)
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
    let ports = format!("{PORT}-{}", PORT + 15);
    let rules = format!("127.0.0.1:{ports}, [::1]:{ports}, localhost, *.test");
    let policy = format!("allow {rules}, listen 127.0.0.1:0, listen *:{ports}");
    builder.network(policy.parse()?);
    let (hosts, resolv_conf) = (scratch.join("hosts"), scratch.join("resolv.conf"));
    builder.name_files(NameFiles { hosts, resolv_conf });
    Ok(builder.build()?)
}

#[cfg(test)]
mod tests {
    use super::steps::{Act, Socket};
    use super::*;

    const STREAM: Socket =
        Socket { act: Act::Open, wamr: false, six: false, stream: true, fd: 0, port: 1 };

    fn guest(kind: Kind) -> Guest {
        let scratch = scratch();
        lay_out(&scratch.join("root"));
        Guest::new(scratch, kind)
    }

    #[test]
    fn a_guest_uses_its_files_and_sockets() {
        for kind in [Kind::Own, Kind::Shared] {
            files(&mut guest(kind));
            for wamr in [false, true] {
                sockets(&mut guest(kind), Socket { wamr, ..STREAM });
            }
            waits(&mut guest(kind));
        }
    }

    fn files(guest: &mut Guest) {
        let (oflags, fdflags, follow, all_rights) = (0, 0, false, false);
        guest.step(&Step::Open { dir: 0, path: 0, oflags, fdflags, follow, all_rights });
        let opened = guest.read(32, 1)[0];
        assert!(opened > 4, "descriptor {opened}");
        guest.put(8, &[0, 16, 0, 0, 7, 0, 0, 0]);
        guest.main("fd_read", "iiii", &[u64::from(opened), 8, 1, 16]);
        assert_eq!(guest.read(4096, 7), b"content");
        guest.main("sock_accept", "iii", &[6, 0, 24]);
        assert_eq!(guest.read(24, 1)[0], opened + 1);
    }

    /// Of the guest's sockets one is connected to another.
    fn sockets(guest: &mut Guest, socket: Socket) {
        let mut act = |act, fd| guest.step(&Step::Socket(Socket { act, fd, ..socket }));
        let (listener, client, accepted) = (7, 8, 9_u8);
        act(Act::Open, 0);
        act(Act::Bind, listener);
        act(Act::Listen, listener);
        act(Act::Open, 0);
        act(Act::Connect, client);
        act(Act::Accept, listener);
        guest.put(4096, b"hello");
        guest.main("sock_send", "iiiii", &[client.into(), 3248, 1, 0, 64]);
        guest.put(4096, b"     ");
        guest.main("sock_recv", "iiiiii", &[accepted.into(), 3248, 1, 0, 64, 68]);
        assert_eq!(guest.read(4096, 5), b"hello");
        assert_eq!(guest.read(64, 1), [64], "bytes received");
    }

    /// A wait for nothing ends.
    fn waits(guest: &mut Guest) {
        guest.put(4096, &[0; 48]);
        guest.put(4096 + 16, &[1]);
        guest.put(4096 + 24, &u64::MAX.to_le_bytes());
        guest.main("poll_oneoff", "iiii", &[4096, 5000, 1, 64]);
    }
}
