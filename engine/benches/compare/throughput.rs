//! What goes through: a server's answers a second, and MB a second of files, under each peer that can run
//! the program.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

use crate::load::{Answer, Load};
use crate::measure::order;
use crate::peer::{Peer, Places, Ready};
use crate::program::Program;
use crate::stats::Summary;

/// A rate under several peers; more is better.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Rate {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) by_peer: BTreeMap<Peer, Summary>,
    /// The time within which 99 of 100 answers come, in microseconds.
    pub(crate) p99: BTreeMap<Peer, Summary>,
    /// What goals say of its share of native code's.
    pub(crate) least_of_native: Option<f64>,
}

/// Values of one rate while they are collected.
#[derive(Default)]
struct Values {
    rates: BTreeMap<Peer, Vec<f64>>,
    p99: BTreeMap<Peer, Vec<f64>>,
}

impl Values {
    fn rate(self, name: String, unit: &str, least_of_native: Option<f64>) -> Rate {
        let sum = |values: BTreeMap<Peer, Vec<f64>>| {
            let some = |(peer, values)| Some((peer, Summary::of(values)?));
            values.into_iter().filter_map(some).collect()
        };
        let unit = unit.to_owned();
        Rate { name, unit, by_peer: sum(self.rates), p99: sum(self.p99), least_of_native }
    }
}

/// Connections that ask at the same time.
const CONNECTIONS: usize = 16;
/// How long a server is asked before and while it is measured.
const WARM: Duration = Duration::from_millis(300);
const MEASURED: Duration = Duration::from_millis(700);
/// Servers started in a run, as many short measurements say more than a long one.
const SERVERS: usize = 4;

/// Servers by the sockets of `WasmEdge`'s dialect: this engine, `WasmEdge` and native code.
///
/// # Errors
/// When a server does not start or answers wrongly.
pub(crate) fn servers(places: &Places, peers: &[Peer], runs: usize) -> Result<Vec<Rate>> {
    let program = io_program("serve");
    let able = [Peer::Coracle, Peer::Wasmedge, Peer::Native];
    let ready = ready(places, peers, &able, &program)?;
    let mut done = Vec::new();
    let kinds = [("echo", Load::echo(1024), None), ("http", Load::http(200), Some(0.6))];
    for (kind, load, goal) in kinds {
        let mut values = Values::default();
        for round in 0..runs * SERVERS {
            if round % SERVERS == 0 {
                eprintln!("bench: {kind} server, round {} of {runs}", round / SERVERS + 1);
            }
            for one in order(round, ready.len()).into_iter().map(|n| &ready[n]) {
                let answer = serve(places, one, kind, &load)
                    .with_context(|| format!("the {kind} server under {}", one.peer.name()))?;
                values.rates.entry(one.peer).or_default().push(answer.per_second);
                values.p99.entry(one.peer).or_default().push(answer.p99.as_secs_f64() * 1e6);
            }
        }
        let name = format!("{kind}, {CONNECTIONS} connections");
        done.push(values.rate(name, "answers/s", goal));
    }
    Ok(done)
}

/// A program of `corpus/io`.
const fn io_program(name: &'static str) -> Program {
    Program { name, about: "", args: &[], data: false, native: true }
}

