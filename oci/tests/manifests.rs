//! Manifests with the fields that packing tools write. Locating reads no layer, so the
//! layers of these documents need not exist.

#![allow(clippy::unwrap_used, reason = "a failing test should panic")]

mod common;

use common::{MemoryStore, OCI_INDEX, OCI_MANIFEST, config, load, rootfs_file};
use coracle_oci::ImageError;
use coracle_oci::digest::Digest;
use coracle_oci::image::{self, Located, ModuleSource};
use serde_json::Value;

fn text(name: &str) -> String {
    let file = format!("{}/tests/fixtures/manifest/{name}.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(file).unwrap()
}

fn locate(store: &mut MemoryStore, target: &Value) -> Result<Located, ImageError> {
    let bundle = tempfile::tempdir().unwrap();
    let workload = load(bundle.path(), &config(&["/"])).unwrap();
    let image = store.tag(target);
    image::locate(&workload, &bundle.path().join("rootfs"), Some(&image), store)
}

/// Digest (its beginning), size and media type of the layer of a manifest.
fn layer(name: &str) -> (String, u64, String) {
    let mut store = MemoryStore::default();
    let target = store.put(OCI_MANIFEST, text(name).as_bytes());
    match locate(&mut store, &target).unwrap().source {
        ModuleSource::Layer { digest, size, media_type, .. } => {
            (digest.hex()[..8].to_owned(), size, media_type)
        }
        ModuleSource::Rootfs { path, .. } => panic!("{}", path.display()),
    }
}

#[test]
fn tools_of_today_and_yesterday() {
    let wasm = |hex: &str, size, media_type: &str| (hex.to_owned(), size, media_type.to_owned());
    assert_eq!(layer("cncf-artifact"), wasm("0db51ed1", 2_006_124, "application/wasm"));
    assert_eq!(
        layer("runwasi-image"),
        wasm(
            "b434027c",
            2_590_241,
            "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm"
        )
    );
    let old = "application/vnd.wasm.content.layer.v1+wasm";
    assert_eq!(layer("wasm-to-oci"), wasm("4c7915b4", 1_624_962, old));
    // Spin's lock file and assets are no modules; whether the component can run is told later.
    assert_eq!(layer("spin-app"), wasm("7ae2ba54", 2_246_098, old));
}

#[test]
fn buildx_index_with_attestation() {
    let mut store = MemoryStore::default();
    let manifest = text("cncf-artifact");
    store.put(OCI_MANIFEST, manifest.as_bytes());
    let hex = Digest::of(manifest.as_bytes()).hex();
    let mut index: Value =
        serde_json::from_str(&text("buildx-index").replace("WASM_MANIFEST", &hex)).unwrap();
    index["manifests"][0]["size"] = manifest.len().into();
    let target = store.put_json(OCI_INDEX, &index);
    let located = locate(&mut store, &target).unwrap();
    assert!(located.origin.contains("sha256:0db51ed1"), "{}", located.origin);
}

#[test]
fn compat_image_is_a_file_of_the_root_file_system() {
    let mut store = MemoryStore::default();
    let target = store.put(OCI_MANIFEST, text("istio-compat").as_bytes());
    let message = locate(&mut store, &target).unwrap_err().to_string();
    assert!(message.contains("no wasm layer, only application/vnd.oci.image.layer"), "{message}");

    let bundle = tempfile::tempdir().unwrap();
    rootfs_file(bundle.path(), "/plugin.wasm", common::WASM);
    let workload = load(bundle.path(), &config(&["plugin.wasm"])).unwrap();
    let image = store.tag(&target);
    let rootfs = bundle.path().join("rootfs");
    let located = image::locate(&workload, &rootfs, Some(&image), &store).unwrap();
    assert_eq!(located.origin, "/plugin.wasm");
}
