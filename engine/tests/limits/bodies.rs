//! Limits that are seen when functions are compiled: what their bodies hold.

use coracle_engine::compile::{CompileError, compile};
use coracle_engine::config::{OptLevel, Settings};
use coracle_engine::module::limits;
use wasm_encoder::{BlockType, Function, Instruction, Module, TypeSection};

use crate::{I32, functions, types, with_body, with_types_and_body};

/// The same for what is only seen when the function is compiled.
fn body_boundary(n: usize, module: impl Fn(usize) -> Module, words: &str) {
    let settings = Settings { opt_level: OptLevel::None, ..Settings::default() };
    let at = compile(&module(n).finish(), &settings);
    assert!(at.is_ok(), "{n} should be taken: {}", at.unwrap_err());
    let error = compile(&module(n + 1).finish(), &settings).expect_err("should be refused");
    let message = error.to_string();
    assert!(message.contains(words), "{message} should contain {words}");
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
        with_types_and_body(&types, &body)
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
    let message = compiled(&with_types_and_body(&types, &body)).err();
    assert!(message.as_ref().is_none_or(|m| !m.contains("limit")), "{message:?}");
}

#[test]
fn locals_of_all_functions() {
    let module = |locals: u64| {
        let body = |locals: u64| {
            let mut body = Function::new([(locals as u32, I32)]);
            body.instruction(&Instruction::End);
            body
        };
        let full = (0..locals / 50_000).map(|_| body(50_000));
        let (funcs, code) = functions(full.chain([body(locals % 50_000)]));
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

/// Calls with a handler for each of some tags, and locals that change before each call.
fn calls_with_handlers(calls: usize, handlers: usize, locals: usize) -> String {
    let each =
        |count: usize, text: &dyn Fn(usize) -> String| (0..count).map(text).collect::<String>();
    let change =
        each(locals, &|n| format!("(local.set {n} (i32.add (local.get {n}) (i32.const 1)))"));
    format!(
        "(module {} (memory 1) (func $f (export \"f\") (local {})
            (block $out (try_table {} {}))
            {}))",
        each(handlers, &|n| format!("(tag $t{n})")),
        "i32 ".repeat(locals),
        each(handlers, &|n| format!("(catch $t{n} $out)")),
        each(calls, &|_| format!("(call $f) {change}")),
        each(locals, &|n| format!("(i32.store (i32.const 0) (local.get {n}))")),
    )
}

#[test]
fn values_passed_to_handlers() {
    let compiled = |calls, handlers, locals| {
        compile(calls_with_handlers(calls, handlers, locals).as_bytes(), &Settings::default())
    };
    assert!(compiled(30, 10, 30).is_ok());
    // Many handlers to which little is passed, and the other way round.
    assert!(compiled(100, 100, 1).is_ok());
    assert!(compiled(30, 1, 1_000).is_ok());
    let message = compiled(60, 60, 60).expect_err("should be refused").to_string();
    assert!(message.contains("func0 is too complex: values passed to handlers"), "{message}");
}
