//! Messages of D-Bus, as far as talking to systemd needs them.
//!
//! Source: D-Bus Specification, "Message Protocol" and "Type System".

use std::io;

use coracle_oci::cgroup::unit::{Property, Value};

/// Longest message that is read. systemd's answers have some hundred bytes; its signals may be larger.
const LONGEST: usize = 1 << 20;
/// Length of the part of a header that has always the same form, with that of the fields behind it.
pub(super) const FIXED: usize = 16;

/// Whom a call is for, and which one it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method {
    pub(super) destination: &'static str,
    pub(super) path: &'static str,
    pub(super) interface: &'static str,
    pub(super) member: &'static str,
}

/// The types and values of a call.
#[derive(Debug, Default)]
pub(super) struct Body {
    signature: String,
    bytes: Bytes,
}

/// Values one behind the other, each at a multiple of its alignment; little-endian.
#[derive(Debug, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.align(8);
        self.0.extend(value.to_le_bytes());
    }

    /// A length. What is sent here is some hundred bytes long.
    fn length(&mut self, value: usize) {
        self.u32(u32::try_from(value).unwrap_or(u32::MAX));
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        // What is sent here has less than twenty signs.
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// An array whose elements are aligned to `to`: its length counts from the first of them.
    fn array(&mut self, to: usize, fill: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        self.align(to);
        let begin = self.0.len();
        fill(self);
        let length = u32::try_from(self.0.len() - begin).unwrap_or(u32::MAX);
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn variant(&mut self, value: &Value) {
        match value {
            Value::Bool(on) => {
                self.signature("b");
                self.u32(u32::from(*on));
            }
            Value::Number(number) => {
                self.signature("t");
                self.u64(*number);
            }
            Value::Text(text) => {
                self.signature("s");
                self.text(text);
            }
            Value::Numbers(numbers) => {
                self.signature("au");
                self.array(4, |bytes| numbers.iter().for_each(|number| bytes.u32(*number)));
            }
            Value::Bytes(all) => {
                self.signature("ay");
                self.array(1, |bytes| bytes.0.extend(all));
            }
        }
    }
}

impl Body {
    pub(super) fn text(mut self, text: &str) -> Self {
        self.signature.push('s');
        self.bytes.text(text);
        self
    }

    pub(super) fn bool(mut self, on: bool) -> Self {
        self.signature.push('b');
        self.bytes.u32(u32::from(on));
        self
    }

    pub(super) fn properties(mut self, properties: &[Property]) -> Self {
        self.signature.push_str("a(sv)");
        self.bytes.array(8, |bytes| {
            for (name, value) in properties {
                bytes.align(8);
                bytes.text(name);
                bytes.variant(value);
            }
        });
        self
    }

    /// No further units: `a(sa(sv))`.
    pub(super) fn no_units(mut self) -> Self {
        self.signature.push_str("a(sa(sv))");
        self.bytes.array(8, |_| ());
        self
    }
}

/// A method call as it is sent.
pub(super) fn call(serial: u32, method: &Method, body: &Body) -> Vec<u8> {
    let mut message = Bytes(vec![b'l', 1, 0, 1]);
    message.length(body.bytes.0.len());
    message.u32(serial);
    let texts = [
        (1, "o", method.path),
        (2, "s", method.interface),
        (3, "s", method.member),
        (6, "s", method.destination),
    ];
    message.array(8, |bytes| {
        for (code, kind, text) in texts {
            bytes.align(8);
            bytes.0.push(code);
            bytes.signature(kind);
            bytes.text(text);
        }
        if !body.signature.is_empty() {
            bytes.align(8);
            bytes.0.push(8);
            bytes.signature("g");
            bytes.signature(&body.signature);
        }
    });
    message.align(8);
    message.0.extend(&body.bytes.0);
    message.0
}

/// What came, as far as it matters here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    /// The call that it answers.
    pub(super) answers: u32,
    /// The error's name, or the signal's.
    pub(super) name: String,
    /// The texts at the beginning of what it brings, numbers left out.
    pub(super) texts: Vec<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Return,
    Error,
    Signal,
    #[default]
    Other,
}

/// The length of a whole message, from its first [`FIXED`] bytes.
pub(super) fn length(head: &[u8; FIXED]) -> io::Result<usize> {
    if head[0] != b'l' {
        return Err(damaged("not of this machine's byte order"));
    }
    let number = |at: usize| {
        u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize
    };
    let (body, fields) = (number(4), number(12));
    if body > LONGEST || fields > LONGEST {
        return Err(damaged("too long"));
    }
    Ok((FIXED + fields).next_multiple_of(8) + body)
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a message of D-Bus is {what}"))
}

/// Reads a whole message.
pub(super) fn message(bytes: &[u8]) -> io::Result<Message> {
    parse(bytes).ok_or_else(|| damaged("damaged"))
}

fn parse(bytes: &[u8]) -> Option<Message> {
    let kind = match *bytes.get(1)? {
        2 => Kind::Return,
        3 => Kind::Error,
        4 => Kind::Signal,
        _ => Kind::Other,
    };
    let mut message = Message { kind, ..Message::default() };
    let mut reader = Reader { bytes, at: 12 };
    let end = FIXED.checked_add(reader.u32()? as usize)?;
    let mut types = "";
    while reader.at < end {
        reader.align(8);
        let code = reader.u8()?;
        match (code, reader.signature()?) {
            (4 | 3, "s") => {
                let text = reader.text()?;
                if (code == 4) == (kind == Kind::Error) {
                    text.clone_into(&mut message.name);
                }
            }
            (5, "u") => message.answers = reader.u32()?,
            (8, "g") => types = reader.signature()?,
            (_, "s" | "o") => drop(reader.text()?),
            (_, "g") => drop(reader.signature()?),
            (_, "u") => drop(reader.u32()?),
            _ => return None,
        }
    }
    reader.align(8);
    for kind in types.bytes() {
        match kind {
            b's' | b'o' => message.texts.push(reader.text()?.to_owned()),
            b'u' => drop(reader.u32()?),
            _ => break,
        }
    }
    Some(message)
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4);
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    /// With the zero behind it.
    fn string(&mut self, length: usize) -> Option<&'b str> {
        let text = std::str::from_utf8(self.take(length)?).ok()?;
        self.u8()?;
        Some(text)
    }

    fn text(&mut self) -> Option<&'b str> {
        let length = self.u32()?;
        self.string(length as usize)
    }

    fn signature(&mut self) -> Option<&'b str> {
        let length = self.u8()?;
        self.string(length.into())
    }
}

#[cfg(test)]
mod tests;
