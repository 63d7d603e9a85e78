//! Constant operands: what the compiler computes or chooses instructions by must be what the
//! operator does. Every operator against itself with operands that the compiler does not know, and
//! those that code generators have got wrong (shuffles, shifts of lanes, divisions, selections)
//! against models.

use coracle_engine::runtime::{TrapKind, Val};

use crate::operators::{self, Operator, SHUFFLES, shuffle};
use crate::{CONFIGURATIONS, Configuration, Guest, Numbers, constant, export, params, value};

/// Constants of a type: edges, then some that look random.
fn pool(ty: &str, numbers: &mut Numbers) -> Vec<u128> {
    let mut out: Vec<u128> = match ty {
        "i32" => vec![0, 1, 2, 7, 31, 32, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0xffff_fff8],
        "i64" => vec![0, 1, 3, 63, 64, 1 << 32, i64::MAX as u128, 1 << 63, u128::from(u64::MAX)],
        "f32" => [0.0, -0.0, 1.0, -1.5, 2.5, 1e30, -1e-40, f32::INFINITY, 3e9, f32::MAX]
            .map(|value: f32| u128::from(value.to_bits()))
            .to_vec(),
        "f64" => [0.0, -0.0, 1.0, -1.5, 2.5, 1e300, 1e-310, f64::NEG_INFINITY, 3e9, 1e19]
            .map(|value: f64| u128::from(value.to_bits()))
            .to_vec(),
        _ => vec![
            0,
            u128::MAX,
            1,
            0x8000_8000_8000_8000_8000_8000_8000_8000,
            0x7fff_ffff_ffff_ffff_8000_0000_0000_0000,
            0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100,
            0x80ff_007f_10f0_0100_ffff_0000_00ff_ff00,
            0x3f80_0000_bfc0_0000_4020_0000_8000_0000,
            0x3ff8_0000_0000_0000_c002_0000_0000_0000,
        ],
    };
    let wide = ty == "v128";
    out.extend((0..4).map(|_| if wide { numbers.next_wide() } else { numbers.next().into() }));
    out
}

/// Operands of an operator with, by bits, those that are constants.
struct Case {
    operator: usize,
    operands: Vec<u128>,
    constants: u32,
}

fn cases(operators: &[Operator]) -> Vec<Case> {
    let mut numbers = Numbers(1);
    let mut out = Vec::new();
    for (n, operator) in operators.iter().enumerate() {
        let pools: Vec<_> = operator.params.iter().map(|ty| pool(ty, &mut numbers)).collect();
        for round in 0..8 {
            let operands: Vec<u128> = pools
                .iter()
                .map(|pool| pool[(numbers.next() as usize + round) % pool.len()])
                .collect();
            let constants = 1..1 << operator.params.len();
            out.extend(constants.map(|constants| Case {
                operator: n,
                operands: operands.clone(),
                constants,
            }));
        }
    }
    out
}

fn wat(operators: &[Operator], cases: &[Case]) -> String {
    let mut out = String::from("(module");
    for operator in operators {
        let (params, gets) = params(&operator.params);
        let ty = format!("{params} (result {})", operator.result);
        export(&mut out, &operator.name, &ty, &format!("({} {})", operator.name, gets.join(" ")));
    }
    for (n, case) in cases.iter().enumerate() {
        let operator = &operators[case.operator];
        let (params, mut gets) = params(&operator.params);
        for (n, ty) in operator.params.iter().enumerate() {
            if case.constants >> n & 1 == 1 {
                gets[n] = constant(ty, case.operands[n]);
            }
        }
        let ty = format!("{params} (result {})", operator.result);
        export(&mut out, &format!("#{n}"), &ty, &format!("({} {})", operator.name, gets.join(" ")));
    }
    out + ")"
}

