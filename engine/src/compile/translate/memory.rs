//! Linear memories: addresses, loads and stores, size.
//!
//! # Why most accesses have no check
//!
//! A memory with 32-bit indices has 4 GiB of address space to itself and an inaccessible guard
//! behind it. The index is at most 2^32 - 1, so an access whose static offset and size together
//! stay within the guard's size hits memory that is accessible exactly up to the current length,
//! and faults beyond.
//!
//! A memory with 64-bit indices has a guard behind it as well, but an index may point past that. It
//! is replaced by the length if it is not below it (a conditional move, no branch): what lies at the
//! length is inaccessible, and so is what follows up to the guard's end.
//!
//! Everything else is compared with the length first.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Endianness, InstBuilder, MemFlagsData, Value, types};
use wasmparser::{MemArg, Operator};

use super::Translator;
use crate::abi::builtins::Builtin;
use crate::abi::layout::memory_def;
use crate::abi::trap::TrapKind;
use crate::compile::signature::POINTER;
use crate::compile::trap::trap_code;
use crate::config::{Addressing, DEDICATED_BASE, MEMORY_GUARD, MEMORY64_GUARD};
use crate::module::index::MemoryIndex;
use crate::module::types::MemoryType;

/// Binary logarithm of the smallest unit that the machine can protect.
const HOST_PAGE_LOG2: u8 = 12;

/// An address: a value and a constant to add.
type Address = (Value, i32);

macro_rules! load {
    ($self:ident, $memarg:ident, $size:literal, load $ty:ident) => {{
        let (address, offset) = $self.address($memarg, $size);
        let flags = $self.heap_flags();
        let value = $self.builder.ins().load(types::$ty, flags, address, offset);
        $self.push(value);
    }};
    ($self:ident, $memarg:ident, $size:literal, $load:ident $ty:ident) => {{
        let (address, offset) = $self.address($memarg, $size);
        let flags = $self.heap_flags();
        let value = $self.builder.ins().$load(types::$ty, flags, address, offset);
        $self.push(value);
    }};
    ($self:ident, $memarg:ident, $size:literal, $load:ident) => {{
        let (address, offset) = $self.address($memarg, $size);
        let flags = $self.heap_flags();
        let value = $self.builder.ins().$load(flags, address, offset);
        $self.push(value);
    }};
}

macro_rules! store {
    ($self:ident, $memarg:ident, $size:literal, $store:ident) => {{
        let value = $self.pop();
        let (address, offset) = $self.address($memarg, $size);
        let flags = $self.heap_flags();
        $self.builder.ins().$store(flags, value, address, offset);
    }};
}

impl Translator<'_, '_> {
    /// Translates a load or store; `false` if the operator is another.
    pub(super) fn memory_access(&mut self, op: &Operator<'_>) -> bool {
        match op {
            Operator::I32Load { memarg } => load!(self, memarg, 4, load I32),
            Operator::I64Load { memarg } => load!(self, memarg, 8, load I64),
            Operator::F32Load { memarg } => load!(self, memarg, 4, load F32),
            Operator::F64Load { memarg } => load!(self, memarg, 8, load F64),
            Operator::I32Load8S { memarg } => load!(self, memarg, 1, sload8 I32),
            Operator::I32Load8U { memarg } => load!(self, memarg, 1, uload8 I32),
            Operator::I32Load16S { memarg } => load!(self, memarg, 2, sload16 I32),
            Operator::I32Load16U { memarg } => load!(self, memarg, 2, uload16 I32),
            Operator::I64Load8S { memarg } => load!(self, memarg, 1, sload8 I64),
            Operator::I64Load8U { memarg } => load!(self, memarg, 1, uload8 I64),
            Operator::I64Load16S { memarg } => load!(self, memarg, 2, sload16 I64),
            Operator::I64Load16U { memarg } => load!(self, memarg, 2, uload16 I64),
            Operator::I64Load32S { memarg } => load!(self, memarg, 4, sload32),
            Operator::I64Load32U { memarg } => load!(self, memarg, 4, uload32),
            Operator::I32Store { memarg } | Operator::F32Store { memarg } => {
                store!(self, memarg, 4, store);
            }
            Operator::I64Store { memarg } | Operator::F64Store { memarg } => {
                store!(self, memarg, 8, store);
            }
            Operator::I32Store8 { memarg } | Operator::I64Store8 { memarg } => {
                store!(self, memarg, 1, istore8);
            }
            Operator::I32Store16 { memarg } | Operator::I64Store16 { memarg } => {
                store!(self, memarg, 2, istore16);
            }
            Operator::I64Store32 { memarg } => store!(self, memarg, 4, istore32),
            _ => return false,
        }
        true
    }

