//! Modules from images: every form in circulation, and refusals that say what was found.

#![allow(clippy::unwrap_used, reason = "a failing test should panic")]

mod common;

use std::path::Path;

use common::{
    COMPONENT, ELF, IMAGE, MemoryStore, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, TAR_GZIP, WASM,
    config, load, on, rootfs_file, titled,
};
use coracle_oci::digest::Digest;
use coracle_oci::image::{self, Descriptor, Format, ImageRef, MODULE_LIMIT, Module, ModuleBytes};
use coracle_oci::{ImageError, StoreError};
use serde_json::{Value, json};

const COMPONENT_LAYER: &str = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm";

fn resolve_as(
    store: &MemoryStore,
    image: Option<&ImageRef>,
    args: &[&str],
) -> Result<Module, ImageError> {
    let bundle = tempfile::tempdir().unwrap();
    let workload = load(bundle.path(), &config(args)).unwrap();
    image::resolve(&workload, &bundle.path().join("rootfs"), image, store)
}

fn resolve(store: &mut MemoryStore, target: &Value, args: &[&str]) -> Result<Module, ImageError> {
    let image = store.tag(target);
    resolve_as(store, Some(&image), args)
}

fn refusal(store: &mut MemoryStore, target: &Value) -> String {
    let message = resolve(store, target, &["/"]).unwrap_err().to_string();
    assert!(!message.contains('\n'), "one sentence: {message}");
    message
}

#[test]
fn each_accepted_layer_type_under_each_config() {
    let configs = [
        (
            OCI_CONFIG,
            json!({"os": "wasi", "architecture": "wasm", "rootfs": {"type": "layers", "diff_ids": []}}),
        ),
        (
            OCI_CONFIG,
            json!({"os": "wasip1", "architecture": "wasm", "rootfs": {"type": "layers", "diff_ids": []}}),
        ),
        // CNCF artifact: no rootfs, no entry point.
        (
            "application/vnd.wasm.config.v0+json",
            json!({"created": "2025-01-01T00:00:00Z", "os": "wasip1", "architecture": "wasm", "layerDigests": []}),
        ),
        // wasm-to-oci wrote an empty object.
        ("application/vnd.wasm.config.v1+json", json!({})),
        ("application/vnd.module.wasm.config.v1+json", json!({})),
    ];
    let layers = [
        "application/wasm",
        COMPONENT_LAYER,
        "application/vnd.wasm.content.layer.v1+wasm",
        "application/vnd.module.wasm.content.layer.v1+wasm",
    ];
    for (config_type, config) in &configs {
        for layer_type in layers {
            let mut store = MemoryStore::default();
            let config = store.put_json(config_type, config);
            let layer = store.put(layer_type, WASM);
            let manifest = store.manifest(&config, &[layer]);
            let module = resolve(&mut store, &manifest, &["/"]).unwrap();
            assert_eq!(module.digest, Digest::of(WASM), "{config_type} {layer_type}");
            assert!(matches!(module.bytes, ModuleBytes::Memory(bytes) if bytes == WASM));
        }
    }
}

#[test]
fn unusable_entry_points_are_only_names() {
    for args in [&["/"][..], &["/app.wasm#run"], &["app.wasm", "-x"], &["/bin/sh"], &[]] {
        let mut store = MemoryStore::default();
        let layer = store.put("application/wasm", WASM);
        let manifest = store.image("wasip1/wasm", &[layer]);
        let module = resolve(&mut store, &manifest, args).unwrap();
        assert_eq!(module.digest, Digest::of(WASM), "{args:?}");
        assert_eq!(
            module.entry.path,
            args.first().map_or("", |arg| arg.split('#').next().unwrap())
        );
        assert!(module.origin.contains("layer sha256:"), "{}", module.origin);
    }
}

