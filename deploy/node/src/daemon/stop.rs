//! The daemon's end, told to everybody at once.

use tokio::sync::watch;

/// Tells.
#[derive(Debug)]
pub(crate) struct Stop(watch::Sender<bool>);

/// Hears; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Stopped(watch::Receiver<bool>);

impl Stop {
    /// Both ends.
    pub(crate) fn new() -> (Self, Stopped) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Stopped(receiver))
    }

    /// It ends now.
    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stopped {
    /// Resolves when the daemon ends.
    pub(crate) async fn stopped(&mut self) {
        // Nobody who could tell is left: that is an end too.
        let _ = self.0.wait_for(|stopped| *stopped).await;
    }
}
