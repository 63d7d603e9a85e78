//! Sockets of its own, in WasmEdge's dialect:
//!
//! ```text
//! serve PORT COUNT   answers COUNT requests of HTTP at every address of the machine
//! get HOST PORT      requests / and prints the answer
//! echo PORT COUNT    sends COUNT datagrams back to where they came from
//! resolve NAME       prints the addresses of NAME, one a line
//! redis HOST PORT    sets, reads, counts and deletes at a Redis server
//! ```
//!
//! A call that fails prints its name and error, and ends the program with 1.

use std::io::{self, Read, Write};

use wasmedge_wasi_socket::{nslookup, Shutdown, TcpListener, TcpStream, UdpSocket};

const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 16\r\nconnection: close\r\n\r\n\
                      hello from Rust\n";
const REQUEST: &str = "GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";

fn serve(port: u16, count: u32) -> io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", port), false)?;
    println!("serving");
    for _ in 0..count {
        let (stream, _) = listener.accept(false)?;
        // One client that went away is no reason to end.
        if let Err(error) = answer(stream) {
            eprintln!("serve: {error}");
        }
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    let (mut request, mut bytes) = (Vec::new(), [0; 1024]);
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            len => request.extend(&bytes[..len]),
        }
    }
    stream.write_all(ANSWER.as_bytes())?;
    stream.shutdown(Shutdown::Both)
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut all = nslookup(host, "")?;
    all.retain(|address| address.is_ipv4());
    let mut address = all.first().copied().ok_or(io::ErrorKind::NotFound)?;
    address.set_port(port);
    TcpStream::connect(address)
}

fn get(host: &str, port: u16) -> io::Result<()> {
    let mut stream = connect(host, port)?;
    stream.write_all(REQUEST.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    io::stdout().write_all(&answer)
}

/// Each command with the answer that it must have: the protocol is RESP.
fn redis(host: &str, port: u16) -> io::Result<()> {
    let long = "x".repeat(100_000);
    let commands: [(&[&str], String); 6] = [
        (&["PING"], "+PONG\r\n".into()),
        (&["SET", "coracle:text", &long], "+OK\r\n".into()),
        (&["GET", "coracle:text"], format!("${}\r\n{long}\r\n", long.len())),
        (&["INCRBY", "coracle:count", "41"], ":41\r\n".into()),
        (&["INCR", "coracle:count"], ":42\r\n".into()),
        (&["DEL", "coracle:text", "coracle:count"], ":2\r\n".into()),
    ];
    let mut stream = connect(host, port)?;
    for (words, expected) in commands {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        stream.write_all(request.as_bytes())?;
        let mut answer = vec![0; expected.len()];
        stream.read_exact(&mut answer)?;
        if answer != expected.as_bytes() {
            return Err(io::Error::other(format!("{}: a wrong answer", words[0])));
        }
        println!("{}", words[0]);
    }
    Ok(())
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
        ["redis", host, port] => redis(host, number(port) as u16),
        ["resolve", name] => resolve(name),
        _ => {
            eprintln!("usage: serve PORT COUNT | get HOST PORT | echo PORT COUNT | resolve NAME | redis HOST PORT");
            std::process::exit(2);
        }
    };
    if let Err(error) = result {
        eprintln!("{}: {error}", args[0]);
        std::process::exit(1);
    }
}
