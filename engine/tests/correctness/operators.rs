//! Every operator on numbers and vectors that neither touches memory nor leaves straight-line code,
//! by name, with its type. Operators with immediates stand there with some of them.

/// An operator in the text format and its type: the result last.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    pub(crate) name: String,
    pub(crate) params: Vec<&'static str>,
    pub(crate) result: &'static str,
}

/// Prefixes, parameters and result, names. `_` in the type stands for the prefix.
type Group = (&'static [&'static str], &'static str, &'static str);

const INTEGERS: &[&str] = &["i32", "i64"];
const FLOATS: &[&str] = &["f32", "f64"];
const BYTES: &[&str] = &["i8x16"];
const HALVES: &[&str] = &["i16x8"];
const WORDS: &[&str] = &["i32x4"];
const DOUBLES: &[&str] = &["i64x2"];
const SMALL_LANES: &[&str] = &["i8x16", "i16x8"];
const LANES: &[&str] = &["i8x16", "i16x8", "i32x4", "i64x2"];
const FLOAT_LANES: &[&str] = &["f32x4", "f64x2"];

const SCALAR: &[Group] = &[
    (INTEGERS, "_ -> _", "clz ctz popcnt extend8_s extend16_s"),
    (&["i64"], "_ -> _", "extend32_s"),
    (INTEGERS, "_ -> i32", "eqz"),
    (INTEGERS, "_ _ -> _", "add sub mul div_s div_u rem_s rem_u and or xor"),
    (INTEGERS, "_ _ -> _", "shl shr_s shr_u rotl rotr"),
    (INTEGERS, "_ _ -> i32", "eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u"),
    (FLOATS, "_ -> _", "abs neg ceil floor trunc nearest sqrt"),
    (FLOATS, "_ _ -> _", "add sub mul div min max copysign"),
    (FLOATS, "_ _ -> i32", "eq ne lt gt le ge"),
    (&["i32"], "i64 -> i32", "wrap_i64"),
    (&["i64"], "i32 -> i64", "extend_i32_s extend_i32_u"),
    (INTEGERS, "f32 -> _", "trunc_f32_s trunc_f32_u trunc_sat_f32_s trunc_sat_f32_u"),
    (INTEGERS, "f64 -> _", "trunc_f64_s trunc_f64_u trunc_sat_f64_s trunc_sat_f64_u"),
    (FLOATS, "i32 -> _", "convert_i32_s convert_i32_u"),
    (FLOATS, "i64 -> _", "convert_i64_s convert_i64_u"),
    (&["f32"], "f64 -> f32", "demote_f64"),
    (&["f64"], "f32 -> f64", "promote_f32"),
    (&["i32"], "f32 -> i32", "reinterpret_f32"),
    (&["i64"], "f64 -> i64", "reinterpret_f64"),
    (&["f32"], "i32 -> f32", "reinterpret_i32"),
    (&["f64"], "i64 -> f64", "reinterpret_i64"),
];

