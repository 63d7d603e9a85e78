//! The first start of a large program that a node has no code of, beside compiling it whole.

use anyhow::{Context, Result};

use crate::compile;
use crate::order;
use crate::subject::{Bed, CPYTHON, RUBY, Subject};

/// A program with what was measured of it, in the order of the rounds.
#[derive(Clone, Debug)]
pub(crate) struct First {
    /// The subject's name.
    pub(crate) name: &'static str,
    /// Seconds from the exec of the shim's `start` to the first output, with an empty cache.
    pub(crate) starts: Vec<f64>,
    /// Seconds that the compiler takes for all of it at full optimisation, on one thread.
    pub(crate) compiles: Vec<f64>,
    /// Bytes of machine code then.
    pub(crate) code: u64,
}

/// Measures each, in random order.
pub(crate) async fn measure(bed: &Bed, runs: usize) -> Result<Vec<First>> {
    let (starts, compiles) = (Vec::new(), Vec::new());
    let new = |name| First { name, starts: starts.clone(), compiles: compiles.clone(), code: 0 };
    let programs = [(Subject::ruby(bed)?, RUBY), (Subject::python(bed)?, CPYTHON)];
    let mut all: Vec<First> = programs.iter().map(|(subject, _)| new(subject.name)).collect();
    for round in 1..=runs {
        eprintln!("bench: first starts, round {round} of {runs}");
        for n in order(round, 2 * programs.len()) {
            let (subject, file) = &programs[n / 2];
            let First { starts, compiles, code, .. } = &mut all[n / 2];
            if n % 2 == 0 {
                starts.push(start(subject, bed, round).await?);
            } else {
                let compiled = compile::compile(bed, file)?;
                compiles.push(compiled.sample.wall);
                *code = compiled.code;
            }
        }
    }
    Ok(all)
}

/// Seconds to the first output.
async fn start(subject: &Subject, bed: &Bed, round: usize) -> Result<f64> {
    let fresh = subject.with_empty_cache(bed, "first");
    let life = fresh.live(bed, 5000 + round).await;
    let life = life.with_context(|| format!("first start of {}", subject.name))?;
    fresh.remove_cache()?;
    anyhow::ensure!(life.compiled == 1, "{}: {} compilations", subject.name, life.compiled);
    Ok(life.first_output.as_secs_f64())
}
