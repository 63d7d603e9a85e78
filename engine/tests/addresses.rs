//! Loads and stores against an arithmetic model: every width, with static offsets and indices
//! around every limit that address computation has, in both addressing modes and at both
//! optimisation levels. An access either reaches exactly the bytes that the model says, or traps.

use std::sync::{Mutex, PoisonError};

use coracle_engine::compile::compile;
use coracle_engine::config::{Addressing, OptLevel, Settings};
use coracle_engine::runtime::{CallError, Engine, Instance, Linker, Module, Store, TrapKind, Val};

/// Pages of the memory under test.
const PAGES: u64 = 3;
const LENGTH: u64 = PAGES << 16;

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

/// Around nothing, the memory's end, the largest displacement of a fixed base, the guard's end and
/// the end of 32 bits.
fn offsets() -> Vec<u32> {
    let centres = [0, LENGTH, 0x7000_0000, 0x7fff_ffff, 0x8000_0000, 0xf000_0000, 0xffff_ffff];
    around(&centres)
}

fn indices() -> Vec<u32> {
    around(&[0, LENGTH - 16, LENGTH, 0x7fff_ffff, 0x8000_0000, 0xffff_0000, 0xffff_ffff])
}

fn around(centres: &[u64]) -> Vec<u32> {
    let near = centres.iter().flat_map(|&centre| {
        [-9, -8, -4, -1, 0, 1, 7].into_iter().map(move |delta| centre as i64 + delta)
    });
    let mut out: Vec<u32> = near.filter_map(|value| u32::try_from(value).ok()).collect();
    out.sort_unstable();
    out.dedup();
    out
}

/// Byte of the memory's pattern at an address: neighbours differ, and so do pages.
fn pattern(address: u64) -> u8 {
    (address.wrapping_mul(0x9e37_79b9) >> 13) as u8
}

