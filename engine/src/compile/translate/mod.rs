//! Wasm operators to Cranelift IR, one family of operators a file.
//!
//! A function is translated in the pass that validates it. The translator keeps wasm's value stack
//! as a stack of SSA values and its control stack as [`control::Frame`]s; locals are the frontend's
//! variables. It relies on the validator having accepted an operator before it sees it. Operators
//! that cannot be reached are only validated.

mod atomic;
mod call;
mod control;
mod emit_call;
mod entities;
mod exception;
mod gc;
mod memory;
mod numeric;
mod reference;
mod simd;
mod table;
mod wide;

use std::sync::atomic::{AtomicBool, Ordering};

use cranelift_codegen::ir::{
    AliasRegion, AliasRegionData, Function, GlobalValueData, InstBuilder, MemFlagsData, SourceLoc,
    Type, UserFuncName, Value, types,
};
use cranelift_codegen::isa::TargetFrontendConfig;
use cranelift_entity::PrimaryMap;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};
use wasmparser::{BinaryReader, FuncValidator, Operator, OperatorsReader, ValidatorResources};

use super::CompileError;
use super::isa::{Machine, Target};
use super::signature::{POINTER, value_type, wasm_signature};
use crate::abi::layout::{self, Layout};
use crate::config::Settings;
use crate::module::index::{FuncIndex, TypeIndex};
use crate::module::types::{ObjectLayout, SubType};
use crate::module::{ModuleInfo, limits};
use control::Frame;
use entities::Entities;

/// What all functions of a module share.
pub(super) struct Environment<'a> {
    pub(super) module: &'a ModuleInfo,
    pub(super) layout: Layout,
    pub(super) settings: &'a Settings,
    pub(super) frontend: TargetFrontendConfig,
    pub(super) machine: Machine,
    /// How objects of each type lie in the heap.
    objects: PrimaryMap<TypeIndex, Option<ObjectLayout>>,
    /// Whether code that was translated so far uses the heap of objects.
    uses_objects: AtomicBool,
}

impl<'a> Environment<'a> {
    pub(super) fn new(
        module: &'a ModuleInfo,
        settings: &'a Settings,
        target: &Target,
    ) -> Environment<'a> {
        Environment {
            module,
            layout: module.layout(),
            settings,
            frontend: target.isa.frontend_config(),
            machine: target.machine,
            objects: module.types.values().map(SubType::object_layout).collect(),
            uses_objects: AtomicBool::new(false),
        }
    }

    /// Whether the code uses the heap of objects, once all of it is translated.
    pub(super) fn uses_objects(&self) -> bool {
        self.uses_objects.load(Ordering::Relaxed)
    }
}

/// Allocations that are reused from one function to the next.
#[derive(Default)]
pub(super) struct Buffers {
    builder: FunctionBuilderContext,
    stack: Vec<Value>,
    control: Vec<Frame>,
    entities: Entities,
}

/// Validates a function body and translates it into `func`.
///
/// # Errors
/// When the body is not valid.
pub(super) fn function(
    env: &Environment<'_>,
    index: FuncIndex,
    reader: BinaryReader<'_>,
    validator: &mut FuncValidator<ValidatorResources>,
    func: &mut Function,
    buffers: &mut Buffers,
) -> Result<(), CompileError> {
    let result = translate(env, index, reader, validator, func, buffers);
    if result.is_err() {
        // The builder is only reusable after a complete function.
        *buffers = Buffers::default();
    }
    result
}

fn translate(
    env: &Environment<'_>,
    index: FuncIndex,
    mut reader: BinaryReader<'_>,
    validator: &mut FuncValidator<ValidatorResources>,
    func: &mut Function,
    buffers: &mut Buffers,
) -> Result<(), CompileError> {
    let ty = &env.module.signatures[env.module.functions[index].signature];
    func.signature = wasm_signature(ty);
    func.name = UserFuncName::user(0, index.as_u32());
    limit_stack(func);
    buffers.stack.clear();
    buffers.control.clear();
    buffers.entities.clear();
    let mut translator = Translator::new(env, func, buffers);
    translator.begin(ty.params.len(), ty.results.len());
    translator.declare_locals(&mut reader, validator)?;
    let mut operators = OperatorsReader::new(reader);
    while !operators.eof() {
        let offset = operators.original_position();
        let operator = operators.read()?;
        translator.operand = cast_operand(&operator, validator);
        translator.never_null = reference::is_never_null(&operator, validator);
        validator.op(offset, &operator)?;
        translator.operator(&operator, offset)?;
        translator.check_complexity(index)?;
    }
    operators.finish()?;
    translator.builder.finalize(env.frontend);
    Ok(())
}

