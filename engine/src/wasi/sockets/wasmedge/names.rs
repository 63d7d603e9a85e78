//! `sock_getaddrinfo`: fills a linked list that the guest has made.

use super::address::{family_number, octets};
use crate::wasi::core::names::{Answer, NameError, Query};
use crate::wasi::core::socket::Family;
use crate::wasi::ctx::WasiCtx;
use crate::wasi::guest_mem::{GuestMemory, MemoryFault};
use crate::wasi::preview1::errno::Errno;
use crate::wasi::sockets::common::text;

/// Bits of `ai_flags`; the others change nothing here.
const PASSIVE: u16 = 1;
const CANONICAL_NAME: u16 = 2;
const NUMERIC_HOST: u16 = 4;
const NUMERIC_SERVICE: u16 = 8;

/// Numbers of `ai_socktype`, with the protocol that goes with each.
const DATAGRAM: u8 = 1;
const STREAM: u8 = 2;
const TCP: u8 = 1;
const UDP: u8 = 2;

/// An error number: preview 1's, or one of those that the dialect has for names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure(pub(super) u32);

impl Failure {
    pub(super) const AGAIN: Failure = Failure(78);
    pub(super) const FAIL: Failure = Failure(80);
    pub(super) const FAMILY: Failure = Failure(81);
    pub(super) const NO_ADDRESS: Failure = Failure(83);
    pub(super) const NO_NAME: Failure = Failure(84);
    pub(super) const SERVICE: Failure = Failure(85);
    pub(super) const KIND: Failure = Failure(86);
}

impl From<Failure> for u32 {
    fn from(failure: Failure) -> u32 {
        failure.0
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Failure {
        Failure(errno.into())
    }
}

impl From<MemoryFault> for Failure {
    fn from(fault: MemoryFault) -> Failure {
        Errno::from(fault).into()
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Failure {
        match error {
            NameError::NoName => Failure::NO_NAME,
            NameError::NoAddress => Failure::NO_ADDRESS,
            NameError::NoService => Failure::SERVICE,
            NameError::Again => Failure::AGAIN,
            NameError::Failed => Failure::FAIL,
            NameError::Refused(error) => Errno::from(error).into(),
        }
    }
}

/// What is wanted: `addrinfo` as a hint.
#[derive(Clone, Copy, Debug, Default)]
struct Hints {
    flags: u16,
    family: Option<Family>,
    kinds: &'static [u8],
}

impl Hints {
    fn read(memory: &GuestMemory<'_>, at: u32) -> Result<Hints, Failure> {
        let all: &[u8] = &[STREAM, DATAGRAM];
        if at == 0 {
            return Ok(Hints { kinds: all, ..Hints::default() });
        }
        memory.check_array(at, 1, 28, 4)?;
        let [low, high, family, kind] = memory.read(at)?;
        let [protocol] = memory.read(at + 4)?;
        let family = match family {
            0 => None,
            1 => Some(Family::Inet4),
            2 => Some(Family::Inet6),
            _ => return Err(Failure::FAMILY),
        };
        let kinds: &[u8] = match (kind, protocol) {
            (0, 0) => all,
            (0 | STREAM, 0 | TCP) => &[STREAM],
            (0 | DATAGRAM, 0 | UDP) => &[DATAGRAM],
            _ => return Err(Failure::KIND),
        };
        Ok(Hints { flags: u16::from_le_bytes([low, high]), family, kinds })
    }

    fn has(self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// `sock_getaddrinfo`. `list` is the address of the address of the first of `most` elements.
///
/// # Errors
/// Errors of names (77 to 87), `acces`, a bad address.
#[allow(clippy::too_many_arguments, reason = "the dialect's parameters")]
pub(super) fn sock_getaddrinfo(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    node: u32,
    node_len: u32,
    service: u32,
    service_len: u32,
    hints: u32,
    list: u32,
    most: u32,
    found: u32,
) -> Result<(), Failure> {
    let hints = Hints::read(memory, hints)?;
    memory.check::<4>(found)?;
    let first = memory.read_u32(list)?;
    let node = text(memory, node, node_len)?.ok_or(Failure::NO_NAME)?;
    let service = text(memory, service, service_len)?.ok_or(Failure::SERVICE)?;
    let answer = ctx.network.resolve(&Query {
        host: Some(&node),
        service: Some(&service),
        family: hints.family,
        passive: hints.has(PASSIVE),
        numeric_host: hints.has(NUMERIC_HOST),
        numeric_service: hints.has(NUMERIC_SERVICE),
    })?;
    let count = fill(memory, first, most, &answer, hints)?;
    Ok(memory.write_u32(found, count)?)
}

/// Fills the list's elements one after the other; gives how many.
fn fill(
    memory: &mut GuestMemory<'_>,
    first: u32,
    most: u32,
    answer: &Answer,
    hints: Hints,
) -> Result<u32, Failure> {
    let mut at = first;
    let mut count = 0;
    let all =
        answer.addresses.iter().flat_map(|ip| hints.kinds.iter().map(move |kind| (ip, *kind)));
    // The guest's list may end early or bite its own tail; what is counted is what was filled.
    for (ip, kind) in all.take(most as usize) {
        if at == 0 {
            break;
        }
        memory.check_array(at, 1, 28, 4)?;
        let family = family_number(Family::of(ip));
        let mut data = answer.port.to_be_bytes().to_vec();
        let (host_len, data_len) = match Family::of(ip) {
            Family::Inet4 => (16_u32, 14),
            Family::Inet6 => {
                data.extend([0; 4]);
                (28, 26)
            }
        };
        data.extend(octets(*ip));
        data.resize(data_len, 0);
        let sockaddr = memory.read_u32(at + 12)?;
        write_sockaddr(memory, sockaddr, family, &data)?;
        let protocol = if kind == STREAM { TCP } else { UDP };
        let [low, high] = hints.flags.to_le_bytes();
        memory.write_bytes(at, &[low, high, family, kind, protocol])?;
        memory.write_u32(at + 8, host_len)?;
        let canonical = (count == 0 && hints.has(CANONICAL_NAME)).then_some(&*answer.canonical);
        write_canonical(memory, at, canonical.unwrap_or_default())?;
        count += 1;
        at = memory.read_u32(at + 24)?;
    }
    Ok(count)
}

/// The guest's buffers for addresses have 26 bytes, whatever their length says before.
fn write_sockaddr(
    memory: &mut GuestMemory<'_>,
    at: u32,
    family: u8,
    data: &[u8],
) -> Result<(), Failure> {
    memory.check_array(at, 1, 12, 4)?;
    memory.write_bytes(memory.read_u32(at + 8)?, data)?;
    memory.write_bytes(at, &[family])?;
    Ok(memory.write_u32(at + 4, data.len() as u32)?)
}

/// The canonical name with its NUL, if the guest has made room for it.
fn write_canonical(memory: &mut GuestMemory<'_>, at: u32, name: &str) -> Result<(), Failure> {
    let (place, room) = (memory.read_u32(at + 16)?, memory.read_u32(at + 20)?);
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    let fits = place != 0 && bytes.len() > 1 && bytes.len() <= room as usize;
    if fits {
        memory.write_bytes(place, &bytes)?;
    }
    Ok(memory.write_u32(at + 20, if fits { bytes.len() as u32 } else { 0 })?)
}
