//! The measurements: programs, compilation, host calls, start. Peers take turns within each round, in
//! another order each round, so that the machine's moods fall on all alike.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::peer::{Peer, Places, Ready};
use crate::process::{self, Invocation, Sample};
use crate::program::Program;
use crate::stats::Summary;

/// What a process took over all runs.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Cost {
    /// Processor time of the whole process in seconds.
    pub(crate) cpu: Summary,
    /// Wall time of the whole process in seconds.
    pub(crate) wall: Summary,
    /// Peak resident memory in bytes.
    pub(crate) rss: Summary,
    /// Processor time from entering the program until it ended, in seconds; only from runners that
    /// tell.
    pub(crate) compute: Option<Summary>,
}

impl Cost {
    fn of(samples: &[(Sample, Option<f64>)]) -> Option<Cost> {
        Some(Cost {
            cpu: Summary::of(samples.iter().map(|(sample, _)| sample.cpu))?,
            wall: Summary::of(samples.iter().map(|(sample, _)| sample.wall))?,
            rss: Summary::of(samples.iter().map(|(sample, _)| sample.rss))?,
            compute: Summary::of(samples.iter().filter_map(|(_, compute)| *compute)),
        })
    }
}

/// One row: a program with its costs, and what went wrong.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) costs: BTreeMap<Peer, Cost>,
    /// Refusals, bad exits, wrong output: by peer.
    pub(crate) failures: BTreeMap<Peer, String>,
}

/// Runs every program under every peer, `runs` times each; ours and those that goals hold it against more
/// often where the results say too little. The first run of each warms the caches; its output must be
/// the same under all peers.
/// `timed` asks runners for the time within the program, which costs them a file.
///
/// # Errors
/// When files cannot be written. What a peer does wrong is in the row.
pub(crate) fn programs(
    places: &Places,
    programs: &[Program],
    peers: &[Peer],
    runs: usize,
    timed: bool,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut ready: Vec<Vec<Ready>> = Vec::new();
    for program in programs {
        let mut row = Row {
            name: program.name.to_owned(),
            about: program.about.to_owned(),
            costs: BTreeMap::new(),
            failures: BTreeMap::new(),
        };
        ready.push(warm_up(places, program, peers, &mut row)?);
        rows.push(row);
    }
    let mut samples: Vec<Samples> = vec![BTreeMap::new(); programs.len()];
    let output = places.scratch.join("output.txt");
    for round in 0..runs * MORE {
        for ((program, ready), samples) in programs.iter().zip(&ready).zip(&mut samples) {
            if round >= runs && settled(samples, &HELD_AGAINST) {
                continue;
            }
            let most = runs * MORE;
            eprintln!("bench: round {} of {runs} to {most}: {}", round + 1, program.name);
            for one in order(round, ready.len()).into_iter().map(|n| &ready[n]) {
                if round >= runs && !HELD_AGAINST.contains(&one.peer) {
                    continue;
                }
                let fresh = places.fresh_copy(one)?;
                let sample = if timed {
                    places.run_timed(&fresh, &[], program.data, program.args, &output)?
                } else {
                    (places.run(&fresh, program, &output)?, None)
                };
                fs::remove_file(&fresh.file)?;
                samples.entry(one.peer).or_default().push(sample);
            }
        }
    }
    for (row, samples) in rows.iter_mut().zip(&samples) {
        row.costs = samples.iter().filter_map(|(&peer, s)| Some((peer, Cost::of(s)?))).collect();
    }
    Ok(rows)
}

/// An order of the peers for a round, different for each round and the same in every run of the
/// harness: a peer that always ran after the same one would inherit that one's caches and pages.
pub(crate) fn order(round: usize, peers: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..peers).collect();
    // Fisher and Yates' shuffle with a multiplicative generator.
    let mut state = (round as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for last in (1..peers).rev() {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        order.swap(last, (state >> 33) as usize % (last + 1));
    }
    order
}

/// What each peer took: the process, and the time within the program.
type Samples = BTreeMap<Peer, Vec<(Sample, Option<f64>)>>;

/// How many times as many runs a program gets as asked, at most. Single runs of one whose data lie in
/// the cache that a machine's guests share vary by a fifth; 40 of them are sure to 2 %.
pub(crate) const MORE: usize = 8;
/// How many times as many runs a compilation gets as asked, at most: they take longer and vary less.
const MORE_COMPILATIONS: usize = 2;
/// How exactly medians of processor time should be known, as a share of them.
pub(crate) const EXACT: f64 = 0.02;
/// Ours, and what goals hold it against.
const HELD_AGAINST: [Peer; 3] = [Peer::Coracle, Peer::Wasmtime, Peer::WasmtimeFastest];

