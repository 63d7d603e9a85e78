//! Allocation: from the run of free cells behind the size class's cursor, else by the runtime.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value, types};

use super::{Access, Translator};
use crate::abi::builtins::Builtin;
use crate::abi::gc::{ObjectKind, SIZE_CLASSES, cursor, header, size_class};
use crate::abi::trap::TrapKind;
use crate::compile::trap::trap_code;
use crate::module::index::TypeIndex;

impl Translator<'_, '_> {
    /// The engine's number of a type.
    pub(super) fn type_id(&mut self, ty: TypeIndex) -> Value {
        let offset = self.env.layout.type_id(ty.as_u32());
        self.load_constant(types::I32, self.ctx, offset)
    }

    /// Allocates an object of `bytes`, header included: the reference and the address. The header
    /// is written, everything else zero.
    pub(super) fn allocate(
        &mut self,
        kind: ObjectKind,
        scan: bool,
        ty: TypeIndex,
        bytes: u64,
    ) -> (Value, Value) {
        let kind = kind as u32 | if scan { header::SCAN } else { 0 };
        let reference = match size_class(bytes) {
            Some(class) => self.allocate_cell(kind, ty, class),
            None => self.allocate_by_runtime(kind, ty, bytes),
        };
        (reference, self.object_address(reference))
    }

    fn allocate_by_runtime(&mut self, kind: u32, ty: TypeIndex, bytes: u64) -> Value {
        let kind = self.number(kind);
        let type_id = self.type_id(ty);
        let bytes = self.builder.ins().iconst(types::I64, bytes as i64);
        self.fallible_builtin(Builtin::gc_allocate, &[kind, type_id, bytes])
    }

    /// Calls the runtime for a new object and traps if it has none.
    pub(super) fn fallible_builtin(&mut self, builtin: Builtin, args: &[Value]) -> Value {
        let object = self.builtin(builtin, args);
        self.builder.ins().trapz(object, trap_code(TrapKind::Host));
        object
    }

    fn allocate_cell(&mut self, kind: u32, ty: TypeIndex, class: usize) -> Value {
        let size = SIZE_CLASSES[class];
        let place = cursor::TABLE + (class as u32 * cursor::SIZE) as i32;
        let (next_place, limit_place) = (place + cursor::NEXT as i32, place + cursor::LIMIT as i32);
        let flags = MemFlagsData::trusted().with_alias_region(Some(self.regions.cursors));
        let base = self.heap_base();
        let next = self.builder.ins().load(types::I32, flags, base, next_place);
        let limit = self.builder.ins().load(types::I32, flags, base, limit_place);
        // No cell ends at 2^32, so this does not wrap.
        let end = self.builder.ins().iadd_imm_u(next, i64::from(size));
        let fits = self.builder.ins().icmp(IntCC::UnsignedLessThanOrEqual, end, limit);
        let inline = self.builder.create_block();
        let runtime = self.builder.create_block();
        let done = self.builder.create_block();
        let reference = self.builder.append_block_param(done, types::I32);
        self.builder.ins().brif(fits, inline, &[], runtime, &[]);
        self.builder.seal_block(inline);
        self.builder.seal_block(runtime);

        self.builder.set_cold_block(runtime);
        self.builder.switch_to_block(runtime);
        let object = self.allocate_by_runtime(kind, ty, size.into());
        self.builder.ins().jump(done, &[object.into()]);

        self.builder.switch_to_block(inline);
        self.builder.ins().store(flags, end, base, next_place);
        self.write_header(kind, ty, next);
        self.builder.ins().jump(done, &[next.into()]);

        self.builder.seal_block(done);
        self.builder.switch_to_block(done);
        reference
    }

    fn write_header(&mut self, kind: u32, ty: TypeIndex, reference: Value) {
        let address = self.object_address(reference);
        let flags = self.header_flags(Access::Checked);
        let kind = self.number(kind);
        let type_id = self.type_id(ty);
        self.builder.ins().store(flags, kind, address, header::KIND as i32);
        self.builder.ins().store(flags, type_id, address, header::TYPE_ID as i32);
    }
}