/// The same bits, where NaNs that arithmetic makes may differ in theirs.
fn same(name: &str, a: u128, b: u128) -> bool {
    let exact = ["abs", "neg", "copysign", "pmin", "pmax", "splat", "lane", "reinterpret"];
    if a == b {
        return true;
    }
    let nan32 = |bits: u128| f32::from_bits(bits as u32).is_nan();
    let nan64 = |bits: u128| f64::from_bits(bits as u64).is_nan();
    let lanes = |bits: u32, nan: &dyn Fn(u128) -> bool| {
        let lane = |vector: u128, n: u32| vector >> (n * bits) & ((1 << bits) - 1);
        (0..128 / bits).all(|n| {
            let (a, b) = (lane(a, n), lane(b, n));
            a == b || nan(a) && nan(b)
        })
    };
    let (prefix, operator) = name.split_once('.').unwrap();
    match prefix {
        _ if exact.iter().any(|part| operator.contains(part)) => false,
        "f32" => nan32(a) && nan32(b),
        "f64" => nan64(a) && nan64(b),
        "f32x4" => lanes(32, &nan32),
        "f64x2" => lanes(64, &nan64),
        _ => false,
    }
}

fn check_against_itself(operators: &[Operator], configuration: Configuration) {
    let cases = cases(operators);
    let mut guest = Guest::new(&wat(operators, &cases), configuration);
    for (n, case) in cases.iter().enumerate() {
        let operator = &operators[case.operator];
        let args: Vec<Val> =
            operator.params.iter().zip(&case.operands).map(|(ty, &bits)| value(ty, bits)).collect();
        let expected = guest.bits(&operator.name, &args);
        let found = guest.bits(&format!("#{n}"), &args);
        let agree = match (found, expected) {
            (Ok(found), Ok(expected)) => same(&operator.name, found, expected),
            (found, expected) => found == expected,
        };
        assert!(
            agree,
            "{} of {:x?}, constants {:#b}: {found:x?} instead of {expected:x?}, {configuration:?}",
            operator.name, case.operands, case.constants
        );
    }
}

#[test]
fn constants_change_nothing() {
    for configuration in [CONFIGURATIONS[0], CONFIGURATIONS[1], CONFIGURATIONS[4]] {
        check_against_itself(&operators::all(), configuration);
    }
}

/// What `i8x16.shuffle` does.
fn shuffled(a: u128, b: u128, lanes: &[u8; 16]) -> u128 {
    let both = [a.to_le_bytes(), b.to_le_bytes()].concat();
    u128::from_le_bytes(lanes.map(|lane| both[usize::from(lane)]))
}

/// What `i8x16.swizzle` does.
fn swizzled(a: u128, lanes: u128) -> u128 {
    let bytes = a.to_le_bytes();
    let pick = |lane: u8| bytes.get(usize::from(lane)).copied().unwrap_or(0);
    u128::from_le_bytes(lanes.to_le_bytes().map(pick))
}

#[test]
fn shuffles() {
    let mut numbers = Numbers(2);
    let mut masks = SHUFFLES.to_vec();
    masks.extend((0..60).map(|_| numbers.next_wide().to_le_bytes().map(|lane| lane % 32)));
    // Only one operand, and whole lanes of each width in any order: each has instructions.
    masks.extend((0..20).map(|_| numbers.next_wide().to_le_bytes().map(|lane| lane % 16)));
    for width in [2, 4, 8] {
        masks.extend((0..20).map(|_| {
            let starts = numbers.next_wide().to_le_bytes();
            let start = |n: usize| starts[n / width] % (32 / width as u8) * width as u8;
            std::array::from_fn(|n| start(n) + (n % width) as u8)
        }));
    }
    let (a, b) = (numbers.next_wide(), numbers.next_wide());
    let operands = [
        ("(local.get 0) (local.get 1)", a, b),
        ("(local.get 0) (local.get 0)", a, a),
        ("(v128.const i64x2 0 0) (local.get 1)", 0, b),
        ("(local.get 0) (v128.const i64x2 0 0)", a, 0),
        (
            "(v128.const i64x2 0x0706050403020100 0x0f0e0d0c0b0a0908) (v128.const i64x2 -1 7)",
            0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100,
            7 << 64 | u128::from(u64::MAX),
        ),
    ];
    let mut wat = String::from("(module");
    for (n, mask) in masks.iter().enumerate() {
        for (m, (operands, ..)) in operands.iter().enumerate() {
            let body = format!("({} {operands})", shuffle(mask));
            export(&mut wat, &format!("{n} {m}"), "(param v128 v128) (result v128)", &body);
        }
    }
    wat += ")";
    for configuration in CONFIGURATIONS {
        let mut guest = Guest::new(&wat, configuration);
        for (n, mask) in masks.iter().enumerate() {
            for (m, &(_, left, right)) in operands.iter().enumerate() {
                let found = guest.bits(&format!("{n} {m}"), &[Val::V128(a), Val::V128(b)]);
                let expected = shuffled(left, right, mask);
                assert_eq!(found, Ok(expected), "{mask:?} {:x?} {configuration:?}", operands[m]);
            }
        }
    }
}

