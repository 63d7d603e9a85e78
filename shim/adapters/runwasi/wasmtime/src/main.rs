//! wasmtime under runwasi's shim library: what runwasi's own shim for wasmtime does, which no registry
//! has, for benchmarks.
//!
//! It is the lean form: WASI preview 1 only, in the asynchronous form that the library's runtime asks for, no
//! components, no telemetry, a log that says nothing when all is well. Layers are compiled once and kept by
//! containerd, as runwasi keeps them.

use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::Result;
use containerd_shim_wasm::sandbox::Sandbox;
use containerd_shim_wasm::sandbox::context::{Entrypoint, RuntimeContext, Source, WasmLayer};
use containerd_shim_wasm::shim::{Cli, Compiler, Config, Shim, Version, version};
use wasmtime::{Engine, Linker, Module, Store};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder};

/// The shim as the library knows it.
struct Wasmtime;

/// What runs a container.
#[derive(Default)]
struct Program {
    engine: Engine,
}

/// What compiles layers.
struct Layers {
    engine: Engine,
}

impl Shim for Wasmtime {
    type Sandbox = Program;

    fn name() -> &'static str {
        "runwasi-wasmtime"
    }

    fn version() -> Version {
        version!()
    }

    async fn compiler() -> Option<impl Compiler> {
        Some(Layers { engine: Engine::default() })
    }
}

impl Compiler for Layers {
    fn cache_key(&self) -> impl Hash {
        let mut hasher = DefaultHasher::new();
        self.engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.finish()
    }

    async fn compile(&self, layers: &[WasmLayer]) -> Result<Vec<Option<Vec<u8>>>> {
        let compile = |layer: &WasmLayer| match layer.precompiled {
            true => Ok(None),
            false => Ok(Some(self.engine.precompile_module(&layer.layer)?)),
        };
        layers.iter().map(compile).collect()
    }
}

impl Sandbox for Program {
    async fn run_wasi(&self, context: &impl RuntimeContext) -> Result<i32> {
        let Entrypoint { source, func, .. } = context.entrypoint();
        let module = match source {
            Source::Oci([layer]) if layer.precompiled => {
                // SAFETY: only what `compile` above has made bears that mark.
                unsafe { Module::deserialize(&self.engine, &layer.layer) }?
            }
            source => Module::new(&self.engine, source.as_bytes()?)?,
        };
        let mut wasi = WasiCtxBuilder::new();
        wasi.args(context.args()).inherit_stdio().allow_blocking_current_thread(true);
        for pair in context.envs() {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            wasi.env(key, value);
        }
        wasi.preopened_dir("/", "/", FsPerms::ReadWrite)?;
        run(&self.engine, wasi.build_p1(), &module, &func).await
    }
}

/// Runs a program to its end and gives its exit code.
async fn run(engine: &Engine, wasi: WasiP1Ctx, module: &Module, func: &str) -> Result<i32> {
    let mut store = Store::new(engine, wasi);
    let mut linker = Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |wasi: &mut WasiP1Ctx| wasi)?;
    let instance = linker.instantiate_async(&mut store, module).await?;
    let start = instance.get_typed_func::<(), ()>(&mut store, func)?;
    match start.call_async(&mut store, ()).await {
        Ok(()) => Ok(0),
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(exit) => Ok(exit.0),
            None => Err(error.into()),
        },
    }
}

fn main() {
    Wasmtime::run(Config { default_log_level: "warn".into(), ..Config::default() });
}
