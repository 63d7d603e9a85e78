//! wasmtime's test programs for preview 1: each gets an empty folder and must end with 0.
//!
//! They take for granted that a host has no rights: they open with none and go on. Here they pass
//! only when they are built to ask for the rights that they need.

use std::path::Path;

use crate::program::{Dir, Program, modules};

/// Programs that want what `coracle run` has no option for; they are named, not run.
const LEFT_OUT: [(&str, &str); 7] = [
    ("p1_cli_hostcall_fuel", "tests an option of wasmtime's command line"),
    ("p1_cli_much_stdout", "needs other arguments"),
    ("p1_file_hardlink_across_perms", "needs a read-only folder"),
    ("p1_file_rename_across_perms", "needs a read-only folder"),
    ("p1_file_truncation_readonly", "needs a read-only folder"),
    ("p1_stat_extreme_host_mtime", "needs a file that was prepared"),
    ("p1_stdio_isatty", "needs a terminal"),
];

/// Programs that want something else than the specification, POSIX or the official suite let us do.
/// Each must fail, so that the list stays true.
const DIFFERENT: [(&str, &str); 11] = [
    ("p1_dir_fd_op_failures", "wants badf, not isdir, of files' operations on directories"),
    ("p1_directory_seek", "wants badf, not isdir, of files' operations on directories"),
    ("p1_fd_filestat_get", "wants no times of standard streams"),
    ("p1_fd_filestat_set", "wants inval, not notcapable, without the right"),
    ("p1_fd_readdir", "wants a made-up cookie to be the end, not inval"),
    ("p1_file_allocate", "wants no fd_allocate"),
    ("p1_file_pread_pwrite", "wants Linux's fd_pwrite in append mode, not POSIX's"),
    ("p1_file_write", "wants badf, not notcapable, without the right"),
    ("p1_path_filestat", "wants no flag sync"),
    ("p1_path_open_read_write", "wants perm, not notcapable, without the right"),
    ("p1_poll_oneoff_files", "wants one bad subscription to fail the whole call"),
];

/// The programs beneath a folder.
pub(crate) fn programs(folder: &Path) -> Vec<Program> {
    let mut programs = Vec::new();
    for (name, wasm) in modules(folder) {
        if let Some((_, reason)) = LEFT_OUT.iter().find(|(left_out, _)| *left_out == name) {
            println!("{name}: left out, {reason}");
            continue;
        }
        let different = DIFFERENT.iter().find(|(different, _)| *different == name);
        programs.push(Program {
            different: different.map(|(_, reason)| *reason),
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
