//! WASI programs from text to exit code: compiled, linked and run.

#![allow(clippy::unwrap_used, reason = "in tests, helpers too fail by panic")]

use std::fs;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use coracle_engine::command::{Command, Outcome, Preopen, RunError};
use coracle_engine::compile::compile;
use coracle_engine::config::Settings;
use coracle_engine::runtime::{CallError, Engine, Linker, Module, Store};
use coracle_engine::wasi::preview1::{self, ProcExit};
use coracle_engine::wasi::{WasiCtx, WasiCtxBuilder};

/// All imports that the programs below use, and some helpers.
const PRELUDE: &str = r#"
    (import "wasi_snapshot_preview1" "fd_write"
        (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read"
        (func $fd_read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open"
        (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_sizes_get"
        (func $args_sizes_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_get"
        (func $args_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_sizes_get"
        (func $environ_sizes_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get"
        (func $environ_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff"
        (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
    (import "wasi_snapshot_preview1" "proc_raise" (func $proc_raise (param i32) (result i32)))
    (memory (export "memory") 1)
    (func $check (param $errno i32)
        (if (local.get $errno) (then (call $proc_exit (local.get $errno)))))
    ;; Writes a piece of memory to a descriptor, by way of an iovec at 0.
    (func $write (param $fd i32) (param $at i32) (param $len i32)
        (i32.store (i32.const 0) (local.get $at))
        (i32.store (i32.const 4) (local.get $len))
        (call $check (call $fd_write
            (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
"#;

fn image(body: &str) -> Vec<u8> {
    bare_image(&format!("(module {PRELUDE} {body})"))
}

/// The same program with a memory of its own and with one that threads could share.
fn both_images(body: &str) -> [Vec<u8>; 2] {
    let shared = PRELUDE.replace("\"memory\") 1)", "\"memory\") 1 1 shared)");
    assert_ne!(shared, PRELUDE);
    [image(body), bare_image(&format!("(module {shared} {body})"))]
}

fn bare_image(text: &str) -> Vec<u8> {
    let module = wat::parse_str(text).unwrap();
    compile(&module, &Settings { verifier: true, ..Settings::default() }).unwrap()
}

fn open_dir(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

/// Runs a program's `_start` with these grants and gives its exit code, or what ended it.
fn run(image: &[u8], ctx: WasiCtx) -> Result<u32, CallError> {
    let engine = Engine::new();
    let module = Module::from_bytes(&engine, image).unwrap();
    let mut store = Store::new(&engine).unwrap();
    let mut linker = Linker::new(&engine);
    preview1::add_to_linker(&mut linker, ctx);
    let instance = linker.instantiate(&mut store, &module).unwrap();
    let start = instance.func(&store, "_start").unwrap();
    match start.call(&mut store, &[], &mut Vec::new()) {
        Ok(()) => Ok(0),
        Err(CallError::Host(error)) => Ok(error.downcast::<ProcExit>().unwrap().0),
        Err(error) => Err(error),
    }
}

/// Runs a program and gives its exit code and standard output.
fn output(image: &[u8], grants: impl FnOnce(&mut WasiCtxBuilder)) -> (u32, String) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut builder = WasiCtxBuilder::new();
    builder.stdout(writer.into());
    grants(&mut builder);
    let code = run(image, builder.build().unwrap()).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    (code, text)
}

fn command(image: &[u8], entry: Option<&str>) -> Result<Outcome, RunError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(image).unwrap();
    let command = Command {
        args: vec![b"program".to_vec()],
        env: vec![],
        preopens: vec![],
        entry: entry.map(str::to_owned),
        max_wasm_stack: 512 << 10,
        ..Command::default()
    };
    command.load(&file)?.run()
}

#[test]
fn a_program_writes_to_its_standard_output() {
    for hello in both_images(
        r#"(data (i32.const 64) "hello, world\n")
        (func (export "_start") (call $write (i32.const 1) (i32.const 64) (i32.const 13)))"#,
    ) {
        assert_eq!(output(&hello, |_| {}), (0, "hello, world\n".into()));
    }
}

#[test]
fn a_program_reads_files_beneath_its_directory_only() {
    let cats = both_images(
        r#"(data (i32.const 64) "in/file")
        (data (i32.const 80) "../secret")
        (func $open (param $at i32) (param $len i32) (result i32)
            (call $path_open (i32.const 3) (i32.const 1) (local.get $at) (local.get $len)
                (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 16)))
        (func (export "_start")
            (call $check (call $open (i32.const 64) (i32.const 7)))
            (i32.store (i32.const 0) (i32.const 1024))
            (i32.store (i32.const 4) (i32.const 4096))
            (call $check (call $fd_read
                (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 8)))
            (call $write (i32.const 1) (i32.const 1024) (i32.load (i32.const 8)))
            (call $check (call $open (i32.const 80) (i32.const 9))))"#,
    );
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("root/in")).unwrap();
    fs::write(dir.path().join("root/in/file"), "content of a file").unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    for cat in cats {
        let (code, text) = output(&cat, |grants| {
            grants.preopen(open_dir(&dir.path().join("root")), "/", false);
        });
        assert_eq!((code, &*text), (63, "content of a file"), "the second open ends with perm");
    }
}

#[test]
fn arguments_and_environment_reach_the_program() {
    let echoes = both_images(
        r#"(func (export "_start")
            (call $check (call $args_sizes_get (i32.const 16) (i32.const 20)))
            (call $check (call $args_get (i32.const 64) (i32.const 1024)))
            (call $write (i32.const 1) (i32.load (i32.const 64)) (i32.load (i32.const 20)))
            (call $check (call $environ_sizes_get (i32.const 16) (i32.const 20)))
            (call $check (call $environ_get (i32.const 64) (i32.const 2048)))
            (call $write (i32.const 1) (i32.load (i32.const 64)) (i32.load (i32.const 20))))"#,
    );
    for echo in echoes {
        let (code, text) = output(&echo, |grants| {
            grants.arg("echo").arg("two words").env("KEY", "value").env("E", "");
        });
        assert_eq!((code, &*text), (0, "echo\0two words\0KEY=value\0E=\0"));
    }
}

#[test]
fn a_sleeping_program_wakes_in_time() {
    let sleeps = both_images(
        r#"(func (export "_start")
            ;; One subscription at 64: monotonic clock, 50 ms from now.
            (i32.store (i32.const 80) (i32.const 1))
            (i64.store (i32.const 88) (i64.const 50000000))
            (call $check (call $poll_oneoff
                (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 16)))
            (if (i32.ne (i32.load (i32.const 16)) (i32.const 1)) (then (unreachable))))"#,
    );
    for sleep in sleeps {
        let start = std::time::Instant::now();
        assert_eq!(output(&sleep, |_| {}), (0, String::new()));
        let slept = start.elapsed().as_millis();
        assert!((50..20_000).contains(&slept), "{slept} ms");
    }
}

#[test]
fn a_closed_pipe_is_an_errno_and_no_signal() {
    let program = image(
        r#"(func (export "_start") (call $write (i32.const 1) (i32.const 64) (i32.const 5)))"#,
    );
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut builder = WasiCtxBuilder::new();
    builder.stdout(writer.into());
    assert_eq!(run(&program, builder.build().unwrap()).unwrap(), 64);
}

#[test]
fn calls_without_a_memory_fault() {
    let program = bare_image(
        r#"(module
            (import "wasi_snapshot_preview1" "clock_time_get"
                (func $time (param i32 i64 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (func (export "_start")
                (call $exit (call $time (i32.const 1) (i64.const 0) (i32.const 0)))))"#,
    );
    assert_eq!(command(&program, None).unwrap().exit_code(), 21);
}

#[test]
fn exit_codes_are_the_programs() {
    for (code, expected) in [(0, 0), (42, 42), (255, 255), (300, 44)] {
        let program = image(&format!(
            r#"(func (export "_start") (call $proc_exit (i32.const {code})) unreachable)"#
        ));
        let outcome = command(&program, None).unwrap();
        assert!(matches!(outcome, Outcome::Exited(n) if n == code));
        assert_eq!(outcome.exit_code(), expected);
    }
    let raise =
        image(r#"(func (export "_start") (drop (call $proc_raise (i32.const 15))) unreachable)"#);
    assert_eq!(command(&raise, None).unwrap().exit_code(), 143);
    let start = image(
        r#"(func $early (call $proc_exit (i32.const 7))) (start $early)
        (func (export "_start") unreachable)"#,
    );
    assert_eq!(command(&start, None).unwrap().exit_code(), 7, "from the start function");
}

#[test]
fn a_trap_is_reported_with_its_kind_and_functions() {
    let program = image(
        r#"(func $inner (param i32) (drop (i32.div_u (i32.const 1) (local.get 0))))
        (func $outer (call $inner (i32.const 0)))
        (func $main (export "_start") (call $outer))"#,
    );
    let outcome = command(&program, None).unwrap();
    assert_eq!(outcome.exit_code(), 134);
    let Outcome::Trapped(report) = outcome else { panic!("{outcome:?}") };
    let trap = report.trap().unwrap();
    let names: Vec<_> =
        trap.backtrace().iter().map(|frame| frame.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["inner", "outer", "main"]);
    let text = report.to_string();
    assert!(text.starts_with("wasm trap: ") && text.contains("divide by zero"), "{text}");
    assert!(names.iter().all(|name| text.contains(name)), "{text}");
    let rest =
        "\n  memory in use: 1 pages (65536 bytes) of at most 65536 pages\n  last host call: none";
    assert!(text.ends_with(rest), "{text}");
}

#[test]
fn a_report_tells_the_last_call_of_the_host_and_how_it_ended() {
    let report = |body: &str| {
        let program = image(&format!(r#"(func (export "_start") {body} unreachable)"#));
        let outcome = command(&program, None).unwrap();
        let Outcome::Trapped(report) = outcome else { panic!("{outcome:?}") };
        assert!(report.to_string().ends_with(&report.last_call().unwrap().to_string()));
        report
    };
    let fails = "(drop (call $fd_write (i32.const 77) (i32.const 0) (i32.const 0) (i32.const 8)))";
    let works = "(drop (call $args_sizes_get (i32.const 8) (i32.const 12)))";
    let last = |body| report(body).last_call().unwrap().to_string();
    assert_eq!(last(fails), "fd_write (badf)");
    assert_eq!(last(&format!("{fails}{works}")), "args_sizes_get (success)");
    let grown = report(&format!("{works} (drop (memory.grow (i32.const 4)))"));
    assert_eq!(grown.memory().bytes, 5 << 16);
}

#[test]
fn an_exception_that_nobody_catches_is_reported_like_a_trap() {
    let program = image(
        r#"(tag $error (export "__cpp_exception") (param i32))
        (func $inner (throw $error (i32.const 66560)))
        (func $main (export "_start") (call $inner))"#,
    );
    let outcome = command(&program, None).unwrap();
    assert_eq!(outcome.exit_code(), 134);
    let Outcome::Trapped(report) = outcome else { panic!("{outcome:?}") };
    assert!(report.trap().is_none());
    let frames = report.exception().unwrap().backtrace();
    let names: Vec<_> = frames.iter().map(|frame| frame.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["inner", "main"]);
    let text = report.to_string();
    assert!(text.starts_with("uncaught exception `__cpp_exception` (i32 66560)\n  0: "), "{text}");
}

#[test]
fn endless_recursion_is_a_trap() {
    let program = image(r#"(func $again (export "_start") (call $again))"#);
    let outcome = command(&program, None).unwrap();
    assert!(matches!(outcome, Outcome::Trapped(_)) && outcome.exit_code() == 134);
}

#[test]
fn another_entry_can_be_chosen_and_reactors_are_initialised() {
    let program = image(
        r#"(global $ready (mut i32) (i32.const 1))
        (func (export "_initialize") (global.set $ready (i32.const 40)))
        (func (export "work") (result i32)
            (call $proc_exit (i32.add (global.get $ready) (i32.const 2))) (i32.const 0))
        (func (export "wants") (param i32))
        (table (export "table") 1 funcref)"#,
    );
    assert_eq!(command(&program, Some("work")).unwrap().exit_code(), 42);
    let message = |entry| command(&program, entry).unwrap_err().to_string();
    assert_eq!(
        message(None),
        "the module exports no function `_start` to start with; it could start with `#work`"
    );
    assert_eq!(
        message(Some("none")),
        "the module exports no function `none` to start with; it could start with `#work`"
    );
    assert_eq!(message(Some("table")), "the module's export `table` is not a function");
    assert_eq!(
        message(Some("wants")),
        "the module's function `wants` has the type (i32) -> (); to start with it, it must take no \
         parameters"
    );
    let with_result = image(r#"(func (export "_start") (result i32) (i32.const 0))"#);
    let error = command(&with_result, None).unwrap_err();
    assert!(matches!(error, RunError::MissingEntry(_)));
    assert!(error.to_string().ends_with("must take no parameters and return nothing"), "{error}");
}

#[test]
fn imports_that_are_not_there_are_named() {
    let message = |import: &str| {
        let module = format!(r#"(module {import} (func (export "_start")))"#);
        let error = command(&bare_image(&module), None).unwrap_err();
        assert!(matches!(error, RunError::Link(_)), "{error:?}");
        error.to_string()
    };
    let text = message(r#"(import "env" "launch" (func (param i32)))"#);
    assert!(text.contains("`env` `launch`") && text.contains("(i32)"), "{text}");
    assert!(text.contains("only import from wasi_snapshot_preview1"), "{text}");
    let text = message(r#"(import "wasi_unstable" "fd_write" (func))"#);
    assert!(text.contains("old snapshot"), "{text}");
    let text = message(r#"(import "wasi_snapshot_preview1" "sock_frob" (func))"#);
    assert!(text.contains("`sock_frob`") && text.contains("46 functions"), "{text}");
    let text = message(r#"(import "wasi_snapshot_preview1" "fd_sync" (func (param i64)))"#);
    assert!(text.contains("`fd_sync`"), "{text}");
    assert!(text.contains("(i64)") && text.contains("(i32)"), "{text}");
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn what_is_no_image_or_no_grant_is_refused() {
    assert!(matches!(command(b"\0asm\x01\0\0\0", None), Err(RunError::Image(_))));
    assert!(matches!(command(b"", None), Err(RunError::Image(_))));
    let program = image(r#"(func (export "_start"))"#);
    for len in [1, 100, 4096, program.len() - 1] {
        assert!(matches!(command(&program[..len], None), Err(RunError::Image(_))), "{len} bytes");
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&program).unwrap();
    let command = Command {
        args: vec![],
        env: vec![],
        preopens: vec![Preopen {
            fd: File::open("/dev/null").unwrap().into(),
            guest_path: "/data".into(),
            readonly: false,
        }],
        entry: None,
        max_wasm_stack: 1 << 20,
        ..Command::default()
    };
    let error = command.load(&file).unwrap_err();
    assert_eq!(error.to_string(), "cannot grant the directory /data: not a directory");
}
