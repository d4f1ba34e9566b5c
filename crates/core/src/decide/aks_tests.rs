//! Control planes of the AKS add-on on their way: the three writes, what becomes of them, and what others write.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tests::{at, run, stored, turned_back};
use super::{Decision, decide};
use crate::aks::cluster::{ManagedCluster, MeshMode, ProvisioningState, SupportPlan};
use crate::aks::id::ClusterId;
use crate::aks::operation::OperationState;
use crate::aks::problem::{ArmProblem, Class};
use crate::aks::seen::{ClusterSeen, SetRevisions, WriteOutcome, WriteSeen};
use crate::census::{Reference, ReferenceKind};
use crate::check::fixture::{Mesh, SOURCE, TARGET, said};
use crate::effect::Effect;
use crate::intent::{CompletionMode, Intent};
use crate::machine::phase::Phase;
use crate::record::{CloudStep, RollbackCause};
use crate::wait::WaitReason;

const NOW: i64 = 1000;

/// Without the target's control plane, and a cluster that was read a moment ago.
pub(super) fn before(revisions: &[&str]) -> Mesh {
    let mut mesh = Mesh::before();
    mesh.intent.aks = ClusterId::new("26fe00f8-9173-4872-9134-bb1d2e00343a", "rg", "mesh").ok();
    without(&mut mesh, TARGET);
    mesh.snapshot.aks = Some(ClusterSeen {
        read_at: at(NOW - 1),
        cluster: Ok(ManagedCluster {
            location: "westeurope".into(),
            provisioning_state: ProvisioningState::Succeeded,
            kubernetes_version: None,
            current_kubernetes_version: None,
            support_plan: SupportPlan::KubernetesOfficial,
            mesh_mode: MeshMode::Istio,
            revisions: revisions.iter().map(|name| (*name).into()).collect(),
            ingress_gateways: Vec::new(),
            egress_gateways: Vec::new(),
            plugin_ca: None,
            key_vault_addon_enabled: false,
            open_service_mesh_enabled: false,
            etag_present: true,
        }),
        egress_gateways: Some(Vec::new()),
        offers: None,
        write: None,
    });
    mesh
}

fn without(mesh: &mut Mesh, revision: &str) {
    mesh.snapshot.control_planes.remove(&revision.into());
    mesh.snapshot.webhooks.retain(|webhook| webhook.revision != Some(revision.into()));
}

fn seen(mesh: &mut Mesh) -> &mut ClusterSeen {
    mesh.snapshot.aks.as_mut().unwrap()
}

fn change(mesh: &mut Mesh, change: impl FnOnce(&mut ManagedCluster)) {
    change(seen(mesh).cluster.as_mut().unwrap());
}

fn wrote(mesh: &mut Mesh, step: CloudStep, outcome: WriteOutcome, when: i64) {
    let direction = if step == CloudStep::Rollback { "back" } else { "forward" };
    let stamp = format!("u.1.{direction}.1.{}.0", step.as_word());
    seen(mesh).write = Some(WriteSeen { stamp, outcome, at: at(when) });
}

pub(super) fn decided(mesh: &Mesh, phase: Phase, more: &Value) -> Decision {
    decide(at(NOW), &mesh.intent, &stored(mesh, phase, more), &mesh.snapshot)
}

fn writes(decision: &Decision) -> Vec<&SetRevisions> {
    let writes = decision.effects.iter().filter_map(|effect| match effect {
        Effect::SetRevisions(change) => Some(change),
        _ => None,
    });
    writes.collect()
}

fn lists(change: &SetRevisions) -> (Vec<&str>, Vec<&str>) {
    (
        change.expected.iter().map(crate::ids::Revision::as_str).collect(),
        change.wanted.iter().map(crate::ids::Revision::as_str).collect(),
    )
}

pub(super) fn reasons(decision: &Decision) -> Vec<WaitReason> {
    decision.view.blocked.iter().map(|wait| wait.reason).collect()
}

fn problem(class: Class) -> WriteOutcome {
    WriteOutcome::Failed(ArmProblem::own(class, "Code", "It was refused.", "Because.", "Do this."))
}

fn start() -> Value {
    json!({"cloud": "Start"})
}

