//! Network policy: which addresses and names a guest may reach, and where it may listen.
//!
//! ```text
//! policy = "deny" | "allow" | "allow" rule *("," rule)
//! rule   = ["listen"] target [":" ports]
//! target = "*" | IPV4 ["/" bits] | "[" IPV6 "]" ["/" bits] | NAME | "*." NAME
//! ports  = PORT | PORT "-" PORT
//! ```
//!
//! A rule without `listen` is about the other side of connections and datagrams; one with it about
//! the guest's own address, and has no name as its target. Without ports a rule holds for all. `*.`
//! stands for one label or more. IPv4 addresses written as IPv6 (`::ffff:…`) count as IPv4.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Most rules of a policy.
const MAX_RULES: usize = 1024;
/// Longest name, in bytes: RFC 1035.
const MAX_NAME: usize = 253;

/// What a guest may do with the network.
///
/// ```
/// use coracle_engine::wasi::NetworkPolicy;
/// let policy: NetworkPolicy = "allow 10.0.0.0/8, *.example.org:443, listen *:8080".parse()?;
/// assert!(policy.allows_outgoing("10.1.2.3:5432".parse()?));
/// assert!(!policy.allows_outgoing("192.0.2.1:443".parse()?));
/// assert!(policy.allows_listening("0.0.0.0:8080".parse()?));
/// assert!(policy.allows_name("www.example.org"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct NetworkPolicy(Rules);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Rules {
    #[default]
    Nothing,
    Everything,
    Only(Vec<Rule>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    listen: bool,
    target: Target,
    ports: Ports,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Anything,
    /// An address with the number of its leading bits that count.
    Net(IpAddr, u8),
    /// A name in lower case without a dot at its end.
    Name(String),
    /// What lies beneath a name.
    Beneath(String),
}

/// Ports that a rule is about.
pub(super) type Ports = RangeInclusive<u16>;

/// Why a text is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPolicy {
    /// It begins with another word.
    #[error("a network policy is `deny`, `allow`, or `allow` and rules, not `{0}`")]
    Verb(String),
    /// A rule cannot be understood.
    #[error(
        "`{0}` is no rule of a network policy: write an address or network such as 10.0.0.0/8 or \
         [fd00::]/8, a name such as example.org or *.example.org, or *, each with :PORT or \
         :FIRST-LAST behind it if need be; `listen` before an address lets the program listen there"
    )]
    Rule(String),
    /// It is too long.
    #[error("a network policy has at most {MAX_RULES} rules")]
    TooLong,
}

impl NetworkPolicy {
    /// All of the network.
    #[must_use]
    pub fn allow_all() -> NetworkPolicy {
        NetworkPolicy(Rules::Everything)
    }

    /// No network at all. What was handed in can be used.
    #[must_use]
    pub fn deny() -> NetworkPolicy {
        NetworkPolicy(Rules::Nothing)
    }

    /// Whether anything is allowed.
    #[must_use]
    pub fn allows_something(&self) -> bool {
        self.0 != Rules::Nothing
    }

    /// Whether the guest may talk to this address.
    #[must_use]
    pub fn allows_outgoing(&self, to: SocketAddr) -> bool {
        self.any(|rule| !rule.listen && rule.covers(to))
    }

    /// Whether the guest may listen at this address.
    #[must_use]
    pub fn allows_listening(&self, at: SocketAddr) -> bool {
        self.any(|rule| rule.listen && rule.covers(at))
    }

    /// Whether the guest may ask for the addresses of this name.
    #[must_use]
    pub fn allows_name(&self, name: &str) -> bool {
        self.any(|rule| rule.is_about(name) || rule.allows_any())
    }

    /// The ports that a name's addresses may be reached at by a rule about the name.
    pub(super) fn ports_of<'p>(&'p self, name: &'p str) -> impl Iterator<Item = &'p Ports> {
        let rules: &[Rule] = match &self.0 {
            Rules::Only(rules) => rules,
            Rules::Nothing | Rules::Everything => &[],
        };
        rules.iter().filter(move |rule| rule.is_about(name)).map(|rule| &rule.ports)
    }

    fn any(&self, allows: impl Fn(&Rule) -> bool) -> bool {
        match &self.0 {
            Rules::Nothing => false,
            Rules::Everything => true,
            Rules::Only(rules) => rules.iter().any(allows),
        }
    }
}

impl Rule {
    fn allows_any(&self) -> bool {
        !self.listen && self.target == Target::Anything
    }

    fn covers(&self, address: SocketAddr) -> bool {
        let inside = match &self.target {
            Target::Anything => true,
            Target::Net(net, bits) => is_inside(address.ip().to_canonical(), *net, *bits),
            Target::Name(_) | Target::Beneath(_) => false,
        };
        inside && self.ports.contains(&address.port())
    }

    fn is_about(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        match &self.target {
            Target::Name(own) => name == *own,
            Target::Beneath(own) => name
                .strip_suffix(own.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|label| !label.is_empty()),
            Target::Anything | Target::Net(..) => false,
        }
    }
}

