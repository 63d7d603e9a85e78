//! The decision: entry point first, wasm layer second, one sentence when neither will do.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::entry::Entrypoint;
use super::fault::{EntryFault, LayerFault, tidy};
use super::format::{Foreign, SNIFF_LIMIT, identify};
use super::manifest;
use super::rootfs::View;
use super::store::{ContentStore, Descriptor, ImageRef};
use super::{MODULE_LIMIT, Module, ModuleBytes, ModuleSource};
use crate::digest::hash_stream;
use crate::error::ImageError;
use crate::spec::{Process, Workload};

/// A module that was found but not yet read: enough to ask a cache by a layer's digest.
#[derive(Debug)]
pub struct Located {
    /// What to run.
    pub entry: Entrypoint,
    /// Where it lies.
    pub source: ModuleSource,
    /// The same in words, for messages.
    pub origin: String,
    image: Option<ImageRef>,
}

/// Finds and reads the workload's module; see [`locate`] and [`Located::read`].
///
/// # Errors
/// [`ImageError`], one sentence that names what was found and what is accepted.
pub fn resolve(
    workload: &Workload,
    rootfs_dir: &Path,
    image: Option<&ImageRef>,
    store: &dyn ContentStore,
) -> Result<Module, ImageError> {
    locate(workload, rootfs_dir, image, store)?.read(store)
}

/// Finds the workload's module.
///
/// `rootfs_dir` is the mounted root file system; the workload's own mounts need not be made, since
/// bind mounts are looked into where they come from. `image` is what the container's record names.
/// Layers are asked for only when the entry point is no module, so plain images cost no look-up.
///
/// # Errors
/// [`ImageError::NothingUsable`] with both reasons; [`ImageError::Rootfs`] if the folder is bad.
pub fn locate(
    workload: &Workload,
    rootfs_dir: &Path,
    image: Option<&ImageRef>,
    store: &dyn ContentStore,
) -> Result<Located, ImageError> {
    let argument = workload.process.args.first().map(String::as_str).unwrap_or_default();
    let entry = Entrypoint::parse(argument);
    let view = View::new(rootfs_dir, &workload.mounts)?;
    let entry_fault = match in_rootfs(&view, &entry, &workload.process) {
        Ok(source) => {
            let origin = origin(&source);
            return Ok(Located { entry, source, origin, image: image.cloned() });
        }
        Err(fault) => fault,
    };
    tracing::debug!(entry = %entry.path, reason = %entry_fault, "entry point is no module");
    let layer = match image {
        None => Err(LayerFault::NoImage),
        Some(image) => manifest::wasm_layer(store, image, &entry.path),
    };
    match layer {
        Ok(layer) => {
            let Descriptor { media_type, digest, size } = layer.descriptor;
            let path = layer.title.unwrap_or_else(|| entry.path.clone());
            let source = ModuleSource::Layer { digest, size, media_type, path };
            let origin = origin(&source);
            Ok(Located { entry, source, origin, image: image.cloned() })
        }
        Err(image) => Err(ImageError::NothingUsable { entry: entry_fault, image: Box::new(image) }),
    }
}

/// Finds the module of a further process of a container that runs. `root` is the container's root, open
/// in its own mount namespace, so that volumes and whatever else it sees count.
///
/// # Errors
/// [`EntryFault`], which says what is there instead.
pub fn locate_running(process: &Process, root: OwnedFd) -> Result<Located, EntryFault> {
    let entry = Entrypoint::parse(process.args.first().map(String::as_str).unwrap_or_default());
    let source = in_rootfs(&View::running(root), &entry, process)?;
    let origin = origin(&source);
    Ok(Located { entry, source, origin, image: None })
}

