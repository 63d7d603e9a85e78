//! From an image's name to its wasm layer: indexes, manifests, platforms, media types.
//!
//! Sources: OCI image spec, `image-index.md` and `manifest.md`; CNCF "Wasm OCI artifact layout".
//! Every blob is bounded before and verified after it is read.

use oci_spec::image as json;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::fault::{LayerFault, tidy};
use super::store::{ContentStore, Descriptor, ImageRef};
use super::{MANIFEST_LIMIT, MODULE_LIMIT};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::media_type::{self, DocumentKind, LayerKind};

/// Indexes within indexes that are followed at most.
const DEPTH_LIMIT: usize = 3;
/// Manifests that are looked into at most.
const MANIFESTS_LIMIT: usize = 64;
/// Entries of a list in a message at most.
const LISTED_LIMIT: usize = 8;

/// Names a blob of the manifest for people: the file it was made from.
const TITLE: &str = "org.opencontainers.image.title";
/// Marks the manifests that describe others instead of being images (build attestations).
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// A wasm layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WasmLayer {
    pub(crate) descriptor: Descriptor,
    /// File name that the packer gave, if any.
    pub(crate) title: Option<String>,
}

/// Finds the wasm layer of `image`; `name` (the entry point) decides between several.
pub(crate) fn wasm_layer(
    store: &dyn ContentStore,
    image: &ImageRef,
    name: &str,
) -> Result<WasmLayer, LayerFault> {
    let mut search = Search::new(store, image);
    match search.image(Search::wasm_layers)? {
        Some(layers) => choose(layers, image, name),
        None => Err(search.nothing()),
    }
}

/// The configuration of the first manifest that is here: its digest and its bytes.
pub(crate) fn config(
    store: &dyn ContentStore,
    image: &ImageRef,
) -> Result<(Digest, Vec<u8>), LayerFault> {
    let mut search = Search::new(store, image);
    match search.image(Search::config)? {
        Some(config) => Ok(config),
        None => Err(search.nothing()),
    }
}

/// Reads a blob whose descriptor is known: bounded, complete and verified.
pub(crate) fn read_blob(
    store: &dyn ContentStore,
    image: &ImageRef,
    descriptor: &Descriptor,
    what: &'static str,
    limit: u64,
) -> Result<Vec<u8>, LayerFault> {
    let Descriptor { digest, size, .. } = descriptor;
    if *size > limit {
        return Err(LayerFault::TooLarge { digest: *digest, what, size: *size, limit });
    }
    let bytes = store.read(digest, limit).map_err(|source| store_fault(image, source))?;
    if bytes.len() as u64 != *size {
        let found = bytes.len() as u64;
        return Err(LayerFault::Size { digest: *digest, wanted: *size, found });
    }
    digest
        .verify(&bytes)
        .map_err(|source| LayerFault::Digest { image: image.name.clone(), source })?;
    Ok(bytes)
}

fn store_fault(image: &ImageRef, source: StoreError) -> LayerFault {
    LayerFault::Store { image: image.name.clone(), source }
}

/// One walk over an image's documents, remembering what a refusal has to name.
struct Search<'a> {
    store: &'a dyn ContentStore,
    image: &'a ImageRef,
    manifests: usize,
    platforms: Vec<String>,
    layers: Vec<String>,
}

/// Looks for something in a manifest, of which these are the bytes.
type Look<'a, T> = fn(&mut Search<'a>, &[u8], &Digest) -> Result<Option<T>, LayerFault>;

impl<'a> Search<'a> {
    fn new(store: &'a dyn ContentStore, image: &'a ImageRef) -> Self {
        Self { store, image, manifests: 0, platforms: Vec::new(), layers: Vec::new() }
    }

    /// What `look` finds in the first manifest in which it finds anything.
    fn image<T>(&mut self, look: Look<'a, T>) -> Result<Option<T>, LayerFault> {
        let target = self.store.image_target(&self.image.name);
        self.document(&target.map_err(|source| store_fault(self.image, source))?, 0, look)
    }

    /// Nothing was found.
    fn nothing(self) -> LayerFault {
        let Self { platforms, layers, .. } = self;
        LayerFault::NoWasm { image: self.image.name.clone(), platforms, layers }
    }

