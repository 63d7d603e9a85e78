//! containerd's services, as far as the daemon asks for them.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use containerd_client::connect;
use containerd_client::services::v1 as api;
use containerd_client::tonic::metadata::{Ascii, MetadataValue};
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Code, Request, Response, Status, Streaming};
use containerd_client::types::Envelope;
use prost::Message as _;
use prost_types::Any;

use api::containers_client::ContainersClient;
use api::events_client::EventsClient;
use api::images_client::ImagesClient;
use api::namespaces_client::NamespacesClient;
use api::tasks_client::TasksClient;
use api::version_client::VersionClient;

/// containerd answers from its own disk; longer than this means that it hangs.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// A node full of images and containers has long lists.
const LONGEST_ANSWER: usize = 64 << 20;
/// The header that selects a namespace.
const NAMESPACE: &str = "containerd-namespace";
/// The event by which the daemon learns that it hears events.
const HELLO: &str = "/coracle/node/hello";
/// What it listens to.
const TOPICS: [&str; 4] = ["/images/create", "/images/update", "/snapshot/commit", HELLO];

/// Why containerd did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// Nobody listens there.
    #[error("connect to containerd at {path}: {reason}", path = path.display())]
    Connect {
        /// The socket.
        path: std::path::PathBuf,
        /// The innermost reason.
        reason: String,
    },
    /// A call failed.
    #[error("containerd: {act}: {reason}")]
    Call {
        /// What was asked for.
        act: &'static str,
        /// containerd's own words.
        reason: String,
    },
    /// No answer in time.
    #[error("containerd: {act}: no answer within {} s", limit.as_secs_f32())]
    Late {
        /// What was asked for.
        act: &'static str,
        /// The time that it had.
        limit: Duration,
    },
    /// A namespace whose name cannot be sent.
    #[error("containerd's namespace {0:?} cannot be named in a call")]
    Namespace(String),
    /// The stream of events ended.
    #[error("containerd has ended the stream of events")]
    Ended,
}

/// What matters of containerd's two messages about images, which both begin with it.
#[derive(Clone, PartialEq, prost::Message)]
struct ImageEvent {
    #[prost(string, tag = "1")]
    name: String,
}

/// An image by its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Image {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Of its manifest or index.
    pub(crate) digest: String,
}

/// Something that has happened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// An image has a new name or content.
    Image { namespace: String, name: String },
    /// A layer was unpacked.
    Unpacked,
    /// The daemon's own.
    Hello,
    /// Nothing that matters.
    Other,
}

/// A container's record.
#[derive(Debug, Clone, Default)]
pub(crate) struct Container {
    pub(crate) namespace: String,
    pub(crate) id: String,
    pub(crate) labels: HashMap<String, String>,
}

/// A connection, which is made anew by itself when it breaks.
#[derive(Debug, Clone)]
pub(crate) struct Containerd {
    channel: Channel,
}

/// What containerd sends, until it ends.
pub(crate) struct Events(Streaming<Envelope>);

impl Containerd {
    /// Connects.
    pub(crate) async fn connect(path: &Path) -> Result<Self, Fault> {
        let failed = |reason| Fault::Connect { path: path.to_owned(), reason };
        match tokio::time::timeout(CALL_LIMIT, connect(path)).await {
            Ok(Ok(channel)) => Ok(Self { channel }),
            Ok(Err(error)) => Err(failed(innermost(&error))),
            Err(_) => Err(failed("no answer".to_owned())),
        }
    }

    /// Whether it answers within that time.
    pub(crate) async fn answers(&self, limit: Duration) -> Result<(), Fault> {
        let mut client = VersionClient::new(self.channel.clone());
        call("ask for the version", limit, client.version(())).await.map(drop)
    }

    /// The names of all namespaces.
    pub(crate) async fn namespaces(&self) -> Result<Vec<String>, Fault> {
        let mut client = NamespacesClient::new(self.channel.clone());
        let request = api::ListNamespacesRequest::default();
        let list = call("list namespaces", CALL_LIMIT, client.list(request)).await?;
        Ok(list.namespaces.into_iter().map(|namespace| namespace.name).collect())
    }

