//! `CodeImage`: the inert result of a compilation, as one position-independent blob.
//!
//! The blob is written to a file and mapped from it. It holds no address and needs no relocation.
//! Reading checks every length before use, so that a damaged file is an error and never undefined
//! behaviour; whether the *code* in it may be trusted is decided by who made the file, not here.
//!
//! ```text
//! page 0     header: magic, version, number of sections, build id, total length, flags, section table;
//!            its last 64 bytes are zeros, or a seal that whoever keeps the image puts there
//! page 1..   sections; `Text`, `Memory` and the lazy ones start on page boundaries, others on 16 bytes
//! ```
//!
//! [`Section`] lists what there is; the settings that made the image are part of [`Meta`].

mod contents;

use std::ops::Range;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::abi::lazy;
use crate::config::Settings;
use crate::module::ModuleInfo;

pub(crate) use contents::{MAX_GAP, Run};

/// First bytes of an image.
pub const MAGIC: [u8; 8] = *b"CORACLE\0";
/// Version of the format described here.
pub const FORMAT_VERSION: u32 = 4;
/// Alignment of mapped sections, in bytes.
pub const PAGE: u64 = 4096;
/// Bytes of the header page.
pub const HEADER_SIZE: usize = PAGE as usize;
/// Largest image that is read, in bytes.
pub const MAX_SIZE: u64 = 1 << 30;

/// Bytes of the header page that mean nothing to who loads an image: room for a keeper's seal.
pub const SEAL: Range<usize> = HEADER_SIZE - 64..HEADER_SIZE;

const FIXED_HEADER: usize = 8 + 4 + 4 + 32 + 8 + 8;

/// Flag: [`ModuleInfo::wants_initialization`], for those who do not decode the metadata.
const WANTS_INITIALIZATION: u64 = 1;
const SECTION_ENTRY: usize = 16;

/// The sections of an image. All integers are little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Section {
    /// Machine code: defined functions, then entry and exit trampolines by signature.
    Text = 0,
    /// Initial contents of linear memories; see [`ModuleInfo::memory_images`].
    Memory = 1,
    /// [`Meta`], encoded by postcard.
    Meta = 2,
    /// `(u32 offset, u32 length)` in the text for: each defined function in order, the entry
    /// trampoline of each signature, the exit trampoline of each signature.
    Funcs = 3,
    /// `u32` code offsets of trapping instructions, ascending.
    TrapOffsets = 4,
    /// `u8` trap codes, parallel to `TrapOffsets`.
    TrapCodes = 5,
    /// `u32` code offsets where a new source position begins, ascending.
    AddressOffsets = 6,
    /// `u32` byte offsets in the wasm module, parallel to `AddressOffsets`; `u32::MAX` = none;
    /// others with [`INLINED`] set are indices of `Inlined`.
    AddressPositions = 7,
    /// Bytes of data segments that are not laid out in `Memory`.
    Data = 8,
    /// `u32` end offsets in `Names` of each function's name, imported functions first.
    NameEnds = 9,
    /// UTF-8 of the function names, one after another; an empty name is unknown.
    Names = 10,
    /// `u32` code offsets to which calls return that are inside a `try_table`, ascending.
    CatchSites = 11,
    /// `(u32 distance, u32 end)` parallel to `CatchSites`: the frame pointer less the stack pointer
    /// there, in bytes, and the end of the site's clauses, which begin where those of the site
    /// before it end.
    CatchFrames = 12,
    /// `(u32 tag, u32 context, u32 landing pad)` for each clause, in the order in which they are
    /// tried: a tag of the module or [`ANY_TAG`]; where the frame keeps its context, from the stack
    /// pointer up, or [`OWN_CONTEXT`]; a code offset.
    Catches = 13,
    /// [`InlinedPosition`]s as three `u32`s each: positions in bodies that stand in place of a
    /// call. Each comes after its caller.
    Inlined = 14,
    /// Functions of a lazy image that have code; see [`lazy`]. Else empty.
    LazyFuncs = 15,
    /// Tables of those functions.
    LazyTables = 16,
}

/// Number of sections.
pub const SECTIONS: usize = 17;

/// In place of a tag: the clause catches every exception.
pub const ANY_TAG: u32 = u32::MAX;
/// In place of a context's place: it is the one that the throwing runtime call was given.
pub const OWN_CONTEXT: u32 = u32::MAX;

impl Section {
    /// All of them, in their order.
    pub fn all() -> impl Iterator<Item = Section> {
        ALL.into_iter()
    }

