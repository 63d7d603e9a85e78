//! Tests of whole compilations: what the code looks like, what an image holds, what is refused.

mod dispatch;
mod golden;
mod image;
mod inline;
mod placement;
mod references;
mod refused;
mod vectors;

use super::compile_on;
use crate::config::Settings;

/// Compiles text with the verifier on.
fn image_of(wat: &str) -> Vec<u8> {
    let settings = Settings { verifier: true, ..Settings::default() };
    super::compile(wat.as_bytes(), &settings).unwrap()
}

/// Many small functions of different sizes that call each other.
fn many_functions(count: usize) -> String {
    let mut out = String::from("(module (memory 1)");
    for n in 0..count {
        let callee = (n * 7 + 3) % count;
        let work = "(i32.add (i32.const 3) (i32.load (local.get 0)))".repeat(1 + n % 5);
        let drops = "drop ".repeat(1 + n % 5);
        out += &format!(
            "(func (export \"{n}\") (param i32) {work} {drops} (call {callee} (i32.const {n})))"
        );
    }
    out + ")"
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let wasm = wat::parse_str(many_functions(200)).unwrap();
    let settings = Settings { verifier: true, ..Settings::default() };
    let one = compile_on(&wasm, &settings, 1).unwrap();
    for threads in [2, 3, 8] {
        assert!(compile_on(&wasm, &settings, threads).unwrap() == one, "{threads} threads");
    }
}

#[test]
fn the_codegen_version_is_the_crates_own() {
    assert_eq!(crate::image::CODEGEN_VERSION, cranelift_codegen::VERSION);
}
