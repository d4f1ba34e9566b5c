//! The gate of metrics: what was restarted must do well before anything else is restarted. Open after each batch, while a
//! wave soaks, and while the old control plane soaks at the end.
//!
//! Every measurement is for a moment that follows from the record, so that whoever comes after a crash asks for the same.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::analysis::query::{Subject, promql};
use crate::analysis::verdict::{Judged, Measured, Verdict, judge, shown as number};
use crate::analysis::{AnalysisIntent, MetricIntent, OnNoData};
use crate::ids::WorkloadRef;
use crate::intent::{Intent, OnFailure};
use crate::inventory::{Group, members};
use crate::machine::pass::{Pass, after, pair, shown};
use crate::measure::Query;
use crate::plan::{PlannedWave, WaveKind};
use crate::record::{Gate, MAX_SAMPLES, RollbackCause, Sample, Tally};
use crate::wait::WaitReason;

/// For how long the same measurement is asked for before a later one takes its place, in seconds: longer than a metric source
/// may take to answer.
const PATIENCE_SECONDS: u32 = 60;
/// How far back things are counted at most, in seconds: a long soak must not make a query ever more expensive.
const MAX_COUNTED_SECONDS: i64 = 86_400;
/// Longest query in a sample, in characters.
const MAX_QUERY: usize = 1024;
/// Longest query in an event, in characters: the note of an event has 1,024 in all.
const MAX_QUERY_IN_EVENT: usize = 600;

/// The metrics that a wave must satisfy: its own, or those of all.
pub fn of_wave<'i>(intent: &'i Intent, wave: &PlannedWave) -> &'i AnalysisIntent {
    let declared = intent.waves.iter().find(|declared| declared.name == wave.name);
    let own = declared.filter(|_| wave.kind == WaveKind::Declared).and_then(|wave| wave.analysis.as_ref());
    own.unwrap_or(&intent.analysis)
}

/// Opens the gate for what was restarted, if there are metrics.
pub fn open(pass: &mut Pass<'_>, analysis: &AnalysisIntent, before: Timestamp, workloads: Vec<WorkloadRef>) {
    pass.run.gate = (!analysis.metrics.is_empty()).then(|| Gate {
        since: pass.now,
        baseline_at: before.min(pass.now),
        counted_from: before.min(pass.now).max(pass.run.counted_from.unwrap_or(Timestamp::MIN)),
        workloads,
        tallies: std::collections::BTreeMap::new(),
    });
}

/// What the gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opinion {
    /// All metrics passed, or there is no gate.
    Passed,
    /// Not yet; the reason is noted.
    Waits,
    /// The run turned back.
    TurnedBack,
}

/// Measures what is due and says whether the run may go on. With `until`, it is measured until then even if everything passed.
pub fn gate(
    pass: &mut Pass<'_>,
    analysis: &AnalysisIntent,
    wave: &str,
    workloads: &BTreeSet<WorkloadRef>,
    until: Option<Timestamp>,
) -> Opinion {
    let Some(mut gate) = pass.run.gate.take() else { return Opinion::Passed };
    if workloads.is_empty() {
        // A soak may see none for a moment only.
        pass.run.gate = Some(gate).filter(|_| until.is_some());
        return Opinion::Passed;
    }
    retry(pass, analysis, &mut gate);
    for metric in &analysis.metrics {
        let tally = gate.tallies.get(&metric.name).cloned().unwrap_or_default();
        let goes_on = until.is_some_and(|until| pass.now < until);
        if !is_failed(metric, &tally) && (goes_on || !is_satisfied(metric, &tally)) {
            measure(pass, metric, &mut gate, wave, workloads);
        }
    }
    let failed = analysis
        .metrics
        .iter()
        .find(|metric| gate.tallies.get(&metric.name).is_some_and(|tally| is_failed(metric, tally)));
    if let Some(metric) = failed {
        let message = gate.tallies.get(&metric.name).map_or_else(String::new, |tally| tally.message.clone());
        return fails(pass, metric, &message, gate);
    }
    let open: Vec<&MetricIntent> = analysis
        .metrics
        .iter()
        .filter(|metric| !is_satisfied(metric, &gate.tallies.get(&metric.name).cloned().unwrap_or_default()))
        .collect();
    for metric in &open {
        note(pass, metric, &gate);
    }
    if open.is_empty() && until.is_none() {
        return Opinion::Passed;
    }
    let opinion = if open.is_empty() { Opinion::Passed } else { Opinion::Waits };
    pass.run.gate = Some(gate);
    opinion
}

