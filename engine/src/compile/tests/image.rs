//! What an image holds: tables, data, names, metadata.

use super::image_of;
use crate::abi::trap::TrapKind;
use crate::compile::compile;
use crate::config::{Cpu, Settings};
use crate::image::{CodeImage, PAGE, Section};
use crate::module::{DataMode, ModuleInfo};

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

/// The position in the module of the code at an offset.
fn position(image: &CodeImage<'_>, offset: u32) -> u32 {
    let starts = words(image.section(Section::AddressOffsets));
    let at = starts.partition_point(|&start| start <= offset);
    words(image.section(Section::AddressPositions))[at - 1]
}

fn info_of(blob: &[u8]) -> ModuleInfo {
    CodeImage::new(blob).unwrap().meta().unwrap().module
}

#[test]
fn traps_are_found_with_their_kind_and_position() {
    let wat = r#"(module (memory 1) (table 1 funcref)
        (func (export "f") (param i32 i32 f32) (result i32)
            (drop (i32.div_s (local.get 0) (local.get 1)))
            (drop (i32.trunc_f32_s (local.get 2)))
            (drop (table.get (local.get 0)))
            (if (local.get 1) (then unreachable))
            (i32.load (local.get 0))))"#;
    let blob = image_of(wat);
    let image = CodeImage::new(&blob).unwrap();
    let offsets = words(image.section(Section::TrapOffsets));
    assert!(offsets.is_sorted());
    let kinds: Vec<_> =
        image.section(Section::TrapCodes).iter().copied().map(TrapKind::from_code).collect();
    for kind in [
        TrapKind::IntegerDivideByZero,
        TrapKind::IntegerOverflow,
        TrapKind::InvalidConversionToInteger,
        TrapKind::TableOutOfBounds,
        TrapKind::Unreachable,
        TrapKind::MemoryOutOfBounds,
        TrapKind::Host,
    ] {
        assert!(kinds.contains(&Some(kind)), "{kind} is missing from {kinds:?}");
    }
    let binary = crate::module::decode::to_binary(wat.as_bytes()).unwrap();
    let function = image.func(0).unwrap();
    for (&offset, kind) in offsets.iter().zip(&kinds) {
        let position = position(&image, offset);
        if !function.contains(&offset) {
            assert_eq!(position, u32::MAX, "a trampoline is at no place in the module");
            continue;
        }
        let opcode = binary[position as usize];
        let expected = match kind.unwrap() {
            TrapKind::IntegerDivideByZero => 0x6d,
            TrapKind::InvalidConversionToInteger => 0xa8,
            TrapKind::TableOutOfBounds => 0x25,
            // Joined with the branch of its `if`, whose place it gets.
            TrapKind::Unreachable => 0x04,
            TrapKind::MemoryOutOfBounds => 0x28,
            // Division and conversion.
            TrapKind::IntegerOverflow if opcode == 0x6d => 0x6d,
            TrapKind::IntegerOverflow => 0xa8,
            other => panic!("{other} in a function"),
        };
        assert_eq!(opcode, expected, "{kind:?} at {position:#x}");
    }
}

#[test]
fn functions_and_trampolines_lie_apart_in_order() {
    let blob = image_of(&super::many_functions(20));
    let image = CodeImage::new(&blob).unwrap();
    let signatures = info_of(&blob).signatures.len();
    let mut end = 0;
    for n in 0..20 + 2 * signatures {
        let range = image.func(n).unwrap();
        assert!(range.start >= end && !range.is_empty(), "{range:?} after {end}");
        end = range.end;
    }
    assert!(image.func(20 + 2 * signatures).is_none());
    assert!(words(image.section(Section::AddressOffsets)).is_sorted_by(|a, b| a < b));
}

#[test]
fn names_fall_back_to_exports_and_imports() {
    let blob = image_of(
        r#"(module (import "wasi" "exit" (func)) (func $named (export "x")) (func (export "y") (export "z"))
            (func))"#,
    );
    let image = CodeImage::new(&blob).unwrap();
    let names = std::str::from_utf8(image.section(Section::Names)).unwrap();
    let ends = words(image.section(Section::NameEnds));
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let found: Vec<_> = starts.zip(&ends).map(|(a, &b)| &names[a as usize..b as usize]).collect();
    assert_eq!(found, ["wasi.exit", "named", "y", ""]);
}