/// Those of `peers` that are able to run a program, with its code.
fn ready(places: &Places, peers: &[Peer], able: &[Peer], program: &Program) -> Result<Vec<Ready>> {
    let chosen = peers.iter().filter(|peer| able.contains(peer));
    let prepared = chosen.map(|&peer| places.prepare(peer, program));
    Ok(prepared.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// A server that runs until this is dropped.
struct Server {
    child: Child,
    // It ends when its standard input does.
    stdin: Option<ChildStdin>,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // One that hangs must not hold up the benchmark.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a server on one processor and asks it from another.
fn serve(places: &Places, ready: &Ready, kind: &str, load: &Load) -> Result<Answer> {
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let options: &[&str] = if ready.peer == Peer::Coracle { &["--network"] } else { &[] };
    let line = places.run_command(ready, options, false, &[kind, &port.to_string()]);
    let allowed = sched_getaffinity(None)?;
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
    let (mine, its) = (cpus.next(), cpus.next_back());
    let pin = |cpu: Option<usize>| -> Result<()> {
        let Some(cpu) = cpu else { return Ok(()) };
        let mut one = CpuSet::new();
        one.set(cpu);
        Ok(sched_setaffinity(None, &one)?)
    };
    // A child has its parent's.
    pin(its)?;
    let spawned = Command::new(&line[0])
        .args(&line[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", line.join(" ")));
    pin(mine)?;
    let mut child = spawned?;
    let stdin = child.stdin.take();
    let stdout = child.stdout.take().context("no pipe")?;
    let server = Server { child, stdin };
    let mut said = String::new();
    BufReader::new(stdout).read_line(&mut said)?;
    ensure!(said.trim() == "serving", "it said `{}` instead of serving", said.trim());
    let answer = load.run(port, CONNECTIONS, WARM, MEASURED);
    drop(server);
    sched_setaffinity(None, &allowed)?;
    answer
}

/// Size of the file in bytes: more than caches hold.
const SIZE: usize = 64 << 20;
/// Sizes of calls in bytes, how often the file is written and read in them, and the goal.
const CALLS: [(&str, usize, usize, Option<f64>); 2] =
    [("4 KiB", 4 << 10, 5, None), ("1 MiB", 1 << 20, 10, Some(0.8))];
/// Processes in a run. Where its memory happens to lie makes a process a third faster or slower, so many
/// short ones say more than a long one.
const PROCESSES: usize = 8;

/// A file in memory, written and read in calls of two sizes.
///
/// # Errors
/// When the program fails.
pub(crate) fn files(places: &Places, peers: &[Peer], runs: usize) -> Result<Vec<Rate>> {
    let program = io_program("files");
    let ready = ready(places, peers, &Peer::ALL, &program)?;
    let folder = Folder::new()?;
    let mut done = Vec::new();
    for (size, call, passes, goal) in CALLS {
        let mut values = [Values::default(), Values::default()];
        for round in 0..runs * PROCESSES {
            if round % PROCESSES == 0 {
                let run = round / PROCESSES + 1;
                eprintln!("bench: files in calls of {size}, round {run} of {runs}");
            }
            for one in order(round, ready.len()).into_iter().map(|n| &ready[n]) {
                let rates = pass(places, one, &folder, call, passes)
                    .with_context(|| format!("files under {}", one.peer.name()))?;
                for (values, rate) in values.iter_mut().zip(rates) {
                    values.rates.entry(one.peer).or_default().push(rate);
                }
            }
        }
        for (values, what) in values.into_iter().zip(["written", "read"]) {
            done.push(values.rate(format!("{what} in calls of {size}"), "MB/s", goal));
        }
    }
    Ok(done)
}

/// A folder in memory, if the machine has such, so that no disk is measured.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Folder> {
        let parent = PathBuf::from("/dev/shm");
        let parent = if parent.is_dir() { parent } else { std::env::temp_dir() };
        let folder = parent.join(format!("coracle-bench-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(Folder(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// MB a second of writing and of reading.
fn pass(
    places: &Places,
    ready: &Ready,
    folder: &Folder,
    call: usize,
    passes: usize,
) -> Result<[f64; 2]> {
    let (call, size, passes) = (call.to_string(), SIZE.to_string(), passes.to_string());
    let args = ["/io/file", &call, &size, &passes];
    let line = places.command_with(ready, &[], Some((&folder.0, "/io")), &args);
    let output = Command::new(&line[0]).args(&line[1..]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let rates: Vec<f64> = text.split_whitespace().filter_map(|rate| rate.parse().ok()).collect();
    match rates[..] {
        [written, read] if output.status.success() => Ok([written, read]),
        _ => bail!("{}: {}", line.join(" "), String::from_utf8_lossy(&output.stderr).trim()),
    }
}
