//! A TCP client by WasmEdge's functions for sockets, second generation.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

mod import {
    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        #[link_name = "sock_open_v2"]
        pub fn open(family: u32, kind: u32, opened: *mut u32) -> u32;
        #[link_name = "sock_connect_v2"]
        pub fn connect(fd: u32, address: *const super::Buffer, port: u32) -> u32;
        #[link_name = "sock_getaddrinfo"]
        pub fn resolve(
            node: *const u8,
            node_length: u32,
            service: *const u8,
            service_length: u32,
            hints: *const super::AddrInfo,
            list: *const *mut super::AddrInfo,
            most: u32,
            found: *mut u32,
        ) -> u32;
        pub fn sock_recv(
            fd: u32,
            data: *const super::Buffer,
            count: u32,
            flags: u32,
            received: *mut u32,
            received_flags: *mut u16,
        ) -> u32;
        pub fn sock_send(
            fd: u32,
            data: *const super::Buffer,
            count: u32,
            flags: u32,
            sent: *mut u32,
        ) -> u32;
        pub fn fd_close(fd: u32) -> u32;
        pub fn fd_fdstat_set_flags(fd: u32, flags: u32) -> u32;
        pub fn poll_oneoff(
            subscriptions: *const super::Subscription,
            events: *mut [u64; 4],
            count: u32,
            happened: *mut u32,
        ) -> u32;
    }
}

const INET4: u32 = 1;
const INET6: u32 = 2;
const STREAM: u32 = 2;
const NONBLOCK: u32 = 4;
/// Most addresses of a name that are tried.
const MOST: usize = 8;
/// Errors: what WASI says of an operation that would wait, and what the dialect says of names.
const AGAIN: u32 = 6;
const IN_PROGRESS: u32 = 26;
const IS_CONNECTED: u32 = 30;
const NAMES: std::ops::RangeInclusive<u32> = 77..=87;

/// A buffer in memory.
#[repr(C)]
struct Buffer {
    at: *mut u8,
    length: u32,
}

/// `addrinfo` of the dialect: 28 bytes.
#[repr(C)]
struct AddrInfo {
    flags: u16,
    family: u8,
    kind: u8,
    protocol: u32,
    address_length: u32,
    address: *mut SockAddr,
    name: *mut u8,
    name_length: u32,
    next: *mut AddrInfo,
}

#[repr(C)]
struct SockAddr {
    family: u32,
    length: u32,
    data: *mut u8,
}

/// A subscription of preview 1: to a clock, or to a descriptor.
#[repr(C)]
struct Subscription {
    user: u64,
    /// A byte; the others are padding.
    tag: u64,
    /// Clock or descriptor.
    number: u32,
    timeout: u64,
    precision: u64,
    flags: u16,
}

const CLOCK: u64 = 0;
const READ: u64 = 1;
const WRITE: u64 = 2;
const MONOTONIC: u32 = 1;

fn failure(errno: u32) -> io::Error {
    match errno {
        number if NAMES.contains(&number) => {
            io::Error::new(ErrorKind::NotFound, "bad address: the name is not known")
        }
        number => io::Error::from_raw_os_error(number as i32),
    }
}

/// The addresses of a host: family and octets.
fn resolve(host: &str) -> io::Result<Vec<(u32, Vec<u8>)>> {
    let mut data = [[0_u8; 32]; MOST];
    let mut names = [[0_u8; 256]; MOST];
    let mut addresses: Vec<SockAddr> = data
        .iter_mut()
        .map(|data| SockAddr { family: 0, length: 26, data: data.as_mut_ptr() })
        .collect();
    let mut list: Vec<AddrInfo> = addresses
        .iter_mut()
        .zip(&mut names)
        .map(|(address, name)| AddrInfo {
            flags: 0,
            family: 0,
            kind: 0,
            protocol: 0,
            address_length: 0,
            address,
            name: name.as_mut_ptr(),
            name_length: 0,
            next: std::ptr::null_mut(),
        })
        .collect();
    let first = list.as_mut_ptr();
    for n in 1..MOST {
        // SAFETY: both elements lie within the list, and nothing else refers to them.
        unsafe { (*first.add(n - 1)).next = first.add(n) };
    }
    let hints = AddrInfo {
        flags: 0,
        family: 0,
        kind: 2,
        protocol: 1,
        address_length: 0,
        address: std::ptr::null_mut(),
        name: std::ptr::null_mut(),
        name_length: 0,
        next: std::ptr::null_mut(),
    };
    let mut found = 0;
    // SAFETY: the host reads the texts and hints, and fills at most as many elements as there are, whose
    // buffers are as large as the dialect has them and live until the end of this function.
    let errno = unsafe {
        import::resolve(
            host.as_ptr(),
            host.len() as u32,
            b"0".as_ptr(),
            1,
            &hints,
            &first,
            MOST as u32,
            &mut found,
        )
    };
    if errno != 0 {
        return Err(failure(errno));
    }
    let mut all = Vec::new();
    for n in 0..(found as usize).min(MOST) {
        let family = u32::from(list[n].family);
        // The port comes first.
        let octets = if family == INET4 { &data[n][2..6] } else { &data[n][2..18] };
        all.push((family, octets.to_vec()));
    }
    Ok(all)
}

