//! The spec's rules for devices, put into force for the container's cgroup.
//!
//! A Linux program may have the right to make device nodes (Docker grants it), so what opens them must
//! be ruled by the group. WebAssembly guests have no such right, and no call that would open one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use coracle_oci::cgroup::DevicePolicy;
use coracle_oci::spec::DeviceRule;

use super::cgroups::Cgroup;
use super::{GuestError, namespaces, sys};

/// What `devices.list` of cgroup v1 says of a group that may use everything.
const EVERYTHING: &str = "a *:* rwm";

/// Rules the devices of a group that has no processes yet.
///
/// # Errors
/// When the kernel refuses a rule, or has no means to keep it.
pub(super) fn apply(cgroup: &Cgroup, rules: &[DeviceRule]) -> Result<(), GuestError> {
    match put(cgroup, rules) {
        // Nothing makes nodes there, and those of mounts do not work.
        Err(_) if namespaces::in_user_namespace() => Ok(()),
        done => done,
    }
}

fn put(cgroup: &Cgroup, rules: &[DeviceRule]) -> Result<(), GuestError> {
    let policy = DevicePolicy::new(rules);
    let act = || "rule the container's devices by its cgroup";
    if let Some(dir) = cgroup.inner().unified_dir() {
        let limited = File::open(dir)
            .and_then(|dir| sys::kernel::limit_devices(dir.as_fd(), &policy.program()));
        return limited.map_err(GuestError::os(act()));
    }
    let mut dirs = cgroup.inner().dirs();
    let Some(dir) = dirs.find(|dir| dir.join("devices.list").exists()) else {
        let missing =
            io::Error::new(io::ErrorKind::NotFound, "no hierarchy has the controller devices");
        return Err(GuestError::os(act())(missing));
    };
    for (file, line) in policy.lines() {
        if line == "a" && file == "devices.allow" && may_all(dir) {
            continue;
        }
        let file = dir.join(file);
        let opened = OpenOptions::new().write(true).open(&file);
        opened
            .and_then(|mut opened| opened.write_all(line.as_bytes()))
            .map_err(GuestError::os(format!("{}: write {line:?} to {}", act(), file.display())))?;
    }
    Ok(())
}

/// A group may use what its parent may, until it is told otherwise; and a parent that may not use all
/// cannot let it.
fn may_all(dir: &Path) -> bool {
    std::fs::read_to_string(dir.join("devices.list")).is_ok_and(|list| list.trim() == EVERYTHING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_oci::spec::{DeviceAccess, DeviceClass};
    use std::path::PathBuf;
    use std::process::Command;

    /// Where cgroup v2 is mounted, be it beside v1.
    fn unified() -> Option<PathBuf> {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let of = |line: &str| {
            let (place, kind) = line.split_once(" - ")?;
            let point = kind.starts_with("cgroup2 ").then(|| place.split(' ').nth(4))??;
            Some(PathBuf::from(point))
        };
        table.lines().find_map(of)
    }

    /// A group that goes with the test.
    struct Group(PathBuf);

    impl Drop for Group {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir(&self.0);
        }
    }

    #[test]
    fn the_kernel_takes_the_program_and_keeps_to_it() {
        let Some(mount) = unified() else {
            eprintln!("device rules of cgroup v2: NOT RUN, it is not mounted here");
            return;
        };
        let group = Group(mount.join(format!("coracle-devices-{}", std::process::id())));
        std::fs::create_dir(&group.0).unwrap();
        let full = DeviceRule {
            allow: true,
            kind: Some(DeviceClass::Char),
            major: Some(1),
            minor: Some(11),
            access: DeviceAccess::WRITE,
        };
        let program = DevicePolicy::new(&[full]).program();
        let dir = File::open(&group.0).unwrap();
        sys::kernel::limit_devices(dir.as_fd(), &program).unwrap();
        // The shell enters the group. /dev/kmsg (1, 11) may be written by the rule, not read; /dev/zero is
        // everybody's, /dev/mem (1, 1) nobody's.
        let script = "echo $$ > \"$0/cgroup.procs\" || exit 9; exec 2>&1
            head -c 1 /dev/zero | wc -c
            : > /dev/kmsg && echo written
            : < /dev/kmsg || :
            mknod \"$1\" c 1 1 && : < \"$1\"";
        let scratch = tempfile::tempdir().unwrap();
        let node = scratch.path().join("mem");
        let output = Command::new("bash").args(["-c", script]).arg(&group.0).arg(&node).output();
        let output = String::from_utf8(output.unwrap().stdout).unwrap();
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(lines[..2], ["1", "written"], "{output}");
        let refused = |line: &&str| line.contains("Operation not permitted");
        assert_eq!(lines[2..].iter().filter(|line| refused(line)).count(), 2, "{output}");
    }
}
