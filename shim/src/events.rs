//! Ordered publisher of task events to containerd.
//!
//! One queue, one sender: an event leaves only after the one before it was accepted or given up, so
//! the order of publication is the order containerd sees. Publishing never waits; a queue that is
//! full drops the new event and says so in the log.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use containerd_shim::event::Event;
use containerd_shim::util::{convert_to_any, timestamp};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use containerd_shim_protos::ttrpc::{self, Code, context};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Events waiting while containerd does not answer; more than any pod makes in a restart.
const QUEUE_LIMIT: usize = 1024;
/// How long containerd may take to accept one event before the connection is made anew.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The first pause after a failure; each further one doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// See [`FIRST_PAUSE`].
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The publishing end; cheap to clone.
#[derive(Clone)]
pub struct Events {
    namespace: Arc<str>,
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Something was queued, or the end was announced.
    filled: Notify,
    /// The queue ran empty.
    drained: Notify,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Envelope>,
    /// The sender holds one more that it took out.
    sending: bool,
}

impl Shared {
    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        // Nothing panics while holding the lock, so poison carries no meaning.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next event.
    async fn next(&self) -> Envelope {
        loop {
            let filled = self.filled.notified();
            if let Some(envelope) = self.take() {
                return envelope;
            }
            filled.await;
        }
    }

    fn take(&self) -> Option<Envelope> {
        let mut queue = self.queue();
        let envelope = queue.waiting.pop_front()?;
        queue.sending = true;
        Some(envelope)
    }

    fn done(&self) {
        let mut queue = self.queue();
        queue.sending = false;
        if queue.waiting.is_empty() {
            self.drained.notify_waiters();
        }
    }
}

impl Events {
    /// Starts the sender on the current runtime. It connects at the first event.
    ///
    /// `patience` bounds the attempts for one event.
    pub fn start(namespace: &str, address: &Path, patience: Duration) -> Self {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            filled: Notify::new(),
            drained: Notify::new(),
        });
        let mut sender = Sender { address: address.to_owned(), patience, client: None };
        let queue = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                let envelope = queue.next().await;
                sender.deliver(envelope).await;
                queue.done();
            }
        });
        Self { namespace: namespace.into(), shared }
    }

    /// Queues one event behind all earlier ones. Never waits and never fails the caller.
    pub fn publish(&self, event: impl Event) {
        let topic = event.topic();
        let envelope = match self.envelope(event, &topic) {
            Ok(envelope) => envelope,
            Err(error) => return tracing::error!(topic, %error, "event cannot be encoded"),
        };
        let mut queue = self.shared.queue();
        if queue.waiting.len() >= QUEUE_LIMIT {
            return tracing::error!(
                topic,
                "event dropped: containerd accepts none and the queue is full"
            );
        }
        queue.waiting.push_back(envelope);
        self.shared.filled.notify_one();
    }

    fn envelope(&self, event: impl Event, topic: &str) -> Result<Envelope, containerd_shim::Error> {
        let mut envelope = Envelope::new();
        envelope.set_timestamp(timestamp()?);
        envelope.set_namespace(self.namespace.to_string());
        envelope.set_topic(topic.to_owned());
        envelope.set_event(convert_to_any(Box::new(event))?);
        Ok(envelope)
    }

    /// Waits until everything queued is out, at most `limit`.
    pub async fn drain(&self, limit: Duration) {
        let empty = async {
            loop {
                let drained = self.shared.drained.notified();
                {
                    let queue = self.shared.queue();
                    if queue.waiting.is_empty() && !queue.sending {
                        return;
                    }
                }
                drained.await;
            }
        };
        if tokio::time::timeout(limit, empty).await.is_err() {
            tracing::warn!(left = self.shared.queue().waiting.len(), "events left unpublished");
        }
    }
}

/// The sending end: one connection, made when needed and kept.
struct Sender {
    address: PathBuf,
    patience: Duration,
    client: Option<EventsClient>,
}

impl Sender {
    /// Tries until containerd accepts or refuses the event, or patience ends.
    async fn deliver(&mut self, envelope: Envelope) {
        let topic = envelope.topic.clone();
        let mut request = ForwardRequest::new();
        request.set_envelope(envelope);
        let give_up = Instant::now() + self.patience;
        let mut pause = FIRST_PAUSE;
        loop {
            let failure = match self.attempt(&request).await {
                Ok(()) => return,
                Err(failure) => failure,
            };
            if failure.is_final() || Instant::now() + pause > give_up {
                return tracing::error!(topic, error = %failure, "event not published");
            }
            tracing::debug!(topic, error = %failure, "event will be tried again");
            self.client = None;
            tokio::time::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    async fn attempt(&mut self, request: &ForwardRequest) -> Result<(), Failure> {
        let client = match &self.client {
            Some(client) => client,
            None => {
                let stream = UnixStream::connect(&self.address).await.map_err(Failure::Connect)?;
                self.client.insert(EventsClient::new(Client::new(stream.into())))
            }
        };
        client.forward(context::with_duration(CALL_TIMEOUT), request).await?;
        Ok(())
    }
}

/// Why one attempt failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("connect to containerd: {0}")]
    Connect(#[source] std::io::Error),
    #[error("forward to containerd: {0}")]
    Forward(#[from] ttrpc::Error),
}

impl Failure {
    /// containerd understood and refused: saying it again does not help.
    fn is_final(&self) -> bool {
        let Self::Forward(ttrpc::Error::RpcStatus(status)) = self else { return false };
        !matches!(
            status.code.enum_value(),
            Ok(Code::UNAVAILABLE | Code::DEADLINE_EXCEEDED | Code::RESOURCE_EXHAUSTED)
        )
    }
}

#[cfg(test)]
mod tests;