#[test]
fn swizzles() {
    let mut numbers = Numbers(3);
    let edges = [
        0,
        u128::MAX,
        0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100,
        0x1110_0f0e_8001_0f10_7f6f_7071_8081_0e1f,
        0x1010_1010_1010_1010_1010_1010_1010_1010,
    ];
    let masks: Vec<u128> = edges.into_iter().chain((0..40).map(|_| numbers.next_wide())).collect();
    let vectors = [edges[2], numbers.next_wide()];
    let mut wat = String::from("(module");
    let ty = "(param v128 v128) (result v128)";
    export(&mut wat, "both", ty, "(i8x16.swizzle (local.get 0) (local.get 1))");
    for (n, &mask) in masks.iter().enumerate() {
        let mask = constant("v128", mask);
        export(&mut wat, &n.to_string(), ty, &format!("(i8x16.swizzle (local.get 0) {mask})"));
        for (m, &vector) in vectors.iter().enumerate() {
            let body = format!("(i8x16.swizzle {} {mask})", constant("v128", vector));
            export(&mut wat, &format!("{n} {m}"), ty, &body);
            let body = format!("(i8x16.swizzle {} (local.get 1))", constant("v128", vector));
            export(&mut wat, &format!("{n} {m} left"), ty, &body);
        }
    }
    wat += ")";
    for configuration in CONFIGURATIONS {
        let mut guest = Guest::new(&wat, configuration);
        for (n, &mask) in masks.iter().enumerate() {
            for (m, &vector) in vectors.iter().enumerate() {
                let names = ["both".to_owned(), n.to_string()];
                let more = [format!("{n} {m}"), format!("{n} {m} left")];
                for name in names.iter().chain(&more) {
                    let found = guest.bits(name, &[Val::V128(vector), Val::V128(mask)]);
                    assert_eq!(found, Ok(swizzled(vector, mask)), "{mask:#x} {configuration:?}");
                }
            }
        }
    }
}

/// A shift of all lanes.
fn shifted(operator: &str, bits: u32, vector: u128, amount: u32) -> u128 {
    let amount = amount % bits;
    let mask = u128::MAX >> (128 - bits);
    (0..128 / bits).fold(0, |out, n| {
        let lane = vector >> (n * bits) & mask;
        let lane = match operator {
            "shl" => lane << amount,
            "shr_u" => lane >> amount,
            _ => ((lane << (128 - bits)) as i128 >> (128 - bits) >> amount) as u128,
        };
        out | (lane & mask) << (n * bits)
    })
}

