//! Spans of compilations arrive where the standard variables say, by both protocols.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use crate::bed::{eventually, unique};
use crate::node::{Node, import};
use crate::own_bed::on_each_containerd;
use crate::pack::{Form, Image};

/// What has arrived.
type Arrived = Arc<Mutex<Vec<ExportTraceServiceRequest>>>;

/// A receiver of `http/protobuf`, for as long as the test runs.
fn http() -> (SocketAddr, Arrived) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, arrived) = (listener.local_addr().unwrap(), Arrived::default());
    let seen = Arc::clone(&arrived);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut bytes = Vec::new();
            let mut piece = [0; 4096];
            let body = loop {
                let Ok(length @ 1..) = stream.read(&mut piece) else { break None };
                bytes.extend_from_slice(&piece[..length]);
                if let Some(body) = body(&bytes) {
                    break Some(body);
                }
            };
            let request = body.and_then(|body| ExportTraceServiceRequest::decode(body).ok());
            seen.lock().unwrap().extend(request);
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (address, arrived)
}

/// The body of a whole request to the path of traces.
fn body(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    bytes.get(end..end + length.parse::<usize>().ok()?)
}

/// A receiver of `grpc`.
fn grpc() -> (SocketAddr, Arrived) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, arrived) = (listener.local_addr().unwrap(), Arrived::default());
    let seen = Arc::clone(&arrived);
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(call(request, respond, Arc::clone(&seen)));
                }
            }
        });
    });
    (address, arrived)
}

/// One call: a message of five bytes of head and a body.
async fn call(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<hyper::body::Bytes>,
    seen: Arrived,
) {
    let service = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    assert_eq!(request.uri().path(), service);
    let (mut body, mut bytes) = (request.into_body(), Vec::new());
    while let Some(Ok(piece)) = body.data().await {
        let _ = body.flow_control().release_capacity(piece.len());
        bytes.extend_from_slice(&piece);
    }
    seen.lock().unwrap().extend(ExportTraceServiceRequest::decode(&bytes[5..]).ok());
    let head =
        http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut stream = respond.send_response(head, false).unwrap();
    stream.send_data(hyper::body::Bytes::from_static(&[0; 5]), false).unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    stream.send_trailers(trailers).unwrap();
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match &found.value {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => Some(text.clone()),
        Some(AnyValue { value: Some(Value::DoubleValue(number)) }) => Some(number.to_string()),
        _ => None,
    }
}

/// The spans that came under a service's name.
fn spans(arrived: &Arrived, service: &str) -> Vec<Span> {
    let arrived = arrived.lock().unwrap();
    let resources = arrived.iter().flat_map(|request| &request.resource_spans);
    let named = resources.filter(|resource| {
        let facts = resource.resource.as_ref().map(|facts| facts.attributes.as_slice());
        text(facts.unwrap_or_default(), "service.name").as_deref() == Some(service)
    });
    named.flat_map(|resource| &resource.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
}

#[test]
fn a_span_of_each_compilation_arrives_by_both_protocols() {
    on_each_containerd(|bed| {
        for (protocol, (address, arrived)) in [("http/protobuf", http()), ("grpc", grpc())] {
            // By a name, as collectors have one.
            let endpoint = format!("http://localhost:{}", address.port());
            let env = [
                ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_SERVICE_NAME", "node-under-test"),
            ];
            let mut node = Node::start(bed, &[], &env)?;
            let image = Image::pack(&unique("traced"), Form::Rootfs);
            import(bed, &image)?;
            let its = |span: &Span| {
                let is = |key, value: &str| text(&span.attributes, key).as_deref() == Some(value);
                span.name == "precompile" && is("image", &image.name) && is("outcome", "compiled")
            };
            let find = || spans(&arrived, "node-under-test").into_iter().find(its);
            node.becomes("coracle_precompilations_total{outcome=\"compiled\"}", 1.0)?;
            // What is left is sent at the end.
            node.end(rustix::process::Signal::TERM)?;
            eventually("a span", || find().is_some())
                .map_err(|why| format!("{why} by {protocol}: {arrived:?}, {}", node.log()))?;
            let span = find().ok_or("no span")?;
            let seconds =
                text(&span.attributes, "seconds").and_then(|number| number.parse::<f64>().ok());
            let digest = text(&span.attributes, "digest").unwrap_or_default();
            if seconds.is_none_or(|seconds| seconds <= 0.0) || !digest.starts_with("sha256:") {
                return Err(format!("the span does not say enough: {span:?}"));
            }
        }
        Ok(())
    });
}
