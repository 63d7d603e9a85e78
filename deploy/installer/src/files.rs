//! Files: read, replaced in one step, known by their digests.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// Mode of a configuration file that was not there.
const CONFIG_MODE: u32 = 0o644;

/// Digest of bytes, in hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Digest of a file's bytes; `None` when there is no such file.
pub(crate) fn digest_of(path: &Path) -> Result<Option<String>> {
    let Some(mut file) = found(File::open(path), path)? else { return Ok(None) };
    digest_of_file(&mut file).with_context(|| format!("reading {}", path.display())).map(Some)
}

/// Digest of an open file, from its beginning.
pub(crate) fn digest_of_file(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            read => hash.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a file; `None` when there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    found(fs::read(path), path)
}

fn found<T>(result: io::Result<T>, path: &Path) -> Result<Option<T>> {
    match result {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        other => other.map(Some).with_context(|| format!("reading {}", path.display())),
    }
}

/// Where the new bytes of a file are until they take its place. No pattern of `*.toml` finds it, and who comes after a
/// killed installer finds it again.
pub(crate) fn draft(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.coracle-new"))
}

/// Gives a file new bytes in one step: afterwards, also after a crash, it has either the old or the new ones. Mode and
/// owner stay; a link stays a link.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let was = found(fs::metadata(path), path)?;
    let mode = was.as_ref().map_or(CONFIG_MODE, |was| was.mode() & 0o7777);
    let write = |file: &mut File| {
        if let Some(was) = &was {
            std::os::unix::fs::fchown(&*file, Some(was.uid()), Some(was.gid()))?;
        }
        file.write_all(bytes)
    };
    install(path, mode, write)
}

/// Puts a program in its place in one step; processes that run the old one keep it.
pub(crate) fn place(path: &Path, source: &mut File) -> Result<()> {
    let copy = |file: &mut File| {
        source.rewind()?;
        io::copy(source, file).map(|_| ())
    };
    install(path, 0o755, copy)
}

fn install(path: &Path, mode: u32, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let draft = draft(path);
    let attempt = || -> io::Result<()> {
        remove_if_there(&draft)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        fill(&mut file)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        sync_folder(path)
    };
    attempt().with_context(|| format!("writing {}", path.display())).inspect_err(|_| {
        let _ = remove_if_there(&draft);
    })
}

/// Removes a file, if it is there, for good.
pub(crate) fn remove(path: &Path) -> Result<()> {
    // On a read-only file system the kernel does not even look whether it is there.
    if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    remove_if_there(path)
        .and_then(|()| sync_folder(path))
        .with_context(|| format!("removing {}", path.display()))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    match File::open(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        folder => folder?.sync_all(),
    }
}

/// The folders that have to be made for this one to exist, outermost first.
pub(crate) fn missing_folders(folder: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<_> = folder
        .ancestors()
        .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
        .map(Path::to_owned)
        .collect();
    missing.reverse();
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacing_keeps_mode_and_links() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("a.toml"), dir.path().join("b.toml"));
        replace(&file, b"1").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, CONFIG_MODE);
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("a.toml", &link).unwrap();
        fs::write(draft(&file), "left by one who was killed").unwrap();
        replace(&link, b"2").unwrap();
        assert_eq!(read(&file).unwrap().unwrap(), b"2");
        assert!(link.is_symlink());
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn absent_files_are_no_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x/y");
        assert_eq!(read(&path).unwrap(), None);
        assert_eq!(digest_of(&path).unwrap(), None);
        assert_eq!(missing_folders(&path), [dir.path().join("x"), dir.path().join("x/y")]);
        assert!(missing_folders(dir.path()).is_empty());
        remove(&path).unwrap();
    }
}
