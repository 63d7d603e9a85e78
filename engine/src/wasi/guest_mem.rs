//! The one door to guest memory: every address and length of the guest is checked here.

use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;

use smallvec::SmallVec;

/// Most buffers that one call of the kernel takes (`IOV_MAX`); the rest is left for the next call.
const MAX_BUFFERS: u32 = 1024;

/// Buffers on the stack for the usual few.
pub type Buffers<'a> = SmallVec<[IoSlice<'a>; 8]>;
/// Buffers on the stack for the usual few.
pub type BuffersMut<'a> = SmallVec<[IoSliceMut<'a>; 8]>;

/// Why an address of the guest cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryFault {
    /// Not wholly inside the memory.
    #[error("address range outside the guest's memory")]
    OutOfBounds,
    /// Not a multiple of the type's alignment.
    #[error("misaligned address")]
    Misaligned,
    /// More than the address space holds.
    #[error("length overflows")]
    Overflow,
}

/// A linear memory during one host call.
#[derive(Debug)]
pub struct GuestMemory<'m> {
    bytes: &'m mut [u8],
}

impl<'m> GuestMemory<'m> {
    /// A view of these bytes; address 0 is the first.
    pub fn new(bytes: &'m mut [u8]) -> GuestMemory<'m> {
        GuestMemory { bytes }
    }

    /// The range of `len` bytes at `address`, if it is inside.
    fn range(&self, address: u32, len: u32) -> Result<Range<usize>, MemoryFault> {
        let start = address as usize;
        let end = start.checked_add(len as usize).ok_or(MemoryFault::Overflow)?;
        if end <= self.bytes.len() { Ok(start..end) } else { Err(MemoryFault::OutOfBounds) }
    }

    /// Checks that a value of `N` bytes, aligned to `N`, can be written at `address`. Calls do so
    /// before they act, so that no effect is lost to a bad result address.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn check<const N: usize>(&self, address: u32) -> Result<(), MemoryFault> {
        self.check_array(address, 1, N as u32, N as u32)
    }

    /// Checks `count` elements of `size` bytes at an address that is a multiple of `align`.
    ///
    /// # Errors
    /// What is wrong with the address or length.
    pub fn check_array(
        &self,
        address: u32,
        count: u32,
        size: u32,
        align: u32,
    ) -> Result<(), MemoryFault> {
        if !address.is_multiple_of(align) {
            return Err(MemoryFault::Misaligned);
        }
        let len = count.checked_mul(size).ok_or(MemoryFault::Overflow)?;
        self.range(address, len).map(drop)
    }

    /// The `len` bytes at `address`.
    ///
    /// # Errors
    /// When they are not inside.
    pub fn bytes(&self, address: u32, len: u32) -> Result<&[u8], MemoryFault> {
        let range = self.range(address, len)?;
        Ok(&self.bytes[range])
    }

    /// The `len` bytes at `address`, to write.
    ///
    /// # Errors
    /// When they are not inside.
    pub fn bytes_mut(&mut self, address: u32, len: u32) -> Result<&mut [u8], MemoryFault> {
        let range = self.range(address, len)?;
        Ok(&mut self.bytes[range])
    }

