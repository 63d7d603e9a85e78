//! Questions to name servers: both families at once over UDP, over TCP what does not fit.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::config::Resolver;
use super::wire::{Code, Question, RecordKind, Reply, decode};
use crate::wasi::core::random;
use crate::wasi::core::socket::Family;

/// Most bytes of an answer over UDP. Servers should send 512 at most, and some send more.
const MAX_DATAGRAM: usize = 4096;
/// Most datagrams that are looked at for one question: others may send to our port too.
const MAX_DATAGRAMS: usize = 64;

/// What became of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Its addresses and the name that they belong to.
    Addresses(Vec<IpAddr>, String),
    /// It does not exist.
    NoName,
    /// It exists.
    NoAddress,
    /// All servers fail.
    Failed,
    /// No server answers.
    NoReply,
}

/// Asks the servers, one after the other, until one knows.
pub(super) fn ask(
    resolver: &Resolver,
    name: &str,
    family: Option<Family>,
    deadline: Instant,
) -> Outcome {
    let servers = &resolver.servers;
    let mut outcome = Outcome::NoReply;
    for round in 0..resolver.attempts as usize * servers.len() {
        let Some(id) = unpredictable() else { return Outcome::Failed };
        let first = if resolver.rotate { usize::from(id) } else { 0 };
        let server = servers[(first + round) % servers.len()];
        let until = deadline.min(Instant::now() + resolver.timeout);
        let questions = questions(id, name, family);
        let replies = exchange(server, &questions, resolver.tcp, until);
        match judge(name, replies) {
            Some(Outcome::Failed) => outcome = Outcome::Failed,
            Some(known) => return known,
            None => {}
        }
        if Instant::now() >= deadline {
            break;
        }
    }
    outcome
}

fn questions(id: u16, name: &str, family: Option<Family>) -> Vec<Question> {
    let kinds: &[RecordKind] = match family {
        Some(Family::Inet4) => &[RecordKind::A],
        Some(Family::Inet6) => &[RecordKind::Aaaa],
        None => &[RecordKind::A, RecordKind::Aaaa],
    };
    let numbered = [id, id ^ 1].into_iter().zip(kinds);
    numbered.map(|(id, &kind)| Question { id, name: name.to_owned(), kind }).collect()
}

/// An unpredictable number, so that nobody can answer who has not seen the question.
fn unpredictable() -> Option<u16> {
    let mut bytes = [0; 2];
    random::fill(&mut bytes).ok()?;
    Some(u16::from_ne_bytes(bytes))
}

/// What the replies to all questions say together; `None` when none came.
fn judge(name: &str, replies: Vec<Option<Reply>>) -> Option<Outcome> {
    let (mut addresses, mut canonical, mut worst) = (Vec::new(), name.to_owned(), None);
    for reply in replies {
        let outcome = match reply {
            Some(Reply { code: Code::Fine, addresses: some, canonical: of, .. }) => {
                if !some.is_empty() {
                    addresses.extend(some);
                    canonical = of;
                }
                Outcome::NoAddress
            }
            Some(Reply { code: Code::NoName, .. }) => Outcome::NoName,
            Some(Reply { code: Code::Failed, .. }) => Outcome::Failed,
            None => Outcome::NoReply,
        };
        worst = match (worst, outcome) {
            // That the name exists is known once one family says so.
            (Some(Outcome::NoAddress), Outcome::NoName) => Some(Outcome::NoAddress),
            (Some(bad @ (Outcome::Failed | Outcome::NoReply)), _) => Some(bad),
            (_, outcome) => Some(outcome),
        };
    }
    if !addresses.is_empty() {
        // Addresses of one family are better than none.
        return Some(Outcome::Addresses(addresses, canonical));
    }
    worst.filter(|worst| *worst != Outcome::NoReply)
}

/// The server's replies to the questions, as far as they come in time.
fn exchange(
    server: SocketAddr,
    questions: &[Question],
    tcp: bool,
    until: Instant,
) -> Vec<Option<Reply>> {
    let mut replies: Vec<Option<Reply>> = questions.iter().map(|_| None).collect();
    if !tcp {
        // What has come before an error counts.
        let _ = over_udp(server, questions, &mut replies, until);
    }
    for (question, reply) in questions.iter().zip(&mut replies) {
        let cut = reply.as_ref().is_some_and(|reply| reply.truncated);
        if tcp || cut {
            *reply = over_tcp(server, question, until).ok().flatten();
        }
    }
    replies
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    // A time limit of zero would be none.
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn encode(question: &Question) -> io::Result<Vec<u8>> {
    question.encode().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn over_udp(
    server: SocketAddr,
    questions: &[Question],
    replies: &mut [Option<Reply>],
    until: Instant,
) -> io::Result<()> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    // A connected socket takes nothing from others, and learns when nobody listens there.
    socket.connect(server)?;
    for question in questions {
        socket.send(&encode(question)?)?;
    }
    let mut buffer = [0; MAX_DATAGRAM];
    for _ in 0..MAX_DATAGRAMS {
        socket.set_read_timeout(Some(left(until)?))?;
        let len = match socket.recv(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        let mut open = questions.iter().zip(&mut *replies).filter(|(_, reply)| reply.is_none());
        let found = open.find_map(|(question, reply)| {
            decode(&buffer[..len], question).map(|decoded| *reply = Some(decoded))
        });
        if found.is_some() && replies.iter().all(Option::is_some) {
            break;
        }
    }
    Ok(())
}

fn over_tcp(server: SocketAddr, question: &Question, until: Instant) -> io::Result<Option<Reply>> {
    let message = encode(question)?;
    let mut stream = TcpStream::connect_timeout(&server, left(until)?)?;
    stream.set_write_timeout(Some(left(until)?))?;
    let mut framed = (message.len() as u16).to_be_bytes().to_vec();
    framed.extend(message);
    stream.write_all(&framed)?;
    let mut len = [0; 2];
    read_exact(&mut stream, &mut len, until)?;
    let mut message = vec![0; u16::from_be_bytes(len).into()];
    read_exact(&mut stream, &mut message, until)?;
    Ok(decode(&message, question))
}

/// Reads until the buffer is full, whatever drops the server sends.
fn read_exact(stream: &mut TcpStream, mut buffer: &mut [u8], until: Instant) -> io::Result<()> {
    while !buffer.is_empty() {
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => buffer = &mut buffer[len..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
