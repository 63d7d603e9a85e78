//! Hooks: programs of the host that run at points of a container's life.
//!
//! Source: OCI runtime spec, `config.md`, section "POSIX-platform Hooks".

use std::path::PathBuf;
use std::time::Duration;

use oci_spec::runtime as json;

use super::check;
use crate::error::SpecError;

/// One program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Absolute path of the program.
    pub path: PathBuf,
    /// All arguments, the program's own name first; may be empty.
    pub args: Vec<String>,
    /// Environment, `KEY=value`; nothing is inherited.
    pub env: Vec<String>,
    /// After this time the hook is killed and has failed.
    pub timeout: Option<Duration>,
}

/// All hooks, each list in the order in which it must run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Old form of `create_runtime`, run before it in the host's namespaces.
    pub prestart: Vec<Hook>,
    /// After the namespaces exist, before `pivot_root`, in the host's namespaces.
    pub create_runtime: Vec<Hook>,
    /// After `create_runtime`, in the container's namespaces.
    pub create_container: Vec<Hook>,
    /// Just before the guest starts, in the container's namespaces.
    pub start_container: Vec<Hook>,
    /// After the guest started, in the host's namespaces.
    pub poststart: Vec<Hook>,
    /// After the container was deleted, in the host's namespaces.
    pub poststop: Vec<Hook>,
}

impl Hooks {
    /// Whether there is nothing to run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    #[allow(deprecated, reason = "docker 26 and older still write prestart hooks")]
    pub(super) fn parse(hooks: Option<&json::Hooks>) -> Result<Self, SpecError> {
        let Some(hooks) = hooks else { return Ok(Self::default()) };
        Ok(Self {
            prestart: list(hooks.prestart().as_ref(), "hooks.prestart")?,
            create_runtime: list(hooks.create_runtime().as_ref(), "hooks.createRuntime")?,
            create_container: list(hooks.create_container().as_ref(), "hooks.createContainer")?,
            start_container: list(hooks.start_container().as_ref(), "hooks.startContainer")?,
            poststart: list(hooks.poststart().as_ref(), "hooks.poststart")?,
            poststop: list(hooks.poststop().as_ref(), "hooks.poststop")?,
        })
    }
}

fn list(hooks: Option<&Vec<json::Hook>>, field: &'static str) -> Result<Vec<Hook>, SpecError> {
    hooks.into_iter().flatten().map(|hook| parse(hook, field)).collect()
}

fn parse(hook: &json::Hook, field: &'static str) -> Result<Hook, SpecError> {
    let args = hook.args().clone().unwrap_or_default();
    let env = hook.env().clone().unwrap_or_default();
    check::strings(field, &args)?;
    check::strings(field, &env)?;
    let path = check::absolute(field, hook.path())?.to_path_buf();
    let timeout = match hook.timeout() {
        None => None,
        Some(seconds) => match u64::try_from(seconds) {
            Ok(seconds) if seconds > 0 => Some(Duration::from_secs(seconds)),
            _ => {
                let problem = "a hook's timeout must be more than 0 seconds";
                return Err(check::value(field, seconds, problem));
            }
        },
    };
    Ok(Hook { path, args, env, timeout })
}
