//! The network as one guest may use it: the policy, what it has granted by name, how often it
//! refused.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::error::{Error, Result};
use super::names::Files;
use super::policy::{NetworkPolicy, Ports};

/// Most addresses that stay allowed because a name gave them; the oldest go first.
const MAX_GRANTED: usize = 4096;

/// The network of one guest, shared by its threads.
#[derive(Debug, Default)]
pub struct Network {
    policy: NetworkPolicy,
    files: Files,
    /// Addresses that look-ups of allowed names gave.
    granted: Mutex<VecDeque<(IpAddr, Ports)>>,
    refused: AtomicU64,
}

impl Network {
    /// A network with a policy, whose names come from these files.
    #[must_use]
    pub fn new(policy: NetworkPolicy, files: Files) -> Network {
        Network { policy, files, ..Network::default() }
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &NetworkPolicy {
        &self.policy
    }

    /// Where names come from.
    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// How many operations the policy has refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Counts and tells a refusal unless it is `allowed`.
    pub(super) fn demand(&self, allowed: bool) -> Result<()> {
        if allowed {
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(Error::Denied)
    }

    /// May the guest have sockets of its own at all?
    pub(super) fn check_open(&self) -> Result<()> {
        self.demand(self.policy.allows_something())
    }

    /// May the guest talk to this address?
    pub(super) fn check_outgoing(&self, to: SocketAddr) -> Result<()> {
        self.demand(self.policy.allows_outgoing(to) || self.is_granted(to))
    }

    /// May the guest bind here? Any free port is what sending and connecting take by themselves, so
    /// that needs no rule.
    pub(super) fn check_bind(&self, at: SocketAddr) -> Result<()> {
        let anything = self.policy.allows_something() && at.port() == 0;
        self.demand(anything || self.policy.allows_listening(at))
    }

    /// May the guest accept connections here?
    pub(super) fn check_listen(&self, at: SocketAddr) -> Result<()> {
        self.demand(self.policy.allows_listening(at))
    }

    fn is_granted(&self, to: SocketAddr) -> bool {
        let ip = to.ip().to_canonical();
        let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        granted.iter().any(|(of, ports)| *of == ip && ports.contains(&to.port()))
    }

    /// Allows the addresses of a name at the ports of the rules about it. What a name server says
    /// opens no way to this machine, its link, or groups; the hosts file (`local`) is the operator's.
    pub(super) fn grant(&self, name: &str, addresses: &[IpAddr], local: bool) {
        for ports in self.policy.ports_of(name) {
            let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
            for ip in addresses.iter().map(IpAddr::to_canonical) {
                if !local && !is_elsewhere(ip) {
                    continue;
                }
                let grant = (ip, ports.clone());
                if granted.contains(&grant) {
                    continue;
                }
                if granted.len() >= MAX_GRANTED {
                    granted.pop_front();
                }
                granted.push_back(grant);
            }
        }
    }
}

/// Whether an address can be another machine's beyond this link.
fn is_elsewhere(ip: IpAddr) -> bool {
    let own = ip.is_loopback() || ip.is_unspecified() || ip.is_multicast();
    let near = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast() || ip.octets()[0] == 0,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !own && !near
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(policy: &str) -> Network {
        Network::new(policy.parse().unwrap(), Files::default())
    }

    #[test]
    fn refusals_are_counted() {
        let network = network("allow 10.0.0.0/8");
        assert_eq!(network.check_outgoing("10.0.0.1:1".parse().unwrap()), Ok(()));
        assert_eq!(network.refused(), 0);
        let other = "192.0.2.1:1".parse().unwrap();
        assert_eq!(network.check_outgoing(other), Err(Error::Denied));
        assert_eq!(network.check_bind(other), Err(Error::Denied));
        assert_eq!(network.check_listen(other), Err(Error::Denied));
        assert_eq!(network.refused(), 3);
        assert_eq!(network.check_bind("0.0.0.0:0".parse().unwrap()), Ok(()), "any free port");
        assert_eq!(Network::default().check_open(), Err(Error::Denied));
        assert_eq!(Network::default().check_bind("0.0.0.0:0".parse().unwrap()), Err(Error::Denied));
    }

    #[test]
    fn names_open_their_addresses_at_their_ports() {
        let network = network("allow *.example.org:443");
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        let reaches = |port| network.check_outgoing(SocketAddr::new(ip, port)).is_ok();
        network.grant("other.example.net", &[ip], false);
        assert!(!reaches(443));
        network.grant("www.example.org", &[ip], false);
        assert!(reaches(443) && !reaches(80));
    }

    #[test]
    fn name_servers_open_no_way_inside() {
        let near = ["127.0.0.1", "169.254.169.254", "0.0.0.0", "0.1.2.3", "224.0.0.1", "::1"];
        for text in near.into_iter().chain(["fe80::1", "::ffff:127.0.0.1", "255.255.255.255"]) {
            let network = network("allow *.example.org");
            let ip: IpAddr = text.parse().unwrap();
            network.grant("www.example.org", &[ip], false);
            assert!(network.check_outgoing(SocketAddr::new(ip, 80)).is_err(), "{text}");
            network.grant("www.example.org", &[ip], true);
            assert!(network.check_outgoing(SocketAddr::new(ip, 80)).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_names_open_is_bounded() {
        let network = network("allow *.example.org");
        let addresses: Vec<IpAddr> =
            (0..MAX_GRANTED as u32 + 5).map(|n| IpAddr::V4((0xc000_0000 + n).into())).collect();
        network.grant("a.example.org", &addresses, false);
        network.grant("a.example.org", &addresses[10..20], false);
        assert_eq!(network.granted.lock().unwrap().len(), MAX_GRANTED);
        let reaches = |n: usize| network.check_outgoing(SocketAddr::new(addresses[n], 1)).is_ok();
        assert!(!reaches(4) && reaches(5) && reaches(MAX_GRANTED + 4));
    }
}
