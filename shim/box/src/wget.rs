//! `wget`, for HTTP.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::time::Duration;

use crate::args::{Long, Options};
use crate::error::{Failure, reason};
use crate::net::Connection;
use crate::out::{Context, plain};

/// Most redirections that are followed.
const MOST_REDIRECTS: usize = 10;
/// Most bytes of a server's head.
const MOST_HEAD: u64 = 64 << 10;
const LETTERS: &str = "qSO:T:U:H:p:s";
const LONG: &[Long] = &[
    ("quiet", 'q'),
    ("server-response", 'S'),
    ("output-document", 'O'),
    ("timeout", 'T'),
    ("user-agent", 'U'),
    ("header", 'H'),
    ("post-data", 'p'),
    ("spider", 's'),
];

/// A part of an address.
#[derive(Clone)]
struct Url {
    host: String,
    port: u16,
    /// With the query.
    path: String,
}

/// Fetches files.
pub fn run(context: &mut Context, words: Vec<String>) -> Result<(), Failure> {
    // As in busybox and the original: `-O-`, and no other options by two letters.
    let options = Options::parse(words, LETTERS, LONG)?;
    if options.operands.is_empty() {
        return Err(Failure::usage("the URL is missing"));
    }
    let seconds = match options.value('T') {
        Some(text) => text.parse().ok().filter(|&seconds| seconds > 0),
        None => Some(900),
    };
    let seconds = seconds.ok_or_else(|| Failure::usage("-T needs a number of seconds"))?;
    for url in &options.operands {
        fetch(context, &options, url, Duration::from_secs(seconds))?;
    }
    Ok(())
}

fn fetch(
    context: &mut Context,
    options: &Options,
    text: &str,
    patience: Duration,
) -> Result<(), Failure> {
    let mut url = Url::parse(text)?;
    for _ in 0..=MOST_REDIRECTS {
        let shown = plain(&url.host).into_owned();
        if !options.has('q') {
            eprintln!("Connecting to {shown}:{}", url.port);
        }
        let connect = Connection::open(&url.host, url.port, patience);
        let mut connection = connect.map_err(|error| {
            Failure::Told(format!("cannot connect to {shown}:{}: {}", url.port, reason(&error)))
        })?;
        let broken = |error: io::Error| Failure::Told(format!("{shown}: {}", reason(&error)));
        connection.write_all(request(&url, options).as_bytes()).map_err(broken)?;
        let mut reader = BufReader::new(connection);
        let head = Head::read(&mut reader).map_err(broken)?;
        if options.has('S') {
            head.lines.iter().for_each(|line| eprintln!("  {}", plain(line)));
        }
        if let (301 | 302 | 303 | 307 | 308, Some(to)) = (head.status, head.get("location")) {
            url = url.join(to)?;
            continue;
        }
        if !(200..300).contains(&head.status) {
            let line = head.lines.first().map_or("", String::as_str);
            return Err(Failure::Told(format!("server returned error: {}", plain(line))));
        }
        if options.has('s') {
            return Ok(());
        }
        return save(context, options, &url, &mut head.body(&mut reader));
    }
    Err(Failure::of(plain(text), "too many redirections"))
}

fn request(url: &Url, options: &Options) -> String {
    let data = options.value('p');
    let method = match data {
        Some(_) => "POST",
        None if options.has('s') => "HEAD",
        None => "GET",
    };
    let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
    let port = if url.port == 80 { String::new() } else { format!(":{}", url.port) };
    let mut text =
        format!("{method} {} HTTP/1.1\r\nHost: {host}{port}\r\nConnection: close\r\n", url.path);
    let agent = options.value('U').unwrap_or("coracle-box");
    text += &format!("User-Agent: {agent}\r\n");
    for line in options.values('H') {
        text += &format!("{line}\r\n");
    }
    if let Some(data) = data {
        let kind = "Content-Type: application/x-www-form-urlencoded";
        text += &format!("{kind}\r\nContent-Length: {}\r\n\r\n{data}", data.len());
    } else {
        text += "\r\n";
    }
    text
}

fn save(
    context: &mut Context,
    options: &Options,
    url: &Url,
    body: &mut dyn Read,
) -> Result<(), Failure> {
    let name = options.value('O').unwrap_or_else(|| url.file_name());
    let mut file = match name {
        "-" => None,
        name => match File::create(name) {
            Ok(file) => Some(file),
            Err(error) => return Err(Failure::of(plain(name), reason(&error))),
        },
    };
    let mut buffer = vec![0; 1 << 15];
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) => return Err(Failure::of(plain(&url.host), reason(&error))),
        };
        match &mut file {
            None => context.bytes(&buffer[..count])?,
            Some(file) => {
                let written = file.write_all(&buffer[..count]);
                written.map_err(|error| Failure::of(plain(name), reason(&error)))?;
            }
        }
    }
    if !options.has('q') && file.is_some() {
        eprintln!("'{}' saved", plain(name));
    }
    Ok(())
}

