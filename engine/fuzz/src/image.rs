//! Target `image`: a damaged code image is refused, or loads and can be instantiated, without a
//! panic and without leaving its bounds. Its code is not run.

use std::ops::Range;
use std::sync::OnceLock;

use arbitrary::{Arbitrary, Unstructured};
use coracle_engine::compile::compile;
use coracle_engine::config::{Features, OptLevel, Settings};
use coracle_engine::image::{CodeImage, PAGE, SECTIONS};
use coracle_engine::runtime::{Engine, Linker, Module, Store, StoreConfig};

use crate::edit::Edit;
use crate::{meter, stats};

/// Where the header's total length and table of sections begin: as `image.rs` describes them.
const TOTAL: usize = 48;
const TABLE: usize = 64;

/// Bytes of heap that loading may take, and how many more for each of the image's own.
const HEAP: usize = 64 << 20;
const HEAP_PER_BYTE: usize = 64;

/// The modules whose images are damaged.
const MODULES: &[&str] = &[
    "(module)",
    r#"(module $named (import "env" "f" (func (param i32)))
        (memory (export "m") 2 9) (table (export "t") 3 7 funcref) (table 2 externref)
        (global (export "g") (mut i64) (i64.const 3)) (global funcref (ref.func $a))
        (data (i32.const 5000) "hello") (data "passive") (elem (i32.const 0) $a $b)
        (elem declare func $a) (elem funcref (ref.func $b) (ref.null func))
        (func $a (result i32) (i32.load (i32.const 4)))
        (func $b (export "b") (call 0 (i32.const 1))))"#,
    r#"(module (type $t (func (param i64 f32) (result f64 i32)))
        (memory 1) (data (i32.const 0) "a") (data (i32.const 65535) "z")
        (table 2 funcref) (elem (i32.const 0) $f) (global $o (mut i32) (i32.const 70000))
        (func $f (export "f") (type $t)
            (i64.store (i32.wrap_i64 (local.get 0)) (i64.div_s (local.get 0) (i64.const 3)))
            (f64.promote_f32 (local.get 1)) (memory.grow (i32.const 1)))
        (func (export "g") (result f64 i32)
            (call_indirect (type $t) (i64.const 1) (f32.const 2) (i32.const 0))))"#,
];

/// A change of an image.
#[derive(Arbitrary, Debug)]
enum Change {
    /// Of a section's content; the sections are laid out again around it.
    Section(u8, Edit),
    /// Of the finished bytes.
    Blob(Edit),
}

#[derive(Arbitrary, Debug)]
struct Input {
    module: u8,
    optimise: bool,
    changes: Vec<Change>,
}

/// Runs an input.
///
/// # Panics
/// When it is a finding.
pub fn run(data: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let images = images();
    let n = usize::from(input.module) % MODULES.len();
    let mut sections = images[2 * n + usize::from(input.optimise)].clone();
    let mut last = Vec::new();
    for change in &input.changes {
        match change {
            Change::Section(section, edit) => {
                edit.apply(&mut sections.content[usize::from(*section) % SECTIONS]);
            }
            Change::Blob(edit) => last.push(edit),
        }
    }
    let mut blob = sections.assemble();
    last.iter().for_each(|edit| edit.apply(&mut blob));
    check(&blob);
}

/// Reads, loads and instantiates.
///
/// # Panics
/// When one of them panics or takes too much.
pub fn check(blob: &[u8]) {
    let (loaded, cost) = meter::measure(|| load(blob));
    let heap = HEAP + HEAP_PER_BYTE * blob.len();
    assert!(cost.heap <= heap, "{} bytes took {} bytes of heap", blob.len(), cost.heap);
    match loaded {
        Some((engine, module)) => {
            stats::add("images loaded", 1);
            instantiate(&engine, &module);
        }
        None => stats::add("images refused", 1),
    }
}

fn load(blob: &[u8]) -> Option<(Engine, Module)> {
    if let Ok(image) = CodeImage::new(blob)
        && let Ok(meta) = image.meta()
    {
        let funcs = meta.module.defined_funcs() + 2 * meta.module.signatures.len();
        for n in 0..funcs + 1 {
            let _ = image.func(n);
        }
    }
    let engine = Engine::new();
    let module = Module::from_bytes(&engine, blob).ok()?;
    Some((engine, module))
}

/// Instantiates what runs no code by it, and looks at its exports.
fn instantiate(engine: &Engine, module: &Module) {
    let info = module.info();
    let config = StoreConfig {
        max_memory_bytes: 16 << 20,
        max_table_elements: 100_000,
        ..StoreConfig::default()
    };
    let Ok(mut store) = Store::with_config(engine, config) else { return };
    let linker = Linker::new(engine);
    if info.start.is_some() || !info.imports.is_empty() {
        let _ = linker.check(&store, module);
        return;
    }
    let Ok(instance) = linker.instantiate(&mut store, module) else { return };
    stats::add("images instantiated", 1);
    for export in &info.exports {
        if let Some(memory) = instance.memory(&store, &export.name) {
            let data = memory.data(&store);
            std::hint::black_box(data.iter().step_by(4096).fold(0, |a, b| a ^ b));
        }
        if let Some(table) = instance.table(&store, &export.name) {
            std::hint::black_box(table.size(&store));
        }
    }
}

/// An image taken apart: what comes before the table of sections, and each section's bytes.
#[derive(Clone)]
struct Parts {
    head: Vec<u8>,
    content: Vec<Vec<u8>>,
}

impl Parts {
    fn new(blob: &[u8]) -> Parts {
        let word = |at: usize| -> usize {
            let mut word = [0; 8];
            word.copy_from_slice(&blob[at..at + 8]);
            u64::from_le_bytes(word) as usize
        };
        let range = |n: usize| -> Range<usize> {
            let at = TABLE + 16 * n;
            word(at)..word(at) + word(at + 8)
        };
        let content = (0..SECTIONS).map(|n| blob[range(n)].to_vec()).collect();
        Parts { head: blob[..TABLE].to_vec(), content }
    }

    /// The image again, with each section on a page of its own.
    fn assemble(&self) -> Vec<u8> {
        let page = PAGE as usize;
        let mut table = Vec::new();
        let mut end = page;
        for bytes in &self.content {
            table.push((end, bytes.len()));
            end = (end + bytes.len()).next_multiple_of(page);
        }
        let mut blob = self.head.clone();
        blob[TOTAL..TOTAL + 8].copy_from_slice(&(end as u64).to_le_bytes());
        for (start, len) in &table {
            blob.extend((*start as u64).to_le_bytes());
            blob.extend((*len as u64).to_le_bytes());
        }
        for ((start, _), bytes) in table.iter().zip(&self.content) {
            blob.resize(*start, 0);
            blob.extend(bytes);
        }
        blob.resize(end, 0);
        blob
    }
}

/// The images of all modules, each without and with optimisation.
fn images() -> &'static [Parts] {
    static IMAGES: OnceLock<Vec<Parts>> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let levels = [OptLevel::None, OptLevel::Speed];
        let variants = MODULES.iter().flat_map(|text| levels.map(|level| (text, level)));
        variants
            .map(|(text, opt_level)| {
                let features = Features::all();
                let settings = Settings { opt_level, features, ..Settings::default() };
                let blob = match compile(text.as_bytes(), &settings) {
                    Ok(blob) => blob,
                    Err(error) => panic!("a base module does not compile: {error}"),
                };
                Parts::new(&blob)
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_changed_loads() {
        for parts in images() {
            let blob = parts.assemble();
            assert!(Module::from_bytes(&Engine::new(), &blob).is_ok());
        }
    }
}
