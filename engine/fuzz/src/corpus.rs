//! Inputs that are kept: the corpus, from which fuzzers start, and one input for each bug found.

use std::path::{Path, PathBuf};
use std::{fs, io};

use coracle_engine::config::{Features, OptLevel, Settings};

use crate::{decode, execute, image, run};

/// Runs a file as an input of a target. Modules (`.wat`, `.wasm`) go to `decode` and `execute` as
/// they are, code images (`.image`) to `image`.
///
/// # Errors
/// When the file cannot be read.
///
/// # Panics
/// When the input is a finding.
pub fn replay(target: &str, file: &Path) -> io::Result<()> {
    let data = fs::read(file)?;
    let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    match (target, ending) {
        ("decode", "wat" | "wasm") => {
            for opt_level in [OptLevel::None, OptLevel::Speed] {
                let features = Features::all();
                let settings =
                    Settings { opt_level, features, verifier: true, ..Settings::default() };
                decode::check(&data, &settings);
            }
        }
        ("execute", "wat" | "wasm") => execute::run_module(&data),
        ("image", "image") => image::check(&data),
        _ => run(target, &data),
    }
    Ok(())
}

/// The files kept for a target: its corpus and its regressions, by name.
///
/// # Errors
/// When a folder cannot be read.
pub fn files(target: &str) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for kind in ["corpus", "regressions"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(kind).join(target);
        if folder.exists() {
            for entry in fs::read_dir(folder)? {
                files.push(entry?.path());
            }
        }
    }
    files.sort();
    Ok(files)
}
