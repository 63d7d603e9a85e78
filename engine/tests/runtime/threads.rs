//! Shared memories with real contention: every thread has a store of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use coracle_engine::compile::compile;
use coracle_engine::config::{Addressing, Settings};
use coracle_engine::module::types::MemoryType;
use coracle_engine::runtime::{
    CallError, Caller, Engine, Instance, InstantiateError, Linker, Memory, MemoryError, MemoryView,
    Module, SharedMemory, Store, TrapKind, Val,
};

use crate::{World, settings};

fn shared_type(min: u64, max: u64) -> MemoryType {
    MemoryType { memory64: false, shared: true, min, max: Some(max), page_size_log2: 16 }
}

fn module(engine: &Engine, wat: &str, addressing: Addressing) -> Module {
    let settings = Settings { addressing, ..settings() };
    Module::from_bytes(engine, &compile(wat.as_bytes(), &settings).unwrap()).unwrap()
}

/// A store on this thread with an instance that imports the memory as `env` `memory`.
fn join(module: &Module, engine: &Engine, memory: &SharedMemory) -> (World, Instance) {
    let mut store = Store::new(engine).unwrap();
    let mut linker = Linker::new(engine);
    linker.define("env", "memory", Memory::from_shared(&mut store, memory));
    let instance = linker.instantiate(&mut store, module).unwrap();
    (World { engine: engine.clone(), store, linker }, instance)
}

const COUNTER: &str = r#"(module (import "env" "memory" (memory 1 4 shared))
    (func (export "add") (param $n i32)
        (loop $l
            (drop (i32.atomic.rmw.add offset=8 (i32.const 0) (i32.const 1)))
            (drop (i64.atomic.rmw8.add_u offset=17 (i32.const 0) (i64.const 1)))
            ;; The same by comparing and exchanging.
            (loop $again
                (br_if $again (i32.ne
                    (i32.atomic.load offset=24 (i32.const 0))
                    (i32.atomic.rmw.cmpxchg offset=24 (i32.const 0)
                        (i32.atomic.load offset=24 (i32.const 0))
                        (i32.add (i32.atomic.load offset=24 (i32.const 0)) (i32.const 0)))))
                (br_if $again (i32.eqz (call $step))))
            (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))
    ;; Whether the counter at 32 was exchanged for its successor.
    (func $step (result i32) (local $old i32)
        (local.set $old (i32.atomic.load offset=32 (i32.const 0)))
        (i32.eq (local.get $old)
            (i32.atomic.rmw.cmpxchg offset=32 (i32.const 0) (local.get $old)
                (i32.add (local.get $old) (i32.const 1))))))"#;

fn count_together(addressing: Addressing, memory: &SharedMemory) {
    const THREADS: u32 = 4;
    const ROUNDS: u32 = 20_000;
    let engine = Engine::new();
    let module = module(&engine, COUNTER, addressing);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let (mut world, instance) = join(&module, &engine, memory);
                world.call(instance, "add", &[Val::I32(ROUNDS as i32)]).unwrap();
            });
        }
    });
    let mut words = [0; 36];
    memory.read(0, &mut words).unwrap();
    let word = |at: usize| u32::from_le_bytes(words[at..at + 4].try_into().unwrap());
    assert_eq!((word(8), word(32)), (THREADS * ROUNDS, THREADS * ROUNDS));
    assert_eq!(words[16..20], [0, (THREADS * ROUNDS) as u8, 0, 0]);
}

#[test]
fn no_atomic_step_of_any_thread_is_lost() {
    let memory = SharedMemory::new(shared_type(1, 4), u64::MAX).unwrap();
    count_together(Addressing::Generic, &memory);
}

