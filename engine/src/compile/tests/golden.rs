//! Listings of generated code: what must fold, and what must be checked.

use super::super::analysis::Analysis;
use super::super::func::{Compiler, Job};
use super::super::isa;
use super::super::translate::Environment;
use crate::abi::layout::{CTX_HEADER_SIZE, CTX_SUPERTYPES};
use crate::abi::trap::TrapKind;
use crate::config::{Addressing, OptLevel, Settings};
use crate::module::decode::{decode, to_binary};

/// The code of the module's last function.
pub(super) fn listing(wat: &str, settings: Settings) -> String {
    let target = isa::target(&settings).unwrap();
    let binary = to_binary(wat.as_bytes()).unwrap();
    let decoded = decode(&binary, settings.features).unwrap();
    let analysis = Analysis::new(&decoded.info, decoded.bodies, &settings, 1).unwrap();
    let env = Environment::new(&decoded.info, &analysis, &settings, &target);
    let last = analysis.functions().last().unwrap();
    Compiler::new(&env, &*target.isa).listing(Job::Function(last))
}

/// The traps that the code of the module's last function can raise.
pub(super) fn traps(wat: &str) -> Vec<TrapKind> {
    let settings = Settings { verifier: true, ..Settings::default() };
    let target = isa::target(&settings).unwrap();
    let binary = to_binary(wat.as_bytes()).unwrap();
    let decoded = decode(&binary, settings.features).unwrap();
    let analysis = Analysis::new(&decoded.info, decoded.bodies, &settings, 1).unwrap();
    let env = Environment::new(&decoded.info, &analysis, &settings, &target);
    let last = analysis.functions().last().unwrap();
    let code = Compiler::new(&env, &*target.isa).run(Job::Function(last)).unwrap();
    code.traps.iter().filter_map(|&(_, kind)| TrapKind::from_code(kind)).collect()
}

pub(super) fn generic(wat: &str) -> String {
    listing(wat, Settings { verifier: true, ..Settings::default() })
}

fn dedicated(wat: &str) -> String {
    let addressing = Addressing::Dedicated;
    listing(wat, Settings { verifier: true, addressing, ..Settings::default() })
}

/// The module with one function of this body on a memory.
fn with_memory(body: &str) -> String {
    format!("(module (memory 1) (func {body}))")
}

#[track_caller]
pub(super) fn assert_has(listing: &str, lines: &[&str]) {
    for line in lines {
        assert!(listing.lines().any(|found| found.trim() == *line), "no {line:?} in:\n{listing}");
    }
}

#[track_caller]
pub(super) fn assert_lacks(listing: &str, word: &str) {
    assert!(!listing.contains(word), "{word:?} in:\n{listing}");
}

#[test]
fn dedicated_base_and_offset_fold_into_the_displacement() {
    let code =
        dedicated(&with_memory("(param i32) (result i32) (i32.load offset=8 (local.get 0))"));
    // The parameter's upper half is not known to be zero; nothing else is between.
    assert_has(&code, &["movl %esi, %esi", "movl 0x10000008(%rsi), %eax"]);
    let code = dedicated(&with_memory(
        "(param i32 i32) (result i32) (i32.load (i32.add (local.get 0) (local.get 1)))",
    ));
    assert_has(&code, &["leal (%rsi, %rdx), %esi", "movl 0x10000000(%rsi), %eax"]);
    let code = dedicated(&with_memory(
        "(param i32) (i32.store (local.get 0) (i32.add (i32.load (local.get 0)) (i32.const 1)))",
    ));
    assert_has(&code, &["addl $0x1, 0x10000000(%rdx)"]);
}

#[test]
fn dedicated_addresses_hold_at_every_level() {
    let settings = Settings {
        opt_level: OptLevel::None,
        addressing: Addressing::Dedicated,
        verifier: true,
        ..Settings::default()
    };
    let wat = with_memory("(param i32) (result i32) (i32.load offset=8 (local.get 0))");
    let code = listing(&wat, settings);
    assert_has(&code, &["movl 0x10000008(%rsi), %eax"]);
}

#[test]
fn a_displacement_that_does_not_fit_takes_a_register_and_no_check() {
    let last = dedicated(&with_memory(
        "(param i32) (result i32) (i32.load offset=0x6fffffff (local.get 0))",
    ));
    assert_has(&last, &["movl 0x7fffffff(%rsi), %eax"]);
    let beyond = dedicated(&with_memory(
        "(param i32) (result i32) (i32.load offset=0x70000000 (local.get 0))",
    ));
    assert_has(&beyond, &["movl $0x10000000, %edi", "movl 0x70000000(%rsi, %rdi), %eax"]);
    assert_lacks(&beyond, "trap");
}

