//! A conversation with systemd over its bus: blocking, and bounded as a whole.
//!
//! Source: D-Bus Specification, "Authentication Protocol" and "Message Bus Specification".

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::wire::{self, Body, Kind, Message, Method};

/// The system's bus, and systemd's own socket, for root, on systems without such a bus.
const BUS: &str = "/run/dbus/system_bus_socket";
const PRIVATE: &str = "/run/systemd/private";

/// Longest line of the authentication.
const LINE: u64 = 4096;

const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const JOB_REMOVED: &str = "JobRemoved";

/// What a call can come to.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// systemd refuses.
    #[error("{name}: {text}")]
    Refused {
        /// The error's name, like `org.freedesktop.systemd1.UnitExists`.
        name: String,
        /// systemd's sentence.
        text: String,
    },
    /// The connection.
    #[error("the connection to systemd failed: {0}")]
    Io(#[from] io::Error),
}

/// A connection to systemd.
#[derive(Debug)]
pub(super) struct Bus {
    stream: BufReader<UnixStream>,
    until: Instant,
    serial: u32,
    /// Jobs that have ended since, and how.
    ended: Vec<(String, String)>,
}

impl Bus {
    /// Connects; `None` where systemd does not listen, be it that there is none.
    pub(super) fn connect(limit: Duration) -> Result<Option<Self>, CallError> {
        let until = Instant::now() + limit;
        for (socket, is_bus) in [(BUS, true), (PRIVATE, false)] {
            let stream = match UnixStream::connect(Path::new(socket)) {
                Ok(stream) => stream,
                Err(error) if is_absent(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            return Self::on(stream, is_bus, until).map(Some);
        }
        Ok(None)
    }

    fn on(stream: UnixStream, is_bus: bool, until: Instant) -> Result<Self, CallError> {
        let mut bus = Self { stream: BufReader::new(stream), until, serial: 0, ended: Vec::new() };
        bus.authenticate()?;
        if is_bus {
            bus.join()?;
        }
        Ok(bus)
    }

    fn authenticate(&mut self) -> io::Result<()> {
        let mut line = "\0AUTH EXTERNAL ".to_owned();
        for digit in rustix::process::geteuid().as_raw().to_string().bytes() {
            // Writing to a String cannot fail.
            let _ = write!(line, "{digit:02x}");
        }
        self.send(format!("{line}\r\n").as_bytes())?;
        let mut answer = String::new();
        self.wait_no_longer()?;
        self.stream.by_ref().take(LINE).read_line(&mut answer)?;
        if !answer.starts_with("OK ") {
            let answer = answer.trim_end();
            return Err(io::Error::other(format!("it does not let us in, but says {answer:?}")));
        }
        self.send(b"BEGIN\r\n")
    }

    /// What a bus wants to know of who is new, and systemd of who wants to hear of jobs.
    fn join(&mut self) -> Result<(), CallError> {
        let bus = |member| Method {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member,
        };
        self.call(&bus("Hello"), &Body::default())?;
        let rule = format!("type='signal',interface='{MANAGER}',member='{JOB_REMOVED}'");
        self.call(&bus("AddMatch"), &Body::default().text(&rule))?;
        self.manager("Subscribe", &Body::default())?;
        Ok(())
    }

    /// Calls a method of systemd's manager; the result is the first text of its answer.
    pub(super) fn manager(
        &mut self,
        member: &'static str,
        body: &Body,
    ) -> Result<String, CallError> {
        let method = Method {
            destination: "org.freedesktop.systemd1",
            path: "/org/freedesktop/systemd1",
            interface: MANAGER,
            member,
        };
        self.call(&method, body)
    }

    fn call(&mut self, method: &Method, body: &Body) -> Result<String, CallError> {
        self.serial += 1;
        self.send(&wire::call(self.serial, method, body))?;
        loop {
            let message = self.receive()?;
            let first = message.texts.first().cloned().unwrap_or_default();
            match message.kind {
                Kind::Return if message.answers == self.serial => return Ok(first),
                Kind::Error if message.answers == self.serial => {
                    return Err(CallError::Refused { name: message.name, text: first });
                }
                _ => self.note(message),
            }
        }
    }

    /// Waits until a job has ended, and says how: `done`, when all went well.
    pub(super) fn result_of(&mut self, job: &str) -> Result<String, CallError> {
        loop {
            if let Some((_, result)) = self.ended.iter().find(|(ended, _)| ended == job) {
                return Ok(result.clone());
            }
            let message = self.receive()?;
            self.note(message);
        }
    }

    /// Keeps what was said of a job: its path, its unit and how it ended.
    fn note(&mut self, message: Message) {
        if message.kind == Kind::Signal
            && message.name == JOB_REMOVED
            && let [job, _, result] = message.texts.as_slice()
        {
            self.ended.push((job.clone(), result.clone()));
        }
    }

    fn receive(&mut self) -> io::Result<Message> {
        let mut head = [0; wire::FIXED];
        self.fill(&mut head)?;
        let mut bytes = head.to_vec();
        bytes.resize(wire::length(&head)?, 0);
        self.fill(&mut bytes[wire::FIXED..])?;
        wire::message(&bytes)
    }

    fn fill(&mut self, mut bytes: &mut [u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.wait_no_longer()?;
            match self.stream.read(bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => bytes = &mut bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wait_no_longer()?;
        self.stream.get_mut().write_all(bytes)
    }

    /// Bounds the next read or write by the time that is left.
    fn wait_no_longer(&self) -> io::Result<()> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer in time"));
        }
        let stream = self.stream.get_ref();
        stream.set_read_timeout(Some(left))?;
        stream.set_write_timeout(Some(left))
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a connection whose other end says this, and nothing more.
    fn told(said: &[u8], is_bus: bool, limit: Duration) -> String {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(said).unwrap();
        let error = Bus::on(ours, is_bus, Instant::now() + limit).unwrap_err().to_string();
        drop(theirs);
        error
    }

    #[test]
    fn who_does_not_answer_is_not_waited_for() {
        for (said, is_bus) in [(&b""[..], false), (b"OK 0123\r\n", true)] {
            let error = told(said, is_bus, Duration::from_millis(100));
            assert!(error.starts_with("the connection to systemd failed"), "{error}");
        }
    }

    #[test]
    fn who_refuses_or_says_nonsense_is_quoted() {
        let told = |said| told(said, true, Duration::from_secs(60));
        assert!(told(b"REJECTED EXTERNAL\r\n").contains("REJECTED EXTERNAL"));
        assert!(told(b"OK 0123\r\nBxxxxxxxxxxxxxxx").contains("byte order"));
    }
}
