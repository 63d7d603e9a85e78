//! The daemon's figures, in Prometheus' words.
//!
//! README.md of this room lists them; a test compares. What is counted here starts at 0 with the daemon; what is read
//! when somebody asks (tasks, containers, the cache's contents) comes as a [`Scrape`].

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coracle_engine::abi::trap::TrapKind;
use coracle_engine::cache::Pruned;
use coracle_shim::figures::{Code, End, Happening, Program};
use coracle_shim::warm::report::Report;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::compiler::Outcome;
use super::exposition::Collected;
use super::scrape::Scrape;

/// Buckets of create and start, in seconds: a hit takes some milliseconds, a compilation up to minutes.
const STARTS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];
/// Buckets of compilations, in seconds.
const COMPILATIONS: [f64; 12] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];

/// One label; all its values are words of this program, so there are few.
type Label = [(&'static str, &'static str); 1];

/// All figures.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    scrape: Arc<Mutex<Scrape>>,
    starts: Family<Label, Counter>,
    starts_failed: Counter,
    cache_hits: Counter,
    cache_misses: Counter,
    create: Family<Label, Histogram>,
    start: Family<Label, Histogram>,
    compile: Family<Label, Histogram>,
    compile_failures: Counter,
    exits: Family<Label, Counter>,
    traps: Family<Label, Counter>,
    oom_kills: Counter,
    unreadable: Counter,
    precompilations: Family<Label, Counter>,
    precompiling: Gauge,
    pruned_entries: Counter,
    pruned_bytes: Counter,
}

impl Metrics {
    /// All of them, at 0.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("coracle");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The release that this daemon is of", build);
        let mut r = Registrar(&mut registry);
        let metrics = Self {
            starts: r
                .family("container_starts", "Containers whose program started, by what they run"),
            starts_failed: r.counter(
                "container_start_failures",
                "Containers that were not created or not started",
            ),
            cache_hits: r.counter(
                "cache_hits",
                "Starts of WebAssembly containers whose code was in the cache",
            ),
            cache_misses: r.counter(
                "cache_misses",
                "Starts of WebAssembly containers whose code was not in the cache",
            ),
            create: r.histograms(
                "container_create",
                "From Create's receipt to its answer, by where the code came from",
                || Histogram::new(STARTS),
            ),
            start: r.histograms(
                "container_start",
                "From Start's receipt to its answer, by where the code came from",
                || Histogram::new(STARTS),
            ),
            compile: r.histograms(
                "compile",
                "Compilations of whole modules, by who had them made",
                || Histogram::new(COMPILATIONS),
            ),
            compile_failures: r.counter("compile_failures", "Modules that were not compiled"),
            exits: r.family("container_exits", "Containers whose program ended, by how"),
            traps: r.family("traps", "Programs that a trap ended, by its kind"),
            oom_kills: r.counter(
                "oom_events",
                "Times that the kernel killed in a container for want of memory",
            ),
            unreadable: r.counter(
                "figures_unreadable",
                "Messages of shims that this daemon does not understand",
            ),
            precompilations: r.family(
                "precompilations",
                "Images that were looked at to be compiled ahead, by what came of it",
            ),
            precompiling: Gauge::default(),
            pruned_entries: r.counter(
                "cache_pruned_entries",
                "Entries of the cache that this daemon has removed",
            ),
            pruned_bytes: r.bytes("cache_pruned", "What these entries had taken of the disk"),
            scrape: Arc::default(),
            registry: Registry::default(),
        };
        let running = metrics.precompiling.clone();
        registry.register("precompilations_running", "Images that are looked at now", running);
        registry.register_collector(Box::new(Collected(Arc::clone(&metrics.scrape))));
        Self { registry, ..metrics }
    }

    /// The text of all figures, with what was read for it.
    ///
    /// # Errors
    /// None in practice: memory takes all text.
    pub(crate) fn text(&self, scrape: Scrape) -> Result<String, fmt::Error> {
        *self.scrape.lock().unwrap_or_else(PoisonError::into_inner) = scrape;
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Counts what a shim has told.
    pub(crate) fn count(&self, happening: Happening) {
        match happening {
            Happening::Started { program, create, start } => self.started(program, create, start),
            Happening::NotStarted => drop(self.starts_failed.inc()),
            Happening::Compiled { time } => {
                self.compile.get_or_create(&[("by", "start")]).observe(seconds(time));
            }
            Happening::NotCompiled => drop(self.compile_failures.inc()),
            Happening::OutOfMemory => drop(self.oom_kills.inc()),
            Happening::Ended(end) => self.ended(end),
        }
    }

    fn started(&self, program: Program, create: u64, start: u64) {
        let (kind, code) = match program {
            Program::Wasm(Code::Hit) => ("wasm", "hit"),
            Program::Wasm(Code::Compiled) => ("wasm", "compiled"),
            Program::Wasm(Code::FirstStart) => ("wasm", "first_start"),
            Program::Linux => ("linux", "none"),
            Program::Pause => ("pause", "none"),
        };
        match program {
            Program::Wasm(Code::Hit) => drop(self.cache_hits.inc()),
            Program::Wasm(_) => drop(self.cache_misses.inc()),
            Program::Linux | Program::Pause => {}
        }
        self.starts.get_or_create(&[("program", kind)]).inc();
        self.create.get_or_create(&[("code", code)]).observe(seconds(create));
        self.start.get_or_create(&[("code", code)]).observe(seconds(start));
    }

    fn ended(&self, end: End) {
        let how = match end {
            End::Code(0) => "success",
            End::Code(_) => "failure",
            End::Signal(_) => "signal",
            End::Trap(_) => "trap",
            End::Unknown => "unknown",
        };
        self.exits.get_or_create(&[("end", how)]).inc();
        if let End::Trap(code) = end {
            self.traps.get_or_create(&[("kind", trap_name(code))]).inc();
        }
    }

    /// A message that is none.
    pub(crate) fn unreadable(&self) {
        self.unreadable.inc();
    }

    /// What came of one image.
    pub(crate) fn precompiled(&self, outcome: &Outcome) {
        self.precompilations.get_or_create(&[("outcome", outcome.name())]).inc();
        match outcome {
            Outcome::Reported(Report::Compiled { seconds, .. }) => {
                self.compile.get_or_create(&[("by", "pull")]).observe(*seconds);
            }
            Outcome::Reported(Report::Failed { .. }) | Outcome::Late => {
                self.compile_failures.inc();
            }
            _ => {}
        }
    }

    /// So many are looked at now.
    pub(crate) fn precompiling(&self, images: usize) {
        self.precompiling.set(i64::try_from(images).unwrap_or(i64::MAX));
    }

    /// What pruning has removed.
    pub(crate) fn pruned(&self, pruned: Pruned) {
        self.pruned_entries.inc_by(pruned.entries as u64);
        self.pruned_bytes.inc_by(pruned.bytes);
    }
}

