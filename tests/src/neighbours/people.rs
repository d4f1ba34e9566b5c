//! People: application teams, who do what they like, and platform people, who drive the upgrade.

use meshupgrade_core::ids::{NamespaceName, WorkloadRef};
use meshupgrade_core::labels;

use super::kubelet;
use crate::action::{Action, act};
use crate::rng::Rng;
use crate::world::World;
use crate::world::build::{NEW, OLD, default_rolling, deployment};

/// Application teams redeploy, scale, create and delete.
pub fn teams(world: &mut World, rng: &mut Rng) {
    if rng.is_ordered() {
        return;
    }
    let apps: Vec<WorkloadRef> = world.apps.keys().cloned().collect();
    let meshed: Vec<NamespaceName> = world
        .namespaces
        .values()
        .filter(|namespace| namespace.labels.contains_key(labels::REVISION))
        .map(|namespace| namespace.name.clone())
        .collect();
    let serial = world.version;
    let action = match rng.below(10) {
        0..=3 => rng.pick(&apps).cloned().map(Action::Redeploy),
        4 => rng.pick(&apps).cloned().map([Action::Delete, Action::Recreate][rng.index(2)]),
        5 | 6 => rng.pick(&meshed).map(|namespace| {
            Action::Create(deployment(namespace.as_str(), &format!("late-{serial}")), 2, default_rolling())
        }),
        7 => {
            Some(Action::CreateNamespace(format!("late-{serial}"), Some([OLD, NEW][rng.index(2)].to_owned())))
        }
        8 if meshed.len() > 2 => rng.pick(&meshed).cloned().map(Action::DeleteNamespace),
        _ => rng.pick(&apps).cloned().map(|app| Action::Scale(app, 2)),
    };
    if let Some(action) = action {
        act(world, action);
    }
}

/// Platform people do something from the menu of the case.
pub fn platform(world: &mut World, rng: &mut Rng) {
    if rng.is_ordered() {
        return;
    }
    let menu = world.menu.clone();
    if let Some(action) = rng.pick(&menu).cloned() {
        act(world, action);
    }
}

/// The pods of a workload that are not ready are deleted by hand, as the StatefulSet documentation advises.
pub fn delete_unready(world: &mut World, reference: &WorkloadRef) {
    let ids: Vec<u64> =
        world.pods_of(reference).iter().filter(|(_, pod)| !pod.view.ready).map(|(id, _)| *id).collect();
    for id in ids {
        world.delete_pod(id, 0);
    }
    kubelet::step(world, &mut Rng::ordered());
}
