//! The one door to guest memory: every address and length of the guest is checked here.
//!
//! A memory that one thread has to itself is read and written in place. To the bytes of a memory that
//! threads share no reference may exist, so what is read is a copy, and what is written is copied in
//! when it is complete.

use std::borrow::Cow;
use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;

use smallvec::SmallVec;

use crate::runtime::{Caller, MemoryView, SharedMemory};

/// Most buffers that one call of the kernel takes (`IOV_MAX`); the rest is left for the next call.
const MAX_BUFFERS: u32 = 1024;

/// Most bytes that one call moves between the kernel and a shared memory, by way of a copy. Longer
/// than any datagram; a stream goes on with the next call.
const MAX_COPY: usize = 1 << 20;

/// Buffers on the stack for the usual few.
type Buffers<'a> = SmallVec<[IoSlice<'a>; 8]>;
/// Buffers on the stack for the usual few.
type BuffersMut<'a> = SmallVec<[IoSliceMut<'a>; 8]>;
/// Ranges on the stack for the usual few.
type Ranges = SmallVec<[Range<usize>; 8]>;

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
    bytes: Bytes<'m>,
}

#[derive(Debug)]
enum Bytes<'m> {
    Own(&'m mut [u8]),
    Shared(&'m SharedMemory),
}

impl<'m> GuestMemory<'m> {
    /// A view of these bytes; address 0 is the first.
    pub fn new(bytes: &'m mut [u8]) -> GuestMemory<'m> {
        GuestMemory { bytes: Bytes::Own(bytes) }
    }

    /// A view of a memory that other threads use at the same time.
    pub fn shared(memory: &'m SharedMemory) -> GuestMemory<'m> {
        GuestMemory { bytes: Bytes::Shared(memory) }
    }

    /// The memory of the guest that calls. Without one, every address is outside.
    pub fn of(caller: &'m mut Caller<'_>) -> GuestMemory<'m> {
        match caller.memory_view() {
            MemoryView::Own(bytes) => GuestMemory::new(bytes),
            MemoryView::Shared(memory) => GuestMemory::shared(memory),
            MemoryView::None => GuestMemory::new(&mut []),
        }
    }

    /// How many bytes there are: a shared memory only ever gets more.
    fn len(&self) -> usize {
        match &self.bytes {
            Bytes::Own(bytes) => bytes.len(),
            Bytes::Shared(memory) => memory.byte_len(),
        }
    }

    /// The range of `len` bytes at `address`, if it is inside.
    fn range(&self, address: u32, len: u32) -> Result<Range<usize>, MemoryFault> {
        let start = address as usize;
        let end = start.checked_add(len as usize).ok_or(MemoryFault::Overflow)?;
        if end <= self.len() { Ok(start..end) } else { Err(MemoryFault::OutOfBounds) }
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

    /// The `len` bytes at `address`; of a shared memory a copy, so callers keep `len` small.
    ///
    /// # Errors
    /// When they are not inside.
    pub fn bytes(&self, address: u32, len: u32) -> Result<Cow<'_, [u8]>, MemoryFault> {
        let range = self.range(address, len)?;
        Ok(match &self.bytes {
            Bytes::Own(bytes) => Cow::Borrowed(&bytes[range]),
            Bytes::Shared(_) => {
                let mut copy = vec![0; range.len()];
                self.read_at(range.start, &mut copy)?;
                Cow::Owned(copy)
            }
        })
    }

    /// Copies bytes out.
    fn read_at(&self, start: usize, out: &mut [u8]) -> Result<(), MemoryFault> {
        match &self.bytes {
            Bytes::Own(bytes) => {
                let source = bytes.get(start..start + out.len());
                out.copy_from_slice(source.ok_or(MemoryFault::OutOfBounds)?);
                Ok(())
            }
            Bytes::Shared(memory) => {
                memory.read(start as u64, out).map_err(|_| MemoryFault::OutOfBounds)
            }
        }
    }

    /// Copies bytes in.
    fn write_at(&mut self, start: usize, bytes: &[u8]) -> Result<(), MemoryFault> {
        match &mut self.bytes {
            Bytes::Own(own) => {
                let target = own.get_mut(start..start + bytes.len());
                target.ok_or(MemoryFault::OutOfBounds)?.copy_from_slice(bytes);
                Ok(())
            }
            Bytes::Shared(memory) => {
                memory.write(start as u64, bytes).map_err(|_| MemoryFault::OutOfBounds)
            }
        }
    }

    /// Writes bytes at `address`.
    ///
    /// # Errors
    /// When they do not fit.
    pub fn write_bytes(&mut self, address: u32, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.write_at(address as usize, bytes)
    }

    /// Lets `fill` write into the `len` bytes at `address` and say how many it wrote, from the
    /// first on; gives that number.
    ///
    /// # Errors
    /// When they are not inside; what `fill` says.
    pub fn write_with<E: From<MemoryFault>>(
        &mut self,
        address: u32,
        len: u32,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let range = self.range(address, len)?;
        match &mut self.bytes {
            Bytes::Own(bytes) => fill(&mut bytes[range]),
            Bytes::Shared(_) => {
                // Zeroed pages that are not touched cost nothing.
                let mut copy = vec![0; range.len()];
                let count = fill(&mut copy)?.min(copy.len());
                self.write_at(range.start, &copy[..count])?;
                Ok(count)
            }
        }
    }

    /// A little-endian value of `N` bytes, aligned to `N`.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn read<const N: usize>(&self, address: u32) -> Result<[u8; N], MemoryFault> {
        self.check::<N>(address)?;
        let mut value = [0; N];
        self.read_at(address as usize, &mut value)?;
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
        self.write_struct(address, N as u32, &value)
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
        self.write_at(address as usize, value)
    }

    /// Gives `write` the contents of the buffers of a gather list: `count` pairs of `u32` address
    /// and length.
    ///
    /// # Errors
    /// When the list or one of its buffers is not inside; what `write` says.
    pub fn gather<T, E: From<MemoryFault>>(
        &self,
        list: u32,
        count: u32,
        write: impl FnOnce(&[IoSlice<'_>]) -> Result<T, E>,
    ) -> Result<T, E> {
        let ranges = self.list(list, count)?;
        match &self.bytes {
            Bytes::Own(bytes) => {
                let buffers: Buffers<'_> =
                    ranges.into_iter().map(|range| IoSlice::new(&bytes[range])).collect();
                write(&buffers)
            }
            Bytes::Shared(_) => {
                let mut copy = vec![0; total(&ranges)];
                let mut rest = &mut copy[..];
                for range in ranges {
                    let (part, after) = rest.split_at_mut(range.len().min(rest.len()));
                    self.read_at(range.start, part)?;
                    rest = after;
                }
                write(&[IoSlice::new(&copy)])
            }
        }
    }

    /// Lets `read` fill the buffers of a scatter list, laid out as for [`GuestMemory::gather`], and
    /// say how many bytes it filled, from the first on; gives that number. A buffer that overlaps an
    /// earlier one ends the list: the guest sees a short read.
    ///
    /// # Errors
    /// When the list or one of its buffers is not inside; what `read` says.
    pub fn scatter<E: From<MemoryFault>>(
        &mut self,
        list: u32,
        count: u32,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let ranges = self.list(list, count)?;
        match &mut self.bytes {
            Bytes::Own(bytes) => {
                if let [range] = &ranges[..] {
                    return read(&mut [IoSliceMut::new(&mut bytes[range.clone()])]);
                }
                let mut sorted: SmallVec<[(usize, Range<usize>); 8]> =
                    ranges.into_iter().filter(|range| !range.is_empty()).enumerate().collect();
                sort_disjoint(&mut sorted);
                read(&mut split(bytes, &sorted))
            }
            Bytes::Shared(_) => {
                let mut copy = vec![0; total(&ranges)];
                let filled = read(&mut [IoSliceMut::new(&mut copy)])?.min(copy.len());
                let mut rest = &copy[..filled];
                for range in ranges {
                    let (part, after) = rest.split_at(range.len().min(rest.len()));
                    self.write_at(range.start, part)?;
                    rest = after;
                }
                Ok(filled)
            }
        }
    }

    /// The buffers of a list, as many as one call takes.
    fn list(&self, list: u32, count: u32) -> Result<Ranges, MemoryFault> {
        self.check_array(list, count, 8, 4)?;
        (0..count.min(MAX_BUFFERS))
            .map(|n| {
                let at = list + 8 * n;
                self.range(self.read_u32(at)?, self.read_u32(at + 4)?)
            })
            .collect()
    }
}

/// How many bytes of these ranges one call copies.
fn total(ranges: &[Range<usize>]) -> usize {
    ranges.iter().map(Range::len).sum::<usize>().min(MAX_COPY)
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
    use crate::module::types::MemoryType;

    /// Runs a test on a zeroed memory of one page, of each kind.
    fn with_both(test: impl Fn(&mut GuestMemory<'_>)) {
        test(&mut GuestMemory::new(&mut [0; 65536]));
        let ty =
            MemoryType { memory64: false, shared: true, min: 1, max: Some(1), page_size_log2: 16 };
        test(&mut GuestMemory::shared(&SharedMemory::new(ty, u64::MAX).unwrap()));
    }

    fn list(memory: &mut GuestMemory<'_>, at: u32, vectors: &[(u32, u32)]) -> u32 {
        for (n, (address, len)) in (0..).zip(vectors) {
            memory.write_u32(at + 8 * n, *address).unwrap();
            memory.write_u32(at + 8 * n + 4, *len).unwrap();
        }
        vectors.len() as u32
    }

    /// The lengths of a scatter list's buffers.
    fn lens(memory: &mut GuestMemory<'_>, count: u32) -> Result<Vec<usize>, MemoryFault> {
        let mut lens = Vec::new();
        memory.scatter(0, count, |buffers| {
            lens.extend(buffers.iter().map(|buffer| buffer.len()));
            Ok::<_, MemoryFault>(0)
        })?;
        Ok(lens)
    }

    #[test]
    fn values_are_checked_at_every_edge() {
        with_both(|memory| {
            const END: u32 = 65536;
            memory.write_u64(END - 8, 0x0102_0304_0506_0708).unwrap();
            assert_eq!(memory.read_u32(END - 8), Ok(0x0506_0708));
            assert_eq!(memory.read_u32(END - 4), Ok(0x0102_0304));
            assert_eq!(memory.read_u32(END - 3), Err(MemoryFault::Misaligned));
            assert_eq!(memory.read_u32(END), Err(MemoryFault::OutOfBounds));
            assert_eq!(memory.write_u64(END - 4, 1), Err(MemoryFault::Misaligned));
            assert_eq!(memory.read_u32(u32::MAX - 3), Err(MemoryFault::OutOfBounds));
            assert_eq!(memory.bytes(END, 0).as_deref(), Ok(&[][..]));
            assert_eq!(memory.bytes(END - 2, 2).as_deref(), Ok(&[2, 1][..]));
            assert_eq!(memory.bytes(END + 1, 0), Err(MemoryFault::OutOfBounds));
            assert_eq!(memory.bytes(u32::MAX, u32::MAX), Err(MemoryFault::OutOfBounds));
            assert_eq!(memory.write_bytes(END - 1, &[1, 1]), Err(MemoryFault::OutOfBounds));
            assert_eq!(memory.check_array(0, u32::MAX, 8, 4), Err(MemoryFault::Overflow));
            assert_eq!(memory.check_array(4, 1, 48, 8), Err(MemoryFault::Misaligned));
        });
    }

    #[test]
    fn only_what_was_filled_is_written() {
        with_both(|memory| {
            memory.write_bytes(100, &[9; 10]).unwrap();
            let fill = |buffer: &mut [u8]| {
                buffer[..3].copy_from_slice(b"abc");
                Ok::<_, MemoryFault>(3)
            };
            assert_eq!(memory.write_with(100, 10, fill), Ok(3));
            assert_eq!(memory.bytes(100, 5).as_deref(), Ok(&b"abc\x09\x09"[..]));
            assert!(memory.write_with(65530, 10, fill).is_err());
        });
    }

    #[test]
    fn scatter_and_gather_keep_the_order_whatever_the_addresses() {
        with_both(|memory| {
            let count = list(memory, 0, &[(300, 3), (0x100, 2), (500, 0), (200, 1)]);
            let filled = memory.scatter(0, count, |buffers| {
                let bytes = buffers.iter_mut().flat_map(|buffer| buffer.iter_mut());
                (1..).zip(bytes.take(5)).for_each(|(n, byte)| *byte = n);
                Ok::<_, MemoryFault>(5)
            });
            assert_eq!(filled, Ok(5));
            assert_eq!(memory.bytes(300, 3).as_deref(), Ok(&[1, 2, 3][..]));
            assert_eq!(memory.bytes(0x100, 2).as_deref(), Ok(&[4, 5][..]));
            assert_eq!(memory.bytes(200, 1).as_deref(), Ok(&[0][..]));
            let all = memory.gather(0, count, |buffers| {
                Ok::<_, MemoryFault>(buffers.iter().flat_map(|b| b.to_vec()).collect::<Vec<_>>())
            });
            assert_eq!(all, Ok(vec![1, 2, 3, 4, 5, 0]));
        });
    }

    #[test]
    fn an_overlapping_buffer_ends_a_scatter_list() {
        let mut bytes = vec![0; 4096];
        let mut memory = GuestMemory::new(&mut bytes);
        let count = list(&mut memory, 0, &[(300, 10), (200, 10), (305, 2), (100, 4)]);
        assert_eq!(lens(&mut memory, count), Ok(vec![10, 10]));
        let gathered = memory.gather(0, count, |buffers| Ok::<_, MemoryFault>(buffers.len()));
        assert_eq!(gathered, Ok(4));
    }

    #[test]
    fn hostile_lists_are_refused_and_bounded() {
        with_both(|memory| {
            list(memory, 0, &[(0, u32::MAX), (65536, 1)]);
            let gather = |memory: &GuestMemory<'_>, at, count| {
                memory.gather(at, count, |buffers| Ok::<_, MemoryFault>(buffers.len()))
            };
            assert!(gather(memory, 0, 1).is_err());
            assert!(lens(memory, 2).is_err());
            assert_eq!(gather(memory, 8, 1), Err(MemoryFault::OutOfBounds));
            assert_eq!(gather(memory, 2, 1), Err(MemoryFault::Misaligned));
            assert_eq!(gather(memory, 16, 1 << 31), Err(MemoryFault::Overflow));
            assert!(gather(memory, 16, 8000).unwrap() <= 1024);
            // 100 times the whole memory: no more than the bound is copied.
            list(memory, 0, &[(0, 65536); 100]);
            let bytes = memory.gather(0, 100, |buffers| {
                Ok::<_, MemoryFault>(buffers.iter().map(|buffer| buffer.len()).sum::<usize>())
            });
            assert!([100 * 65536, MAX_COPY].contains(&bytes.unwrap()));
        });
    }
}
