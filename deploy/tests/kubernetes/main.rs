//! What Kubernetes makes of WebAssembly containers: a programme against any cluster that has the RuntimeClass `wasm`.
//!
//! `KUBECONFIG` names the cluster, as ever; kubectl must be in `PATH`. Each test has a namespace of its own, removed
//! afterwards. A table at the end tells how each test ended and how long it took.
//!
//! - `--images PREFIX`: where the images are, `PREFIX/NAME:FORM` (default `coracle.test`)
//! - `--node COMMAND`: what runs a command on the node of a cluster that has only one; without it the tests that
//!   restart the node's services are left out, and counted as skipped
//! - `--jobs N`: as many tests at a time (default 2)
//! - `--keep`: leave the namespaces of tests that failed
//! - `--list`: print the tests' names
//! - `--list-images`: print NAME:FORM of each image that the tests want to find at PREFIX
//!
//! Arguments that are no options select tests whose name contains one of them.

mod classes;
mod cluster;
mod limits;
mod network;
mod pods;
mod probes;
mod restarts;
mod use_of;
mod volumes;
mod workloads;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};

use cluster::Namespace;

/// A test: its name, and what it does in a namespace of its own.
type Test = (&'static str, fn(&Namespace) -> Result<()>);

const TESTS: [Test; 26] = [
    ("node-ready", pods::the_node_is_ready),
    ("wasm-completes", pods::every_form_of_image_completes),
    ("exit-codes", pods::jobs_end_with_exit_codes),
    ("trap", pods::a_trap_is_told),
    ("sidecar", pods::a_linux_sidecar_shares_the_pod),
    ("init-container", pods::init_containers_come_first),
    ("bad-image", pods::a_bad_image_says_why),
    ("service", network::a_service_is_found_by_name),
    ("port-forward", network::port_forward_reaches_the_guest),
    ("exec", use_of::exec_runs_the_toolbox),
    ("logs", use_of::logs_follow),
    ("attach", use_of::attach_talks_to_the_program),
    ("cp", use_of::cp_takes_files_both_ways),
    ("top", use_of::top_knows_the_pod),
    ("configuration", volumes::configuration_reaches_the_guest),
    ("volumes", volumes::volumes_are_what_they_say),
    ("probes", probes::probes_are_answered),
    ("failing-probes", probes::failing_probes_have_their_effect),
    ("runtime-class", classes::wrong_classes_are_told),
    ("oom", limits::memory_that_runs_out_is_the_reason),
    ("resize", limits::limits_change_in_place),
    ("grace-period", limits::ends_within_the_grace_period),
    ("eviction", limits::evicted_pods_go),
    ("deployment", workloads::twenty_roll_and_scale),
    ("cron-job", workloads::schedules_are_kept),
    ("autoscaler", workloads::load_brings_more_pods),
];

/// Tests that disturb others, and so come after them, one by one. They need the node.
const ALONE: [Test; 2] = [
    ("restart-containerd", restarts::pods_live_through_containerd),
    ("restart-kubelet", restarts::pods_live_through_kubelet),
];

/// The images of all tests.
const IMAGES: [&str; 16] = [
    "hello:rootfs",
    "hello:layer",
    "hello:artifact",
    "hello-rust:rootfs",
    "hello-go:rootfs",
    "exit-code:layer",
    "trap:layer",
    "bad-imports:rootfs",
    "sleep:layer",
    "spin:rootfs",
    "stdin-echo:rootfs",
    "files:rootfs",
    "hello-wat:wat",
    "sockets:layer",
    "sockets-rust:layer",
    "busybox:rootfs",
];

/// What the command line asks for.
struct Options {
    images: String,
    node: Option<String>,
    jobs: usize,
    keep: bool,
    wanted: Vec<String>,
}

/// How a test ended.
struct Outcome {
    name: &'static str,
    result: Result<()>,
    took: Duration,
}

impl Options {
    /// The options, or none when the command line wanted only a list, which is printed then.
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let mut options = Self {
            images: "coracle.test".into(),
            node: None,
            jobs: 2,
            keep: false,
            wanted: Vec::new(),
        };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| anyhow!("{arg} needs a value"));
            match arg.as_str() {
                "--images" => options.images = value()?.trim_end_matches('/').to_owned(),
                "--node" => options.node = Some(value()?),
                "--jobs" => options.jobs = value()?.parse()?,
                "--keep" => options.keep = true,
                "--list" => {
                    all().for_each(|(name, _)| println!("{name}"));
                    return Ok(None);
                }
                "--list-images" => {
                    IMAGES.iter().for_each(|image| println!("{image}"));
                    return Ok(None);
                }
                option if option.starts_with('-') => bail!("unknown option {option}"),
                _ => options.wanted.push(arg),
            }
        }
        Ok(Some(options))
    }

    fn chosen(&self, tests: &[Test]) -> VecDeque<Test> {
        let chosen = |name: &str| {
            self.wanted.is_empty() || self.wanted.iter().any(|part| name.contains(part))
        };
        tests.iter().copied().filter(|(name, _)| chosen(name)).collect()
    }
}

/// All tests, in the order of the table.
fn all() -> impl Iterator<Item = Test> {
    TESTS.into_iter().chain(ALONE)
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kubernetes: {error}; the options are in the head of {}", file!());
            return ExitCode::from(2);
        }
    };
    let mut outcomes = run_all(&options);
    let alone = options.chosen(&ALONE);
    let skipped = if options.node.is_none() { alone.len() } else { 0 };
    if skipped == 0 {
        outcomes.extend(alone.into_iter().map(|test| run(&options, test)));
    }
    report(&outcomes, skipped)
}

/// Runs the chosen of the tests that bear each other, `jobs` at a time, and gives their outcomes in the order of the list.
fn run_all(options: &Options) -> Vec<Outcome> {
    let queue = Mutex::new(options.chosen(&TESTS));
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let Some(test) =
                        queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
                    else {
                        break;
                    };
                    let outcome = run(options, test);
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by_key(|outcome| TESTS.iter().position(|(name, _)| *name == outcome.name));
    outcomes
}

fn run(options: &Options, (name, test): Test) -> Outcome {
    let start = Instant::now();
    let result =
        Namespace::create(name, &options.images, options.node.as_deref()).and_then(|namespace| {
            let panicked = |_| Err(anyhow!("the test itself panicked"));
            let result =
                catch_unwind(AssertUnwindSafe(|| test(&namespace))).unwrap_or_else(panicked);
            if result.is_err() {
                eprintln!("--- {name}: what the cluster says\n{}", namespace.describe());
            }
            let removed = if result.is_err() && options.keep { Ok(()) } else { namespace.delete() };
            result.and(removed)
        });
    Outcome { name, result, took: start.elapsed() }
}

/// The table, and a closing line with the counts.
fn report(outcomes: &[Outcome], skipped: usize) -> ExitCode {
    for outcome in outcomes {
        let (word, why) = match &outcome.result {
            Ok(()) => ("ok", String::new()),
            Err(error) => ("FAILED", format!("{error:#}")),
        };
        println!("{:<20} {word:<7} {:>6.1} s  {why}", outcome.name, outcome.took.as_secs_f32());
    }
    let failed = outcomes.iter().filter(|outcome| outcome.result.is_err()).count();
    println!("{} passed, {failed} failed, {skipped} skipped", outcomes.len() - failed);
    if failed == 0 && !outcomes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
