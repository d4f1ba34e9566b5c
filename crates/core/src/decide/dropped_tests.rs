//! Namespaces that dropped out of the mesh: `shop` names a revision that somebody removed too early.

use serde_json::json;

use super::decide;
use super::tests::{app, at, pod, reference, run, stored, turned_back};
use crate::census::WithoutProxy;
use crate::check::fixture::{Mesh, SOURCE, TARGET, said};
use crate::effect::{Effect, PreviousEdit};
use crate::intent::OnFailure;
use crate::inventory::{Pair, discover_source};
use crate::labels;
use crate::machine::phase::Phase;
use crate::planning;
use crate::record::{RollbackCause, WaveStep};
use crate::wait::WaitReason;

const GONE: &str = "asm-1-26";

fn mesh() -> Mesh {
    let mut mesh = Mesh::before();
    mesh.namespace("shop", |shop| {
        shop.labels.insert(labels::REVISION.to_owned(), GONE.to_owned());
    });
    mesh
}

fn namespaces(mesh: &Mesh) -> Vec<String> {
    let pair = Pair { source: &mesh.source, target: &mesh.target };
    let plan = planning::make(&mesh.intent, &mesh.snapshot, pair).plan;
    plan.waves[0].namespaces.iter().map(ToString::to_string).collect()
}

fn told(mesh: &Mesh, check: &str) -> String {
    said(&mesh.preflight()).into_iter().find(|text| text.starts_with(check)).unwrap_or_default()
}

#[test]
fn they_are_reported_and_left_alone_unless_repair_is_asked_for() {
    let mut mesh = mesh();
    assert_eq!(namespaces(&mesh), ["pay"]);
    let text = told(&mesh, "NamespacesDropped");
    assert!(
        text.contains("Warning: shop: no webhook answers") && text.contains("droppedNamespaces: Repair"),
        "{text}"
    );
    mesh.intent.repairs_dropped = true;
    assert_eq!(namespaces(&mesh), ["pay", "shop"]);
    // On purpose without a sidecar.
    mesh.namespace("shop", |shop| {
        shop.labels.insert(labels::INJECTION.to_owned(), "disabled".to_owned());
    });
    assert_eq!(namespaces(&mesh), ["pay"]);
}

#[test]
fn the_label_is_set_and_a_rollback_does_not_drop_them_again() {
    let mut mesh = mesh();
    mesh.intent.repairs_dropped = true;
    mesh.plan.waves[0].max_concurrent = 1;
    app(&mut mesh, "shop", "web", |_| {});
    pod(&mut mesh, "shop", "web", SOURCE, |pod| pod.proxy = None);
    let first = decide(at(0), &mesh.intent, &stored(&mesh, Phase::Migrating, &json!({})), &mesh.snapshot);
    let relabel = first.effects.iter().find_map(|effect| match effect {
        Effect::Relabel(relabel) if relabel.namespace.as_str() == "shop" => Some(relabel),
        _ => None,
    });
    let relabel = relabel.unwrap();
    assert_eq!(relabel.revision.as_ref().unwrap().as_str(), TARGET);
    let PreviousEdit::Set(previous) = &relabel.previous else { panic!("{:?}", relabel.previous) };
    assert_eq!(previous.revision.as_deref(), Some(SOURCE));
    // Its pod without a sidecar is replaced like one with an old sidecar.
    for name in ["shop", "pay"] {
        mesh.namespace(name, |it| {
            it.labels.insert(labels::REVISION.to_owned(), TARGET.to_owned());
        });
    }
    let mut last = first;
    for second in [1, 60, 61] {
        last = decide(at(second), &mesh.intent, &last.record, &mesh.snapshot);
    }
    let Some(batch) = &run(&last).batch else { panic!("{:?}", last.view.blocked) };
    assert_eq!(batch.entries[0].workload.name, "web");
}

