//! Operators on floats against a model in Rust, bit for bit, over special values: scalars, and the
//! same in every lane of a vector.

use coracle_engine::runtime::{TrapKind, Val};

use crate::{CONFIGURATIONS, Guest, Numbers, bits, export, value};

/// Where operators change what they do, as f64; f32 has the same rounded.
fn edges() -> Vec<f64> {
    let mut out = vec![0.0, f64::INFINITY, f64::NAN, f64::MIN_POSITIVE, f64::from_bits(1)];
    out.extend([f64::MAX, f64::from(f32::MAX), f64::from(f32::MIN_POSITIVE), 1e-45, 1e-46]);
    out.extend([0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 3.5, 1e10, 1e100, std::f64::consts::PI]);
    out.extend([0.499_999_999_999_999_94, 0.499_999_97, 0.500_000_06, 1.0 - f64::EPSILON]);
    with_negative(out)
}

/// The same, and around every power of two that is the end of something.
fn special() -> Vec<f64> {
    let mut out = Vec::new();
    for power in [7, 8, 15, 16, 22, 23, 24, 30, 31, 32, 51, 52, 53, 62, 63, 64, 127, 128] {
        let centre = 2f64.powi(power);
        out.extend([centre.next_down(), centre, centre.next_up()]);
        out.extend([centre - 1.0, centre - 0.5, centre + 0.5, centre + 1.0]);
        out.extend([f64::from((centre as f32).next_down()), f64::from((centre as f32).next_up())]);
    }
    [edges(), with_negative(out)].concat()
}

fn with_negative(mut values: Vec<f64>) -> Vec<f64> {
    let negative: Vec<f64> = values.iter().map(|value| -value).collect();
    values.extend(negative);
    values
}

/// What the model says of a result.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    Bits(u128),
    /// Any arithmetic NaN: quiet, whatever its sign and payload.
    Nan,
}

/// A float type, for what is the same in both.
trait Float: Copy + PartialOrd + std::fmt::Debug {
    const TYPE: &'static str;
    const LANES: &'static str;
    fn of(value: f64) -> Self;
    fn bits(self) -> u128;
    fn is(self) -> Is;
    fn is_arithmetic_nan(bits: u128) -> bool;
    fn unary(name: &str, a: Self) -> Self;
    fn binary(name: &str, a: Self, b: Self) -> Option<Is>;
}

macro_rules! float {
    ($ty:ident, $lanes:literal, $quiet:expr) => {
        impl Float for $ty {
            const TYPE: &'static str = stringify!($ty);
            const LANES: &'static str = $lanes;
            fn of(value: f64) -> $ty {
                value as $ty
            }
            fn bits(self) -> u128 {
                u128::from(self.to_bits())
            }
            fn is(self) -> Is {
                if self.is_nan() { Is::Nan } else { Is::Bits(self.bits()) }
            }
            fn is_arithmetic_nan(bits: u128) -> bool {
                bits & $quiet == $quiet
            }
            fn unary(name: &str, a: $ty) -> $ty {
                match name {
                    "ceil" => a.ceil(),
                    "floor" => a.floor(),
                    "trunc" => a.trunc(),
                    "nearest" => a.round_ties_even(),
                    "sqrt" => a.sqrt(),
                    other => panic!("{other}"),
                }
            }
            fn binary(name: &str, a: $ty, b: $ty) -> Option<Is> {
                let nan = a.is_nan() || b.is_nan();
                let below = a < b || a == b && a.is_sign_negative();
                Some(match name {
                    "add" => (a + b).is(),
                    "sub" => (a - b).is(),
                    "mul" => (a * b).is(),
                    "div" => (a / b).is(),
                    "min" | "max" if nan => Is::Nan,
                    "min" => Is::Bits(if below { a } else { b }.bits()),
                    "max" => Is::Bits(if below { b } else { a }.bits()),
                    // These only choose: a NaN keeps its bits.
                    "pmin" => Is::Bits(if b < a { b } else { a }.bits()),
                    "pmax" => Is::Bits(if a < b { b } else { a }.bits()),
                    "copysign" => Is::Bits(a.copysign(b).bits()),
                    _ => return None,
                })
            }
        }
    };
}

float!(f32, "f32x4", 0x7fc0_0000);
float!(f64, "f64x2", 0x7ff8_0000_0000_0000);

fn agrees<F: Float>(found: u128, expected: Is) -> bool {
    match expected {
        Is::Bits(bits) => found == bits,
        Is::Nan => F::is_arithmetic_nan(found),
    }
}

fn splat<F: Float>(value: F) -> u128 {
    match F::TYPE {
        "f32" => value.bits() * 0x0000_0001_0000_0001_0000_0001_0000_0001,
        _ => value.bits() * 0x0000_0000_0000_0001_0000_0000_0000_0001,
    }
}

