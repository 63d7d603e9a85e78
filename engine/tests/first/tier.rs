//! What is the tier's own: asking, going ahead, the compiler's end, functions that cannot be had.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use coracle_engine::image::{CodeImage, Section};
use coracle_engine::runtime::{CallError, Engine, Instance, LoadError, Module, Val};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::{World, first_settings, image_of, lazy, names};

/// A function `$f` with results of one type, and one that calls it and adds them up.
fn many_results(ty: &str, count: usize) -> String {
    let results = ty.to_owned() + &format!(" {ty}").repeat(count - 1);
    let values: String = (0..count).fold(String::new(), |mut values, n| {
        write!(values, "({ty}.add ({ty}.const {n}) (local.get 0))").unwrap();
        values
    });
    let sum = format!("({ty}.add)").repeat(count - 1);
    format!(
        r#"(module
            (table funcref (elem $f))
            (type $t (func (param {ty}) (result {results})))
            (func $f (type $t) {values})
            (func $tail (type $t) (return_call $f (local.get 0)))
            (func (export "direct") (param {ty}) (result {ty}) (call $f (local.get 0)) {sum})
            (func (export "tail") (param {ty}) (result {ty}) (call $tail (local.get 0)) {sum})
            (func (export "indirect") (param {ty}) (result {ty})
                (call_indirect (type $t) (local.get 0) (i32.const 0)) {sum}))"#
    )
}

#[test]
fn functions_are_asked_for_wherever_their_context_is() {
    for count in [1, 2, 7, 8, 9, 20] {
        let sum = (0..count).sum::<i32>() + count * 100;
        for name in ["direct", "tail", "indirect"] {
            // Each in a world of its own, so that each asks.
            let mut world = World::new();
            let instance = world.instance(&many_results("i32", count as usize));
            assert_eq!(world.call_i32(instance, name, &[Val::I32(100)]), sum, "{count} {name}");
            let instance = world.instance(&many_results("i64", count as usize));
            let found = world.call(instance, name, &[Val::I64(100)]).unwrap();
            assert!(matches!(found[..], [Val::I64(found)] if found == i64::from(sum)));
            let instance = world.instance(&many_results("f64", count as usize));
            let found = world.call(instance, name, &[Val::F64(100.0)]).unwrap();
            let expected = f64::from(sum);
            assert!(
                matches!(found[..], [Val::F64(found)] if found.total_cmp(&expected).is_eq()),
                "{found:?}"
            );
        }
    }
}

#[test]
fn all_arguments_survive_the_asking() {
    let mut world = World::new();
    let vectors: String = (0..9).fold(String::new(), |mut text, n| {
        write!(text, "(v128.const i64x2 {n} {}) ", n * 10).unwrap();
        text
    });
    let integers: String = (0..9).map(|n| format!("(i64.const {})", 1 << n)).collect();
    let sum: String = (0..9).fold(String::new(), |mut text, n| {
        write!(text, "(i64x2.extract_lane 0 (local.get {n}))").unwrap();
        write!(text, "(i64x2.extract_lane 1 (local.get {n})) i64.add i64.add").unwrap();
        write!(text, "(local.get {}) i64.add ", n + 9).unwrap();
        text
    });
    let types = "v128 ".repeat(9) + &"i64 ".repeat(9);
    let instance = world.instance(&format!(
        r#"(module
            (func $f (param {types}) (result i64) (i64.const 0) {sum})
            (func (export "run") (result i64) {vectors} {integers} (call $f)))"#
    ));
    let found = world.call(instance, "run", &[]).unwrap();
    // 0 + 1 + … + 8, eleven times, and 2^9 - 1.
    assert!(matches!(found[..], [Val::I64(found)] if found == 36 * 11 + 511), "{found:?}");
}

/// Traps of several kinds, one of them deep down. A branch to nothing but a trap is one instruction in
/// optimised code, with the branch's position: so something else comes before `unreachable`.
const CHAIN: &str = r#"(module
    (func $deep (export "deep") (param i32) (result i32)
        (if (i32.eqz (local.get 0)) (then (call $fail)))
        (call $middle (i32.sub (local.get 0) (i32.const 1))))
    (func $middle (param i32) (result i32)
        (i32.div_s (i32.const 7) (call $deep (local.get 0))))
    (func $fail (i32.store (i32.const 0) (i32.const 1)) (unreachable))
    (func (export "div") (param i32) (result i32) (i32.div_s (i32.const 1) (local.get 0)))
    (memory 1)
    (func (export "load") (param i32) (result i32) (i32.load offset=8 (local.get 0))))"#;

#[test]
fn backtraces_are_those_of_complete_code() {
    let cases = [("deep", 5), ("div", 0), ("load", -1)];
    let report = |world: &mut World, instance: Instance, name: &str, value: i32| {
        world.trap(instance, name, &[Val::I32(value)]).to_string()
    };
    for (name, value) in cases {
        let mut complete = World::new();
        let module = Module::from_bytes(&complete.engine, &image_of(CHAIN)).unwrap();
        let instance = complete.linker.instantiate(&mut complete.store, &module).unwrap();
        let expected = report(&mut complete, instance, name, value);
        let mut world = World::new();
        let instance = world.instance(CHAIN);
        assert_eq!(report(&mut world, instance, name, value), expected);
        // Once more, now that nothing is asked for.
        assert_eq!(report(&mut world, instance, name, value), expected);
    }
}

/// A module of many functions, each of which calls the next one.
fn long(functions: usize) -> String {
    let mut text = String::from("(module ");
    for n in 0..functions {
        write!(
            text,
            "(func $f{n} (export \"f{n}\") (param i32) (result i32)
                (call $f{} (i32.add (local.get 0) (i32.const 1))))",
            n + 1
        )
        .unwrap();
    }
    write!(text, "(func $f{functions} (param i32) (result i32) (local.get 0)))").unwrap();
    text
}

