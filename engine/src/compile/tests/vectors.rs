//! Vector code: what must become one instruction, and that every machine has code for everything.

use cranelift_codegen::settings::Configurable;
use target_lexicon::{Architecture, Triple};

use super::super::analysis::Analysis;
use super::super::func::{Compiler, Job};
use super::super::isa::{self, Machine, Target};
use super::super::translate::Environment;
use super::golden::{assert_has, assert_lacks};
use crate::config::{Addressing, OptLevel, Settings};
use crate::module::decode::{decode, to_binary};

#[path = "../../../tests/correctness/operators.rs"]
mod operators;

/// x86-64-v2.
const V2: &[&str] =
    &["has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_popcnt", "has_cmpxchg16b"];
const AVX: &[&str] = &["has_avx"];
/// x86-64-v3.
const V3: &[&str] = &["has_avx", "has_avx2", "has_fma", "has_bmi1", "has_bmi2", "has_lzcnt"];
/// What AVX-512 machines have more.
const AVX512: &[&str] = &[
    "has_avx512f",
    "has_avx512vl",
    "has_avx512dq",
    "has_avx512bitalg",
    "has_avx512vbmi",
    "has_avx512vnni",
];

/// Hands each function of a module to a compiler for a machine with these features.
fn each(
    wat: &str,
    features: &[&[&str]],
    opt_level: OptLevel,
    mut done: impl FnMut(&mut Compiler<'_>, Job),
) {
    let addressing = Addressing::Dedicated;
    let settings =
        Settings { verifier: true, inlining: false, opt_level, addressing, ..Settings::default() };
    let triple = Triple { architecture: Architecture::X86_64, ..Triple::host() };
    let mut builder = cranelift_codegen::isa::lookup(triple).unwrap();
    for flag in V2.iter().chain(features.iter().copied().flatten()) {
        builder.enable(flag).unwrap();
    }
    let isa = builder.finish(isa::flags(&settings).unwrap()).unwrap();
    let binary = to_binary(wat.as_bytes()).unwrap();
    let decoded = decode(&binary, settings.features).unwrap();
    let machine = Machine::new(&isa);
    let target = Target { isa, cpu_features: Vec::new(), machine };
    let analysis = Analysis::new(&decoded.info, decoded.bodies, &settings, 1).unwrap();
    let env = Environment::new(&decoded.info, &analysis, &settings, &target);
    let mut compiler = Compiler::new(&env, &*target.isa);
    analysis.functions().for_each(|func| done(&mut compiler, Job::Function(func)));
}

/// The code of one function on a memory.
fn code(body: &str, features: &[&[&str]]) -> String {
    let wat = format!("(module (memory 1) (func {body}))");
    let mut code = String::new();
    each(&wat, features, OptLevel::Speed, |compiler, job| code = compiler.listing(job));
    code
}

#[test]
fn views_of_the_lanes_cost_nothing() {
    let body = "(param v128 v128) (result v128) (i8x16.add (local.get 1)
        (i32x4.add (local.get 0) (f32x4.mul (local.get 0) (local.get 1))))";
    let code = code(body, &[V3]);
    assert_has(
        &code,
        &["vmulps %xmm1, %xmm0, %xmm5", "vpaddd %xmm5, %xmm0, %xmm5", "vpaddb %xmm5, %xmm1, %xmm0"],
    );
}

#[test]
fn operands_come_from_memory_whatever_their_lanes() {
    for (operator, instruction) in [
        ("i8x16.add", "vpaddb"),
        ("i32x4.sub", "vpsubd"),
        ("f32x4.add", "vaddps"),
        ("f64x2.mul", "vmulpd"),
    ] {
        let body = format!(
            "(param i32 v128) (result v128) ({operator} (local.get 1) (v128.load (local.get 0)))"
        );
        let line = format!("{instruction} 0x10000000(%rsi), %xmm0, %xmm0");
        assert_has(&code(&body, &[V3]), &[&line]);
    }
}

#[test]
fn forms_with_an_instruction_get_it() {
    for (operator, params, instruction) in [
        ("f32x4.pmin", 2, "vminps"),
        ("f64x2.pmax", 2, "vmaxpd"),
        ("f32x4.relaxed_max", 2, "vmaxps"),
        ("f64x2.relaxed_min", 2, "vminpd"),
        ("f32x4.relaxed_madd", 3, "vfmadd213ps"),
        ("f64x2.relaxed_nmadd", 3, "vfnmadd213pd"),
        ("i8x16.relaxed_swizzle", 2, "vpshufb"),
        ("i32x4.relaxed_trunc_f32x4_s", 1, "vcvttps2dq"),
        ("i32x4.relaxed_laneselect", 3, "vblendvps"),
        ("i16x8.relaxed_q15mulr_s", 2, "vpmulhrsw"),
        ("i16x8.relaxed_dot_i8x16_i7x16_s", 2, "vpmaddubsw"),
        ("i32x4.dot_i16x8_s", 2, "vpmaddwd"),
        ("i16x8.extadd_pairwise_i8x16_u", 1, "vpmaddubsw"),
    ] {
        let gets: String = (0..params).map(|n| format!("(local.get {n}) ")).collect();
        let types = "v128 ".repeat(params);
        let body = format!("(param {types}) (result v128) ({operator} {gets})");
        let code = code(&body, &[V3]);
        let vector = |line: &&str| line.trim().starts_with('v');
        let lines: Vec<&str> = code.lines().filter(vector).collect();
        assert!(lines.len() == 1 && lines[0].contains(instruction), "{operator}:\n{code}");
    }
}

#[test]
fn a_mask_is_recognised_through_its_view() {
    let body = "(param v128 v128) (result v128) (v128.bitselect (local.get 0) (local.get 1)
        (i16x8.gt_s (local.get 0) (local.get 1)))";
    assert_has(&code(body, &[V3]), &["vpmaxsw %xmm1, %xmm0, %xmm0"]);
    let body = "(param v128 v128) (result i32) (v128.any_true (i32x4.ne (local.get 0)
        (local.get 1)))";
    let code = code(body, &[V3]);
    assert_has(&code, &["vpxor %xmm1, %xmm0, %xmm4"]);
    assert_lacks(&code, "pcmpeq");
}

/// Nothing is left to a function of the C library, with any set of features.
#[test]
fn every_operator_has_code_on_every_machine() {
    let mut wat = String::from("(module (memory 1)");
    for operator in operators::all() {
        let gets: String =
            (0..operator.params.len()).map(|n| format!("(local.get {n}) ")).collect();
        let (params, result, name) = (operator.params.join(" "), operator.result, operator.name);
        wat += &format!("(func (param {params}) (result {result}) ({name} {gets}))");
    }
    wat += ")";
    for features in [
        &[][..],
        &[AVX],
        &[AVX, &["has_avx2"]],
        &[&["has_fma"]],
        &[AVX, &["has_fma"]],
        &[V3],
        &[V3, AVX512],
        &[V3, &["has_avx_vnni"]],
    ] {
        for opt_level in [OptLevel::None, OptLevel::Speed] {
            each(&wat, features, opt_level, |compiler, job| {
                let code = compiler.run(job).unwrap();
                assert!(code.calls.is_empty());
            });
        }
    }
}