#[test]
fn a_native_program_at_the_entry_point_gives_way_to_the_layer() {
    let bundle = tempfile::tempdir().unwrap();
    rootfs_file(bundle.path(), "/bin/app", ELF);
    let workload = load(bundle.path(), &config(&["/bin/app"])).unwrap();
    let mut store = MemoryStore::default();
    let layer = store.put("application/wasm", b"(module)");
    let manifest = store.image("wasi/wasm", &[layer]);
    let image = store.tag(&manifest);
    let rootfs = bundle.path().join("rootfs");
    let module = image::resolve(&workload, &rootfs, Some(&image), &store).unwrap();
    assert_eq!(module.format, Format::Wat);
}

#[test]
fn a_module_in_the_root_file_system_costs_no_look_up() {
    let bundle = tempfile::tempdir().unwrap();
    rootfs_file(bundle.path(), "/app", WASM);
    let workload = load(bundle.path(), &config(&["/app"])).unwrap();
    let mut store = MemoryStore::default();
    let manifest = store.image("linux/amd64", &[]);
    let image = store.tag(&manifest);
    image::resolve(&workload, &bundle.path().join("rootfs"), Some(&image), &store).unwrap();
    assert!(store.reads.borrow().is_empty());
}

#[test]
fn locating_a_layer_does_not_read_it() {
    let bundle = tempfile::tempdir().unwrap();
    let workload = load(bundle.path(), &config(&["/"])).unwrap();
    let mut store = MemoryStore::default();
    let layer = store.put("application/wasm", WASM);
    let manifest = store.image("wasi/wasm", &[layer]);
    let image = store.tag(&manifest);
    let rootfs = bundle.path().join("rootfs");
    let located = image::locate(&workload, &rootfs, Some(&image), &store).unwrap();
    assert!(!store.reads.borrow().contains(&Digest::of(WASM)));
    assert!(
        matches!(located.source, image::ModuleSource::Layer { digest, .. } if digest == Digest::of(WASM))
    );
    located.read(&store).unwrap();
}

#[test]
fn index_prefers_wasm_over_the_host_and_skips_attestations() {
    let mut store = MemoryStore::default();
    let host_layer = store.put("application/wasm", b"(module $host)");
    let host = store.image("linux/amd64", &[host_layer]);
    let wasm_layer = store.put("application/wasm", WASM);
    let wasm = store.image("wasip1/wasm", &[wasm_layer]);
    let statement = store.put("application/vnd.in-toto+json", b"{}");
    let mut attestation = on("unknown/unknown", store.image("unknown/unknown", &[statement]));
    attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let index = store.index(&[attestation, on("linux/amd64", host), on("wasip1/wasm", wasm)]);
    let module = resolve(&mut store, &index, &["/"]).unwrap();
    assert_eq!(module.digest, Digest::of(WASM));
}

#[test]
fn index_entries_that_were_not_pulled_are_passed_over() {
    let mut store = MemoryStore::default();
    let layer = store.put(COMPONENT_LAYER, WASM);
    let host = store.image("linux/amd64", &[layer]);
    let absent = store.image("wasi/wasm", &[]);
    store.remove(&absent);
    let index = store.index(&[on("wasi/wasm", absent.clone()), on("linux/amd64", host)]);
    assert_eq!(resolve(&mut store, &index, &["/"]).unwrap().digest, Digest::of(WASM));
    let only_absent = store.index(&[on("wasi/wasm", absent)]);
    let message = refusal(&mut store, &only_absent);
    assert!(message.contains("is not in the content store"), "{message}");
}

#[test]
fn nested_index_and_entries_without_platform() {
    let mut store = MemoryStore::default();
    let layer = store.put("application/wasm", WASM);
    let artifact = store.put_json("application/vnd.wasm.config.v0+json", &json!({}));
    let manifest = store.manifest(&artifact, &[layer]);
    let inner = store.index(&[manifest]);
    let outer = store.index(&[inner]);
    assert_eq!(resolve(&mut store, &outer, &["/"]).unwrap().digest, Digest::of(WASM));
    let mut deep = outer;
    for _ in 0..4 {
        deep = store.index(&[deep]);
    }
    assert!(refusal(&mut store, &deep).contains("too deep"));
}

