//! Target `decode`: any bytes give a module or an error, in bounded memory and time, and the
//! engine finds valid what the validator finds valid.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use coracle_engine::compile::{CompileError, compile};
use coracle_engine::config::{Features, OptLevel, Settings};
use coracle_engine::image::ImageError;
use coracle_engine::module::decode::DecodeError;
use coracle_engine::runtime::{Engine, Module};
use wasm_smith::Config;
use wasmparser::Validator;

use crate::edit::Edit;
use crate::{features, meter, stats};

/// Bytes of heap that any input may take, and how many more for each of its own.
const HEAP: usize = 64 << 20;
const HEAP_PER_BYTE: usize = 16 << 10;
/// Processor time that any input may take, and how much more for each KiB of it. Coverage counters
/// and the verifier make it some twenty times what a product takes.
const CPU: Duration = Duration::from_secs(10);
const CPU_PER_KIB: Duration = Duration::from_millis(500);

/// How an input is to be understood.
#[derive(Arbitrary, Debug)]
enum Form {
    /// The rest is the module.
    Raw,
    /// The rest makes a valid module, which is then changed.
    Generated { edits: Vec<Edit>, large: bool },
}

#[derive(Arbitrary, Debug)]
struct Head {
    optimise: bool,
    all_features: bool,
    form: Form,
}

/// Runs an input.
///
/// # Panics
/// When it is a finding.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(head) = Head::arbitrary(&mut input) else { return };
    let wasm = match head.form {
        Form::Raw => input.take_rest().to_vec(),
        Form::Generated { edits, large } => {
            let Ok(mut wasm) = generate(&mut input, large) else { return };
            edits.iter().take(16).for_each(|edit| edit.apply(&mut wasm));
            wasm
        }
    };
    let settings = Settings {
        opt_level: if head.optimise { OptLevel::Speed } else { OptLevel::None },
        features: if head.all_features { Features::all() } else { Features::default() },
        verifier: true,
        ..Settings::default()
    };
    check(&wasm, &settings);
}

/// A valid module of any shape.
fn generate(input: &mut Unstructured<'_>, large: bool) -> arbitrary::Result<Vec<u8>> {
    let mut config = Config {
        max_funcs: if large { 100 } else { 10 },
        max_types: if large { 100 } else { 20 },
        generate_custom_sections: true,
        ..Config::default()
    };
    features::choose(&mut config, input, |_| true)?;
    Ok(wasm_smith::Module::new(config, input)?.to_bytes())
}

/// Compiles and compares with the validator's verdict.
///
/// # Panics
/// When the engine errs.
pub fn check(wasm: &[u8], settings: &Settings) {
    let (result, cost) = meter::measure(|| compile(wasm, settings));
    let heap = HEAP + HEAP_PER_BYTE * wasm.len();
    assert!(cost.heap <= heap, "{} bytes took {} bytes of heap", wasm.len(), cost.heap);
    let cpu = CPU + CPU_PER_KIB * (wasm.len() / 1024) as u32;
    assert!(cost.cpu <= cpu, "{} bytes took {:?}", wasm.len(), cost.cpu);
    match &result {
        Ok(image) => {
            stats::add("modules accepted", 1);
            if let Err(error) = Module::from_bytes(&Engine::new(), image) {
                panic!("an image just made is refused: {error}");
            }
            let again = compile(wasm, settings);
            assert!(again.is_ok_and(|again| again == *image), "a second compilation differs");
        }
        Err(error) => {
            stats::add("modules refused", 1);
            assert!(is_an_answer(error), "{error}");
        }
    }
    if wasm.starts_with(b"\0asm") {
        let mut validator = Validator::new_with_features(settings.features.to_wasmparser());
        match (validator.validate_all(wasm), &result) {
            (Ok(_), Err(error)) if !is_a_limit(error) => panic!("refused but valid: {error}"),
            (Err(error), Ok(_)) => panic!("accepted but invalid: {error}"),
            _ => {}
        }
    }
}

/// Whether an input may be refused with this error; the others are faults of the engine.
fn is_an_answer(error: &CompileError) -> bool {
    !matches!(
        error,
        CompileError::Operator { .. }
            | CompileError::Codegen { .. }
            | CompileError::Relocation { .. }
            | CompileError::Target { .. }
    )
}

/// Whether the error says that the module is too much.
fn is_a_limit(error: &CompileError) -> bool {
    match error {
        CompileError::Decode(DecodeError::Limit { .. } | DecodeError::TooLarge { .. })
        | CompileError::TooComplex { .. }
        | CompileError::CodeTooLarge { .. }
        | CompileError::Image(ImageError::TooLarge { .. }) => true,
        // Types of values that need a compiler feature to be named at all are the decoder's.
        _ => false,
    }
}
