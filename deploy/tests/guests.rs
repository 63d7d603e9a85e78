//! Real programs under `coracle run`, built by `make images`: a Rust program with WasmEdge's client
//! library and a C program in WAMR's dialect, as servers, clients and for names; Ruby as a command.

#![allow(clippy::unwrap_used, reason = "in tests, helpers too fail by panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

/// The programs with what they call themselves.
const PROGRAMS: [(&str, &str); 2] = [("sockets", "C"), ("sockets-rust", "Rust")];

fn program(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../test-images/build");
    let path = root.join(format!("{name}.wasm"));
    assert!(path.exists(), "{} is missing: run `make images`", path.display());
    path
}

fn coracle(name: &str, network: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
    command.args(["run", "--network", network]).arg(program(name)).args(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts a server and waits for the line that says it is one.
fn server(name: &str, network: &str, args: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut child = coracle(name, network, args).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    if !line.ends_with("ing\n") {
        let output = child.wait_with_output().unwrap();
        panic!("{name} {args:?}: {line:?} {}", String::from_utf8_lossy(&output.stderr));
    }
    (child, out)
}

/// Ends with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn servers_answer_http() {
    for (name, language) in PROGRAMS {
        let port = free_port();
        let (mut child, _out) = server(
            name,
            &format!("allow listen 0.0.0.0:{port}"),
            &["serve", &port.to_string(), "3"],
        );
        for _ in 0..3 {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{name}: {answer}");
            assert!(answer.ends_with(&format!("hello from {language}\n")), "{name}: {answer}");
        }
        assert!(child.wait().unwrap().success(), "{name}");
    }
}

/// The body of an answer of HTTP.
fn get(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let request = "GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn programs_serve_the_socket_that_they_are_given() {
    for (name, language) in
        [("listen-go", "Go"), ("listen-rust", "Rust"), ("listen-tokio", "tokio")]
    {
        let port = free_port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
        command.args(["run", "--dir", "/tmp", "--listen", &format!("127.0.0.1:{port}")]);
        if language == "Go" {
            command.arg("--listen-nonblock");
        }
        command.arg(program(name)).stdout(Stdio::piped());
        let mut child = Killed(command.spawn().unwrap());
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "serving\n");
        for _ in 0..3 {
            assert_eq!(get(port), format!("hello from {language}, LISTEN_FDS=1\n"));
        }
    }
}

#[test]
fn a_guest_works_with_a_real_redis() {
    let port = free_port();
    let (folder, text) = (tempfile::tempdir().unwrap(), port.to_string());
    let mut command = Command::new("redis-server");
    command.args(["--port", &text, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.current_dir(folder.path()).stdout(Stdio::null());
    let _redis = Killed(command.spawn().unwrap());
    for _ in 0..200 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    let policy = format!("allow 127.0.0.1:{port}");
    let output = coracle("sockets-rust", &policy, &["redis", "localhost", &text]).output().unwrap();
    assert_eq!(output.stdout, b"PING\nSET\nGET\nINCRBY\nINCR\nDEL\n", "{output:?}");
    assert!(output.status.success());
}

#[test]
fn wrk_finds_no_fault_with_a_server() {
    let port = free_port();
    let args = ["serve", &port.to_string(), "1000000000"];
    let (child, _out) = server("sockets-rust", "allow", &args);
    let _server = Killed(child);
    let output = Command::new("wrk")
        .args(["-t1", "-c16", "-d2s", "--latency", &format!("http://127.0.0.1:{port}/")])
        .output()
        .unwrap();
    let told = text(&output);
    assert!(!told.contains("Socket errors") && !told.contains("Non-2xx"), "{told}");
    let requests = told.lines().find_map(|line| line.trim().split_once(" requests in "));
    let count: u64 = requests.unwrap().0.parse().unwrap();
    println!("wrk: {count} requests in 2 s");
    assert!(count > 100, "{told}");
}

#[test]
fn clients_find_a_server_by_name() {
    for (name, _) in PROGRAMS {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            // What is left unread when a connection is closed resets it.
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nthe page").unwrap();
            request
        });
        let policy = format!("allow 127.0.0.1:{port}");
        let output = coracle(name, &policy, &["get", "localhost", &port.to_string()]).output();
        let output = output.unwrap();
        assert!(text(&output).ends_with("the page"), "{name}");
        assert!(served.join().unwrap().starts_with(b"GET / HTTP/1.1\r\n"));
    }
}

#[test]
fn datagrams_come_back() {
    for (name, _) in PROGRAMS {
        let port = free_port();
        let (mut child, _out) = server(name, "allow", &["echo", &port.to_string(), "3"]);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        for message in [&b"one"[..], b"two", b"three"] {
            socket.send_to(message, ("127.0.0.1", port)).unwrap();
            let mut bytes = [0; 20];
            let (len, from) = socket.recv_from(&mut bytes).unwrap();
            assert_eq!((&bytes[..len], from.port()), (message, port), "{name}");
        }
        assert!(child.wait().unwrap().success(), "{name}");
    }
}

#[test]
fn names_are_found_in_the_hosts_file() {
    for (name, _) in PROGRAMS {
        let output = coracle(name, "allow 127.0.0.1", &["resolve", "localhost"]).output().unwrap();
        let lines = text(&output);
        assert!(lines.lines().any(|line| line == "127.0.0.1 port 80"), "{name}: {lines}");
    }
}

#[test]
fn what_the_policy_does_not_allow_fails() {
    for (name, _) in PROGRAMS {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        for policy in ["deny", "allow 192.0.2.1", "allow listen *"] {
            let output = coracle(name, policy, &["get", "127.0.0.1", &port]).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{name} {policy}");
        }
        let output = coracle(name, "allow nonsense..", &["resolve", "x"]).output().unwrap();
        assert_eq!(output.status.code(), Some(125));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("`nonsense..` is no rule"), "{error}");
    }
}

/// The other programs end well; here Ruby is given arguments and an input and ends by an exception.
#[test]
fn ruby_is_a_command_as_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let script = "puts ARGV.inspect, STDIN.read.upcase\nprint 'no line'\nraise 'oh'\n";
    std::fs::write(folder.path().join("script.rb"), script).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_coracle"))
        // Compiling this program takes most of the time.
        .args(["run", "--no-optimize", "--dir"])
        .arg(format!("{}::/app", folder.path().display()))
        .arg(program("thirdparty-ruby"))
        .args(["/app/script.rb", "-x", "b c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"input\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(output.stdout, b"[\"-x\", \"b c\"]\nINPUT\nno line");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.starts_with("/app/script.rb:3:in '<top (required)>': oh (RuntimeError)\n"),
        "{told}"
    );
}
