//! Linear memories: guards, growth while others hold on, several of every kind, little room.

use coracle_engine::compile::compile;
use coracle_engine::config::{Addressing, Settings};
use coracle_engine::runtime::{
    Caller, Ceiling, Engine, Linker, Module, Store, StoreConfig, Trap, TrapKind, Val,
};

use crate::{World, image_of, settings};

/// A module whose memory has these indices and limits, with accesses to it.
fn accesses(memory: &str, index: &str) -> String {
    format!(
        r#"(module (memory (export "m") {memory})
            (func (export "load") (param {index}) (result i32) (i32.load8_u (local.get 0)))
            (func (export "far") (param {index}) (result i32)
                (i32.load8_u offset=0x7fffffff (local.get 0)))
            (func (export "store") (param {index}) (i64.store (local.get 0) (i64.const -1)))
            (func (export "size") (result {index}) (memory.size))
            (func (export "grow") (param {index}) (result {index}) (memory.grow (local.get 0))))"#
    )
}

fn assert_out_of_bounds(trap: &Trap) {
    assert_eq!(trap.kind(), TrapKind::MemoryOutOfBounds);
    assert_eq!(trap.backtrace().len(), 1);
}

#[test]
fn touching_any_part_of_a_guard_is_a_trap() {
    let mut world = World::new();
    let narrow = world.instance(&accesses("1", "i32"));
    for (name, index) in [
        // The last byte before the base, as far as 32 bits can say: 4 GiB further up.
        ("load", -1),
        ("load", 65536),
        ("load", i32::MAX),
        ("load", i32::MIN),
        ("store", 65529),
        ("store", -1),
        // 4 GiB and the largest offset that is not compared.
        ("far", -1),
        ("far", 0),
    ] {
        assert_out_of_bounds(&world.trap(narrow, name, &[Val::I32(index)]));
    }
    assert_eq!(world.call_i32(narrow, "load", &[Val::I32(65535)]), 0);
    let wide = world.instance(&accesses("i64 1", "i64"));
    for (name, index) in [
        ("load", -1),
        ("load", 65536),
        ("load", i64::MAX),
        ("load", i64::MIN),
        ("load", 1 << 47),
        ("load", (64 << 30) - 1),
        ("load", 64 << 30),
        ("load", (64 << 30) + (64 << 20)),
        ("store", 65529),
        ("store", -8),
        ("far", -1),
        ("far", 0),
        ("far", -0x7fff_ffff),
    ] {
        assert_out_of_bounds(&world.trap(wide, name, &[Val::I64(index)]));
    }
    assert_eq!(world.call_i32(wide, "load", &[Val::I64(65535)]), 0);
}

#[test]
fn the_end_moves_with_every_growth() {
    let mut world = World::new();
    for (memory, wide) in
        [("1", false), ("i64 1", true), ("1 9 shared", false), ("i64 1 9 shared", true)]
    {
        let index = |n: u64| if wide { Val::I64(n as i64) } else { Val::I32(n as i32) };
        let instance = world.instance(&accesses(memory, if wide { "i64" } else { "i32" }));
        for pages in 1..5 {
            let end = pages << 16;
            world.call(instance, "store", &[index(end - 8)]).unwrap();
            assert_out_of_bounds(&world.trap(instance, "store", &[index(end - 7)]));
            assert_out_of_bounds(&world.trap(instance, "load", &[index(end)]));
            let old = world.call(instance, "grow", &[index(1)]).unwrap();
            assert_eq!(format!("{old:?}"), format!("{:?}", [index(pages)]));
            assert_eq!(world.call_i32(instance, "load", &[index(end - 1)]), 255);
            assert_eq!(world.call_i32(instance, "load", &[index(end)]), 0);
        }
    }
}

