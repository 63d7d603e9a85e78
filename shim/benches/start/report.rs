//! Medians, and what they are held against.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::first::First;
use crate::life::Life;
use crate::memory::Private;
use crate::process::Sample;
use crate::run::{self, Run};
use crate::subject::{LAYERS, OUR_CPYTHON, OUR_HELLO, OUR_RUBY, RUNC_HELLO, Subject};
use crate::together::Together;

/// A part of a life.
type Step = fn(&Life) -> Duration;

const SHIM_START: Step = |life| life.shim_start;
const CREATE: Step = |life| life.create;
const FIRST_OUTPUT: Step = |life| life.first_output;
const EXIT: Step = |life| life.exit;

const STEPS: [(&str, Step); 7] = [
    ("shim start", SHIM_START),
    ("Create", CREATE),
    ("Start", |life| life.start),
    ("to first output", FIRST_OUTPUT),
    ("to exit", EXIT),
    ("Delete", |life| life.delete),
    ("whole life", |life| life.whole),
];

/// What was measured.
pub(crate) struct Report {
    runs: usize,
    names: Vec<&'static str>,
    firsts: BTreeMap<&'static str, Life>,
    lives: BTreeMap<&'static str, Vec<Life>>,
    /// First starts of large programs.
    pub(crate) large: Vec<First>,
    /// Of containers that run Ruby, each but the first.
    pub(crate) private: Vec<Private>,
    pub(crate) together: Vec<Together>,
    pub(crate) run: Vec<Run>,
    /// Name and version of the command line that `run` has beside ours.
    pub(crate) wasmtime: String,
}

