//! The report: tables in Markdown, all numbers in JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::measure::{BY_KERNEL, Calls, Compilation, Cost, NOP, Row};
use crate::peer::Peer;
use crate::stats::{Summary, geometric_mean};
use crate::throughput::Rate;

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Machine, versions, load: label and text.
    pub(crate) about: Vec<(String, String)>,
    pub(crate) programs: Vec<Row>,
    pub(crate) compilations: Vec<Compilation>,
    pub(crate) calls: Vec<Calls>,
    pub(crate) start: Option<Row>,
    pub(crate) rates: Vec<Rate>,
}

/// Which number of a cost a table is about.
type Pick = fn(&Cost) -> Option<Summary>;

/// Ratio of two peers' medians in one row.
pub(crate) fn ratio(row: &Row, pick: Pick, peer: Peer, base: Peer) -> Option<f64> {
    let of = |peer| pick(row.costs.get(&peer)?).map(|summary| summary.median);
    Some(of(peer)? / of(base)?)
}

/// Geometric mean of a ratio over all rows that have both, and how many these are.
fn mean_ratio(rows: &[Row], pick: Pick, peer: Peer, base: Peer) -> Option<(f64, usize)> {
    let ratios: Vec<f64> = rows.iter().filter_map(|row| ratio(row, pick, peer, base)).collect();
    Some((geometric_mean(&ratios)?, ratios.len()))
}

pub(crate) fn whole_cpu(cost: &Cost) -> Option<Summary> {
    Some(cost.cpu)
}

/// Time in the program: told by the runner, or the whole process where there is no runner.
fn compute(cost: &Cost) -> Option<Summary> {
    Some(cost.compute.unwrap_or(cost.cpu))
}

/// Goals about a rate: ahead of every other engine, and a share of native code's.
fn rate_goals(rate: &Rate) -> Vec<(String, String, String, bool)> {
    let median = |peer: &Peer| rate.by_peer.get(peer).map(|summary| summary.median);
    let Some(ours) = median(&Peer::Coracle) else { return Vec::new() };
    let engines = [Peer::Wasmtime, Peer::WasmtimeFastest, Peer::Wasmedge];
    let best = engines.iter().filter_map(|peer| Some((median(peer)?, peer.name())));
    let mut goals = Vec::new();
    if let Some((theirs, name)) = best.max_by(|a, b| a.0.total_cmp(&b.0)) {
        let ratio = ours / theirs;
        let what = format!("{}, to the best peer, {name}", rate.name);
        goals.push((what, format!("{ratio:.3}"), "≥ 1".to_owned(), ratio >= 1.0));
    }
    if let (Some(least), Some(native)) = (rate.least_of_native, median(&Peer::Native)) {
        let ratio = ours / native;
        let what = format!("{}, to native code", rate.name);
        goals.push((what, format!("{ratio:.3}"), format!("≥ {least}"), ratio >= least));
    }
    goals
}

impl Report {
    /// Whether every program ran rightly under this engine. What went wrong under another one is in
    /// the report.
    pub(crate) fn sound(&self) -> bool {
        self.rows().all(|row| !row.failures.contains_key(&Peer::Coracle))
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.programs.iter().chain(&self.start)
    }

    /// The report as Markdown; the plot lies beside it.
    pub(crate) fn markdown(&self) -> String {
        let mut out = String::from("# Benchmarks\n\n");
        for (label, text) in &self.about {
            let _ = writeln!(out, "- {label}: {text}");
        }
        out.push('\n');
        self.goals(&mut out);
        self.failures(&mut out);
        if !self.programs.is_empty() {
            out.push_str("![processor time by program](report.svg)\n\n");
            self.ratios(
                &mut out,
                "Processor time of the whole process, from compiled code",
                whole_cpu,
            );
            self.ratios(&mut out, "Processor time in the program", compute);
            out.push_str(
                "In the program: from entering `_start` until it ends, read by the runner from the \
                 process's clock; for WasmEdge and native code, which tell no such time, the whole \
                 process again.\n\n",
            );
            self.wall_and_memory(&mut out);
        }
        self.compile_table(&mut out);
        self.calls_table(&mut out);
        self.start_table(&mut out);
        self.rates_table(&mut out);
        out
    }

