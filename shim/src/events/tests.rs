//! The publisher against real sockets.

use super::*;
use containerd_shim_protos::api::Empty;
use containerd_shim_protos::events::task::{TaskCreate, TaskExit, TaskStart};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::shim_async::create_events;
use containerd_shim_protos::ttrpc::asynchronous::{Server, TtrpcContext, transport::Listener};
use tokio::sync::mpsc;

/// containerd's events service, which can refuse.
struct Containerd {
    seen: mpsc::UnboundedSender<Envelope>,
    refuse: Option<Code>,
}

#[async_trait::async_trait]
impl containerd_shim_protos::shim_async::Events for Containerd {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        let _ = self.seen.send(request.envelope().clone());
        match self.refuse {
            Some(code) => Err(ttrpc::Error::RpcStatus(ttrpc::get_status(code, "no"))),
            None => Ok(Empty::default()),
        }
    }
}

async fn listen(path: &Path, refuse: Option<Code>) -> (Server, mpsc::UnboundedReceiver<Envelope>) {
    let (seen, receiver) = mpsc::unbounded_channel();
    let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
    let mut server = Server::new()
        .add_listener(Listener::try_from(listener).unwrap())
        .register_service(create_events(Arc::new(Containerd { seen, refuse })));
    server.start().await.unwrap();
    (server, receiver)
}

fn start_event(number: u32) -> TaskStart {
    TaskStart { container_id: "c".into(), pid: number, ..TaskStart::default() }
}

#[tokio::test]
async fn order_topic_namespace_and_type() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let (_server, mut seen) = listen(&path, None).await;
    let events = Events::start("k8s.io", &path, Duration::from_secs(5));
    events.publish(TaskCreate::default());
    events.publish(start_event(7));
    events.publish(TaskExit::default());
    events.drain(Duration::from_secs(5)).await;
    let mut topics = Vec::new();
    while let Ok(envelope) = seen.try_recv() {
        assert_eq!(envelope.namespace, "k8s.io");
        assert!(envelope.timestamp.seconds > 0);
        if envelope.topic == "/tasks/start" {
            assert_eq!(envelope.event.type_url, "containerd.events.TaskStart");
            assert_eq!(TaskStart::parse_from_bytes(&envelope.event.value).unwrap().pid, 7);
        }
        topics.push(envelope.topic);
    }
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit"]);
}

#[tokio::test]
async fn containerd_may_come_late_and_go_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let events = Events::start("n", &path, Duration::from_secs(20));
    for number in 0..3 {
        events.publish(start_event(number));
    }
    tokio::time::sleep(Duration::from_millis(120)).await;
    let (mut server, mut seen) = listen(&path, None).await;
    events.drain(Duration::from_secs(10)).await;
    server.shutdown().await.unwrap();
    std::fs::remove_file(&path).unwrap();
    events.publish(start_event(3));
    tokio::time::sleep(Duration::from_millis(120)).await;
    let (_server, mut later) = listen(&path, None).await;
    events.drain(Duration::from_secs(10)).await;
    let pid = |e: Envelope| TaskStart::parse_from_bytes(&e.event.value).unwrap().pid;
    for number in 0..3 {
        assert_eq!(pid(seen.try_recv().unwrap()), number);
    }
    assert_eq!(pid(later.try_recv().unwrap()), 3);
}

#[tokio::test]
async fn a_refused_event_is_not_repeated_and_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let (_server, mut seen) = listen(&path, Some(Code::INVALID_ARGUMENT)).await;
    let events = Events::start("n", &path, Duration::from_secs(20));
    events.publish(start_event(0));
    events.publish(start_event(1));
    events.drain(Duration::from_secs(5)).await;
    assert!(seen.try_recv().is_ok() && seen.try_recv().is_ok());
    assert!(seen.try_recv().is_err(), "each event was sent once");
}

#[tokio::test]
async fn without_containerd_the_queue_is_bounded_and_patience_ends() {
    let dir = tempfile::tempdir().unwrap();
    let events = Events::start("n", &dir.path().join("none"), Duration::from_millis(1));
    for number in 0..3000 {
        events.publish(start_event(number));
    }
    assert_eq!(events.shared.queue().waiting.len(), QUEUE_LIMIT);
    events.drain(Duration::from_secs(5)).await;
    assert!(events.shared.queue().waiting.is_empty());
}