/// A goal: what, the figure, the must, the aim.
type Goal = (String, f64, f64, &'static str);

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Median, least and most.
fn spread(mut values: Vec<f64>) -> Option<[f64; 3]> {
    values.sort_by(f64::total_cmp);
    Some([*values.get(values.len() / 2)?, *values.first()?, *values.last()?])
}

fn shown([median, least, most]: [f64; 3]) -> String {
    format!("{median:.2} ({least:.2} to {most:.2})")
}

/// The first row of a table and the line below it.
fn head(out: &mut String, cells: &[&str]) {
    let _ = writeln!(out, "\n| {} |\n|{}", cells.join(" | "), "---|".repeat(cells.len()));
}

impl Report {
    pub(crate) fn new(runs: usize) -> Report {
        let (names, firsts, lives) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let (large, private, together, run) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let wasmtime = String::new();
        Report { runs, names, firsts, lives, large, private, together, run, wasmtime }
    }

    /// The first life ever: with an empty cache.
    pub(crate) fn first(&mut self, subject: &Subject, life: Life) {
        self.names.push(subject.name);
        self.firsts.insert(subject.name, life);
    }

    pub(crate) fn add(&mut self, subject: &Subject, life: Life) {
        self.lives.entry(subject.name).or_default().push(life);
    }

    /// Median, least and most of a step, in milliseconds.
    fn times(&self, name: &str, step: Step) -> Option<[f64; 3]> {
        let lives = self.lives.get(name)?;
        spread(lives.iter().map(|life| step(life).as_secs_f64() * 1e3).collect())
    }

    /// The median of a step, in milliseconds.
    fn median(&self, name: &str, step: Step) -> Option<f64> {
        Some(self.times(name, step)?[0])
    }

    pub(crate) fn markdown(&self) -> String {
        let mut out = String::from("# Start-up\n\n");
        let _ = writeln!(
            out,
            "{} lives of each, in random order; milliseconds: median (least to most).\nShim start, Create, Start \
             and Delete are those calls alone, the rest is from the exec of the shim's `start` on.",
            self.runs
        );
        self.steps(&mut out);
        self.ratios(&mut out);
        self.goals(&mut out);
        self.large(&mut out);
        self.memory(&mut out);
        self.together(&mut out);
        self.processes(&mut out);
        out
    }

    fn steps(&self, out: &mut String) {
        head(out, &[&["step"], &self.names[..]].concat());
        for (label, step) in STEPS {
            let _ = write!(out, "| {label} |");
            for name in &self.names {
                let cell = self.times(name, step).map_or("-".to_owned(), shown);
                let _ = write!(out, " {cell} |");
            }
            out.push('\n');
        }
        let _ = write!(out, "| to first output, the first time ever |");
        for name in &self.names {
            let first = self.firsts.get(name).map_or(0.0, |life| life.first_output.as_secs_f64());
            let _ = write!(out, " {:.2} |", first * 1e3);
        }
        out.push('\n');
    }

    /// A hello under each shim, as shares of runc's.
    fn ratios(&self, out: &mut String) {
        let labels = STEPS.map(|(label, _)| label);
        head(out, &[&["hello, to runc's"], &labels[..]].concat());
        for name in [OUR_HELLO].iter().chain(&LAYERS) {
            let _ = write!(out, "| {name} |");
            for (_, step) in STEPS {
                let ratio = || Some(self.median(name, step)? / self.median(RUNC_HELLO, step)?);
                let _ = write!(out, " {:.2} |", ratio().unwrap_or(f64::NAN));
            }
            out.push('\n');
        }
    }

    fn goals(&self, out: &mut String) {
        head(out, &["goal", "measured", "must", "holds", "aim"]);
        let all = [self.life_goals(), self.large_goals(), self.other_goals()].concat();
        for (what, measured, must, aim) in all {
            let held = if measured <= must { "yes" } else { "**no**" };
            let _ = writeln!(out, "| {what} | {measured:.3} | ≤ {must} | {held} | {aim} |");
        }
    }

    fn life_goals(&self) -> Vec<Goal> {
        let goals = [
            ("hello, shim start to exit, to runc", EXIT, 0.35, "0.15"),
            ("Create, to runc's", CREATE, 0.25, "0.1"),
            ("shim start, to runc's", SHIM_START, 0.3, "0.15"),
        ];
        let goal = |(what, step, must, aim): (&str, Step, f64, &'static str)| {
            let ratio = self.median(OUR_HELLO, step)? / self.median(RUNC_HELLO, step)?;
            Some((what.to_owned(), ratio, must, aim))
        };
        let mut all: Vec<Goal> = goals.into_iter().filter_map(goal).collect();
        for (subject, alone) in [(OUR_RUBY, run::OUR_RUBY), (OUR_CPYTHON, run::OUR_CPYTHON)] {
            let share = || {
                let hello = 1.2 * self.median(OUR_HELLO, FIRST_OUTPUT)?;
                let bound = hello + 1e3 * self.seconds(alone)?;
                Some(self.median(subject, FIRST_OUTPUT)? / bound)
            };
            let what =
                format!("{subject}, to first output, to 1.2 × hello and `coracle run`'s of it");
            all.extend(share().map(|share| (what, share, 1.0, "-")));
        }
        all
    }

    fn large_goals(&self) -> Vec<Goal> {
        let goal = |First { name, starts, compiles, .. }: &First| {
            let share = median(starts.clone())? / median(compiles.clone())?;
            let what = format!("{name}, first start ever, to compiling it whole on one thread");
            Some((what, share, 0.2, "0.05"))
        };
        self.large.iter().filter_map(goal).collect()
    }

    fn other_goals(&self) -> Vec<Goal> {
        let mut all: Vec<Goal> = Vec::new();
        let most = self.private.iter().map(|private| private.guest + private.shim).max();
        let what = "MB that another Ruby container has besides its linear memory";
        all.extend(most.map(|bytes| (what.to_owned(), bytes as f64 / 1e6, 3.0, "-")));
        for Together { shims, failed, compilations, .. } in &self.together {
            let most = compilations.iter().max().copied().unwrap_or_default();
            all.push((format!("{shims} shims at once: failures"), *failed as f64, 0.0, "-"));
            all.push((format!("{shims} shims at once: compilations"), most as f64, 1.0, "-"));
        }
        let best = |of: &dyn Fn(&str) -> Option<f64>| {
            let theirs = run::THEIR_HELLOS.into_iter().filter_map(of);
            Some(of(run::OUR_HELLO)? / theirs.min_by(f64::total_cmp)?)
        };
        let time = best(&|name| self.seconds(name));
        let what = "`coracle run` hello, time to the faster of `wasmtime run`'s";
        all.extend(time.map(|ratio| (what.into(), ratio, 0.5, "2 ms")));
        let memory = best(&|name| self.bytes(name));
        let what = "its peak memory to the smaller of theirs";
        all.extend(memory.map(|ratio| (what.into(), ratio, 0.5, "4 MB")));
        all
    }

    fn of_run(&self, name: &str, value: impl Fn(&Sample) -> f64) -> Option<f64> {
        let run = self.run.iter().find(|run| run.name == name)?;
        median(run.samples.iter().map(value).collect())
    }

    fn seconds(&self, name: &str) -> Option<f64> {
        self.of_run(name, |sample| sample.wall)
    }

    fn bytes(&self, name: &str) -> Option<f64> {
        self.of_run(name, |sample| sample.rss)
    }

    fn large(&self, out: &mut String) {
        let runs = self.large.first().map_or(0, |first| first.starts.len());
        let _ =
            writeln!(out, "\nThe first start ever, {runs} of each, the cache emptied each time:");
        let cells =
            ["program", "to first output, s", "compiling it whole, one thread, s", "MB of code"];
        head(out, &cells);
        for First { name, starts, compiles, code } in &self.large {
            let [start, compile] = [starts, compiles]
                .map(|values| spread(values.clone()).map_or("-".to_owned(), shown));
            let _ = writeln!(out, "| {name} | {start} | {compile} | {:.1} |", *code as f64 / 1e6);
        }
    }

    fn memory(&self, out: &mut String) {
        head(out, &["containers of Ruby after the first", "MB"]);
        for Private { guest, linear, shim } in &self.private {
            let [guest, linear, shim] = [guest, linear, shim].map(|bytes| *bytes as f64 / 1e6);
            let _ = writeln!(
                out,
                "| process {guest:.2}, shim {shim:.2}, linear memory {linear:.1} | {:.2} |",
                guest + shim
            );
        }
    }

    fn together(&self, out: &mut String) {
        let code = self.together.first().map_or(0, |together| together.code);
        let column = format!("shims at once, {:.1} MB of code", code as f64 / 1e6);
        head(out, &[&column, "failed", "compilations a round", "seconds a round"]);
        for Together { shims, failed, compilations, seconds, .. } in &self.together {
            let seconds: Vec<String> = seconds.iter().map(|s| format!("{s:.2}")).collect();
            let _ =
                writeln!(out, "| {shims} | {failed} | {compilations:?} | {} |", seconds.join(", "));
        }
    }

    fn processes(&self, out: &mut String) {
        let column = format!("process ({})", self.wasmtime);
        head(out, &[&column, "ms", "processor, ms", "MB"]);
        for Run { name, .. } in &self.run {
            let of = |value: fn(&Sample) -> f64| self.of_run(name, value).unwrap_or_default();
            let (wall, cpu) = (1e3 * of(|sample| sample.wall), 1e3 * of(|sample| sample.cpu));
            let mb = of(|sample| sample.rss) / 1e6;
            let _ = writeln!(out, "| {name} | {wall:.2} | {cpu:.2} | {mb:.1} |");
        }
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        Ok(std::fs::write(folder.join("start.md"), self.markdown())?)
    }
}
