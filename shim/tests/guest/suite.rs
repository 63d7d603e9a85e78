//! The official WASI test suite in containers: each program in namespaces, cgroup, system call filter
//! and rootfs of its own. `CORACLE_WASI_TESTSUITE` names the folder of prebuilt programs.

use std::io::{Read, Write};
use std::path::Path;

use coracle_shim::guest::{Exit, Stdio};
use serde_json::json;

use crate::program::{self, Program};
use crate::support::*;

/// A program that must fail here, and why.
const DIFFERENT: (&str, &str) =
    ("c/sock_shutdown-invalid_fd", "wants descriptor 3 closed, where a container has its root");

#[test]
fn the_official_suite_passes_in_containers() {
    const VARIABLE: &str = "CORACLE_WASI_TESTSUITE";
    // Not by `println!`, which nobody sees of a test that passes.
    let mut console = std::io::stderr();
    let Some(folder) = std::env::var_os(VARIABLE) else {
        writeln!(console, "official WASI test suite: NOT RUN, {VARIABLE} names no folder").unwrap();
        return;
    };
    let mut programs = crate::official::programs(Path::new(&folder));
    for program in programs.iter_mut().filter(|program| program.name == DIFFERENT.0) {
        program.different = Some(DIFFERENT.1);
    }
    assert!(!programs.is_empty(), "{} holds no program", folder.display());
    let mut failures = Vec::new();
    for program in &programs {
        match (block_on(run(program)), program.different) {
            (Ok(()), None) | (Err(_), Some(_)) => {}
            unexpected => failures.push((&program.name, unexpected)),
        }
    }
    let (all, failed) = (programs.len(), failures.len());
    let summary = format!("{all} programs, {failed} with unexpected results");
    writeln!(console, "official WASI test suite in containers: {summary}").unwrap();
    assert!(failures.is_empty(), "{failures:#?}");
}

async fn run(program: &Program) -> Result<(), String> {
    let mut bundle = Bundle::new();
    let args = std::iter::once("/app.wasm").chain(program.args.iter().map(String::as_str));
    bundle.spec["process"]["args"] = json!(args.collect::<Vec<_>>());
    let env = program.env.iter().map(|(name, value)| format!("{name}={value}"));
    bundle.spec["process"]["env"] = json!(env.collect::<Vec<_>>());
    if let Some(dir) = &program.dir {
        assert_eq!(dir.guest, "/", "a container's programs see its root");
        dir.template.iter().for_each(|template| program::copy(template, &bundle.rootfs("/")));
    }
    let wasm = std::fs::read(&program.wasm).unwrap();
    let ((mut out, stdout), (mut err, stderr)) = (pipe(), pipe());
    let stdio = Stdio { stdout: Some(stdout), stderr: Some(stderr), ..Stdio::default() };
    let mut guest = bundle.run_module(&wasm, stdio).await.map_err(|error| error.to_string())?;
    let exit = guest.wait().await.exit;
    guest.cleanup().await.map_err(|error| error.to_string())?;
    let (mut stdout, mut stderr) = (String::new(), String::new());
    out.read_to_string(&mut stdout).unwrap();
    err.read_to_string(&mut stderr).unwrap();
    let code = match exit {
        Exit::Code(code) => Some(i32::from(code)),
        _ => None,
    };
    program.check(code, &stdout, &stderr)
}
