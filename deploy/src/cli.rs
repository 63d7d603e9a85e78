//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use coracle_engine::wasi::{ListenAddress, NetworkPolicy};

/// Run WebAssembly programs and look into them.
#[derive(Debug, Parser)]
#[command(name = "coracle", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a WebAssembly program (.wasm or .wat) and exit with its exit code.
    ///
    /// Exit codes: the program's own; 134 after a trap; 125 when coracle itself fails.
    Run(RunArgs),
    /// Show what a module imports, exports and needs.
    Inspect(InspectArgs),
    /// Look into the cache of compiled code, check it, or make it smaller.
    ///
    /// Root's is the node's, in /var/lib/coracle/cache; other users have their own. CORACLE_CACHE_DIR names
    /// another folder. Removing an entry, or all of them, is always safe: what is missing is compiled
    /// again.
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Install Coracle on this node: its programs, and a runtime handler in containerd's configuration.
    #[command(disable_help_flag = true)]
    Install(NodeArgs),
    /// Take an installation back.
    #[command(disable_help_flag = true)]
    Uninstall(NodeArgs),
    /// Say whether this node is as it was installed.
    #[command(disable_help_flag = true)]
    Doctor(NodeArgs),
    /// Compile images when they are pulled, bound the cache, serve figures.
    #[command(disable_help_flag = true)]
    Daemon(NodeArgs),
    /// Compile standard input to standard output; what the shim starts, confined, for each module.
    #[command(hide = true)]
    CompileWorker(WorkerArgs),
}

/// Arguments of `coracle run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Give the program a folder: HOST, or HOST::GUEST to show it under another name.
    #[arg(long = "dir", value_name = "HOST[::GUEST]", value_parser = parse_dir)]
    pub(crate) dirs: Vec<Dir>,
    /// Set an environment variable; NAME alone passes this process's value on.
    #[arg(long = "env", short = 'e', value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<OsString>,
    /// Listen on PORT, ADDRESS:PORT (IPv6 in brackets) and hand the socket to the program, after the folders;
    /// LISTEN_FDS tells it how many there are.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<ListenAddress>,
    /// Hand sockets over before the folders, from descriptor 3 on.
    #[arg(long, requires = "listen")]
    pub(crate) listen_first: bool,
    /// Hand sockets in non-blocking, as Go programs need them
    #[arg(long, requires = "listen")]
    pub(crate) listen_nonblock: bool,
    /// What the program may do with the network: `allow`, `deny`, or `allow` and rules, such as
    /// `allow 10.0.0.0/8, *.example.org:443, listen *:8080`.
    ///
    /// A rule is an address, a network, a name, `*.` and a name, or `*`, with :PORT or :FIRST-LAST
    /// behind it if need be; IPv6 stands in brackets. `listen` before an address lets the program
    /// listen there. A rule about a name also allows the addresses that its look-up gives.
    #[arg(long, value_name = "POLICY", default_value = "allow")]
    pub(crate) network: NetworkPolicy,
    /// Call this export instead of `_start`.
    #[arg(long, value_name = "EXPORT")]
    pub(crate) invoke: Option<String>,
    /// Compile without optimisation: starts sooner, runs slower.
    #[arg(long)]
    pub(crate) no_optimize: bool,
    /// Compile anew, and keep nothing.
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// The program, then its arguments.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "FILE [ARGS]..."
    )]
    pub(crate) program: Vec<OsString>,
}

/// A folder given to the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dir {
    pub(crate) host: PathBuf,
    pub(crate) guest: String,
}

fn parse_dir(text: &str) -> Result<Dir, String> {
    let (host, guest) = text.split_once("::").unwrap_or((text, text));
    if host.is_empty() || guest.is_empty() {
        return Err("expected HOST or HOST::GUEST, neither empty".into());
    }
    Ok(Dir { host: host.into(), guest: guest.into() })
}

/// Arguments of `coracle inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The module (.wasm or .wat).
    pub(crate) file: PathBuf,
}

