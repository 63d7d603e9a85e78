//! Why an entry point or an image gave no module: one readable sentence part each.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::format::Foreign;
use crate::digest::Digest;
use crate::error::{DigestError, StoreError};
use crate::media_type;

/// Why the entry point is no module in the root file system.
#[derive(Debug)]
#[non_exhaustive]
pub enum EntryFault {
    /// `process.args` is empty, or has nothing before the `#`.
    Absent,
    /// Nothing is there.
    NotFound {
        /// The path as the container wrote it.
        path: String,
        /// Where it was looked for.
        searched: Vec<PathBuf>,
    },
    /// Something is there that is no regular file.
    NotRegular {
        /// Path inside the container.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// The path leads into a file system that is mounted, still empty, at the container's start.
    OnMount {
        /// Path inside the container.
        path: PathBuf,
        /// Type of that file system.
        kind: String,
    },
    /// More symbolic links than the kernel would follow.
    Links {
        /// Path inside the container.
        path: PathBuf,
    },
    /// The file is larger than [`super::MODULE_LIMIT`].
    TooLarge {
        /// Path inside the container.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// The file holds something else.
    Foreign {
        /// Path inside the container.
        path: PathBuf,
        /// What it holds.
        found: Foreign,
    },
    /// The system refuses.
    Open {
        /// Path inside the container.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl EntryFault {
    /// Whether another place may still hold the module: nothing usable was there at all.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::NotRegular { .. } | Self::OnMount { .. })
    }

    /// Whether the entry point is a program for Linux: an ELF file that no engine made, or a script.
    #[must_use]
    pub fn is_linux_program(&self) -> bool {
        matches!(self, Self::Foreign { found: Foreign::Elf | Foreign::Script(_), .. })
    }
}

/// Places in a message at most.
const LISTED_LIMIT: usize = 8;
/// Characters of a foreign text in a message at most.
const EXCERPT: usize = 200;

/// A path for a message.
fn excerpt(path: &Path) -> String {
    tidy(&path.to_string_lossy())
}

/// Foreign text for a message: short and on one line, whatever an image puts into its names.
pub(super) fn tidy(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    let mut short: String = plain.take(EXCERPT).collect();
    if text.chars().nth(EXCERPT).is_some() {
        short.push('\u{2026}');
    }
    short
}

/// Ends every message about content: what would have been right.
const ACCEPTED: &str = "accepted is a core wasm module, binary or .wat text";

impl fmt::Display for EntryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => write!(f, "the container names no entry point"),
            Self::NotFound { path, searched } => {
                let path = excerpt(Path::new(path));
                // Docker takes its exit code 127 from the words of runc.
                let missing = if path.contains('/') {
                    "no such file or directory"
                } else {
                    "executable file not found in $PATH"
                };
                write!(
                    f,
                    "the entry point {path:?} is not in the container's file system: {missing}"
                )?;
                match searched.as_slice() {
                    [] | [_] => Ok(()),
                    many => {
                        let shown = many.iter().take(LISTED_LIMIT);
                        let places: Vec<_> = shown.map(|path| excerpt(path)).collect();
                        let more = if many.len() > LISTED_LIMIT { " and elsewhere" } else { "" };
                        write!(f, " (looked for {}{more})", places.join(", "))
                    }
                }
            }
            Self::NotRegular { path, kind } => {
                write!(f, "the entry point {} is {kind}, not a file", excerpt(path))
            }
            Self::OnMount { path, kind } => write!(
                f,
                "the entry point {} lies on a {kind} mount, which is empty before the start",
                excerpt(path)
            ),
            Self::Links { path } => {
                write!(f, "the entry point {} leads through too many links", excerpt(path))
            }
            Self::TooLarge { path, size } => write!(
                f,
                "the entry point {} is {size} bytes, more than the {} that a module may have",
                excerpt(path),
                super::MODULE_LIMIT
            ),
            Self::Foreign { path, found } => {
                write!(f, "the entry point {} is {found}; {ACCEPTED}", excerpt(path))
            }
            Self::Open { path, source } => {
                write!(f, "the entry point {} cannot be opened: {source}", excerpt(path))
            }
        }
    }
}

