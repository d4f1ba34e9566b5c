//! From a decision to `status` and back to the record.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use jiff::{SignedDuration, Timestamp};
use meshupgrade_api::{MeshUpgradeStatus, publish_status};
use meshupgrade_core::conditions::{ConditionStatus, ConditionType, Conditions};
use meshupgrade_core::decision::{
    About, ActionOffer, CheckOutcome, CheckResult, Decision, Needs, View, Wake,
};
use meshupgrade_core::ids::{NamespaceName, WorkloadKind, WorkloadRef};
use meshupgrade_core::intent::Verb;
use meshupgrade_core::machine::phase::Phase;
use meshupgrade_core::plan::{Plan, PlannedWave, WaveKind};
use meshupgrade_core::record::{Record, Run};
use meshupgrade_core::wait::{Wait, WaitReason};
use serde_json::json;

fn start() -> Timestamp {
    "2026-11-21T10:00:00.123456789Z".parse().unwrap()
}

fn run() -> Run {
    serde_json::from_value(json!({
        "schema": 1, "counter": 3, "source": "a", "target": "b", "phase": "Migrating",
        "startedAt": "2026-11-21T09:59:58.5Z",
        "batch": {"number": 7, "entries": [{
            "kind": "Deployment", "namespace": "shop", "name": "web", "uid": "u-1", "generation": 4,
            "since": "2026-11-21T09:59:59Z",
        }]},
    }))
    .unwrap()
}

fn wave(name: &str, kind: WaveKind, namespaces: &[&str]) -> PlannedWave {
    PlannedWave {
        name: name.to_owned(),
        kind,
        namespaces: namespaces.iter().map(|name| NamespaceName::from(*name)).collect(),
        workloads: 5,
        ..PlannedWave::default()
    }
}

fn plan() -> Plan {
    Plan {
        waves: vec![
            wave("canary", WaveKind::Declared, &["sandbox"]),
            wave("rest", WaveKind::Declared, &["shop", "web"]),
        ],
        workloads: 10,
        ..Plan::default()
    }
}

fn decision() -> Decision {
    let mut conditions = Conditions::default();
    conditions.set(ConditionType::Succeeded, ConditionStatus::Unknown, "Migrating", "");
    conditions.set(ConditionType::Reconciling, ConditionStatus::True, "Migrating", "goes on");
    conditions.set(ConditionType::Ready, ConditionStatus::Unknown, "Migrating", "goes on");
    Decision {
        effects: Vec::new(),
        record: Record { plan: Some(plan()), run: Some(run()), history: Vec::new(), ..Record::default() },
        view: View {
            outdated: None,
            phase: Phase::Migrating,
            message: "wave 1/2".to_owned(),
            progress: "1/10".to_owned(),
            wave: "1/2".to_owned(),
            conditions,
            blocked: vec![Wait {
                reason: WaitReason::BudgetExhausted,
                about: Some(About::Workload(WorkloadRef::new(WorkloadKind::Deployment, "shop", "web"))),
                because: "the budget web allows 0".to_owned(),
            }],
            checks: vec![CheckResult {
                name: "LabelOwners",
                outcome: CheckOutcome::Skipped,
                message: "skipped on request".to_owned(),
            }],
            actions: vec![ActionOffer {
                verb: Verb::Pause,
                value: "pause/3f9c2a1b".to_owned(),
                message: "holds".to_owned(),
            }],
        },
        events: Vec::new(),
        wake: Wake::OnChange,
        needs: Needs::default(),
    }
}

/// What the API server gives back.
fn stored(status: &MeshUpgradeStatus) -> MeshUpgradeStatus {
    serde_json::from_str(&serde_json::to_string(status).unwrap()).unwrap()
}

#[test]
fn record_survives_the_api_server() {
    let decision = decision();
    let status = stored(&publish_status(None, &decision, 2, start()));
    assert_eq!(status.record(), decision.record);
}

#[test]
fn publishing_the_same_decision_later_changes_nothing() {
    let decision = decision();
    let first = stored(&publish_status(None, &decision, 2, start()));
    let later = start() + SignedDuration::from_hours(5);
    assert_eq!(publish_status(Some(&first), &decision, 2, later), first);
}

#[test]
fn a_condition_keeps_its_time_until_its_status_changes() {
    let mut decision = decision();
    let first = publish_status(None, &decision, 2, start());
    let later = start() + SignedDuration::from_secs(90);
    let conditions = &mut decision.view.conditions;
    conditions.set(ConditionType::Ready, ConditionStatus::Unknown, "Soaking", "other words");
    conditions.set(ConditionType::Succeeded, ConditionStatus::True, "Done", "done");
    let second = publish_status(Some(&first), &decision, 3, later);

    let ready = second.condition("Ready").unwrap();
    assert_eq!(ready.last_transition_time.0.to_string(), "2026-11-21T10:00:00Z");
    assert_eq!((ready.reason.as_str(), ready.message.as_str()), ("Soaking", "other words"));
    assert_eq!(ready.observed_generation, Some(3));
    let succeeded = second.condition("Succeeded").unwrap();
    assert_eq!(succeeded.last_transition_time.0.to_string(), "2026-11-21T10:01:30Z");
    assert_eq!(succeeded.status, "True");
}

