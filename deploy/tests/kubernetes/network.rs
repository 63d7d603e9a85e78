//! Guests that others reach, and that reach others by name.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::cluster::{Namespace, Running, eventually};

/// Servers in two languages behind one service each, and clients that ask for them by short and by full name.
pub(crate) fn a_service_is_found_by_name(namespace: &Namespace) -> Result<()> {
    for (name, image) in [("c", "sockets:layer"), ("rust", "sockets-rust:layer")] {
        let mut server = namespace.container("server", image, &["serve", "8080", "1000000"]);
        server["readinessProbe"] = json!({ "tcpSocket": { "port": 8080 }, "periodSeconds": 1 });
        let mut spec = Namespace::pod_spec(&[server]);
        spec["restartPolicy"] = json!("Always");
        namespace.apply(&json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
            "spec": {
                "replicas": 2, "selector": { "matchLabels": { "app": name } },
                "template": { "metadata": { "labels": { "app": name } }, "spec": spec },
            },
        }))?;
        namespace.apply(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": { "selector": { "app": name }, "ports": [{ "port": 80, "targetPort": 8080 }] },
        }))?;
    }
    for name in ["c", "rust"] {
        namespace.kubectl(&[
            "rollout",
            "status",
            &format!("deployment/{name}"),
            "--timeout=120s",
        ])?;
    }
    let full = |name: &str| format!("{name}.{}.svc.cluster.local", namespace.name);
    let asked = [
        ("c-short", "sockets:layer", "rust".to_owned(), "hello from Rust"),
        ("c-full", "sockets:layer", full("rust"), "hello from Rust"),
        ("rust-short", "sockets-rust:layer", "c".to_owned(), "hello from C"),
        ("rust-full", "sockets-rust:layer", full("c"), "hello from C"),
    ];
    for (client, image, host, _) in &asked {
        let container = namespace.container("client", image, &["get", host, "80"]);
        namespace.apply(&namespace.pod(client, &[container]))?;
    }
    for (client, _, host, words) in &asked {
        let pod = namespace.phase(client, &["Succeeded", "Failed"])?;
        let logs = namespace.logs(client, "client")?;
        let answered = pod["status"]["phase"] == "Succeeded" && logs.contains(words);
        ensure!(
            answered,
            "{client} asked {host}: {logs:?}, {}",
            pod["status"]["containerStatuses"]
        );
    }
    Ok(())
}

pub(crate) fn port_forward_reaches_the_guest(namespace: &Namespace) -> Result<()> {
    let server = namespace.container("server", "sockets-rust:layer", &["serve", "8080", "1000000"]);
    namespace.apply(&namespace.pod("server", &[server]))?;
    namespace.ready("server")?;
    eventually("server", || {
        Ok(namespace.logs("server", "server")?.contains("serving").then_some(()))
    })?;
    let mut command = namespace.command(&["port-forward", "pod/server", ":8080"]);
    let mut forward = Running(command.stdout(Stdio::piped()).spawn()?);
    let out = forward.0.stdout.take().context("kubectl has no standard output")?;
    // Kept to the end: kubectl says more, and dies when nobody listens.
    let mut out = BufReader::new(out);
    let mut line = String::new();
    out.read_line(&mut line)?;
    // "Forwarding from 127.0.0.1:PORT -> 8080"
    let port = line.split_whitespace().nth(2).and_then(|address| address.rsplit_once(':'));
    let port: u16 = port.with_context(|| format!("no port in {line:?}"))?.1.parse()?;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200") && answer.contains("hello from Rust"), "{answer:?}");
    Ok(())
}
