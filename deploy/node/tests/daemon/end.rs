//! The daemon's end, and what it refuses to begin with.

use std::process::Command;

use rustix::process::Signal;

use crate::bed::{alive, eventually, tar_of};
use crate::node::{Node, import_archive};
use crate::own_bed::on_each_containerd;

/// All that began below a process.
fn below(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children: Vec<u32> = children
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect();
    let rest = children.clone().into_iter().flat_map(below);
    children.iter().copied().chain(rest).collect()
}

/// Ruby takes seconds, so it is at work then.
#[test]
fn what_it_has_begun_ends_with_it() {
    on_each_containerd(|bed| {
        for (signal, code) in [(Signal::TERM, Some(0)), (Signal::KILL, None)] {
            import_archive(bed, tar_of("thirdparty-ruby:rootfs"), true)?;
            let mut node = Node::start(bed, &[], &[])?;
            let mut at_work = Vec::new();
            eventually("a compiler and what it has begun", || {
                at_work = node
                    .children()
                    .into_iter()
                    .flat_map(|pid| [vec![pid], below(pid)].concat())
                    .collect();
                at_work.len() >= 2
            })?;
            for pid in &at_work {
                let nice = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                let nice = nice.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(16));
                if nice != Some("19") {
                    return Err(format!("{pid} has the priority {nice:?}"));
                }
            }
            let ended = node.end(signal)?;
            if ended != code {
                return Err(format!("{signal:?} gave {ended:?}: {}", node.log()));
            }
            eventually("all of it to end", || !at_work.iter().any(|pid| alive(*pid)))?;
        }
        let socket = std::path::Path::new(bed.variable("TESTBED_RUN")).join("coracle/node.sock");
        let mut node = Node::start(bed, &["--no-precompile"], &[])?;
        if !socket.exists() {
            return Err("no socket for shims".into());
        }
        node.end(Signal::TERM)?;
        if socket.exists() { Err("the socket is left".into()) } else { Ok(()) }
    });
}

#[test]
fn what_cannot_be_is_said_at_once() {
    let daemon = |args: &[&str], env: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle-node"));
        let output = command.arg("daemon").args(args).envs(env.iter().copied()).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let said = daemon(&["--listen", "0.0.0.0:9471"], &[]);
    assert!(said.contains("--listen-beyond-loopback"), "{said}");
    let said = daemon(&["--node-pid", "1", "--listen", "127.0.0.1:0"], &[]);
    assert!(said.contains("--shim"), "{said}");
    let said = daemon(&[], &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://x")]);
    assert!(said.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{said}");
    let said = daemon(&[], &[("CORACLE_CACHE_MIB", "much")]);
    assert!(said.contains("CORACLE_CACHE_MIB"), "{said}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = daemon(&["--listen", &address], &[]);
    assert!(said.contains(&format!("listening on {address}")), "{said}");
}
