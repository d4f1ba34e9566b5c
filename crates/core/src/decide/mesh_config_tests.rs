//! The shared mesh configuration of the AKS add-on: copied before the start, removed after the end.

use std::sync::Arc;

use serde_json::{Value, json};

use super::tests::{at, run, stored, turned_back};
use super::{Decision, decide};
use crate::aks::ISTIO_NAMESPACE;
use crate::check::fixture::{Mesh, SOURCE, TARGET};
use crate::decision::About;
use crate::effect::{Effect, MeshConfigChange, MeshConfigEdit};
use crate::ids::Revision;
use crate::intent::RetiredMeshConfig;
use crate::machine::phase::Phase;
use crate::mesh_config::{CopyMark, SharedMesh, map_of};
use crate::observed::OtherUpgrade;
use crate::wait::WaitReason;

const TEXT: &str = "accessLogFile: /dev/stdout\n";

/// The add-on, whose revisions somebody else starts and removes.
fn addon(mut mesh: Mesh) -> Mesh {
    mesh.intent.istio_namespace = ISTIO_NAMESPACE.into();
    mesh.census(|census| census.taken_at = Some(at(0)));
    mesh
}

fn shared(mesh: &mut Mesh, revision: &str, text: &str, mark: Option<CopyMark>) {
    let map = SharedMesh {
        revision: revision.into(),
        uid: "map".into(),
        resource_version: "7".into(),
        text: Some(text.to_owned()),
        mark,
    };
    mesh.snapshot.shared_mesh.insert(revision.into(), Arc::new(map));
}

/// The mark of a copy that was made for this revision.
fn made_for(revision: &str) -> CopyMark {
    CopyMark::new("asm-1-26".into(), revision.into(), TEXT)
}

fn without(mesh: &mut Mesh, revision: &str) {
    mesh.snapshot.control_planes.remove(&Revision::from(revision));
    mesh.snapshot.webhooks.retain(|webhook| webhook.revision != Some(revision.into()));
}

fn decided(mesh: &Mesh, phase: Phase, more: &Value) -> Decision {
    decide(at(10), &mesh.intent, &stored(mesh, phase, more), &mesh.snapshot)
}

fn change(decision: &Decision) -> Option<&MeshConfigChange> {
    match &decision.effects[..] {
        [] => None,
        [Effect::MeshConfig(change)] => Some(change),
        others => panic!("{others:?}"),
    }
}

fn name(revision: &str) -> String {
    map_of(&ISTIO_NAMESPACE.into(), &revision.into()).name
}

#[test]
fn the_copy_comes_before_anything_moves() {
    let mut mesh = addon(Mesh::before());
    shared(&mut mesh, SOURCE, TEXT, None);
    let mut record = stored(&mesh, Phase::StartingControlPlane, &json!({}));
    record.run.as_mut().unwrap().started_at = None;
    let frozen = decide(at(10), &mesh.intent, &record, &mesh.snapshot);
    assert!(frozen.effects.is_empty() && run(&frozen).started_at.is_some(), "{:?}", frozen.view.blocked);
    assert_eq!(run(&frozen).phase, Phase::StartingControlPlane);
    let copies = decide(at(10), &mesh.intent, &frozen.record, &mesh.snapshot);
    let change = change(&copies).unwrap();
    assert_eq!(change.map.name, name(TARGET));
    let mark = CopyMark::new(SOURCE.into(), TARGET.into(), TEXT);
    assert_eq!(change.edit, MeshConfigEdit::Create { text: TEXT.to_owned(), mark: mark.clone() });
    shared(&mut mesh, TARGET, TEXT, Some(mark));
    let goes_on = decide(at(10), &mesh.intent, &frozen.record, &mesh.snapshot);
    assert_eq!(run(&goes_on).phase, Phase::Migrating, "{:?}", goes_on.view.blocked);
}

#[test]
fn nothing_is_copied_where_there_is_nothing_or_the_target_has_its_own() {
    let mut mesh = addon(Mesh::before());
    assert_eq!(run(&decided(&mesh, Phase::StartingControlPlane, &json!({}))).phase, Phase::Migrating);
    shared(&mut mesh, SOURCE, TEXT, None);
    shared(&mut mesh, TARGET, "own: true\n", None);
    assert_eq!(run(&decided(&mesh, Phase::StartingControlPlane, &json!({}))).phase, Phase::Migrating);
    // An Istio of one's own has no such maps, whatever lies there.
    mesh.snapshot.shared_mesh.remove(&Revision::from(TARGET));
    mesh.intent.istio_namespace = "istio-system".into();
    assert_eq!(run(&decided(&mesh, Phase::StartingControlPlane, &json!({}))).phase, Phase::Migrating);
}

