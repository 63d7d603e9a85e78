//! The command line.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use coracle_installer::{DoctorArgs, InstallArgs, UninstallArgs};

/// What a node runs for its WebAssembly containers.
#[derive(Debug, Parser)]
#[command(name = "coracle", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Compile images when they are pulled, bound the cache, and tell Prometheus how containers fare.
    ///
    /// When it is down, everything still starts, only slower the first time. It ends with exit code 0 on SIGTERM and
    /// SIGINT, and with it the compilations that it began. Traces go where the standard variables say
    /// (OTEL_EXPORTER_OTLP_ENDPOINT and others); CORACLE_CACHE_DIR, CORACLE_RUN_DIR and CORACLE_CACHE_MIB mean what
    /// they mean to the shim.
    Daemon(DaemonArgs),
    /// Install Coracle on this node: its programs, and a runtime handler in containerd's configuration.
    Install(InstallArgs),
    /// Take an installation back.
    Uninstall(UninstallArgs),
    /// Say whether this node is as it was installed.
    Doctor(DoctorArgs),
    /// Have every node of the chart's DaemonSet take its installation back, and wait; what `helm uninstall` begins with.
    ///
    /// Exit codes: 0 when every node is as it was, 125 when one refuses or is not done in time.
    UninstallNodes(RetireArgs),
}

/// Arguments of `coracle daemon`.
#[derive(Debug, Args)]
pub(crate) struct DaemonArgs {
    /// containerd's socket, on the node [default: that of the containerd that `coracle install` was for, or
    /// /run/containerd/containerd.sock]
    #[arg(long, env = "CONTAINERD_ADDRESS", value_name = "PATH")]
    pub(crate) address: Option<PathBuf>,
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, default_value = "127.0.0.1:9471", value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,
    /// Let --listen be an address that others than this machine reach. Whoever reaches it sees the names of pods.
    #[arg(long)]
    pub(crate) listen_beyond_loopback: bool,
    /// Do not compile images when they are pulled.
    #[arg(long)]
    pub(crate) no_precompile: bool,
    /// How many images are compiled at once.
    #[arg(long, default_value = "1", value_name = "N")]
    pub(crate) jobs: NonZeroUsize,
    /// How long one image may take.
    #[arg(long, default_value = "600", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Duration,
    /// A runtime option of the containers to come, such as CompileMemoryMiB=4096 or CacheByNamespace=true: those of the
    /// handler in containerd's configuration.
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = option)]
    pub(crate) options: Vec<String>,
    /// The shim's program on the node [default: beside this program, or in PATH]
    #[arg(long, value_name = "PATH")]
    pub(crate) shim: Option<PathBuf>,
    /// The runtime whose containers are reported.
    #[arg(long, default_value = coracle_shim::RUNTIME_NAME, value_name = "NAME")]
    pub(crate) runtime: String,
    /// The number of containers of which /metrics tells one by one; of those beyond it only their number.
    #[arg(long, default_value = "1000", value_name = "N")]
    pub(crate) max_containers: usize,
    /// How long one look at all containers may take. Shorter than Prometheus' own limit, which is 10 s.
    #[arg(long, default_value = "5", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) scrape_limit: Duration,
    /// A process of the node, as seen from here: in a pod with hostPID, 1. All paths are then paths of that process's
    /// file system, and the compiler runs in its namespaces.
    #[arg(long, value_name = "PID")]
    pub(crate) node_pid: Option<NonZeroU32>,
    /// The installation has been taken back: take the node's label away, serve /healthz and /readyz, and do nothing else.
    #[arg(long, requires = "kubernetes")]
    pub(crate) retired: bool,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// How the log is written, on standard error.
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
    /// What is logged.
    #[arg(long, env = "CORACLE_LOG", default_value = "info", value_name = "LEVEL")]
    pub(crate) log_level: LogLevel,
}

/// Arguments of `coracle-node uninstall-nodes`.
#[derive(Debug, Args)]
pub(crate) struct RetireArgs {
    /// The DaemonSet's namespace.
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: String,
    /// Its name.
    #[arg(long, value_name = "NAME")]
    pub(crate) daemonset: String,
    /// How long all nodes may take together.
    #[arg(long, default_value = "300", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Duration,
    /// Also on nodes whose containers still run.
    #[arg(long)]
    pub(crate) force: bool,
    /// An argument of `coracle uninstall` on each node, such as --handler=wasm.
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub(crate) node: Vec<String>,
    /// An argument of what stays there afterwards, such as --node-label=coracle.dev/wasm.
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub(crate) daemon: Vec<String>,
    /// The service account's token and certificate.
    #[arg(
        long,
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount",
        value_name = "FOLDER"
    )]
    pub(crate) service_account: PathBuf,
}

/// Arguments about the cluster that the node is of.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// Label this machine's node object by whether containerd has loaded the handler, and say there what is wrong. Only
    /// in a pod, whose service account may patch its node and create events.
    #[arg(long, requires = "node_name")]
    pub(crate) kubernetes: bool,
    /// The name of this machine's node object, by the downward API (spec.nodeName).
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// When containerd has lost the handler, install again what is recorded on the node.
    #[arg(long, requires = "kubernetes")]
    pub(crate) repair: bool,
    /// The label, `true` or `false`.
    #[arg(long, default_value = "coracle.dev/wasm", value_name = "LABEL")]
    pub(crate) node_label: String,
    /// The runtime handler, as RuntimeClass objects name it.
    #[arg(long, default_value = "wasm", value_name = "NAME")]
    pub(crate) handler: String,
    /// The service account's token and certificate.
    #[arg(
        long,
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount",
        value_name = "FOLDER"
    )]
    pub(crate) service_account: PathBuf,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

fn option(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() => Ok(text.to_owned()),
        _ => Err("expected KEY=VALUE".into()),
    }
}

/// 1 s to a day.
fn seconds(text: &str) -> Result<Duration, String> {
    const MOST: u64 = 86_400;
    match text.parse() {
        Ok(number @ 1..=MOST) => Ok(Duration::from_secs(number)),
        _ => Err(format!("expected a number of seconds from 1 to {MOST}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for bad in [
            &["--timeout", "0"][..],
            &["--timeout", "86401"],
            &["--jobs", "0"],
            &["--option", "=1"],
            &["--option", "Key"],
            &["--listen", "9471"],
            &["--node-pid", "0"],
            &["--log-format", "xml"],
        ] {
            let words = ["coracle", "daemon"].iter().chain(bad);
            assert!(Cli::try_parse_from(words).is_err(), "{bad:?}");
        }
        let good =
            ["coracle", "daemon", "--timeout", "86400", "--option", "A=b=c", "--listen", "[::1]:1"];
        let Command::Daemon(args) = Cli::parse_from(good).command else { panic!("not daemon") };
        assert_eq!((args.timeout.as_secs(), args.options), (86_400, vec!["A=b=c".to_owned()]));
    }
}
