//! Exceptions: who catches them, across functions, instances and the host; what they carry; what
//! must not be caught.

use std::cell::RefCell;
use std::rc::Rc;

use coracle_engine::runtime::{
    CallError, Caller, Engine, Exception, ExceptionError, ExternRef, Func, HostError,
    InstantiateError, Linker, Store, StoreConfig, Tag, TrapKind, Val, ValType,
};

use crate::{World, names};

impl World {
    /// A world whose store collects garbage before every allocation.
    fn stressed() -> World {
        let engine = Engine::new();
        let config = StoreConfig { gc_stress: true, ..StoreConfig::default() };
        let store = Store::with_config(&engine, config).unwrap();
        let linker = Linker::new(&engine);
        World { engine, store, linker }
    }

    /// Calls a function that must throw.
    fn exception(
        &mut self,
        instance: coracle_engine::runtime::Instance,
        name: &str,
        args: &[Val],
    ) -> Exception {
        match self.call(instance, name, args) {
            Err(CallError::Exception(exception)) => exception,
            other => panic!("no exception: {other:?}"),
        }
    }
}

#[test]
fn clauses_are_tried_in_order_from_the_inside_out() {
    // Thrown directly, by a callee, by a callee's callee, and by one that was tail called.
    let throw = |tag: &str, how: &str| match how {
        "direct" => format!("(throw {tag})"),
        how => format!("(call {how}-{})", &tag[1..]),
    };
    for how in ["direct", "$callee", "$deep", "$tail"] {
        let case = |name: &str, tag: &str| {
            format!(
                r#"(func (export "{name}") (result i32)
                    (block $outer-all (block $outer-a (block $inner-b (block $inner-a
                        (try_table (catch $a $outer-a) (catch_all $outer-all)
                            (try_table (catch $b $inner-b) (catch $a $inner-a) (catch $b $outer-all)
                                {})
                            unreachable))
                        (return (i32.const 1)))
                        (return (i32.const 2)))
                        (return (i32.const 3)))
                    (i32.const 4))"#,
                throw(tag, how)
            )
        };
        let helpers: String = ["a", "b", "c"]
            .iter()
            .map(|tag| {
                format!(
                    "(func $callee-{tag} (throw ${tag}))
                     (func $deep-{tag} (call $callee-{tag}))
                     (func $tail-{tag} (return_call $callee-{tag}))"
                )
            })
            .collect();
        let mut world = World::new();
        let instance = world.instance(&format!(
            "(module (tag $a) (tag $b) (tag $c) {helpers} {} {} {})",
            case("a", "$a"),
            case("b", "$b"),
            case("c", "$c")
        ));
        for (name, expected) in [("a", 1), ("b", 2), ("c", 4)] {
            assert_eq!(world.call_i32(instance, name, &[]), expected, "{name} thrown {how}");
        }
    }
}

#[test]
fn values_of_every_kind_arrive_unchanged() {
    for mut world in [World::new(), World::stressed()] {
        let instance = world.instance(
            r#"(module
                (type $f (func (result i32)))
                (tag $all (export "all") (param i32 i64 f32 f64 funcref externref exnref i32))
                (tag $inner (param i64))
                (func $seven (type $f) (i32.const 7))
                (elem declare func $seven)
                (func $throw (param externref)
                    (throw $all (i32.const -1) (i64.const 0x123456789abcdef0) (f32.const 1.5)
                        (f64.const -2.5) (ref.func $seven) (local.get 0)
                        (block $inner-exception (result exnref)
                            (try_table (catch_all_ref $inner-exception)
                                (throw $inner (i64.const 99)))
                            unreachable)
                        (i32.const 42)))
                (table 1 funcref)
                (func (export "f") (param externref)
                    (result i32 i64 f32 f64 i32 externref i64 i32)
                    (local i32 i64 f32 f64 funcref externref exnref i32)
                    (block $caught (result i32 i64 f32 f64 funcref externref exnref i32)
                        (try_table (catch $all $caught) (call $throw (local.get 0)))
                        unreachable)
                    (local.set 8) (local.set 7) (local.set 6) (local.set 5) (local.set 4)
                    (local.set 3) (local.set 2) (local.set 1)
                    (table.set (i32.const 0) (local.get 5))
                    (local.get 1) (local.get 2) (local.get 3) (local.get 4)
                    (call_indirect (type $f) (i32.const 0))
                    (local.get 6)
                    (block $value (result i64)
                        (try_table (catch $inner $value) (throw_ref (local.get 7)))
                        unreachable)
                    (local.get 8))
                (func (export "uncaught") (param externref) (call $throw (local.get 0))))"#,
        );
        let reference = Val::ExternRef(ExternRef::new(5));
        let results = world.call(instance, "f", &[reference]).unwrap();
        let [
            Val::I32(-1),
            Val::I64(0x1234_5678_9abc_def0),
            Val::F32(1.5),
            Val::F64(-2.5),
            Val::I32(7),
            Val::ExternRef(handle),
            Val::I64(99),
            Val::I32(42),
        ] = results[..]
        else {
            panic!("{results:?}")
        };
        assert_eq!(handle, ExternRef::new(5));

        let exception = world.exception(instance, "uncaught", &[reference]);
        assert_eq!(Some(exception.tag()), instance.tag(&world.store, "all"));
        let values = exception.values(&world.store);
        let [
            Val::I32(-1),
            Val::I64(_),
            Val::F32(1.5),
            Val::F64(-2.5),
            Val::FuncRef(Some(seven)),
            Val::ExternRef(handle),
            Val::ExnRef(Some(_)),
            Val::I32(42),
        ] = values[..]
        else {
            panic!("{values:?}")
        };
        assert_eq!(handle, ExternRef::new(5));
        let mut results = Vec::new();
        seven.call(&mut world.store, &[], &mut results).unwrap();
        assert!(matches!(results[..], [Val::I32(7)]));
    }
}

