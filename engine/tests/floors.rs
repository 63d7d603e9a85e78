//! The floors of the engine: which room may name which, read from the sources themselves.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// A room of `src/` (a file or folder) and the rooms that it may name.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("abi", &["abi"]),
    ("config", &["config"]),
    ("module", &["module", "abi", "config"]),
    ("image", &["image", "module", "abi", "config"]),
    ("cache", &["cache", "image", "abi", "config"]),
    ("compile", &["compile", "image", "module", "abi", "config"]),
    ("runtime", &["runtime", "image", "module", "abi", "config"]),
    ("first", &["first", "compile", "runtime", "image", "abi", "config"]),
    ("snapshot", &["snapshot", "runtime", "image", "module", "abi", "config"]),
    ("wasi", &["wasi", "runtime", "abi"]),
    ("command", &["command", "wasi", "runtime", "image", "module", "abi", "config"]),
];

fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            sources(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|ending| ending == "rs") {
        found.push(path.to_owned());
    }
}

/// Names after `crate::` in code and doc links; macros of the treaty are exported at the root.
fn named_rooms(text: &str) -> impl Iterator<Item = &str> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(""))
        .filter(|name| !name.is_empty() && *name != "for_each_builtin")
}

#[test]
fn no_room_names_one_above_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut checked = 0;
    for (room, allowed) in MAY_NAME {
        let mut files = Vec::new();
        sources(&src.join(room), &mut files);
        sources(&src.join(format!("{room}.rs")).canonicalize().unwrap_or_default(), &mut files);
        assert!(!files.is_empty(), "room {room} has no source file");
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            for name in named_rooms(&text) {
                assert!(allowed.contains(&name), "{}: {room} names crate::{name}", file.display());
                checked += 1;
            }
        }
    }
    assert!(checked > 20, "only {checked} names found: does the test still read the sources?");
}

#[test]
fn the_readme_maps_every_room() {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(engine.join("README.md")).unwrap();
    for folder in ["src", "tests"] {
        for entry in fs::read_dir(engine.join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(readme.contains(&format!("`{folder}/{name}")), "{folder}/{name} is missing");
        }
    }
}

#[test]
fn unsafe_code_stays_in_the_runtime() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let inside = file.components().any(|part| part.as_os_str() == "runtime");
        let found = text.lines().any(|line| {
            let line = line.split("//").next().unwrap_or_default();
            ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
                .iter()
                .any(|s| line.contains(s))
        });
        assert!(inside || !found, "{}: unsafe code outside of runtime/", file.display());
    }
}
