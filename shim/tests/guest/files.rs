//! Mounts, devices, hidden and protected paths, hostile root file systems.

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use serde_json::json;

use crate::support::*;

fn try_write(path: impl AsRef<Path>) -> Result<(), ErrorKind> {
    std::fs::write(path, "x").map_err(|error| error.kind())
}

#[test]
fn the_usual_mounts_devices_and_links_are_there() {
    block_on(async {
        let bundle = Bundle::new();
        let mut guest = bundle.spawn().await.unwrap();
        for (point, expected) in [
            ("/proc", &["rw", "nosuid", "nodev", "noexec"][..]),
            ("/dev", &["rw", "nosuid"]),
            ("/dev/mqueue", &["rw", "nosuid", "nodev", "noexec"]),
            ("/sys", &["ro", "nosuid", "nodev", "noexec"]),
            ("/sys/fs/cgroup", &["ro", "nosuid", "nodev", "noexec"]),
        ] {
            let options = mount_options(&guest, point);
            assert!(expected.iter().all(|e| options.iter().any(|o| o == e)), "{point} {options:?}");
        }
        assert!(!mount_options(&guest, "/dev").contains(&"relatime".to_owned()));
        for (name, major, minor) in [
            ("null", 1, 3),
            ("zero", 1, 5),
            ("full", 1, 7),
            ("random", 1, 8),
            ("urandom", 1, 9),
            ("tty", 5, 0),
        ] {
            let meta = std::fs::symlink_metadata(inside(&guest, &format!("/dev/{name}"))).unwrap();
            assert!(meta.file_type().is_char_device(), "{name}");
            assert_eq!(meta.rdev(), rustix::fs::makedev(major, minor), "{name}");
            assert_eq!(meta.mode() & 0o7777, 0o666, "{name}");
        }
        for (name, target) in
            [("fd", "/proc/self/fd"), ("stdout", "/proc/self/fd/1"), ("ptmx", "pts/ptmx")]
        {
            let link = std::fs::read_link(inside(&guest, &format!("/dev/{name}"))).unwrap();
            assert_eq!(link, Path::new(target));
        }
        assert_eq!(std::fs::metadata(inside(&guest, "/dev/shm")).unwrap().mode() & 0o7777, 0o1777);
        // Only its own process, its own group.
        assert!(inside(&guest, "/proc/1").exists() && !inside(&guest, "/proc/2").exists());
        let groups = inside(&guest, "/sys/fs/cgroup");
        let own = [groups.join("memory/cgroup.procs"), groups.join("cgroup.procs")];
        let own = own.iter().find(|file| file.exists()).unwrap();
        // A pid from outside the reader's pid namespace would show as 0.
        assert_eq!(std::fs::read_to_string(own).unwrap(), format!("{}\n", guest.pid()));
        // The host's root is gone from the view.
        assert!(!proc(&guest, "mountinfo").contains("/sys/fs/cgroup/unified"));
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
    });
}