/// What to do with the cache.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// List the entries: key, size, when they were made and last used; the least recently used first.
    Ls,
    /// Compute the digest of every entry and remove those that are damaged; exit code 1 if there were any.
    Verify,
    /// Remove what is beyond the bounds, the least recently used first.
    Prune(PruneArgs),
    /// Show where the cache is, what it holds and what it may hold.
    Stats,
    /// Compile the module of an image ahead of its first container.
    ///
    /// What is looked for, how it is compiled and where its code is kept are just as when a container is created,
    /// so that one finds its code. Images are asked of containerd, which must have them; nothing is pulled. Only
    /// root can: the cache is the node's.
    ///
    /// Exit codes: 0 when the code is in the cache, 125 when it is not.
    Warm(WarmArgs),
}

/// Arguments of `coracle cache warm`.
#[derive(Debug, Args)]
pub(crate) struct WarmArgs {
    /// containerd's namespace of the image: `moby` for Docker's, `k8s.io` for those of Kubernetes
    /// [default: $CONTAINERD_NAMESPACE, or `default`]
    #[arg(long, short)]
    pub(crate) namespace: Option<String>,
    /// containerd's socket [default: $CONTAINERD_ADDRESS, or /run/containerd/containerd.sock]
    #[arg(long, short)]
    pub(crate) address: Option<PathBuf>,
    /// A runtime option of the containers to come, such as CompileMemoryMiB=4096 or CacheByNamespace=true.
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = parse_option)]
    pub(crate) options: Vec<String>,
    /// An image as containerd names it, such as docker.io/library/hello:latest; or the path of a module
    /// (.wasm or .wat), beginning with `/`, `./` or `../`.
    pub(crate) image: String,
}

fn parse_option(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() => Ok(text.to_owned()),
        _ => Err("expected KEY=VALUE".into()),
    }
}

/// Arguments of `coracle cache prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Remove every entry.
    #[arg(long, conflicts_with_all = ["max_mib", "max_entries"])]
    pub(crate) all: bool,
    /// Keep at most this much.
    #[arg(long, value_name = "MIB")]
    pub(crate) max_mib: Option<u64>,
    /// Keep at most this many entries.
    #[arg(long, value_name = "N")]
    pub(crate) max_entries: Option<usize>,
}

/// Arguments of a command that `coracle-node` carries out.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// Its arguments; --help shows them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub(crate) arguments: Vec<OsString>,
}

/// Arguments of the compile worker.
#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    /// Address memory through the context instead of the dedicated base address.
    #[arg(long)]
    pub(crate) generic: bool,
    /// Compile functions for a guest that runs, which asks for them at the other end of standard error.
    #[arg(long)]
    pub(crate) first: bool,
    /// Instead of compiling, run this export of the code image that is standard input, and give the image
    /// that starts from there.
    #[arg(long, value_name = "EXPORT", conflicts_with_all = ["first", "generic"])]
    pub(crate) initialize: Option<String>,
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
    fn program_arguments_are_not_ours() {
        let cli = Cli::parse_from(["coracle", "run", "--env", "A=1", "x.wasm", "--dir", "/y"]);
        let Command::Run(args) = cli.command else { panic!("not run") };
        assert_eq!(args.program, ["x.wasm", "--dir", "/y"]);
        assert!(args.dirs.is_empty());
    }

    #[test]
    fn node_commands_take_all_their_arguments_along() {
        for arguments in [&["--help"][..], &["--root", "/x", "--dry-run"], &[]] {
            let line = ["coracle", "install"].iter().chain(arguments);
            let Command::Install(args) = Cli::parse_from(line).command else {
                panic!("not install")
            };
            assert_eq!(args.arguments, arguments);
        }
    }

    #[test]
    fn folders_may_be_renamed_but_not_empty() {
        assert_eq!(parse_dir("/a").unwrap(), Dir { host: "/a".into(), guest: "/a".into() });
        assert_eq!(parse_dir("a::/b").unwrap(), Dir { host: "a".into(), guest: "/b".into() });
        assert!(parse_dir("::/b").is_err());
        assert!(parse_dir("a::").is_err());
    }
}
