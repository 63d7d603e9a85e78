//! Sockets of its own, in WasmEdge's dialect:
//!
//! ```text
//! serve PORT COUNT   answers COUNT requests of HTTP at 127.0.0.1:PORT
//! get HOST PORT      requests / and prints the answer
//! echo PORT COUNT    sends COUNT datagrams back to where they came from
//! resolve NAME       prints the addresses of NAME, one a line
//! ```
//!
//! A call that fails prints its name and error, and ends the program with 1.

use std::io::{self, Read, Write};

use wasmedge_wasi_socket::{nslookup, Shutdown, TcpListener, TcpStream, UdpSocket};

const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 16\r\nconnection: close\r\n\r\n\
                      hello from Rust\n";
const REQUEST: &str = "GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";

fn serve(port: u16, count: u32) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port), false)?;
    println!("serving");
    for _ in 0..count {
        let (mut stream, _) = listener.accept(false)?;
        let (mut request, mut bytes) = (Vec::new(), [0; 1024]);
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read(&mut bytes)? {
                0 => break,
                len => request.extend(&bytes[..len]),
            }
        }
        stream.write_all(ANSWER.as_bytes())?;
        stream.shutdown(Shutdown::Both)?;
    }
    Ok(())
}

fn get(host: &str, port: u16) -> io::Result<()> {
    let mut all = nslookup(host, "")?;
    all.retain(|address| address.is_ipv4());
    let mut address = all.first().copied().ok_or(io::ErrorKind::NotFound)?;
    address.set_port(port);
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(REQUEST.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    io::stdout().write_all(&answer)
}

fn echo(port: u16, count: u32) -> io::Result<()> {
    let socket = UdpSocket::bind(("127.0.0.1", port))?;
    println!("echoing");
    for _ in 0..count {
        let mut bytes = [0; 2048];
        let (len, from) = socket.recv_from(&mut bytes)?;
        socket.send_to(&bytes[..len], from)?;
    }
    Ok(())
}

fn resolve(name: &str) -> io::Result<()> {
    for address in nslookup(name, "http")? {
        println!("{} port {}", address.ip(), address.port());
    }
    Ok(())
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse().unwrap_or_default();
    let result = match args[..] {
        ["serve", port, count] => serve(number(port) as u16, number(count)),
        ["get", host, port] => get(host, number(port) as u16),
        ["echo", port, count] => echo(number(port) as u16, number(count)),
        ["resolve", name] => resolve(name),
        _ => {
            eprintln!("usage: serve PORT COUNT | get HOST PORT | echo PORT COUNT | resolve NAME");
            std::process::exit(2);
        }
    };
    if let Err(error) = result {
        eprintln!("{}: {error}", args[0]);
        std::process::exit(1);
    }
}
