//! The functions that generated modules may import: they note their arguments and answer with
//! numbers made of them.

use std::cell::RefCell;
use std::rc::Rc;

use super::event::{Event, Value, mix};

/// The host module's name.
pub(super) const MODULE: &str = "host";

/// What generated modules may import, as the generator wants to be told.
pub(super) const IMPORTS: &str = r#"(module
    (import "host" "note" (func (param i32)))
    (import "host" "mix" (func (param i32 i64 f32 f64) (result i64)))
    (import "host" "pair" (func (param i64) (result i32 i64)))
    (import "host" "float" (func (param f64 f32) (result f64)))
    (import "host" "many" (func (param i32 i32 i32 i32 i32 i32 i32 i64 i64 i64) (result i32)))
    (import "host" "fail" (func (param i32) (result i32))))"#;

/// The events of the host, shared by all that note some.
pub(super) type Log = Rc<RefCell<Vec<Event>>>;

/// Why the function `fail` fails.
#[derive(Debug)]
pub(super) struct Failure;

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the host was asked to fail")
    }
}

impl std::error::Error for Failure {}
impl wasmi::errors::HostError for Failure {}

/// Notes a call and gives a number made of its arguments.
pub(super) fn called(log: &mut Vec<Event>, name: &'static str, args: &[Value]) -> u64 {
    // Endless loops call the host until their fuel is used up; the first calls tell enough.
    if log.len() < 1000 {
        log.push(Event::Host(name, args.to_vec()));
    }
    args.iter().fold(name.len() as u64, |hash, arg| match *arg {
        Value::I32(n) | Value::F32(n) => mix(hash, u64::from(n)),
        Value::I64(n) | Value::F64(n) => mix(hash, n),
        _ => hash,
    })
}

/// An ordinary number made of any.
pub(super) fn float(n: u64) -> f64 {
    f64::from((n >> 40) as i32 - (1 << 23)) / 16.0
}

/// Defines all functions: `$define!(name, |args| result)` for each, where `$called(name, values)`
/// is how the engine at hand notes a call.
macro_rules! define_all {
    ($define:ident) => {
        $define!("note", (a: i32), (), |called| {
            called("note", &[Value::I32(a as u32)]);
        });
        $define!("mix", (a: i32, b: i64, c: f32, d: f64), i64, |called| {
            let [a, b] = [Value::I32(a as u32), Value::I64(b as u64)];
            called("mix", &[a, b, Value::F32(c.to_bits()), Value::F64(d.to_bits())]) as i64
        });
        $define!("pair", (a: i64), (i32, i64), |called| {
            let n = called("pair", &[Value::I64(a as u64)]);
            (n as i32, (n >> 7) as i64)
        });
        $define!("float", (a: f64, b: f32), f64, |called| {
            host::float(called("float", &[Value::F64(a.to_bits()), Value::F32(b.to_bits())]))
        });
        $define!(
            "many",
            (a: i32, b: i32, c: i32, d: i32, e: i32, f: i32, g: i32, h: i64, i: i64, j: i64),
            i32,
            |called| {
                let narrow = [a, b, c, d, e, f, g].map(|n| Value::I32(n as u32));
                let wide = [h, i, j].map(|n| Value::I64(n as u64));
                called("many", &[&narrow[..], &wide[..]].concat()) as i32
            }
        );
        $define!("fail", (a: i32), Result<i32, Failure>, |called| {
            let n = called("fail", &[Value::I32(a as u32)]);
            if n % 4 == 0 { Err(Failure) } else { Ok(n as i32) }
        });
    };
}

pub(super) use define_all;
