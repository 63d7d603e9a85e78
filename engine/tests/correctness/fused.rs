//! Loads joined with the instruction that uses them: they must read no more than the load does, and
//! give the same. Every operand of every operator comes from every load that fits it, in the last
//! bytes before memory ends.

use coracle_engine::runtime::{Func, TrapKind, Val};

use crate::operators::{self, Operator};
use crate::{CONFIGURATIONS, Configuration, Guest, bits, export, params, value};

const LENGTH: u64 = 1 << 16;

/// Loads with the number of their bytes.
const I32: &[(&str, u64)] = &[
    ("i32.load", 4),
    ("i32.load8_s", 1),
    ("i32.load8_u", 1),
    ("i32.load16_s", 2),
    ("i32.load16_u", 2),
];
const I64: &[(&str, u64)] = &[
    ("i64.load", 8),
    ("i64.load8_s", 1),
    ("i64.load8_u", 1),
    ("i64.load16_s", 2),
    ("i64.load16_u", 2),
    ("i64.load32_s", 4),
    ("i64.load32_u", 4),
];
const F32: &[(&str, u64)] = &[("f32.load", 4)];
const F64: &[(&str, u64)] = &[("f64.load", 8)];
const V128: &[(&str, u64)] = &[
    ("v128.load", 16),
    ("v128.load8x8_s", 8),
    ("v128.load8x8_u", 8),
    ("v128.load16x4_s", 8),
    ("v128.load16x4_u", 8),
    ("v128.load32x2_s", 8),
    ("v128.load32x2_u", 8),
    ("v128.load8_splat", 1),
    ("v128.load16_splat", 2),
    ("v128.load32_splat", 4),
    ("v128.load64_splat", 8),
    ("v128.load32_zero", 4),
    ("v128.load64_zero", 8),
];

fn loads(ty: &str) -> &'static [(&'static str, u64)] {
    match ty {
        "i32" => I32,
        "i64" => I64,
        "f32" => F32,
        "f64" => F64,
        _ => V128,
    }
}

/// Two and a half as f32, eight and a bit as f64, no zero in any width from the end: no operator
/// traps on it or makes a NaN of it.
const CONTENT: [u8; 4] = [0x10, 0x20, 0x20, 0x40];

/// What the operands that are not loaded are: ones, roughly, in every view.
fn other(ty: &str) -> u128 {
    match ty {
        "i32" | "i64" => 3,
        "f32" => u128::from(1.5f32.to_bits()),
        "f64" => u128::from(1.5f64.to_bits()),
        _ => 0x3ff8_0000_3fc0_0000_3ff8_0000_3fc0_0000,
    }
}

/// An operator of which one operand is loaded.
struct Joined {
    operator: usize,
    position: usize,
    load: &'static str,
    size: u64,
}

fn joined(operators: &[Operator]) -> Vec<Joined> {
    let mut out = Vec::new();
    for (n, operator) in operators.iter().enumerate() {
        for (position, ty) in operator.params.iter().enumerate() {
            let of = |&(load, size)| Joined { operator: n, position, load, size };
            out.extend(loads(ty).iter().map(of));
        }
    }
    out
}

fn wat(operators: &[Operator], joined: &[Joined]) -> String {
    let mut out = String::from("(module (memory (export \"memory\") 1)");
    for operator in operators {
        let (params, gets) = params(&operator.params);
        let ty = format!("{params} (result {})", operator.result);
        export(&mut out, &operator.name, &ty, &format!("({} {})", operator.name, gets.join(" ")));
    }
    for ty in ["i32", "i64", "f32", "f64", "v128"] {
        for (load, _) in loads(ty) {
            let ty = format!("(param i32) (result {ty})");
            export(&mut out, load, &ty, &format!("({load} (local.get 0))"));
        }
    }
    for (n, case) in joined.iter().enumerate() {
        let operator = &operators[case.operator];
        let (params, mut gets) = params(&operator.params);
        // The address is the last parameter.
        gets[case.position] = format!("({} (local.get {}))", case.load, gets.len());
        let ty = format!("{params} (param i32) (result {})", operator.result);
        export(&mut out, &format!("#{n}"), &ty, &format!("({} {})", operator.name, gets.join(" ")));
    }
    out + ")"
}

