//! The engines, and how each compiles and runs a program.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::process::{self, Invocation, Sample};
use crate::program::Program;

/// An engine with its settings, or no engine at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// This engine as the shim uses it.
    Coracle,
    /// wasmtime as its command line does it.
    Wasmtime,
    /// The same with inlining and a guard of 2 GiB.
    WasmtimeFastest,
    /// `WasmEdge`'s LLVM compiler.
    Wasmedge,
    /// The same sources compiled for this machine.
    Native,
}

impl Peer {
    /// All, ours first.
    pub(crate) const ALL: [Peer; 5] =
        [Peer::Coracle, Peer::Wasmtime, Peer::WasmtimeFastest, Peer::Wasmedge, Peer::Native];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Coracle => "coracle",
            Peer::Wasmtime => "wasmtime",
            Peer::WasmtimeFastest => "wasmtime-fastest",
            Peer::Wasmedge => "wasmedge",
            Peer::Native => "native",
        }
    }

    /// The peers with these names, or all of them.
    ///
    /// # Errors
    /// When there is no peer of a name.
    pub(crate) fn select(names: &[String]) -> Result<Vec<Peer>> {
        if names.is_empty() {
            return Ok(Peer::ALL.to_vec());
        }
        let find = |name: &String| {
            Peer::ALL.into_iter().find(|peer| peer.name() == name).with_context(|| {
                let all: Vec<&str> = Peer::ALL.iter().map(|peer| peer.name()).collect();
                format!("no peer `{name}`; there are {}", all.join(", "))
            })
        };
        names.iter().map(find).collect()
    }
}

/// Where everything that is measured lies.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// Modules, native programs and `data/`.
    pub(crate) corpus: PathBuf,
    /// Compiled code that is kept from run to run.
    pub(crate) images: PathBuf,
    pub(crate) our_compiler: PathBuf,
    pub(crate) our_runner: PathBuf,
    pub(crate) wasmtime: PathBuf,
    /// A script, since it brings its own C library.
    pub(crate) wasmedge: PathBuf,
    /// Outputs and other short-lived files.
    pub(crate) scratch: PathBuf,
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Code made ready for one peer, to be run any number of times.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) peer: Peer,
    pub(crate) file: PathBuf,
}

impl Places {
    /// A message for the report: files of this machine by their names within a folder.
    pub(crate) fn portable(&self, message: &str) -> String {
        let programs = [&self.our_compiler, &self.our_runner, &self.wasmtime, &self.wasmedge];
        let parents = programs.into_iter().filter_map(|program| program.parent());
        let folders = [&self.corpus, &self.images, &self.scratch].map(PathBuf::as_path);
        parents.chain(folders).fold(message.to_owned(), |message, folder| {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            message.replace(&text(folder), &name)
        })
    }

    /// The command that compiles a module; `None` for native code, which is compiled beforehand.
    pub(crate) fn compile_command(
        &self,
        peer: Peer,
        module: &Path,
        image: &Path,
    ) -> Option<Vec<String>> {
        let (module, image) = (text(module), text(image));
        let line = match peer {
            Peer::Coracle => vec![text(&self.our_compiler), module, image],
            Peer::Wasmtime => vec![text(&self.wasmtime), "compile".into(), module, image],
            Peer::WasmtimeFastest => {
                vec![text(&self.wasmtime), "compile".into(), "--fastest".into(), module, image]
            }
            Peer::Wasmedge => vec![
                text(&self.wasmedge),
                "compile".into(),
                "--optimize".into(),
                "3".into(),
                module,
                image,
            ],
            Peer::Native => return None,
        };
        Some(line)
    }

    /// Compiles a module unless that was done before with the same executable.
    ///
    /// # Errors
    /// When the peer refuses the module.
    pub(crate) fn make_ready(&self, peer: Peer, name: &str, module: &Path) -> Result<Ready> {
        let bytes = fs::read(module).with_context(|| format!("reading {}", module.display()))?;
        let compiler = match peer {
            Peer::Coracle => &self.our_compiler,
            Peer::Wasmedge => &self.wasmedge,
            _ => &self.wasmtime,
        };
        let mut digest = Sha256::new();
        digest.update(&bytes);
        digest
            .update(fs::read(compiler).with_context(|| format!("reading {}", compiler.display()))?);
        let key: String = digest.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect();
        // WasmEdge goes by the ending.
        let file = self.images.join(format!("{name}-{}-{key}.so", peer.name()));
        if !file.exists() {
            eprintln!("bench: {} compiles {name}", peer.name());
            let new = self.images.join(format!("new-{}.so", std::process::id()));
            let line = self.compile_command(peer, module, &new).context("not a compiler")?;
            let invocation = Invocation { line, one_core: false };
            process::run(&invocation, &self.scratch.join("compile.txt"))?;
            fs::rename(&new, &file)?;
        }
        Ok(Ready { peer, file })
    }

