//! Field offsets of everything that compiled code reads or writes, in bytes.
//!
//! The context (`VMContext`) is one block for each instance: a fixed header, then arrays whose
//! lengths follow from the module's shape. What hot code touches (memories, globals) comes first,
//! so that its displacement fits one byte.

/// `u32`: [`CTX_MAGIC_VALUE`], checked in debug builds.
pub const CTX_MAGIC: u32 = 0;
/// `usize`: lowest stack address that wasm code may use; read by every prologue.
pub const CTX_STACK_LIMIT: u32 = 8;
/// `*mut` store record ([`store_record`]).
pub const CTX_STORE: u32 = 16;
/// `*const [*const u8]`: pointer table of [`Builtin`](super::builtins::Builtin)s.
pub const CTX_BUILTINS: u32 = 24;
/// `*mut` the runtime's instance; opaque to compiled code.
pub const CTX_INSTANCE: u32 = 32;
/// `*mut u8`: offset 0 of the heap of objects ([`gc`](super::gc)); null if the module has no use for
/// one.
pub const CTX_GC_HEAP: u32 = 40;
/// `*const [u32; SUPERTYPES]`: for each type number of the engine its supertypes from the top down
/// and then itself; may be replaced whenever a call is made.
pub const CTX_SUPERTYPES: u32 = 48;
/// `*const u8`: where stubs of functions without code go on; see [`lazy`](super::lazy).
pub const CTX_LAZY: u32 = 56;
/// First byte after the header.
pub const CTX_HEADER_SIZE: u32 = 64;
/// Value of the field at [`CTX_MAGIC`]: "cctx".
pub const CTX_MAGIC_VALUE: u32 = u32::from_le_bytes(*b"cctx");

/// Types of a row behind [`CTX_SUPERTYPES`]; whether a type is a subtype of one below this depth
/// takes a runtime call.
pub const SUPERTYPES: u32 = 8;
/// What stands in a row behind the type itself: no type's number.
pub const NO_TYPE: u32 = u32::MAX;

/// The store record: one for each store, shared by its instances; written by entry and exit
/// trampolines, read by the trap handler.
pub mod store_record {
    /// `usize`: stack pointer to restore before resuming at the landing pad.
    pub const ENTRY_SP: u32 = 0;
    /// `usize`: frame pointer to restore; the frame walk of a backtrace ends there.
    pub const ENTRY_FP: u32 = 8;
    /// `usize`: address of the innermost entry trampoline's landing pad.
    pub const ENTRY_HANDLER: u32 = 16;
    /// `usize`: frame pointer of the exit trampoline that last called the host.
    pub const LAST_EXIT_FP: u32 = 24;
    /// The runtime's own: the activation around the innermost one.
    pub const OUTER: u32 = 32;
    /// `*const u8`: what an exit trampoline calls in System V, with the store record, when the
    /// host raised an exception. It does not return: see [`abi`](super::super#exceptions).
    pub const RAISE: u32 = 40;
    /// Size of the part that compiled code knows.
    pub const SIZE: u32 = 48;
}

/// The host record: what a host function's `ctx` points to.
pub mod host_record {
    /// `extern "C" fn(record, values: *mut [u8; 16]) -> u32`: one of
    /// [`host_status`](super::host_status).
    pub const CALL: u32 = 0;
    /// `*mut` store record.
    pub const STORE: u32 = 8;
    /// Size of the part that compiled code knows.
    pub const SIZE: u32 = 16;
}

/// What the host function behind a [`host_record`] returns.
pub mod host_status {
    /// The results stand in the slots.
    pub const RETURNED: u32 = 0;
    /// The store holds a pending error: the caller traps.
    pub const FAILED: u32 = 1;
    /// The store holds a pending exception: the caller raises it.
    pub const RAISED: u32 = 2;
}

/// An exception: an object in the store's heap behind its general header. Compiled code writes the
/// values once and reads them when it is caught.
pub mod exception {
    /// `*const` tag record: which tag it was thrown with.
    pub const TAG: u32 = 8;
    /// The values, a slot of [`VALUE_SIZE`](super::VALUE_SIZE) bytes each.
    pub const VALUES: u32 = 16;
}

