//! Logging, set up in one place: lines go to the FIFO `log` in the bundle, which containerd copies
//! into its own log.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogLevel;

/// The name of containerd's log FIFO in the bundle folder.
const LOG_FIFO: &str = "log";

/// Installs the process-wide subscriber. Without a FIFO (a shim started by hand) nothing is logged.
///
/// # Errors
/// When the FIFO exists and cannot be opened, or a subscriber is installed already.
pub fn install(bundle: &Path, level: LogLevel) -> io::Result<()> {
    let path = bundle.join(LOG_FIFO);
    let file = match open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_target(false)
        .with_max_level(filter(level))
        .with_writer(LossyFifo(file))
        .try_init()
        .map_err(io::Error::other)
}

/// Opens for reading too: then neither the opening nor a write waits for, or fails without, a
/// reader while containerd restarts (`fifo(7)`).
fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// A FIFO that drops lines instead of waiting: a log nobody reads must not stop the shim.
struct LossyFifo(File);

impl<'a> MakeWriter<'a> for LossyFifo {
    type Writer = LossyWriter<'a>;
    fn make_writer(&'a self) -> Self::Writer {
        LossyWriter(&self.0)
    }
}

/// See [`LossyFifo`].
struct LossyWriter<'a>(&'a File);

impl Write for LossyWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match (&mut self.0).write(line) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(line.len()),
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_full_fifo_drops_lines_and_never_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOG_FIFO);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let fifo = LossyFifo(open(&path).unwrap());
        fifo.make_writer().write_all(b"first\n").unwrap();
        let line = [b'x'; 4096];
        for _ in 0..64 {
            fifo.make_writer().write_all(&line).unwrap();
        }
        let mut head = [0; 6];
        (&fifo.0).read_exact(&mut head).unwrap();
        assert_eq!(&head, b"first\n");
    }
}
