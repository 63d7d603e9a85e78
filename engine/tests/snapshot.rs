//! Snapshots: a program that starts from one does what it does when it is initialised first.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "others load modules with it, this one programs")]
mod lazy;

use std::fs::File;
use std::io::Write;

use coracle_engine::command::{Command, RunError};
use coracle_engine::compile::compile;
use coracle_engine::config::{Features, Settings};
use coracle_engine::image::{CodeImage, HEADER_SIZE, Header, Section};
use coracle_engine::module::WIZER_INITIALIZE;
use coracle_engine::runtime::{Engine, Instance, Linker, Module, Store, Val};
use coracle_engine::snapshot::{self, SnapshotError};

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn image(wat: &str) -> Vec<u8> {
    compile(&wat::parse_str(wat).unwrap(), &settings()).unwrap()
}

fn settings() -> Settings {
    let features = Features { custom_page_sizes: true, ..Features::default() };
    Settings { features, ..Settings::default() }
}

/// The snapshot of a module by Wizer's convention.
fn snapshot(image: &[u8]) -> Result<Vec<u8>, SnapshotError> {
    snapshot::take(&file(image), WIZER_INITIALIZE)
}

fn instance(image: &[u8]) -> (Store, Instance) {
    let engine = Engine::new();
    let module = Module::from_bytes(&engine, image).unwrap();
    let mut store = Store::new(&engine).unwrap();
    let instance = Linker::new(&engine).instantiate(&mut store, &module).unwrap();
    (store, instance)
}

fn call(store: &mut Store, instance: Instance, name: &str) -> Result<Vec<Val>, String> {
    let function = instance.func(store, name).unwrap();
    function.invoke(store, &[]).map_err(|error| error.to_string())
}

/// Changes all that a snapshot can hold: the size and contents of two memories, globals of all types
/// of numbers, segments.
const RICH: &str = r#"(module
    (memory $m (export "m") 2 10) (memory $n (export "n") 1)
    (data (memory $m) (i32.const 70000) "laid out") (data (memory $m) (i32.const 100) "gone")
    (data $kept "kept") (data $dropped "dropped")
    (global $a (export "a") (mut i32) (i32.const 1)) (global $b (export "b") (mut i64) (i64.const 1))
    (global $c (export "c") (mut f32) (f32.const 1)) (global $d (export "d") (mut f64) (f64.const 1))
    (global $e (export "e") (mut v128) (v128.const i64x2 1 2)) (global $f i32 (i32.const 6))
    (table $t 4 funcref) (elem (table $t) (i32.const 1) func $run $begin)
    (elem $left func $run) (elem $taken func $run)
    (start $begin)
    (func $begin (global.set $a (i32.const 2)))
    (func (export "wizer.initialize")
        (global.set $a (i32.add (global.get $a) (global.get $f)))
        (global.set $b (i64.const -5)) (global.set $c (f32.const nan:0x200001))
        (global.set $d (f64.const -0.0)) (global.set $e (v128.const i64x2 -7 9))
        (memory.fill $m (i32.const 100) (i32.const 0) (i32.const 4))
        (memory.init $m $dropped (i32.const 5) (i32.const 0) (i32.const 7)) (data.drop $dropped)
        (elem.drop $taken)
        (drop (memory.grow $m (i32.const 3)))
        (i32.store $m (i32.const 327676) (i32.const 0x01020304))
        (i64.store $n (i32.const 65528) (i64.const 77)))
    (func $run (export "run") (result i32)
        (memory.init $n $kept (i32.const 0) (i32.const 0) (i32.const 4))
        (table.init $t $left (i32.const 3) (i32.const 0) (i32.const 1))
        (global.set $a (i32.mul (global.get $a) (i32.const 3)))
        (i32.add (global.get $a) (i32.load $n (i32.const 0))))
    (func (export "through table") (result i32) (call_indirect $t (result i32) (i32.const 1)))
    (func (export "data again")
        (memory.init $m $dropped (i32.const 0) (i32.const 0) (i32.const 1)))
    (func (export "elements again")
        (table.init $t $taken (i32.const 0) (i32.const 0) (i32.const 1))))"#;