    fn align(self) -> u64 {
        match self {
            Section::Text | Section::Memory | Section::LazyFuncs | Section::LazyTables => PAGE,
            _ => 16,
        }
    }
}

/// Marks a position that is the index of an [`InlinedPosition`].
pub const INLINED: u32 = 1 << 31;

/// A position in a function's body that stands in place of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InlinedPosition {
    /// The function.
    pub func: u32,
    /// Byte offset in the wasm module.
    pub offset: u32,
    /// Position of the call: a byte offset, or with [`INLINED`] the index of another entry.
    pub caller: u32,
}

impl InlinedPosition {
    /// Bytes in the image.
    pub const SIZE: usize = 12;
}

/// What an image holds besides arrays.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// The module.
    pub module: ModuleInfo,
    /// The settings that made it.
    pub settings: Settings,
    /// Target triple of the code.
    pub target: String,
    /// CPU features (names of `is_x86_feature_detected!`) that the code may use.
    pub cpu_features: Vec<String>,
}

/// Why bytes are not a usable image.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ImageError {
    #[error("code image is truncated: {have} bytes where {need} are needed")]
    Truncated { have: u64, need: u64 },
    #[error("not a code image: wrong magic bytes")]
    Magic,
    #[error("code image has format version {found}, this engine reads {FORMAT_VERSION}")]
    Version { found: u32 },
    #[error("code image comes from another build of the engine")]
    Build,
    #[error("code image of {size} bytes is over the limit of {MAX_SIZE}")]
    TooLarge { size: u64 },
    #[error("code image is damaged: {what}")]
    Damaged { what: &'static str },
    #[error("code image metadata cannot be decoded: {0}")]
    Meta(#[from] postcard::Error),
    #[error("code image needs the CPU feature {0}, which this machine lacks")]
    Cpu(String),
    #[error("code image is for {found}, this machine is {expected}")]
    Target { found: String, expected: &'static str },
}

/// Identifies the engine build: format, crate and code generator version, and the engine's sources.
/// Images of another build are never mapped.
#[must_use]
pub fn build_id() -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [
        "coracle code image".as_bytes(),
        &FORMAT_VERSION.to_le_bytes(),
        env!("CARGO_PKG_VERSION").as_bytes(),
        env!("CORACLE_ENGINE_SOURCES").as_bytes(),
        CODEGEN_VERSION.as_bytes(),
    ] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The code generator's version, as pinned in `Cargo.toml`; a test compares it with the crate's own.
pub const CODEGEN_VERSION: &str = "0.135.8";

/// Collects sections and writes the blob.
#[derive(Debug, Default)]
pub struct ImageBuilder {
    sections: [Vec<u8>; SECTIONS],
    rooms: [u64; SECTIONS],
}

/// An image in pieces, with zeros in between that need not be written to a file.
#[derive(Debug)]
pub struct Pieces {
    /// Bytes of the whole image.
    pub total: u64,
    /// What lies where, in order.
    pub pieces: Vec<(u64, Vec<u8>)>,
}

impl ImageBuilder {
    /// An image without any content.
    #[must_use]
    pub fn new() -> ImageBuilder {
        ImageBuilder::default()
    }

    /// The bytes of a section, to fill.
    pub fn section(&mut self, section: Section) -> &mut Vec<u8> {
        &mut self.sections[section as usize]
    }

    /// Makes a section at least `len` bytes long: what is not filled is zero.
    pub fn reserve(&mut self, section: Section, len: u64) {
        self.rooms[section as usize] = len;
    }

    /// Encodes the metadata and lays out the blob.
    ///
    /// # Errors
    /// When the metadata cannot be encoded or the image is over [`MAX_SIZE`].
    pub fn finish(self, meta: &Meta) -> Result<Vec<u8>, ImageError> {
        let Pieces { total, pieces } = self.finish_pieces(meta)?;
        let mut out = Vec::with_capacity(total as usize);
        for (start, bytes) in &pieces {
            out.resize(*start as usize, 0);
            out.extend_from_slice(bytes);
        }
        out.resize(total as usize, 0);
        Ok(out)
    }

    /// The same, in pieces.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn finish_pieces(mut self, meta: &Meta) -> Result<Pieces, ImageError> {
        self.sections[Section::Meta as usize] = postcard::to_stdvec(meta)?;
        let mut table = [(0u64, 0u64); SECTIONS];
        let mut end = HEADER_SIZE as u64;
        for (n, section) in ALL.iter().enumerate() {
            let start = end.next_multiple_of(section.align());
            let len = (self.sections[n].len() as u64).max(self.rooms[n]);
            table[n] = (start, len);
            end = start.saturating_add(len);
        }
        let total = end.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
        if total > MAX_SIZE {
            return Err(ImageError::TooLarge { size: total });
        }
        let flags = if meta.module.wants_initialization() { WANTS_INITIALIZATION } else { 0 };
        let mut pieces = vec![(0, header(total, flags, &table))];
        let sections = table.iter().map(|(start, _)| *start).zip(self.sections);
        pieces.extend(sections.filter(|(_, bytes)| !bytes.is_empty()));
        Ok(Pieces { total, pieces })
    }
}

fn header(total: u64, flags: u64, table: &[(u64, u64); SECTIONS]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FIXED_HEADER + SECTIONS * SECTION_ENTRY);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.extend_from_slice(&(SECTIONS as u32).to_le_bytes());
    out.extend_from_slice(&build_id());
    out.extend_from_slice(&total.to_le_bytes());
    out.extend_from_slice(&flags.to_le_bytes());
    for (start, len) in table {
        out.extend_from_slice(&start.to_le_bytes());
        out.extend_from_slice(&len.to_le_bytes());
    }
    out
}

