//! Many functions on many threads, with the same result as one after another.
//!
//! Threads take jobs in order and the caller receives the code in order; a failure is the one of
//! the first job that fails, however the threads ran.

use std::collections::BTreeMap;
use std::iter::Enumerate;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use cranelift_codegen::isa::TargetIsa;

use super::CompileError;
use super::func::{Code, Compiler, Job};
use super::translate::Environment;

/// Stack of a compiler thread, in bytes. Passes of the code generator recurse on what a module's
/// author controls; the pages are only used when touched.
const STACK: usize = 16 << 20;

type Report = (usize, Result<Code, CompileError>);

/// Jobs that are left, in order.
struct Queue<I> {
    jobs: Enumerate<I>,
    /// The first job that failed: no later one need be done.
    failed: usize,
}

/// Runs all jobs and hands their code to `done` in order.
///
/// # Errors
/// The first job's that failed, or what `done` gives.
pub(super) fn run<'j>(
    env: &Environment<'_>,
    isa: &dyn TargetIsa,
    jobs: impl Iterator<Item = Job<'j>> + Send,
    threads: usize,
    mut done: impl FnMut(&Code) -> Result<(), CompileError>,
) -> Result<(), CompileError> {
    let queue = Mutex::new(Queue { jobs: jobs.enumerate(), failed: usize::MAX });
    let (sender, receiver) = channel();
    thread::scope(|scope| {
        let work = |sender: Sender<Report>| {
            let queue = &queue;
            move || worker(env, isa, queue, &sender)
        };
        let mut started = 0;
        for n in 0..threads.max(1) {
            let thread = thread::Builder::new().name(format!("compile-{n}")).stack_size(STACK);
            match thread.spawn_scoped(scope, work(sender.clone())) {
                Ok(_) => started += 1,
                // Fewer threads do the same work.
                Err(error) => tracing::warn!(%error, started, "cannot start a compiler thread"),
            }
        }
        if started == 0 {
            work(sender.clone())();
        }
        drop(sender);
        let result = in_order(&receiver, &mut done);
        if result.is_err() {
            lock(&queue).failed = 0;
        }
        result
    })
}

fn worker<'j, I: Iterator<Item = Job<'j>>>(
    env: &Environment<'_>,
    isa: &dyn TargetIsa,
    queue: &Mutex<Queue<I>>,
    sender: &Sender<Report>,
) {
    let mut compiler = Compiler::new(env, isa);
    loop {
        let next = {
            let mut queue = lock(queue);
            let failed = queue.failed;
            queue.jobs.next().filter(|(n, _)| *n < failed)
        };
        let Some((n, job)) = next else { return };
        let result = compiler.run(job);
        if result.is_err() {
            let mut queue = lock(queue);
            queue.failed = queue.failed.min(n);
        }
        if sender.send((n, result)).is_err() {
            return;
        }
    }
}

/// Receives reports in any order and passes the code on in the jobs' order.
fn in_order(
    receiver: &Receiver<Report>,
    done: &mut impl FnMut(&Code) -> Result<(), CompileError>,
) -> Result<(), CompileError> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    for (n, result) in receiver {
        early.insert(n, result);
        while let Some(result) = early.remove(&next) {
            done(&result?)?;
            next += 1;
        }
    }
    Ok(())
}

/// A thread that panicked has taken its job with it; the queue itself is always whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
