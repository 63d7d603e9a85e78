//! Listings of generated code: what must fold, and what must be checked.

use super::super::func::{Compiler, Job};
use super::super::isa;
use super::super::translate::Environment;
use crate::config::{Addressing, Settings};
use crate::module::decode::{decode, to_binary};
use crate::module::index::DefinedFuncIndex;
use cranelift_entity::EntityRef;

/// The code of the module's last function.
fn listing(wat: &str, settings: Settings) -> String {
    let target = isa::target(&settings).unwrap();
    let binary = to_binary(wat.as_bytes()).unwrap();
    let mut decoded = decode(&binary, settings.features).unwrap();
    let env = Environment {
        module: &decoded.info,
        layout: decoded.info.layout(),
        settings: &settings,
        frontend: target.isa.frontend_config(),
    };
    let index = DefinedFuncIndex::new(decoded.bodies.len() - 1);
    let body = Box::new(decoded.bodies.pop().unwrap());
    Compiler::new(&env, &*target.isa).listing(Job::Function(index, body))
}

fn generic(wat: &str) -> String {
    listing(wat, Settings { verifier: true, ..Settings::default() })
}

fn dedicated(wat: &str) -> String {
    let addressing = Addressing::Dedicated;
    listing(wat, Settings { verifier: true, addressing, ..Settings::default() })
}

#[test]
fn show() {
    for w in [
        "(module (memory 1) (func (param i32) (result i32) (i32.load offset=8 (local.get 0))))",
        "(module (memory 1) (func (param i32 i32) (result i32) (i32.load offset=8 (i32.add (local.get 0) (local.get 1)))))",
        "(module (memory 1) (func (param i32 i32) (result i32) (i32.load offset=8 (i32.add (local.get 0) (i32.shl (local.get 1) (i32.const 2))))))",
        "(module (memory 1) (func (param i32) (result i32) (i32.load offset=0x6fffffff (local.get 0))))",
        "(module (memory 1) (func (param i32) (result i32) (i32.load offset=0x70000000 (local.get 0))))",
        "(module (memory 1) (func (param i32) (result i32) (i32.load offset=0x80000000 (local.get 0))))",
        "(module (memory 1) (func (result i32) (i32.load offset=8 (i32.const 1024))))",
        "(module (memory 1) (func (param i32 f64) (f64.store offset=16 (local.get 0) (local.get 1))))",
        "(module (memory 1) (func (param i32) (i32.store (local.get 0) (i32.add (i32.load (local.get 0)) (i32.const 1)))))",
        "(module (memory 1) (func (param i32 i32) (result i32) (i32.add (local.get 1) (i32.load (local.get 0)))))",
    ] {
        println!("{w}\n{}\n--generic\n{}", dedicated(w), generic(w));
    }
    for w in [
        "(module (type $t (func (param i32) (result i32))) (table 10 funcref) (func (param i32 i32) (result i32) (call_indirect (type $t) (local.get 0) (local.get 1))))",
        "(module (type $t (func (param i32) (result i32))) (table 10 10 funcref) (func (param i32 i32) (result i32) (call_indirect (type $t) (local.get 0) (local.get 1))))",
        "(module (import \"a\" \"b\" (func $f (param i32))) (global $g (mut i32) (i32.const 0)) (global $c i32 (i32.const 77)) (func (param i32) (call $f (local.get 0)) (call $f (global.get $g)) (call $f (global.get $c)) (global.set $g (local.get 0))))",
        "(module (memory 1) (func (param i32) (result i32) (memory.fill (i32.const 1) (i32.const 0) (i32.const 5)) (memory.grow (local.get 0)) memory.size i32.add))",
        "(module (func (param i32) (if (local.get 0) (then (unreachable)))))",
        "(module (func $f (param i32) (local i32) (loop $l (br_if $l (i32.lt_s (local.tee 1 (i32.add (local.get 1) (i32.const 1))) (local.get 0)))) ))",
        "(module (func (param i32 i32) (result i32) (i32.div_s (local.get 0) (local.get 1))))",
    ] {
        println!("{w}\n{}", generic(w));
    }
}
