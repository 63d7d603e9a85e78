//! Stacks that end: every way to recurse without end stops with the same trap, and the next call
//! finds everything as before.

use coracle_engine::runtime::{CallError, Caller, Func, Linker, TrapKind, Val};

use crate::{CONFIGURATIONS, Configuration, Guest};

/// Recursion through the guest alone. `$depth` counts; `ok` says that the instance still works.
const WAYS: &[(&str, &str)] = &[
    ("direct", "(func $f (export \"f\") (call $count) (call $f) (call $count))"),
    (
        "mutual",
        "(func $f (export \"f\") (call $count) (call $g) (call $count))
         (func $g (param) (call $f) (call $count))",
    ),
    (
        "with results",
        "(func $f (export \"f\") (drop (call $g (i64.const 1))))
         (func $g (param i64) (result i64) (call $count)
            (i64.add (local.get 0) (call $g (i64.add (local.get 0) (i64.const 1)))))",
    ),
    (
        "indirect",
        "(table 1 funcref) (elem (i32.const 0) $f)
         (func $f (export \"f\") (call $count) (call_indirect (i32.const 0)) (call $count))",
    ),
    (
        "by reference",
        "(type $t (func)) (elem declare func $f)
         (func $f (export \"f\") (call $count) (call_ref $t (ref.func $f)) (call $count))",
    ),
    (
        "many parameters",
        "(func (export \"f\") (call $g (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1)
            (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1)))
         (func $g (param i64 i64 i64 i64 i64 i64 i64 i64 i64 i64) (call $count)
            (call $g (local.get 9) (local.get 8) (local.get 7) (local.get 6) (local.get 5)
                (local.get 4) (local.get 3) (local.get 2) (local.get 1) (local.get 0))
            (call $count))",
    ),
];

/// A frame of several pages: results that do not fit registers, and vectors alive over a call.
fn large_frames() -> String {
    let count = 700;
    let gets: String = (0..count).map(|n| format!("(local.get {n})")).collect();
    let sets: String = (0..count)
        .map(|n| format!("(local.set {n} (i32x4.splat (i32.load8_u (i32.const {n}))))"))
        .collect();
    let folds = "(i32x4.add)".repeat(count - 1);
    format!(
        "(func $f (export \"f\") (drop (call $g)))
         (func $g (result v128) (local {}) {sets} (call $count) (drop (call $g)) {gets} {folds})",
        "v128 ".repeat(count)
    )
}

fn wat(functions: &str) -> String {
    format!(
        "(module (memory 1) (global $depth (mut i64) (i64.const 0))
            (func $count (global.set $depth (i64.add (global.get $depth) (i64.const 1))))
            (func (export \"depth\") (result i64) (global.get $depth)
                (global.set $depth (i64.const 0)))
            (func (export \"ok\") (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))
            {functions})"
    )
}

fn depth(guest: &mut Guest) -> u128 {
    guest.bits("depth", &[]).unwrap()
}

/// Exhausts the stack, three times, always at the same depth.
fn check(way: &str, functions: &str, configuration: Configuration) {
    let what = || format!("{way}, {configuration:?}");
    let mut guest = Guest::new(&wat(functions), configuration);
    let mut first = None;
    for _ in 0..3 {
        assert_eq!(guest.call("f", &[]).unwrap_err(), TrapKind::StackOverflow, "{}", what());
        let reached = depth(&mut guest);
        assert!(reached > 20, "{}: {reached}", what());
        assert_eq!(*first.get_or_insert(reached), reached, "{}", what());
        assert_eq!(guest.bits("ok", &[Val::I32(41)]), Ok(42), "{}", what());
    }
}

#[test]
fn recursion_of_the_guest() {
    for configuration in CONFIGURATIONS {
        for (way, functions) in WAYS {
            check(way, functions, configuration);
        }
    }
}

#[test]
fn frames_larger_than_a_page() {
    for configuration in CONFIGURATIONS {
        check("large frames", &large_frames(), configuration);
    }
}

#[test]
fn recursion_on_a_thread_with_a_small_stack() {
    let run = || check("large frames", &large_frames(), CONFIGURATIONS[0]);
    std::thread::Builder::new().stack_size(640 << 10).spawn(run).unwrap().join().unwrap();
}

/// Calls the guest back.
fn define_reenter(linker: &mut Linker) {
    linker.func_wrap("host", "reenter", |mut caller: Caller<'_>| {
        let Some(func) = TARGET.get() else { return Ok(()) };
        func.call(&mut caller, &[], &mut Vec::new())
    });
}

thread_local! {
    /// What `reenter` calls: set before the outermost call.
    static TARGET: std::cell::Cell<Option<Func>> = const { std::cell::Cell::new(None) };
}

#[test]
fn recursion_through_the_host() {
    let functions = "(func (export \"f\") (call $count) (call $reenter) (call $count))";
    let wat = wat(functions).replacen(
        "(module",
        "(module (import \"host\" \"reenter\" (func $reenter))",
        1,
    );
    for configuration in CONFIGURATIONS {
        let mut guest = Guest::with_imports(&wat, configuration, define_reenter);
        TARGET.set(Some(guest.func("f")));
        let mut first = None;
        for _ in 0..3 {
            let kind = guest.call("f", &[]).unwrap_err();
            assert_eq!(kind, TrapKind::StackOverflow, "{configuration:?}");
            let reached = depth(&mut guest);
            assert!(reached > 100, "{configuration:?}: {reached}");
            assert_eq!(*first.get_or_insert(reached), reached, "{configuration:?}");
            assert_eq!(guest.bits("ok", &[Val::I32(41)]), Ok(42));
        }
        // A guest may go on after a nested call failed: the host decides.
        TARGET.set(None);
        assert!(guest.call("f", &[]).is_ok());
    }
}

/// A host function has its reserve of stack however deep the guest is when it calls.
#[test]
fn host_functions_run_at_the_end_of_the_stack() {
    let functions = "(func $f (export \"f\") (call $work) (call $count) (call $f) (call $count))";
    let wat =
        wat(functions).replacen("(module", "(module (import \"host\" \"work\" (func $work))", 1);
    let define = |linker: &mut Linker| {
        linker.func_wrap("host", "work", |_: Caller<'_>| {
            let used = std::hint::black_box([1u8; 128 << 10]);
            assert_eq!(used.iter().map(|&n| usize::from(n)).sum::<usize>(), 128 << 10);
        });
    };
    let run = move || {
        let mut guest = Guest::with_imports(&wat, CONFIGURATIONS[0], define);
        assert_eq!(guest.call("f", &[]).unwrap_err(), TrapKind::StackOverflow);
        assert!(depth(&mut guest) > 100);
    };
    // On a stack that ends before the configured limit.
    std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap().join().unwrap();
}

/// Calls in a row do not grow the stack, nor do traps in a row.
#[test]
fn nothing_is_left_on_the_stack() {
    let functions = "(func (export \"f\") (call $reenter) (unreachable))";
    let wat = wat(functions).replacen(
        "(module",
        "(module (import \"host\" \"reenter\" (func $reenter))",
        1,
    );
    let define = |linker: &mut Linker| {
        linker.func_wrap("host", "reenter", |mut caller: Caller<'_>| -> Result<(), CallError> {
            let Some(func) = TARGET.take() else { return Ok(()) };
            // The nested call traps, which the host swallows.
            assert!(func.call(&mut caller, &[], &mut Vec::new()).is_err());
            Ok(())
        });
    };
    let mut guest = Guest::with_imports(&wat, CONFIGURATIONS[0], define);
    let func = guest.func("f");
    for _ in 0..20_000 {
        TARGET.set(Some(func));
        assert_eq!(guest.call_func(func, &[]).unwrap_err(), TrapKind::Unreachable);
    }
}
