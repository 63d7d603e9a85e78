//! What is measured: a runtime with a program.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::UnmountFlags;
use serde_json::{Value, json};

use crate::containerd;
use crate::life::{self, Life, Runtime, Started};

/// Programs of `make images`.
pub(crate) const HELLO: &str = "hello.wasm";
pub(crate) const RUBY: &str = "thirdparty-ruby.wasm";
pub(crate) const CPYTHON: &str = "thirdparty-python.wasm";
/// What many shims start at once.
pub(crate) const LARGE: &str = "thirdparty-gofmt.wasm";
/// Images whose layer is that hello: the file, the image's name. Two manifests, since runwasi has each keep
/// alive what was compiled last, whoever compiled it.
const IMAGES: [[&str; 2]; 2] = [
    ["hello--layer.tar", "coracle.test/hello:layer"],
    ["hello--layer-runwasi.tar", "coracle.test/hello:layer-runwasi"],
];

/// Where the shim keeps code, and what it knows of it.
const CACHE: [&str; 2] = ["CORACLE_CACHE_DIR", "CORACLE_RUN_DIR"];

/// What is compared with what; each starts with the name of the shim.
pub(crate) const RUNC_HELLO: &str = "runc, hello";
pub(crate) const OUR_HELLO: &str = "coracle, hello";
pub(crate) const OUR_RUBY: &str = "coracle, Ruby, 31 MB";
pub(crate) const OUR_CPYTHON: &str = "coracle, CPython, 26 MB";
/// Of an image whose layer is the program, under this shim and under runwasi's.
pub(crate) const LAYERS: [&str; 3] = [
    "coracle, hello, wasm layer",
    "runwasi with our engine, hello, wasm layer",
    "runwasi with wasmtime, hello, wasm layer",
];

/// Folders of the benchmark, gone afterwards.
pub(crate) struct Bed {
    dir: tempfile::TempDir,
}

impl Bed {
    pub(crate) fn new() -> Result<Bed> {
        // In the test bed's folder, which it clears of mounts too, however this ends.
        Ok(Bed { dir: tempfile::tempdir_in(told("TESTBED_RUN")?.join("tmp"))? })
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
    /// The image in containerd that the program is a layer of, if it is no file.
    image: Option<&'static str>,
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
        for [file, _] in IMAGES {
            containerd::import(file)?;
        }
        let [ours, engine, wasmtime] = LAYERS;
        let mut layer = Subject::ours(bed, ours, None)?;
        layer.image = Some(IMAGES[0][1]);
        let under = |name, variable| -> Result<Subject> {
            let runtime = Runtime { shim: told(variable)?, env: Vec::new() };
            Ok(Subject { name, runtime, ..layer.clone() })
        };
        let mut runc = under(RUNC_HELLO, "BENCH_RUNC_SHIM")?;
        runc.files.push((told("BENCH_NATIVE")?, "hello"));
        runc.args = vec!["/hello"];
        runc.image = None;
        let mut wasmtime = under(wasmtime, "BENCH_RUNWASI_WASMTIME_SHIM")?;
        wasmtime.image = Some(IMAGES[1][1]);
        Ok(vec![
            runc,
            wasmtime,
            under(engine, "BENCH_RUNWASI_SHIM")?,
            // Its first start shall find no code of the file that is the same.
            layer.with_empty_cache(bed, "layer"),
            Subject::hello(bed)?,
            Subject::ours(bed, "coracle, Go hello, 2.6 MB", Some("hello-go.wasm"))?,
            Subject::ruby(bed)?,
            Subject::python(bed)?,
        ])
    }

    /// The smallest there is.
    pub(crate) fn hello(bed: &Bed) -> Result<Subject> {
        Subject::ours(bed, OUR_HELLO, Some(HELLO))
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

    /// One that many start at once.
    pub(crate) fn large(bed: &Bed) -> Result<Subject> {
        Subject::ours(bed, "large", Some(LARGE))
    }

    pub(crate) fn ruby(bed: &Bed) -> Result<Subject> {
        Subject::ours(bed, OUR_RUBY, Some(RUBY))?.with_script(bed, "puts 'hello from Ruby'\n")
    }

    pub(crate) fn python(bed: &Bed) -> Result<Subject> {
        let python = Subject::ours(bed, OUR_CPYTHON, Some(CPYTHON))?;
        python.with_script(bed, "print('hello from CPython')\n")
    }

    /// Ruby that says something and stays.
    pub(crate) fn idle_ruby(bed: &Bed) -> Result<Subject> {
        let ruby = Subject::ours(bed, "idle Ruby", Some(RUBY))?;
        ruby.with_script(bed, "puts 'here'\n$stdout.flush\nsleep\n")
    }

    /// A program of `make images` as a file.
    fn ours(bed: &Bed, name: &'static str, file: Option<&str>) -> Result<Subject> {
        let [cache, run] = CACHE;
        let env = vec![
            (cache, bed.path("cache")),
            (run, bed.path("run")),
            ("CORACLE_LOG", "info".into()),
        ];
        let runtime = Runtime { shim: told("BENCH_SHIM")?, env };
        let files = file.map(|file| Ok((program(file)?, "program.wasm")));
        let files = files.into_iter().collect::<Result<_>>()?;
        Ok(Subject { name, runtime, files, args: vec!["/program.wasm"], image: None })
    }

    fn with_script(mut self, bed: &Bed, text: &str) -> Result<Subject> {
        let script = bed.path(&format!("{}.script", word(self.name)));
        fs::write(&script, text)?;
        self.files.push((script, "script"));
        self.args.push("/script");
        Ok(self)
    }

    /// The same with a cache of its own, in which nothing is yet.
    pub(crate) fn with_empty_cache(&self, bed: &Bed, name: &str) -> Subject {
        let mut subject = self.clone();
        for (variable, folder) in &mut subject.runtime.env {
            if CACHE.contains(variable) {
                *folder = bed.path(&format!("{name}-{variable}"));
            }
        }
        subject
    }

    /// Removes its cache.
    pub(crate) fn remove_cache(&self) -> Result<()> {
        let folders = self.runtime.env.iter().filter(|(variable, _)| CACHE.contains(variable));
        for (_, folder) in folders {
            fs::remove_dir_all(folder)?;
        }
        Ok(())
    }

    /// Up to the answer of Start, in a fresh bundle.
    pub(crate) async fn start(&self, bed: &Bed, round: usize) -> Result<Started> {
        life::start(&self.runtime, &self.lay_out(bed, round)?, &bed.events()).await
    }

    /// A life in a fresh bundle.
    pub(crate) async fn live(&self, bed: &Bed, round: usize) -> Result<Life> {
        let bundle = self.lay_out(bed, round)?;
        if let Some(image) = self.image {
            containerd::record(&bundle.id, image).await?;
            // Where runwasi keeps its own records.
            let options = json!({ "root": bundle.path.join("runwasi") });
            fs::write(bundle.path.join("options.json"), options.to_string())?;
        }
        let life = life::live(&self.runtime, &bundle, &bed.events()).await;
        if self.image.is_some() {
            containerd::forget(&bundle.id).await?;
        }
        // As containerd does with what a shim left mounted; mostly it is nothing.
        let _ = rustix::mount::unmount(bundle.path.join("rootfs"), UnmountFlags::DETACH);
        let removed = fs::remove_dir_all(&bundle.path);
        let life = life?;
        removed.with_context(|| format!("removing the bundle of {}", bundle.id))?;
        Ok(life)
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