/// The type of the reference that an operator casts or tests, before the validator pops it.
fn cast_operand(
    op: &Operator<'_>,
    validator: &FuncValidator<ValidatorResources>,
) -> Option<wasmparser::ValType> {
    match op {
        Operator::RefTestNonNull { .. }
        | Operator::RefTestNullable { .. }
        | Operator::RefCastNonNull { .. }
        | Operator::RefCastNullable { .. } => validator.get_operand_type(0).flatten(),
        _ => None,
    }
}

/// Every prologue compares the stack pointer with the limit in the context.
fn limit_stack(func: &mut Function) {
    let ctx = func.create_global_value(GlobalValueData::VMContext);
    let flags = func.dfg.mem_flags.insert_unchecked(MemFlagsData::trusted().with_readonly());
    func.stack_limit = Some(func.create_global_value(GlobalValueData::Load {
        base: ctx,
        offset: (layout::CTX_STACK_LIMIT as i32).into(),
        global_type: POINTER,
        flags,
    }));
}

/// Memory that accesses of different kinds never share.
struct Regions {
    /// Linear memories.
    heap: AliasRegion,
    /// Elements of tables.
    table: AliasRegion,
    /// Contexts and what they point to, globals among it.
    ctx: AliasRegion,
    /// Fields and elements of objects.
    objects: AliasRegion,
    /// Headers and lengths of objects.
    headers: AliasRegion,
    /// Where the next objects are allocated.
    cursors: AliasRegion,
}

impl Regions {
    fn new(func: &mut Function) -> Regions {
        let mut region = |user_id, description: &'static str| {
            func.dfg
                .alias_regions
                .insert(AliasRegionData { user_id, description: description.into() })
        };
        Regions {
            heap: region(0, "heap"),
            table: region(1, "table"),
            ctx: region(2, "ctx"),
            objects: region(3, "objects"),
            headers: region(4, "headers"),
            cursors: region(5, "cursors"),
        }
    }
}

/// The state of a translation.
struct Translator<'a, 'f> {
    env: &'a Environment<'a>,
    builder: FunctionBuilder<'f>,
    regions: Regions,
    entities: &'f mut Entities,
    /// Wasm's value stack.
    stack: &'f mut Vec<Value>,
    /// Wasm's control stack; the first frame is the function's body.
    control: &'f mut Vec<Frame>,
    /// Whether the next operator can be reached.
    reachable: bool,
    /// Whether the reference that the operator takes is known not to be null.
    never_null: bool,
    /// The function's context.
    ctx: Value,
    /// The places of the `try_table`s on the control stack.
    try_tables: Vec<usize>,
    /// Values that branches and calls have passed so far, and handlers that calls have.
    passed: usize,
    /// The type of what the operator casts or tests.
    operand: Option<wasmparser::ValType>,
}

impl<'a, 'f> Translator<'a, 'f> {
    fn new(env: &'a Environment<'a>, func: &'f mut Function, buffers: &'f mut Buffers) -> Self {
        let regions = Regions::new(func);
        let mut builder = FunctionBuilder::new(func, &mut buffers.builder);
        let start = builder.create_block();
        builder.append_block_params_for_function_params(start);
        builder.switch_to_block(start);
        builder.seal_block(start);
        let ctx = builder.block_params(start)[0];
        Translator {
            env,
            builder,
            regions,
            entities: &mut buffers.entities,
            stack: &mut buffers.stack,
            control: &mut buffers.control,
            reachable: true,
            never_null: false,
            ctx,
            try_tables: Vec::new(),
            passed: 0,
            operand: None,
        }
    }

    /// Declares the parameters as locals and opens the body's frame.
    fn begin(&mut self, params: usize, results: usize) {
        for n in 1..=params {
            let Some(block) = self.builder.current_block() else { break };
            let value = self.builder.block_params(block)[n];
            let ty = self.builder.func.dfg.value_type(value);
            let local = self.builder.declare_var(ty);
            self.builder.def_var(local, value);
        }
        self.control.push(Frame::body(results));
    }