/// The lowest lane, if all are the same.
fn lane<F: Float>(vector: u128) -> u128 {
    let (bits, lanes) = if F::TYPE == "f32" { (32, 4) } else { (64, 2) };
    let lane = |n: u32| vector >> (n * bits) & ((1 << bits) - 1);
    assert!((1..lanes).all(|n| lane(n) == lane(0)), "{vector:#x}");
    lane(0)
}

const UNARY: &[&str] = &["ceil", "floor", "trunc", "nearest", "sqrt"];
const BINARY: &[&str] = &["add", "sub", "mul", "div", "min", "max"];

fn check_arithmetic<F: Float>() {
    let (ty, lanes) = (F::TYPE, F::LANES);
    let mut wat = String::from("(module");
    let one = |ty: &str| format!("(param {ty}) (result {ty})");
    let two = |ty: &str| format!("(param {ty} {ty}) (result {ty})");
    let mut add = |name: String, ty: String, gets: &str| {
        export(&mut wat, &name, &ty, &format!("({name} {gets})"));
    };
    for name in UNARY {
        add(format!("{ty}.{name}"), one(ty), "(local.get 0)");
        add(format!("{lanes}.{name}"), one("v128"), "(local.get 0)");
    }
    for name in BINARY {
        add(format!("{ty}.{name}"), two(ty), "(local.get 0) (local.get 1)");
        add(format!("{lanes}.{name}"), two("v128"), "(local.get 0) (local.get 1)");
    }
    add(format!("{ty}.copysign"), two(ty), "(local.get 0) (local.get 1)");
    for name in ["pmin", "pmax"] {
        add(format!("{lanes}.{name}"), two("v128"), "(local.get 0) (local.get 1)");
    }
    wat += ")";
    let values: Vec<F> = special().into_iter().map(F::of).collect();
    let pairs: Vec<F> = edges().into_iter().map(F::of).collect();
    for configuration in CONFIGURATIONS {
        let mut guest = Guest::new(&wat, configuration);
        for name in UNARY {
            check_unary(&mut guest, name, &values);
        }
        for name in BINARY.iter().chain(&["copysign"]) {
            check_binary(&mut guest, name, &pairs, false);
        }
        for name in BINARY.iter().chain(&["pmin", "pmax"]) {
            check_binary(&mut guest, name, &pairs, true);
        }
    }
}

fn check_unary<F: Float>(guest: &mut Guest, name: &str, values: &[F]) {
    let scalar = guest.func(&format!("{}.{name}", F::TYPE));
    let vector = guest.func(&format!("{}.{name}", F::LANES));
    for &a in values {
        let expected = F::unary(name, a).is();
        let found = bits(&guest.call_func(scalar, &[value(F::TYPE, a.bits())]).unwrap()[0]);
        assert!(agrees::<F>(found, expected), "{} {name} {a:?}: {found:#x}", F::TYPE);
        let found = bits(&guest.call_func(vector, &[Val::V128(splat(a))]).unwrap()[0]);
        let found = lane::<F>(found);
        assert!(agrees::<F>(found, expected), "{} {name} {a:?}: {found:#x}", F::LANES);
    }
}

fn check_binary<F: Float>(guest: &mut Guest, name: &str, values: &[F], in_lanes: bool) {
    let prefix = if in_lanes { F::LANES } else { F::TYPE };
    let func = guest.func(&format!("{prefix}.{name}"));
    let operand = |a: F| if in_lanes { Val::V128(splat(a)) } else { value(F::TYPE, a.bits()) };
    for &a in values {
        for &b in values {
            let expected = F::binary(name, a, b).unwrap();
            let found = bits(&guest.call_func(func, &[operand(a), operand(b)]).unwrap()[0]);
            let found = if in_lanes { lane::<F>(found) } else { found };
            assert!(agrees::<F>(found, expected), "{prefix}.{name} {a:?} {b:?}: {found:#x}");
        }
    }
}

#[test]
fn arithmetic_of_f32() {
    check_arithmetic::<f32>();
}

#[test]
fn arithmetic_of_f64() {
    check_arithmetic::<f64>();
}