#[test]
fn a_snapshot_is_what_initialisation_leaves() {
    let before = image(RICH);
    let (mut plain, ours) = instance(&before);
    call(&mut plain, ours, WIZER_INITIALIZE).unwrap();
    let (mut shot, theirs) = instance(&snapshot(&before).unwrap());
    for name in ["m", "n"] {
        let (a, b) = (ours.memory(&plain, name).unwrap(), theirs.memory(&shot, name).unwrap());
        assert_eq!(a.size(&plain), b.size(&shot), "{name}");
        assert!(a.data(&plain) == b.data(&shot), "contents of {name}");
    }
    let globals = |store: &Store, instance: Instance| {
        ["a", "b", "c", "d", "e"].map(|name| instance.global(store, name).unwrap().get(store))
    };
    assert_eq!(format!("{:?}", globals(&plain, ours)), format!("{:?}", globals(&shot, theirs)));
    assert_eq!(theirs.global(&shot, "a").unwrap().get(&shot), Val::I32(8), "started once");
    for name in ["run", "through table", "data again", "elements again"] {
        let (a, b) = (call(&mut plain, ours, name), call(&mut shot, theirs, name));
        assert_eq!(a, b, "{name}");
    }
    // It grows as far as before.
    for (store, instance) in [(&mut plain, ours), (&mut shot, theirs)] {
        let memory = instance.memory(store, "m").unwrap();
        assert_eq!((memory.grow(store, 6), memory.grow(store, 5)), (None, Some(5)));
    }
}

#[test]
fn a_snapshot_has_the_same_code_and_no_zeros() {
    let before = image(RICH);
    let after = snapshot(&before).unwrap();
    let [a, b] = [&before, &after].map(|image| CodeImage::new(image).unwrap());
    for section in [Section::Text, Section::Funcs, Section::TrapOffsets, Section::Names] {
        assert_eq!(a.section(section), b.section(section), "{section:?}");
    }
    // Of 384 KiB: pages 0, 17, 79 of one memory, page 15 of the other, and gaps up to sixteen pages.
    assert!(b.section(Section::Memory).len() <= 20 * 4096, "{}", b.section(Section::Memory).len());
    assert_eq!(b.section(Section::Data), b"kept");
    assert!(a.header().wants_initialization() && !b.header().wants_initialization());
}

#[test]
fn instances_of_a_snapshot_do_not_see_each_other() {
    let wat = r#"(module (memory (export "m") 1)
        (func (export "wizer.initialize") (i32.store (i32.const 8) (i32.const 42))))"#;
    let engine = Engine::new();
    let module = Module::from_bytes(&engine, &snapshot(&image(wat)).unwrap()).unwrap();
    let mut store = Store::new(&engine).unwrap();
    let linker = Linker::new(&engine);
    let mut memory = || {
        let instance = linker.instantiate(&mut store, &module).unwrap();
        let memory = instance.memory(&store, "m").unwrap();
        assert_eq!(memory.data(&store)[8], 42);
        memory.write(&mut store, 8, &[1]).unwrap();
        memory
    };
    let (first, second) = (memory(), memory());
    first.write(&mut store, 8, &[2]).unwrap();
    assert_eq!(second.data(&store)[8], 1);
}

#[test]
fn what_an_image_cannot_hold_is_refused() {
    let init = |rest: &str, body: &str| {
        format!("(module {rest} (func (export \"wizer.initialize\") {body}))")
    };
    let import = r#"(import "env" "log" (func $log (param i64) (result externref)))"#;
    let scattered = "(memory 10000) (global $n (mut i32) (i32.const 0))";
    let scatter = "(loop (i32.store8 (global.get $n) (i32.const 1))
        (global.set $n (i32.add (global.get $n) (i32.const 73728)))
        (br_if 0 (i32.lt_u (global.get $n) (i32.const 655360000))))";
    let object = "(type $s (struct)) (global $g (mut (ref null $s)) (ref.null $s))";
    let cases = [
        ("(module)".to_owned(), "exports no function `wizer.initialize`"),
        ("(module (func (export \"wizer.initialize\") (param i32)))".into(), "exports no function"),
        ("(module (memory (export \"wizer.initialize\") 1))".into(), "exports no function"),
        (init("(func (export \"_initialize\") (param i32))", ""), "`_initialize`"),
        (init(import, "(drop (call $log (i64.const 1)))"), "called the import `env` `log`"),
        (init("(import \"env\" \"memory\" (memory 1))", ""), "more than functions: `env` `memory`"),
        (init("(import \"e\" \"g\" (global (mut i32)))", ""), "more than functions: `e` `g`"),
        (init("", "unreachable"), "failed: wasm trap: "),
        (init("(func $s unreachable) (start $s)", ""), "wasm trap"),
        (init("(memory 1 1 shared)", ""), "shared between threads"),
        (init("(memory 7 (pagesize 1))", ""), "7 bytes"),
        (
            init(
                "(table $t 1 externref)",
                "(drop (table.grow $t (ref.null extern) (i32.const 1)))",
            ),
            "a table",
        ),
        (
            init(
                "(table 2 funcref) (elem (i32.const 0) func $f) (func $f)",
                "(table.set (i32.const 1) (table.get (i32.const 0)))",
            ),
            "a table",
        ),
        (
            init(
                "(global $g (mut funcref) (ref.null func)) (func $f) (elem declare func $f)",
                "(global.set $g (ref.func $f))",
            ),
            "a reference",
        ),
        (init(object, "(global.set $g (struct.new $s))"), "objects"),
        (init(scattered, scatter), "pieces"),
    ];
    for (wat, word) in cases {
        let error = snapshot(&image(&wat)).unwrap_err().to_string();
        assert!(error.contains(word), "{wat}: {error}");
    }
    // Imports that are not called do no harm, nor do references that stay.
    let fine = init(
        "(import \"env\" \"f\" (func)) (global $g (mut funcref) (ref.func 0)) (table 1 funcref)
         (elem (i32.const 0) func 0)",
        "(global.set $g (table.get (i32.const 0)))",
    );
    assert!(snapshot(&image(&fine)).is_ok());
}

