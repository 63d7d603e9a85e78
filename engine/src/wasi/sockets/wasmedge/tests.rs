//! The functions of WasmEdge's dialect against real sockets on the loopback device.

mod names;

use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::{both, first, names as resolver, options, second};
use crate::wasi::preview1::errno::Errno;
use crate::wasi::preview1::rights::Rights;
use crate::wasi::preview1::sock;
use crate::wasi::sockets::tests::Guest;

const DATAGRAM: u32 = 1;
const STREAM: u32 = 2;

fn open(guest: &mut Guest, family: u32, kind: u32) -> Result<u32, Errno> {
    let out = guest.room(4);
    guest.call(|c, m| both::sock_open(c, m, family, kind, out))?;
    Ok(guest.u32_at(out))
}

/// An address argument with a buffer of these bytes; the second address is the buffer's.
fn buffer(guest: &mut Guest, bytes: &[u8]) -> (u32, u32) {
    guest.iovec(bytes)
}

/// An address argument as the first generation (octets) or the second (storage) has it.
fn address(guest: &mut Guest, at: SocketAddr, storage: bool) -> u32 {
    let octets = super::address::octets(at.ip());
    if !storage {
        return buffer(guest, &octets).0;
    }
    let mut bytes = vec![if at.is_ipv4() { 1 } else { 2 }, 0];
    bytes.extend(octets);
    bytes.resize(128, 0);
    buffer(guest, &bytes).0
}

fn bind(guest: &mut Guest, fd: u32, at: &str, storage: bool) -> Result<(), Errno> {
    let at: SocketAddr = at.parse().unwrap();
    let addr = address(guest, at, storage);
    guest.call(|c, m| both::sock_bind(c, m, fd, addr, at.port().into()))
}

fn connect(guest: &mut Guest, fd: u32, to: SocketAddr, storage: bool) -> Result<(), Errno> {
    let addr = address(guest, to, storage);
    guest.call(|c, m| both::sock_connect(c, m, fd, addr, to.port().into()))
}

fn send_to(guest: &mut Guest, fd: u32, to: SocketAddr, bytes: &[u8]) -> Result<u32, Errno> {
    let (addr, out) = (address(guest, to, true), guest.room(4));
    let (list, _) = guest.iovec(bytes);
    guest.call(|c, m| both::sock_send_to(c, m, fd, list, 1, addr, to.port().into(), 0, out))?;
    Ok(guest.u32_at(out))
}

/// The local or peer port, by the second generation's functions.
fn ports(guest: &mut Guest, fd: u32) -> (Result<u16, Errno>, Result<u16, Errno>) {
    let ((addr, _), port) = (buffer(guest, &[0; 128]), guest.room(4));
    let local = guest.call(|c, m| second::sock_getlocaladdr(c, m, fd, addr, port));
    let local = local.map(|()| guest.u32_at(port) as u16);
    let peer = guest.call(|c, m| second::sock_getpeeraddr(c, m, fd, addr, port));
    (local, peer.map(|()| guest.u32_at(port) as u16))
}

fn get(guest: &mut Guest, fd: u32, name: u32, room: usize) -> Result<Vec<u8>, Errno> {
    let (value, len) = (guest.room(room), guest.put(&(room as u32).to_le_bytes()));
    guest.call(|c, m| options::sock_getsockopt(c, m, fd, 0, name, value, len))?;
    Ok(guest.bytes(value, guest.u32_at(len) as usize).to_vec())
}

fn set(guest: &mut Guest, fd: u32, name: u32, value: &[u8]) -> Result<(), Errno> {
    let at = guest.put(value);
    guest.call(|c, m| options::sock_setsockopt(c, m, fd, 0, name, at, value.len() as u32))
}