/// A connection.
pub struct Connection {
    fd: u32,
    patience: Duration,
}

impl Connection {
    /// Connects to the first of a host's addresses that answers. No step takes longer than `patience`.
    pub fn open(host: &str, port: u16, patience: Duration) -> io::Result<Connection> {
        let mut last = io::Error::new(ErrorKind::NotFound, "bad address: the name has none");
        for (family, octets) in resolve(host)? {
            match Connection::to(family, &octets, port, patience) {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn to(family: u32, octets: &[u8], port: u16, patience: Duration) -> io::Result<Connection> {
        let family = if family == INET6 { INET6 } else { INET4 };
        let mut fd = 0;
        // SAFETY: the host writes one number.
        check(unsafe { import::open(family, STREAM, &mut fd) })?;
        let connection = Connection { fd, patience };
        // SAFETY: numbers alone.
        check(unsafe { import::fd_fdstat_set_flags(fd, NONBLOCK) })?;
        let mut storage = [0_u8; 128];
        storage[0] = family as u8;
        storage[2..2 + octets.len()].copy_from_slice(octets);
        let address = Buffer { at: storage.as_mut_ptr(), length: 128 };
        // SAFETY: the host reads the storage, which lives longer than the call.
        let connect = || unsafe { import::connect(fd, &address, u32::from(port)) };
        match connect() {
            0 => return Ok(connection),
            IN_PROGRESS | AGAIN => connection.wait(WRITE)?,
            errno => return Err(failure(errno)),
        }
        // Asked again, it says how the attempt ended.
        match connect() {
            0 | IS_CONNECTED => Ok(connection),
            errno => Err(failure(errno)),
        }
    }

    /// Waits until the connection is ready.
    fn wait(&self, tag: u64) -> io::Result<()> {
        let until = Instant::now() + self.patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            let timeout = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
            let subscription = |user, tag, number, timeout| Subscription {
                user,
                tag,
                number,
                timeout,
                precision: 0,
                flags: 0,
            };
            let subscriptions =
                [subscription(0, CLOCK, MONOTONIC, timeout), subscription(1, tag, self.fd, 0)];
            let (mut events, mut happened) = ([[0_u64; 4]; 2], 0);
            // SAFETY: two subscriptions are read, and at most as many events written.
            check(unsafe {
                import::poll_oneoff(subscriptions.as_ptr(), events.as_mut_ptr(), 2, &mut happened)
            })?;
            if events.iter().take(happened as usize).any(|event| event[0] == 1) {
                return Ok(());
            }
        }
    }
}

fn check(errno: u32) -> io::Result<()> {
    if errno == 0 { Ok(()) } else { Err(failure(errno)) }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let data = Buffer { at: buffer.as_mut_ptr(), length: buffer.len() as u32 };
            let (mut received, mut flags) = (0, 0);
            // SAFETY: the host writes into the buffer, which is as long as it says, and two numbers.
            match unsafe { import::sock_recv(self.fd, &data, 1, 0, &mut received, &mut flags) } {
                0 => return Ok(received as usize),
                AGAIN => self.wait(READ)?,
                errno => return Err(failure(errno)),
            }
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let data = Buffer { at: bytes.as_ptr().cast_mut(), length: bytes.len() as u32 };
            let mut sent = 0;
            // SAFETY: the host reads the buffer, which is as long as it says, and writes a number.
            match unsafe { import::sock_send(self.fd, &data, 1, 0, &mut sent) } {
                0 => return Ok(sent as usize),
                AGAIN => self.wait(WRITE)?,
                errno => return Err(failure(errno)),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: a number alone; nobody else has it.
        let _ = unsafe { import::fd_close(self.fd) };
    }
}
