//! Sockets handed in.

use super::*;
use crate::wasi::preview1::sock;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

/// A guest with a listener as descriptor 4, and the address that it listens at.
fn server() -> (Guest, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let guest = Guest::with(|grants| {
        grants.socket(listener.into());
    });
    (guest, address)
}

fn accept(guest: &mut Guest, fd: u32, flags: u32) -> Result<u32, Errno> {
    let out = guest.room(4);
    guest.call(|c, m| sock::sock_accept(c, m, fd, flags, out))?;
    Ok(guest.u32_at(out))
}

fn recv(guest: &mut Guest, fd: u32, len: usize, flags: u32) -> Result<(Vec<u8>, u8), Errno> {
    let ((list, buffer), out) = (guest.iovec(&vec![0; len]), guest.room(8));
    guest.call(|c, m| sock::sock_recv(c, m, fd, list, 1, flags, out, out + 4))?;
    let count = guest.u32_at(out) as usize;
    Ok((guest.memory[buffer as usize..][..count].to_vec(), guest.memory[out as usize + 4]))
}

fn send(guest: &mut Guest, fd: u32, bytes: &[u8], flags: u32) -> Result<u32, Errno> {
    let ((list, _), out) = (guest.iovec(bytes), guest.room(4));
    guest.call(|c, m| sock::sock_send(c, m, fd, list, 1, flags, out))?;
    Ok(guest.u32_at(out))
}

#[test]
fn a_listener_serves_connections() {
    let (mut guest, address) = server();
    assert_eq!(guest.fdstat(4).unwrap()[0], 6);
    let out = guest.room(8);
    assert_eq!(guest.call(|c, m| fds::fd_prestat_get(c, m, 4, out)), Err(Errno::Badf));
    guest.call(|c, m| fds::fd_fdstat_set_flags(c, m, 4, 4)).unwrap();
    assert_eq!(accept(&mut guest, 4, 0), Err(Errno::Again));
    let mut client = TcpStream::connect(address).unwrap();
    let fd = accept(&mut guest, 4, 4).unwrap();
    assert_eq!(guest.fdstat(fd).unwrap()[..4], [6, 0, 4, 0]);
    assert_eq!(recv(&mut guest, fd, 9, 0), Err(Errno::Again));
    guest.call(|c, m| fds::fd_fdstat_set_flags(c, m, fd, 0)).unwrap();

    client.write_all(b"request").unwrap();
    assert_eq!(recv(&mut guest, fd, 4, 1), Ok((b"requ".to_vec(), 0)), "peek");
    assert_eq!(recv(&mut guest, fd, 4, 2), Ok((b"requ".to_vec(), 0)));
    assert_eq!(guest.read(fd, 9), Ok(b"est".to_vec()));
    assert_eq!(send(&mut guest, fd, b"re", 0), Ok(2));
    assert_eq!(guest.write(fd, b"ply"), Ok(3));
    guest.call(|c, m| sock::sock_shutdown(c, m, fd, 2)).unwrap();
    let mut reply = String::new();
    client.read_to_string(&mut reply).unwrap();
    assert_eq!(reply, "reply");
    assert_eq!(send(&mut guest, fd, b"x", 0), Err(Errno::Pipe), "and no SIGPIPE");
    drop(client);
    assert_eq!(recv(&mut guest, fd, 9, 0), Ok((vec![], 0)));
    assert_eq!(guest.seek(fd, 0, 1), Err(Errno::Spipe));
}

#[test]
fn a_blocking_accept_waits() {
    let (mut guest, address) = server();
    let client = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(30));
        TcpStream::connect(address).unwrap()
    });
    assert_eq!(accept(&mut guest, 4, 0), Ok(0));
    client.join().unwrap();
}

#[test]
fn datagrams_that_are_cut_say_so() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(socket.local_addr().unwrap()).unwrap();
    let mut guest = Guest::with(|grants| {
        grants.socket(socket.into());
    });
    assert_eq!(guest.fdstat(4).unwrap()[0], 5);
    client.send(b"a long datagram").unwrap();
    client.send(b"short").unwrap();
    assert_eq!(recv(&mut guest, 4, 6, 0), Ok((b"a long".to_vec(), 1)));
    assert_eq!(recv(&mut guest, 4, 6, 0), Ok((b"short".to_vec(), 0)));
}

#[test]
fn misuse_is_refused() {
    let (mut guest, address) = server();
    let file = guest.open("f", CREATE).unwrap();
    for (fd, error) in [(file, Errno::Notsock), (ROOT, Errno::Notsock), (99, Errno::Badf)] {
        assert_eq!(accept(&mut guest, fd, 0), Err(error));
        assert_eq!(recv(&mut guest, fd, 1, 0), Err(error));
        assert_eq!(send(&mut guest, fd, b"x", 0), Err(error));
        assert_eq!(guest.call(|c, m| sock::sock_shutdown(c, m, fd, 3)), Err(error));
    }
    let _client = TcpStream::connect(address).unwrap();
    assert_eq!(accept(&mut guest, 4, 1), Err(Errno::Inval));
    let fd = accept(&mut guest, 4, 0).unwrap();
    assert_eq!(accept(&mut guest, fd, 0), Err(Errno::Notcapable), "not a listener");
    assert_eq!(recv(&mut guest, fd, 1, 4), Err(Errno::Inval));
    assert_eq!(send(&mut guest, fd, b"x", 1), Err(Errno::Inval));
    for how in [0, 4] {
        let result = guest.call(|c, m| sock::sock_shutdown(c, m, fd, how));
        assert_eq!(result, Err(Errno::Inval));
    }
    assert_eq!(recv(&mut guest, 4, 1, 0), Err(Errno::Notconn));
}