#[test]
fn conditions_have_a_fixed_order_and_dropped_ones_go() {
    let mut decision = decision();
    let first = publish_status(None, &decision, 2, start());
    let types = |status: &MeshUpgradeStatus| -> Vec<String> {
        status.conditions.iter().map(|condition| condition.type_.clone()).collect()
    };
    assert_eq!(types(&first), ["Ready", "Reconciling", "Succeeded"]);
    decision.view.conditions.set(ConditionType::Stalled, ConditionStatus::True, "LabelReverted", "");
    let second = publish_status(Some(&first), &decision, 2, start());
    assert_eq!(types(&second), ["Ready", "Stalled", "Succeeded"]);
}

/// Checks run only now and then: what they found stays, until the next run of the object.
#[test]
fn results_of_checks_stay_while_none_run() {
    let found = CheckResult { name: "NoOtherUpgrade", outcome: CheckOutcome::Passed, message: String::new() };
    let mut decision = decision();
    decision.view.checks = vec![found];
    let first = publish_status(None, &decision, 1, start());
    assert_eq!(first.checks.len(), 1);
    decision.view.checks.clear();
    assert_eq!(publish_status(Some(&first), &decision, 1, start()).checks, first.checks);
    decision.record.run.as_mut().unwrap().counter += 1;
    assert!(publish_status(Some(&first), &decision, 1, start()).checks.is_empty());
}

#[test]
fn summaries_are_what_the_columns_show() {
    let status = publish_status(None, &decision(), 2, start());
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["observedGeneration"], 2);
    assert_eq!(json["phase"], "Migrating");
    assert_eq!(json["progress"], "1/10");
    assert_eq!(json["wave"], "1/2");
    assert_eq!(json["provider"], "External");
    assert_eq!(json["blockedCount"], 1);
    assert_eq!(
        json["blocked"],
        json!([{
            "reason": "BudgetExhausted", "kind": "Deployment", "namespace": "shop", "name": "web",
            "message": "the budget web allows 0",
        }])
    );
    assert_eq!(
        json["checks"],
        json!([{"name": "LabelOwners", "outcome": "Skipped", "message": "skipped on request"}])
    );
}

#[test]
fn actions_are_what_the_annotation_takes() {
    let json = serde_json::to_value(publish_status(None, &decision(), 2, start())).unwrap();
    assert_eq!(json["actions"], json!([{"action": "pause", "value": "pause/3f9c2a1b", "message": "holds"}]));
}

#[test]
fn lists_and_messages_stay_within_the_schema() {
    let mut decision = decision();
    let wait = decision.view.blocked.remove(0);
    let check = decision.view.checks.remove(0);
    decision.view.blocked = vec![wait; 50];
    decision.view.checks = vec![check; 50];
    decision.view.message = "ö".repeat(5000);
    let status = publish_status(None, &decision, 2, start());
    assert_eq!(status.blocked.len(), 20);
    assert_eq!(status.checks.len(), 40);
    assert_eq!(status.message.chars().count(), 1024);
}

fn digest(plan: &Plan) -> String {
    meshupgrade_core::planning::digest(plan, &Run { counter: 1, ..run() })
}

/// A published digest must mean the same in every later version: this value never changes.
#[test]
fn digest_is_stable() {
    assert_eq!(digest(&plan()), GOLDEN);
    let mut decision = decision();
    decision.record.run.as_mut().unwrap().counter = 1;
    let status = publish_status(None, &decision, 2, start());
    assert_eq!(status.plan_digest.as_deref(), Some(GOLDEN));
    // What was approved for one run says nothing about the next.
    decision.record.run.as_mut().unwrap().counter = 2;
    assert_ne!(publish_status(None, &decision, 2, start()).plan_digest.as_deref(), Some(GOLDEN));
}

const GOLDEN: &str = "sha256:09d0f53544a5a4198e68b4025870c395d560628a15433ddad6bb47df5c9a3afd";

#[test]
fn digest_sees_what_an_approval_is_about_and_nothing_else() {
    let base = digest(&plan());
    let same: [fn(&mut Plan); 4] = [
        |plan| plan.workloads = 99,
        |plan| plan.waves[0].workloads = 99,
        |plan| plan.waves.push(wave("stragglers", WaveKind::Stragglers, &["late"])),
        |plan| plan.waves.push(wave("gateways", WaveKind::Gateways, &["shop"])),
    ];
    for change in same {
        let mut plan = plan();
        change(&mut plan);
        assert_eq!(digest(&plan), base);
    }
    let other: [fn(&mut Plan); 5] = [
        |plan| plan.waves[0].name = "first".to_owned(),
        |plan| plan.waves.swap(0, 1),
        |plan| plan.waves[0].namespaces.push(NamespaceName::from("more")),
        |plan| drop(plan.waves[1].namespaces.pop()),
        |plan| {
            let moved = plan.waves[1].namespaces.remove(0);
            plan.waves[0].namespaces.push(moved);
        },
    ];
    for change in other {
        let mut plan = plan();
        change(&mut plan);
        assert_ne!(digest(&plan), base);
    }
}
