//! Tells the cluster whether this node runs WebAssembly pods: what containerd has loaded counts, not what was configured.
//!
//! That changes with a restart of containerd, which ends the connection of [`super::watch`]; so it is asked at each
//! connection and at no other time.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use coracle_cri::{CriError, Runtimes};
use tokio::sync::watch::Receiver;

use super::cluster::{Cluster, Complaint};
use super::containerd::Containerd;
use super::repair::Repair;

/// How long CRI may take for one answer.
const CRI_LIMIT: Duration = Duration::from_secs(10);
/// How often CRI is asked that is not there: it is loaded a moment after containerd answers.
const ATTEMPTS: u32 = 10;
/// Pauses between two attempts, the first and the longest; each is double the one before.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

/// What is said about the node, and where.
#[derive(Debug)]
pub(crate) struct Announcer {
    pub(crate) cluster: Cluster,
    /// containerd's socket, as this process sees it.
    pub(crate) socket: PathBuf,
    /// The label.
    pub(crate) label: String,
    /// The handler.
    pub(crate) handler: String,
    /// Installs again when the handler is missing.
    pub(crate) repair: Option<Repair>,
    /// What the node's label says.
    pub(crate) told: Arc<Told>,
}

/// What the node's label says, for who asks whether this node is ready.
#[derive(Debug, Default)]
pub(crate) struct Told(AtomicU8);

impl Told {
    /// Whether pods can come; `None` while the label is not set.
    pub(crate) fn loaded(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            told => Some(told == 1),
        }
    }

    fn set(&self, loaded: Option<bool>) {
        self.0.store(loaded.map_or(0, |loaded| if loaded { 1 } else { 2 }), Ordering::Relaxed);
    }
}

/// What is to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// Pods can come.
    Loaded,
    /// They cannot.
    Missing(Complaint),
}

impl Verdict {
    fn of(handler: &str, answer: Result<Runtimes, CriError>) -> Self {
        let complaint = match answer {
            Ok(runtimes) if runtimes.handlers.contains(handler) => return Self::Loaded,
            Ok(runtimes) => {
                let known: Vec<&str> = runtimes.handlers.iter().map(String::as_str).collect();
                let known = known.join(", ");
                let message = format!(
                    "containerd has not loaded the runtime handler {handler:?}, only {known}: see `coracle doctor` on the node"
                );
                Complaint { reason: "WasmHandlerMissing", message }
            }
            Err(error) => Complaint { reason: "WasmHandlerUnknown", message: error.to_string() },
        };
        Self::Missing(complaint)
    }

    fn label(&self) -> &'static str {
        match self {
            Self::Loaded => "true",
            Self::Missing(_) => "false",
        }
    }
}

impl Announcer {
    /// Tells at each connection, for ever.
    pub(crate) async fn announce(self: Arc<Self>, mut connected: Receiver<Option<Containerd>>) {
        loop {
            if connected.wait_for(Option::is_some).await.is_err() {
                return;
            }
            tokio::select! {
                () = self.tell() => {
                    if connected.wait_for(Option::is_none).await.is_err() {
                        return;
                    }
                }
                // It is gone again: what it has loaded next is another question.
                _ = gone(connected.clone()) => {}
            }
        }
    }

    async fn tell(&self) {
        self.told.set(None);
        let verdict = self.verdict().await;
        let label = verdict.label();
        until("label this node", || self.cluster.label(&self.label, Some(label))).await;
        self.told.set(Some(verdict == Verdict::Loaded));
        tracing::info!(label = self.label, value = label, "the node is labelled");
        if let Verdict::Missing(complaint) = &verdict {
            tracing::warn!(
                reason = complaint.reason,
                message = complaint.message,
                "no pods can come"
            );
            until("say what is wrong", || self.cluster.complain(complaint)).await;
            self.repair().await;
        }
    }

    /// A containerd with the handler is one that was restarted, which is another connection.
    async fn repair(&self) {
        let Some(repair) = &self.repair else { return };
        match repair.attempt().await {
            Ok(()) => tracing::info!("installed again"),
            Err(message) => {
                tracing::warn!(message, "not repaired");
                let complaint = Complaint { reason: "WasmRepairFailed", message };
                until("say what is wrong", || self.cluster.complain(&complaint)).await;
            }
        }
    }

    async fn verdict(&self) -> Verdict {
        let [mut pause, longest] = PAUSES;
        let mut attempt = 1;
        loop {
            let answer = coracle_cri::runtimes(&self.socket, CRI_LIMIT).await;
            // A plugin that is not there does not come without a restart.
            if matches!(answer, Ok(_) | Err(CriError::NoCri { .. })) || attempt == ATTEMPTS {
                return Verdict::of(&self.handler, answer);
            }
            attempt += 1;
            tokio::time::sleep(pause).await;
            pause = longest.min(pause * 2);
        }
    }
}

async fn gone(mut connected: Receiver<Option<Containerd>>) {
    // Nobody who could connect is left: that is the end too.
    let _ = connected.wait_for(Option::is_none).await;
}

/// Calls until the API server has done it, and says once why it has not.
pub(super) async fn until<F>(act: &'static str, call: impl Fn() -> F)
where
    F: Future<Output = Result<(), crate::api::ClusterError>>,
{
    let [mut pause, longest] = PAUSES;
    let mut told = false;
    while let Err(error) = call().await {
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(%error, "cannot {act} now: it will be tried again");
        }
        tokio::time::sleep(pause).await;
        pause = longest.min(pause * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_containerd_has_loaded_decides() {
        let runtimes = |names: &[&str]| Runtimes {
            handlers: names.iter().map(|name| (*name).to_owned()).collect(),
            not_ready: Vec::new(),
        };
        assert_eq!(Verdict::of("wasm", Ok(runtimes(&["runc", "wasm"]))), Verdict::Loaded);
        let missing = Verdict::of("wasm", Ok(runtimes(&["kata", "runc"])));
        assert_eq!(missing.label(), "false");
        let Verdict::Missing(complaint) = missing else { panic!("it is loaded") };
        assert!(complaint.message.contains("\"wasm\", only kata, runc"), "{complaint:?}");
        let path = PathBuf::from("/run/c.sock");
        let Verdict::Missing(complaint) = Verdict::of("wasm", Err(CriError::NoCri { path })) else {
            panic!("it is loaded")
        };
        assert_eq!(complaint.reason, "WasmHandlerUnknown");
    }
}