#[test]
fn each_of_many_memories_has_guards_of_its_own_as_long_as_it_lives() {
    let engine = Engine::new();
    let image = |wat: &str| compile(wat.as_bytes(), &settings()).unwrap();
    let narrow = Module::from_bytes(&engine, &image(&accesses("1", "i32"))).unwrap();
    let wide = Module::from_bytes(&engine, &image(&accesses("i64 1", "i64"))).unwrap();
    let world = || World {
        engine: engine.clone(),
        store: Store::new(&engine).unwrap(),
        linker: Linker::new(&engine),
    };
    let mut kept = world();
    for _ in 0..20 {
        // Those of a store that is gone must not matter to one that took over its addresses.
        let mut short_lived = world();
        for world in [&mut kept, &mut short_lived] {
            let first = world.linker.instantiate(&mut world.store, &narrow).unwrap();
            let second = world.linker.instantiate(&mut world.store, &wide).unwrap();
            assert_out_of_bounds(&world.trap(first, "load", &[Val::I32(65536)]));
            assert_out_of_bounds(&world.trap(second, "load", &[Val::I64(65536)]));
        }
    }
}

#[test]
fn a_host_call_inside_another_stores_guest_finds_its_own_memories() {
    let mut world = World::new();
    world.linker.func_wrap("h", "other", |_: Caller<'_>| {
        let mut other = World::new();
        let instance = other.instance(&accesses("1", "i32"));
        assert_out_of_bounds(&other.trap(instance, "load", &[Val::I32(-1)]));
    });
    let instance = world.instance(
        r#"(module (import "h" "other" (func $other)) (memory 1)
            (func (export "f") (call $other) (drop (i32.load (i32.const -1)))))"#,
    );
    assert_out_of_bounds(&world.trap(instance, "f", &[]));
}

/// The first instance's memory is grown while another instance, the host and a running function of
/// the first all know it.
#[test]
fn growth_is_seen_by_everybody_who_knows_the_memory() {
    let mut world = World::new();
    let settings = StoreConfig { max_memory_bytes: 8 << 30, ..StoreConfig::default() };
    for (memory, index) in [("1 10", "i32"), ("i64 1 10", "i64"), ("1 10 shared", "i32")] {
        world.store = Store::with_config(&world.engine, settings).unwrap();
        let first = world.instance(&accesses(memory, index));
        let known = first.memory(&world.store, "m").unwrap();
        let mut linker = Linker::new(&world.engine);
        linker.instance("first", first);
        linker.func_wrap("h", "grow", move |mut caller: Caller<'_>| {
            known.grow(&mut caller, 1).map_or(-1, |old| old as i32)
        });
        world.linker = linker;
        // Between two accesses the host makes the memory grow; both must be of the new size.
        let second = world.instance(&format!(
            r#"(module (import "first" "m" (memory {memory}))
                (import "first" "grow" (func $grow (param {index}) (result {index})))
                (import "h" "grow" (func $host (result i32)))
                (func (export "f") (result i32)
                    (i32.store8 ({index}.const 65535) (i32.const 7))
                    (drop (call $grow ({index}.const 1)))
                    (i32.store8 ({index}.const 131071) (i32.const 8))
                    (drop (call $host))
                    (i32.store8 ({index}.const 196607) (i32.const 9))
                    (i32.load8_u ({index}.const 65535))
                    (i32.load8_u ({index}.const 131071))
                    (i32.load8_u ({index}.const 196607))
                    i32.add i32.add))"#
        ));
        assert_eq!(world.call_i32(second, "f", &[]), 24);
        assert_eq!(known.size(&world.store), 3);
        let mut last = [0];
        known.read(&world.store, 196_607, &mut last).unwrap();
        assert_eq!(last, [9]);
    }
}