    /// All images of a namespace.
    pub(crate) async fn images(&self, namespace: &str) -> Result<Vec<Image>, Fault> {
        let mut client =
            ImagesClient::new(self.channel.clone()).max_decoding_message_size(LONGEST_ANSWER);
        let request = within(api::ListImagesRequest::default(), namespace)?;
        let list = call("list images", CALL_LIMIT, client.list(request)).await?;
        Ok(list.images.into_iter().filter_map(|image| Image::of(namespace, image)).collect())
    }

    /// An image, if there still is one of that name.
    pub(crate) async fn image(&self, namespace: &str, name: &str) -> Result<Option<Image>, Fault> {
        let mut client = ImagesClient::new(self.channel.clone());
        let request = within(api::GetImageRequest { name: name.to_owned() }, namespace)?;
        let found = found(call_status("look up an image", CALL_LIMIT, client.get(request)).await)?;
        Ok(found.and_then(|answer| answer.image).and_then(|image| Image::of(namespace, image)))
    }

    /// Listens to what happens in all namespaces. What happens after this has returned is heard: containerd's answer
    /// alone does not say so, and it comes with the first event only, so this waits for one of its own.
    pub(crate) async fn listen(&self, mut early: impl FnMut(Event)) -> Result<Events, Fault> {
        let filters = TOPICS.iter().map(|topic| format!("topic==\"{topic}\"")).collect();
        let mut client = EventsClient::new(self.channel.clone());
        let listening = async {
            let subscribing = client.subscribe(api::SubscribeRequest { filters });
            let stream = subscribing.await.map_err(|status| failed("listen to events", &status))?;
            let mut events = Events(stream.into_inner());
            loop {
                match events.next().await? {
                    Event::Hello => return Ok(events),
                    other => early(other),
                }
            }
        };
        let greeting = async {
            loop {
                if let Err(error) = self.greet().await {
                    return error;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let both = async {
            tokio::select! {
                events = listening => events,
                error = greeting => Err(error),
            }
        };
        let late = Fault::Late { act: "listen to events", limit: CALL_LIMIT };
        tokio::time::timeout(CALL_LIMIT, both).await.unwrap_or(Err(late))
    }

    async fn greet(&self) -> Result<(), Fault> {
        let mut client = EventsClient::new(self.channel.clone());
        // A type that every listener of containerd can decode.
        let event = Any { type_url: "google.protobuf.Empty".into(), value: Vec::new() };
        let request = api::PublishRequest { topic: HELLO.into(), event: Some(event) };
        let request = within(request, "default")?;
        call("publish an event", CALL_LIMIT, client.publish(request)).await.map(drop)
    }

    /// The containers of a namespace that have this runtime.
    pub(crate) async fn containers(
        &self,
        namespace: &str,
        runtime: &str,
        limit: Duration,
    ) -> Result<Vec<Container>, Fault> {
        let mut client =
            ContainersClient::new(self.channel.clone()).max_decoding_message_size(LONGEST_ANSWER);
        let filters = vec![format!("runtime.name=={runtime:?}")];
        let request = within(api::ListContainersRequest { filters }, namespace)?;
        let list = call("list containers", limit, client.list(request)).await?;
        let record = |record: api::Container| Container {
            namespace: namespace.to_owned(),
            id: record.id,
            labels: record.labels,
        };
        Ok(list.containers.into_iter().map(record).collect())
    }

    /// The state of a container's task as containerd numbers it; `None` without a task.
    pub(crate) async fn task(
        &self,
        container: &Container,
        limit: Duration,
    ) -> Result<Option<i32>, Fault> {
        let mut client = TasksClient::new(self.channel.clone());
        let request = api::GetRequest { container_id: container.id.clone(), ..Default::default() };
        let request = within(request, &container.namespace)?;
        let answer = call_status("ask for a task", limit, client.get(request)).await;
        Ok(found(answer)?.and_then(|answer| answer.process).map(|process| process.status))
    }

    /// The statistics of a container's task; `None` without any.
    pub(crate) async fn statistics(
        &self,
        container: &Container,
        limit: Duration,
    ) -> Result<Option<Any>, Fault> {
        let mut client = TasksClient::new(self.channel.clone());
        let filters = vec![format!("id=={:?}", container.id)];
        let request = within(api::MetricsRequest { filters }, &container.namespace)?;
        let answer = call("read statistics", limit, client.metrics(request)).await?;
        Ok(answer.metrics.into_iter().find_map(|metric| metric.data))
    }
}

impl Image {
    fn of(namespace: &str, image: api::Image) -> Option<Self> {
        let digest = image.target?.digest;
        Some(Self { namespace: namespace.to_owned(), name: image.name, digest })
    }
}

impl Events {
    /// The next one.
    pub(crate) async fn next(&mut self) -> Result<Event, Fault> {
        let next = self.0.message().await;
        let envelope = next.map_err(|status| failed("listen to events", &status))?;
        Ok(Event::of(envelope.ok_or(Fault::Ended)?))
    }
}

impl Event {
    fn of(envelope: Envelope) -> Self {
        let value = envelope.event.unwrap_or_default().value;
        let name = match envelope.topic.as_str() {
            "/images/create" | "/images/update" => {
                ImageEvent::decode(value.as_slice()).map(|event| event.name)
            }
            "/snapshot/commit" => return Self::Unpacked,
            HELLO => return Self::Hello,
            _ => return Self::Other,
        };
        match name {
            Ok(name) if !name.is_empty() => Self::Image { namespace: envelope.namespace, name },
            _ => Self::Other,
        }
    }
}

fn within<T>(message: T, namespace: &str) -> Result<Request<T>, Fault> {
    let value: MetadataValue<Ascii> =
        namespace.parse().map_err(|_| Fault::Namespace(namespace.to_owned()))?;
    let mut request = Request::new(message);
    request.metadata_mut().insert(NAMESPACE, value);
    Ok(request)
}

async fn call<T>(
    act: &'static str,
    limit: Duration,
    work: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Fault> {
    call_status(act, limit, work).await?.map_err(|status| failed(act, &status))
}

async fn call_status<T>(
    act: &'static str,
    limit: Duration,
    work: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Result<T, Status>, Fault> {
    match tokio::time::timeout(limit, work).await {
        Ok(answer) => Ok(answer.map(Response::into_inner)),
        Err(_) => Err(Fault::Late { act, limit }),
    }
}

/// What is not there is no fault.
fn found<T>(answer: Result<Result<T, Status>, Fault>) -> Result<Option<T>, Fault> {
    match answer? {
        Ok(found) => Ok(Some(found)),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(failed("look something up", &status)),
    }
}

fn failed(act: &'static str, status: &Status) -> Fault {
    Fault::Call { act, reason: status.message().to_owned() }
}

/// The transport says only that it failed; the kernel's word is at the end of the chain.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(topic: &str, value: Vec<u8>) -> Envelope {
        let event = Some(Any { type_url: String::new(), value });
        Envelope { namespace: "n".into(), topic: topic.into(), event, timestamp: None }
    }

    #[test]
    fn events_become_what_matters_of_them() {
        let image = ImageEvent { name: "i:1".into() }.encode_to_vec();
        let seen = Event::of(envelope("/images/create", image));
        assert_eq!(seen, Event::Image { namespace: "n".into(), name: "i:1".into() });
        assert_eq!(Event::of(envelope("/snapshot/commit", vec![])), Event::Unpacked);
        assert_eq!(Event::of(envelope("/images/create", vec![])), Event::Other);
        assert_eq!(Event::of(envelope("/images/update", vec![0xff; 9])), Event::Other);
        assert_eq!(Event::of(envelope("/tasks/exit", vec![])), Event::Other);
    }
}
