//! What is read when Prometheus asks: the tasks of all containers, and what each of them uses.
//!
//! Each container's shim is asked for itself, with a limit of its own, and all together with another: a shim that hangs
//! costs its own figures. What was not told in time is counted.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::cache::Contents;
use super::containerd::{Container, Containerd};
use super::usage::Usage;

/// How long one shim may take.
const SHIM_LIMIT: Duration = Duration::from_secs(1);
/// How many shims are asked at once.
const AT_ONCE: usize = 16;
/// The longest value of a label, in bytes: a name of Kubernetes has at most 253.
const LONGEST_LABEL: usize = 253;

/// The labels by which CRI says whose a container is.
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// The name under which cAdvisor reports a pod's own container.
const SANDBOX: &str = "POD";

/// States of a task, as containerd numbers them.
pub(crate) const STATES: [&str; 6] =
    ["unknown", "created", "running", "stopped", "paused", "pausing"];

/// Whose a container is: namespace, pod, container, uid.
pub(crate) type Identity = [(&'static str, String); 4];

/// What was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Scrape {
    /// Whether containerd is there.
    pub(crate) connected: bool,
    /// What the cache holds, and what it may hold.
    pub(crate) cache: Contents,
    pub(crate) cache_bounds: Contents,
    /// Images that wait to be looked at.
    pub(crate) waiting: usize,
    /// Tasks by state; those that were not told of are `unknown`.
    pub(crate) tasks: BTreeMap<&'static str, usize>,
    /// Containers, by whose they are.
    pub(crate) containers: BTreeMap<Identity, Usage>,
    /// Containers of which nothing was told: too many, or too slow.
    pub(crate) unreported: usize,
}

/// What bounds a look at all containers.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// The runtime whose containers count.
    pub(crate) runtime: String,
    /// The most containers that are told of one by one.
    pub(crate) containers: usize,
    /// The time for all of them.
    pub(crate) time: Duration,
}

/// What one container's shim has told.
enum Told {
    /// There is no task.
    Nothing,
    /// No answer in time.
    Late,
    /// State, and usage if there is any.
    State(&'static str, Option<Usage>),
}

impl Scrape {
    /// Reads the tasks of all namespaces within the bounds.
    pub(crate) async fn look(&mut self, containerd: &Containerd, bounds: &Bounds) {
        let end = Instant::now() + bounds.time;
        let mut all = match list(containerd, bounds).await {
            Ok(all) => all,
            Err(error) => return tracing::warn!(%error, "containers cannot be listed"),
        };
        let beyond = all.len().saturating_sub(bounds.containers);
        all.truncate(bounds.containers);
        self.unreported += beyond;
        let mut waiting = all.into_iter();
        let mut asked = JoinSet::new();
        loop {
            while asked.len() < AT_ONCE
                && let Some(container) = waiting.next()
            {
                let containerd = containerd.clone();
                asked.spawn(async move { (ask(&containerd, &container).await, container) });
            }
            match tokio::time::timeout_at(end, asked.join_next()).await {
                Ok(Some(Ok((told, container)))) => self.add(told, &container),
                Ok(Some(Err(_))) => self.unreported += 1,
                Ok(None) => return,
                Err(_) => {
                    let left = asked.len() + waiting.count();
                    self.unreported += left;
                    *self.tasks.entry(STATES[0]).or_default() += left;
                    return;
                }
            }
        }
    }

    fn add(&mut self, told: Told, container: &Container) {
        let (state, usage) = match told {
            Told::Nothing => return,
            Told::Late => {
                self.unreported += 1;
                (STATES[0], None)
            }
            Told::State(state, usage) => (state, usage),
        };
        *self.tasks.entry(state).or_default() += 1;
        if let Some(usage) = usage {
            // A container that took the place of another has its name; the last one counts.
            self.containers.insert(identity(container), usage);
        }
    }
}

async fn list(
    containerd: &Containerd,
    bounds: &Bounds,
) -> Result<Vec<Container>, super::containerd::Fault> {
    let mut all = Vec::new();
    for namespace in containerd.namespaces().await? {
        all.extend(containerd.containers(&namespace, &bounds.runtime, bounds.time).await?);
    }
    Ok(all)
}

/// Asks containerd for one container, which asks its shim.
async fn ask(containerd: &Containerd, container: &Container) -> Told {
    let asking = async {
        let state = match containerd.task(container, SHIM_LIMIT).await {
            Ok(Some(state)) => state,
            Ok(None) => return Told::Nothing,
            Err(_) => return Told::Late,
        };
        let state = usize::try_from(state).ok().and_then(|state| STATES.get(state));
        let state = state.copied().unwrap_or(STATES[0]);
        if matches!(state, "unknown" | "stopped") {
            return Told::State(state, None);
        }
        let any = containerd.statistics(container, SHIM_LIMIT).await.ok().flatten();
        Told::State(state, any.and_then(|any| Usage::of(&any)))
    };
    tokio::time::timeout(SHIM_LIMIT, asking).await.unwrap_or(Told::Late)
}

/// Whose a container is; one that is of no pod goes by its id.
fn identity(container: &Container) -> Identity {
    let labels: &HashMap<String, String> = &container.labels;
    let label = |name: &str| labels.get(name).map(|value| bounded(value)).unwrap_or_default();
    let name = match labels.get(CONTAINER_NAME) {
        Some(name) => bounded(name),
        None if labels.contains_key(POD_NAME) => SANDBOX.to_owned(),
        None => bounded(&container.id),
    };
    let namespace = if labels.contains_key(POD_NAMESPACE) {
        label(POD_NAMESPACE)
    } else {
        bounded(&container.namespace)
    };
    [
        ("namespace", namespace),
        ("pod", label(POD_NAME)),
        ("container", name),
        ("uid", label(POD_UID)),
    ]
}

fn bounded(value: &str) -> String {
    value[..value.floor_char_boundary(LONGEST_LABEL)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(labels: &[(&str, &str)]) -> Container {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Container { namespace: "n".into(), id: "id".into(), labels }
    }

    fn values(container: &Container) -> [String; 4] {
        identity(container).map(|(_, value)| value)
    }

    #[test]
    fn whose_a_container_is() {
        assert_eq!(values(&container(&[])), ["n", "", "id", ""]);
        let pod = [(POD_NAMESPACE, "ns"), (POD_NAME, "p"), (POD_UID, "u")];
        assert_eq!(values(&container(&pod)), ["ns", "p", "POD", "u"]);
        let mut one = pod.to_vec();
        one.push((CONTAINER_NAME, "c"));
        assert_eq!(values(&container(&one)), ["ns", "p", "c", "u"]);
        let long = "\u{e4}".repeat(1000);
        assert_eq!(values(&container(&[(CONTAINER_NAME, &long)]))[2].len(), 252);
    }

    #[test]
    fn a_shim_that_does_not_answer_is_counted_and_no_more() {
        let mut scrape = Scrape::default();
        scrape.add(Told::Late, &container(&[]));
        scrape.add(Told::Nothing, &container(&[]));
        scrape.add(Told::State("running", Some(Usage::default())), &container(&[]));
        scrape.add(Told::State("stopped", None), &container(&[]));
        assert_eq!(scrape.unreported, 1);
        let tasks: Vec<_> = scrape.tasks.into_iter().collect();
        assert_eq!(tasks, [("running", 1), ("stopped", 1), ("unknown", 1)]);
        assert_eq!(scrape.containers.len(), 1);
    }
}
