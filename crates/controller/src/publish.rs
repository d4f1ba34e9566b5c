//! The last step: the status. A changed record is written at once and guarded by the resource version, because
//! everything that follows rests on it; words are written now and then.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use meshupgrade_api::{FieldError, MeshUpgrade, MeshUpgradeStatus, publish_status};
use meshupgrade_core::conditions::{ConditionStatus, ConditionType, Conditions};
use meshupgrade_core::decision::{Decision, Needs, View, Wake};
use meshupgrade_core::labels;
use meshupgrade_core::record::{Record, SCHEMA};
use serde_json::{Value, json};

use crate::client::CallError;
use crate::context::Context;
use crate::memory;

/// What is to be done about a status of which not everything was stored.
pub const PRUNED: &str = "the API server dropped fields of the status, so nothing else is written: the \
     CustomResourceDefinition is older than this operator; apply the one of this version (config/crd, or kubectl apply -f of \
     the chart's crd.yaml)";

const STATUS_PRUNED: &str = "StatusPruned";

/// What became of a status.
#[derive(Clone, Debug)]
pub enum Published {
    /// It is written, or did not have to be.
    Done(Arc<MeshUpgrade>),
    /// Only words changed, and they were written a moment ago: again after this time.
    Later(Duration),
    /// The object changed since the decision: decide again.
    Stale,
    /// Not leading any more, or stopping: nothing was written.
    Skipped,
    /// The API server took it and stored another record: its CustomResourceDefinition does not know all fields.
    Pruned(Arc<MeshUpgrade>),
}

/// Whether and when a status must be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Now,
    After(Duration),
    Never,
}

/// The record of an object that may have no status yet.
pub fn record_of(upgrade: &MeshUpgrade) -> Record {
    let status = upgrade.status.as_ref();
    status.map(MeshUpgradeStatus::record).unwrap_or_default()
}

/// Publishes a decision.
pub async fn publish(
    context: &Context,
    upgrade: &Arc<MeshUpgrade>,
    decision: &Decision,
    now: Timestamp,
) -> Result<Published, CallError> {
    let generation = upgrade.metadata.generation.unwrap_or_default();
    let previous = upgrade.status.as_ref();
    let next = publish_status(previous, decision, generation, now);
    let since = context.memory.since_written(&memory::uid(upgrade));
    match due(previous, &next, since, context.settings.status_interval) {
        Due::Never => Ok(Published::Done(Arc::clone(upgrade))),
        Due::After(left) => Ok(Published::Later(left)),
        Due::Now => write(context, upgrade, next).await,
    }
}

/// Publishes that a spec makes no sense. The record stays as it is.
pub async fn publish_invalid(
    context: &Context,
    upgrade: &Arc<MeshUpgrade>,
    errors: &[FieldError],
    now: Timestamp,
) -> Result<Published, CallError> {
    publish(context, upgrade, &invalid(record_of(upgrade), errors), now).await
}