    /// A little-endian value of `N` bytes, aligned to `N`.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn read<const N: usize>(&self, address: u32) -> Result<[u8; N], MemoryFault> {
        self.check::<N>(address)?;
        let mut value = [0; N];
        value.copy_from_slice(self.bytes(address, N as u32)?);
        Ok(value)
    }

    /// Reads an aligned `u32`.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn read_u32(&self, address: u32) -> Result<u32, MemoryFault> {
        self.read(address).map(u32::from_le_bytes)
    }

    /// Writes a little-endian value of `N` bytes, aligned to `N`.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn write<const N: usize>(
        &mut self,
        address: u32,
        value: [u8; N],
    ) -> Result<(), MemoryFault> {
        self.check::<N>(address)?;
        self.bytes_mut(address, N as u32)?.copy_from_slice(&value);
        Ok(())
    }

    /// Writes an aligned `u32`.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn write_u32(&mut self, address: u32, value: u32) -> Result<(), MemoryFault> {
        self.write(address, value.to_le_bytes())
    }

    /// Writes an aligned `u64`.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn write_u64(&mut self, address: u32, value: u64) -> Result<(), MemoryFault> {
        self.write(address, value.to_le_bytes())
    }

    /// Writes a structure's bytes at an address that is a multiple of `align`.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn write_struct<const N: usize>(
        &mut self,
        address: u32,
        align: u32,
        value: &[u8; N],
    ) -> Result<(), MemoryFault> {
        self.check_array(address, 1, N as u32, align)?;
        self.bytes_mut(address, N as u32)?.copy_from_slice(value);
        Ok(())
    }

    /// The buffers of a gather list: `count` pairs of `u32` address and length.
    ///
    /// # Errors
    /// When the list or one of its buffers is not inside.
    pub fn buffers(&self, list: u32, count: u32) -> Result<Buffers<'_>, MemoryFault> {
        self.check_array(list, count, 8, 4)?;
        (0..count.min(MAX_BUFFERS))
            .map(|n| {
                let (address, len) = self.vector(list + 8 * n)?;
                Ok(IoSlice::new(self.bytes(address, len)?))
            })
            .collect()
    }

    /// The buffers of a scatter list, laid out as for [`GuestMemory::buffers`]. A buffer that
    /// overlaps an earlier one ends the list: the guest sees a short read.
    ///
    /// # Errors
    /// When the list or one of its buffers is not inside.
    pub fn buffers_mut(&mut self, list: u32, count: u32) -> Result<BuffersMut<'_>, MemoryFault> {
        self.check_array(list, count, 8, 4)?;
        if count == 1 {
            let (address, len) = self.vector(list)?;
            return Ok(SmallVec::from_iter([IoSliceMut::new(self.bytes_mut(address, len)?)]));
        }
        let mut ranges: SmallVec<[(usize, Range<usize>); 8]> = SmallVec::new();
        for n in 0..count.min(MAX_BUFFERS) {
            let (address, len) = self.vector(list + 8 * n)?;
            let range = self.range(address, len)?;
            if !range.is_empty() {
                ranges.push((ranges.len(), range));
            }
        }
        sort_disjoint(&mut ranges);
        Ok(split(self.bytes, &ranges))
    }

    fn vector(&self, at: u32) -> Result<(u32, u32), MemoryFault> {
        Ok((self.read_u32(at)?, self.read_u32(at + 4)?))
    }
}

/// Sorts ranges by address, having cut the list before the first that overlaps an earlier one.
fn sort_disjoint(ranges: &mut SmallVec<[(usize, Range<usize>); 8]>) {
    ranges.sort_unstable_by_key(|(_, range)| range.start);
    if ranges.windows(2).all(|pair| pair[0].1.end <= pair[1].1.start) {
        return;
    }
    ranges.sort_unstable_by_key(|(order, _)| *order);
    let overlaps = |n: usize| {
        let this = &ranges[n].1;
        ranges[..n].iter().any(|(_, other)| other.start < this.end && this.start < other.end)
    };
    let disjoint = (0..ranges.len()).find(|&n| overlaps(n)).unwrap_or(ranges.len());
    ranges.truncate(disjoint);
    ranges.sort_unstable_by_key(|(_, range)| range.start);
}

