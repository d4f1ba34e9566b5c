//! Metrics as gates: after each batch and while a wave soaks.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::decide;
use super::tests::{app, at, entry, pod, run, stored, two_waves};
use crate::analysis::verdict::Verdict;
use crate::analysis::{Decimal, Measure, MetricIntent, OnNoData};
use crate::check::fixture::{Mesh, SOURCE, TARGET};
use crate::conditions::{ConditionStatus, ConditionType};
use crate::decision::{Decision, Wake};
use crate::intent::OnFailure;
use crate::labels;
use crate::machine::phase::Phase;
use crate::measure::{Answer, Problem, ProblemKind, Row};
use crate::record::{Record, RollbackCause};
use crate::wait::WaitReason;

const BEGAN: &str = "1970-01-01T00:00:00Z";

fn metric() -> MetricIntent {
    MetricIntent {
        name: "errors".into(),
        max: Some(Decimal::whole(1)),
        window_seconds: 60,
        interval_seconds: 30,
        error_limit: 1,
        inconclusive_limit: 1,
        no_data_limit: 1,
        min_samples: 0,
        ..crate::analysis::metric(Measure::Promql { query: "errors".into(), samples: None })
    }
}

/// The wave `shop` in work: a is through its restart and still in the batch, b has to be restarted.
fn after_a_restart(change: impl FnOnce(&mut MetricIntent)) -> (Mesh, Record) {
    let mut mesh = Mesh::before();
    two_waves(&mut mesh);
    for name in ["shop", "pay"] {
        mesh.namespace(name, |namespace| {
            namespace.labels.insert(labels::REVISION.to_owned(), TARGET.to_owned());
        });
    }
    let mut metric = metric();
    change(&mut metric);
    mesh.intent.analysis.metrics = vec![metric];
    app(&mut mesh, "shop", "a", |workload| workload.template.restart = Some("u.1.forward.1".to_owned()));
    pod(&mut mesh, "shop", "a", TARGET, |_| {});
    app(&mut mesh, "shop", "b", |_| {});
    pod(&mut mesh, "shop", "b", SOURCE, |_| {});
    let open = entry("shop", "a", BEGAN, false);
    let record = stored(
        &mesh,
        Phase::Migrating,
        &in_wave(&json!({"number": 1, "openedAt": BEGAN, "entries": [open]})),
    );
    (mesh, record)
}

fn in_wave(batch: &Value) -> Value {
    json!({"wave": 1, "step": "Restart", "settledSince": BEGAN, "waveBegan": BEGAN, "batches": 1, "batch": batch})
}

/// Decides until nothing changes, as the shell does; what is asked of the source is answered.
fn settle(mesh: &mut Mesh, record: &Record, now: Timestamp, answer: Option<&Answer>) -> Decision {
    let mut record = record.clone();
    for _ in 0..20 {
        let decision = decide(now, &mesh.intent, &record, &mesh.snapshot);
        let asked = decision.needs.queries.iter().filter(|query| !mesh.snapshot.answers.contains_key(*query));
        let asked: Vec<_> = asked.cloned().collect();
        if decision.wake != Wake::Again && (asked.is_empty() || answer.is_none()) {
            return decision;
        }
        for query in asked {
            assert!(query.at <= now, "a query for the future");
            mesh.snapshot.answers.extend(answer.map(|answer| (query, answer.clone())));
        }
        record = decision.record;
    }
    panic!("it does not come to rest");
}

#[expect(clippy::unnecessary_wraps, reason = "answers may be errors")]
fn value(value: f64) -> Answer {
    Ok(vec![Row { value, ..Row::default() }])
}

fn reason(decision: &Decision) -> WaitReason {
    decision.view.blocked.first().unwrap().reason
}