impl Url {
    fn parse(text: &str) -> Result<Url, Failure> {
        let bad = |why: &str| Failure::of(plain(text), why);
        if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(bad("has white space or control characters; write them as %20"));
        }
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some(("https", _)) => {
                return Err(bad("cannot fetch https: this wget has no TLS; use http"));
            }
            Some(_) => return Err(bad("not an http URL")),
            None => text,
        };
        let (authority, path) = match rest.find(['/', '?', '#']) {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, ""),
        };
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if authority.contains('@') {
            return Err(bad(
                "user and password are not supported; use --header 'Authorization: …'",
            ));
        }
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port),
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| bad("the port is no number from 1 to 65535"))?,
            None => 80,
        };
        if host.is_empty() {
            return Err(bad("the host is missing"));
        }
        Ok(Url { host: host.to_owned(), port, path })
    }

    /// Where a redirection leads.
    fn join(&self, to: &str) -> Result<Url, Failure> {
        if to.contains("://") {
            return Url::parse(to);
        }
        if to.starts_with("//") {
            return Url::parse(&format!("http:{to}"));
        }
        let path = match to.strip_prefix('/') {
            Some(_) => to.to_owned(),
            None => format!("{}/{to}", self.path.rsplit_once('/').map_or("", |(folder, _)| folder)),
        };
        Ok(Url { path, ..self.clone() })
    }

    fn file_name(&self) -> &str {
        let path = self.path.split('?').next().unwrap_or_default();
        path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("index.html")
    }
}

/// What a server says before the body.
struct Head {
    status: u16,
    lines: Vec<String>,
}

impl Head {
    fn read(reader: &mut impl BufRead) -> io::Result<Head> {
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "the answer is no HTTP");
        let mut lines = Vec::new();
        let mut limited = reader.take(MOST_HEAD);
        loop {
            let mut line = Vec::new();
            limited.read_until(b'\n', &mut line)?;
            if line.pop() != Some(b'\n') {
                return Err(bad());
            }
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            if line.is_empty() {
                break;
            }
            lines.push(String::from_utf8_lossy(&line).into_owned());
        }
        let status = lines.first().and_then(|line| line.strip_prefix("HTTP/"));
        let status =
            status.and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or_else(bad)?;
        Ok(Head { status, lines })
    }

    fn get(&self, name: &str) -> Option<&str> {
        let value = |line: &&String| {
            let (key, _) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(())
        };
        let line = self.lines.iter().skip(1).find(|line| value(line).is_some())?;
        line.split_once(':').map(|(_, value)| value.trim())
    }

    /// The body: in chunks, of a length, or to the end of the connection.
    fn body<'r>(&self, reader: &'r mut BufReader<Connection>) -> Box<dyn Read + 'r> {
        if self
            .get("transfer-encoding")
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
        {
            return Box::new(Chunks { reader, left: 0, begun: false, ended: false });
        }
        match self.get("content-length").and_then(|length| length.parse().ok()) {
            Some(left) => Box::new(Exact { reader, left }),
            None => Box::new(reader),
        }
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended before the file")
}

/// So many bytes.
struct Exact<'r> {
    reader: &'r mut BufReader<Connection>,
    left: u64,
}

impl Read for Exact<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.reader.read(&mut buffer[..room])?;
        if count == 0 && room != 0 {
            return Err(cut());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// Chunks: RFC 9112, "Chunked Transfer Coding".
struct Chunks<'r> {
    reader: &'r mut BufReader<Connection>,
    left: u64,
    begun: bool,
    ended: bool,
}

impl Chunks<'_> {
    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.reader.by_ref().take(4096).read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            return Err(cut());
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn next(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.begun, true) {
            self.line()?;
        }
        let line = self.line()?;
        let length = line.split(';').next().unwrap_or_default().trim();
        let bad = |_| io::Error::new(io::ErrorKind::InvalidData, "the answer has a bad chunk");
        self.left = u64::from_str_radix(length, 16).map_err(bad)?;
        self.ended = self.left == 0;
        Ok(())
    }
}

impl Read for Chunks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.ended {
            self.next()?;
        }
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        let room = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.reader.read(&mut buffer[..room])?;
        if count == 0 {
            return Err(cut());
        }
        self.left -= count as u64;
        Ok(count)
    }
}
