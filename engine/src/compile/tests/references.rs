//! Listings of code on references: which checks there are, and which there need not be.

use super::golden::{assert_has, assert_lacks, generic, traps};
use crate::abi::trap::TrapKind;

/// `TrapKind::NullReference` in listings.
const NULL: &str = "trap=user11";
/// `TrapKind::IndirectCallTypeMismatch` in listings.
const MISMATCH: &str = "trap=user6";

/// The module with a function type `$t` and one function of this body.
fn with_type(fields: &str, body: &str) -> String {
    format!("(module (type $t (func (result i32))) {fields} (func {body}))")
}

#[test]
fn a_call_by_reference_checks_for_null_and_nothing_else() {
    for op in ["call_ref", "return_call_ref"] {
        let body = format!("(param (ref null $t)) (result i32) ({op} $t (local.get 0))");
        let code = generic(&with_type("", &body));
        assert!(code.contains(NULL), "{code}");
        assert_lacks(&code, MISMATCH);
        let body = format!("(param (ref $t)) (result i32) ({op} $t (local.get 0))");
        assert_lacks(&generic(&with_type("", &body)), NULL);
    }
}

#[test]
fn what_cannot_be_null_is_not_tested_for_it() {
    let as_non_null = "(result (ref $t)) (ref.as_non_null (local.get 0))";
    let code = generic(&with_type("", &format!("(param (ref null $t)) {as_non_null}")));
    assert!(code.contains(NULL), "{code}");
    let code = generic(&with_type("", &format!("(param (ref $t)) {as_non_null}")));
    assert_lacks(&code, NULL);
    let branch = "(result (ref $t)) (block (return (br_on_null 0 (local.get 0)))) unreachable";
    let code = generic(&with_type("", &format!("(param (ref null $t)) {branch}")));
    assert_has(&code, &["testq %rsi, %rsi"]);
    let code = generic(&with_type("", &format!("(param (ref $t)) {branch}")));
    assert_lacks(&code, "test");
    let code = generic(&with_type("", "(param (ref $t)) (result i32) (ref.is_null (local.get 0))"));
    assert_lacks(&code, "test");
}

#[test]
fn a_table_of_known_functions_is_called_without_a_check_of_the_type() {
    let call = "(param i32) (result i32) (call_indirect (type $t) (local.get 0))";
    const NULL: TrapKind = TrapKind::UninitializedElement;
    const MISMATCH: TrapKind = TrapKind::IndirectCallTypeMismatch;
    let traps_of = |table: &str| {
        let traps = traps(&with_type(table, call));
        [NULL, MISMATCH].map(|kind| traps.contains(&kind))
    };
    assert_eq!(traps_of("(table 3 funcref)"), [true, true]);
    assert_eq!(traps_of("(table 3 (ref null $t))"), [true, false]);
    let function = "(func $f (result i32) (i32.const 1))";
    let table = format!("(table 3 (ref $t) (ref.func $f)) {function}");
    assert_eq!(traps_of(&table), [false, false]);
}

#[test]
fn functions_of_a_table_that_only_the_module_uses_get_its_own_context() {
    let call = "(param i32) (result i32) (call_indirect (type $t) (local.get 0))";
    let own = "(func $f (result i32) (i32.const 1)) (elem (i32.const 0) $f)";
    let loads = |fields: &str| generic(&with_type(fields, call)).contains("8(%r");
    let context = |fields: &str| {
        let code = generic(&with_type(fields, call));
        code.lines().any(|line| line.trim().starts_with("movq 8(%r") && line.ends_with("%rdi"))
    };
    assert!(loads(&format!("(table 3 funcref) {own}")), "the stack's limit");
    assert!(!context(&format!("(table 3 funcref) {own}")));
    assert!(context(&format!(r#"(table (export "t") 3 funcref) {own}"#)));
    let written =
        format!("(table 3 funcref) {own} (func (table.set (i32.const 0) (ref.null func)))");
    assert!(context(&written));
    let import =
        r#"(import "m" "f" (func $g (result i32))) (table 3 funcref) (elem (i32.const 0) $g)"#;
    assert!(context(import));
}
