//! Programs that listen: who gives them their sockets, and how they end.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use coracle_shim::guest::{Exit, Guest, Stdio};
use serde_json::json;

use crate::support::*;

/// The functions of WASI that the servers use. A listening socket is descriptor 5: after the root and
/// the working directory.
const PRELUDE: &str = r#"
    (import "wasi_snapshot_preview1" "sock_accept"
        (func $accept (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read"
        (func $fd_read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write"
        (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff"
        (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) "served\n")
    (data (i32.const 80) "canceled\n")
    ;; Accepts from 5; the result is the errno, the connection lies at 0.
    (func $next (result i32)
        (call $accept (i32.const 5) (i32.const 0) (i32.const 0)))
    (func $say (param $fd i32) (param $at i32) (param $len i32)
        (i32.store (i32.const 8) (local.get $at))
        (i32.store (i32.const 12) (local.get $len))
        (drop (call $fd_write
            (local.get $fd) (i32.const 8) (i32.const 1) (i32.const 16))))
    ;; Waits until a byte comes from the connection.
    (func $request
        (i32.store (i32.const 8) (i32.const 512))
        (i32.store (i32.const 12) (i32.const 1))
        (drop (call $fd_read
            (i32.load (i32.const 0)) (i32.const 8) (i32.const 1) (i32.const 16))))
    ;; Sleeps for milliseconds: a subscription to the monotonic clock at 128.
    (func $sleep (param $ms i64)
        (i64.store (i32.const 128) (i64.const 0))
        (i64.store (i32.const 136) (i64.const 0))
        (i32.store (i32.const 144) (i32.const 1))
        (i64.store (i32.const 152) (i64.mul (local.get $ms) (i64.const 1000000)))
        (i64.store (i32.const 160) (i64.const 0))
        (i64.store (i32.const 168) (i64.const 0))
        (drop (call $poll
            (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 16))))
"#;

/// Serves one connection after the other, each half a second after its request; says so on standard
/// output when accepting is refused.
const SERVER: &str = r#"
    (func (export "_start") (local $errno i32)
        (loop $again
            (local.set $errno (call $next))
            (if (i32.eqz (local.get $errno))
                (then
                    (call $request)
                    (call $sleep (i64.const 500))
                    (call $say (i32.load (i32.const 0)) (i32.const 64) (i32.const 7))
                    (drop (call $close (i32.load (i32.const 0))))))
            (if (i32.eq (local.get $errno) (i32.const 11))
                (then (call $say (i32.const 1) (i32.const 80) (i32.const 9))))
            (br $again)))"#;

/// A port that nobody listens on, and that the kernel gives to nobody: it is below those that it gives
/// to who asks for any.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = 20_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A bundle in the host's network whose program is given a port.
fn bundle(annotations: &[(&str, &str)]) -> (Bundle, u16) {
    let port = free_port();
    let mut bundle = Bundle::new();
    let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "network");
    bundle.unmount("/sys");
    bundle.spec["annotations"]["coracle.dev/listen"] = json!(format!("127.0.0.1:{port}"));
    for (key, value) in annotations {
        bundle.spec["annotations"][key] = json!(value);
    }
    (bundle, port)
}

async fn run(bundle: &Bundle, body: &str, stdio: Stdio) -> Guest {
    bundle.run(&format!("(module {PRELUDE} {body})"), stdio).await.unwrap()
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// Waits until the server has taken a connection, and waits for what comes next.
async fn accepted(guest: &Guest) {
    let sockets = || {
        let names = descriptors(guest).into_iter().map(|(_, name)| name);
        names.filter(|name| name.starts_with("socket:")).count()
    };
    while sockets() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    asleep(guest).await;
}

async fn end(mut guest: Guest, bundle: &Bundle, least: u64, most: u64, begun: Instant) {
    assert_eq!(guest.wait().await.exit, Exit::Code(143));
    let took = begun.elapsed();
    let range = Duration::from_millis(least)..Duration::from_millis(most);
    assert!(range.contains(&took), "it took {took:?}");
    guest.cleanup().await.unwrap();
    bundle.assert_clean();
}

#[test]
fn a_server_without_work_is_told_and_ends_at_once() {
    block_on(async {
        let (bundle, port) = bundle(&[]);
        let (mut reader, writer) = pipe();
        let stdio = Stdio { stdout: Some(writer), ..Stdio::default() };
        let guest = run(&bundle, SERVER, stdio).await;
        let mut served = String::new();
        let mut client = connect(port);
        client.write_all(b"?").unwrap();
        client.read_to_string(&mut served).unwrap();
        assert_eq!(served, "served\n");
        // It is back in its accept.
        asleep(&guest).await;
        let begun = Instant::now();
        guest.signal(libc::SIGTERM, false).unwrap();
        end(guest, &bundle, 0, 2000, begun).await;
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert_eq!(said, "canceled\n");
    });
}

#[test]
fn work_in_flight_is_finished() {
    block_on(async {
        let (bundle, port) = bundle(&[]);
        let guest = run(&bundle, SERVER, Stdio::default()).await;
        let mut client = connect(port);
        client.write_all(b"?").unwrap();
        accepted(&guest).await;
        let begun = Instant::now();
        guest.signal(libc::SIGTERM, false).unwrap();
        let served = tokio::task::spawn_blocking(move || {
            let mut served = String::new();
            client.read_to_string(&mut served).map(|_| served)
        });
        assert_eq!(served.await.unwrap().unwrap(), "served\n");
        end(guest, &bundle, 200, 3000, begun).await;
    });
}

#[test]
fn work_that_takes_too_long_is_cut_off() {
    block_on(async {
        let (bundle, port) = bundle(&[("coracle.dev/drain-seconds", "1")]);
        let guest = run(&bundle, SERVER, Stdio::default()).await;
        // Never asks for anything.
        let client = connect(port);
        accepted(&guest).await;
        let begun = Instant::now();
        guest.signal(libc::SIGTERM, false).unwrap();
        end(guest, &bundle, 900, 4000, begun).await;
        drop(client);
    });
}

#[test]
fn a_second_sigterm_ends_it_at_once() {
    block_on(async {
        let (bundle, port) = bundle(&[("coracle.dev/drain-seconds", "60")]);
        let guest = run(&bundle, SERVER, Stdio::default()).await;
        let client = connect(port);
        accepted(&guest).await;
        let begun = Instant::now();
        guest.signal(libc::SIGTERM, false).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        guest.signal(libc::SIGTERM, false).unwrap();
        end(guest, &bundle, 300, 2000, begun).await;
        drop(client);
    });
}

#[test]
fn a_poll_on_a_listener_wakes_up() {
    // Polls descriptor 5 for reading (a subscription at 128), then accepts: what is refused is said.
    let body = r#"
        (func (export "_start") (local $errno i32)
            (loop $again
                (i64.store (i32.const 136) (i64.const 1))
                (i32.store (i32.const 144) (i32.const 5))
                (drop (call $poll
                    (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 16)))
                (local.set $errno (call $next))
                (if (i32.eq (local.get $errno) (i32.const 11))
                    (then (call $say (i32.const 1) (i32.const 80) (i32.const 9))))
                (br $again)))"#;
    block_on(async {
        let (bundle, port) = bundle(&[]);
        let (mut reader, writer) = pipe();
        let stdio = Stdio { stdout: Some(writer), ..Stdio::default() };
        let guest = run(&bundle, body, stdio).await;
        // Until it listens.
        drop(connect(port));
        accepted(&guest).await;
        let begun = Instant::now();
        guest.signal(libc::SIGTERM, false).unwrap();
        // The connection above was accepted and never closed.
        tokio::time::sleep(Duration::from_millis(300)).await;
        guest.signal(libc::SIGTERM, false).unwrap();
        end(guest, &bundle, 300, 2000, begun).await;
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert_eq!(said, "canceled\n");
    });
}

#[test]
fn a_program_that_returns_when_told_has_stopped() {
    let body = r#"(func (export "_start") (drop (call $next)))"#;
    block_on(async {
        let (bundle, _) = bundle(&[]);
        let guest = run(&bundle, body, Stdio::default()).await;
        asleep(&guest).await;
        let begun = Instant::now();
        guest.signal(libc::SIGTERM, false).unwrap();
        end(guest, &bundle, 0, 2000, begun).await;
    });
}

#[test]
fn signals_do_not_prolong_the_time_to_finish() {
    // It is told to stop while it starts, when nobody knows yet that it handles signals.
    let body = r#"
        (func $begin (drop (call $next)) (call $request))
        (start $begin)
        (func (export "coracle_signal") (param i32)
            (call $say (i32.load (i32.const 0)) (i32.const 64) (i32.const 7)))
        (func (export "_start")
            (call $say (i32.load (i32.const 0)) (i32.const 80) (i32.const 9))
            (loop $again (call $sleep (i64.const 50)) (br $again)))"#;
    block_on(async {
        let (bundle, port) = bundle(&[("coracle.dev/drain-seconds", "1")]);
        let guest = run(&bundle, body, Stdio::default()).await;
        let mut client = connect(port);
        accepted(&guest).await;
        let begun = Instant::now();
        guest.signal(libc::SIGTERM, false).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.write_all(b"?").unwrap();
        let mut said = [0; 9];
        client.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"canceled\n");
        guest.signal(libc::SIGUSR1, false).unwrap();
        client.read_exact(&mut said[..7]).unwrap();
        assert_eq!(&said[..7], b"served\n");
        end(guest, &bundle, 900, 4000, begun).await;
    });
}

#[test]
fn sockets_may_come_first() {
    // Accepting from 3 instead of 5.
    let body = r#"
        (func (export "_start")
            (call $exit (call $accept (i32.const 3) (i32.const 0) (i32.const 0))))"#;
    block_on(async {
        let (bundle, port) = bundle(&[("coracle.dev/listen-first", "true")]);
        let mut guest = run(&bundle, body, Stdio::default()).await;
        drop(connect(port));
        assert_eq!(guest.wait().await.exit, Exit::Code(0));
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
    });
}

#[test]
fn a_bad_annotation_or_a_taken_port_is_refused_with_a_sentence() {
    block_on(async {
        let (mut wrong, _) = bundle(&[]);
        wrong.spec["annotations"]["coracle.dev/listen"] = json!("http");
        let body = format!("(module {PRELUDE} {SERVER})");
        let error = wrong.run(&body, Stdio::default()).await.map(|g| g.pid()).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("coracle.dev/listen") && error.contains("`http`"), "{error}");
        wrong.assert_clean();

        let (taken, port) = bundle(&[]);
        let _holder = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let error = taken.run(&body, Stdio::default()).await.map(|g| g.pid()).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{error}");
        coracle_shim::guest::cleanup_bundle(taken.path(), &taken.id).unwrap();
        taken.assert_clean();
    });
}