/// Whether more runs of these would hardly move their ratios.
fn settled(samples: &Samples, judged: &[Peer]) -> bool {
    judged.iter().filter_map(|peer| samples.get(peer)).all(|samples| {
        let cpu = Summary::of(samples.iter().map(|(sample, _)| sample.cpu));
        cpu.is_some_and(|cpu| cpu.uncertainty <= EXACT)
    })
}

/// Compiles a program for each peer, runs it once and compares the outputs; what remains can be measured.
fn warm_up(
    places: &Places,
    program: &Program,
    peers: &[Peer],
    row: &mut Row,
) -> Result<Vec<Ready>> {
    let mut outputs: BTreeMap<Peer, Vec<u8>> = BTreeMap::new();
    let mut ready = Vec::new();
    let file = places.scratch.join("output.txt");
    for &peer in peers {
        let one = match places.prepare(peer, program) {
            Ok(Some(one)) => one,
            Ok(None) => continue,
            Err(error) => {
                row.failures.insert(peer, places.portable(&format!("{error:#}")));
                continue;
            }
        };
        match places.run(&one, program, &file) {
            Ok(_) => {
                outputs.insert(peer, fs::read(&file)?);
                ready.push(one);
            }
            Err(error) => {
                row.failures.insert(peer, places.portable(&format!("{error:#}")));
            }
        }
    }
    // Native code knows best; without it, wasmtime.
    let judge = [Peer::Native, Peer::Wasmtime].into_iter().find(|peer| outputs.contains_key(peer));
    if let Some(judge) = judge {
        for (&peer, output) in &outputs {
            if *output != outputs[&judge] {
                let other = judge.name();
                row.failures.insert(peer, format!("its output is not that of {other}"));
            }
        }
    }
    ready.retain(|one| !row.failures.contains_key(&one.peer));
    Ok(ready)
}

/// Compilation of one module by one peer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Compilation {
    pub(crate) module: String,
    /// Size of the module's code section in bytes.
    pub(crate) code_bytes: u64,
    pub(crate) peer: Peer,
    pub(crate) one_core: bool,
    pub(crate) cost: Cost,
    /// Size of the compiled file in bytes.
    pub(crate) image_bytes: u64,
}

/// Compiles modules by peers on one processor and on all, `runs` times, and more often where the
/// results say too little, but for wasmtime's fastest settings: compiling takes them several times as
/// long, and no goal depends on it.
///
/// # Errors
/// When a module is missing or no module, or a peer refuses it.
pub(crate) fn compilation(
    places: &Places,
    modules: &[&str],
    peers: &[Peer],
    runs: usize,
) -> Result<Vec<Compilation>> {
    let image = places.scratch.join("compiled.so");
    let output = places.scratch.join("output.txt");
    let mut done = Vec::new();
    for &module in modules {
        let path = places.corpus.join(format!("{module}.wasm"));
        let code_bytes = code_section(&path)?;
        let mut samples: BTreeMap<bool, Samples> = BTreeMap::new();
        let mut sizes = BTreeMap::new();
        // One more than asked: the first warms the caches.
        for round in 0..=runs * MORE_COMPILATIONS {
            let defaults = [Peer::Coracle, Peer::Wasmtime];
            if round > runs && samples.values().all(|samples| settled(samples, &defaults)) {
                break;
            }
            eprintln!(
                "bench: compiling {module}, round {round} of {runs} to {}",
                runs * MORE_COMPILATIONS
            );
            for one_core in [true, false] {
                for peer in order(round, peers.len()).into_iter().map(|n| peers[n]) {
                    if round > runs && !defaults.contains(&peer) {
                        continue;
                    }
                    let Some(line) = places.compile_command(peer, &path, &image) else { continue };
                    let sample = process::run(&Invocation { line, one_core }, &output)?;
                    sizes.insert(peer, fs::metadata(&image)?.len());
                    if round > 0 {
                        let on = samples.entry(one_core).or_default();
                        on.entry(peer).or_default().push((sample, None));
                    }
                }
            }
        }
        for (one_core, samples) in samples {
            for (peer, samples) in samples {
                let Some(cost) = Cost::of(&samples) else { continue };
                let image_bytes = sizes[&peer];
                let module = module.to_owned();
                done.push(Compilation { module, code_bytes, peer, one_core, cost, image_bytes });
            }
        }
    }
    Ok(done)
}

