//! `coracle cache warm`: code for containers that are still to come.
//!
//! The shim does it, in a process of its own: it knows containerd, and what it looks for and compiles is what its
//! containers will. Linked into this tool, that would cost every `coracle run` a quarter of a millisecond.

use std::convert::Infallible;

use anyhow::Result;

use crate::beside::{self, SHIM};
use crate::cli::WarmArgs;

/// The shim's hidden commands for this.
const COMMANDS: [&str; 2] = ["warm-image", "warm-file"];
/// containerd's namespace and socket, as `ctr` takes them from the environment.
const ENV_NAMESPACE: &str = "CONTAINERD_NAMESPACE";
const ENV_ADDRESS: &str = "CONTAINERD_ADDRESS";
/// The same when nobody says anything.
const DEFAULT_NAMESPACE: &str = "default";
const DEFAULT_ADDRESS: &str = "/run/containerd/containerd.sock";

/// Becomes the shim's process.
pub(super) fn warm(args: &WarmArgs) -> Result<Infallible> {
    let mut command = beside::command(SHIM)?;
    let [image, file] = COMMANDS;
    if is_path(&args.image) {
        command.arg(file);
    } else {
        let said = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let namespace = args.namespace.as_ref().map(Into::into).or_else(|| said(ENV_NAMESPACE));
        let address = args.address.as_ref().map(Into::into).or_else(|| said(ENV_ADDRESS));
        command.arg(image).arg(namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.into()));
        command.arg(address.unwrap_or_else(|| DEFAULT_ADDRESS.into()));
    }
    command.arg(&args.image).args(&args.options);
    beside::become_it(command)
}

/// No name of an image begins like a path.
fn is_path(image: &str) -> bool {
    ["/", "./", "../"].iter().any(|start| image.starts_with(start))
}
