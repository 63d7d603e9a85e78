//! Linking: matching of names and types, shared items, limits, the fixed address.

use coracle_engine::compile::compile;
use coracle_engine::config::{Addressing, Settings};
use coracle_engine::module::types::{GlobalType, ValType};
use coracle_engine::runtime::{
    Caller, Engine, Extern, ExternType, Global, GlobalError, InstantiateError, Linker, MemoryError,
    MemoryType, Module, Store, StoreConfig, Table, TableError, Val,
};

use crate::{World, settings};

fn refusal(world: &mut World, wat: &str) -> String {
    let module = world.module(wat);
    world.linker.instantiate(&mut world.store, &module).unwrap_err().to_string()
}

#[test]
fn refusals_say_what_is_wanted_and_what_was_found() {
    let mut world = World::new();
    world.linker.func_wrap("env", "f", |_: Caller<'_>, _: i32| 0i64);
    let exporter = world.instance(
        r#"(module (memory (export "m") 1 2) (table (export "t") 3 funcref)
            (global (export "g") (mut i32) (i32.const 0)) (func (export "f")))"#,
    );
    world.linker.instance("other", exporter);
    for (import, message) in [
        (
            r#""env" "nothing" (func (param i32))"#,
            "unknown import: nothing is defined as `env` `nothing` (the module wants a function (i32) -> ())",
        ),
        (
            r#""env" "f" (func (param i64))"#,
            "incompatible import type: `env` `f` is a function (i32) -> (i64), the module wants a function (i64) -> ()",
        ),
        (
            r#""other" "m" (memory 2)"#,
            "incompatible import type: `other` `m` is a memory with 1 to 2 pages, the module wants a memory with at least 2 pages",
        ),
        (
            r#""other" "m" (memory 1 1)"#,
            "incompatible import type: `other` `m` is a memory with 1 to 2 pages, the module wants a memory with 1 to 1 pages",
        ),
        (
            r#""other" "t" (table 1 externref)"#,
            "incompatible import type: `other` `t` is a table of funcref with at least 3 elements, the module wants a table of externref with at least 1 elements",
        ),
        (
            r#""other" "g" (global i32)"#,
            "incompatible import type: `other` `g` is a mutable global of type i32, the module wants a immutable global of type i32",
        ),
        (
            r#""other" "f" (memory 1)"#,
            "incompatible import type: `other` `f` is a function () -> (), the module wants a memory with at least 1 pages",
        ),
    ] {
        assert_eq!(refusal(&mut world, &format!("(module (import {import}))")), message);
    }
}

#[test]
fn instances_share_what_they_export() {
    let mut world = World::new();
    let first = world.instance(
        r#"(module (memory (export "m") 1) (global $g (export "g") (mut i64) (i64.const 5))
            (table (export "t") 1 funcref) (elem (i32.const 0) $seven)
            (func $seven (result i32) (i32.const 7))
            (func (export "get") (result i64) (global.get $g))
            (func (export "load") (result i32) (i32.load8_u (i32.const 100000))))"#,
    );
    world.linker.instance("first", first);
    let second = world.instance(
        r#"(module (import "first" "m" (memory 1)) (import "first" "g" (global $g (mut i64)))
            (import "first" "t" (table 1 funcref)) (type $r (func (result i32)))
            (func (export "set") (global.set $g (i64.const 6))
                (drop (memory.grow (i32.const 1))) (i32.store8 (i32.const 100000) (i32.const 3)))
            (func (export "indirect") (result i32) (call_indirect (type $r) (i32.const 0))))"#,
    );
    world.call(second, "set", &[]).unwrap();
    assert!(matches!(world.call(first, "get", &[]).unwrap()[..], [Val::I64(6)]));
    assert_eq!(world.call_i32(first, "load", &[]), 3);
    assert_eq!(world.call_i32(second, "indirect", &[]), 7);
    let memory = first.memory(&world.store, "m").unwrap();
    assert_eq!((memory.size(&world.store), memory.data(&world.store)[100_000]), (2, 3));
    memory.data_mut(&mut world.store)[100_000] = 4;
    assert_eq!(world.call_i32(first, "load", &[]), 4);
    let global = first.global(&world.store, "g").unwrap();
    global.set(&mut world.store, Val::I64(9)).unwrap();
    assert!(matches!(global.get(&world.store), Val::I64(9)));
    assert!(matches!(global.set(&mut world.store, Val::I32(9)), Err(GlobalError::Type)));
    assert!(matches!(first.export(&world.store, "t"), Some(Extern::Table(_))));
    assert_eq!(first.func(&world.store, "m"), None);
}