#[test]
fn several_layers_are_chosen_by_title() {
    let mut store = MemoryStore::default();
    let first = titled("dist/one.wasm", store.put("application/wasm", WASM));
    let second = titled("two.wasm", store.put("application/wasm", b"(module)"));
    let manifest = store.image("wasip1/wasm", &[first, second]);
    let module = resolve(&mut store, &manifest, &["/any/one.wasm"]).unwrap();
    assert_eq!(module.digest, Digest::of(WASM));
    let module = resolve(&mut store, &manifest, &["two.wasm#x"]).unwrap();
    assert_eq!(module.format, Format::Wat);
    let message = refusal(&mut store, &manifest);
    assert!(message.contains("has 2 wasm layers"), "{message}");
}

#[test]
fn plain_image_without_wasm_says_what_it_has() {
    let bundle = tempfile::tempdir().unwrap();
    rootfs_file(bundle.path(), "/bin/sh", ELF);
    let workload = load(bundle.path(), &config(&["sh", "-c", "true"])).unwrap();
    let mut store = MemoryStore::default();
    let layer = store.put(TAR_GZIP, b"...");
    let manifest = store.image("linux/amd64", &[layer]);
    let image = store.tag(&manifest);
    let error =
        image::resolve(&workload, &bundle.path().join("rootfs"), Some(&image), &store).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "no wasm module to run: the entry point /bin/sh is an ELF file, that is native code; \
             accepted is a core wasm module, binary or .wat text; image {IMAGE} (platform \
             linux/amd64) has no wasm layer, only {TAR_GZIP}; accepted wasm layers are \
             application/wasm, {COMPONENT_LAYER}, application/vnd.wasm.content.layer.v1+wasm, \
             application/vnd.module.wasm.content.layer.v1+wasm"
        )
    );
}

#[test]
fn unknown_media_types_are_listed() {
    let mut store = MemoryStore::default();
    let first = store.put("application/wasm+zstd", WASM);
    let second = store.put("application/x-secret", b"{}");
    let manifest = store.image("wasip1/wasm", &[first, second]);
    let message = refusal(&mut store, &manifest);
    for wanted in
        ["wasip1/wasm", "application/wasm+zstd, application/x-secret", "application/wasm,"]
    {
        assert!(message.contains(wanted), "{message}");
    }
    let odd = store.put_json("application/vnd.example+json", &json!({}));
    let message = refusal(&mut store, &odd);
    assert!(message.contains("application/vnd.example+json"), "{message}");
    assert!(message.contains(OCI_MANIFEST) && message.contains(OCI_INDEX), "{message}");
}

#[test]
fn layers_are_known_by_content_too() {
    let mut wasmtime = ELF.to_vec();
    wasmtime[7] = 200;
    let cases: [(&[u8], &str); 5] = [
        (COMPONENT, "is a wasm component, which this version cannot run"),
        (ELF, "an ELF file"),
        (&wasmtime, "precompiled by wasmtime"),
        (b"\x1f\x8b\x08\0", "a gzip file"),
        (b"", "an empty file"),
    ];
    for (bytes, wanted) in cases {
        let mut store = MemoryStore::default();
        let layer = store.put(COMPONENT_LAYER, bytes);
        let manifest = store.image("wasi/wasm", &[layer]);
        let message = refusal(&mut store, &manifest);
        assert!(message.contains(wanted), "{message}");
        assert!(message.contains(&Digest::of(bytes).to_string()), "{message}");
        assert!(message.contains("accepted is a core wasm module"), "{message}");
    }
}

