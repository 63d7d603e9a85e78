//! Wasm operators to Cranelift IR, one family of operators a file.
//!
//! The translator keeps wasm's value stack
//! as a stack of SSA values and its control stack as [`control::Frame`]s; locals are the frontend's
//! variables. It relies on the validator having accepted an operator before it sees it. Operators
//! that cannot be reached are only validated.

mod atomic;
mod bulk;
mod call;
mod control;
mod dispatch;
mod emit_call;
mod entities;
mod exception;
mod gc;
mod hint;
mod inline;
mod memory;
mod numeric;
mod reference;
mod simd;
mod table;
mod wide;

use std::sync::atomic::{AtomicBool, Ordering};

use cranelift_codegen::ir::{
    AliasRegion, AliasRegionData, ExceptionTable, Function, GlobalValueData, InstBuilder,
    MemFlagsData, SourceLoc, Type, UserFuncName, Value, types,
};
use cranelift_codegen::isa::TargetFrontendConfig;
use cranelift_entity::PrimaryMap;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use wasmparser::{BinaryReader, Operator, OperatorsReader};

use super::CompileError;
use super::analysis::Analysis;
use super::isa::{Machine, Target};
use super::position::Inlined;
use super::signature::{POINTER, value_type, wasm_signature};
use crate::abi::layout::{self, Layout};
use crate::config::Settings;
use crate::module::index::{DefinedFuncIndex, FuncIndex, TypeIndex};
use crate::module::types::{ObjectLayout, SubType};
use crate::module::{ModuleInfo, limits};
use control::Frame;
use dispatch::Dispatches;
use entities::Entities;
use exception::TryTable;
pub(super) use hint::Hint;
use inline::{Body, Locals};

/// What all functions of a module share.
pub(super) struct Environment<'a> {
    pub(super) module: &'a ModuleInfo,
    pub(super) analysis: &'a Analysis<'a>,
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
        analysis: &'a Analysis<'a>,
        settings: &'a Settings,
        target: &Target,
    ) -> Environment<'a> {
        Environment {
            module,
            analysis,
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
    locals: Locals,
    dispatches: Dispatches,
    /// Positions of the last function in bodies that it took in.
    pub(super) inlined: Inlined,
}

/// Translates a function's body, which is valid, into `func`.
///
/// # Errors
/// When the body is over a limit.
pub(super) fn function(
    env: &Environment<'_>,
    defined: DefinedFuncIndex,
    func: &mut Function,
    buffers: &mut Buffers,
) -> Result<(), CompileError> {
    let result = translate(env, defined, func, buffers);
    if result.is_err() {
        // The builder is only reusable after a complete function.
        *buffers = Buffers::default();
    }
    result
}

fn translate(
    env: &Environment<'_>,
    defined: DefinedFuncIndex,
    func: &mut Function,
    buffers: &mut Buffers,
) -> Result<(), CompileError> {
    let index = env.module.func_index(defined);
    let ty = &env.module.signatures[env.module.functions[index].signature];
    func.signature = wasm_signature(ty);
    func.name = UserFuncName::user(0, index.as_u32());
    limit_stack(func);
    buffers.stack.clear();
    buffers.control.clear();
    buffers.entities.clear();
    buffers.locals.clear();
    buffers.dispatches.clear();
    buffers.inlined.clear();
    let mut translator = Translator::new(env, index, func, buffers);
    let body = env.analysis.body(defined);
    translator.most_values = limits::VALUES + limits::VALUES_PER_BYTE * body.as_bytes().len();
    translator.begin(ty.params.len(), ty.results.len());
    translator.translate_body(body.get_binary_reader())?;
    translator.builder.finalize(env.frontend);
    check_handled(func, index)
}

/// Refuses what passes too much to handlers, which is known once locals have become values.
fn check_handled(func: &Function, index: FuncIndex) -> Result<(), CompileError> {
    let pool = &func.dfg.value_lists;
    // The last branch of a table is the one that is taken when nothing is thrown.
    let handlers = |table: ExceptionTable| match func.dfg.exception_tables[table].all_branches() {
        [handlers @ .., _] => handlers.iter().map(|handler| handler.len(pool)).sum(),
        [] => 0,
    };
    // Not all tables: those of calls that turned out to be unreachable are left empty.
    let calls = func.layout.blocks().filter_map(|block| func.layout.last_inst(block));
    let tables = calls.filter_map(|call| func.dfg.insts[call].exception_table());
    let passed: usize = tables.map(handlers).sum();
    if passed > limits::HANDLED_VALUES {
        return Err(CompileError::TooComplex {
            func: index.to_string(),
            what: "values passed to handlers",
            limit: limits::HANDLED_VALUES,
        });
    }
    Ok(())
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
    locals: &'f mut Locals,
    dispatches: &'f mut Dispatches,
    inlined: &'f mut Inlined,
    /// What is being translated: the function, or a body that it takes in.
    body: Body,
    /// Wasm's value stack.
    stack: &'f mut Vec<Value>,
    /// Wasm's control stack; the first frame is the function's body.
    control: &'f mut Vec<Frame>,
    /// Whether the next operator can be reached.
    reachable: bool,
    /// The function's context.
    ctx: Value,
    /// The `try_table`s on the control stack.
    try_tables: Vec<TryTable>,
    /// What is known of the operator's operands.
    hint: Hint,
    /// Values that the function may have before it counts as too complex.
    most_values: usize,
}

