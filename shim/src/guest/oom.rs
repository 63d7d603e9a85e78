//! Hearing from the kernel that a container's memory ran out.
//!
//! What is heard is only "look again", and that costs nothing while nothing happens: v1 adds to an
//! eventfd (before it kills, and also for groups around the container's), v2 reports a change of
//! `memory.events` by inotify (also when memory is merely reclaimed).
//! Source: Linux `cgroup-v1/memcg_test.rst` and `memory.rst`, section 10; `cgroup-v2.rst`.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use coracle_oci::cgroup::{Cgroup, Version};
use rustix::event::EventfdFlags;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use super::sys;

/// Room for a few dozen events of inotify; they carry nothing that is needed.
const ROOM: usize = 1024;

/// A watch on one group. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct OomWatch(AsyncFd<OwnedFd>);

impl OomWatch {
    /// Begins to listen; `None` where nothing counts memory. Must be called within the tokio runtime.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn open(group: &Cgroup) -> io::Result<Option<Self>> {
        let Some(file) = group.oom_file() else { return Ok(None) };
        let opened = match group.version() {
            Version::V1 => listen_v1(&file),
            Version::V2 => listen_v2(&file),
        };
        match opened {
            Ok(fd) => Ok(Some(Self(sys::watch(fd)?))),
            // A group of v2 to which the controller was not handed down, or one that is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Resolves when there may be a new kill, also when it came before this call.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub(crate) async fn heard(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut room = [0; ROOM];
            match rustix::io::read(self.0.get_ref(), &mut room) {
                Ok(_) => return Ok(()),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn listen_v1(file: &Path) -> io::Result<OwnedFd> {
    let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let control = file.with_file_name("cgroup.event_control");
    // The kernel keeps what it needs of this file.
    let counts = File::open(file)?;
    let line = format!("{} {}", event.as_raw_fd(), counts.as_raw_fd());
    let control = rustix::fs::open(
        &control,
        rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    rustix::io::write(&control, line.as_bytes())?;
    Ok(event)
}

fn listen_v2(file: &Path) -> io::Result<OwnedFd> {
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, file, WatchFlags::MODIFY)?;
    Ok(watch)
}
