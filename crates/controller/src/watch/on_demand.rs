//! A watch that somebody asked for: it ends with its owner.

use std::sync::Arc;

use kube::Api;
use tokio::task::AbortHandle;

use super::Poke;
use crate::health::Health;
use crate::observe::{Observed, StoreOf};

/// A running watch with its store.
#[derive(Debug)]
pub struct OnDemand<S: Observed> {
    store: Arc<StoreOf<S>>,
    task: AbortHandle,
}

impl<S: Observed> OnDemand<S> {
    /// Begins to watch.
    pub fn start(
        api: Api<S>,
        keep: impl Fn(&S::Key) -> bool + Send + Sync + 'static,
        poke: Poke,
        health: Health,
    ) -> Self {
        let store = Arc::new(StoreOf::<S>::default());
        let watch = super::run(api, Arc::clone(&store), keep, poke, health);
        Self { store, task: tokio::spawn(watch).abort_handle() }
    }

    /// What it keeps; `None` until its first list is in, and when it broke down: what is not watched is not known.
    pub fn known(&self) -> Option<&StoreOf<S>> {
        (self.store.is_synced() && !self.is_broken()).then_some(&*self.store)
    }

    /// Whether the task ended, which it never does by itself.
    pub fn is_broken(&self) -> bool {
        self.task.is_finished()
    }
}

impl<S: Observed> Drop for OnDemand<S> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