/// Whether the leading bits are the same; never across families.
fn is_inside(ip: IpAddr, net: IpAddr, bits: u8) -> bool {
    let same = |ip: u128, net: u128, width: u32| {
        let rest = width.saturating_sub(bits.into());
        rest >= width || ip >> rest == net >> rest
    };
    match (ip, net) {
        (IpAddr::V4(ip), IpAddr::V4(net)) => {
            same(u32::from(ip).into(), u32::from(net).into(), Ipv4Addr::BITS)
        }
        (IpAddr::V6(ip), IpAddr::V6(net)) => same(ip.into(), net.into(), Ipv6Addr::BITS),
        _ => false,
    }
}

impl FromStr for NetworkPolicy {
    type Err = BadPolicy;

    fn from_str(text: &str) -> Result<NetworkPolicy, BadPolicy> {
        let (verb, rules) =
            text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), ""));
        match (verb, rules.trim()) {
            ("deny", "") => Ok(NetworkPolicy::deny()),
            ("allow", "") => Ok(NetworkPolicy::allow_all()),
            ("allow", rules) => {
                let rules: Vec<Rule> =
                    rules.split(',').take(MAX_RULES + 1).map(rule).collect::<Result<_, _>>()?;
                if rules.len() > MAX_RULES {
                    return Err(BadPolicy::TooLong);
                }
                Ok(NetworkPolicy(Rules::Only(rules)))
            }
            _ => Err(BadPolicy::Verb(text.chars().take(40).collect())),
        }
    }
}

fn rule(text: &str) -> Result<Rule, BadPolicy> {
    let text = text.trim();
    let bad = || BadPolicy::Rule(text.chars().take(MAX_NAME).collect());
    let (listen, rest) = match text.split_once(char::is_whitespace) {
        Some(("listen", rest)) => (true, rest.trim()),
        _ => (false, text),
    };
    let (place, ports) = split_ports(rest).ok_or_else(bad)?;
    let target = target(place).ok_or_else(bad)?;
    if listen && matches!(target, Target::Name(_) | Target::Beneath(_)) {
        return Err(bad());
    }
    Ok(Rule { listen, target, ports })
}

/// Splits at the colon behind everything in brackets.
fn split_ports(text: &str) -> Option<(&str, Ports)> {
    let from = text.find(']').map_or(0, |end| end + 1);
    let Some(colon) = text[from..].find(':').map(|at| from + at) else {
        return Some((text, 0..=u16::MAX));
    };
    let (place, ports) = (&text[..colon], &text[colon + 1..]);
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((place, first..=last))
}

/// A number in digits only: `parse` would take a sign too.
fn number<N: FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn target(text: &str) -> Option<Target> {
    if text == "*" {
        return Some(Target::Anything);
    }
    let (place, bits) = match text.split_once('/') {
        Some((place, bits)) => (place, Some(number::<u8>(bits)?)),
        None => (text, None),
    };
    let bracketed = place.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let ip = match bracketed {
        Some(ip) => Some(IpAddr::V6(ip.parse().ok()?)),
        None => place.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    };
    match ip {
        Some(ip) => net(ip, bits),
        None if bits.is_some() => None,
        None => name(text),
    }
}

fn net(ip: IpAddr, bits: Option<u8>) -> Option<Target> {
    let width = if ip.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(width);
    if bits > width {
        return None;
    }
    match ip.to_canonical() {
        // Of an IPv4 network in IPv6 notation the first 96 bits are fixed.
        v4 @ IpAddr::V4(_) if width == 128 => Some(Target::Net(v4, bits.checked_sub(96)?)),
        ip => Some(Target::Net(ip, bits)),
    }
}

fn name(text: &str) -> Option<Target> {
    let (make, name): (fn(String) -> Target, _) = match text.strip_prefix("*.") {
        Some(rest) => (Target::Beneath, rest),
        None => (Target::Name, text),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let good = |label: &str| {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(letter)
    };
    // A last label of digits is a mistyped address.
    let last = name.rsplit('.').next()?;
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit());
    (name.len() <= MAX_NAME && name.split('.').all(good) && !numeric)
        .then(|| make(name.to_ascii_lowercase()))
}

impl fmt::Display for NetworkPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Rules::Nothing => f.write_str("deny"),
            Rules::Everything => f.write_str("allow"),
            Rules::Only(rules) => {
                let texts: Vec<String> = rules.iter().map(ToString::to_string).collect();
                write!(f, "allow {}", texts.join(", "))
            }
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.listen {
            f.write_str("listen ")?;
        }
        match &self.target {
            Target::Anything => f.write_str("*")?,
            Target::Net(IpAddr::V4(ip), bits) => write!(f, "{ip}/{bits}")?,
            Target::Net(IpAddr::V6(ip), bits) => write!(f, "[{ip}]/{bits}")?,
            Target::Name(name) => f.write_str(name)?,
            Target::Beneath(name) => write!(f, "*.{name}")?,
        }
        match (*self.ports.start(), *self.ports.end()) {
            (0, u16::MAX) => Ok(()),
            (first, last) if first == last => write!(f, ":{first}"),
            (first, last) => write!(f, ":{first}-{last}"),
        }
    }
}

