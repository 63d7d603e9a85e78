//! The node's object is labelled by what containerd has loaded. The API server here only keeps what it is told; calls of a
//! real one are the tests of the cluster.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

use crate::bed::eventually;
use crate::node::Node;

/// Requests, as they came.
type Asked = Arc<Mutex<Vec<String>>>;

/// A service account in a folder, and its server's port.
fn server(account: &std::path::Path) -> (u16, Asked) {
    let authority = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(account.join("ca.crt"), authority.cert.pem()).unwrap();
    std::fs::write(account.join("token"), "s3cret").unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(authority.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![authority.cert.der().clone()], key)
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let (port, asked) = (listener.local_addr().unwrap().port(), Asked::default());
    let kept = Arc::clone(&asked);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = acceptor.accept(stream).await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"}") {
                    let mut piece = [0; 4096];
                    let length = stream.read(&mut piece).await.unwrap();
                    request.extend_from_slice(&piece[..length]);
                }
                kept.lock().unwrap().push(String::from_utf8(request).unwrap());
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                stream.write_all(answer).await.unwrap();
                let _ = stream.shutdown().await;
            }
        });
    });
    (port, asked)
}

#[test]
fn the_node_s_label_says_what_containerd_has_loaded() {
    let label = |value| format!(r#"{{"metadata":{{"labels":{{"coracle.dev/wasm":"{value}"}}}}}}"#);
    for (daemon, handler, value, reason) in [
        ("K21", "wasm", "true", None),
        ("K17", "wasm", "true", None),
        ("K17", "kata", "false", Some("WasmHandlerMissing")),
        ("C21", "wasm", "false", Some("WasmHandlerUnknown")),
    ] {
        let account = tempfile::tempdir().unwrap();
        let (port, asked) = server(account.path());
        let port = port.to_string();
        let folder = account.path().to_str().unwrap();
        let words = ["--kubernetes", "--node-name", "n1", "--service-account", folder];
        let args = [&words[..], &["--handler", handler, "--no-precompile"]].concat();
        let env = [("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", &port)];
        let node = Node::beside(daemon, &args, &env).unwrap();
        let count = 1 + usize::from(reason.is_some());
        eventually("the requests", || asked.lock().unwrap().len() == count)
            .unwrap_or_else(|why| panic!("{why} of {daemon}, {handler}: {}", node.log()));
        let status = if reason.is_some() { 503 } else { 200 };
        eventually("the page about readiness", || {
            node.get("/readyz").is_ok_and(|page| page.status == status)
        })
        .unwrap();
        let asked = asked.lock().unwrap();
        assert!(asked[0].starts_with("PATCH /api/v1/nodes/n1 "), "{asked:?}");
        assert!(
            asked[0].contains("Bearer s3cret") && asked[0].ends_with(&label(value)),
            "{asked:?}"
        );
        if let Some(reason) = reason {
            assert!(asked[1].starts_with("POST /api/v1/namespaces/default/events "), "{asked:?}");
            assert!(asked[1].contains(&format!("\"reason\":\"{reason}\"")), "{asked:?}");
        }
    }
}