impl<'a, 'f> Translator<'a, 'f> {
    fn new(
        env: &'a Environment<'a>,
        index: FuncIndex,
        func: &'f mut Function,
        buffers: &'f mut Buffers,
    ) -> Self {
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
            locals: &mut buffers.locals,
            dispatches: &mut buffers.dispatches,
            inlined: &mut buffers.inlined,
            body: Body::outermost(index),
            stack: &mut buffers.stack,
            control: &mut buffers.control,
            reachable: true,
            ctx,
            try_tables: Vec::new(),
            hint: Hint::default(),
            most_values: usize::MAX,
        }
    }

    /// Declares the parameters as locals and opens the body's frame.
    fn begin(&mut self, params: usize, results: usize) {
        for n in 1..=params {
            let Some(block) = self.builder.current_block() else { break };
            let value = self.builder.block_params(block)[n];
            let ty = self.builder.func.dfg.value_type(value);
            self.add_local(ty, value);
        }
        self.control.push(Frame::body(results));
    }

    /// Translates a body whose frame is open and whose parameters are its first locals.
    fn translate_body(&mut self, mut reader: BinaryReader<'_>) -> Result<(), CompileError> {
        self.declare_locals(&mut reader)?;
        let mut operators = OperatorsReader::new(reader);
        while !operators.eof() {
            let offset = operators.original_position();
            let operator = operators.read()?;
            self.hint = self.env.analysis.hint(offset as u32);
            self.operator(&operator, offset)?;
            self.check_complexity()?;
        }
        operators.finish()?;
        Ok(())
    }

    /// Reads the declarations of locals. All begin as zero; those without a default value are set
    /// before they are read, which the validator checked.
    fn declare_locals(&mut self, reader: &mut BinaryReader<'_>) -> Result<(), CompileError> {
        for _ in 0..reader.read_var_u32()? {
            let (count, ty): (u32, _) = (reader.read()?, reader.read()?);
            let ty = value_type(self.env.module.val_type(ty)?);
            if count > 0 {
                let zero = self.zero(ty);
                for _ in 0..count {
                    self.add_local(ty, zero);
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
        self.dispatches.watch(op);
        if !self.reachable {
            self.unreachable_operator(op);
            return Ok(());
        }
        if let Operator::Call { function_index } = *op
            && self.env.analysis.plan.replaces(offset as u32)
        {
            return self.inline(FuncIndex::from_u32(function_index), offset as u32);
        }
        let position = self.position(offset as u32);
        self.builder.set_srcloc(SourceLoc::new(position));
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
    fn check_complexity(&self) -> Result<(), CompileError> {
        let (what, limit) = if self.builder.func.dfg.num_values() > self.most_values {
            ("values (most of them locals that differ between blocks)", self.most_values)
        } else if self.body.handled > limits::HANDLERS {
            ("handlers around its calls", limits::HANDLERS)
        } else if self.control.len() > self.body.frame + limits::NESTING {
            ("blocks inside each other", limits::NESTING)
        } else {
            return Ok(());
        };
        Err(CompileError::TooComplex { func: self.body.func.to_string(), what, limit })
    }

    /// Locals and values that only move.
    fn local(&mut self, op: &Operator<'_>) -> bool {
        match *op {
            Operator::Nop => {}
            Operator::Drop => {
                self.pop();
            }
            Operator::LocalGet { local_index } => {
                let value = {
                    let variable = self.variable(local_index);
                    self.builder.use_var(variable)
                };
                self.push(value);
            }
            Operator::LocalSet { local_index } => {
                let value = self.pop();
                let variable = self.variable(local_index);
                self.builder.def_var(variable, value);
            }
            Operator::LocalTee { local_index } => {
                let value = self.peek();
                let variable = self.variable(local_index);
                self.builder.def_var(variable, value);
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