const VECTOR: &[Group] = &[
    (&["v128"], "v128 -> v128", "not"),
    (&["v128"], "v128 v128 -> v128", "and andnot or xor"),
    (&["v128"], "v128 v128 v128 -> v128", "bitselect"),
    (&["v128"], "v128 -> i32", "any_true"),
    (&["i8x16", "i16x8", "i32x4"], "i32 -> v128", "splat"),
    (DOUBLES, "i64 -> v128", "splat"),
    (&["f32x4"], "f32 -> v128", "splat"),
    (&["f64x2"], "f64 -> v128", "splat"),
    (BYTES, "v128 v128 -> v128", "swizzle"),
    (LANES, "v128 -> v128", "abs neg"),
    (LANES, "v128 -> i32", "all_true bitmask"),
    (LANES, "v128 i32 -> v128", "shl shr_s shr_u"),
    (LANES, "v128 v128 -> v128", "add sub eq ne lt_s gt_s le_s ge_s"),
    (&["i8x16", "i16x8", "i32x4"], "v128 v128 -> v128", "lt_u gt_u le_u ge_u"),
    (&["i8x16", "i16x8", "i32x4"], "v128 v128 -> v128", "min_s min_u max_s max_u"),
    (&["i16x8", "i32x4", "i64x2"], "v128 v128 -> v128", "mul"),
    (SMALL_LANES, "v128 v128 -> v128", "add_sat_s add_sat_u sub_sat_s sub_sat_u avgr_u"),
    (BYTES, "v128 -> v128", "popcnt"),
    (BYTES, "v128 v128 -> v128", "narrow_i16x8_s narrow_i16x8_u"),
    (HALVES, "v128 v128 -> v128", "narrow_i32x4_s narrow_i32x4_u q15mulr_sat_s"),
    (HALVES, "v128 -> v128", "extadd_pairwise_i8x16_s extadd_pairwise_i8x16_u"),
    (HALVES, "v128 -> v128", "extend_low_i8x16_s extend_high_i8x16_s"),
    (HALVES, "v128 -> v128", "extend_low_i8x16_u extend_high_i8x16_u"),
    (HALVES, "v128 v128 -> v128", "extmul_low_i8x16_s extmul_high_i8x16_s"),
    (HALVES, "v128 v128 -> v128", "extmul_low_i8x16_u extmul_high_i8x16_u"),
    (WORDS, "v128 -> v128", "extadd_pairwise_i16x8_s extadd_pairwise_i16x8_u"),
    (WORDS, "v128 -> v128", "extend_low_i16x8_s extend_high_i16x8_s"),
    (WORDS, "v128 -> v128", "extend_low_i16x8_u extend_high_i16x8_u"),
    (WORDS, "v128 v128 -> v128", "extmul_low_i16x8_s extmul_high_i16x8_s"),
    (WORDS, "v128 v128 -> v128", "extmul_low_i16x8_u extmul_high_i16x8_u dot_i16x8_s"),
    (WORDS, "v128 -> v128", "trunc_sat_f32x4_s trunc_sat_f32x4_u"),
    (WORDS, "v128 -> v128", "trunc_sat_f64x2_s_zero trunc_sat_f64x2_u_zero"),
    (DOUBLES, "v128 -> v128", "extend_low_i32x4_s extend_high_i32x4_s"),
    (DOUBLES, "v128 -> v128", "extend_low_i32x4_u extend_high_i32x4_u"),
    (DOUBLES, "v128 v128 -> v128", "extmul_low_i32x4_s extmul_high_i32x4_s"),
    (DOUBLES, "v128 v128 -> v128", "extmul_low_i32x4_u extmul_high_i32x4_u"),
    (FLOAT_LANES, "v128 -> v128", "abs neg ceil floor trunc nearest sqrt"),
    (FLOAT_LANES, "v128 v128 -> v128", "add sub mul div min max pmin pmax"),
    (FLOAT_LANES, "v128 v128 -> v128", "eq ne lt gt le ge"),
    (&["f32x4"], "v128 -> v128", "convert_i32x4_s convert_i32x4_u demote_f64x2_zero"),
    (&["f64x2"], "v128 -> v128", "convert_low_i32x4_s convert_low_i32x4_u promote_low_f32x4"),
];

const RELAXED: &[Group] = &[
    (BYTES, "v128 v128 -> v128", "relaxed_swizzle"),
    (WORDS, "v128 -> v128", "relaxed_trunc_f32x4_s relaxed_trunc_f32x4_u"),
    (WORDS, "v128 -> v128", "relaxed_trunc_f64x2_s_zero relaxed_trunc_f64x2_u_zero"),
    (FLOAT_LANES, "v128 v128 v128 -> v128", "relaxed_madd relaxed_nmadd"),
    (LANES, "v128 v128 v128 -> v128", "relaxed_laneselect"),
    (FLOAT_LANES, "v128 v128 -> v128", "relaxed_min relaxed_max"),
    (HALVES, "v128 v128 -> v128", "relaxed_q15mulr_s relaxed_dot_i8x16_i7x16_s"),
    (WORDS, "v128 v128 v128 -> v128", "relaxed_dot_i8x16_i7x16_add_s"),
];