#[test]
fn an_access_that_may_leave_the_guard_is_checked_and_masked() {
    // 4 bytes at 0x7ffffffc end with the guard, one further they do not.
    for compile in [generic as fn(&str) -> String, dedicated] {
        let within = compile(&with_memory(
            "(param i32) (result i32) (i32.load offset=0x7ffffffc (local.get 0))",
        ));
        assert_lacks(&within, "trap");
        let beyond = compile(&with_memory(
            "(param i32) (result i32) (i32.load offset=0x7ffffffd (local.get 0))",
        ));
        assert!(beyond.contains("#trap=heap_oob"), "{beyond}");
        assert!(beyond.contains("cmova"), "no mask against speculation in:\n{beyond}");
    }
}

#[test]
fn generic_bases_are_loaded_once() {
    let code = generic(&with_memory(
        "(param i32 i32) (i32.store (local.get 0) (i32.const 1))
         (i32.store (local.get 1) (i32.const 2)) (i32.store (local.get 0) (i32.const 3))",
    ));
    let base = format!("movq {CTX_HEADER_SIZE:#x}(%rdi)");
    let loads = code.lines().filter(|line| line.trim().starts_with(&base)).count();
    assert_eq!(loads, 1, "{code}");
}

#[test]
fn an_imported_memory_is_reached_through_its_definition_unless_it_is_at_the_fixed_address() {
    let wat = r#"(module (import "m" "m" (memory 1)) (import "m" "n" (memory 1))
        (func (param i32) (result i32) (i32.load MEMORY (local.get 0))))"#;
    for (compile, memory, place) in [
        (generic as fn(&str) -> String, "0", CTX_HEADER_SIZE),
        (generic, "1", CTX_HEADER_SIZE + 8),
        (dedicated, "1", CTX_HEADER_SIZE + 8),
    ] {
        let def = format!("{place:#x}(%rdi)");
        let code = compile(&wat.replace("MEMORY", memory));
        assert_lacks(&code, "0x10000000");
        assert!(code.contains(&def), "{code}");
    }
    let code = dedicated(&wat.replace("MEMORY", "0"));
    assert_has(&code, &["movl 0x10000000(%rsi), %eax"]);
}

#[test]
fn an_index_of_64_bits_is_kept_below_the_length_without_a_branch() {
    let wat = "(module (memory i64 1) (func (param i64) (result i32)
        (i32.load offset=8 (local.get 0))))";
    let code = dedicated(wat);
    assert_lacks(&code, "trap");
    assert!(code.contains("cmovae"), "{code}");
    assert_has(&code, &["movl 0x10000008(%rsi), %eax"]);
    // 4 bytes at 0x3fffffc end with the guard, one further they do not.
    let place = |offset: &str| generic(&wat.replace("offset=8", offset));
    assert_lacks(&place("offset=0x3fffffc"), "trap");
    assert!(place("offset=0x3fffffd").contains("trap=heap_oob"));
    // Another thread may let a shared memory grow over what the index was cut to.
    let shared = generic(&wat.replace("memory i64 1", "memory i64 1 2 shared"));
    assert!(shared.contains("trap=heap_oob"), "{shared}");
}

#[test]
fn what_is_counted_in_bytes_is_compared_with_the_length() {
    let wat = "(module (memory 1 (pagesize 1)) (func (param i32) (result i32)
        (i32.load8_u (local.get 0))))";
    let mut settings = Settings { verifier: true, ..Settings::default() };
    settings.features.custom_page_sizes = true;
    assert!(listing(wat, settings).contains("trap=heap_oob"));
}

#[test]
fn calls_through_tables_are_checked_in_order() {
    let code = generic(
        "(module (type $t (func (param i32) (result i32))) (table 10 funcref)
            (func (param i32 i32) (result i32) (call_indirect (type $t) (local.get 0) (local.get 1))))",
    );
    let place = |word: &str| code.find(word).unwrap_or_else(|| panic!("no {word} in:\n{code}"));
    // Bounds, then type; the numbers are those of `TrapKind`. Null faults when its type is read.
    assert!(place("trap=user4") < place("cmovae") && place("cmovae") < place("trap=user6"));
    assert!(place("trap=user6") < place("call"));
    assert_lacks(&code, "test");
}

#[test]
fn the_length_of_a_table_that_cannot_grow_is_compiled_in() {
    let code = generic(
        "(module (table 10 10 funcref) (func (param i32) (result funcref) (table.get (local.get 0))))",
    );
    assert_has(&code, &["cmpq $0xa, %rdi"]);
}

#[test]
fn functions_that_call_check_the_stack_and_leaves_need_not() {
    let calls = generic("(module (func $f (param i32) (call $f (local.get 0))))");
    assert!(calls.contains("#trap=stk_ovf"), "{calls}");
    assert_has(&calls, &["movq 8(%rdi), %r10"]);
    let leaf = generic("(module (func (param i32) (result i32) (local.get 0)))");
    assert_lacks(&leaf, "trap");
    assert_has(&leaf, &["pushq %rbp", "movq %rsp, %rbp"]);
}

#[test]
fn constant_globals_are_constants() {
    let code = generic("(module (global i32 (i32.const 77)) (func (result i32) (global.get 0)))");
    assert_has(&code, &["movl $0x4d, %eax"]);
}