/// Cuts disjoint ranges, sorted by address, out of `bytes` and brings them back into their order.
fn split<'m>(bytes: &'m mut [u8], ranges: &[(usize, Range<usize>)]) -> BuffersMut<'m> {
    let mut slots: SmallVec<[Option<IoSliceMut<'m>>; 8]> = ranges.iter().map(|_| None).collect();
    let mut rest = bytes;
    let mut at = 0;
    for (order, range) in ranges {
        let (_, tail) = rest.split_at_mut(range.start - at);
        let (buffer, tail) = tail.split_at_mut(range.len());
        slots[*order] = Some(IoSliceMut::new(buffer));
        rest = tail;
        at = range.end;
    }
    slots.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(memory: &mut GuestMemory<'_>, at: u32, vectors: &[(u32, u32)]) -> u32 {
        for (n, (address, len)) in (0..).zip(vectors) {
            memory.write_u32(at + 8 * n, *address).unwrap();
            memory.write_u32(at + 8 * n + 4, *len).unwrap();
        }
        vectors.len() as u32
    }

    #[test]
    fn values_are_checked_at_every_edge() {
        let mut bytes = vec![0; 64];
        let mut memory = GuestMemory::new(&mut bytes);
        memory.write_u64(56, 0x0102_0304_0506_0708).unwrap();
        assert_eq!(memory.read_u32(56), Ok(0x0506_0708));
        assert_eq!(memory.read_u32(60), Ok(0x0102_0304));
        assert_eq!(memory.read_u32(61), Err(MemoryFault::Misaligned));
        assert_eq!(memory.read_u32(64), Err(MemoryFault::OutOfBounds));
        assert_eq!(memory.write_u64(60, 1), Err(MemoryFault::Misaligned));
        assert_eq!(memory.read_u32(u32::MAX - 3), Err(MemoryFault::OutOfBounds));
        assert_eq!(memory.bytes(64, 0), Ok(&[][..]));
        assert_eq!(memory.bytes(65, 0), Err(MemoryFault::OutOfBounds));
        assert_eq!(memory.bytes(u32::MAX, u32::MAX), Err(MemoryFault::OutOfBounds));
        assert_eq!(memory.check_array(0, u32::MAX, 8, 4), Err(MemoryFault::Overflow));
        assert_eq!(memory.check_array(4, 1, 48, 8), Err(MemoryFault::Misaligned));
    }

    #[test]
    fn scatter_lists_keep_their_order_whatever_the_addresses() {
        let mut bytes = vec![0; 4096];
        let mut memory = GuestMemory::new(&mut bytes);
        let count = list(&mut memory, 0, &[(300, 3), (0x100, 2), (500, 0), (200, 1)]);
        let mut buffers = memory.buffers_mut(0, count).unwrap();
        let lens: Vec<usize> = buffers.iter().map(|b| b.len()).collect();
        assert_eq!(lens, [3, 2, 1]);
        for (n, buffer) in (1..).zip(buffers.iter_mut()) {
            buffer.fill(n);
        }
        drop(buffers);
        assert_eq!((bytes[300..303].to_vec(), bytes[256], bytes[200]), (vec![1; 3], 2, 3));
    }

    #[test]
    fn an_overlapping_buffer_ends_a_scatter_list() {
        let mut bytes = vec![0; 4096];
        let mut memory = GuestMemory::new(&mut bytes);
        let count = list(&mut memory, 0, &[(300, 10), (200, 10), (305, 2), (100, 4)]);
        let lens: Vec<usize> =
            memory.buffers_mut(0, count).unwrap().iter().map(|b| b.len()).collect();
        assert_eq!(lens, [10, 10]);
        assert_eq!(memory.buffers(0, count).unwrap().len(), 4);
    }

    #[test]
    fn hostile_lists_are_refused_and_bounded() {
        let mut bytes = vec![0; 65536];
        let mut memory = GuestMemory::new(&mut bytes);
        list(&mut memory, 0, &[(0, u32::MAX), (65536, 1)]);
        assert!(memory.buffers(0, 1).is_err());
        assert!(memory.buffers_mut(0, 2).is_err());
        assert_eq!(memory.buffers(8, 1).err(), Some(MemoryFault::OutOfBounds));
        assert_eq!(memory.buffers(2, 1).err(), Some(MemoryFault::Misaligned));
        assert_eq!(memory.buffers(0, 1 << 31).err(), Some(MemoryFault::Overflow));
        assert_eq!(memory.buffers(16, 8000).unwrap().len(), 1024);
    }
}
