//! Types across modules and the host: subtyping where things are linked, called and passed.

use coracle_engine::module::types::{Hierarchy, TypeKind};
use coracle_engine::runtime::{
    AnyRef, CallError, Caller, Extern, ExternRef, Func, FuncType, Global, GlobalError, GlobalType,
    HeapType, InstantiateError, Module, RefType, Table, TableError, TableType, TrapKind, Val,
    ValType,
};

use crate::{World, image_with};

/// A function type with a subtype, as each module of these tests declares them.
const PAIR: &str = "(type $up (sub (func (result i32)))) (type $low (sub $up (func (result i32))))
    (type $plain (func (result i32)))";

impl World {
    /// Instantiates a module that declares subtypes.
    pub(crate) fn typed(
        &mut self,
        wat: &str,
    ) -> Result<coracle_engine::runtime::Instance, InstantiateError> {
        let wat = format!("(module {PAIR} {wat})");
        let image = image_with(&wat, |features| features.gc = true);
        let module = Module::from_bytes(&self.engine, &image).unwrap();
        self.linker.instantiate(&mut self.store, &module)
    }
}

pub(crate) fn reference(nullable: bool, heap: HeapType) -> ValType {
    ValType::Ref(RefType { nullable, heap })
}

#[test]
fn functions_link_where_their_type_is_a_subtype() {
    let mut world = World::new();
    let exporter = world
        .typed(
            r#"(func (export "up") (type $up) (i32.const 1)) (func (export "low") (type $low) (i32.const 2))
            (func (export "plain") (type $plain) (i32.const 3))"#,
        )
        .unwrap();
    world.linker.instance("lib", exporter);
    world.linker.func_wrap("host", "plain", |_: Caller<'_>| 4);
    let import = |from: &str, name: &str, ty: &str| {
        format!(
            r#"(import "{from}" "{name}" (func $f (type {ty})))
                (func (export "run") (result i32) (call $f))"#
        )
    };
    for (from, name, ty, expected) in [
        ("lib", "up", "$up", Some(1)),
        ("lib", "low", "$low", Some(2)),
        ("lib", "low", "$up", Some(2)),
        ("lib", "up", "$low", None),
        ("lib", "plain", "$plain", Some(3)),
        ("lib", "plain", "$up", None),
        ("lib", "low", "$plain", None),
        ("host", "plain", "$plain", Some(4)),
        ("host", "plain", "$up", None),
    ] {
        match (world.typed(&import(from, name, ty)), expected) {
            (Ok(instance), Some(expected)) => {
                assert_eq!(world.call_i32(instance, "run", &[]), expected);
            }
            (Err(InstantiateError::IncompatibleImport { found, wanted, .. }), None) => {
                // What differs is not in the parameters and results, but it is said.
                assert!(found.starts_with("function () -> (i32)"), "{found}");
                assert_ne!(found, wanted);
            }
            (result, _) => panic!("{from} {name} as {ty}: {result:?}"),
        }
    }
}

#[test]
fn a_function_keeps_its_own_type_when_it_is_imported_as_a_supertype() {
    let mut world = World::new();
    let exporter = world.typed(r#"(func (export "low") (type $low) (i32.const 2))"#).unwrap();
    world.linker.instance("lib", exporter);
    let importer = world
        .typed(
            r#"(import "lib" "low" (func $f (type $up))) (export "again" (func $f))
            (table funcref (elem $f))
            (func (export "as-low") (result i32) (call_indirect (type $low) (i32.const 0)))
            (func (export "as-plain") (result i32) (call_indirect (type $plain) (i32.const 0)))"#,
        )
        .unwrap();
    assert_eq!(world.call_i32(importer, "as-low", &[]), 2);
    let trap = world.trap(importer, "as-plain", &[]);
    assert_eq!(trap.kind(), TrapKind::IndirectCallTypeMismatch);
    let [first, again] = [(exporter, "low"), (importer, "again")]
        .map(|(instance, name)| instance.func(&world.store, name).unwrap());
    assert_eq!(first.defined_type(&world.store), again.defined_type(&world.store));
}

#[test]
fn indirect_calls_take_subtypes_from_any_module() {
    let mut world = World::new();
    let functions = world
        .typed(
            r#"(table (export "t") 4 funcref) (elem (i32.const 0) func $u $l $p)
            (func $u (type $up) (i32.const 1)) (func $l (type $low) (i32.const 2))
            (func $p (type $plain) (i32.const 3))"#,
        )
        .unwrap();
    world.linker.instance("lib", functions);
    let caller = world
        .typed(
            r#"(import "lib" "t" (table 4 funcref))
            (func (export "up") (param i32) (result i32) (call_indirect (type $up) (local.get 0)))
            (func (export "low") (param i32) (result i32) (call_indirect (type $low) (local.get 0)))
            (func (export "plain") (param i32) (result i32) (call_indirect (type $plain) (local.get 0)))
            (func (export "tail") (param i32) (result i32) (return_call_indirect (type $up) (local.get 0)))"#,
        )
        .unwrap();
    let mismatch = TrapKind::IndirectCallTypeMismatch;
    for (name, outcomes) in [
        ("up", [Ok(1), Ok(2), Err(mismatch)]),
        ("tail", [Ok(1), Ok(2), Err(mismatch)]),
        ("low", [Err(mismatch), Ok(2), Err(mismatch)]),
        ("plain", [Err(mismatch), Err(mismatch), Ok(3)]),
    ] {
        for (n, outcome) in (0..).zip(outcomes) {
            let found = match world.call(caller, name, &[Val::I32(n)]) {
                Ok(values) => Ok(values),
                Err(CallError::Trap(trap)) => Err(trap.kind()),
                Err(other) => panic!("{other}"),
            };
            match (found, outcome) {
                (Ok(values), Ok(expected)) => {
                    assert!(matches!(values[..], [Val::I32(found)] if found == expected));
                }
                (found, outcome) => assert_eq!(found.err(), outcome.err(), "{name} {n}"),
            }
        }
        assert_eq!(world.trap(caller, name, &[Val::I32(3)]).kind(), TrapKind::UninitializedElement);
    }
}

#[test]
fn tables_of_known_functions_are_called_without_a_check_and_are_never_null() {
    let mut world = World::new();
    let instance = world
        .typed(
            r#"(table $t 3 3 (ref $up) (ref.func $u)) (elem (table $t) (i32.const 1) (ref $low) (ref.func $l))
            (func $u (type $up) (i32.const 1)) (func $l (type $low) (i32.const 2))
            (func (export "run") (param i32) (result i32) (call_indirect $t (type $up) (local.get 0)))
            (func (export "low") (param i32) (result i32) (call_indirect $t (type $low) (local.get 0)))
            (export "t" (table $t))"#,
        )
        .unwrap();
    for (n, expected) in [(0, 1), (1, 2), (2, 1)] {
        assert_eq!(world.call_i32(instance, "run", &[Val::I32(n)]), expected);
    }
    assert_eq!(world.trap(instance, "run", &[Val::I32(3)]).kind(), TrapKind::TableOutOfBounds);
    assert_eq!(world.call_i32(instance, "low", &[Val::I32(1)]), 2);
    let trap = world.trap(instance, "low", &[Val::I32(0)]);
    assert_eq!(trap.kind(), TrapKind::IndirectCallTypeMismatch);
    // The host cannot put in what would break this.
    let table = instance.table(&world.store, "t").unwrap();
    let other = Func::wrap(&mut world.store, |_: Caller<'_>| 5);
    for value in [Val::FuncRef(None), Val::FuncRef(Some(other)), Val::ExternRef(None)] {
        let result = table.set(&mut world.store, 0, value);
        assert!(matches!(result, Err(TableError::ElementType)), "{value:?}");
    }
    let first = table.get(&world.store, 0).unwrap();
    table.set(&mut world.store, 1, first).unwrap();
    assert_eq!(world.call_i32(instance, "run", &[Val::I32(1)]), 1);
}

#[test]
fn null_references_trap_and_branch() {
    let mut world = World::new();
    let instance = world
        .typed(
            r#"(elem declare func $f) (func $f (type $plain) (i32.const 7))
            (func $pick (param i32) (result (ref null $plain))
                (if (result (ref null $plain)) (local.get 0)
                    (then (ref.func $f)) (else (ref.null $plain))))
            (func (export "call") (param i32) (result i32) (call_ref $plain (call $pick (local.get 0))))
            (func (export "tail") (param i32) (result i32) (return_call_ref $plain (call $pick (local.get 0))))
            (func (export "assert") (param i32) (result i32)
                (call_ref $plain (ref.as_non_null (call $pick (local.get 0)))))
            (func (export "null") (param i32) (result i32)
                (block $null (call $pick (local.get 0)) (br_on_null $null) (return (call_ref $plain)))
                (i32.const -1))
            (func (export "non-null") (param i32) (result i32)
                (block $found (result (ref $plain))
                    (call $pick (local.get 0)) (br_on_non_null $found) (return (i32.const -1)))
                (call_ref $plain))"#,
        )
        .unwrap();
    for name in ["call", "tail", "assert", "null", "non-null"] {
        assert_eq!(world.call_i32(instance, name, &[Val::I32(1)]), 7, "{name}");
    }
    for name in ["call", "tail", "assert"] {
        assert_eq!(world.trap(instance, name, &[Val::I32(0)]).kind(), TrapKind::NullReference);
    }
    for name in ["null", "non-null"] {
        assert_eq!(world.call_i32(instance, name, &[Val::I32(0)]), -1, "{name}");
    }
}

#[test]
fn values_of_the_host_are_checked_against_types() {
    let mut world = World::new();
    let instance = world
        .typed(
            r#"(func (export "up") (type $up) (i32.const 1)) (func (export "low") (type $low) (i32.const 2))
            (func (export "take") (param (ref $up)) (result i32) (call_ref $up (local.get 0)))
            (func (export "null") (param nullfuncref nullexternref nullref))
            (func (export "extern") (param (ref extern)) (result externref) (local.get 0))
            (func (export "any") (param anyref) (result anyref) (local.get 0))
            (func (export "i31") (param (ref null i31)) (result eqref) (local.get 0))"#,
        )
        .unwrap();
    let [up, low] = ["up", "low"].map(|name| instance.func(&world.store, name).unwrap());
    let plain = Func::wrap(&mut world.store, |_: Caller<'_>| 5);
    let [up, low, plain] = [up, low, plain].map(|func| Val::FuncRef(Some(func)));
    assert_eq!(world.call_i32(instance, "take", &[up]), 1);
    assert_eq!(world.call_i32(instance, "take", &[low]), 2);
    let refused = |world: &mut World, name: &str, args: &[Val]| {
        let result = world.call(instance, name, args);
        assert!(matches!(result, Err(CallError::Arguments { .. })), "{name} {args:?}: {result:?}");
    };
    for value in [plain, Val::FuncRef(None), Val::ExternRef(None), Val::AnyRef(None), Val::I64(0)] {
        refused(&mut world, "take", &[value]);
    }
    let nulls = [Val::FuncRef(None), Val::ExternRef(None), Val::AnyRef(None)];
    assert!(world.call(instance, "null", &nulls).is_ok());
    refused(&mut world, "null", &[up, nulls[1], nulls[2]]);
    let handle = ExternRef::new(9).unwrap();
    refused(&mut world, "extern", &[Val::ExternRef(None)]);
    let found = world.call(instance, "extern", &[Val::ExternRef(Some(handle))]).unwrap();
    assert!(matches!(found[..], [Val::ExternRef(Some(found))] if found == handle));
    let i31 = AnyRef::i31(-3);
    for value in [i31, handle.to_any()] {
        let found = world.call(instance, "any", &[Val::AnyRef(Some(value))]).unwrap();
        assert!(matches!(found[..], [Val::AnyRef(Some(found))] if found == value));
    }
    let found = world.call(instance, "i31", &[Val::AnyRef(Some(i31))]).unwrap();
    assert!(matches!(found[..], [Val::AnyRef(Some(found))] if found.as_i31() == Some(-3)));
    refused(&mut world, "i31", &[Val::AnyRef(Some(handle.to_any()))]);
    refused(&mut world, "any", &[Val::ExternRef(Some(handle))]);
    match world.call(instance, "take", &[]) {
        Err(CallError::Arguments { params }) => assert!(params.starts_with("(ref type#")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn types_can_be_asked_for() {
    let mut world = World::new();
    let instance = world
        .typed(
            r#"(func (export "f") (type $low) (i32.const 2))
            (func (export "g") (param i64 (ref null $up)) (result f32 f64) (unreachable))
            (global (export "global") (ref $up) (ref.func 0)) (table (export "table") 1 (ref null $low))"#,
        )
        .unwrap();
    let engine = world.engine.clone();
    let [f, g] = ["f", "g"].map(|name| instance.func(&world.store, name).unwrap());
    let low = f.defined_type(&world.store);
    let definition = engine.defined_type(low);
    let up = definition.supertype.unwrap();
    assert!(!definition.is_final && definition.kind() == TypeKind::Func);
    let expected = FuncType { params: vec![], results: vec![ValType::I32] };
    assert_eq!((f.ty(&world.store), definition.as_func()), (&expected, Some(&expected)));
    let (to_up, to_low) = (HeapType::ConcreteFunc(up), HeapType::ConcreteFunc(low));
    assert_eq!(g.ty(&world.store).params, [ValType::I64, reference(true, to_up)]);
    assert_eq!(g.ty(&world.store).results, [ValType::F32, ValType::F64]);
    let Some(Extern::Global(global)) = instance.export(&world.store, "global") else { panic!() };
    assert_eq!(global.ty(), GlobalType { content: reference(false, to_up), mutable: false });
    let table = instance.table(&world.store, "table").unwrap();
    let element = RefType { nullable: true, heap: to_low };
    assert_eq!(table.ty(&world.store).element, element);
    assert_eq!(Val::FuncRef(Some(f)).ty(&world.store), reference(false, to_low));
    assert_eq!(Val::AnyRef(Some(AnyRef::i31(1))).ty(&world.store), reference(false, HeapType::I31));
    assert!(matches!(Val::null(to_up), Val::FuncRef(None)));
    assert_eq!(to_up.hierarchy(), Hierarchy::Func);
    // Things of the host may have such types as well.
    let value = Val::FuncRef(Some(f));
    let ty = GlobalType { content: reference(false, to_up), mutable: true };
    let global = Global::new(&mut world.store, ty, value).unwrap();
    let null = Val::FuncRef(None);
    assert!(matches!(global.set(&mut world.store, null), Err(GlobalError::Type)));
    assert!(matches!(Global::new(&mut world.store, ty, null), Err(GlobalError::Type)));
    let ty = TableType { element, table64: false, min: 2, max: None };
    let table = Table::new(&mut world.store, ty, value).unwrap();
    world.linker.define("host", "global", global).define("host", "table", table);
    let importer = world
        .typed(
            r#"(import "host" "global" (global $g (mut (ref $up)))) (import "host" "table" (table $t 2 (ref null $low)))
            (func (export "run") (result i32)
                (i32.add (call_ref $up (global.get $g)) (call_ref $low (table.get $t (i32.const 1)))))"#,
        )
        .unwrap();
    assert_eq!(world.call_i32(importer, "run", &[]), 4);
}

#[test]
fn globals_link_by_subtyping_unless_they_change_and_tables_never() {
    let mut world = World::new();
    let exporter = world
        .typed(
            r#"(func $f (type $low) (i32.const 2)) (table (export "t") 1 (ref null $low))
            (global (export "fixed") (ref $low) (ref.func $f))
            (global (export "changes") (mut (ref null $low)) (ref.null $low))"#,
        )
        .unwrap();
    world.linker.instance("lib", exporter);
    for (item, links) in [
        ("\"fixed\" (global (ref $low))", true),
        ("\"fixed\" (global (ref null $up))", true),
        ("\"fixed\" (global funcref)", true),
        ("\"fixed\" (global (ref $plain))", false),
        ("\"fixed\" (global (mut (ref $low)))", false),
        ("\"changes\" (global (mut (ref null $low)))", true),
        ("\"changes\" (global (mut funcref))", false),
        ("\"changes\" (global (ref null $low))", false),
        ("\"t\" (table 1 (ref null $low))", true),
        ("\"t\" (table 1 (ref null $up))", false),
        ("\"t\" (table 1 funcref)", false),
    ] {
        let result = world.typed(&format!("(import \"lib\" {item})"));
        assert_eq!(result.is_ok(), links, "{item}: {result:?}");
    }
}

#[test]
fn element_expressions_are_evaluated_when_an_instance_is_made() {
    let mut world = World::new();
    // One module's segment reads what another one's global holds at that time.
    let instance = world
        .typed(
            r#"(func $f (type $plain) (i32.const 1)) (global $g funcref (ref.func $f))
            (table (export "t") 3 funcref) (elem $e funcref (global.get $g) (ref.null func) (ref.func $f))
            (func (export "init") (table.init $e (i32.const 0) (i32.const 0) (i32.const 3)))
            (func (export "drop") (elem.drop $e))"#,
        )
        .unwrap();
    world.call(instance, "init", &[]).unwrap();
    let table = instance.table(&world.store, "t").unwrap();
    let elements = [0, 1, 2].map(|n| match table.get(&world.store, n) {
        Some(Val::FuncRef(func)) => func,
        other => panic!("{other:?}"),
    });
    assert!(elements[0].is_some() && elements[0] == elements[2] && elements[1].is_none());
    world.call(instance, "drop", &[]).unwrap();
    assert_eq!(world.trap(instance, "init", &[]).kind(), TrapKind::TableOutOfBounds);
}

#[test]
fn functions_of_the_host_can_be_called_by_reference() {
    let mut world = World::new();
    let wat = r#"(type $add (func (param i32 i32) (result i32)))
        (func (export "run") (param (ref $add)) (result i32)
            (call_ref $add (i32.const 40) (i32.const 2) (local.get 0)))"#;
    // Made before any module knows the type, and after.
    let before = Func::wrap(&mut world.store, |_: Caller<'_>, a: i32, b: i32| a + b);
    let instance = world.typed(wat).unwrap();
    let after = Func::wrap(&mut world.store, |_: Caller<'_>, a: i32, b: i32| a - b);
    for (func, expected) in [(before, 42), (after, 38)] {
        let func = Val::FuncRef(Some(func));
        assert_eq!(world.call_i32(instance, "run", &[func]), expected);
    }
}
