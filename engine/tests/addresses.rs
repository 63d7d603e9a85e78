//! Loads and stores against an arithmetic model: every width, with static offsets and indices
//! around every limit that address computation has, in both addressing modes and at both
//! optimisation levels. An access either reaches exactly the bytes that the model says, or traps.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Mutex, PoisonError};

use coracle_engine::compile::compile;
use coracle_engine::config::{Addressing, OptLevel, Settings};
use coracle_engine::runtime::{CallError, Engine, Instance, Linker, Module, Store, TrapKind, Val};

/// Bytes of the memories whose size is counted in pages.
const LENGTH: u64 = 3 << 16;

/// A kind of memory under test.
#[derive(Clone, Copy)]
struct Kind {
    /// Its definition, and those of memories before it.
    memories: &'static str,
    /// Its name in an access.
    name: &'static str,
    /// Whether its indices are i64.
    wide: bool,
    length: u64,
}

const PLAIN: Kind =
    Kind { memories: r#"(memory (export "memory") 3)"#, name: "", wide: false, length: LENGTH };
const SECOND: Kind =
    Kind { memories: r#"(memory 1) (memory $m (export "memory") 3)"#, name: "$m", ..PLAIN };
const SHARED: Kind = Kind { memories: r#"(memory (export "memory") 3 4 shared)"#, ..PLAIN };
const WIDE: Kind = Kind { memories: r#"(memory (export "memory") i64 3)"#, wide: true, ..PLAIN };
const WIDE_SHARED: Kind = Kind { memories: r#"(memory (export "memory") i64 3 4 shared)"#, ..WIDE };
const WIDE_SECOND: Kind =
    Kind { memories: r#"(memory 1) (memory $m (export "memory") i64 3)"#, name: "$m", ..WIDE };
/// Ends in the middle of a page of the machine.
const BYTES: Kind =
    Kind { memories: r#"(memory (export "memory") 10_001 (pagesize 1))"#, length: 10_001, ..PLAIN };
const WIDE_BYTES: Kind =
    Kind { memories: r#"(memory (export "memory") i64 10_001 (pagesize 1))"#, wide: true, ..BYTES };

impl Kind {
    fn index_type(self) -> &'static str {
        if self.wide { "i64" } else { "i32" }
    }

    fn index(self, index: u64) -> Val {
        if self.wide { Val::I64(index as i64) } else { Val::I32(index as i32) }
    }

    /// Around nothing, the memory's end, the largest displacement of a fixed base, the guard's end
    /// and the end of what an offset may be.
    fn offsets(self) -> Vec<u64> {
        const NARROW: [u64; 6] =
            [0, 0x7000_0000, 0x7fff_ffff, 0x8000_0000, 0xf000_0000, 0xffff_ffff];
        const WIDE: [u64; 6] = [0, 64 << 20, 0x7fff_ffff, 0x1_0000_0000, 1 << 63, u64::MAX];
        self.around(if self.wide { &WIDE } else { &NARROW })
    }

    fn indices(self) -> Vec<u64> {
        const NARROW: [u64; 5] = [0, 0x7fff_ffff, 0x8000_0000, 0xffff_0000, 0xffff_ffff];
        const WIDE: [u64; 6] = [0, 0xffff_ffff, 64 << 30, 1 << 47, 1 << 63, u64::MAX];
        self.around(if self.wide { &WIDE } else { &NARROW })
    }

    fn around(self, centres: &[u64]) -> Vec<u64> {
        let most = if self.wide { u64::MAX } else { u64::from(u32::MAX) };
        let of_length = [self.length - 16, self.length];
        let near = centres.iter().chain(&of_length).flat_map(|&centre| {
            [-8, -4, -1, 0, 1].into_iter().filter_map(move |d| centre.checked_add_signed(d))
        });
        let mut out: Vec<u64> = near.filter(|&value| value <= most).collect();
        out.sort_unstable();
        out.dedup();
        out
    }

    /// Where an access lies if it lies within the memory.
    fn model(self, index: u64, offset: u64, size: u64) -> Option<u64> {
        let start = u128::from(index) + u128::from(offset);
        (start + u128::from(size) <= u128::from(self.length)).then_some(start as u64)
    }
}

/// Loads by name, bytes, and whether the result is an i64.
const LOADS: &[(&str, u64, bool)] = &[
    ("i32.load8_u", 1, false),
    ("i32.load16_u", 2, false),
    ("i32.load", 4, false),
    ("i64.load8_u", 1, true),
    ("i64.load16_u", 2, true),
    ("i64.load32_u", 4, true),
    ("i64.load", 8, true),
];

const STORES: &[(&str, u64, bool)] = &[
    ("i32.store8", 1, false),
    ("i32.store16", 2, false),
    ("i32.store", 4, false),
    ("i64.store8", 1, true),
    ("i64.store16", 2, true),
    ("i64.store32", 4, true),
    ("i64.store", 8, true),
];

/// Byte of the memory's pattern at an address: neighbours differ, and so do pages.
fn pattern(address: u64) -> u8 {
    (address.wrapping_mul(0x9e37_79b9) >> 13) as u8
}

fn wat(kind: Kind, offsets: &[u64]) -> String {
    let mut out = format!("(module {}", kind.memories);
    let (index, memory) = (kind.index_type(), kind.name);
    let ty = |wide: bool| if wide { "i64" } else { "i32" };
    for (name, _, wide) in LOADS {
        for offset in offsets {
            out += &format!(
                "(func (export \"{name} {offset}\") (param {index}) (result {})
                    ({name} {memory} offset={offset} (local.get 0)))",
                ty(*wide)
            );
        }
    }
    for (name, _, wide) in STORES {
        for offset in offsets {
            out += &format!(
                "(func (export \"{name} {offset}\") (param {index} {})
                    ({name} {memory} offset={offset} (local.get 0) (local.get 1)))",
                ty(*wide)
            );
        }
    }
    out + ")"
}

struct Guest {
    store: Store,
    instance: Instance,
}

impl Guest {
    fn new(wat: &str, settings: &Settings) -> Guest {
        let engine = Engine::new();
        let image = compile(wat.as_bytes(), settings).unwrap();
        let module = Module::from_bytes(&engine, &image).unwrap();
        let mut store = Store::new(&engine).unwrap();
        let instance = Linker::new(&engine).instantiate(&mut store, &module).unwrap();
        Guest { store, instance }
    }

    /// Also of memories that threads share, of which there is no slice.
    fn bytes<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut out = [0; N];
        let memory = self.instance.memory(&self.store, "memory").unwrap();
        memory.read(&self.store, at, &mut out).unwrap();
        out
    }

    fn restore(&mut self, at: u64, len: u64) {
        let bytes: Vec<u8> = (at..at + len).map(pattern).collect();
        let memory = self.instance.memory(&self.store, "memory").unwrap();
        memory.write(&mut self.store, at, &bytes).unwrap();
    }

    /// The results, or `None` if memory's bounds were violated.
    fn call(&mut self, name: &str, args: &[Val]) -> Option<Vec<Val>> {
        let func = self.instance.func(&self.store, name).unwrap();
        let mut results = Vec::new();
        match func.call(&mut self.store, args, &mut results) {
            Ok(()) => Some(results),
            Err(CallError::Trap(trap)) => {
                assert_eq!(trap.kind(), TrapKind::MemoryOutOfBounds, "{name} {args:?}");
                None
            }
            Err(error) => panic!("{name} {args:?}: {error}"),
        }
    }
}

fn bits(value: &Val) -> u64 {
    match *value {
        Val::I32(value) => u64::from(value as u32),
        Val::I64(value) => value as u64,
        other => panic!("{other:?}"),
    }
}

fn check(kind: Kind, settings: Settings) {
    let offsets = kind.offsets();
    let mut guest = Guest::new(&wat(kind, &offsets), &settings);
    guest.restore(0, kind.length);
    let mut inside = 0;
    for &offset in &offsets {
        for &index in &kind.indices() {
            inside += check_loads(kind, &mut guest, index, offset);
            inside += check_stores(kind, &mut guest, index, offset);
        }
    }
    assert!(inside > 300, "only {inside} accesses were within the memory");
}

fn check_loads(kind: Kind, guest: &mut Guest, index: u64, offset: u64) -> usize {
    let mut inside = 0;
    for &(name, size, _) in LOADS {
        let found = guest.call(&format!("{name} {offset}"), &[kind.index(index)]);
        let expected = kind
            .model(index, offset, size)
            .map(|start| (0..size).map(|n| u64::from(pattern(start + n)) << (8 * n)).sum::<u64>());
        let found = found.map(|results| bits(&results[0]));
        assert_eq!(found, expected, "{name} at {index:#x} + {offset:#x} in {}", kind.memories);
        inside += usize::from(expected.is_some());
    }
    inside
}

fn check_stores(kind: Kind, guest: &mut Guest, index: u64, offset: u64) -> usize {
    const VALUE: u64 = 0x8877_6655_4433_2211;
    let mut inside = 0;
    for &(name, size, wide) in STORES {
        let value = if wide { Val::I64(VALUE as i64) } else { Val::I32(VALUE as i32) };
        let args = [kind.index(index), value];
        let stored = guest.call(&format!("{name} {offset}"), &args).is_some();
        let expected = kind.model(index, offset, size);
        let place = format!("{name} at {index:#x} + {offset:#x} in {}", kind.memories);
        assert_eq!(stored, expected.is_some(), "{place}");
        if let Some(start) = expected {
            let mut bytes = std::array::from_fn(|n| pattern(start + n as u64));
            bytes[..size as usize].copy_from_slice(&VALUE.to_le_bytes()[..size as usize]);
            if start + 8 <= kind.length {
                assert_eq!(guest.bytes::<8>(start), bytes, "{place}");
            }
            guest.restore(start, size);
            inside += 1;
        }
    }
    // Nothing else was touched: at the ends, where a wrong width would show.
    for at in [0, kind.length - 32] {
        assert_eq!(guest.bytes::<32>(at), std::array::from_fn(|n| pattern(at + n as u64)));
    }
    inside
}

/// The fixed address is given out once at a time in a process.
static FIXED_ADDRESS: Mutex<()> = Mutex::new(());

fn settings(opt_level: OptLevel, addressing: Addressing) -> Settings {
    Settings { verifier: true, opt_level, addressing, ..Settings::default() }
}

/// All kinds at a level and in a mode, also those that are off unless asked for.
fn check_all(opt_level: OptLevel, addressing: Addressing, kinds: &[Kind]) {
    let mut settings = settings(opt_level, addressing);
    settings.features.custom_page_sizes = true;
    for &kind in kinds {
        check(kind, settings);
    }
}

const NARROW_KINDS: &[Kind] = &[PLAIN, SECOND, SHARED, BYTES];
const WIDE_KINDS: &[Kind] = &[WIDE, WIDE_SECOND, WIDE_SHARED, WIDE_BYTES];

#[test]
fn generic_optimised() {
    check_all(OptLevel::Speed, Addressing::Generic, NARROW_KINDS);
}

#[test]
fn generic_unoptimised() {
    check_all(OptLevel::None, Addressing::Generic, NARROW_KINDS);
}

#[test]
fn generic_64_bit_optimised() {
    check_all(OptLevel::Speed, Addressing::Generic, WIDE_KINDS);
}

#[test]
fn generic_64_bit_unoptimised() {
    check_all(OptLevel::None, Addressing::Generic, WIDE_KINDS);
}

#[test]
fn dedicated_optimised() {
    let _claim = FIXED_ADDRESS.lock().unwrap_or_else(PoisonError::into_inner);
    check_all(OptLevel::Speed, Addressing::Dedicated, NARROW_KINDS);
    check_all(OptLevel::Speed, Addressing::Dedicated, WIDE_KINDS);
}

#[test]
fn dedicated_unoptimised() {
    let _claim = FIXED_ADDRESS.lock().unwrap_or_else(PoisonError::into_inner);
    check_all(OptLevel::None, Addressing::Dedicated, NARROW_KINDS);
    check_all(OptLevel::None, Addressing::Dedicated, WIDE_KINDS);
}

/// An index known when compiling is folded with the offset; the sum must not wrap.
#[test]
fn constant_indices_do_not_wrap() {
    let _claim = FIXED_ADDRESS.lock().unwrap_or_else(PoisonError::into_inner);
    const NARROW: &[u64] =
        &[0, 8, 0x6fff_ffff, 0x7000_0000, 0x7fff_fff0, 0x8000_0000, 0xffff_fff8, 0xffff_ffff];
    const WIDE_OFFSETS: &[u64] = &[0, 8, 0x3ff_fff8, 0x400_0000, 0x1_0000_0000, !7, u64::MAX];
    for addressing in [Addressing::Generic, Addressing::Dedicated] {
        for opt_level in [OptLevel::None, OptLevel::Speed] {
            for (kind, places) in [(PLAIN, NARROW), (WIDE, WIDE_OFFSETS)] {
                for (&index, &offset) in
                    places.iter().flat_map(|index| places.iter().map(move |offset| (index, offset)))
                {
                    let wat = format!(
                        "(module {} (func (export \"load\") (result i32)
                            (i32.load offset={offset} ({}.const {index}))))",
                        kind.memories,
                        kind.index_type(),
                    );
                    let mut guest = Guest::new(&wat, &settings(opt_level, addressing));
                    let found = guest.call("load", &[]).is_some();
                    let expected = kind.model(index, offset, 4).is_some();
                    assert_eq!(found, expected, "{index:#x} + {offset:#x}, {addressing:?}");
                }
            }
        }
    }
}

/// A load joined with the instruction that uses it must not read more than the load does: the last
/// bytes before the guard.
#[test]
fn joined_loads_read_no_more_than_they_may() {
    let uses = [
        ("f32", 4, "f32.copysign (f32.const -1) (f32.load (local.get 0))"),
        ("f64", 8, "f64.copysign (f64.const -1) (f64.load (local.get 0))"),
        ("f32", 4, "f32.add (f32.const 1) (f32.load (local.get 0))"),
        ("f64", 8, "f64.sqrt (f64.load (local.get 0))"),
        ("f32", 4, "f32.abs (f32.load (local.get 0))"),
        ("f64", 8, "f64.neg (f64.load (local.get 0))"),
        ("f32", 4, "f32.min (f32.const 1) (f32.load (local.get 0))"),
        ("f64", 8, "f64.nearest (f64.load (local.get 0))"),
        ("f64", 4, "f64.promote_f32 (f32.load (local.get 0))"),
        ("f32", 8, "f32.demote_f64 (f64.load (local.get 0))"),
        ("f64", 4, "f64.convert_i32_s (i32.load (local.get 0))"),
        ("f64", 8, "f64.convert_i64_s (i64.load (local.get 0))"),
        ("i32", 4, "i32.popcnt (i32.load (local.get 0))"),
        ("i64", 8, "i64.mul (i64.load (local.get 0)) (i64.const 7)"),
        ("i32", 2, "i32.and (i32.load16_u (local.get 0)) (i32.const 7)"),
        ("i32", 1, "i32.add (i32.load8_s (local.get 0)) (i32.const 7)"),
        ("i64", 4, "i64.extend_i32_s (i32.load (local.get 0))"),
        ("i32", 8, "i32.wrap_i64 (i64.load (local.get 0))"),
        ("i32", 4, "i32.trunc_sat_f32_s (f32.load (local.get 0))"),
        ("i64", 8, "i64.reinterpret_f64 (f64.load (local.get 0))"),
        ("i32", 4, "i32.eqz (i32.load (local.get 0))"),
        ("i32", 8, "f64.lt (f64.const 0) (f64.load (local.get 0))"),
    ];
    let funcs: String = uses
        .iter()
        .enumerate()
        .map(|(n, (ty, _, code))| {
            format!("(func (export \"{n}\") (param i32) (result {ty}) ({code}))")
        })
        .collect();
    let wat = format!("(module {} {funcs})", PLAIN.memories);
    for opt_level in [OptLevel::None, OptLevel::Speed] {
        let mut guest = Guest::new(&wat, &settings(opt_level, Addressing::Generic));
        for (n, (_, size, code)) in uses.iter().enumerate() {
            let mut at = |index: u64| guest.call(&n.to_string(), &[Val::I32(index as i32)]);
            assert!(at(LENGTH - size).is_some(), "{code}");
            assert!(at(LENGTH - size + 1).is_none(), "{code}");
        }
    }
}
