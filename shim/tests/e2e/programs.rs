//! Programs that this project did not write, with the output that they must give.

use std::path::{Path, PathBuf};

use crate::bed::{Daemon, Kind, Mount, Spec, on_some};

/// The folder of a program with the output that is expected of it.
fn expected_of(program: &str, name: &str) -> (PathBuf, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test-images/thirdparty");
    let folder = root.join(program);
    let expected = std::fs::read_to_string(folder.join(name));
    (folder, expected.expect("the expected output is under version control"))
}

/// Every Docker with an image store of its own in containerd.
fn dockers(daemon: &Daemon) -> bool {
    daemon.kind == Kind::Docker && !daemon.graph_store
}

/// One of them, for a program that takes long to compile.
fn newest_docker(daemon: &Daemon) -> bool {
    dockers(daemon) && daemon.runs_layers
}

/// Runs the image of a folder under `test-images/thirdparty` and compares its output.
fn prints_what_it_should(program: &str, applies: fn(&Daemon) -> bool) {
    let (_, expected) = expected_of(program, "expected.txt");
    let image = format!("thirdparty-{program}:rootfs");
    on_some(applies, |daemon| {
        let done = daemon.run(&Spec { image: &image, ..Spec::default() })?;
        done.expect("success", done.code == 0)?;
        done.expect(&format!("the output {expected:?}"), done.stdout == expected)
    });
}

#[test]
fn python() {
    prints_what_it_should("python", dockers);
}

#[test]
fn quickjs() {
    prints_what_it_should("quickjs", dockers);
}

#[test]
fn sqlite() {
    prints_what_it_should("sqlite", dockers);
}

#[test]
fn gofmt() {
    prints_what_it_should("gofmt", dockers);
}

#[test]
fn ruby() {
    prints_what_it_should("ruby", newest_docker);
}

/// Runs a program on a script that works in a volume: it prints what a native program prints, and
/// the host sees the file that it leaves.
fn works_with_files_of_a_volume(program: &str, script: &str, applies: fn(&Daemon) -> bool) {
    let (folder, expected) = expected_of(program, "expected-files.txt");
    let image = format!("thirdparty-{program}:rootfs");
    on_some(applies, |daemon| {
        let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
        let work = scratch.path().join("work");
        std::fs::create_dir(&work)
            .and_then(|()| std::fs::copy(folder.join(script), scratch.path().join(script)))
            .map_err(|error| error.to_string())?;
        let done = daemon.run(&Spec {
            image: &image,
            args: &[&format!("/data/{script}"), "/data/work"],
            mounts: &[Mount { host: scratch.path(), guest: "/data", readonly: false }],
            ..Spec::default()
        })?;
        done.expect("success", done.code == 0)?;
        done.expect(&format!("the output {expected:?}"), done.stdout == expected)?;
        let kept = std::fs::read_to_string(work.join("kept.txt"));
        done.expect("the file it left", kept.is_ok_and(|text| text == "by the guest\n"))
    });
}

#[test]
fn python_works_with_files_of_a_volume() {
    works_with_files_of_a_volume("python", "files.py", dockers);
}

#[test]
fn ruby_works_with_files_of_a_volume() {
    works_with_files_of_a_volume("ruby", "files.rb", newest_docker);
}
