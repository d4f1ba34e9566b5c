//! Rollbacks in which something stays behind: what it holds up, and what it does not.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::decide;
use super::tests::{app, at, entry, pod, reference, run, stored, turned_back, two_waves};
use crate::check::fixture::{Mesh, SOURCE, TARGET};
use crate::conditions::ConditionType;
use crate::decision::{About, Decision};
use crate::machine::phase::Phase;
use crate::observed::{DisruptionBudget, IntOrPercent, Strategy};
use crate::record::Record;
use crate::selector::LabelSelector;
use crate::wait::WaitReason;

/// `pay` is the canary, with one workload on the target; `shop` is the wave after it, which goes back first.
fn mesh() -> Mesh {
    let mut mesh = Mesh::before();
    two_waves(&mut mesh);
    app(&mut mesh, "pay", "c", |_| {});
    pod(&mut mesh, "pay", "c", TARGET, |_| {});
    mesh
}

/// In the restarts of this wave of the rollback.
fn going_back(mesh: &Mesh, wave: u32, more: &Value) -> Record {
    let mut turned = turned_back();
    turned["fromWave"] = json!(1);
    let mut position =
        json!({"rollback": turned, "wave": wave, "step": "Restart", "settledSince": "1970-01-01T00:00:00Z"});
    position.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    stored(mesh, Phase::RollingBack, &position)
}

/// Decides at these seconds, each time from what was stored before.
fn at_seconds(mesh: &Mesh, mut record: Record, seconds: &[i64]) -> Vec<Decision> {
    let mut all = Vec::new();
    for second in seconds {
        let decision = decide(at(*second), &mesh.intent, &record, &mesh.snapshot);
        record = decision.record.clone();
        all.push(decision);
    }
    all
}

fn reasons(decision: &Decision) -> Vec<WaitReason> {
    decision.view.blocked.iter().map(|wait| wait.reason).collect()
}

/// Nothing of the wave can be done: after the timeout a person is asked, and the canary goes back all the same.
fn is_passed_over(mesh: &Mesh, expected: WaitReason) {
    let decisions = at_seconds(mesh, going_back(mesh, 1, &json!({})), &[100, 101, 701, 702, 703]);
    assert_eq!(run(&decisions[1]).wave, 1);
    assert!(reasons(&decisions[1]).contains(&expected), "{:?}", decisions[1].view.blocked);
    let last = decisions.last().unwrap();
    assert_eq!(run(last).wave, 0, "{}", last.view.message);
    let Some(batch) = &run(last).batch else { panic!("{}", last.view.message) };
    assert!(batch.entries.iter().any(|entry| entry.workload == reference("pay", "c")), "{batch:?}");
}

#[test]
fn a_workload_whose_new_pods_cannot_be_made() {
    let mut mesh = mesh();
    app(&mut mesh, "shop", "a", |workload| {
        workload.template.restart = Some("u.1.forward.1".to_owned());
        workload.rollout.updated = 0;
        workload.rollout.deadline_exceeded = true;
    });
    pod(&mut mesh, "shop", "a", SOURCE, |_| {});
    is_passed_over(&mesh, WaitReason::WorkloadNotReady);
}

#[test]
fn a_pod_that_falls_ill_when_it_is_back() {
    let mut mesh = mesh();
    app(&mut mesh, "shop", "a", |workload| {
        workload.template.restart = Some("u.1.back.1".to_owned());
        workload.rollout.available = 0;
    });
    pod(&mut mesh, "shop", "a", SOURCE, |pod| pod.ready = false);
    is_passed_over(&mesh, WaitReason::RolloutInProgress);
    // At the end it is named: everything is on the source, and not everything is well.
    mesh.snapshot.pods.clear();
    mesh.census(|census| census.taken_at = Some(at(2000)));
    let record = going_back(&mesh, 0, &json!({"step": "Proven", "soakSince": "1970-01-01T00:00:10Z"}));
    let decision = decide(at(2000), &mesh.intent, &record, &mesh.snapshot);
    assert_eq!(run(&decision).phase, Phase::RollingBack);
    assert_eq!(reasons(&decision), [WaitReason::WorkloadNotReady]);
    assert!(decision.view.conditions.is_true(ConditionType::Stalled));
}

