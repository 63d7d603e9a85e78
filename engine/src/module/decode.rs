//! Bytes or text to a validated [`ModuleInfo`] and the function bodies that are still to validate.
//!
//! Everything but the bodies is validated here; a body is validated operator by operator in the
//! pass that translates it, so that its bytes are read once.

mod const_expr;
mod missing;
mod names;
mod sections;
mod text;
mod types;

#[cfg(test)]
mod tests;

use wasmparser::{FuncToValidate, FunctionBody, Parser, Payload, ValidPayload, Validator};
use wasmparser::{ValidatorResources, WasmFeatures};

use super::types::TypeKind;
use super::{ModuleInfo, limits};
use crate::config::Features;
pub(crate) use missing::name_missing;
pub use missing::needed_features;
pub use names::Names;
pub use text::to_binary;

/// Why bytes are not a module that this engine accepts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum DecodeError {
    #[error("module of {size} bytes is over the limit of {limit} bytes for {form}")]
    TooLarge { size: u64, limit: u64, form: &'static str },
    #[error("not a WebAssembly module: {found}; accepted are binary modules and their text form")]
    NotWasm { found: &'static str },
    #[error(
        "this is a WebAssembly component, which is not supported yet; give a core module \
         (for example one built for wasm32-wasip1)"
    )]
    Component,
    #[error("invalid text module at line {line}, column {column}: {message}")]
    Text { line: usize, column: usize, message: String },
    #[error("invalid module at byte offset {offset:#x}: {message}")]
    Invalid { offset: u64, message: String },
    #[error(
        "module needs the feature `{features}`, which is off: {message} (at byte offset {offset:#x})"
    )]
    FeatureOff { features: String, offset: u64, message: String },
    #[error("module has {count} {what}, over the limit of {limit}")]
    Limit { what: &'static str, count: u64, limit: u64 },
}

impl From<wasmparser::Error> for DecodeError {
    fn from(error: wasmparser::Error) -> DecodeError {
        DecodeError::Invalid { offset: error.offset(), message: error.message().to_string() }
    }
}

/// A function body with what validates it.
pub type Body<'a> = (FuncToValidate<ValidatorResources>, FunctionBody<'a>);

/// A module whose sections are valid; its bodies are not validated yet.
pub struct Decoded<'a> {
    /// The description. Data segments are not laid out yet: their `offset` is 0 and no memory has
    /// an image.
    pub info: ModuleInfo,
    /// Bodies of the defined functions, in order.
    pub bodies: Vec<Body<'a>>,
    /// Bytes of the data segments, in order.
    pub data: Vec<&'a [u8]>,
    /// Names of functions.
    pub names: Names<'a>,
}

/// Decodes a binary module and validates all of it but the function bodies.
///
/// # Errors
/// When the bytes are not a core module, are not valid under `features`, or are over a limit.
pub fn decode(bytes: &[u8], features: Features) -> Result<Decoded<'_>, DecodeError> {
    check_header(bytes)?;
    let features = features.to_wasmparser();
    let mut decoder = Decoder::new(features);
    let mut parser = Parser::new(0);
    parser.set_features(features);
    for payload in parser.parse_all(bytes) {
        decoder.payload(payload?)?;
    }
    decoder.finish()
}

/// Tells apart what is commonly given in place of a module, for a message that helps.
fn check_header(bytes: &[u8]) -> Result<(), DecodeError> {
    let size = bytes.len() as u64;
    if size > limits::MODULE_BYTES {
        let limit = limits::MODULE_BYTES;
        return Err(DecodeError::TooLarge { size, limit, form: "binary modules" });
    }
    if Parser::is_component(bytes) {
        return Err(DecodeError::Component);
    }
    if bytes.starts_with(b"\0asm") {
        return Ok(());
    }
    let found = match bytes {
        [] => "the file is empty",
        [0x7f, b'E', b'L', b'F', ..] => "it is a native executable (ELF)",
        [b'#', b'!', ..] => "it is a script",
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => "it is compressed",
        [b'P', b'K', 3, 4, ..] => "it is a ZIP archive",
        [b'C', b'O', b'R', b'A', b'C', b'L', b'E', 0, ..] => "it is compiled code",
        [b'M', b'Z', ..] => "it is a native executable (PE)",
        _ if b"\0asm".starts_with(bytes) => "the file is truncated",
        _ => "it does not begin with the magic bytes \\0asm",
    };
    Err(DecodeError::NotWasm { found })
}

