//! `coracle run` from cached code, as a whole process, beside wasmtime.

use std::path::Path;

use anyhow::Result;

use crate::process::{self, Invocation, Sample};
use crate::subject::{Bed, program, told};

/// Processes of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) name: &'static str,
    pub(crate) samples: Vec<Sample>,
}

/// Runs each in turns, with the cache that `start.sh` names. wasmtime's is its embedding of the engine's benchmark, if that was built.
pub(crate) fn measure(bed: &Bed, runs: usize) -> Result<Vec<Run>> {
    let (hello, ruby) = (program("hello.wasm")?, program("thirdparty-ruby.wasm")?);
    let script = bed.path("run.rb");
    std::fs::write(&script, "puts 'hello from Ruby'\n")?;
    let coracle = told("BENCH_CORACLE")?;
    let ours = |rest: &[&Path]| line(&coracle, &[&[Path::new("run")], rest].concat());
    let folder = format!("{}::/", bed.path("").display());
    let mut all = vec![
        ("coracle run, hello", ours(&[&hello])),
        (
            "coracle run, Ruby",
            ours(&[Path::new("--dir"), Path::new(&folder), &ruby, Path::new("/run.rb")]),
        ),
    ];
    if let Ok(wasmtime) = told("BENCH_WASMTIME") {
        let image = bed.path("hello.so");
        let compile = line(&wasmtime, &[Path::new("compile"), &hello, &image]);
        process::run(&Invocation { line: compile, one_core: false }, &bed.path("said"))?;
        all.push(("wasmtime, hello", line(&wasmtime, &[Path::new("run"), &image])));
    }
    let mut done: Vec<Run> =
        all.iter().map(|(name, _)| Run { name, samples: Vec::new() }).collect();
    for round in 0..=runs {
        for (run, (_, line)) in done.iter_mut().zip(&all) {
            let invocation = Invocation { line: line.clone(), one_core: false };
            let sample = process::run(&invocation, &bed.path("said"))?;
            // The first may have had to compile.
            if round > 0 {
                run.samples.push(sample);
            }
        }
    }
    Ok(done)
}

fn line(program: &Path, args: &[&Path]) -> Vec<String> {
    let text = |path: &Path| path.display().to_string();
    std::iter::once(text(program)).chain(args.iter().map(|arg| text(arg))).collect()
}