#[test]
fn many_values_and_calls_with_much_on_the_stack() {
    let mut world = World::new();
    let count = 60;
    let types = "i64 ".repeat(count);
    let args: String = (0..count).map(|n| format!("(i64.const {n})")).collect();
    let gets: String = (0..count).map(|n| format!("(local.get {n})")).collect();
    let adds = "i64.add ".repeat(count - 1);
    let instance = world.instance(&format!(
        r#"(module
            (tag $t (param {types}))
            (func $results (param {types}) (result {types}) {gets})
            (func $throw (param {types}) (result {types}) (throw $t {gets}))
            (func (export "f") (param i64) (result i64) (local $sum i64)
                (loop $again
                    ;; Results in memory, from inside a try_table that catches nothing.
                    (block $never (result {types})
                        (try_table (result {types}) (catch $t $never) (call $results {args})))
                    {adds}
                    (local.set $sum (i64.add (local.get $sum)))
                    (block $caught (result {types})
                        (try_table (result {types}) (catch $t $caught) (call $throw {args}))
                        unreachable)
                    {adds}
                    (local.set $sum (i64.add (local.get $sum)))
                    (br_if $again (i32.wrap_i64 (local.tee 0 (i64.sub (local.get 0) (i64.const 1))))))
                (local.get $sum)))"#
    ));
    let once = (count * (count - 1)) as i64;
    let results = world.call(instance, "f", &[Val::I64(1000)]).unwrap();
    assert!(matches!(results[..], [Val::I64(sum)] if sum == 1000 * once), "{results:?}");
}

#[test]
fn locals_keep_what_they_held_at_the_call() {
    let mut world = World::new();
    let instance = world.instance(
        r#"(module
            (tag $t)
            (func $throw_at (param i32 i32)
                (if (i32.eq (local.get 0) (local.get 1)) (then (throw $t))))
            (func (export "f") (param $at i32) (result i32)
                (local $n i32) (local $a i64) (local $b f64) (local $c i32)
                (block $caught
                    (try_table (catch_all $caught)
                        (loop $again
                            (local.set $a (i64.add (local.get $a) (i64.const 3)))
                            (local.set $b (f64.add (local.get $b) (f64.const 0.5)))
                            (local.set $c (i32.xor (local.get $c) (local.get $n)))
                            (call $throw_at (local.get $n) (local.get $at))
                            (local.set $n (i32.add (local.get $n) (i32.const 1)))
                            (br $again))))
                (i32.add (i32.add (local.get $n) (i32.wrap_i64 (local.get $a)))
                    (i32.add (i32.trunc_f64_s (local.get $b)) (local.get $c)))))"#,
    );
    for at in [0, 1, 9, 1000] {
        let xor = (0..=at).fold(0, |a, b| a ^ b);
        let expected = at + 3 * (at + 1) + (at + 1) / 2 + xor;
        assert_eq!(world.call_i32(instance, "f", &[Val::I32(at)]), expected);
    }
}