/// A linear memory's definition; instances that import the memory hold a pointer to it.
pub mod memory_def {
    /// `*mut u8`: address of byte 0. Moves only if the indices have 64 bits, the memory is not
    /// shared and its place not fixed.
    pub const BASE: u32 = 0;
    /// `usize`: current length in bytes; for a shared memory the address where it lies, which other
    /// threads write.
    pub const LENGTH: u32 = 8;
    /// Size in bytes.
    pub const SIZE: u32 = 16;
}

/// A table's definition.
pub mod table_def {
    /// `*mut` elements; see [`FUNC_ELEMENT_SIZE`](super::FUNC_ELEMENT_SIZE). Moves on growth.
    pub const BASE: u32 = 0;
    /// `u64`: current length in elements.
    pub const LENGTH: u32 = 8;
    /// Size in bytes.
    pub const SIZE: u32 = 16;
}

/// Bytes of an element of a table of function references: a pointer to a function reference
/// record, 0 for null.
pub const FUNC_ELEMENT_SIZE: u32 = 8;
/// Bytes of an element of a table of any other reference type: an i32 handle, 0 for null.
pub const REF_ELEMENT_SIZE: u32 = 4;

/// Bytes of a global: its value, little endian, zero-extended; aligned to 16.
pub const GLOBAL_SIZE: u32 = 16;

/// Bytes of a value slot in the array form that trampolines use.
pub const VALUE_SIZE: u32 = 16;

/// An imported function: what a call of it needs.
pub mod func_import {
    /// `*const u8`: code in the `Tail` convention.
    pub const CODE: u32 = 0;
    /// `*mut u8`: the callee's context.
    pub const CTX: u32 = 8;
    /// Size in bytes.
    pub const SIZE: u32 = 16;
}

/// A function reference record: what a non-null function reference points to.
pub mod func_ref {
    /// `*const u8`: code in the `Tail` convention.
    pub const CODE: u32 = 0;
    /// `*mut u8`: the callee's context.
    pub const CTX: u32 = 8;
    /// `u32`: the engine's canonical number of the function's type.
    pub const TYPE_ID: u32 = 16;
    /// Size in bytes.
    pub const SIZE: u32 = 24;
}

/// Counts that fix the layout of a context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Types of the module.
    pub types: u32,
    /// Imported functions.
    pub imported_funcs: u32,
    /// Imported memories.
    pub imported_memories: u32,
    /// Imported tables.
    pub imported_tables: u32,
    /// Imported globals.
    pub imported_globals: u32,
    /// Memories that the module defines.
    pub defined_memories: u32,
    /// Tables that the module defines.
    pub defined_tables: u32,
    /// Globals that the module defines.
    pub defined_globals: u32,
    /// Functions that may become references (escaped), in any way.
    pub escaped_funcs: u32,
    /// Tags.
    pub tags: u32,
}

/// Offsets of a context's arrays for one [`Shape`]. All indices count within their own array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    shape: Shape,
    defined_memories: u32,
    imported_memories: u32,
    defined_tables: u32,
    imported_tables: u32,
    defined_globals: u32,
    imported_globals: u32,
    imported_funcs: u32,
    type_ids: u32,
    func_refs: u32,
    tags: u32,
    size: u32,
}

