//! Starts from the node's cache, and all that may be wrong with it.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::disks::FILLER;
use crate::harness::{Containerd, Shim, alive, gone, spec, within};
use crate::programs::{hello, huge};

/// A node's folder of the cache, and file systems mounted there.
pub(crate) struct Node {
    pub(crate) dir: tempfile::TempDir,
    mounted: bool,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), mounted: false }
    }

    /// With the cache on a file system of its own.
    fn mounted(options: &str, flags: MsFlags) -> Self {
        let mut node = Self::new();
        node.mounted = true;
        fs::create_dir(node.cache()).unwrap();
        let options = format!("mode=700,{options}");
        mount(Some("none"), &node.cache(), Some("tmpfs"), flags, Some(options.as_str())).unwrap();
        node
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    /// All that is there but what makers of file systems and the tests leave there.
    pub(crate) fn entries(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.cache()).unwrap().map(|entry| entry.unwrap().path());
        let ours = |path: &PathBuf| !path.ends_with("lost+found") && !path.ends_with(FILLER);
        entries.filter(ours).collect()
    }

    /// The one entry, once it is published.
    pub(crate) async fn entry(&self) -> PathBuf {
        within("an entry", async {
            while self.entries().is_empty() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
        let entries = self.entries();
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries[0].clone()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.mounted {
            // A shim that has just ended may still be letting go.
            umount2(&self.cache(), MntFlags::MNT_DETACH).unwrap();
        }
    }
}

/// A shim with a bundle, and what it logs.
pub(crate) struct Start {
    pub(crate) containerd: Containerd,
    pub(crate) shim: Shim,
    pub(crate) bundle: PathBuf,
    pub(crate) log: Arc<Mutex<String>>,
}

impl Start {
    pub(crate) async fn on(node: &Path, text: &str) -> Self {
        let containerd = Containerd::on_node(node).await;
        let bundle = containerd.bundle("c", &spec(&["/app.wat"]));
        fs::write(bundle.join("rootfs/app.wat"), text).unwrap();
        let fifo = bundle.join("log");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut fifo = fs::File::open(fifo).unwrap();
            let mut piece = [0; 4096];
            while let Ok(len @ 1..) = fifo.read(&mut piece) {
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..len]));
            }
        });
        let shim = containerd.start("c", &bundle).await;
        Self { containerd, shim, bundle, log }
    }

    /// A whole life; how often was it compiled?
    pub(crate) async fn run(self) -> usize {
        self.shim.create("c", &self.bundle).await.unwrap();
        self.end().await
    }

    pub(crate) async fn end(self) -> usize {
        self.shim.start("c").await.unwrap();
        assert_eq!(self.shim.wait("c").await.unwrap().exit_status, 0);
        self.leave().await
    }

    /// Of a container whose program has ended.
    pub(crate) async fn leave(self) -> usize {
        self.shim.delete("c").await.unwrap();
        self.shim.shut_down().await;
        // What it publishes is verified then, and all that it logs is written.
        gone(self.shim.pid).await;
        self.containerd.assert_clean(&["c"]);
        self.logged("compiled")
    }

    pub(crate) fn logged(&self, word: &str) -> usize {
        self.log.lock().unwrap().lines().filter(|line| line.contains(word)).count()
    }
}

#[tokio::test]
async fn the_second_start_compiles_nothing() {
    let node = Node::new();
    assert_eq!(Start::on(node.dir.path(), &hello()).await.run().await, 1);
    assert_eq!(node.entries().len(), 1, "the shim has waited until its code was published");
    let entry = node.entry().await;
    assert_eq!(fs::metadata(&entry).unwrap().permissions().mode() & 0o7777, 0o400);
    assert_eq!(Start::on(node.dir.path(), &hello()).await.run().await, 0);
    // Another module is another entry.
    assert_eq!(
        Start::on(node.dir.path(), "(module (func (export \"_start\")))").await.run().await,
        1
    );
    // Emptying the cache at any moment is safe.
    fs::remove_dir_all(node.cache()).unwrap();
    assert_eq!(Start::on(node.dir.path(), &hello()).await.run().await, 1);
}