fn fails(pass: &mut Pass<'_>, metric: &MetricIntent, message: &str, gate: Gate) -> Opinion {
    let because = format!("metric {} failed: {message}", metric.name);
    if pass.intent.on_failure == OnFailure::Automatic && pass.can_turn_back() {
        pass.turn_back(RollbackCause::AnalysisFailed, because);
        return Opinion::TurnedBack;
    }
    pass.run.gate = Some(gate);
    let because = format!("{because}; {}", pass.how_to_retry("measures anew"));
    pass.wait(WaitReason::AnalysisFailed, None, because);
    Opinion::Waits
}

/// A retry begins the measurements anew where something went wrong.
fn retry(pass: &mut Pass<'_>, analysis: &AnalysisIntent, gate: &mut Gate) {
    let wrong = |metric: &MetricIntent| {
        gate.tallies
            .get(&metric.name)
            .is_some_and(|tally| is_failed(metric, tally) || trouble(metric, tally).is_some())
    };
    if pass.retries_all() && analysis.metrics.iter().any(wrong) {
        gate.tallies.clear();
        (gate.since, gate.counted_from) = (pass.now, pass.now);
        pass.run.counted_from = Some(pass.now);
        pass.event(false, "RetryAccepted", None, "the metrics are measured anew");
    }
}

fn is_failed(metric: &MetricIntent, tally: &Tally) -> bool {
    !metric.dry_run && tally.failed > metric.failure_limit
}

/// Whether there were as many measurements with a verdict as are asked for, and the last one was one of them. One that has no
/// effect only has to be tried as often.
fn is_satisfied(metric: &MetricIntent, tally: &Tally) -> bool {
    if metric.dry_run {
        return tally.taken >= metric.count;
    }
    tally.concluded >= metric.count && trouble_in_a_row(tally) == 0 && !is_failed(metric, tally)
}

fn trouble_in_a_row(tally: &Tally) -> u32 {
    tally.errors + tally.inconclusive + tally.without_data
}

/// What keeps a metric from a verdict for so long that a person must look.
fn trouble(metric: &MetricIntent, tally: &Tally) -> Option<WaitReason> {
    if tally.errors > metric.error_limit {
        Some(WaitReason::AnalysisError)
    } else if tally.without_data > metric.no_data_limit {
        Some(WaitReason::AnalysisNoData)
    } else if tally.inconclusive > metric.inconclusive_limit {
        Some(WaitReason::AnalysisInconclusive)
    } else {
        None
    }
}

/// Says what a metric waits for.
fn note(pass: &mut Pass<'_>, metric: &MetricIntent, gate: &Gate) {
    let tally = gate.tallies.get(&metric.name).cloned().unwrap_or_default();
    let next = shown(due(pass.now, metric, gate));
    let trouble = trouble(metric, &tally).filter(|_| !metric.dry_run);
    if let Some(reason) = trouble {
        let because = format!(
            "metric {} has no verdict: {}; the next measurement is at {next}; repair it, or let the metric be dryRun",
            metric.name, tally.message
        );
        return pass.wait(reason, None, because);
    }
    let last =
        if tally.message.is_empty() { String::new() } else { format!(", the last one: {}", tally.message) };
    let because = format!(
        "metric {}: {} of {} measurements{last}; the next one is at {next}",
        metric.name, tally.concluded, metric.count
    );
    pass.wait(WaitReason::Analyzing, None, because);
}

