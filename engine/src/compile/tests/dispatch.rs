//! Branches past a dispatch.

use super::golden::generic;

/// A loop over three states; the first counts down and goes to `then`.
fn machine(then: &str) -> String {
    format!(
        "(module (func (param i32) (result i32) (local $sel i32)
            (block $out (loop $loop
                (block $b (block $a (br_table $a $b $out (local.get $sel)))
                    (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
                    (local.set $sel {then})
                    (br_if $loop (local.get 0)))
                (local.set $sel (i32.const 2))
                (br $loop)))
            (local.get 0)))"
    )
}

/// How often a listing looks a target up in a table.
fn dispatches(code: &str) -> usize {
    code.lines().filter(|line| line.contains("br_table")).count()
}

#[test]
fn a_branch_with_a_known_selector_leads_past_the_table() {
    // The selector begins as zero, so nobody needs the table at all.
    let code = generic(&machine("(i32.const 0)"));
    assert_eq!(dispatches(&code), 0, "{code}");
    // One that is not known does.
    let code = generic(&machine("(i32.and (local.get 0) (i32.const 1))"));
    assert_eq!(dispatches(&code), 1, "{code}");
}
