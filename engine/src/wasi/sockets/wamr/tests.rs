//! The functions of WAMR's dialect against real sockets on the loopback device.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use super::{address, base, names, options};
use crate::wasi::NameFiles;
use crate::wasi::preview1::errno::Errno;
use crate::wasi::preview1::sock;
use crate::wasi::sockets::tests::Guest;

const DATAGRAM: u32 = 0;
const STREAM: u32 = 1;

fn open(guest: &mut Guest, family: u32, kind: u32) -> Result<u32, Errno> {
    let out = guest.room(4);
    guest.call(|c, m| base::sock_open(c, m, u32::MAX, family, kind, out))?;
    Ok(guest.u32_at(out))
}

fn put(guest: &mut Guest, at: SocketAddr) -> u32 {
    let place = guest.room(24);
    guest.call(|_, m| address::write(m, place, at)).unwrap();
    place
}

fn bind(guest: &mut Guest, fd: u32, at: &str) -> Result<(), Errno> {
    let addr = put(guest, at.parse().unwrap());
    guest.call(|c, m| base::sock_bind(c, m, fd, addr))
}

fn local(guest: &mut Guest, fd: u32) -> SocketAddr {
    let place = guest.room(24);
    guest.call(|c, m| base::sock_addr_local(c, m, fd, place)).unwrap();
    guest.call(|_, m| address::read(m, place)).unwrap()
}

#[test]
fn addresses_have_the_layout_of_the_header() {
    let mut guest = Guest::new();
    let at = put(&mut guest, "1.2.3.4:258".parse().unwrap());
    assert_eq!(guest.bytes(at, 10), [0, 0, 0, 0, 1, 2, 3, 4, 2, 1]);
    let at = put(&mut guest, "[102:304::506]:258".parse().unwrap());
    let mut expected = vec![1, 0, 0, 0, 2, 1, 4, 3];
    expected.extend([0; 10]);
    expected.extend([6, 5, 2, 1, 0, 0]);
    assert_eq!(guest.bytes(at, 24), expected);
    for text in ["1.2.3.4:258", "[102:304::506]:258"] {
        let at = put(&mut guest, text.parse().unwrap());
        assert_eq!(guest.call(|_, m| address::read(m, at)), Ok(text.parse().unwrap()));
    }
    let bad = guest.put(&[2; 24]);
    assert_eq!(guest.call(|_, m| address::read(m, bad)), Err(Errno::Afnosupport));
    for (place, error) in [(bad + 2, Errno::Inval), (65_516, Errno::Fault)] {
        assert_eq!(guest.call(|_, m| address::read(m, place)), Err(error));
    }
}

#[test]
fn servers_and_clients_talk() {
    let mut guest = Guest::new();
    let fd = open(&mut guest, 0, STREAM).unwrap();
    bind(&mut guest, fd, "127.0.0.1:0").unwrap();
    guest.listen(fd).unwrap();
    let mut client = TcpStream::connect(local(&mut guest, fd)).unwrap();
    let out = guest.room(4);
    guest.call(|c, m| sock::sock_accept(c, m, fd, 0, out)).unwrap();
    let connection = guest.u32_at(out);
    client.write_all(b"ping").unwrap();
    assert_eq!(guest.recv(connection, 9, 0), Ok(b"ping".to_vec()));
    let place = guest.room(24);
    guest.call(|c, m| base::sock_addr_remote(c, m, connection, place)).unwrap();
    let peer = guest.call(|_, m| address::read(m, place));
    assert_eq!(peer, Ok(client.local_addr().unwrap()));
    guest.call(|c, m| base::sock_close(c, m, connection)).unwrap();
    assert_eq!(client.read(&mut [0; 9]).unwrap(), 0);

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let fd = open(&mut guest, 0, STREAM).unwrap();
    let to = put(&mut guest, listener.local_addr().unwrap());
    guest.call(|c, m| base::sock_connect(c, m, fd, to)).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    assert_eq!(guest.send(fd, b"hello"), Ok(5));
    let mut bytes = [0; 5];
    server.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"hello");
    assert_eq!(guest.call(|c, m| base::sock_close(c, m, 99)), Err(Errno::Badf));
    for (family, kind, error) in [(2, 0, Errno::Afnosupport), (0, 2, Errno::Inval)] {
        assert_eq!(open(&mut guest, family, kind), Err(error));
    }
}