/// The moment of the next measurement: on a grid that begins when the first window is full. One that is long past, because
/// the operator was away, is passed over.
fn due(now: Timestamp, metric: &MetricIntent, gate: &Gate) -> Timestamp {
    let interval = metric.interval_seconds.max(1);
    let first = after(gate.since, metric.window_seconds);
    let last = gate.tallies.get(&metric.name).and_then(|tally| tally.last_at);
    let patience = SignedDuration::from_secs(i64::from(interval.max(PATIENCE_SECONDS)));
    let too_old = now.checked_sub(patience).unwrap_or(Timestamp::MIN);
    let from = last.map_or(too_old, |last| too_old.max(after(last, 1)));
    let behind = from.duration_since(first).as_secs_f64() / f64::from(interval);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and saturating"
    )]
    let steps = behind.max(0.0).ceil() as u32;
    after(first, steps.saturating_mul(interval))
}

/// Asks for the measurement that is due, and takes note of it when its answer is there.
fn measure(
    pass: &mut Pass<'_>,
    metric: &MetricIntent,
    gate: &mut Gate,
    wave: &str,
    workloads: &BTreeSet<WorkloadRef>,
) {
    let at = due(pass.now, metric, gate);
    if at > pass.now {
        return pass.wake_at(at);
    }
    let (source, target) = pass.revisions();
    let began_ago = whole_seconds(at.duration_since(gate.counted_from));
    let query = Query {
        source: metric.source.clone(),
        promql: promql(metric, Subject { workloads, source: &source, target: &target, began_ago }),
        at,
        max_age_seconds: metric.max_age_seconds,
    };
    // Where nobody knows when the restarts began there is nothing to compare with.
    let compared = metric.baseline.filter(|_| gate.baseline_at < gate.since);
    let before = compared.map(|_| Query { at: gate.baseline_at, ..query.clone() });
    pass.needs.queries.extend([query.clone()].into_iter().chain(before.clone()));
    // Its answer may never come: then a later one is asked for.
    pass.wake_at(after(at, metric.interval_seconds.max(PATIENCE_SECONDS).saturating_add(1)));
    let snapshot = pass.snapshot;
    let Some(now) = snapshot.answers.get(&query) else { return };
    let before = match before {
        None => None,
        Some(before) => match snapshot.answers.get(&before) {
            None => return,
            found => found,
        },
    };
    let Some(expected_proxies) = expected_proxies(pass) else { return };
    let measured = Measured { workloads, expected_proxies, istiods: istiods(pass) };
    let judged = judge(metric, now, before, measured);
    pass.needs.queries.remove(&query);
    take(pass, metric, gate, Taken { wave, at, query: &query.promql, judged });
}

/// Rounded up: what happens in the first second must be counted.
fn whole_seconds(time: SignedDuration) -> u32 {
    let begun = i64::from(time.subsec_nanos() > 0);
    let seconds = time.as_secs().saturating_add(begun).clamp(0, MAX_COUNTED_SECONDS);
    u32::try_from(seconds).unwrap_or_default()
}

/// A measurement that was taken.
struct Taken<'a> {
    wave: &'a str,
    at: Timestamp,
    query: &'a str,
    judged: Judged,
}