fn wat(offsets: &[u32]) -> String {
    let mut out = format!("(module (memory (export \"memory\") {PAGES})");
    let ty = |wide: bool| if wide { "i64" } else { "i32" };
    for (name, _, wide) in LOADS {
        for offset in offsets {
            out += &format!(
                "(func (export \"{name} {offset}\") (param i32) (result {})
                    ({name} offset={offset} (local.get 0)))",
                ty(*wide)
            );
        }
    }
    for (name, _, wide) in STORES {
        for offset in offsets {
            out += &format!(
                "(func (export \"{name} {offset}\") (param i32 {})
                    ({name} offset={offset} (local.get 0) (local.get 1)))",
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

    fn memory(&mut self) -> &mut [u8] {
        let memory = self.instance.memory(&self.store, "memory").unwrap();
        memory.data_mut(&mut self.store)
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

/// Where an access lies if it lies within the memory.
fn model(index: u32, offset: u32, size: u64) -> Option<u64> {
    let start = u64::from(index) + u64::from(offset);
    (start + size <= LENGTH).then_some(start)
}

fn bits(value: &Val) -> u64 {
    match *value {
        Val::I32(value) => u64::from(value as u32),
        Val::I64(value) => value as u64,
        other => panic!("{other:?}"),
    }
}

fn check(settings: Settings) {
    let offsets = offsets();
    let mut guest = Guest::new(&wat(&offsets), &settings);
    for (address, byte) in guest.memory().iter_mut().enumerate() {
        *byte = pattern(address as u64);
    }
    let mut inside = 0;
    for &offset in &offsets {
        for &index in &indices() {
            inside += check_loads(&mut guest, index, offset);
            inside += check_stores(&mut guest, index, offset);
        }
    }
    assert!(inside > 500, "only {inside} accesses were within the memory");
}

fn check_loads(guest: &mut Guest, index: u32, offset: u32) -> usize {
    let mut inside = 0;
    for &(name, size, _) in LOADS {
        let found = guest.call(&format!("{name} {offset}"), &[Val::I32(index as i32)]);
        let expected = model(index, offset, size)
            .map(|start| (0..size).map(|n| u64::from(pattern(start + n)) << (8 * n)).sum::<u64>());
        let found = found.map(|results| bits(&results[0]));
        assert_eq!(found, expected, "{name} at {index:#x} + {offset:#x}");
        inside += usize::from(expected.is_some());
    }
    inside
}

fn check_stores(guest: &mut Guest, index: u32, offset: u32) -> usize {
    const VALUE: u64 = 0x8877_6655_4433_2211;
    let mut inside = 0;
    for &(name, size, wide) in STORES {
        let value = if wide { Val::I64(VALUE as i64) } else { Val::I32(VALUE as i32) };
        let args = [Val::I32(index as i32), value];
        let stored = guest.call(&format!("{name} {offset}"), &args).is_some();
        let expected = model(index, offset, size);
        assert_eq!(stored, expected.is_some(), "{name} at {index:#x} + {offset:#x}");
        if let Some(start) = expected {
            let bytes = &mut guest.memory()[start as usize..(start + size) as usize];
            assert_eq!(bytes, &VALUE.to_le_bytes()[..size as usize], "{name} at {start:#x}");
            for (n, byte) in bytes.iter_mut().enumerate() {
                *byte = pattern(start + n as u64);
            }
            inside += 1;
        }
    }
    // Nothing else was touched: at the ends, where a wrong width would show.
    let memory = guest.memory();
    for address in (0..32).chain(LENGTH - 32..LENGTH) {
        assert_eq!(memory[address as usize], pattern(address), "byte {address:#x}");
    }
    inside
}

/// The fixed address is given out once at a time in a process.
static FIXED_ADDRESS: Mutex<()> = Mutex::new(());

fn settings(opt_level: OptLevel, addressing: Addressing) -> Settings {
    Settings { verifier: true, opt_level, addressing, ..Settings::default() }
}

#[test]
fn generic_optimised() {
    check(settings(OptLevel::Speed, Addressing::Generic));
}

#[test]
fn generic_unoptimised() {
    check(settings(OptLevel::None, Addressing::Generic));
}

#[test]
fn dedicated_optimised() {
    let _claim = FIXED_ADDRESS.lock().unwrap_or_else(PoisonError::into_inner);
    check(settings(OptLevel::Speed, Addressing::Dedicated));
}

#[test]
fn dedicated_unoptimised() {
    let _claim = FIXED_ADDRESS.lock().unwrap_or_else(PoisonError::into_inner);
    check(settings(OptLevel::None, Addressing::Dedicated));
}

/// An index known when compiling is folded with the offset; the sum must not wrap.
#[test]
fn constant_indices_do_not_wrap() {
    let _claim = FIXED_ADDRESS.lock().unwrap_or_else(PoisonError::into_inner);
    for addressing in [Addressing::Generic, Addressing::Dedicated] {
        for opt_level in [OptLevel::None, OptLevel::Speed] {
            for index in [0u32, 8, 0x7fff_fff0, 0x8000_0000, 0xffff_fff8, 0xffff_ffff] {
                for offset in [0u32, 8, 0x6fff_ffff, 0x7000_0000, 0x7fff_ffff, 0xffff_fff8] {
                    let wat = format!(
                        "(module (memory (export \"memory\") {PAGES}) (func (export \"load\")
                            (result i32) (i32.load offset={offset} (i32.const {index}))))"
                    );
                    let mut guest = Guest::new(&wat, &settings(opt_level, addressing));
                    let found = guest.call("load", &[]).is_some();
                    let expected = model(index, offset, 4).is_some();
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
    let wat = format!("(module (memory (export \"memory\") {PAGES}) {funcs})");
    for opt_level in [OptLevel::None, OptLevel::Speed] {
        let mut guest = Guest::new(&wat, &settings(opt_level, Addressing::Generic));
        for (n, (_, size, code)) in uses.iter().enumerate() {
            let mut at = |index: u64| guest.call(&n.to_string(), &[Val::I32(index as i32)]);
            assert!(at(LENGTH - size).is_some(), "{code}");
            assert!(at(LENGTH - size + 1).is_none(), "{code}");
        }
    }
}
