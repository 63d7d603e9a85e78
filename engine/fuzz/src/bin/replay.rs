//! usage: replay TARGET FILE…       runs inputs of a target, as the fuzzer does
//!        replay execute --text FILE  prints the module that an input of `execute` stands for
//!
//! Files that end in `.wat` or `.wasm` are modules themselves.

use std::process::ExitCode;

use coracle_fuzz::{corpus, execute, stats};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["execute", "--text", file] => print(file),
        [target, ref files @ ..] if !files.is_empty() => files
            .iter()
            .try_for_each(|file| corpus::replay(target, file.as_ref()).map_err(|e| e.to_string())),
        _ => Err("usage: replay TARGET FILE…, or replay execute --text FILE".to_owned()),
    };
    match result {
        Ok(()) => {
            stats::all().iter().for_each(|(what, count)| println!("{count:>8} {what}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("replay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print(file: &str) -> Result<(), String> {
    let data = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    let wasm = execute::module(&data).ok_or_else(|| format!("{file} stands for no module"))?;
    print!("{}", wasmprinter::print_bytes(&wasm).map_err(|error| error.to_string())?);
    Ok(())
}
