//! Names to addresses, from the container's own files and name servers.
//!
//! Nothing is read before a name is asked for, and nothing is kept: a change of the files holds from
//! the next question on. The hosts file comes first, then the name servers of `resolv.conf(5)`.
//! Whatever a name server says or keeps back, a look-up takes [`MAX_SECONDS`] at most and little
//! memory.

mod client;
mod config;
mod services;
mod wire;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::error::Error;
use super::network::Network;
use super::socket::Family;
use client::Outcome;
use config::Resolver;

/// Most seconds that a look-up takes.
pub const MAX_SECONDS: u64 = 30;
/// Most addresses of a name that are given, of each family.
pub const MAX_ADDRESSES: usize = 64;
/// Longest name, in bytes: RFC 1035.
const MAX_NAME: usize = 253;

/// Where names come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Names with addresses: `hosts(5)`.
    pub hosts: PathBuf,
    /// Name servers: `resolv.conf(5)`. A name server may have a port: `192.0.2.1:5353`.
    pub resolv_conf: PathBuf,
}

impl Default for Files {
    /// Those of `/etc`.
    fn default() -> Files {
        Files { hosts: "/etc/hosts".into(), resolv_conf: "/etc/resolv.conf".into() }
    }
}

/// A question for addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<'q> {
    /// A name or a numeric address; `None` is this machine.
    pub host: Option<&'q str>,
    /// A service's name or a port in digits; `None` is port 0.
    pub service: Option<&'q str>,
    /// Only addresses of this family.
    pub family: Option<Family>,
    /// Without a host, the address to listen at and not the one to connect to.
    pub passive: bool,
    /// The host must be a numeric address.
    pub numeric_host: bool,
    /// The service must be a port.
    pub numeric_service: bool,
}

/// Addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The addresses, of IPv4 first: there are machines that know some of IPv6 and cannot use them.
    pub addresses: Vec<IpAddr>,
    /// The service's port.
    pub port: u16,
    /// The name that all other names of this host stand for.
    pub canonical: String,
}

/// Why there are no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name does not exist.
    #[error("no such name")]
    NoName,
    /// The name exists and has no address of this family.
    #[error("the name has no address of this family")]
    NoAddress,
    /// Nobody knows such a service.
    #[error("no such service")]
    NoService,
    /// No name server answered in time.
    #[error("no name server answers")]
    Again,
    /// The name servers cannot tell.
    #[error("the name servers fail")]
    Failed,
    /// The operation as such is not possible.
    #[error(transparent)]
    Refused(#[from] Error),
}

impl Network {
    /// The addresses of a name that the policy allows; they may be used from now on as the rules
    /// about the name say. Names of the hosts file need no permission: nobody is asked for them.
    ///
    /// # Errors
    /// Why there are none; [`Error::Denied`] for a name that the policy does not allow.
    pub fn resolve(&self, query: &Query<'_>) -> Result<Answer, NameError> {
        let port = services::port(query.service, query.numeric_service)?;
        let host = query.host.filter(|host| !host.is_empty());
        let Some(host) = host else {
            if query.service.is_none_or(str::is_empty) {
                return Err(NameError::NoName);
            }
            return answer(here(query.passive), query.family, port, String::new());
        };
        if let Some(ip) = numeric(host) {
            return answer(vec![ip], query.family, port, host.to_owned());
        }
        if query.numeric_host || !is_name(host) {
            return Err(NameError::NoName);
        }
        self.check_open()?;
        if let Some((canonical, addresses)) = config::hosts(&self.files().hosts, host) {
            self.grant(host, &addresses, true);
            return answer(addresses, query.family, port, canonical);
        }
        if is_local(host) {
            self.grant(host, &here(false), true);
            return answer(here(false), query.family, port, host.to_owned());
        }
        self.ask(host, query.family, port)
    }

    /// Asks the name servers for a name and what the search list makes of it.
    fn ask(&self, host: &str, family: Option<Family>, port: u16) -> Result<Answer, NameError> {
        let resolver = Resolver::read(&self.files().resolv_conf);
        let asked = self.policy().allows_name(host);
        let mut names: Vec<String> = resolver.candidates(host);
        names.retain(|name| asked || self.policy().allows_name(name));
        self.demand(!names.is_empty())?;
        let deadline = Instant::now() + Duration::from_secs(MAX_SECONDS);
        let mut worst = NameError::NoName;
        for name in names {
            match client::ask(&resolver, &name, family, deadline) {
                Outcome::Addresses(addresses, canonical) => {
                    self.grant(host, &addresses, false);
                    self.grant(&name, &addresses, false);
                    return answer(addresses, family, port, canonical);
                }
                Outcome::NoName => {}
                Outcome::NoAddress => worst = NameError::NoAddress,
                Outcome::Failed => worst = NameError::Failed,
                Outcome::NoReply => return Err(NameError::Again),
            }
        }
        Err(worst)
    }
}

/// An answer with the addresses of the family that is wanted.
fn answer(
    mut addresses: Vec<IpAddr>,
    family: Option<Family>,
    port: u16,
    canonical: String,
) -> Result<Answer, NameError> {
    addresses.retain(|ip| family.is_none_or(|family| family == Family::of(ip)));
    addresses.sort_by_key(IpAddr::is_ipv6);
    if addresses.is_empty() {
        return Err(NameError::NoAddress);
    }
    Ok(Answer { addresses, port, canonical })
}

/// This machine: where to listen, or where to connect to.
fn here(passive: bool) -> Vec<IpAddr> {
    if passive {
        vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
    } else {
        vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
    }
}

/// Whether a name means this machine whatever anybody says: RFC 6761.
fn is_local(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// An address in numbers. Scopes of IPv6 addresses are dropped: no dialect can tell them.
fn numeric(host: &str) -> Option<IpAddr> {
    let plain = host.split_once('%').map_or(host, |(plain, _)| plain);
    match plain.parse() {
        Ok(IpAddr::V4(_)) if plain.len() != host.len() => None,
        result => result.ok(),
    }
}

/// Whether a host's name can be asked for.
fn is_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(letter);
    host.len() <= MAX_NAME && host.split('.').all(label)
}