fn check(operators: &[Operator], configuration: Configuration) {
    let cases = joined(operators);
    let mut guest = Guest::new(&wat(operators, &cases), configuration);
    for (n, byte) in guest.memory().iter_mut().enumerate() {
        *byte = CONTENT[n % 4];
    }
    for (n, case) in cases.iter().enumerate() {
        check_case(&mut guest, &operators[case.operator], case, n);
    }
}

fn check_case(guest: &mut Guest, operator: &Operator, case: &Joined, n: usize) {
    let last = (LENGTH - case.size) as i32;
    let mut args: Vec<Val> = operator.params.iter().map(|ty| value(ty, other(ty))).collect();
    let loaded = guest.call(case.load, &[Val::I32(last)]).unwrap()[0];
    args[case.position] = loaded;
    let expected = guest.bits(&operator.name, &args).unwrap();
    args[case.position] = value(operator.params[case.position], 0);
    let func = guest.func(&format!("#{n}"));
    let at = |guest: &mut Guest, func: Func, address: i32| {
        let args = [&args[..], &[Val::I32(address)]].concat();
        guest.call_func(func, &args).map(|results| bits(&results[0]))
    };
    let what = || format!("{} with operand {} from {}", operator.name, case.position, case.load);
    assert_eq!(at(guest, func, last), Ok(expected), "{}", what());
    assert_eq!(at(guest, func, last + 1), Err(TrapKind::MemoryOutOfBounds), "{}", what());
}

#[test]
fn scalar_operators() {
    for configuration in CONFIGURATIONS {
        check(&operators::scalar(), configuration);
    }
}

#[test]
fn vector_operators_optimised() {
    check(&operators::vector(), CONFIGURATIONS[0]);
    check(&operators::vector(), CONFIGURATIONS[2]);
}

#[test]
fn vector_operators_unoptimised() {
    check(&operators::vector(), CONFIGURATIONS[3]);
}

#[test]
fn vector_operators_of_the_baseline() {
    check(&operators::vector(), CONFIGURATIONS[4]);
    check(&operators::vector(), CONFIGURATIONS[5]);
}

/// Two operators of which the second takes what the first makes of a load, where the first is only
/// another view of the same bits or keeps a part of them: what lies between must not hide the width.
#[test]
fn loads_seen_through_other_operators() {
    let between = [
        ("f64x2.splat", "f64.load", 8, "f64x2.sqrt"),
        ("f32x4.splat", "f32.load", 4, "f32x4.abs"),
        ("i32x4.splat", "i32.load", 4, "i32x4.neg"),
        ("i64x2.splat", "i64.load", 8, "i64x2.abs"),
        ("i16x8.splat", "i32.load16_u", 2, "i16x8.abs"),
        ("i8x16.splat", "i32.load8_u", 1, "i8x16.popcnt"),
        ("i64.reinterpret_f64", "f64.load", 8, "f64.convert_i64_u"),
        ("f64.reinterpret_i64", "i64.load", 8, "f64.sqrt"),
        ("f32.reinterpret_i32", "i32.load", 4, "f32.nearest"),
        ("i32.reinterpret_f32", "f32.load", 4, "i64.extend_i32_u"),
        ("f64.promote_f32", "f32.load", 4, "i32.trunc_sat_f64_s"),
        ("v128.not", "v128.load", 16, "f32x4.sqrt"),
        ("i32x4.neg", "v128.load", 16, "f64x2.convert_low_i32x4_s"),
        ("f64x2.abs", "v128.load64_zero", 8, "f32x4.demote_f64x2_zero"),
        ("f32x4.neg", "v128.load32_zero", 4, "f64x2.promote_low_f32x4"),
    ];
    let scalar =
        ["f64.convert_i64_u", "f64.sqrt", "f32.nearest", "i64.extend_i32_u", "i32.trunc_sat_f64_s"];
    let mut wat = String::from("(module (memory (export \"memory\") 1)");
    for (n, (first, load, _, second)) in between.iter().enumerate() {
        let result = if scalar.contains(second) { &second[..3] } else { "v128" };
        let ty = format!("(param i32) (result {result})");
        export(
            &mut wat,
            &n.to_string(),
            &ty,
            &format!("({second} ({first} ({load} (local.get 0))))"),
        );
    }
    wat += ")";
    for configuration in CONFIGURATIONS {
        let mut guest = Guest::new(&wat, configuration);
        for (n, (first, load, size, second)) in between.iter().enumerate() {
            let what = || format!("{second} {first} {load}");
            let name = n.to_string();
            assert!(guest.bits(&name, &[Val::I32((LENGTH - size) as i32)]).is_ok(), "{}", what());
            let outside = guest.bits(&name, &[Val::I32((LENGTH - size + 1) as i32)]);
            assert_eq!(outside, Err(TrapKind::MemoryOutOfBounds), "{}", what());
        }
    }
}

