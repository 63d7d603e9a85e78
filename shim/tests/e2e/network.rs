//! Networks of Docker: containers that find each other by name, and published ports.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::bed::{Daemon, Kind, Spec, on_some, unique};

/// Longest time until a server answers: compiling a Go program included.
const PATIENCE: Duration = Duration::from_secs(60);

fn on_docker(check: impl Fn(&Daemon) -> Result<(), String> + Sync) {
    on_some(|daemon| daemon.kind == Kind::Docker, check);
}

/// A network that is removed with this.
struct Network<'d> {
    daemon: &'d Daemon,
    name: String,
}

impl Network<'_> {
    fn new(daemon: &Daemon) -> Result<Network<'_>, String> {
        let name = unique("net");
        let done = daemon.call(&["network", "create", &name], None);
        done.expect("a network", done.code == 0)?;
        Ok(Network { daemon, name })
    }
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        self.daemon.call(&["network", "rm", &self.name], None);
    }
}

/// A container that runs in the background until this is dropped.
struct Running<'d> {
    daemon: &'d Daemon,
    id: String,
}

impl Running<'_> {
    fn new<'d>(daemon: &'d Daemon, spec: &Spec<'_>) -> Result<Running<'d>, String> {
        Ok(Running { daemon, id: daemon.start(spec)? })
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.daemon.remove(&self.id);
    }
}

#[test]
fn containers_of_a_network_find_each_other_by_name() {
    on_docker(|daemon| {
        let network = Network::new(daemon)?;
        let flags = ["--network", &network.name];
        for (server, client) in [("sockets-rust", "sockets"), ("sockets", "sockets-rust")] {
            let image = format!("{server}:rootfs");
            let spec = Spec {
                image: &image,
                args: &["serve", "8080", "1"],
                flags: &flags,
                ..Spec::default()
            };
            let running = Running::new(daemon, &spec)?;
            let begun = Instant::now();
            loop {
                let image = format!("{client}:rootfs");
                let args = ["get", &running.id, "8080"];
                let spec = Spec { image: &image, args: &args, flags: &flags, ..Spec::default() };
                let done = daemon.run(&spec)?;
                if done.code == 0 {
                    done.expect("a greeting", done.stdout.contains("\r\n\r\nhello from "))?;
                    break;
                }
                done.expect("an answer in time", begun.elapsed() < PATIENCE)?;
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        Ok(())
    });
}

/// The answer to a request of HTTP to a published port, as soon as there is one.
fn get(daemon: &Daemon, port: u16) -> Result<String, String> {
    let name = daemon.netns.as_deref().ok_or("the bed names no network namespace")?;
    let netns = File::open(format!("/run/netns/{name}")).map_err(|error| error.to_string())?;
    // A thread has a network namespace of its own, and ends with it.
    let asked = std::thread::spawn(move || {
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(netns.as_fd(), network).map_err(|error| error.to_string())?;
        ask(port)
    });
    asked.join().map_err(|_| "asking panicked".to_owned())?
}

fn ask(port: u16) -> Result<String, String> {
    let begun = Instant::now();
    let try_once = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let request = "GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.is_empty() { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(answer) }
    };
    loop {
        match try_once() {
            Ok(answer) => return Ok(answer),
            Err(error) if begun.elapsed() > PATIENCE => return Err(error.to_string()),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// The port of the machine that a container's port 8080 is published at.
fn published(daemon: &Daemon, id: &str) -> Result<u16, String> {
    let done = daemon.call(&["port", id, "8080/tcp"], None);
    let port = done.stdout.trim().rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    port.ok_or_else(|| format!("no port in {done:?}"))
}

#[test]
fn published_ports_reach_servers_of_each_kind() {
    let publish = ["--publish", "127.0.0.1::8080"];
    let given = ["--publish", "127.0.0.1::8080", "--annotation", "coracle.dev/listen=0.0.0.0:8080"];
    let nonblock = [&given[..], &["--annotation", "coracle.dev/listen-nonblock=true"]].concat();
    let cases: [(&str, &[&str], &[&str], &str); 5] = [
        ("sockets", &["serve", "8080", "100"], &publish, "hello from C"),
        ("sockets-rust", &["serve", "8080", "100"], &publish, "hello from Rust"),
        ("listen-go", &[], &nonblock, "hello from Go, LISTEN_FDS=1"),
        ("listen-rust", &[], &given, "hello from Rust, LISTEN_FDS=1"),
        ("listen-tokio", &[], &given, "hello from tokio, LISTEN_FDS=1"),
    ];
    on_docker(|daemon| {
        for (image, args, flags, expected) in cases {
            let image = format!("{image}:rootfs");
            let spec = Spec { image: &image, args, flags, ..Spec::default() };
            let running = Running::new(daemon, &spec)?;
            let answer = get(daemon, published(daemon, &running.id)?)
                .map_err(|error| format!("{image}: {error}"))?;
            if !answer.trim_end().ends_with(expected) {
                return Err(format!("{image}: {answer}"));
            }
            let begun = Instant::now();
            let done = daemon.call(&["stop", "--time", "30", &running.id], None);
            done.expect("it to stop", done.code == 0)?;
            done.expect("it to stop soon", begun.elapsed() < Duration::from_secs(20))?;
            let state = ["inspect", "--format", "{{.State.ExitCode}}", &running.id];
            let done = daemon.call(&state, None);
            done.expect("exit code 143", done.stdout.trim() == "143")?;
        }
        Ok(())
    });
}
