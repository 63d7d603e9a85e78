//! Our compiler by itself, confined as the shim starts it, on one thread; and what it makes.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use coracle_engine::image::{HEADER_SIZE, Header, Section};

use crate::process::{self, Invocation, Sample};
use crate::subject::{Bed, program, told};

/// Gives the worker its descriptors.
const WORKER: &str = r#"exec "$1" compile-worker <"$2" >"$3""#;

/// One compilation at full optimisation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compiled {
    pub(crate) sample: Sample,
    /// Bytes of machine code.
    pub(crate) code: u64,
}

/// Compiles a program of `make images` on one processor, and so on one thread.
pub(crate) fn compile(bed: &Bed, file: &str) -> Result<Compiled> {
    let image = bed.path("image");
    let paths = [&told("BENCH_CORACLE")?, &program(file)?, &image];
    let mut line: Vec<String> = ["sh", "-c", WORKER, "sh"].map(String::from).into();
    line.extend(paths.map(|path| path.display().to_string()));
    let sample = process::run(&Invocation { line, one_core: true }, &bed.path("said"))?;
    let code = machine_code(&image).with_context(|| format!("the code image of {file}"))?;
    std::fs::remove_file(&image)?;
    Ok(Compiled { sample, code })
}

/// Bytes of machine code in a code image.
fn machine_code(image: &Path) -> Result<u64> {
    let mut file = File::open(image)?;
    let mut page = [0; HEADER_SIZE];
    file.read_exact(&mut page)?;
    let text = Header::decode(&page, file.metadata()?.len())?.range(Section::Text);
    Ok(text.end - text.start)
}
