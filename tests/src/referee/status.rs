//! Rules for what is published.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::SignedDuration;
use meshupgrade_core::analysis::verdict::Verdict;
use meshupgrade_core::conditions::ConditionType;
use meshupgrade_core::decision::View;
use meshupgrade_core::ids::{Revision, WorkloadRef};
use meshupgrade_core::machine::phase::{Phase, TRANSITIONS, Trigger};
use meshupgrade_core::measure::Row;
use meshupgrade_core::record::{MAX_BATCH, MAX_HISTORY, Record, Run, WaveStep};
use meshupgrade_core::wait::WaitReason;
use meshupgrade_core::window::{Opening, opening};

use super::{Referee, Rolling, Violation, planned, rule};
use crate::world::World;
use crate::world::history::Seen;

/// Largest record, in bytes.
const MAX_RECORD: usize = 64 * 1024;

impl Referee {
    pub(super) fn judge_status(
        &mut self,
        world: &World,
        before: &Arc<Record>,
        record: &Arc<Record>,
        view: &Arc<View>,
        seen: &Seen,
    ) -> Result<(), Violation> {
        let Some(run) = &record.run else {
            return Err("I3: status without a run".to_owned());
        };
        rule!(run.phase == view.phase, "the view says {} and the record {}", view.phase, run.phase);
        conditions(view)?;
        if before.run.as_ref().is_none_or(|old| old.batches != run.batches) {
            bounds(record, run)?;
        }
        self.position(before.run.as_ref(), run)?;
        suspended(before.run.as_ref(), run, seen)?;
        gate_is_passed(before.run.as_ref(), record, run, seen)?;
        self.room_beside_others(before.run.as_ref(), record, run, seen)?;
        for wait in &view.blocked {
            self.reached.waits.insert(wait.reason);
            rule!(wait.reason != WaitReason::InvariantViolated, "the core caught itself: {}", wait.because);
        }
        for check in &view.checks {
            self.reached.checks.insert((check.name, check.outcome));
        }
        self.know_stamps(run, seen);
        let old = before.run.as_ref().filter(|old| old.counter == run.counter).map(|old| old.phase);
        if run.phase == Phase::Succeeded && old != Some(Phase::Succeeded) {
            nothing_on(world, record, run, &run.source, seen)?;
            tags_are_whole(world, record, &run.source, seen)?;
        }
        if run.phase == Phase::RolledBack && old != Some(Phase::RolledBack) {
            nothing_on(world, record, run, &run.target, seen)?;
            tags_are_whole(world, record, &run.target, seen)?;
            self.labels_are_back(world, record)?;
        }
        self.last = Some((seen.intent.uid.clone(), Arc::clone(record), Arc::clone(view)));
        Ok(())
    }

    /// Remembers the stamps of the open batch that this status rests on as being in place.
    fn know_stamps(&mut self, run: &Run, seen: &Seen) {
        for entry in run.batch.iter().flat_map(|batch| &batch.entries) {
            let workload = seen.snapshot.workloads.get(&entry.workload).filter(|it| it.uid == entry.uid);
            if let Some(stamp) = workload.and_then(|workload| workload.template.restart.clone()) {
                self.known.insert((entry.uid.clone(), stamp));
            }
        }
    }

    /// I11: the position goes only the ways of the table, waves go up, and in rollback down.
    fn position(&mut self, before: Option<&Run>, run: &Run) -> Result<(), Violation> {
        let old = before.filter(|old| old.counter == run.counter);
        let from = old.map(|old| old.phase).unwrap_or_default();
        let Some(path) = path(from, run.phase) else {
            return Err(format!("I11: no way from {from} to {}", run.phase));
        };
        self.reached.triggers.extend(path);
        self.reached.phases.insert(run.phase);
        let Some(old) = old else {
            return Ok(());
        };
        let latched = old.rollback.as_ref().is_some_and(|rollback| !rollback.wave_only);
        rule!(!latched || run.rollback.is_some(), "I11: the rollback was turned forward again");
        if old.started_at.is_some() {
            let same =
                old.source == run.source && old.target == run.target && old.started_at == run.started_at;
            rule!(same, "I11: the run changed its revisions");
        }
        if run.rollback.is_none() {
            rule!(run.wave >= old.wave, "I11: wave {} after {}", run.wave, old.wave);
        }
        if let (Some(_), Some(rollback)) = (&old.rollback, &run.rollback) {
            // Once more from the last wave, which may be over in the same pass.
            let again = run.wave == rollback.from_wave || old.another_round || old.step == WaveStep::Proven;
            rule!(run.wave <= old.wave || again, "I11: rollback in wave {} after {}", run.wave, old.wave);
        }
        Ok(())
    }

