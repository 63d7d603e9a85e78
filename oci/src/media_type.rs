//! The one list of media types: what an image may hold and what each thing is taken for.
//!
//! Sources: OCI image spec, `media-types.md`; CNCF "Wasm OCI artifact layout"; Docker image
//! manifest v2, schema 2. A new type is one row here and one fixture in `tests/`.

/// What a manifest's layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerKind {
    /// The bytes are a wasm module, unpacked and uncompressed.
    Wasm,
    /// An archive that belongs to the root file system.
    Rootfs,
    /// Anything else.
    Unknown,
}

/// What an image's descriptor points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DocumentKind {
    /// A list of manifests, one a platform.
    Index,
    /// One image.
    Manifest,
}

/// Layers that are a module as they are.
pub const WASM_LAYERS: &[&str] = &[
    // CNCF artifact, and the registered type of wasm itself.
    "application/wasm",
    // OCI images as runwasi's tools pack them; despite the name they hold core modules too.
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
    // wasm-to-oci, and Spin.
    "application/vnd.wasm.content.layer.v1+wasm",
    // The older specification that Istio's and Envoy's extension images follow.
    "application/vnd.module.wasm.content.layer.v1+wasm",
];

/// Layers that containerd unpacks into the root file system.
const ROOTFS_LAYERS: &[&str] = &[
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// Documents that an image name may point at.
const DOCUMENTS: &[(&str, DocumentKind)] = &[
    ("application/vnd.oci.image.manifest.v1+json", DocumentKind::Manifest),
    ("application/vnd.docker.distribution.manifest.v2+json", DocumentKind::Manifest),
    ("application/vnd.oci.image.index.v1+json", DocumentKind::Index),
    ("application/vnd.docker.distribution.manifest.list.v2+json", DocumentKind::Index),
];

/// Configs that hold `architecture` and `os`, which messages name.
const PLATFORM_CONFIGS: &[&str] = &[
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
    // CNCF artifact.
    "application/vnd.wasm.config.v0+json",
    // wasm-to-oci.
    "application/vnd.wasm.config.v1+json",
];

/// What a layer of `media_type` is.
#[must_use]
pub fn layer_kind(media_type: &str) -> LayerKind {
    let essence = essence(media_type);
    if WASM_LAYERS.contains(&essence.as_str()) {
        LayerKind::Wasm
    } else if ROOTFS_LAYERS.contains(&essence.as_str()) {
        LayerKind::Rootfs
    } else {
        LayerKind::Unknown
    }
}

/// What a descriptor of `media_type` points at, if an image may start there.
#[must_use]
pub fn document_kind(media_type: &str) -> Option<DocumentKind> {
    let essence = essence(media_type);
    DOCUMENTS.iter().find(|(name, _)| *name == essence).map(|(_, kind)| *kind)
}

/// Whether a config of `media_type` says for which platform an image is.
#[must_use]
pub fn config_has_platform(media_type: &str) -> bool {
    PLATFORM_CONFIGS.contains(&essence(media_type).as_str())
}

/// The accepted wasm layer types, for messages.
#[must_use]
pub fn accepted_layers() -> String {
    WASM_LAYERS.join(", ")
}

/// The accepted documents, for messages.
#[must_use]
pub fn accepted_documents() -> String {
    DOCUMENTS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// Type and subtype without parameters; RFC 6838 says that case does not matter.
fn essence(media_type: &str) -> String {
    let (essence, _) = media_type.split_once(';').unwrap_or((media_type, ""));
    essence.trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        assert_eq!(layer_kind("application/wasm"), LayerKind::Wasm);
        assert_eq!(layer_kind("Application/WASM; charset=binary"), LayerKind::Wasm);
        assert_eq!(layer_kind("application/wasm+gzip"), LayerKind::Unknown);
        assert_eq!(
            layer_kind("application/vnd.docker.image.rootfs.diff.tar.gzip"),
            LayerKind::Rootfs
        );
        assert_eq!(
            document_kind("application/vnd.oci.image.index.v1+json"),
            Some(DocumentKind::Index)
        );
        assert_eq!(document_kind("application/json"), None);
        assert!(config_has_platform("application/vnd.wasm.config.v0+json"));
    }

    #[test]
    fn no_type_is_in_two_lists() {
        for wasm in WASM_LAYERS {
            assert!(!ROOTFS_LAYERS.contains(wasm));
            assert!(document_kind(wasm).is_none());
        }
    }
}
