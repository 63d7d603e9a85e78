//! Where the module is: Create's own search in a bundle that is made for it.

use std::path::{Path, PathBuf};

use coracle_oci::image::{self, ContentStore, ImageConfig, ImageRef};
use coracle_oci::spec::{self, Workload};
use coracle_oci::{ImageError, StoreError};
use tokio::runtime::Handle;

use super::scratch::{SPEC, Scratch};
use super::{NoImage, Target, WarmError, os};
use crate::cache::CodeCache;
use crate::compile::Afterwork;
use crate::config::ShimConfig;
use crate::content::ContainerdContent;
use crate::find::{Finder, Source};
use crate::mounts::{ROOTFS, RootfsMounts};
use crate::request::RootfsMount;
use crate::task::TaskError;

/// One search; for a thread that may block.
pub(super) struct Search {
    runtime: Handle,
    config: ShimConfig,
    cache: CodeCache,
    bundle: PathBuf,
    target: Target,
}

impl Search {
    pub(super) fn new(
        runtime: Handle,
        config: ShimConfig,
        scratch: &Scratch,
        target: Target,
    ) -> Self {
        let cache = CodeCache::open(&config.cache);
        Self { runtime, cache, config, bundle: scratch.bundle().to_owned(), target }
    }

    /// The code, or the module.
    pub(super) fn run(self) -> Result<Source, WarmError> {
        match &self.target {
            Target::Image { name, namespace, .. } => self.in_image(name, namespace),
            Target::File(path) => self.in_file(path),
        }
    }

    fn in_image(&self, name: &str, namespace: &str) -> Result<Source, WarmError> {
        let address = self.config.grpc_address.as_deref();
        let store = ContainerdContent::connect(self.runtime.clone(), address, namespace)?;
        let no_image = || {
            // Nothing but a hint.
            let elsewhere = store.namespaces_with(name).unwrap_or_default();
            WarmError::NoImage(NoImage::new(name, namespace, elsewhere))
        };
        let image = ImageRef::new(name).ok_or_else(no_image)?;
        match store.image_target(name) {
            Ok(_) => {}
            Err(StoreError::NotFound(_)) => return Err(no_image()),
            Err(error) => return Err(error.into()),
        }
        let configuration = image::configuration(&store, &image)?;
        let view = store.view(&configuration.digest, self.config.id.as_str())?;
        let mounts = view.as_ref().map_or(&[][..], |view| view.mounts.as_slice());
        let found = self.in_layers(&configuration, image, mounts);
        match view {
            Some(view) => {
                store.give_back(&view);
                found
            }
            // Nobody has looked whether its files hold one.
            None => found.map_err(|error| match error {
                WarmError::Task(TaskError::Image(ImageError::NothingUsable { image, .. })) => {
                    WarmError::NotUnpacked(image)
                }
                error => error,
            }),
        }
    }

    /// In the root file system that `mounts` show, then in the image's wasm layers.
    fn in_layers(
        &self,
        configuration: &ImageConfig,
        image: ImageRef,
        mounts: &[RootfsMount],
    ) -> Result<Source, WarmError> {
        let ImageConfig { args, env, cwd, .. } = configuration;
        let cwd = if cwd.is_empty() { "/" } else { cwd };
        let workload = self.workload(ROOTFS.as_ref(), args, env, cwd)?;
        let mut made = RootfsMounts::make(&self.bundle, mounts)?;
        let found = self.finder(Some(image)).module(&workload, mounts);
        made.remove()?;
        Ok(found?.0)
    }

    /// As if its folder were the root of a container.
    fn in_file(&self, path: &Path) -> Result<Source, WarmError> {
        let at = path.canonicalize().map_err(os(format!("find {}", path.display())))?;
        let folder = at.parent().unwrap_or(Path::new("/"));
        let name = at.file_name().unwrap_or_default().to_string_lossy();
        let workload = self.workload(folder, &[format!("/{name}")], &[], "/")?;
        match self.finder(None).module(&workload, &[]) {
            Ok((source, _)) => Ok(source),
            Err(TaskError::NoModule { image: ImageError::NothingUsable { entry, .. }, .. }) => {
                Err(WarmError::NoModule { path: at, fault: entry })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn finder(&self, image: Option<ImageRef>) -> Finder {
        Finder {
            afterwork: Afterwork::default(),
            runtime: self.runtime.clone(),
            config: self.config.clone(),
            cache: self.cache.clone(),
            id: self.config.id.clone(),
            exec: None,
            bundle: self.bundle.clone(),
            image,
        }
    }

    /// The workload of a container that runs this, as containerd would write it.
    fn workload(
        &self,
        root: &Path,
        args: &[String],
        env: &[String],
        cwd: &str,
    ) -> Result<Workload, WarmError> {
        let spec = serde_json::json!({
            "ociVersion": "1.1.0",
            "process": { "args": args, "env": env, "cwd": cwd, "user": { "uid": 0, "gid": 0 } },
            "root": { "path": root },
            "linux": {},
        });
        let file = self.bundle.join(SPEC);
        std::fs::write(&file, spec.to_string()).map_err(os(format!("write {}", file.display())))?;
        Ok(spec::load(&self.bundle)?)
    }
}