#[test]
fn an_exception_thrown_again_is_the_same() {
    for mut world in [World::new(), World::stressed()] {
        let instance = world.instance(
            r#"(module
                (tag $t (export "t") (param i32))
                (global $kept (mut exnref) (ref.null exn))
                (table $table 2 exnref)
                (func $throw (param i32) (throw $t (local.get 0)))
                (func $keep (export "keep") (param i32)
                    (block $caught (result i32 exnref)
                        (try_table (catch_ref $t $caught) (call $throw (local.get 0)))
                        unreachable)
                    (global.set $kept)
                    drop
                    (table.set $table (i32.const 1) (global.get $kept)))
                (func (export "again") (throw_ref (global.get $kept)))
                (func (export "from_table") (throw_ref (table.get $table (i32.const 1))))
                (func (export "null") (throw_ref (table.get $table (i32.const 0))))
                (func $relay (param i32)
                    ;; As a clean-up would: catch whatever comes, throw it on.
                    (block $caught (result exnref)
                        (try_table (catch_all_ref $caught) (call $throw (local.get 0)))
                        unreachable)
                    throw_ref)
                (func (export "relay") (param i32) (result i32)
                    (block $caught (result i32)
                        (try_table (catch $t $caught) (call $relay (local.get 0)))
                        unreachable)))"#,
        );
        assert_eq!(world.call_i32(instance, "relay", &[Val::I32(3)]), 3);
        world.call(instance, "keep", &[Val::I32(17)]).unwrap();
        for n in 0..20 {
            assert_eq!(world.call_i32(instance, "relay", &[Val::I32(n)]), n);
        }
        for name in ["again", "from_table", "again"] {
            let exception = world.exception(instance, name, &[]);
            assert!(matches!(exception.values(&world.store)[..], [Val::I32(17)]), "{name}");
            assert_eq!(exception.backtrace().len(), 1, "where it was thrown last");
        }
        let trap = world.trap(instance, "null", &[]);
        assert_eq!((trap.kind(), names(&trap)), (TrapKind::NullReference, vec!["null"]));
    }
}

const THROWER: &str = r#"(module
    (tag $own (export "tag") (param i32))
    (func (export "throw") (param i32) (throw $own (local.get 0))))"#;

#[test]
fn instances_and_images_share_the_tags_that_they_import() {
    let mut world = World::new();
    let first = world.instance(THROWER);
    let second = world.instance(THROWER);
    world.linker.instance("first", first);
    world.linker.instance("second", second);
    let catcher = world.instance(
        r#"(module
            (import "first" "tag" (tag $first (param i32)))
            (import "second" "tag" (tag $second (param i32)))
            (import "first" "tag" (tag $again (param i32)))
            (import "first" "throw" (func $throw_first (param i32)))
            (import "second" "throw" (func $throw_second (param i32)))
            (tag $own (param i32))
            (func $which (param i32) (result i32)
                (block $own (result i32) (block $second (result i32) (block $first (result i32)
                    (try_table (catch $own $own) (catch $second $second) (catch $again $first)
                        (if (local.get 0)
                            (then (call $throw_first (i32.const 1)))
                            (else (call $throw_second (i32.const 2)))))
                    unreachable)
                    (return (i32.add (i32.const 10))))
                    (return (i32.add (i32.const 20))))
                (i32.const 30) i32.add)
            (func (export "which") (param i32) (result i32) (call $which (local.get 0)))
            ;; Imports may be one tag under two names: only the runtime can tell.
            (func (export "alias") (result i32)
                (block $caught (result i32)
                    (try_table (catch $second $caught) (catch $first $caught)
                        (throw $again (i32.const 5)))
                    unreachable))
            (func (export "no_alias") (result i32)
                (block $caught (result i32)
                    (try_table (catch $second $caught) (throw $again (i32.const 6)))
                    unreachable)))"#,
    );
    assert_eq!(world.call_i32(catcher, "which", &[Val::I32(1)]), 11);
    assert_eq!(world.call_i32(catcher, "which", &[Val::I32(0)]), 22);
    assert_eq!(world.call_i32(catcher, "alias", &[]), 5);
    let exception = world.exception(catcher, "no_alias", &[]);
    assert_eq!(Some(exception.tag()), first.tag(&world.store, "tag"));
    assert_ne!(first.tag(&world.store, "tag"), second.tag(&world.store, "tag"));
}

