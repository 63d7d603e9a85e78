//! The two doors between host and wasm code, one pair for each distinct signature.
//!
//! What they do is part of the treaty: see [`abi`](crate::abi).

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    BlockArg, BlockCall, ExceptionTableData, ExceptionTableItem, Function, InstBuilder,
    MemFlagsData, StackSlotData, StackSlotKind, UserFuncName, Value, types,
};
use cranelift_codegen::isa::TargetIsa;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

use super::signature::{self, POINTER, machine_type};
use super::trap::trap_code;
use crate::abi::layout::{VALUE_SIZE, host_record, host_status, store_record};
use crate::abi::trap::TrapKind;
use crate::module::types::{MachineType, Signature};

/// The records are always mapped and aligned.
const TRUSTED: MemFlagsData = MemFlagsData::trusted();
/// Value slots are always mapped; the host's need not be aligned as vectors would want it.
const SLOT: MemFlagsData = MemFlagsData::new().with_notrap();

/// Host to wasm.
pub(super) fn entry(
    ty: &Signature,
    isa: &dyn TargetIsa,
    func: &mut Function,
    context: &mut FunctionBuilderContext,
) {
    func.signature = signature::entry_signature();
    func.name = UserFuncName::user(1, 0);
    let mut builder = FunctionBuilder::new(func, context);
    let start = builder.create_block();
    let calling = builder.create_block();
    let returned = builder.create_block();
    let trapped = builder.create_block();
    builder.append_block_params_for_function_params(start);
    builder.switch_to_block(start);
    let params = builder.block_params(start);
    let (ctx, code, values, store) = (params[0], params[1], params[2], params[3]);

    // Where a trap continues: this frame, at the landing pad of the call below.
    let stack_pointer = builder.ins().get_stack_pointer(POINTER);
    let frame_pointer = builder.ins().get_frame_pointer(POINTER);
    let handler = builder.ins().get_exception_handler_address(POINTER, calling, 0);
    for (value, offset) in [
        (stack_pointer, store_record::ENTRY_SP),
        (frame_pointer, store_record::ENTRY_FP),
        (handler, store_record::ENTRY_HANDLER),
    ] {
        builder.ins().store(TRUSTED, value, store, offset as i32);
    }

    let mut args = vec![ctx];
    args.extend(load_values(&mut builder, &ty.params, values));
    // Apart, because nothing may refer to an entry block.
    builder.ins().jump(calling, &[]);
    builder.switch_to_block(calling);
    let sig = builder.import_signature(signature::wasm_signature(ty));
    let results: Vec<_> = (0..ty.results.len() as u32).map(BlockArg::TryCallRet).collect();
    for &ty in &ty.results {
        builder.append_block_param(returned, machine_type(ty));
    }
    let pool = &mut builder.func.dfg.value_lists;
    let normal = BlockCall::new(returned, results, pool);
    let landing = BlockCall::new(trapped, [], pool);
    let table = ExceptionTableData::new(sig, normal, [ExceptionTableItem::Default(landing)]);
    let table = builder.func.dfg.exception_tables.push(table);
    builder.ins().try_call_indirect(code, &args, table);

    builder.switch_to_block(returned);
    let results = builder.block_params(returned).to_vec();
    store_values(&mut builder, &results, values);
    let ok = builder.ins().iconst(types::I32, 0);
    builder.ins().return_(&[ok]);

    builder.switch_to_block(trapped);
    let failed = builder.ins().iconst(types::I32, 1);
    builder.ins().return_(&[failed]);
    builder.seal_all_blocks();
    builder.finalize(isa.frontend_config());
}

/// Wasm to host.
pub(super) fn exit(
    ty: &Signature,
    isa: &dyn TargetIsa,
    func: &mut Function,
    context: &mut FunctionBuilderContext,
) {
    func.signature = signature::wasm_signature(ty);
    func.name = UserFuncName::user(2, 0);
    let mut builder = FunctionBuilder::new(func, context);
    let start = builder.create_block();
    builder.append_block_params_for_function_params(start);
    builder.switch_to_block(start);
    builder.seal_block(start);
    let params = builder.block_params(start).to_vec();
    let (record, params) = (params[0], &params[1..]);

    let slots = ty.params.len().max(ty.results.len()) as u32;
    let slots = StackSlotData::new(StackSlotKind::ExplicitSlot, slots * VALUE_SIZE, 4);
    let slots = builder.create_sized_stack_slot(slots);
    let values = builder.ins().stack_addr(POINTER, slots, 0);
    store_values(&mut builder, params, values);

    let store = builder.ins().load(POINTER, TRUSTED, record, host_record::STORE as i32);
    let frame_pointer = builder.ins().get_frame_pointer(POINTER);
    builder.ins().store(TRUSTED, frame_pointer, store, store_record::LAST_EXIT_FP as i32);

    let sig = builder.import_signature(signature::host_signature());
    let host = builder.ins().load(POINTER, TRUSTED, record, host_record::CALL as i32);
    let call = builder.ins().call_indirect(sig, host, &[record, values]);
    let status = builder.inst_results(call)[0];
    let returned = builder.create_block();
    let failed = builder.create_block();
    builder.set_cold_block(failed);
    builder.ins().brif(status, failed, &[], returned, &[]);
    builder.seal_all_blocks();

    builder.switch_to_block(failed);
    let raised = builder.ins().icmp_imm_u(IntCC::Equal, status, i64::from(host_status::RAISED));
    builder.ins().trapz(raised, trap_code(TrapKind::Host));
    let sig = builder.import_signature(signature::raise_signature());
    let raise = builder.ins().load(POINTER, TRUSTED, store, store_record::RAISE as i32);
    builder.ins().call_indirect(sig, raise, &[store]);
    // It does not return.
    builder.ins().trap(trap_code(TrapKind::Host));

    builder.switch_to_block(returned);
    let results = load_values(&mut builder, &ty.results, values);
    builder.ins().return_(&results);
    builder.finalize(isa.frontend_config());
}

fn load_values(
    builder: &mut FunctionBuilder<'_>,
    types: &[MachineType],
    from: Value,
) -> Vec<Value> {
    let offsets = (0..).step_by(VALUE_SIZE as usize);
    let load = |(&ty, offset): (&MachineType, i32)| {
        builder.ins().load(machine_type(ty), SLOT, from, offset)
    };
    types.iter().zip(offsets).map(load).collect()
}

fn store_values(builder: &mut FunctionBuilder<'_>, values: &[Value], to: Value) {
    for (&value, offset) in values.iter().zip((0..).step_by(VALUE_SIZE as usize)) {
        builder.ins().store(SLOT, value, to, offset);
    }
}
