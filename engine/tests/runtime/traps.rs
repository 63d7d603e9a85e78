//! Kinds of traps, backtraces, the stack's limits, the edges of memory.

use coracle_engine::runtime::{
    CallError, Engine, InstantiateError, Linker, MAX_FRAMES, Module, Store, StoreConfig, TrapKind,
    Val,
};

use crate::{World, image_of, names};

#[test]
fn every_kind_arrives_as_itself() {
    let mut world = World::new();
    let instance = world.instance(
        r#"(module (memory 1) (table 2 funcref) (type $v (func)) (elem (i32.const 1) $r)
            (func $r (result i32) (i32.const 0))
            (func (export "unreachable") unreachable)
            (func (export "zero") (drop (i32.div_s (i32.const 1) (i32.const 0))))
            (func (export "overflow") (drop (i64.div_s (i64.const -9223372036854775808) (i64.const -1))))
            (func (export "nan") (drop (i32.trunc_f64_u (f64.const nan))))
            (func (export "large") (drop (i32.trunc_f32_s (f32.const 1e20))))
            (func (export "memory") (drop (i32.load (i32.const 65533))))
            (func (export "fill") (memory.fill (i32.const 65536) (i32.const 0) (i32.const 1)))
            (func (export "table") (call_indirect (type $v) (i32.const 2)))
            (func (export "null") (call_indirect (type $v) (i32.const 0)))
            (func (export "type") (call_indirect (type $v) (i32.const 1)))
            (func (export "get") (drop (table.get (i32.const 7)))))"#,
    );
    for (name, kind) in [
        ("unreachable", TrapKind::Unreachable),
        ("zero", TrapKind::IntegerDivideByZero),
        ("overflow", TrapKind::IntegerOverflow),
        ("nan", TrapKind::InvalidConversionToInteger),
        ("large", TrapKind::IntegerOverflow),
        ("memory", TrapKind::MemoryOutOfBounds),
        ("fill", TrapKind::MemoryOutOfBounds),
        ("table", TrapKind::TableOutOfBounds),
        ("null", TrapKind::UninitializedElement),
        ("type", TrapKind::IndirectCallTypeMismatch),
        ("get", TrapKind::TableOutOfBounds),
    ] {
        // Twice: nothing of the first trap is left behind.
        for _ in 0..2 {
            assert_eq!(world.trap(instance, name, &[]).kind(), kind, "{name}");
        }
    }
}

#[test]
fn a_backtrace_names_functions_and_places_from_the_inside_out() {
    let mut world = World::new();
    let wat = r#"(module
        (func $inner (param i32) (drop (i32.div_u (i32.const 6) (local.get 0))))
        (func $middle (param i32) (call $inner (local.get 0)) (call $inner (i32.const 1)))
        (func (export "outer") (param i32) (call $middle (local.get 0))))"#;
    let instance = world.instance(wat);
    assert!(world.call(instance, "outer", &[Val::I32(1)]).is_ok());
    let trap = world.trap(instance, "outer", &[Val::I32(0)]);
    assert_eq!(names(&trap), ["inner", "middle", "outer"]);
    assert_eq!(trap.backtrace().iter().map(|f| f.func_index).collect::<Vec<_>>(), [0, 1, 2]);
    let wasm = wat::parse_str(wat).unwrap();
    let offset = |n: usize| trap.backtrace()[n].wasm_offset.unwrap() as usize;
    // i32.div_u is opcode 0x6e, call 0x10.
    assert_eq!((wasm[offset(0)], wasm[offset(1)], wasm[offset(2)]), (0x6e, 0x10, 0x10));
    assert_eq!(wasm[offset(1) + 1], 0, "the call of inner");
    let report = trap.to_string();
    let first = format!("wasm trap: integer divide by zero\n  0: {:#x}  inner\n  1: ", offset(0));
    assert!(report.starts_with(&first), "{report}");
    assert!(report.ends_with("  outer"), "{report}");
}

#[test]
fn endless_recursion_exhausts_the_stack_and_nothing_else() {
    let mut world = World::new();
    let instance = world.instance(
        r#"(module
            (func $f (export "f") (param i64) (result i64) (i64.add (i64.const 1) (call $f (local.get 0))))
            (func (export "ok") (result i32) (i32.const 7)))"#,
    );
    for _ in 0..3 {
        let trap = world.trap(instance, "f", &[Val::I64(0)]);
        assert_eq!(trap.kind(), TrapKind::StackOverflow);
        assert_eq!(trap.backtrace().len(), MAX_FRAMES);
        assert!(trap.to_string().ends_with("… more frames"));
        assert_eq!(world.call_i32(instance, "ok", &[]), 7);
    }
}

