//! Small changes to bytes, as a fuzzer's input describes them.

use arbitrary::Arbitrary;

/// A change of a run of bytes. Places are taken modulo the length.
#[derive(Arbitrary, Clone, Debug)]
pub enum Edit {
    /// Flips bits of a byte.
    Flip {
        /// Where.
        at: u32,
        /// Which bits.
        bits: u8,
    },
    /// Overwrites up to eight bytes, little endian.
    Write {
        /// Where.
        at: u32,
        /// How many bytes, modulo nine.
        width: u8,
        /// With what.
        value: Number,
    },
    /// Inserts bytes.
    Insert {
        /// Where.
        at: u32,
        /// What.
        bytes: [u8; 4],
        /// How many of them, modulo five.
        len: u8,
    },
    /// Removes bytes.
    Remove {
        /// Where.
        at: u32,
        /// How many.
        len: u8,
    },
    /// Copies bytes over others.
    Copy {
        /// From where.
        from: u32,
        /// To where.
        to: u32,
        /// How many.
        len: u16,
    },
    /// Cuts the end off.
    Truncate {
        /// How many bytes.
        len: u16,
    },
}

/// Numbers that tend to break things, and any other.
#[derive(Arbitrary, Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Number {
    Zero,
    One,
    Max,
    Max32,
    HalfOf32,
    Pages32,
    /// Four bytes that are one LEB number.
    LongLeb,
    Small(u8),
    Any(u64),
}

impl Number {
    /// The number itself.
    #[must_use]
    pub fn value(self) -> u64 {
        match self {
            Number::Zero => 0,
            Number::One => 1,
            Number::Max => u64::MAX,
            Number::Max32 => u64::from(u32::MAX),
            Number::HalfOf32 => 1 << 31,
            Number::Pages32 => 1 << 16,
            Number::LongLeb => 0x0f_ffff_ffff,
            Number::Small(value) => u64::from(value),
            Number::Any(value) => value,
        }
    }
}

impl Edit {
    /// Makes the change.
    pub fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let place = |at: u32| at as usize % bytes.len();
        match *self {
            Edit::Flip { at, bits } => {
                let at = place(at);
                bytes[at] ^= bits;
            }
            Edit::Write { at, width, value } => {
                let at = place(at);
                let width = usize::from(width % 9).min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&value.value().to_le_bytes()[..width]);
            }
            Edit::Insert { at, bytes: new, len } => {
                let at = place(at);
                let len = usize::from(len % 5);
                bytes.splice(at..at, new[..len].iter().copied());
            }
            Edit::Remove { at, len } => {
                let at = place(at);
                let end = (at + usize::from(len)).min(bytes.len());
                bytes.drain(at..end);
            }
            Edit::Copy { from, to, len } => {
                let (from, to) = (place(from), place(to));
                let len = usize::from(len).min(bytes.len() - from.max(to));
                bytes.copy_within(from..from + len, to);
            }
            Edit::Truncate { len } => {
                let len = bytes.len().saturating_sub(usize::from(len));
                bytes.truncate(len);
            }
        }
    }
}
