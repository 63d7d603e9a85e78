//! From a workload to its code: which module it is, and whether its code is there already.
//!
//! On a hit of the cache nothing of the module is read but what tells its digest: of a layer its
//! manifest, of a file its attributes, if it was seen since the machine started.

use std::fs::File;
use std::path::{Path, PathBuf};

use coracle_engine::cache::{FileIdentity, Scope};
use coracle_oci::digest::Digest;
use coracle_oci::image::{
    self, ContentStore, Descriptor, Entrypoint, ImageRef, Located, ModuleSource,
};
use coracle_oci::spec::Workload;
use coracle_oci::{ImageError, StoreError};
use tokio::runtime::Handle;

use crate::cache::CodeCache;
use crate::compile::{self, Afterwork, Compilation, Job};
use crate::config::ShimConfig;
use crate::content::ContainerdContent;
use crate::guest::initialize;
use crate::mounts;
use crate::request::{RootfsMount, TaskId};
use crate::task::TaskError;

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
    /// Its bundle folder.
    pub bundle: PathBuf,
    /// What the shim finishes before it exits.
    pub afterwork: Afterwork,
    /// Its image; `None` for what containerd's record of it says.
    pub image: Option<ImageRef>,
}

/// Where the code of a program comes from.
#[derive(Debug)]
pub enum Source {
    /// The cache.
    Cached(File),
    /// The compiler.
    Job(Box<Job>),
}

impl Source {
    /// Starts the compiler, if it is needed.
    pub fn begin(self) -> Compilation {
        match self {
            Self::Cached(image) => Compilation::done(image.into()),
            Self::Job(job) => Compilation::begin(*job),
        }
    }
}

impl Finder {
    /// Finds the code of a workload's program, and what to call in it. `mounts` are those of its root
    /// file system.
    ///
    /// # Errors
    /// When there is no module, or it cannot be read.
    pub fn program(
        &self,
        workload: &Workload,
        mounts: &[RootfsMount],
    ) -> Result<(Source, Entrypoint), TaskError> {
        let initialize = initialize(&workload.id_annotations)?;
        let slot_of =
            |digest: &Digest| self.cache.slot(digest, self.scope(), initialize.as_deref());
        let (located, store) = self.locate(workload)?;
        let identity = identity(&located.source, mounts);
        let known = match &located.source {
            ModuleSource::Layer { digest, .. } => Some(*digest),
            ModuleSource::Rootfs { .. } => identity.and_then(|file| self.cache.known_digest(&file)),
        };
        let cached = known.and_then(|digest| slot_of(&digest)?.get());
        if let Some(image) = cached {
            return Ok((Source::Cached(image), located.entry));
        }
        let mut module = match &store {
            Some(store) => located.read(store)?,
            None => located.read(&NoStore)?,
        };
        if let Some(file) = &identity {
            self.cache.keep_digest(file, &module.digest);
        }
        let slot = slot_of(&module.digest);
        if let Some(image) = slot.as_ref().filter(|_| known.is_none()).and_then(|slot| slot.get()) {
            return Ok((Source::Cached(image), module.entry));
        }
        let compiler = compile::find_compiler(self.config.coracle_bin.as_deref())?;
        let sealed = module.seal()?;
        let (origin, limits) = (module.origin, self.config.compile);
        let group = compile::worker_group(&self.id, &self.bundle);
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
        Ok((Source::Job(Box::new(job)), module.entry))
    }

    fn scope(&self) -> Scope<'_> {
        if self.config.cache_by_namespace {
            Scope::Namespace(&self.config.namespace)
        } else {
            Scope::Node
        }
    }

    /// Looks into the root file system first; containerd is asked only when that gives nothing, since
    /// asking costs more than all the rest.
    fn locate(
        &self,
        workload: &Workload,
    ) -> Result<(Located, Option<ContainerdContent>), TaskError> {
        let rootfs = &workload.rootfs.path;
        let image = match image::locate(workload, rootfs, None, &NoStore) {
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
