//! Watches containerd's images and has them compiled.
//!
//! Two tasks share the [`Queue`]: one hears of images, from the list at each connection and from events after it, the
//! other takes them out. Nothing is asked while nothing happens; only a containerd that is away is looked for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coracle_shim::warm::report::Report;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::cache::NodeCache;
use super::compiler::{Compiler, Outcome};
use super::containerd::{Containerd, Event, Fault, Image};
use super::metrics::Metrics;
use super::queue::Queue;
use super::stop::Stopped;

/// Pauses before containerd is looked for again: the first, doubled up to the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
/// Longer than between the ends of two layers of an image, mostly.
const UNPACKING: Duration = Duration::from_secs(1);

/// What both tasks know.
#[derive(Debug)]
pub(crate) struct Watch {
    socket: std::path::PathBuf,
    /// The connection, while events are heard.
    connected: watch::Sender<Option<Containerd>>,
    /// `None` where nothing is to be compiled ahead.
    compiler: Option<Compiler>,
    jobs: usize,
    cache: NodeCache,
    metrics: Arc<Metrics>,
    queue: Mutex<Queue>,
    work: Notify,
    unpacking: Notify,
}

impl Watch {
    pub(crate) fn new(
        socket: std::path::PathBuf,
        compiler: Option<Compiler>,
        jobs: usize,
        cache: NodeCache,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let (queue, work, unpacking) = (Mutex::default(), Notify::new(), Notify::new());
        let connected = watch::Sender::new(None);
        Arc::new(Self { socket, connected, compiler, jobs, cache, metrics, queue, work, unpacking })
    }

    /// The connection, if events are heard.
    pub(crate) fn containerd(&self) -> Option<Containerd> {
        self.connected.borrow().clone()
    }

    /// The same as it changes.
    pub(crate) fn connections(&self) -> watch::Receiver<Option<Containerd>> {
        self.connected.subscribe()
    }

    /// How many images wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue().len()
    }

    /// Listens until the daemon ends.
    pub(crate) async fn listen(self: Arc<Self>, mut stop: Stopped) {
        tokio::select! {
            () = stop.stopped() => {}
            () = self.listen_for_ever() => {}
            () = self.await_unpacking() => {}
        }
    }

    /// Of an image's layers one is unpacked after the other, and each is told: what waits is looked at after the last.
    async fn await_unpacking(&self) {
        loop {
            self.unpacking.notified().await;
            while tokio::time::timeout(UNPACKING, self.unpacking.notified()).await.is_ok() {}
            if self.queue().unpacked() {
                self.work.notify_one();
            }
        }
    }

    async fn listen_for_ever(&self) {
        let [mut pause, longest] = PAUSES;
        let mut told = false;
        loop {
            let fault = self.session().await;
            let was_connected = self.connected.send_replace(None).is_some();
            if was_connected {
                (pause, told) = (PAUSES[0], false);
            }
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(error = %fault, "containerd is away: it will be looked for");
            }
            tokio::time::sleep(pause).await;
            pause = longest.min(pause * 2);
        }
    }

    /// From a connection to its end.
    async fn session(&self) -> Fault {
        match self.hear().await {
            Ok(never) => match never {},
            Err(fault) => fault,
        }
    }

    async fn hear(&self) -> Result<std::convert::Infallible, Fault> {
        let containerd = Containerd::connect(&self.socket).await?;
        let mut early = Vec::new();
        let mut events = containerd.listen(|event| early.push(event)).await?;
        self.connected.send_replace(Some(containerd.clone()));
        tracing::info!(socket = %self.socket.display(), "containerd is there");
        if self.compiler.is_some() {
            self.list(&containerd).await?;
        }
        for event in early {
            self.consider(&containerd, event).await?;
        }
        loop {
            let event = events.next().await?;
            self.consider(&containerd, event).await?;
        }
    }

    /// All images that are there: what was pulled while nobody listened is among them.
    async fn list(&self, containerd: &Containerd) -> Result<(), Fault> {
        let mut all = Vec::new();
        for namespace in containerd.namespaces().await? {
            all.extend(containerd.images(&namespace).await?);
        }
        let mut queue = self.queue();
        queue.keep_only(&all);
        let new = all.into_iter().map(|image| queue.offer(image)).filter(|new| *new).count();
        tracing::info!(images = new, "images to look at");
        self.work.notify_one();
        Ok(())
    }

    async fn consider(&self, containerd: &Containerd, event: Event) -> Result<(), Fault> {
        if self.compiler.is_none() {
            return Ok(());
        }
        match event {
            Event::Image { namespace, name } => {
                // One that is gone again needs nothing.
                if let Some(image) = containerd.image(&namespace, &name).await?
                    && self.queue().offer(image)
                {
                    self.work.notify_one();
                }
            }
            Event::Unpacked => self.unpacking.notify_one(),
            Event::Hello | Event::Other => {}
        }
        Ok(())
    }

    /// Compiles what is in the queue until the daemon ends; what is at work then is ended with it.
    pub(crate) async fn work(self: Arc<Self>, mut stop: Stopped) {
        let mut running = JoinSet::new();
        loop {
            while running.len() < self.jobs
                && let Some(image) = self.take()
            {
                running.spawn(Arc::clone(&self).one(image, stop.clone()));
            }
            self.metrics.precompiling(running.len());
            tokio::select! {
                () = stop.stopped() => break,
                () = self.work.notified() => {}
                Some(_) = running.join_next() => {}
            }
        }
        while running.join_next().await.is_some() {}
    }

    fn take(&self) -> Option<Image> {
        self.queue().next()
    }

    async fn one(self: Arc<Self>, image: Image, stop: Stopped) {
        let Some(compiler) = &self.compiler else { return };
        let outcome = compiler.compile(&image, stop).await;
        say(&image, &outcome);
        self.metrics.precompiled(&outcome);
        if let Outcome::Reported(Report::Compiled { .. }) = &outcome {
            self.cache.prune(&self.metrics).await;
        }
        self.queue().done(&image, &outcome.report());
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while holding the lock, so poison carries no meaning.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What people want to know: what was compiled, and what should have been. Most images hold no WebAssembly.
fn say(image: &Image, outcome: &Outcome) {
    let Image { namespace, name, digest } = image;
    match outcome {
        Outcome::Reported(Report::Compiled { seconds, bytes }) => {
            tracing::info!(namespace, name, digest, seconds, bytes, "compiled");
        }
        Outcome::Reported(Report::Failed { why }) => {
            tracing::warn!(namespace, name, digest, why, "not compiled");
        }
        Outcome::Late => {
            tracing::warn!(namespace, name, digest, "not compiled: it took too long and was ended");
        }
        Outcome::Reported(
            Report::Nothing { why } | Report::NotUnpacked { why } | Report::Gone { why },
        ) => tracing::debug!(namespace, name, digest, why, "nothing to compile"),
        Outcome::Reported(Report::Cached { .. }) | Outcome::Interrupted => {
            tracing::debug!(namespace, name, digest, outcome = outcome.name(), "looked at");
        }
    }
}
