//! Bits of NaNs, quiet and signalling, with payloads: whatever only moves a value leaves all of
//! them as they are.

use coracle_engine::runtime::{Caller, Global, Linker, Val};

use crate::{CONFIGURATIONS, Configuration, Guest, bits, export, value};

const F32: &[u32] = &[
    0x7fc0_0000,
    0xffc0_0000,
    0x7f80_0001,
    0xff80_0001,
    0x7fa0_0000,
    0xffbf_ffff,
    0x7fc1_2345,
    0xffff_ffff,
    0x7f80_0000,
    0x8000_0000,
];
const F64: &[u64] = &[
    0x7ff8_0000_0000_0000,
    0xfff8_0000_0000_0000,
    0x7ff0_0000_0000_0001,
    0xfff0_0000_0000_0001,
    0x7ff4_0000_0000_0000,
    0xfff7_ffff_ffff_ffff,
    0x7ff8_1234_5678_9abc,
    0xffff_ffff_ffff_ffff,
    0x7ff0_0000_0000_0000,
    0x8000_0000_0000_0000,
];

/// Every pattern of a type; vectors hold a mix of them.
fn patterns(ty: &str) -> Vec<u128> {
    let f32 = || F32.iter().map(|&bits| u128::from(bits));
    let f64 = || F64.iter().map(|&bits| u128::from(bits));
    match ty {
        "f32" => f32().collect(),
        "f64" => f64().collect(),
        _ => {
            let pairs = f64().zip(f64().rev()).map(|(low, high)| high << 64 | low);
            let fours = f32().zip(f32().rev()).map(|(a, b)| a | b << 32 | a << 64 | b << 96);
            pairs.chain(fours).collect()
        }
    }
}

/// Ways for a value of type `T`, the parameter, to its result; `#` stands for its width in bits.
const WAYS: &[(&str, &str)] = &[
    ("parameter", "(local.get 0)"),
    ("local", "(local $x T) (local.set $x (local.get 0)) (local.get $x)"),
    ("tee", "(local $x T) (drop (local.tee $x (local.get 0))) (local.get $x)"),
    ("global", "(global.set $T (local.get 0)) (global.get $T)"),
    ("memory", "(T.store (i32.const 8) (local.get 0)) (T.load (i32.const 8))"),
    (
        "memory twice",
        "(T.store (i32.const 8) (local.get 0))
        (T.store (i32.const 41) (T.load (i32.const 8))) (T.load (i32.const 41))",
    ),
    ("select", "(select (local.get 0) (T.zero) (i32.load8_u (i32.const 0)))"),
    ("other select", "(select (T.zero) (local.get 0) (i32.load8_u (i32.const 1)))"),
    ("block", "(block (result T) (br 0 (local.get 0)))"),
    ("if", "(if (result T) (i32.load8_u (i32.const 0)) (then (local.get 0)) (else (T.zero)))"),
    (
        "branch",
        "(block (result T) (drop (br_if 0 (local.get 0) (i32.load8_u (i32.const 0))))
        (T.zero))",
    ),
    ("table", "(block (result T) (br_table 0 0 (local.get 0) (i32.load8_u (i32.const 0))))"),
    (
        "loop",
        "(local $n i32) (local.get 0) (loop (param T) (result T)
        (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (br_if 0 (i32.lt_u (local.get $n) (i32.const 3))))",
    ),
    ("call", "(call $T (local.get 0))"),
    (
        "call with many",
        "(call $many_T (local.get 0) (T.zero) (T.zero) (T.zero) (T.zero) (T.zero)
        (T.zero) (T.zero) (T.zero) (T.zero) (T.zero) (local.get 0)) (drop) (drop) (drop) (drop)
        (drop) (drop) (drop) (drop) (drop) (drop) (drop)",
    ),
    (
        "last of many",
        "(call $many_T (T.zero) (T.zero) (T.zero) (T.zero) (T.zero) (T.zero) (T.zero)
        (T.zero) (T.zero) (T.zero) (T.zero) (local.get 0)) (global.set $T) (drop) (drop) (drop)
        (drop) (drop) (drop) (drop) (drop) (drop) (drop) (drop) (global.get $T)",
    ),
    ("indirect", "(call_indirect (param T) (result T) (local.get 0) (i32.const N))"),
    ("tail", "(return_call $T (local.get 0))"),
    ("host", "(call $host_T (local.get 0))"),
    ("host and back", "(call $host_T (call $host_T (local.get 0)))"),
];

