//! Images are compiled when they come.

use crate::bed::{tar_of, unique};
use crate::node::{ExpectSuccess as _, Node, import, import_archive, is, run};
use crate::own_bed::{OwnBed, on_each_containerd};
use crate::pack::{Form, Image};

const COMPILED: &str = "coracle_precompilations_total{outcome=\"compiled\"}";
const NOTHING: &str = "coracle_precompilations_total{outcome=\"nothing\"}";

fn containers(bed: &OwnBed) -> String {
    bed.daemon.call(&["containers", "list", "-q"], None).stdout.trim().to_owned()
}

/// A file is looked for only once containerd has unpacked it, which it does after it tells of the image.
#[test]
fn an_image_is_compiled_when_it_comes_and_its_first_container_finds_the_code() {
    on_each_containerd(|bed| {
        let node = Node::start(bed, &[], &[])?;
        for (count, form) in [(1.0, Form::Rootfs), (2.0, Form::Layer)] {
            let image = Image::pack(&unique("pulled"), form);
            import(bed, &image)?;
            node.becomes(COMPILED, count)?;
            node.becomes("coracle_cache_entries", count)?;
            if !containers(bed).is_empty() {
                return Err("there is a container".into());
            }
            let done = run(bed, &image, &[]);
            done.expect("the container to run", done.code == 0)?;
            node.becomes("coracle_cache_hits_total", count)?;
            let metrics = node.metrics()?;
            is(&metrics, "coracle_cache_misses_total", 0.0)?;
            is(&metrics, "coracle_cache_entries", count)?;
            is(&metrics, "coracle_compile_seconds_count{by=\"pull\"}", count)?;
            is(&metrics, "coracle_compile_seconds_count{by=\"start\"}", 0.0)?;
        }
        Ok(())
    });
}

#[test]
fn what_was_pulled_before_the_daemon_is_compiled_too_and_once() {
    on_each_containerd(|bed| {
        let image = Image::pack(&unique("before"), Form::Rootfs);
        import(bed, &image)?;
        let node = Node::start(bed, &[], &[])?;
        node.becomes(COMPILED, 1.0)?;
        // A second name is an event, but no other image.
        let again = format!("{}-again", image.name);
        let done = bed.daemon.call(&["images", "tag", &image.name, &again], None);
        done.expect("another name", done.code == 0)?;
        let other = Image::pack(&unique("other"), Form::Rootfs);
        import(bed, &other)?;
        node.becomes(COMPILED, 2.0)?;
        is(&node.metrics()?, "coracle_precompilations_total{outcome=\"cached\"}", 0.0)
    });
}

/// It is told of, and its files come later: nobody tells of the image again.
#[test]
fn an_image_is_compiled_once_its_files_are_there() {
    on_each_containerd(|bed| {
        let node = Node::start(bed, &[], &[])?;
        let image = Image::pack(&unique("packed"), Form::Rootfs);
        import_archive(bed, image.archive(), false)?;
        node.becomes("coracle_precompilations_total{outcome=\"not_unpacked\"}", 1.0)?;
        is(&node.metrics()?, COMPILED, 0.0)?;
        let list = bed.daemon.call(&["images", "list"], None).stdout;
        let line = list.lines().find(|line| line.starts_with(&image.name)).unwrap_or_default();
        let digest = line.split_whitespace().find(|word| word.starts_with("sha256:"));
        let words = ["snapshots", "unpack", digest.ok_or("no digest")?];
        bed.daemon.call(&words, None).expect_success(&words)?;
        node.becomes(COMPILED, 1.0)
    });
}

/// The snapshots' folders and the cache are the node's, and the daemon sees neither at its place.
#[test]
fn from_a_pod_images_of_the_node_are_compiled() {
    on_each_containerd(|bed| {
        let node = Node::start_in_pod(bed)?;
        let image = Image::pack(&unique("node"), Form::Rootfs);
        import(bed, &image)?;
        node.becomes(COMPILED, 1.0)?;
        let done = run(bed, &image, &[]);
        done.expect("the container to run", done.code == 0)?;
        node.becomes("coracle_cache_hits_total", 1.0)
    });
}

#[test]
fn an_image_without_wasm_is_left_alone() {
    on_each_containerd(|bed| {
        import_archive(bed, tar_of("busybox:rootfs"), true)?;
        let node = Node::start(bed, &[], &[])?;
        node.becomes(NOTHING, 1.0)?;
        is(&node.metrics()?, "coracle_cache_entries", 0.0)?;
        let loud = |line: &&str| line.contains("\"WARN\"") || line.contains("\"ERROR\"");
        match node.log().lines().find(loud) {
            None => Ok(()),
            Some(line) => Err(format!("the log is not quiet: {line}")),
        }
    });
}

#[test]
fn a_module_that_cannot_be_compiled_is_told_of() {
    on_each_containerd(|bed| {
        let node = Node::start(bed, &[], &[])?;
        let bad = Image::of(&unique("bad"), Form::Rootfs, "(func (result i32))");
        import(bed, &bad)?;
        node.becomes("coracle_precompilations_total{outcome=\"failed\"}", 1.0)?;
        is(&node.metrics()?, "coracle_compile_failures_total", 1.0)?;
        match node.said("not compiled").first() {
            Some(line) if line["name"] == bad.name.as_str() => Ok(()),
            _ => Err(format!("the log does not say which: {}", node.log())),
        }
    });
}