#[test]
fn nothing_is_restarted_before_the_last_batch_is_known_to_do_well() {
    let (mut mesh, record) = after_a_restart(|_| {});
    let waiting = settle(&mut mesh, &record, at(100), Some(&value(0.5)));
    assert_eq!(reason(&waiting), WaitReason::Analyzing);
    assert_eq!(waiting.wake, Wake::At(at(160)), "the first window is not full before");
    assert!(waiting.needs.queries.is_empty() && waiting.effects.is_empty());
    assert_eq!(run(&waiting).batch, None);
    let asked = settle(&mut mesh, &waiting.record, at(161), None);
    assert_eq!(asked.needs.queries.iter().map(|query| query.at).collect::<Vec<_>>(), [at(160)]);
    assert!(asked.effects.is_empty());
    let passed = settle(&mut mesh, &waiting.record, at(161), Some(&value(0.5)));
    assert_eq!(passed.effects.len(), 1, "{}", passed.view.message);
    assert_eq!(passed.record.samples[0].verdict, Verdict::Passed);
    assert_eq!(passed.record.samples[0].query, "errors");
}

#[test]
fn without_metrics_a_batch_is_refilled_at_once() {
    let (mut mesh, record) = after_a_restart(|_| {});
    mesh.intent.analysis.metrics.clear();
    assert_eq!(settle(&mut mesh, &record, at(100), None).effects.len(), 1);
}

#[test]
fn with_metrics_a_batch_is_not_refilled() {
    let (mut mesh, _) = after_a_restart(|_| {});
    pod(&mut mesh, "shop", "c", TARGET, |_| {});
    app(&mut mesh, "shop", "c", |workload| {
        workload.template.restart = Some("u.1.forward.1".to_owned());
        workload.rollout.available = 0;
    });
    let entries = [entry("shop", "a", BEGAN, false), entry("shop", "c", BEGAN, false)];
    let batch = in_wave(&json!({"number": 1, "openedAt": BEGAN, "entries": entries}));
    let record = stored(&mesh, Phase::Migrating, &batch);
    let decision = settle(&mut mesh, &record, at(100), None);
    let batch = run(&decision).batch.as_ref().unwrap();
    assert_eq!(batch.entries.len(), 1, "b waits until c is through and both are measured");
    assert_eq!(batch.done.len(), 1, "a is judged together with c");
}

#[test]
fn a_metric_that_fails_pauses_and_is_measured_anew_on_retry() {
    let (mut mesh, record) = after_a_restart(|_| {});
    let waiting = settle(&mut mesh, &record, at(100), None);
    let failed = settle(&mut mesh, &waiting.record, at(161), Some(&value(7.0)));
    assert_eq!(reason(&failed), WaitReason::AnalysisFailed);
    assert!(failed.effects.is_empty() && failed.view.conditions.is_true(ConditionType::Stalled));
    assert_eq!(failed.view.conditions.get(ConditionType::Healthy).unwrap().status, ConditionStatus::False);
    let later = settle(&mut mesh, &failed.record, at(1000), Some(&value(0.0)));
    assert_eq!(reason(&later), WaitReason::AnalysisFailed, "time alone does not mend it");
    mesh.intent.retry = Some("again".into());
    let retried = settle(&mut mesh, &later.record, at(1001), Some(&value(0.0)));
    assert_eq!(reason(&retried), WaitReason::Analyzing);
    let passed = settle(&mut mesh, &retried.record, at(1062), Some(&value(0.0)));
    assert_eq!(passed.effects.len(), 1, "{}", passed.view.message);
}

#[test]
fn a_metric_that_fails_turns_the_run_back_if_asked_to() {
    let (mut mesh, record) = after_a_restart(|_| {});
    mesh.intent.on_failure = OnFailure::Automatic;
    let waiting = settle(&mut mesh, &record, at(100), None);
    let decision = settle(&mut mesh, &waiting.record, at(161), Some(&value(7.0)));
    assert_eq!(run(&decision).phase, Phase::RollingBack);
    let rollback = run(&decision).rollback.as_ref().unwrap();
    assert_eq!(rollback.cause, RollbackCause::AnalysisFailed);
    assert!(rollback.message.contains("errors failed: 7 is above max 1"), "{}", rollback.message);
    assert_eq!(run(&decision).gate, None);
}