const ALL: [Section; SECTIONS] = [
    Section::Text,
    Section::Memory,
    Section::Meta,
    Section::Funcs,
    Section::TrapOffsets,
    Section::TrapCodes,
    Section::AddressOffsets,
    Section::AddressPositions,
    Section::Data,
    Section::NameEnds,
    Section::Names,
    Section::CatchSites,
    Section::CatchFrames,
    Section::Catches,
    Section::Inlined,
    Section::LazyFuncs,
    Section::LazyTables,
];

/// The decoded header of an image: where its sections are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    total: u64,
    flags: u64,
    table: [(u64, u64); SECTIONS],
}

impl Header {
    /// Decodes and checks the first page of an image of `file_len` bytes.
    ///
    /// After this every section lies within the file, on its alignment, after the header and
    /// apart from all others.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(page: &[u8], file_len: u64) -> Result<Header, ImageError> {
        let need = (FIXED_HEADER + SECTIONS * SECTION_ENTRY) as u64;
        if (page.len() as u64) < need || file_len < HEADER_SIZE as u64 {
            let have = (page.len() as u64).min(file_len);
            return Err(ImageError::Truncated { have, need: HEADER_SIZE as u64 });
        }
        if page[..8] != MAGIC {
            return Err(ImageError::Magic);
        }
        let version = read_u32(page, 8);
        if version != FORMAT_VERSION {
            return Err(ImageError::Version { found: version });
        }
        if read_u32(page, 12) as usize != SECTIONS {
            return Err(ImageError::Damaged { what: "number of sections" });
        }
        if page[16..48] != build_id() {
            return Err(ImageError::Build);
        }
        let total = read_u64(page, 48);
        if total > MAX_SIZE {
            return Err(ImageError::TooLarge { size: total });
        }
        if total != file_len {
            return Err(ImageError::Truncated { have: file_len, need: total });
        }
        let flags = read_u64(page, 56);
        if flags & !WANTS_INITIALIZATION != 0 {
            return Err(ImageError::Damaged { what: "flags" });
        }
        let mut table = [(0, 0); SECTIONS];
        let mut end = HEADER_SIZE as u64;
        for (n, section) in ALL.iter().enumerate() {
            let at = FIXED_HEADER + n * SECTION_ENTRY;
            let (start, len) = (read_u64(page, at), read_u64(page, at + 8));
            if start < end || !start.is_multiple_of(section.align()) {
                return Err(ImageError::Damaged { what: "section start" });
            }
            end = start
                .checked_add(len)
                .filter(|&end| end <= total)
                .ok_or(ImageError::Damaged { what: "section length" })?;
            table[n] = (start, len);
        }
        Ok(Header { total, flags, table })
    }

    /// Where a section lies in the file, in bytes.
    #[must_use]
    pub fn range(&self, section: Section) -> Range<u64> {
        let (start, len) = self.table[section as usize];
        start..start + len
    }

    /// Whether the module asks for a [snapshot](crate::snapshot) of it after its initialisation.
    #[must_use]
    pub fn wants_initialization(&self) -> bool {
        self.flags & WANTS_INITIALIZATION != 0
    }

    /// Bytes of the whole image.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }
}

/// A checked view of an image's bytes.
#[derive(Clone, Debug)]
pub struct CodeImage<'a> {
    bytes: &'a [u8],
    header: Header,
}