/// Publishes that something cannot be read without which nothing can be decided.
pub async fn publish_unreadable(
    context: &Context,
    upgrade: &Arc<MeshUpgrade>,
    (reason, problem): &(&'static str, String),
    now: Timestamp,
) -> Result<Published, CallError> {
    let message = format!(
        "{problem}: check that the operator's chart has the namespace of istiod in istioNamespaces, and that \
         spec.controlPlane.external.namespace, if it is set, is that namespace"
    );
    publish(context, upgrade, &stalled(record_of(upgrade), reason, message), now).await
}

/// Publishes that the API server dropped fields of the status, without which nothing may be done.
pub async fn publish_pruned(
    context: &Context,
    stored: &Arc<MeshUpgrade>,
    now: Timestamp,
) -> Result<Published, CallError> {
    publish(context, stored, &pruned(record_of(stored)), now).await
}

/// What is shown while the API server drops fields.
pub fn pruned(record: Record) -> Decision {
    stalled(record, STATUS_PRUNED, PRUNED.to_owned())
}

/// Whether the last status that was written was not stored as a whole.
pub fn is_pruned(upgrade: &MeshUpgrade) -> bool {
    let stalled = upgrade.status.as_ref().and_then(|status| status.condition("Stalled"));
    stalled.is_some_and(|stalled| stalled.reason == STATUS_PRUNED)
}

fn invalid(record: Record, errors: &[FieldError]) -> Decision {
    let findings: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let message = format!("the spec is not valid, nothing is written until it is: {}", findings.join("; "));
    stalled(record, "InvalidSpec", message)
}

fn stalled(record: Record, reason: &str, message: String) -> Decision {
    let mut conditions = Conditions::default();
    conditions.set(ConditionType::Stalled, ConditionStatus::True, reason, &*message);
    conditions.set(ConditionType::Ready, ConditionStatus::False, reason, &*message);
    Decision {
        effects: Vec::new(),
        view: View {
            phase: record.run.as_ref().map(|run| run.phase).unwrap_or_default(),
            message,
            conditions,
            ..View::default()
        },
        record,
        events: Vec::new(),
        wake: Wake::OnChange,
        needs: Needs::default(),
    }
}

/// Whether a status must be written: at once for everything that a program may act on, now and then for words.
fn due(
    previous: Option<&MeshUpgradeStatus>,
    next: &MeshUpgradeStatus,
    since_written: Option<Duration>,
    interval: Duration,
) -> Due {
    let Some(previous) = previous else {
        return Due::Now;
    };
    if previous == next {
        return Due::Never;
    }
    if verdict(previous) != verdict(next) || previous.record() != next.record() {
        return Due::Now;
    }
    match since_written.and_then(|since| interval.checked_sub(since)) {
        Some(left) if !left.is_zero() => Due::After(left),
        _ => Due::Now,
    }
}

/// What programs act on: phase, generation, and the conditions without their words.
fn verdict(status: &MeshUpgradeStatus) -> impl PartialEq + '_ {
    let conditions: Vec<[&str; 3]> = status
        .conditions
        .iter()
        .map(|condition| [&*condition.type_, &*condition.status, &*condition.reason])
        .collect();
    (status.observed_generation, status.phase.as_str(), conditions)
}

/// Whether a newer operator wrote the record: it may have fields that are not known here.
fn is_newer(record: &Record) -> bool {
    record.run.as_ref().is_some_and(|run| run.schema > SCHEMA)
}

/// What is said of a record that is not understood: nothing but words, so that all of it stays as it is.
fn words(body: &MeshUpgrade) -> Value {
    let Some(status) = &body.status else { return json!({}) };
    json!({
        "metadata": {"resourceVersion": body.metadata.resource_version},
        "status": {
            "observedGeneration": status.observed_generation,
            "message": status.message,
            "conditions": status.conditions,
            "blocked": status.blocked,
            "blockedCount": status.blocked_count,
        },
    })
}