#[test]
fn everything_is_made_ahead_and_the_compiler_goes() {
    let mut world = World::new();
    let wasm = wat::parse_str(long(500)).unwrap();
    let (image, guest) = lazy::begin(&wasm, &first_settings(), 2).unwrap();
    let watch = guest.try_clone().unwrap();
    let module = Module::from_lazy_file(&world.engine, &image, guest).unwrap();
    let begun = Instant::now();
    // The end of file shows that the compiler has gone.
    while !rustix::net::recv(&watch, &mut [0u8; 1], rustix::net::RecvFlags::DONTWAIT)
        .is_ok_and(|(got, _)| got == 0)
    {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(10));
    }
    let instance = world.linker.instantiate(&mut world.store, &module).unwrap();
    for first in [0, 123, 499] {
        let called = world.call_i32(instance, &format!("f{first}"), &[Val::I32(0)]);
        assert_eq!(called, 500 - first);
    }
}

#[test]
fn asking_and_going_ahead_meet() {
    for _ in 0..20 {
        let mut world = World::new();
        let wasm = wat::parse_str(long(60)).unwrap();
        let module = lazy::load(&world.engine, &wasm, &first_settings(), 3).unwrap();
        let instance = world.linker.instantiate(&mut world.store, &module).unwrap();
        assert_eq!(world.call_i32(instance, "f0", &[Val::I32(0)]), 60);
    }
}

/// The error of a call that is neither a trap nor an exception.
fn host_error(world: &mut World, instance: Instance, name: &str) -> String {
    match world.call(instance, name, &[Val::I32(3)]) {
        Err(CallError::Host(error)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_compiler_that_is_gone_is_a_clear_error_and_made_code_goes_on() {
    let mut world = World::new();
    let wasm = wat::parse_str(CHAIN).unwrap();
    let (image, guest) = lazy::begin(&wasm, &first_settings(), 0).unwrap();
    let watch = guest.try_clone().unwrap();
    let module = Module::from_lazy_file(&world.engine, &image, guest).unwrap();
    let instance = world.linker.instantiate(&mut world.store, &module).unwrap();
    assert_eq!(world.call_i32(instance, "div", &[Val::I32(1)]), 1);
    rustix::net::shutdown(&watch, rustix::net::Shutdown::Both).unwrap();
    let error = host_error(&mut world, instance, "load");
    assert!(error.starts_with("the compiler has ended before"), "{error}");
    assert!(host_error(&mut world, instance, "deep").contains("start the program again"));
    assert_eq!(world.call_i32(instance, "div", &[Val::I32(1)]), 1);
    let trap = world.trap(instance, "div", &[Val::I32(0)]);
    assert_eq!(names(&trap), ["div"]);
}

#[test]
fn a_function_over_a_limit_is_an_error_when_it_is_called() {
    let mut world = World::new();
    let nested = "block ".repeat(30_000) + &"end ".repeat(30_000);
    let instance = world.instance(&format!(
        r#"(module (func (export "good") (param i32) (result i32) (local.get 0))
            (func (export "bad") (param i32) (result i32) {nested} (local.get 0)))"#
    ));
    assert_eq!(world.call_i32(instance, "good", &[Val::I32(3)]), 3);
    for _ in 0..2 {
        let error = host_error(&mut world, instance, "bad");
        assert!(error.contains("too complex: blocks inside each other"), "{error}");
    }
    assert_eq!(world.call_i32(instance, "good", &[Val::I32(4)]), 4);
}

#[test]
fn a_module_that_is_not_valid_has_no_image() {
    let wasm = wat::parse_str(r#"(module (func (result i32) (i64.const 1)))"#).unwrap();
    let error = lazy::begin(&wasm, &first_settings(), 1).unwrap_err();
    assert!(error.contains("type mismatch"), "{error}");
}

#[test]
fn images_go_with_what_they_need() {
    let engine = Engine::new();
    let complete = image_of(CHAIN);
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, &complete).unwrap();
    let (socket, _other) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let error = Module::from_lazy_file(&engine, &file, socket).unwrap_err();
    assert!(matches!(error, LoadError::Lazy), "{error}");
    let wasm = wat::parse_str(CHAIN).unwrap();
    let (image, _guest): (_, OwnedFd) = lazy::begin(&wasm, &first_settings(), 0).unwrap();
    let error = Module::from_file(&engine, &image).unwrap_err();
    assert!(matches!(error, LoadError::Lazy), "{error}");
}

#[test]
fn every_function_has_its_entry_after_it_was_called() {
    let mut world = World::new();
    let wasm = wat::parse_str(long(10)).unwrap();
    let (image, guest) = lazy::begin(&wasm, &first_settings(), 0).unwrap();
    let count = |image: &std::fs::File| {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; image.metadata().unwrap().len() as usize];
        image.read_exact_at(&mut bytes, 0).unwrap();
        let funcs = CodeImage::new(&bytes).unwrap().section(Section::LazyFuncs).to_vec();
        u32::from_le_bytes(funcs[..4].try_into().unwrap())
    };
    let module = Module::from_lazy_file(&world.engine, &image, guest).unwrap();
    let instance = world.linker.instantiate(&mut world.store, &module).unwrap();
    assert_eq!(count(&image), 0);
    assert_eq!(world.call_i32(instance, "f8", &[Val::I32(0)]), 2);
    assert_eq!(count(&image), 3);
    assert_eq!(world.call_i32(instance, "f0", &[Val::I32(0)]), 10);
    assert_eq!(count(&image), 11);
}