#[test]
fn the_start_is_stored_first_and_asked_for_afterwards() {
    let mesh = before(&[SOURCE]);
    let first = decided(&mesh, Phase::StartingControlPlane, &json!({}));
    assert!(first.effects.is_empty(), "{:?}", first.effects);
    assert_eq!(run(&first).cloud, Some(CloudStep::Start));
    let second = decided(&mesh, Phase::StartingControlPlane, &start());
    let [change] = writes(&second)[..] else { panic!("{:?}", second.effects) };
    assert_eq!(lists(change), (vec![SOURCE], vec![SOURCE, TARGET]));
    assert_eq!(second.needs.aks.map(|need| need.cluster), mesh.intent.aks);
}

#[test]
fn what_is_on_its_way_is_not_asked_for_twice() {
    let mut mesh = before(&[SOURCE]);
    wrote(&mut mesh, CloudStep::Start, WriteOutcome::Sent, NOW);
    let sent = decided(&mesh, Phase::StartingControlPlane, &start());
    assert!(sent.effects.is_empty() && reasons(&sent).contains(&WaitReason::ControlPlaneOperation));
    // It was accepted after the last reading, which does not show it yet.
    wrote(&mut mesh, CloudStep::Start, WriteOutcome::Accepted(OperationState::Running), NOW);
    let accepted = decided(&mesh, Phase::StartingControlPlane, &start());
    assert!(accepted.effects.is_empty(), "{:?}", accepted.effects);
    assert_eq!(accepted.needs.aks.map(|need| need.since), Some(at(NOW)));
    // The answer was lost, and the reading after it shows that nothing came of it.
    wrote(&mut mesh, CloudStep::Start, problem(Class::Unknown), NOW - 30);
    let nothing_came = failed(1, NOW - 30);
    assert_eq!(writes(&decided(&mesh, Phase::StartingControlPlane, &nothing_came)).len(), 1);
    // Or that it did.
    change(&mut mesh, |cluster| {
        cluster.revisions.push(TARGET.into());
        cluster.provisioning_state = ProvisioningState::UnderWay("Updating".into());
    });
    let works = decided(&mesh, Phase::StartingControlPlane, &start());
    assert!(works.effects.is_empty() && reasons(&works) == [WaitReason::ControlPlaneOperation]);
}

/// What is stored when a failure of this time was counted so often.
fn failed(failures: u32, when: i64) -> Value {
    json!({"cloud": "Start", "cloudFailures": failures, "cloudFailedAt": at(when)})
}

#[test]
fn a_refusal_is_counted_told_and_tried_again_when_it_may_be_over() {
    let cases = [
        (Class::Wait { operation: "Upgrading".into() }, WaitReason::ClusterBusy, 30),
        (Class::Throttled { retry_after_seconds: Some(7) }, WaitReason::AzureUnavailable, 7),
        (Class::Unknown, WaitReason::AzureUnavailable, 30),
        (Class::Changed, WaitReason::AzureUnavailable, 2),
        (Class::Permission { action: "write".into() }, WaitReason::AzureAccess, 300),
        (Class::Terminal, WaitReason::AzureRefused, 300),
    ];
    for (class, reason, pause) in cases {
        let mut mesh = before(&[SOURCE]);
        seen(&mut mesh).read_at = at(NOW);
        let when = NOW - pause + 1;
        wrote(&mut mesh, CloudStep::Start, problem(class.clone()), when);
        let counted = decided(&mesh, Phase::StartingControlPlane, &start());
        assert_eq!((run(&counted).cloud_failures, run(&counted).cloud_failed_at), (1, Some(at(when))));
        let waits = decided(&mesh, Phase::StartingControlPlane, &failed(1, when));
        assert!(waits.effects.is_empty(), "{class:?}");
        assert_eq!(reasons(&waits), [reason]);
        assert!(waits.view.message.contains("Do this."), "{}", waits.view.message);
        wrote(&mut mesh, CloudStep::Start, problem(class.clone()), NOW - pause);
        let again = decided(&mesh, Phase::StartingControlPlane, &failed(1, NOW - pause));
        assert_eq!(writes(&again).len(), 1, "{class:?}");
        // A person need not wait.
        mesh.intent.retry = Some("now".into());
        wrote(&mut mesh, CloudStep::Start, problem(class.clone()), NOW);
        let record = stored(&mesh, Phase::StartingControlPlane, &failed(1, NOW));
        let accepted = decide(at(NOW + 1), &mesh.intent, &record, &mesh.snapshot);
        assert!(accepted.events.iter().any(|event| event.reason == "RetryAccepted"), "{class:?}");
        let next = decide(at(NOW + 1), &mesh.intent, &accepted.record, &mesh.snapshot);
        assert_eq!(writes(&next).len(), 1, "{class:?}");
    }
}