impl Located {
    /// Reads and verifies the module.
    ///
    /// A file is hashed, but stays a file; a layer is read into memory. Call [`Module::seal`] for
    /// bytes that nobody can change.
    ///
    /// # Errors
    /// [`ImageError::Read`] for a file, [`ImageError::Layer`] for a layer.
    pub fn read(self, store: &dyn ContentStore) -> Result<Module, ImageError> {
        let Self { entry, source, origin, image } = self;
        match source {
            ModuleSource::Rootfs { mut file, format, .. } => {
                let hashed = hash_stream(&mut file, MODULE_LIMIT, |_| Ok(()));
                let rewound = hashed.and_then(|hashed| {
                    file.seek(SeekFrom::Start(0))?;
                    Ok(hashed)
                });
                match rewound {
                    Ok((digest, _)) => {
                        Ok(Module { bytes: ModuleBytes::File(file), digest, format, entry, origin })
                    }
                    Err(source) => Err(ImageError::Read { origin, source }),
                }
            }
            ModuleSource::Layer { digest, size, media_type, .. } => {
                let image = image.ok_or_else(|| layer_error(LayerFault::NoImage))?;
                let descriptor = Descriptor { media_type, digest, size };
                let bytes =
                    manifest::read_blob(store, &image, &descriptor, "wasm layer", MODULE_LIMIT)
                        .map_err(layer_error)?;
                let head = &bytes[..bytes.len().min(SNIFF_LIMIT)];
                let format = identify(head).map_err(|found| {
                    let media_type = descriptor.media_type;
                    layer_error(LayerFault::Foreign { digest, media_type, found })
                })?;
                Ok(Module { bytes: ModuleBytes::Memory(bytes), digest, format, entry, origin })
            }
        }
    }
}

fn layer_error(fault: LayerFault) -> ImageError {
    ImageError::Layer(Box::new(fault))
}

/// A module's place in words.
fn origin(source: &ModuleSource) -> String {
    match source {
        ModuleSource::Rootfs { path, .. } => tidy(&path.to_string_lossy()),
        ModuleSource::Layer { digest, path, .. } => format!("{} (layer {digest})", tidy(path)),
    }
}

/// The entry point as a file of the container, tried at each place where it may lie.
fn in_rootfs(
    view: &View<'_>,
    entry: &Entrypoint,
    process: &Process,
) -> Result<ModuleSource, EntryFault> {
    let candidates = entry.candidates(process);
    let mut worst: Option<EntryFault> = None;
    for candidate in &candidates {
        match in_file(view, candidate) {
            Ok(source) => return Ok(source),
            // Something that is there but is no module ends the search, as it would for a shell.
            Err(fault) if !fault.is_absent() => return Err(fault),
            Err(fault) => {
                let nothing = matches!(fault, EntryFault::NotFound { .. });
                if !nothing && worst.is_none() {
                    worst = Some(fault);
                }
            }
        }
    }
    Err(match worst {
        Some(fault) => fault,
        None if candidates.is_empty() => EntryFault::Absent,
        None => EntryFault::NotFound { path: entry.path.clone(), searched: candidates },
    })
}

fn in_file(view: &View<'_>, candidate: &Path) -> Result<ModuleSource, EntryFault> {
    let (path, file, stat) = view.open(candidate)?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let head = match head(&file) {
        Ok(head) => head,
        Err(source) => return Err(EntryFault::Open { path, source }),
    };
    match identify(&head) {
        Ok(_) if size > MODULE_LIMIT => Err(EntryFault::TooLarge { path, size }),
        Ok(format) => Ok(ModuleSource::Rootfs { path, file, format }),
        Err(found) => Err(foreign(path, found)),
    }
}

fn foreign(path: PathBuf, found: Foreign) -> EntryFault {
    EntryFault::Foreign { path, found }
}

/// The first bytes of a file; eight suffice for a binary module, so most of it is never touched.
fn head(file: &File) -> std::io::Result<Vec<u8>> {
    let mut head = vec![0_u8; 8];
    let count = fill(file, &mut head, 0)?;
    if count == head.len() && !head.starts_with(b"\0asm") {
        head.resize(SNIFF_LIMIT, 0);
        let more = fill(file, &mut head[8..], 8)?;
        head.truncate(8 + more);
    } else {
        head.truncate(count);
    }
    Ok(head)
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