#[test]
fn datagrams_carry_addresses_both_ways() {
    let mut guest = Guest::new();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let fd = open(&mut guest, 0, DATAGRAM).unwrap();
    let to = put(&mut guest, peer.local_addr().unwrap());
    let ((list, data), out) = (guest.iovec(b"question"), guest.room(4));
    guest.call(|c, m| base::sock_send_to(c, m, fd, list, 1, 0, to, out)).unwrap();
    assert_eq!(guest.u32_at(out), 8);
    let (len, from) = peer.recv_from(&mut [0; 20]).unwrap();
    assert_eq!(len, 8);
    peer.send_to(b"an answer that is cut", from).unwrap();
    let addr = guest.room(24);
    guest.call(|c, m| base::sock_recv_from(c, m, fd, list, 1, 0, addr, out)).unwrap();
    assert_eq!((guest.u32_at(out), guest.bytes(data, 8)), (8, &b"an answe"[..]));
    let sender = guest.call(|_, m| address::read(m, addr));
    assert_eq!(sender, Ok(peer.local_addr().unwrap()));
    let refused = guest.call(|c, m| base::sock_recv_from(c, m, fd, list, 1, 0, addr + 2, out));
    assert_eq!(refused, Err(Errno::Inval));

    let mut guest = Guest::with("allow 192.0.2.1", |_| {});
    let fd = open(&mut guest, 0, DATAGRAM).unwrap();
    let (to, (list, _)) = (put(&mut guest, peer.local_addr().unwrap()), guest.iovec(b"x"));
    let out = guest.room(4);
    let result = guest.call(|c, m| base::sock_send_to(c, m, fd, list, 1, 0, to, out));
    assert_eq!(result, Err(Errno::Acces));
}

/// A function that asks for an option.
type Get = fn(
    &crate::wasi::WasiCtx,
    &mut crate::wasi::guest_mem::GuestMemory<'_>,
    u32,
    u32,
) -> Result<(), Errno>;

#[test]
fn options_that_are_on_or_off() {
    let mut guest = Guest::new();
    let (tcp, udp) = (open(&mut guest, 0, STREAM).unwrap(), open(&mut guest, 0, DATAGRAM).unwrap());
    let six = open(&mut guest, 1, DATAGRAM).unwrap();
    let all: [(Get, Get, u32); 8] = [
        (options::sock_get_reuse_addr, options::sock_set_reuse_addr, tcp),
        (options::sock_get_reuse_port, options::sock_set_reuse_port, tcp),
        (options::sock_get_keep_alive, options::sock_set_keep_alive, tcp),
        (options::sock_get_broadcast, options::sock_set_broadcast, udp),
        (options::sock_get_tcp_no_delay, options::sock_set_tcp_no_delay, tcp),
        (options::sock_get_tcp_quick_ack, options::sock_set_tcp_quick_ack, tcp),
        (options::sock_get_tcp_fastopen_connect, options::sock_set_tcp_fastopen_connect, tcp),
        (options::sock_get_ipv6_only, options::sock_set_ipv6_only, six),
    ];
    for (n, (get, set, fd)) in all.into_iter().enumerate() {
        let out = guest.room(1);
        for on in [1, 0] {
            // Other kernels' settings may leave fast open out.
            if guest.call(|c, m| set(c, m, fd, on)) == Ok(()) {
                guest.call(|c, m| get(c, m, fd, out)).unwrap();
                assert_eq!(guest.bytes(out, 1), [on as u8], "{n}");
            } else {
                assert_eq!(n, 6, "only fast open may be missing");
            }
        }
        assert_eq!(guest.call(|c, m| get(c, m, fd, 65_536)), Err(Errno::Fault));
        assert_eq!(guest.call(|c, m| set(c, m, 99, 1)), Err(Errno::Badf));
    }
    let out = guest.room(1);
    for (fd, family) in [(udp, 0), (six, 1)] {
        for on in [0, 1] {
            let set = options::sock_set_ip_multicast_loop;
            guest.call(|c, m| set(c, m, fd, family, on)).unwrap();
            let get = options::sock_get_ip_multicast_loop;
            guest.call(|c, m| get(c, m, fd, family, out)).unwrap();
            assert_eq!(guest.bytes(out, 1), [on as u8]);
        }
    }
}