#[test]
fn no_news_never_passes_and_calls_a_person_in_the_end() {
    let error = || Err(Problem { kind: ProblemKind::Unreachable, message: "refused".into() });
    for (answer, called) in [
        (Ok(Vec::new()), WaitReason::AnalysisNoData),
        (value(f64::NAN), WaitReason::AnalysisNoData),
        (error(), WaitReason::AnalysisError),
    ] {
        let (mut mesh, record) = after_a_restart(|_| {});
        // Whoever trusts metrics to turn back does not turn back because there are none.
        mesh.intent.on_failure = OnFailure::Automatic;
        let mut record = settle(&mut mesh, &record, at(100), None).record;
        for (second, reason_now) in [(160, WaitReason::Analyzing), (190, called), (220, called)] {
            let decision = settle(&mut mesh, &record, at(second), Some(&answer));
            assert_eq!(reason(&decision), reason_now, "{}", decision.view.message);
            assert!(decision.effects.is_empty());
            record = decision.record;
        }
        let decision = settle(&mut mesh, &record, at(250), Some(&value(0.0)));
        assert_eq!(
            decision.effects.len(),
            1,
            "it goes on by itself when data comes: {}",
            decision.view.message
        );
    }
}

#[test]
fn what_no_data_does_can_be_chosen() {
    let (mut mesh, record) = after_a_restart(|metric| metric.on_no_data = OnNoData::Ignore);
    let waiting = settle(&mut mesh, &record, at(100), None).record;
    let ignored = settle(&mut mesh, &waiting, at(161), Some(&Ok(Vec::new())));
    assert_eq!(ignored.effects.len(), 1);
    assert_eq!(ignored.record.samples[0].verdict, Verdict::NoData);
    let (mut mesh, record) = after_a_restart(|metric| metric.on_no_data = OnNoData::Fail);
    let waiting = settle(&mut mesh, &record, at(100), None).record;
    assert_eq!(
        reason(&settle(&mut mesh, &waiting, at(161), Some(&Ok(Vec::new())))),
        WaitReason::AnalysisFailed
    );
}

#[test]
fn a_metric_without_effect_is_measured_and_shown_only() {
    let (mut mesh, record) = after_a_restart(|metric| metric.dry_run = true);
    mesh.intent.on_failure = OnFailure::Automatic;
    let waiting = settle(&mut mesh, &record, at(100), None).record;
    for answer in
        [value(7.0), Ok(Vec::new()), Err(Problem { kind: ProblemKind::TimedOut, message: "10 s".into() })]
    {
        mesh.snapshot.answers.clear();
        let decision = settle(&mut mesh, &waiting, at(161), Some(&answer));
        assert_eq!(decision.effects.len(), 1, "{}", decision.view.message);
        assert!(decision.record.samples[0].dry_run);
    }
}

#[test]
fn several_measurements_and_some_failures_can_be_asked_for() {
    let (mut mesh, record) = after_a_restart(|metric| (metric.count, metric.failure_limit) = (3, 1));
    let mut record = settle(&mut mesh, &record, at(100), None).record;
    for (second, measured) in [(160, 0.0), (190, 7.0)] {
        let decision = settle(&mut mesh, &record, at(second), Some(&value(measured)));
        assert_eq!(reason(&decision), WaitReason::Analyzing);
        record = decision.record;
    }
    let failed = settle(&mut mesh, &record, at(220), Some(&value(7.0)));
    assert_eq!(reason(&failed), WaitReason::AnalysisFailed);
    mesh.snapshot.answers.clear();
    assert_eq!(settle(&mut mesh, &record, at(220), Some(&value(0.0))).effects.len(), 1);
}

