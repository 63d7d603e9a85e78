//! A content store in memory and small builders for images, used by the tests of this room.

#![allow(dead_code, reason = "each test file uses a part")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;

use coracle_oci::StoreError;
use coracle_oci::digest::Digest;
use coracle_oci::image::{ContentStore, Descriptor, ImageRef};
use coracle_oci::spec::{self, Workload};
use serde_json::{Value, json};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const IMAGE: &str = "registry.example/app:1";

/// The smallest core module, the smallest component, and a program for Linux.
pub(crate) const WASM: &[u8] = b"\0asm\x01\0\0\0";
pub(crate) const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
pub(crate) const ELF: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0";

/// A real store: it keeps blobs under their digest, and counts what is read.
#[derive(Default)]
pub(crate) struct MemoryStore {
    pub(crate) blobs: HashMap<Digest, Vec<u8>>,
    pub(crate) images: HashMap<String, Descriptor>,
    pub(crate) reads: RefCell<Vec<Digest>>,
}

impl MemoryStore {
    /// Stores bytes and returns their JSON descriptor.
    pub(crate) fn put(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        self.blobs.insert(digest, bytes.to_vec());
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    }

    pub(crate) fn put_json(&mut self, media_type: &str, value: &Value) -> Value {
        self.put(media_type, value.to_string().as_bytes())
    }

    /// A manifest with an ordinary config for `os/architecture`.
    pub(crate) fn image(&mut self, platform: &str, layers: &[Value]) -> Value {
        let (os, architecture) = platform.split_once('/').unwrap();
        let config = json!({
            "os": os, "architecture": architecture,
            "rootfs": {"type": "layers", "diff_ids": []},
        });
        let config = self.put_json(OCI_CONFIG, &config);
        self.manifest(&config, layers)
    }

    pub(crate) fn manifest(&mut self, config: &Value, layers: &[Value]) -> Value {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers,
        });
        self.put_json(OCI_MANIFEST, &manifest)
    }

    pub(crate) fn index(&mut self, manifests: &[Value]) -> Value {
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
        self.put_json(OCI_INDEX, &index)
    }

    /// Gives `target` the name of the one image of these tests.
    pub(crate) fn tag(&mut self, target: &Value) -> ImageRef {
        let descriptor = Descriptor {
            media_type: target["mediaType"].as_str().unwrap().to_owned(),
            digest: target["digest"].as_str().unwrap().parse().unwrap(),
            size: target["size"].as_u64().unwrap(),
        };
        self.images.insert(IMAGE.to_owned(), descriptor);
        ImageRef::new(IMAGE).unwrap()
    }

    pub(crate) fn remove(&mut self, descriptor: &Value) {
        let digest: Digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
        self.blobs.remove(&digest).unwrap();
    }
}

impl ContentStore for MemoryStore {
    fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.reads.borrow_mut().push(*digest);
        let bytes =
            self.blobs.get(digest).ok_or_else(|| StoreError::NotFound(digest.to_string()))?;
        if bytes.len() as u64 > limit {
            let (object, size) = (digest.to_string(), bytes.len() as u64);
            return Err(StoreError::TooLarge { object, size, limit });
        }
        Ok(bytes.clone())
    }

    fn image_target(&self, name: &str) -> Result<Descriptor, StoreError> {
        self.images.get(name).cloned().ok_or_else(|| StoreError::NotFound(name.to_owned()))
    }
}

/// An entry of an index with a platform.
pub(crate) fn on(platform: &str, mut descriptor: Value) -> Value {
    let (os, architecture) = platform.split_once('/').unwrap();
    descriptor["platform"] = json!({"os": os, "architecture": architecture});
    descriptor
}

/// A layer with a title, as oras and the CNCF tools write it.
pub(crate) fn titled(title: &str, mut layer: Value) -> Value {
    layer["annotations"] = json!({"org.opencontainers.image.title": title});
    layer
}

/// The smallest configuration that a container needs.
pub(crate) fn config(args: &[&str]) -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {"user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/", "env": ["PATH=/usr/bin:/bin"]},
        "root": {"path": "rootfs"},
        "mounts": [],
        "linux": {"namespaces": []},
    })
}

/// Writes a bundle and loads it.
pub(crate) fn load(bundle: &Path, config: &Value) -> Result<Workload, coracle_oci::SpecError> {
    std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
    std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    spec::load(bundle)
}

/// Writes a file of the container's root file system.
pub(crate) fn rootfs_file(bundle: &Path, path: &str, bytes: &[u8]) {
    let file = bundle.join("rootfs").join(path.trim_start_matches('/'));
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, bytes).unwrap();
}
