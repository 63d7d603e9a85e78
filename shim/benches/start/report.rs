//! Medians, and what they are held against.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::life::Life;
use crate::memory::Private;
use crate::process::Sample;
use crate::run::Run;
use crate::subject::Subject;
use crate::together::Together;

/// A part of a life.
type Step = fn(&Life) -> Duration;

const STEPS: [(&str, Step); 5] = [
    ("shim start", |life| life.shim_start),
    ("Create", |life| life.create),
    ("first output", |life| life.first_output),
    ("exit", |life| life.exit),
    ("whole life", |life| life.whole),
];

/// Lives by subject.
pub(crate) struct Report {
    runs: usize,
    names: Vec<&'static str>,
    firsts: BTreeMap<&'static str, Life>,
    lives: BTreeMap<&'static str, Vec<Life>>,
    /// Of containers that run Ruby, each but the first.
    pub(crate) private: Vec<Private>,
    pub(crate) together: Vec<Together>,
    pub(crate) run: Vec<Run>,
}

/// A goal: what, the figure, the must, the aim.
type Goal = (String, f64, f64, &'static str);

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

impl Report {
    pub(crate) fn new(runs: usize) -> Report {
        let (names, firsts, lives) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let (private, together, run) = (Vec::new(), Vec::new(), Vec::new());
        Report { runs, names, firsts, lives, private, together, run }
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
        let mut times: Vec<f64> = lives.iter().map(|life| step(life).as_secs_f64() * 1e3).collect();
        times.sort_by(f64::total_cmp);
        Some([times[times.len() / 2], *times.first()?, *times.last()?])
    }

    pub(crate) fn markdown(&self) -> String {
        let mut out = String::from("# Start-up\n\n");
        let _ = writeln!(
            out,
            "{} lives of each, in random order; milliseconds: median (least to most).\n",
            self.runs
        );
        let _ = write!(out, "| step |");
        for name in &self.names {
            let _ = write!(out, " {name} |");
        }
        let _ = writeln!(out, "\n|---|{}", "---|".repeat(self.names.len()));
        for (label, step) in STEPS {
            let _ = write!(out, "| {label} |");
            for name in &self.names {
                let _ = match self.times(name, step) {
                    Some([median, least, most]) => {
                        write!(out, " {median:.2} ({least:.2} to {most:.2}) |")
                    }
                    None => write!(out, " - |"),
                };
            }
            out.push('\n');
        }
        let _ = write!(out, "| first output, the first time ever |");
        for name in &self.names {
            let first = self.firsts.get(name).map_or(0.0, |life| life.first_output.as_secs_f64());
            let _ = write!(out, " {:.2} |", first * 1e3);
        }
        out.push_str("\n\n");
        self.goals(&mut out);
        self.rest(&mut out);
        out
    }

    fn goals(&self, out: &mut String) {
        out.push_str("| goal | measured | must | holds | aim |\n|---|---|---|---|---|\n");
        for (what, measured, must, aim) in self.life_goals().into_iter().chain(self.other_goals()) {
            let held = if measured <= must { "yes" } else { "**no**" };
            let _ = writeln!(out, "| {what} | {measured:.3} | ≤ {must} | {held} | {aim} |");
        }
    }

    fn life_goals(&self) -> Vec<Goal> {
        let median = |name: &str, step: usize| Some(self.times(name, STEPS[step].1)?[0]);
        let (runc, hello) = ("runc, hello", "coracle, hello");
        let goals = [
            ("hello, shim start to exit, to runc", 3, 0.35, "0.15"),
            ("Create, to runc's", 1, 0.25, "0.1"),
            ("shim start, to runc's", 0, 0.3, "0.15"),
        ];
        let goal = |(what, step, must, aim): (&str, usize, f64, &'static str)| {
            Some((what.to_owned(), median(hello, step)? / median(runc, step)?, must, aim))
        };
        let mut all: Vec<Goal> = goals.into_iter().filter_map(goal).collect();
        let ruby = || {
            let bound = 1.2 * median(hello, 2)? + 1e3 * self.seconds("coracle run, Ruby")?;
            Some(median("coracle, Ruby, 30 MB", 2)? / bound)
        };
        let what = "Ruby to first output, to 1.2 × hello and `coracle run`'s of the same";
        all.extend(ruby().map(|ratio| (what.to_owned(), ratio, 1.0, "-")));
        all
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
        let (ours, theirs) = ("coracle run, hello", "wasmtime, hello");
        let time = || Some(self.seconds(ours)? / self.seconds(theirs)?);
        let memory = || Some(self.bytes(ours)? / self.bytes(theirs)?);
        all.extend(
            time().map(|r| ("`coracle run` hello, time to wasmtime".into(), r, 0.5, "2 ms")),
        );
        all.extend(memory().map(|r| ("its memory to wasmtime".into(), r, 0.5, "4 MB")));
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

    /// What there is besides lives.
    fn rest(&self, out: &mut String) {
        out.push_str("\n| containers of Ruby after the first | MB |\n|---|---|\n");
        for Private { guest, linear, shim } in &self.private {
            let [guest, linear, shim] = [guest, linear, shim].map(|bytes| *bytes as f64 / 1e6);
            let _ = writeln!(
                out,
                "| process {guest:.2}, shim {shim:.2}, linear memory {linear:.1} | {:.2} |",
                guest + shim
            );
        }
        out.push_str("\n| shims at once | failed | compilations a round | seconds a round |\n|---|---|---|---|\n");
        for Together { shims, failed, compilations, seconds } in &self.together {
            let seconds: Vec<String> = seconds.iter().map(|s| format!("{s:.2}")).collect();
            let _ =
                writeln!(out, "| {shims} | {failed} | {compilations:?} | {} |", seconds.join(", "));
        }
        out.push_str("\n| process | ms | processor, ms | MB |\n|---|---|---|---|\n");
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