#[test]
fn damaged_content_is_refused() {
    let mut store = MemoryStore::default();
    let layer = store.put("application/wasm", WASM);
    let manifest = store.image("wasi/wasm", std::slice::from_ref(&layer));
    store.blobs.insert(Digest::of(WASM), b"\0asm\x01\0\0\x01".to_vec());
    let message = refusal(&mut store, &manifest);
    assert!(
        message.contains("is damaged") && message.contains("pull the image again"),
        "{message}"
    );
    store.blobs.insert(Digest::of(WASM), WASM[..7].to_vec());
    let message = refusal(&mut store, &manifest);
    assert!(message.contains("is 7 bytes, but its descriptor says 8"), "{message}");
    store.remove(&layer);
    let message = refusal(&mut store, &manifest);
    assert!(message.contains("is not in the content store"), "{message}");
    let manifest_digest: Digest = manifest["digest"].as_str().unwrap().parse().unwrap();
    let text = String::from_utf8(store.blobs[&manifest_digest].clone()).unwrap();
    store.blobs.insert(manifest_digest, text.replace("wasm", "WASM").into_bytes());
    assert!(refusal(&mut store, &manifest).contains("is damaged"));
}

#[test]
fn sizes_are_bounded_before_anything_is_read() {
    let mut store = MemoryStore::default();
    let mut layer = store.put("application/wasm", WASM);
    layer["size"] = json!(MODULE_LIMIT + 1);
    let manifest = store.image("wasi/wasm", &[layer]);
    let message = refusal(&mut store, &manifest);
    assert!(message.contains("more than the 268435456 accepted"), "{message}");
    assert!(!store.reads.borrow().contains(&Digest::of(WASM)));

    let image = ImageRef::new(IMAGE).unwrap();
    let huge = Descriptor {
        media_type: OCI_MANIFEST.to_owned(),
        digest: Digest::of(b"huge"),
        size: 4 * 1024 * 1024 + 1,
    };
    store.images.insert(IMAGE.to_owned(), huge);
    store.reads.borrow_mut().clear();
    let message = resolve_as(&store, Some(&image), &["/"]).unwrap_err().to_string();
    assert!(message.contains("manifest") && message.contains("4194304"), "{message}");
    assert!(store.reads.borrow().is_empty());
}

#[test]
fn documents_that_are_two_things_at_once_are_refused() {
    let mut store = MemoryStore::default();
    let layer = store.put("application/wasm", WASM);
    let config = store.put_json(OCI_CONFIG, &json!({}));
    let both = json!({
        "schemaVersion": 2, "config": config, "layers": [layer], "manifests": [],
    });
    for media_type in [OCI_MANIFEST, OCI_INDEX] {
        let both = store.put_json(media_type, &both);
        assert!(refusal(&mut store, &both).contains("does not agree with its media type"));
    }
    let liar = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX, "config": config, "layers": [],
    });
    let liar = store.put_json(OCI_MANIFEST, &liar);
    assert!(refusal(&mut store, &liar).contains("does not agree with its media type"));
    let broken = store.put(OCI_MANIFEST, b"{\"schemaVersion\": 2");
    assert!(refusal(&mut store, &broken).contains("cannot parse sha256:"));
    let mut foreign = store.put("application/wasm", WASM);
    foreign["digest"] = json!(format!("sha512:{}", "0".repeat(128)));
    let foreign = store.image("wasi/wasm", &[foreign]);
    assert!(refusal(&mut store, &foreign).contains("sha256"));
}

#[test]
fn unknown_image_and_broken_store() {
    let store = MemoryStore::default();
    let image = ImageRef::new(IMAGE).unwrap();
    let message = resolve_as(&store, Some(&image), &["/"]).unwrap_err().to_string();
    assert!(message.contains(IMAGE) && message.contains("not in the content store"), "{message}");

    struct Broken;
    impl image::ContentStore for Broken {
        fn read(&self, digest: &Digest, _: u64) -> Result<Vec<u8>, StoreError> {
            self.image_target(&digest.to_string()).map(|_| Vec::new())
        }
        fn image_target(&self, name: &str) -> Result<Descriptor, StoreError> {
            let (object, reason) = (name.to_owned(), "connection refused".to_owned());
            Err(StoreError::Failed { object, reason })
        }
    }
    let bundle = tempfile::tempdir().unwrap();
    let workload = load(bundle.path(), &config(&["/"])).unwrap();
    let rootfs: &Path = &bundle.path().join("rootfs");
    let error = image::resolve(&workload, rootfs, Some(&image), &Broken).unwrap_err();
    assert!(error.to_string().contains("connection refused"), "{error}");
    assert!(ImageRef::new("").is_none());
}

