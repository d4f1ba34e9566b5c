//! Programs that tidy up also when they are interrupted.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

/// What a program returns when a signal ended it, as shells report the end by Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// The outcome of some work; `None` when a signal came first. What the work had started ends with it.
pub async fn until_interrupted<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        outcome = work => Some(outcome),
        () = asked_to_end() => None,
    }
}

/// Returns at Ctrl-C, SIGTERM, or when the terminal is gone.
async fn asked_to_end() {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let waits = kinds.into_iter().filter_map(|kind| signal(kind).ok()).map(|mut signal| {
        Box::pin(async move {
            signal.recv().await;
        })
    });
    futures::future::select_all(waits).await;
}