#[test]
fn a_server_of_its_own_serves_connections() {
    for storage in [false, true] {
        let mut guest = Guest::new();
        let fd = open(&mut guest, 1, STREAM).unwrap();
        assert!(!guest.rights(fd).contains(Rights::SOCK_ACCEPT), "not before it listens");
        bind(&mut guest, fd, "127.0.0.1:0", storage).unwrap();
        guest.listen(fd).unwrap();
        guest.listen(fd).unwrap();
        assert!(guest.rights(fd).contains(Rights::SOCK_ACCEPT));
        assert_eq!(get(&mut guest, fd, 13, 4), Ok(vec![1, 0, 0, 0]));
        let port = ports(&mut guest, fd).0.unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let out = guest.room(4);
        guest.call(|c, m| first::sock_accept(c, m, fd, out)).unwrap();
        let connection = guest.u32_at(out);
        client.write_all(b"request").unwrap();
        assert_eq!(guest.recv(connection, 7, 2), Ok(b"request".to_vec()));
        assert_eq!(guest.send(connection, b"reply"), Ok(5));
        let peer = client.local_addr().unwrap().port();
        assert_eq!(ports(&mut guest, connection), (Ok(port), Ok(peer)));
        guest.call(|c, m| sock::sock_shutdown(c, m, connection, 3)).unwrap();
        let mut reply = String::new();
        client.read_to_string(&mut reply).unwrap();
        assert_eq!(reply, "reply");
    }
}

#[test]
fn a_client_of_its_own_connects_in_either_mode() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let mut guest = Guest::new();
    let fd = open(&mut guest, 1, STREAM).unwrap();
    assert_eq!(ports(&mut guest, fd).1, Err(Errno::Notconn));
    connect(&mut guest, fd, to, false).unwrap();
    assert_eq!(connect(&mut guest, fd, to, false), Err(Errno::Isconn));
    let (mut server, _) = listener.accept().unwrap();
    assert_eq!(guest.send(fd, b"hello"), Ok(5));
    let mut bytes = [0; 5];
    server.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"hello");
    // All that is asked for, though it comes in pieces.
    let writer = std::thread::spawn(move || {
        for piece in [&b"one "[..], b"two ", b"three"] {
            std::thread::sleep(Duration::from_millis(20));
            server.write_all(piece).unwrap();
        }
    });
    assert_eq!(guest.recv(fd, 13, 2), Ok(b"one two three".to_vec()));
    writer.join().unwrap();

    let fd = open(&mut guest, 1, STREAM).unwrap();
    guest.set_nonblocking(fd);
    match connect(&mut guest, fd, to, true) {
        Err(Errno::Inprogress) => {
            listener.accept().unwrap();
            assert_eq!(connect(&mut guest, fd, to, true), Ok(()));
        }
        result => assert_eq!(result, Ok(())),
    }
    assert_eq!(get(&mut guest, fd, 2, 4), Ok(vec![0; 4]));
}

#[test]
fn a_connection_that_nobody_takes_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    drop(listener);
    let mut guest = Guest::new();
    let fd = open(&mut guest, 1, STREAM).unwrap();
    assert_eq!(connect(&mut guest, fd, to, false), Err(Errno::Connrefused));
    let fd = open(&mut guest, 1, STREAM).unwrap();
    guest.set_nonblocking(fd);
    if connect(&mut guest, fd, to, false) == Err(Errno::Inprogress) {
        let refused = (Errno::Connrefused as u32).to_le_bytes();
        assert_eq!(get(&mut guest, fd, 2, 4), Ok(refused.to_vec()), "and told by the option");
    }
    assert_eq!(get(&mut guest, fd, 2, 4), Ok(vec![0; 4]), "once");
}