impl Layout {
    /// Computes the layout.
    ///
    /// The module's limits keep every count below 2^20, so no sum overflows.
    #[must_use]
    pub fn new(shape: Shape) -> Layout {
        let mut next = CTX_HEADER_SIZE;
        let mut array = |count: u32, size: u32, align: u32| {
            let start = next.next_multiple_of(align);
            next = start + count * size;
            start
        };
        Layout {
            shape,
            defined_memories: array(shape.defined_memories, memory_def::SIZE, 16),
            imported_memories: array(shape.imported_memories, 8, 8),
            defined_tables: array(shape.defined_tables, table_def::SIZE, 16),
            imported_tables: array(shape.imported_tables, 8, 8),
            defined_globals: array(shape.defined_globals, GLOBAL_SIZE, 16),
            imported_globals: array(shape.imported_globals, 8, 8),
            imported_funcs: array(shape.imported_funcs, func_import::SIZE, 8),
            type_ids: array(shape.types, 4, 8),
            func_refs: array(shape.escaped_funcs, func_ref::SIZE, 8),
            tags: array(shape.tags, 8, 8),
            size: next.next_multiple_of(16),
        }
    }

    /// The counts behind it.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Size of the whole context.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// `memory_def` of the n-th defined memory.
    #[must_use]
    pub fn defined_memory(&self, n: u32) -> u32 {
        debug_assert!(n < self.shape.defined_memories);
        self.defined_memories + n * memory_def::SIZE
    }

    /// `*mut memory_def` of the n-th imported memory.
    #[must_use]
    pub fn imported_memory(&self, n: u32) -> u32 {
        debug_assert!(n < self.shape.imported_memories);
        self.imported_memories + n * 8
    }

    /// `table_def` of the n-th defined table.
    #[must_use]
    pub fn defined_table(&self, n: u32) -> u32 {
        debug_assert!(n < self.shape.defined_tables);
        self.defined_tables + n * table_def::SIZE
    }

    /// `*mut table_def` of the n-th imported table.
    #[must_use]
    pub fn imported_table(&self, n: u32) -> u32 {
        debug_assert!(n < self.shape.imported_tables);
        self.imported_tables + n * 8
    }

    /// Value of the n-th defined global.
    #[must_use]
    pub fn defined_global(&self, n: u32) -> u32 {
        debug_assert!(n < self.shape.defined_globals);
        self.defined_globals + n * GLOBAL_SIZE
    }

    /// Pointer to the value of the n-th imported global.
    #[must_use]
    pub fn imported_global(&self, n: u32) -> u32 {
        debug_assert!(n < self.shape.imported_globals);
        self.imported_globals + n * 8
    }

    /// `func_import` of the n-th imported function.
    #[must_use]
    pub fn imported_func(&self, n: u32) -> u32 {
        debug_assert!(n < self.shape.imported_funcs);
        self.imported_funcs + n * func_import::SIZE
    }

    /// `u32` canonical number of the n-th type.
    #[must_use]
    pub fn type_id(&self, n: u32) -> u32 {
        debug_assert!(n < self.shape.types);
        self.type_ids + n * 4
    }

    /// `func_ref` of the n-th escaped function.
    #[must_use]
    pub fn func_ref(&self, n: u32) -> u32 {
        debug_assert!(n < self.shape.escaped_funcs);
        self.func_refs + n * func_ref::SIZE
    }

    /// Pointer to the record of the n-th tag.
    #[must_use]
    pub fn tag(&self, n: u32) -> u32 {
        debug_assert!(n < self.shape.tags);
        self.tags + n * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_follow_each_other_aligned_and_apart() {
        let layout = Layout::new(Shape {
            types: 3,
            imported_funcs: 1,
            imported_memories: 1,
            imported_tables: 1,
            imported_globals: 1,
            defined_memories: 1,
            defined_tables: 2,
            defined_globals: 2,
            escaped_funcs: 2,
            tags: 3,
        });
        assert_eq!(layout.defined_memory(0), CTX_HEADER_SIZE);
        assert_eq!(layout.imported_memory(0), 80);
        assert_eq!(layout.defined_table(0), 96);
        assert_eq!(layout.imported_table(0), 128);
        assert_eq!(layout.defined_global(0), 144);
        assert_eq!(layout.imported_global(0), 176);
        assert_eq!(layout.imported_func(0), 184);
        assert_eq!(layout.type_id(0), 200);
        assert_eq!(layout.func_ref(0), 216);
        assert_eq!(layout.tag(0), 264);
        assert_eq!(layout.size(), 288);
    }
}