#[test]
fn settings_and_machine_are_recorded() {
    let blob = image_of("(module)");
    let meta = CodeImage::new(&blob).unwrap().meta().unwrap();
    assert!(meta.settings.verifier);
    assert!(meta.target.starts_with(std::env::consts::ARCH));
    if cfg!(target_arch = "x86_64") {
        for feature in ["sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cmpxchg16b"] {
            assert!(meta.cpu_features.iter().any(|name| name == feature), "{feature}");
        }
    }
}

#[test]
fn an_image_for_the_baseline_asks_for_nothing_more() {
    let settings = Settings { cpu: Cpu::Baseline, ..Settings::default() };
    let body = "(param v128 v128) (result v128) (f32x4.relaxed_madd (local.get 0) (local.get 1)
        (i8x16.splat (i32.clz (i32.const 7))))";
    let blob = compile(format!("(module (func {body}))").as_bytes(), &settings).unwrap();
    let meta = CodeImage::new(&blob).unwrap().meta().unwrap();
    assert_eq!(meta.settings.cpu, Cpu::Baseline);
    if cfg!(target_arch = "x86_64") {
        let v2 = ["cmpxchg16b", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3"];
        let mut found = meta.cpu_features;
        found.sort();
        assert_eq!(found, v2);
    }
}

#[test]
fn constant_data_becomes_pages() {
    let blob = image_of(
        r#"(module (memory 4) (data (i32.const 10) "abc") (data (i32.const 11) "X")
            (data "passive") (data (i32.const 0x30000) "far") (data (i32.const 0x10000) "\00\00"))"#,
    );
    let image = CodeImage::new(&blob).unwrap();
    let info = info_of(&blob);
    let runs: Vec<_> = info
        .memory_images
        .iter()
        .map(|run| (run.guest_offset, run.image_offset, run.len))
        .collect();
    assert_eq!(runs, [(0, 0, PAGE), (0x30000, PAGE, PAGE)]);
    let memory = image.section(Section::Memory);
    assert_eq!(&memory[9..14], b"\0aXc\0");
    assert_eq!(&memory[PAGE as usize..][..4], b"far\0");
    assert_eq!(image.section(Section::Data), b"passive");
    let modes: Vec<_> =
        info.data.values().map(|segment| segment.mode == DataMode::Static).collect();
    // Static ones at the end are left out.
    assert_eq!(modes, [true, true, false]);
    assert_eq!(info.data.values().nth(2).unwrap().len, 7);
}

#[test]
fn data_that_may_fail_or_is_not_known_stays_active() {
    for wat in [
        // The first is in bounds, but must be written before the second traps.
        r#"(module (memory 1) (data (i32.const 0) "a") (data (i32.const 65536) "b"))"#,
        r#"(module (memory 1) (data (i32.const 0) "a") (data (i32.const -1) ""))"#,
        r#"(module (import "m" "m" (memory 1)) (data (i32.const 0) "a") (data (i32.const 1) "b"))"#,
        r#"(module (import "m" "g" (global i32)) (memory 1) (data (i32.const 0) "a") (data (global.get 0) "b"))"#,
    ] {
        let blob = image_of(wat);
        let info = info_of(&blob);
        assert!(info.memory_images.is_empty(), "{wat}");
        assert!(info.data.values().all(|segment| matches!(segment.mode, DataMode::Active { .. })));
        let lens: u64 = info.data.values().map(|segment| segment.len).sum();
        assert_eq!(CodeImage::new(&blob).unwrap().section(Section::Data).len() as u64, lens);
    }
}

#[test]
fn scattered_data_is_not_blown_up_to_pages() {
    let segments: String =
        (0..2000).map(|n| format!("(data (i32.const {}) \"x\")", n * 0x20000)).collect();
    let blob = image_of(&format!("(module (memory 4000) {segments})"));
    assert!(info_of(&blob).memory_images.is_empty());
    assert_eq!(CodeImage::new(&blob).unwrap().section(Section::Data).len(), 2000);
}
