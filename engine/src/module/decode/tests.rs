//! Tests of decoding: what is recorded, what is refused and how it is said.

use super::*;
use crate::module::index::{FuncIndex, GlobalIndex, SigIndex, TypeIndex};
use crate::module::types::{HeapType, RefType, SubType, ValType};
use crate::module::{ConstExpr, ConstOp, ElementItems, ExportIndex};

fn binary(wat: &str) -> Vec<u8> {
    to_binary(wat.as_bytes()).unwrap().into_owned()
}

fn info(wat: &str) -> ModuleInfo {
    decode(&binary(wat), Features::default()).unwrap().info
}

fn refusal(bytes: &[u8]) -> String {
    match decode(bytes, Features::default()) {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    }
}

/// A module of one section that claims `count` entries.
fn section(id: u8, count: u32) -> Vec<u8> {
    let leb = leb(count);
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    bytes.extend([id, leb.len() as u8]);
    bytes.extend(leb);
    bytes
}

#[test]
fn equal_types_share_a_signature() {
    let info = info(
        "(module (type (func (param i32))) (type (func)) (type (func (param i32)))
            (func (type 2)) (func (type 1)))",
    );
    assert_eq!(info.signatures.len(), 2);
    let of = |n| info.functions[FuncIndex::from_u32(n)].signature;
    assert_eq!((of(0), of(1)), (SigIndex::from_u32(0), SigIndex::from_u32(1)));
}

#[test]
fn types_are_recorded_with_their_groups_kinds_and_signatures() {
    let features = Features::default();
    let binary = binary(
        "(module (rec (type $f (sub (func (param (ref null $s) (ref $f))))) (type $s (struct (field i8) (field (mut anyref)))))
            (type $g (sub final $f (func (param (ref null $s) (ref null func))))) (type $a (array (ref $s)))
            (rec) (type (func (param i32 i64))) (func (type $g)))",
    );
    let info = decode(&binary, features).unwrap().info;
    assert_eq!(info.rec_groups, [2, 1, 1, 0, 1]);
    let ty = TypeIndex::from_u32;
    let kinds: Vec<_> = info.types.values().map(SubType::kind).collect();
    assert_eq!(kinds[..4], [TypeKind::Func, TypeKind::Struct, TypeKind::Func, TypeKind::Array]);
    let supertypes: Vec<_> = info.types.values().map(|ty| (ty.is_final, ty.supertype)).collect();
    assert_eq!(supertypes[..3], [(false, None), (true, None), (true, Some(ty(0)))]);
    // A later type of the group is known for what it is.
    let first = info.func_type_at(ty(0)).params[0];
    let heap = HeapType::ConcreteStruct(ty(1));
    assert_eq!(first, ValType::Ref(RefType { nullable: true, heap }));
    // The two function types differ in references only; their functions are called alike, as one
    // with the numbers that references are is.
    assert_eq!(info.signatures.len(), 1);
    let signatures: Vec<_> = info.type_signatures.values().map(Option::is_some).collect();
    assert_eq!(signatures, [true, false, true, false, true]);
    assert_eq!(info.functions[FuncIndex::from_u32(0)].ty, ty(2));
    assert!(info.declares_subtype(ty(2), ty(0)) && !info.declares_subtype(ty(0), ty(2)));
    let without = Features { gc: false, ..Features::default() };
    assert!(decode(&binary, without).is_err(), "groups need garbage collection");
}

#[test]
fn types_that_are_many_or_large_are_refused() {
    let limit = |module: &[u8], words: &str| {
        let features = Features::default();
        match decode(module, features) {
            Err(error @ DecodeError::Limit { .. }) => {
                assert!(error.to_string().contains(words), "{error}");
            }
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("accepted"),
        }
    };
    // A group counts as one entry of the section, whatever is in it.
    let mut group = vec![0x4e];
    group.extend(leb(limits::TYPES + 1));
    group.extend([0x60, 0, 0].repeat(limits::TYPES as usize + 1));
    limit(&type_section(1, &group), "types");
    let mut large = vec![0x60];
    large.extend(leb(1000));
    large.extend([0x7f; 1000]);
    large.push(0);
    let count = limits::TYPE_PARTS / 1000 + 1;
    limit(&type_section(count as u32, &large.repeat(count)), "parameters, results and fields");
}

/// A module with a type section of so many entries.
fn type_section(count: u32, entries: &[u8]) -> Vec<u8> {
    let count = leb(count);
    let mut bytes = b"\0asm\x01\0\0\0\x01".to_vec();
    bytes.extend(leb((count.len() + entries.len()) as u32));
    bytes.extend(count);
    bytes.extend(entries);
    bytes
}

/// The binary form of a number.
fn leb(mut rest: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        bytes.push((rest & 0x7f) as u8 | if rest > 0x7f { 0x80 } else { 0 });
        rest >>= 7;
        if rest == 0 {
            return bytes;
        }
    }
}