    fn document<T>(
        &mut self,
        descriptor: &Descriptor,
        depth: usize,
        look: Look<'a, T>,
    ) -> Result<Option<T>, LayerFault> {
        let kind = media_type::document_kind(&descriptor.media_type).ok_or_else(|| {
            let media_type = tidy(&descriptor.media_type);
            LayerFault::Document { image: self.image.name.clone(), media_type }
        })?;
        let what = if kind == DocumentKind::Index { "index" } else { "manifest" };
        let bytes = read_blob(self.store, self.image, descriptor, what, MANIFEST_LIMIT)?;
        check_kind(&bytes, kind, &descriptor.digest)?;
        match kind {
            DocumentKind::Manifest => look(self, &bytes, &descriptor.digest),
            DocumentKind::Index if depth < DEPTH_LIMIT => {
                self.index(&bytes, &descriptor.digest, depth, look)
            }
            DocumentKind::Index => Err(LayerFault::Ambiguous {
                digest: descriptor.digest,
                problem: "is an index too deep within indexes; publish a flat one",
            }),
        }
    }

    fn index<T>(
        &mut self,
        bytes: &[u8],
        digest: &Digest,
        depth: usize,
        look: Look<'a, T>,
    ) -> Result<Option<T>, LayerFault> {
        let index: json::ImageIndex = parse(bytes, digest)?;
        let mut ranked: Vec<_> =
            index.manifests().iter().filter_map(|entry| Some((rank(entry)?, entry))).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        let all = index.manifests().iter().filter(|entry| !is_attestation(entry));
        all.filter_map(platform_name).for_each(|name| note(&mut self.platforms, name));
        let mut absent = None;
        for (_, entry) in ranked {
            self.manifests += 1;
            if self.manifests > MANIFESTS_LIMIT {
                break;
            }
            match self.document(&descriptor(entry)?, depth + 1, look) {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                // A pull brings one platform only, so the others are expected to be absent.
                Err(fault) if is_absent(&fault) => absent = Some(fault),
                Err(fault) => return Err(fault),
            }
        }
        match absent {
            // Nothing at all could be looked into: that is what the user has to know.
            Some(fault) if self.layers.is_empty() => Err(fault),
            _ => Ok(None),
        }
    }

    fn wasm_layers(
        &mut self,
        bytes: &[u8],
        digest: &Digest,
    ) -> Result<Option<Vec<WasmLayer>>, LayerFault> {
        let manifest: json::ImageManifest = parse(bytes, digest)?;
        let mut wasm = Vec::new();
        for layer in manifest.layers() {
            let media_type = layer.media_type().to_string();
            if media_type::layer_kind(&media_type) == LayerKind::Wasm {
                let title = layer.annotations().as_ref().and_then(|all| all.get(TITLE));
                let title = title.map(|title| tidy(title));
                wasm.push(WasmLayer { descriptor: descriptor(layer)?, title });
            } else {
                note(&mut self.layers, tidy(&media_type));
            }
        }
        if !wasm.is_empty() {
            return Ok(Some(wasm));
        }
        if let Some(platform) = self.config_platform(manifest.config()) {
            note(&mut self.platforms, platform);
        }
        Ok(None)
    }

    fn config(
        &mut self,
        bytes: &[u8],
        digest: &Digest,
    ) -> Result<Option<(Digest, Vec<u8>)>, LayerFault> {
        let manifest: json::ImageManifest = parse(bytes, digest)?;
        let descriptor = descriptor(manifest.config())?;
        let bytes = read_blob(self.store, self.image, &descriptor, "config", MANIFEST_LIMIT)?;
        Ok(Some((descriptor.digest, bytes)))
    }

    /// The platform that a manifest's config names; only for messages, so faults are no matter.
    fn config_platform(&self, config: &json::Descriptor) -> Option<String> {
        #[derive(Deserialize)]
        struct Config {
            #[serde(default)]
            architecture: String,
            #[serde(default)]
            os: String,
        }
        if !media_type::config_has_platform(config.media_type().as_ref()) {
            return None;
        }
        let descriptor = descriptor(config).ok()?;
        let bytes =
            read_blob(self.store, self.image, &descriptor, "config", MANIFEST_LIMIT).ok()?;
        let Config { architecture, os } = serde_json::from_slice(&bytes).ok()?;
        Some(tidy(&format!("{os}/{architecture}")))
    }
}

