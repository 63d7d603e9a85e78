//! What is measured: a runtime with a program.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::life::{self, Life, Runtime, Started};

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

    pub(crate) fn path(&self, name: &str) -> PathBuf {
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

/// A name as part of a file's.
fn word(name: &str) -> String {
    name.replace(|c: char| !c.is_ascii_alphanumeric(), "")
}

/// A program of `make images`.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    Ok(told("BENCH_PROGRAMS")?.join(name))
}

/// What `start.sh` says by the environment.
pub(crate) fn told(name: &str) -> Result<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).with_context(|| format!("{name}: run start.sh"))
}

impl Subject {
    /// What lives are measured of.
    pub(crate) fn all(bed: &Bed) -> Result<Vec<Subject>> {
        let runc = Subject {
            name: "runc, hello",
            runtime: Runtime { shim: told("BENCH_RUNC_SHIM")?, env: Vec::new() },
            files: vec![(told("BENCH_NATIVE")?, "hello")],
            args: vec!["/hello"],
        };
        Ok(vec![
            runc,
            Subject::hello(bed)?,
            Subject::ours(bed, "coracle, Go hello, 2.6 MB", "hello-go.wasm")?,
            Subject::ruby(bed, "coracle, Ruby, 30 MB", "puts 'hello from Ruby'\n")?,
        ])
    }

    /// The smallest there is.
    pub(crate) fn hello(bed: &Bed) -> Result<Subject> {
        Subject::ours(bed, "coracle, hello", "hello.wasm")
    }

    /// The same with another program in the shim's place.
    pub(crate) fn under(&self, program: PathBuf) -> Subject {
        let mut subject = self.clone();
        subject.runtime.shim = program;
        subject
    }

    /// The same with the log as it is by default.
    pub(crate) fn silent(&self) -> Subject {
        let mut subject = self.clone();
        subject.runtime.env.retain(|(name, _)| *name != "CORACLE_LOG");
        subject
    }

    /// One that many start at once: 5 MB, 3 MB of them code.
    pub(crate) fn large(bed: &Bed) -> Result<Subject> {
        Subject::ours(bed, "gofmt", "thirdparty-gofmt.wasm")
    }

    /// Ruby that says something and stays.
    pub(crate) fn idle_ruby(bed: &Bed) -> Result<Subject> {
        Subject::ruby(bed, "idle Ruby", "puts 'here'\n$stdout.flush\nsleep\n")
    }

    /// A program of `make images`.
    fn ours(bed: &Bed, name: &'static str, file: &str) -> Result<Subject> {
        let env = vec![
            ("CORACLE_CACHE_DIR", bed.path("cache")),
            ("CORACLE_RUN_DIR", bed.path("run")),
            ("CORACLE_LOG", "info".into()),
        ];
        Ok(Subject {
            name,
            runtime: Runtime { shim: told("BENCH_SHIM")?, env },
            files: vec![(program(file)?, "program.wasm")],
            args: vec!["/program.wasm"],
        })
    }

    fn ruby(bed: &Bed, name: &'static str, text: &str) -> Result<Subject> {
        let mut subject = Subject::ours(bed, name, "thirdparty-ruby.wasm")?;
        let script = bed.path(&format!("{}.rb", word(name)));
        fs::write(&script, text)?;
        subject.files.push((script, "script.rb"));
        subject.args.push("/script.rb");
        Ok(subject)
    }

    /// The same with a cache of its own, in which nothing is yet.
    pub(crate) fn with_empty_cache(&self, bed: &Bed, name: &str) -> Subject {
        let mut subject = self.clone();
        for (variable, folder) in &mut subject.runtime.env {
            if matches!(*variable, "CORACLE_CACHE_DIR" | "CORACLE_RUN_DIR") {
                *folder = bed.path(&format!("{name}-{variable}"));
            }
        }
        subject
    }

    /// Up to the answer of Start, in a fresh bundle.
    pub(crate) async fn start(&self, bed: &Bed, round: usize) -> Result<Started> {
        life::start(&self.runtime, &self.lay_out(bed, round)?, &bed.events()).await
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
        let word = word(self.name);
        let id = format!("b{}-{round}-{word}", std::process::id());
        let (layer, path) = (bed.path(&format!("layer-{word}")), bed.path(&id));
        if !layer.exists() {
            for folder in ["proc", "dev", "sys", "run"] {
                fs::create_dir_all(layer.join(folder))?;
            }
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

/// A spec as containerd's clients make it by default: the mounts and paths are theirs.
fn spec(args: &[&str], id: &str) -> Value {
    let mount = |kind: &str, to: &str, options: &[&str]| {
        let options = [&["nosuid"], options].concat();
        json!({ "destination": to, "type": kind, "source": kind, "options": options })
    };
    let pts = ["noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    json!({
        "ociVersion": "1.1.0",
        "process": {
            "args": args, "cwd": "/", "env": ["PATH=/"], "user": { "uid": 0, "gid": 0 },
            "noNewPrivileges": true,
            "capabilities": { "bounding": [], "effective": [], "permitted": [] },
        },
        "root": { "path": "rootfs" },
        "mounts": [
            mount("proc", "/proc", &["noexec", "nodev"]),
            mount("tmpfs", "/dev", &["strictatime", "mode=755", "size=65536k"]),
            mount("devpts", "/dev/pts", &pts),
            mount("tmpfs", "/dev/shm", &["noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("mqueue", "/dev/mqueue", &["noexec", "nodev"]),
            mount("sysfs", "/sys", &["noexec", "nodev", "ro"]),
            mount("tmpfs", "/run", &["strictatime", "mode=755", "size=65536k"]),
        ],
        "linux": {
            "cgroupsPath": format!("/coracle-bench-{id}"),
            "namespaces": [
                { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" },
                { "type": "network" }, { "type": "cgroup" },
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware",
                "/proc/scsi",
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
            ],
        },
    })
}