#[test]
fn pauses_grow_with_each_failure_and_an_operation_that_failed_is_one() {
    let mut mesh = before(&[SOURCE]);
    seen(&mut mesh).read_at = at(NOW);
    let told = ArmProblem::own(Class::Unknown, "", "It failed.", "", "Do this.");
    let outcome = WriteOutcome::Accepted(OperationState::Failed(Box::new(told)));
    wrote(&mut mesh, CloudStep::Start, outcome, NOW - 119);
    assert!(decided(&mesh, Phase::StartingControlPlane, &failed(3, NOW - 119)).effects.is_empty());
    assert_eq!(writes(&decided(&mesh, Phase::StartingControlPlane, &failed(2, NOW - 119))).len(), 1);
}

#[test]
fn nothing_is_asked_for_while_the_run_is_held() {
    let mut mesh = before(&[SOURCE]);
    mesh.intent.suspend = true;
    for more in [json!({}), start()] {
        let held = decided(&mesh, Phase::StartingControlPlane, &more);
        assert!(held.effects.is_empty() && reasons(&held) == [WaitReason::Suspended], "{:?}", reasons(&held));
    }
}

#[test]
fn an_upgrade_of_the_same_pair_is_taken_over_whoever_began_it() {
    let mut mesh = before(&[SOURCE, TARGET]);
    let waits = decided(&mesh, Phase::StartingControlPlane, &json!({}));
    assert!(
        waits.effects.is_empty() && reasons(&waits) == [WaitReason::RevisionNotFound],
        "{:?}",
        reasons(&waits)
    );
    assert_eq!((run(&waits).cloud, run(&waits).cloud_done), (Some(CloudStep::Start), true));
    mesh.snapshot.control_planes = Mesh::before().snapshot.control_planes;
    mesh.snapshot.webhooks = Mesh::before().snapshot.webhooks;
    assert_eq!(run(&decided(&mesh, Phase::StartingControlPlane, &json!({}))).phase, Phase::Migrating);
}

#[test]
fn an_operation_of_others_is_waited_for_and_their_revisions_stop_the_run() {
    let mut mesh = before(&[SOURCE]);
    change(&mut mesh, |cluster| cluster.provisioning_state = ProvisioningState::UnderWay("Upgrading".into()));
    let waits = decided(&mesh, Phase::StartingControlPlane, &json!({}));
    assert!(waits.effects.is_empty() && reasons(&waits) == [WaitReason::ClusterBusy]);
    let mesh = before(&[SOURCE, "asm-1-29"]);
    let stops = decided(&mesh, Phase::StartingControlPlane, &json!({}));
    assert!(stops.effects.is_empty() && reasons(&stops) == [WaitReason::RevisionsChanged]);
    assert!(stops.view.message.contains("asm-1-27 and asm-1-29"), "{}", stops.view.message);
}

#[test]
fn an_old_reading_and_one_that_failed_lead_to_nothing() {
    let mut mesh = before(&[SOURCE]);
    seen(&mut mesh).read_at = at(NOW - 121);
    let old = decided(&mesh, Phase::StartingControlPlane, &start());
    assert!(old.effects.is_empty() && reasons(&old) == [WaitReason::Observing]);
    assert_eq!(old.needs.aks.map(|need| need.since), Some(at(NOW)));
    seen(&mut mesh).read_at = at(NOW);
    seen(&mut mesh).cluster =
        Err(ArmProblem::own(Class::SignIn, "", "Azure does not know us.", "", "Do this."));
    let failed = decided(&mesh, Phase::StartingControlPlane, &start());
    assert!(failed.effects.is_empty() && reasons(&failed) == [WaitReason::AzureAccess]);
    // Also where the offers were asked for, which nobody has then.
    let first = decided(&mesh, Phase::Preflight, &json!({"startedAt": null}));
    assert_eq!(reasons(&first), [WaitReason::AzureAccess]);
}

