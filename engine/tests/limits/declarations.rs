//! Limits that are seen when a module is decoded: what it declares, and how much.

use coracle_engine::config::Features;
use coracle_engine::module::decode::{self, DecodeError};
use coracle_engine::module::limits;
use wasm_encoder::{
    ConstExpr, CustomSection, DataSection, ElementSection, Elements, EntityType, ExportKind,
    ExportSection, GlobalSection, GlobalType, ImportSection, MemorySection, MemoryType, Module,
    RefType, TableSection, TableType, TypeSection, ValType,
};

use crate::{I32, empty, functions, only, types};

/// Decodes and says what is wrong, if anything.
fn decoded(bytes: &[u8]) -> Result<(), DecodeError> {
    decode::decode(bytes, Features::all()).map(|_| ())
}

/// A module of `n` is taken and one of `n + 1` is refused, with `words` in the message.
fn boundary(n: u64, module: impl Fn(u64) -> Module, words: &str) {
    let at = decoded(&module(n).finish());
    assert!(at.is_ok(), "{n} should be taken: {at:?}");
    let error = decoded(&module(n + 1).finish()).expect_err("one more should be refused");
    let message = error.to_string();
    assert!(message.contains(words), "{message} should contain {words}");
}

#[test]
fn bytes_of_a_module() {
    // One custom section, whose content nobody reads.
    let module = |size: u64| {
        let overhead = 8 + 1 + 5 + 2;
        let data = vec![0; (size - overhead) as usize];
        only(&CustomSection { name: "x".into(), data: data.into() }).finish()
    };
    // The section's length takes four or five bytes.
    let bytes = module(limits::MODULE_BYTES);
    let spare = limits::MODULE_BYTES as usize - bytes.len();
    assert!(spare <= 1);
    assert!(decoded(&bytes).is_ok());
    let error = decoded(&module(limits::MODULE_BYTES + spare as u64 + 1)).unwrap_err();
    assert!(matches!(error, DecodeError::TooLarge { .. }), "{error}");
}

#[test]
fn bytes_of_text() {
    let text = |size: u64| {
        let mut text = vec![b' '; size as usize];
        text[..8].copy_from_slice(b"(module)");
        text
    };
    assert!(decode::to_binary(&text(limits::TEXT_BYTES)).is_ok());
    let error = decode::to_binary(&text(limits::TEXT_BYTES + 1)).unwrap_err();
    assert!(matches!(error, DecodeError::TooLarge { .. }), "{error}");
}

#[test]
fn types_also_in_recursion_groups() {
    let module = |count| only(&types(count));
    boundary(u64::from(limits::TYPES), module, "types");
    let module = |count: u64| {
        let mut section = TypeSection::new();
        let half = |n: usize| {
            (0..n).map(|_| wasm_encoder::SubType {
                is_final: true,
                supertype_idxs: Vec::new(),
                composite_type: wasm_encoder::CompositeType {
                    inner: wasm_encoder::CompositeInnerType::Func(wasm_encoder::FuncType::new(
                        [],
                        [],
                    )),
                    shared: false,
                    descriptor: None,
                    describes: None,
                },
            })
        };
        section.ty().rec(half((count / 2) as usize));
        section.ty().rec(half((count - count / 2) as usize));
        only(&section)
    };
    boundary(u64::from(limits::TYPES), module, "types");
}

#[test]
fn parts_of_types() {
    let module = |parts: u64| {
        let mut types = TypeSection::new();
        for _ in 0..parts / 1000 {
            types.ty().function(std::iter::repeat_n(I32, 1000), []);
        }
        types.ty().function(std::iter::repeat_n(I32, (parts % 1000) as usize), []);
        only(&types)
    };
    boundary(limits::TYPE_PARTS as u64, module, "types");
}

#[test]
fn values_of_distinct_signatures() {
    // Signature `n` by the bits of `n`, which no other has.
    let kinds = |n: u64, values: u64| {
        (0..values as u32).map(move |bit| if n >> (bit % 64) & 1 == 0 { I32 } else { ValType::I64 })
    };
    let module = |values: u64| {
        let mut types = TypeSection::new();
        (0..values / 32).for_each(|n| types.ty().function(kinds(n, 16), kinds(n >> 16, 16)));
        types.ty().function(kinds(0, values % 32), []);
        // The same again costs nothing.
        types.ty().function(kinds(0, 16), kinds(0, 16));
        only(&types)
    };
    boundary(limits::SIGNATURE_VALUES as u64, module, "distinct signatures");
    // Of 640 values, each counts twenty times.
    let wide = |count: u64| {
        let mut types = TypeSection::new();
        (0..count).for_each(|n| types.ty().function(kinds(n, 640), []));
        only(&types)
    };
    boundary(limits::SIGNATURE_VALUES as u64 / (640 * 20), wide, "distinct signatures");
}

#[test]
fn parameters_and_results() {
    let module = |params: u64, results: u64| {
        let mut types = TypeSection::new();
        let some = |n: u64| std::iter::repeat_n(I32, n as usize);
        types.ty().function(some(params), some(results));
        only(&types)
    };
    boundary(1000, |n| module(n, 0), "params");
    boundary(1000, |n| module(0, n), "returns");
}