#[test]
fn a_workload_whose_budget_leaves_no_room() {
    let mut mesh = mesh();
    app(&mut mesh, "shop", "a", |workload| {
        workload.replicas = 2;
        workload.strategy = Strategy::RollingUpdate {
            max_unavailable: IntOrPercent::Int(1),
            max_surge: IntOrPercent::Int(0),
        };
        workload.rollout.current = 2;
        workload.rollout.updated = 2;
    });
    pod(&mut mesh, "shop", "a", TARGET, |_| {});
    pod(&mut mesh, "shop", "a", TARGET, |pod| (pod.ready, pod.name) = (false, "a-h-2".to_owned()));
    let budget = DisruptionBudget {
        name: "a".to_owned(),
        selector: Some(LabelSelector::default()),
        min_available: Some(IntOrPercent::Int(1)),
        observed: true,
        expected_pods: 2,
        ..DisruptionBudget::default()
    };
    mesh.snapshot.budgets.insert("shop".into(), vec![budget.into()]);
    is_passed_over(&mesh, WaitReason::BudgetExhausted);
}

#[test]
fn a_workload_whose_restart_is_refused() {
    let mut mesh = mesh();
    mesh.plan.waves[1].max_concurrent = 1;
    for name in ["a", "b"] {
        app(&mut mesh, "shop", name, |_| {});
        pod(&mut mesh, "shop", name, TARGET, |_| {});
    }
    let write = (About::Workload(reference("shop", "a")), "u.1.back.1".to_owned());
    mesh.snapshot.refused.insert(write, "no".to_owned());
    let decisions = at_seconds(&mesh, going_back(&mesh, 1, &json!({})), &[100, 101, 701, 702]);
    assert!(reasons(&decisions[1]).contains(&WaitReason::WriteRefused));
    // The next of the wave goes back.
    let batch = run(decisions.last().unwrap()).batch.as_ref().unwrap();
    assert!(batch.entries.iter().any(|entry| entry.workload == reference("shop", "b")), "{batch:?}");
}

/// Two of an earlier wave were passed over, and the wave in work allows one at a time.
fn passed_over(mesh: &Mesh) -> Record {
    let old = "1970-01-01T00:00:00Z";
    let entries = [entry("shop", "a", old, true), entry("shop", "b", old, true)];
    going_back(mesh, 0, &json!({"batches": 1, "batch": {"number": 1, "entries": entries}}))
}

fn open(decision: &Decision) -> usize {
    run(decision).batch.iter().flat_map(|batch| &batch.entries).filter(|entry| !entry.timed_out).count()
}

#[test]
fn a_retry_takes_up_as_many_as_the_limit_allows() {
    let mut mesh = mesh();
    for name in ["a", "b"] {
        app(&mut mesh, "shop", name, |_| {});
        pod(&mut mesh, "shop", name, TARGET, |pod| pod.restart = Some("u.1.back.1".to_owned()));
    }
    let before = at_seconds(&mesh, passed_over(&mesh), &[5000]).remove(0);
    assert!(reasons(&before).contains(&WaitReason::RestartReverted), "{:?}", before.view.blocked);
    mesh.intent.retry = Some("1".to_owned());
    for decision in at_seconds(&mesh, passed_over(&mesh), &[5000, 5001, 5002]) {
        assert!(!reasons(&decision).contains(&WaitReason::InvariantViolated), "{}", decision.view.message);
        assert_eq!(open(&decision), 1);
        assert_eq!(run(&decision).handled_retry.as_deref(), Some("1"));
    }
}

#[test]
fn labels_that_are_mended_take_up_as_many_as_the_limit_allows() {
    let mut mesh = mesh();
    for name in ["a", "b"] {
        let stamp = Some("u.1.back.1".to_owned());
        app(&mut mesh, "shop", name, |workload| workload.template.restart.clone_from(&stamp));
        pod(&mut mesh, "shop", name, TARGET, |pod| pod.restart.clone_from(&stamp));
    }
    for decision in at_seconds(&mesh, passed_over(&mesh), &[5000, 5001, 5002]) {
        assert!(!reasons(&decision).contains(&WaitReason::InvariantViolated), "{}", decision.view.message);
        assert_eq!(open(&decision), 1);
    }
}