/// Operators that take a lane, with the type of a lane on the stack and the number of lanes.
const LANE: &[(&str, &str, u8)] = &[
    ("i8x16.extract_lane_s", "i32", 16),
    ("i8x16.extract_lane_u", "i32", 16),
    ("i8x16.replace_lane", "i32", 16),
    ("i16x8.extract_lane_s", "i32", 8),
    ("i16x8.extract_lane_u", "i32", 8),
    ("i16x8.replace_lane", "i32", 8),
    ("i32x4.extract_lane", "i32", 4),
    ("i32x4.replace_lane", "i32", 4),
    ("i64x2.extract_lane", "i64", 2),
    ("i64x2.replace_lane", "i64", 2),
    ("f32x4.extract_lane", "f32", 4),
    ("f32x4.replace_lane", "f32", 4),
    ("f64x2.extract_lane", "f64", 2),
    ("f64x2.replace_lane", "f64", 2),
];

/// Shuffles that machines have instructions for, and some that they have not.
pub(crate) const SHUFFLES: &[[u8; 16]] = &[
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    [16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31],
    // A byte, a half, a word, a double everywhere.
    [0; 16],
    [5; 16],
    [31; 16],
    [2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3],
    [28, 29, 30, 31, 28, 29, 30, 31, 28, 29, 30, 31, 28, 29, 30, 31],
    [8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15],
    // Interleaved low and high lanes of each width.
    [0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23],
    [8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31],
    [16, 0, 17, 1, 18, 2, 19, 3, 20, 4, 21, 5, 22, 6, 23, 7],
    [0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23],
    [8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29, 14, 15, 30, 31],
    [0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23],
    [8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31],
    [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23],
    [8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31],
    // Words of both in any order, within one, and halves within a part.
    [4, 5, 6, 7, 12, 13, 14, 15, 16, 17, 18, 19, 24, 25, 26, 27],
    [12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3],
    [6, 7, 4, 5, 2, 3, 0, 1, 8, 9, 10, 11, 12, 13, 14, 15],
    [0, 1, 2, 3, 4, 5, 6, 7, 14, 15, 12, 13, 10, 11, 8, 9],
    // A window over both, and blends.
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
    [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26],
    [0, 17, 2, 19, 4, 21, 6, 23, 8, 25, 10, 27, 12, 29, 14, 31],
    [0, 1, 18, 19, 4, 5, 22, 23, 8, 9, 26, 27, 12, 13, 30, 31],
    // No pattern.
    [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
    [7, 30, 2, 19, 0, 31, 15, 16, 8, 8, 23, 4, 29, 11, 1, 20],
];

/// All of them.
pub(crate) fn all() -> Vec<Operator> {
    [scalar(), vector()].concat()
}

/// Those on scalars.
pub(crate) fn scalar() -> Vec<Operator> {
    expand(SCALAR)
}

/// Those on vectors, relaxed ones among them.
pub(crate) fn vector() -> Vec<Operator> {
    let mut out = expand(VECTOR);
    out.extend(expand(RELAXED));
    for &(name, scalar, lanes) in LANE {
        let replaces = name.contains("replace");
        out.extend((0..lanes).map(|lane| Operator {
            name: format!("{name} {lane}"),
            params: if replaces { vec!["v128", scalar] } else { vec!["v128"] },
            result: if replaces { "v128" } else { scalar },
        }));
    }
    out.extend(SHUFFLES.iter().map(|lanes| Operator {
        name: shuffle(lanes),
        params: vec!["v128", "v128"],
        result: "v128",
    }));
    out
}

/// The operator that shuffles so.
pub(crate) fn shuffle(lanes: &[u8; 16]) -> String {
    lanes.iter().fold("i8x16.shuffle".to_owned(), |name, lane| format!("{name} {lane}"))
}

fn expand(groups: &[Group]) -> Vec<Operator> {
    let mut out = Vec::new();
    for (prefixes, ty, names) in groups {
        let Some((params, result)) = ty.split_once(" -> ") else { continue };
        for &prefix in *prefixes {
            let of = |part: &'static str| if part == "_" { prefix } else { part };
            out.extend(names.split(' ').map(|name| Operator {
                name: format!("{prefix}.{name}"),
                params: params.split(' ').map(of).collect(),
                result: of(result),
            }));
        }
    }
    out
}
