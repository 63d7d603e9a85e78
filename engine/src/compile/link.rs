//! The text: all code behind each other, calls resolved, tables in text order.

use cranelift_codegen::TextSectionBuilder;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::isa::TargetIsa;

use super::func::Code;
use super::position::{InlinedPosition, moved};
use super::{CompileError, first};
use crate::abi::lazy::{self, Stub};
use crate::abi::trap::TrapKind;
use crate::image::{ImageBuilder, Section};
use crate::module::ModuleInfo;

/// Most bytes of code of an image: the reach of a relative call, halved.
const MAX_TEXT: u64 = 512 << 20;

/// Stands between functions: an instruction that traps.
const FILLER: u8 = 0xcc;

/// Collects code in the order of the image's function table.
pub(super) struct Linker {
    text: Box<dyn TextSectionBuilder>,
    control: ControlPlane,
    image: ImageBuilder,
    /// Functions that can be called; trampolines come after them.
    functions: usize,
    appended: usize,
    /// Where the code so far ends.
    end: u64,
}

impl Linker {
    pub(super) fn new(isa: &dyn TargetIsa, functions: usize, image: ImageBuilder) -> Linker {
        Linker {
            text: isa.text_section_builder(functions),
            control: ControlPlane::default(),
            image,
            functions,
            appended: 0,
            end: 0,
        }
    }

    /// A text that begins with the stubs of a lazy image; trampolines come next.
    pub(super) fn after_stubs(
        isa: &dyn TargetIsa,
        info: &ModuleInfo,
        image: ImageBuilder,
    ) -> Linker {
        let mut linker = Linker::new(isa, 0, image);
        let stubs = first::stubs(info);
        linker.end = stubs.len() as u64;
        linker.text.append(false, &stubs, 1, &mut linker.control);
        let image = &mut linker.image;
        for func in 0..info.defined_funcs() as u32 {
            push(image, Section::Funcs, Stub::of(func).entry());
            push(image, Section::Funcs, lazy::STUB_SIZE - lazy::STUB_ENTRY);
        }
        push(image, Section::TrapOffsets, lazy::FAIL_TRAP);
        image.section(Section::TrapCodes).push(TrapKind::Host.code());
        linker
    }

    /// Places the next piece of code.
    ///
    /// # Errors
    /// When the text becomes too large or a call cannot be resolved.
    pub(super) fn append(&mut self, code: &Code) -> Result<(), CompileError> {
        let callable = self.appended < self.functions;
        let gap = vec![FILLER; code.placement.gap(self.end) as usize];
        self.text.append(false, &gap, 1, &mut self.control);
        let start = self.text.append(callable, &code.bytes, 1, &mut self.control);
        let end = start + code.bytes.len() as u64;
        self.end = end;
        if end > MAX_TEXT {
            return Err(CompileError::CodeTooLarge { size: end, limit: MAX_TEXT });
        }
        for call in &code.calls {
            let (target, at) = (call.target.as_u32(), start + u64::from(call.offset));
            let known = (target as usize) < self.functions;
            if !known || !self.text.resolve_reloc(at, call.kind, call.addend, target as usize) {
                return Err(CompileError::Relocation {
                    func: format!("number {} of the text", self.appended),
                    target: format!("{:?} of function {target}", call.kind),
                });
            }
        }
        self.appended += 1;
        self.tables(code, start as u32);
        Ok(())
    }

    fn tables(&mut self, code: &Code, start: u32) {
        let image = &mut self.image;
        push(image, Section::Funcs, start);
        push(image, Section::Funcs, code.bytes.len() as u32);
        for &(offset, kind) in &code.traps {
            push(image, Section::TrapOffsets, start + offset);
            image.section(Section::TrapCodes).push(kind);
        }
        let before = (image.section(Section::Inlined).len() / InlinedPosition::SIZE) as u32;
        for &(offset, position) in &code.positions {
            push(image, Section::AddressOffsets, start + offset);
            push(image, Section::AddressPositions, moved(position, before));
        }
        for entry in &code.inlined {
            for word in [entry.func, entry.offset, moved(entry.caller, before)] {
                push(image, Section::Inlined, word);
            }
        }
        for site in &code.catches {
            for clause in &site.clauses {
                push(image, Section::Catches, clause.tag);
                push(image, Section::Catches, clause.context);
                push(image, Section::Catches, start + clause.landing_pad);
            }
            push(image, Section::CatchSites, start + site.return_address);
            push(image, Section::CatchFrames, site.frame);
            let end = image.section(Section::Catches).len() / 12;
            push(image, Section::CatchFrames, end as u32);
        }
    }

    /// Resolves the calls and gives the image with text and tables.
    pub(super) fn finish(mut self) -> ImageBuilder {
        *self.image.section(Section::Text) = self.text.finish(&mut self.control);
        self.image
    }
}

fn push(image: &mut ImageBuilder, section: Section, word: u32) {
    image.section(section).extend_from_slice(&word.to_le_bytes());
}
