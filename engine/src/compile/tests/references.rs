//! Listings of code on references: which checks there are, and which there need not be.

use super::golden::{assert_has, assert_lacks, generic};

/// `TrapKind::NullReference`, `UninitializedElement` and `IndirectCallTypeMismatch` in listings.
const NULL: &str = "trap=user11";
const UNINITIALIZED: &str = "trap=user5";
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
    let code = generic(&with_type("(table 3 funcref)", call));
    assert!(code.contains(UNINITIALIZED) && code.contains(MISMATCH), "{code}");
    let code = generic(&with_type("(table 3 (ref null $t))", call));
    assert!(code.contains(UNINITIALIZED), "{code}");
    assert_lacks(&code, MISMATCH);
    let function = "(func $f (result i32) (i32.const 1))";
    let table = format!("(table 3 (ref $t) (ref.func $f)) {function}");
    let code = generic(&with_type(&table, call));
    assert_lacks(&code, UNINITIALIZED);
    assert_lacks(&code, MISMATCH);
}
