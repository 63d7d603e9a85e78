//! Exceptions between instances, and between guests and the host: whose tags they are of, who lets
//! them pass, what the host is told.

use std::cell::RefCell;
use std::rc::Rc;

use coracle_engine::runtime::{
    CallError, Caller, Exception, ExceptionError, ExternRef, Func, HostError, InstantiateError,
    Tag, TrapKind, Val, ValType,
};

use crate::World;

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
pub(crate) fn nesting(world: &mut World) -> Rc<RefCell<Option<Func>>> {
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
