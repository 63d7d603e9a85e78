//! Accesses to memory against an arithmetic model: every width and kind, with static offsets and
//! indices around every limit that address computation has. An access either reaches exactly the
//! bytes that the model says, or traps.

use std::fmt::Write;

use coracle_engine::runtime::{TrapKind, Val};

use crate::{CONFIGURATIONS, Configuration, Guest, bits, constant, export, value};

/// Pages of the memory under test.
const PAGES: u64 = 3;
const LENGTH: u64 = PAGES << 16;

/// What a load makes of its bytes.
type Decode = fn(&[u8]) -> u128;

/// Name and immediates behind the offset, bytes, type of the result, decoding.
struct Load(&'static str, &'static str, u64, &'static str, Decode);

fn raw(bytes: &[u8]) -> u128 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u128::from(byte))
}

/// Sign-extends `count` lanes of `N` bytes to twice their width, or zero-extends them.
fn widen<const N: usize, const SIGNED: bool>(bytes: &[u8]) -> u128 {
    let bits = 8 * N as u32;
    let wide = bytes.chunks(N).map(|lane| {
        let lane = raw(lane) as i128;
        let lane = if SIGNED { lane << (128 - bits) >> (128 - bits) } else { lane };
        lane as u128 & ((1 << (2 * bits)) - 1)
    });
    wide.enumerate().fold(0, |value, (n, lane)| value | lane << (n as u32 * 2 * bits))
}

fn splat(bytes: &[u8]) -> u128 {
    raw(&bytes.repeat(16 / bytes.len()))
}

fn signed<const TO: u32>(bytes: &[u8]) -> u128 {
    let shift = 128 - 8 * bytes.len() as u32;
    let value = (raw(bytes) << shift) as i128 >> shift;
    value as u128 & ((1 << TO) - 1)
}

/// What lanes are loaded into and stored from.
const VECTOR: u128 = 0x0f1e_2d3c_4b5a_6978_8796_a5b4_c3d2_e1f0;

fn lane<const LANE: usize>(bytes: &[u8]) -> u128 {
    let mut vector = VECTOR.to_le_bytes();
    vector[LANE * bytes.len()..][..bytes.len()].copy_from_slice(bytes);
    u128::from_le_bytes(vector)
}

const LOADS: &[Load] = &[
    Load("i32.load8_u", "", 1, "i32", raw),
    Load("i32.load8_s", "", 1, "i32", signed::<32>),
    Load("i32.load16_u", "", 2, "i32", raw),
    Load("i32.load16_s", "", 2, "i32", signed::<32>),
    Load("i32.load", "", 4, "i32", raw),
    Load("i64.load8_u", "", 1, "i64", raw),
    Load("i64.load8_s", "", 1, "i64", signed::<64>),
    Load("i64.load16_u", "", 2, "i64", raw),
    Load("i64.load16_s", "", 2, "i64", signed::<64>),
    Load("i64.load32_u", "", 4, "i64", raw),
    Load("i64.load32_s", "", 4, "i64", signed::<64>),
    Load("i64.load", "", 8, "i64", raw),
    Load("f32.load", "", 4, "f32", raw),
    Load("f64.load", "", 8, "f64", raw),
    Load("v128.load", "", 16, "v128", raw),
    Load("v128.load8x8_s", "", 8, "v128", widen::<1, true>),
    Load("v128.load8x8_u", "", 8, "v128", widen::<1, false>),
    Load("v128.load16x4_s", "", 8, "v128", widen::<2, true>),
    Load("v128.load16x4_u", "", 8, "v128", widen::<2, false>),
    Load("v128.load32x2_s", "", 8, "v128", widen::<4, true>),
    Load("v128.load32x2_u", "", 8, "v128", widen::<4, false>),
    Load("v128.load8_splat", "", 1, "v128", splat),
    Load("v128.load16_splat", "", 2, "v128", splat),
    Load("v128.load32_splat", "", 4, "v128", splat),
    Load("v128.load64_splat", "", 8, "v128", splat),
    Load("v128.load32_zero", "", 4, "v128", raw),
    Load("v128.load64_zero", "", 8, "v128", raw),
    Load("v128.load8_lane", "13", 1, "v128", lane::<13>),
    Load("v128.load16_lane", "6", 2, "v128", lane::<6>),
    Load("v128.load32_lane", "3", 4, "v128", lane::<3>),
    Load("v128.load64_lane", "1", 8, "v128", lane::<1>),
    Load("i32.atomic.load8_u", "", 1, "i32", raw),
    Load("i32.atomic.load16_u", "", 2, "i32", raw),
    Load("i32.atomic.load", "", 4, "i32", raw),
    Load("i64.atomic.load", "", 8, "i64", raw),
];