    /// Reads the declarations of locals. All begin as zero; those without a default value are set
    /// before they are read, which the validator checks.
    fn declare_locals(
        &mut self,
        reader: &mut BinaryReader<'_>,
        validator: &mut FuncValidator<ValidatorResources>,
    ) -> Result<(), CompileError> {
        for _ in 0..reader.read_var_u32()? {
            let offset = reader.original_position();
            let (count, ty) = (reader.read()?, reader.read()?);
            validator.define_locals(offset, count, ty)?;
            let ty = value_type(self.env.module.val_type(ty)?);
            if count > 0 {
                let zero = self.zero(ty);
                for _ in 0..count {
                    let local = self.builder.declare_var(ty);
                    self.builder.def_var(local, zero);
                }
            }
        }
        Ok(())
    }

    fn zero(&mut self, ty: Type) -> Value {
        match ty {
            types::F32 => self.builder.ins().f32const(0.0),
            types::F64 => self.builder.ins().f64const(0.0),
            ty if ty.is_vector() => self.vector_constant(ty, [0; 16]),
            ty => self.builder.ins().iconst(ty, 0),
        }
    }

    /// Translates one operator, whose first byte is at `offset` in the module.
    fn operator(&mut self, op: &Operator<'_>, offset: u64) -> Result<(), CompileError> {
        if !self.reachable {
            self.unreachable_operator(op);
            return Ok(());
        }
        self.builder.set_srcloc(SourceLoc::new(offset as u32));
        let known = self.numeric(op)
            || self.local(op)
            || self.memory_access(op)
            || self.control(op)?
            || self.exception(op)?
            || self.call(op)
            || self.memory(op)
            || self.atomic(op)
            || self.reference(op)?
            || self.table(op)
            || self.wide_arithmetic(op)
            || self.simd(op)
            || self.gc(op)?;
        if known {
            return Ok(());
        }
        let operator = format!("{op:?}");
        let operator = operator.split([' ', '{']).next().unwrap_or_default().to_string();
        Err(CompileError::Operator { operator, offset })
    }

    /// Refuses what is valid but only made to be expensive.
    fn check_complexity(&self, index: FuncIndex) -> Result<(), CompileError> {
        let (what, limit) = if self.passed > limits::PASSED_VALUES {
            (
                "values that its branches and calls pass, and handlers of its calls",
                limits::PASSED_VALUES,
            )
        } else if self.control.len() > limits::NESTING {
            ("blocks inside each other", limits::NESTING)
        } else {
            return Ok(());
        };
        Err(CompileError::TooComplex { func: index.to_string(), what, limit })
    }

    /// Locals and values that only move.
    fn local(&mut self, op: &Operator<'_>) -> bool {
        match *op {
            Operator::Nop => {}
            Operator::Drop => {
                self.pop();
            }
            Operator::LocalGet { local_index } => {
                let value = self.builder.use_var(Variable::from_u32(local_index));
                self.push(value);
            }
            Operator::LocalSet { local_index } => {
                let value = self.pop();
                self.builder.def_var(Variable::from_u32(local_index), value);
            }
            Operator::LocalTee { local_index } => {
                let value = self.peek();
                self.builder.def_var(Variable::from_u32(local_index), value);
            }
            Operator::Select | Operator::TypedSelect { .. } => {
                let [if_true, if_false, condition] = self.pop_n();
                let value = self.builder.ins().select(condition, if_true, if_false);
                self.push(value);
            }
            _ => return false,
        }
        true
    }

    fn push(&mut self, value: Value) {
        self.stack.push(value);
    }

    /// The validator has proved that there is one.
    fn pop(&mut self) -> Value {
        let [value] = self.pop_n();
        value
    }

    /// Operands of an operator, the first pushed first.
    fn pop_n<const N: usize>(&mut self) -> [Value; N] {
        let at = self.stack.len() - N;
        let values = std::array::from_fn(|n| self.stack[at + n]);
        self.stack.truncate(at);
        values
    }

    fn peek(&self) -> Value {
        self.stack[self.stack.len() - 1]
    }

    /// Flags for what lies in a context or is reached from it: always mapped and aligned.
    fn ctx_flags(&self) -> MemFlagsData {
        MemFlagsData::trusted().with_alias_region(Some(self.regions.ctx))
    }

    /// Loads what does not change while an instance lives.
    fn load_constant(&mut self, ty: Type, from: Value, offset: u32) -> Value {
        let flags = self.ctx_flags().with_readonly().with_can_move();
        self.builder.ins().load(ty, flags, from, offset as i32)
    }
}