/// Registers by kind.
struct Registrar<'r>(&'r mut Registry);

impl Registrar<'_> {
    fn counter(&mut self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.0.register(name, help, counter.clone());
        counter
    }

    fn bytes(&mut self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.0.register_with_unit(name, help, Unit::Bytes, counter.clone());
        counter
    }

    fn family(&mut self, name: &str, help: &str) -> Family<Label, Counter> {
        let family = Family::default();
        self.0.register(name, help, family.clone());
        family
    }

    fn histograms(
        &mut self,
        name: &str,
        help: &str,
        make: fn() -> Histogram,
    ) -> Family<Label, Histogram> {
        let family = Family::new_with_constructor(make);
        self.0.register_with_unit(name, help, Unit::Seconds, family.clone());
        family
    }
}

fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}

/// A trap's kind as a label. What no release knows is one word.
fn trap_name(code: u8) -> &'static str {
    match TrapKind::from_code(code) {
        Some(kind) => kind.message(),
        None if code == 0 => "uncaught exception",
        None => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::daemon::usage::Usage;

    /// All that can happen, once.
    fn everything() -> Metrics {
        let metrics = Metrics::new();
        let wasm = |code| Program::Wasm(code);
        let programs = [
            wasm(Code::Hit),
            wasm(Code::Compiled),
            wasm(Code::FirstStart),
            Program::Linux,
            Program::Pause,
        ];
        for program in programs {
            metrics.count(Happening::Started { program, create: 1500, start: 2_000_000 });
        }
        let ends = [
            End::Code(0),
            End::Code(1),
            End::Signal(9),
            End::Trap(10),
            End::Trap(0),
            End::Trap(99),
            End::Unknown,
        ];
        ends.into_iter().for_each(|end| metrics.count(Happening::Ended(end)));
        metrics.count(Happening::NotStarted);
        metrics.count(Happening::Compiled { time: 250_000 });
        metrics.count(Happening::NotCompiled);
        metrics.count(Happening::OutOfMemory);
        metrics.unreadable();
        metrics.precompiled(&Outcome::Reported(Report::Compiled { seconds: 1.0, bytes: 1 }));
        metrics.precompiled(&Outcome::Late);
        metrics.pruned(Pruned { entries: 2, bytes: 3 });
        metrics
    }

    fn scrape() -> Scrape {
        let whose = [("namespace", "n"), ("pod", "p\"\\\n"), ("container", "c"), ("uid", "u")];
        let usage = Usage {
            cpu: Some(1.25),
            throttled: Some(0.0),
            working_set: Some(1 << 20),
            memory_limit: Some(1 << 30),
            pids: Some(1),
            oom_kills: Some(0),
        };
        let whose = whose.map(|(key, value)| (key, value.to_owned()));
        Scrape {
            connected: true,
            containers: BTreeMap::from([(whose, usage)]),
            ..Scrape::default()
        }
    }

    /// Names with kinds and labels, as the text has them.
    fn exported(text: &str) -> BTreeMap<String, (String, Vec<String>)> {
        let mut all = BTreeMap::new();
        let mut current = (String::new(), String::new());
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                let suffix = match kind {
                    "counter" => "_total",
                    "info" => "_info",
                    _ => "",
                };
                current = (format!("{name}{suffix}"), kind.to_owned());
            } else if !line.starts_with('#') {
                let labels =
                    line.split_once('{').map_or("", |(_, rest)| rest.rsplit_once('}').unwrap().0);
                let keys =
                    labels.split("\",").filter_map(|pair| Some(pair.split_once('=')?.0.to_owned()));
                let keys = keys.filter(|key| key != "le").collect();
                all.insert(current.0.clone(), (current.1.clone(), keys));
            }
        }
        all
    }

    /// The same, as README.md has them.
    fn documented() -> BTreeMap<String, (String, Vec<String>)> {
        let table =
            include_str!("../../README.md").lines().filter(|line| line.starts_with("| `coracle_"));
        let row = |line: &str| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let labels = match cells[3] {
                "whose" => ["namespace", "pod", "container", "uid"].map(str::to_owned).into(),
                "" => Vec::new(),
                one => vec![one.trim_matches('`').to_owned()],
            };
            (cells[1].trim_matches('`').to_owned(), (cells[2].to_owned(), labels))
        };
        table.map(row).collect()
    }

    #[test]
    fn the_table_in_the_readme_is_what_is_exported() {
        let text = everything().text(scrape()).unwrap();
        assert_eq!(exported(&text), documented(), "{text}");
    }

    #[test]
    fn happenings_are_counted_where_they_belong() {
        let text = everything().text(scrape()).unwrap();
        for line in [
            "coracle_cache_hits_total 1",
            "coracle_cache_misses_total 2",
            "coracle_container_starts_total{program=\"wasm\"} 3",
            "coracle_container_create_seconds_sum{code=\"hit\"} 0.0015",
            "coracle_container_start_seconds_bucket{le=\"2.5\",code=\"first_start\"} 1",
            "coracle_container_exits_total{end=\"trap\"} 3",
            "coracle_traps_total{kind=\"unreachable\"} 1",
            "coracle_traps_total{kind=\"uncaught exception\"} 1",
            "coracle_traps_total{kind=\"unknown\"} 1",
            "coracle_compile_seconds_sum{by=\"start\"} 0.25",
            "coracle_compile_failures_total 2",
            "coracle_cache_pruned_bytes_total 3",
            "coracle_containerd_up 1",
            "coracle_container_cpu_usage_seconds_total{namespace=\"n\",pod=\"p\\\"\\\\\\n\",container=\"c\",uid=\"u\"} 1.25",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn without_containers_the_text_is_whole() {
        let text = Metrics::new().text(Scrape::default()).unwrap();
        assert!(text.ends_with("# EOF\n"));
        assert!(
            text.contains("coracle_containerd_up 0") && !text.contains("container_cpu"),
            "{text}"
        );
    }
}
