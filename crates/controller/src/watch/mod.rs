//! Watches: one task per kind with its own backoff, which feeds a [`Store`] and pokes the controller.
//!
//! kube's `Controller` puts one backoff over all its watches, so that one failing kind blinds it to all; ours never
//! share anything.

pub mod config_maps;
mod intake;
pub mod namespaced;
pub mod on_demand;
pub mod optional;
pub mod pods;
pub mod upgrades;

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::Api;
use kube::core::Resource;
use kube::runtime::watcher::{self, Event};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::intake::Intake;
use crate::backoff::delay;
use crate::client::CallError;
use crate::health::Health;
use crate::observe::{Observed, StoreOf};

/// How long one watch lasts. Load balancers drop idle connections after 240 s without a word; kube's default of 290 s
/// would leave us blind until it notices.
pub const WATCH_SECONDS: u32 = 200;
/// Objects per page of an initial list.
const PAGE: u32 = 500;
/// How long one page of an initial list may take.
const PAGE_TIMEOUT: Duration = Duration::from_mins(1);
/// Waiting times after failures of a watch.
const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(15);
/// Pokes closer than this become one: a rollout brings tens of events per pod.
const POKE_GAP: Duration = Duration::from_millis(10);

/// Asks the controller for a pass over every MeshUpgrade.
#[derive(Clone, Debug, Default)]
pub struct Poke(Arc<Notify>);

impl Poke {
    /// Something changed.
    pub fn poke(&self) {
        self.0.notify_one();
    }

    /// The pokes, as the controller wants them.
    pub fn stream(self) -> impl Stream<Item = ()> + Send + 'static {
        futures::stream::unfold((self, None::<Instant>), |(poke, last)| async move {
            poke.0.notified().await;
            if let Some(last) = last {
                tokio::time::sleep_until(last + POKE_GAP).await;
            }
            Some(((), (poke, Some(Instant::now()))))
        })
    }
}

/// The configuration that every watch begins with.
pub fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE)
}

/// Watches a kind for ever: what it reads goes to the store as far as `keep` wants it.
pub async fn run<S: Observed>(
    api: Api<S>,
    store: Arc<StoreOf<S>>,
    keep: impl Fn(&S::Key) -> bool + Send + Sync,
    poke: Poke,
    health: Health,
) {
    let mut intake = Intake::new(store, keep);
    each_event(api, health, |event: Event<S>| {
        if intake.take(event) {
            poke.poke();
        }
    })
    .await;
}

/// Gives every event of a watch to `take`, for ever, through errors and silence.
pub async fn each_event<K>(api: Api<K>, health: Health, take: impl FnMut(Event<K>))
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    until(api, health, take, |_| false).await;
}

/// The same up to an error that ends it.
async fn until<K>(
    api: Api<K>,
    health: Health,
    mut take: impl FnMut(Event<K>),
    ends: impl Fn(&watcher::Error) -> bool,
) where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let path = api.resource_url().to_owned();
    let _supervised = health.watch(&path);
    let mut failures = Streak::default();
    loop {
        let mut events = std::pin::pin!(watcher::watcher(api.clone(), config()));
        let mut listing = true;
        loop {
            // A quiet watch is silent for ever, and renews itself underneath; a list must not be.
            let next = if listing {
                tokio::time::timeout(PAGE_TIMEOUT, events.next()).await
            } else {
                Ok(events.next().await)
            };
            match next {
                Ok(Some(Ok(event))) => {
                    listing = match event {
                        Event::Init | Event::InitApply(_) => true,
                        Event::InitDone | Event::Apply(_) | Event::Delete(_) => false,
                    };
                    take(event);
                }
                Ok(Some(Err(error))) if ends(&error) => return,
                Ok(Some(Err(error))) => {
                    let (error, refused) = describe(error);
                    health.failed(&path, &error, refused);
                    let wait = failures.fail();
                    report(&path, &error, failures.count);
                    tokio::time::sleep(wait).await;
                }
                Ok(None) | Err(_) => {
                    health.failed(&path, "the list does not end", false);
                    tracing::warn!(path, "the list does not end: beginning again");
                    tokio::time::sleep(failures.fail()).await;
                    break;
                }
            }
        }
    }
}

/// Failures of a watch that follow each other closely. A watch says nothing when it works again, so quiet counts as
/// success.
#[derive(Debug, Default)]
struct Streak {
    count: u32,
    last: Option<Instant>,
}

impl Streak {
    fn fail(&mut self) -> Duration {
        let now = Instant::now();
        let fresh = self.last.is_none_or(|last| now - last > 2 * LONGEST_DELAY);
        self.count = if fresh { 1 } else { self.count + 1 };
        self.last = Some(now);
        delay(self.count, FIRST_DELAY, LONGEST_DELAY)
    }
}

/// What went wrong, in fewer words than the errors have themselves, and whether it is a refusal.
fn describe(error: watcher::Error) -> (String, bool) {
    let error = match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => CallError::from(error),
        watcher::Error::WatchError(status) => CallError::from(kube::Error::Api(status)),
        error @ watcher::Error::NoResourceVersion => return (error.to_string(), false),
    };
    (error.to_string(), matches!(error, CallError::Refused(_)))
}

/// The first failure is usually an old resource version or an API server that starts anew.
fn report(path: &str, error: &str, failures: u32) {
    if failures == 1 {
        tracing::debug!(path, error, "watch failed");
    } else {
        tracing::warn!(path, error, failures, "watch fails");
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_pokes_become_one_and_none_is_lost() {
        let poke = Poke::default();
        let mut stream = std::pin::pin!(poke.clone().stream());
        assert_eq!(stream.next().now_or_never(), None);
        poke.poke();
        poke.poke();
        assert_eq!(stream.next().await, Some(()));
        assert_eq!(stream.next().now_or_never(), None);
        poke.poke();
        let before = Instant::now();
        assert_eq!(stream.next().await, Some(()));
        assert!(before.elapsed() >= POKE_GAP);
    }
}