/// A float truncated to an integer type from `low` to `high`, or the trap.
/// Comparisons, negated any number of times, as values and as what branches and selections go by.
fn check_comparisons<F: Float>() {
    let names = ["eq", "ne", "lt", "gt", "le", "ge"];
    let uses = [
        ("value", "CONDITION"),
        ("br_if", "(block CONDITION (br_if 0) (return (i32.const 0))) (i32.const 1)"),
        ("if", "CONDITION (if (result i32) (then (i32.const 1)) (else (i32.const 0)))"),
        ("select", "(i32.const 1) (i32.const 0) CONDITION (select)"),
    ];
    let (ty, mut wat) = (F::TYPE, String::from("(module"));
    for name in names {
        for (form, body) in uses {
            for negations in 0..4 {
                let compared = format!("(local.get 0) (local.get 1) {ty}.{name}");
                let body = body.replace("CONDITION", &(compared + &" i32.eqz".repeat(negations)));
                let params = format!("(param {ty} {ty}) (result i32)");
                export(&mut wat, &format!("{form} {name} {negations}"), &params, &body);
            }
        }
    }
    wat += ")";
    let values = [-0.0, 0.0, 1.0, -1.5, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -f64::NAN];
    let values = values.map(F::of);
    for configuration in CONFIGURATIONS {
        let mut guest = Guest::new(&wat, configuration);
        for (a, b) in values.iter().flat_map(|&a| values.iter().map(move |&b| (a, b))) {
            for (n, holds) in [a == b, a != b, a < b, a > b, a <= b, a >= b].into_iter().enumerate()
            {
                for ((form, _), negations) in uses.iter().flat_map(|u| (0..4).map(move |n| (u, n)))
                {
                    let name = format!("{form} {} {negations}", names[n]);
                    let args = [value(ty, a.bits()), value(ty, b.bits())];
                    let found = guest.bits(&name, &args).unwrap();
                    let expected = u128::from(holds ^ (negations % 2 == 1));
                    assert_eq!(found, expected, "{configuration:?} {ty} {name} {a:?} {b:?}");
                }
            }
        }
    }
}

#[test]
fn comparisons_of_f32() {
    check_comparisons::<f32>();
}

#[test]
fn comparisons_of_f64() {
    check_comparisons::<f64>();
}

fn truncate(value: f64, low: i128, high: i128) -> Result<i128, TrapKind> {
    if value.is_nan() {
        return Err(TrapKind::InvalidConversionToInteger);
    }
    // Beyond what any of the types holds, the cast saturates far outside.
    let whole = value.trunc() as i128;
    if (low..=high).contains(&whole) { Ok(whole) } else { Err(TrapKind::IntegerOverflow) }
}

fn saturate(value: f64, low: i128, high: i128) -> i128 {
    if value.is_nan() { 0 } else { (value.trunc() as i128).clamp(low, high) }
}

#[test]
fn floats_to_integers() {
    let kinds = [("i32", "s"), ("i32", "u"), ("i64", "s"), ("i64", "u")];
    let mut wat = String::from("(module");
    for (to, sign) in kinds {
        for from in ["f32", "f64"] {
            for trunc in ["trunc", "trunc_sat"] {
                let name = format!("{to}.{trunc}_{from}_{sign}");
                let ty = format!("(param {from}) (result {to})");
                export(&mut wat, &name, &ty, &format!("({name} (local.get 0))"));
            }
        }
    }
    for name in ["f32x4_s", "f32x4_u", "f64x2_s_zero", "f64x2_u_zero"] {
        let name = format!("i32x4.trunc_sat_{name}");
        export(&mut wat, &name, "(param v128) (result v128)", &format!("({name} (local.get 0))"));
    }
    wat += ")";
    for configuration in CONFIGURATIONS {
        let mut guest = Guest::new(&wat, configuration);
        for number in special() {
            for (to, sign) in kinds {
                let mask = if to == "i32" { u128::from(u32::MAX) } else { u128::from(u64::MAX) };
                let (low, high) = match sign {
                    "s" => (-(mask as i128 / 2) - 1, mask as i128 / 2),
                    _ => (0, mask as i128),
                };
                for (from, number) in [("f32", f64::from(number as f32)), ("f64", number)] {
                    check_conversion(&mut guest, &[to, from, sign], number, (low, high), mask);
                }
            }
        }
    }
}

fn check_conversion(
    guest: &mut Guest,
    [to, from, sign]: &[&str; 3],
    number: f64,
    (low, high): (i128, i128),
    mask: u128,
) {
    let arg = if *from == "f32" { Val::F32(number as f32) } else { Val::F64(number) };
    let what = || format!("{from} {number:e} to {to} {sign}");
    let expected = truncate(number, low, high).map(|value| value as u128 & mask);
    let found = guest.bits(&format!("{to}.trunc_{from}_{sign}"), &[arg]);
    assert_eq!(found, expected, "{}", what());
    let expected = saturate(number, low, high) as u128 & mask;
    let found = guest.bits(&format!("{to}.trunc_sat_{from}_{sign}"), &[arg]);
    assert_eq!(found, Ok(expected), "{}", what());
    if *to == "i32" {
        let (lanes, operand, lanes_set) = match *from {
            "f32" => (format!("f32x4_{sign}"), splat(number as f32), 4),
            _ => (format!("f64x2_{sign}_zero"), splat(number), 2),
        };
        let expected = (0..lanes_set).fold(0, |vector, n| vector | expected << (32 * n));
        let found = guest.bits(&format!("i32x4.trunc_sat_{lanes}"), &[Val::V128(operand)]);
        assert_eq!(found, Ok(expected), "{}", what());
    }
}