fn after(revisions: &[&str]) -> Mesh {
    let mut mesh = before(revisions);
    let all = Mesh::after();
    (mesh.snapshot.control_planes, mesh.snapshot.webhooks) =
        (all.snapshot.control_planes, all.snapshot.webhooks);
    mesh.snapshot.namespaces = all.snapshot.namespaces;
    mesh.snapshot.census = all.snapshot.census;
    mesh.census(|census| census.taken_at = Some(at(NOW)));
    mesh.intent.completion.mode = CompletionMode::Automatic;
    mesh
}

fn completing(cloud: Option<&str>) -> Value {
    let at = Timestamp::UNIX_EPOCH;
    json!({"soakSince": at, "settledSince": at, "cloud": cloud})
}

#[test]
fn completion_is_asked_for_when_nothing_refers_to_the_source() {
    let mut mesh = after(&[SOURCE, TARGET]);
    let first = decided(&mesh, Phase::Completing, &completing(None));
    assert_eq!(run(&first).cloud, Some(CloudStep::Complete), "{:?}", first.view.blocked);
    let second = decided(&mesh, Phase::Completing, &completing(Some("Complete")));
    let [change] = writes(&second)[..] else { panic!("{:?} {:?}", second.effects, second.view.blocked) };
    assert_eq!(lists(change), (vec![SOURCE, TARGET], vec![TARGET]));
    mesh.proxies("shop", SOURCE, 1);
    mesh.census(|census| {
        census.proxies.entry("shop".into()).or_default().insert(SOURCE.into(), 1);
    });
    mesh.intent.completion.mode = CompletionMode::Manual;
    let manual = decided(&mesh, Phase::Completing, &completing(None));
    assert!(manual.effects.is_empty() && run(&manual).cloud.is_none(), "nobody accepted it");
}

/// They serve beside those of the target, and go with their revision.
#[test]
fn gateways_of_the_add_on_do_not_hold_up_the_completion() {
    let mut mesh = after(&[SOURCE, TARGET]);
    mesh.intent.istio_namespace = "aks-istio-system".into();
    let gateway = crate::ids::WorkloadRef::new(
        crate::ids::WorkloadKind::Deployment,
        "aks-istio-ingress",
        "aks-istio-ingressgateway-external-asm-1-27",
    );
    mesh.proxies("aks-istio-ingress", SOURCE, 2);
    // Their templates name the revision, as those of Istio's gateway chart do.
    mesh.add_namespace("aks-istio-ingress", &[]);
    mesh.add_workload(
        "aks-istio-ingress",
        "aks-istio-ingressgateway-external-asm-1-27",
        &[("istio.io/rev", SOURCE), ("sidecar.istio.io/inject", "true")],
    );
    // The validator of objects without a revision is Azure's to move.
    mesh.census(|census| {
        census.references.push(Reference {
            kind: ReferenceKind::DefaultValidator,
            object_kind: "ValidatingWebhookConfiguration".to_owned(),
            namespace: None,
            name: "istiod-default-validator".to_owned(),
            revision: SOURCE.into(),
        });
    });
    mesh.census(|census| {
        census.workloads.entry(SOURCE.into()).or_default().insert(gateway, 2);
    });
    let first = decided(&mesh, Phase::Completing, &completing(None));
    assert_eq!(run(&first).cloud, Some(CloudStep::Complete), "{:?}", first.view.blocked);
    assert!(
        said(&mesh.preflight()).iter().all(|text| !text.contains("ingressgateway")),
        "they are nobody's to move"
    );
    mesh.proxies("shop", SOURCE, 1);
    let held = decided(&mesh, Phase::Completing, &completing(None));
    assert_eq!(run(&held).cloud, None, "anybody else's do");
}