#[test]
fn threads_share_the_memory_at_the_fixed_address() {
    let _alone = crate::fixed_address();
    let memory = SharedMemory::dedicated(shared_type(1, 4), u64::MAX).unwrap();
    count_together(Addressing::Dedicated, &memory);
    let second = SharedMemory::dedicated(shared_type(1, 4), u64::MAX);
    assert!(matches!(second, Err(MemoryError::SecondDedicated)));
    // One that lies elsewhere is refused.
    let engine = Engine::new();
    let module = module(&engine, COUNTER, Addressing::Dedicated);
    let elsewhere = SharedMemory::new(shared_type(1, 4), u64::MAX).unwrap();
    let mut store = Store::new(&engine).unwrap();
    let mut linker = Linker::new(&engine);
    linker.define("env", "memory", Memory::from_shared(&mut store, &elsewhere));
    let error = linker.instantiate(&mut store, &module).unwrap_err();
    assert!(matches!(error, InstantiateError::NotDedicated), "{error}");
}

/// Two threads pass a ball: each waits for its number and writes the other's.
#[test]
fn waiting_and_waking_pass_a_ball_between_threads() {
    const ROUNDS: i32 = 2_000;
    let engine = Engine::new();
    let wat = r#"(module (import "env" "memory" (memory 1 1 shared))
        (func (export "play") (param $me i32) (param $rounds i32) (result i32) (local $waits i32)
            (loop $round
                (loop $wait
                    (if (i32.ne (i32.atomic.load (i32.const 64)) (local.get $me)) (then
                        (local.set $waits (i32.add (local.get $waits) (i32.const 1)))
                        (if (i32.gt_u (memory.atomic.wait32 (i32.const 64)
                                (i32.sub (i32.const 1) (local.get $me)) (i64.const -1))
                                (i32.const 1))
                            (then unreachable))
                        (br $wait))))
                (i32.atomic.store (i32.const 64) (i32.sub (i32.const 1) (local.get $me)))
                (drop (memory.atomic.notify (i32.const 64) (i32.const 1)))
                (br_if $round (local.tee $rounds (i32.sub (local.get $rounds) (i32.const 1)))))
            (local.get $waits)))"#;
    let module = module(&engine, wat, Addressing::Generic);
    let memory = SharedMemory::new(shared_type(1, 1), u64::MAX).unwrap();
    let waits: i32 = std::thread::scope(|scope| {
        let players: Vec<_> = (0..2)
            .map(|me| {
                let (module, engine, memory) = (&module, &engine, &memory);
                scope.spawn(move || {
                    let (mut world, instance) = join(module, engine, memory);
                    world.call_i32(instance, "play", &[Val::I32(me), Val::I32(ROUNDS)])
                })
            })
            .collect();
        players.into_iter().map(|player| player.join().unwrap()).sum()
    });
    assert!(waits > 0, "nobody ever waited");
}

