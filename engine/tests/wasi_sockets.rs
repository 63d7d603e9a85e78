//! Programs that make sockets: which dialect a module speaks, and programs of both that talk.

#![allow(clippy::unwrap_used, reason = "in tests, helpers too fail by panic")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use coracle_engine::command::{Command, RunError};
use coracle_engine::compile::compile;
use coracle_engine::config::Settings;
use coracle_engine::wasi::NetworkPolicy;

fn command(text: &str, network: &str) -> Result<u8, RunError> {
    let image = compile(&wat::parse_str(text).unwrap(), &Settings::default()).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&image).unwrap();
    let network: NetworkPolicy = network.parse().unwrap();
    Ok(Command { network, ..Command::default() }.load(&file)?.run()?.exit_code())
}

/// Runs a program that does nothing but import these functions of preview 1's module.
fn link(imports: &[(&str, &str)]) -> Result<u8, String> {
    let import = |(name, ty): &(&str, &str)| {
        format!(r#"(import "wasi_snapshot_preview1" "{name}" (func {ty}))"#)
    };
    let imports: Vec<String> = imports.iter().map(import).collect();
    let text = format!(r#"(module {} (func (export "_start")))"#, imports.join(" "));
    command(&text, "deny").map_err(|error| error.to_string())
}

/// A type with this many parameters of type i32, written out.
fn i32s(count: usize) -> String {
    format!("(param{}) (result i32)", " i32".repeat(count))
}

/// Functions of WasmEdge with the numbers of parameters that they exist with.
const WASMEDGE: &[(&str, &[usize])] = &[
    ("epoll_oneoff", &[4]),
    ("sock_accept", &[2, 3]),
    ("sock_bind", &[3]),
    ("sock_connect", &[3]),
    ("sock_getaddrinfo", &[8]),
    ("sock_getlocaladdr", &[4, 3]),
    ("sock_getpeeraddr", &[4, 3]),
    ("sock_getsockopt", &[5]),
    ("sock_listen", &[2]),
    ("sock_open", &[3]),
    ("sock_recv", &[6]),
    ("sock_recv_from", &[7, 8]),
    ("sock_send", &[5]),
    ("sock_send_to", &[7]),
    ("sock_setsockopt", &[5]),
    ("sock_shutdown", &[2]),
    ("sock_accept_v2", &[3]),
    ("sock_bind_v2", &[3]),
    ("sock_connect_v2", &[3]),
    ("sock_getlocaladdr_v2", &[3]),
    ("sock_getpeeraddr_v2", &[3]),
    ("sock_listen_v2", &[2]),
    ("sock_open_v2", &[3]),
    ("sock_recv_v2", &[6]),
    ("sock_recv_from_v2", &[8]),
    ("sock_send_v2", &[5]),
    ("sock_send_to_v2", &[7]),
];

/// Functions of WAMR with their numbers of parameters.
const WAMR: &[(&str, usize)] = &[
    ("sock_accept", 3),
    ("sock_addr_local", 2),
    ("sock_addr_remote", 2),
    ("sock_addr_resolve", 6),
    ("sock_bind", 2),
    ("sock_close", 1),
    ("sock_connect", 2),
    ("sock_listen", 2),
    ("sock_open", 4),
    ("sock_recv", 6),
    ("sock_recv_from", 6),
    ("sock_send", 5),
    ("sock_send_to", 6),
    ("sock_shutdown", 2),
    ("sock_get_linger", 3),
    ("sock_set_linger", 3),
    ("sock_get_ip_multicast_loop", 3),
    ("sock_set_ip_multicast_loop", 3),
    ("sock_set_ip_add_membership", 3),
    ("sock_set_ip_drop_membership", 3),
];

/// Options of WAMR that are a pair of functions with two parameters each.
const WAMR_OPTIONS: &[&str] = &[
    "recv_buf_size",
    "send_buf_size",
    "reuse_addr",
    "reuse_port",
    "keep_alive",
    "broadcast",
    "tcp_no_delay",
    "tcp_quick_ack",
    "tcp_fastopen_connect",
    "ipv6_only",
    "tcp_keep_idle",
    "tcp_keep_intvl",
    "ip_ttl",
    "ip_multicast_ttl",
];

#[test]
fn every_function_of_wasmedge_links() {
    for (name, counts) in WASMEDGE {
        for count in *counts {
            assert_eq!(link(&[(name, &i32s(*count))]), Ok(0), "{name} {count}");
        }
    }
    // Both generations at once, but for the names that have two types.
    let types: Vec<(&str, String)> =
        WASMEDGE.iter().map(|(name, counts)| (*name, i32s(counts[0]))).collect();
    let all: Vec<(&str, &str)> = types.iter().map(|(name, ty)| (*name, &**ty)).collect();
    assert_eq!(link(&all), Ok(0));
}

#[test]
fn every_function_of_wamr_links() {
    let mut types: Vec<(String, String)> =
        WAMR.iter().map(|(name, count)| ((*name).to_owned(), i32s(*count))).collect();
    for option in WAMR_OPTIONS {
        types.push((format!("sock_get_{option}"), i32s(2)));
        types.push((format!("sock_set_{option}"), i32s(2)));
    }
    for side in ["recv", "send"] {
        types.push((format!("sock_get_{side}_timeout"), i32s(2)));
        types.push((format!("sock_set_{side}_timeout"), "(param i32 i64) (result i32)".into()));
    }
    let all: Vec<(&str, &str)> = types.iter().map(|(name, ty)| (&**name, &**ty)).collect();
    assert_eq!(link(&all), Ok(0));
    for (name, ty) in all {
        assert_eq!(link(&[(name, ty)]), Ok(0), "{name}");
    }
}

#[test]
fn two_dialects_in_one_module_are_refused_by_name() {
    let (two, three) = (i32s(2), i32s(3));
    let text = "the program mixes two dialects of sockets: it imports `sock_open` as WasmEdge has \
                it and `sock_addr_local` as WAMR has it; build all of it for one of them";
    let imports = [("sock_open", &*three), ("sock_listen", &*two), ("sock_addr_local", &*two)];
    assert_eq!(link(&imports), Err(text.to_owned()));
}

#[test]
fn a_type_that_no_dialect_has_is_refused_with_those_that_exist() {
    let text = "the program imports `sock_open` with the type (i64) -> (), which no dialect of \
                sockets has; it exists as (i32, i32, i32) -> (i32) (WasmEdge), (i32, i32, i32, \
                i32) -> (i32) (WAMR)";
    assert_eq!(link(&[("sock_open", "(param i64)")]), Err(text.to_owned()));
    let text = link(&[("sock_accept", "(param i32)")]).unwrap_err();
    assert!(text.contains("exists as (i32, i32, i32) -> (i32), (i32, i32) -> (i32)"), "{text}");
    let text = link(&[("sock_open_v2", &i32s(4))]).unwrap_err();
    assert!(text.contains("(WasmEdge)") && !text.contains("WAMR"), "{text}");
    let text = link(&[("sock_accept_v2", &i32s(2))]).unwrap_err();
    assert!(text.contains("`sock_accept_v2`"), "{text}");
    for unknown in ["sock_frobnicate", "sock_addr_local_v2", "sock_v2"] {
        let text = link(&[(unknown, &i32s(2))]).unwrap_err();
        assert!(text.contains(unknown) && text.contains("WAMR"), "{text}");
    }
}

/// Connects to a port by WasmEdge's functions, sends a word and exits with the byte that comes back.
fn wasmedge_client(port: u16) -> String {
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "sock_open"
            (func $open (param i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "sock_connect"
            (func $connect (param i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write"
            (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_read"
            (func $read (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (data (i32.const 16) "\20\00\00\00\04\00\00\00") ;; an address of four octets
        (data (i32.const 32) "\7f\00\00\01")
        (data (i32.const 48) "\40\00\00\00\05\00\00\00") ;; a buffer
        (data (i32.const 64) "hello")
        (func $check (param i32) (if (local.get 0) (then (call $exit (local.get 0)))))
        (func (export "_start")
            (call $check (call $open (i32.const 1) (i32.const 2) (i32.const 8)))
            (call $check
                (call $connect (i32.load (i32.const 8)) (i32.const 16) (i32.const {port})))
            (call $check
                (call $write (i32.load (i32.const 8)) (i32.const 48) (i32.const 1) (i32.const 0)))
            (call $check
                (call $read (i32.load (i32.const 8)) (i32.const 48) (i32.const 1) (i32.const 0)))
            (call $exit (i32.load8_u (i32.const 64)))))"#
    )
}

/// Listens at a port by WAMR's functions, and exits with the first byte of the first connection.
fn wamr_server(port: u16) -> String {
    let [low, high] = port.to_le_bytes();
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "sock_open"
            (func $open (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "sock_set_reuse_addr"
            (func $reuse (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "sock_bind" (func $bind (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "sock_listen" (func $listen (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "sock_accept"
            (func $accept (param i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_read"
            (func $read (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (data (i32.const 16) "\00\00\00\00\7f\00\00\01\{low:02x}\{high:02x}")
        (data (i32.const 48) "\40\00\00\00\01\00\00\00")
        (func $check (param i32) (if (local.get 0) (then (call $exit (local.get 0)))))
        (func (export "_start") (local $fd i32)
            (call $check (call $open (i32.const -1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (local.set $fd (i32.load (i32.const 8)))
            (call $check (call $reuse (local.get $fd) (i32.const 1)))
            (call $check (call $bind (local.get $fd) (i32.const 16)))
            (call $check (call $listen (local.get $fd) (i32.const 1)))
            (call $check (call $accept (local.get $fd) (i32.const 0) (i32.const 8)))
            (call $check
                (call $read (i32.load (i32.const 8)) (i32.const 48) (i32.const 1) (i32.const 0)))
            (call $exit (i32.load8_u (i32.const 64)))))"#
    )
}

#[test]
fn a_client_of_wasmedges_dialect_talks_to_a_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut word = [0; 5];
        stream.read_exact(&mut word).unwrap();
        stream.write_all(b"*").unwrap();
        word
    });
    assert_eq!(command(&wasmedge_client(port), "allow").unwrap(), b'*');
    assert_eq!(&server.join().unwrap(), b"hello");
}

#[test]
fn a_server_of_wamrs_dialect_takes_a_connection() {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let client = std::thread::spawn(move || {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while std::time::Instant::now() < deadline {
            if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
                return stream.write_all(b"!").unwrap();
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("nobody listened");
    });
    let policy = format!("allow listen 127.0.0.1:{port}");
    assert_eq!(command(&wamr_server(port), &policy).unwrap(), b'!');
    client.join().unwrap();
}

#[test]
fn a_program_without_a_grant_gets_no_socket() {
    const ACCES: u8 = 2;
    assert_eq!(command(&wasmedge_client(9), "deny").unwrap(), ACCES);
    assert_eq!(command(&wamr_server(9), "deny").unwrap(), ACCES);
    assert_eq!(command(&wasmedge_client(9), "allow 192.0.2.1").unwrap(), ACCES);
    assert_eq!(command(&wamr_server(9), "allow *").unwrap(), ACCES, "that is not for listening");
}