#[test]
fn what_is_no_image_is_refused() {
    let good = image(RICH);
    for bytes in [&b""[..], b"\0asm\x01\0\0\0", &[0; 8192], &good[..good.len() - 1]] {
        assert!(matches!(snapshot(bytes), Err(SnapshotError::Load(_))), "{}", bytes.len());
    }
    let shot = snapshot(&good).unwrap();
    assert!(matches!(snapshot(&shot), Err(SnapshotError::Done)));
    let mut flags = shot[..HEADER_SIZE].to_vec();
    flags[57] = 1;
    assert!(Header::decode(&flags, shot.len() as u64).is_err());
}

/// A program that tells by its exit code what it called: each export adds a digit.
fn program(exports: &[(&str, i32)]) -> String {
    let functions = exports.iter().map(|(name, digit)| {
        let last = if ["_start", "wizer.resume", "main"].contains(name) { "call $end" } else { "" };
        format!(
            "(func (export \"{name}\") (global.set $n (i32.add (i32.const {digit})
                (i32.mul (global.get $n) (i32.const 10)))) {last})"
        )
    });
    let functions: String = functions.collect();
    format!(
        r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (global $n (mut i32) (i32.const 0)) (memory (export "memory") 1)
            (func $end (call $exit (global.get $n))) {functions})"#
    )
}

fn run(command: Command, image: &[u8]) -> Result<u8, RunError> {
    Ok(command.load(&file(image))?.run()?.exit_code())
}

#[test]
fn programs_call_the_same_with_and_without_a_snapshot() {
    const INIT: (&str, i32) = ("_initialize", 1);
    const WIZER: (&str, i32) = (WIZER_INITIALIZE, 2);
    const RESUME: (&str, i32) = ("wizer.resume", 3);
    const START: (&str, i32) = ("_start", 4);
    const MAIN: (&str, i32) = ("main", 5);
    let cases: [(&[_], Option<&str>, Option<&str>, u8); 9] = [
        (&[INIT, WIZER, RESUME, START], None, None, 123),
        (&[WIZER, RESUME, START], None, None, 23),
        (&[WIZER, START], None, None, 24),
        (&[WIZER, START, MAIN], None, Some("main"), 25),
        // Named by the user.
        (&[INIT, RESUME, ("set up", 2)], Some("set up"), None, 123),
        (&[WIZER, START, ("set up", 6)], Some("set up"), None, 64),
        (&[INIT, START], Some("_initialize"), None, 14),
        (&[INIT, MAIN], Some("_initialize"), Some("main"), 15),
        (&[INIT, START, RESUME], None, None, 4),
    ];
    for (exports, initialize, entry, expected) in cases {
        let wat = program(exports);
        let command = || Command {
            initialize: initialize.map(str::to_owned),
            entry: entry.map(str::to_owned),
            ..Command::default()
        };
        let plain = image(&wat);
        assert_eq!(run(command(), &plain).unwrap(), expected, "{exports:?}");
        let export = initialize.unwrap_or(WIZER_INITIALIZE);
        match snapshot::take(&file(&plain), export) {
            Ok(shot) => assert_eq!(run(command(), &shot).unwrap(), expected, "{exports:?}"),
            Err(error) => assert!(expected == 4, "{exports:?}: {error}"),
        }
        // A first start, which has no snapshot.
        let (image, compiler) = lazy::begin(wat.as_bytes(), &settings().first(), 1).unwrap();
        let loaded = command().load_lazy(&image, compiler).unwrap();
        assert_eq!(loaded.run().unwrap().exit_code(), expected, "{exports:?}");
    }
}

#[test]
fn an_initialisation_that_is_not_there_is_an_error_before_the_start() {
    let wat = program(&[("_start", 4)]);
    let command = Command { initialize: Some("set up".into()), ..Command::default() };
    let error = run(command, &image(&wat)).unwrap_err().to_string();
    assert!(error.contains("no function `set up`"), "{error}");
}

/// Programs have a fixed address; no other test in this process uses it.
#[test]
fn programs_of_the_shim_have_snapshots_too() {
    let wat = program(&[(WIZER_INITIALIZE, 2), ("_start", 4)]);
    let plain = compile(wat.as_bytes(), &Settings::program()).unwrap();
    let shot = snapshot(&plain).unwrap();
    assert_eq!(run(Command::default(), &shot).unwrap(), 24);
}