/// One thread grows the memory page by page and publishes the size; others use the last page that
/// was published, and touch what lies beyond the maximum.
#[test]
fn growth_is_seen_by_threads_that_access_meanwhile() {
    const PAGES: u64 = 500;
    let engine = Engine::new();
    let wat = r#"(module (import "env" "memory" (memory 1 500 shared))
        (func (export "grow") (result i32)
            (local $old i32)
            (local.set $old (memory.grow (i32.const 1)))
            (if (i32.ne (local.get $old) (i32.const -1)) (then
                (i32.atomic.store (i32.const 0) (i32.add (local.get $old) (i32.const 1)))))
            (local.get $old))
        (func (export "use") (result i32) (local $last i32)
            (local.set $last (i32.sub
                (i32.mul (i32.atomic.load (i32.const 0)) (i32.const 65536)) (i32.const 4)))
            (drop (i32.atomic.rmw.add (local.get $last) (i32.const 1)))
            (i32.store16 offset=2 (local.get $last) (i32.const 3))
            (i32.and (i32.eqz (i32.load (local.get $last)))
                (i32.lt_u (memory.size) (i32.atomic.load (i32.const 0)))))
        (func (export "beyond") (drop (i32.load (i32.mul (i32.const 500) (i32.const 65536)))))
        (func (export "at") (param i32) (drop (i32.load (local.get 0)))))"#;
    let module = module(&engine, wat, Addressing::Generic);
    let memory = SharedMemory::new(shared_type(1, PAGES), u64::MAX).unwrap();
    memory.write(0, &1u32.to_le_bytes()).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let (mut world, instance) = join(&module, &engine, &memory);
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(world.call_i32(instance, "use", &[]), 0);
                    let trap = world.trap(instance, "beyond", &[]);
                    assert_eq!(trap.kind(), TrapKind::MemoryOutOfBounds);
                    // At the end, where it grows: a trap or not, never anything else.
                    let end = memory.byte_len() as i32;
                    match world.call(instance, "at", &[Val::I32(end)]) {
                        Ok(_) => {}
                        Err(CallError::Trap(trap)) => {
                            assert_eq!(trap.kind(), TrapKind::MemoryOutOfBounds);
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        let (mut world, instance) = join(&module, &engine, &memory);
        for old in 1..PAGES as i32 {
            assert_eq!(world.call_i32(instance, "grow", &[]), old);
            std::thread::yield_now();
        }
        assert_eq!(world.call_i32(instance, "grow", &[]), -1);
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(memory.size(), PAGES);
}

#[test]
fn waits_end_by_value_time_and_error() {
    let mut world = World::new();
    let wat = |memory: &str| {
        format!(
            r#"(module (memory {memory})
            (func (export "w32") (param i32 i32 i64) (result i32)
                (memory.atomic.wait32 offset=4 (local.get 0) (local.get 1) (local.get 2)))
            (func (export "w64") (param i32 i64 i64) (result i32)
                (memory.atomic.wait64 (local.get 0) (local.get 1) (local.get 2)))
            (func (export "n") (param i32 i32) (result i32)
                (memory.atomic.notify (local.get 0) (local.get 1))))"#
        )
    };
    let shared = world.instance(&wat("1 1 shared"));
    let w32 = |at, value, time| [Val::I32(at), Val::I32(value), Val::I64(time)];
    let w64 = |at, value, time| [Val::I32(at), Val::I64(value), Val::I64(time)];
    assert_eq!(world.call_i32(shared, "w32", &w32(0, 1, -1)), 1);
    assert_eq!(world.call_i32(shared, "w64", &w64(0, 1 << 40, -1)), 1);
    assert_eq!(world.call_i32(shared, "w32", &w32(0, 0, 0)), 2);
    let begin = Instant::now();
    assert_eq!(world.call_i32(shared, "w64", &w64(8, 0, 30_000_000)), 2);
    assert!(begin.elapsed() >= Duration::from_millis(30));
    assert_eq!(world.call_i32(shared, "n", &[Val::I32(0), Val::I32(-1)]), 0);
    let unshared = world.instance(&wat("1"));
    assert_eq!(world.call_i32(unshared, "n", &[Val::I32(0), Val::I32(1)]), 0);
    for (instance, name, args, kind) in [
        (shared, "w32", w32(2, 0, 0), TrapKind::UnalignedAtomic),
        (shared, "w64", w64(4, 0, 0), TrapKind::UnalignedAtomic),
        (shared, "w32", w32(65532, 0, 0), TrapKind::MemoryOutOfBounds),
        (shared, "w32", w32(-4, 0, 0), TrapKind::MemoryOutOfBounds),
        (shared, "w64", w64(65536, 0, 0), TrapKind::MemoryOutOfBounds),
        (unshared, "w32", w32(0, 0, 0), TrapKind::ExpectedSharedMemory),
        (unshared, "w64", w64(0, 0, 0), TrapKind::ExpectedSharedMemory),
        (unshared, "w64", w64(65536, 0, 0), TrapKind::MemoryOutOfBounds),
    ] {
        let trap = world.trap(instance, name, &args);
        assert_eq!((trap.kind(), trap.backtrace().len()), (kind, 1), "{name} {args:?}");
    }
    for instance in [shared, unshared] {
        let args = [Val::I32(65536), Val::I32(1)];
        assert_eq!(world.trap(instance, "n", &args).kind(), TrapKind::MemoryOutOfBounds);
        let args = [Val::I32(2), Val::I32(1)];
        assert_eq!(world.trap(instance, "n", &args).kind(), TrapKind::UnalignedAtomic);
    }
}