/// Size of the code section of a module in bytes.
fn code_section(path: &Path) -> Result<u64> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    for payload in wasmparser::Parser::new(0).parse_all(&bytes) {
        if let wasmparser::Payload::CodeSectionStart { size, .. } = payload? {
            return Ok(u64::from(size));
        }
    }
    Ok(0)
}

/// Nanoseconds for one call of a function of the host, by peer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Calls {
    pub(crate) function: String,
    pub(crate) by_peer: BTreeMap<String, Summary>,
}

/// Functions of preview 1 with the number of calls to measure.
const FUNCTIONS: [(&str, u32); 6] = [
    ("args_sizes_get", 3_000_000),
    ("clock_time_get", 3_000_000),
    ("random_get", 500_000),
    ("fd_fdstat_get", 300_000),
    ("fd_write", 300_000),
    ("sched_yield", 500_000),
];
/// Functions that are more than a call: ours ask the kernel each time. wasmtime's `sched_yield` does
/// nothing.
pub(crate) const BY_KERNEL: [&str; 2] = ["fd_write", "sched_yield"];
/// A function that does nothing, defined through each engine's interface for embedders.
pub(crate) const NOP: &str = "nop (embedder's function)";
/// Calls of it.
const NOPS: u32 = 20_000_000;
/// Name of wasmtime without fibers and asynchronous functions.
const SYNCHRONOUS: &str = "wasmtime-sync";

/// Measures calls from wasm to the host: a function that does nothing, defined through each engine's
/// interface, and functions of preview 1.
///
/// # Errors
/// When a peer fails.
pub(crate) fn host_calls(places: &Places, runs: usize) -> Result<Vec<Calls>> {
    let nop = places.scratch.join("nop.wasm");
    fs::write(&nop, wat::parse_file(places.corpus.join("nop.wat"))?)?;
    let wasi = places.corpus.join("calls.wasm");
    let mut done = Vec::new();
    let output = places.scratch.join("output.txt");
    let variants = [(Peer::Coracle, false), (Peer::Wasmtime, false), (Peer::Wasmtime, true)];
    let label = |peer: Peer, sync: bool| if sync { SYNCHRONOUS } else { peer.name() }.to_owned();
    let mut samples: BTreeMap<String, BTreeMap<String, Vec<f64>>> = BTreeMap::new();
    for round in 0..=runs {
        eprintln!("bench: host calls, round {round} of {runs}");
        for (peer, sync) in variants {
            let options: &[&str] = if sync { &["--sync"] } else { &[] };
            let ready = places.make_ready(peer, "nop", &nop)?;
            let mut line = places.run_command(&ready, options, false, &[&NOPS.to_string()]);
            "calls".clone_into(&mut line[1]);
            process::run(&Invocation { line, one_core: false }, &output)?;
            let told = fs::read_to_string(&output)?;
            let time: f64 = told.trim().parse().context("no number of nanoseconds")?;
            let mut results = vec![(NOP, time)];
            let ready = places.make_ready(peer, "calls", &wasi)?;
            for (function, count) in FUNCTIONS {
                let args = [function, &count.to_string()];
                let (_, compute) = places.run_timed(&ready, options, false, &args, &output)?;
                let seconds = compute.context("the runner told no times")?;
                results.push((function, seconds * 1e9 / f64::from(count)));
            }
            for (function, time) in results.into_iter().filter(|_| round > 0) {
                let of_function = samples.entry(function.to_owned()).or_default();
                of_function.entry(label(peer, sync)).or_default().push(time);
            }
        }
    }
    let names = [NOP].into_iter().chain(FUNCTIONS.map(|(name, _)| name));
    for function in names {
        let by_peer = samples[function]
            .iter()
            .filter_map(|(peer, times)| Some((peer.clone(), Summary::of(times.iter().copied())?)))
            .collect();
        done.push(Calls { function: function.to_owned(), by_peer });
    }
    Ok(done)
}

/// The start of a process that says hello from compiled code.
///
/// # Errors
/// When a peer fails.
pub(crate) fn start(places: &Places, peers: &[Peer], runs: usize) -> Result<Row> {
    let hello = Program {
        name: "hello",
        about: "C: one line of text",
        args: &[],
        data: false,
        native: true,
    };
    let mut rows = programs(places, &[hello], peers, runs, false)?;
    rows.pop().context("no row for hello")
}