#[test]
fn functions_that_become_references_are_numbered_once() {
    let info = info(
        r#"(module (table 4 funcref) (func $a) (func $b) (func $c (export "c") (export "d"))
            (func $e (drop (ref.func $e))) (func $g)
            (elem (i32.const 0) $a $c) (elem declare func $e)
            (global funcref (ref.func $g)))"#,
    );
    let numbers: Vec<_> = info.functions.values().map(|function| function.func_ref).collect();
    assert_eq!(numbers, [Some(0), None, Some(1), Some(2), Some(3)]);
    assert_eq!(info.escaped_funcs, 4);
}

#[test]
fn elements_that_are_plain_functions_are_stored_short() {
    let info = info(
        "(module (table 4 funcref) (func $a)
            (elem funcref (ref.func $a) (ref.func $a)) (elem funcref (ref.func $a) (ref.null func)) (elem externref))",
    );
    let items: Vec<_> = info.elements.values().map(|segment| &segment.items).collect();
    assert!(matches!(items[0], ElementItems::Functions(funcs) if funcs.len() == 2));
    assert!(matches!(items[1], ElementItems::Expressions(exprs) if exprs.len() == 2));
    // Nothing of another type is a function, not even no element.
    assert!(matches!(items[2], ElementItems::Expressions(exprs) if exprs.is_empty()));
}

#[test]
fn constant_expressions_are_evaluated_unless_they_need_an_import() {
    let info = info(
        r#"(module (import "a" "g" (global $imported i32))
            (global $seven i32 (i32.const 7)) (global $changes (mut i32) (i32.const 7)))"#,
    );
    let bits = |ops: &[ConstOp]| info.const_bits(&ConstExpr { ops: ops.to_vec() });
    let [imported, seven, changes] = [0, 1, 2].map(GlobalIndex::from_u32);
    assert_eq!(bits(&[ConstOp::I32Const(-1)]), Some(0xffff_ffff));
    assert_eq!(bits(&[ConstOp::I64Const(-1)]), Some(u64::MAX));
    assert_eq!(
        bits(&[ConstOp::I32Const(2), ConstOp::I32Const(5), ConstOp::I32Sub]),
        Some(0xffff_fffd)
    );
    assert_eq!(bits(&[ConstOp::I64Const(3), ConstOp::I64Const(5), ConstOp::I64Mul]), Some(15));
    assert_eq!(bits(&[ConstOp::GlobalGet(seven)]), Some(7));
    assert_eq!(bits(&[ConstOp::GlobalGet(changes)]), None);
    assert_eq!(bits(&[ConstOp::GlobalGet(imported)]), None);
    assert_eq!(bits(&[]), None);
}

#[test]
fn what_is_no_module_is_named() {
    for (bytes, words) in [
        (&b""[..], "empty"),
        (b"\0as", "truncated"),
        (b"\x7fELF\x02\x01\x01", "native executable (ELF)"),
        (b"#!/bin/sh\n", "script"),
        (b"\x1f\x8b\x08", "compressed"),
        (b"\x28\xb5\x2f\xfd", "compressed"),
        (b"PK\x03\x04", "ZIP"),
        (b"CORACLE\0", "compiled code"),
        (b"hello", "magic bytes"),
        (b"\0asm\x0d\0\x01\0", "component"),
        (b"\0asm\x02\0\0\0", "version"),
    ] {
        let message = refusal(bytes);
        assert!(message.contains(words), "{message:?} does not say {words:?}");
    }
}

#[test]
fn a_fault_is_reported_with_its_place() {
    let mut bytes = binary("(module (func (result i32) (i32.const 1)))");
    bytes.truncate(bytes.len() - 2);
    assert!(refusal(&bytes).starts_with("invalid module at byte offset 0x"));
    let error = to_binary(b"(module\n  (func (result i32) i32.cosnt 1))").unwrap_err();
    let DecodeError::Text { line: 2, column: 22, message } = error else { panic!("{error}") };
    assert!(message.contains("unknown operator"), "{message}");
}

#[test]
fn text_is_told_by_its_first_parenthesis() {
    for text in ["(module)", " \n\t(module)", ";; a\n;; b\n(module)", "(; (; x ;) ;) (module)"] {
        assert_eq!(binary(text), b"\0asm\x01\0\0\0", "{text:?}");
    }
    for other in ["", "module", ";; (module)", "(; (module)", "\u{1}(module)"] {
        assert_eq!(&*to_binary(other.as_bytes()).unwrap(), other.as_bytes());
    }
    let component = to_binary(b"(component)").unwrap();
    assert_eq!(refusal(&component), DecodeError::Component.to_string());
}

