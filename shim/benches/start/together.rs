//! Many shims that start one image at once, of which the node has no code yet.

use std::thread;

use anyhow::{Context, Result, anyhow};

use crate::compile;
use crate::life::Life;
use crate::subject::{Bed, LARGE, Subject};

/// How many at once, and how often that is tried.
const SHIMS: [usize; 2] = [4, 8];
const ROUNDS: usize = 5;

/// What came of all rounds with one number of shims.
#[derive(Clone, Debug)]
pub(crate) struct Together {
    pub(crate) shims: usize,
    pub(crate) failed: usize,
    /// Bytes of machine code of the program.
    pub(crate) code: u64,
    /// Compilations in each round.
    pub(crate) compilations: Vec<usize>,
    /// Seconds until the last one had ended, in each round.
    pub(crate) seconds: Vec<f64>,
}

/// Measures each number of shims.
pub(crate) fn measure(bed: &Bed) -> Result<Vec<Together>> {
    let code = compile::compile(bed, LARGE)?.code;
    SHIMS.iter().map(|shims| rounds(bed, *shims, code)).collect()
}

fn rounds(bed: &Bed, shims: usize, code: u64) -> Result<Together> {
    let (failed, compilations, seconds) = (0, Vec::new(), Vec::new());
    let mut together = Together { shims, failed, code, compilations, seconds };
    for round in 0..ROUNDS {
        eprintln!("bench: {shims} shims at once, round {} of {ROUNDS}", round + 1);
        let subject = Subject::large(bed)?.with_empty_cache(bed, &format!("{shims}-{round}"));
        let lives = thread::scope(|scope| -> Result<Vec<Result<Life>>> {
            let all: Vec<_> = (0..shims)
                .map(|n| {
                    let (subject, number) = (&subject, 1000 * (shims + round) + n);
                    scope.spawn(move || live(subject, bed, number))
                })
                .collect();
            all.into_iter()
                .map(|one| one.join().map_err(|_| anyhow!("a thread panicked")))
                .collect()
        })?;
        for failure in lives.iter().filter_map(|life| life.as_ref().err()) {
            eprintln!("bench: failed: {failure:#}");
        }
        let lives: Vec<Life> = lives.into_iter().flatten().collect();
        together.failed += shims - lives.len();
        together.compilations.push(lives.iter().map(|life| life.compiled).sum());
        let last = lives.iter().map(|life| life.exit).max().unwrap_or_default();
        together.seconds.push(last.as_secs_f64());
    }
    Ok(together)
}

fn live(subject: &Subject, bed: &Bed, number: usize) -> Result<Life> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(subject.live(bed, number)).with_context(|| format!("shim {number}"))
}