#[test]
fn datagrams_carry_their_senders_address() {
    for (own, other) in [("127.0.0.1:0", "127.0.0.1:0"), ("[::1]:0", "[::1]:0")] {
        let Ok(peer) = UdpSocket::bind(other) else { continue };
        let mut guest = Guest::new();
        let family = if own.starts_with('[') { 2 } else { 1 };
        let fd = open(&mut guest, family, DATAGRAM).unwrap();
        bind(&mut guest, fd, own, false).unwrap();
        let to = peer.local_addr().unwrap();
        assert_eq!(send_to(&mut guest, fd, to, b"ping"), Ok(4));
        let mut bytes = [0; 9];
        let (len, from) = peer.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes[..len], b"ping");
        assert_eq!(Ok(from.port()), ports(&mut guest, fd).0);

        peer.send_to(b"a long answer", from).unwrap();
        let ((list, data), (addr, storage)) = (guest.iovec(&[0; 6]), buffer(&mut guest, &[9; 128]));
        let (port, out) = (guest.room(4), guest.room(8));
        let got = guest
            .call(|c, m| second::sock_recv_from(c, m, fd, list, 1, addr, 0, port, out, out + 4));
        got.unwrap();
        assert_eq!((guest.bytes(data, 6), guest.u32_at(out)), (&b"a long"[..], 6));
        assert_eq!(guest.bytes(out + 4, 2), [1, 0], "cut");
        assert_eq!(guest.u32_at(port), u32::from(to.port()), "in the host's order");
        let octets = super::address::octets(to.ip());
        assert_eq!(guest.bytes(storage, 2), [family as u8, 0]);
        assert_eq!(guest.bytes(storage + 2, octets.len()), octets);

        peer.send_to(b"again", from).unwrap();
        let (addr, place) = buffer(&mut guest, &[0; 16]);
        guest.call(|c, m| first::sock_recv_from(c, m, fd, list, 1, addr, 0, out, out + 4)).unwrap();
        assert_eq!(guest.bytes(place, octets.len()), octets);
        if family == 2 {
            let (addr, _) = buffer(&mut guest, &[0; 4]);
            let short =
                guest.call(|c, m| first::sock_recv_from(c, m, fd, list, 1, addr, 0, out, out + 4));
            assert_eq!(short, Err(Errno::Inval));
        }
    }
}

#[test]
fn first_generation_addresses_have_a_kind_of_4_or_6() {
    let mut guest = Guest::new();
    let fd = open(&mut guest, 1, STREAM).unwrap();
    bind(&mut guest, fd, "127.0.0.1:0", false).unwrap();
    let ((addr, octets), kind) = (buffer(&mut guest, &[0; 16]), guest.room(8));
    guest.call(|c, m| first::sock_getlocaladdr(c, m, fd, addr, kind, kind + 4)).unwrap();
    assert_eq!((guest.u32_at(kind), guest.bytes(octets, 4)), (4, &[127, 0, 0, 1][..]));
    assert_eq!(guest.u32_at(kind + 4), u32::from(ports(&mut guest, fd).0.unwrap()));
    let error = guest.call(|c, m| second::sock_getlocaladdr(c, m, fd, addr, kind));
    assert_eq!(error, Err(Errno::Inval), "the second generation wants a storage");
    let six = open(&mut guest, 2, STREAM).unwrap();
    guest.call(|c, m| first::sock_getlocaladdr(c, m, six, addr, kind, kind + 4)).unwrap();
    assert_eq!(guest.u32_at(kind), 6);
    assert_eq!(guest.bytes(octets, 16), Ipv6Addr::UNSPECIFIED.octets());
    let (short, _) = buffer(&mut guest, &[0; 4]);
    let error = guest.call(|c, m| first::sock_getlocaladdr(c, m, six, short, kind, kind + 4));
    assert_eq!(error, Err(Errno::Inval));
}

