//! The toolbox's `wget` and `netstat` on real sockets.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use crate::support::*;
use crate::toolbox::{Ran, run};

/// A bundle in the network of this test.
fn in_this_network() -> Bundle {
    let mut bundle = Bundle::new();
    let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "network");
    bundle
}

/// Answers one connection after the other with these bytes; gives the port, and what was asked.
fn server(answers: Vec<Vec<u8>>) -> (u16, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = move || {
        let asked = answers.into_iter().map(|answer| {
            let mut connection = accept(&listener);
            let head = head(&mut connection);
            // A client that has seen enough may be gone.
            let _ = connection.write_all(&answer);
            head
        });
        asked.collect()
    };
    (port, std::thread::spawn(serve))
}

/// Waits for a client, but not for ever.
fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match listener.accept() {
            Ok((connection, _)) => {
                connection.set_nonblocking(false).unwrap();
                return connection;
            }
            Err(_) => assert!(Instant::now() < until, "nobody asks"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Reads up to the empty line, and a body of the length that is told.
fn head(connection: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") && connection.read(&mut byte).unwrap() == 1 {
        text.push(byte[0]);
    }
    let mut text = String::from_utf8(text).unwrap();
    let length = text.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    connection.read_exact(&mut body).unwrap();
    text.push_str(&String::from_utf8(body).unwrap());
    text
}

/// Fetches what a server answers, with options before the URL.
fn fetch(options: &[&str], path: &str, answers: &[&[u8]]) -> (Ran, Vec<String>) {
    let (port, asked) = server(answers.iter().map(|answer| answer.to_vec()).collect());
    let url = format!("http://127.0.0.1:{port}{path}");
    let mut bundle = in_this_network();
    let words: Vec<&str> = [&["wget"], options, &[&url]].concat();
    let ran = block_on(run(&mut bundle, &words));
    bundle.assert_clean();
    (ran, asked.join().unwrap())
}

#[test]
fn wget_prints_a_page_of_known_length_in_chunks_or_to_the_end() {
    let (ran, asked) = fetch(
        &["-q", "-O-", "--header", "X-Probe: yes"],
        "/a/b?c=d#e",
        &[b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more"],
    );
    assert_eq!(ran.good(), "hello");
    assert!(asked[0].starts_with("GET /a/b?c=d HTTP/1.1\r\nHost: 127.0.0.1:"), "{asked:?}");
    assert!(
        asked[0].contains("\r\nX-Probe: yes\r\n") && asked[0].contains("Connection: close\r\n")
    );
    let chunks: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        4\r\nfour\r\nB;x=y\r\n and ten...\r\n0\r\n\r\n";
    assert_eq!(fetch(&["-qO", "-"], "", &[chunks]).0.good(), "four and ten...");
    let large = [&b"HTTP/1.0 200 OK\r\n\r\n"[..], &vec![b'x'; 300_000]].concat();
    assert_eq!(fetch(&["-qO-"], "", &[&large]).0.good().len(), 300_000);
}

#[test]
fn wget_follows_redirections_posts_and_saves() {
    let moved: &[u8] = b"HTTP/1.1 302 Found\r\nLocation: other?x\r\n\r\n";
    let page: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    // The second question goes to the same server.
    let (ran, asked) = fetch(&["-qO-"], "/folder/page", &[moved, page]);
    assert_eq!(ran.good(), "ok");
    assert!(asked[1].starts_with("GET /folder/other?x HTTP/1.1\r\n"), "{asked:?}");
    let (ran, asked) = fetch(&["-qO-", "--post-data=a=b"], "/", &[page]);
    assert_eq!(ran.good(), "ok");
    assert!(asked[0].starts_with("POST / ") && asked[0].ends_with("\r\n\r\na=b"), "{asked:?}");
    let (port, asked) = server(vec![page.to_vec()]);
    let mut bundle = in_this_network();
    let url = format!("127.0.0.1:{port}/file.txt");
    let ran = block_on(run(&mut bundle, &["wget", &url]));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.ends_with("'file.txt' saved\n"), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(bundle.rootfs("file.txt")).unwrap(), "ok");
    asked.join().unwrap();
    bundle.assert_clean();
}

#[test]
fn wget_says_why_there_is_no_page() {
    let refused: &[u8] = b"HTTP/1.1 404 Not \x1bFound\r\n\r\n";
    let (ran, _) = fetch(&["-qO-"], "/", &[refused]);
    assert_eq!(ran.bad(), "wget: server returned error: HTTP/1.1 404 Not \\033Found\n");
    let cut: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort";
    assert!(fetch(&["-qO-"], "/", &[cut]).0.bad().contains("the connection ended before the file"));
    assert!(fetch(&["-qO-"], "/", &[b"SSH-2.0\r\n\r\n"]).0.bad().contains("the answer is no HTTP"));
    let say = |words: &[&str]| {
        let mut bundle = in_this_network();
        block_on(run(&mut bundle, words)).bad()
    };
    // Nobody listens on a port that was just given back.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let closed = say(&["wget", "-q", "-O-", &format!("http://127.0.0.1:{port}/")]);
    assert!(closed.contains(&format!("127.0.0.1:{port}: Connection refused")), "{closed}");
    assert!(say(&["wget", "https://example.org/"]).contains("this wget has no TLS; use http"));
    assert!(say(&["wget", "http://"]).contains("the host is missing"));
    assert!(say(&["wget", "http://a:99999/"]).contains("the port is no number"));
    assert!(say(&["wget", "http://no-such-host.invalid/"]).contains("bad address"));
    // A server that takes the connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    assert!(say(&["wget", "-T", "1", "-qO-", &url]).contains("timed out"), "in a second");
}

#[test]
fn netstat_lists_listeners_and_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let six =
        TcpListener::bind("[::1]:0").map(|listener| (listener.local_addr().unwrap(), listener));
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(at).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a b.sock");
    let _unix = UnixListener::bind(&path).unwrap();
    let say = |words: &[&str]| {
        let mut bundle = in_this_network();
        block_on(run(&mut bundle, words)).good()
    };
    let row = |out: &str, local: &str, rest: &str| {
        out.lines()
            .any(|line| line.contains(&format!(" {local} ")) && line.trim_end().ends_with(rest))
    };
    let out = say(&["netstat", "-tuln"]);
    assert!(
        out.starts_with("Active Internet connections (only servers)\nProto Recv-Q Send-Q "),
        "{out}"
    );
    assert!(row(&out, &at.to_string(), "0.0.0.0:*               LISTEN"), "{out}");
    assert!(row(&out, &udp.local_addr().unwrap().to_string(), "0.0.0.0:*"), "{out}");
    if let Ok((at, _)) = six {
        let local = format!("{}:{}", at.ip(), at.port());
        assert!(row(&out, &local, ":::*                    LISTEN"), "{out}");
    }
    assert!(!out.contains("ESTABLISHED") && !out.contains("UNIX"), "{out}");
    let out = say(&["netstat"]);
    let (from, to) = (client.local_addr().unwrap(), at.to_string());
    assert!(row(&out, &from.to_string(), "ESTABLISHED") && out.contains(&to), "{out}");
    let out = say(&["netstat", "-lx"]);
    let path = path.to_str().unwrap();
    let line = out.lines().find(|line| line.ends_with(path)).unwrap();
    assert!(line.contains("[ ACC ]") && line.contains("STREAM     LISTENING"), "{line}");
    let mut bundle = Bundle::new();
    bundle.unmount("/proc");
    let error = block_on(run(&mut bundle, &["netstat"])).bad();
    assert!(error.contains("/proc/net/tcp: No such file or directory; does the container mount"));
}