fn take(pass: &mut Pass<'_>, metric: &MetricIntent, gate: &mut Gate, taken: Taken<'_>) {
    let Taken { wave, at, query, judged } = taken;
    let tally = gate.tallies.entry(metric.name.clone()).or_default();
    tally.taken = tally.taken.saturating_add(1);
    tally.last_at = Some(at);
    tally.message = cut(&judged.message, MAX_QUERY_IN_EVENT);
    let before = (tally.errors, tally.inconclusive, tally.without_data);
    (tally.errors, tally.inconclusive, tally.without_data) = (0, 0, 0);
    match judged.verdict {
        Verdict::Passed => tally.concluded += 1,
        Verdict::Failed => (tally.concluded, tally.failed) = (tally.concluded + 1, tally.failed + 1),
        Verdict::Error => tally.errors = before.0.saturating_add(1),
        Verdict::Inconclusive => tally.inconclusive = before.1.saturating_add(1),
        Verdict::NoData => match metric.on_no_data {
            OnNoData::Pause => tally.without_data = before.2.saturating_add(1),
            OnNoData::Fail => (tally.concluded, tally.failed) = (tally.concluded + 1, tally.failed + 1),
            OnNoData::Ignore => tally.concluded += 1,
        },
    }
    let (reason, warning) = match judged.verdict {
        Verdict::Passed => ("MetricPassed", false),
        Verdict::Failed => ("MetricFailed", true),
        Verdict::Inconclusive => ("MetricInconclusive", true),
        Verdict::NoData => ("MetricNoData", true),
        Verdict::Error => ("MetricError", true),
    };
    let dry = if metric.dry_run { " (dryRun)" } else { "" };
    let note = format!("{}{dry}: {}; query: {}", metric.name, tally.message, cut(query, MAX_QUERY_IN_EVENT));
    pass.event(warning && !metric.dry_run, reason, None, cut(&note, 1000));
    let sample = Sample {
        metric: metric.name.clone(),
        wave: wave.to_owned(),
        at,
        verdict: judged.verdict,
        value: judged.value.map(number),
        baseline: judged.baseline.map(number),
        message: cut(&judged.message, MAX_QUERY_IN_EVENT),
        query: cut(query, MAX_QUERY),
        dry_run: metric.dry_run,
    };
    pass.samples.insert(0, sample);
    pass.samples.truncate(MAX_SAMPLES);
}

/// The first characters of a text.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// How many istiods of the target tell about proxies.
fn istiods(pass: &Pass<'_>) -> u32 {
    let plane = pass.snapshot.control_planes.get(&pass.run.target);
    plane.and_then(|plane| plane.istiod.as_ref()).map_or(0, |istiod| istiod.ready)
}

/// How many proxies should be connected to the target's istiod at least: the pods of earlier waves, and those of the wave in
/// work that are ready on it. `None` while its pods are not known.
fn expected_proxies(pass: &Pass<'_>) -> Option<u32> {
    let revisions = pass.revisions();
    let snapshot = pass.snapshot;
    let here: BTreeSet<_> =
        pass.current_wave().iter().flat_map(|wave| wave.namespaces.iter().cloned()).collect();
    let is_known =
        |namespace| snapshot.pods.contains_key(namespace) || !snapshot.namespaces.contains_key(namespace);
    if !here.iter().all(is_known) {
        return None;
    }
    let waves = (0u32..).zip(&pass.plan.waves).take_while(|(index, _)| *index < pass.run.wave);
    let moved: BTreeSet<_> = waves
        .flat_map(|(_, wave)| wave.namespaces.iter().cloned())
        .filter(|namespace| !here.contains(namespace))
        .collect();
    let earlier: u32 = members(pass.intent, snapshot, pair(&revisions), &moved, Group::Application)
        .iter()
        .map(|workload| workload.rollout.ready)
        .sum();
    let on_target = |pod: &&std::sync::Arc<crate::observed::Pod>| {
        let revision = pod.proxy.as_ref().and_then(|proxy| proxy.revision.as_ref());
        pod.ready && pod.deletion.is_none() && !pod.finished && revision == Some(&revisions.1)
    };
    let pods = here.iter().filter_map(|namespace| snapshot.pods.get(namespace)).flatten();
    Some(earlier.saturating_add(u32::try_from(pods.filter(on_target).count()).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refusals come within the first second after a restart: a window that begins a moment later never has them.
    #[test]
    fn what_is_counted_is_counted_from_the_very_beginning() {
        assert_eq!(whole_seconds(SignedDuration::from_millis(5_767)), 6);
        assert_eq!(whole_seconds(SignedDuration::from_secs(5)), 5);
        assert_eq!(whole_seconds(SignedDuration::from_secs(-5)), 0);
        assert_eq!(whole_seconds(SignedDuration::from_hours(1000)), 86_400);
    }
}
