//! Arguments of `coracle install`, `uninstall` and `doctor`.

use std::path::PathBuf;

use clap::Args;

use crate::config::SYSTEMD_CGROUP;
use crate::distribution::Distribution;

/// Where and what the node is. All has a default that is found on the node.
#[derive(Debug, Clone, Args)]
pub struct NodeArgs {
    /// Who set containerd up on this node; refused when it is not what is found [default: what is found]
    #[arg(long, value_enum)]
    pub distribution: Option<Distribution>,
    /// Name of the runtime handler, which a RuntimeClass names in `handler`.
    #[arg(long, default_value = "wasm", value_parser = parse_handler)]
    pub handler: String,
    /// Folder of the programs. Must be writable and stay where it is: /usr is neither on many distributions.
    #[arg(long, value_name = "FOLDER", default_value = "/opt/coracle/bin", value_parser = parse_absolute)]
    pub bin_dir: PathBuf,
    /// containerd's configuration file, where it reads one itself [default: /etc/containerd/config.toml]
    #[arg(long, value_name = "FILE", value_parser = parse_absolute)]
    pub config: Option<PathBuf>,
    /// containerd's program [default: where the distribution has it]
    #[arg(long, value_name = "FILE", value_parser = parse_absolute)]
    pub containerd: Option<PathBuf>,
    /// containerd's socket [default: what its configuration says]
    #[arg(long, value_name = "FILE", value_parser = parse_absolute)]
    pub socket: Option<PathBuf>,
    /// systemd's unit that runs containerd [default: the distribution's]
    #[arg(long)]
    pub unit: Option<String>,
    /// Work on the node that this container runs on: enter the mount namespace of its first process. Needs hostPID and
    /// privileges.
    #[arg(long, conflicts_with = "root")]
    pub node: bool,
    /// Work on the system below this folder, as `chroot` does.
    #[arg(long, value_name = "FOLDER", value_parser = parse_absolute)]
    pub root: Option<PathBuf>,
}

/// Arguments of `coracle install`.
///
/// Exit codes: 0 when all is as wished; 10 refused, nothing changed; 11 failed, everything put back; 12 failed, and so did
/// putting back; 13 another installer is at work; with --check 20 when the node is not as it was installed, 21 when
/// nothing is installed.
#[derive(Debug, Clone, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct InstallArgs {
    /// The node.
    #[command(flatten)]
    pub node: NodeArgs,
    /// Folder that the programs are copied from [default: where this program is]
    #[arg(long, value_name = "FOLDER")]
    pub programs: Option<PathBuf>,
    /// A runtime option of the handler's containers, such as CompileMemoryMiB=4096 (the shim's README lists them). The node's
    /// daemon has to be given the same.
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = parse_option)]
    pub options: Vec<RuntimeOption>,
    /// Let the shim make the pods' sandboxes (containerd 2 or newer).
    #[arg(long)]
    pub sandboxer: bool,
    /// Have CRI pull images by its own client (`use_local_image_pull`), for a containerd 2.1 or newer whose transfer
    /// service does not take wasm images. 2.1.9 takes them.
    #[arg(long)]
    pub local_pull: bool,
    /// Link the shim into this folder, such as /usr/local/bin, where Docker finds it for
    /// `--runtime=io.containerd.wasm.v1`.
    #[arg(long, value_name = "FOLDER", value_parser = parse_absolute)]
    pub link: Option<PathBuf>,
    /// Install once more what is recorded on this node, with the options of then: for a node whose configuration somebody has
    /// put back.
    #[arg(long, conflicts_with_all = ["options", "sandboxer", "local_pull", "link", "programs_only"])]
    pub again: bool,
    /// Only install the programs, as a node without pods needs them; containerd's configuration is left alone.
    #[arg(long)]
    pub programs_only: bool,
    /// Do not restart containerd: the handler is there after its next start.
    #[arg(long)]
    pub no_restart: bool,
    /// Seconds that containerd may take until it is healthy again.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub timeout: u64,
    /// Show what would be done, and do nothing.
    #[arg(long, conflicts_with = "check")]
    pub dry_run: bool,
    /// Say whether all is as it was installed, and do nothing; as `coracle doctor`.
    #[arg(long)]
    pub check: bool,
}