#[test]
fn a_tag_of_another_type_cannot_be_imported() {
    let mut world = World::new();
    let first = world.instance(THROWER);
    world.linker.instance("first", first);
    for (import, found) in [
        (r#"(import "first" "tag" (tag (param i64)))"#, "tag of function"),
        (r#"(import "first" "tag" (global i32))"#, "tag of function"),
        (r#"(import "first" "throw" (tag (param i32)))"#, "function"),
    ] {
        let module = world.module(&format!("(module {import})"));
        match world.linker.instantiate(&mut world.store, &module) {
            Err(error @ InstantiateError::IncompatibleImport { .. }) => {
                assert!(error.to_string().contains(found), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Guests call the host, which calls the function that it was given last and passes its error on.
fn nesting(world: &mut World) -> Rc<RefCell<Option<Func>>> {
    let target = Rc::new(RefCell::new(None::<Func>));
    let inner = Rc::clone(&target);
    world.linker.func_wrap("h", "nest", move |mut caller: Caller<'_>| -> Result<(), HostError> {
        let func = inner.borrow().ok_or("no target")?;
        Ok(func.call(&mut caller, &[], &mut Vec::new())?)
    });
    target
}

const NESTED: &str = r#"(module
    (import "h" "nest" (func $nest))
    (tag $t (export "t") (param i64))
    (func $deep (param i64) (throw $t (local.get 0)))
    (func (export "inner") (call $deep (i64.const 8)))
    (func (export "trap") unreachable)
    (func $middle (call $nest))
    (func $tail (return_call $nest))
    (func (export "outer") (call $middle))
    (func (export "caught") (result i64)
        (block $caught (result i64)
            (try_table (catch $t $caught) (call $middle) (return (i64.const -1)))
            unreachable))
    (func (export "caught_tail") (result i64)
        (block $caught (result i64)
            (try_table (catch $t $caught) (call $tail) (return (i64.const -1)))
            unreachable))
    (func (export "caught_here") (result i64)
        (block $caught (result i64)
            (try_table (catch $t $caught) (call $nest) (return (i64.const -1)))
            unreachable))
    (func (export "all") (result i64)
        (block $caught
            (try_table (catch_all $caught) (call $middle))
            (return (i64.const -1)))
        (i64.const -2)))"#;

#[test]
fn an_exception_passes_through_the_host_if_the_host_lets_it() {
    for mut world in [World::new(), World::stressed()] {
        let target = nesting(&mut world);
        let instance = world.instance(NESTED);
        *target.borrow_mut() = instance.func(&world.store, "inner");
        for name in ["caught", "caught_tail", "caught_here"] {
            let results = world.call(instance, name, &[]).unwrap();
            assert!(matches!(results[..], [Val::I64(8)]), "{name}: {results:?}");
        }
        let results = world.call(instance, "all", &[]).unwrap();
        assert!(matches!(results[..], [Val::I64(-2)]), "{results:?}");
        let exception = world.exception(instance, "outer", &[]);
        let frames = exception.backtrace().iter().map(|frame| frame.name.as_deref().unwrap());
        // Those of the nested call, and those around it.
        assert_eq!(frames.collect::<Vec<_>>(), ["deep", "inner", "middle", "outer"]);
        // A trap in the nested call is none of `catch_all`'s business, whoever it passes through.
        *target.borrow_mut() = instance.func(&world.store, "trap");
        assert_eq!(world.trap(instance, "all", &[]).kind(), TrapKind::Unreachable);
        *target.borrow_mut() = None;
        assert!(matches!(world.call(instance, "all", &[]), Err(CallError::Host(_))));
    }
}

#[test]
fn the_host_may_swallow_an_exception_or_keep_it_for_later() {
    let mut world = World::stressed();
    let kept = Rc::new(RefCell::new(Vec::<Exception>::new()));
    let target = Rc::new(RefCell::new(None::<Func>));
    let (keep, inner) = (Rc::clone(&kept), Rc::clone(&target));
    world.linker.func_wrap("h", "nest", move |mut caller: Caller<'_>| -> Result<(), HostError> {
        let func = inner.borrow().ok_or("no target")?;
        match func.call(&mut caller, &[], &mut Vec::new()) {
            Err(CallError::Exception(exception)) => keep.borrow_mut().push(exception),
            other => other?,
        }
        Ok(())
    });
    let instance = world.instance(NESTED);
    *target.borrow_mut() = instance.func(&world.store, "inner");
    for _ in 0..5 {
        let results = world.call(instance, "caught", &[]).unwrap();
        assert!(matches!(results[..], [Val::I64(-1)]), "{results:?}");
    }
    // Every later one came with a collection.
    for exception in kept.borrow().iter() {
        assert!(matches!(exception.values(&world.store)[..], [Val::I64(8)]));
    }
    let first = kept.borrow_mut().remove(0);
    let raise = Func::wrap(&mut world.store, move |_: Caller<'_>| -> Result<(), Exception> {
        Err(first.clone())
    });
    *target.borrow_mut() = Some(raise);
    kept.borrow_mut().clear();
    let results = world.call(instance, "caught", &[]).unwrap();
    assert!(matches!(results[..], [Val::I64(-1)]), "{results:?}");
    assert_eq!(kept.borrow().len(), 1);
}

#[test]
fn the_host_throws_with_a_tag_of_its_own() {
    let mut world = World::new();
    let tag = Tag::new(&mut world.store, [ValType::I32, ValType::EXTERNREF]);
    assert_eq!(tag.params(&world.store), [ValType::I32, ValType::EXTERNREF]);
    world.linker.define("h", "tag", tag);
    world.linker.func_wrap("h", "throw", move |mut caller: Caller<'_>, n: i32| {
        let values = [Val::I32(n), Val::ExternRef(ExternRef::new(n as u32))];
        Err::<(), HostError>(Exception::new(&mut caller, tag, &values)?.into())
    });
    let instance = world.instance(
        r#"(module
            (import "h" "tag" (tag $tag (param i32 externref)))
            (import "h" "throw" (func $throw (param i32)))
            (func $calls (param i32) (call $throw (local.get 0)))
            (func (export "caught") (param i32) (result i32)
                (block $caught (result i32 externref)
                    (try_table (catch $tag $caught) (call $calls (local.get 0)))
                    unreachable)
                (ref.is_null)
                i32.sub)
            (func (export "uncaught") (param i32) (call $calls (local.get 0))))"#,
    );
    assert_eq!(world.call_i32(instance, "caught", &[Val::I32(7)]), 7);
    let exception = world.exception(instance, "uncaught", &[Val::I32(8)]);
    assert_eq!(exception.tag(), tag);
    let frames = exception.backtrace().iter().map(|frame| frame.name.as_deref().unwrap());
    assert_eq!(frames.collect::<Vec<_>>(), ["calls", "uncaught"]);
    let report = exception.to_string();
    assert!(report.starts_with("uncaught exception (i32 8, reference)\n  0: 0x"), "{report}");
    for wrong in [&[][..], &[Val::I32(1)], &[Val::I64(1), Val::ExternRef(None)]] {
        let error = Exception::new(&mut world.store, tag, wrong).unwrap_err();
        assert!(matches!(error, ExceptionError::Values { .. }), "{error}");
    }
    // Without a guest in between.
    let exception = Exception::new(&mut world.store, tag, &[Val::I32(1), Val::ExternRef(None)]);
    let exception = exception.unwrap();
    let raise =
        Func::wrap(&mut world.store, move |_: Caller<'_>, _: f64| -> Result<(), Exception> {
            Err(exception.clone())
        });
    let result = raise.call(&mut world.store, &[Val::F64(0.0)], &mut Vec::new());
    assert!(matches!(result, Err(CallError::Exception(_))), "{result:?}");
}

#[test]
fn an_exception_of_another_store_is_an_error_like_any_other() {
    let mut other = World::new();
    let thrower = other.instance(THROWER);
    let foreign = other.exception(thrower, "throw", &[Val::I32(1)]);
    let mut world = World::new();
    world.linker.func_wrap("h", "nest", move |_: Caller<'_>| -> Result<(), CallError> {
        Err(foreign.clone().into())
    });
    let instance = world.instance(NESTED);
    for name in ["all", "caught"] {
        let result = world.call(instance, name, &[]);
        assert!(matches!(result, Err(CallError::Exception(_))), "{result:?}");
    }
}

