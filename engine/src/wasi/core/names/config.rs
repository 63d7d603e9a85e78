//! The files: `hosts(5)` and `resolv.conf(5)`.

use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::{MAX_ADDRESSES, is_name};

/// Most bytes of a file that count.
const MAX_FILE: u64 = 1 << 20;
/// Most name servers: as in other resolvers.
const MAX_SERVERS: usize = 3;
/// Most domains to search.
const MAX_SEARCH: usize = 16;
/// The port of name servers.
const DNS: u16 = 53;

/// What `resolv.conf` says. Values out of range are cut to the greatest, as others do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resolver {
    pub(super) servers: Vec<SocketAddr>,
    search: Vec<String>,
    /// A name with this many dots is asked for as it is first.
    ndots: usize,
    /// How long one server may take for one answer.
    pub(super) timeout: Duration,
    /// How often all servers are asked.
    pub(super) attempts: u32,
    /// Begin with another server each time.
    pub(super) rotate: bool,
    /// Ask over TCP only.
    pub(super) tcp: bool,
}

impl Resolver {
    /// Reads the file; one that is missing is like an empty one.
    pub(super) fn read(path: &Path) -> Resolver {
        Resolver::parse(&text(path))
    }

    fn parse(text: &str) -> Resolver {
        let mut resolver = Resolver {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
            tcp: false,
        };
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => resolver.servers.extend(words.next().and_then(server)),
                // The last of these lines counts.
                Some("search" | "domain") => {
                    let domains = words.map(|word| word.trim_end_matches('.'));
                    let good = domains.filter(|domain| is_name(domain)).map(str::to_owned);
                    resolver.search = good.take(MAX_SEARCH).collect();
                }
                Some("options") => words.for_each(|option| resolver.set(option)),
                _ => {}
            }
        }
        resolver.servers.truncate(MAX_SERVERS);
        if resolver.servers.is_empty() {
            resolver.servers.push((Ipv4Addr::LOCALHOST, DNS).into());
        }
        resolver
    }

    fn set(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        let number = |most: u32| value.parse::<u32>().ok().map(|value| value.min(most));
        match name {
            "ndots" => self.ndots = number(15).map_or(self.ndots, |dots| dots as usize),
            "timeout" => {
                let seconds = number(30).map(|seconds| Duration::from_secs(seconds.max(1).into()));
                self.timeout = seconds.unwrap_or(self.timeout);
            }
            "attempts" => self.attempts = number(5).map_or(self.attempts, |n| n.max(1)),
            "rotate" => self.rotate = true,
            "use-vc" => self.tcp = true,
            _ => {}
        }
    }

    /// The full names to ask for, in order.
    pub(super) fn candidates(&self, host: &str) -> Vec<String> {
        if let Some(absolute) = host.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let mut names: Vec<String> =
            self.search.iter().map(|domain| format!("{host}.{domain}")).collect();
        let dots = host.bytes().filter(|byte| *byte == b'.').count();
        let place = if dots >= self.ndots { 0 } else { names.len() };
        names.insert(place, host.to_owned());
        names.retain(|name| is_name(name));
        names
    }
}

/// A name server's address, perhaps with a port.
fn server(text: &str) -> Option<SocketAddr> {
    // The scope of a link-local address cannot be told apart from here.
    let plain = text.split_once('%').map_or(text, |(plain, _)| plain);
    let alone = plain.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS));
    alone.or_else(|_| text.parse()).ok()
}

/// What the hosts file says of a name: the first name of the line that it is found on, and the
/// addresses of all such lines.
pub(super) fn hosts(path: &Path, name: &str) -> Option<(String, Vec<IpAddr>)> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut found: Option<(String, Vec<IpAddr>)> = None;
    for line in text(path).lines() {
        let line = line.split_once('#').map_or(line, |(line, _)| line);
        let mut words = line.split_whitespace();
        let Some(ip) = words.next().and_then(|ip| ip.parse().ok()) else { continue };
        let mut names = words.peekable();
        let canonical = names.peek().copied().unwrap_or_default();
        if names.any(|other| other.eq_ignore_ascii_case(name)) {
            let (_, ips) = found.get_or_insert_with(|| (canonical.to_owned(), Vec::new()));
            if !ips.contains(&ip) && ips.len() < MAX_ADDRESSES {
                ips.push(ip);
            }
        }
    }
    found
}

/// A file's text as far as it counts. What is no UTF-8 is in no name or address.
fn text(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = open(path).map(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
    match read {
        Some(Ok(_)) => String::from_utf8_lossy(&bytes).into_owned(),
        _ => String::new(),
    }
}

/// Opens a regular file. An image may have put a FIFO in its place, which must not hang.
fn open(path: &Path) -> Option<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    file.metadata().ok()?.is_file().then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_like_elsewhere() {
        let resolver = Resolver::parse(
            "# comment\nnameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver nonsense\n\
             nameserver 127.0.0.1:5353\nnameserver 192.0.2.9\ndomain lost.example\n\
             search a.example b.example. bad..name\noptions ndots:2 timeout:99 attempts:0 rotate\n\
             options unknown ndots:x\n; end",
        );
        let servers = ["192.0.2.1:53", "[2001:db8::1]:53", "127.0.0.1:5353"];
        assert_eq!(resolver.servers, servers.map(|server| server.parse().unwrap()));
        assert_eq!(resolver.search, ["a.example", "b.example"]);
        assert_eq!((resolver.ndots, resolver.attempts, resolver.rotate), (2, 1, true));
        assert_eq!(resolver.timeout, Duration::from_secs(30));
        let empty = Resolver::read(Path::new("/nonexistent/resolv.conf"));
        assert_eq!(empty.servers, ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!((empty.ndots, empty.attempts, empty.timeout.as_secs()), (1, 2, 5));
    }

    #[test]
    fn names_with_few_dots_are_searched_first() {
        let resolver = Resolver::parse("search a.example b.example\noptions ndots:2");
        assert_eq!(resolver.candidates("x.y"), ["x.y.a.example", "x.y.b.example", "x.y"]);
        assert_eq!(resolver.candidates("x.y.z"), ["x.y.z", "x.y.z.a.example", "x.y.z.b.example"]);
        assert_eq!(resolver.candidates("x.y."), ["x.y"]);
        let long = ["a".repeat(60), "b".repeat(60), "c".repeat(60), "d".repeat(61)].join(".");
        assert_eq!(resolver.candidates(&long), [long], "too long with a domain");
    }

    #[test]
    fn hosts_give_all_addresses_of_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        let content = "192.0.2.1 real.example alias Other # c\n2001:db8::1\treal.example alias\n\
                       # 192.0.2.9 alias\nbad alias\n192.0.2.1 alias\n";
        std::fs::write(&path, content).unwrap();
        let ips: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(hosts(&path, "ALIAS."), Some(("real.example".into(), ips)));
        assert_eq!(hosts(&path, "other").map(|found| found.1.len()), Some(1));
        assert_eq!(hosts(&path, "192.0.2.1"), None);
        assert_eq!(hosts(&path, "c"), None);
    }

    #[test]
    fn files_that_are_none_are_empty() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(text(&fifo), "", "and it does not wait for a writer");
        assert_eq!(text(dir.path()), "");
        let big = dir.path().join("big");
        std::fs::write(&big, vec![b'x'; MAX_FILE as usize + 1]).unwrap();
        assert_eq!(text(&big).len() as u64, MAX_FILE);
    }
}