/// The host wakes a guest, and a guest the host's notice.
#[test]
fn the_host_can_wake_a_guest() {
    let engine = Engine::new();
    let wat = r#"(module (import "env" "memory" (memory 1 1 shared))
        (func (export "wait") (result i32)
            (memory.atomic.wait64 (i32.const 8) (i64.const 0) (i64.const -1))))"#;
    let module = module(&engine, wat, Addressing::Generic);
    let memory = SharedMemory::new(shared_type(1, 1), u64::MAX).unwrap();
    std::thread::scope(|scope| {
        let guest = scope.spawn(|| {
            let (mut world, instance) = join(&module, &engine, &memory);
            world.call_i32(instance, "wait", &[])
        });
        while memory.notify(8, 1) == 0 {
            std::thread::yield_now();
        }
        assert_eq!(guest.join().unwrap(), 0);
    });
}

/// Every atomic access out of bounds or not aligned traps, whatever the machine makes of it.
#[test]
fn every_atomic_access_is_checked() {
    let mut world = World::new();
    let mut accesses: Vec<(String, u32)> = Vec::new();
    for (ty, widths) in [("i32", &[8, 16][..]), ("i64", &[8, 16, 32])] {
        let full = if ty == "i32" { 32 } else { 64 };
        let all = widths.iter().copied().chain([full]);
        for width in all {
            let (narrow, suffix) =
                if width == full { (String::new(), "") } else { (width.to_string(), "_u") };
            let value = format!("({ty}.const 1)");
            accesses.push((format!("(drop ({ty}.atomic.load{narrow}{suffix} I))"), width / 8));
            accesses.push((format!("({ty}.atomic.store{narrow} I {value})"), width / 8));
            for op in ["add", "sub", "and", "or", "xor", "xchg"] {
                let op = format!("{ty}.atomic.rmw{narrow}.{op}{suffix}");
                accesses.push((format!("(drop ({op} I {value}))"), width / 8));
                // Without its result other instructions are chosen.
                accesses.push((
                    format!("(local.set 1 (i64.const 1)) (drop ({op} I {value}))"),
                    width / 8,
                ));
            }
            let op = format!("{ty}.atomic.rmw{narrow}.cmpxchg{suffix}");
            accesses.push((format!("(drop ({op} I {value} {value}))"), width / 8));
        }
    }
    for (memory, index) in
        [("1", "i32"), ("1 2 shared", "i32"), ("i64 1", "i64"), ("i64 1 2 shared", "i64")]
    {
        let funcs: String = accesses
            .iter()
            .enumerate()
            .map(|(n, (code, _))| {
                let code = code.replace('I', "(local.get 0)");
                format!("(func (export \"{n}\") (param {index}) (local i64) {code})")
            })
            .collect();
        let instance = world.instance(&format!("(module (memory {memory}) {funcs})"));
        let index = |n: i64| if index == "i64" { Val::I64(n) } else { Val::I32(n as i32) };
        for (n, (code, size)) in accesses.iter().enumerate() {
            let (name, size) = (n.to_string(), i64::from(*size));
            world.call(instance, &name, &[index(65536 - size)]).unwrap();
            for outside in [65536, -size] {
                let trap = world.trap(instance, &name, &[index(outside)]);
                assert_eq!(trap.kind(), TrapKind::MemoryOutOfBounds, "{code} at {outside}");
            }
            if size > 1 {
                for odd in [1, size - 1, 65536 + 1, -1] {
                    let trap = world.trap(instance, &name, &[index(odd)]);
                    assert_eq!(trap.kind(), TrapKind::UnalignedAtomic, "{code} at {odd}");
                }
            }
        }
    }
}