    fn failures(&self, out: &mut String) {
        for row in self.rows() {
            for (peer, what) in &row.failures {
                let _ = writeln!(out, "- **{} failed under {}**: {what}", row.name, peer.name());
            }
        }
        if self.rows().any(|row| !row.failures.is_empty()) {
            out.push('\n');
        }
    }

    /// The program that takes ours longest, in terms of another engine's processor time.
    fn slowest(&self, base: Peer) -> Option<(f64, &str)> {
        let ratios = self.programs.iter().filter_map(|row| {
            Some((ratio(row, whole_cpu, Peer::Coracle, base)?, row.name.as_str()))
        });
        ratios.max_by(|a, b| a.0.total_cmp(&b.0))
    }

    /// The goals that can be judged from what was measured.
    fn goals(&self, out: &mut String) {
        let mut lines = Vec::new();
        for (base, goal) in [(Peer::Wasmtime, 0.93), (Peer::WasmtimeFastest, 0.97)] {
            if let Some((mean, n)) = mean_ratio(&self.programs, whole_cpu, Peer::Coracle, base) {
                let name = base.name();
                let what = format!("geometric mean of processor time to {name}, {n} programs");
                lines.push((what, format!("{mean:.3}"), format!("≤ {goal}"), mean <= goal));
            }
        }
        for base in [Peer::Wasmtime, Peer::WasmtimeFastest] {
            if let Some((ratio, name)) = self.slowest(base) {
                let what = format!("slowest program to {}, {name}", base.name());
                lines.push((what, format!("{ratio:.3}"), "≤ 1.08".into(), ratio <= 1.08));
            }
        }
        for (what, compare) in self.compile_goals() {
            let (value, goal, held) = compare;
            lines.push((what, value, goal, held));
        }
        let worst = self
            .calls
            .iter()
            .filter(|calls| calls.function != NOP && !BY_KERNEL.contains(&calls.function.as_str()))
            .filter_map(|calls| {
                let of = |name: &str| calls.by_peer.get(name).map(|summary| summary.median);
                Some((of("coracle")? / of("wasmtime")?, calls.function.as_str()))
            })
            .max_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((ratio, name)) = worst {
            let what = format!("dearest call of preview 1 without the kernel to wasmtime, {name}");
            lines.push((what, format!("{ratio:.3}"), "≤ 1".into(), ratio <= 1.0));
        }
        lines.extend(self.rates.iter().flat_map(rate_goals));
        if lines.is_empty() {
            return;
        }
        out.push_str("| goal | measured | wanted | holds |\n|---|---|---|---|\n");
        for (what, value, goal, held) in lines {
            let _ = writeln!(
                out,
                "| {what} | {value} | {goal} | {} |",
                if held { "yes" } else { "**no**" }
            );
        }
        out.push('\n');
    }

    fn compilation(&self, module: &str, peer: Peer, one_core: bool) -> Option<&Compilation> {
        self.compilations
            .iter()
            .find(|c| c.module == module && c.peer == peer && c.one_core == one_core)
    }

    fn modules(&self) -> Vec<&str> {
        let mut modules: Vec<&str> = self.compilations.iter().map(|c| c.module.as_str()).collect();
        modules.dedup();
        modules
    }

