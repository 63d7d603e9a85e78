//! What a container's annotations say about its program.

use std::time::Duration;

use coracle_oci::spec::Annotations;
use serde::{Deserialize, Serialize};

use super::GuestError;
use super::program::{ListenAddress, NetworkPolicy};

/// Addresses to listen on before the program starts, separated by commas.
const LISTEN: &str = "coracle.dev/listen";
/// Whether their sockets are descriptors 3 and up, before the folders.
const LISTEN_FIRST: &str = "coracle.dev/listen-first";
/// Whether they do not make the program wait from the start.
const LISTEN_NONBLOCK: &str = "coracle.dev/listen-nonblock";
/// What the program may do within the container's network: a policy such as `allow 10.0.0.0/8`.
const NETWORK: &str = "coracle.dev/network";
/// How long a program that listens may finish its work after SIGTERM, in seconds.
const DRAIN: &str = "coracle.dev/drain-seconds";
/// The export that initialises the program: what it leaves in memory is kept with the code.
const INITIALIZE: &str = "coracle.dev/initialize";
/// Longest name of it, in bytes.
const MAX_INITIALIZE: usize = 1024;
/// Most addresses.
const MAX_LISTEN: usize = 64;
/// Longest time to drain, in seconds.
const MAX_DRAIN: u64 = 3600;

/// Settings of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) listen: Vec<ListenAddress>,
    pub(super) listen_first: bool,
    /// Whether they do not make the program wait.
    pub(super) listen_nonblock: bool,
    pub(super) network: NetworkPolicy,
    pub(super) drain: Duration,
    pub(super) initialize: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            listen_first: false,
            listen_nonblock: false,
            // The container's own network decides.
            network: NetworkPolicy::allow_all(),
            drain: Duration::from_secs(5),
            initialize: None,
        }
    }
}

impl Settings {
    /// Reads the annotations; those of others are left alone.
    pub(super) fn read(annotations: &Annotations) -> Result<Self, GuestError> {
        let mut settings = Self::default();
        if let Some(text) = annotations.get(LISTEN) {
            settings.listen = addresses(text).map_err(|why| bad(LISTEN, text, why))?;
        }
        settings.listen_first = flag(annotations, LISTEN_FIRST)?;
        settings.listen_nonblock = flag(annotations, LISTEN_NONBLOCK)?;
        if let Some(text) = annotations.get(NETWORK) {
            let policy = text.parse::<NetworkPolicy>();
            settings.network = policy.map_err(|error| bad(NETWORK, text, error.to_string()))?;
        }
        if let Some(text) = annotations.get(DRAIN) {
            let seconds = text.trim().parse().ok().filter(|&seconds| seconds <= MAX_DRAIN);
            let why = || format!("must be a whole number from 0 to {MAX_DRAIN}");
            let seconds = seconds.ok_or_else(|| bad(DRAIN, text, why()))?;
            settings.drain = Duration::from_secs(seconds);
        }
        settings.initialize = initialize(annotations)?;
        Ok(settings)
    }
}

/// The export that initialises the program, if the annotations name one.
///
/// # Errors
/// When it cannot be a name.
pub fn initialize(annotations: &Annotations) -> Result<Option<String>, GuestError> {
    let Some(text) = annotations.get(INITIALIZE) else { return Ok(None) };
    if text.is_empty() || text.len() > MAX_INITIALIZE || text.contains(char::is_control) {
        let why = format!("must be the name of an export, of at most {MAX_INITIALIZE} bytes");
        return Err(bad(INITIALIZE, text, why));
    }
    Ok(Some(text.to_owned()))
}

/// An annotation that is true or false, or not there: false.
fn flag(annotations: &Annotations, key: &str) -> Result<bool, GuestError> {
    let Some(text) = annotations.get(key) else { return Ok(false) };
    text.trim().parse().map_err(|_| bad(key, text, "must be true or false".to_owned()))
}

fn addresses(text: &str) -> Result<Vec<ListenAddress>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let all: Vec<_> = parts
        .map(|part| part.parse::<ListenAddress>().map_err(|error| error.to_string()))
        .collect::<Result<_, _>>()?;
    if all.len() > MAX_LISTEN {
        return Err(format!("has {} addresses; {MAX_LISTEN} are the most", all.len()));
    }
    Ok(all)
}

fn bad(key: &str, text: &str, why: String) -> GuestError {
    GuestError::Spec { what: format!("the annotation {key}={text:?}"), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Settings::read(&Annotations::new(pairs)).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_said_means_defaults() {
        assert_eq!(read(&[("other/listen", "x")]), Ok(Settings::default()));
    }

    #[test]
    fn all_can_be_set() {
        let settings = read(&[
            (LISTEN, "8080, 127.0.0.1:9090,"),
            (LISTEN_FIRST, "true"),
            (LISTEN_NONBLOCK, "true"),
            (NETWORK, "allow 10.0.0.0/8, listen *:80"),
            (DRAIN, "30"),
            (INITIALIZE, "prepare"),
        ])
        .unwrap();
        let shown: Vec<String> = settings.listen.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["port 8080", "127.0.0.1:9090"]);
        assert!(settings.listen_first && settings.listen_nonblock);
        assert_eq!(settings.network.to_string(), "allow 10.0.0.0/8, listen *:80");
        assert_eq!(settings.drain, Duration::from_secs(30));
        assert_eq!(settings.initialize.as_deref(), Some("prepare"));
        assert_eq!(read(&[(DRAIN, "0")]).unwrap().drain, Duration::ZERO);
    }

    #[test]
    fn bad_values_are_refused_with_their_key() {
        let many = "1,".repeat(65);
        for (key, value) in [
            (LISTEN, "eighty"),
            (LISTEN, "1.2.3.4"),
            (LISTEN, many.as_str()),
            (LISTEN_FIRST, "yes"),
            (LISTEN_NONBLOCK, "1"),
            (NETWORK, "allow 10.0.0.0/33"),
            (NETWORK, "some"),
            (DRAIN, "-1"),
            (DRAIN, "3601"),
            (DRAIN, "1.5"),
            (INITIALIZE, ""),
            (INITIALIZE, "a\0b"),
        ] {
            let error = read(&[(key, value)]).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
    }
}