/// Arguments of `coracle uninstall`.
///
/// Exit codes are those of `coracle install`.
#[derive(Debug, Clone, Args)]
pub struct UninstallArgs {
    /// The node.
    #[command(flatten)]
    pub node: NodeArgs,
    /// Undo the configuration also while containers of the handler run, and leave the programs to them; and when containerd
    /// cannot be asked.
    #[arg(long)]
    pub force: bool,
    /// Do not restart containerd: the handler is gone after its next start.
    #[arg(long)]
    pub no_restart: bool,
    /// Seconds that containerd may take until it is healthy again.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub timeout: u64,
    /// Show what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `coracle doctor`.
///
/// Exit codes: 0 when all is well; 10 when the node cannot be looked at; 20 when something is not as it was installed; 21
/// when nothing is installed.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// The node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Kubernetes takes only labels of DNS for handlers, and each is a plain key of TOML.
fn parse_handler(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let edges = !text.starts_with('-') && !text.ends_with('-');
    if (1..=63).contains(&text.len()) && text.bytes().all(fits) && edges {
        return Ok(text.to_owned());
    }
    Err("expected a label of DNS: 1 to 63 of a-z, 0-9 and dashes between them".into())
}

/// A runtime option, as it stands in containerd's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct RuntimeOption {
    pub(crate) key: String,
    pub(crate) value: toml::Value,
}

/// Options are named like fields of Go; which one makes control groups is the node's own matter.
fn parse_option(text: &str) -> Result<RuntimeOption, String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    if !key.starts_with(|first: char| first.is_ascii_uppercase())
        || !key.bytes().all(|byte| byte.is_ascii_alphanumeric())
    {
        return Err(format!("{key:?} is no name of an option, such as CompileMemoryMiB"));
    }
    if key == SYSTEMD_CGROUP {
        return Err(format!("{SYSTEMD_CGROUP} is taken from the node's own runtime"));
    }
    let value = match (value.parse::<bool>(), value.parse::<i64>()) {
        (Ok(value), _) => toml::Value::Boolean(value),
        (_, Ok(value)) => toml::Value::Integer(value),
        _ => toml::Value::String(value.to_owned()),
    };
    Ok(RuntimeOption { key: key.to_owned(), value })
}

fn parse_absolute(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') && !text.split('/').any(|part| part == "..") {
        return Ok(text.into());
    }
    Err("expected a path from / on, without ..".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_are_labels_of_dns() {
        for good in ["wasm", "a", "wasm-2", "0"] {
            assert_eq!(parse_handler(good).as_deref(), Ok(good));
        }
        for bad in ["", "Wasm", "a.b", "-a", "a-", "a b", "a\"", &"a".repeat(64)] {
            assert!(parse_handler(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_have_the_type_that_they_look_like() {
        let value = |text| parse_option(text).map(|option| option.value);
        assert_eq!(value("CompileMemoryMiB=4096"), Ok(toml::Value::Integer(4096)));
        assert_eq!(value("CacheByNamespace=true"), Ok(toml::Value::Boolean(true)));
        assert_eq!(value("LogLevel=a=b"), Ok(toml::Value::String("a=b".into())));
        for bad in ["CompileMemoryMiB", "compile=1", "=1", "A.b=1", "SystemdCgroup=true"] {
            assert!(parse_option(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_absolute() {
        assert!(parse_absolute("/opt/x").is_ok());
        assert!(parse_absolute("opt/x").is_err());
        assert!(parse_absolute("/opt/../x").is_err());
    }
}
