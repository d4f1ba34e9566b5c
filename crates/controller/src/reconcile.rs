//! The driver: observe → decide → publish → apply, until nothing changes. Only it knows the order.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::ResourceExt;
use meshupgrade_api::MeshUpgrade;
use meshupgrade_core::decision::Wake;

use crate::apply::apply;
use crate::client::CallError;
use crate::context::Context;
use crate::memory;
use crate::publish::{
    PRUNED, Published, is_pruned, pruned, publish, publish_invalid, publish_pruned, publish_unreadable,
    record_of,
};
use crate::report::report;
use crate::stalls::new_stalls;

/// How often one pass may decide again because something changed.
const MAX_ROUNDS: usize = 8;
/// When to look again for what usually comes in a moment.
const SOON: Duration = Duration::from_millis(500);

/// When to try again to store what was not stored as a whole: a definition must change first.
const PRUNED_PAUSE: Duration = Duration::from_secs(15);
/// The shortest time between two passes that only time asks for.
const SHORTEST: Duration = Duration::from_millis(50);

/// Why a pass failed. What merely has to wait is no error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object could not be read, or its status not be written.
    #[error("{name} could not be read or written: {source}")]
    Call {
        /// The MeshUpgrade.
        name: String,
        /// Why.
        #[source]
        source: CallError,
    },
    /// The stored status lacks what was written to it: an older CustomResourceDefinition drops fields that it does not know.
    #[error("{name}: {PRUNED}")]
    Pruned {
        /// The MeshUpgrade.
        name: String,
    },
    /// Some writes have an unknown outcome.
    #[error("writes of {name} have an unknown outcome")]
    Effects {
        /// The MeshUpgrade.
        name: String,
    },
}

/// Decides until nothing changes any more. Returns when to look again at the latest.
pub async fn pass(context: &Context, cached: &MeshUpgrade) -> Result<Option<Duration>, Error> {
    let name = cached.name_any();
    let failed = |source| Error::Call { name: name.clone(), source };
    let Some(mut upgrade) = context.confirmed(cached).await.map_err(failed)? else {
        return Ok(None);
    };
    if let Some(left) = context.memory.pruned_for(&memory::uid(cached), Instant::now()) {
        return Ok(Some(left));
    }
    for _ in 0..MAX_ROUNDS {
        let now = Timestamp::now();
        let intent = match upgrade.intent() {
            Ok(intent) => intent,
            Err(errors) => {
                let published = publish_invalid(context, &upgrade, &errors, now).await;
                return Ok(after(&published.map_err(failed)?));
            }
        };
        let Some(snapshot) = context.snapshot(&upgrade, &intent) else {
            if let Some(problem) = context.unreadable(&intent) {
                publish_unreadable(context, &upgrade, &problem, now).await.map_err(failed)?;
            }
            return Ok(Some(SOON));
        };
        let record = record_of(&upgrade);
        let decision = meshupgrade_core::decide(now, &intent, &record, &snapshot);
        let census_in = context.need(&intent, &decision.needs);
        // While fields are dropped the words say so, until a record is stored as a whole.
        let still_pruned = is_pruned(&upgrade) && decision.record != record;
        let shown = still_pruned.then(|| pruned(decision.record.clone()));
        let published =
            publish(context, &upgrade, shown.as_ref().unwrap_or(&decision), now).await.map_err(failed)?;
        let words_in = after(&published);
        match published {
            // The effects rest on a record that is no longer the stored one, or no longer ours to carry out.
            Published::Stale | Published::Skipped => return Ok(words_in),
            Published::Pruned(stored) => {
                context.memory.pruned(&memory::uid(&stored), Instant::now() + PRUNED_PAUSE);
                publish_pruned(context, &stored, now).await.map_err(failed)?;
                return Err(Error::Pruned { name });
            }
            Published::Later(_) => {}
            Published::Done(written) => {
                let stalls = new_stalls(upgrade.status.as_ref(), &decision.view.blocked);
                context.events.publish(&written, stalls);
                upgrade = written;
            }
        }
        report(context, &upgrade, &record, &decision);
        let applied = apply(context, &intent, &decision.effects).await;
        if applied.failed {
            return Err(Error::Effects { name });
        }
        let again = decision.record != record || applied.confirmed || decision.wake == Wake::Again;
        if !again {
            let waits = [applied.again_in, census_in, words_in, until(decision.wake, now)];
            return Ok(waits.into_iter().flatten().min());
        }
    }
    Ok(Some(SOON))
}

/// When to look again because of what became of the status.
fn after(published: &Published) -> Option<Duration> {
    match published {
        Published::Done(_) => None,
        Published::Later(left) => Some(*left),
        Published::Stale | Published::Skipped | Published::Pruned(_) => Some(SOON),
    }
}

fn until(wake: Wake, now: Timestamp) -> Option<Duration> {
    match wake {
        Wake::OnChange => None,
        Wake::Again => Some(Duration::ZERO),
        // One that has passed, and is asked for again, would be a hot loop.
        Wake::At(time) => {
            Some(Duration::try_from(time.duration_since(now)).unwrap_or_default().max(SHORTEST))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_has_passed_means_soon() {
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
        let at = |text: &str| until(Wake::At(text.parse().unwrap()), now);
        assert_eq!(at("2026-01-01T00:00:12Z"), Some(Duration::from_secs(2)));
        assert_eq!(at("2026-01-01T00:00:00Z"), Some(SHORTEST));
        assert_eq!(until(Wake::OnChange, now), None);
    }
}
