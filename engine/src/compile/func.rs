//! One function at a time: translation, code generation, and what is kept of it.

use cranelift_codegen::binemit::{Addend, Reloc};
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{ExternalName, Function};
use cranelift_codegen::isa::TargetIsa;
use cranelift_codegen::{
    CodegenError, CompiledCode, Context, FinalizedMachReloc, FinalizedRelocTarget,
};
use cranelift_frontend::FunctionBuilderContext;

use super::catch::{self, CatchSite};
use super::placement::Placement;
use super::position::{Inlined, InlinedPosition, Kept, NO_POSITION};
use super::translate::{self, Buffers, Environment};
use super::trap::trap_kind;
use super::{CompileError, trampoline};
use crate::module::index::{DefinedFuncIndex, SigIndex};

/// A piece of the text to make.
pub(super) enum Job {
    /// A function of the module.
    Function(DefinedFuncIndex),
    /// The entry trampoline of a signature.
    Entry(SigIndex),
    /// The exit trampoline of a signature.
    Exit(SigIndex),
}

/// Machine code with its tables. Offsets are from its start, in bytes.
#[derive(Default)]
pub(super) struct Code {
    pub(super) bytes: Box<[u8]>,
    pub(super) placement: Placement,
    pub(super) calls: Box<[Call]>,
    /// Trapping instructions and their traps' numbers.
    pub(super) traps: Box<[(u32, u8)]>,
    /// Where the position in the module changes, and to what.
    pub(super) positions: Box<[(u32, u32)]>,
    /// What positions in bodies in place of calls refer to.
    pub(super) inlined: Box<[InlinedPosition]>,
    /// Calls inside a `try_table`.
    pub(super) catches: Box<[CatchSite]>,
}

/// A place that holds the distance to another function.
pub(super) struct Call {
    pub(super) offset: u32,
    pub(super) kind: Reloc,
    pub(super) addend: Addend,
    pub(super) target: DefinedFuncIndex,
}

/// A compiler with its allocations, for one thread.
pub(super) struct Compiler<'a> {
    env: &'a Environment<'a>,
    isa: &'a dyn TargetIsa,
    context: Context,
    control: ControlPlane,
    buffers: Buffers,
    trampolines: FunctionBuilderContext,
}

impl<'a> Compiler<'a> {
    pub(super) fn new(env: &'a Environment<'a>, isa: &'a dyn TargetIsa) -> Self {
        Compiler {
            env,
            isa,
            context: Context::new(),
            control: ControlPlane::default(),
            buffers: Buffers::default(),
            trampolines: FunctionBuilderContext::new(),
        }
    }

    /// Translates and compiles. A function that nothing calls gets no code.
    ///
    /// # Errors
    /// When a function is over a limit or the code generator refuses it.
    pub(super) fn run(&mut self, job: Job) -> Result<Code, CompileError> {
        if matches!(job, Job::Function(func) if !self.env.analysis.plan.is_live(func)) {
            return Ok(Code::default());
        }
        self.context.clear();
        let is_function = matches!(job, Job::Function(..));
        let name = self.translate(job)?;
        let fail = |reason: String| CompileError::Codegen { func: name.clone(), reason };
        self.context
            .compile(self.isa, &mut self.control)
            .map_err(|error| fail(reason(&error.inner)))?;
        let compiled = self.context.compiled_code();
        let compiled = compiled.ok_or_else(|| fail("no code".to_string()))?;
        let (func, inlined) = (&self.context.func, &self.buffers.inlined);
        let mut code = collect(compiled, func, inlined, self.isa, &name)?;
        // The handler of an entry trampoline is known to the store record.
        if is_function {
            code.catches = catch::sites(compiled).map_err(|reason| fail(reason.to_string()))?;
        }
        Ok(code)
    }

    /// The code of a job as text, one instruction a line.
    #[cfg(test)]
    pub(super) fn listing(&mut self, job: Job) -> String {
        self.context.clear();
        self.translate(job).unwrap();
        self.context.set_disasm(true);
        self.context.compile(self.isa, &mut self.control).unwrap();
        self.context.compiled_code().unwrap().vcode.clone().unwrap()
    }

