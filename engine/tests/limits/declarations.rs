//! Every limit on a module: as much is taken, one more is refused, in little memory and time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in tests, helpers too fail by panic")]

use coracle_engine::compile::{CompileError, compile};
use coracle_engine::config::{Features, OptLevel, Settings};
use coracle_engine::module::decode::{self, DecodeError};
use coracle_engine::module::limits;
use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, CustomSection, DataSection, ElementSection, Elements,
    EntityType, ExportKind, ExportSection, Function, FunctionSection, GlobalSection, GlobalType,
    ImportSection, Instruction, MemorySection, MemoryType, Module, RefType, TableSection,
    TableType, TypeSection, ValType,
};

const I32: ValType = ValType::I32;

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

/// The same for what is only seen when the function is compiled.
fn body_boundary(n: usize, module: impl Fn(usize) -> Module, words: &str) {
    let settings = Settings { opt_level: OptLevel::None, ..Settings::default() };
    let at = compile(&module(n).finish(), &settings);
    assert!(at.is_ok(), "{n} should be taken: {}", at.unwrap_err());
    let error = compile(&module(n + 1).finish(), &settings).expect_err("should be refused");
    let message = error.to_string();
    assert!(message.contains(words), "{message} should contain {words}");
}

fn types(count: u64) -> TypeSection {
    let mut types = TypeSection::new();
    (0..count).for_each(|_| types.ty().function([], []));
    types
}

/// A module with one function of this body.
fn with_body(function: Function) -> Module {
    let (mut funcs, mut code) = (FunctionSection::new(), CodeSection::new());
    let mut types = TypeSection::new();
    types.ty().function([I32], []);
    funcs.function(0);
    code.function(&function);
    let mut module = Module::new();
    module.section(&types).section(&funcs).section(&exported()).section(&code);
    module
}

/// Exports function 0: what nobody can call need not be compiled.
fn exported() -> ExportSection {
    let mut exports = ExportSection::new();
    exports.export("f", ExportKind::Func, 0);
    exports
}

#[test]
fn bytes_of_a_module() {
    // One custom section, whose content nobody reads.
    let module = |size: u64| {
        let overhead = 8 + 1 + 5 + 2;
        let data = vec![0; (size - overhead) as usize];
        let mut module = Module::new();
        module.section(&CustomSection { name: "x".into(), data: data.into() });
        module.finish()
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
    let module = |count| {
        let mut module = Module::new();
        module.section(&types(count));
        module
    };
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
        let mut module = Module::new();
        module.section(&section);
        module
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
        let mut module = Module::new();
        module.section(&types);
        module
    };
    boundary(limits::TYPE_PARTS as u64, module, "types");
}

#[test]
fn parameters_and_results() {
    let module = |params: u64, results: u64| {
        let mut types = TypeSection::new();
        let some = |n: u64| std::iter::repeat_n(I32, n as usize);
        types.ty().function(some(params), some(results));
        let mut module = Module::new();
        module.section(&types);
        module
    };
    boundary(1000, |n| module(n, 0), "params");
    boundary(1000, |n| module(0, n), "returns");
}

