//! The official WASI test suite: a specification beside each program, `NAME.json`.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::Deserialize;

use crate::program::{Dir, Program, modules};

/// A specification in the suite's first form, which all programs of preview 1 have.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Specification {
    args: Vec<String>,
    env: BTreeMap<String, String>,
    /// A folder beside the program, which it gets as `/`.
    root: Option<String>,
    exit_code: i32,
    stdout: Option<String>,
    stderr: Option<String>,
}

/// The suite's programs beneath a folder.
pub(crate) fn programs(folder: &Path) -> Vec<Program> {
    modules(folder).into_iter().map(|(name, wasm)| program(name, &wasm)).collect()
}

fn program(name: String, wasm: &Path) -> Program {
    let specification = match fs::read_to_string(wasm.with_extension("json")) {
        Ok(text) => serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}")),
        Err(error) if error.kind() == ErrorKind::NotFound => Specification::default(),
        Err(error) => panic!("{name}: {error}"),
    };
    let Specification { args, env, root, exit_code, stdout, stderr } = specification;
    let dir = root.map(|root| {
        let template = Some(wasm.with_file_name(root));
        Dir { template, guest: "/".into() }
    });
    Program {
        name,
        wasm: wasm.to_owned(),
        args,
        env,
        dir,
        exit_code,
        stdout,
        stderr,
        different: None,
    }
}