    fn compile_goals(&self) -> Vec<(String, (String, String, bool))> {
        let mut goals = Vec::new();
        for (what, pick) in [
            ("compiling on one core, processor time to wasmtime", true),
            ("compiling on all cores, peak memory to wasmtime", false),
        ] {
            let ratios: Vec<f64> = self
                .modules()
                .into_iter()
                .filter_map(|module| {
                    let value = |peer| {
                        let cost = &self.compilation(module, peer, pick)?.cost;
                        Some(if pick { cost.cpu.median } else { cost.rss.median })
                    };
                    Some(value(Peer::Coracle)? / value(Peer::Wasmtime)?)
                })
                .collect();
            if let Some(mean) = geometric_mean(&ratios) {
                let value = (format!("{mean:.3}"), "≤ 1".to_owned(), mean <= 1.0);
                goals.push((format!("{what}, geometric mean"), value));
            }
        }
        goals
    }

    /// A row for each program: wasmtime's time, and every other peer's share of it.
    fn ratios(&self, out: &mut String, title: &str, pick: Pick) {
        let others = [Peer::Coracle, Peer::WasmtimeFastest, Peer::Wasmedge, Peer::Native];
        let _ = writeln!(
            out,
            "## {title}\n\nMedians; ± is half the range. Ratios to wasmtime's defaults.\n"
        );
        out.push_str("| program | wasmtime, s | coracle, s | **coracle** | wasmtime fastest | WasmEdge | native | coracle / fastest |\n");
        out.push_str("|---|---|---|---|---|---|---|---|\n");
        for row in &self.programs {
            let time = |peer| {
                row.costs.get(&peer).and_then(pick).map_or("-".to_owned(), |summary| {
                    format!("{:.3} ±{:.0} %", summary.median, summary.spread() * 100.0)
                })
            };
            let share = |peer, base| {
                ratio(row, pick, peer, base).map_or("-".to_owned(), |r| format!("{r:.2}"))
            };
            let _ = write!(
                out,
                "| {} | {} | {} |",
                row.name,
                time(Peer::Wasmtime),
                time(Peer::Coracle)
            );
            for peer in others {
                let _ = write!(out, " {} |", share(peer, Peer::Wasmtime));
            }
            let _ = writeln!(out, " {} |", share(Peer::Coracle, Peer::WasmtimeFastest));
        }
        out.push_str("| **geometric mean** | | |");
        let mean = |peer, base| {
            mean_ratio(&self.programs, pick, peer, base)
                .map_or("-".to_owned(), |(mean, n)| format!("**{mean:.3}** (n={n})"))
        };
        for peer in others {
            let _ = write!(out, " {} |", mean(peer, Peer::Wasmtime));
        }
        let _ = writeln!(out, " {} |\n", mean(Peer::Coracle, Peer::WasmtimeFastest));
    }

    fn wall_and_memory(&self, out: &mut String) {
        let peers = [Peer::Coracle, Peer::Wasmtime, Peer::Wasmedge, Peer::Native];
        out.push_str("## Wall time and peak memory of the whole process\n\n| program |");
        for kind in ["s", "MB"] {
            for peer in peers {
                let _ = write!(out, " {}, {kind} |", peer.name());
            }
        }
        out.push_str("\n|---|---|---|---|---|---|---|---|---|\n");
        for row in &self.programs {
            let _ = write!(out, "| {} |", row.name);
            let of = |peer| row.costs.get(&peer);
            for peer in peers {
                let _ = match of(peer) {
                    Some(cost) => write!(out, " {:.3} |", cost.wall.median),
                    None => write!(out, " - |"),
                };
            }
            for peer in peers {
                let _ = match of(peer) {
                    Some(cost) => write!(out, " {:.1} |", cost.rss.median / 1e6),
                    None => write!(out, " - |"),
                };
            }
            out.push('\n');
        }
        out.push('\n');
    }

