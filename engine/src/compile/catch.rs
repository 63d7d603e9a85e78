//! Where exceptions are caught: what the code generator says of calls with handlers, as the image
//! holds it.

use cranelift_codegen::{
    CompiledCode, ExceptionContextLoc, FinalizedMachCallSite, FinalizedMachExceptionHandler,
};

use crate::image::{ANY_TAG, OWN_CONTEXT};

/// A call with handlers. Offsets are from the start of the function's code, in bytes.
pub(super) struct CatchSite {
    pub(super) return_address: u32,
    /// The frame pointer less the stack pointer.
    pub(super) frame: u32,
    /// In the order in which they are tried.
    pub(super) clauses: Box<[Clause]>,
}

/// A handler.
#[derive(Clone, Copy)]
pub(super) struct Clause {
    pub(super) tag: u32,
    /// Where the frame keeps its context, from the stack pointer up.
    pub(super) context: u32,
    pub(super) landing_pad: u32,
}

/// All calls with handlers of a function, in the order of their addresses. `Err` when the code
/// generator does not say how large the frame is.
pub(super) fn sites(compiled: &CompiledCode) -> Result<Box<[CatchSite]>, &'static str> {
    let calls = compiled.buffer.call_sites();
    let calls = calls.filter(|call| !call.exception_handlers.is_empty());
    let mut sites = calls.map(|call| site(&call)).collect::<Result<Vec<_>, _>>()?;
    sites.sort_unstable_by_key(|site| site.return_address);
    Ok(sites.into())
}

fn site(call: &FinalizedMachCallSite<'_>) -> Result<CatchSite, &'static str> {
    let frame = call.frame_offset.ok_or("a call with handlers has no known frame")?;
    let mut context = OWN_CONTEXT;
    let mut clauses = Vec::new();
    for handler in call.exception_handlers {
        let (tag, landing_pad) = match *handler {
            FinalizedMachExceptionHandler::Tag(tag, offset) => (tag.as_u32(), offset),
            FinalizedMachExceptionHandler::Default(offset) => (ANY_TAG, offset),
            FinalizedMachExceptionHandler::Context(ExceptionContextLoc::SPOffset(offset)) => {
                context = offset;
                continue;
            }
            // Only a runtime call leaves a register alone, and the one that throws is given the
            // frame's context.
            FinalizedMachExceptionHandler::Context(ExceptionContextLoc::GPR(_)) => {
                context = OWN_CONTEXT;
                continue;
            }
        };
        clauses.push(Clause { tag, context, landing_pad });
    }
    Ok(CatchSite { return_address: call.ret_addr, frame, clauses: clauses.into() })
}
