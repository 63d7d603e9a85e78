//! Images that cannot run: one readable sentence, an exit code other than 0, nothing left behind.

use crate::bed::{Daemon, Finished, Kind, Spec, on_each, on_some, unique};

/// Image, and what its refusal must say.
const REFUSED: &[(&str, &[&str])] = &[
    ("bad-not-wasm:rootfs", &["app.wasm", "not"]),
    ("bad-truncated:rootfs", &["app.wasm"]),
    // A Linux program that nobody may execute.
    ("bad-elf:rootfs", &["permission denied"]),
    ("bad-imports:rootfs", &["import"]),
    ("bad-no-start:rootfs", &["_start"]),
    ("bad-missing-file:rootfs", &["app.wasm"]),
    ("bad-component:rootfs", &["component"]),
    ("bad-signature:rootfs", &["import"]),
    ("bad-version:rootfs", &["app.wasm"]),
    ("bad-empty:rootfs", &["app.wasm"]),
    ("bad-fifo:rootfs", &["app.wasm"]),
    ("bad-symlink-loop:rootfs", &["app.wasm"]),
    ("bad-syntax:wat", &["app.wat"]),
];

/// Checks that a run was refused by us and not by an accident.
fn refused(done: &Finished, words: &[&str]) -> Result<(), String> {
    done.expect("a failure that is not a trap", done.code != 0 && done.code != 134)?;
    let told = format!("{}{}", done.stdout, done.stderr);
    for word in words {
        done.expect(&format!("a sentence with {word:?}"), told.contains(word))?;
    }
    done.expect("no panic", !told.contains("panicked"))
}

fn good(daemon: &Daemon) -> Result<(), String> {
    let done = daemon.run(&Spec { image: "hello:rootfs", ..Spec::default() })?;
    done.expect("the next good container to run", done.code == 0)
}

#[test]
fn broken_modules_are_refused_with_a_reason() {
    on_each(|daemon| {
        for (image, words) in REFUSED {
            let done = daemon.run(&Spec { image, ..Spec::default() })?;
            refused(&done, words).map_err(|error| format!("{image}: {error}"))?;
            good(daemon)?;
        }
        Ok(())
    });
}

#[test]
fn a_module_over_the_size_limit_is_refused() {
    on_some(
        |daemon| daemon.kind == Kind::Ctr,
        |daemon| {
            let done = daemon.run(&Spec { image: "bad-too-big:rootfs", ..Spec::default() })?;
            refused(&done, &["more than the 268435456 that a module may have"])?;
            good(daemon)
        },
    );
}

#[test]
fn unknown_layers_are_named() {
    on_some(
        |daemon| daemon.kind == Kind::Ctr && daemon.runs_layers,
        |daemon| {
            let image = "bad-media-type:layer";
            let done = daemon.run(&Spec { image, ..Spec::default() })?;
            refused(&done, &["application/vnd.example.unknown.v1+wasm", "accepted wasm layers"])?;
            good(daemon)
        },
    );
}

#[test]
fn a_refused_container_can_be_removed_and_its_name_used_again() {
    on_some(
        |daemon| daemon.kind == Kind::Docker,
        |daemon| {
            let image = daemon.image("bad-truncated:rootfs")?;
            let id = unique("e2e-bad");
            let runtime = ["--runtime", "io.containerd.wasm.v1", "--pull=never", "--name", &id];
            let mut args = vec!["run"];
            args.extend(runtime);
            args.push(&image);
            refused(&daemon.call(&args, None), &[])?;
            daemon.remove(&id)?;
            let image = daemon.image("hello:rootfs")?;
            if let Some(last) = args.last_mut() {
                *last = &image;
            }
            let done = daemon.call(&args, None);
            daemon.remove(&id)?;
            done.expect("success under the same name", done.code == 0)
        },
    );
}
