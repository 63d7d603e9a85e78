//! The content store as this room needs it: blobs by digest, image names to descriptors.

use crate::digest::Digest;
use crate::error::StoreError;

/// Where image blobs come from; the shim implements it over containerd.
///
/// What a store returns is verified by this room, so an implementation need not be trusted.
pub trait ContentStore {
    /// All bytes of the blob `digest`, at most `limit` of them.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the blob is absent, [`StoreError::TooLarge`] if it is longer
    /// than `limit` bytes, [`StoreError::Failed`] otherwise.
    fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError>;

    /// The descriptor that the image `name` points at: a manifest or an index.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such image, [`StoreError::Failed`] otherwise.
    fn image_target(&self, name: &str) -> Result<Descriptor, StoreError>;
}

/// A typed pointer to a blob; OCI image spec, `descriptor.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: String,
    /// Which blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// An image as the container's record names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageRef {
    /// Name by which [`ContentStore::image_target`] finds it.
    pub name: String,
}

impl ImageRef {
    /// The image called `name`; an empty name, as old dockerd writes it, is no image.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        (!name.is_empty()).then(|| Self { name: name.to_owned() })
    }
}
