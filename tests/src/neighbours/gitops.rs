//! A GitOps tool: it puts a namespace's label back to what Git says, unless an ignore rule keeps it away.

use jiff::Timestamp;
use meshupgrade_core::ids::NamespaceName;
use meshupgrade_core::labels;
use meshupgrade_core::observed::{FieldManager, Namespace};

use crate::rng::Rng;
use crate::world::{Git, Labelled, World};

/// Syncs some namespaces.
pub fn step(world: &mut World, rng: &mut Rng) {
    let all: Vec<NamespaceName> = world.git.keys().cloned().collect();
    for namespace in rng.part(all) {
        sync(world, &namespace);
    }
}

/// One sync of one namespace. Without a difference nothing is written, as Argo CD's automatic sync does.
pub fn sync(world: &mut World, name: &NamespaceName) {
    let (Some(git), Some(namespace)) = (world.git.get(name).cloned(), world.namespaces.get(name)) else {
        return;
    };
    let live = namespace.labels.get(labels::REVISION).cloned();
    if git.ignores || live.as_deref() == Some(git.revision.as_str()) {
        return;
    }
    world.note(format!("{}: puts the label of {name} back to {}", git.manager, git.revision));
    world.set_label(name, Some(git.revision.as_str()), &git.manager, true);
}

/// A sync that somebody asked for: it writes even where nothing differs.
pub fn full_sync(world: &mut World, name: &NamespaceName) {
    let Some(git) = world.git.get(name).cloned() else {
        return;
    };
    if !git.ignores {
        world.set_label(name, Some(git.revision.as_str()), &git.manager, true);
        return;
    }
    let now = world.now;
    world.edit_namespace(name, |namespace| {
        writes(namespace, &git.manager, true, now);
    });
}

/// A field manager writes a namespace: its entry of `managedFields` gets a new time.
pub fn writes<'n>(
    namespace: &'n mut Namespace,
    name: &str,
    applies: bool,
    now: Timestamp,
) -> &'n mut FieldManager {
    let managers = &mut namespace.managers;
    let known = managers.iter().position(|manager| manager.name == name && manager.applies == applies);
    let index = known.unwrap_or(managers.len());
    if known.is_none() {
        managers.push(FieldManager { name: name.to_owned(), applies, ..FieldManager::default() });
    }
    let manager = &mut managers[index];
    manager.wrote_at = Some(now);
    manager
}

/// A field manager writes the revision label: it owns it from now on, and nobody else does.
pub fn takes_label(namespace: &mut Namespace, name: &str, applies: bool, now: Timestamp) {
    for manager in &mut namespace.managers {
        manager.owns_revision = false;
    }
    writes(namespace, name, applies, now).owns_revision = true;
}

/// Git changes: the next sync writes this revision.
pub fn commit(world: &mut World, name: &NamespaceName, revision: &str) {
    if let Some(Git { revision: asked, .. }) = world.git.get_mut(name) {
        *asked = revision.into();
    }
}

impl World {
    /// Somebody who is not the operator sets or removes `istio.io/rev`.
    pub fn set_label(&mut self, name: &NamespaceName, revision: Option<&str>, manager: &str, applies: bool) {
        let now = self.now;
        let before = self.labels_of(name);
        self.edit_namespace(name, |namespace| {
            match revision {
                Some(revision) => namespace.labels.insert(labels::REVISION.to_owned(), revision.to_owned()),
                None => namespace.labels.remove(labels::REVISION),
            };
            takes_label(namespace, manager, applies, now);
        });
        if self.labels_of(name) != before {
            self.labelled.insert(name.clone(), Labelled { since: now, by_operator: false });
        }
    }
}
