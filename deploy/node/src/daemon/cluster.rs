//! What the daemon asks of the cluster: a patch of its node object, and events about it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::SystemTime;

use hyper::Method;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::api::{Api, ClusterError, Request};

/// The name under which events come.
const COMPONENT: &str = "coracle-node";

/// The API server, and this machine's node object.
#[derive(Debug)]
pub(crate) struct Cluster {
    api: Api,
    node: String,
}

/// Something that is wrong with the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// One word for programs.
    pub(crate) reason: &'static str,
    /// One sentence for people.
    pub(crate) message: String,
}

impl Cluster {
    /// The cluster that this pod is in.
    ///
    /// # Errors
    /// Outside of a pod.
    pub(crate) fn of(
        env: &dyn Fn(&str) -> Option<OsString>,
        account: PathBuf,
        node: String,
    ) -> Result<Self, ClusterError> {
        Ok(Self { api: Api::of(env, account)?, node })
    }

    /// Sets a label of the node object, or takes it away.
    pub(crate) async fn label(&self, label: &str, value: Option<&str>) -> Result<(), ClusterError> {
        let path = format!("/api/v1/nodes/{}", self.node);
        let patch = json!({ "metadata": { "labels": { label: value } } });
        let request = Request { act: "label this node", method: Method::PATCH, path: &path };
        let body = Some(("application/merge-patch+json", &patch));
        self.api.call::<IgnoredAny>(&request, body).await.map(drop)
    }

    /// Says on the node object that something is wrong.
    pub(crate) async fn complain(&self, complaint: &Complaint) -> Result<(), ClusterError> {
        let event = self.event(complaint, SystemTime::now());
        let path = "/api/v1/namespaces/default/events";
        let request = Request { act: "create an event", method: Method::POST, path };
        self.api.call::<IgnoredAny>(&request, Some(("application/json", &event))).await.map(drop)
    }

    fn event(&self, Complaint { reason, message }: &Complaint, now: SystemTime) -> Value {
        let now = prost_types::Timestamp { nanos: 0, ..now.into() }.to_string();
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": { "generateName": format!("{}.coracle-", self.node), "namespace": "default" },
            // The kubelet writes the name for the uid of its own events, by which `kubectl describe node` finds them.
            "involvedObject": { "kind": "Node", "name": self.node, "uid": self.node },
            "type": "Warning",
            "reason": reason,
            "message": message,
            "source": { "component": COMPONENT, "host": self.node },
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        })
    }
}

#[cfg(test)]
mod tests;
