//! From a workload to its code: which module it is, and whether its code is there already; or that it
//! is a Linux program.
//!
//! On a hit of the cache nothing of the module is read but what tells its digest: of a layer its
//! manifest, of a file its attributes, if it was seen since the machine started.

mod exec;

use std::fs::File;
use std::path::{Path, PathBuf};

use coracle_engine::cache::{FileIdentity, Scope};
use coracle_oci::digest::Digest;
use coracle_oci::image::{
    self, ContentStore, Descriptor, Entrypoint, ImageRef, Located, Module, ModuleSource,
};
use coracle_oci::spec::Workload;
use coracle_oci::{ImageError, StoreError};
use tokio::runtime::Handle;

use crate::cache::{CodeCache, Slot};
use crate::compile::{self, Afterwork, Compilation, Job};
use crate::config::ShimConfig;
use crate::content::ContainerdContent;
use crate::figures::{Code, Program};
use crate::guest::initialize;
use crate::mounts;
use crate::request::{ExecId, RootfsMount, TaskId};
use crate::task::TaskError;
pub use exec::ExecFault;

/// What is needed to find the module of one Create call.
#[derive(Debug)]
pub struct Finder {
    /// Where calls of containerd are made.
    pub runtime: Handle,
    /// The call's configuration.
    pub config: ShimConfig,
    /// The node's cache.
    pub cache: CodeCache,
    /// The container.
    pub id: TaskId,
    /// The further process that the module is for, if it is not the container's first.
    pub exec: Option<ExecId>,
    /// Its bundle folder.
    pub bundle: PathBuf,
    /// What the shim finishes before it exits.
    pub afterwork: Afterwork,
    /// Its image; `None` for what containerd's record of it says.
    pub image: Option<ImageRef>,
}

/// What a container runs.
#[derive(Debug)]
pub enum Found {
    /// A module: where its code comes from, and what to call in it.
    Wasm(Source, Entrypoint),
    /// The built-in toolbox: where its code comes from.
    Toolbox(Source),
    /// A Linux program of the root file system.
    Linux,
}

impl Found {
    /// What it is, for the figures.
    pub fn kind(&self) -> Program {
        match self {
            Self::Wasm(Source::Cached(..), _) | Self::Toolbox(Source::Cached(..)) => {
                Program::Wasm(Code::Hit)
            }
            Self::Wasm(..) | Self::Toolbox(_) => Program::Wasm(Code::Compiled),
            Self::Linux => Program::Linux,
        }
    }

    /// The digest of the module, if it is one.
    pub fn digest(&self) -> Option<Digest> {
        match self {
            Self::Wasm(source, _) | Self::Toolbox(source) => Some(source.digest()),
            Self::Linux => None,
        }
    }
}

/// Where the code of a program comes from, with the digest of its module.
#[derive(Debug)]
pub enum Source {
    /// The cache.
    Cached(File, Digest),
    /// The compiler.
    Job(Box<Job>, Digest),
}

impl Source {
    /// Starts the compiler, if it is needed.
    pub fn begin(self) -> Compilation {
        match self {
            Self::Cached(image, _) => Compilation::done(image.into()),
            Self::Job(job, _) => Compilation::begin(*job),
        }
    }

    /// The module's digest.
    pub fn digest(&self) -> Digest {
        let (Self::Cached(_, digest) | Self::Job(_, digest)) = self;
        *digest
    }
}

impl Finder {
    /// Finds what a workload runs: what its entry point is in the root file system, else the image's
    /// wasm layer. `mounts` are those of its root file system. Whether a Linux program can be executed
    /// shows when it is; a layer never is one.
    ///
    /// # Errors
    /// When there is nothing to run, it may not run here, or it cannot be read.
    pub fn program(&self, workload: &Workload, mounts: &[RootfsMount]) -> Result<Found, TaskError> {
        // No program has exports.
        let plain = !workload.process.args.first().is_some_and(|name| name.contains('#'));
        let located = match self.in_rootfs(workload) {
            Err(ImageError::NothingUsable { entry, .. }) if plain && entry.is_linux_program() => {
                return if self.config.linux_programs {
                    Ok(Found::Linux)
                } else {
                    Err(TaskError::LinuxProgram(entry))
                };
            }
            located => self.or_layer(workload, located)?,
        };
        let (source, entry) = self.code(initialize(&workload.id_annotations)?, mounts, located)?;
        Ok(Found::Wasm(source, entry))
    }

    /// Finds the code of a workload's module, and what to call in it, where only that will do.
    ///
    /// # Errors
    /// When there is no module, or it cannot be read.
    pub fn module(
        &self,
        workload: &Workload,
        mounts: &[RootfsMount],
    ) -> Result<(Source, Entrypoint), TaskError> {
        let located = self.or_layer(workload, self.in_rootfs(workload))?;
        self.code(initialize(&workload.id_annotations)?, mounts, located)
    }

