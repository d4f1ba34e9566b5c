//! Rollouts of Argo Rollouts on their way.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tests::{at, pod, run, stored, two_waves};
use super::{Decision, Record, decide};
use crate::check::fixture::{Mesh, SOURCE, TARGET, map};
use crate::effect::{Effect, Restart};
use crate::ids::{WorkloadKind, WorkloadRef};
use crate::labels;
use crate::machine::phase::Phase;
use crate::observed::{
    ArgoPhase, ArgoRollout, DisruptionBudget, IntOrPercent, RolloutStatus, Strategy, Workload,
};
use crate::selector::LabelSelector;
use crate::wait::WaitReason;

fn web() -> WorkloadRef {
    WorkloadRef::new(WorkloadKind::Rollout, "pay", "web")
}

/// The canary wave has one healthy Rollout of two pods on the source, and its namespace is relabelled.
fn mesh() -> Mesh {
    let mut mesh = Mesh::before();
    two_waves(&mut mesh);
    for name in ["shop", "pay"] {
        mesh.namespace(name, |namespace| {
            namespace.labels.insert(labels::REVISION.to_owned(), TARGET.to_owned());
        });
    }
    mesh.add_workload("pay", "web", &[("app", "web")]);
    let (_, deployment) = mesh.snapshot.workloads.pop_first().unwrap();
    let mut rollout = Workload::clone(&deployment);
    rollout.reference = web();
    rollout.replicas = 2;
    rollout.strategy = Strategy::RollingUpdate {
        max_unavailable: IntOrPercent::Percent(25),
        max_surge: IntOrPercent::Int(0),
    };
    rollout.rollout = RolloutStatus {
        observed_generation: 1,
        current: 2,
        updated: 2,
        ready: 2,
        available: 2,
        ..RolloutStatus::default()
    };
    rollout.argo = Some(ArgoRollout { phase: ArgoPhase::Healthy, ..ArgoRollout::default() });
    mesh.snapshot.workloads.insert(web(), Arc::new(rollout));
    pods(&mut mesh, SOURCE, 10);
    mesh
}

/// Its two pods are these.
fn pods(mesh: &mut Mesh, revision: &str, created: i64) {
    mesh.snapshot.pods.clear();
    for number in ["1", "2"] {
        pod(mesh, "pay", "web", revision, |pod| {
            pod.name = format!("web-h-{number}");
            pod.labels = map(&[("rollouts-pod-template-hash", "h")]);
            pod.created = Some(at(created));
        });
    }
}

fn change(mesh: &mut Mesh, change: impl FnOnce(&mut Workload, &mut ArgoRollout)) {
    let workload = Arc::make_mut(mesh.snapshot.workloads.get_mut(&web()).unwrap());
    let mut argo = workload.argo.take().unwrap();
    change(workload, &mut argo);
    workload.argo = Some(argo);
}

fn restarting(mesh: &Mesh, more: &Value) -> Record {
    let mut all = json!({"wave": 0, "step": "Restart", "settledSince": "1970-01-01T00:00:00Z"});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    stored(mesh, Phase::Migrating, &all)
}

fn listed(mesh: &Mesh, restart_at: Option<i64>) -> Record {
    let mut entry = json!({"kind": "Rollout", "namespace": "pay", "name": "web", "uid": "web",
        "since": "1970-01-01T00:01:40Z"});
    if let Some(second) = restart_at {
        entry["restartAt"] = json!(at(second));
    }
    restarting(mesh, &json!({"batches": 1, "batch": {"number": 1, "entries": [entry]}}))
}

fn restarts(decision: &Decision) -> Vec<&Restart> {
    let restarts = decision.effects.iter().filter_map(|effect| match effect {
        Effect::Restart(restart) => Some(restart),
        _ => None,
    });
    restarts.collect()
}

fn time_of(decision: &Decision) -> Option<Timestamp> {
    run(decision).batch.as_ref().unwrap().entries[0].restart_at
}

#[test]
fn the_time_is_stored_first_and_written_afterwards() {
    let mesh = mesh();
    let first = decide(at(100), &mesh.intent, &restarting(&mesh, &json!({})), &mesh.snapshot);
    assert!(first.effects.is_empty(), "nothing rests on a record that is not stored");
    assert_eq!(time_of(&first), Some(at(101)));
    // The same also when the operator is another one, a minute later.
    for now in [100, 160] {
        let second = decide(at(now), &mesh.intent, &first.record, &mesh.snapshot);
        let restart = restarts(&second)[0];
        assert_eq!((&restart.workload, restart.restart_at), (&web(), Some(at(101))));
        assert_eq!(time_of(&second), Some(at(101)));
    }
}

