//! Compilation in this process, for `coracle run`.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use coracle_engine::compile;
use coracle_engine::config::Settings;

/// Largest module that is read, in bytes.
const MAX_MODULE: u64 = 256 << 20;

/// Reads a module, refusing one over the size limit.
pub(crate) fn read_module(source: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_MODULE + 1).read_to_end(&mut bytes).context("reading the module")?;
    if bytes.len() as u64 > MAX_MODULE {
        bail!("module is over the limit of {} MiB", MAX_MODULE >> 20);
    }
    Ok(bytes)
}

/// Compiles a module into an unlinked file in memory, ready to be mapped.
pub(crate) fn compile_to_memory(bytes: &[u8], settings: &Settings) -> Result<File> {
    to_memory(&compile::compile(bytes, settings)?)
}

/// A code image as an unlinked file in memory.
pub(crate) fn to_memory(image: &[u8]) -> Result<File> {
    let fd: OwnedFd =
        rustix::fs::memfd_create("coracle-code-image", rustix::fs::MemfdFlags::CLOEXEC)
            .context("creating a memory file for the code image")?;
    let mut file = File::from(fd);
    file.write_all(image).context("writing the code image")?;
    Ok(file)
}
