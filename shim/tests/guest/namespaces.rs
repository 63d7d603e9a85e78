//! New namespaces, joined ones, user namespaces.

use coracle_shim::guest::{Exit, Guest};
use serde_json::json;

use crate::support::*;

const NEW: [&str; 6] = ["pid", "mnt", "uts", "ipc", "net", "cgroup"];

/// What `nsenter` prints in the given namespaces of a guest.
fn enter(pid: i32, which: &str, command: &[&str]) -> String {
    let output = std::process::Command::new("nsenter")
        .args(["-t", &pid.to_string(), which])
        .args(command)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn new_namespaces_are_really_new_and_named() {
    block_on(async {
        let mut bundle = Bundle::new();
        bundle.spec["domainname"] = "harbour".into();
        bundle.spec["linux"]["sysctl"] = json!({"net.core.somaxconn": "77", "kernel.shmmni": "99"});
        let mut guest = bundle.spawn().await.unwrap();
        for kind in NEW {
            assert_ne!(namespace(guest.pid(), kind), namespace("self", kind), "{kind}");
        }
        assert_eq!(namespace(guest.pid(), "user"), namespace("self", "user"));
        assert_eq!(enter(guest.pid(), "-u", &["uname", "-n"]), "boat\n");
        assert_eq!(enter(guest.pid(), "-u", &["cat", "/proc/sys/kernel/domainname"]), "harbour\n");
        let read = |which, file: &str| enter(guest.pid(), which, &["cat", file]);
        assert_eq!(read("-n", "/proc/sys/net/core/somaxconn"), "77\n");
        assert_eq!(read("-i", "/proc/sys/kernel/shmmni"), "99\n");
        assert_ne!(std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap(), "77\n");
        assert!(status(&guest, "NSpid").ends_with(" 1"));
        // The group is the root of its cgroup namespace.
        let seen = enter(guest.pid(), "-C", &["cat", &format!("/proc/{}/cgroup", guest.pid())]);
        assert!(
            seen.lines().filter(|l| !l.starts_with("0::")).all(|l| l.ends_with(":/")),
            "{seen}"
        );
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
    });
}

#[test]
fn a_second_container_joins_the_namespaces_of_a_pod() {
    block_on(async {
        let pod = Bundle::new();
        let mut first = pod.spawn().await.unwrap();
        first.start().await.unwrap();
        let mut bundle = Bundle::new();
        bundle.spec.as_object_mut().unwrap().remove("hostname");
        let path = |kind: &str| format!("/proc/{}/ns/{kind}", first.pid());
        bundle.spec["linux"]["namespaces"] = json!([
            {"type": "pid", "path": path("pid")}, {"type": "mount"},
            {"type": "uts", "path": path("uts")}, {"type": "ipc", "path": path("ipc")},
            {"type": "network", "path": path("net")},
        ]);
        let mut second = bundle.spawn().await.unwrap();
        for kind in ["pid", "uts", "ipc", "net"] {
            assert_eq!(namespace(second.pid(), kind), namespace(first.pid(), kind), "{kind}");
        }
        assert_ne!(namespace(second.pid(), "mnt"), namespace(first.pid(), "mnt"));
        assert_ne!(namespace(second.pid(), "mnt"), namespace("self", "mnt"));
        assert_eq!(status(&second, "PPid"), std::process::id().to_string());
        assert!(proc(&second, "cgroup").contains(&bundle.id));
        // Its own /proc shows the pod: the first process of the namespace is the first guest.
        let comm = std::fs::read_to_string(inside(&second, "/proc/1/comm")).unwrap();
        assert_eq!(comm, "pause\n");
        second.start().await.unwrap();
        second.signal(libc::SIGTERM, false).unwrap();
        assert_eq!(second.wait().await.exit, Exit::Code(0));
        second.cleanup().await.unwrap();
        first.cleanup().await.unwrap();
        bundle.assert_clean();
        pod.assert_clean();
    });
}

#[test]
fn a_shared_pid_namespace_of_the_host_leaves_signals_to_the_kernel() {
    block_on(async {
        let mut bundle = Bundle::new();
        let all = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
        all.retain(|namespace| namespace["type"] != "pid");
        let mut guest = bundle.spawn().await.unwrap();
        assert_eq!(namespace(guest.pid(), "pid"), namespace("self", "pid"));
        guest.signal(libc::SIGTERM, false).unwrap();
        assert_eq!(guest.wait().await.exit, Exit::Signal(libc::SIGTERM));
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
    });
}

fn with_user_namespace(bundle: &mut Bundle) {
    let all = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
    all.push(json!({"type": "user"}));
    let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    bundle.spec["linux"]["uidMappings"] = mapping.clone();
    bundle.spec["linux"]["gidMappings"] = mapping;
    // As its snapshotter does for containerd.
    let root = bundle.rootfs("");
    std::os::unix::fs::chown(&root, Some(100_000), Some(100_000)).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bundle.path(), open).unwrap();
}

