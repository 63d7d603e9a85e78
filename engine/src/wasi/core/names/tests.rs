//! Look-ups against real name servers of the test's own: good, slow, lying and hostile ones.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::*;

/// Makes the replies to a question: any number of messages.
type Answers = dyn Fn(&Message, bool) -> Vec<Vec<u8>> + Send + Sync;

/// A name server over UDP and TCP at one port. It ends with the process.
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Server {
    fn new(answers: impl Fn(&Message, bool) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Server {
        let (udp, tcp) = sockets();
        let address = udp.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let answers: Arc<Answers> = Arc::new(answers);
        let (more, count) = (Arc::clone(&answers), Arc::clone(&asked));
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((len, from)) = udp.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::SeqCst);
                let question = Message::from_vec(&buffer[..len]).unwrap();
                for reply in answers(&question, false) {
                    udp.send_to(&reply, from).unwrap();
                }
            }
        });
        thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                let mut len = [0; 2];
                stream.read_exact(&mut len).unwrap();
                let mut question = vec![0; u16::from_be_bytes(len).into()];
                stream.read_exact(&mut question).unwrap();
                for reply in more(&Message::from_vec(&question).unwrap(), true) {
                    // The resolver may have gone meanwhile.
                    let _ = stream.write_all(&(reply.len() as u16).to_be_bytes());
                    let _ = stream.write_all(&reply);
                }
            }
        });
        Server { address, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        // Another process may have the same port of UDP.
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
}

/// The guest's network with files of its own.
struct Net {
    network: Network,
    _dir: tempfile::TempDir,
}

fn net(policy: &str, hosts: &str, resolv_conf: &str) -> Net {
    let dir = tempfile::tempdir().unwrap();
    let files = Files { hosts: dir.path().join("hosts"), resolv_conf: dir.path().join("resolv") };
    std::fs::write(&files.hosts, hosts).unwrap();
    std::fs::write(&files.resolv_conf, resolv_conf).unwrap();
    Net { network: Network::new(policy.parse().unwrap(), files), _dir: dir }
}

fn using(servers: &[&Server], options: &str) -> Net {
    let lines = servers.iter().map(|server| format!("nameserver {}\n", server.address));
    let conf: String = lines.collect();
    net("allow", "", &format!("{conf}options timeout:1 attempts:1\n{options}\n"))
}

impl Net {
    fn look_up(&self, host: &str) -> Result<Answer, NameError> {
        self.network.resolve(&Query { host: Some(host), ..Query::default() })
    }

    fn ips(&self, host: &str) -> Result<Vec<String>, NameError> {
        let shown = |answer: Answer| answer.addresses.iter().map(ToString::to_string).collect();
        self.look_up(host).map(shown)
    }
}

fn reply(question: &Message, code: ResponseCode, records: Vec<Record>) -> Message {
    let mut message = question.clone();
    message.metadata.message_type = MessageType::Response;
    message.metadata.response_code = code;
    message.answers = records;
    message
}

fn name(text: &str) -> Name {
    Name::from_ascii(format!("{text}.")).unwrap()
}

fn alias(from: &str, to: &str) -> Record {
    Record::from_rdata(name(from), 60, RData::CNAME(CNAME(name(to))))
}

fn a(owner: &str, last: u8) -> Record {
    Record::from_rdata(name(owner), 60, RData::A(A(Ipv4Addr::new(192, 0, 2, last))))
}

fn aaaa(owner: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::AAAA(AAAA("2001:db8::1".parse().unwrap())))
}

fn wants(question: &Message, kind: RecordType) -> bool {
    question.queries[0].query_type() == kind
}

fn asked_name(question: &Message) -> String {
    question.queries[0].name().to_ascii().trim_end_matches('.').to_owned()
}

fn sent(message: &Message) -> Vec<Vec<u8>> {
    vec![message.to_vec().unwrap()]
}

