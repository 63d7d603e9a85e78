//! Bulk operations on linear memories.
//!
//! Copies and fills of a short constant length become loads and stores. Others are compared with
//! the memory's length here, so that the runtime only moves bytes; shared memories, whose bytes
//! other threads may use at the same time, are left to the runtime altogether.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};
use wasmparser::Operator;

use super::Translator;
use crate::abi::builtins::Builtin;
use crate::abi::trap::TrapKind;
use crate::compile::signature::POINTER;
use crate::compile::trap::trap_code;
use crate::module::index::MemoryIndex;

/// Most bytes that are copied or filled without a call.
const SHORT: u64 = 64;

/// Registers by which bytes are moved, the widest first, and their sizes.
const CHUNKS: [(Type, u64); 5] =
    [(types::I8X16, 16), (types::I64, 8), (types::I32, 4), (types::I16, 2), (types::I8, 1)];

impl Translator<'_, '_> {
    /// Translates an operator of this family; `false` if it is of another.
    pub(super) fn bulk_memory(&mut self, op: &Operator<'_>) -> bool {
        match *op {
            Operator::MemoryFill { mem } => self.memory_fill(mem),
            Operator::MemoryCopy { dst_mem, src_mem } => self.memory_copy(dst_mem, src_mem),
            Operator::MemoryInit { data_index, mem } => {
                let [dst, src, len] = self.pop_n();
                let dst = self.widen(dst, self.is_memory64(mem));
                let (memory, data) = (self.number(mem), self.number(data_index));
                self.checked_builtin(Builtin::memory_init, &[memory, data, dst, src, len]);
            }
            Operator::DataDrop { data_index } => {
                let data = self.number(data_index);
                self.builtin(Builtin::data_drop, &[data]);
            }
            _ => return false,
        }
        true
    }

    fn memory_copy(&mut self, dst_memory: u32, src_memory: u32) {
        let (wide_dst, wide_src) = (self.is_memory64(dst_memory), self.is_memory64(src_memory));
        let [dst, src, len] = self.pop_n();
        let (dst, src) = (self.widen(dst, wide_dst), self.widen(src, wide_src));
        let to = MemoryIndex::from_u32(dst_memory);
        let from = MemoryIndex::from_u32(src_memory);
        if let Some(len) = self.short(len)
            && self.is_guarded(to, SHORT)
            && self.is_guarded(from, SHORT)
        {
            return self.short_copy((to, dst), (from, src), len);
        }
        // The length is of the narrower index type.
        let len = self.widen(len, wide_dst && wide_src);
        if self.is_shared(to) || self.is_shared(from) {
            let (to, from) = (self.number(dst_memory), self.number(src_memory));
            return self.checked_builtin(Builtin::memory_copy, &[to, dst, from, src, len]);
        }
        let (dst, len) = self.range(to, dst, len);
        let (src, len) = self.range(from, src, len);
        self.builtin(Builtin::memory_move, &[dst, src, len]);
    }

    fn memory_fill(&mut self, mem: u32) {
        let wide = self.is_memory64(mem);
        let [dst, value, len] = self.pop_n();
        let dst = self.widen(dst, wide);
        let memory = MemoryIndex::from_u32(mem);
        if let Some(len) = self.short(len)
            && self.is_guarded(memory, SHORT)
        {
            return self.short_fill(memory, dst, value, len);
        }
        let len = self.widen(len, wide);
        if self.is_shared(memory) {
            let memory = self.number(mem);
            return self.checked_builtin(Builtin::memory_fill, &[memory, dst, value, len]);
        }
        let (dst, len) = self.range(memory, dst, len);
        self.builtin(Builtin::memory_set, &[dst, value, len]);
    }

    fn is_shared(&self, memory: MemoryIndex) -> bool {
        self.env.module.memories[memory].shared
    }

    /// The length, if it is a short constant and not zero.
    fn short(&self, len: Value) -> Option<u64> {
        self.constant_bits(len).filter(|len| (1..=SHORT).contains(len))
    }

