//! The end of the process, announced once to all tasks.

use tokio::sync::watch;

/// Whether the process is to end.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// Announces the end.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// A stop that is not announced yet.
pub fn channel() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Announces the end.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Whether the end was announced.
    pub fn is_stopping(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for the announcement. A stopper that is gone counts as one.
    pub async fn wait(mut self) {
        let _ = self.0.wait_for(|stopping| *stopping).await;
    }
}