    /// Finds the code of a module, which an export initialises if one is named.
    fn code(
        &self,
        initialize: Option<String>,
        mounts: &[RootfsMount],
        (located, store): (Located, Option<ContainerdContent>),
    ) -> Result<(Source, Entrypoint), TaskError> {
        let identity = identity(&located.source, mounts);
        let known = match &located.source {
            ModuleSource::Layer { digest, .. } => Some(*digest),
            ModuleSource::Rootfs { .. } => identity.and_then(|file| self.cache.known_digest(&file)),
        };
        let cached = known.and_then(|digest| {
            let image = self.slot(&digest, initialize.as_deref())?.get()?;
            Some(Source::Cached(image, digest))
        });
        if let Some(source) = cached {
            return Ok((source, located.entry));
        }
        let module = match &store {
            Some(store) => located.read(store)?,
            None => located.read(&NoStore)?,
        };
        if let Some(file) = &identity {
            self.cache.keep_digest(file, &module.digest);
        }
        self.compile(module, initialize, known)
    }

    /// The code of a module that was read: by then it may be there, unless it was looked for by its
    /// digest, `known` before.
    fn compile(
        &self,
        mut module: Module,
        initialize: Option<String>,
        known: Option<Digest>,
    ) -> Result<(Source, Entrypoint), TaskError> {
        let slot = self.slot(&module.digest, initialize.as_deref());
        if let Some(image) = slot.as_ref().filter(|_| known.is_none()).and_then(|slot| slot.get()) {
            return Ok((Source::Cached(image, module.digest), module.entry));
        }
        let compiler = compile::find_compiler(self.config.coracle_bin.as_deref())?;
        let sealed = module.seal()?;
        let (origin, limits) = (module.origin, self.config.compile);
        let mut group = compile::worker_group(&self.id, &self.bundle);
        if let Some(exec) = &self.exec {
            group = format!("{group}-{exec}");
        }
        let lazy = sealed.metadata().is_ok_and(|facts| facts.len() > self.config.lazy_above);
        let afterwork = self.afterwork.clone();
        let job = Job {
            module: sealed,
            origin,
            limits,
            compiler,
            slot,
            group,
            initialize,
            lazy,
            afterwork,
        };
        Ok((Source::Job(Box::new(job), module.digest), module.entry))
    }

    fn slot(&self, module: &Digest, initialize: Option<&str>) -> Option<Slot> {
        self.cache.slot(module, self.scope(), initialize)
    }

    fn scope(&self) -> Scope<'_> {
        if self.config.cache_by_namespace {
            Scope::Namespace(&self.config.namespace)
        } else {
            Scope::Node
        }
    }

    /// The entry point as a module of the root file system.
    fn in_rootfs(&self, workload: &Workload) -> Result<Located, ImageError> {
        image::locate(workload, &workload.rootfs.path, None, &NoStore)
    }

    /// What was found in the root file system; containerd is asked only when that is nothing, since
    /// asking costs more than all the rest.
    fn or_layer(
        &self,
        workload: &Workload,
        in_rootfs: Result<Located, ImageError>,
    ) -> Result<(Located, Option<ContainerdContent>), TaskError> {
        let image = match in_rootfs {
            Ok(located) => return Ok((located, None)),
            Err(image @ ImageError::NothingUsable { .. }) => image,
            Err(other) => return Err(other.into()),
        };
        let address = self.config.grpc_address.as_deref();
        let runtime = self.runtime.clone();
        let store = ContainerdContent::connect(runtime, address, &self.config.namespace);
        let (store, name) = match store {
            Ok(store) => match self.image_in(&store) {
                Ok(name) => (store, name),
                Err(error) => {
                    return Err(TaskError::NoModule { image, content: error.to_string() });
                }
            },
            Err(error) => return Err(TaskError::NoModule { image, content: error.to_string() }),
        };
        match name {
            Some(name) => {
                let rootfs = &workload.rootfs.path;
                let located = image::locate(workload, rootfs, Some(&name), &store)?;
                Ok((located, Some(store)))
            }
            None => Err(image.into()),
        }
    }
}

impl Finder {
    fn image_in(&self, store: &ContainerdContent) -> Result<Option<ImageRef>, StoreError> {
        match &self.image {
            Some(image) => Ok(Some(image.clone())),
            None => store.image_of(self.id.as_str()),
        }
    }
}

/// What tells that a module's file is still the one whose digest is known.
fn identity(source: &ModuleSource, mounts: &[RootfsMount]) -> Option<FileIdentity> {
    match source {
        ModuleSource::Rootfs { path, file, .. } => {
            mounts::lasting_identity(mounts, Path::new(path), file)
        }
        ModuleSource::Layer { .. } => None,
    }
}

/// The store of a look-up that asks for no image.
struct NoStore;

impl ContentStore for NoStore {
    fn read(&self, digest: &Digest, _: u64) -> Result<Vec<u8>, StoreError> {
        Err(StoreError::NotFound(digest.to_string()))
    }

    fn image_target(&self, name: &str) -> Result<Descriptor, StoreError> {
        Err(StoreError::NotFound(ImageRef::new(name).map_or_else(String::new, |image| image.name)))
    }
}
