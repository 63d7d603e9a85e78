//! `sock_addr_resolve`: fills an array that the guest has made.

use std::net::SocketAddr;

use super::address::{self, ADDRESS};
use crate::wasi::core::names::Query;
use crate::wasi::core::socket::Family;
use crate::wasi::ctx::WasiCtx;
use crate::wasi::guest_mem::GuestMemory;
use crate::wasi::preview1::errno::Errno;
use crate::wasi::sockets::common::{c_text, name_errno};

/// Bytes of an `addr_info`: an address, then the kind of socket.
const INFO: u32 = ADDRESS + 4;

/// Numbers of kinds of sockets.
const ANY: u32 = u32::MAX;
const DATAGRAM: u32 = 0;
const STREAM: u32 = 1;

/// What is wanted.
struct Hints {
    family: Option<Family>,
    kinds: &'static [u32],
}

impl Hints {
    fn read(memory: &GuestMemory<'_>, at: u32) -> Result<Hints, Errno> {
        let all = Hints { family: None, kinds: &[STREAM, DATAGRAM] };
        if at == 0 {
            return Ok(all);
        }
        memory.check_array(at, 1, 12, 4)?;
        let [enabled] = memory.read(at + 8)?;
        if enabled == 0 {
            return Ok(all);
        }
        let kinds = match memory.read_u32(at)? {
            ANY => all.kinds,
            DATAGRAM => &[DATAGRAM],
            STREAM => &[STREAM],
            _ => return Err(Errno::Inval),
        };
        let family = match memory.read_u32(at + 4)? {
            2 => None,
            number => Some(address::family(number)?),
        };
        Ok(Hints { family, kinds })
    }
}

/// `sock_addr_resolve`: up to `most` results; `found` gets how many there are.
///
/// # Errors
/// `noent` for a name without addresses, `inval` for an unknown service, `again`, `io`, `acces`; a
/// bad address.
#[allow(clippy::too_many_arguments, reason = "the dialect's parameters")]
pub(super) fn sock_addr_resolve(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    host: u32,
    service: u32,
    hints: u32,
    list: u32,
    most: u32,
    found: u32,
) -> Result<(), Errno> {
    let hints = Hints::read(memory, hints)?;
    memory.check_array(list, most, INFO, 4)?;
    memory.check::<4>(found)?;
    let host = c_text(memory, host)?.ok_or(Errno::Noent)?;
    let service = c_text(memory, service)?.ok_or(Errno::Inval)?;
    let (host, service) = (Some(&*host), Some(&*service));
    let query = Query { host, service, family: hints.family, ..Query::default() };
    let answer = ctx.network.resolve(&query).map_err(name_errno)?;
    let port = answer.port;
    let all = answer.addresses.iter();
    let all = all.flat_map(|ip| hints.kinds.iter().map(move |kind| (*ip, *kind)));
    let mut count = 0;
    for (ip, kind) in all {
        if count < most {
            let at = list + count * INFO;
            address::write(memory, at, SocketAddr::new(ip, port))?;
            memory.write_u32(at + ADDRESS, kind)?;
        }
        count += 1;
    }
    Ok(memory.write_u32(found, count)?)
}
