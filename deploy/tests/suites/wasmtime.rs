//! wasmtime's test programs for preview 1: each gets an empty folder and must end with 0.

use std::path::Path;

use crate::program::{Dir, Program, modules};

/// Programs that want what `coracle run` has no option for; they are named, not run.
const LEFT_OUT: [(&str, &str); 6] = [
    ("p1_cli_hostcall_fuel", "tests an option of wasmtime's command line"),
    ("p1_file_hardlink_across_perms", "needs a read-only folder"),
    ("p1_file_rename_across_perms", "needs a read-only folder"),
    ("p1_file_truncation_readonly", "needs a read-only folder"),
    ("p1_stat_extreme_host_mtime", "needs a file that was prepared"),
    ("p1_stdio_isatty", "needs a terminal"),
];

/// The programs beneath a folder.
pub(crate) fn programs(folder: &Path) -> Vec<Program> {
    let mut programs = Vec::new();
    for (name, wasm) in modules(folder) {
        if let Some((_, reason)) = LEFT_OUT.iter().find(|(left_out, _)| *left_out == name) {
            println!("{name}: left out, {reason}");
            continue;
        }
        programs.push(Program {
            name,
            wasm,
            args: vec![".".into()],
            env: [("ERRNO_MODE_UNIX".into(), "1".into())].into(),
            dir: Some(Dir { template: None, guest: ".".into() }),
            ..Program::default()
        });
    }
    programs
}