/// Everything named the revision that was removed: there is nothing to go back to, and that holds nothing up.
#[test]
fn a_mesh_whose_control_plane_was_removed_is_brought_over_without_a_way_back() {
    let mut mesh = Mesh::before();
    mesh.snapshot.webhooks.retain(|webhook| webhook.revision.as_ref() != Some(&mesh.source));
    mesh.snapshot.control_planes.remove(&mesh.source);
    assert!(discover_source(&mesh.intent, &mesh.snapshot).unwrap_err().contains("droppedNamespaces: Repair"));
    assert!(told(&mesh, "SourceIstiodReady").contains("Failed"));
    mesh.intent.repairs_dropped = true;
    assert_eq!(discover_source(&mesh.intent, &mesh.snapshot), Ok(Some(SOURCE.into())));
    assert!(told(&mesh, "SourceIstiodReady").contains("Warning: the control plane of asm-1-27 is gone"));
    assert_eq!(namespaces(&mesh), ["pay", "shop"]);
    mesh.intent.on_failure = OnFailure::Automatic;
    mesh.intent.rollback_requested = true;
    let decision = decide(at(0), &mesh.intent, &stored(&mesh, Phase::Migrating, &json!({})), &mesh.snapshot);
    assert_eq!(run(&decision).rollback, None);
    assert_eq!(decision.effects.len(), 2, "both labels are set");
    assert!(
        decision.view.message.contains("rollback.requested changes nothing"),
        "{}",
        decision.view.message
    );
    // Asked for before anything was written, it is no upgrade that is wanted.
    mesh.census(|census| census.taken_at = Some(at(0)));
    let before = decide(
        at(0),
        &mesh.intent,
        &stored(&mesh, Phase::Planned, &json!({"startedAt": null})),
        &mesh.snapshot,
    );
    assert!(before.effects.is_empty() && run(&before).rollback.is_none(), "{:?}", before.effects);
    let told = &before.view.blocked[0].because;
    assert!(told.contains("nothing to go back to") && told.contains("Set it to false"), "{told}");
}

/// Somebody removes the control plane of the source in the waves: told once, and again if it came back in between.
#[test]
fn a_source_that_is_removed_in_the_waves_is_told() {
    let (present, mut gone) = (Mesh::before(), Mesh::before());
    gone.snapshot.webhooks.retain(|webhook| webhook.revision.as_ref() != Some(&present.source));
    gone.snapshot.control_planes.remove(&present.source);
    let mut record = stored(&present, Phase::Migrating, &json!({}));
    for (mesh, events) in [(&present, 0), (&gone, 1), (&gone, 0), (&present, 0), (&gone, 1)] {
        let decision = decide(at(0), &mesh.intent, &record, &mesh.snapshot);
        let told: Vec<_> = decision.events.iter().filter(|it| it.reason == "CompletedBySomebody").collect();
        assert_eq!(told.len(), events, "{:?}", decision.events);
        assert!(told.iter().all(|event| event.warning && event.note.contains("get no sidecar until")));
        let message = &decision.view.message;
        assert_eq!(
            message.contains("asm-1-27 is gone"),
            !mesh.snapshot.control_planes.contains_key(&gone.source),
            "{message}"
        );
        record = decision.record;
    }
    // Where what dropped out is repaired, it was gone from the beginning.
    gone.intent.repairs_dropped = true;
    let repair = decide(at(0), &gone.intent, &record, &gone.snapshot);
    assert!(repair.events.iter().all(|event| event.reason != "CompletedBySomebody"), "{:?}", repair.events);
}