#[test]
fn options_that_are_numbers() {
    let mut guest = Guest::new();
    let (tcp, udp) = (open(&mut guest, 0, STREAM).unwrap(), open(&mut guest, 0, DATAGRAM).unwrap());
    let six = open(&mut guest, 1, DATAGRAM).unwrap();
    let all: [(Get, Get, u32, u32, u32); 8] = [
        (options::sock_get_recv_buf_size, options::sock_set_recv_buf_size, tcp, 8192, 16384),
        (options::sock_get_send_buf_size, options::sock_set_send_buf_size, tcp, 8192, 16384),
        (options::sock_get_tcp_keep_idle, options::sock_set_tcp_keep_idle, tcp, 77, 77),
        (options::sock_get_tcp_keep_intvl, options::sock_set_tcp_keep_intvl, tcp, 7, 7),
        (options::sock_get_ip_ttl, options::sock_set_ip_ttl, tcp, 9, 9),
        (options::sock_get_ip_multicast_ttl, options::sock_set_ip_multicast_ttl, udp, 9, 9),
        (options::sock_get_ip_ttl, options::sock_set_ip_ttl, six, 9, 9),
        (options::sock_get_ip_multicast_ttl, options::sock_set_ip_multicast_ttl, six, 9, 9),
    ];
    for (n, (get, set, fd, value, expected)) in all.into_iter().enumerate() {
        let out = guest.room(4);
        guest.call(|c, m| set(c, m, fd, value)).unwrap();
        guest.call(|c, m| get(c, m, fd, out)).unwrap();
        assert_eq!(guest.u32_at(out), expected, "{n}");
    }
    assert_eq!(guest.call(|c, m| options::sock_set_ip_ttl(c, m, tcp, 256)), Err(Errno::Inval));
    let out = guest.room(8);
    for span in [0, 1_500_000] {
        guest.call(|c, m| options::sock_set_recv_timeout(c, m, udp, span)).unwrap();
        guest.call(|c, m| options::sock_get_recv_timeout(c, m, udp, out)).unwrap();
        assert_eq!(guest.bytes(out, 8), span.to_le_bytes());
        guest.call(|c, m| options::sock_set_send_timeout(c, m, udp, span)).unwrap();
        guest.call(|c, m| options::sock_get_send_timeout(c, m, udp, out)).unwrap();
        assert_eq!(guest.bytes(out, 8), span.to_le_bytes());
    }
    let negative = guest.call(|c, m| options::sock_set_recv_timeout(c, m, udp, -1));
    assert_eq!(negative, Err(Errno::Dom));
    guest.call(|c, m| options::sock_set_recv_timeout(c, m, udp, 20_000)).unwrap();
    bind(&mut guest, udp, "127.0.0.1:0").unwrap();
    assert_eq!(guest.recv(udp, 1, 0), Err(Errno::Again));
    guest.call(|c, m| options::sock_set_linger(c, m, tcp, 1, 5)).unwrap();
    guest.call(|c, m| options::sock_get_linger(c, m, tcp, out, out + 4)).unwrap();
    assert_eq!((guest.bytes(out, 1), guest.u32_at(out + 4)), (&[1][..], 5));
}

