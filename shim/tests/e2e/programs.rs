//! Programs that this project did not write, with the output that they must give.

use std::path::Path;

use crate::bed::{Kind, Mount, Spec, on_some};

/// Runs the image of a folder under `test-images/thirdparty` and compares its output.
fn prints_what_it_should(program: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test-images/thirdparty");
    let expected = std::fs::read_to_string(folder.join(program).join("expected.txt"))
        .expect("the expected output is under version control");
    let image = format!("thirdparty-{program}:rootfs");
    on_some(
        |daemon| daemon.kind == Kind::Docker && !daemon.graph_store,
        |daemon| {
            let done = daemon.run(&Spec { image: &image, ..Spec::default() })?;
            done.expect("success", done.code == 0)?;
            done.expect(&format!("the output {expected:?}"), done.stdout == expected)
        },
    );
}

#[test]
fn python() {
    prints_what_it_should("python");
}

#[test]
fn quickjs() {
    prints_what_it_should("quickjs");
}

#[test]
fn sqlite() {
    prints_what_it_should("sqlite");
}

#[test]
fn gofmt() {
    prints_what_it_should("gofmt");
}

/// CPython works on a volume: what it prints is what a native one prints, and the host sees the
/// file that it leaves.
#[test]
fn python_works_with_files_of_a_volume() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test-images/thirdparty/python");
    let expected = std::fs::read_to_string(folder.join("expected-files.txt"))
        .expect("the expected output is under version control");
    on_some(
        |daemon| daemon.kind == Kind::Docker && !daemon.graph_store,
        |daemon| {
            let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
            let work = scratch.path().join("work");
            std::fs::create_dir(&work)
                .and_then(|()| {
                    std::fs::copy(folder.join("files.py"), scratch.path().join("files.py"))
                })
                .map_err(|error| error.to_string())?;
            let done = daemon.run(&Spec {
                image: "thirdparty-python:rootfs",
                args: &["/data/files.py", "/data/work"],
                mounts: &[Mount { host: scratch.path(), guest: "/data", readonly: false }],
                ..Spec::default()
            })?;
            done.expect("success", done.code == 0)?;
            done.expect(&format!("the output {expected:?}"), done.stdout == expected)?;
            let kept = std::fs::read_to_string(work.join("kept.txt"));
            done.expect("the file it left", kept.is_ok_and(|text| text == "by the guest\n"))
        },
    );
}
