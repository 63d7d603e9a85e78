//! What is measured: a runtime with a program.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::life::{self, Life, Runtime};

/// Folders of the benchmark, gone afterwards.
pub(crate) struct Bed {
    dir: tempfile::TempDir,
}

impl Bed {
    pub(crate) fn new() -> Result<Bed> {
        Ok(Bed { dir: tempfile::tempdir()? })
    }

    /// Where events go.
    pub(crate) fn events(&self) -> PathBuf {
        self.dir.path().join("ttrpc")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// A runtime with a program.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    runtime: Runtime,
    /// Files of its root file system: where they come from, where they are.
    files: Vec<(PathBuf, &'static str)>,
    args: Vec<&'static str>,
}

fn told(name: &str) -> Result<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).with_context(|| format!("{name}: run start.sh"))
}

impl Subject {
    pub(crate) fn all(bed: &Bed) -> Result<Vec<Subject>> {
        let programs = told("BENCH_PROGRAMS")?;
        let ours = Runtime {
            shim: told("BENCH_SHIM")?,
            env: vec![
                ("CORACLE_CACHE_DIR", bed.path("cache")),
                ("CORACLE_RUN_DIR", bed.path("run")),
            ],
        };
        let runc = Runtime { shim: told("BENCH_RUNC_SHIM")?, env: Vec::new() };
        let script = bed.path("script.rb");
        fs::write(&script, "puts 'hello from Ruby'\n")?;
        let program = |name: &str| programs.join(name);
        Ok(vec![
            Subject {
                name: "runc, hello",
                runtime: runc,
                files: vec![(told("BENCH_NATIVE")?, "hello")],
                args: vec!["/hello"],
            },
            Subject {
                name: "coracle, hello",
                runtime: ours.clone(),
                files: vec![(program("hello.wasm"), "hello.wasm")],
                args: vec!["/hello.wasm"],
            },
            Subject {
                name: "coracle, Go hello, 2.6 MB",
                runtime: ours.clone(),
                files: vec![(program("hello-go.wasm"), "hello.wasm")],
                args: vec!["/hello.wasm"],
            },
            Subject {
                name: "coracle, Ruby, 30 MB",
                runtime: ours,
                files: vec![(program("thirdparty-ruby.wasm"), "ruby.wasm"), (script, "script.rb")],
                args: vec!["/ruby.wasm", "/script.rb"],
            },
        ])
    }

    /// A life in a fresh bundle.
    pub(crate) async fn live(&self, bed: &Bed, round: usize) -> Result<Life> {
        let bundle = self.lay_out(bed, round)?;
        let life = life::live(&self.runtime, &bundle, &bed.events()).await;
        fs::remove_dir_all(&bundle.path)?;
        life
    }

    /// A bundle over the image's one layer, which all rounds share.
    fn lay_out(&self, bed: &Bed, round: usize) -> Result<Bundle> {
        let word = self.name.replace(|c: char| !c.is_ascii_alphanumeric(), "");
        let id = format!("b{}-{round}-{word}", std::process::id());
        let (layer, path) = (bed.path(&format!("layer-{word}")), bed.path(&id));
        if !layer.exists() {
            fs::create_dir_all(layer.join("proc"))?;
            for (from, to) in &self.files {
                fs::copy(from, layer.join(to))
                    .with_context(|| format!("{}: run `make images`", from.display()))?;
            }
        }
        for folder in ["rootfs", "upper", "work"] {
            fs::create_dir_all(path.join(folder))?;
        }
        fs::write(path.join("config.json"), spec(&self.args, &id).to_string())?;
        Ok(Bundle { id, path, layer })
    }
}

/// A container to be.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) id: String,
    pub(crate) path: PathBuf,
    layer: PathBuf,
}

impl Bundle {
    /// Options of the overlay that is its root file system.
    pub(crate) fn overlay(&self) -> Vec<String> {
        let option = |name: &str, path: &Path| format!("{name}={}", path.display());
        vec![
            option("workdir", &self.path.join("work")),
            option("upperdir", &self.path.join("upper")),
            option("lowerdir", &self.layer),
        ]
    }
}

/// A spec that both runtimes take: what every container has.
fn spec(args: &[&str], id: &str) -> Value {
    json!({
        "ociVersion": "1.1.0",
        "process": {
            "args": args, "cwd": "/", "env": ["PATH=/"], "user": { "uid": 0, "gid": 0 },
            "noNewPrivileges": true,
            "capabilities": { "bounding": [], "effective": [], "permitted": [] },
        },
        "root": { "path": "rootfs" },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": {
            "cgroupsPath": format!("/coracle-bench-{id}"),
            "namespaces": [
                { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" },
                { "type": "network" }, { "type": "cgroup" },
            ],
        },
    })
}