#[test]
fn immutable_globals_and_foreign_elements_are_refused() {
    let mut world = World::new();
    let ty = GlobalType { content: ValType::I32, mutable: false };
    let global = Global::new(&mut world.store, ty, Val::I32(1)).unwrap();
    assert!(matches!(global.set(&mut world.store, Val::I32(2)), Err(GlobalError::Immutable)));
    let instance = world.instance(r#"(module (table (export "t") 1 2 externref))"#);
    let table: Table = instance.table(&world.store, "t").unwrap();
    let null = Val::FuncRef(None);
    assert!(matches!(table.set(&mut world.store, 0, null), Err(TableError::ElementType)));
    let null = Val::ExternRef(None);
    assert!(matches!(table.set(&mut world.store, 1, null), Err(TableError::OutOfBounds { .. })));
    assert_eq!(table.grow(&mut world.store, 1, null).unwrap(), 1);
    assert!(matches!(table.grow(&mut world.store, 1, null), Err(TableError::Limit { .. })));
}

#[test]
fn limits_of_the_store_bind_guests() {
    let engine = Engine::new();
    let config =
        StoreConfig { max_memory_bytes: 3 << 16, max_table_elements: 10, ..StoreConfig::default() };
    let store = Store::with_config(&engine, config).unwrap();
    let linker = Linker::new(&engine);
    let mut world = World { engine, store, linker };
    let instance = world.instance(
        r#"(module (memory 1) (table 4 funcref)
            (func (export "m") (param i32) (result i32) (memory.grow (local.get 0)))
            (func (export "t") (param i32) (result i32) (table.grow (ref.null func) (local.get 0))))"#,
    );
    for (name, size, rest) in [("m", 1, 2), ("t", 4, 6)] {
        assert_eq!(world.call_i32(instance, name, &[Val::I32(rest + 1)]), -1);
        assert_eq!(world.call_i32(instance, name, &[Val::I32(rest)]), size);
        assert_eq!(world.call_i32(instance, name, &[Val::I32(1)]), -1);
        assert_eq!(world.call_i32(instance, name, &[Val::I32(-1)]), -1);
    }
    let module = world.module("(module (memory 4))");
    let error = world.linker.instantiate(&mut world.store, &module).unwrap_err();
    assert!(matches!(error, InstantiateError::Memory(MemoryError::Limit { .. })), "{error}");
}

#[test]
fn the_fixed_address_is_for_one_instance_at_a_time() {
    let _alone = crate::fixed_address();
    let settings = Settings { addressing: Addressing::Dedicated, ..settings() };
    let image = |wat: &str| compile(&wat::parse_str(wat).unwrap(), &settings).unwrap();
    let engine = Engine::new();
    let wat = r#"(module (memory (export "m") 1) (data (i32.const 10) "x")
        (func (export "f") (result i32) (i32.load8_u offset=4 (i32.const 6))))"#;
    let module = Module::from_bytes(&engine, &image(wat)).unwrap();
    let linker = Linker::new(&engine);
    for _ in 0..2 {
        let store = Store::new(&engine).unwrap();
        let mut world = World { engine: engine.clone(), store, linker: linker.clone() };
        let instance = world.linker.instantiate(&mut world.store, &module).unwrap();
        assert_eq!(world.call_i32(instance, "f", &[]), i32::from(b'x'));
        let mut other = Store::new(&engine).unwrap();
        let error = linker.instantiate(&mut other, &module).unwrap_err();
        let expected = "a second instance with dedicated addressing in one process";
        assert!(error.to_string().starts_with(expected), "{error}");
        // An importer of the memory at the fixed address may be dedicated as well.
        world.linker.instance("first", instance);
        let wat = r#"(module (import "first" "m" (memory 1))
            (func (export "g") (result i32) (i32.load8_u (i32.const 10))))"#;
        let importer = Module::from_bytes(&engine, &image(wat)).unwrap();
        let importer = world.linker.instantiate(&mut world.store, &importer).unwrap();
        assert_eq!(world.call_i32(importer, "g", &[]), i32::from(b'x'));
    }
    // A memory that lies elsewhere is refused.
    let mut world = World::new();
    let elsewhere = world.instance(r#"(module (memory (export "m") 1))"#);
    world.linker.instance("first", elsewhere);
    let wat = r#"(module (import "first" "m" (memory 1)))"#;
    let importer = Module::from_bytes(&world.engine, &image(wat)).unwrap();
    let error = world.linker.instantiate(&mut world.store, &importer).unwrap_err();
    assert!(matches!(error, InstantiateError::NotDedicated), "{error}");
}