#[test]
fn proposals_that_are_off_are_refused() {
    let simd = binary("(module (func (param v128)))");
    assert!(decode(&simd, Features::default()).is_ok());
    let without = Features { simd: false, relaxed_simd: false, ..Features::default() };
    assert!(decode(&simd, without).is_err_and(|error| error.to_string().contains("SIMD")));
    let bulk = binary(
        "(module (memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0))))",
    );
    assert!(decode(&bulk, Features::default()).is_ok());
    let externref = binary("(module (func (param externref)))");
    assert!(decode(&externref, Features::default()).is_ok());
    let without = Features { reference_types: false, ..Features::default() };
    assert!(decode(&externref, without).is_err());
    let typed = binary("(module (type $t (func)) (func (param (ref null $t))))");
    assert!(decode(&typed, Features::default()).is_ok());
    let without = Features { function_references: false, gc: false, ..Features::default() };
    assert!(decode(&typed, without).is_err());
}

#[test]
fn counts_over_their_limits_are_refused_before_anything_grows() {
    for (id, limit) in [
        (1, limits::TYPES),
        (3, limits::FUNCTIONS),
        (4, limits::TABLES),
        (5, limits::MEMORIES),
        (6, limits::GLOBALS),
        (13, limits::TAGS),
    ] {
        let error = match decode(&section(id, limit + 1), Features::default()) {
            Err(error) => error,
            Ok(_) => panic!("accepted"),
        };
        let count = u64::from(limit) + 1;
        assert!(
            matches!(error, DecodeError::Limit { count: found, .. } if found == count),
            "{error}"
        );
    }
}

#[test]
fn a_long_constant_expression_is_refused() {
    let adds = "(i32.const 1) i32.add ".repeat(limits::CONST_OPERATORS / 2 + 1);
    let module = binary(&format!("(module (global i32 (i32.const 1) {adds}))"));
    assert!(refusal(&module).contains("operators in a constant expression"));
}

#[test]
fn names_come_from_the_name_section() {
    let module = binary(r#"(module $mine (func $first) (func) (func $third))"#);
    let decoded = decode(&module, Features::default()).unwrap();
    assert_eq!(decoded.info.name.as_deref(), Some("mine"));
    let names: Vec<_> = (0..4).map(|n| decoded.names.function(FuncIndex::from_u32(n))).collect();
    assert_eq!(names, [Some("first"), None, Some("third"), None]);
}

#[test]
fn long_names_are_cut_between_characters() {
    let long = "ä".repeat(limits::NAME_BYTES);
    let module = binary(&format!("(module (func $\"x{long}\"))"));
    let decoded = decode(&module, Features::default()).unwrap();
    let name = decoded.names.function(FuncIndex::from_u32(0)).unwrap();
    assert_eq!(name.len(), limits::NAME_BYTES - 1);
}

#[test]
fn no_name_section_fails_a_module() {
    let name_section = |content: &[u8]| {
        let mut bytes = b"\0asm\x01\0\0\0".to_vec();
        bytes.extend([0, content.len() as u8 + 5, 4]);
        bytes.extend(b"name");
        bytes.extend(content);
        bytes
    };
    for content in [
        &[][..],
        &[0xff],
        &[1, 200, 1],
        // One name that is not UTF-8, for a function that does not exist.
        &[1, 4, 1, 9, 1, 0xff],
        // Indices out of order.
        &[1, 7, 2, 1, 1, b'a', 0, 1, b'b'],
        &[0, 2, 9, b'a'],
    ] {
        assert!(decode(&name_section(content), Features::default()).is_ok(), "{content:?}");
    }
}

#[test]
fn imports_come_first_in_every_space() {
    let info = info(
        r#"(module (import "m" "f" (func)) (import "m" "g" (global i64)) (import "m" "t" (table 1 externref))
            (func (export "own")) (global i32 (i32.const 1)) (table 1 funcref) (memory 1 2))"#,
    );
    let n = info.imported;
    assert_eq!((n.functions, n.globals, n.tables, n.memories), (1, 1, 1, 0));
    assert_eq!(info.export("own"), Some(ExportIndex::Func(FuncIndex::from_u32(1))));
    assert_eq!((info.global_inits.len(), info.table_inits.len(), info.defined_funcs()), (1, 1, 1));
}

#[test]
fn damaged_modules_never_panic() {
    let module = binary(
        r#"(module $m (import "a" "b" (func $f (param i32) (result i64))) (table 3 funcref)
            (memory 1) (global (mut f64) (f64.const 1)) (elem (i32.const 0) $f) (data (i32.const 4) "xyz")
            (func $g (export "g") (local i32 f32) (drop (call $f (i32.load offset=9 (local.get 0))))))"#,
    );
    for len in 0..module.len() {
        // A module may end where a section does, if no later one is promised.
        let _ = decode(&module[..len], Features::default());
    }
    for at in 8..module.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff, module[at] ^ 1, module[at].wrapping_add(1)] {
            let mut bad = module.clone();
            bad[at] = value;
            let _ = decode(&bad, Features::default());
        }
    }
}