#[test]
fn sizes_beyond_four_gibibytes_work() {
    let mut world = World::new();
    let instance = world.instance(
        r#"(module (memory (export "m") i64 1) (data $d "abcdef")
            (func (export "grow") (param i64) (result i64) (memory.grow (local.get 0)))
            (func (export "f") (result i32)
                (i32.store (i64.const 0x1_4000_0000) (i32.const 0x01020304))
                (memory.copy (i64.const 0x1_4000_1000) (i64.const 0x1_4000_0000) (i64.const 4))
                (memory.fill (i64.const 0x1_4000_1001) (i32.const 9) (i64.const 1))
                (memory.init $d (i64.const 0x1_4000_2000) (i32.const 1) (i32.const 3))
                (i32.add (i32.load (i64.const 0x1_4000_1000))
                    (i32.load8_u offset=0x1_4000_0000 (i64.const 0x2002)))))"#,
    );
    let grown = world.call(instance, "grow", &[Val::I64(5 << 14)]).unwrap();
    assert!(matches!(grown[..], [Val::I64(1)]));
    let sum = world.call_i32(instance, "f", &[]);
    assert_eq!(sum, 0x0102_0904 + i32::from(b'd'));
    let refused = world.call(instance, "grow", &[Val::I64(1 << 20)]).unwrap();
    assert!(matches!(refused[..], [Val::I64(-1)]), "over the store's limit of 64 GiB");
}

#[test]
fn copies_between_memories_of_different_widths_check_both() {
    let mut world = World::new();
    let instance = world.instance(
        r#"(module (memory $a 1) (memory $b i64 1) (memory $c 1 1 shared)
            (func (export "f") (param i32 i64 i32)
                (memory.copy $a $b (local.get 0) (local.get 1) (local.get 2)))
            (func (export "g") (param i64 i32 i32)
                (memory.copy $b $c (local.get 0) (local.get 1) (local.get 2)))
            (func (export "set") (i32.store $c (i32.const 10) (i32.const 77)))
            (func (export "get") (result i32) (i32.load $a (i32.const 20))))"#,
    );
    world.call(instance, "set", &[]).unwrap();
    world.call(instance, "g", &[Val::I64(65532), Val::I32(10), Val::I32(4)]).unwrap();
    world.call(instance, "f", &[Val::I32(20), Val::I64(65532), Val::I32(4)]).unwrap();
    assert_eq!(world.call_i32(instance, "get", &[]), 77);
    for (name, args) in [
        ("f", [Val::I32(0), Val::I64(1 << 32), Val::I32(1)]),
        ("f", [Val::I32(0), Val::I64(-1), Val::I32(2)]),
        ("f", [Val::I32(65533), Val::I64(0), Val::I32(4)]),
        ("g", [Val::I64(65533), Val::I32(0), Val::I32(4)]),
        ("g", [Val::I64(0), Val::I32(-1), Val::I32(1)]),
    ] {
        assert_eq!(world.trap(instance, name, &args).kind(), TrapKind::MemoryOutOfBounds);
    }
}

/// Where the system gives less address space than is wanted, a memory with 64-bit indices gets what
/// there is, and moves when it grows over that.
#[test]
fn little_address_space_is_enough_for_64_bit_indices() {
    if !crate::crash::is_child() {
        let name = "memory::little_address_space_is_enough_for_64_bit_indices";
        let status = crate::crash::run_test(name);
        assert_eq!(status.code(), Some(0), "{status}");
        return;
    }
    let limit_address_space = |bytes: u64| {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: only sets this process's own limit.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
    };
    let mut world = World::new();
    let module = world.module(&accesses("i64 1", "i64"));
    let used = std::fs::read_to_string("/proc/self/statm").unwrap();
    let used: u64 = used.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096;
    // Enough for the guards of 128 MiB and something between 64 and 128 MiB.
    limit_address_space(used + (250 << 20));
    let instance = world.linker.instantiate(&mut world.store, &module).unwrap();
    let grow = |world: &mut World, pages: i64| {
        let grown = world.call(instance, "grow", &[Val::I64(pages)]).unwrap();
        let [Val::I64(old)] = grown[..] else { panic!("{grown:?}") };
        old
    };
    assert_eq!(grow(&mut world, 1023), 1);
    world.call(instance, "store", &[Val::I64((64 << 20) - 8)]).unwrap();
    assert_eq!(grow(&mut world, 2048), -1, "neither there nor elsewhere");
    let memory = instance.memory(&world.store, "m").unwrap();
    let base = memory.data(&world.store).as_ptr();
    limit_address_space(libc::RLIM_INFINITY);
    assert_eq!(grow(&mut world, 2048), 1024);
    assert_ne!(memory.data(&world.store).as_ptr(), base, "there was no room");
    assert_eq!(world.call_i32(instance, "load", &[Val::I64((64 << 20) - 1)]), 255);
    assert_eq!(world.call_i32(instance, "load", &[Val::I64((192 << 20) - 1)]), 0);
    assert_out_of_bounds(&world.trap(instance, "load", &[Val::I64(192 << 20)]));
}