#[test]
fn options_can_be_set_and_asked() {
    let mut guest = Guest::new();
    let fd = open(&mut guest, 1, STREAM).unwrap();
    let udp = open(&mut guest, 1, DATAGRAM).unwrap();
    assert_eq!(get(&mut guest, fd, 1, 4), Ok(vec![2, 0, 0, 0]));
    assert_eq!(get(&mut guest, udp, 1, 8), Ok(vec![1, 0, 0, 0]));
    for name in [0, 3, 4, 7, 8] {
        assert_eq!(get(&mut guest, fd, name, 4), Ok(vec![0; 4]), "{name}");
        assert_eq!(set(&mut guest, fd, name, &[1, 0, 0, 0]), Ok(()), "{name}");
        assert_eq!(get(&mut guest, fd, name, 4), Ok(vec![1, 0, 0, 0]), "{name}");
        assert_eq!(set(&mut guest, fd, name, &[1, 0, 0]), Err(Errno::Inval));
    }
    for name in [5, 6] {
        set(&mut guest, udp, name, &8192_u32.to_le_bytes()).unwrap();
        let size = get(&mut guest, udp, name, 4).unwrap();
        assert_eq!(u32::from_le_bytes(size.try_into().unwrap()), 16384, "the kernel doubles it");
        assert_eq!(set(&mut guest, udp, name, &[0xff; 4]), Err(Errno::Inval));
    }
    let linger = [1, 0, 0, 0, 5, 0, 0, 0];
    set(&mut guest, fd, 9, &linger).unwrap();
    assert_eq!(get(&mut guest, fd, 9, 8), Ok(linger.to_vec()));
    assert_eq!(get(&mut guest, fd, 10, 4), Ok(vec![1, 0, 0, 0]));
    assert_eq!(set(&mut guest, fd, 10, &[1, 0, 0, 0]), Ok(()));
    assert_eq!(set(&mut guest, fd, 14, b"surely-no-device"), Err(Errno::Nodev));
    assert_eq!(get(&mut guest, fd, 14, 16), Ok(vec![]));
    for (name, value) in [(10, 2), (1, 2), (2, 0), (13, 1), (15, 1)] {
        let result = set(&mut guest, fd, name, &[value, 0, 0, 0]);
        assert_eq!(result, Err(Errno::Noprotoopt), "{name}");
    }
    assert_eq!(get(&mut guest, fd, 15, 4), Err(Errno::Noprotoopt));
    assert_eq!(get(&mut guest, fd, 0, 2), Err(Errno::Inval));
    let value = guest.room(4);
    // Go passes the length itself.
    assert_eq!(guest.call(|c, m| options::sock_getsockopt(c, m, fd, 0, 1, value, 4)), Ok(()));
    assert_eq!(guest.u32_at(value), 2);
    let other = guest.call(|c, m| options::sock_getsockopt(c, m, fd, 6, 1, value, 4));
    assert_eq!(other, Err(Errno::Noprotoopt));
    assert_eq!(set(&mut guest, fd, 0, &[0; 65]), Err(Errno::Inval));
}

#[test]
fn time_limits_end_calls_that_wait() {
    let mut guest = Guest::new();
    let time = |seconds: i64, micros: u64| [seconds.to_le_bytes(), micros.to_le_bytes()].concat();
    let fd = open(&mut guest, 1, DATAGRAM).unwrap();
    bind(&mut guest, fd, "127.0.0.1:0", false).unwrap();
    for name in [11, 12] {
        assert_eq!(get(&mut guest, fd, name, 16), Ok(time(0, 0)));
        set(&mut guest, fd, name, &time(0, 30_000)).unwrap();
        assert_eq!(get(&mut guest, fd, name, 16), Ok(time(0, 30_000)));
        // Twelve bytes are enough for guests with 32-bit microseconds.
        set(&mut guest, fd, name, &time(0, 30_000)[..12]).unwrap();
        assert_eq!(set(&mut guest, fd, name, &time(-1, 0)), Err(Errno::Dom));
        assert_eq!(set(&mut guest, fd, name, &time(0, 1_000_000)), Err(Errno::Dom));
        assert_eq!(set(&mut guest, fd, name, &time(0, 0)[..8]), Err(Errno::Inval));
    }
    let start = Instant::now();
    assert_eq!(guest.recv(fd, 9, 0), Err(Errno::Again));
    let listener = open(&mut guest, 1, STREAM).unwrap();
    bind(&mut guest, listener, "127.0.0.1:0", false).unwrap();
    guest.listen(listener).unwrap();
    set(&mut guest, listener, 11, &time(0, 30_000)).unwrap();
    let out = guest.room(4);
    assert_eq!(guest.call(|c, m| first::sock_accept(c, m, listener, out)), Err(Errno::Again));
    let waited = start.elapsed();
    assert!((60..20_000).contains(&waited.as_millis()), "{waited:?}");
    set(&mut guest, fd, 11, &time(i64::MAX, 0)).unwrap();
}