#[test]
fn bind_mounts_are_what_their_flags_say() {
    block_on(async {
        let host = tempfile::tempdir().unwrap();
        std::fs::write(host.path().join("file"), "text").unwrap();
        std::fs::create_dir(host.path().join("below")).unwrap();
        rustix::mount::mount(
            "none",
            host.path().join("below"),
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            None,
        )
        .unwrap();
        let mut bundle = Bundle::new();
        bundle
            .mount(bind(host.path(), "/data", &["rbind", "rw"]))
            .mount(bind(host.path(), "/deep/readonly", &["rbind", "ro", "nosuid", "rprivate"]))
            .mount(bind(host.path(), "/all-readonly", &["rbind", "rro"]))
            .mount(bind(host.path(), "/flat", &["bind", "ro"]))
            .mount(bind(host.path().join("file"), "/etc/one-file", &["bind", "ro"]))
            .mount(json!({"destination": "/scratch", "type": "tmpfs", "source": "tmpfs",
                          "options": ["size=1m", "mode=1770", "noexec"]}));
        let mut guest = bundle.spawn().await.unwrap();
        rustix::mount::unmount(host.path().join("below"), rustix::mount::UnmountFlags::DETACH)
            .unwrap();
        let view = |path: &str| inside(&guest, path);
        assert_eq!(try_write(view("/data/made")), Ok(()));
        assert!(host.path().join("made").exists());
        assert_eq!(try_write(view("/deep/readonly/x")), Err(ErrorKind::ReadOnlyFilesystem));
        assert!(mount_options(&guest, "/deep/readonly").contains(&"nosuid".to_owned()));
        // `ro` is about the mount itself, `rro` about everything below it.
        assert_eq!(try_write(view("/deep/readonly/below/x")), Ok(()));
        assert_eq!(try_write(view("/all-readonly/below/x")), Err(ErrorKind::ReadOnlyFilesystem));
        assert!(!proc(&guest, "mountinfo").contains("/flat/below"));
        assert_eq!(std::fs::read_to_string(view("/etc/one-file")).unwrap(), "text");
        assert_eq!(try_write(view("/etc/one-file")), Err(ErrorKind::ReadOnlyFilesystem));
        assert_eq!(std::fs::metadata(view("/scratch")).unwrap().mode() & 0o7777, 0o1770);
        assert!(std::fs::write(view("/scratch/big"), vec![0; 2 << 20]).is_err());
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
    });
}

#[test]
fn hidden_and_protected_paths_and_a_read_only_root() {
    block_on(async {
        let mut bundle = Bundle::new();
        for folder in ["/secrets", "/more/secrets"] {
            std::fs::create_dir_all(bundle.rootfs(folder)).unwrap();
            std::fs::write(bundle.rootfs(folder).join("key"), "key").unwrap();
        }
        bundle.spec["root"]["readonly"] = true.into();
        bundle.spec["process"]["cwd"] = "/made/here".into();
        bundle.spec["linux"]["maskedPaths"] = json!([
            "/proc/keys",
            "/proc/timer_list",
            "/proc/acpi",
            "/secrets",
            "/more/secrets",
            "/no/such",
            "/proc/keys/x"
        ]);
        bundle.spec["linux"]["readonlyPaths"] = json!(["/proc/sys", "/proc/irq", "/none"]);
        let mut guest = bundle.spawn().await.unwrap();
        assert!(
            std::fs::metadata(inside(&guest, "/proc/keys")).unwrap().file_type().is_char_device()
        );
        for folder in ["/secrets", "/more/secrets"] {
            assert_eq!(std::fs::read_dir(inside(&guest, folder)).unwrap().count(), 0);
            assert!(mount_options(&guest, folder).contains(&"ro".to_owned()));
        }
        let setting = inside(&guest, "/proc/sys/kernel/hostname");
        assert_eq!(try_write(setting), Err(ErrorKind::ReadOnlyFilesystem));
        assert_eq!(try_write(inside(&guest, "/x")), Err(ErrorKind::ReadOnlyFilesystem));
        assert_eq!(try_write(inside(&guest, "/dev/shm/x")), Ok(()));
        let cwd = std::fs::read_link(format!("/proc/{}/cwd", guest.pid())).unwrap();
        assert!(cwd.ends_with("made/here"), "{cwd:?}");
        assert!(bundle.rootfs("/made/here").is_dir());
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
    });
}