#[test]
fn after_the_accepted_completion_there_is_no_way_back() {
    let mut mesh = after(&[SOURCE, TARGET]);
    mesh.intent.rollback_requested = true;
    assert_eq!(run(&decided(&mesh, Phase::Completing, &completing(None))).phase, Phase::RollingBack);
    assert_eq!(
        run(&decided(&mesh, Phase::Completing, &completing(Some("Complete")))).phase,
        Phase::Completing
    );
    // Somebody else completed it, and that is not forgotten when Azure does not answer later.
    change(&mut mesh, |cluster| cluster.revisions = vec![TARGET.into()]);
    let completed = decided(&mesh, Phase::Migrating, &json!({}));
    assert_eq!((run(&completed).phase, run(&completed).cloud), (Phase::Migrating, Some(CloudStep::Complete)));
    let told = completed.events.iter().filter(|event| event.reason == "CompletedBySomebody");
    assert!(
        told.count() == 1 && completed.view.message.contains("no way back"),
        "{}",
        completed.view.message
    );
    let again = decide(at(NOW), &mesh.intent, &completed.record, &mesh.snapshot);
    assert!(again.events.is_empty() && again.view.message.contains("no way back"), "{:?}", again.events);
    mesh.snapshot.aks = None;
    let later = decide(at(NOW), &mesh.intent, &completed.record, &mesh.snapshot);
    assert_eq!(run(&later).phase, Phase::Migrating);
}

#[test]
fn a_completion_that_azure_refuses_leaves_the_way_back_open() {
    let mut mesh = after(&[SOURCE, TARGET]);
    seen(&mut mesh).read_at = at(NOW);
    mesh.intent.rollback_requested = true;
    wrote(&mut mesh, CloudStep::Complete, problem(Class::Unknown), NOW - 1);
    let lost = decided(&mesh, Phase::Completing, &completing(Some("Complete")));
    assert_eq!(run(&lost).phase, Phase::Completing, "it may have been accepted");
    wrote(&mut mesh, CloudStep::Complete, problem(Class::Terminal), NOW - 1);
    let refused = decided(&mesh, Phase::Completing, &completing(Some("Complete")));
    assert_eq!(run(&refused).phase, Phase::RollingBack);
}

#[test]
fn a_rollback_that_is_asked_for_while_the_completion_may_be_on_its_way_waits_and_sends_no_other() {
    let mut mesh = after(&[SOURCE, TARGET]);
    mesh.intent.rollback_requested = true;
    // Another process may have sent it.
    let held = decided(&mesh, Phase::Completing, &completing(Some("Complete")));
    assert!(held.effects.is_empty() && run(&held).completion_held_since == Some(at(NOW)));
    assert!(held.view.message.contains("may be on its way"), "{}", held.view.message);
    let later = |mesh: &mut Mesh, read: i64| {
        seen(mesh).read_at = at(read);
        decide(at(NOW + 200), &mesh.intent, &held.record, &mesh.snapshot)
    };
    let stale = later(&mut mesh, NOW + 100);
    assert!(stale.effects.is_empty() && run(&stale).phase == Phase::Completing);
    assert_eq!(stale.needs.aks.map(|need| need.since), Some(at(NOW + 180)));
    change(&mut mesh, |cluster| cluster.provisioning_state = ProvisioningState::UnderWay("Updating".into()));
    assert_eq!(run(&later(&mut mesh, NOW + 190)).phase, Phase::Completing, "it may be that");
    change(&mut mesh, |cluster| cluster.provisioning_state = ProvisioningState::Succeeded);
    assert_eq!(run(&later(&mut mesh, NOW + 190)).phase, Phase::RollingBack);
    // So does a target that is set back to the source.
    let reverted = Intent { rollback_requested: false, target: SOURCE.into(), ..mesh.intent.clone() };
    seen(&mut mesh).read_at = at(NOW);
    let record = stored(&mesh, Phase::Completing, &completing(Some("Complete")));
    let revert = decide(at(NOW), &reverted, &record, &mesh.snapshot);
    assert!(revert.effects.is_empty() && run(&revert).completion_held_since == Some(at(NOW)));
    // Whoever takes the request back lets it go on.
    mesh.intent.rollback_requested = false;
    let on = later(&mut mesh, NOW + 190);
    assert_eq!(run(&on).completion_held_since, None);
    // What Azure answered is known at once.
    mesh.intent.rollback_requested = true;
    seen(&mut mesh).read_at = at(NOW);
    wrote(&mut mesh, CloudStep::Complete, problem(Class::Throttled { retry_after_seconds: None }), NOW - 1);
    let throttled = decided(&mesh, Phase::Completing, &completing(Some("Complete")));
    assert_eq!(run(&throttled).phase, Phase::RollingBack);
}