/// Whole numbers around everything that rounds.
fn whole() -> Vec<i64> {
    let mut out = vec![0];
    for power in [7, 8, 15, 16, 23, 24, 25, 31, 32, 33, 52, 53, 54, 55, 62, 63] {
        let centre = 1i128 << power;
        let around = [-1025, -513, -129, -65, -3, -2, -1, 0, 1, 2, 3, 65, 129, 513, 1025];
        out.extend(around.iter().map(|delta| (centre + delta) as i64));
    }
    let mut numbers = Numbers(7);
    out.extend((0..200).map(|n| (numbers.next() >> (n % 64)) as i64));
    let negative: Vec<i64> = out.iter().map(|value| value.wrapping_neg()).collect();
    out.extend(negative);
    out
}

#[test]
fn integers_to_floats_and_floats_to_each_other() {
    let mut wat = String::from("(module");
    for to in ["f32", "f64"] {
        for from in ["i32_s", "i32_u", "i64_s", "i64_u"] {
            let name = format!("{to}.convert_{from}");
            let ty = format!("(param {}) (result {to})", &from[..3]);
            export(&mut wat, &name, &ty, &format!("({name} (local.get 0))"));
        }
    }
    let vectors = ["f32x4.convert_i32x4_s", "f32x4.convert_i32x4_u", "f64x2.convert_low_i32x4_s"];
    let more = ["f64x2.convert_low_i32x4_u", "f32x4.demote_f64x2_zero", "f64x2.promote_low_f32x4"];
    for name in vectors.iter().chain(&more) {
        export(&mut wat, name, "(param v128) (result v128)", &format!("({name} (local.get 0))"));
    }
    export(&mut wat, "demote", "(param f64) (result f32)", "(f32.demote_f64 (local.get 0))");
    export(&mut wat, "promote", "(param f32) (result f64)", "(f64.promote_f32 (local.get 0))");
    wat += ")";
    for configuration in CONFIGURATIONS {
        let mut guest = Guest::new(&wat, configuration);
        for number in whole() {
            check_integer(&mut guest, number);
        }
        for number in special() {
            check_width(&mut guest, number);
        }
    }
}

fn check_integer(guest: &mut Guest, number: i64) {
    let short = number as i32;
    let scalars: [(&str, Val, f32, f64); 4] = [
        ("i32_s", Val::I32(short), short as f32, f64::from(short)),
        ("i32_u", Val::I32(short), short as u32 as f32, f64::from(short as u32)),
        ("i64_s", Val::I64(number), number as f32, number as f64),
        ("i64_u", Val::I64(number), number as u64 as f32, number as u64 as f64),
    ];
    for (from, arg, single, double) in scalars {
        let found = guest.bits(&format!("f32.convert_{from}"), &[arg]);
        assert_eq!(found, Ok(single.bits()), "f32 of {from} {number}");
        let found = guest.bits(&format!("f64.convert_{from}"), &[arg]);
        assert_eq!(found, Ok(double.bits()), "f64 of {from} {number}");
        if let Some(sign) = from.strip_prefix("i32_") {
            let operand = u128::from(short as u32) * 0x0000_0001_0000_0001_0000_0001_0000_0001;
            let found = guest.bits(&format!("f32x4.convert_i32x4_{sign}"), &[operand.into()]);
            assert_eq!(found, Ok(splat(single)), "f32x4 of {from} {short}");
            let found = guest.bits(&format!("f64x2.convert_low_i32x4_{sign}"), &[operand.into()]);
            assert_eq!(found, Ok(splat(double)), "f64x2 of {from} {short}");
        }
    }
}

fn check_width(guest: &mut Guest, number: f64) {
    let single = number as f32;
    let found = guest.bits("demote", &[Val::F64(number)]).unwrap();
    assert!(agrees::<f32>(found, single.is()), "demote {number:e}: {found:#x}");
    let found = guest.bits("promote", &[Val::F32(single)]).unwrap();
    assert!(agrees::<f64>(found, f64::from(single).is()), "promote {single:e}: {found:#x}");
    let found = guest.bits("f32x4.demote_f64x2_zero", &[Val::V128(splat(number))]).unwrap();
    assert_eq!(found >> 64, 0, "demote {number:e}");
    assert!(agrees::<f32>(found & 0xffff_ffff, single.is()), "demote {number:e}: {found:#x}");
    let found = guest.bits("f64x2.promote_low_f32x4", &[Val::V128(splat(single))]).unwrap();
    assert!(agrees::<f64>(lane::<f64>(found), f64::from(single).is()), "promote {single:e}");
}
