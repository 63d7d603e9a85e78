//! Our compiler as the benchmarks call it: `compile [OPTION]… MODULE IMAGE`, where
//! the options are `--no-optimize`, `--no-inlining` and `--generic` (addressing).
//!
//! On as many threads as the process may use processors; the harness narrows that by affinity.

use std::path::Path;

use anyhow::{Context, Result, bail};
use coracle_engine::compile::compile;
use coracle_engine::config::{Addressing, OptLevel, Settings};

fn main() -> Result<()> {
    let mut settings = Settings { addressing: Addressing::Dedicated, ..Settings::default() };
    let mut paths = Vec::new();
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--no-optimize" => settings.opt_level = OptLevel::None,
            "--no-inlining" => settings.inlining = false,
            "--generic" => settings.addressing = Addressing::Generic,
            // Cargo's own argument when it starts a benchmark.
            "--bench" => {}
            _ => paths.push(arg),
        }
    }
    let [module, image] = paths.as_slice() else {
        bail!("usage: compile [--no-optimize] [--no-inlining] [--generic] MODULE IMAGE");
    };
    let (module, image) = (Path::new(module), Path::new(image));
    let bytes = std::fs::read(module).with_context(|| format!("reading {}", module.display()))?;
    let code =
        compile(&bytes, &settings).with_context(|| format!("compiling {}", module.display()))?;
    std::fs::write(image, code).with_context(|| format!("writing {}", image.display()))
}
