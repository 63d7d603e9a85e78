//! Rows B2 and B3: file systems of the state and of the cache that are full, over a quota or broken.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use crate::cache::{Node, Start};
use crate::disks::Disk;
use crate::harness::{Containerd, Shim, feed, spec, within};
use crate::programs::hello;

/// A bundle on a file system of its own.
fn bundle_on(containerd: &Containerd, disk: impl Fn(&std::path::Path) -> Disk) -> (PathBuf, Disk) {
    let at = containerd.dir.path().join("bundles/c");
    fs::create_dir_all(&at).unwrap();
    let disk = disk(&at);
    (plain_bundle(containerd), disk)
}

fn plain_bundle(containerd: &Containerd) -> PathBuf {
    let bundle = containerd.bundle("c", &spec(&["/app.wat"]));
    fs::write(bundle.join("rootfs/app.wat"), hello()).unwrap();
    bundle
}

/// Why `start` was refused; nothing must be left of it.
async fn refusal(containerd: &Containerd, bundle: &std::path::Path) -> String {
    let output = feed(containerd.shim("c", bundle, "start"), &containerd.params("c")).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "{said}");
    assert_eq!(said.lines().count(), 1, "one sentence: {said}");
    assert_eq!(said.matches("(os error").count(), 1, "and once: {said}");
    assert!(!bundle.join("address").exists());
    containerd.assert_clean(&["c"]);
    said
}

/// A whole life in a bundle, of which nothing is left.
async fn live(containerd: &Containerd, bundle: &std::path::Path) {
    let shim = containerd.start("c", bundle).await;
    live_under(containerd, &shim, bundle).await;
}

/// A container's life and its shim's end.
async fn live_under(containerd: &Containerd, shim: &Shim, bundle: &std::path::Path) {
    shim.create("c", bundle).await.unwrap();
    shim.start("c").await.unwrap();
    assert_eq!(shim.wait("c").await.unwrap().exit_status, 0);
    shim.delete("c").await.unwrap();
    shim.shut_down().await;
    containerd.assert_clean(&["c"]);
}

#[tokio::test]
async fn a_full_state_folder_refuses_the_shim() {
    let fills: [fn(&Disk); 2] = [|disk| disk.fill(0), Disk::fill_names];
    for fill in fills {
        let containerd = Containerd::new().await;
        let (bundle, disk) = bundle_on(&containerd, Disk::small);
        fill(&disk);
        let said = refusal(&containerd, &bundle).await;
        assert!(said.contains("address: No space left on device"), "{said}");
        disk.empty();
        live(&containerd, &bundle).await;
    }
}

/// Before the container's process is made, and after.
#[tokio::test]
async fn a_full_state_folder_refuses_the_container() {
    let fills: [fn(&Disk); 3] =
        [|disk| disk.fill(0), |disk| disk.fill(4096), |disk| disk.fill_names()];
    for fill in fills {
        let containerd = Containerd::new().await;
        let (bundle, disk) = bundle_on(&containerd, Disk::small);
        let shim = containerd.start("c", &bundle).await;
        fill(&disk);
        let (_, said) = shim.create("c", &bundle).await.unwrap_err();
        assert!(said.contains("coracle-guest.json: No space left on device"), "{said}");
        assert_eq!(said.lines().count(), 1, "one sentence: {said}");
        assert!(containerd.topics().is_empty(), "a Create that failed has no event");
        containerd.assert_gone(&["c"]);
        disk.empty();
        // The same shim takes the next one.
        live_under(&containerd, &shim, &bundle).await;
    }
}

#[tokio::test]
async fn a_broken_state_folder_refuses_shim_and_container() {
    let containerd = Containerd::new().await;
    let (bundle, disk) = bundle_on(&containerd, |at| Disk::breakable(at, "sync"));
    disk.break_down();
    let said = refusal(&containerd, &bundle).await;
    assert!(said.contains("address: Input/output error"), "{said}");
    drop(disk);

    let containerd = Containerd::new().await;
    let (bundle, disk) = bundle_on(&containerd, |at| Disk::breakable(at, "sync"));
    let shim = containerd.start("c", &bundle).await;
    disk.break_down();
    let (_, said) = shim.create("c", &bundle).await.unwrap_err();
    assert!(said.contains("coracle-guest.json: Input/output error"), "{said}");
    containerd.assert_gone(&["c"]);
    shim.shut_down().await;
    drop(disk);
    live(&containerd, &plain_bundle(&containerd)).await;
}

/// What a restart of the machine forgets is needed by nobody.
#[tokio::test]
async fn a_full_folder_for_locks_costs_one_warning() {
    let node = Node::new();
    let run = node.dir.path().join("run");
    fs::create_dir(&run).unwrap();
    let disk = Disk::small(&run);
    disk.fill_names();
    let start = Start::on(node.dir.path(), &hello()).await;
    let log = Arc::clone(&start.log);
    assert_eq!(start.run().await, 1);
    let log = log.lock().unwrap().clone();
    assert_eq!(log.matches("going on without it").count(), 1, "{log}");
    assert!(log.contains("No space left on device"), "{log}");
    node.entry().await;
    assert_eq!(Start::on(node.dir.path(), &hello()).await.run().await, 0, "its code was kept");
    disk.empty();
    assert_eq!(Start::on(node.dir.path(), &hello()).await.run().await, 0);
}

#[tokio::test]
async fn a_cache_over_its_quota_is_passed_over() {
    let node = Node::new();
    fs::create_dir(node.cache()).unwrap();
    let disk = Disk::with_quota(&node.cache(), 1 << 20);
    disk.fill(0);
    let start = Start::on(node.dir.path(), &hello()).await;
    let log = Arc::clone(&start.log);
    assert_eq!(start.run().await, 1);
    let log = log.lock().unwrap().clone();
    assert_eq!(log.matches("going on without it").count(), 1, "{log}");
    assert!(log.contains("Disk quota exceeded"), "{log}");
    assert!(node.entries().is_empty());
    disk.empty();
    assert_eq!(Start::on(node.dir.path(), &hello()).await.run().await, 1);
    node.entry().await;
    assert_eq!(Start::on(node.dir.path(), &hello()).await.run().await, 0);
}

#[tokio::test]
async fn a_cache_on_a_broken_disk_keeps_nothing() {
    let node = Node::new();
    fs::create_dir(node.cache()).unwrap();
    let disk = Disk::breakable(&node.cache(), "rw");
    disk.break_down();
    for _ in 0..2 {
        let start = Start::on(node.dir.path(), &hello()).await;
        start.shim.create("c", &start.bundle).await.unwrap();
        start.shim.start("c").await.unwrap();
        assert_eq!(start.shim.wait("c").await.unwrap().exit_status, 0);
        // What cannot be kept is told by who tries, beside the container's life.
        within("the warning", async {
            while start.logged("going on without it") == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
        assert_eq!(start.logged("going on without it"), 1);
        assert_eq!(start.logged("Input/output error"), 1);
        assert_eq!(start.leave().await, 1, "nobody finds what was not kept");
        assert!(node.entries().is_empty());
    }
}
