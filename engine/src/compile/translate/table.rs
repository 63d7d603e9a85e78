//! Tables.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value, types};
use wasmparser::Operator;

use super::Translator;
use crate::abi::builtins::Builtin;
use crate::abi::layout::{FUNC_ELEMENT_SIZE, REF_ELEMENT_SIZE, table_def};
use crate::abi::trap::TrapKind;
use crate::compile::signature::POINTER;
use crate::compile::trap::trap_code;
use crate::module::index::TableIndex;
use crate::module::types::TableType;

impl Translator<'_, '_> {
    /// Translates an operator of this family; `false` if it is of another.
    pub(super) fn table(&mut self, op: &Operator<'_>) -> bool {
        match *op {
            Operator::TableGet { table } => {
                let index = self.pop();
                let value = self.table_element(TableIndex::from_u32(table), index);
                self.push(value);
            }
            Operator::TableSet { table } => {
                let [index, value] = self.pop_n();
                let address = self.element_address(TableIndex::from_u32(table), index);
                let flags = self.element_flags();
                self.builder.ins().store(flags, value, address, 0);
            }
            Operator::TableSize { table } => {
                let table = TableIndex::from_u32(table);
                let length = self.table_length(table);
                let length = self.narrow(length, self.env.module.tables[table].table64);
                self.push(length);
            }
            _ => return self.bulk_table(op),
        }
        true
    }

    fn bulk_table(&mut self, op: &Operator<'_>) -> bool {
        match *op {
            Operator::TableGrow { table } => self.table_grow(table),
            Operator::TableFill { table } => {
                let [start, value, len] = self.pop_n();
                let (start, len) = (self.table_offset(table, start), self.table_offset(table, len));
                let value = self.raw_element(value);
                let table = self.number(table);
                self.checked_builtin(Builtin::table_fill, &[table, start, value, len]);
            }
            Operator::TableCopy { dst_table, src_table } => {
                let [dst, src, len] = self.pop_n();
                let dst = self.table_offset(dst_table, dst);
                let src = self.table_offset(src_table, src);
                // The length is of the narrower index type.
                let wide = self.is_table64(dst_table) && self.is_table64(src_table);
                let len = self.widen(len, wide);
                let (dst_table, src_table) = (self.number(dst_table), self.number(src_table));
                let args = [dst_table, dst, src_table, src, len];
                self.checked_builtin(Builtin::table_copy, &args);
            }
            Operator::TableInit { elem_index, table } => {
                let [dst, src, len] = self.pop_n();
                let dst = self.table_offset(table, dst);
                let (table, elem) = (self.number(table), self.number(elem_index));
                self.checked_builtin(Builtin::table_init, &[table, elem, dst, src, len]);
            }
            Operator::ElemDrop { elem_index } => {
                let elem = self.number(elem_index);
                self.builtin(Builtin::elem_drop, &[elem]);
            }
            _ => return false,
        }
        true
    }

    fn table_grow(&mut self, table: u32) {
        let [init, delta] = self.pop_n();
        let init = self.raw_element(init);
        let delta = self.table_offset(table, delta);
        let number = self.number(table);
        let previous = self.builtin(Builtin::table_grow, &[number, init, delta]);
        let previous = self.narrow(previous, self.is_table64(table));
        self.push(previous);
    }

    fn table_type(&self, table: u32) -> &TableType {
        &self.env.module.tables[TableIndex::from_u32(table)]
    }

    fn is_table64(&self, table: u32) -> bool {
        self.table_type(table).table64
    }

    fn table_offset(&mut self, table: u32, value: Value) -> Value {
        self.widen(value, self.is_table64(table))
    }

    /// An element as the runtime takes it: a pointer, or a handle zero-extended.
    fn raw_element(&mut self, value: Value) -> Value {
        let wide = self.builder.func.dfg.value_type(value) == POINTER;
        self.widen(value, wide)
    }

    /// Loads an element; traps if there is none.
    pub(super) fn table_element(&mut self, table: TableIndex, index: Value) -> Value {
        let ty = element_type(&self.env.module.tables[table]);
        let address = self.element_address(table, index);
        let flags = self.element_flags();
        self.builder.ins().load(ty, flags, address, 0)
    }

    fn element_flags(&self) -> MemFlagsData {
        MemFlagsData::trusted().with_alias_region(Some(self.regions.table))
    }

    /// The definition of a table: a pointer and an offset to it.
    fn table_def(&mut self, table: TableIndex) -> (Value, u32) {
        let imported = self.env.module.imported.tables;
        match table.as_u32().checked_sub(imported) {
            Some(defined) => (self.ctx, self.env.layout.defined_table(defined)),
            None => {
                let offset = self.env.layout.imported_table(table.as_u32());
                (self.load_constant(POINTER, self.ctx, offset), 0)
            }
        }
    }

    /// Whether a table keeps its size, and so its place, for its whole life.
    fn fixed_size(&self, table: TableIndex) -> Option<u64> {
        self.env.analysis.table(table).size
    }

    /// The current number of elements as an i64.
    fn table_length(&mut self, table: TableIndex) -> Value {
        if let Some(size) = self.fixed_size(table) {
            return self.builder.ins().iconst(types::I64, size as i64);
        }
        let (def, offset) = self.table_def(table);
        let flags = self.ctx_flags();
        self.builder.ins().load(types::I64, flags, def, (offset + table_def::LENGTH) as i32)
    }

    /// The address of an element; traps if there is none.
    fn element_address(&mut self, table: TableIndex, index: Value) -> Value {
        let ty = self.env.module.tables[table];
        let index = self.widen(index, ty.table64);
        let length = self.table_length(table);
        let outside = self.builder.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, index, length);
        self.builder.ins().trapnz(outside, trap_code(TrapKind::TableOutOfBounds));
        let (def, offset) = self.table_def(table);
        let offset = offset + table_def::BASE;
        let base = if self.fixed_size(table).is_some() {
            self.load_constant(POINTER, def, offset)
        } else {
            let flags = self.ctx_flags();
            self.builder.ins().load(POINTER, flags, def, offset as i32)
        };
        let scaled = self.builder.ins().ishl_imm_u(index, i64::from(element_shift(&ty)));
        let address = self.builder.ins().iadd(base, scaled);
        // A processor that guesses the check to pass must not read past the table either.
        self.builder.ins().select_spectre_guard(outside, base, address)
    }

    /// An index or length as i64.
    pub(super) fn widen(&mut self, value: Value, wide: bool) -> Value {
        if wide { value } else { self.builder.ins().uextend(types::I64, value) }
    }

    /// An index or length from i64.
    pub(super) fn narrow(&mut self, value: Value, wide: bool) -> Value {
        if wide { value } else { self.builder.ins().ireduce(types::I32, value) }
    }
}

fn element_type(ty: &TableType) -> Type {
    if ty.element.heap.is_func() { POINTER } else { types::I32 }
}

/// Binary logarithm of an element's size.
fn element_shift(ty: &TableType) -> u32 {
    let size = if ty.element.heap.is_func() { FUNC_ELEMENT_SIZE } else { REF_ELEMENT_SIZE };
    size.trailing_zeros()
}
