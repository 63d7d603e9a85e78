//! How long containers take to start, driven as containerd drives them: this shim with programs from the
//! node's cache and from nothing, runwasi's with our engine and with wasmtime, and runc's with a native
//! program, in one run and in random order.
//!
//! `shim/benches/start.sh` builds what is measured and says what it is by environment variables.

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

mod compile;
mod containerd;
mod first;
mod life;
mod memory;
#[path = "../../../engine/benches/compare/process.rs"]
mod process;
mod report;
mod run;
mod subject;
mod together;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use containerd_shim_protos::api::Empty;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::{Events, create_events};
use containerd_shim_protos::ttrpc;
use containerd_shim_protos::ttrpc::asynchronous::{Server, TtrpcContext, transport::Listener};

use report::Report;
use subject::{Bed, Subject};

/// Takes events and forgets them.
struct Taken;

#[async_trait::async_trait]
impl Events for Taken {
    async fn forward(&self, _: &TtrpcContext, _: ForwardRequest) -> ttrpc::Result<Empty> {
        Ok(Empty::default())
    }
}

struct Options {
    runs: usize,
    out: PathBuf,
    /// A program that runs the shim and notes what it does.
    trace: Option<PathBuf>,
}

fn options() -> Result<Options> {
    let mut options = Options { runs: 20, out: "shim/benches/report".into(), trace: None };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--runs" => options.runs = args.next().context("--runs N")?.parse()?,
            "--quick" => options.runs = 2,
            "--out" => options.out = args.next().context("--out FOLDER")?.into(),
            "--trace" => options.trace = Some(args.next().context("--trace PROGRAM")?.into()),
            other => bail!("unknown option {other}: see shim/benches/start.sh --help"),
        }
    }
    Ok(options)
}

fn main() -> Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == process::HELPER) {
        return process::helper(&args[1..]);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure())?;
    Ok(ExitCode::SUCCESS)
}

async fn measure() -> Result<()> {
    let options = options()?;
    let bed = Arc::new(Bed::new()?);
    let listener = std::os::unix::net::UnixListener::bind(bed.events())?;
    let mut server = Server::new()
        .add_listener(Listener::try_from(listener)?)
        .register_service(create_events(Arc::new(Taken)));
    server.start().await?;

    if let Some(tracer) = options.trace {
        return trace(&bed, tracer).await;
    }
    let subjects = Subject::all(&bed)?;
    let mut report = Report::new(options.runs);
    // One life of each before anything is measured: caches of all kinds are warm then.
    for subject in &subjects {
        report.first(subject, subject.live(&bed, 0).await?);
    }
    for round in 1..=options.runs {
        eprintln!("bench: round {round} of {}", options.runs);
        for n in order(round, subjects.len()) {
            let subject = &subjects[n];
            let life = subject.live(&bed, round).await;
            report.add(subject, life.with_context(|| format!("{}, round {round}", subject.name))?);
        }
    }
    report.large = first::measure(&bed, options.runs).await.context("first starts")?;
    report.private = memory::measure(&bed).await.context("memory of containers")?;
    // Events are taken by this thread, so it must not wait for those that send them.
    let place = Arc::clone(&bed);
    let together = tokio::task::spawn_blocking(move || together::measure(&place));
    report.together = together.await?.context("shims at once")?;
    report.run = run::measure(&bed, options.runs).context("coracle run")?;
    report.wasmtime = run::wasmtime_version(&bed)?;
    report.write(&options.out)?;
    println!("{}", report.markdown());
    Ok(())
}

/// One life of a cached hello whose shim runs under a tracer (`trace.sh`).
async fn trace(bed: &Bed, tracer: PathBuf) -> Result<()> {
    let hello = Subject::hello(bed)?.silent();
    hello.live(bed, 0).await.context("filling the cache")?;
    // What has changed just now is looked at again.
    tokio::time::sleep(Duration::from_secs(3)).await;
    hello.live(bed, 1).await.context("keeping the module's digest")?;
    hello.under(tracer).live(bed, 2).await.context("under the tracer").map(drop)
}

/// A different order in each round.
fn order(round: usize, len: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    let mut state = (round as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for n in (1..len).rev() {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(n, (state >> 33) as usize % (n + 1));
    }
    order
}