#[test]
fn a_user_namespace_maps_ids_and_still_has_its_devices() {
    block_on(async {
        let mut bundle = Bundle::new();
        with_user_namespace(&mut bundle);
        bundle.spec["process"]["user"] = json!({"uid": 7, "gid": 8});
        let mut guest = bundle.spawn().await.unwrap();
        assert_ne!(namespace(guest.pid(), "user"), namespace("self", "user"));
        for kind in NEW {
            assert_ne!(namespace(guest.pid(), kind), namespace("self", kind), "{kind}");
        }
        assert_eq!(status(&guest, "Uid"), "100000 100000 100000 100000");
        std::fs::write(inside(&guest, "/dev/null"), "x").unwrap();
        guest.start().await.unwrap();
        assert_eq!(status(&guest, "Uid"), "100007 100007 100007 100007");
        assert_eq!(status(&guest, "Gid"), "100008 100008 100008 100008");

        let mut joining = Bundle::new();
        with_user_namespace(&mut joining);
        let path = |kind: &str| format!("/proc/{}/ns/{kind}", guest.pid());
        joining.spec.as_object_mut().unwrap().remove("hostname");
        joining.unmount("/sys");
        joining.spec["linux"]["namespaces"] = json!([
            {"type": "user", "path": path("user")}, {"type": "network", "path": path("net")},
            {"type": "ipc", "path": path("ipc")}, {"type": "pid"}, {"type": "mount"},
        ]);
        let mut second = joining.spawn().await.unwrap();
        for kind in ["user", "net", "ipc"] {
            assert_eq!(namespace(second.pid(), kind), namespace(guest.pid(), kind), "{kind}");
        }
        assert_eq!(status(&second, "Uid"), "100000 100000 100000 100000");
        second.cleanup().await.unwrap();
        guest.cleanup().await.unwrap();
        joining.assert_clean();
        bundle.assert_clean();
    });
}

#[test]
fn what_would_change_the_host_is_refused() {
    block_on(async {
        let without = |kind: &str| {
            let mut bundle = Bundle::new();
            let all = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
            all.retain(|namespace| namespace["type"] != kind);
            bundle
        };
        let error = without("mount").refused().await;
        assert!(error.contains("add a namespace of type mount"), "{error}");
        let error = without("uts").refused().await;
        assert!(error.contains("hostname boat, which would rename the host"), "{error}");
        let mut bundle = without("network");
        bundle.spec["linux"]["sysctl"] = json!({"net.core.somaxconn": "77"});
        let error = bundle.refused().await;
        assert!(error.contains("add a namespace of type network"), "{error}");
        let mut bundle = Bundle::new();
        bundle.spec["linux"]["sysctl"] = json!({"kernel.core_pattern": "|/x"});
        let error = bundle.refused().await;
        assert!(error.contains("kernel.core_pattern, which belongs to the whole host"), "{error}");
        let mut bundle = Bundle::new();
        bundle.spec["linux"]["sysctl"] = json!({"net.core.no_such": "1"});
        let error = bundle.refused().await;
        assert!(error.contains("cannot set the sysctl net/core/no_such=1"), "{error}");
    });
}

#[test]
fn namespaces_that_cannot_be_joined_are_named() {
    block_on(async {
        let mut bundle = Bundle::new();
        let namespaces = &mut bundle.spec["linux"]["namespaces"];
        namespaces[4] = json!({"type": "network", "path": "/no/such/netns"});
        let error = bundle.refused().await;
        assert!(error.contains("net namespace /no/such/netns"), "{error}");
        // A namespace of another kind, joined directly and through the intermediate process.
        for (index, kind) in [(4, "network"), (0, "pid")] {
            let mut bundle = Bundle::new();
            bundle.spec["linux"]["namespaces"][index] =
                json!({"type": kind, "path": "/proc/self/ns/uts"});
            let error = bundle.refused().await;
            assert!(error.contains("cannot join a namespace given by path"), "{error}");
        }
    });
}