#[test]
fn shifts_of_lanes() {
    let mut numbers = Numbers(4);
    let lanes = [("i8x16", 8), ("i16x8", 16), ("i32x4", 32), ("i64x2", 64)];
    let operators = ["shl", "shr_s", "shr_u"];
    let amounts: Vec<u32> =
        (0..=66).chain([127, 128, 129, 255, 256, 0x8000_0000, 0x8000_0001, u32::MAX]).collect();
    let mut vectors = vec![0x8000_0000_0000_0001_7fff_ffff_ffff_fffe, u128::MAX];
    vectors.extend((0..2).map(|_| numbers.next_wide()));
    let mut wat = String::from("(module");
    for (prefix, _) in lanes {
        for operator in operators {
            let name = format!("{prefix}.{operator}");
            let body = format!("({name} (local.get 0) (local.get 1))");
            export(&mut wat, &name, "(param v128 i32) (result v128)", &body);
            for &amount in &amounts {
                let ty = "(param v128) (result v128)";
                let body = format!("({name} (local.get 0) (i32.const {}))", amount as i32);
                export(&mut wat, &format!("{name} {amount}"), ty, &body);
                let body = format!(
                    "({name} {} (i32.const {}))",
                    constant("v128", vectors[0]),
                    amount as i32
                );
                export(&mut wat, &format!("{name} {amount} of a constant"), "(result v128)", &body);
            }
        }
    }
    wat += ")";
    for configuration in CONFIGURATIONS {
        let mut guest = Guest::new(&wat, configuration);
        for (prefix, bits) in lanes {
            for operator in operators {
                let name = format!("{prefix}.{operator}");
                for &amount in &amounts {
                    let what = || format!("{name} by {amount}, {configuration:?}");
                    for &vector in &vectors {
                        let expected = Ok(shifted(operator, bits, vector, amount));
                        let args = [Val::V128(vector), Val::I32(amount as i32)];
                        assert_eq!(guest.bits(&name, &args), expected, "{}", what());
                        let found = guest.bits(&format!("{name} {amount}"), &args[..1]);
                        assert_eq!(found, expected, "{} constant", what());
                    }
                    let expected = Ok(shifted(operator, bits, vectors[0], amount));
                    let found = guest.bits(&format!("{name} {amount} of a constant"), &[]);
                    assert_eq!(found, expected, "{} of a constant", what());
                }
            }
        }
    }
}

/// Divides or takes the remainder, of `bits` bits.
fn divided(operator: &str, bits: u32, a: u64, b: u64) -> Result<u128, TrapKind> {
    let shift = 64 - bits;
    let mask = u64::MAX >> shift;
    let (a, b) = (a & mask, b & mask);
    let signed = |value: u64| i128::from((value << shift) as i64 >> shift);
    let (x, y) = if operator.ends_with('s') {
        (signed(a), signed(b))
    } else {
        (i128::from(a), i128::from(b))
    };
    if y == 0 {
        return Err(TrapKind::IntegerDivideByZero);
    }
    if operator.starts_with("rem") {
        return Ok((x % y) as u128 & u128::from(mask));
    }
    if operator == "div_s" && x / y > i128::from(mask >> 1) {
        return Err(TrapKind::IntegerOverflow);
    }
    Ok((x / y) as u128 & u128::from(mask))
}

#[test]
fn divisions_by_constants() {
    let mut numbers = Numbers(5);
    let mut edges: Vec<u64> =
        (0..=20).chain([25, 60, 100, 125, 255, 625, 641, 1000, 1_000_000_007]).collect();
    for power in [7, 8, 15, 16, 30, 31, 32, 33, 47, 62, 63] {
        edges.extend([(1u64 << power) - 1, 1 << power, (1 << power) + 1]);
    }
    edges.extend(edges.clone().iter().map(|value| value.wrapping_neg()));
    let divisors: Vec<u64> =
        edges.iter().copied().chain((0..20).map(|n| numbers.next() >> (n * 3))).collect();
    let dividends: Vec<u64> =
        edges.iter().copied().chain((0..40).map(|n| numbers.next() >> n)).collect();
    let operators = ["div_s", "div_u", "rem_s", "rem_u"];
    let mut wat = String::from("(module");
    for ty in ["i32", "i64"] {
        for operator in operators {
            for (n, &divisor) in divisors.iter().enumerate() {
                let divisor = constant(ty, divisor.into());
                let body = format!("({ty}.{operator} (local.get 0) {divisor})");
                let name = format!("{ty}.{operator} {n}");
                export(&mut wat, &name, &format!("(param {ty}) (result {ty})"), &body);
            }
        }
    }
    wat += ")";
    for configuration in CONFIGURATIONS {
        let mut guest = Guest::new(&wat, configuration);
        for (ty, bits) in [("i32", 32), ("i64", 64)] {
            for operator in operators {
                for (n, &b) in divisors.iter().enumerate() {
                    let func = guest.func(&format!("{ty}.{operator} {n}"));
                    for &a in &dividends {
                        let found = guest.call_func(func, &[value(ty, a.into())]);
                        let found = found.map(|results| crate::bits(&results[0]));
                        let expected = divided(operator, bits, a, b);
                        assert_eq!(found, expected, "{ty}.{operator} {a:#x} {b:#x}");
                    }
                }
            }
        }
    }
}