#[test]
fn a_branch_on_a_negated_comparison_of_floats_makes_no_number() {
    for negations in ["i32.eqz", "i32.eqz i32.eqz"] {
        let code = generic(&format!(
            "(module (func (param f64 f64) (result i32)
               (block (local.get 0) (local.get 1) f64.lt {negations} (br_if 0) (return (i32.const 5)))
               (i32.const 6)))"
        ));
        assert!(code.contains("ucomisd"), "{code}");
        assert_lacks(&code, "set");
    }
}

#[test]
fn what_is_fallen_through_costs_no_jump() {
    let code =
        generic("(module (func (param i32) (result i32) (block (block (block))) (local.get 0)))");
    assert_lacks(&code, "jmp");
}

#[test]
fn wide_sums_use_the_carry_and_wide_products_one_instruction() {
    let wide = |body: &str| {
        let mut settings = Settings { verifier: true, ..Settings::default() };
        settings.features.wide_arithmetic = true;
        listing(&format!("(module (func {body}))"), settings)
    };
    let four = "(local.get 0) (local.get 1) (local.get 2) (local.get 3)";
    let sum = wide(&format!("(param i64 i64 i64 i64) (result i64 i64) {four} i64.add128"));
    assert!(sum.contains("addq") && sum.contains("adcq"), "{sum}");
    let difference = wide(&format!("(param i64 i64 i64 i64) (result i64 i64) {four} i64.sub128"));
    assert!(difference.contains("subq") && difference.contains("sbbq"), "{difference}");
    for op in ["i64.mul_wide_u", "i64.mul_wide_s"] {
        let two = "(param i64 i64) (result i64 i64) (local.get 0) (local.get 1)";
        let product = wide(&format!("{two} {op}"));
        assert_eq!(product.matches("mul").count(), 1, "{product}");
    }
}

#[test]
fn a_throw_that_the_function_itself_catches_is_a_branch() {
    let code = generic(
        "(module (tag $other) (tag $t (param i32)) (func (param i32) (result i32)
            (block $none
                (return (block $caught (result i32)
                    (try_table (catch $other $none) (catch $t $caught)
                        (try_table (catch $other $none) (throw $t (local.get 0))))
                    unreachable)))
            (i32.const 0)))",
    );
    assert_lacks(&code, "call");
    let referred = generic(
        "(module (tag $t) (func (result exnref)
            (block $caught (result exnref) (try_table (catch_all_ref $caught) (throw $t)) unreachable)))",
    );
    assert_eq!(referred.matches("call").count(), 1, "only the object is made: {referred}");
}

/// A module with some types of objects and one function.
fn with_objects(func: &str) -> String {
    format!(
        "(module (type $base (sub (struct (field i32) (field (mut i64)))))
            (type $low (sub $base (struct (field i32) (field (mut i64)) (field i32))))
            (type $final (struct (field i32))) (type $array (array (mut i32))) {func})"
    )
}

#[test]
fn a_field_is_one_access_without_a_comparison_for_null() {
    let code = generic(&with_objects(
        "(func (param (ref null $base)) (result i64) (struct.get $base 1 (local.get 0)))",
    ));
    assert_has(&code, &["movq 0x10(%rsi, %rdi), %rax"]);
    assert_lacks(&code, "test");
    assert_lacks(&code, "cmp");
}

#[test]
fn an_element_is_checked_once_although_elements_were_written_between() {
    let code = generic(&with_objects(
        "(func (param (ref null $array) i32)
            (array.set $array (local.get 0) (local.get 1) (i32.add (i32.const 1)
                (array.get $array (local.get 0) (local.get 1))))
            (array.set $array (local.get 0) (local.get 1) (i32.const 7)))",
    ));
    let code_of_trap = TrapKind::ArrayOutOfBounds as u8;
    let checks = code.matches(&format!("#trap=user{code_of_trap}")).count();
    assert_eq!(checks, 1, "{code}");
    let masks = code.matches("cmov").count();
    assert_eq!(masks, 1, "one mask against speculation in:\n{code}");
}

#[test]
fn a_small_object_is_made_without_a_call() {
    let code = generic(&with_objects(
        "(func (param i32) (result (ref $final)) (struct.new $final (local.get 0)))",
    ));
    // The runtime is called behind the function's end, when the run of free cells is used up.
    let way = code.split("retq").next().unwrap_or_default();
    assert_lacks(way, "call");
    assert!(code.contains("call"), "{code}");
}

#[test]
fn a_cast_to_a_final_type_compares_once_and_to_others_looks_at_one_supertype() {
    let cast = |ty: &str| {
        generic(&with_objects(&format!(
            "(func (param (ref struct)) (drop (ref.cast (ref {ty}) (local.get 0))))"
        )))
    };
    for (ty, supertypes) in [("$final", 0), ("$base", 1), ("$low", 1)] {
        let code = cast(ty);
        assert_eq!(code.matches("cmpl").count(), 1, "{code}");
        let table = format!("movq {CTX_SUPERTYPES:#x}(%rdi)");
        assert_eq!(code.matches(&table).count(), supertypes, "{code}");
        assert_lacks(&code, "call");
    }
}