/// A folder that only root may enter, and one in it with a file of user 0 and one of user 5.
fn private_volume() -> (tempfile::TempDir, std::path::PathBuf) {
    let private = tempfile::tempdir().unwrap();
    let volume = private.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    for (name, owner) in [("of-root", 0), ("of-five", 5)] {
        std::fs::write(volume.join(name), name).unwrap();
        std::os::unix::fs::chown(volume.join(name), Some(owner), Some(owner)).unwrap();
    }
    (private, volume)
}

/// Owner and group, as the host sees them.
fn owners(guest: &Guest, path: &str) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(inside(guest, path)).unwrap();
    (found.uid(), found.gid())
}

#[test]
fn volumes_are_mapped_into_a_user_namespace_also_where_its_root_may_not_look() {
    block_on(async {
        let mut bundle = Bundle::new();
        with_user_namespace(&mut bundle);
        let (_private, volume) = private_volume();
        bundle.mount(bind(&volume, "/plain", &["rbind", "ro"]));
        bundle.mount(bind(&volume, "/mapped", &["rbind", "ridmap"]));
        let mut other = bind(volume.join("of-five"), "/file", &["bind"]);
        other["uidMappings"] = json!([{"containerID": 5, "hostID": 100_006, "size": 1}]);
        other["gidMappings"] = json!([{"containerID": 5, "hostID": 100_007, "size": 1}]);
        bundle.mount(other);
        let mut guest = bundle.spawn().await.unwrap();
        assert_eq!(owners(&guest, "/plain/of-five"), (5, 5));
        assert_eq!(owners(&guest, "/mapped/of-root"), (100_000, 100_000));
        assert_eq!(owners(&guest, "/mapped/of-five"), (100_005, 100_005));
        assert_eq!(owners(&guest, "/file"), (100_006, 100_007));
        assert!(mount_options(&guest, "/plain").contains(&"ro".to_owned()));
        assert!(mount_options(&guest, "/mapped").contains(&"rw".to_owned()));

        // A further container of the pod, which joins the user namespace.
        let mut joining = Bundle::new();
        with_user_namespace(&mut joining);
        let path = format!("/proc/{}/ns/user", guest.pid());
        let all = joining.spec["linux"]["namespaces"].as_array_mut().unwrap();
        all.iter_mut().find(|one| one["type"] == "user").unwrap()["path"] = json!(path);
        joining.mount(bind(&volume, "/mapped", &["rbind", "idmap"]));
        let mut second = joining.spawn().await.unwrap();
        assert_eq!(owners(&second, "/mapped/of-five"), (100_005, 100_005));
        second.cleanup().await.unwrap();
        joining.assert_clean();
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
    });
}

#[test]
fn mapped_ids_need_no_user_namespace_but_mappings_and_a_bind() {
    block_on(async {
        let mut bundle = Bundle::new();
        let (_private, volume) = private_volume();
        let mut mapped = bind(&volume, "/mapped", &["bind"]);
        mapped["uidMappings"] = json!([{"containerID": 0, "hostID": 7000, "size": 10}]);
        mapped["gidMappings"] = mapped["uidMappings"].clone();
        bundle.mount(mapped);
        let mut guest = bundle.spawn().await.unwrap();
        assert_eq!(owners(&guest, "/mapped/of-five"), (7005, 7005));
        guest.cleanup().await.unwrap();
        bundle.assert_clean();

        let mut bundle = Bundle::new();
        bundle.mount(bind(bundle.path().join("rootfs"), "/mapped", &["bind", "idmap"]));
        let error = bundle.refused().await;
        assert!(error.contains("on /mapped: no ids to map: give the mount uidMappings"), "{error}");
        bundle.assert_clean();

        let mut bundle = Bundle::new();
        bundle.mount(mount("/fresh", "tmpfs", &["ridmap"]));
        let error = bundle.refused().await;
        assert!(error.contains("mapped ids for the mount on /fresh, which is none of"), "{error}");
        bundle.assert_clean();
    });
}
