//! Programs that handle signals themselves.

use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};

use coracle_shim::guest::{Exit, Guest, Stdio};

use crate::support::*;

/// Says the number of each signal as a letter, `A` for 1; sleeps for a minute at a time, and ends with the
/// errno of an interrupted sleep plus the number of signals when SIGTERM came.
const HANDLER: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write"
        (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff"
        (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) "?\n")
    (data (i32.const 80) "ready\n")
    (global $count (mut i32) (i32.const 0))
    (global $last (mut i32) (i32.const 0))
    (func $say (param $at i32) (param $len i32)
        (i32.store (i32.const 8) (local.get $at))
        (i32.store (i32.const 12) (local.get $len))
        (drop (call $fd_write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16))))
    (func (export "coracle_signal") (param $signal i32)
        (global.set $count (i32.add (global.get $count) (i32.const 1)))
        (global.set $last (local.get $signal))
        (i32.store8 (i32.const 64) (i32.add (local.get $signal) (i32.const 64)))
        (call $say (i32.const 64) (i32.const 2)))
    (func (export "_start") (local $errno i32)
        (call $say (i32.const 80) (i32.const 6))
        (loop $again
            (i32.store (i32.const 144) (i32.const 1))
            (i64.store (i32.const 152) (i64.const 60000000000))
            (local.set $errno (call $poll
                (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 16)))
            (br_if $again (i32.ne (global.get $last) (i32.const LAST))))
        (call $exit (i32.add (local.get $errno) (global.get $count)))))"#;

/// A running program that ends with signal number `last`, and what it says.
async fn run(bundle: &Bundle, last: i32) -> (Guest, BufReader<impl Read + use<>>) {
    let (reader, writer) = pipe();
    let stdio = Stdio { stdout: Some(writer), ..Stdio::default() };
    let guest = bundle.run(&HANDLER.replace("LAST", &last.to_string()), stdio).await.unwrap();
    let mut said = BufReader::new(reader);
    assert_eq!(line(&mut said), "ready");
    (guest, said)
}

fn line(said: &mut impl BufRead) -> String {
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

async fn end(mut guest: Guest, bundle: &Bundle, code: u8, begun: Instant) {
    assert_eq!(guest.wait().await.exit, Exit::Code(code));
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    guest.cleanup().await.unwrap();
    bundle.assert_clean();
}

#[test]
fn each_signal_reaches_the_handler_and_interrupts_a_wait() {
    block_on(async {
        let bundle = Bundle::new();
        let (guest, mut said) = run(&bundle, libc::SIGTERM).await;
        let begun = Instant::now();
        let signals = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];
        for signal in signals {
            // A signal that is handled outside of the wait interrupts none.
            asleep(&guest).await;
            guest.signal(signal, false).unwrap();
            let letter = char::from(b'@' + u8::try_from(signal).unwrap());
            assert_eq!(line(&mut said), letter.to_string());
        }
        asleep(&guest).await;
        guest.signal(libc::SIGTERM, false).unwrap();
        assert_eq!(line(&mut said), "O");
        // intr is 27.
        end(guest, &bundle, 27 + 6, begun).await;
    });
}

#[test]
fn a_second_sigterm_ends_a_program_that_goes_on() {
    block_on(async {
        let bundle = Bundle::new();
        let (guest, mut said) = run(&bundle, libc::SIGUSR1).await;
        let begun = Instant::now();
        guest.signal(libc::SIGTERM, false).unwrap();
        assert_eq!(line(&mut said), "O");
        // It sleeps again.
        asleep(&guest).await;
        guest.signal(libc::SIGTERM, false).unwrap();
        end(guest, &bundle, 143, begun).await;
    });
}

#[test]
fn a_handler_may_end_the_program_or_trap() {
    let body = |what: &str| {
        format!(
            r#"(module
                (import "wasi_snapshot_preview1" "poll_oneoff"
                    (func $poll (param i32 i32 i32 i32) (result i32)))
                (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
                (memory (export "memory") 1)
                (func (export "coracle_signal") (param i32) {what})
                (func (export "_start")
                    (i32.store (i32.const 144) (i32.const 1))
                    (i64.store (i32.const 152) (i64.const 60000000000))
                    (drop (call $poll
                        (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 16)))))"#
        )
    };
    block_on(async {
        let cases = [("(call $exit (i32.const 5))", 5), ("unreachable", 134), ("", 0)];
        for (what, code) in cases {
            let bundle = Bundle::new();
            let guest = bundle.run(&body(what), Stdio::default()).await.unwrap();
            let begun = Instant::now();
            asleep(&guest).await;
            guest.signal(libc::SIGUSR2, false).unwrap();
            end(guest, &bundle, code, begun).await;
        }
    });
}
