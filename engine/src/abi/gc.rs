//! Objects of the garbage-collected heap as compiled code and the runtime see them.
//!
//! A reference is 32 bits wide: 0 is null, an odd number an `i31` (`value << 1 | 1`), the low bits
//! `10` a reference of the host, and the low bits `00` the byte offset of an object from the heap's
//! base. The base lies in the context; see [`layout::CTX_GC_HEAP`](super::layout::CTX_GC_HEAP).
//!
//! ```text
//! base - 4096   base                    base + FIRST_OBJECT                      base + 4 GiB
//! │ cursors     │ never accessible      │ objects                                │ guard
//! ```
//!
//! As nothing below [`FIRST_OBJECT`] is accessible, an access to a field of null faults: null
//! checks of compiled code cost nothing.

/// Bytes of address space from the heap's base on, which is a multiple of this: the low half of an
/// object's address is its reference.
pub const RESERVATION: u64 = 4 << 30;

/// Lowest offset of an object. Far above 0, so that few integers look like a reference.
pub const FIRST_OBJECT: u32 = 256 << 20;

/// Alignment of objects and of their sizes, in bytes.
pub const OBJECT_ALIGN: u32 = 16;

/// What an object begins with.
pub mod header {
    /// `u32`: an [`ObjectKind`](super::ObjectKind), or'ed with [`SCAN`].
    pub const KIND: u32 = 0;
    /// `u32`: the engine's canonical number of the object's type.
    pub const TYPE_ID: u32 = 4;
    /// Bytes of the header.
    pub const SIZE: u32 = 8;
    /// `u32`, arrays only: number of elements. It never changes.
    pub const ARRAY_LENGTH: u32 = 8;
    /// Part of the word at [`KIND`]: the object may hold references to other objects.
    pub const SCAN: u32 = 1 << 8;
    /// The part of the word at [`KIND`] that is the kind.
    pub const KIND_MASK: u32 = 0xff;
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ObjectKind {
    /// A structure.
    Struct = 1,
    /// An array.
    Array = 2,
    /// An exception.
    Exception = 3,
}

/// Places of an object's parts.
pub mod cursor {
    /// Offset of the first cursor from the heap's base.
    pub const TABLE: i32 = -4096;
    /// `u32`: offset of the next free cell of a size class; cells up to [`LIMIT`] are zeroed.
    pub const NEXT: u32 = 0;
    /// `u32`: end of the run of free cells.
    pub const LIMIT: u32 = 4;
    /// Bytes of a cursor.
    pub const SIZE: u32 = 8;
}

/// Bytes of a block, from which objects of one size class, or a large object, are allocated.
pub const BLOCK: u32 = 64 << 10;

/// Sizes of the cells that small objects are rounded up to, in bytes. The larger ones divide a
/// block with little left over.
pub const SIZE_CLASSES: [u32; 37] = [
    16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024,
    1280, 1536, 1792, 2048, 2560, 3072, 3584, 4096, 5120, 6144, 7168, 8192, 10912, 13104, 16384,
    21840, 32768,
];

/// The size class of an object of `bytes` (header included), or `None` for a large one.
#[must_use]
pub fn size_class(bytes: u64) -> Option<usize> {
    if bytes <= 128 {
        return Some((bytes.max(1).div_ceil(16) - 1) as usize);
    }
    let class = SIZE_CLASSES.partition_point(|&size| u64::from(size) < bytes);
    (class < SIZE_CLASSES.len()).then_some(class)
}

/// Offset of an array's first element, for elements of `size` bytes.
#[must_use]
pub fn array_base(size: u32) -> u32 {
    (header::ARRAY_LENGTH + 4).next_multiple_of(size)
}

/// Bytes of an array. At most 2^36 + 16: no sum overflows.
#[must_use]
pub fn array_bytes(size: u32, length: u32) -> u64 {
    u64::from(array_base(size)) + u64::from(size) * u64::from(length)
}

/// Offsets of a structure's fields of these sizes (1, 2, 4, 8 or 16 bytes), and the structure's
/// size.
///
/// Fields keep their order and lie at the next multiple of their size: a subtype's fields begin
/// with its supertype's, so a field has one offset in all of them.
pub fn struct_layout(sizes: impl IntoIterator<Item = u32>) -> (Vec<u32>, u32) {
    let mut end = header::SIZE;
    let place = |size: u32| {
        let start = end.next_multiple_of(size);
        end = start + size;
        start
    };
    (sizes.into_iter().map(place).collect(), end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_aligned_ascending_and_fit_a_block() {
        assert!(SIZE_CLASSES.is_sorted());
        for size in SIZE_CLASSES {
            assert!(size.is_multiple_of(OBJECT_ALIGN));
            let wasted = BLOCK % size;
            assert!(wasted * 8 < BLOCK, "{size} leaves {wasted}");
        }
        assert!(SIZE_CLASSES.len() as u32 * cursor::SIZE <= cursor::TABLE.unsigned_abs());
    }

    #[test]
    fn the_class_of_a_size_is_the_smallest_that_fits() {
        for bytes in 0..=40_000u64 {
            let fits = |&&size: &&u32| u64::from(size) >= bytes;
            let expected = SIZE_CLASSES.iter().find(fits).copied();
            assert_eq!(size_class(bytes).map(|class| SIZE_CLASSES[class]), expected);
        }
    }

    #[test]
    fn fields_are_aligned_and_a_prefix_keeps_its_offsets() {
        let (offsets, size) = struct_layout([1, 4, 2, 16, 1, 8]);
        assert_eq!((offsets, size), (vec![8, 12, 16, 32, 48, 56], 64));
        assert_eq!(struct_layout([1, 4, 2]), (vec![8, 12, 16], 18));
        assert_eq!(struct_layout([]), (vec![], 8));
    }

    #[test]
    fn the_largest_array_has_a_size() {
        assert_eq!(array_bytes(16, u32::MAX), 16 + (16 * u64::from(u32::MAX)));
        assert_eq!((array_base(1), array_base(4), array_base(8)), (12, 12, 16));
    }
}
