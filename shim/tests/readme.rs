//! The README's list of calls and their tests names every call, and only tests that there are.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

/// The calls that a service's implementation has, without case and underscores.
fn calls(file: &str, service: &str) -> BTreeSet<String> {
    let text = read(file);
    let (_, body) = text.split_once(&format!("impl {service} for ")).expect(service);
    let body = body.split_once("\n}\n").expect("the end of the implementation").0;
    let names = body.lines().filter_map(|line| line.strip_prefix("    async fn "));
    names.map(|line| line.split_once('(').unwrap().0.replace('_', "")).collect()
}

/// The rows of the list: a call, and for each suite its tests.
fn rows() -> Vec<(String, [Vec<String>; 2])> {
    let text = read("README.md");
    let (_, section) = text.split_once("### Calls and their tests\n").expect("the list");
    let section = section.split_once("\n## ").expect("what follows").0;
    let lines =
        section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| call "));
    let tests = |cell: &str| {
        cell.split(',')
            .map(|name| name.trim().trim_matches('`').to_owned())
            .filter(|n| !n.is_empty())
            .collect()
    };
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').collect();
        assert_eq!(cells.len(), 5, "{line}");
        (cells[1].trim().to_lowercase(), [tests(cells[2]), tests(cells[3])])
    };
    lines.map(row).collect()
}

/// Whether a file has a test of this name.
fn is_test(suite: &str, name: &str) -> bool {
    let (module, test) = name.split_once("::").expect(name);
    let text = read(&format!("tests/{suite}/{module}.rs"));
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let next = lines.peek().copied().unwrap_or_default();
        let named = next.trim_start_matches("async ").starts_with(&format!("fn {test}("));
        if named && ["#[test]", "#[tokio::test]"].contains(&line) {
            return true;
        }
    }
    false
}

#[test]
fn every_call_has_tests_and_they_exist() {
    let rows = rows();
    let listed: BTreeSet<String> = rows.iter().map(|(call, _)| call.clone()).collect();
    let mut wanted = calls("src/service.rs", "TaskApi");
    wanted.extend(calls("src/sandbox/service.rs", "SandboxApi"));
    assert_eq!(listed, wanted);
    for (call, [lifecycle, e2e]) in &rows {
        assert!(!lifecycle.is_empty(), "no test of {call}");
        for (suite, names) in [("lifecycle", lifecycle), ("e2e", e2e)] {
            for name in names {
                assert!(is_test(suite, name), "{call}: there is no test {name} in {suite}");
            }
        }
    }
    assert!(!is_test("lifecycle", "tasks::a_test_that_is_not_there"));
}