    /// All is read before anything is written, for the ranges may overlap.
    fn short_copy(
        &mut self,
        (to, dst): (MemoryIndex, Value),
        (from, src): (MemoryIndex, Value),
        len: u64,
    ) {
        let flags = self.heap_flags();
        let mut values = Vec::with_capacity(8);
        for (ty, offset) in chunks(len) {
            let (address, displacement) = self.address_at(from, src, offset, ty.bytes().into());
            values.push(self.builder.ins().load(ty, flags, address, displacement));
        }
        self.check_last(to, dst, len);
        for ((ty, offset), value) in chunks(len).zip(values) {
            let (address, displacement) = self.address_at(to, dst, offset, ty.bytes().into());
            self.builder.ins().store(flags, value, address, displacement);
        }
    }

    fn short_fill(&mut self, memory: MemoryIndex, dst: Value, value: Value, len: u64) {
        self.check_last(memory, dst, len);
        let byte = self.builder.ins().ireduce(types::I8, value);
        let vector = (len >= 16).then(|| self.builder.ins().splat(types::I8X16, byte));
        let word = self.builder.ins().uextend(types::I64, byte);
        let word = self.builder.ins().imul_imm_s(word, 0x0101_0101_0101_0101);
        let flags = self.heap_flags();
        for (ty, offset) in chunks(len) {
            let value = match (ty, vector) {
                (types::I8X16, Some(vector)) => vector,
                (types::I64, _) => word,
                (ty, _) => self.builder.ins().ireduce(ty, word),
            };
            let (address, displacement) = self.address_at(memory, dst, offset, ty.bytes().into());
            self.builder.ins().store(flags, value, address, displacement);
        }
    }

    /// Reads the last byte of what several stores will write: they write all or nothing.
    fn check_last(&mut self, memory: MemoryIndex, start: Value, len: u64) {
        if chunks(len).nth(1).is_some() {
            let flags = self.heap_flags();
            let (address, displacement) = self.address_at(memory, start, len - 1, 1);
            self.builder.ins().load(types::I8, flags, address, displacement);
        }
    }

    /// The address of a range of bytes that was compared with the memory's length, and its length.
    fn range(&mut self, memory: MemoryIndex, start: Value, len: Value) -> (Value, Value) {
        let code = trap_code(TrapKind::MemoryOutOfBounds);
        // Indices and lengths of 32 bits cannot carry the sum past 2^64.
        let end = match self.env.module.memories[memory].memory64 {
            true => self.builder.ins().uadd_overflow_trap(start, len, code),
            false => self.builder.ins().iadd(start, len),
        };
        let length = self.memory_length(memory);
        let outside = self.builder.ins().icmp(IntCC::UnsignedGreaterThan, end, length);
        self.builder.ins().trapnz(outside, code);
        // A processor that guesses the check to pass must not touch anything either.
        let nothing = self.builder.ins().iconst(POINTER, 0);
        let len = self.builder.ins().select_spectre_guard(outside, nothing, len);
        let base = self.memory_base(memory);
        (self.builder.ins().iadd(base, start), len)
    }
}

/// How a number of bytes is cut up: types and where each begins. A rest overlaps what comes before
/// it rather than being cut up further.
fn chunks(len: u64) -> impl Iterator<Item = (Type, u64)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let left = len.checked_sub(done).filter(|&left| left > 0)?;
        let (ty, size) = *CHUNKS.iter().find(|(_, size)| *size <= left)?;
        // The next wider one, if there is enough behind it to overlap with.
        let wider = CHUNKS.iter().rev().find(|(_, wider)| *wider >= left);
        if let Some(&(wider, size)) = wider.filter(|(_, wider)| *wider <= len && left > *wider / 2)
        {
            done = len;
            return Some((wider, len - size));
        }
        let at = done;
        done += size;
        Some((ty, at))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_every_byte_and_nothing_else() {
        for len in 1..=SHORT {
            let mut seen = vec![false; len as usize];
            for (ty, offset) in chunks(len) {
                seen[offset as usize..][..ty.bytes() as usize].fill(true);
            }
            assert!(seen.iter().all(|&seen| seen), "{len}");
            assert!(chunks(len).count() <= 5, "{len}");
        }
        let of = |len| chunks(len).collect::<Vec<_>>();
        assert_eq!(of(8), [(types::I64, 0)]);
        assert_eq!(of(24), [(types::I8X16, 0), (types::I64, 16)]);
        assert_eq!(of(31), [(types::I8X16, 0), (types::I8X16, 15)]);
        assert_eq!(of(7), [(types::I32, 0), (types::I32, 3)]);
        assert_eq!(of(3), [(types::I16, 0), (types::I8, 2)]);
    }
}
