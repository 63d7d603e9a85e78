//! Images that nobody has run before: packed on the spot around a module of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use coracle_oci::digest::Digest;
use serde_json::{Value, json};

/// How the module is in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A file of a Linux image.
    Rootfs,
    /// A wasm layer.
    Layer,
}

/// A packed image.
pub(crate) struct Image {
    dir: tempfile::TempDir,
    /// What it is called.
    pub(crate) name: String,
    pub(crate) form: Form,
    /// The module's path, which no other image has.
    pub(crate) module: String,
}

impl Image {
    /// Around a module that does nothing, but is like no other.
    pub(crate) fn pack(word: &str, form: Form) -> Image {
        Self::of(word, form, "(func (export \"_start\"))")
    }

    /// Around a module with these fields, and one that makes it like no other.
    pub(crate) fn of(word: &str, form: Form, fields: &str) -> Image {
        let module = format!("/{word}.wat");
        let text = format!("(module {fields} (func (export \"{word}\")))");
        let dir = tempfile::tempdir().expect("a scratch folder");
        let mut layout = Layout::new(dir.path().join("layout"));
        let (layer, platform) = match form {
            Form::Rootfs => (rootfs(&mut layout, dir.path(), &module, &text), ["linux", "amd64"]),
            Form::Layer => (layout.blob("application/wasm", text.as_bytes()), ["wasip1", "wasm"]),
        };
        // containerd unpacks layers of files only.
        let diffs = if form == Form::Rootfs { vec![layer["digest"].clone()] } else { Vec::new() };
        let [os, architecture] = platform;
        let config = json!({
            "os": os, "architecture": architecture, "config": { "Entrypoint": [module] },
            "rootfs": { "type": "layers", "diff_ids": diffs },
        });
        let config =
            layout.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let name = format!("coracle.test/{word}:1");
        layout.finish(config, layer, &name, platform);
        tar(&dir.path().join("image.tar"), &dir.path().join("layout"), &["."]);
        Image { dir, name, form, module }
    }

    /// The archive, as `ctr images import` and `docker load` take it.
    pub(crate) fn archive(&self) -> PathBuf {
        self.dir.path().join("image.tar")
    }
}

/// A layer with the module as its only file.
fn rootfs(layout: &mut Layout, scratch: &Path, module: &str, text: &str) -> Value {
    let root = scratch.join("root");
    fs::create_dir(&root).expect("a folder");
    fs::write(root.join(&module[1..]), text).expect("the module");
    let archive = scratch.join("layer.tar");
    tar(&archive, &root, &["."]);
    let bytes = fs::read(archive).expect("the layer");
    layout.blob("application/vnd.oci.image.layer.v1.tar", &bytes)
}

fn tar(archive: &Path, folder: &Path, names: &[&str]) {
    let mut command = Command::new("tar");
    command
        .args(["--owner=0", "--group=0", "--mtime=@0", "-cf"])
        .arg(archive)
        .arg("-C")
        .arg(folder);
    assert!(command.args(names).status().expect("tar").success());
}

/// An OCI image layout.
struct Layout(PathBuf);

impl Layout {
    fn new(folder: PathBuf) -> Layout {
        fs::create_dir_all(folder.join("blobs/sha256")).expect("a folder");
        let version = json!({ "imageLayoutVersion": "1.0.0" }).to_string();
        fs::write(folder.join("oci-layout"), version).expect("the layout");
        Layout(folder)
    }

    /// Stores a blob; the result is its descriptor.
    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        fs::write(self.0.join("blobs/sha256").join(digest.hex()), bytes).expect("a blob");
        json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() })
    }

    fn finish(&mut self, config: Value, layer: Value, name: &str, platform: [&str; 2]) {
        const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer],
        });
        let mut manifest = self.blob(MANIFEST, manifest.to_string().as_bytes());
        let [os, architecture] = platform;
        manifest["platform"] = json!({ "os": os, "architecture": architecture });
        manifest["annotations"] = json!({ "io.containerd.image.name": name });
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [manifest],
        });
        fs::write(self.0.join("index.json"), index.to_string()).expect("the index");
    }
}