#[test]
fn functions_imported_and_defined() {
    let defined = |count: u64| {
        let (funcs, code) = functions((0..count).map(|_| empty()));
        let mut module = Module::new();
        module.section(&types(1)).section(&funcs).section(&code);
        module
    };
    boundary(u64::from(limits::FUNCTIONS), defined, "functions");
    let imported = |count: u64| {
        let mut imports = ImportSection::new();
        (0..count - 1).for_each(|_| {
            imports.import("", "", EntityType::Function(0));
        });
        let (funcs, code) = functions([empty()]);
        let mut module = Module::new();
        module.section(&types(1)).section(&imports).section(&funcs).section(&code);
        module
    };
    boundary(u64::from(limits::FUNCTIONS), imported, "functions");
}

#[test]
fn globals() {
    let module = |count: u64| {
        let mut globals = GlobalSection::new();
        let ty = GlobalType { val_type: I32, mutable: false, shared: false };
        (0..count).for_each(|_| {
            globals.global(ty, &ConstExpr::i32_const(0));
        });
        only(&globals)
    };
    boundary(u64::from(limits::GLOBALS), module, "globals");
}

#[test]
fn tables() {
    let module = |count: u64| {
        let mut tables = TableSection::new();
        let element_type = RefType::FUNCREF;
        let ty =
            TableType { element_type, table64: false, minimum: 0, maximum: None, shared: false };
        (0..count).for_each(|_| {
            tables.table(ty);
        });
        only(&tables)
    };
    boundary(u64::from(limits::TABLES), module, "tables");
}

fn memories(count: u64) -> MemorySection {
    let mut memories = MemorySection::new();
    let ty = MemoryType {
        minimum: 0,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    };
    (0..count).for_each(|_| {
        memories.memory(ty);
    });
    memories
}

#[test]
fn memories_and_their_data() {
    let module = |count: u64| only(&memories(count));
    boundary(u64::from(limits::MEMORIES), module, "memories");
    let module = |count: u64| {
        let mut data = DataSection::new();
        (0..count).for_each(|_| {
            data.active(0, &ConstExpr::i32_const(0), []);
        });
        let mut module = Module::new();
        module.section(&memories(1)).section(&data);
        module
    };
    boundary(100_000, module, "data segments");
}

/// A module of a function and these segments of it.
fn with_elements(segments: &ElementSection) -> Module {
    let (funcs, code) = functions([empty()]);
    let mut module = Module::new();
    module.section(&types(1)).section(&funcs).section(segments).section(&code);
    module
}

#[test]
fn elements_and_their_segments() {
    let module = |count: u64| {
        let mut segments = ElementSection::new();
        let some = |n: u64| vec![0u32; n as usize];
        segments.passive(Elements::Functions(some(count / 2).into()));
        segments.passive(Elements::Functions(some(count - count / 2).into()));
        with_elements(&segments)
    };
    boundary(limits::ELEMENTS as u64, module, "elements");
    let module = |count: u64| {
        let mut segments = ElementSection::new();
        (0..count).for_each(|_| {
            segments.passive(Elements::Functions([].as_slice().into()));
        });
        with_elements(&segments)
    };
    boundary(100_000, module, "element segments");
}

#[test]
fn operators_of_constant_expressions() {
    let ty = GlobalType { val_type: I32, mutable: false, shared: false };
    // An odd number of operators: a constant, then pairs of a constant and a sum.
    let expression = |operators: u64| {
        (0..operators / 2)
            .fold(ConstExpr::i32_const(0), |expr, _| expr.with_i32_const(1).with_i32_add())
    };
    let one = |operators: u64| {
        let mut globals = GlobalSection::new();
        globals.global(ty, &expression(operators));
        only(&globals).finish()
    };
    let limit = limits::CONST_OPERATORS as u64;
    assert!(decoded(&one(limit - 1)).is_ok());
    assert!(decoded(&one(limit + 1)).unwrap_err().to_string().contains("constant expression"));
    let long = 999;
    let all = |operators: u64| {
        let mut globals = GlobalSection::new();
        (0..operators / long).for_each(|_| {
            globals.global(ty, &expression(long));
        });
        (0..operators % long).for_each(|_| {
            globals.global(ty, &ConstExpr::i32_const(0));
        });
        only(&globals)
    };
    boundary(limits::CONST_OPERATORS_TOTAL as u64, all, "constant expressions");
}

#[test]
fn names_of_imports_and_exports() {
    let import = |len: u64| {
        let mut imports = ImportSection::new();
        imports.import("", &"n".repeat(len as usize), EntityType::Function(0));
        let mut module = Module::new();
        module.section(&types(1)).section(&imports);
        module
    };
    boundary(100_000, import, "string");
    let export = |len: u64| {
        let mut exports = ExportSection::new();
        exports.export(&"n".repeat(len as usize), ExportKind::Memory, 0);
        let mut module = Module::new();
        module.section(&memories(1)).section(&exports);
        module
    };
    boundary(100_000, export, "string");
}
