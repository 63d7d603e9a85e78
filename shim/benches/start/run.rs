//! `coracle run` from cached code, as a whole process, beside wasmtime's command line.

use std::path::Path;

use anyhow::Result;

use crate::process::{self, Invocation, Sample};
use crate::subject::{Bed, CPYTHON, HELLO, RUBY, program, told};

pub(crate) const OUR_HELLO: &str = "coracle run, hello";
pub(crate) const OUR_RUBY: &str = "coracle run, Ruby";
pub(crate) const OUR_CPYTHON: &str = "coracle run, CPython";
/// The ways of wasmtime's command line to run a program without compiling it: the best is what ours is
/// compared with.
pub(crate) const THEIR_HELLOS: [&str; 2] =
    ["wasmtime run, hello precompiled", "wasmtime run, hello in its cache"];
/// The same program without compiler and most of its features, which wasmtime's releases have besides.
const SMALL: &str = "wasmtime-min run, hello precompiled";
/// What that has not, its modules may not be compiled with.
const FOR_SMALL: [&str; 4] = ["-C", "collector=drc", "-W", "threads=n"];

/// Processes of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) name: &'static str,
    pub(crate) samples: Vec<Sample>,
}

/// Runs each in turns; ours with the cache that `start.sh` names.
pub(crate) fn measure(bed: &Bed, runs: usize) -> Result<Vec<Run>> {
    let all = [ours(bed)?, theirs(bed)?].concat();
    let mut done: Vec<Run> =
        all.iter().map(|(name, _)| Run { name, samples: Vec::new() }).collect();
    for round in 0..=runs {
        for (run, (_, line)) in done.iter_mut().zip(&all) {
            let sample = once(bed, line)?;
            // The first may have had to compile.
            if round > 0 {
                run.samples.push(sample);
            }
        }
    }
    Ok(done)
}

/// What wasmtime's command line says it is.
pub(crate) fn wasmtime_version(bed: &Bed) -> Result<String> {
    once(bed, &line(&told("BENCH_WASMTIME")?.join("wasmtime"), &["--version"], &[]))?;
    let said = std::fs::read_to_string(bed.path("said"))?;
    Ok(said.split(" (").next().unwrap_or_default().trim().to_owned())
}

fn ours(bed: &Bed) -> Result<Vec<(&'static str, Vec<String>)>> {
    let coracle = told("BENCH_CORACLE")?;
    let folder = format!("{}::/", bed.path("").display());
    let script = |file: &str, name: &str, text: &str| -> Result<Vec<String>> {
        std::fs::write(bed.path(name), text)?;
        let script = Path::new("/").join(name);
        Ok(line(&coracle, &["run", "--dir", &folder], &[&program(file)?, &script]))
    };
    Ok(vec![
        (OUR_HELLO, line(&coracle, &["run"], &[&program(HELLO)?])),
        (OUR_RUBY, script(RUBY, "run.rb", "puts 'hello from Ruby'\n")?),
        (OUR_CPYTHON, script(CPYTHON, "run.py", "print('hello from CPython')\n")?),
    ])
}

fn theirs(bed: &Bed) -> Result<Vec<(&'static str, Vec<String>)>> {
    let folder = told("BENCH_WASMTIME")?;
    let [wasmtime, small] = ["wasmtime", "wasmtime-min"].map(|name| folder.join(name));
    let hello = program(HELLO)?;
    let [image, small_image, cache] =
        ["hello.cwasm", "small.cwasm", "cache.toml"].map(|name| bed.path(name));
    let compile = |image: &Path, options: &[&str]| {
        let output = format!("--output={}", image.display());
        let words = [&["compile", &output], options].concat();
        once(bed, &line(&wasmtime, &words, &[&hello]))
    };
    compile(&image, &[])?;
    compile(&small_image, &FOR_SMALL)?;
    let kept = bed.path("wasmtime-cache");
    std::fs::write(&cache, format!("[cache]\ndirectory = \"{}\"\n", kept.display()))?;
    let config = format!("cache-config={}", cache.display());
    let precompiled = ["run", "--allow-precompiled"];
    Ok(vec![
        (THEIR_HELLOS[0], line(&wasmtime, &precompiled, &[&image])),
        (THEIR_HELLOS[1], line(&wasmtime, &["run", "-C", &config], &[&hello])),
        (SMALL, line(&small, &precompiled, &[&small_image])),
    ])
}

fn once(bed: &Bed, line: &[String]) -> Result<Sample> {
    let invocation = Invocation { line: line.to_vec(), one_core: false };
    process::run(&invocation, &bed.path("said"))
}

/// A command line: the program, words, then files.
fn line(program: &Path, words: &[&str], files: &[&Path]) -> Vec<String> {
    let path = |path: &Path| path.display().to_string();
    let words = words.iter().map(|word| (*word).to_owned());
    let files = files.iter().map(|file| path(file));
    std::iter::once(path(program)).chain(words).chain(files).collect()
}