/// Somebody removes the control plane of the target in the waves. One that comes back, as when a tool replaces it, changes nothing.
#[test]
fn a_target_that_stays_away_turns_the_run_back() {
    let (present, mut gone) = (Mesh::before(), Mesh::before());
    gone.snapshot.webhooks.retain(|webhook| webhook.revision.as_ref() != Some(&present.target));
    gone.snapshot.control_planes.remove(&present.target);
    for phase in [Phase::Migrating, Phase::Soaking, Phase::Completing] {
        let mut record = stored(&present, phase, &json!({}));
        for (second, mesh) in [(0, &gone), (59, &gone), (60, &present), (70, &gone), (129, &gone)] {
            let decision = decide(at(second), &mesh.intent, &record, &mesh.snapshot);
            assert_eq!(run(&decision).rollback, None, "{phase} {second}");
            let told = decision.view.blocked.iter().find(|wait| wait.reason == WaitReason::TargetRemoved);
            assert_eq!(told.is_some(), std::ptr::eq(mesh, &raw const gone), "{phase} {second}");
            record = decision.record;
        }
        let back = decide(at(130), &gone.intent, &record, &gone.snapshot);
        let cause = run(&back).rollback.as_ref().map(|it| it.cause);
        assert_eq!(cause, Some(RollbackCause::TargetRemoved), "{phase}");
    }
    // There is nowhere to go.
    gone.snapshot.webhooks.clear();
    gone.snapshot.control_planes.clear();
    let mut record = stored(&present, Phase::Migrating, &json!({}));
    for second in [0, 100] {
        let stalled = decide(at(second), &gone.intent, &record, &gone.snapshot);
        assert_eq!(run(&stalled).rollback, None);
        assert!(stalled.view.message.contains("install it again"), "{}", stalled.view.message);
        record = stalled.record;
    }
}

/// Pods that were made while somebody had taken the label away stay without a sidecar: found by the last count, and replaced.
#[test]
fn pods_that_lost_their_sidecar_after_their_wave_are_found_and_replaced() {
    let web = |mesh: &mut Mesh| {
        app(mesh, "shop", "web", |_| {});
        mesh.census(|census| {
            census.taken_at = Some(at(100));
            let found = WithoutProxy { pods: 2, newest: Some(at(60)) };
            census.without_proxy.insert(reference("shop", "web"), found);
        });
    };
    let mut mesh = Mesh::after();
    web(&mut mesh);
    let text = said(&mesh.completion()).into_iter().find(|text| text.starts_with("SidecarsPresent"));
    let words =
        "Failed: 2 pods have no sidecar. Restart Deployment shop/web: kubectl rollout restart deployment";
    assert!(text.as_ref().is_some_and(|text| text.contains(words)), "{text:?}");
    let completing = json!({"soakSince": at(50), "settledSince": at(50), "removalDue": at(60)});
    let late = decide(at(101), &mesh.intent, &stored(&mesh, Phase::Completing, &completing), &mesh.snapshot);
    assert_eq!((run(&late).phase, run(&late).removal_due), (Phase::Migrating, None));
    assert_eq!(late.record.plan.as_ref().unwrap().waves.last().unwrap().namespaces, ["shop".into()]);

    let mut back = Mesh::before();
    web(&mut back);
    let proven = json!({"step": "Proven", "soakSince": at(50), "rollback": turned_back()});
    let record = stored(&back, Phase::RollingBack, &proven);
    let round = decide(at(101), &back.intent, &record, &back.snapshot);
    assert_eq!((run(&round).phase, run(&round).step), (Phase::RollingBack, WaveStep::Restart));
    // Not for ever: there is one such round.
    let mut proven = proven;
    proven["rollback"]["lookedForDropped"] = true.into();
    let over = decide(at(101), &back.intent, &stored(&back, Phase::RollingBack, &proven), &back.snapshot);
    assert_eq!(run(&over).phase, Phase::RolledBack);
    // What had none before the run is not the run's.
    back.census(|census| {
        census.without_proxy.get_mut(&reference("shop", "web")).unwrap().newest = Some(at(-100_000));
    });
    let theirs = decide(at(101), &back.intent, &record, &back.snapshot);
    assert_eq!(run(&theirs).phase, Phase::RolledBack);
}
