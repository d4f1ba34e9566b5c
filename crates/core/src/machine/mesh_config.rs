//! The shared mesh configuration of the AKS add-on: copied for the target before its control plane is used, and removed after the
//! control plane that it was for.

use crate::decision::About;
use crate::effect::{Effect, MeshConfigChange, MeshConfigEdit};
use crate::gate;
use crate::intent::RetiredMeshConfig;
use crate::machine::pass::Pass;
use crate::machine::phase::Phase;
use crate::mesh_config::{CopyMark, SharedMesh, map_of};

/// Whether the target has all that the source has of it. Copies it where the target has none; one that is there stays as it is.
pub fn copied(pass: &mut Pass<'_>) -> bool {
    let (source, target) = pass.revisions();
    let maps = &pass.snapshot.shared_mesh;
    if !pass.intent.is_addon() || source == target || maps.contains_key(&target) {
        return true;
    }
    let Some(text) = maps.get(&source).and_then(|map| map.text.clone()) else { return true };
    let because = format!("the mesh configuration that users gave {source} is to hold for {target} too");
    let mark = CopyMark::new(source, target.clone(), &text);
    let change = MeshConfigChange {
        map: map_of(&pass.intent.istio_namespace, &target),
        edit: MeshConfigEdit::Create { text, mark },
        stamp: format!("{}.mesh-config", pass.run.stamp(&pass.intent.uid, 1)),
        because,
    };
    ask(pass, change, "MeshConfigCopied");
    false
}

/// Removes what the control plane that is gone leaves behind, once it is gone, and looks at it once only: what somebody puts there
/// later is not ours.
pub fn tidied(pass: &mut Pass<'_>) {
    let (source, target) = pass.revisions();
    if !pass.intent.is_addon() || source == target || pass.run.mesh_config_settled {
        return;
    }
    let retired = if pass.run.phase == Phase::Succeeded { source } else { target };
    let busy = pass.snapshot.other_upgrades.iter().any(|other| other.active);
    if busy || !gate::is_gone(pass.snapshot, &retired) {
        return;
    }
    let snapshot = pass.snapshot;
    let map = snapshot.shared_mesh.get(&retired);
    if let Some(map) = map.filter(|map| is_to_go(pass.intent.retired_mesh_config, map)) {
        let change = MeshConfigChange {
            map: map_of(&pass.intent.istio_namespace, &retired),
            edit: MeshConfigEdit::Delete {
                uid: map.uid.clone(),
                resource_version: map.resource_version.clone(),
            },
            stamp: format!("{}.mesh-config-removal", pass.run.stamp(&pass.intent.uid, 1)),
            because: format!("the control plane of {retired}, which it was for, is gone"),
        };
        ask(pass, change, "MeshConfigRemoved");
        return;
    }
    pass.run.mesh_config_settled = true;
    if map.is_some() {
        let map = map_of(&pass.intent.istio_namespace, &retired);
        let note = format!(
            "{map} stays, though the control plane of {retired} is gone: kubectl delete configmap {} -n {}",
            map.name, map.namespace
        );
        pass.event(false, "MeshConfigKept", Some(About::ConfigMap(map)), note);
    }
}

fn is_to_go(wanted: RetiredMeshConfig, map: &SharedMesh) -> bool {
    match wanted {
        RetiredMeshConfig::RemoveCopy => map.is_unchanged_copy(),
        RetiredMeshConfig::Remove => true,
        RetiredMeshConfig::Keep => false,
    }
}

fn ask(pass: &mut Pass<'_>, change: MeshConfigChange, event: &'static str) {
    let about = About::ConfigMap(change.map.clone());
    if !pass.note_refusal(about.clone(), &change.stamp) {
        let note = format!("{}: {}", change.map, change.because);
        pass.effect_event(false, event, Some(about), note);
    }
    pass.effect(Effect::MeshConfig(change));
}