/// Ways that look at the bits as a number.
const VIEWS: &[(&str, &str)] = &[
    ("f32", "(f32.reinterpret_i32 (i32.reinterpret_f32 (local.get 0)))"),
    (
        "f32",
        "(f32.store (i32.const 8) (local.get 0))
        (f32.reinterpret_i32 (i32.load (i32.const 8)))",
    ),
    (
        "f32",
        "(i32.store (i32.const 8) (i32.reinterpret_f32 (local.get 0))) (f32.load (i32.const 8))",
    ),
    ("f32", "(f32.neg (f32.neg (local.get 0)))"),
    ("f32", "(f32.copysign (local.get 0) (local.get 0))"),
    ("f32", "(f32.copysign (f32.abs (local.get 0)) (local.get 0))"),
    ("f32", "(f32x4.extract_lane 2 (f32x4.splat (local.get 0)))"),
    ("f32", "(f32x4.extract_lane 3 (f32x4.replace_lane 3 (v128.const i64x2 0 0) (local.get 0)))"),
    ("f64", "(f64.reinterpret_i64 (i64.reinterpret_f64 (local.get 0)))"),
    (
        "f64",
        "(f64.store (i32.const 8) (local.get 0))
        (f64.reinterpret_i64 (i64.load (i32.const 8)))",
    ),
    (
        "f64",
        "(i64.store (i32.const 8) (i64.reinterpret_f64 (local.get 0))) (f64.load (i32.const 8))",
    ),
    ("f64", "(f64.neg (f64.neg (local.get 0)))"),
    ("f64", "(f64.copysign (local.get 0) (local.get 0))"),
    ("f64", "(f64.copysign (f64.abs (local.get 0)) (local.get 0))"),
    ("f64", "(f64x2.extract_lane 1 (f64x2.splat (local.get 0)))"),
    ("f64", "(f64x2.extract_lane 0 (f64x2.replace_lane 0 (v128.const i64x2 0 0) (local.get 0)))"),
    ("v128", "(f32x4.neg (f32x4.neg (local.get 0)))"),
    ("v128", "(f64x2.neg (f64x2.neg (local.get 0)))"),
    ("v128", "(f64x2.replace_lane 0 (local.get 0) (f64x2.extract_lane 0 (local.get 0)))"),
    ("v128", "(f32x4.replace_lane 1 (local.get 0) (f32x4.extract_lane 1 (local.get 0)))"),
    ("v128", "(i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 (local.get 0) (local.get 0))"),
    (
        "v128",
        "(v128.load64_lane 1 (i32.const 64) (local.get 0)) (drop)
        (v128.store (i32.const 8) (local.get 0)) (v128.load (i32.const 8))",
    ),
    ("v128", "(v128.bitselect (local.get 0) (v128.const i64x2 0 0) (v128.const i64x2 -1 -1))"),
];

const TYPES: [&str; 3] = ["f32", "f64", "v128"];

fn zero(ty: &str) -> String {
    match ty {
        "v128" => "v128.const i64x2 0 0".to_owned(),
        ty => format!("{ty}.const 0"),
    }
}

fn wat() -> String {
    let mut out = String::from("(module ");
    for ty in TYPES {
        out += &format!("(import \"host\" \"{ty}\" (func $host_{ty} (param {ty}) (result {ty})))");
    }
    out += "(memory 1) (data (i32.const 0) \"\\01\\00\") (table 3 funcref)
        (elem (i32.const 0) $f32 $f64 $v128)";
    for (n, ty) in TYPES.into_iter().enumerate() {
        let (twelve, gets) = (
            format!("{ty} ").repeat(12),
            (0..12).map(|n| format!("(local.get {n})")).collect::<String>(),
        );
        out += &format!(
            "(global ${ty} (export \"global {ty}\") (mut {ty}) ({zero}))
             (func ${ty} (param {ty}) (result {ty}) (local.get 0))
             (func $many_{ty} (param {twelve}) (result {twelve}) {gets})",
            zero = zero(ty)
        );
        for (way, code) in WAYS {
            let code =
                code.replace("T.zero", &zero(ty)).replace('T', ty).replace('N', &n.to_string());
            export(&mut out, &format!("{ty} {way}"), &format!("(param {ty}) (result {ty})"), &code);
        }
    }
    for (n, (ty, code)) in VIEWS.iter().enumerate() {
        export(&mut out, &format!("view {n}"), &format!("(param {ty}) (result {ty})"), code);
    }
    out + ")"
}