const DEPTH: &str = r#"(module (global $depth (mut i32) (i32.const 0))
    (func $f (export "f") (global.set $depth (i32.add (global.get $depth) (i32.const 1))) (call $f))
    (func (export "depth") (result i32) (global.get $depth)))"#;

/// How deep a recursion gets with this limit.
fn depth(max_wasm_stack: usize) -> i32 {
    let engine = Engine::new();
    let config = StoreConfig { max_wasm_stack, ..StoreConfig::default() };
    let store = Store::with_config(&engine, config).unwrap();
    let linker = Linker::new(&engine);
    let mut world = World { engine, store, linker };
    let instance = world.instance(DEPTH);
    assert_eq!(world.trap(instance, "f", &[]).kind(), TrapKind::StackOverflow);
    world.call_i32(instance, "depth", &[])
}

#[test]
fn the_limit_on_the_stack_is_the_configured_one_or_the_threads() {
    let on_thread = |stack: usize, limit: usize| {
        let builder = std::thread::Builder::new().stack_size(stack);
        builder.spawn(move || depth(limit)).unwrap().join().unwrap()
    };
    let small = on_thread(8 << 20, 64 << 10);
    let large = on_thread(8 << 20, 128 << 10);
    // Frames are alike, so twice the stack is about twice the depth.
    assert!((small * 19 / 10..=small * 21 / 10).contains(&large), "{small} {large}");
    // A limit far above the thread's stack leaves the host its part and does not crash.
    let bounded = on_thread(1 << 20, usize::MAX);
    assert!(bounded > large && bounded < on_thread(4 << 20, usize::MAX), "{bounded}");
}

#[test]
fn accesses_of_every_width_stop_at_the_last_byte() {
    let widths = [
        ("i32.load8_u", 1),
        ("i32.load16_u", 2),
        ("i32.load", 4),
        ("i64.load", 8),
        ("f32.load", 4),
        ("f64.load", 8),
    ];
    let mut wat = String::from("(module (memory 1 2)");
    for (n, (op, width)) in widths.iter().enumerate() {
        for offset in [0u64, 1, 65535, 65536, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
            wat.push_str(&format!(
                "(func (export \"{n}-{width}-{offset}\") (param i32)
                    (drop ({op} offset={offset} (local.get 0))))"
            ));
        }
    }
    wat.push(')');
    let mut world = World::new();
    let instance = world.instance(&wat);
    for (n, (_, width)) in widths.iter().enumerate() {
        for offset in [0u64, 1, 65535, 65536, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
            let last = 65536 - width;
            for index in
                [0u64, 1, 65527, 65532, 65535, 65536, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]
            {
                let name = format!("{n}-{width}-{offset}");
                let result = world.call(instance, &name, &[Val::I32(index as u32 as i32)]);
                let expected = index + offset <= last;
                assert_eq!(result.is_ok(), expected, "{name} at {index}");
                if let Err(error) = result {
                    let CallError::Trap(trap) = error else { panic!("{error}") };
                    assert_eq!(trap.kind(), TrapKind::MemoryOutOfBounds, "{name} at {index}");
                }
            }
        }
    }
}

#[test]
fn a_trap_in_the_start_function_or_a_segment_fails_the_instantiation() {
    let mut world = World::new();
    let module = world.module("(module (func $begin unreachable) (start $begin))");
    match world.linker.instantiate(&mut world.store, &module) {
        Err(InstantiateError::Failed(CallError::Trap(trap))) => {
            assert_eq!((trap.kind(), names(&trap)), (TrapKind::Unreachable, vec!["begin"]));
        }
        other => panic!("{other:?}"),
    }
    let module = world.module(r#"(module (memory 1) (data (i32.const 65536) "x"))"#);
    match world.linker.instantiate(&mut world.store, &module) {
        Err(InstantiateError::Failed(CallError::Trap(trap))) => {
            assert_eq!(trap.kind(), TrapKind::MemoryOutOfBounds);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn threads_trap_independently() {
    let image =
        image_of(r#"(module (memory 1) (func (export "f") (drop (i32.load (i32.const -1)))))"#);
    let engine = Engine::new();
    let module = Module::from_bytes(&engine, &image).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut store = Store::new(&engine).unwrap();
                let instance = Linker::new(&engine).instantiate(&mut store, &module).unwrap();
                let func = instance.func(&store, "f").unwrap();
                for _ in 0..2000 {
                    let result = func.call(&mut store, &[], &mut Vec::new());
                    assert!(matches!(result, Err(CallError::Trap(_))));
                }
            });
        }
    });
}