#[test]
fn groups_can_be_joined_and_left() {
    let mut guest = Guest::new();
    let fd = open(&mut guest, 0, DATAGRAM).unwrap();
    let group = put(&mut guest, "239.1.2.3:0".parse().unwrap());
    let other = put(&mut guest, "192.0.2.1:0".parse().unwrap());
    let refused = guest.call(|c, m| options::sock_set_ip_add_membership(c, m, fd, other, 0));
    assert_eq!(refused, Err(Errno::Inval));
    // The loopback device has number 1 everywhere.
    guest.call(|c, m| options::sock_set_ip_add_membership(c, m, fd, group, 1)).unwrap();
    let again = guest.call(|c, m| options::sock_set_ip_add_membership(c, m, fd, group, 1));
    assert_eq!(again, Err(Errno::Addrinuse));
    guest.call(|c, m| options::sock_set_ip_drop_membership(c, m, fd, group, 1)).unwrap();
    let again = guest.call(|c, m| options::sock_set_ip_drop_membership(c, m, fd, group, 1));
    assert_eq!(again, Err(Errno::Addrnotavail));
}

#[test]
fn names_fill_the_guests_array() {
    let dir = tempfile::tempdir().unwrap();
    let files = NameFiles { hosts: dir.path().join("hosts"), resolv_conf: dir.path().join("none") };
    std::fs::write(&files.hosts, "192.0.2.1 host.example\n2001:db8::1 host.example\n").unwrap();
    let mut guest = Guest::with("allow", |grants| {
        grants.name_files(files);
    });
    let (list, found) = (guest.room(28 * 4), guest.room(4));
    let ask = |guest: &mut Guest, host: &str, service: &str, hints: [i32; 3], most: u32| {
        let host = guest.put(format!("{host}\0").as_bytes());
        let service = guest.put(format!("{service}\0").as_bytes());
        let hints = guest.put(&hints.map(i32::to_le_bytes).concat());
        guest
            .call(|c, m| names::sock_addr_resolve(c, m, host, service, hints, list, most, found))?;
        Ok::<_, Errno>(guest.u32_at(found))
    };
    assert_eq!(ask(&mut guest, "host.example", "https", [1, 2, 1], 4), Ok(2));
    let first = guest.call(|_, m| address::read(m, list)).unwrap();
    let second = guest.call(|_, m| address::read(m, list + 28)).unwrap();
    assert_eq!(first, "192.0.2.1:443".parse().unwrap());
    assert_eq!(second, "[2001:db8::1]:443".parse().unwrap());
    assert_eq!(guest.u32_at(list + 24), STREAM);
    assert_eq!(ask(&mut guest, "host.example", "", [0, 0, 0], 1), Ok(4), "hints that are off");
    assert_eq!(ask(&mut guest, "host.example", "", [-1, 1, 1], 4), Ok(2));
    assert_eq!(ask(&mut guest, "127.0.0.1", "80", [0, 0, 1], 4), Ok(1));
    assert_eq!(guest.u32_at(list + 24), DATAGRAM);
    assert_eq!(ask(&mut guest, "127.0.0.1", "nonsense", [0, 0, 1], 4), Err(Errno::Inval));
    assert_eq!(ask(&mut guest, "no..name", "", [0, 0, 1], 4), Err(Errno::Noent));
    assert_eq!(ask(&mut guest, "host.example", "", [5, 0, 1], 4), Err(Errno::Inval));
    assert_eq!(ask(&mut guest, "host.example", "", [0, 7, 1], 4), Err(Errno::Afnosupport));
    assert_eq!(ask(&mut guest, "host.example", "", [0, 0, 1], u32::MAX), Err(Errno::Overflow));
    let end = guest.memory.len() as u32;
    guest.memory[end as usize - 4..].fill(b'x');
    let unended = guest.call(|c, m| names::sock_addr_resolve(c, m, end - 4, 0, 0, list, 4, found));
    assert_eq!(unended, Err(Errno::Fault));
}
