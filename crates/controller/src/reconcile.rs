//! The driver: observe → decide → apply → publish. Only it knows the order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use meshupgrade_api::MeshUpgrade;
use meshupgrade_core::decision::{Decision, Wake};

use crate::apply::apply;
use crate::client::CallError;
use crate::context::Context;
use crate::memory;
use crate::metrics::Pass;
use crate::publish::{Published, publish, publish_invalid, record_of};
use crate::watch::upgrades::Guarded;

/// How often one pass may decide again because the record changed.
const MAX_ROUNDS: usize = 8;
/// When to look again although nothing seems to change.
const SAFETY: Duration = Duration::from_mins(5);
/// When to look again for what usually comes in a moment.
const SOON: Duration = Duration::from_millis(500);

/// Why a pass failed. What merely has to wait is no error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The status could not be written.
    #[error("the status of {name} was not written: {source}")]
    Publish {
        /// The MeshUpgrade.
        name: String,
        /// Why.
        #[source]
        source: CallError,
    },
    /// Some writes have an unknown outcome.
    #[error("writes of {name} have an unknown outcome")]
    Effects {
        /// The MeshUpgrade.
        name: String,
    },
}

/// One pass over one MeshUpgrade, measured and supervised.
pub async fn reconcile(object: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    let _supervised = context.health.reconcile(&object.name_any());
    let began = Instant::now();
    context.metrics.pass_began();
    let result = match &object.0 {
        Ok(cached) => pass(&context, context.memory.freshest(cached)).await,
        Err(invalid) => {
            // The CRD's schema admits no such object; one that an older CRD let in must be repaired by hand.
            tracing::error!(upgrade = object.name_any(), error = invalid.error, "cannot be parsed");
            Ok(None)
        }
    };
    let pass = match &result {
        Ok(None) => Pass::Success,
        Ok(Some(_)) => Pass::RequeueAfter,
        Err(_) => Pass::Error,
    };
    context.metrics.pass_ended(pass, began.elapsed());
    result.map(|wait| Action::requeue(wait.unwrap_or(SAFETY).min(SAFETY)))
}

/// What happens after a failed pass.
#[allow(clippy::needless_pass_by_value)] // the signature that the controller calls
pub fn on_error(object: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    let wait = object.0.as_ref().map_or(SAFETY, |upgrade| context.memory.fail(&memory::uid(upgrade)));
    tracing::warn!(%error, ?wait, "pass failed");
    Action::requeue(wait)
}

/// Decides until the record stays as it is. Returns when to look again at the latest.
async fn pass(context: &Context, mut upgrade: Arc<MeshUpgrade>) -> Result<Option<Duration>, Error> {
    let name = upgrade.name_any();
    let failed = |source| Error::Publish { name: name.clone(), source };
    for _ in 0..MAX_ROUNDS {
        let now = Timestamp::now();
        let record = record_of(&upgrade);
        let intent = match upgrade.intent() {
            Ok(intent) => intent,
            Err(errors) => {
                let published = publish_invalid(context, &upgrade, &errors, now).await;
                return Ok(after(&published.map_err(failed)?));
            }
        };
        let Some(snapshot) = context.snapshot(&upgrade, &intent) else {
            return Ok(Some(SOON));
        };
        let decision = meshupgrade_core::decide(now, &intent, &record, &snapshot);
        let census_in = context.need(&intent, &decision.needs);
        let published = publish(context, &upgrade, &decision, now).await.map_err(failed)?;
        // Effects rest on the record that was passed in: no longer ours to carry out if that one is stale.
        let words_in = after(&published);
        match published {
            Published::Stale | Published::Skipped => return Ok(words_in),
            Published::Later(_) => {}
            Published::Done(written) => upgrade = written,
        }
        transition(context, &upgrade, &record, &decision);
        let applied = apply(context, &intent, &decision.effects).await;
        if applied.failed {
            return Err(Error::Effects { name });
        }
        context.memory.succeed(&intent.uid);
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
        Published::Stale | Published::Skipped => Some(SOON),
    }
}

fn until(wake: Wake, now: Timestamp) -> Option<Duration> {
    match wake {
        Wake::OnChange => None,
        Wake::Again => Some(Duration::ZERO),
        Wake::At(time) => Some(Duration::try_from(time.duration_since(now)).unwrap_or_default()),
    }
}

/// Tells what changed with the record, once it is stored.
fn transition(
    context: &Context,
    upgrade: &MeshUpgrade,
    before: &meshupgrade_core::record::Record,
    decision: &Decision,
) {
    let record = &decision.record;
    context.memory.set_record(&memory::uid(upgrade), record);
    context.metrics.show(&upgrade.name_any(), before, record);
    let phase = |run: &Option<meshupgrade_core::record::Run>| run.as_ref().map(|run| run.phase);
    let (from, to) = (phase(&before.run), phase(&record.run));
    if let Some(to) = to.filter(|to| from != Some(*to)) {
        let from = from.map_or("none", meshupgrade_core::machine::phase::Phase::as_str);
        tracing::info!(
            upgrade = upgrade.name_any(),
            from,
            to = to.as_str(),
            message = decision.view.message,
            "phase"
        );
    }
    let turned =
        |run: &Option<meshupgrade_core::record::Run>| run.as_ref().and_then(|run| run.rollback.clone());
    if let (None, Some(rollback)) = (turned(&before.run), turned(&record.run)) {
        context.metrics.count_rollback(&format!("{:?}", rollback.cause));
        tracing::warn!(upgrade = upgrade.name_any(), cause = ?rollback.cause, rollback.message, "rollback");
    }
    context.events.publish(upgrade, decision.events.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_has_passed_means_now() {
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
        let at = |text: &str| until(Wake::At(text.parse().unwrap()), now);
        assert_eq!(at("2026-01-01T00:00:12Z"), Some(Duration::from_secs(2)));
        assert_eq!(at("2026-01-01T00:00:00Z"), Some(Duration::ZERO));
        assert_eq!(until(Wake::OnChange, now), None);
    }
}
