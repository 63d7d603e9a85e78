//! Many functions on many threads, with the same result as one after another.
//!
//! Threads take jobs in order and the caller receives the code in order; a failure is the one of
//! the first job that fails, however the threads ran.

use std::collections::BTreeMap;
use std::iter::Enumerate;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::CompileError;

/// Stack of a compiler thread, in bytes. Passes of the code generator recurse on what a module's
/// author controls; the pages are only used when touched.
const STACK: usize = 16 << 20;

type Report<R> = (usize, Result<R, CompileError>);

/// Jobs that are left, in order.
struct Queue<I> {
    jobs: Enumerate<I>,
    /// The first job that failed: no later one need be done.
    failed: usize,
}

/// Runs all jobs and hands their results to `done` in order. `worker` makes what does the jobs of
/// one thread.
///
/// # Errors
/// The first job's that failed, or what `done` gives.
pub(super) fn run<J: Send, R: Send, W>(
    jobs: impl Iterator<Item = J> + Send,
    threads: usize,
    worker: impl Fn() -> W + Sync,
    mut done: impl FnMut(R) -> Result<(), CompileError>,
) -> Result<(), CompileError>
where
    W: FnMut(J) -> Result<R, CompileError>,
{
    let queue = Mutex::new(Queue { jobs: jobs.enumerate(), failed: usize::MAX });
    let (sender, receiver) = channel();
    thread::scope(|scope| {
        let work = |sender: Sender<Report<R>>| {
            let (queue, worker) = (&queue, &worker);
            move || work(worker(), queue, &sender)
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

fn work<J, R>(
    mut worker: impl FnMut(J) -> Result<R, CompileError>,
    queue: &Mutex<Queue<impl Iterator<Item = J>>>,
    sender: &Sender<Report<R>>,
) {
    loop {
        let next = {
            let mut queue = lock(queue);
            let failed = queue.failed;
            queue.jobs.next().filter(|(n, _)| *n < failed)
        };
        let Some((n, job)) = next else { return };
        let result = worker(job);
        if result.is_err() {
            let mut queue = lock(queue);
            queue.failed = queue.failed.min(n);
        }
        if sender.send((n, result)).is_err() {
            return;
        }
    }
}

/// Receives reports in any order and passes the results on in the jobs' order.
fn in_order<R>(
    receiver: &Receiver<Report<R>>,
    done: &mut impl FnMut(R) -> Result<(), CompileError>,
) -> Result<(), CompileError> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    for (n, result) in receiver {
        early.insert(n, result);
        while let Some(result) = early.remove(&next) {
            done(result?)?;
            next += 1;
        }
    }
    Ok(())
}

/// A thread that panicked has taken its job with it; the queue itself is always whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