#[test]
fn symlinks_of_the_image_cannot_lead_a_mount_out() {
    block_on(async {
        let outside = tempfile::tempdir().unwrap();
        let mut bundle = Bundle::new();
        for name in ["proc", "dev", "sys", "data"] {
            symlink(outside.path().join(name), bundle.rootfs(name)).unwrap();
        }
        symlink("../../../../../../..", bundle.rootfs("up")).unwrap();
        let host_target = format!("/up{}/climbed", outside.path().display());
        bundle.mount(bind("/etc", "/data/etc", &["rbind", "ro"])).mount(mount(
            &host_target,
            "tmpfs",
            &[],
        ));
        // A dangling link is an error; a link to what exists in the root leads there.
        let error = bundle.refused().await;
        assert!(error.contains("cannot mount proc on /proc"), "{error}");
        for name in ["proc", "dev", "sys", "data"] {
            let there = outside.path().join(name);
            std::fs::create_dir_all(bundle.rootfs(there.to_str().unwrap())).unwrap();
        }
        let mut guest = bundle.spawn().await.unwrap();
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        let table = proc(&guest, "mountinfo");
        for name in ["proc", "dev", "sys", "data/etc", "climbed"] {
            let point = format!(" {}/{name} ", outside.path().display());
            assert!(table.contains(&point), "{point}: {table}");
        }
        guest.cleanup().await.unwrap();
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        bundle.assert_clean();
    });
}

fn node(path: &Path, kind: rustix::fs::FileType, number: (u32, u32)) {
    let number = rustix::fs::makedev(number.0, number.1);
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, 0o666.into(), number).unwrap();
}

#[test]
fn false_devices_of_the_image_are_refused_or_replaced() {
    use rustix::fs::FileType::CharacterDevice;
    block_on(async {
        // Without a mount on /dev the image's own folder is used.
        let image = |make: &dyn Fn(&Path)| {
            let mut bundle = Bundle::new();
            bundle.unmount("/dev");
            std::fs::create_dir(bundle.rootfs("/dev")).unwrap();
            make(&bundle.rootfs("/dev/null"));
            bundle
        };
        let bundle = image(&|null| symlink("/etc/passwd", null).unwrap());
        let error = bundle.refused().await;
        assert!(error.contains("cannot make the device /dev/null"), "{error}");
        std::fs::create_dir(bundle.rootfs("/etc")).unwrap();
        std::fs::write(bundle.rootfs("/etc/passwd"), "").unwrap();
        let error = bundle.refused().await;
        assert!(error.contains("/dev/null: something else is in its place"), "{error}");
        let makes: [&dyn Fn(&Path); 2] =
            [&|null| std::fs::write(null, "false").unwrap(), &|null| {
                node(null, CharacterDevice, (1, 5))
            }];
        for make in makes {
            let bundle = image(make);
            let mut guest = bundle.spawn().await.unwrap();
            let null = inside(&guest, "/dev/null");
            try_write(&null).unwrap();
            assert_eq!(std::fs::read(&null).unwrap(), b"");
            assert_eq!(std::fs::metadata(&null).unwrap().rdev(), rustix::fs::makedev(1, 3));
            guest.cleanup().await.unwrap();
            bundle.assert_clean();
        }
    });
}

#[test]
fn device_nodes_of_images_and_volumes_do_not_work() {
    use rustix::fs::FileType::CharacterDevice;
    block_on(async {
        let volume = tempfile::tempdir().unwrap();
        let mut bundle = Bundle::new();
        for folder in [volume.path(), &bundle.rootfs("/")] {
            node(&folder.join("zero"), CharacterDevice, (1, 5));
        }
        bundle.mount(bind(volume.path(), "/data", &["rbind", "rw"]));
        bundle.mount(bind(volume.path(), "/asked", &["rbind", "rw", "dev"]));
        let mut guest = bundle.spawn().await.unwrap();
        let open = |path: &str| std::fs::File::open(inside(&guest, path)).map(|_| ());
        for path in ["/zero", "/data/zero"] {
            assert_eq!(open(path).unwrap_err().kind(), ErrorKind::PermissionDenied, "{path}");
        }
        for path in ["/asked/zero", "/dev/zero"] {
            open(path).unwrap();
        }
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
    });
}

