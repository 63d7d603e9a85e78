//! Reading small files whole, in as few system calls as can be: somebody waits for each start.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// What most specs and all files of the kernel that are read here fit into.
const ROOM: usize = 16 << 10;

/// The bytes of a file, `limit` of them at most. Without a look at its size, which files of the kernel do not tell.
///
/// # Errors
/// What the system says.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(ROOM);
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text of a file of the kernel.
///
/// # Errors
/// What the system says, and bytes that are no UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    let bytes = read(path, u64::MAX)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_larger_than_the_room_are_read_whole_and_to_the_limit() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "0123456789".repeat(ROOM);
        std::fs::write(file.path(), &text).unwrap();
        assert_eq!(read_text(file.path()).unwrap(), text);
        assert_eq!(read(file.path(), 5).unwrap(), b"01234");
        assert_eq!(read(file.path(), 0).unwrap(), b"");
    }

    #[test]
    fn no_file_and_no_text_are_errors() {
        let missing = read(Path::new("/nonexistent/file"), 1).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [0xff]).unwrap();
        assert_eq!(read_text(file.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
