//! `make bench-engine`: this engine against wasmtime, `WasmEdge` and native code.
//!
//! Built by `bench.sh`, which also builds the corpus and the peers and says where they are. All peers of a
//! measurement take turns in one run; a table and a plot are written at the end. A wrong output of ours fails
//! the run.

mod load;
mod measure;
mod peer;
mod plot;
mod process;
mod program;
mod report;
mod stats;
mod throughput;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use peer::{Peer, Places};
use report::Report;

const USAGE: &str = "usage: make bench-engine BENCH_ARGS=\"[--quick] [--runs N] [--programs A,B] [--peers A,B] \
     [--measures programs,compile,calls,start,servers,files] [--out FOLDER]\"";
/// Modules whose compilation is measured.
const COMPILED: [&str; 4] = ["sqlite", "quickjs", "gofmt", "python"];

struct Options {
    runs: usize,
    quick: bool,
    programs: Vec<String>,
    peers: Vec<String>,
    measures: Vec<String>,
    out: PathBuf,
}

fn main() -> Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let Some((first, rest)) = args.split_first()
        && first == process::HELPER
    {
        return process::helper(rest);
    }
    let options = parse(args)?;
    let places = places()?;
    fs::create_dir_all(&options.out)?;
    let report = measure(&options, &places)?;
    let text = report.markdown();
    println!("{text}");
    fs::write(options.out.join("report.md"), &text)?;
    fs::write(options.out.join("report.json"), serde_json::to_string_pretty(&report)? + "\n")?;
    if !report.programs.is_empty() {
        fs::write(options.out.join("report.svg"), plot::svg(&report.programs))?;
    }
    fs::remove_dir_all(&places.scratch)?;
    eprintln!("bench: written to {}", options.out.display());
    if !report.sound() {
        eprintln!("bench: failed: a program went wrong under this engine");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn parse(args: Vec<String>) -> Result<Options> {
    let mut options = Options {
        runs: 5,
        quick: false,
        programs: Vec::new(),
        peers: Vec::new(),
        measures: Vec::new(),
        out: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/report")),
    };
    let list = |text: String| text.split(',').map(str::to_owned).collect();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value; {USAGE}"));
        match arg.as_str() {
            "--quick" => (options.quick, options.runs) = (true, 1),
            "--runs" => options.runs = value()?.parse().context("--runs needs a number")?,
            "--programs" => options.programs = list(value()?),
            "--peers" => options.peers = list(value()?),
            "--measures" => options.measures = list(value()?),
            "--out" => options.out = value()?.into(),
            _ => bail!("unknown argument {arg}; {USAGE}"),
        }
    }
    if options.runs == 0 {
        bail!("--runs needs at least 1");
    }
    Ok(options)
}

/// Where things are, from the environment that `bench.sh` sets.
fn places() -> Result<Places> {
    let path = |name: &str| {
        let value = std::env::var_os(name);
        value
            .map(PathBuf::from)
            .with_context(|| format!("{name} is not set: start with make bench-engine"))
    };
    let scratch = std::env::temp_dir().join(format!("coracle-bench-{}", std::process::id()));
    let images = path("BENCH_IMAGES")?;
    for folder in [&scratch, &images] {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    Ok(Places {
        corpus: path("BENCH_CORPUS")?,
        images,
        our_compiler: path("BENCH_OUR_COMPILER")?,
        our_runner: path("BENCH_OUR_RUNNER")?,
        wasmtime: path("BENCH_WASMTIME")?,
        wasmedge: path("BENCH_WASMEDGE")?,
        scratch,
    })
}

fn measure(options: &Options, places: &Places) -> Result<Report> {
    let peers = Peer::select(&options.peers)?;
    let programs = program::select(&options.programs)?;
    let wanted =
        |name: &str| options.measures.iter().any(|m| m == name) || options.measures.is_empty();
    let mut report = Report { about: about(options, places), ..Report::default() };
    if wanted("programs") {
        report.programs = measure::programs(places, &programs, &peers, options.runs, true)?;
    }
    // WasmEdge's compiler takes minutes for the large ones and is no yardstick here.
    let compilers: Vec<Peer> = peers
        .iter()
        .copied()
        .filter(|peer| !matches!(peer, Peer::Native | Peer::Wasmedge))
        .collect();
    if wanted("compile") {
        let chosen = |name: &&str| programs.iter().any(|program| program.name == *name);
        let modules: Vec<&str> = COMPILED.into_iter().filter(chosen).collect();
        let modules = if options.quick { &modules[..modules.len().min(1)] } else { &modules[..] };
        let runs = options.runs.min(3);
        report.compilations = measure::compilation(places, modules, &compilers, runs)?;
    }
    if wanted("calls") {
        report.calls = measure::host_calls(places, options.runs)?;
    }
    if wanted("start") {
        let runs = if options.quick { 5 } else { 4 * options.runs.max(5) };
        report.start = Some(measure::start(places, &peers, runs)?);
    }
    if wanted("servers") {
        report.rates.extend(throughput::servers(places, &peers, options.runs)?);
    }
    if wanted("files") {
        report.rates.extend(throughput::files(places, &peers, options.runs)?);
    }
    Ok(report)
}

fn about(options: &Options, places: &Places) -> Vec<(String, String)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name").and_then(|rest| rest.split_once(": ")))
        .map_or("unknown".to_owned(), |(_, name)| name.to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').take(3).collect::<Vec<_>>().join(", ");
    let runs = format!(
        "{} of each, in random order, each from a fresh file, after one to warm up; ours and wasmtime's up \
         to {} where a median was not sure to {} %",
        options.runs,
        options.runs * measure::MORE,
        measure::EXACT * 100.0,
    );
    let line = |label: &str, text: String| (label.to_owned(), text);
    vec![
        line("machine", format!("{cpu}, {cores} cores, Linux {}", kernel.trim())),
        line("load when it began (1, 5, 15 minutes)", load),
        line("runs", runs),
        line(
            "peers",
            format!(
                "wasmtime 48.0.8 (same Cranelift), its fastest settings (inlining, 2 GiB guard), {}, native \
                 code of the same sources (clang -O3, rustc, Go; any x86-64)",
                version(&places.wasmedge)
            ),
        ),
    ]
}

fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    output.map_or("WasmEdge".to_owned(), |output| {
        let text = String::from_utf8_lossy(&output.stdout);
        let number =
            text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        format!("WasmEdge {} (LLVM, AOT)", number.unwrap_or_default())
    })
}
