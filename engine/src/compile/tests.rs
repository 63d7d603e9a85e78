//! Tests of whole compilations.

use super::*;
use crate::config::Settings;

#[test]
fn smoke() {
    let settings = Settings { verifier: true, ..Settings::default() };
    let blob = compile(
        br#"(module (memory 1) (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add) (func (result i32) i32.const 1 i32.const 2 call 0 i32.load offset=8))"#,
        &settings,
    )
    .unwrap();
    std::fs::write("/tmp/smoke.img", &blob).unwrap();
    let image = crate::image::CodeImage::new(&blob).unwrap();
    std::fs::write("/tmp/smoke.text", image.section(crate::image::Section::Text)).unwrap();
}
