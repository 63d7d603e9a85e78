//! What stays in a pod whose node has nothing of us any more: it takes the node's label away, and is ready when that is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::cluster::Cluster;
use super::{NotReady, env, handler, http};
use crate::cli::ClusterArgs;

/// Whether the label is gone.
#[derive(Debug, Default)]
struct Retired(AtomicBool);

impl http::Pages for Retired {
    async fn metrics(&self) -> Result<String, std::fmt::Error> {
        Ok("# EOF\n".to_owned())
    }

    async fn readiness(&self) -> Result<(), NotReady> {
        if self.0.load(Ordering::Relaxed) { Ok(()) } else { Err(NotReady::Labelled) }
    }
}

/// Until it is told to end.
pub(super) async fn serve(
    args: &ClusterArgs,
    listener: TcpListener,
    told: impl Future<Output = ()>,
) -> Result<()> {
    let Some(node) = args.node_name.clone() else {
        bail!("--retired needs the node's name: --node-name, or NODE_NAME")
    };
    let cluster = Cluster::of(&env, args.service_account.clone(), node)?;
    let pages = Arc::new(Retired::default());
    let mut beside = JoinSet::new();
    beside.spawn(http::serve(listener, Arc::clone(&pages)));
    let label = args.node_label.clone();
    beside.spawn(async move {
        handler::until("take the label away", || cluster.label(&label, None)).await;
        tracing::info!(label, "the node's label is gone");
        pages.0.store(true, Ordering::Relaxed);
    });
    told.await;
    beside.shutdown().await;
    Ok(())
}