    /// Translates any other operator on memories; `false` if it is of another family.
    pub(super) fn memory(&mut self, op: &Operator<'_>) -> bool {
        match *op {
            Operator::MemorySize { mem } => self.memory_size(MemoryIndex::from_u32(mem)),
            Operator::MemoryGrow { mem } => {
                let wide = self.is_memory64(mem);
                let delta = self.pop();
                let delta = self.widen(delta, wide);
                let memory = self.number(mem);
                let previous = self.builtin(Builtin::memory_grow, &[memory, delta]);
                let previous = self.narrow(previous, wide);
                self.push(previous);
            }
            _ => return self.bulk_memory(op),
        }
        true
    }

    fn memory_size(&mut self, memory: MemoryIndex) {
        let ty = self.env.module.memories[memory];
        let length = self.memory_length(memory);
        let pages = self.builder.ins().ushr_imm_u(length, i64::from(ty.page_size_log2));
        let pages = self.narrow(pages, ty.memory64);
        self.push(pages);
    }

    pub(super) fn is_memory64(&self, memory: u32) -> bool {
        self.env.module.memories[MemoryIndex::from_u32(memory)].memory64
    }

    /// Flags of an access by wasm code: it may fault, which is a trap.
    pub(super) fn heap_flags(&self) -> MemFlagsData {
        MemFlagsData::new()
            .with_endianness(Endianness::Little)
            .with_trap_code(Some(trap_code(TrapKind::MemoryOutOfBounds)))
            .with_alias_region(Some(self.regions.heap))
    }

    /// Pops an index and gives the address of `size` bytes behind it.
    pub(super) fn address(&mut self, memarg: &MemArg, size: u64) -> Address {
        let (memory, index) = self.index(memarg);
        self.address_at(memory, index, memarg.offset, size)
    }

    /// Pops the index of an access, as an i64, and says into which memory it is.
    pub(super) fn index(&mut self, memarg: &MemArg) -> (MemoryIndex, Value) {
        let memory = match memarg.target {
            wasmparser::MemArgTarget::Memory(memory) => MemoryIndex::from_u32(memory),
            _ => MemoryIndex::from_u32(0),
        };
        let index = self.pop();
        (memory, self.widen(index, self.env.module.memories[memory].memory64))
    }

    /// The address of `size` bytes, `offset` behind an index.
    pub(super) fn address_at(
        &mut self,
        memory: MemoryIndex,
        index: Value,
        offset: u64,
        size: u64,
    ) -> Address {
        let index = match reach(&self.env.module.memories[memory], offset, size) {
            Reach::Guarded => index,
            Reach::Clamped => self.clamped(memory, index),
            Reach::Checked => return self.checked_address(memory, index, offset, size),
        };
        // Below the guard's size, so it fits.
        let offset = offset as i32;
        if self.is_dedicated(memory) {
            return self.dedicated_address(index, offset);
        }
        let base = self.memory_base(memory);
        (self.builder.ins().iadd(base, index), offset)
    }

    /// Whether accesses up to `size` bytes behind any index need no check.
    pub(super) fn is_guarded(&self, memory: MemoryIndex, size: u64) -> bool {
        reach(&self.env.module.memories[memory], 0, size) == Reach::Guarded
    }

    /// Whether the memory's base is compiled in.
    fn is_dedicated(&self, memory: MemoryIndex) -> bool {
        self.env.settings.addressing == Addressing::Dedicated && memory.as_u32() == 0
    }

