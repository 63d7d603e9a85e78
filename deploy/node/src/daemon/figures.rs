//! Hears what shims tell: one datagram for each happening.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_shim::figures::{Happening, MAX_LENGTH, SOCKET};
use tokio::net::UnixDatagram;

use super::metrics::Metrics;

/// The socket; removed when it is dropped, if it still is this one.
#[derive(Debug)]
pub(crate) struct Ear {
    socket: UnixDatagram,
    path: PathBuf,
    inode: u64,
}

impl Ear {
    /// Makes the socket in `run`, which is root's alone. A daemon that is still there hears nothing from then on.
    ///
    /// # Errors
    /// When the folder or the socket cannot be made.
    pub(crate) fn open(run: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().mode(0o700).recursive(true).create(run)?;
        let path = run.join(SOCKET);
        // Appears complete, and in the place of one that was left.
        let fresh = run.join(format!("{SOCKET}.{}", std::process::id()));
        let _ = fs::remove_file(&fresh);
        let socket = UnixDatagram::bind(&fresh)?;
        fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
        let inode = fs::symlink_metadata(&fresh)?.ino();
        fs::rename(&fresh, &path)?;
        Ok(Self { socket, path, inode })
    }

    /// Counts for ever.
    pub(crate) async fn listen(&self, metrics: &Arc<Metrics>) {
        // One byte more than the longest, so that a longer one is seen to be.
        let mut datagram = [0; MAX_LENGTH + 1];
        loop {
            match self.socket.recv(&mut datagram).await {
                Ok(length) => match Happening::decode(&datagram[..length]) {
                    Ok(happening) => metrics.count(happening),
                    Err(error) => {
                        metrics.unreadable();
                        tracing::debug!(%error, "what a shim told is not understood");
                    }
                },
                Err(error) => {
                    return tracing::error!(%error, "shims are not heard any more");
                }
            }
        }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|facts| facts.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_root_s_and_the_last_daemon_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let first = Ear::open(&run).unwrap();
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&run), mode(&run.join(SOCKET))), (0o700, 0o600));
        let second = Ear::open(&run).unwrap();
        drop(first);
        let client = UnixDatagram::unbound().unwrap();
        client.send_to(b"x", run.join(SOCKET)).await.unwrap();
        let mut one = [0; 2];
        assert_eq!(second.socket.recv(&mut one).await.unwrap(), 1);
        drop(second);
        assert_eq!(fs::read_dir(&run).unwrap().count(), 0);
    }
}