    /// I3: a batch that gets new entries has room for what an object of the same name, deleted since, left in rollout; as
    /// far as the decision saw its stamps.
    fn room_beside_others(
        &self,
        before: Option<&Run>,
        record: &Record,
        run: &Run,
        seen: &Seen,
    ) -> Result<(), Violation> {
        let wave = record.plan.as_ref().and_then(|plan| plan.waves.get(run.wave as usize));
        let (now, old) = (open(run), before.map(open).unwrap_or_default());
        let Some(wave) = wave.filter(|_| run.rollback.is_none() && !now.is_subset(&old)) else {
            return Ok(());
        };
        let ours = run.stamp(&seen.intent.uid, 1);
        let left = |(workload, family): &(WorkloadRef, String), rolling: &Rolling| {
            let foreign = !ours.starts_with(family.as_str()) && rolling.destination == *run.destination();
            let in_wave = wave.namespaces.contains(&workload.namespace);
            foreign && in_wave && !now.contains(workload) && seen_rolling(seen, workload, family, rolling)
        };
        let left = self.rolling.iter().filter(|(key, rolling)| left(key, rolling)).count();
        rule!(
            now.len() + left <= wave.max_concurrent as usize,
            "I3: {} allowed in rollout, but {} in the batch and {left} of another object",
            wave.max_concurrent,
            now.len()
        );
        Ok(())
    }

    /// I5: after a rollback every namespace that the operator wrote says what it said before.
    fn labels_are_back(&self, world: &World, record: &Record) -> Result<(), Violation> {
        for name in planned(record) {
            let Some(namespace) = world.namespaces.get(name) else {
                continue;
            };
            let Some(first) = self.first.get(&namespace.uid) else {
                continue;
            };
            let ours = world.labelled.get(name).is_some_and(|labelled| labelled.by_operator);
            let now = super::writes::injection_labels(&namespace.labels);
            rule!(!ours || now == *first, "I5: rolled back, but {name} says {now:?} instead of {first:?}");
            rule!(!ours || namespace.previous.is_none(), "I5: rolled back, but {name} still remembers");
        }
        Ok(())
    }
}

/// The workloads of the open batch.
fn open(run: &Run) -> BTreeSet<WorkloadRef> {
    run.batch.iter().flat_map(|batch| &batch.entries).map(|entry| entry.workload.clone()).collect()
}

/// Whether a decision could see that a workload still rolls from this stamp. Pods that only end are not counted.
fn seen_rolling(seen: &Seen, workload: &WorkloadRef, family: &str, rolling: &Rolling) -> bool {
    let Some(workload) = seen.snapshot.workloads.get(workload).filter(|it| it.uid == rolling.uid) else {
        return false;
    };
    let status = &workload.rollout;
    let stamped = workload.template.restart.as_ref().is_some_and(|stamp| stamp.starts_with(family));
    let done = status.observed_generation >= workload.generation
        && status.updated >= workload.replicas
        && status.current <= status.updated
        && status.available >= workload.replicas;
    stamped && !done
}

/// No Service of a tag that the run moved leads to the revision that was left, as far as the decision could see.
fn tags_are_whole(world: &World, record: &Record, left: &Revision, seen: &Seen) -> Result<(), Violation> {
    for tag in record.plan.iter().flat_map(|plan| &plan.waves).filter_map(|wave| wave.tag.as_ref()) {
        let astray =
            world.tags.get(tag).is_some_and(|it| it.service.revision == *left && it.revision != *left);
        rule!(!astray || seen.stale, "the Service of tag {tag} still leads to {left}");
    }
    Ok(())
}

/// I4: no live pod of the plan's namespaces is on the revision that is to be empty. Pods that were created after the
/// decision, where somebody else put the label, are not held against it.
fn nothing_on(
    world: &World,
    record: &Record,
    run: &Run,
    revision: &meshupgrade_core::ids::Revision,
    seen: &Seen,
) -> Result<(), Violation> {
    let scope = planned(record);
    if run.patch {
        let plane = seen.snapshot.control_planes.get(&run.target);
        let image = plane.and_then(|plane| plane.proxy_image.as_ref());
        for pod in world.pods.values().filter(|pod| scope.contains(&pod.workload.namespace)) {
            let found = pod.view.proxy.as_ref().map(|proxy| &proxy.image);
            let name = &pod.view.name;
            rule!(
                found.is_none() || found == image,
                "I4: {}, but the proxy of {name} is {found:?}",
                run.phase
            );
        }
    }
    if run.source == run.target {
        return Ok(());
    }
    for pod in world.pods.values() {
        let name = &pod.workload.namespace;
        let ours = world
            .labelled
            .get(name)
            .is_some_and(|labelled| labelled.by_operator || labelled.since <= seen.at);
        let on = pod.revision() == Some(revision) && scope.contains(name);
        rule!(!on || !ours, "I4: {}, but pod {name}/{} is on {revision}", run.phase, pod.view.name);
    }
    Ok(())
}