/// One of several layers by its title; the only one needs no name.
fn choose(
    mut layers: Vec<WasmLayer>,
    image: &ImageRef,
    name: &str,
) -> Result<WasmLayer, LayerFault> {
    let file_name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let wanted = file_name(name);
    let count = layers.len();
    let chosen = if count == 1 {
        Some(0)
    } else {
        let fits = |layer: &WasmLayer| layer.title.as_deref().map(file_name);
        layers.iter().position(|layer| !wanted.is_empty() && fits(layer).as_ref() == Some(&wanted))
    };
    let Some(chosen) = chosen else {
        let (image, name) = (image.name.clone(), name.to_owned());
        return Err(LayerFault::Several { image, count, name });
    };
    let layer = layers.swap_remove(chosen);
    let Descriptor { digest, size, .. } = layer.descriptor;
    if size > MODULE_LIMIT {
        return Err(LayerFault::TooLarge { digest, what: "wasm layer", size, limit: MODULE_LIMIT });
    }
    Ok(layer)
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], digest: &Digest) -> Result<T, LayerFault> {
    serde_json::from_slice(bytes).map_err(|source| LayerFault::Parse { digest: *digest, source })
}

/// Refuses a document that could be read two ways, so that no two tools see different images.
fn check_kind(bytes: &[u8], kind: DocumentKind, digest: &Digest) -> Result<(), LayerFault> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        media_type: Option<String>,
        manifests: Option<IgnoredAny>,
        layers: Option<IgnoredAny>,
    }
    let shape: Shape = parse(bytes, digest)?;
    let says = shape.media_type.as_deref().map(media_type::document_kind);
    let foreign = match kind {
        DocumentKind::Manifest => shape.manifests.is_some(),
        DocumentKind::Index => shape.layers.is_some(),
    };
    if foreign || says.is_some_and(|says| says != Some(kind)) {
        let problem = "does not agree with its media type on being a manifest or an index";
        return Err(LayerFault::Ambiguous { digest: *digest, problem });
    }
    Ok(())
}

/// Our form of a descriptor; only SHA-256 addresses can be verified.
fn descriptor(entry: &json::Descriptor) -> Result<Descriptor, LayerFault> {
    let text = entry.digest().to_string();
    let digest = text.parse().map_err(|source| LayerFault::Digest { image: text, source })?;
    Ok(Descriptor { media_type: entry.media_type().to_string(), digest, size: entry.size() })
}

/// How likely an index's entry holds a wasm layer, best first; `None` for those to leave out.
fn rank(entry: &json::Descriptor) -> Option<u8> {
    if is_attestation(entry) {
        return None;
    }
    let Some(platform) = entry.platform() else { return Some(2) };
    let (os, arch) = (platform.os().to_string(), platform.architecture().to_string());
    match (os.as_str(), arch.as_str()) {
        ("wasi" | "wasip1", "wasm" | "wasm32") => Some(0),
        (_, "wasm" | "wasm32" | "wasm64") => Some(1),
        // `wasi/wasm32` of old, and builders that know no such architecture.
        ("wasi" | "wasip1" | "wasip2", _) => Some(1),
        ("linux", arch) if arch == host_architecture() => Some(3),
        _ => None,
    }
}

fn is_attestation(entry: &json::Descriptor) -> bool {
    entry.annotations().as_ref().is_some_and(|all| all.contains_key(REFERENCE_TYPE))
}

fn platform_name(entry: &json::Descriptor) -> Option<String> {
    let platform = entry.platform().as_ref()?;
    Some(tidy(&format!("{}/{}", platform.os(), platform.architecture())))
}

/// This machine's name in images, which is Go's.
fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Whether a fault only says that a blob was not pulled.
fn is_absent(fault: &LayerFault) -> bool {
    matches!(fault, LayerFault::Store { source: StoreError::NotFound(_), .. })
}

/// Adds to a short list of distinct entries.
fn note(list: &mut Vec<String>, entry: String) {
    if list.len() < LISTED_LIMIT && !list.contains(&entry) {
        list.push(entry);
    }
}