/// Name and immediates behind the offset, bytes, type of the operand, where they lie in it.
struct Store(&'static str, &'static str, u64, &'static str, usize);

const STORES: &[Store] = &[
    Store("i32.store8", "", 1, "i32", 0),
    Store("i32.store16", "", 2, "i32", 0),
    Store("i32.store", "", 4, "i32", 0),
    Store("i64.store8", "", 1, "i64", 0),
    Store("i64.store16", "", 2, "i64", 0),
    Store("i64.store32", "", 4, "i64", 0),
    Store("i64.store", "", 8, "i64", 0),
    Store("f32.store", "", 4, "f32", 0),
    Store("f64.store", "", 8, "f64", 0),
    Store("v128.store", "", 16, "v128", 0),
    Store("v128.store8_lane", "13", 1, "v128", 13),
    Store("v128.store16_lane", "6", 2, "v128", 12),
    Store("v128.store32_lane", "3", 4, "v128", 12),
    Store("v128.store64_lane", "1", 8, "v128", 8),
    Store("i32.atomic.store8", "", 1, "i32", 0),
    Store("i32.atomic.store16", "", 2, "i32", 0),
    Store("i32.atomic.store", "", 4, "i32", 0),
    Store("i64.atomic.store", "", 8, "i64", 0),
    // These give the old value, which is dropped, and leave what is given.
    Store("i32.atomic.rmw8.xchg_u", "", 1, "i32", 0),
    Store("i32.atomic.rmw16.xchg_u", "", 2, "i32", 0),
    Store("i32.atomic.rmw.xchg", "", 4, "i32", 0),
    Store("i64.atomic.rmw32.xchg_u", "", 4, "i64", 0),
    Store("i64.atomic.rmw.xchg", "", 8, "i64", 0),
];

/// A memory under test.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Indices are i64.
    wide: bool,
    /// Memories of the module before it.
    before: usize,
    /// It ends in the middle of a page of the machine, as pages of one byte allow.
    odd: bool,
    /// Other threads may use it.
    shared: bool,
}

impl Shape {
    /// Bytes.
    fn length(self) -> u64 {
        if self.odd { LENGTH - 5 } else { LENGTH }
    }

    /// Its type in the text format.
    fn ty(self) -> String {
        let index = self.index();
        match (self.odd, self.shared) {
            (true, _) => format!("{index} {} (pagesize 1)", self.length()),
            (false, true) => format!("{index} {PAGES} {} shared", PAGES + 1),
            (false, false) => format!("{index} {PAGES}"),
        }
    }

    fn index(self) -> &'static str {
        if self.wide { "i64" } else { "i32" }
    }

    /// Around nothing, the memory's end, the largest displacement of a fixed base, the guard's end,
    /// the end of 32 bits, and with wide indices the end of 63 and 64.
    fn offsets(self) -> Vec<u64> {
        let mut centres = vec![0, LENGTH, 0x7000_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
        if self.wide {
            centres.extend([0x1_0000_0000, i64::MAX as u64, u64::MAX]);
        }
        self.around(&centres, &[-8, -1, 0, 1])
    }

    fn indices(self) -> Vec<u64> {
        let mut centres =
            vec![0, LENGTH - 16, LENGTH, 0x7fff_ffff, 0x8000_0000, 0xffff_0000, 0xffff_ffff];
        if self.wide {
            centres.extend([0x1_0000_0000, 0x1_0000_0000 + LENGTH, i64::MAX as u64, u64::MAX]);
        }
        self.around(&centres, &[-9, -8, -4, -1, 0, 1, 7])
    }

    fn around(self, centres: &[u64], deltas: &[i64]) -> Vec<u64> {
        let all = centres.iter().flat_map(|&centre| {
            deltas.iter().filter_map(move |&delta| centre.checked_add_signed(delta))
        });
        let largest = if self.wide { u64::MAX } else { u64::from(u32::MAX) };
        let mut out: Vec<u64> = all.filter(|&value| value <= largest).collect();
        out.sort_unstable();
        out.dedup();
        out
    }

    fn wat(self, offsets: &[u64]) -> String {
        let index = self.index();
        let mut out = String::from("(module ");
        for _ in 0..self.before {
            out += "(memory 1)";
        }
        writeln!(out, "(memory $m (export \"memory\") {})", self.ty()).unwrap();
        for &Load(name, immediate, _, ty, _) in LOADS {
            let more =
                if name.ends_with("_lane") { constant("v128", VECTOR) } else { String::new() };
            for offset in offsets {
                let body = format!("({name} $m offset={offset} {immediate} (local.get 0) {more})");
                let ty = format!("(param {index}) (result {ty})");
                export(&mut out, &format!("{name} {offset}"), &ty, &body);
            }
        }
        for &Store(name, immediate, _, ty, _) in STORES {
            for offset in offsets {
                let body =
                    format!("({name} $m offset={offset} {immediate} (local.get 0) (local.get 1))");
                let body = if name.contains("xchg") { format!("(drop {body})") } else { body };
                export(
                    &mut out,
                    &format!("{name} {offset}"),
                    &format!("(param {index} {ty})"),
                    &body,
                );
            }
        }
        out + ")"
    }
}

