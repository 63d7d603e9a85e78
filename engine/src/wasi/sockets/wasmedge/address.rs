//! Addresses: `{ buf: u32, len: u32 }`, with the port apart, in the host's byte order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::wasi::core::socket::Family;
use crate::wasi::guest_mem::GuestMemory;
use crate::wasi::preview1::errno::Errno;

/// Bytes of an address of the second generation: family, then octets.
const STORAGE: u32 = 128;

/// The number of a family.
pub(super) fn family_number(family: Family) -> u8 {
    match family {
        Family::Inet4 => 1,
        Family::Inet6 => 2,
    }
}

/// A family by its number. Paths of the host are no addresses here.
pub(super) fn family(number: u32) -> Result<Family, Errno> {
    match number {
        1 => Ok(Family::Inet4),
        2 => Ok(Family::Inet6),
        3 => Err(Errno::Nosys),
        _ => Err(Errno::Afnosupport),
    }
}

/// The buffer of an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    at: u32,
    len: u32,
}

impl Place {
    /// Reads where the buffer is, which must be wholly inside and of one of the known lengths.
    pub(super) fn read(memory: &GuestMemory<'_>, address: u32) -> Result<Place, Errno> {
        memory.check_array(address, 1, 8, 4)?;
        let place = Place { at: memory.read_u32(address)?, len: memory.read_u32(address + 4)? };
        if !matches!(place.len, 4 | 16 | STORAGE) {
            return Err(Errno::Inval);
        }
        memory.bytes(place.at, place.len)?;
        Ok(place)
    }

    /// Only a storage.
    pub(super) fn storage(self) -> Result<Place, Errno> {
        if self.len == STORAGE { Ok(self) } else { Err(Errno::Inval) }
    }

    /// Whether an address of this family fits.
    pub(super) fn fits(self, family: Family) -> Result<Place, Errno> {
        if self.len == 4 && family == Family::Inet6 { Err(Errno::Inval) } else { Ok(self) }
    }

    /// The address that is in the buffer.
    pub(super) fn ip(self, memory: &GuestMemory<'_>) -> Result<IpAddr, Errno> {
        let bytes = memory.bytes(self.at, self.len)?;
        let (family, octets) = match (self.len, &bytes[..]) {
            (4, octets) => (Family::Inet4, octets),
            (16, octets) => (Family::Inet6, octets),
            (_, [low, high, octets @ ..]) => {
                (family(u16::from_le_bytes([*low, *high]).into())?, octets)
            }
            _ => return Err(Errno::Inval),
        };
        let ip = match family {
            Family::Inet4 => octets.first_chunk::<4>().map(|ip| Ipv4Addr::from(*ip).into()),
            Family::Inet6 => octets.first_chunk::<16>().map(|ip| Ipv6Addr::from(*ip).into()),
        };
        ip.ok_or(Errno::Inval)
    }

    /// Writes an address; what is behind it in the buffer stays.
    pub(super) fn write(self, memory: &mut GuestMemory<'_>, ip: IpAddr) -> Result<(), Errno> {
        self.fits(Family::of(&ip))?;
        let mut bytes = Vec::with_capacity(18);
        if self.len == STORAGE {
            let family = family_number(Family::of(&ip));
            bytes.extend(u16::from(family).to_le_bytes());
        }
        bytes.extend(octets(ip));
        Ok(memory.write_bytes(self.at, &bytes)?)
    }
}

/// The octets of an address, in network order.
pub(super) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// An address with its port.
pub(super) fn socket_address(
    memory: &GuestMemory<'_>,
    address: u32,
    port: u32,
) -> Result<SocketAddr, Errno> {
    let port = u16::try_from(port).map_err(|_| Errno::Inval)?;
    Ok(SocketAddr::new(Place::read(memory, address)?.ip(memory)?, port))
}