#[test]
fn the_policy_is_asked_everywhere() {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (udp, tcp) = (peer.local_addr().unwrap(), listener.local_addr().unwrap());

    let mut guest = Guest::with("deny", |_| {});
    assert_eq!(open(&mut guest, 1, STREAM), Err(Errno::Acces));
    assert_eq!(guest.ctx.network_refusals(), 1);

    let mut guest = Guest::with(&format!("allow {udp}, {tcp}, listen 127.0.0.1:1-9"), |_| {});
    let fd = open(&mut guest, 1, DATAGRAM).unwrap();
    assert_eq!(send_to(&mut guest, fd, udp, b"x"), Ok(1));
    let other = "127.0.0.2:9".parse().unwrap();
    assert_eq!(send_to(&mut guest, fd, other, b"x"), Err(Errno::Acces));
    assert_eq!(connect(&mut guest, fd, other, true), Err(Errno::Acces));
    let fd = open(&mut guest, 1, STREAM).unwrap();
    assert_eq!(connect(&mut guest, fd, other, false), Err(Errno::Acces));
    assert_eq!(bind(&mut guest, fd, "127.0.0.1:10", false), Err(Errno::Acces));
    assert_eq!(bind(&mut guest, fd, "127.0.0.1:0", false), Ok(()), "any free port");
    assert_eq!(guest.listen(fd), Err(Errno::Acces), "which is no place to listen");
    assert_eq!(guest.ctx.network_refusals(), 5);
    let fd = open(&mut guest, 1, STREAM).unwrap();
    connect(&mut guest, fd, tcp, false).unwrap();
    listener.accept().unwrap();
}

#[test]
fn sockets_handed_in_obey_the_policy_too() {
    let (own, peer) = ("127.0.0.1:0", UdpSocket::bind("127.0.0.1:0").unwrap());
    let mut guest = Guest::with("deny", |grants| {
        grants.socket(UdpSocket::bind(own).unwrap().into());
    });
    let to = peer.local_addr().unwrap();
    assert_eq!(send_to(&mut guest, 3, to, b"x"), Err(Errno::Acces));
    assert_eq!(connect(&mut guest, 3, to, false), Err(Errno::Acces));
}

#[test]
fn hostile_parameters_are_refused() {
    let mut guest = Guest::new();
    let fd = open(&mut guest, 1, STREAM).unwrap();
    for (family, error) in [(0, Errno::Afnosupport), (3, Errno::Nosys), (4, Errno::Afnosupport)] {
        assert_eq!(open(&mut guest, family, STREAM), Err(error));
    }
    assert_eq!(open(&mut guest, 1, 3), Err(Errno::Inval));
    for address in [2, 65_536, 65_532, u32::MAX - 3] {
        let result = guest.call(|c, m| both::sock_open(c, m, 1, STREAM, address));
        let fine = address == 65_532;
        assert_eq!(result.is_ok(), fine, "{address}");
        let result = guest.call(|c, m| both::sock_bind(c, m, fd, address, 0));
        assert!(matches!(result, Err(Errno::Inval | Errno::Fault)), "{address}");
    }
    for len in [0, 3, 5, 127, 129] {
        let (addr, _) = buffer(&mut guest, &vec![0; len]);
        let result = guest.call(|c, m| both::sock_connect(c, m, fd, addr, 0));
        assert_eq!(result, Err(Errno::Inval), "{len}");
    }
    let outside = guest.put(&[0xff, 0xff, 0xff, 0xff, 4, 0, 0, 0]);
    let result = guest.call(|c, m| both::sock_connect(c, m, fd, outside, 0));
    assert_eq!(result, Err(Errno::Fault));
    let addr = address(&mut guest, "127.0.0.1:1".parse().unwrap(), false);
    let result = guest.call(|c, m| both::sock_bind(c, m, fd, addr, 65_536));
    assert_eq!(result, Err(Errno::Inval), "no port");
    for (storage, error) in [(0, Errno::Afnosupport), (3, Errno::Nosys), (9, Errno::Afnosupport)] {
        let mut bytes = [0; 128];
        bytes[0] = storage;
        let (addr, _) = buffer(&mut guest, &bytes);
        let result = guest.call(|c, m| both::sock_bind(c, m, fd, addr, 0));
        assert_eq!(result, Err(error));
    }
    assert_eq!(bind(&mut guest, 99, "127.0.0.1:0", false), Err(Errno::Badf));
    assert_eq!(guest.listen(99), Err(Errno::Badf));
    guest.close(fd);
    let udp = open(&mut guest, 1, DATAGRAM).unwrap();
    assert_eq!(guest.listen(udp), Err(Errno::Notsup));
    let value = guest.room(4);
    for (value, len) in [(value, u32::MAX - 3), (u32::MAX, 4), (value, 1026)] {
        let result = guest.call(|c, m| options::sock_getsockopt(c, m, udp, 0, 0, value, len));
        assert!(matches!(result, Err(Errno::Inval | Errno::Fault)));
    }
}
