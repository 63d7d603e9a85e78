//! Content addresses: a [`Digest`] is always a well-formed SHA-256, and bytes are verified
//! against it before anybody sees them.
//!
//! Source: OCI image spec, `descriptor.md`, section "Digests".

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::error::DigestError;

/// A SHA-256 content address, written `sha256:` and 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// A digest that was computed before.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits without the algorithm's name.
    #[must_use]
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// Checks that `bytes` are the ones this digest names.
    ///
    /// # Errors
    /// [`DigestError::Mismatch`] with both digests.
    pub fn verify(&self, bytes: &[u8]) -> Result<(), DigestError> {
        let found = Self::of(bytes);
        if found == *self { Ok(()) } else { Err(DigestError::Mismatch { wanted: *self, found }) }
    }
}

/// Hashes a stream, handing every piece to `sink` on its way.
///
/// Returns the digest and the number of bytes. Stops with an error when more than `limit` bytes
/// come, so that a growing file cannot keep the caller busy for ever.
///
/// # Errors
/// Those of `source` and `sink`; [`io::ErrorKind::FileTooLarge`] beyond `limit`.
pub fn hash_stream(
    source: &mut impl Read,
    limit: u64,
    mut sink: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<(Digest, u64)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; 256 * 1024];
    let mut total = 0_u64;
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => return Ok((Digest(hasher.finalize().into()), total)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        total += count as u64;
        if total > limit {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        hasher.update(&buffer[..count]);
        sink(&buffer[..count])?;
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let malformed = || DigestError::Malformed(text.chars().take(160).collect());
        let (algorithm, hex) = text.split_once(':').ok_or_else(malformed)?;
        if matches!(algorithm, "sha384" | "sha512" | "blake3") {
            return Err(DigestError::Algorithm(text.chars().take(160).collect()));
        }
        if algorithm != "sha256" || hex.len() != 64 {
            return Err(malformed());
        }
        let mut bytes = [0_u8; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let high = nibble(pair[0]).ok_or_else(malformed)?;
            let low = nibble(pair[1]).ok_or_else(malformed)?;
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

/// The value of one lower-case hex digit; upper case is not canonical and therefore refused.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn known_answer_and_round_trip() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
        assert_eq!(
            Digest::of(b"abc").hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn stream_agrees_with_slice_and_obeys_limit() {
        let bytes = vec![7_u8; 600_000];
        let mut copy = Vec::new();
        let (digest, total) = hash_stream(&mut bytes.as_slice(), 600_000, |piece| {
            copy.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
        assert_eq!((digest, total), (Digest::of(&bytes), 600_000));
        assert_eq!(copy, bytes);
        let error = hash_stream(&mut bytes.as_slice(), 599_999, |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn refuses_what_is_not_canonical() {
        for bad in ["", "sha256", "sha256:", "md5:00", "../x:attack", &EMPTY.to_uppercase()] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        let upper = EMPTY.replace("e3b0", "E3b0");
        assert!(matches!(upper.parse::<Digest>(), Err(DigestError::Malformed(_))));
        let long = format!("sha512:{}", "0".repeat(128));
        assert!(matches!(long.parse::<Digest>(), Err(DigestError::Algorithm(_))));
    }

    #[test]
    fn mismatch_names_both() {
        let error = Digest::of(b"a").verify(b"b").unwrap_err().to_string();
        assert!(error.contains(&Digest::of(b"a").to_string()), "{error}");
        assert!(error.contains(&Digest::of(b"b").to_string()), "{error}");
    }
}