    /// The same code in a file of its own, whose pages may lie somewhere else in the machine's
    /// memory: where they lie would otherwise be the same for all runs, and caches behind the first
    /// are indexed by physical addresses.
    ///
    /// # Errors
    /// When the file cannot be copied.
    pub(crate) fn fresh_copy(&self, ready: &Ready) -> Result<Ready> {
        let name = ready.file.file_name().context("a file without a name")?;
        let file = self.scratch.join(name);
        fs::copy(&ready.file, &file).with_context(|| format!("copying to {}", file.display()))?;
        Ok(Ready { peer: ready.peer, file })
    }

    /// What to run for a program, compiled now if need be; `None` if this peer has no such program.
    ///
    /// # Errors
    /// When the peer refuses the module, or a file of the corpus is missing.
    pub(crate) fn prepare(&self, peer: Peer, program: &Program) -> Result<Option<Ready>> {
        if peer != Peer::Native {
            return self.make_ready(peer, program.name, &program.wasm(&self.corpus)).map(Some);
        }
        let file = program.native_file(&self.corpus);
        match (program.native, file.exists()) {
            (true, true) => Ok(Some(Ready { peer, file })),
            (true, false) => bail!("{} is missing: run corpus/build.sh", file.display()),
            (false, _) => Ok(None),
        }
    }

    /// The command that runs ready code.
    pub(crate) fn run_command(
        &self,
        ready: &Ready,
        options: &[&str],
        data: bool,
        args: &[&str],
    ) -> Vec<String> {
        let folder = self.corpus.join("data");
        self.command_with(ready, options, data.then_some((&*folder, "/data")), args)
    }

    /// The same with any folder of the machine under a name for the guest.
    pub(crate) fn command_with(
        &self,
        ready: &Ready,
        options: &[&str],
        folder: Option<(&Path, &str)>,
        args: &[&str],
    ) -> Vec<String> {
        let file = text(&ready.file);
        let mut line: Vec<String> = match ready.peer {
            Peer::Coracle => vec![text(&self.our_runner), "run".into()],
            Peer::Wasmtime => vec![text(&self.wasmtime), "run".into()],
            Peer::WasmtimeFastest => {
                vec![text(&self.wasmtime), "run".into(), "--fastest".into()]
            }
            // Without a mode it interprets even compiled code.
            Peer::Wasmedge => {
                vec![text(&self.wasmedge), "run".into(), "--run-mode".into(), "aot".into()]
            }
            Peer::Native => Vec::new(),
        };
        line.extend(options.iter().map(|option| (*option).to_owned()));
        if let Some((folder, name)) = folder.filter(|_| ready.peer != Peer::Native) {
            let mapping = match ready.peer {
                Peer::Wasmedge => format!("{name}:{}", folder.display()),
                _ => format!("{}::{name}", folder.display()),
            };
            line.extend(["--dir".to_owned(), mapping]);
        }
        line.push(file);
        // A native program sees the machine's files.
        let native = folder.filter(|_| ready.peer == Peer::Native);
        line.extend(args.iter().map(|arg| match native {
            Some((folder, name)) => arg.replacen(name, &text(folder), 1),
            None => (*arg).to_owned(),
        }));
        line
    }

    /// Runs a program once and says no more than what its process took.
    ///
    /// # Errors
    /// When it does not end with exit code 0.
    pub(crate) fn run(&self, ready: &Ready, program: &Program, output: &Path) -> Result<Sample> {
        let line = self.run_command(ready, &[], program.data, program.args);
        process::run(&Invocation { line, one_core: false }, output)
    }

    /// Runs a program once, with options for the runner. For peers that tell, the second number is the
    /// processor time, in seconds, from entering the program until it ended.
    ///
    /// # Errors
    /// When it does not end with exit code 0.
    pub(crate) fn run_timed(
        &self,
        ready: &Ready,
        options: &[&str],
        data: bool,
        args: &[&str],
        output: &Path,
    ) -> Result<(Sample, Option<f64>)> {
        let timing = self.scratch.join("timing.txt");
        let told = !matches!(ready.peer, Peer::Native | Peer::Wasmedge);
        let option = text(&timing);
        let mut options = options.to_vec();
        if told {
            options.extend(["--timing", &option]);
        }
        let line = self.run_command(ready, &options, data, args);
        let sample = process::run(&Invocation { line, one_core: false }, output)?;
        let compute = told.then(|| call_time(&timing)).transpose()?;
        Ok((sample, compute))
    }
}

/// Processor time of the step `call` in a timing file, in seconds.
fn call_time(timing: &Path) -> Result<f64> {
    let text = fs::read_to_string(timing)?;
    let nanoseconds: f64 = text
        .lines()
        .find_map(|line| line.strip_prefix("call "))
        .and_then(|rest| rest.split_whitespace().nth(1))
        .and_then(|number| number.parse().ok())
        .context("the runner told no times")?;
    Ok(nanoseconds / 1e9)
}