/// Knows `host.example` and an alias of it; all else does not exist.
fn good(question: &Message, _: bool) -> Vec<Vec<u8>> {
    let owner = asked_name(question).to_ascii_lowercase();
    let mut records = Vec::new();
    if owner == "alias.example" {
        records.push(alias("alias.example", "middle.example"));
        records.push(alias("middle.example", "host.example"));
    } else if owner != "host.example" {
        return sent(&reply(question, ResponseCode::NXDomain, vec![]));
    }
    let six = wants(question, RecordType::AAAA);
    records.push(if six { aaaa("host.example") } else { a("host.example", 1) });
    // A record of another name is nobody's business.
    records.push(a("other.example", 9));
    sent(&reply(question, ResponseCode::NoError, records))
}

#[test]
fn both_families_and_aliases_are_found() {
    let server = Server::new(good);
    let net = using(&[&server], "");
    assert_eq!(net.ips("host.example").unwrap(), ["192.0.2.1", "2001:db8::1"]);
    let answer = net.look_up("ALIAS.example").unwrap();
    assert_eq!((answer.addresses.len(), &*answer.canonical), (2, "host.example"));
    assert_eq!(net.ips("none.example"), Err(NameError::NoName));
    let family = Some(Family::Inet6);
    let query = Query { host: Some("host.example"), family, ..Query::default() };
    assert_eq!(net.network.resolve(&query).unwrap().addresses.len(), 1);
    let asked = server.asked();
    assert_eq!(net.network.resolve(&query).unwrap().addresses.len(), 1);
    assert_eq!(server.asked(), asked + 1, "one family is one question");
}

#[test]
fn search_lists_and_ndots_are_obeyed() {
    let server = Server::new(good);
    let net = using(&[&server], "search none.example example");
    assert_eq!(net.ips("host").unwrap().len(), 2);
    assert_eq!(server.asked(), 4, "two names, two families");
    assert_eq!(net.ips("host."), Err(NameError::NoName));
}

#[test]
fn hosts_come_first_and_need_nobody() {
    let server = Server::new(good);
    let conf = format!("nameserver {}", server.address);
    let net = net("allow", "192.0.2.7 first host.example\n", &conf);
    assert_eq!(net.ips("host.example").unwrap(), ["192.0.2.7"]);
    assert_eq!(net.look_up("host.example").unwrap().canonical, "first");
    assert_eq!(net.ips("localhost").unwrap(), ["127.0.0.1", "::1"]);
    assert_eq!(net.ips("10.1.2.3").unwrap(), ["10.1.2.3"]);
    assert_eq!(net.ips("fe80::1%eth0").unwrap(), ["fe80::1"]);
    assert_eq!(server.asked(), 0);
    let long = "a".repeat(64);
    for bad in ["a..b", ".", "-_-!", "ü.example", &long, "1.2.3.4%x"] {
        assert_eq!(net.ips(bad), Err(NameError::NoName), "{bad}");
    }
    let query = Query { host: Some("host.example"), numeric_host: true, ..Query::default() };
    assert_eq!(net.network.resolve(&query), Err(NameError::NoName));
    assert_eq!(net.network.resolve(&Query::default()), Err(NameError::NoName));
}

#[test]
fn no_host_is_this_machine() {
    let net = net("allow", "", "");
    let query = Query { service: Some("http"), passive: true, ..Query::default() };
    let answer = net.network.resolve(&query).unwrap();
    assert!(answer.addresses.iter().all(IpAddr::is_unspecified) && answer.port == 80);
    let query = Query { passive: false, ..query };
    assert!(net.network.resolve(&query).unwrap().addresses.iter().all(IpAddr::is_loopback));
}

#[test]
fn what_is_cut_is_asked_for_over_tcp() {
    let server = Server::new(|question, tcp| {
        let owner = asked_name(question);
        let six = wants(question, RecordType::AAAA);
        let records = if tcp && !six { (0..200).map(|n| a(&owner, n)).collect() } else { vec![] };
        let mut message = reply(question, ResponseCode::NoError, records);
        message.metadata.truncation = !tcp;
        sent(&message)
    });
    let ips = using(&[&server], "").ips("many.example").unwrap();
    assert_eq!(ips.len(), MAX_ADDRESSES, "and no more are kept");
    let ips = using(&[&server], "options use-vc").ips("many.example").unwrap();
    assert_eq!(ips.len(), MAX_ADDRESSES);
}