fn define(linker: &mut Linker) {
    linker.func_wrap("host", "f32", |_: Caller<'_>, value: f32| value);
    linker.func_wrap("host", "f64", |_: Caller<'_>, value: f64| value);
    linker.func_wrap("host", "v128", |_: Caller<'_>, value: u128| value);
}

fn check(configuration: Configuration) {
    let mut guest = Guest::with_imports(&wat(), configuration, define);
    for ty in TYPES {
        for pattern in patterns(ty) {
            for (way, _) in WAYS {
                let found = guest.bits(&format!("{ty} {way}"), &[value(ty, pattern)]);
                assert_eq!(found, Ok(pattern), "{ty} {way} {pattern:#x} {configuration:?}");
            }
            check_global(&mut guest, ty, pattern);
        }
    }
    for (n, (ty, code)) in VIEWS.iter().enumerate() {
        for pattern in patterns(ty) {
            let found = guest.bits(&format!("view {n}"), &[value(ty, pattern)]);
            assert_eq!(found, Ok(pattern), "{code} {pattern:#x} {configuration:?}");
        }
    }
}

/// The host sets and reads a guest's global.
fn check_global(guest: &mut Guest, ty: &str, pattern: u128) {
    let global = guest.instance.global(&guest.store, &format!("global {ty}")).unwrap();
    global.set(&mut guest.store, value(ty, pattern)).unwrap();
    assert_eq!(bits(&global.get(&guest.store)), pattern);
}

#[test]
fn bits_of_nans_stay_on_every_way() {
    for configuration in CONFIGURATIONS {
        check(configuration);
    }
}

#[test]
fn constants_and_globals_of_the_host_keep_their_bits() {
    for configuration in CONFIGURATIONS {
        let mut wat = String::from("(module (import \"host\" \"f32\" (global $g f32))");
        for (n, bits) in F32.iter().enumerate() {
            let sign = if bits >> 31 == 1 { "-" } else { "" };
            let payload = bits & 0x7f_ffff;
            if bits & 0x7f80_0000 == 0x7f80_0000 && payload != 0 {
                let body = format!("(f32.const {sign}nan:{payload:#x})");
                export(&mut wat, &n.to_string(), "(result f32)", &body);
            }
        }
        export(&mut wat, "imported", "(result f32)", "(global.get $g)");
        let engine = coracle_engine::runtime::Engine::new();
        let image =
            coracle_engine::compile::compile((wat + ")").as_bytes(), &configuration.settings());
        let module = coracle_engine::runtime::Module::from_bytes(&engine, &image.unwrap()).unwrap();
        for &pattern in F32 {
            let mut store = coracle_engine::runtime::Store::new(&engine).unwrap();
            let mut linker = Linker::new(&engine);
            let initial = Val::F32(f32::from_bits(pattern));
            let ty = coracle_engine::module::types::GlobalType {
                content: coracle_engine::module::types::ValType::F32,
                mutable: false,
            };
            linker.define("host", "f32", Global::new(&mut store, ty, initial).unwrap());
            let instance = linker.instantiate(&mut store, &module).unwrap();
            let mut guest = Guest { store, instance, _claim: None };
            assert_eq!(guest.bits("imported", &[]), Ok(u128::from(pattern)));
            for (n, &pattern) in F32.iter().enumerate().take(8) {
                assert_eq!(guest.bits(&n.to_string(), &[]), Ok(u128::from(pattern)));
            }
        }
    }
}
