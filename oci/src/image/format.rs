//! What bytes are, told by the bytes alone: names and media types are only claims.
//!
//! Sources: WebAssembly core spec, section "Modules" of the binary format; component model,
//! `Binary.md` (layer field in the upper half of the version); ELF gABI, `e_ident`.

use std::fmt;

/// How many leading bytes [`identify`] wants: enough to skip a text module's opening comments.
pub const SNIFF_LIMIT: usize = 64 * 1024;

/// Forms of a module that this project knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// A core module in binary form.
    Wasm,
    /// A component in binary form; recognised, not yet accepted.
    Component,
    /// A core module in text form.
    Wat,
}

/// Contents that are no module we can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Foreign {
    /// Nothing at all.
    Empty,
    /// The beginning of a wasm header.
    Truncated(usize),
    /// A wasm header of an unknown version.
    Version(u32),
    /// A component; `text` if written in the text format.
    Component {
        /// Text instead of binary.
        text: bool,
    },
    /// Machine code that some other engine made of a module.
    Precompiled(&'static str),
    /// A native program or library.
    Elf,
    /// A script for an interpreter, with its first line.
    Script(String),
    /// A compressed or packed file, by the name of its format.
    Archive(&'static str),
    /// A native program of another system.
    Native(&'static str),
    /// Some other text.
    Text,
    /// Some other bytes; the first of them.
    Unknown(Vec<u8>),
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "an empty file"),
            Self::Truncated(length) => {
                write!(f, "a truncated wasm module of only {length} bytes")
            }
            Self::Version(version) => write!(f, "a wasm binary of unknown version {version:#x}"),
            Self::Component { text: false } => {
                write!(f, "a wasm component, which this version cannot run")
            }
            Self::Component { text: true } => {
                write!(f, "a wasm component in text form, which this version cannot run")
            }
            Self::Precompiled(engine) => {
                write!(f, "machine code precompiled by {engine}, which is never run from an image")
            }
            Self::Elf => write!(f, "an ELF file, that is native code"),
            Self::Script(line) => write!(f, "a script ({line:?})"),
            Self::Archive(name) => write!(f, "a {name} file"),
            Self::Native(name) => write!(f, "a {name} program, that is native code"),
            Self::Text => write!(f, "a text file that is no .wat module"),
            Self::Unknown(bytes) => {
                write!(f, "an unknown file that starts with")?;
                bytes.iter().try_for_each(|byte| write!(f, " {byte:02x}"))
            }
        }
    }
}

/// Beginnings of machine code of other engines.
const PRECOMPILED: &[(&[u8], &str)] = &[(b"\0aot", "WAMR"), (b"\0wasmer", "Wasmer")];

/// Beginnings of packed files.
const ARCHIVES: &[(&[u8], &str)] = &[
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"PK\x03\x04", "zip"),
    (b"!<arch>\n", "ar"),
];

/// Beginnings of programs for other systems.
const NATIVE: &[(&[u8], &str)] =
    &[(b"MZ", "Windows"), (b"\xcf\xfa\xed\xfe", "macOS"), (b"\xca\xfe\xba\xbe", "macOS or Java")];

/// `e_ident[EI_OSABI]` by which wasmtime marks its code images.
const ELF_OSABI_WASMTIME: u8 = 200;

/// Tells what a file is by its first [`SNIFF_LIMIT`] bytes (or all of them, if fewer).
///
/// # Errors
/// [`Foreign`] for everything that is not a core module in binary or text form.
pub fn identify(head: &[u8]) -> Result<Format, Foreign> {
    match describe(head)? {
        Format::Component => Err(Foreign::Component { text: false }),
        format => Ok(format),
    }
}

/// As [`identify`], but a binary component counts as known.
fn describe(head: &[u8]) -> Result<Format, Foreign> {
    const MAGIC: &[u8; 4] = b"\0asm";
    if head.is_empty() {
        return Err(Foreign::Empty);
    }
    if head.len() < 8 && (head.starts_with(MAGIC) || MAGIC.starts_with(head)) {
        return Err(Foreign::Truncated(head.len()));
    }
    if let Some(rest) = head.strip_prefix(MAGIC) {
        return binary(rest);
    }
    if head.starts_with(b"\x7fELF") {
        let wasmtime = head.get(7) == Some(&ELF_OSABI_WASMTIME);
        return Err(if wasmtime { Foreign::Precompiled("wasmtime") } else { Foreign::Elf });
    }
    if head.starts_with(b"#!") {
        return Err(Foreign::Script(first_line(head)));
    }
    if let Some(name) = starting(head, PRECOMPILED) {
        return Err(Foreign::Precompiled(name));
    }
    if let Some(name) = starting(head, ARCHIVES) {
        return Err(Foreign::Archive(name));
    }
    if let Some(name) = starting(head, NATIVE) {
        return Err(Foreign::Native(name));
    }
    if head.get(257..262) == Some(b"ustar") {
        return Err(Foreign::Archive("tar"));
    }
    text(head)
}