#[test]
fn functions_imported_and_defined() {
    let defined = |count: u64| {
        let (mut funcs, mut code) = (FunctionSection::new(), CodeSection::new());
        let mut empty = Function::new([]);
        empty.instruction(&Instruction::End);
        for _ in 0..count {
            funcs.function(0);
            code.function(&empty);
        }
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
        let (mut funcs, mut code) = (FunctionSection::new(), CodeSection::new());
        let mut empty = Function::new([]);
        empty.instruction(&Instruction::End);
        funcs.function(0);
        code.function(&empty);
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
        let mut module = Module::new();
        module.section(&globals);
        module
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
        let mut module = Module::new();
        module.section(&tables);
        module
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
    let module = |count: u64| {
        let mut module = Module::new();
        module.section(&memories(count));
        module
    };
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
    let (mut funcs, mut code) = (FunctionSection::new(), CodeSection::new());
    let mut empty = Function::new([]);
    empty.instruction(&Instruction::End);
    funcs.function(0);
    code.function(&empty);
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
        let mut module = Module::new();
        module.section(&globals);
        module.finish()
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
        let mut module = Module::new();
        module.section(&globals);
        module
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

#[test]
fn locals_of_a_function() {
    let module = |count: usize| {
        let mut body =
            Function::new([(count as u32 / 2, I32), (count as u32 - count as u32 / 2, I32)]);
        body.instruction(&Instruction::End);
        with_body(body)
    };
    body_boundary(50_000 - 1, module, "locals");
}

#[test]
fn bytes_of_a_body() {
    let module = |bytes: usize| {
        let mut body = Function::new([]);
        // The count of locals and the end take a byte each.
        (0..bytes - 2).for_each(|_| {
            body.instruction(&Instruction::Nop);
        });
        body.instruction(&Instruction::End);
        with_body(body)
    };
    body_boundary(7_654_321, module, "size");
}

#[test]
fn blocks_inside_each_other() {
    for open in [Instruction::Block(BlockType::Empty), Instruction::Loop(BlockType::Empty)] {
        let module = |depth: usize| {
            let mut body = Function::new([]);
            (0..depth).for_each(|_| {
                body.instruction(&open);
            });
            (0..=depth).for_each(|_| {
                body.instruction(&Instruction::End);
            });
            with_body(body)
        };
        // The body itself is one.
        body_boundary(limits::NESTING - 1, module, "blocks inside each other");
    }
}

/// Compiles; whether it is taken, and else the message.
fn compiled(module: &Module) -> Result<(), String> {
    let settings = Settings { opt_level: OptLevel::None, ..Settings::default() };
    compile(&module.clone().finish(), &settings).map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn values_passed_by_calls_and_branches() {
    // Each branch passes a thousand values.
    let module = |branches: usize| {
        let mut types = TypeSection::new();
        types.ty().function([I32], []);
        types.ty().function([], std::iter::repeat_n(I32, 1000));
        let mut body = Function::new([]);
        body.instruction(&Instruction::Block(BlockType::FunctionType(1)));
        (0..1000).for_each(|_| {
            body.instruction(&Instruction::LocalGet(0));
        });
        (0..branches).for_each(|_| {
            body.instruction(&Instruction::LocalGet(0)).instruction(&Instruction::BrIf(0));
        });
        body.instruction(&Instruction::End);
        (0..1000).for_each(|_| {
            body.instruction(&Instruction::Drop);
        });
        body.instruction(&Instruction::End);
        let (mut funcs, mut code) = (FunctionSection::new(), CodeSection::new());
        funcs.function(0);
        code.function(&body);
        let mut module = Module::new();
        module.section(&types).section(&funcs).section(&exported()).section(&code);
        module
    };
    // Each branch's operands and what stays: wide ones count more often.
    let count = |branches: u64| branches * 2001 * (2001 / 32);
    let bytes = |branches: u64| 3005 + 4 * branches;
    let limit = |n| limits::PASSED_VALUES + limits::PASSED_VALUES_PER_BYTE * bytes(n);
    let taken = (0..).take_while(|&n| count(n) <= limit(n)).last().unwrap();
    assert!(taken > 0);
    assert_eq!(compiled(&module(taken as usize)), Ok(()));
    let message = compiled(&module(taken as usize + 1)).unwrap_err();
    let (count, limit) = (count(taken + 1), limit(taken + 1));
    let words =
        format!("module has {count} values that calls and branches pass, over the limit of");
    assert!(message.contains(&format!("{words} {limit}")), "{message}");
}

#[test]
fn few_values_at_a_time_are_free() {
    // Many calls of usual width, in a body that is not short.
    let mut types = TypeSection::new();
    types.ty().function([I32; 8], [I32]);
    let mut body = Function::new([]);
    (0..8).for_each(|n| {
        body.instruction(&Instruction::LocalGet(n));
    });
    (0..20_000).for_each(|_| {
        (1..8).for_each(|n| {
            body.instruction(&Instruction::LocalGet(n));
        });
        body.instruction(&Instruction::Call(0));
    });
    (0..7).for_each(|_| {
        body.instruction(&Instruction::Drop);
    });
    body.instruction(&Instruction::End);
    let (mut funcs, mut code) = (FunctionSection::new(), CodeSection::new());
    funcs.function(0);
    code.function(&body);
    let mut module = Module::new();
    module.section(&types).section(&funcs).section(&exported()).section(&code);
    let message = compiled(&module).err();
    assert!(message.as_ref().is_none_or(|m| !m.contains("limit")), "{message:?}");
}

#[test]
fn locals_of_all_functions() {
    let module = |locals: u64| {
        let (mut funcs, mut code) = (FunctionSection::new(), CodeSection::new());
        let mut add = |locals: u64| {
            let mut body = Function::new([(locals as u32, I32)]);
            body.instruction(&Instruction::End);
            funcs.function(0);
            code.function(&body);
        };
        (0..locals / 50_000).for_each(|_| add(50_000));
        add(locals % 50_000);
        let mut module = Module::new();
        module.section(&types(1)).section(&funcs).section(&code);
        module
    };
    assert_eq!(compiled(&module(limits::LOCALS)), Ok(()));
    let message = compiled(&module(limits::LOCALS + 1)).unwrap_err();
    assert!(message.contains("20000001 locals, over the limit of 20000000"), "{message}");
}

#[test]
fn targets_of_branch_tables() {
    let module = |targets: u32| {
        let mut body = Function::new([]);
        for some in [targets / 2, targets - targets / 2] {
            body.instruction(&Instruction::Block(BlockType::Empty));
            body.instruction(&Instruction::LocalGet(0));
            body.instruction(&Instruction::BrTable(vec![0; some as usize].into(), 0));
            body.instruction(&Instruction::End);
        }
        body.instruction(&Instruction::End);
        with_body(body)
    };
    assert_eq!(compiled(&module(limits::BRANCH_TARGETS)), Ok(()));
    let message = compiled(&module(limits::BRANCH_TARGETS + 1)).unwrap_err();
    assert!(message.contains("func0 is too complex: targets of branch tables"), "{message}");
}

#[test]
fn locals_alive_across_loops() {
    let module = |locals: u32, loops: usize| {
        let mut body = Function::new([(locals, I32)]);
        for n in 1..=locals {
            body.instruction(&Instruction::LocalGet(0)).instruction(&Instruction::LocalSet(n));
        }
        (0..loops).for_each(|n| {
            body.instruction(&Instruction::Loop(BlockType::Empty));
            body.instruction(&Instruction::LocalGet(0));
            // A local changes in each loop, so that none is the same before and after.
            body.instruction(&Instruction::LocalTee(n as u32 % locals + 1));
            body.instruction(&Instruction::BrIf(0)).instruction(&Instruction::End);
        });
        for n in 1..=locals {
            body.instruction(&Instruction::LocalGet(n)).instruction(&Instruction::Drop);
        }
        body.instruction(&Instruction::End);
        with_body(body)
    };
    assert_eq!(compiled(&module(900, 1000)), Ok(()));
    let message = compiled(&module(2000, 2000)).unwrap_err();
    assert!(message.contains("func0 is too complex: values"), "{message}");
}

#[test]
fn a_refusal_names_the_function() {
    let mut body = Function::new([]);
    (0..limits::NESTING).for_each(|_| {
        body.instruction(&Instruction::Block(BlockType::Empty));
    });
    (0..=limits::NESTING).for_each(|_| {
        body.instruction(&Instruction::End);
    });
    let error = compile(&with_body(body).finish(), &Settings::default()).unwrap_err();
    assert!(matches!(error, CompileError::TooComplex { .. }), "{error:?}");
    assert!(error.to_string().starts_with("function func0 is too complex"), "{error}");
}