    /// Fills the context's function and gives its name for messages.
    fn translate(&mut self, job: Job) -> Result<String, CompileError> {
        let func = &mut self.context.func;
        let signatures = &self.env.module.signatures;
        match job {
            Job::Function(defined) => {
                translate::function(self.env, defined, func, &mut self.buffers)?;
                Ok(self.env.module.func_index(defined).to_string())
            }
            Job::Entry(sig) => {
                trampoline::entry(&signatures[sig], self.isa, func, &mut self.trampolines);
                Ok(format!("entry of {sig}"))
            }
            Job::Exit(sig) => {
                trampoline::exit(&signatures[sig], self.isa, func, &mut self.trampolines);
                Ok(format!("exit of {sig}"))
            }
        }
    }
}

/// What the code generator says. Faults that its verifier finds are ours, so they are all told.
fn reason(error: &CodegenError) -> String {
    match error {
        CodegenError::Verifier(errors) => errors.to_string().replace('\n', "; "),
        other => other.to_string(),
    }
}

/// Takes over what is needed of a compiled function.
fn collect(
    compiled: &CompiledCode,
    func: &Function,
    inlined: &Inlined,
    isa: &dyn TargetIsa,
    name: &str,
) -> Result<Code, CompileError> {
    let buffer = &compiled.buffer;
    let align = isa.function_alignment();
    let traps = buffer.traps().iter().map(|trap| {
        let kind = trap_kind(trap.code).ok_or_else(|| CompileError::Codegen {
            func: name.to_string(),
            reason: format!("unknown trap code {}", trap.code),
        })?;
        Ok((trap.offset, kind.code()))
    });
    let mut traps = traps.collect::<Result<Vec<_>, CompileError>>()?;
    traps.sort_unstable();
    let calls = buffer.relocs().iter().map(|reloc| call(reloc, func, name));
    let mut kept = Kept::new(inlined);
    let positions = positions(compiled, |position| kept.keep(position)).into();
    Ok(Code {
        bytes: buffer.data().into(),
        placement: Placement::of(compiled, buffer.alignment.max(align.minimum), align.preferred),
        calls: calls.collect::<Result<_, _>>()?,
        traps: traps.into(),
        positions,
        inlined: kept.finish(),
        catches: Box::default(),
    })
}

/// A relocation as a call of a function of this module, which is all that may occur.
fn call(reloc: &FinalizedMachReloc, func: &Function, name: &str) -> Result<Call, CompileError> {
    if let FinalizedRelocTarget::ExternalName(ExternalName::User(target)) = reloc.target {
        let target = &func.params.user_named_funcs()[target];
        if target.namespace == 0 {
            let (offset, kind, addend) = (reloc.offset, reloc.kind, reloc.addend);
            let target = DefinedFuncIndex::from_u32(target.index);
            return Ok(Call { offset, kind, addend, target });
        }
    }
    let target = reloc.target.display(Some(&func.params));
    Err(CompileError::Relocation { func: name.to_string(), target })
}

/// Where the position in the module changes; code in between belongs to the last.
fn positions(compiled: &CompiledCode, mut keep: impl FnMut(u32) -> u32) -> Vec<(u32, u32)> {
    let mut out: Vec<(u32, u32)> = Vec::new();
    let mut end = 0;
    let mut add = |start: u32, position: u32| match out.last_mut() {
        Some(&mut (_, last)) if last == position => {}
        Some(&mut (at, ref mut last)) if at == start => *last = position,
        _ => out.push((start, position)),
    };
    for range in compiled.buffer.get_srclocs_sorted() {
        if range.start > end || end == 0 {
            add(end, NO_POSITION);
        }
        let known = !range.loc.is_default();
        add(range.start, if known { keep(range.loc.bits()) } else { NO_POSITION });
        end = range.end;
    }
    if end < compiled.buffer.data().len() as u32 {
        add(end, NO_POSITION);
    }
    out
}