async fn write(
    context: &Context,
    upgrade: &Arc<MeshUpgrade>,
    status: MeshUpgradeStatus,
) -> Result<Published, CallError> {
    if context.stop.is_stopping() || !context.leadership.may_write() {
        return Ok(Published::Skipped);
    }
    let mut body = MeshUpgrade::clone(upgrade);
    body.metadata.managed_fields = None;
    body.status = Some(status);
    let api: Api<MeshUpgrade> = Api::all(context.clients.calls());
    let name = upgrade.name_any();
    let answer = if is_newer(&record_of(upgrade)) {
        let parameters =
            PatchParams { field_manager: Some(labels::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let words = Patch::Merge(words(&body));
        context.clients.call(api.patch_status(&name, &parameters, &words)).await
    } else {
        let parameters =
            PostParams { field_manager: Some(labels::FIELD_MANAGER.to_owned()), ..PostParams::default() };
        context.clients.call(api.replace_status(&name, &parameters, &body)).await
    };
    match answer {
        Ok(mut written) => {
            written.metadata.managed_fields = None;
            let written = Arc::new(written);
            context.memory.wrote(&written);
            // What follows rests on what is stored, not on what was sent.
            let stored = record_of(&written) == record_of(&body);
            Ok(if stored { Published::Done(written) } else { Published::Pruned(written) })
        }
        Err(CallError::Conflict(_) | CallError::NotFound(_)) => {
            context.memory.doubt(&memory::uid(upgrade));
            Ok(Published::Stale)
        }
        Err(error) => {
            // It may have been written all the same.
            context.memory.doubt(&memory::uid(upgrade));
            if matches!(error, CallError::Timeout(_)) {
                context.metrics.process.count_timeout("status");
            }
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use meshupgrade_core::machine::phase::Phase;
    use meshupgrade_core::record::Run;
    use serde_json::json;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn decision(message: &str, reason: &str, batches: u32) -> Decision {
        let run = json!({
            "schema": 1, "counter": 1, "source": "a", "target": "b", "phase": "Migrating", "batches": batches,
        });
        let mut conditions = Conditions::default();
        conditions.set(ConditionType::Reconciling, ConditionStatus::True, reason, message);
        Decision {
            effects: Vec::new(),
            record: Record { run: Some(serde_json::from_value::<Run>(run).unwrap()), ..Record::default() },
            view: View {
                phase: Phase::Migrating,
                message: message.to_owned(),
                conditions,
                ..View::default()
            },
            events: Vec::new(),
            wake: Wake::OnChange,
            needs: Needs::default(),
        }
    }

    fn status(previous: Option<&MeshUpgradeStatus>, decision: &Decision, second: i64) -> MeshUpgradeStatus {
        publish_status(previous, decision, 3, Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn the_first_status_and_a_changed_record_are_written_at_once() {
        let first = status(None, &decision("one", "Restarting", 1), 100);
        assert_eq!(due(None, &first, None, INTERVAL), Due::Now);
        let second = status(Some(&first), &decision("one", "Restarting", 2), 101);
        let just_now = Some(Duration::from_millis(1));
        assert_eq!(due(Some(&first), &second, just_now, INTERVAL), Due::Now);
    }

    #[test]
    fn nothing_is_written_when_nothing_changed_however_late_it_is() {
        let first = status(None, &decision("one", "Restarting", 1), 100);
        let again = status(Some(&first), &decision("one", "Restarting", 1), 9000);
        assert_eq!(due(Some(&first), &again, None, INTERVAL), Due::Never);
    }

    #[test]
    fn words_wait_for_their_turn_and_reasons_do_not() {
        let first = status(None, &decision("one", "Restarting", 1), 100);
        let words = status(Some(&first), &decision("two", "Restarting", 1), 103);
        let since = Some(Duration::from_secs(3));
        assert_eq!(due(Some(&first), &words, since, INTERVAL), Due::After(Duration::from_secs(7)));
        assert_eq!(due(Some(&first), &words, Some(INTERVAL), INTERVAL), Due::Now);
        assert_eq!(due(Some(&first), &words, None, INTERVAL), Due::Now);
        let reason = status(Some(&first), &decision("one", "Settling", 1), 103);
        assert_eq!(due(Some(&first), &reason, since, INTERVAL), Due::Now);
    }

    #[test]
    fn a_new_generation_is_acknowledged_at_once() {
        let decision = decision("one", "Restarting", 1);
        let first = status(None, &decision, 100);
        let next = publish_status(Some(&first), &decision, 4, Timestamp::from_second(101).unwrap());
        assert_eq!(due(Some(&first), &next, Some(Duration::ZERO), INTERVAL), Due::Now);
    }

    #[test]
    fn of_a_newer_record_nothing_but_words_is_written() {
        let record = decision("one", "Restarting", 5).record;
        assert!(!is_newer(&record));
        let mut newer = record.clone();
        newer.run.as_mut().unwrap().schema = SCHEMA + 1;
        assert!(is_newer(&newer));
        let upgrade = json!({
            "apiVersion": "meshupgrade.io/v1alpha1", "kind": "MeshUpgrade", "metadata": {"name": "m"},
            "spec": {"targetRevision": "b", "controlPlane": {"external": {}}},
        });
        let mut upgrade: MeshUpgrade = serde_json::from_value(upgrade).unwrap();
        upgrade.status = Some(status(None, &stalled(newer, "RecordTooNew", "newer".to_owned()), 100));
        let body = words(&upgrade);
        let fields: Vec<&String> = body["status"].as_object().unwrap().keys().collect();
        assert_eq!(fields, ["blocked", "blockedCount", "conditions", "message", "observedGeneration"]);
    }

    #[test]
    fn an_invalid_spec_is_stalled_and_keeps_its_record() {
        let record = decision("one", "Restarting", 5).record;
        let errors = [FieldError::new("spec.waves[0].name", "must not be empty")];
        let decision = invalid(record.clone(), &errors);
        assert_eq!(decision.record, record);
        assert_eq!(decision.view.phase, Phase::Migrating);
        assert!(decision.effects.is_empty());
        let conditions = &decision.view.conditions;
        assert!(conditions.is_true(ConditionType::Stalled));
        let ready = conditions.get(ConditionType::Ready).unwrap();
        assert_eq!(ready.reason, "InvalidSpec");
        assert!(ready.message.contains("spec.waves[0].name"));
    }
}
