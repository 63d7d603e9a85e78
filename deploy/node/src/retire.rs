//! `coracle-node uninstall-nodes`: has every pod of the chart's DaemonSet take its node's installation back, and waits.
//!
//! The chart runs it before `helm uninstall` removes anything. It changes the DaemonSet's template: what installs a node
//! then uninstalls it, and what was the daemon takes the node's label away and does nothing more. A pod is ready when its
//! node has nothing of us, so the DaemonSet's own count says when all have.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Api, Request};
use crate::cli::RetireArgs;

/// How often the DaemonSet is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// What an installer that refuses ends with: waiting will not change its mind.
const REFUSED: i64 = coracle_installer::EXIT_REFUSED as i64;
/// On the DaemonSet, what is wanted; on its pods, when it was tried.
const ANNOTATION: &str = "coracle.dev/uninstall";
/// Also on nodes whose containers still run.
const FORCE: &str = "force";

/// What counts of a DaemonSet.
#[derive(Debug, Deserialize)]
struct DaemonSet {
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    generation: i64,
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Spec {
    selector: Selector,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Selector {
    match_labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    observed_generation: i64,
    desired_number_scheduled: i64,
    updated_number_scheduled: i64,
    number_ready: i64,
}

/// What counts of a pod.
#[derive(Debug, Deserialize)]
struct Pod {
    metadata: Metadata,
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    init_container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    state: State,
    last_state: State,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    terminated: Option<Terminated>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Terminated {
    exit_code: i64,
    #[serde(default)]
    message: String,
}

#[derive(Debug, Deserialize)]
struct Pods {
    items: Vec<Pod>,
}

impl DaemonSet {
    /// How many of its nodes have a ready pod of this generation or a later one, and how many it has; `None`: nobody has
    /// counted yet.
    fn done(&self, generation: i64) -> Option<(i64, i64)> {
        let Status { desired_number_scheduled: all, .. } = self.status;
        let done = self.status.number_ready.min(self.status.updated_number_scheduled);
        (self.status.observed_generation >= generation).then_some((done, all))
    }

    /// Whether somebody wants it to be done at any price: the release cannot be changed any more, when an uninstallation of
    /// it has failed.
    fn forces(&self) -> bool {
        self.metadata.annotations.get(ANNOTATION).is_some_and(|value| value == FORCE)
    }
}

impl Pod {
    /// How the last try to uninstall ended, if it failed. Pods of an earlier attempt may still be there, and their failures
    /// mean nothing any more.
    fn failure(&self, attempt: &str) -> Option<&Terminated> {
        self.metadata.annotations.get(ANNOTATION).filter(|of| *of == attempt)?;
        let status = self.status.init_container_statuses.first()?;
        let ended = [&status.state, &status.last_state].into_iter();
        ended.filter_map(|state| state.terminated.as_ref()).find(|ended| ended.exit_code != 0)
    }
}

/// What the pods do from now on. A DaemonSet merges containers by their names.
fn patch(args: &RetireArgs, force: bool, attempt: &str) -> Value {
    let mut uninstall = vec!["uninstall".to_owned(), "--node".to_owned()];
    uninstall.extend(args.node.iter().cloned());
    if force {
        uninstall.push("--force".to_owned());
    }
    let mut daemon = vec!["daemon".to_owned(), "--retired".to_owned(), "--kubernetes".to_owned()];
    daemon.extend(args.daemon.iter().cloned());
    json!({ "spec": {
        "updateStrategy": { "rollingUpdate": { "maxUnavailable": "100%" } },
        "template": {
            "metadata": { "annotations": { ANNOTATION: attempt } },
            "spec": {
                "initContainers": [{ "name": "install", "args": uninstall }],
                "containers": [{ "name": "daemon", "args": daemon }],
            },
        },
    }})
}

/// `coracle-node uninstall-nodes`.
///
/// # Errors
/// When the API refuses, a node refuses, or not all are done in time; what is wrong with which node is said.
pub(crate) fn run(args: &RetireArgs) -> Result<()> {
    let env = |name: &str| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
    let api = Api::of(&env, args.service_account.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("making the event loop")?.block_on(retire(&api, args))
}

async fn retire(api: &Api, args: &RetireArgs) -> Result<()> {
    let (name, namespace) = (&args.daemonset, &args.namespace);
    let path = format!("/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}");
    let look = Request { act: "look at the DaemonSet", method: Method::GET, path: &path };
    let change = Request { act: "change the DaemonSet", method: Method::PATCH, path: &path };
    let kind = "application/strategic-merge-patch+json";
    let force = args.force || api.call::<DaemonSet>(&look, None).await?.forces();
    // A second attempt makes new pods: those of the first wait for longer and longer.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let attempt = now.as_millis().to_string();
    let patch = patch(args, force, &attempt);
    let begun: DaemonSet = api.call(&change, Some((kind, &patch))).await?;
    let deadline = Instant::now() + args.timeout;
    let mut told = None;
    loop {
        let daemonset: DaemonSet = api.call(&look, None).await?;
        let count = daemonset.done(begun.metadata.generation);
        if let Some((done, all)) = count
            && told.replace(count) != Some(count)
        {
            eprintln!("coracle: {done} of {all} nodes are as they were");
            if done == all {
                return Ok(());
            }
        }
        let pods = pods(api, args, &daemonset).await?;
        let refusals = complaints(&pods, &attempt, |ended| ended.exit_code == REFUSED);
        if !refusals.is_empty() {
            bail!(
                "these nodes refuse:\n{refusals}To take back all the same: kubectl -n {namespace} annotate daemonset {name} \
                 {ANNOTATION}={FORCE}, and uninstall again"
            );
        }
        if Instant::now() >= deadline {
            let seconds = args.timeout.as_secs();
            let complaints = complaints(&pods, &attempt, |_| true);
            bail!("not every node is done after {seconds} s; see the pods of {name}\n{complaints}");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn pods(api: &Api, args: &RetireArgs, daemonset: &DaemonSet) -> Result<Vec<Pod>> {
    let labels = daemonset.spec.selector.match_labels.iter();
    // Labels are of letters, digits and `-_./`: nothing that a query would take for something else.
    let labels: Vec<String> = labels.map(|(key, value)| format!("{key}%3D{value}")).collect();
    let labels = labels.join("%2C");
    let path = format!("/api/v1/namespaces/{}/pods?labelSelector={labels}", args.namespace);
    let list = Request { act: "list the pods", method: Method::GET, path: &path };
    Ok(api.call::<Pods>(&list, None).await?.items)
}

/// A line for each node whose last try ended so.
fn complaints(pods: &[Pod], attempt: &str, which: impl Fn(&Terminated) -> bool) -> String {
    let mut text = String::new();
    for pod in pods {
        if let Some(ended) = pod.failure(attempt).filter(|ended| which(ended)) {
            // Nothing fails that writes to a string.
            let _ = writeln!(text, "{}: {}", pod.spec.node_name, ended.message.trim());
        }
    }
    text
}

#[cfg(test)]
mod tests;