impl From<NetworkPolicy> for String {
    fn from(policy: NetworkPolicy) -> String {
        policy.to_string()
    }
}

impl TryFrom<String> for NetworkPolicy {
    type Error = BadPolicy;

    fn try_from(text: String) -> Result<NetworkPolicy, BadPolicy> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> NetworkPolicy {
        text.parse().unwrap()
    }

    fn outgoing(policy: &NetworkPolicy, to: &str) -> bool {
        policy.allows_outgoing(to.parse().unwrap())
    }

    #[test]
    fn addresses_are_compared_by_their_leading_bits() {
        let rules = policy("allow 10.0.0.0/8, 192.168.1.7:5432, [fd00::]/8:80-90");
        for to in ["10.255.0.1:1", "192.168.1.7:5432", "[fd12::1]:85", "[::ffff:10.0.0.1]:9"] {
            assert!(outgoing(&rules, to), "{to}");
        }
        for to in ["11.0.0.1:1", "192.168.1.7:5433", "192.168.1.8:5432", "[fd12::1]:91"] {
            assert!(!outgoing(&rules, to), "{to}");
        }
        for to in ["[fe00::1]:80", "[::a00:1]:80"] {
            assert!(!outgoing(&rules, to), "{to}");
        }
        assert!(outgoing(&policy("allow [::ffff:10.0.0.0]/104"), "10.2.3.4:5"));
        assert!(outgoing(&policy("allow 0.0.0.0/0"), "203.0.113.1:5"));
        assert!(!outgoing(&policy("allow 0.0.0.0/0"), "[2001:db8::1]:5"));
        assert!(outgoing(&policy("allow *:80"), "[2001:db8::1]:80"));
        assert!(outgoing(&policy("allow"), "127.0.0.1:1"));
        assert!(!outgoing(&policy("deny"), "127.0.0.1:1"));
        assert_eq!(NetworkPolicy::default(), policy(" deny "));
    }

    #[test]
    fn listening_needs_rules_of_its_own() {
        let rules = policy("allow 10.0.0.0/8, listen *:8080, listen 127.0.0.1");
        let listens = |at: &str| rules.allows_listening(at.parse().unwrap());
        assert!(listens("0.0.0.0:8080") && listens("[::]:8080") && listens("127.0.0.1:9"));
        assert!(!listens("0.0.0.0:8081") && !listens("10.0.0.1:9"));
        assert!(!outgoing(&rules, "127.0.0.1:8080"));
    }

    #[test]
    fn names_are_whole_labels_in_any_case() {
        let rules = policy("allow example.org:443, *.example.net:1-2");
        let ports = |name: &str| rules.ports_of(name).cloned().collect::<Vec<_>>();
        assert_eq!(ports("EXAMPLE.org."), [443..=443]);
        assert_eq!(ports("a.b.example.net"), [1..=2]);
        for name in ["www.example.org", "example.net", ".example.net", "badexample.net", "org"] {
            assert!(!rules.allows_name(name), "{name}");
        }
        assert!(policy("allow *").allows_name("anything"));
        assert!(!policy("allow 10.0.0.0/8, listen *").allows_name("anything"));
    }

    #[test]
    fn what_is_printed_is_read_again() {
        for text in [
            "deny",
            "allow",
            "allow 10.0.0.0/8, [fd00::]/8:80-90, *.example.org:443, example.org, *:53, listen *",
        ] {
            assert_eq!(policy(text).to_string(), text);
        }
        assert_eq!(policy("allow  10.0.0.1 ,*").to_string(), "allow 10.0.0.1/32, *");
    }

    #[test]
    fn what_cannot_be_understood_is_refused_with_its_text() {
        for text in ["", "permit", "deny all", "denyall", "ALLOW"] {
            assert!(matches!(text.parse::<NetworkPolicy>(), Err(BadPolicy::Verb(_))), "{text}");
        }
        for rule in [
            "",
            "10.0.0.0/33",
            "[::]/129",
            "10.0.0",
            "1.2.3.4:",
            "1.2.3.4:+1",
            "1.2.3.4:9-8",
            "1.2.3.4:65536",
            "::1",
            "[::1",
            "a..b",
            "*.*.org",
            "a/8",
            "*a",
            "listen a.org",
            "1.2.3.4/+8",
            "[::ffff:1.2.3.4]/8",
            "a b",
            "[1.2.3.4]",
            "-:1:2",
        ] {
            let error = format!("allow {rule},").parse::<NetworkPolicy>().unwrap_err();
            assert!(error.to_string().contains(&format!("`{rule}`")), "{rule}: {error}");
        }
        let long = format!("allow {}", vec!["*"; MAX_RULES + 1].join(","));
        assert_eq!(long.parse::<NetworkPolicy>(), Err(BadPolicy::TooLong));
    }
}
