//! The scripts' values: conversion of arguments, comparison of results.

use coracle_engine::runtime::{ExternRef, Store, Val};
use wast::core::{AbstractHeapType, HeapType, NanPattern, V128Pattern, WastArgCore, WastRetCore};
use wast::token::{F32, F64};
use wast::{WastArg, WastRet};

/// An argument, or `None` for values of later proposals.
pub(crate) fn argument(arg: &WastArg<'_>) -> Option<Val> {
    let WastArg::Core(arg) = arg else { return None };
    Some(match arg {
        WastArgCore::I32(value) => Val::I32(*value),
        WastArgCore::I64(value) => Val::I64(*value),
        WastArgCore::F32(value) => Val::F32(f32::from_bits(value.bits)),
        WastArgCore::F64(value) => Val::F64(f64::from_bits(value.bits)),
        WastArgCore::V128(value) => Val::V128(u128::from_le_bytes(value.to_le_bytes())),
        WastArgCore::RefNull(heap) => null(heap)?,
        WastArgCore::RefExtern(n) => Val::ExternRef(Some(external(*n)?)),
        WastArgCore::RefHost(n) => Val::AnyRef(Some(external(*n)?.to_any())),
    })
}

fn null(heap: &HeapType<'_>) -> Option<Val> {
    let HeapType::Abstract { ty, .. } = heap else { return None };
    Some(match ty {
        AbstractHeapType::Func | AbstractHeapType::NoFunc => Val::FuncRef(None),
        AbstractHeapType::Extern | AbstractHeapType::NoExtern => Val::ExternRef(None),
        AbstractHeapType::Exn | AbstractHeapType::NoExn => Val::ExnRef(None),
        AbstractHeapType::Any
        | AbstractHeapType::Eq
        | AbstractHeapType::I31
        | AbstractHeapType::Struct
        | AbstractHeapType::Array
        | AbstractHeapType::None => Val::AnyRef(None),
        AbstractHeapType::Cont | AbstractHeapType::NoCont => return None,
    })
}

/// The scripts number references of the host from 0, the engine from 1.
fn external(n: u32) -> Option<ExternRef> {
    n.checked_add(1).and_then(ExternRef::new)
}

/// Whether a result is as expected.
pub(crate) fn matches(value: &Val, expected: &WastRet<'_>, store: &Store) -> bool {
    match expected {
        WastRet::Core(expected) => matches_core(value, expected, store),
        _ => false,
    }
}

fn matches_core(value: &Val, expected: &WastRetCore<'_>, store: &Store) -> bool {
    match (value, expected) {
        (Val::I32(value), WastRetCore::I32(expected)) => value == expected,
        (Val::I64(value), WastRetCore::I64(expected)) => value == expected,
        (Val::F32(value), WastRetCore::F32(expected)) => matches_f32(value.to_bits(), expected),
        (Val::F64(value), WastRetCore::F64(expected)) => matches_f64(value.to_bits(), expected),
        (Val::V128(value), WastRetCore::V128(expected)) => matches_v128(*value, expected),
        (
            Val::FuncRef(None) | Val::ExternRef(None) | Val::AnyRef(None) | Val::ExnRef(None),
            WastRetCore::RefNull(None),
        ) => true,
        (value, WastRetCore::RefNull(Some(heap))) => same_null(value, heap),
        (Val::ExternRef(Some(value)), WastRetCore::RefExtern(expected)) => {
            expected.is_none_or(|expected| external(expected) == Some(*value))
        }
        (Val::FuncRef(Some(_)), WastRetCore::RefFunc(None)) => true,
        (Val::AnyRef(Some(_)), WastRetCore::RefAny) => true,
        (Val::AnyRef(Some(value)), WastRetCore::RefEq) => value.to_extern().number().is_none(),
        (Val::AnyRef(Some(value)), WastRetCore::RefI31) => value.as_i31().is_some(),
        (Val::AnyRef(Some(value)), WastRetCore::RefStruct) => value.as_struct(store).is_some(),
        (Val::AnyRef(Some(value)), WastRetCore::RefArray) => value.as_array(store).is_some(),
        (Val::AnyRef(Some(value)), WastRetCore::RefHost(expected)) => {
            external(*expected) == Some(value.to_extern())
        }
        (value, WastRetCore::Either(choices)) => {
            choices.iter().any(|expected| matches_core(value, expected, store))
        }
        _ => false,
    }
}

/// Whether a value is null of the hierarchy that a heap type belongs to.
fn same_null(value: &Val, heap: &HeapType<'_>) -> bool {
    matches!(
        (value, null(heap)),
        (Val::FuncRef(None), Some(Val::FuncRef(None)))
            | (Val::ExternRef(None), Some(Val::ExternRef(None)))
            | (Val::AnyRef(None), Some(Val::AnyRef(None)))
            | (Val::ExnRef(None), Some(Val::ExnRef(None)))
    )
}

fn matches_f32(bits: u32, expected: &NanPattern<F32>) -> bool {
    const QUIET: u32 = 0x7fc0_0000;
    match expected {
        NanPattern::CanonicalNan => bits & 0x7fff_ffff == QUIET,
        NanPattern::ArithmeticNan => bits & QUIET == QUIET,
        NanPattern::Value(expected) => bits == expected.bits,
    }
}

fn matches_f64(bits: u64, expected: &NanPattern<F64>) -> bool {
    const QUIET: u64 = 0x7ff8_0000_0000_0000;
    match expected {
        NanPattern::CanonicalNan => bits & (u64::MAX >> 1) == QUIET,
        NanPattern::ArithmeticNan => bits & QUIET == QUIET,
        NanPattern::Value(expected) => bits == expected.bits,
    }
}

/// Lane by lane, the first in the lowest bits.
fn matches_v128(value: u128, expected: &V128Pattern) -> bool {
    let lane = |n: usize, bits: usize| (value >> (n * bits)) as u64;
    match expected {
        V128Pattern::I8x16(lanes) => (0..16).all(|n| lane(n, 8) as i8 == lanes[n]),
        V128Pattern::I16x8(lanes) => (0..8).all(|n| lane(n, 16) as i16 == lanes[n]),
        V128Pattern::I32x4(lanes) => (0..4).all(|n| lane(n, 32) as i32 == lanes[n]),
        V128Pattern::I64x2(lanes) => (0..2).all(|n| lane(n, 64) as i64 == lanes[n]),
        V128Pattern::F32x4(lanes) => (0..4).all(|n| matches_f32(lane(n, 32) as u32, &lanes[n])),
        V128Pattern::F64x2(lanes) => (0..2).all(|n| matches_f64(lane(n, 64), &lanes[n])),
    }
}
