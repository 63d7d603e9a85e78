//! What modules cost that are made to be expensive to compile: processor time and memory.
//!
//! Each is compiled in a process of its own, by this program run again. Run with
//! `cargo bench -p coracle-engine --bench hostile [-- PART-OF-A-NAME…]`; the table is in README.md.

#![allow(clippy::unwrap_used, reason = "a measurement may fail where it stands")]

use std::process::Command;

use coracle_engine::compile::compile;
use coracle_engine::config::{Features, OptLevel, Settings};
use wasm_encoder::{
    BlockType, Catch, CodeSection, ElementSection, Elements, ExportKind, ExportSection, Function,
    FunctionSection, Instruction, MemArg, MemArgTarget, MemorySection, MemoryType, Module, TagKind,
    TagSection, TagType, TypeSection, ValType,
};

const CHILD: &str = "CORACLE_BENCH_CASE";
const I32: ValType = ValType::I32;
/// Bytes of the largest body that the validator lets pass.
const BODY: usize = 7_654_321;

/// A name and what makes the module.
type Case = (&'static str, fn() -> Vec<u8>);

const CASES: &[Case] = &[
    ("1 MiB of i32.add", || one(&[], |body| additions(body, 1 << 20))),
    ("7.6 MB of i32.add", || one(&[], |body| additions(body, BODY - 100))),
    ("7.6 MB of calls", || one(&[], |body| repeat(body, &[Instruction::Call(0)], BODY / 2 - 50))),
    ("7.6 MB of loads and stores", loads_and_stores),
    ("1 M values on the stack", values_on_the_stack),
    ("50,000 locals, 1,000 functions", || many(1_000, &[(49_999, I32)], |_| {})),
    ("50,000 locals in runs of one, 100 functions", || {
        let locals = (0..49_999).map(|n| (1, if n % 2 == 0 { I32 } else { ValType::I64 }));
        many(100, &locals.collect::<Vec<_>>(), |_| {})
    }),
    ("1,000 locals live across 1,000 loops", || locals_across_loops(1_000, 1_000)),
    ("10,000 locals live across 1,000 loops", || locals_across_loops(10_000, 1_000)),
    ("1,000 locals live across 10,000 loops", || locals_across_loops(1_000, 10_000)),
    ("nested blocks, 19,999", || {
        nested(|body| body.instruction(&Instruction::Block(BlockType::Empty)), 19_999)
    }),
    ("nested loops, 19,999", || {
        nested(|body| body.instruction(&Instruction::Loop(BlockType::Empty)), 19_999)
    }),
    ("nested ifs, 19,999", || {
        nested(
            |body| {
                body.instruction(&Instruction::LocalGet(0))
                    .instruction(&Instruction::If(BlockType::Empty))
            },
            19_999,
        )
    }),
    ("nested ifs of nine locals, 19,999", nested_ifs_with_locals),
    ("br_table of 7.6 M targets", || one(&[], |body| table_of(body, 1, BODY - 100))),
    ("br_table of 1 M targets in 10,000 blocks", || {
        one(&[], |body| table_of(body, 10_000, 1_000_000))
    }),
    ("100 br_tables of 10,000 targets in 10,000 blocks", many_tables),
    ("100,000 ifs after each other", || {
        one(&[], |body| {
            repeat(
                body,
                &[Instruction::LocalGet(0), Instruction::If(BlockType::Empty), Instruction::End],
                100_000,
            );
        })
    }),
    ("1 M ifs after each other", || {
        one(&[], |body| {
            repeat(
                body,
                &[Instruction::LocalGet(0), Instruction::If(BlockType::Empty), Instruction::End],
                1_000_000,
            );
        })
    }),
    ("3,900 calls passing 1,000 values", calls_that_pass),
    ("100 functions of 3,900 calls passing 1,000 values", || calls_in_functions(100)),
    ("30 functions that call the next twice", tree_of_calls),
    ("a small function called 100,000 times", small_function_called_often),
    ("29,990 calls with a handler", || handlers(1, 29_990, 0)),
    ("290 calls with 100 handlers", || handlers(100, 290, 0)),
    ("2 calls with 9,900 handlers", || handlers(9_900, 2, 0)),
    ("10 calls with 100 handlers, 100 locals that change", || handlers(100, 10, 10)),
    ("14 calls with 100 handlers, 140 locals that change", || handlers(100, 14, 10)),
    ("50 calls with 100 handlers, 500 locals that change", || handlers(100, 50, 10)),
    ("400,000 functions", || many(399_999, &[], |_| {})),
    ("2,000 types of 1,000 parameters and results", || wide_types(2_000, 1_000)),
    ("30,000 types of 16 parameters and results", || wide_types(30_000, 16)),
];

fn main() {
    if let Ok(case) = std::env::var(CHILD) {
        let (name, opt_level) = case.split_once(':').unwrap();
        let opt_level = if opt_level == "none" { OptLevel::None } else { OptLevel::Speed };
        return child(CASES[name.parse::<usize>().unwrap()].1, opt_level);
    }
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    println!("| module | bytes | optimised: CPU s | MiB | not optimised: CPU s | MiB | outcome |");
    println!("|---|---|---|---|---|---|---|");
    for (n, (name, make)) in CASES.iter().enumerate() {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let mut row = format!("| {name} | {} |", make().len());
        let mut outcome = String::new();
        for level in ["speed", "none"] {
            let mut command = Command::new(std::env::current_exe().unwrap());
            let output = command.env(CHILD, format!("{n}:{level}")).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            match text.trim().splitn(3, ' ').collect::<Vec<_>>()[..] {
                [cpu, memory, said] => {
                    row += &format!(" {cpu} | {memory} |");
                    outcome = said.to_owned();
                }
                _ => row += &format!(" - | - | ended with {} |", output.status),
            }
        }
        println!("{row} {outcome} |");
    }
}

/// Compiles and prints processor time, peak memory and the outcome.
fn child(make: fn() -> Vec<u8>, opt_level: OptLevel) {
    let wasm = make();
    let before = processor_seconds();
    let settings = Settings { opt_level, features: Features::default(), ..Settings::default() };
    let result = compile(&wasm, &settings);
    let cpu = processor_seconds() - before;
    let outcome = match result {
        Ok(image) => format!("{} bytes of image", image.len()),
        Err(error) => error.to_string(),
    };
    println!("{cpu:.2} {} {outcome}", peak_mebibytes());
}

/// Processor time of the process, from its accounting in hundredths of a second.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks = |n: usize| fields[n].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

fn peak_mebibytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// A module with `count` functions `(param i32)` of equal locals and bodies.
fn many(count: u32, locals: &[(u32, ValType)], body: impl Fn(&mut Function)) -> Vec<u8> {
    let (mut types, mut funcs, mut code) =
        (TypeSection::new(), FunctionSection::new(), CodeSection::new());
    types.ty().function([I32], []);
    types.ty().function([], []);
    let mut function = Function::new(locals.iter().copied());
    body(&mut function);
    function.instruction(&Instruction::End);
    for _ in 0..count {
        funcs.function(0);
        code.function(&function);
    }
    funcs.function(1);
    let mut last = Function::new([]);
    last.instruction(&Instruction::End);
    code.function(&last);
    let memories = one_memory();
    let mut module = Module::new();
    module.section(&types).section(&funcs).section(&memories);
    finish(module, count + 1, &code)
}

fn one_memory() -> MemorySection {
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    memories
}

/// Completes a module whose functions are all in use: none may be left out.
fn finish(mut module: Module, functions: u32, code: &CodeSection) -> Vec<u8> {
    let mut exports = ExportSection::new();
    exports.export("f", ExportKind::Func, 0);
    let mut elements = ElementSection::new();
    elements.passive(Elements::Functions((0..functions).collect::<Vec<_>>().into()));
    module.section(&exports).section(&elements).section(code);
    module.finish()
}

fn one(locals: &[(u32, ValType)], body: impl Fn(&mut Function)) -> Vec<u8> {
    many(1, locals, body)
}

fn repeat(body: &mut Function, instructions: &[Instruction<'_>], times: usize) {
    for _ in 0..times {
        instructions.iter().for_each(|instruction| {
            let instruction = match instruction {
                // The function without parameters is the last of two.
                Instruction::Call(_) => &Instruction::Call(1),
                other => other,
            };
            body.instruction(instruction);
        });
    }
}

fn additions(body: &mut Function, bytes: usize) {
    body.instruction(&Instruction::LocalGet(0));
    repeat(body, &[Instruction::LocalGet(0), Instruction::I32Add], bytes / 3);
    body.instruction(&Instruction::Drop);
}

/// An aligned word of memory 0.
fn word(offset: u64) -> MemArg {
    MemArg { offset, align: 2, target: MemArgTarget::Memory(0), ordering: None }
}

fn loads_and_stores() -> Vec<u8> {
    let at = word(0);
    let step = [
        Instruction::LocalGet(0),
        Instruction::LocalGet(0),
        Instruction::I32Load(at),
        Instruction::LocalTee(0),
        Instruction::I32Store(at),
    ];
    one(&[], |body| repeat(body, &step, BODY / 12 - 10))
}

fn values_on_the_stack() -> Vec<u8> {
    one(&[], |body| {
        for n in 0..1_000_000u64 {
            body.instruction(&Instruction::LocalGet(0));
            body.instruction(&Instruction::I32Load(word(n % 64)));
        }
        repeat(body, &[Instruction::I32Add], 999_999);
        body.instruction(&Instruction::Drop);
    })
}

/// Locals that are set before loops and read after them: each is an argument of every loop.
fn locals_across_loops(locals: u32, loops: usize) -> Vec<u8> {
    one(&[(locals, I32)], |body| {
        for n in 1..=locals {
            body.instruction(&Instruction::LocalGet(0))
                .instruction(&Instruction::I32Const(n as i32));
            body.instruction(&Instruction::I32Add).instruction(&Instruction::LocalSet(n));
        }
        let turn = [
            Instruction::Loop(BlockType::Empty),
            Instruction::LocalGet(0),
            Instruction::BrIf(0),
            Instruction::End,
        ];
        repeat(body, &turn, loops);
        for n in 1..=locals {
            body.instruction(&Instruction::LocalGet(0)).instruction(&Instruction::LocalGet(n));
            body.instruction(&Instruction::I32Store(word(0)));
        }
    })
}

fn nested(open: impl Fn(&mut Function) -> &mut Function, depth: usize) -> Vec<u8> {
    one(&[], |body| {
        for _ in 0..depth {
            open(body);
        }
        repeat(body, &[Instruction::End], depth);
    })
}

fn nested_ifs_with_locals() -> Vec<u8> {
    one(&[(9, I32)], |body| {
        for n in 0..19_999u32 {
            body.instruction(&Instruction::LocalGet(0))
                .instruction(&Instruction::LocalSet(n % 9 + 1));
            body.instruction(&Instruction::LocalGet(n % 9 + 1));
            body.instruction(&Instruction::If(BlockType::Empty));
        }
        repeat(body, &[Instruction::End], 19_999);
    })
}

/// A table whose targets are spread over so many blocks.
fn table_of(body: &mut Function, blocks: u32, targets: usize) {
    repeat(body, &[Instruction::Block(BlockType::Empty)], blocks as usize);
    let targets: Vec<u32> = (0..targets as u32).map(|n| n % blocks).collect();
    body.instruction(&Instruction::LocalGet(0));
    body.instruction(&Instruction::BrTable(targets.into(), 0));
    repeat(body, &[Instruction::End], blocks as usize);
}

fn many_tables() -> Vec<u8> {
    one(&[], |body| {
        repeat(body, &[Instruction::Block(BlockType::Empty)], 10_000);
        let targets: Vec<u32> = (0..10_000).collect();
        for _ in 0..100 {
            body.instruction(&Instruction::Block(BlockType::Empty));
            body.instruction(&Instruction::LocalGet(0));
            body.instruction(&Instruction::BrTable(targets.as_slice().into(), 0));
            body.instruction(&Instruction::End);
        }
        repeat(body, &[Instruction::End], 10_000);
    })
}

fn calls_that_pass() -> Vec<u8> {
    calls_in_functions(1)
}

/// Functions that hand a thousand values from call to call.
fn calls_in_functions(count: u32) -> Vec<u8> {
    let (mut types, mut funcs, mut code) =
        (TypeSection::new(), FunctionSection::new(), CodeSection::new());
    let wide = vec![I32; 1000];
    types.ty().function(wide.clone(), wide);
    let mut same = Function::new([]);
    (0..1000).for_each(|n| {
        same.instruction(&Instruction::LocalGet(n));
    });
    same.instruction(&Instruction::End);
    funcs.function(0);
    code.function(&same);
    for _ in 0..count {
        let mut function = Function::new([]);
        (0..1000).for_each(|n| {
            function.instruction(&Instruction::LocalGet(n));
        });
        (0..1_950).for_each(|_| {
            function.instruction(&Instruction::Call(0));
        });
        function.instruction(&Instruction::End);
        funcs.function(0);
        code.function(&function);
    }
    let mut module = Module::new();
    module.section(&types).section(&funcs);
    finish(module, count + 1, &code)
}

/// Each function calls the next twice: in place of its calls, all of it would be 2^30 bodies.
fn tree_of_calls() -> Vec<u8> {
    let (mut types, mut funcs, mut code) =
        (TypeSection::new(), FunctionSection::new(), CodeSection::new());
    types.ty().function([I32], [I32]);
    for n in 0..31 {
        let mut function = Function::new([]);
        function.instruction(&Instruction::LocalGet(0));
        if n < 30 {
            (0..2).for_each(|_| {
                function.instruction(&Instruction::Call(n + 1));
            });
        }
        function.instruction(&Instruction::End);
        funcs.function(0);
        code.function(&function);
    }
    let mut module = Module::new();
    module.section(&types).section(&funcs);
    finish(module, 31, &code)
}

/// A small function called from a hundred thousand places.
fn small_function_called_often() -> Vec<u8> {
    let (mut types, mut funcs, mut code) =
        (TypeSection::new(), FunctionSection::new(), CodeSection::new());
    types.ty().function([I32], [I32]);
    let mut small = Function::new([]);
    small.instruction(&Instruction::LocalGet(0)).instruction(&Instruction::If(BlockType::Empty));
    small.instruction(&Instruction::End).instruction(&Instruction::LocalGet(0));
    small.instruction(&Instruction::End);
    let mut large = Function::new([]);
    large.instruction(&Instruction::LocalGet(0));
    (0..100_000).for_each(|_| {
        large.instruction(&Instruction::Call(0));
    });
    large.instruction(&Instruction::End);
    for function in [small, large] {
        funcs.function(0);
        code.function(&function);
    }
    let mut module = Module::new();
    module.section(&types).section(&funcs);
    finish(module, 2, &code)
}

/// Calls inside a `try_table`: each has a handler for every clause. After each call some locals
/// change, which are read at the end: all of them are arguments of every handler.
fn handlers(clauses: u32, calls: u32, locals_each: u32) -> Vec<u8> {
    let (mut types, mut funcs, mut code) =
        (TypeSection::new(), FunctionSection::new(), CodeSection::new());
    types.ty().function([], []);
    let mut tags = TagSection::new();
    for _ in 0..clauses {
        tags.tag(TagType { kind: TagKind::Exception, func_type_idx: 0 });
    }
    let catches: Vec<Catch> = (0..clauses).map(|tag| Catch::One { tag, label: 0 }).collect();
    let mut function = Function::new([(calls * locals_each, I32)]);
    function.instruction(&Instruction::Block(BlockType::Empty));
    function.instruction(&Instruction::TryTable(BlockType::Empty, catches.into()));
    for call in 0..calls {
        // Itself, so that nothing can stand in place of the call.
        function.instruction(&Instruction::Call(0));
        for local in call * locals_each..(call + 1) * locals_each {
            function.instruction(&Instruction::I32Const(local as i32 + 1));
            function.instruction(&Instruction::LocalSet(local));
        }
    }
    function.instruction(&Instruction::End).instruction(&Instruction::End);
    for local in 0..calls * locals_each {
        function.instruction(&Instruction::I32Const(0)).instruction(&Instruction::LocalGet(local));
        function.instruction(&Instruction::I32Store(word(0)));
    }
    function.instruction(&Instruction::End);
    funcs.function(0);
    code.function(&function);
    let memories = one_memory();
    let mut module = Module::new();
    module.section(&types).section(&funcs).section(&memories).section(&tags);
    finish(module, 1, &code)
}

fn wide_types(count: usize, values: usize) -> Vec<u8> {
    let mut types = TypeSection::new();
    for n in 0..count {
        let kinds = |bit: usize| if n >> (bit % 16) & 1 == 0 { I32 } else { ValType::I64 };
        types.ty().function((0..values).map(kinds), (0..values).map(kinds));
    }
    Module::new().section(&types).clone().finish()
}