/// Byte of the memory's pattern at an address: neighbours differ, and so do pages.
fn pattern(address: u64) -> u8 {
    (address.wrapping_mul(0x9e37_79b9) >> 13) as u8
}

fn patterns(start: u64, len: u64) -> Vec<u8> {
    (start..start + len).map(pattern).collect()
}

/// Where an access lies, or why it traps.
fn model(
    shape: Shape,
    name: &str,
    index: u64,
    offset: u64,
    size: u64,
) -> Result<u64, Vec<TrapKind>> {
    let start = u128::from(index) + u128::from(offset);
    let outside = start + u128::from(size) > u128::from(shape.length());
    let unaligned = name.contains("atomic") && !start.is_multiple_of(u128::from(size));
    match (outside, unaligned) {
        (false, false) => Ok(start as u64),
        (true, false) => Err(vec![TrapKind::MemoryOutOfBounds]),
        (false, true) => Err(vec![TrapKind::UnalignedAtomic]),
        // The specification checks the alignment first; either is a trap.
        (true, true) => Err(vec![TrapKind::UnalignedAtomic, TrapKind::MemoryOutOfBounds]),
    }
}

/// Whether both agree; panics if not.
fn agree(
    found: Result<Vec<Val>, TrapKind>,
    expected: &Result<u64, Vec<TrapKind>>,
    what: &dyn Fn() -> String,
) -> Option<Vec<Val>> {
    match (found, expected) {
        (Ok(results), Ok(_)) => Some(results),
        (Err(kind), Err(kinds)) if kinds.contains(&kind) => None,
        (found, expected) => panic!("{}: {found:?} instead of {expected:?}", what()),
    }
}

fn check(configuration: Configuration, shape: Shape) {
    let offsets = shape.offsets();
    let mut guest = Guest::new(&shape.wat(&offsets), configuration);
    guest.write(0, &patterns(0, shape.length()));
    let mut inside = 0;
    for load in LOADS {
        inside += check_load(&mut guest, shape, &offsets, load);
    }
    for store in STORES {
        inside += check_store(&mut guest, shape, &offsets, store);
    }
    assert!(inside > 1000, "only {inside} accesses were within the memory");
}

fn check_load(guest: &mut Guest, shape: Shape, offsets: &[u64], load: &Load) -> usize {
    let &Load(name, _, size, _, decode) = load;
    let mut inside = 0;
    for &offset in offsets {
        let func = guest.func(&format!("{name} {offset}"));
        for index in shape.indices() {
            let what = || format!("{shape:?} {name} at {index:#x} + {offset:#x}");
            let expected = model(shape, name, index, offset, size);
            let found = guest.call_func(func, &[value(shape.index(), u128::from(index))]);
            let Some(found) = agree(found, &expected, &what) else { continue };
            let start = expected.unwrap();
            assert_eq!(bits(&found[0]), decode(&patterns(start, size)), "{}", what());
            inside += 1;
        }
    }
    inside
}

fn check_store(guest: &mut Guest, shape: Shape, offsets: &[u64], store: &Store) -> usize {
    let &Store(name, _, size, ty, from) = store;
    let bytes = &VECTOR.to_le_bytes()[from..][..size as usize];
    let mut inside = 0;
    for &offset in offsets {
        let func = guest.func(&format!("{name} {offset}"));
        for index in shape.indices() {
            let what = || format!("{shape:?} {name} at {index:#x} + {offset:#x}");
            let expected = model(shape, name, index, offset, size);
            let args = [value(shape.index(), u128::from(index)), value(ty, VECTOR)];
            let stored = agree(guest.call_func(func, &args), &expected, &what).is_some();
            if stored {
                let start = expected.unwrap();
                assert_eq!(guest.read(start, size), bytes, "{}", what());
                guest.write(start, &patterns(start, size));
                inside += 1;
            }
            // Nothing else was touched: at the ends, where a wrong width or address would show.
            for (start, len) in [(0, 32), (shape.length() - 64, 64)] {
                assert_eq!(guest.read(start, len), patterns(start, len), "{}", what());
            }
        }
    }
    inside
}

