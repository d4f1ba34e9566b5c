//! The standing count of proxies: taken by paged lists on a timer while this process leads, so that a patch of a control plane
//! shows in status and metrics long after its upgrade.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meshupgrade_core::census::Census;

use crate::census;
use crate::context::Context;

/// The last count.
#[derive(Clone, Debug, Default)]
pub struct ProxyCount(Arc<Mutex<Option<Arc<Census>>>>);

impl ProxyCount {
    /// The last count, if there was one.
    pub fn last(&self) -> Option<Arc<Census>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, count: Census) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(count));
    }
}

/// Counts again and again, until the process is to end. A count that fails leaves the last one.
pub async fn run(context: Arc<Context>, every: Duration) {
    loop {
        if context.leadership.may_write() && !context.upgrades.is_empty() {
            match census::proxies(&context.clients).await {
                Ok(count) => {
                    context.proxies.set(count);
                    context.poke.poke();
                }
                Err(error) => tracing::warn!(%error, "proxies could not be counted"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = context.stop.clone().wait() => return,
        }
    }
}