#[test]
fn selections() {
    let mut numbers = Numbers(6);
    let mut wat = String::from("(module");
    let masks = [0, u128::MAX, 0xff00_ff00_ffff_0000, 0xffff_ffff << 64, numbers.next_wide()];
    let (a, b) = (numbers.next_wide(), numbers.next_wide());
    let three = "(param v128 v128 v128) (result v128)";
    export(&mut wat, "bits", three, "(v128.bitselect (local.get 0) (local.get 1) (local.get 2))");
    for (n, &mask) in masks.iter().enumerate() {
        let mask = constant("v128", mask);
        let gets = "(local.get 0) (local.get 1)";
        export(&mut wat, &format!("bits {n}"), three, &format!("(v128.bitselect {gets} {mask})"));
        let body =
            format!("(v128.bitselect {} {} {mask})", constant("v128", a), constant("v128", b));
        export(&mut wat, &format!("constants {n}"), "(result v128)", &body);
    }
    let types = ["i32", "i64", "f32", "f64", "v128"];
    let conditions = [0, 1, 2, 0x8000_0000u32, 0xffff_ff00, 0x100];
    for ty in types {
        let (x, y) = (constant(ty, a), constant(ty, b));
        for condition in conditions {
            let arms = [format!("{x} {y}"), "(local.get 0) (local.get 1)".to_owned()];
            for (n, arms) in arms.iter().enumerate() {
                let name = format!("{ty} {condition} {n}");
                let ty = format!("(param {ty} {ty}) (result {ty})");
                let body = format!("(select {arms} (i32.const {}))", condition as i32);
                export(&mut wat, &name, &ty, &body);
            }
        }
        let ty_of = format!("(param {ty} {ty} i32) (result {ty})");
        let body = format!("(select {x} {y} (local.get 2))");
        export(&mut wat, &format!("{ty} constants"), &ty_of, &body);
        let body = "(select (local.get 0) (local.get 1) (local.get 2))";
        export(&mut wat, &format!("{ty} free"), &ty_of, body);
        let body = "(select (local.get 0) (local.get 1) (i32.eqz (local.get 2)))";
        export(&mut wat, &format!("{ty} inverted"), &ty_of, body);
    }
    wat += ")";
    for configuration in CONFIGURATIONS {
        let mut guest = Guest::new(&wat, configuration);
        for (n, &mask) in masks.iter().enumerate() {
            let expected = Ok(a & mask | b & !mask);
            let args = [Val::V128(a), Val::V128(b), Val::V128(mask)];
            assert_eq!(guest.bits("bits", &args), expected);
            assert_eq!(guest.bits(&format!("bits {n}"), &args), expected);
            assert_eq!(guest.bits(&format!("constants {n}"), &[]), expected);
        }
        for ty in types {
            let (x, y) = (value(ty, a), value(ty, b));
            for condition in conditions {
                let chosen = |condition: bool| Ok(crate::bits(if condition { &x } else { &y }));
                let expected = chosen(condition != 0);
                for n in 0..2 {
                    assert_eq!(guest.bits(&format!("{ty} {condition} {n}"), &[x, y]), expected);
                }
                let args = [x, y, Val::I32(condition as i32)];
                assert_eq!(guest.bits(&format!("{ty} constants"), &args), expected);
                assert_eq!(guest.bits(&format!("{ty} free"), &args), expected);
                let found = guest.bits(&format!("{ty} inverted"), &args);
                assert_eq!(found, chosen(condition == 0));
            }
        }
    }
}
