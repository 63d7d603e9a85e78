//! `coracle cache warm` with images of real daemons.

use std::path::Path;
use std::process::Command;

use crate::bed::{Containerd, Daemon, Finished, Kind, RUNTIME, finish, on_some, unique};
use crate::pack::{Form, Image};

/// `coracle cache warm` for an image of the daemon.
fn warm(containerd: &Containerd, image: &str) -> Finished {
    let bed = |name: &str| std::env::var(format!("TESTBED_{name}")).expect("a test bed");
    let run = bed("RUN");
    let mut command = Command::new(Path::new(&bed("BIN_DIR")).join("coracle"));
    command.args(["cache", "warm", "--namespace", &containerd.namespace, "--address"]);
    command.arg(&containerd.socket).arg(image);
    command.env("CORACLE_CACHE_DIR", format!("{run}/cache"));
    command.env("CORACLE_RUN_DIR", format!("{run}/coracle"));
    finish(command, None)
}

/// Gives an image to a daemon, unpacked as a pull would leave it.
fn load(daemon: &Daemon, image: &Image) -> Result<(), String> {
    let archive = image.archive();
    let archive = archive.to_str().ok_or("path is not UTF-8")?;
    let done = match (daemon.kind, image.form) {
        (Kind::Ctr, Form::Rootfs) => daemon.call(&["images", "import", archive], None),
        (Kind::Ctr, Form::Layer) => not_unpacked(daemon, image)?,
        (Kind::Docker, _) => daemon.call(&["load", "--quiet", "--input", archive], None),
    };
    done.expect("the image to be loaded", done.code == 0)
}

fn not_unpacked(daemon: &Daemon, image: &Image) -> Result<Finished, String> {
    let archive = image.archive();
    let archive = archive.to_str().ok_or("path is not UTF-8")?;
    Ok(daemon.call(&["images", "import", "--all-platforms", "--no-unpack", archive], None))
}

/// A container of the image, to its end; was its module compiled?
fn compiled(daemon: &Daemon, containerd: &Containerd, image: &Image) -> Result<bool, String> {
    let id = unique("e2e-cache");
    let mut args = vec!["run", "--rm", "--runtime", RUNTIME];
    if image.form == Form::Layer {
        args.extend(["--platform", "wasip1/wasm"]);
    }
    match daemon.kind {
        Kind::Ctr => args.extend([image.name.as_str(), id.as_str()]),
        Kind::Docker => args.extend(["--pull=never", image.name.as_str()]),
    }
    let done = daemon.call(&args, None);
    done.expect("the container to run", done.code == 0)?;
    let log = std::fs::read_to_string(&containerd.log).map_err(|error| error.to_string())?;
    Ok(log.lines().any(|line| line.contains("compiled") && line.contains(&image.module)))
}

fn remove(daemon: &Daemon, image: &Image) -> Result<(), String> {
    let done = match daemon.kind {
        Kind::Ctr => daemon.call(&["images", "delete", "--sync", &image.name], None),
        Kind::Docker => daemon.call(&["image", "rm", "--force", &image.name], None),
    };
    done.expect("the image to be removed", done.code == 0)
}

/// Whether it was compiled is told by the log of the shims, of which `make test-e2e` wants it.
#[test]
fn a_warmed_image_starts_without_a_compilation() {
    on_some(
        |daemon| daemon.containerd.is_some(),
        |daemon| {
            let Some(containerd) = &daemon.containerd else { return Ok(()) };
            for form in [Form::Rootfs, Form::Layer] {
                if form == Form::Layer && !daemon.runs_layers {
                    continue;
                }
                let cold = Image::pack(&unique("cold"), form);
                load(daemon, &cold)?;
                if !compiled(daemon, containerd, &cold)? {
                    return Err("the log tells of no compilation: set CORACLE_LOG=info".into());
                }
                let again = warm(containerd, &cold.name);
                let there = again.stdout.contains("in the cache already");
                again.expect("what a container has compiled", again.code == 0 && there)?;
                remove(daemon, &cold)?;

                let warmed = Image::pack(&unique("warm"), form);
                load(daemon, &warmed)?;
                let done = warm(containerd, &warmed.name);
                let made = done.stdout.contains("compiled in");
                done.expect("a compilation", done.code == 0 && made)?;
                if compiled(daemon, containerd, &warmed)? {
                    return Err(format!("a container of {form:?} compiled what was there"));
                }
                remove(daemon, &warmed)?;
            }
            Ok(())
        },
    );
}

#[test]
fn an_image_that_cannot_be_warmed_is_told_of() {
    on_some(
        |daemon| daemon.kind == Kind::Ctr,
        |daemon| {
            let Some(containerd) = &daemon.containerd else { return Ok(()) };
            let says = |image: &str, at: &Containerd, words: &[&str]| {
                let done = warm(at, image);
                let all = words.iter().all(|word| done.stderr.contains(word));
                done.expect(&format!("{words:?}"), done.code == 125 && all)
            };
            says("coracle.test/nowhere:1", containerd, &["images pull coracle.test/nowhere:1"])?;

            let packed = Image::pack(&unique("packed"), Form::Rootfs);
            not_unpacked(daemon, &packed)?;
            let elsewhere = Containerd { namespace: "coracle-empty".into(), ..containerd.clone() };
            let namespace = format!("--namespace {}", containerd.namespace);
            says(&packed.name, &elsewhere, &[&namespace])?;
            says(&packed.name, containerd, &["not unpacked on this node", "no wasm layer"])?;
            remove(daemon, &packed)?;

            let elf = daemon.image("bad-elf:layer")?;
            says(&elf, containerd, &["ELF", "accepted is a core wasm module"])
        },
    );
}
