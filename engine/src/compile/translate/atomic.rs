//! Atomic operators: loads, stores, read-modify-write, compare-and-exchange, waiting and waking.
//!
//! All are sequentially consistent, as the code generator's atomic instructions are. An address that
//! is not a multiple of the access's width traps, before its bounds are looked at; the operators
//! work on unshared memories as well.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{AtomicRmwOp, InstBuilder, Type, Value, types};
use wasmparser::{MemArg, Operator};

use super::Translator;
use crate::abi::builtins::Builtin;
use crate::abi::trap::TrapKind;
use crate::compile::trap::trap_code;

/// Calls `$self.$method($memarg, access, result, …)` for the operator, or returns `false`.
macro_rules! dispatch {
    ($self:ident, $op:ident; $($name:ident: $method:ident($access:ident, $ty:ident $(, $extra:expr)*);)*) => {
        match $op {
            $(Operator::$name { memarg } => {
                $self.$method(memarg, types::$access, types::$ty $(, $extra)*);
            })*
            _ => return false,
        }
    };
}

impl Translator<'_, '_> {
    /// Translates an operator of this family; `false` if it is of another.
    pub(super) fn atomic(&mut self, op: &Operator<'_>) -> bool {
        match op {
            Operator::AtomicFence { .. } => {
                self.builder.ins().fence();
            }
            Operator::MemoryAtomicNotify { memarg } => self.notify(memarg),
            Operator::MemoryAtomicWait32 { memarg } => {
                self.wait(memarg, Builtin::memory_wait32);
            }
            Operator::MemoryAtomicWait64 { memarg } => {
                self.wait(memarg, Builtin::memory_wait64);
            }
            _ => return self.atomic_access(op) || self.atomic_rmw_access(op),
        }
        true
    }

    fn atomic_access(&mut self, op: &Operator<'_>) -> bool {
        dispatch! { self, op;
            I32AtomicLoad: atomic_load(I32, I32);
            I64AtomicLoad: atomic_load(I64, I64);
            I32AtomicLoad8U: atomic_load(I8, I32);
            I32AtomicLoad16U: atomic_load(I16, I32);
            I64AtomicLoad8U: atomic_load(I8, I64);
            I64AtomicLoad16U: atomic_load(I16, I64);
            I64AtomicLoad32U: atomic_load(I32, I64);
            I32AtomicStore: atomic_store(I32, I32);
            I64AtomicStore: atomic_store(I64, I64);
            I32AtomicStore8: atomic_store(I8, I32);
            I32AtomicStore16: atomic_store(I16, I32);
            I64AtomicStore8: atomic_store(I8, I64);
            I64AtomicStore16: atomic_store(I16, I64);
            I64AtomicStore32: atomic_store(I32, I64);
            I32AtomicRmwCmpxchg: compare_exchange(I32, I32);
            I64AtomicRmwCmpxchg: compare_exchange(I64, I64);
            I32AtomicRmw8CmpxchgU: compare_exchange(I8, I32);
            I32AtomicRmw16CmpxchgU: compare_exchange(I16, I32);
            I64AtomicRmw8CmpxchgU: compare_exchange(I8, I64);
            I64AtomicRmw16CmpxchgU: compare_exchange(I16, I64);
            I64AtomicRmw32CmpxchgU: compare_exchange(I32, I64);
        }
        true
    }

    fn atomic_rmw_access(&mut self, op: &Operator<'_>) -> bool {
        use AtomicRmwOp::{Add, And, Or, Sub, Xchg, Xor};
        dispatch! { self, op;
            I32AtomicRmwAdd: read_modify_write(I32, I32, Add);
            I64AtomicRmwAdd: read_modify_write(I64, I64, Add);
            I32AtomicRmw8AddU: read_modify_write(I8, I32, Add);
            I32AtomicRmw16AddU: read_modify_write(I16, I32, Add);
            I64AtomicRmw8AddU: read_modify_write(I8, I64, Add);
            I64AtomicRmw16AddU: read_modify_write(I16, I64, Add);
            I64AtomicRmw32AddU: read_modify_write(I32, I64, Add);
            I32AtomicRmwSub: read_modify_write(I32, I32, Sub);
            I64AtomicRmwSub: read_modify_write(I64, I64, Sub);
            I32AtomicRmw8SubU: read_modify_write(I8, I32, Sub);
            I32AtomicRmw16SubU: read_modify_write(I16, I32, Sub);
            I64AtomicRmw8SubU: read_modify_write(I8, I64, Sub);
            I64AtomicRmw16SubU: read_modify_write(I16, I64, Sub);
            I64AtomicRmw32SubU: read_modify_write(I32, I64, Sub);
            I32AtomicRmwAnd: read_modify_write(I32, I32, And);
            I64AtomicRmwAnd: read_modify_write(I64, I64, And);
            I32AtomicRmw8AndU: read_modify_write(I8, I32, And);
            I32AtomicRmw16AndU: read_modify_write(I16, I32, And);
            I64AtomicRmw8AndU: read_modify_write(I8, I64, And);
            I64AtomicRmw16AndU: read_modify_write(I16, I64, And);
            I64AtomicRmw32AndU: read_modify_write(I32, I64, And);
            I32AtomicRmwOr: read_modify_write(I32, I32, Or);
            I64AtomicRmwOr: read_modify_write(I64, I64, Or);
            I32AtomicRmw8OrU: read_modify_write(I8, I32, Or);
            I32AtomicRmw16OrU: read_modify_write(I16, I32, Or);
            I64AtomicRmw8OrU: read_modify_write(I8, I64, Or);
            I64AtomicRmw16OrU: read_modify_write(I16, I64, Or);
            I64AtomicRmw32OrU: read_modify_write(I32, I64, Or);
            I32AtomicRmwXor: read_modify_write(I32, I32, Xor);
            I64AtomicRmwXor: read_modify_write(I64, I64, Xor);
            I32AtomicRmw8XorU: read_modify_write(I8, I32, Xor);
            I32AtomicRmw16XorU: read_modify_write(I16, I32, Xor);
            I64AtomicRmw8XorU: read_modify_write(I8, I64, Xor);
            I64AtomicRmw16XorU: read_modify_write(I16, I64, Xor);
            I64AtomicRmw32XorU: read_modify_write(I32, I64, Xor);
            I32AtomicRmwXchg: read_modify_write(I32, I32, Xchg);
            I64AtomicRmwXchg: read_modify_write(I64, I64, Xchg);
            I32AtomicRmw8XchgU: read_modify_write(I8, I32, Xchg);
            I32AtomicRmw16XchgU: read_modify_write(I16, I32, Xchg);
            I64AtomicRmw8XchgU: read_modify_write(I8, I64, Xchg);
            I64AtomicRmw16XchgU: read_modify_write(I16, I64, Xchg);
            I64AtomicRmw32XchgU: read_modify_write(I32, I64, Xchg);
        }
        true
    }