/// The webhook of the target was away when the workload was scaled up.
#[test]
fn a_pod_that_got_no_sidecar_during_the_run_is_mended() {
    let with = |created: &str| {
        let created = created.parse::<Timestamp>().unwrap();
        let mut mesh = mesh();
        app(&mut mesh, "shop", "a", |_| {});
        pod(&mut mesh, "shop", "a", SOURCE, |_| {});
        pod(&mut mesh, "shop", "a", SOURCE, |pod| {
            (pod.proxy, pod.created, pod.name) = (None, Some(created), "a-h-2".to_owned());
        });
        let decision = at_seconds(&mesh, going_back(&mesh, 1, &json!({})), &[100]).remove(0);
        run(&decision)
            .batch
            .clone()
            .is_some_and(|batch| batch.entries.iter().any(|entry| entry.workload == reference("shop", "a")))
    };
    assert!(with("1969-12-31T12:00:00Z"));
    assert!(!with("1969-12-30T00:00:00Z"), "what was broken before is not the run's");
}

#[test]
fn skipped_checks_of_the_completion_do_not_replace_the_proof() {
    let mut mesh = mesh();
    mesh.skip("ProxiesMoved");
    mesh.proxies("shop", TARGET, 1);
    mesh.census(|census| census.taken_at = Some(at(100)));
    let record = going_back(&mesh, 0, &json!({"step": "Proven", "soakSince": "1970-01-01T00:00:10Z"}));
    let decision = decide(at(101), &mesh.intent, &record, &mesh.snapshot);
    assert_eq!(run(&decision).phase, Phase::RollingBack);
    assert!(reasons(&decision).contains(&WaitReason::RevisionInUse));
}

/// At wave 0 something that ran into its timeout is still open: what was passed over elsewhere has its next round all the same.
#[test]
fn one_that_stays_broken_does_not_keep_what_was_passed_over() {
    let mut mesh = mesh();
    mesh.snapshot.pods.remove(&"pay".into());
    pod(&mut mesh, "pay", "c", SOURCE, |_| {});
    for name in ["a", "b"] {
        app(&mut mesh, "shop", name, |_| {});
        pod(&mut mesh, "shop", name, TARGET, |_| {});
    }
    let entries = [entry("shop", "a", "1970-01-01T00:00:00Z", true)];
    mesh.snapshot.workloads.remove(&reference("pay", "x"));
    let write = (About::Workload(reference("shop", "a")), "u.1.back.1".to_owned());
    mesh.snapshot.refused.insert(write, "no".to_owned());
    let more = json!({"anotherRound": true, "batches": 1, "batch": {"number": 1, "entries": entries}});
    let decisions = at_seconds(&mesh, going_back(&mesh, 0, &more), &[5000, 5001, 5002]);
    let last = decisions.last().unwrap();
    let batch = run(last).batch.as_ref().unwrap();
    assert!(batch.entries.iter().any(|entry| entry.workload == reference("shop", "b")), "{batch:?}");
}

#[test]
fn a_pod_on_a_silent_node_is_passed_over() {
    let mut mesh = mesh();
    let stamp = Some("u.1.back.1".to_owned());
    app(&mut mesh, "shop", "a", |workload| workload.template.restart.clone_from(&stamp));
    pod(&mut mesh, "shop", "a", SOURCE, |pod| pod.restart.clone_from(&stamp));
    pod(&mut mesh, "shop", "a", TARGET, |pod| (pod.deletion, pod.name) = (Some(at(50)), "a-h-2".to_owned()));
    let entries = [entry("shop", "a", "1970-01-01T00:00:00Z", false)];
    let more = json!({"batches": 1, "batch": {"number": 1, "entries": entries}});
    let decisions = at_seconds(&mesh, going_back(&mesh, 1, &more), &[100, 601, 602]);
    assert!(reasons(&decisions[0]).contains(&WaitReason::PodTerminating));
    assert_eq!(run(decisions.last().unwrap()).wave, 0);
}
