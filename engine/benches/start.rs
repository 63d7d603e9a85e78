//! What it costs to start a guest from a code image, step by step.
//!
//! A fresh process for each sample, as in production: this program runs itself again, and the child
//! prints how long each step took. Run with `cargo bench -p coracle-engine --bench start`.

#![allow(clippy::unwrap_used, reason = "a measurement may fail where it stands")]

use std::fs::File;
use std::io::Write;
use std::process::Command;
use std::time::Instant;

use coracle_engine::compile::compile;
use coracle_engine::config::{Addressing, Settings};
use coracle_engine::runtime::{Caller, Engine, Linker, Module, Store};

const CHILD: &str = "CORACLE_BENCH_IMAGE";
const SAMPLES: usize = 200;
const STEPS: [&str; 6] = ["load", "store", "linker", "instantiate", "call", "drop"];

const HELLO: &str = r#"(module
    (import "host" "write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 8) "\10\00\00\00\06\00\00\00hello\n")
    (func (export "_start")
        (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 4)))))"#;

fn main() {
    if let Some(path) = std::env::var_os(CHILD) {
        return start(&File::open(path).unwrap());
    }
    for addressing in [Addressing::Generic, Addressing::Dedicated] {
        let settings = Settings { addressing, ..Settings::default() };
        let image = compile(&wat::parse_str(HELLO).unwrap(), &settings).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&image).unwrap();
        let mut samples = vec![Vec::new(); STEPS.len() + 1];
        for _ in 0..SAMPLES {
            let begin = Instant::now();
            let mut command = Command::new(std::env::current_exe().unwrap());
            let output = command.env(CHILD, file.path()).output().unwrap();
            samples[STEPS.len()].push(begin.elapsed().as_secs_f64() * 1e6);
            let text = String::from_utf8(output.stdout).unwrap();
            for (sample, step) in samples.iter_mut().zip(text.split_whitespace()) {
                sample.push(step.parse().unwrap());
            }
        }
        print!("{addressing:?}: microseconds, median of {SAMPLES}:");
        let mut sum = 0.0;
        for (name, sample) in STEPS.iter().chain(&["process"]).zip(&mut samples) {
            sample.sort_by(f64::total_cmp);
            let median = sample[sample.len() / 2];
            print!(" {name} {median:.0}");
            sum += if *name == "process" { 0.0 } else { median };
        }
        println!(", steps together {sum:.0}");
    }
}

fn start(file: &File) {
    let mut times = Vec::new();
    let mut last = Instant::now();
    let mut lap = || {
        times.push(last.elapsed());
        last = Instant::now();
    };
    let engine = Engine::new();
    let module = Module::from_file(&engine, file).unwrap();
    lap();
    let mut store = Store::new(&engine).unwrap();
    lap();
    let mut linker = Linker::new(&engine);
    // As many definitions as WASI preview 1 has.
    for name in (0..45).map(|n| format!("other{n}")) {
        linker.func_wrap("host", name, |_: Caller<'_>, _: i32| 0);
    }
    linker.func_wrap("host", "write", |mut caller: Caller<'_>, _: i32, at: i32, _: i32, _: i32| {
        let memory = caller.memory().unwrap();
        i32::from(memory[at as usize])
    });
    lap();
    let instance = linker.instantiate(&mut store, &module).unwrap();
    lap();
    let func = instance.func(&store, "_start").unwrap();
    func.call(&mut store, &[], &mut Vec::new()).unwrap();
    lap();
    drop((linker, module, store));
    lap();
    let times: Vec<String> = times.iter().map(|t| (t.as_secs_f64() * 1e6).to_string()).collect();
    println!("{}", times.join(" "));
}