/// Rows A7, C1: a damaged entry is compiled anew.
#[tokio::test]
async fn a_damaged_entry_is_compiled_anew() {
    let node = Node::new();
    assert_eq!(Start::on(node.dir.path(), &hello()).await.run().await, 1);
    let entry = node.entry().await;
    let mut bytes = fs::read(&entry).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::set_permissions(&entry, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&entry, bytes).unwrap();
    fs::set_permissions(&entry, fs::Permissions::from_mode(0o400)).unwrap();
    let start = Start::on(node.dir.path(), &hello()).await;
    let log = Arc::clone(&start.log);
    assert_eq!(start.run().await, 1);
    assert!(log.lock().unwrap().contains("removed"), "{}", log.lock().unwrap());
    assert_eq!(Start::on(node.dir.path(), &hello()).await.run().await, 0);
}

/// Rows B1 and B4: a full or read-only disk costs time and one warning.
#[tokio::test]
async fn a_cache_that_cannot_be_written_is_passed_over() {
    let full = Node::mounted("size=8k", MsFlags::empty());
    let few = Node::mounted("nr_inodes=1", MsFlags::empty());
    let read_only = Node::mounted("size=1m", MsFlags::MS_RDONLY);
    for node in [full, few, read_only] {
        let start = Start::on(node.dir.path(), &hello()).await;
        let log = Arc::clone(&start.log);
        assert_eq!(start.run().await, 1);
        let log = log.lock().unwrap().clone();
        assert_eq!(log.matches("going on without it").count(), 1, "{log}");
        assert!(node.entries().is_empty());
    }
}

/// Code in a file cannot be mapped where nothing may be executed.
#[tokio::test]
async fn a_cache_that_code_cannot_run_from_is_not_used() {
    let node = Node::mounted("size=1m", MsFlags::MS_NOEXEC);
    for _ in 0..2 {
        let start = Start::on(node.dir.path(), &hello()).await;
        let log = Arc::clone(&start.log);
        assert_eq!(start.run().await, 1);
        assert!(log.lock().unwrap().contains("mounted noexec"), "{}", log.lock().unwrap());
    }
    assert!(node.entries().is_empty());
}

/// Row C4: a folder that others may write to is no cache.
#[tokio::test]
async fn a_cache_that_others_can_write_to_is_not_used() {
    let node = Node::new();
    fs::create_dir(node.cache()).unwrap();
    fs::set_permissions(node.cache(), fs::Permissions::from_mode(0o777)).unwrap();
    let start = Start::on(node.dir.path(), &hello()).await;
    let log = Arc::clone(&start.log);
    assert_eq!(start.run().await, 1);
    assert!(log.lock().unwrap().contains("mode 0700 is needed"), "{}", log.lock().unwrap());
    assert!(node.entries().is_empty());
}

#[tokio::test]
async fn of_many_starts_at_once_one_compiles() {
    let node = Node::new();
    let module = huge(400);
    let mut starts = Vec::new();
    for _ in 0..4 {
        starts.push(Start::on(node.dir.path(), &module).await);
    }
    for start in &starts {
        start.shim.create("c", &start.bundle).await.unwrap();
    }
    let mut compiled = 0;
    for start in starts {
        compiled += start.end().await;
    }
    assert_eq!(compiled, 1);
    assert_eq!(node.entries().len(), 1);
}

/// Row A11: who waits takes over when the one that compiles is killed.
#[tokio::test]
async fn a_killed_shim_leaves_its_turn_to_others() {
    let node = Node::new();
    let module = huge(1200);
    let first = Start::on(node.dir.path(), &module).await;
    first.shim.create("c", &first.bundle).await.unwrap();
    let second = Start::on(node.dir.path(), &module).await;
    second.shim.create("c", &second.bundle).await.unwrap();
    assert!(alive(first.shim.pid));
    let pid = nix::unistd::Pid::from_raw(first.shim.pid.cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    gone(first.shim.pid).await;
    assert_eq!(second.end().await, 1);
    node.entry().await;
    // What the first has left goes as containerd makes it go.
    let output = first.containerd.shim("c", &first.bundle, "delete").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let left = fs::read_dir("/sys/fs/cgroup")
        .unwrap()
        .flatten()
        .flat_map(|hierarchy| fs::read_dir(hierarchy.path()).into_iter().flatten().flatten());
    let name = coracle_shim::compile::worker_group(
        &coracle_shim::request::TaskId::parse("c").unwrap(),
        &first.bundle,
    );
    let left: Vec<_> =
        left.filter(|group| name.ends_with(group.file_name().to_str().unwrap())).collect();
    assert!(left.is_empty(), "{left:?}");
}