#[test]
fn what_has_no_time_gets_one_before_it_is_written() {
    let mesh = mesh();
    let decision = decide(at(100), &mesh.intent, &listed(&mesh, None), &mesh.snapshot);
    assert!(decision.effects.is_empty());
    assert_eq!(time_of(&decision), Some(at(101)));
}

#[test]
fn one_that_is_due_is_not_written_again() {
    let mut mesh = mesh();
    for due in [101, 150] {
        change(&mut mesh, |_, argo| {
            argo.restart_at = Some(at(due));
            argo.phase = ArgoPhase::Progressing;
        });
        let decision = decide(at(200), &mesh.intent, &listed(&mesh, Some(101)), &mesh.snapshot);
        assert!(decision.effects.is_empty());
        assert_eq!(decision.view.blocked[0].reason, WaitReason::RolloutInProgress);
    }
    change(&mut mesh, |_, argo| argo.restart_at = Some(at(50)));
    let decision = decide(at(200), &mesh.intent, &listed(&mesh, Some(101)), &mesh.snapshot);
    assert_eq!(restarts(&decision).len(), 1, "an earlier restart is none of ours");
}

#[test]
fn it_is_done_when_its_pods_are_and_argo_says_so() {
    let mut mesh = mesh();
    pods(&mut mesh, TARGET, 102);
    change(&mut mesh, |_, argo| {
        argo.restart_at = Some(at(101));
        argo.phase = ArgoPhase::Progressing;
    });
    let decision = decide(at(200), &mesh.intent, &listed(&mesh, Some(101)), &mesh.snapshot);
    assert!(run(&decision).batch.is_some());
    change(&mut mesh, |_, argo| (argo.restarted_at, argo.phase) = (Some(at(101)), ArgoPhase::Healthy));
    let decision = decide(at(200), &mesh.intent, &listed(&mesh, Some(101)), &mesh.snapshot);
    assert!(run(&decision).batch.is_none());
}

#[test]
fn one_in_the_middle_of_its_own_update_waits() {
    let mut mesh = mesh();
    change(&mut mesh, |_, argo| {
        argo.phase = ArgoPhase::Paused;
        argo.message = "CanaryPauseStep".to_owned();
    });
    let decision = decide(at(100), &mesh.intent, &restarting(&mesh, &json!({})), &mesh.snapshot);
    assert!(run(&decision).batch.is_none());
    let blocked = &decision.view.blocked[0];
    assert_eq!(blocked.reason, WaitReason::RolloutInProgress);
    assert!(blocked.because.contains("kubectl argo rollouts promote web -n pay"), "{}", blocked.because);
    // One that came to the target by itself holds up nothing.
    pods(&mut mesh, TARGET, 50);
    let decision = decide(at(100), &mesh.intent, &restarting(&mesh, &json!({})), &mesh.snapshot);
    assert!(decision.view.blocked.iter().all(|wait| wait.about.is_none()), "{:?}", decision.view.blocked);
}

#[test]
fn an_aborted_one_needs_a_person() {
    let mut mesh = mesh();
    change(&mut mesh, |_, argo| argo.phase = ArgoPhase::Degraded);
    let since = json!({"idleSince": "1970-01-01T00:01:00Z"});
    let decision = decide(at(100), &mesh.intent, &restarting(&mesh, &since), &mesh.snapshot);
    assert!(run(&decision).batch.is_none());
    assert_eq!(decision.view.blocked[0].reason, WaitReason::WorkloadNotReady);
}

#[test]
fn a_time_that_vanished_is_not_written_again_without_a_retry() {
    let mut mesh = mesh();
    change(&mut mesh, |_, argo| argo.restarted_at = Some(at(101)));
    let decision = decide(at(200), &mesh.intent, &listed(&mesh, Some(101)), &mesh.snapshot);
    assert!(decision.effects.is_empty());
    let blocked = &decision.view.blocked[0];
    assert_eq!(blocked.reason, WaitReason::RestartReverted);
    assert!(blocked.because.contains("put spec.restartAt of Rollout pay/web back"), "{}", blocked.because);
    mesh.intent.retry = Some("1".to_owned());
    let decision = decide(at(200), &mesh.intent, &listed(&mesh, Some(101)), &mesh.snapshot);
    assert!(decision.effects.is_empty());
    assert_eq!(time_of(&decision), Some(at(201)), "another attempt has another time");
    let next = decide(at(200), &mesh.intent, &decision.record, &mesh.snapshot);
    assert_eq!(restarts(&next)[0].restart_at, Some(at(201)));
}