/// Whose beginning it is.
fn starting(head: &[u8], list: &[(&[u8], &'static str)]) -> Option<&'static str> {
    list.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, name)| *name)
}

/// The eight bytes of a wasm header without its magic: version and layer, little-endian.
fn binary(rest: &[u8]) -> Result<Format, Foreign> {
    let version: [u8; 4] = match rest.get(..4).and_then(|bytes| bytes.try_into().ok()) {
        Some(version) => version,
        None => return Err(Foreign::Truncated(4 + rest.len())),
    };
    match version {
        [1, 0, 0, 0] => Ok(Format::Wasm),
        [_, _, 1, 0] => Ok(Format::Component),
        other => Err(Foreign::Version(u32::from_le_bytes(other))),
    }
}

/// Field names that may open a module in text form when `(module` itself is left out.
const FIELDS: &[&str] = &[
    "module", "type", "rec", "import", "func", "table", "memory", "global", "export", "start",
    "elem", "data", "tag",
];

/// Text: the first token after space and comments decides.
fn text(head: &[u8]) -> Result<Format, Foreign> {
    // The head may end within a character; what comes before it must be text.
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.valid_up_to() + 4 > head.len() && head.len() >= SNIFF_LIMIT => {
            std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return Err(unknown(head)),
    };
    if valid.contains('\0') {
        return Err(unknown(head));
    }
    let start = skip_blank(valid.strip_prefix('\u{feff}').unwrap_or(valid));
    let Some(inner) = start.strip_prefix('(') else { return Err(Foreign::Text) };
    let inner = skip_blank(inner);
    let end = inner.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(inner.len());
    match &inner[..end] {
        "component" => Err(Foreign::Component { text: true }),
        field if FIELDS.contains(&field) => Ok(Format::Wat),
        _ if inner.starts_with('@') => Ok(Format::Wat),
        _ => Err(Foreign::Text),
    }
}

/// Skips white space, `;; line` comments and nested `(; block ;)` comments.
fn skip_blank(mut text: &str) -> &str {
    loop {
        text = text.trim_start();
        if text.starts_with(";;") {
            text = text.find('\n').map_or("", |end| &text[end..]);
        } else if text.starts_with("(;") {
            text = skip_block(text);
        } else {
            return text;
        }
    }
}

/// Skips one block comment, which may hold others.
fn skip_block(text: &str) -> &str {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0_usize, 0_usize);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"(;" => depth += 1,
            b";)" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return &text[at..];
        }
    }
    ""
}

fn unknown(head: &[u8]) -> Foreign {
    Foreign::Unknown(head.iter().take(8).copied().collect())
}

fn first_line(head: &[u8]) -> String {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules() {
        assert_eq!(identify(b"\0asm\x01\0\0\0"), Ok(Format::Wasm));
        for text in [
            "(module)",
            "\n;; hello (component\n(; a (; b ;) c ;)\t( module $x (func))",
            "(func (export \"_start\"))",
            "\u{feff}(module)",
            "(@custom \"x\") (module)",
            ";; \u{e9}\u{4e2d}\n(memory 1)",
        ] {
            assert_eq!(identify(text.as_bytes()), Ok(Format::Wat), "{text}");
        }
    }

    #[test]
    fn components_are_recognised_and_refused() {
        let error = identify(b"\0asm\x0d\0\x01\0").unwrap_err();
        assert_eq!(error, Foreign::Component { text: false });
        assert_eq!(identify(b"(component)"), Err(Foreign::Component { text: true }));
        assert_eq!(describe(b"\0asm\x0d\0\x01\0"), Ok(Format::Component));
    }

    #[test]
    fn foreign_content_is_named() {
        let mut elf = *b"\x7fELF\x02\x01\x01\0\0\0\0\0";
        assert_eq!(identify(&elf), Err(Foreign::Elf));
        elf[7] = 200;
        assert_eq!(identify(&elf), Err(Foreign::Precompiled("wasmtime")));
        assert_eq!(identify(b""), Err(Foreign::Empty));
        assert_eq!(identify(b"\0as"), Err(Foreign::Truncated(3)));
        assert_eq!(identify(b"\0asm\x01\0"), Err(Foreign::Truncated(6)));
        assert_eq!(identify(b"\0asm\x02\0\0\0"), Err(Foreign::Version(2)));
        assert_eq!(identify(b"\0aot\x03\0\0\0"), Err(Foreign::Precompiled("WAMR")));
        assert_eq!(identify(b"#!/bin/sh\nx"), Err(Foreign::Script("#!/bin/sh".into())));
        assert_eq!(identify(b"\x1f\x8b\x08\0"), Err(Foreign::Archive("gzip")));
        assert_eq!(identify(b"hello, world"), Err(Foreign::Text));
        assert_eq!(identify(b"(hello)"), Err(Foreign::Text));
        assert_eq!(identify(b";; only a comment"), Err(Foreign::Text));
        assert_eq!(identify(b"(; never ends"), Err(Foreign::Text));
        assert_eq!(identify(&[1, 2, 0xff]), Err(Foreign::Unknown(vec![1, 2, 0xff])));
        let mut tar = vec![b'a'; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert_eq!(identify(&tar), Err(Foreign::Archive("tar")));
    }

    #[test]
    fn a_cut_character_at_the_end_of_the_head_is_no_fault() {
        let mut long = b"(module ;; ".to_vec();
        long.resize(SNIFF_LIMIT - 1, b'x');
        long.push(0xe4);
        assert_eq!(identify(&long), Ok(Format::Wat));
        assert!(matches!(identify(b"(module\xe4"), Err(Foreign::Unknown(_))));
    }
}