/// The triggers on the shortest way through the table.
fn path(from: Phase, to: Phase) -> Option<Vec<Trigger>> {
    let mut ways = vec![(from, Vec::new())];
    for _ in 0..Phase::ALL.len() {
        if let Some((_, way)) = ways.iter().find(|(phase, _)| *phase == to) {
            return Some(way.clone());
        }
        let mut next = Vec::new();
        for (phase, way) in &ways {
            for (trigger, sources, target) in TRANSITIONS {
                if sources.contains(phase) {
                    let mut way = way.clone();
                    way.push(*trigger);
                    next.push((*target, way));
                }
            }
        }
        next.sort_by_key(|(phase, _)| *phase);
        next.dedup_by_key(|(phase, _)| *phase);
        ways = next;
    }
    None
}

fn conditions(view: &View) -> Result<(), Violation> {
    let both = view.conditions.is_true(ConditionType::Stalled)
        && view.conditions.is_true(ConditionType::Reconciling);
    rule!(!both, "Stalled and Reconciling are both True");
    rule!(view.conditions.get(ConditionType::Ready).is_some(), "Ready is missing");
    let over = view.phase.is_over();
    let working = view.conditions.is_true(ConditionType::Stalled)
        || view.conditions.is_true(ConditionType::Reconciling);
    rule!(over || working, "{} is neither Stalled nor Reconciling", view.phase);
    let succeeded = view.conditions.is_true(ConditionType::Succeeded);
    rule!(succeeded == (view.phase == Phase::Succeeded), "Succeeded does not agree with {}", view.phase);
    rule!(!view.message.is_empty(), "the message is empty");
    Ok(())
}

fn bounds(record: &Record, run: &Run) -> Result<(), Violation> {
    let batch = run.batch.as_ref().map_or(0, |batch| batch.entries.len());
    rule!(batch <= MAX_BATCH, "{batch} workloads in a batch");
    rule!(record.history.len() <= MAX_HISTORY, "{} runs in the history", record.history.len());
    let size = serde_json::to_string(&record.run).map_or(0, |text| text.len());
    rule!(size <= MAX_RECORD, "the run takes {size} bytes");
    Ok(())
}

/// I12: nothing new is opened while the run is suspended or outside of its windows.
/// I9: a gate that closes has a measurement that passed, taken after its restarts, for every metric that counts; and what
/// passed rests on an answer with a number within its bounds. While it is open nothing is restarted.
fn gate_is_passed(before: Option<&Run>, record: &Record, run: &Run, seen: &Seen) -> Result<(), Violation> {
    let metrics = &seen.intent.analysis.metrics;
    let old = before.filter(|old| old.counter == run.counter && run.rollback.is_none());
    for sample in record.samples.iter().filter(|sample| sample.verdict == Verdict::Passed) {
        let fresh = !seen.record.samples.contains(sample);
        let most = metrics.iter().find(|metric| metric.name == sample.metric).and_then(|metric| metric.max);
        let good = |row: &Row| most.is_none_or(|most| row.value <= most.as_f64());
        let answered = seen.snapshot.answers.iter().any(|(query, answer)| {
            let rows = answer.as_deref().unwrap_or_default();
            query.at == sample.at && !rows.is_empty() && rows.iter().all(good)
        });
        rule!(!fresh || answered, "I9: {} passed without a good answer", sample.metric);
    }
    let Some(gate) = old.and_then(|old| old.gate.as_ref()) else { return Ok(()) };
    let entries = |run: &Run| run.batch.as_ref().map_or(0, |batch| batch.entries.len());
    if run.gate.is_some() {
        let grew = run.phase == Phase::Migrating && entries(run) > old.map_or(0, entries);
        rule!(!grew, "I9: something is restarted before the metrics of the last batch passed");
        return Ok(());
    }
    let gone = gate.workloads.iter().all(|workload| !seen.snapshot.workloads.contains_key(workload));
    if gone && !gate.workloads.is_empty() {
        return Ok(());
    }
    for metric in metrics.iter().filter(|metric| !metric.dry_run) {
        let full = gate.since + SignedDuration::from_secs(i64::from(metric.window_seconds));
        let passed = record.samples.iter().any(|sample| {
            sample.metric == metric.name && sample.verdict == Verdict::Passed && sample.at >= full
        });
        rule!(passed, "I9: the gate closed without a good measurement of {}", metric.name);
    }
    Ok(())
}

fn suspended(before: Option<&Run>, run: &Run, seen: &Seen) -> Result<(), Violation> {
    let closed = opening(&seen.intent.windows, seen.at) != Opening::Open;
    if !(seen.intent.suspend || closed) || run.rollback.is_some() {
        return Ok(());
    }
    let entries = |run: &Run| -> Vec<_> {
        run.batch
            .iter()
            .flat_map(|batch| batch.entries.iter().map(|entry| (entry.workload.clone(), entry.uid.clone())))
            .collect()
    };
    let old = before.map(entries).unwrap_or_default();
    for entry in entries(run) {
        rule!(old.contains(&entry), "I12: {} enters a batch while the run is held", entry.0);
    }
    Ok(())
}
