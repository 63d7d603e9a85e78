//! A workload and its image become one [`Module`], found by content and never by suffix.
//!
//! The decision has two steps, in this order (README.md of this room draws it):
//!
//! 1. The entry point `path[#export]`, looked up in `PATH` and then in the working directory: if a
//!    file is there and holds a core module or `.wat` text, that is it.
//! 2. Otherwise the image's wasm layer, taken from the content store by digest. The entry point is
//!    then only a name, so artifacts can be started with a dummy such as `/`.
//!
//! When neither gives a module, the error says why for both.

mod config;
mod entry;
mod fault;
mod format;
mod manifest;
mod resolve;
mod rootfs;
mod store;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

pub use crate::error::{ImageError, StoreError};
pub use config::{ImageConfig, configuration};
pub use entry::Entrypoint;
pub use fault::{EntryFault, LayerFault};
pub use format::{Foreign, Format, SNIFF_LIMIT, identify};
pub use resolve::{Located, locate, locate_running, resolve};
pub use store::{ContentStore, Descriptor, ImageRef};

use crate::digest::{Digest, hash_stream};

/// Largest module, in bytes.
pub const MODULE_LIMIT: u64 = 256 * 1024 * 1024;

/// Largest manifest, index or image config, in bytes; registries use the same bound.
pub const MANIFEST_LIMIT: u64 = 4 * 1024 * 1024;

/// Where a module was found.
#[derive(Debug)]
pub enum ModuleSource {
    /// A file of the container's file system.
    Rootfs {
        /// Path inside the container, links resolved.
        path: PathBuf,
        /// The file, open for reading at its beginning.
        file: File,
        /// What its first bytes are.
        format: Format,
    },
    /// A layer of the image.
    Layer {
        /// The layer's digest.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// Its media type.
        media_type: String,
        /// Its title in the manifest, or the entry point's path.
        path: String,
    },
}

/// A module to compile.
#[derive(Debug)]
pub struct Module {
    /// The bytes; of a file, only as long as nobody writes to it. See [`Module::seal`].
    pub bytes: ModuleBytes,
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// What the bytes are: [`Format::Wasm`] or [`Format::Wat`].
    pub format: Format,
    /// What to run.
    pub entry: Entrypoint,
    /// Where the module came from, for messages.
    pub origin: String,
}

/// The bytes of a module.
#[derive(Debug)]
pub enum ModuleBytes {
    /// A regular file, at its beginning.
    File(File),
    /// Memory.
    Memory(Vec<u8>),
}

impl Module {
    /// Copies the bytes into a sealed memory file that nobody can change any more, and checks on
    /// the way that they still have [`Module::digest`].
    ///
    /// A file may be written to between hashing and compiling (a bind mount, for one); code that
    /// is stored under a digest must come from exactly the bytes of that digest.
    ///
    /// # Errors
    /// [`ImageError::Changed`] if the file changed, [`ImageError::Read`] if the system refuses.
    pub fn seal(&mut self) -> Result<File, ImageError> {
        let (sealed, digest) = match &mut self.bytes {
            ModuleBytes::File(file) => {
                let rewound = file.seek(SeekFrom::Start(0));
                rewound.and_then(|_| sealed_copy(file))
            }
            ModuleBytes::Memory(bytes) => sealed_copy(&mut bytes.as_slice()),
        }
        .map_err(|source| ImageError::Read { origin: self.origin.clone(), source })?;
        if digest != self.digest {
            return Err(ImageError::Changed { origin: self.origin.clone() });
        }
        Ok(sealed)
    }
}

/// A memory file with the bytes of `source`, sealed and rewound, and their digest.
fn sealed_copy(source: &mut impl Read) -> io::Result<(File, Digest)> {
    use rustix::fs::{MemfdFlags, SealFlags};
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut sealed = File::from(rustix::fs::memfd_create("wasm-module", flags)?);
    let (digest, _) = hash_stream(source, MODULE_LIMIT, |piece| sealed.write_all(piece))?;
    sealed.seek(SeekFrom::Start(0))?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&sealed, seals)?;
    Ok((sealed, digest))
}