const NARROW: Shape = Shape { wide: false, before: 0, odd: false, shared: false };
const WIDE: Shape = Shape { wide: true, ..NARROW };
/// Not at the fixed address, whatever the mode.
const SECOND: Shape = Shape { before: 1, ..NARROW };
/// Every access is compared with the length.
const ODD: Shape = Shape { odd: true, ..NARROW };
const WIDE_ODD: Shape = Shape { wide: true, before: 1, ..ODD };
const SHARED: Shape = Shape { shared: true, ..NARROW };
const WIDE_SHARED: Shape = Shape { wide: true, ..SHARED };

#[test]
fn generic_optimised() {
    check(CONFIGURATIONS[0], NARROW);
}

#[test]
fn generic_unoptimised() {
    check(CONFIGURATIONS[1], NARROW);
}

#[test]
fn dedicated_optimised() {
    check(CONFIGURATIONS[2], NARROW);
}

#[test]
fn dedicated_unoptimised() {
    check(CONFIGURATIONS[3], NARROW);
}

#[test]
fn baseline_optimised() {
    check(CONFIGURATIONS[4], NARROW);
}

#[test]
fn baseline_unoptimised() {
    check(CONFIGURATIONS[5], NARROW);
}

#[test]
fn wide_indices() {
    for configuration in &CONFIGURATIONS[..4] {
        check(*configuration, WIDE);
    }
}

#[test]
fn a_second_memory() {
    for configuration in [CONFIGURATIONS[0], CONFIGURATIONS[3]] {
        check(configuration, SECOND);
    }
}

#[test]
fn shared_memories() {
    for configuration in [CONFIGURATIONS[0], CONFIGURATIONS[3]] {
        check(configuration, SHARED);
        check(configuration, WIDE_SHARED);
    }
}

#[test]
fn memories_that_end_within_a_page() {
    for shape in [ODD, WIDE_ODD] {
        for configuration in &CONFIGURATIONS[..4] {
            check(*configuration, shape);
        }
    }
}

/// An index known when compiling is folded with the offset; the sum must not wrap.
#[test]
fn constant_indices_do_not_wrap() {
    let indices = [0u64, 8, 0x7fff_fff0, 0x8000_0000, 0xffff_fff8, 0xffff_ffff];
    let offsets = [0u64, 8, 0x6fff_ffff, 0x7000_0000, 0x7fff_ffff, 0xffff_fff8];
    let wide = [LENGTH - 4, 0x1_0000_0000, i64::MAX as u64, u64::MAX - 3, u64::MAX];
    for shape in [NARROW, WIDE, SECOND, ODD, WIDE_ODD, SHARED, WIDE_SHARED] {
        let more = if shape.wide { &wide[..] } else { &[] };
        let all = |values: &[u64]| [values, more].concat();
        let (indices, offsets) = (all(&indices), all(&offsets));
        let mut wat = format!("(module {}", "(memory 1)".repeat(shape.before));
        writeln!(wat, "(memory $m {})", shape.ty()).unwrap();
        for &index in &indices {
            let index_value = constant(shape.index(), u128::from(index));
            for &offset in &offsets {
                for (name, ty) in [("i32.load", "i32"), ("v128.load", "v128")] {
                    let body = format!("({name} $m offset={offset} {index_value})");
                    let export_name = format!("{name} {index} {offset}");
                    export(&mut wat, &export_name, &format!("(result {ty})"), &body);
                }
            }
        }
        wat += ")";
        for configuration in CONFIGURATIONS {
            let mut guest = Guest::new(&wat, configuration);
            for &index in &indices {
                for &offset in &offsets {
                    for (name, size) in [("i32.load", 4), ("v128.load", 16)] {
                        let what = || format!("{name} {index:#x} + {offset:#x}, {configuration:?}");
                        let found = guest.call(&format!("{name} {index} {offset}"), &[]);
                        agree(found, &model(shape, name, index, offset, size), &what);
                    }
                }
            }
        }
    }
}
