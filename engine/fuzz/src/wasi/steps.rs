//! What a guest does: calls with senseless arguments, and some of the right shape, without which it
//! would hardly ever have a connection.

use arbitrary::Arbitrary;

use super::functions::{self, Part};
use super::{Guest, MEMORY, PORT};

/// Paths that a guest may try, from 64 on in its memory, each in a slot of 64 bytes.
pub(super) const PATHS: [&str; 32] = [
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
/// Names that a guest may look up, each in a slot after the paths.
const NAMES: [&str; 6] = ["localhost", "two.test", "127.0.0.1", "::1", "unknown.test", "other.org"];
const NAMES_AT: u32 = PATHS_AT + SLOT * PATHS.len() as u32;
/// Services by name and number.
const SERVICES: [&str; 3] = ["http", "47000", "none"];
const SERVICES_AT: u32 = NAMES_AT + SLOT * NAMES.len() as u32;
/// Addresses: WasmEdge's pair of address and length, the octets, WAMR's structure.
const PAIR: u32 = 3072;
const OCTETS: u32 = 3080;
const STRUCTURE: u32 = 3216;
/// A list of one buffer, and the buffer.
const LIST: u32 = 3248;
const BUFFER: u32 = 4096;
/// Where results are put.
const RESULT: u32 = 3256;
/// A list of results of WasmEdge's look-up: two elements with their addresses and data.
const FOUND: u32 = 3328;

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Argument {
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
    /// What the steps of the right shape have put into memory.
    Shaped(u8),
}

#[derive(Arbitrary, Debug)]
pub(super) struct Call {
    function: u8,
    arguments: [Argument; 9],
}

#[derive(Arbitrary, Debug)]
pub(super) enum Step {
    Call(Call),
    /// A path, flags that are few bits, a result at an aligned place.
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
    Socket(Socket),
}

/// A call about sockets.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) struct Socket {
    pub(super) act: Act,
    pub(super) wamr: bool,
    pub(super) six: bool,
    pub(super) stream: bool,
    pub(super) fd: u8,
    pub(super) port: u8,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Act {
    Open,
    Bind,
    Listen,
    Connect,
    Accept,
    SendTo,
    ReceiveFrom,
    LookUp,
    Addresses,
}

/// Writes what the arguments speak of.
pub(super) fn furnish(guest: &mut Guest) {
    for (at, texts) in [(PATHS_AT, &PATHS[..]), (NAMES_AT, &NAMES), (SERVICES_AT, &SERVICES)] {
        for (n, text) in (0..).zip(texts) {
            guest.put(at + SLOT * n, text.as_bytes());
        }
    }
    guest.put_words(LIST, &[BUFFER, 64]);
    // Two elements of 32 bytes, each with an address of 16 and data of 32.
    for (element, next) in [(FOUND, FOUND + 80), (FOUND + 80, 0)] {
        guest.put_words(element + 12, &[element + 32, 0, 0, next]);
        guest.put_words(element + 40, &[element + 48]);
    }
    guest.put_words(RESULT, &[FOUND]);
}

impl Guest {
    pub(super) fn step(&mut self, step: &Step) {
        match step {
            Step::Call(call) => {
                let function = functions::numbered(call.function.into());
                let values = function.params.chars().zip(&call.arguments);
                let values: Vec<u64> = values.map(|(_, argument)| argument.value()).collect();
                self.call(function, &values);
            }
            &Step::Open { dir, path, oflags, fdflags, follow, all_rights } => {
                let rights = if all_rights { (1 << 30) - 1 } else { 0x42 };
                let values = [
                    3 + u64::from(dir % 2),
                    u64::from(follow),
                    Argument::Path(path).value(),
                    Argument::PathLen(path).value(),
                    u64::from(oflags % 16),
                    rights,
                    rights,
                    u64::from(fdflags % 32),
                    32,
                ];
                self.main("path_open", "iiiiillii", &values);
            }
            Step::Words { at, first, second } => {
                self.put(u32::from(*at) & !3, &(first.value() as u32).to_le_bytes());
                self.put((u32::from(*at) + 4) & 0xfffc, &(second.value() as u32).to_le_bytes());
            }
            Step::Bytes { at, bytes } => self.put(u32::from(*at) & !3, bytes),
            Step::Socket(socket) => {
                socket.put_address(self);
                if socket.wamr { socket.do_wamr(self) } else { socket.do_wasmedge(self) }
            }
        }
    }

    /// Calls a function of the first module.
    pub(super) fn main(&mut self, name: &str, params: &str, values: &[u64]) {
        self.call(functions::named(Part::Main, name, params), values);
    }

    fn put_words(&mut self, at: u32, words: &[u32]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.put(at, &bytes);
    }
}

impl Socket {
    fn fd(self) -> u64 {
        u64::from(self.fd % 16)
    }

    fn port(self) -> u16 {
        match self.port % 8 {
            0 => 0,
            n => PORT + u16::from(n) - 1,
        }
    }

    /// This machine's address in all forms; every other one of WasmEdge's has its family before it.
    fn put_address(self, guest: &mut Guest) {
        let (mut octets, mut groups) = ([0; 16], [0; 20]);
        if self.six {
            (octets[15], groups[14]) = (1, 1);
        } else {
            octets[..4].copy_from_slice(&[127, 0, 0, 1]);
            groups[..4].copy_from_slice(&[127, 0, 0, 1]);
        }
        let port_at = if self.six { 16 } else { 4 };
        groups[port_at..port_at + 2].copy_from_slice(&self.port().to_le_bytes());
        let (family, len) = if self.six { (2, 16) } else { (1, 4) };
        if self.port.is_multiple_of(2) {
            guest.put_words(PAIR, &[OCTETS, 128]);
            guest.put(OCTETS, &[family, 0]);
            guest.put(OCTETS + 2, &octets);
        } else {
            guest.put_words(PAIR, &[OCTETS, len]);
            guest.put(OCTETS, &octets);
        }
        guest.put_words(STRUCTURE, &[u32::from(self.six)]);
        guest.put(STRUCTURE + 4, &groups);
    }

    fn name(self) -> u64 {
        u64::from(NAMES_AT + SLOT * (u32::from(self.fd) % NAMES.len() as u32))
    }

    fn service(self) -> u64 {
        u64::from(SERVICES_AT + SLOT * (u32::from(self.port) % SERVICES.len() as u32))
    }

    fn do_wasmedge(self, guest: &mut Guest) {
        let [pair, list, result] = [PAIR, LIST, RESULT + 8].map(u64::from);
        let (fd, port) = (self.fd(), u64::from(self.port()));
        let first = |name, params| functions::named(Part::First, name, params);
        match self.act {
            Act::Open => {
                let kind = 1 + u64::from(self.stream);
                guest.main("sock_open", "iii", &[1 + u64::from(self.six), kind, result]);
            }
            Act::Bind => guest.main("sock_bind", "iii", &[fd, pair, port]),
            Act::Listen => guest.main("sock_listen", "ii", &[fd, 4]),
            Act::Connect => guest.main("sock_connect", "iii", &[fd, pair, port]),
            Act::Accept => guest.call(first("sock_accept", "ii"), &[fd, result]),
            Act::SendTo => {
                guest.main("sock_send_to", "iiiiiii", &[fd, list, 1, pair, port, 0, result]);
            }
            Act::ReceiveFrom if self.stream => {
                let values = [fd, list, 1, pair, 0, result, result + 4, result + 8];
                guest.main("sock_recv_from", "iiiiiiii", &values);
            }
            Act::ReceiveFrom => {
                let values = [fd, list, 1, pair, 0, result, result + 4];
                guest.call(first("sock_recv_from", "iiiiiii"), &values);
            }
            Act::LookUp => {
                let (name, service) = (self.name(), self.service());
                let lens = [guest.len_of(name), guest.len_of(service)];
                let list = u64::from(RESULT);
                let values = [name, lens[0], service, lens[1], 0, list, 2, result];
                guest.main("sock_getaddrinfo", "iiiiiiii", &values);
            }
            Act::Addresses => {
                let values = [fd, pair, result, result + 4];
                guest.call(first("sock_getlocaladdr", "iiii"), &values);
                guest.main("sock_getpeeraddr", "iii", &[fd, pair, result]);
            }
        }
    }

    fn do_wamr(self, guest: &mut Guest) {
        let [address, list, result] = [STRUCTURE, LIST, RESULT + 8].map(u64::from);
        let fd = self.fd();
        let mut call = |name, params, values: &[u64]| {
            guest.call(functions::named(Part::Wamr, name, params), values);
        };
        match self.act {
            Act::Open => {
                let pool = u64::from(u32::MAX);
                let (six, stream) = (self.six.into(), self.stream.into());
                call("sock_open", "iiii", &[pool, six, stream, result]);
            }
            Act::Bind => call("sock_bind", "ii", &[fd, address]),
            Act::Listen => guest.main("sock_listen", "ii", &[fd, 4]),
            Act::Connect => call("sock_connect", "ii", &[fd, address]),
            Act::Accept => guest.main("sock_accept", "iii", &[fd, 0, result]),
            Act::SendTo => call("sock_send_to", "iiiiii", &[fd, list, 1, 0, address, result]),
            Act::ReceiveFrom => {
                call("sock_recv_from", "iiiiii", &[fd, list, 1, 0, address, result]);
            }
            Act::LookUp => {
                let values = [self.name(), self.service(), 0, FOUND.into(), 4, result];
                call("sock_addr_resolve", "iiiiii", &values);
            }
            Act::Addresses => {
                call("sock_addr_local", "ii", &[fd, address]);
                call("sock_addr_remote", "ii", &[fd, address]);
            }
        }
    }
}

impl Guest {
    /// Bytes of the text that is at an address, up to its NUL.
    fn len_of(&self, at: u64) -> u64 {
        let bytes = self.read(at as usize, SLOT as usize);
        bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()) as u64
    }
}

impl Argument {
    fn value(self) -> u64 {
        const SHAPED: [u32; 9] =
            [PAIR, OCTETS, STRUCTURE, LIST, BUFFER, RESULT, FOUND, NAMES_AT, SERVICES_AT];
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
            Argument::Shaped(n) => u64::from(SHAPED[usize::from(n) % SHAPED.len()]),
        }
    }
}
