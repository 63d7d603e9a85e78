//! What an entry is found by.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::abi::cpu;
use crate::config::{Cpu, Settings};
use crate::image::{FORMAT_VERSION, build_id};

/// SHA-256 over everything that a code image depends on: the module's digest, the engine's build, the
/// code generator, the machine, every setting, the image's format, and the scope.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; 32]);

/// Who shares entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Everybody on the node: one copy of the code in memory for all.
    #[default]
    Node,
    /// Those of one namespace of containerd. Nobody else can tell by the time of a start whether a module was
    /// used there.
    Namespace(&'a str),
}

impl Key {
    /// The key of a module, by the SHA-256 of its bytes, on this machine.
    #[must_use]
    pub fn new(module: &[u8; 32], settings: &Settings, scope: Scope<'_>) -> Key {
        let mut hash = Sha256::new();
        // Each part has its length before it, so that no two lists of parts read the same.
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        part(b"coracle code cache");
        part(&FORMAT_VERSION.to_le_bytes());
        part(&build_id());
        part(module);
        part(std::env::consts::ARCH.as_bytes());
        for feature in cpu::RECORDED.iter().filter(|feature| match settings.cpu {
            Cpu::Native => cpu::has(feature),
            Cpu::Baseline => cpu::BASELINE.contains(feature),
        }) {
            part(feature.as_bytes());
        }
        // Names and values of all fields, in their order.
        part(format!("{settings:?}").as_bytes());
        match scope {
            Scope::Node => part(b"node"),
            Scope::Namespace(name) => {
                part(b"namespace");
                part(name.as_bytes());
            }
        }
        Key(hash.finalize().into())
    }

    /// The key of what becomes of the module's code when an export has initialised it that the module
    /// itself does not name.
    #[must_use]
    pub fn initialized_by(self, export: &str) -> Key {
        let mut hash = Sha256::new();
        hash.update(b"coracle code cache, initialized");
        hash.update(self.0);
        hash.update(export);
        Key(hash.finalize().into())
    }

    /// A key from an entry.
    pub(super) fn from_bytes(bytes: [u8; 32]) -> Key {
        Key(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The file name of its entry.
    pub(super) fn name(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// A text that is no key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a key has 64 digits, 0 to 9 and a to f")]
pub struct NotAKey;

impl FromStr for Key {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Key, NotAKey> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(NotAKey);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Key(bytes))
    }
}

/// Upper case is another file's name.
fn digit(digit: u8) -> Result<u8, NotAKey> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(NotAKey),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Addressing, Features, OptLevel};

    #[test]
    fn every_choice_gives_another_key() {
        let settings = Settings::default();
        let base = Key::new(&[1; 32], &settings, Scope::Node);
        assert_eq!(base, Key::new(&[1; 32], &settings, Scope::Node));
        let others = [
            Settings { opt_level: OptLevel::None, ..settings },
            Settings { addressing: Addressing::Dedicated, ..settings },
            Settings { cpu: Cpu::Baseline, ..settings },
            Settings { inlining: false, ..settings },
            Settings { verifier: true, ..settings },
            Settings { regalloc_checker: true, ..settings },
            Settings { features: Features::none(), ..settings },
        ];
        let mut keys: Vec<Key> =
            others.iter().map(|other| Key::new(&[1; 32], other, Scope::Node)).collect();
        keys.push(Key::new(&[2; 32], &settings, Scope::Node));
        keys.push(Key::new(&[1; 32], &settings, Scope::Namespace("")));
        keys.push(Key::new(&[1; 32], &settings, Scope::Namespace("k8s.io")));
        keys.push(base);
        keys.push(base.initialized_by(""));
        keys.push(base.initialized_by("init"));
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }

    #[test]
    fn a_key_is_its_name() {
        let key = Key::new(&[1; 32], &Settings::default(), Scope::Node);
        assert_eq!(key.to_string().parse(), Ok(key));
        let upper = key.to_string().to_uppercase();
        for bad in ["", "../x", &key.to_string()[1..], &upper, &"g".repeat(64)] {
            assert_eq!(bad.parse::<Key>(), Err(NotAKey), "{bad}");
        }
    }
}