/// What stays has to work before the other is taken away, in both directions.
#[test]
fn nothing_is_removed_while_what_stays_does_not_work() {
    let mut mesh = after(&[SOURCE, TARGET]);
    let break_it = |mesh: &mut Mesh, revision: &str| {
        mesh.plane(revision, |plane| plane.istiod.as_mut().unwrap().ready = 0);
    };
    break_it(&mut mesh, TARGET);
    for cloud in [None, Some("Complete")] {
        let held = decided(&mesh, Phase::Completing, &completing(cloud));
        assert!(held.effects.is_empty() && reasons(&held) == [WaitReason::IstiodNotReady], "{:?}", held.view);
        assert!(
            held.view.message.contains("asm-1-27 has to stay until asm-1-28 works"),
            "{}",
            held.view.message
        );
    }
    // Nor is anybody told to remove it.
    mesh.intent.aks = None;
    let told = decided(&mesh, Phase::Completing, &completing(None));
    assert_eq!(reasons(&told), [WaitReason::IstiodNotReady]);

    let mut back = before(&[SOURCE, TARGET]);
    back.census(|census| census.taken_at = Some(at(NOW)));
    let proven = json!({"step": "Proven", "soakSince": "1970-01-01T00:00:00Z", "rollback": turned_back(), "cloud": "Rollback"});
    break_it(&mut back, SOURCE);
    let held = decided(&back, Phase::RollingBack, &proven);
    assert!(held.effects.is_empty() && reasons(&held) == [WaitReason::IstiodNotReady], "{:?}", held.view);
}

#[test]
fn the_removal_rests_on_a_count_that_began_after_it_was_due() {
    let mut mesh = after(&[SOURCE, TARGET]);
    mesh.census(|census| census.taken_at = Some(at(NOW - 10)));
    let old = decided(&mesh, Phase::Completing, &completing(None));
    assert_eq!((run(&old).cloud, old.needs.census_since), (None, Some(at(NOW))));
    // A count of a large cluster takes its time: it is not asked for again and again.
    let later = |mesh: &Mesh| decide(at(NOW + 90), &mesh.intent, &old.record, &mesh.snapshot);
    seen(&mut mesh).read_at = at(NOW + 89);
    assert_eq!(later(&mesh).needs.census_since, Some(at(NOW)));
    mesh.census(|census| census.taken_at = Some(at(NOW + 1)));
    assert_eq!(run(&later(&mesh)).cloud, Some(CloudStep::Complete));
}

#[test]
fn a_new_process_turns_back_when_it_has_looked() {
    let mut mesh = after(&[SOURCE, TARGET]);
    mesh.intent.rollback_requested = true;
    let read = mesh.snapshot.aks.take();
    let blind = decided(&mesh, Phase::Migrating, &json!({}));
    assert_eq!(run(&blind).phase, Phase::Migrating);
    assert!(blind.needs.aks.is_some());
    mesh.snapshot.aks = read;
    // The way back needs no Azure, only that it was asked.
    seen(&mut mesh).cluster =
        Err(ArmProblem::own(Class::Transient { retry_after_seconds: None }, "", "It is away.", "", ""));
    assert_eq!(run(&decided(&mesh, Phase::Migrating, &json!({}))).phase, Phase::RollingBack);
}

#[test]
fn the_end_is_when_azure_and_the_cluster_agree() {
    let mut mesh = after(&[TARGET]);
    let waits = decided(&mesh, Phase::Completing, &completing(Some("Complete")));
    assert_eq!(run(&waits).phase, Phase::Completing, "its pods are still there");
    assert!(run(&waits).cloud_done);
    without(&mut mesh, SOURCE);
    let over = decided(&mesh, Phase::Completing, &completing(Some("Complete")));
    assert_eq!(run(&over).phase, Phase::Succeeded, "{:?}", over.view.blocked);
    // What is not known is not the end.
    mesh.snapshot.aks = None;
    let unknown = decided(&mesh, Phase::Completing, &completing(Some("Complete")));
    assert_eq!((run(&unknown).phase, reasons(&unknown)), (Phase::Completing, vec![WaitReason::Observing]));
}

