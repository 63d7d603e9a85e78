//! Host functions on references, and of types that are only known at run time.

use coracle_engine::runtime::{
    AnyRef, CallError, Caller, ExternRef, Func, FuncType, HeapType, HostPanic, Val, ValType,
};

use crate::World;
use crate::types::reference;

#[test]
fn host_functions_take_and_give_references() {
    let mut world = World::new();
    world.linker.func_wrap("host", "pick", |_: Caller<'_>, n: i32, f: Option<Func>| (f, n + 1));
    world.linker.func_wrap("host", "next", |_: Caller<'_>, handle: Option<ExternRef>| {
        handle.and_then(ExternRef::number).and_then(|number| ExternRef::new(number + 1))
    });
    world.linker.func_wrap("host", "negate", |_: Caller<'_>, value: Option<AnyRef>| {
        value.and_then(AnyRef::as_i31).map(|value| AnyRef::i31(-value))
    });
    world.linker.func_wrap("host", "call", |mut caller: Caller<'_>, f: Option<Func>| {
        let mut results = Vec::new();
        f.ok_or("null")?.call(&mut caller, &[], &mut results)?;
        let [Val::I32(result)] = results[..] else { return Err("no i32".into()) };
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(result)
    });
    let instance = world
        .typed(
            r#"(import "host" "pick" (func $pick (param i32 funcref) (result funcref i32)))
            (import "host" "next" (func $next (param externref) (result externref)))
            (import "host" "negate" (func $negate (param anyref) (result anyref)))
            (import "host" "call" (func $call (param funcref) (result i32)))
            (table $t 1 funcref) (elem declare func $f) (func $f (result i32) (i32.const 9))
            (func (export "pick") (param i32) (result i32) (local i32 funcref)
                (call $pick (i32.const 30) (select (result funcref) (ref.func $f) (ref.null func) (local.get 0)))
                (local.set 1) (local.set 2) (table.set $t (i32.const 0) (local.get 2))
                (i32.add (local.get 1) (if (result i32) (ref.is_null (table.get $t (i32.const 0)))
                    (then (i32.const 100)) (else (call_indirect $t (result i32) (i32.const 0))))))
            (func (export "next") (param externref) (result externref) (call $next (local.get 0)))
            (func (export "negate") (param (ref null i31)) (result anyref) (call $negate (local.get 0)))
            (func (export "call") (result i32) (call $call (ref.func $f)))"#,
        )
        .unwrap();
    assert_eq!(world.call_i32(instance, "pick", &[Val::I32(1)]), 40);
    assert_eq!(world.call_i32(instance, "pick", &[Val::I32(0)]), 131);
    assert_eq!(world.call_i32(instance, "call", &[]), 9);
    let found = world.call(instance, "next", &[Val::ExternRef(ExternRef::new(5))]).unwrap();
    assert!(matches!(found[..], [Val::ExternRef(Some(found))] if found.number() == Some(6)));
    let found = world.call(instance, "next", &[Val::ExternRef(None)]).unwrap();
    assert!(matches!(found[..], [Val::ExternRef(None)]));
    let found = world.call(instance, "negate", &[Val::AnyRef(Some(AnyRef::i31(4)))]).unwrap();
    assert!(matches!(found[..], [Val::AnyRef(Some(found))] if found.as_i31() == Some(-4)));
}

#[test]
fn a_function_of_another_store_cannot_be_returned() {
    let mut world = World::new();
    let mut other = World::new();
    let foreign = Func::wrap(&mut other.store, |_: Caller<'_>| ());
    world.linker.func_wrap("host", "f", move |_: Caller<'_>| Some(foreign));
    let instance = world
        .typed(
            r#"(import "host" "f" (func $f (result funcref)))
            (func (export "run") (drop (call $f)))"#,
        )
        .unwrap();
    match world.call(instance, "run", &[]) {
        Err(CallError::Host(error)) => {
            let error = error.downcast::<HostPanic>().unwrap().to_string();
            assert!(error.contains("a store that it does not belong to"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn host_functions_may_have_any_type() {
    let mut world = World::new();
    let many = FuncType {
        params: [ValType::I32, ValType::I64, ValType::F32, ValType::F64].repeat(5),
        results: vec![ValType::F64, ValType::FUNCREF],
    };
    world.linker.func_new("host", "sum", many.clone(), |_, args, results| {
        let sum = args.iter().map(|arg| match *arg {
            Val::I32(value) => f64::from(value),
            Val::I64(value) => value as f64,
            Val::F32(value) => f64::from(value),
            Val::F64(value) => value,
            _ => f64::NAN,
        });
        results[0] = Val::F64(sum.sum());
        Ok(())
    });
    let never_null = reference(false, HeapType::Extern);
    let forgetful = FuncType { params: vec![], results: vec![ValType::I32, never_null] };
    world.linker.func_new("host", "forgetful", forgetful, |_, _, _| Ok(()));
    let nothing = FuncType::default();
    world.linker.func_new("host", "nothing", nothing.clone(), |_, args, results| {
        assert!(args.is_empty() && results.is_empty());
        Err("refused".into())
    });
    let instance = world
        .typed(
            r#"(type $many (func (param i32 i64 f32 f64 i32 i64 f32 f64 i32 i64 f32 f64 i32 i64 f32 f64 i32 i64 f32 f64)
                (result f64 funcref)))
            (import "host" "sum" (func $sum (type $many)))
            (import "host" "forgetful" (func $forgetful (result i32 (ref extern))))
            (import "host" "nothing" (func $nothing))
            (func $four (param i32) (result i32 i64 f32 f64)
                (local.get 0) (i64.const 2) (f32.const 3) (f64.const 4))
            (func (export "sum") (param i32) (result f64 funcref)
                (call $four (local.get 0)) (call $four (local.get 0)) (call $four (local.get 0))
                (call $four (local.get 0)) (call $four (local.get 0)) (call $sum))
            (func (export "forgetful") (call $forgetful) (drop) (drop))
            (func (export "nothing") (call $nothing))"#,
        )
        .unwrap();
    let found = world.call(instance, "sum", &[Val::I32(1)]).unwrap();
    assert!(matches!(found[..], [Val::F64(50.0), Val::FuncRef(None)]), "{found:?}");
    let message = |result: Result<Vec<Val>, CallError>| match result {
        Err(CallError::Host(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let expected = "host function set result 1 to a value that is no (ref extern)";
    assert_eq!(message(world.call(instance, "forgetful", &[])), expected);
    assert_eq!(message(world.call(instance, "nothing", &[])), "refused");
    // Without any module that knows the type, too.
    let unknown = FuncType { params: vec![ValType::V128], results: vec![ValType::V128; 2] };
    let twice = Func::new(&mut world.store, unknown, |_, args, results| {
        results.fill(args[0]);
        Ok(())
    });
    let mut results = Vec::new();
    twice.call(&mut world.store, &[Val::V128(7)], &mut results).unwrap();
    assert!(matches!(results[..], [Val::V128(7), Val::V128(7)]), "{results:?}");
    let nothing = Func::new(&mut world.store, nothing, |_, _, _| Ok(()));
    assert!(nothing.call(&mut world.store, &[], &mut results).is_ok() && results.is_empty());
}