#[test]
fn an_operator_that_was_away_measures_what_is_now() {
    let (mut mesh, record) = after_a_restart(|_| {});
    let waiting = settle(&mut mesh, &record, at(100), None).record;
    let decision = settle(&mut mesh, &waiting, at(7215), None);
    let asked: Vec<_> = decision.needs.queries.iter().map(|query| query.at).collect();
    assert_eq!(asked, [at(7180)], "on the same grid, and not older than a minute");
}

#[test]
fn the_value_before_is_that_before_the_batch() {
    let (mut mesh, record) = after_a_restart(|metric| {
        metric.max = None;
        metric.baseline = Some(crate::analysis::BaselineIntent {
            max_increase: Some(crate::analysis::Change::Absolute(Decimal::whole(1))),
            max_decrease: None,
        });
    });
    let waiting = settle(&mut mesh, &record, at(100), None).record;
    let decision = settle(&mut mesh, &waiting, at(161), None);
    assert_eq!(decision.needs.queries.iter().map(|query| query.at).collect::<Vec<_>>(), [at(0), at(160)]);
    for query in &decision.needs.queries {
        let answer = if query.at == at(0) { value(1.0) } else { value(2.5) };
        mesh.snapshot.answers.insert(query.clone(), answer);
    }
    let failed = settle(&mut mesh, &waiting, at(161), None);
    assert_eq!(reason(&failed), WaitReason::AnalysisFailed, "{}", failed.view.message);
    assert_eq!(failed.record.samples[0].baseline.as_deref(), Some("1"));
}

/// All of `shop` is on the target, and soaks until second 1000.
fn soaking(end: i64) -> (Mesh, Record) {
    let (mut mesh, _) = after_a_restart(|_| {});
    mesh.snapshot.workloads.remove(&super::tests::reference("shop", "b"));
    mesh.plan.waves[1].soak_seconds = u32::try_from(end).unwrap();
    let gate = json!({"since": BEGAN, "baselineAt": BEGAN, "countedFrom": BEGAN});
    let more = json!({"wave": 1, "step": "Proven", "settledSince": BEGAN, "soakSince": BEGAN, "gate": gate});
    let record = stored(&mesh, Phase::Soaking, &more);
    (mesh, record)
}

#[test]
fn a_soak_is_measured_to_its_end() {
    let (mut mesh, mut record) = soaking(200);
    for second in [60, 90, 120, 150, 180] {
        let decision = settle(&mut mesh, &record, at(second), Some(&value(0.0)));
        assert_eq!(run(&decision).phase, Phase::Soaking);
        assert_eq!(decision.record.samples[0].at, at(second));
        record = decision.record;
    }
    let over = settle(&mut mesh, &record, at(200), Some(&value(0.0)));
    assert_eq!(run(&over).phase, Phase::Completing, "{}", over.view.message);
    let (mut bad, fresh) = soaking(200);
    bad.intent.on_failure = OnFailure::Automatic;
    let back = settle(&mut bad, &fresh, at(60), Some(&value(7.0)));
    assert_eq!(run(&back).phase, Phase::RollingBack);
}

#[test]
fn a_soak_does_not_end_without_a_verdict() {
    let (mut mesh, record) = soaking(200);
    let decision = settle(&mut mesh, &record, at(5000), Some(&Ok(Vec::new())));
    assert_eq!(run(&decision).phase, Phase::Soaking);
    assert_eq!(reason(&decision), WaitReason::AnalysisNoData);
}

#[test]
fn a_wave_has_metrics_of_its_own() {
    let (mut mesh, record) = after_a_restart(|_| {});
    mesh.intent.waves[0].name = "shops".to_owned();
    mesh.intent.waves[0].analysis = Some(crate::analysis::AnalysisIntent::default());
    assert_eq!(settle(&mut mesh, &record, at(100), None).effects.len(), 1, "none at all");
}