/// Collects the description while sections arrive.
struct Decoder<'a> {
    validator: Validator,
    out: Decoded<'a>,
    /// Functions that may become references.
    escaped: Vec<super::index::FuncIndex>,
    /// The kinds of the types, as far as they were read.
    kinds: Vec<TypeKind>,
    /// Parameters, results and fields of all types.
    type_parts: usize,
    /// See [`limits::SIGNATURE_VALUES`].
    signature_values: usize,
    elements: usize,
    const_operators: usize,
}

impl<'a> Decoder<'a> {
    fn new(features: WasmFeatures) -> Self {
        Decoder {
            validator: Validator::new_with_features(features),
            out: Decoded {
                info: ModuleInfo::default(),
                bodies: Vec::new(),
                data: Vec::new(),
                names: Names::default(),
            },
            escaped: Vec::new(),
            kinds: Vec::new(),
            type_parts: 0,
            signature_values: 0,
            elements: 0,
            const_operators: 0,
        }
    }

    /// Validates a part of the module, then records it.
    fn payload(&mut self, payload: Payload<'a>) -> Result<(), DecodeError> {
        if let Payload::CustomSection(section) = &payload {
            // Whatever is wrong with a custom section must not matter to the module.
            if let wasmparser::KnownCustom::Name(reader) = section.as_known() {
                self.out.names.read(reader);
            }
            return Ok(());
        }
        // Before the validator sees it: its own tables grow with these counts.
        check_count(&payload)?;
        if let ValidPayload::Func(func, body) = self.validator.payload(&payload)? {
            self.out.bodies.push((func, body));
            return Ok(());
        }
        match payload {
            Payload::TypeSection(reader) => self.types(reader),
            Payload::ImportSection(reader) => self.imports(reader),
            Payload::FunctionSection(reader) => self.functions(reader),
            Payload::TableSection(reader) => self.tables(reader),
            Payload::MemorySection(reader) => self.memories(reader),
            Payload::GlobalSection(reader) => self.globals(reader),
            Payload::TagSection(reader) => self.tags(reader),
            Payload::ExportSection(reader) => self.exports(reader),
            Payload::StartSection { func, .. } => {
                self.out.info.start = Some(sections::index(func));
                Ok(())
            }
            Payload::ElementSection(reader) => self.element_segments(reader),
            Payload::DataSection(reader) => self.data_segments(reader),
            Payload::CodeSectionStart { count, .. } => {
                self.out.bodies.reserve(count as usize);
                Ok(())
            }
            // The validator refuses what it does not know; nothing else carries content.
            _ => Ok(()),
        }
    }

    fn finish(mut self) -> Result<Decoded<'a>, DecodeError> {
        let info = &mut self.out.info;
        self.escaped.sort_unstable();
        self.escaped.dedup();
        for (n, &func) in self.escaped.iter().enumerate() {
            info.functions[func].func_ref = Some(n as u32);
        }
        info.escaped_funcs = self.escaped.len() as u32;
        info.name = self.out.names.module.map(str::to_owned);
        Ok(self.out)
    }
}

/// Refuses a section with more entries than this engine takes.
fn check_count(payload: &Payload<'_>) -> Result<(), DecodeError> {
    let (what, count, limit) = match payload {
        Payload::TypeSection(reader) => ("types", reader.count(), limits::TYPES),
        Payload::FunctionSection(reader) => ("functions", reader.count(), limits::FUNCTIONS),
        Payload::TableSection(reader) => ("tables", reader.count(), limits::TABLES),
        Payload::MemorySection(reader) => ("memories", reader.count(), limits::MEMORIES),
        Payload::GlobalSection(reader) => ("globals", reader.count(), limits::GLOBALS),
        Payload::TagSection(reader) => ("tags", reader.count(), limits::TAGS),
        _ => return Ok(()),
    };
    limit_count(what, count as usize, limit as usize)
}

fn limit_count(what: &'static str, count: usize, limit: usize) -> Result<(), DecodeError> {
    if count > limit {
        return Err(DecodeError::Limit { what, count: count as u64, limit: limit as u64 });
    }
    Ok(())
}
