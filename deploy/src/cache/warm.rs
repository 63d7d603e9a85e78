//! `coracle cache warm`: code for containers that are still to come.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use coracle_shim::config::process_env;
use coracle_shim::warm::{Progress, Target, Warmed, warm as make};
use tracing_subscriber::filter::LevelFilter;

use super::{print, size};
use crate::cli::WarmArgs;

/// containerd's namespace and socket, as `ctr` takes them from the environment.
const ENV_NAMESPACE: &str = "CONTAINERD_NAMESPACE";
const ENV_ADDRESS: &str = "CONTAINERD_ADDRESS";
/// The same when nobody says anything.
const DEFAULT_NAMESPACE: &str = "default";
const DEFAULT_ADDRESS: &str = "/run/containerd/containerd.sock";

/// Compiles if need be, and says what was done.
pub(super) fn warm(args: &WarmArgs) -> Result<ExitCode> {
    // What does not stop it is told as well.
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).without_time();
    let log = log.with_target(false).with_ansi(false).with_max_level(LevelFilter::WARN);
    log.try_init().map_err(anyhow::Error::from_boxed).context("setting up the log")?;
    let warmed = make(target(args), &args.options, &process_env, &tell);
    // Its message tells all that its sources would.
    let warmed = warmed.map_err(|error| anyhow::anyhow!("{}: {error}", args.image));
    let Warmed { size: bytes, compiled } = warmed?;
    let (image, code) = (&args.image, size(bytes));
    match compiled {
        Some(time) => print(&format!("{image}: compiled in {}, {code} of code\n", seconds(time))),
        None => print(&format!("{image}: in the cache already, {code} of code\n")),
    }
}

/// No name of an image begins like a path.
fn target(args: &WarmArgs) -> Target {
    if ["/", "./", "../"].iter().any(|start| args.image.starts_with(start)) {
        return Target::File(PathBuf::from(&args.image));
    }
    let said = |name: &str| process_env(name).and_then(|value| value.into_string().ok());
    let namespace = args.namespace.clone().or_else(|| said(ENV_NAMESPACE));
    let address = args.address.clone().or_else(|| process_env(ENV_ADDRESS).map(PathBuf::from));
    Target::Image {
        name: args.image.clone(),
        namespace: namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
        address: address.unwrap_or_else(|| DEFAULT_ADDRESS.into()),
    }
}

fn tell(progress: Progress<'_>) {
    match progress {
        Progress::Compiling { origin, size: bytes } => {
            eprintln!("compiling {origin}, {}", size(bytes));
        }
        Progress::Still { origin, time } => eprintln!("compiling {origin} for {}", seconds(time)),
    }
}

fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(10) {
        format!("{:.1} s", time.as_secs_f32())
    } else {
        format!("{} s", time.as_secs())
    }
}
