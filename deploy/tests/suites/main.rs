//! Suites of WASI programs that others wrote, run by `coracle run`: the official suite and wasmtime's
//! programs for preview 1.
//!
//! Nothing of them is kept here. `CORACLE_WASI_TESTSUITE` and `CORACLE_WASMTIME_P1_TESTS` name folders
//! of prebuilt programs; a suite whose variable is not set is not run, and a line says so. Each
//! program gets a fresh copy of its folder, and every unexpected result is a failure: no program of
//! the official suite may fail, and those of wasmtime's that must are listed with the reason.
//!
//! Arguments that are no options select programs whose name contains one of them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail where it stands")]

mod official;
mod program;
mod run;
mod wasmtime;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use program::Program;

/// A suite: its name, the variable that names its folder, and what is found there.
struct Suite {
    name: &'static str,
    variable: &'static str,
    find: fn(&Path) -> Vec<Program>,
}

const SUITES: [Suite; 2] = [
    Suite {
        name: "official WASI test suite",
        variable: "CORACLE_WASI_TESTSUITE",
        find: official::programs,
    },
    Suite {
        name: "wasmtime's programs for preview 1",
        variable: "CORACLE_WASMTIME_P1_TESTS",
        find: wasmtime::programs,
    },
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<String> = args.into_iter().filter(|arg| !arg.starts_with('-')).collect();
    let failed = SUITES.iter().filter(|suite| !suite.run(&wanted)).count();
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Suite {
    /// Runs the programs that are wanted (all, if none is named); false if one of them failed.
    fn run(&self, wanted: &[String]) -> bool {
        let Some(folder) = std::env::var_os(self.variable) else {
            println!("{}: NOT RUN, {} names no folder", self.name, self.variable);
            return true;
        };
        let start = Instant::now();
        let mut programs = (self.find)(Path::new(&folder));
        assert!(!programs.is_empty(), "{} holds no program", folder.display());
        let found = programs.len();
        let chosen =
            |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part));
        programs.retain(|program| chosen(&program.name));
        let failures = run_all(&programs);
        for (name, reason) in &failures {
            println!("--- {name}: {reason}");
        }
        let (failed, seconds) = (failures.len(), start.elapsed().as_secs_f32());
        let different = programs.iter().filter(|program| program.different.is_some()).count();
        println!(
            "{}: {found} programs, {} as expected ({different} listed to fail), {failed} not, \
             {} not chosen, {seconds:.1} s",
            self.name,
            programs.len() - failed,
            found - programs.len()
        );
        failures.is_empty()
    }
}

/// Runs programs two at a time; the result is those that failed, and why.
fn run_all(programs: &[Program]) -> Vec<(&str, String)> {
    let queue = Mutex::new(programs.iter());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().next();
                    let Some(program) = next else { break };
                    let reason = match (run::run(program), program.different) {
                        (Ok(()), None) | (Err(_), Some(_)) => continue,
                        (Ok(()), Some(reason)) => format!("passes, though it {reason}"),
                        (Err(reason), None) => reason,
                    };
                    failures.lock().unwrap().push((&*program.name, reason));
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort_unstable();
    failures
}