impl<'a> CodeImage<'a> {
    /// Checks the header and the array sections' shapes.
    ///
    /// # Errors
    /// What is wrong with the image.
    pub fn new(bytes: &'a [u8]) -> Result<CodeImage<'a>, ImageError> {
        let header = Header::decode(&bytes[..bytes.len().min(HEADER_SIZE)], bytes.len() as u64)?;
        let image = CodeImage { bytes, header };
        let len = |section| image.section(section).len();
        if len(Section::TrapOffsets) != 4 * len(Section::TrapCodes) {
            return Err(ImageError::Damaged { what: "trap table" });
        }
        if len(Section::AddressOffsets) != len(Section::AddressPositions)
            || !len(Section::AddressOffsets).is_multiple_of(4)
        {
            return Err(ImageError::Damaged { what: "address map" });
        }
        if !len(Section::Inlined).is_multiple_of(InlinedPosition::SIZE) {
            return Err(ImageError::Damaged { what: "positions in inlined functions" });
        }
        if !len(Section::Funcs).is_multiple_of(8) || !len(Section::NameEnds).is_multiple_of(4) {
            return Err(ImageError::Damaged { what: "function table" });
        }
        if !len(Section::CatchSites).is_multiple_of(4)
            || 2 * len(Section::CatchSites) != len(Section::CatchFrames)
            || !len(Section::Catches).is_multiple_of(12)
        {
            return Err(ImageError::Damaged { what: "exception sites" });
        }
        let lazy = len(Section::LazyFuncs);
        if lazy != 0 && lazy < lazy::ENTRIES {
            return Err(ImageError::Damaged { what: "table of lazy functions" });
        }
        Ok(image)
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The bytes of a section.
    #[must_use]
    pub fn section(&self, section: Section) -> &'a [u8] {
        let range = self.header.range(section);
        &self.bytes[range.start as usize..range.end as usize]
    }

    /// Decodes the metadata and checks it against the arrays and this machine.
    ///
    /// # Errors
    /// When it cannot be decoded, does not fit the other sections, or this CPU lacks a feature.
    pub fn meta(&self) -> Result<Meta, ImageError> {
        let meta: Meta = postcard::from_bytes(self.section(Section::Meta))?;
        let module = &meta.module;
        if module.imported.functions as usize > module.functions.len() {
            return Err(ImageError::Damaged { what: "number of imported functions" });
        }
        let funcs = module.defined_funcs() + 2 * module.signatures.len();
        if self.section(Section::Funcs).len() != 8 * funcs {
            return Err(ImageError::Damaged { what: "number of functions" });
        }
        if self.section(Section::NameEnds).len() != 4 * module.functions.len() {
            return Err(ImageError::Damaged { what: "number of names" });
        }
        Ok(meta)
    }

    /// The place of an entry of the function table in the text, checked.
    #[must_use]
    pub fn func(&self, n: usize) -> Option<Range<u32>> {
        let table = self.section(Section::Funcs);
        let entry = table.get(8 * n..8 * n + 8)?;
        let (start, len) = (read_u32(entry, 0), read_u32(entry, 4));
        let end = start.checked_add(len)?;
        (end as usize <= self.section(Section::Text).len()).then_some(start..end)
    }
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut builder = ImageBuilder::new();
        builder.section(Section::Text).extend_from_slice(&[0xcc; 33]);
        builder.section(Section::Names).extend_from_slice(b"main");
        let meta = Meta {
            module: ModuleInfo::default(),
            settings: Settings::default(),
            target: "x86_64".into(),
            cpu_features: vec![],
        };
        builder.finish(&meta).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let blob = sample();
        assert_eq!(blob.len() % PAGE as usize, 0);
        let image = CodeImage::new(&blob).unwrap();
        assert_eq!(image.section(Section::Text), &[0xcc; 33]);
        assert_eq!(image.section(Section::Names), b"main");
        assert_eq!(image.header().range(Section::Text).start % PAGE, 0);
        assert_eq!(image.meta().unwrap().target, "x86_64");
    }

    #[test]
    fn every_truncation_is_an_error() {
        let blob = sample();
        for len in [0, 1, 7, 8, 47, 100, HEADER_SIZE, blob.len() - 1] {
            assert!(CodeImage::new(&blob[..len]).is_err(), "length {len}");
        }
    }

    #[test]
    fn flipped_header_bytes_never_panic_or_leave_the_file() {
        let blob = sample();
        for at in 0..FIXED_HEADER + SECTIONS * SECTION_ENTRY {
            for bit in 0..8 {
                let mut bad = blob.clone();
                bad[at] ^= 1 << bit;
                if let Ok(image) = CodeImage::new(&bad) {
                    for section in ALL {
                        let _ = image.section(section);
                    }
                    let _ = image.meta();
                }
            }
        }
    }
}