#[test]
fn traps_are_not_caught() {
    let mut world = World::new();
    world.linker.func_wrap("h", "fail", |_: Caller<'_>| -> Result<(), std::fmt::Error> {
        Err(std::fmt::Error)
    });
    let instance = world.instance(
        r#"(module
            (import "h" "fail" (func $fail))
            (memory 1) (table 1 funcref)
            (func $unreachable unreachable)
            (func $load (drop (i32.load (i32.const -1))))
            (func $divide (drop (i32.div_u (i32.const 1) (i32.const 0))))
            (func $null (call_indirect (i32.const 0)))
            (func $endless (call $endless) (call $endless))
            (func $fill (memory.fill (i32.const 65536) (i32.const 0) (i32.const 1)))
            (table $t funcref (elem $unreachable $load $divide $null $endless $fill $fail))
            (func (export "f") (param i32) (result i32)
                (block $caught
                    (try_table (catch_all $caught) (call_indirect $t (local.get 0)))
                    (return (i32.const 1)))
                (i32.const 2))
            (func (export "here") (result i32)
                (block $caught
                    (try_table (catch_all $caught) unreachable)
                    (return (i32.const 1)))
                (i32.const 2)))"#,
    );
    for (n, kind) in [
        (0, TrapKind::Unreachable),
        (1, TrapKind::MemoryOutOfBounds),
        (2, TrapKind::IntegerDivideByZero),
        (3, TrapKind::UninitializedElement),
        (4, TrapKind::StackOverflow),
        (5, TrapKind::MemoryOutOfBounds),
    ] {
        assert_eq!(world.trap(instance, "f", &[Val::I32(n)]).kind(), kind);
    }
    let result = world.call(instance, "f", &[Val::I32(6)]);
    assert!(matches!(result, Err(CallError::Host(_))), "{result:?}");
    assert_eq!(world.trap(instance, "here", &[]).kind(), TrapKind::Unreachable);
}

#[test]
fn a_tail_call_leaves_the_clauses_around_it() {
    let mut world = World::new();
    let instance = world.instance(
        r#"(module
            (tag $t)
            (func $throw (result i32) (throw $t))
            (func $leaves (result i32)
                (block $caught
                    (try_table (catch_all $caught) (return_call $throw)))
                (i32.const 1))
            (func (export "f") (result i32)
                (block $caught
                    (try_table (catch $t $caught) (return (call $leaves))))
                (i32.const 2))
            (func (export "uncaught") (result i32) (return_call $leaves)))"#,
    );
    assert_eq!(world.call_i32(instance, "f", &[]), 2);
    let exception = world.exception(instance, "uncaught", &[]);
    assert_eq!(exception.backtrace().len(), 1, "{exception}");
}

