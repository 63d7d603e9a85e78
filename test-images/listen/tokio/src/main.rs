//! Answers HTTP on the listening socket that it was given, each connection in a task of its own.

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The first descriptor that listens; those before are directories.
fn listener() -> io::Result<std::net::TcpListener> {
    for fd in 3..32 {
        // SAFETY: nothing else in this program uses the descriptor.
        let listener = unsafe { std::net::TcpListener::from_raw_fd(fd) };
        let nonblocking = listener.set_nonblocking(true);
        match nonblocking.and_then(|()| listener.accept()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(listener),
            // No socket: it stays as it is.
            _ => _ = listener.into_raw_fd(),
        }
    }
    Err(io::Error::other("no descriptor listens"))
}

async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(&mut stream).lines();
    while lines.next_line().await?.is_some_and(|line| !line.is_empty()) {}
    let told = std::env::var("LISTEN_FDS").unwrap_or_default();
    let body = format!("hello from tokio, LISTEN_FDS={told}\n");
    let length = body.len();
    let header = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all((header + &body).as_bytes()).await?;
    stream.shutdown().await
}

async fn serve() -> io::Result<()> {
    let listener = TcpListener::from_std(listener()?)?;
    println!("serving");
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async {
            // One client that went away is no reason to end.
            if let Err(error) = answer(stream).await {
                eprintln!("{error}");
            }
        });
    }
}

fn main() -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve())
}
