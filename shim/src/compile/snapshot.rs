//! After the compilation: the program's own initialisation, once, for all starts to come.
//!
//! A worker of its own runs it, with the compiler's limits, in the compiler's cage. The code image that
//! it gives begins where the initialisation ended, and has the compiler's machine code, which is
//! compared here. A program starts without it as well, and does the same.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use coracle_engine::image::{Header, Section};
use coracle_engine::module::WIZER_INITIALIZE;
use tokio::sync::Notify;

use super::worker::Output;
use super::{CompileError, Job, attempt, check};

/// Bytes that are compared at a time.
const PIECE: u64 = 256 << 10;

/// The image of the initialised program, or the one that is given where the program does not ask for
/// it or it cannot be had.
pub(super) async fn of(job: &Job, stop: &Notify, image: File) -> Result<File, CompileError> {
    let wanted = check(&image).is_ok_and(|header| header.wants_initialization());
    let convention = wanted.then(|| WIZER_INITIALIZE.to_owned());
    let Some(export) = job.initialize.clone().or(convention) else { return Ok(image) };
    let output = || Output::Initialized(export.clone());
    let initialized = match attempt(job, stop, &image, output).await {
        Ok(initialized) => compare(job, &image, initialized).await,
        Err(error) => Err(error),
    };
    let reason = match initialized {
        Ok(initialized) => {
            tracing::info!(origin = %job.origin, "initialised");
            return Ok(initialized);
        }
        Err(cancelled @ CompileError::Cancelled { .. }) => return Err(cancelled),
        Err(CompileError::Rejected { reason, .. }) => reason,
        Err(error) => error.to_string(),
    };
    tracing::warn!(origin = %job.origin, %reason, "no snapshot: it is initialised at every start");
    Ok(image)
}

/// Takes the initialised image if its code is that of the other.
async fn compare(job: &Job, image: &File, initialized: File) -> Result<File, CompileError> {
    let bad = |reason| CompileError::BadImage { origin: job.origin.clone(), reason };
    let (before, after) = (check(image).map_err(bad)?, check(&initialized).map_err(bad)?);
    let compared = image.try_clone().and_then(|image| Ok((image, initialized.try_clone()?)));
    let (a, b) = compared.map_err(|error| bad(error.to_string()))?;
    let same = move || same_code((&a, &before), (&b, &after));
    let same = tokio::task::spawn_blocking(same).await.unwrap_or_else(|e| Err(io::Error::other(e)));
    match same {
        Ok(true) => Ok(initialized),
        Ok(false) => Err(bad("its code is not the compiler's".to_owned())),
        Err(error) => Err(bad(error.to_string())),
    }
}

/// Whether all sections are the same but those that initialisation is about.
fn same_code(a: (&File, &Header), b: (&File, &Header)) -> io::Result<bool> {
    let changes = [Section::Memory, Section::Data, Section::Meta];
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for section in Section::all().filter(|section| !changes.contains(section)) {
        let (range, other) = (a.1.range(section), b.1.range(section));
        if range.end - range.start != other.end - other.start {
            return Ok(false);
        }
        for at in range.clone().step_by(PIECE as usize) {
            let len = PIECE.min(range.end - at) as usize;
            left.resize(len, 0);
            right.resize(len, 0);
            a.0.read_exact_at(&mut left, at)?;
            b.0.read_exact_at(&mut right, other.start + (at - range.start))?;
            if left != right {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