    fn atomic_load(&mut self, memarg: &MemArg, access: Type, ty: Type) {
        let address = self.atomic_address(memarg, access);
        let flags = self.heap_flags();
        let value = self.builder.ins().atomic_load(access, flags, address);
        self.push_extended(value, access, ty);
    }

    fn atomic_store(&mut self, memarg: &MemArg, access: Type, ty: Type) {
        let value = self.pop_reduced(access, ty);
        let address = self.atomic_address(memarg, access);
        let flags = self.heap_flags();
        self.builder.ins().atomic_store(flags, value, address);
    }

    fn read_modify_write(&mut self, memarg: &MemArg, access: Type, ty: Type, op: AtomicRmwOp) {
        let operand = self.pop_reduced(access, ty);
        let address = self.atomic_address(memarg, access);
        let flags = self.heap_flags();
        let old = self.builder.ins().atomic_rmw(access, flags, op, address, operand);
        self.push_extended(old, access, ty);
    }

    fn compare_exchange(&mut self, memarg: &MemArg, access: Type, ty: Type) {
        let replacement = self.pop_reduced(access, ty);
        let expected = self.pop();
        let reduced = self.reduced(expected, access, ty);
        let address = self.atomic_address(memarg, access);
        let flags = self.heap_flags();
        let old = self.builder.ins().atomic_cas(flags, address, reduced, replacement);
        self.push_extended(old, access, ty);
    }

    /// Pops an index and gives the address behind it, which is aligned.
    fn atomic_address(&mut self, memarg: &MemArg, access: Type) -> Value {
        let size = u64::from(access.bytes());
        let (memory, index) = self.index(memarg);
        if size > 1 {
            // The base is aligned to a page, so base and index need not be added first.
            let rest = match memarg.offset % size {
                0 => index,
                rest => self.builder.ins().iadd_imm_u(index, rest as i64),
            };
            let rest = self.builder.ins().band_imm_u(rest, size as i64 - 1);
            self.builder.ins().trapnz(rest, trap_code(TrapKind::UnalignedAtomic));
        }
        let (address, offset) = self.address_at(memory, index, memarg.offset, size);
        self.builder.ins().iadd_imm_u(address, i64::from(offset))
    }

    /// Pops an operand and takes of it what is accessed.
    fn pop_reduced(&mut self, access: Type, ty: Type) -> Value {
        let value = self.pop();
        self.reduced(value, access, ty)
    }

    fn reduced(&mut self, value: Value, access: Type, ty: Type) -> Value {
        if access == ty { value } else { self.builder.ins().ireduce(access, value) }
    }

    fn push_extended(&mut self, value: Value, access: Type, ty: Type) {
        let value = if access == ty { value } else { self.builder.ins().uextend(ty, value) };
        self.push(value);
    }

    fn notify(&mut self, memarg: &MemArg) {
        let count = self.pop();
        let (memory, index) = self.index(memarg);
        let (memory, offset) = (self.number(memory.as_u32()), self.static_offset(memarg));
        self.waiting_builtin(Builtin::memory_notify, &[memory, index, offset, count]);
    }

    fn wait(&mut self, memarg: &MemArg, builtin: Builtin) {
        let [expected, timeout] = self.pop_n();
        let (memory, index) = self.index(memarg);
        let (memory, offset) = (self.number(memory.as_u32()), self.static_offset(memarg));
        self.waiting_builtin(builtin, &[memory, index, offset, expected, timeout]);
    }

    fn static_offset(&mut self, memarg: &MemArg) -> Value {
        self.builder.ins().iconst(types::I64, memarg.offset as i64)
    }

    /// Calls the runtime, traps if it reports an error, pushes the result as an i32.
    fn waiting_builtin(&mut self, builtin: Builtin, args: &[Value]) {
        let result = self.builtin(builtin, args);
        let failed = self.builder.ins().icmp_imm_s(IntCC::SignedLessThan, result, 0);
        self.builder.ins().trapnz(failed, trap_code(TrapKind::Host));
        let result = self.builder.ins().ireduce(types::I32, result);
        self.push(result);
    }
}
