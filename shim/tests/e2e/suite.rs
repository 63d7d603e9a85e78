//! The official WASI test suite as containers of every daemon. `CORACLE_WASI_TESTSUITE` names the
//! folder of prebuilt programs.

use std::fs;
use std::path::{Path, PathBuf};

use crate::bed::{Daemon, Mount, Spec, on_each};
use crate::program::{self, Program};

/// Programs that must fail in containers, and why.
const DIFFERENT: [(&str, &str); 4] = [
    ("c/sock_shutdown-invalid_fd", "wants descriptor 3 closed, where a container has its root"),
    ("assemblyscript/environ_get-multiple-variables", "wants no variables of the daemon"),
    ("assemblyscript/environ_sizes_get-multiple-variables", "wants no variables of the daemon"),
    ("assemblyscript/environ_sizes_get-no-variables", "wants no variables of the daemon"),
];

#[test]
fn the_official_suite_passes_in_containers() {
    const VARIABLE: &str = "CORACLE_WASI_TESTSUITE";
    let Some(folder) = std::env::var_os(VARIABLE) else {
        say(&format!("official WASI test suite: NOT RUN, {VARIABLE} names no folder"));
        return;
    };
    let mut programs = crate::official::programs(Path::new(&folder));
    assert!(!programs.is_empty(), "{} holds no program", folder.display());
    for program in &mut programs {
        let different = DIFFERENT.iter().find(|(name, _)| *name == program.name);
        program.different = different.map(|(_, reason)| *reason);
    }
    on_each(|daemon| {
        let mut failures = Vec::new();
        for program in &programs {
            match (run(daemon, program), program.different) {
                (Ok(()), None) | (Err(_), Some(_)) => {}
                unexpected => failures.push((&program.name, unexpected)),
            }
        }
        let (all, failed) = (programs.len(), failures.len());
        say(&format!(
            "official WASI test suite on {}: {all} programs ({} listed to fail), {failed} with \
             unexpected results",
            daemon.name,
            DIFFERENT.len()
        ));
        if failures.is_empty() { Ok(()) } else { Err(format!("{failures:#?}")) }
    });
}

/// Not by `println!`, which nobody sees of a test that passes.
fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Runs a program over an image's own, with what its root shall hold mounted there one by one.
fn run(daemon: &Daemon, program: &Program) -> Result<(), String> {
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut mounts: Vec<(PathBuf, String)> = vec![(program.wasm.clone(), "/app.wasm".into())];
    if let Some(dir) = &program.dir {
        assert_eq!(dir.guest, "/", "a container's programs see its root");
        dir.template.iter().for_each(|template| program::copy(template, scratch.path()));
        for entry in fs::read_dir(scratch.path()).map_err(|error| error.to_string())? {
            let entry = entry.map_err(|error| error.to_string())?;
            mounts.push((entry.path(), format!("/{}", entry.file_name().display())));
        }
    }
    let mounts: Vec<Mount<'_>> =
        mounts.iter().map(|(host, guest)| Mount { host, guest, readonly: false }).collect();
    let args: Vec<&str> = program.args.iter().map(String::as_str).collect();
    let env: Vec<(&str, &str)> =
        program.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let image = "hello:rootfs";
    let spec = Spec { image, args: &args, env: &env, mounts: &mounts, ..Spec::default() };
    let done = daemon.run(&spec)?;
    program.check(Some(done.code), &done.stdout, &done.stderr)
}
