//! Asks a server from several connections at once, each as soon as it has its answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, poll};

/// What is sent, and what must come back.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    request: Vec<u8>,
    expected: Expected,
}

#[derive(Clone, Copy, Debug)]
enum Expected {
    /// The request itself.
    Same,
    /// A header of HTTP and a body of so many bytes.
    Http(usize),
}

/// How a server did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) per_second: f64,
    /// The time within which 99 of 100 answers came.
    pub(crate) p99: Duration,
}

/// Longest time without any answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection with a request under way.
struct Asked {
    stream: TcpStream,
    since: Instant,
    got: Vec<u8>,
}

impl Load {
    /// Random bytes that must come back as they are.
    pub(crate) fn echo(bytes: usize) -> Load {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        Load { request: (0..bytes).map(|_| next()).collect(), expected: Expected::Same }
    }

    /// A request of HTTP that must be answered with a body of this length.
    pub(crate) fn http(body: usize) -> Load {
        let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nuser-agent: bench\r\n\r\n".to_vec();
        Load { request, expected: Expected::Http(body) }
    }

    /// Asks for `warm`, then counts for `measured`.
    ///
    /// # Errors
    /// When the server closes a connection, answers wrongly, or not at all.
    pub(crate) fn run(
        &self,
        port: u16,
        connections: usize,
        warm: Duration,
        measured: Duration,
    ) -> Result<Answer> {
        let mut asked = (0..connections).map(|_| self.connect(port)).collect::<Result<Vec<_>>>()?;
        let begin = Instant::now() + warm;
        let end = begin + measured;
        let mut times = Vec::new();
        while Instant::now() < end {
            for n in wait(&asked)? {
                if self.receive(&mut asked[n])? {
                    let now = Instant::now();
                    if (begin..end).contains(&now) {
                        times.push(now - asked[n].since);
                    }
                    self.ask(&mut asked[n])?;
                }
            }
        }
        times.sort_unstable();
        let p99 = *times.get(times.len() * 99 / 100).context("it answered nothing")?;
        Ok(Answer { per_second: times.len() as f64 / measured.as_secs_f64(), p99 })
    }

    fn connect(&self, port: u16) -> Result<Asked> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("connecting")?;
        stream.set_nodelay(true)?;
        let mut asked = Asked { stream, since: Instant::now(), got: Vec::new() };
        self.ask(&mut asked)?;
        Ok(asked)
    }

    fn ask(&self, asked: &mut Asked) -> Result<()> {
        asked.got.clear();
        asked.since = Instant::now();
        asked.stream.write_all(&self.request).context("asking")
    }

    /// Takes what has come; whether the answer is whole.
    fn receive(&self, asked: &mut Asked) -> Result<bool> {
        let mut bytes = [0; 16 << 10];
        let n = asked.stream.read(&mut bytes).context("receiving")?;
        ensure!(n > 0, "it closed a connection");
        asked.got.extend_from_slice(&bytes[..n]);
        let whole = match self.expected {
            Expected::Same => self.request.len(),
            Expected::Http(body) => match find(&asked.got, b"\r\n\r\n") {
                Some(at) => at + 4 + body,
                None => return Ok(false),
            },
        };
        ensure!(asked.got.len() <= whole, "its answer is too long");
        if asked.got.len() < whole {
            return Ok(false);
        }
        let right = match self.expected {
            Expected::Same => asked.got == self.request,
            Expected::Http(_) => asked.got.starts_with(b"HTTP/1.1 200 "),
        };
        ensure!(right, "its answer is wrong");
        Ok(true)
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// The connections on which something has come.
fn wait(asked: &[Asked]) -> Result<Vec<usize>> {
    let watched =
        asked.iter().map(|one| PollFd::from_borrowed_fd(one.stream.as_fd(), PollFlags::IN));
    let mut watched: Vec<PollFd<'_>> = watched.collect();
    let limit = PATIENCE.try_into()?;
    ensure!(poll(&mut watched, Some(&limit))? > 0, "no answer for {PATIENCE:?}");
    let ready = watched.iter().enumerate().filter(|(_, one)| !one.revents().is_empty());
    Ok(ready.map(|(n, _)| n).collect())
}
