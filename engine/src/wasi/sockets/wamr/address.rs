//! Addresses: a kind (0 IPv4, 1 IPv6), then four octets or eight groups, then the port. Groups and
//! ports are in the host's byte order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::wasi::core::socket::Family;
use crate::wasi::guest_mem::GuestMemory;
use crate::wasi::preview1::errno::Errno;

/// Bytes of an address with a port.
pub(super) const ADDRESS: u32 = 24;
/// Bytes of an address without.
const IP: u32 = 20;

/// A family by its number, where one is needed.
pub(super) fn family(number: u32) -> Result<Family, Errno> {
    match number {
        0 => Ok(Family::Inet4),
        1 => Ok(Family::Inet6),
        _ => Err(Errno::Afnosupport),
    }
}

/// Reads an address without port.
pub(super) fn read_ip(memory: &GuestMemory<'_>, at: u32) -> Result<IpAddr, Errno> {
    memory.check_array(at, 1, IP, 4)?;
    Ok(match family(memory.read_u32(at)?)? {
        Family::Inet4 => Ipv4Addr::from(memory.read::<4>(at + 4)?).into(),
        Family::Inet6 => {
            let mut groups = [0; 8];
            for (place, group) in (at + 4..).step_by(2).zip(&mut groups) {
                *group = u16::from_le_bytes(memory.read(place)?);
            }
            Ipv6Addr::from(groups).into()
        }
    })
}

/// Reads an address with its port.
pub(super) fn read(memory: &GuestMemory<'_>, at: u32) -> Result<SocketAddr, Errno> {
    memory.check_array(at, 1, ADDRESS, 4)?;
    let ip = read_ip(memory, at)?;
    let place = if ip.is_ipv4() { at + 8 } else { at + 20 };
    Ok(SocketAddr::new(ip, u16::from_le_bytes(memory.read(place)?)))
}

/// Checks that an address can be written.
pub(super) fn check(memory: &GuestMemory<'_>, at: u32) -> Result<(), Errno> {
    Ok(memory.check_array(at, 1, ADDRESS, 4)?)
}

/// Writes an address with its port.
pub(super) fn write(
    memory: &mut GuestMemory<'_>,
    at: u32,
    address: SocketAddr,
) -> Result<(), Errno> {
    let mut bytes = [0; ADDRESS as usize];
    let port = address.port().to_le_bytes();
    match address.ip() {
        IpAddr::V4(ip) => {
            bytes[4..8].copy_from_slice(&ip.octets());
            bytes[8..10].copy_from_slice(&port);
        }
        IpAddr::V6(ip) => {
            bytes[0] = 1;
            for (place, group) in bytes[4..20].chunks_exact_mut(2).zip(ip.segments()) {
                place.copy_from_slice(&group.to_le_bytes());
            }
            bytes[20..22].copy_from_slice(&port);
        }
    }
    Ok(memory.write_struct(at, 4, &bytes)?)
}
