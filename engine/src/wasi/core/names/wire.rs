//! DNS messages: questions for addresses, and what is taken from replies.

use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

use super::MAX_ADDRESSES;

/// Most aliases on the way from a name to its addresses: other resolvers stop about there too.
const MAX_ALIASES: usize = 16;

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordKind {
    /// IPv4.
    A,
    /// IPv6.
    Aaaa,
}

/// A question.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) id: u16,
    /// The full name, without a dot at its end.
    pub(super) name: String,
    pub(super) kind: RecordKind,
}

/// A reply to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// Not all of it came: to be asked for over TCP.
    pub(super) truncated: bool,
    pub(super) code: Code,
    pub(super) addresses: Vec<IpAddr>,
    /// The name that the addresses belong to.
    pub(super) canonical: String,
}

/// What a reply says as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// The name exists.
    Fine,
    /// It does not.
    NoName,
    /// The server cannot or will not tell.
    Failed,
}

impl Question {
    fn query(&self) -> Option<Query> {
        let name = Name::from_ascii(format!("{}.", self.name)).ok()?;
        let kind = match self.kind {
            RecordKind::A => RecordType::A,
            RecordKind::Aaaa => RecordType::AAAA,
        };
        Some(Query::query(name, kind))
    }

    /// The message that asks it; `None` for what is no name.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut message = Message::new(self.id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(self.query()?);
        message.to_vec().ok()
    }
}

/// Reads a reply; `None` for anything that is no reply to this very question.
pub(super) fn decode(bytes: &[u8], question: &Question) -> Option<Reply> {
    let message = Message::from_vec(bytes).ok()?;
    let asked = question.query()?;
    let of_question = match &message.queries[..] {
        [query] => {
            query.name() == asked.name()
                && query.query_type() == asked.query_type()
                && query.query_class() == DNSClass::IN
        }
        _ => false,
    };
    let head = &message.metadata;
    if head.id != question.id || head.message_type != MessageType::Response || !of_question {
        return None;
    }
    let mut code = match head.response_code {
        ResponseCode::NoError => Code::Fine,
        ResponseCode::NXDomain => Code::NoName,
        _ => Code::Failed,
    };
    let (mut addresses, mut canonical) = (Vec::new(), question.name.clone());
    if code == Code::Fine {
        match follow(&message, asked.name()) {
            Some(last) => {
                canonical = last.to_ascii().trim_end_matches('.').to_owned();
                addresses = addresses_of(&message, &last, question.kind);
            }
            // Aliases that lead nowhere.
            None => code = Code::Failed,
        }
    }
    Some(Reply { truncated: head.truncation, code, addresses, canonical })
}

/// The name at the end of a chain of aliases; `None` if there are too many, as in a circle.
fn follow(message: &Message, name: &Name) -> Option<Name> {
    let mut name = name.clone();
    for _ in 0..=MAX_ALIASES {
        let alias = message.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == name => Some(target.0.clone()),
            _ => None,
        });
        match alias {
            Some(target) => name = target,
            None => return Some(name),
        }
    }
    None
}

fn addresses_of(message: &Message, name: &Name, kind: RecordKind) -> Vec<IpAddr> {
    let records = message.answers.iter().filter(|record| record.name == *name);
    let addresses = records.filter_map(|record| match (kind, &record.data) {
        (RecordKind::A, RData::A(ip)) => Some(IpAddr::V4(ip.0)),
        (RecordKind::Aaaa, RData::AAAA(ip)) => Some(IpAddr::V6(ip.0)),
        _ => None,
    });
    addresses.take(MAX_ADDRESSES).collect()
}