/// Everything else that takes a value: `@` stands for the load. Type of the operand, type of the
/// result, code.
const CONSUMERS: &[(&str, &str, &str)] = &[
    ("i32", "i32", "(select @ (i32.const 7) (local.get 1))"),
    ("i32", "i32", "(select (i32.const 7) @ (local.get 1))"),
    ("i32", "i32", "(select (i32.const 7) (i32.const 8) @)"),
    ("i64", "i64", "(select @ (i64.const 7) (local.get 1))"),
    ("i64", "i64", "(select (i64.const 7) @ (local.get 1))"),
    ("f32", "f32", "(select @ (f32.const 7) (local.get 1))"),
    ("f32", "f32", "(select (f32.const 7) @ (local.get 1))"),
    ("f64", "f64", "(select @ (f64.const 7) (local.get 1))"),
    ("f64", "f64", "(select (f64.const 7) @ (local.get 1))"),
    ("v128", "v128", "(select @ (v128.const i64x2 7 7) (local.get 1))"),
    ("v128", "v128", "(select (v128.const i64x2 7 7) @ (local.get 1))"),
    ("i32", "i32", "(if (result i32) @ (then (i32.const 1)) (else (i32.const 2)))"),
    ("i32", "i32", "(block (result i32) (drop (br_if 0 (i32.const 5) @)) (i32.const 6))"),
    ("i32", "i32", "(block (block (br_table 0 1 0 @)) (return (i32.const 3))) (i32.const 4)"),
    ("i32", "i32", "(i32.load8_u @)"),
    ("i32", "v128", "(v128.load64_splat offset=3 @)"),
    ("i32", "i32", "(memory.grow (i32.and @ (i32.const 0)))"),
    ("i32", "i32", "(call $i32 @)"),
    ("i64", "i64", "(call $i64 @)"),
    ("f32", "f32", "(call $f32 @)"),
    ("f64", "f64", "(call $f64 @)"),
    ("v128", "v128", "(call $v128 @)"),
    ("i32", "i32", "(call_indirect (param i32) (result i32) @ (i32.const 0))"),
    ("f64", "f64", "(global.set $f64 @) (global.get $f64)"),
    ("v128", "v128", "(global.set $v128 @) (global.get $v128)"),
    ("i32", "i32", "(i32.store (i32.const 64) @) (i32.load (i32.const 64))"),
    ("i32", "i32", "(i32.store16 (i32.const 64) @) (i32.load16_s (i32.const 64))"),
    ("i32", "i32", "(i32.store8 (i32.const 64) @) (i32.load8_s (i32.const 64))"),
    ("i64", "i64", "(i64.store (i32.const 64) @) (i64.load (i32.const 64))"),
    ("i64", "i64", "(i64.store32 (i32.const 64) @) (i64.load32_s (i32.const 64))"),
    ("i64", "i64", "(i64.store16 (i32.const 64) @) (i64.load16_s (i32.const 64))"),
    ("i64", "i64", "(i64.store8 (i32.const 64) @) (i64.load8_s (i32.const 64))"),
    ("f32", "f32", "(f32.store (i32.const 64) @) (f32.load (i32.const 64))"),
    ("f64", "f64", "(f64.store (i32.const 64) @) (f64.load (i32.const 64))"),
    ("v128", "v128", "(v128.store (i32.const 64) @) (v128.load (i32.const 64))"),
    ("v128", "i32", "(v128.store8_lane 5 (i32.const 64) @) (i32.load8_u (i32.const 64))"),
    ("v128", "i32", "(v128.store16_lane 3 (i32.const 64) @) (i32.load16_u (i32.const 64))"),
    ("v128", "i32", "(v128.store32_lane 1 (i32.const 64) @) (i32.load (i32.const 64))"),
    ("v128", "i64", "(v128.store64_lane 1 (i32.const 64) @) (i64.load (i32.const 64))"),
    ("v128", "v128", "(v128.load8_lane 15 (local.get 0) @)"),
    ("v128", "v128", "(v128.load64_lane 0 (i32.const 64) @)"),
    ("i32", "i32", "(i32.atomic.rmw.add (i32.const 64) @)"),
    ("i32", "i32", "(i32.atomic.rmw.cmpxchg (i32.const 64) @ (i32.const 9))"),
    ("i64", "i64", "(i64.atomic.rmw.xor (i32.const 64) @)"),
    ("i64", "i64", "(i64.atomic.rmw.cmpxchg (i32.const 64) (i64.const 9) @)"),
];