#[test]
fn docker_schema_two_manifest_and_list() {
    let mut store = MemoryStore::default();
    let config = store.put_json(
        "application/vnd.docker.container.image.v1+json",
        &json!({"os": "wasi", "architecture": "wasm"}),
    );
    let layer = store.put("application/wasm", WASM);
    let media_type = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer],
    });
    let manifest = store.put_json(media_type, &manifest);
    let media_type = "application/vnd.docker.distribution.manifest.list.v2+json";
    let list = json!({
        "schemaVersion": 2, "mediaType": media_type, "manifests": [on("wasi/wasm32", manifest)],
    });
    let list = store.put_json(media_type, &list);
    assert_eq!(resolve(&mut store, &list, &["/"]).unwrap().digest, Digest::of(WASM));
}

#[test]
fn the_configuration_is_that_of_the_platform_that_would_run() {
    let mut store = MemoryStore::default();
    let config = json!({
        "os": "wasip1", "architecture": "wasm",
        "config": {
            "Entrypoint": ["app.wasm"], "Cmd": ["--serve"], "Env": ["A=b"], "WorkingDir": "/srv",
        },
    });
    let native = json!({"os": "linux", "architecture": "amd64", "config": {"Cmd": ["/bin/sh"]}});
    let (native, config) =
        (store.put_json(OCI_CONFIG, &native), store.put_json(OCI_CONFIG, &config));
    let linux = store.manifest(&native, &[]);
    let layer = store.put("application/wasm", WASM);
    let wasm = store.manifest(&config, &[layer]);
    let index = store.index(&[on("linux/amd64", linux), on("wasip1/wasm", wasm.clone())]);
    let image = store.tag(&index);
    let found = image::configuration(&store, &image).unwrap();
    assert_eq!(found.args, ["app.wasm", "--serve"]);
    assert_eq!((found.env, found.cwd.as_str()), (vec!["A=b".to_owned()], "/srv"));
    // Its blob is that which containerd's records of unpacking hang on.
    assert!(store.blobs[&found.digest].starts_with(b"{"));
    // A pull of one platform only.
    store.remove(&wasm);
    let found = image::configuration(&store, &image).unwrap();
    assert_eq!((found.args, found.cwd.as_str()), (vec!["/bin/sh".to_owned()], ""));
}

#[test]
fn artifacts_and_nulls_configure_nothing() {
    let mut store = MemoryStore::default();
    let nothing = [
        json!({"os": "wasip1", "architecture": "wasm", "layerDigests": []}),
        json!({"config": null}),
        json!({"config": {"Entrypoint": null, "Cmd": null, "Env": null}}),
    ];
    for config in nothing {
        let config = store.put_json("application/vnd.wasm.config.v0+json", &config);
        let target = store.manifest(&config, &[]);
        let image = store.tag(&target);
        let found = image::configuration(&store, &image).unwrap();
        assert!(found.args.is_empty() && found.env.is_empty() && found.cwd.is_empty());
    }
    let config = store.put_json(OCI_CONFIG, &json!([1]));
    let target = store.manifest(&config, &[]);
    let image = store.tag(&target);
    let error = image::configuration(&store, &image).unwrap_err().to_string();
    assert!(error.contains("cannot parse sha256:"), "{error}");
    let unknown = ImageRef::new("unknown").unwrap();
    assert!(image::configuration(&store, &unknown).unwrap_err().to_string().contains("unknown"));
}