#[test]
fn a_million_exceptions_take_no_more_memory_than_one() {
    let engine = Engine::new();
    // A heap that a few thousand exceptions fill.
    let config = StoreConfig { max_gc_heap_bytes: 8 << 20, ..StoreConfig::default() };
    let store = Store::with_config(&engine, config).unwrap();
    let linker = Linker::new(&engine);
    let mut world = World { engine, store, linker };
    let target = nesting(&mut world);
    let instance = world.instance(
        r#"(module
            (import "h" "nest" (func $nest))
            (tag $t (param i32 exnref))
            (func $throw (param i32) (throw $t (local.get 0) (ref.null exn)))
            (func (export "inner") (call $throw (i32.const 1)))
            (func (export "f") (param $n i32) (result i32) (local $sum i32)
                (loop $again
                    (block $caught (result i32 exnref exnref)
                        (try_table (catch_ref $t $caught) (call $throw (i32.const 2)))
                        unreachable)
                    drop drop
                    (local.set $sum (i32.add (local.get $sum)))
                    (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
                (local.get $sum))
            (func (export "host") (param $n i32) (result i32) (local $sum i32)
                (loop $again
                    (block $caught (result i32 exnref exnref)
                        (try_table (catch_ref $t $caught) (call $nest))
                        unreachable)
                    drop drop
                    (local.set $sum (i32.add (local.get $sum)))
                    (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
                (local.get $sum)))"#,
    );
    *target.borrow_mut() = instance.func(&world.store, "inner");
    assert_eq!(world.call_i32(instance, "f", &[Val::I32(1_000_000)]), 2_000_000);
    assert_eq!(world.call_i32(instance, "host", &[Val::I32(300_000)]), 300_000);
}

#[test]
fn exceptions_that_fill_the_heap_are_a_trap() {
    let engine = Engine::new();
    let config = StoreConfig { max_gc_heap_bytes: 1 << 20, ..StoreConfig::default() };
    let store = Store::with_config(&engine, config).unwrap();
    let linker = Linker::new(&engine);
    let mut world = World { engine, store, linker };
    let instance = world.instance(
        r#"(module
            (tag $t (param exnref))
            (func $throw (param exnref) (throw $t (local.get 0)))
            ;; Each holds the one before.
            (func (export "chain") (local $last exnref)
                (loop $again
                    (block $caught (result exnref exnref)
                        (try_table (catch_ref $t $caught) (call $throw (local.get $last)))
                        unreachable)
                    (local.set $last)
                    drop
                    (br $again)))
            (func $scrub (export "scrub") (param i32) (result i32)
                (if (result i32) (local.get 0)
                    (then (i32.add (local.get 0)
                        (call $scrub (i32.sub (local.get 0) (i32.const 1)))))
                    (else (i32.const 0))))
            (func (export "f") (call $throw (ref.null exn))))"#,
    );
    let trap = world.trap(instance, "chain", &[]);
    assert_eq!((trap.kind(), names(&trap)), (TrapKind::OutOfMemory, vec!["throw", "chain"]));
    // All of it is free again, once nothing on the stack looks like the end of the chain.
    world.call(instance, "scrub", &[Val::I32(1000)]).unwrap();
    world.exception(instance, "f", &[]);
}

/// Recursion of some depth with a throw at the bottom, in every way that a call can be made.
const DEEP: &str = r#"(module
    (import "h" "nest" (func $nest))
    (tag $t (param i32))
    (type $f (func (param i32) (result i32)))
    (table funcref (elem $indirect))
    (global $left (mut i32) (i32.const 0))
    (func $direct (type $f)
        (if (i32.eqz (local.get 0)) (then (throw $t (i32.const 5))))
        (i32.add (i32.const 1) (call $direct (i32.sub (local.get 0) (i32.const 1)))))
    (func $indirect (type $f)
        (if (i32.eqz (local.get 0)) (then (throw $t (i32.const 6))))
        (i32.add (i32.const 1)
            (call_indirect (type $f) (i32.sub (local.get 0) (i32.const 1)) (i32.const 0))))
    (func $host (export "host")
        (if (i32.eqz (global.get $left)) (then (throw $t (i32.const 7))))
        (global.set $left (i32.sub (global.get $left) (i32.const 1)))
        (call $nest)
        (global.set $left (i32.const -1)))
    (func (export "catch_direct") (type $f)
        (block $caught (result i32)
            (try_table (catch $t $caught) (drop (call $direct (local.get 0))))
            (i32.const 0)))
    (func (export "catch_indirect") (type $f)
        (block $caught (result i32)
            (try_table (catch $t $caught) (drop (call $indirect (local.get 0))))
            (i32.const 0)))
    (func (export "catch_host") (type $f)
        (global.set $left (local.get 0))
        (block $caught (result i32)
            (try_table (catch $t $caught) (call $host))
            (i32.const 0))))"#;

#[test]
fn an_exception_leaves_a_deep_stack() {
    let mut world = World::new();
    let target = nesting(&mut world);
    let instance = world.instance(DEEP);
    *target.borrow_mut() = instance.func(&world.store, "host");
    for _ in 0..3 {
        for depth in [0, 1, 10_000] {
            for (name, expected) in [("catch_direct", 5), ("catch_indirect", 6)] {
                assert_eq!(world.call_i32(instance, name, &[Val::I32(depth)]), expected);
            }
        }
        for depth in [0, 1, 300] {
            assert_eq!(world.call_i32(instance, "catch_host", &[Val::I32(depth)]), 7);
        }
        // Too deep is a trap as ever, also inside a `try_table`.
        for name in ["catch_direct", "catch_indirect", "catch_host"] {
            let trap = world.trap(instance, name, &[Val::I32(100_000_000)]);
            assert_eq!(trap.kind(), TrapKind::StackOverflow, "{name}");
        }
    }
}

#[test]
fn at_every_depth_a_throw_is_caught_or_the_stack_is_exhausted() {
    let config = StoreConfig { max_wasm_stack: 64 << 10, ..StoreConfig::default() };
    let engine = Engine::new();
    let store = Store::with_config(&engine, config).unwrap();
    let linker = Linker::new(&engine);
    let mut world = World { engine, store, linker };
    nesting(&mut world);
    let instance = world.instance(DEEP);
    let mut exhausted = 0;
    for depth in 0..3000 {
        match world.call(instance, "catch_direct", &[Val::I32(depth)]) {
            Ok(results) => {
                assert!(matches!(results[..], [Val::I32(5)]));
                assert_eq!(exhausted, 0, "a deeper one has thrown");
            }
            Err(CallError::Trap(trap)) => {
                assert_eq!(trap.kind(), TrapKind::StackOverflow);
                exhausted += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(exhausted > 0 && exhausted < 3000, "{exhausted}");
}

#[test]
fn a_report_names_the_tag_its_values_and_the_frames() {
    let mut world = World::new();
    let wat = r#"(module
        (tag (export "__cpp_exception") (param i32 f64))
        (tag $none)
        (func $inner (throw 0 (i32.const -7) (f64.const 1.5)))
        (func (export "outer") (call $inner))
        (func (export "bare") (throw $none)))"#;
    let instance = world.instance(wat);
    let exception = world.exception(instance, "outer", &[]);
    let wasm = wat::parse_str(wat).unwrap();
    let offset = |n: usize| exception.backtrace()[n].wasm_offset.unwrap() as usize;
    // throw is opcode 0x08, call 0x10.
    assert_eq!((wasm[offset(0)], wasm[offset(1)]), (0x08, 0x10));
    assert_eq!(
        CallError::from(exception.clone()).to_string(),
        format!(
            "uncaught exception `__cpp_exception` (i32 -7, f64 1.5)\n  0: {:#x}  inner\n  1: {:#x}  outer",
            offset(0),
            offset(1)
        )
    );
    let bare = world.exception(instance, "bare", &[]).to_string();
    assert!(bare.starts_with("uncaught exception\n  0: 0x") && bare.ends_with("  bare"), "{bare}");
}

#[test]
fn an_exception_in_the_start_function_fails_the_instantiation() {
    let mut world = World::new();
    let module = world.module("(module (tag $t) (func $begin (throw $t)) (start $begin))");
    match world.linker.instantiate(&mut world.store, &module) {
        Err(InstantiateError::Failed(CallError::Exception(exception))) => {
            assert_eq!(exception.backtrace()[0].name.as_deref(), Some("begin"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn clauses_behind_a_loop_and_in_dead_code_translate() {
    let mut world = World::new();
    let instance = world.instance(
        r#"(module
            (tag $t (param i32))
            (func $throw (param i32) (throw $t (local.get 0)))
            ;; A label that is a loop: the exception's value is the next one to throw.
            (func (export "countdown") (param i32) (result i32) (local $rounds i32)
                (local.get 0)
                (loop $again (param i32)
                    (local.set 0)
                    (if (i32.eqz (local.get 0)) (then (return (local.get $rounds))))
                    (local.set $rounds (i32.add (local.get $rounds) (i32.const 1)))
                    (try_table (catch $t $again)
                        (call $throw (i32.sub (local.get 0) (i32.const 1))))
                    unreachable)
                unreachable)
            ;; The function's own label.
            (func (export "body") (param i32) (result i32)
                (try_table (catch $t 0) (call $throw (local.get 0)))
                (i32.const 0))
            (func (export "dead") (result i32)
                (block $b (result i32)
                    (try_table (result i32) (catch $t $b)
                        (br $b (i32.const 3))
                        (try_table (catch $t $b) (call $throw (i32.const 1)))
                        (throw $t (i32.const 2)))))
            (func (export "params") (param i32) (result i32)
                (block $b (result i32)
                    (local.get 0) (i32.const 5)
                    (try_table (param i32 i32) (result i32) (catch $t $b) i32.mul
                        (if (param i32) (result i32) (i32.eq (local.get 0) (i32.const 2))
                            (then (call $throw) (i32.const 0)))))))"#,
    );
    assert_eq!(world.call_i32(instance, "countdown", &[Val::I32(25)]), 25);
    assert_eq!(world.call_i32(instance, "body", &[Val::I32(9)]), 9);
    assert_eq!(world.call_i32(instance, "dead", &[]), 3);
    assert_eq!(world.call_i32(instance, "params", &[Val::I32(2)]), 10);
    assert_eq!(world.call_i32(instance, "params", &[Val::I32(3)]), 15);
}

#[test]
fn vectors_and_objects_arrive_and_objects_stay_alive() {
    for mut world in [World::new(), World::stressed()] {
        let instance = world.instance(
            r#"(module
                (type $pair (struct (field i32) (field (ref null $pair))))
                (type $bytes (array (mut i8)))
                (type $throws (func (param i32)))
                (tag $t (export "t") (param v128 (ref $pair) i31ref (ref null $bytes) v128))
                (func $throw (type $throws)
                    (throw $t (v128.const i64x2 0x1122334455667788 0x99aabbccddeeff00)
                        (struct.new $pair (local.get 0)
                            (struct.new $pair (i32.const 20) (ref.null $pair)))
                        (ref.i31 (i32.const 300))
                        (array.new $bytes (i32.const 4) (i32.const 10))
                        (v128.const i32x4 1 2 3 4)))
                (elem declare func $throw)
                (func (export "f") (param i32) (result i32 v128)
                    (local $first v128) (local $last v128) (local $sum i32)
                    (local $bytes (ref null $bytes)) (local $pair (ref null $pair))
                    (block $caught (result v128 (ref $pair) i31ref (ref null $bytes) v128)
                        (try_table (catch $t $caught)
                            (call_ref $throws (local.get 0) (ref.func $throw)))
                        unreachable)
                    (local.set $last)
                    (local.set $bytes)
                    (i31.get_s)
                    (local.set $sum)
                    (local.set $pair)
                    (local.set $first)
                    ;; Every allocation may collect what only the exception referred to.
                    (drop (array.new $bytes (i32.const 9) (i32.const 10)))
                    (local.set $sum (i32.add (local.get $sum)
                        (i32.mul (array.len (local.get $bytes))
                            (array.get_u $bytes (local.get $bytes) (i32.const 9)))))
                    (local.set $sum (i32.add (local.get $sum)
                        (struct.get $pair 0 (struct.get $pair 1 (local.get $pair)))))
                    (i32.add (local.get $sum) (struct.get $pair 0 (local.get $pair)))
                    (v128.xor (local.get $first) (local.get $last)))
                (func (export "again") (result i32) (local $exception exnref)
                    (block $caught (result v128 (ref $pair) i31ref (ref null $bytes) v128 exnref)
                        (try_table (catch_ref $t $caught) (call $throw (i32.const 5)))
                        unreachable)
                    (local.set $exception)
                    drop drop drop drop drop
                    (drop (array.new $bytes (i32.const 9) (i32.const 10)))
                    (block $again (result v128 (ref $pair) i31ref (ref null $bytes) v128)
                        (try_table (catch $t $again) (throw_ref (local.get $exception)))
                        unreachable)
                    drop drop drop
                    (struct.get $pair 0 (struct.get $pair 1))
                    (return))
                (func (export "uncaught") (call $throw (i32.const 1))))"#,
        );
        let results = world.call(instance, "f", &[Val::I32(7)]).unwrap();
        let vector = 0x99aa_bbcc_ddee_ff00_1122_3344_5566_7788u128
            ^ 0x0000_0004_0000_0003_0000_0002_0000_0001;
        let [Val::I32(sum), Val::V128(found)] = results[..] else { panic!("{results:?}") };
        assert_eq!((sum, found), (300 + 40 + 20 + 7, vector));
        assert_eq!(world.call_i32(instance, "again", &[]), 20);
        let exception = world.exception(instance, "uncaught", &[]);
        let values = exception.values(&world.store);
        assert!(matches!(values[..], [Val::V128(_), _, _, _, Val::V128(_)]), "{values:?}");
        let text = exception.to_string();
        assert!(text.contains("v128 0x99aabbccddeeff001122334455667788, reference"), "{text}");
    }
}