    /// The index or, if that is not below the length, the length.
    fn clamped(&mut self, memory: MemoryIndex, index: Value) -> Value {
        let length = self.memory_length(memory);
        let outside = self.builder.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, index, length);
        // A processor that guesses must not read past the memory either.
        self.builder.ins().select_spectre_guard(outside, length, index)
    }

    /// The base goes into the instruction's displacement, together with the offset, if their sum
    /// fits.
    fn dedicated_address(&mut self, index: Value, offset: i32) -> Address {
        const BASE: i32 = DEDICATED_BASE as i32;
        match BASE.checked_add(offset) {
            Some(displacement) => (index, displacement),
            None => (self.builder.ins().iadd_imm_u(index, i64::from(BASE)), offset),
        }
    }

    /// An address that was compared with the memory's length.
    fn checked_address(
        &mut self,
        memory: MemoryIndex,
        index: Value,
        offset: u64,
        size: u64,
    ) -> Address {
        let code = trap_code(TrapKind::MemoryOutOfBounds);
        let end = match offset.checked_add(size) {
            // An index of 32 bits cannot carry the sum past 2^64.
            Some(reach) if !self.env.module.memories[memory].memory64 => {
                self.builder.ins().iadd_imm_u(index, reach as i64)
            }
            Some(reach) => {
                let reach = self.builder.ins().iconst(types::I64, reach as i64);
                self.builder.ins().uadd_overflow_trap(index, reach, code)
            }
            // Out of bounds whatever the index.
            None => self.builder.ins().iconst(types::I64, -1),
        };
        let length = self.memory_length(memory);
        let outside = self.builder.ins().icmp(IntCC::UnsignedGreaterThan, end, length);
        self.builder.ins().trapnz(outside, code);
        let base = self.memory_base(memory);
        let address = self.builder.ins().iadd(base, index);
        let address = self.builder.ins().iadd_imm_u(address, offset as i64);
        // A processor that guesses the check to pass must not read past the memory either.
        (self.builder.ins().select_spectre_guard(outside, base, address), 0)
    }

    /// The definition of a memory: a pointer and an offset to it.
    fn memory_def(&mut self, memory: MemoryIndex) -> (Value, u32) {
        let imported = self.env.module.imported.memories;
        match memory.as_u32().checked_sub(imported) {
            Some(defined) => (self.ctx, self.env.layout.defined_memory(defined)),
            None => {
                let offset = self.env.layout.imported_memory(memory.as_u32());
                (self.load_constant(POINTER, self.ctx, offset), 0)
            }
        }
    }

    /// The address of byte 0.
    pub(super) fn memory_base(&mut self, memory: MemoryIndex) -> Value {
        if self.is_dedicated(memory) {
            return self.builder.ins().iconst(POINTER, DEDICATED_BASE as i64);
        }
        let (def, offset) = self.memory_def(memory);
        let offset = offset + memory_def::BASE;
        let ty = &self.env.module.memories[memory];
        if ty.memory64 && !ty.shared {
            let flags = self.ctx_flags();
            return self.builder.ins().load(POINTER, flags, def, offset as i32);
        }
        self.load_constant(POINTER, def, offset)
    }

    /// The current length in bytes.
    pub(super) fn memory_length(&mut self, memory: MemoryIndex) -> Value {
        let (def, offset) = self.memory_def(memory);
        let offset = offset + memory_def::LENGTH;
        let flags = self.ctx_flags();
        if self.env.module.memories[memory].shared {
            let length = self.load_constant(POINTER, def, offset);
            return self.builder.ins().atomic_load(types::I64, flags, length);
        }
        self.builder.ins().load(types::I64, flags, def, offset as i32)
    }
}

/// How an access is kept within a memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// By the guard behind the memory alone.
    Guarded,
    /// By the guard, once the index is not past the length.
    Clamped,
    /// By a comparison with the length.
    Checked,
}

/// How an access of `size` bytes, `offset` behind any index, is kept within a memory.
fn reach(ty: &MemoryType, offset: u64, size: u64) -> Reach {
    // A guard begins at a page of the machine, and so must the end of the memory.
    let by_page = ty.page_size_log2 >= HOST_PAGE_LOG2;
    let within = |guard: u64| offset.checked_add(size).is_some_and(|end| end <= guard);
    match ty.memory64 {
        false if by_page && within(MEMORY_GUARD) => Reach::Guarded,
        // The length that an index was clamped to might be accessible by now in shared memory.
        true if by_page && within(MEMORY64_GUARD) && !ty.shared => Reach::Clamped,
        _ => Reach::Checked,
    }
}
