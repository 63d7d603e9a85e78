//! Programs that this project did not write, with the output that they must give.

use std::path::Path;

use crate::bed::{Kind, Spec, on_some};

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
