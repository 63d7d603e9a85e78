//! Against a server of HTTPS with an authority of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

use super::*;

fn cluster(host: &str, port: u16, account: &Path) -> Cluster {
    let (host, port) = (OsString::from(host), OsString::from(port.to_string()));
    let find = |name: &str| Some(if name.ends_with("HOST") { host.clone() } else { port.clone() });
    Cluster::of(&find, account.to_owned(), "n1".into()).unwrap()
}

/// A service account, and a server that answers once with this; gives what it was asked.
async fn server(account: &Path, answer: &str) -> (Cluster, tokio::task::JoinHandle<String>) {
    let authority = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(account.join("ca.crt"), authority.cert.pem()).unwrap();
    std::fs::write(account.join("token"), "s3cret\n").unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(authority.signing_key.serialize_der()));
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![authority.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = answer.to_owned();
    let asked = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await else {
            return String::new();
        };
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            let mut piece = [0; 1024];
            let length = stream.read(&mut piece).await.unwrap();
            request.extend_from_slice(&piece[..length]);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        String::from_utf8(request).unwrap()
    });
    (cluster("127.0.0.1", port, account), asked)
}

#[tokio::test]
async fn a_label_is_a_merge_patch_with_the_token_of_now() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, asked) =
        server(dir.path(), "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    std::fs::write(dir.path().join("token"), "renewed").unwrap();
    cluster.label("coracle.dev/wasm", Some("true")).await.unwrap();
    let asked = asked.await.unwrap().to_lowercase();
    assert!(asked.starts_with("patch /api/v1/nodes/n1 http/1.1\r\n"), "{asked}");
    assert!(asked.contains("authorization: bearer renewed\r\n"), "{asked}");
    assert!(asked.contains("content-type: application/merge-patch+json\r\n"), "{asked}");
    assert!(asked.ends_with(r#"{"metadata":{"labels":{"coracle.dev/wasm":"true"}}}"#), "{asked}");
}

#[tokio::test]
async fn a_refusal_is_told_with_its_cure() {
    let dir = tempfile::tempdir().unwrap();
    let body = r#"{"kind":"Status","message":"nodes \"n1\" is forbidden"}"#;
    let head = format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let (cluster, _asked) = server(dir.path(), &head).await;
    let complaint = Complaint { reason: "R", message: "m".into() };
    let error = cluster.complain(&complaint).await.unwrap_err().to_string();
    assert!(
        error.contains("nodes \"n1\" is forbidden") && error.contains("the service account needs"),
        "{error}"
    );
}

#[tokio::test]
async fn nobody_but_the_cluster_gets_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, asked) = server(dir.path(), "").await;
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(dir.path().join("ca.crt"), other.cert.pem()).unwrap();
    let error = cluster.label("l", Some("true")).await.unwrap_err();
    assert!(matches!(error, ClusterError::Connection { .. }), "{error}");
    assert_eq!(asked.await.unwrap(), "");
    std::fs::write(dir.path().join("ca.crt"), "none").unwrap();
    let error = cluster.label("l", Some("true")).await.unwrap_err().to_string();
    assert!(error.contains("ca.crt: it holds no certificate"), "{error}");
    std::fs::remove_file(dir.path().join("token")).unwrap();
    let error = cluster.label("l", Some("true")).await.unwrap_err().to_string();
    assert!(error.contains("token: No such file"), "{error}");
}

#[test]
fn outside_of_a_pod_it_is_said() {
    let of = |variables: &[(&str, &str)]| {
        let find = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Cluster::of(&find, PathBuf::new(), "n".into())
    };
    let host = ("KUBERNETES_SERVICE_HOST", "fd00::1");
    assert!(of(&[]).unwrap_err().to_string().contains("is for a pod"));
    assert!(of(&[host]).unwrap_err().to_string().contains("KUBERNETES_SERVICE_PORT"));
    let bad = of(&[host, ("KUBERNETES_SERVICE_PORT", "https")]).unwrap_err().to_string();
    assert!(bad.contains("\"https\" is no port"), "{bad}");
    assert!(of(&[host, ("KUBERNETES_SERVICE_PORT", "443")]).is_ok());
}

#[test]
fn an_event_is_about_the_node() {
    let cluster = cluster("localhost", 1, Path::new("/nowhere"));
    let complaint = Complaint { reason: "WasmHandlerMissing", message: "why".into() };
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_500);
    let event = cluster.event(&complaint, time);
    assert_eq!(event["involvedObject"], json!({ "kind": "Node", "name": "n1", "uid": "n1" }));
    assert_eq!(event["lastTimestamp"], "2023-11-14T22:13:20Z");
    assert_eq!(
        (&event["reason"], &event["type"]),
        (&json!("WasmHandlerMissing"), &json!("Warning"))
    );
}
