//! Tells what a decision changed, once it is stored: logs, metrics, events.

use kube::ResourceExt;
use meshupgrade_api::MeshUpgrade;
use meshupgrade_core::decision::Decision;
use meshupgrade_core::machine::phase::Phase;
use meshupgrade_core::record::{Record, Rollback, Run};

use crate::context::Context;
use crate::memory;

/// Tells what changed from the record that was decided on to the one that came out.
pub fn report(context: &Context, upgrade: &MeshUpgrade, before: &Record, decision: &Decision) {
    let (name, record) = (upgrade.name_any(), &decision.record);
    context.memory.set_record(&memory::uid(upgrade), record);
    context.metrics.upgrades.show(&name, before, record);
    context.metrics.upgrades.count_measurements(&name, before, record);
    context.metrics.upgrades.show_outdated(&name, decision.view.outdated.as_ref().map(|found| found.proxies));
    if let Some((from, to)) = moved(before, record) {
        tracing::info!(upgrade = name, from, to, now = decision.view.message, "phase");
    }
    if let Some(rollback) = turned(before, record) {
        context.metrics.upgrades.count_rollback(&format!("{:?}", rollback.cause));
        tracing::warn!(upgrade = name, cause = ?rollback.cause, because = rollback.message, "rollback");
    }
    context.events.publish(upgrade, decision.events.clone());
}

fn moved(before: &Record, after: &Record) -> Option<(&'static str, &'static str)> {
    let phase = |record: &Record| record.run.as_ref().map(|run| run.phase);
    let (from, to) = (phase(before), phase(after)?);
    (from != Some(to)).then(|| (from.map_or("none", Phase::as_str), to.as_str()))
}

fn turned<'a>(before: &Record, after: &'a Record) -> Option<&'a Rollback> {
    let key = |run: &Run| run.rollback.is_some().then_some(run.counter);
    let known = before.run.as_ref().and_then(key);
    let run = after.run.as_ref()?;
    if known == Some(run.counter) { None } else { run.rollback.as_ref() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn record(counter: u32, phase: &str, rollback: Value) -> Record {
        let mut run = json!({"schema": 1, "counter": counter, "source": "a", "target": "b", "phase": phase});
        run["rollback"] = rollback;
        Record { run: Some(serde_json::from_value(run).unwrap()), ..Record::default() }
    }

    fn rollback() -> Value {
        json!({"cause": "Requested", "message": "m", "since": "2026-01-01T00:00:00Z", "fromWave": 0})
    }

    #[test]
    fn a_phase_is_told_once() {
        let (one, two) = (record(1, "Migrating", Value::Null), record(1, "Soaking", Value::Null));
        assert_eq!(moved(&Record::default(), &one), Some(("none", "Migrating")));
        assert_eq!(moved(&one, &two), Some(("Migrating", "Soaking")));
        assert_eq!(moved(&two, &two), None);
    }

    #[test]
    fn a_rollback_is_counted_once_per_run() {
        let forward = record(1, "Migrating", Value::Null);
        let back = record(1, "RollingBack", rollback());
        assert!(turned(&forward, &back).is_some());
        assert!(turned(&back, &back).is_none());
        assert!(turned(&back, &record(2, "RollingBack", rollback())).is_some());
        assert!(turned(&back, &record(2, "Preflight", Value::Null)).is_none());
    }
}
