//! Answers HTTP on the listening socket that it was given, whatever number that has.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{FromRawFd, IntoRawFd};

/// The first connection to a descriptor that listens, with the listener; those before are directories.
fn listener() -> io::Result<(TcpListener, TcpStream)> {
    println!("serving");
    for fd in 3..32 {
        // SAFETY: nothing else in this program uses the descriptor.
        let listener = unsafe { TcpListener::from_raw_fd(fd) };
        match listener.accept() {
            Ok((stream, _)) => return Ok((listener, stream)),
            // No socket: it stays as it is.
            Err(_) => _ = listener.into_raw_fd(),
        }
    }
    Err(io::Error::other("no descriptor listens"))
}

fn answer(stream: TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(&stream).lines();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let told = std::env::var("LISTEN_FDS").unwrap_or_default();
    let body = format!("hello from Rust, LISTEN_FDS={told}\n");
    let length = body.len();
    write!(&stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

fn main() -> io::Result<()> {
    let (listener, first) = listener()?;
    answer(first)?;
    loop {
        let (stream, _) = listener.accept()?;
        // One client that went away is no reason to end.
        if let Err(error) = answer(stream) {
            eprintln!("{error}");
        }
    }
}