#[test]
fn the_host_gets_no_slice_of_a_shared_memory_and_can_still_use_it() {
    let mut world = World::new();
    world.linker.func_wrap("h", "see", |mut caller: Caller<'_>| -> i32 {
        assert!(caller.memory().is_none());
        let MemoryView::Shared(memory) = caller.memory_view() else { return -1 };
        let mut byte = [0];
        memory.read(5, &mut byte).unwrap();
        memory.write(6, &[byte[0] + 1]).unwrap();
        i32::from(byte[0])
    });
    let instance = world.instance(
        r#"(module (import "h" "see" (func $see (result i32)))
            (memory (export "m") 1 2 shared) (data (i32.const 5) "A") (data $d "xyz")
            (func (export "f") (result i32)
                (i32.add (call $see) (i32.load8_u (i32.const 6))))
            (func (export "bulk") (result i32)
                (memory.init $d (i32.const 100) (i32.const 0) (i32.const 3))
                (memory.copy (i32.const 101) (i32.const 100) (i32.const 3))
                (memory.fill (i32.const 104) (i32.const 1) (i32.const 65432))
                (i32.load (i32.const 101)))
            (func (export "out") (param i32)
                (memory.fill (i32.const 65530) (i32.const 1) (local.get 0))))"#,
    );
    assert_eq!(world.call_i32(instance, "f", &[]), 65 + 66);
    assert_eq!(world.call_i32(instance, "bulk", &[]), i32::from_le_bytes(*b"xyz\x01"));
    assert_eq!(world.trap(instance, "out", &[Val::I32(7)]).kind(), TrapKind::MemoryOutOfBounds);
    let memory = instance.memory(&world.store, "m").unwrap();
    assert!(memory.data(&world.store).is_empty());
    assert!(memory.data_mut(&mut world.store).is_empty());
    // What a module defined can be handed to another thread's store.
    let shared = memory.shared(&world.store).unwrap();
    assert_eq!(shared.ty(), MemoryType { min: 1, ..shared_type(1, 2) });
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut other = World::new();
            let handle = Memory::from_shared(&mut other.store, &shared);
            assert_eq!(handle, Memory::from_shared(&mut other.store, &shared));
            assert_eq!(handle.grow(&mut other.store, 1), Some(1));
            handle.write(&mut other.store, 131_071, &[9]).unwrap();
        });
    });
    assert_eq!(memory.size(&world.store), 2);
    let mut last = [0];
    memory.read(&world.store, 131_071, &mut last).unwrap();
    assert_eq!(last, [9]);
}

/// Guests write all over a memory while the host and bulk operations of others read it.
#[test]
fn bytes_that_others_write_meanwhile_are_old_or_new() {
    let engine = Engine::new();
    let wat = r#"(module (import "env" "memory" (memory 1 1 shared))
        (func (export "write") (param $value i32) (local $at i32)
            (loop $l
                (i32.store8 (local.get $at) (local.get $value))
                (br_if $l (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1)))
                    (i32.const 32768)))))
        (func (export "copy")
            (memory.copy (i32.const 32768) (i32.const 0) (i32.const 32768))))"#;
    let module = module(&engine, wat, Addressing::Generic);
    let memory = SharedMemory::new(shared_type(1, 1), u64::MAX).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut world, instance) = join(&module, &engine, &memory);
            for value in (0..400).map(|n| if n % 2 == 0 { 0x55 } else { 0xaa }) {
                world.call(instance, "write", &[Val::I32(value)]).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        let (mut world, instance) = join(&module, &engine, &memory);
        let mut bytes = vec![0; 65536];
        while !done.load(Ordering::Relaxed) {
            world.call(instance, "copy", &[]).unwrap();
            memory.read(0, &mut bytes).unwrap();
            assert!(bytes.iter().all(|byte| [0, 0x55, 0xaa].contains(byte)));
        }
    });
}