    fn compile_table(&self, out: &mut String) {
        if self.compilations.is_empty() {
            return;
        }
        out.push_str(
            "## Compilation\n\nMB of code section per second of processor time (wall time on all cores), \
             full optimisation.\n\n| module (code) | peer | one core: CPU, s | MB/s | all cores: CPU, s \
             | wall, s | MB/s of wall | peak, MB | image, MB |\n|---|---|---|---|---|---|---|---|---|\n",
        );
        for module in self.modules() {
            for peer in Peer::ALL {
                let (Some(one), Some(all)) =
                    (self.compilation(module, peer, true), self.compilation(module, peer, false))
                else {
                    continue;
                };
                let code = one.code_bytes as f64 / 1e6;
                let (cpu, wall) = (one.cost.cpu.median, all.cost.wall.median);
                let _ = writeln!(
                    out,
                    "| {module} ({code:.2} MB) | {} | {cpu:.2} ±{:.0} % | {:.2} | {:.2} | {wall:.2} | {:.2} | {:.0} | {:.1} |",
                    peer.name(),
                    one.cost.cpu.spread() * 100.0,
                    code / cpu,
                    all.cost.cpu.median,
                    code / wall,
                    all.cost.rss.median / 1e6,
                    all.image_bytes as f64 / 1e6,
                );
            }
        }
        out.push('\n');
    }

    fn calls_table(&self, out: &mut String) {
        if self.calls.is_empty() {
            return;
        }
        out.push_str(
            "## Calls from wasm to the host, nanoseconds of processor time each\n\nIn a loop of the \
             guest, the loop included. `wasmtime` calls preview 1 as its command line does, \
             `wasmtime-sync` without fibers. \
             `sched_yield` is a system call here and nothing at all in wasmtime.\n\n| function | coracle | wasmtime | wasmtime-sync | \
             coracle / wasmtime |\n|---|---|---|---|---|\n",
        );
        for calls in &self.calls {
            let of = |name: &str| calls.by_peer.get(name);
            let show = |name| {
                of(name).map_or("-".to_owned(), |s| {
                    format!("{:.1} ±{:.0} %", s.median, s.spread() * 100.0)
                })
            };
            let share = match (of("coracle"), of("wasmtime")) {
                (Some(ours), Some(theirs)) => format!("{:.2}", ours.median / theirs.median),
                _ => "-".to_owned(),
            };
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {share} |",
                calls.function,
                show("coracle"),
                show("wasmtime"),
                show("wasmtime-sync"),
            );
        }
        out.push('\n');
    }

    fn rates_table(&self, out: &mut String) {
        if self.rates.is_empty() {
            return;
        }
        out.push_str(
            "## Servers and files\n\nMedians; ± is half the range. A server has one processor, the load \
             another. Files are in memory.\n\n| what | peer | rate | to native | 99 of 100 within, µs \
             |\n|---|---|---|---|---|\n",
        );
        for rate in &self.rates {
            let native = rate.by_peer.get(&Peer::Native);
            for (peer, summary) in &rate.by_peer {
                let share = native.map_or("-".to_owned(), |native| {
                    format!("{:.2}", summary.median / native.median)
                });
                let p99 = rate.p99.get(peer);
                let _ = writeln!(
                    out,
                    "| {} | {} | {:.0} {} ±{:.0} % | {share} | {} |",
                    rate.name,
                    peer.name(),
                    summary.median,
                    rate.unit,
                    summary.spread() * 100.0,
                    p99.map_or("-".to_owned(), |p99| format!("{:.0}", p99.median)),
                );
            }
        }
        out.push('\n');
    }

    fn start_table(&self, out: &mut String) {
        let Some(row) = &self.start else { return };
        out.push_str(
            "## A process that says hello, from compiled code\n\n| peer | CPU, ms | wall, ms | least wall, \
             ms | peak memory, MB |\n|---|---|---|---|---|\n",
        );
        for (peer, cost) in &row.costs {
            let _ = writeln!(
                out,
                "| {} | {:.2} | {:.2} | {:.2} | {:.1} |",
                peer.name(),
                cost.cpu.median * 1e3,
                cost.wall.median * 1e3,
                cost.wall.least * 1e3,
                cost.rss.median / 1e6,
            );
        }
        out.push_str("\nThe helper that starts each process has some 2 MB itself, which the kernel counts as their peak.\n\n");
    }
}