#[test]
fn everything_else_that_takes_a_value() {
    let mut wat = String::from(
        "(module (memory (export \"memory\") 1) (global $f64 (mut f64) (f64.const 0))
            (global $v128 (mut v128) (v128.const i64x2 0 0)) (table 1 funcref)
            (elem (i32.const 0) $i32)",
    );
    for ty in ["i32", "i64", "f32", "f64", "v128"] {
        wat += &format!("(func ${ty} (param {ty}) (result {ty}) (local.get 0))");
    }
    for (n, (operand, result, code)) in CONSUMERS.iter().enumerate() {
        for (load, _) in loads(operand) {
            let code = code.replace('@', &format!("({load} (local.get 0))"));
            let ty = format!("(param i32 i32) (result {result})");
            export(&mut wat, &format!("{n} {load}"), &ty, &code);
        }
    }
    wat += ")";
    for configuration in CONFIGURATIONS {
        let mut guest = Guest::new(&wat, configuration);
        for (n, (operand, _, code)) in CONSUMERS.iter().enumerate() {
            for &(load, size) in loads(operand) {
                let func = guest.func(&format!("{n} {load}"));
                let mut at = |address: u64, choice: i32| {
                    // Small numbers, for some consumers take them as addresses.
                    let pattern = [16, 0, 0, 0];
                    let memory = guest.memory().iter_mut().enumerate();
                    memory.for_each(|(n, byte)| *byte = pattern[n % 4]);
                    let args = [Val::I32(address as i32), Val::I32(choice)];
                    guest.call_func(func, &args).map(|results| bits(&results[0]))
                };
                for choice in [0, 1] {
                    let end = at(LENGTH - size, choice);
                    assert!(end.is_ok(), "{code} {load}: {end:?}");
                    assert_eq!(end, at(LENGTH / 2 - size, choice), "{code} {load}");
                    let outside = at(LENGTH - size + 1, choice);
                    assert_eq!(outside, Err(TrapKind::MemoryOutOfBounds), "{code} {load}");
                }
            }
        }
    }
}
