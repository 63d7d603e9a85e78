//! Programs with threads (wasi-threads), from text to exit code.

#![allow(clippy::unwrap_used, reason = "in tests, helpers too fail by panic")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use coracle_engine::command::{Command, Outcome, RunError};
use coracle_engine::compile::compile;
use coracle_engine::config::{Addressing, Settings};

/// What the programs share: an entry that spawns, and waiting for a word of memory to change.
const PRELUDE: &str = r#"
    (import "env" "memory" (memory 1 1 shared))
    (import "wasi" "thread-spawn" (func $spawn (param i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_fdstat_get"
        (func $fdstat (param i32 i32) (result i32)))
    (export "memory" (memory 0))
    ;; Adds to the word at 0 and wakes who waits for it.
    (func $add (param $n i32)
        (drop (i32.atomic.rmw.add (i32.const 0) (local.get $n)))
        (drop (memory.atomic.notify (i32.const 0) (i32.const -1))))
    ;; Waits until the word at 0 is `n`.
    (func $await (param $n i32) (local $now i32)
        (loop $again
            (local.set $now (i32.atomic.load (i32.const 0)))
            (if (i32.ne (local.get $now) (local.get $n))
                (then
                    (drop (memory.atomic.wait32
                        (i32.const 0) (local.get $now) (i64.const -1)))
                    (br $again)))))
"#;

fn run_module(text: &str, addressing: Addressing) -> Result<Outcome, RunError> {
    run_with(text, addressing, Vec::new())
}

fn run_with(
    text: &str,
    addressing: Addressing,
    sockets: Vec<OwnedFd>,
) -> Result<Outcome, RunError> {
    let module = wat::parse_str(text).unwrap();
    let settings = Settings { verifier: true, addressing, ..Settings::default() };
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&compile(&module, &settings).unwrap()).unwrap();
    let command = Command {
        args: vec![b"program".to_vec()],
        max_wasm_stack: 512 << 10,
        sockets,
        ..Command::default()
    };
    command.load(&file)?.run()
}

/// Two threads accept from one listener at the same time; each writes its id to its connection and to
/// the one that the first thread handed to both.
#[test]
fn threads_use_one_listener_and_one_connection_together() {
    let text = format!(
        r#"(module
        (import "wasi_snapshot_preview1" "sock_accept"
            (func $accept (param i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write"
            (func $write (param i32 i32 i32 i32) (result i32)))
        {PRELUDE}
        ;; Writes the byte `id` to `fd`, by buffers at `id` * 64.
        (func $say (param $id i32) (param $fd i32) (local $at i32)
            (local.set $at (i32.shl (local.get $id) (i32.const 6)))
            (i32.store8 offset=32 (local.get $at) (local.get $id))
            (i32.store (local.get $at) (i32.add (local.get $at) (i32.const 32)))
            (i32.store offset=4 (local.get $at) (i32.const 1))
            (if (call $write (local.get $fd) (local.get $at) (i32.const 1)
                    (i32.add (local.get $at) (i32.const 8)))
                (then (call $exit (i32.const 2)))))
        (func (export "wasi_thread_start") (param $id i32) (param $shared i32) (local $at i32)
            (local.set $at (i32.add (i32.shl (local.get $id) (i32.const 6)) (i32.const 48)))
            (if (call $accept (i32.const 3) (i32.const 0) (local.get $at))
                (then (call $exit (i32.const 3))))
            (call $say (local.get $id) (i32.load (local.get $at)))
            (call $say (local.get $id) (local.get $shared))
            (drop (call $close (i32.load (local.get $at))))
            (call $add (i32.const 1)))
        (func (export "_start")
            (if (call $accept (i32.const 3) (i32.const 0) (i32.const 8))
                (then (call $exit (i32.const 4))))
            (drop (call $spawn (i32.load (i32.const 8))))
            (drop (call $spawn (i32.load (i32.const 8))))
            (call $await (i32.const 2))))"#
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let clients = std::thread::spawn(move || {
        let mut said = [(); 3].map(|()| TcpStream::connect(address).unwrap()).map(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            move || {
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).unwrap();
                bytes.sort_unstable();
                bytes
            }
        });
        // The first connection stays open until the program ends.
        let [shared, own @ ..] = &mut said;
        let mut own: Vec<Vec<u8>> = own.iter_mut().map(|read| read()).collect();
        own.sort_unstable();
        (own, shared())
    });
    let outcome = run_with(&text, Addressing::Generic, vec![listener.into()]).unwrap();
    assert_eq!(outcome.exit_code(), 0, "{outcome:?}");
    assert_eq!(clients.join().unwrap(), (vec![vec![1], vec![2]], vec![1, 2]));
}

fn run(body: &str) -> Result<Outcome, RunError> {
    run_module(&format!("(module {PRELUDE} {body})"), Addressing::Generic)
}

fn code(body: &str) -> u8 {
    let outcome = run(body).unwrap();
    assert!(matches!(outcome, Outcome::Exited(_)), "{outcome:?}");
    outcome.exit_code()
}

#[test]
fn threads_share_the_memory_and_have_their_own_ids() {
    // Each adds its argument, and sets the bit of its id at 8.
    let body = r#"
        (func (export "wasi_thread_start") (param $id i32) (param $argument i32)
            (drop (i32.atomic.rmw.or
                (i32.const 8) (i32.shl (i32.const 1) (local.get $id))))
            (call $add (local.get $argument)))
        (func (export "_start") (local $n i32)
            (loop $more
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (if (i32.le_s (call $spawn (local.get $n)) (i32.const 0))
                    (then (call $exit (i32.const 99))))
                (br_if $more (i32.lt_u (local.get $n) (i32.const 10))))
            (call $await (i32.const 55))
            (call $exit (i32.popcnt (i32.atomic.load (i32.const 8)))))"#;
    assert_eq!(code(body), 10);
    let dedicated = format!("(module {PRELUDE} {body})");
    let outcome = run_module(&dedicated, Addressing::Dedicated).unwrap();
    assert_eq!(outcome.exit_code(), 10);
}

#[test]
fn a_thread_may_return_without_ending_the_program() {
    let body = r#"
        (func (export "wasi_thread_start") (param i32 i32) (call $add (i32.const 1)))
        (func (export "_start")
            (drop (call $spawn (i32.const 0)))
            (call $await (i32.const 1)))"#;
    assert_eq!(code(body), 0);
}

#[test]
fn a_trap_in_a_thread_ends_the_program_with_its_report() {
    let body = r#"
        (func $deep (unreachable))
        (func (export "wasi_thread_start") (param i32 i32) (call $deep))
        (func (export "_start")
            (drop (call $spawn (i32.const 0)))
            (call $await (i32.const 1)))"#;
    let outcome = run(body).unwrap();
    let Outcome::Trapped(report) = &outcome else { panic!("{outcome:?}") };
    let report = report.to_string();
    assert!(report.contains("unreachable") && report.contains("deep"), "{report}");
    assert_eq!(outcome.exit_code(), 134);
}

#[test]
fn a_thread_that_recurses_for_ever_traps_like_the_first_one() {
    let body = r#"
        (func $deep (param i32) (result i32)
            (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
        (func (export "wasi_thread_start") (param i32 i32)
            (drop (call $deep (i32.const 0))))
        (func (export "_start")
            (drop (call $spawn (i32.const 0)))
            (call $await (i32.const 1)))"#;
    let Outcome::Trapped(report) = run(body).unwrap() else { panic!("should trap") };
    assert!(report.to_string().contains("stack"), "{report}");
}

#[test]
fn a_thread_that_exits_ends_the_program() {
    let body = r#"
        (func (export "wasi_thread_start") (param i32 i32) (call $exit (i32.const 7)))
        (func (export "_start")
            (drop (call $spawn (i32.const 0)))
            (call $await (i32.const 1)))"#;
    assert_eq!(code(body), 7);
}

#[test]
fn threads_make_threads() {
    let body = r#"
        (func (export "wasi_thread_start") (param $id i32) (param $left i32)
            (if (local.get $left)
                (then (drop (call $spawn (i32.sub (local.get $left) (i32.const 1))))))
            (call $add (i32.const 1)))
        (func (export "_start")
            (drop (call $spawn (i32.const 19)))
            (call $await (i32.const 20))
            (call $exit (i32.const 20)))"#;
    assert_eq!(code(body), 20);
}

#[test]
fn descriptors_are_shared() {
    // A thread closes descriptor 0; the first then finds that it is gone (badf is 8).
    let body = r#"
        (func (export "wasi_thread_start") (param i32 i32)
            (call $add (i32.add (i32.const 100) (call $close (i32.const 0)))))
        (func (export "_start")
            (if (call $fdstat (i32.const 0) (i32.const 64))
                (then (call $exit (i32.const 99))))
            (drop (call $spawn (i32.const 0)))
            (call $await (i32.const 100))
            (call $exit (call $fdstat (i32.const 0) (i32.const 64))))"#;
    assert_eq!(code(body), 8);
}

#[test]
fn what_cannot_have_threads_is_refused_with_a_sentence() {
    let no_start = run(r#"(func (export "_start"))"#).unwrap_err().to_string();
    assert!(no_start.contains("wasi_thread_start"), "{no_start}");
    let own_memory = r#"(module
        (import "wasi" "thread-spawn" (func (param i32) (result i32)))
        (memory (export "memory") 1 1 shared)
        (func (export "wasi_thread_start") (param i32 i32))
        (func (export "_start")))"#;
    let own_memory = run_module(own_memory, Addressing::Generic).unwrap_err().to_string();
    assert!(own_memory.contains("no shared memory"), "{own_memory}");
}