#[test]
fn forged_and_broken_replies_are_passed_over() {
    let server = Server::new(|question, _| {
        let fine = |message: &Message| message.to_vec().unwrap();
        let good = reply(question, ResponseCode::NoError, vec![a("host.example", 1)]);
        let mut other_id = good.clone();
        other_id.metadata.id ^= 0x55;
        let mut other_name = good.clone();
        other_name.queries[0].set_name(name("forged.example"));
        let mut no_query = good.clone();
        no_query.queries.clear();
        let mut circle = fine(&good);
        // A compressed name that points at itself.
        let at = circle.len() - 16;
        circle[at] = 0xc0;
        circle[at + 1] = at as u8;
        let cut = fine(&good)[..20].to_vec();
        let mut replies: Vec<Vec<u8>> = [other_id, other_name, no_query].iter().map(fine).collect();
        replies.extend([circle, cut, vec![], vec![0xff; 512], fine(question), fine(&good)]);
        replies
    });
    assert_eq!(using(&[&server], "").ips("host.example").unwrap()[0], "192.0.2.1");
}

#[test]
fn circles_of_aliases_end() {
    let server = Server::new(|question, _| {
        let records = vec![alias("x.example", "y.example"), alias("y.example", "x.example")];
        sent(&reply(question, ResponseCode::NoError, records))
    });
    assert_eq!(using(&[&server], "").ips("x.example"), Err(NameError::Failed));
}

#[test]
fn silence_and_floods_end_in_time() {
    let silent = Server::new(|_, _| vec![]);
    let start = Instant::now();
    assert_eq!(using(&[&silent], "").ips("x.example"), Err(NameError::Again));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(silent.asked(), 2);

    let flood = Server::new(|_, _| vec![vec![0; 100]; 200]);
    let start = Instant::now();
    assert_eq!(using(&[&flood], "").ips("x.example"), Err(NameError::Again));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());

    // One that has nonsense to say over TCP.
    let stingy = Server::new(|question, tcp| {
        let mut message = reply(question, ResponseCode::NoError, vec![]);
        message.metadata.truncation = true;
        if tcp { vec![vec![0; 1]; 1] } else { sent(&message) }
    });
    let start = Instant::now();
    assert_eq!(using(&[&stingy], "").ips("x.example"), Err(NameError::Again));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn another_server_is_asked_when_one_fails() {
    let failing = Server::new(|question, _| sent(&reply(question, ResponseCode::ServFail, vec![])));
    let server = Server::new(good);
    let net = using(&[&failing, &server], "");
    assert_eq!(net.ips("host.example").unwrap().len(), 2);
    assert_eq!(failing.asked(), 2);
    assert_eq!(using(&[&failing], "").ips("host.example"), Err(NameError::Failed));
    // Nobody listens there: told at once, not after the time limit.
    let (udp, tcp) = sockets();
    let conf = format!("nameserver {}\nnameserver {}", udp.local_addr().unwrap(), server.address);
    drop((udp, tcp));
    let start = Instant::now();
    assert_eq!(super::tests::net("allow", "", &conf).ips("host.example").unwrap().len(), 2);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn names_need_rules_and_open_their_addresses() {
    let server = Server::new(good);
    let conf = format!("nameserver {}\nsearch example", server.address);
    let net = net("allow host.example:443", "192.0.2.8 near.example\n", &conf);
    let reaches = |to: &str| net.network.check_outgoing(to.parse().unwrap()).is_ok();
    assert!(!reaches("192.0.2.1:443"));
    assert_eq!(net.ips("alias.example"), Err(NameError::Refused(Error::Denied)));
    assert_eq!(server.asked(), 0, "a name that is refused is told nobody");
    assert_eq!(net.network.refused(), 2);
    assert_eq!(net.ips("host").unwrap().len(), 2, "by way of the search list");
    assert!(reaches("192.0.2.1:443") && !reaches("192.0.2.1:80") && !reaches("192.0.2.9:443"));
    assert_eq!(net.ips("near.example").unwrap(), ["192.0.2.8"]);
    assert!(!reaches("192.0.2.8:443"), "knowing an address is not using it");
    let denied = super::tests::net("deny", "192.0.2.8 near.example\n", &conf);
    assert_eq!(denied.ips("near.example"), Err(NameError::Refused(Error::Denied)));
}