#[test]
fn a_copy_that_is_refused_holds_the_run() {
    let mut mesh = addon(Mesh::before());
    shared(&mut mesh, SOURCE, TEXT, None);
    let map = map_of(&ISTIO_NAMESPACE.into(), &TARGET.into());
    let key = (About::ConfigMap(map), "u.1.forward.1.mesh-config".to_owned());
    mesh.snapshot.refused.insert(key, "forbidden".into());
    let waits = decided(&mesh, Phase::StartingControlPlane, &json!({}));
    assert_eq!(waits.view.blocked.first().map(|wait| wait.reason), Some(WaitReason::WriteRefused));
    assert!(change(&waits).is_some(), "the shell spaces the attempts");
}

#[test]
fn our_unchanged_copy_goes_after_its_control_plane() {
    let mut mesh = addon(Mesh::after());
    shared(&mut mesh, SOURCE, TEXT, Some(made_for(SOURCE)));
    shared(&mut mesh, TARGET, TEXT, Some(made_for(TARGET)));
    assert_eq!(change(&decided(&mesh, Phase::Succeeded, &json!({}))), None, "the source is kept");
    without(&mut mesh, SOURCE);
    let removes = decided(&mesh, Phase::Succeeded, &json!({}));
    let removal = change(&removes).unwrap();
    let edit = MeshConfigEdit::Delete { uid: "map".into(), resource_version: "7".into() };
    assert_eq!((removal.map.name.clone(), &removal.edit), (name(SOURCE), &edit));
    mesh.snapshot.shared_mesh.remove(&Revision::from(SOURCE));
    let over = decided(&mesh, Phase::Succeeded, &json!({}));
    assert!(run(&over).mesh_config_settled && over.effects.is_empty());
}

#[test]
fn in_a_rollback_the_one_of_the_target_goes() {
    let mut mesh = addon(Mesh::before());
    shared(&mut mesh, SOURCE, TEXT, Some(made_for(SOURCE)));
    shared(&mut mesh, TARGET, TEXT, Some(made_for(TARGET)));
    let back = json!({"rollback": turned_back()});
    assert_eq!(change(&decided(&mesh, Phase::RolledBack, &back)), None);
    without(&mut mesh, TARGET);
    let removes = decided(&mesh, Phase::RolledBack, &back);
    assert_eq!(change(&removes).map(|change| change.map.name.clone()), Some(name(TARGET)));
    mesh.snapshot.other_upgrades =
        vec![OtherUpgrade { name: "next".into(), active: true, goes_first: false }];
    assert_eq!(change(&decided(&mesh, Phase::RolledBack, &back)), None, "it may need it");
}

#[test]
fn what_is_not_our_copy_stays_unless_asked_for() {
    let mut mesh = addon(Mesh::after());
    without(&mut mesh, SOURCE);
    for (mark, wanted, goes) in [
        (None, RetiredMeshConfig::RemoveCopy, false),
        (Some(CopyMark { digest: "other".into(), ..made_for(SOURCE) }), RetiredMeshConfig::RemoveCopy, false),
        (None, RetiredMeshConfig::Remove, true),
        (Some(made_for(SOURCE)), RetiredMeshConfig::Keep, false),
    ] {
        shared(&mut mesh, SOURCE, TEXT, mark.clone());
        mesh.intent.retired_mesh_config = wanted;
        let decision = decided(&mesh, Phase::Succeeded, &json!({}));
        assert_eq!(change(&decision).is_some(), goes, "{mark:?} {wanted:?}");
        assert_eq!(run(&decision).mesh_config_settled, !goes);
        let told = decision.events.iter().any(|event| event.reason == "MeshConfigKept");
        assert_eq!(told, !goes, "{:?}", decision.events);
    }
    // What somebody puts there later is not looked at.
    mesh.intent.retired_mesh_config = RetiredMeshConfig::Remove;
    assert_eq!(change(&decided(&mesh, Phase::Succeeded, &json!({"meshConfigSettled": true}))), None);
}