#[test]
fn a_proven_rollback_removes_the_target_and_is_over_then() {
    let mut mesh = before(&[SOURCE, TARGET]);
    mesh.census(|census| census.taken_at = Some(at(NOW)));
    let proven = |cloud: Option<&str>| json!({"step": "Proven", "soakSince": "1970-01-01T00:00:00Z", "rollback": turned_back(), "cloud": cloud});
    let first = decided(&mesh, Phase::RollingBack, &proven(None));
    assert_eq!(run(&first).cloud, Some(CloudStep::Rollback), "{:?}", first.view.blocked);
    let second = decided(&mesh, Phase::RollingBack, &proven(Some("Rollback")));
    let [change] = writes(&second)[..] else { panic!("{:?}", second.effects) };
    assert_eq!(lists(change), (vec![SOURCE, TARGET], vec![SOURCE]));
    change_to_source(&mut mesh);
    assert_eq!(run(&decided(&mesh, Phase::RollingBack, &proven(None))).phase, Phase::RolledBack);
}

#[test]
fn what_others_use_is_not_removed_by_a_rollback() {
    let mut mesh = before(&[SOURCE, TARGET]);
    mesh.snapshot.webhooks = Mesh::before().snapshot.webhooks;
    mesh.census(|census| census.taken_at = Some(at(NOW)));
    mesh.add_namespace("theirs", &[("istio.io/rev", TARGET)]);
    let proven = json!({"step": "Proven", "soakSince": "1970-01-01T00:00:00Z", "rollback": turned_back()});
    let held = decided(&mesh, Phase::RollingBack, &proven);
    assert_eq!((run(&held).phase, run(&held).cloud), (Phase::RollingBack, None));
    assert!(reasons(&held).iter().all(|reason| *reason == WaitReason::RevisionInUse));
    let words = &held.view.message;
    assert!(words.contains("theirs") && words.contains("rollback.controlPlane: Keep"), "{words}");
}

#[test]
fn a_rollback_whose_source_somebody_removed_says_so() {
    let mesh = before(&[TARGET]);
    let back = json!({"step": "Restart", "rollback": turned_back()});
    let stopped = decided(&mesh, Phase::RollingBack, &back);
    assert_eq!(reasons(&stopped), [WaitReason::RevisionsChanged]);
    assert!(stopped.view.message.contains("no way back"), "{}", stopped.view.message);
}

fn change_to_source(mesh: &mut Mesh) {
    change(mesh, |cluster| cluster.revisions = vec![SOURCE.into()]);
}

#[test]
fn a_start_that_is_still_on_its_way_is_not_taken_for_a_target_that_is_gone() {
    let mut mesh = before(&[SOURCE]);
    mesh.census(|census| census.taken_at = Some(at(NOW)));
    let proven = json!({"step": "Proven", "soakSince": "1970-01-01T00:00:00Z", "rollback": turned_back()});
    wrote(&mut mesh, CloudStep::Start, WriteOutcome::Sent, NOW);
    assert_eq!(run(&decided(&mesh, Phase::RollingBack, &proven)).phase, Phase::RollingBack);
    wrote(&mut mesh, CloudStep::Start, problem(Class::Terminal), NOW - 2);
    assert_eq!(run(&decided(&mesh, Phase::RollingBack, &proven)).phase, Phase::RolledBack);
}

#[test]
fn a_target_that_somebody_removed_turns_the_run_back() {
    let mut mesh = after(&[SOURCE]);
    let decision = decided(&mesh, Phase::Migrating, &json!({"step": "Restart"}));
    assert_eq!(run(&decision).rollback.as_ref().map(|it| it.cause), Some(RollbackCause::TargetRemoved));
    // While the answer of our own start is awaited it is only not there yet.
    change_to_source(&mut mesh);
    assert_eq!(run(&decided(&mesh, Phase::StartingControlPlane, &start())).rollback, None);
    let was_there = json!({"cloud": "Start", "cloudDone": true});
    assert!(run(&decided(&mesh, Phase::StartingControlPlane, &was_there)).rollback.is_some());
}
