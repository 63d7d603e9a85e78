//! What every fault must leave behind: nothing.

use std::fs;
use std::path::Path;

use coracle_shim::compile::worker_group;
use coracle_shim::request::TaskId;

use crate::harness::Containerd;

impl Containerd {
    /// Nothing is left of the containers and their shims but what containerd itself made.
    pub(crate) fn assert_clean(&self, ids: &[&str]) {
        let dir = self.dir.path();
        self.assert_gone(ids);
        assert_eq!(self.shims(), [""; 0], "shims");
        assert_eq!(names(&dir.join("s")), [""; 0], "sockets");
    }

    /// Command lines of the shims that run.
    pub(crate) fn shims(&self) -> Vec<String> {
        processes("cmdline", self.dir.path().to_str().unwrap())
    }

    /// Nothing is left of the containers: no process, control group, mount, lock or state file.
    pub(crate) fn assert_gone(&self, ids: &[&str]) {
        let dir = self.dir.path();
        for id in ids {
            let bundle = dir.join("bundles").join(id);
            let own = self.cgroup(id);
            let worker = worker_group(&TaskId::parse(id).unwrap(), &bundle);
            for group in [own.trim_start_matches('/'), worker.trim_start_matches('/')] {
                let left = groups().into_iter().filter(|path| path.contains(group));
                assert_eq!(left.collect::<Vec<_>>(), [""; 0], "control groups");
                let left = processes("cgroup", group);
                assert_eq!(left, [""; 0], "processes in {group}");
            }
            assert!(!bundle.join("coracle-guest.json").exists(), "state of {id}");
            assert!(!bundle.join("coracle-guest.json.new").exists(), "state of {id}");
            let root = bundle.join("rootfs");
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            assert!(!mounts.contains(root.to_str().unwrap()), "a mount of {id}");
        }
        assert_eq!(names(&self.node().join("run/locks")), [""; 0], "locks");
        let entries = names(&self.node().join("cache"));
        let strange: Vec<_> = entries.iter().filter(|name| name.starts_with('.')).collect();
        assert!(strange.is_empty(), "{strange:?}");
    }
}

/// Names in a folder; none if it is not there.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// The groups right below each hierarchy.
pub(crate) fn groups() -> Vec<String> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    let groups = hierarchies.flat_map(|one| fs::read_dir(one.path()).into_iter().flatten());
    groups.flatten().map(|group| group.path().display().to_string()).collect()
}

/// Command lines of processes that have a word in a file of theirs; this one is none of them.
fn processes(file: &str, word: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let others = all.filter(|path| path.file_name().is_some_and(|name| name != own.as_str()));
    let has = |path: &std::path::PathBuf| {
        fs::read(path.join(file)).is_ok_and(|text| String::from_utf8_lossy(&text).contains(word))
    };
    let line = |path: std::path::PathBuf| {
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ")
    };
    others.filter(has).map(line).collect()
}
