//! Medians, and what they are held against.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::life::Life;
use crate::subject::Subject;

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
}

impl Report {
    pub(crate) fn new(runs: usize) -> Report {
        let (names, firsts, lives) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Report { runs, names, firsts, lives }
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
        out
    }

    fn goals(&self, out: &mut String) {
        let median = |name: &str, step: usize| Some(self.times(name, STEPS[step].1)?[0]);
        let (runc, hello) = ("runc, hello", "coracle, hello");
        let goals = [
            ("hello, shim start to exit, to runc", 3, 0.35, 0.15),
            ("Create, to runc's", 1, 0.25, 0.1),
            ("shim start, to runc's", 0, 0.3, 0.15),
        ];
        out.push_str("| goal | measured | must | holds | aim |\n|---|---|---|---|---|\n");
        for (what, step, must, aim) in goals {
            let (Some(ours), Some(theirs)) = (median(hello, step), median(runc, step)) else {
                continue;
            };
            let ratio = ours / theirs;
            let held = if ratio <= must { "yes" } else { "**no**" };
            let _ = writeln!(out, "| {what} | {ratio:.3} | ≤ {must} | {held} | {aim} |");
        }
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        Ok(std::fs::write(folder.join("start.md"), self.markdown())?)
    }
}