#[test]
fn pods_that_came_out_wrong_are_restarted_once_more() {
    let mut mesh = mesh();
    pods(&mut mesh, SOURCE, 102);
    change(&mut mesh, |_, argo| (argo.restart_at, argo.restarted_at) = (Some(at(101)), Some(at(101))));
    let decision = decide(at(200), &mesh.intent, &listed(&mesh, Some(101)), &mesh.snapshot);
    assert_eq!(time_of(&decision), Some(at(201)));
    // Pods that are older than the restart are just not evicted yet.
    pods(&mut mesh, SOURCE, 100);
    let decision = decide(at(200), &mesh.intent, &listed(&mesh, Some(101)), &mesh.snapshot);
    assert_eq!(time_of(&decision), Some(at(101)));
}

fn budget(mesh: &mut Mesh, min_available: u32, allowed: u32) {
    let budget = DisruptionBudget {
        name: "web".to_owned(),
        selector: Some(LabelSelector { match_labels: map(&[("app", "web")]), ..LabelSelector::default() }),
        min_available: Some(IntOrPercent::Int(min_available)),
        observed: true,
        expected_pods: 2,
        disruptions_allowed: allowed,
        ..DisruptionBudget::default()
    };
    mesh.snapshot.budgets.insert("pay".into(), vec![Arc::new(budget)]);
}

/// Evictions ask the budget themselves: room for one pod is enough, and no room at all is for ever.
#[test]
fn a_budget_needs_room_for_one_pod_whatever_the_user_says() {
    let mut mesh = mesh();
    change(&mut mesh, |workload, _| {
        workload.strategy = Strategy::RollingUpdate {
            max_unavailable: IntOrPercent::Percent(100),
            max_surge: IntOrPercent::Int(0),
        };
    });
    budget(&mut mesh, 1, 1);
    let decision = decide(at(100), &mesh.intent, &restarting(&mesh, &json!({})), &mesh.snapshot);
    assert!(run(&decision).batch.is_some());
    budget(&mut mesh, 2, 0);
    for respect in [true, false] {
        mesh.intent.restart.respect_budgets = respect;
        let workload = &mesh.snapshot.workloads[&web()];
        let why = crate::inventory::unrestartable(&mesh.intent, &mesh.snapshot, workload).unwrap();
        assert_eq!(why.reason, "BudgetNeverMet");
        assert!(why.message.contains("kubectl scale rollout web -n pay --replicas=3"), "{}", why.message);
    }
}

#[test]
fn one_whose_template_nobody_knows_is_told_with_its_command() {
    let mut mesh = mesh();
    change(&mut mesh, |_, argo| argo.template_of = Some("PodTemplate web".to_owned()));
    let workload = &mesh.snapshot.workloads[&web()];
    let why = crate::inventory::unrestartable(&mesh.intent, &mesh.snapshot, workload).unwrap();
    assert_eq!(why.reason, "TemplateElsewhere");
    assert!(why.message.contains("PodTemplate web"), "{}", why.message);
    assert!(why.message.contains("kubectl argo rollouts restart web -n pay"), "{}", why.message);
}

#[test]
fn a_time_that_is_not_the_stored_one_is_never_written() {
    let mesh = mesh();
    let before = listed(&mesh, Some(101));
    let mut decision = decide(at(200), &mesh.intent, &before, &mesh.snapshot);
    let broken = |decision: &Decision| {
        crate::invariant::violations(at(200), &mesh.intent, &before, &mesh.snapshot, decision)
    };
    assert_eq!(broken(&decision), Vec::<String>::new());
    for wrong in [Some(at(102)), None] {
        for effect in &mut decision.effects {
            if let Effect::Restart(restart) = effect {
                restart.restart_at = wrong;
            }
        }
        assert_eq!(broken(&decision).len(), 1);
    }
    let without = listed(&mesh, None);
    let found = crate::invariant::violations(at(200), &mesh.intent, &without, &mesh.snapshot, &decision);
    assert_eq!(found.len(), 1, "a Rollout is restarted by nothing but a time");
}