#[test]
fn devices_of_the_spec_are_made_with_owner_and_mode() {
    block_on(async {
        let mut bundle = Bundle::new();
        bundle.spec["linux"]["devices"] = json!([
            {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o620,
             "uid": 11, "gid": 12},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o600},
        ]);
        let mut guest = bundle.spawn().await.unwrap();
        let tun = std::fs::metadata(inside(&guest, "/dev/net/tun")).unwrap();
        assert_eq!((tun.mode() & 0o7777, tun.uid(), tun.gid()), (0o620, 11, 12));
        assert_eq!(tun.rdev(), rustix::fs::makedev(10, 200));
        let pipe = std::fs::metadata(inside(&guest, "/dev/pipe")).unwrap();
        assert!(pipe.file_type().is_fifo());
        guest.cleanup().await.unwrap();
    });
}

#[test]
fn a_tmpfs_can_start_with_what_the_image_has() {
    block_on(async {
        let mut bundle = Bundle::new();
        std::fs::create_dir_all(bundle.rootfs("/var/state")).unwrap();
        std::fs::write(bundle.rootfs("/var/state/seed"), "grain").unwrap();
        let mode = std::fs::Permissions::from_mode(0o751);
        std::fs::set_permissions(bundle.rootfs("/var"), mode).unwrap();
        bundle.mount(mount("/var", "tmpfs", &["tmpcopyup"]));
        let mut guest = bundle.spawn().await.unwrap();
        let seed = inside(&guest, "/var/state/seed");
        assert_eq!(std::fs::read_to_string(&seed).unwrap(), "grain");
        assert_eq!(std::fs::metadata(inside(&guest, "/var")).unwrap().mode() & 0o7777, 0o751);
        try_write(seed).unwrap();
        assert_eq!(std::fs::read_to_string(bundle.rootfs("/var/state/seed")).unwrap(), "grain");
        guest.cleanup().await.unwrap();
    });
}

#[test]
fn mounts_that_cannot_be_made_are_named_with_their_reason() {
    block_on(async {
        for (entry, words) in [
            (bind("/no/such/folder", "/data", &["rbind"]), "cannot mount /no/such/folder on /data"),
            (mount("/data", "nosuchfs", &[]), "cannot mount nosuchfs on /data"),
            (mount("/data", "tmpfs", &["size=banana"]), "size"),
            (mount("/data", "tmpfs", &["nonsense=1"]), "nonsense"),
        ] {
            let mut bundle = Bundle::new();
            bundle.mount(entry);
            let error = bundle.refused().await;
            assert!(error.contains(words), "{error}");
        }
        let mut bundle = Bundle::new();
        bundle.spec["root"]["path"] = "missing".into();
        let error = bundle.refused().await;
        assert!(error.contains("cannot mount the root file system from"), "{error}");
        let mut bundle = Bundle::new();
        std::fs::write(bundle.rootfs("/file"), "").unwrap();
        bundle.spec["process"]["cwd"] = "/file".into();
        let error = bundle.refused().await;
        assert!(error.contains("working directory /file"), "{error}");
    });
}

#[test]
fn a_shared_root_propagates_only_what_was_asked() {
    block_on(async {
        let volume = tempfile::tempdir().unwrap();
        rustix::mount::mount(
            "none",
            volume.path(),
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            None,
        )
        .unwrap();
        rustix::mount::mount_change(volume.path(), rustix::mount::MountPropagationFlags::SHARED)
            .unwrap();
        let below = volume.path().join("below");
        std::fs::create_dir(&below).unwrap();
        let mut bundle = Bundle::new();
        bundle.mount(bind(volume.path(), "/slave", &["rbind", "rslave"]));
        bundle.mount(bind(volume.path(), "/private", &["rbind", "rprivate"]));
        let mut guest = bundle.spawn().await.unwrap();
        rustix::mount::mount("none", &below, "tmpfs", rustix::mount::MountFlags::empty(), None)
            .unwrap();
        let table = proc(&guest, "mountinfo");
        let seen = |point: &str| table.contains(&format!(" {point} "));
        let (slave, private) = (seen("/slave/below"), seen("/private/below"));
        for at in [&below, volume.path()] {
            rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH).unwrap();
        }
        assert!(slave && !private, "{table}");
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
    });
}
