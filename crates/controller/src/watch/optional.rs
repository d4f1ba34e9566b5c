//! A watch of a kind that a cluster need not know: it waits until somebody installs its CRD, and nothing waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::Api;
use kube::core::Status;
use kube::runtime::watcher;

use super::Poke;
use super::intake::Intake;
use crate::health::Health;
use crate::observe::{Observed, StoreOf};

/// How often it is looked whether a kind exists by now.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Watches a kind for ever, as long as there is one. Without it the store is empty, and in sync.
pub async fn run<S: Observed>(api: Api<S>, store: Arc<StoreOf<S>>, poke: Poke, health: Health) {
    let mut told = false;
    loop {
        let mut intake = Intake::new(Arc::clone(&store), |_: &S::Key| true);
        let mut existed = false;
        let take = |event| {
            existed |= matches!(event, watcher::Event::InitDone);
            if intake.take(event) {
                poke.poke();
            }
        };
        // It is not supervised while it does not exist: no watch that fails, and none that is silent.
        super::until(api.clone(), health.clone(), take, is_absent).await;
        // An API server that begins anew may not know its CRDs for a moment: what was there is gone when it says so twice.
        if (!store.is_synced() || !existed) && store.replace(BTreeMap::new()) {
            poke.poke();
        }
        if existed || !told {
            tracing::info!(kind = %S::kind(&()), group = %S::group(&()), "this kind is not installed: waiting for it");
        }
        told = true;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Whether the API server says that there is no such kind. An expired version (410) is something else.
fn is_absent(error: &watcher::Error) -> bool {
    let absent = |status: &Status| status.code == 404;
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => absent(status),
        _ => false,
    }
}