#[test]
fn items_of_another_store_or_engine_are_refused() {
    let mut world = World::new();
    let wat = r#"(module (memory (export "m") 1))"#;
    let instance = world.instance(wat);
    let memory = instance.memory(&world.store, "m").unwrap();
    world.linker.define("env", "m", memory);
    let importer = world.module(r#"(module (import "env" "m" (memory 1)))"#);
    let mut other = Store::new(&world.engine).unwrap();
    let error = world.linker.instantiate(&mut other, &importer).unwrap_err();
    assert!(matches!(error, InstantiateError::ForeignImport { .. }), "{error}");
    let foreign = World::new().module(wat);
    let error = world.linker.instantiate(&mut world.store, &foreign).unwrap_err();
    assert!(matches!(error, InstantiateError::ForeignModule), "{error}");
}

#[test]
#[should_panic(expected = "handle used with a store that it does not belong to")]
fn a_handle_used_with_another_store_panics() {
    let mut world = World::new();
    let instance = world.instance(r#"(module (memory (export "m") 1))"#);
    let memory = instance.memory(&world.store, "m").unwrap();
    let other = Store::new(&world.engine).unwrap();
    let _ = memory.data(&other);
}

#[test]
fn segments_are_dropped_after_use() {
    let mut world = World::new();
    let instance = world.instance(
        r#"(module (memory 1) (table 3 funcref) (func $f)
            (data $passive "abc") (data $active (i32.const 0) "x")
            (data $last (i32.const 1) "y") (elem $p func $f $f) (elem $a (i32.const 0) func $f)
            (func (export "init") (param i32) (memory.init $passive (i32.const 8) (i32.const 0) (local.get 0)))
            (func (export "active") (param i32) (memory.init $active (i32.const 8) (i32.const 0) (local.get 0)))
            (func (export "last") (param i32) (data.drop $last) (memory.init $last (i32.const 8) (i32.const 0) (local.get 0)))
            (func (export "drop") (data.drop $passive) (elem.drop $p))
            (func (export "table") (param i32) (table.init $p (i32.const 0) (i32.const 0) (local.get 0)))
            (func (export "declared") (param i32) (table.init $a (i32.const 0) (i32.const 0) (local.get 0))))"#,
    );
    let call = |world: &mut World, name, n| world.call(instance, name, &[Val::I32(n)]).is_ok();
    assert!(call(&mut world, "init", 3) && !call(&mut world, "init", 4));
    assert!(call(&mut world, "active", 0) && !call(&mut world, "active", 1));
    assert!(call(&mut world, "last", 0) && !call(&mut world, "last", 1));
    assert!(call(&mut world, "table", 2) && !call(&mut world, "table", 3));
    assert!(call(&mut world, "declared", 0) && !call(&mut world, "declared", 1));
    world.call(instance, "drop", &[]).unwrap();
    assert!(call(&mut world, "init", 0) && !call(&mut world, "init", 1));
    assert!(call(&mut world, "table", 0) && !call(&mut world, "table", 1));
}

#[test]
fn what_modules_and_instances_list_has_the_types_that_linking_compares() {
    let mut world = World::new();
    let exporter = world.module(
        r#"(module (func (export "f") (param i64)) (table (export "t") 3 5 externref)
            (memory (export "m") 1 9) (global (export "g") (mut f32) (f32.const 0))
            (tag (export "e") (param i32)))"#,
    );
    let importer = world.module(
        r#"(module (import "x" "f" (func (param i64))) (import "x" "t" (table 2 externref))
            (import "x" "m" (memory 1)) (import "x" "g" (global (mut f32)))
            (import "x" "e" (tag (param i32))))"#,
    );
    let instance = world.linker.instantiate(&mut world.store, &exporter).unwrap();
    let listed: Vec<_> = exporter.exports().collect();
    let items: Vec<_> = instance.exports(&world.store).collect();
    assert_eq!(items.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["f", "t", "m", "g", "e"]);
    assert_eq!(importer.imports().len(), items.len());
    for (n, (module, name, wanted)) in importer.imports().enumerate() {
        let item = items[n].1;
        assert_eq!((module, name, item.ty(&world.store)), ("x", items[n].0, listed[n].1));
        assert_eq!(instance.export(&world.store, name), Some(item));
        for (m, (_, found)) in listed.iter().enumerate() {
            assert_eq!(found.matches(&wanted, &world.engine), m == n, "{found:?} as {wanted:?}");
        }
    }
    let memory = instance.memory(&world.store, "m").unwrap();
    memory.grow(&mut world.store, 2).unwrap();
    let grown = ExternType::Memory(MemoryType::new(3, Some(9)));
    assert_eq!(Extern::from(memory).ty(&world.store), grown);
    assert_eq!(listed[2].1, ExternType::Memory(MemoryType::new(1, Some(9))), "as at the start");
}