impl std::error::Error for EntryFault {}

/// Why the image's layers give no module.
#[derive(Debug)]
#[non_exhaustive]
pub enum LayerFault {
    /// The container's record names no image.
    NoImage,
    /// The store does not answer.
    Store {
        /// The image's name.
        image: String,
        /// What the store said.
        source: StoreError,
    },
    /// A blob is not what its digest or size says.
    Digest {
        /// The image's name.
        image: String,
        /// What differs.
        source: DigestError,
    },
    /// A blob's length differs from its descriptor.
    Size {
        /// The blob.
        digest: Digest,
        /// Size as the descriptor says.
        wanted: u64,
        /// Size of what came.
        found: u64,
    },
    /// A manifest, index or layer is larger than its limit.
    TooLarge {
        /// The blob.
        digest: Digest,
        /// What it is.
        what: &'static str,
        /// Size as the descriptor says.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The image's target is neither a manifest nor an index.
    Document {
        /// The image's name.
        image: String,
        /// Its media type.
        media_type: String,
    },
    /// A manifest or an index does not parse.
    Parse {
        /// The blob.
        digest: Digest,
        /// Position and reason.
        source: serde_json::Error,
    },
    /// A document that is a manifest and an index at once, or indexes too deep.
    Ambiguous {
        /// The blob.
        digest: Digest,
        /// What is wrong.
        problem: &'static str,
    },
    /// No manifest of the image has a wasm layer.
    NoWasm {
        /// The image's name.
        image: String,
        /// Platforms found, in words.
        platforms: Vec<String>,
        /// Media types of the layers found.
        layers: Vec<String>,
    },
    /// More than one wasm layer and nothing to choose by.
    Several {
        /// The image's name.
        image: String,
        /// How many.
        count: usize,
        /// The entry point's name, which no layer's title equals.
        name: String,
    },
    /// The layer holds something else than its media type says.
    Foreign {
        /// The layer.
        digest: Digest,
        /// Its media type.
        media_type: String,
        /// What it holds.
        found: Foreign,
    },
}

impl fmt::Display for LayerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoImage => write!(
                f,
                "the container's record names no image, so wasm layers cannot be looked up and the \
                 module must be a file of the root file system"
            ),
            Self::Store { image, source } => {
                write!(f, "the layers of image {image} cannot be read: {source}")
            }
            Self::Digest { image, source } => write!(f, "image {image} is damaged: {source}"),
            Self::Size { digest, wanted, found } => write!(
                f,
                "{digest} is {found} bytes, but its descriptor says {wanted}; pull the image again"
            ),
            Self::TooLarge { digest, what, size, limit } => {
                write!(f, "{what} {digest} is {size} bytes, more than the {limit} accepted")
            }
            Self::Document { image, media_type } => write!(
                f,
                "image {image} is of media type {media_type:?}; accepted are {}",
                media_type::accepted_documents()
            ),
            Self::Parse { digest, source } => write!(f, "cannot parse {digest}: {source}"),
            Self::Ambiguous { digest, problem } => write!(f, "{digest} {problem}"),
            Self::NoWasm { image, platforms, layers } => no_wasm(f, image, platforms, layers),
            Self::Several { image, count, name } => write!(
                f,
                "image {image} has {count} wasm layers and none has the title {name:?}; leave one, \
                 or set org.opencontainers.image.title of one to the entry point's name"
            ),
            Self::Foreign { digest, media_type, found } => {
                write!(f, "layer {digest} of type {media_type} is {found}; {ACCEPTED}")
            }
        }
    }
}

fn no_wasm(
    f: &mut fmt::Formatter<'_>,
    image: &str,
    platforms: &[String],
    layers: &[String],
) -> fmt::Result {
    write!(f, "image {image}")?;
    if !platforms.is_empty() {
        write!(f, " (platform {})", platforms.join(", "))?;
    }
    if layers.is_empty() {
        write!(f, " has no layers here")?;
    } else {
        write!(f, " has no wasm layer, only {}", layers.join(", "))?;
    }
    write!(f, "; accepted wasm layers are {}", media_type::accepted_layers())
}

impl std::error::Error for LayerFault {}