#[test]
fn a_64_bit_memory_lies_at_the_fixed_address_too() {
    let _alone = crate::fixed_address();
    let settings = Settings { addressing: Addressing::Dedicated, ..settings() };
    let mut world = World::new();
    let wat = accesses("i64 1", "i64");
    let wat = wat.replace("(memory (", "(data (i64.const 5) \"x\") (memory (");
    let image = compile(wat.as_bytes(), &settings).unwrap();
    let module = Module::from_bytes(&world.engine, &image).unwrap();
    let instance = world.linker.instantiate(&mut world.store, &module).unwrap();
    assert_eq!(world.call_i32(instance, "load", &[Val::I64(5)]), i32::from(b'x'));
    assert!(matches!(
        world.call(instance, "grow", &[Val::I64(5 << 14)]).unwrap()[..],
        [Val::I64(1)]
    ));
    world.call(instance, "store", &[Val::I64(5 << 30)]).unwrap();
    assert_eq!(world.call_i32(instance, "load", &[Val::I64(5 << 30)]), 255);
    assert_out_of_bounds(&world.trap(instance, "load", &[Val::I64((5 << 30) + 65536)]));
    assert_out_of_bounds(&world.trap(instance, "load", &[Val::I64(-1)]));
}

#[test]
fn memories_grow_below_a_ceiling_that_moves() {
    use std::sync::atomic::{AtomicU64, Ordering};
    static LIMIT: AtomicU64 = AtomicU64::new(4 << 16);
    static CEILING: Ceiling = Ceiling::new(|| LIMIT.load(Ordering::Relaxed));
    let config = StoreConfig { ceiling: Some(&CEILING), ..StoreConfig::default() };
    let mut world = World::with_config(config);
    for kind in ["1", "1 100 shared", "i64 1"] {
        LIMIT.store(4 << 16, Ordering::Relaxed);
        let index = if kind.starts_with("i64") { "i64" } else { "i32" };
        let instance = world.instance(&format!(
            r#"(module (memory {kind}) (memory {kind})
                (func (export "first") (param {index}) (result {index})
                    (memory.grow 0 (local.get 0)))
                (func (export "second") (param {index}) (result {index})
                    (memory.grow 1 (local.get 0))))"#
        ));
        let mut grow = |name: &str, by: i32| {
            let by = if index == "i64" { Val::I64(by.into()) } else { Val::I32(by) };
            match world.call(instance, name, &[by]).unwrap()[0] {
                Val::I64(old) => old as i32,
                Val::I32(old) => old,
                ref other => panic!("{other:?}"),
            }
        };
        assert_eq!(grow("first", 1), 1);
        assert_eq!(grow("second", 2), -1, "{kind}: five pages are over four");
        assert_eq!(grow("second", 1), 1);
        assert_eq!(grow("first", 1), -1);
        LIMIT.store(6 << 16, Ordering::Relaxed);
        assert_eq!(grow("first", 3), -1);
        assert_eq!(grow("first", 2), 2);
        LIMIT.store(0, Ordering::Relaxed);
        assert_eq!(grow("first", 0), 4, "{kind}: what there is stays");
        // The instance lives as long as the store; the next kind begins above it.
        LIMIT.store(u64::MAX, Ordering::Relaxed);
        world = World::with_config(config);
    }
    drop(world);
    assert_eq!(CEILING.used(), 0);
    LIMIT.store(1 << 16, Ordering::Relaxed);
    let engine = Engine::new();
    let image = image_of("(module (memory 2))");
    let module = Module::from_bytes(&engine, &image).unwrap();
    let mut store = Store::with_config(&engine, config).unwrap();
    let error = Linker::new(&engine).instantiate(&mut store, &module).unwrap_err();
    assert!(error.to_string().contains("over the limit of memory"), "{error}");
}
