//! The operator's writes, with the preconditions that the API server checks.

use std::sync::Arc;

use meshupgrade_core::decision::View;
use meshupgrade_core::effect::{MoveTag, MoveTagService, PreviousEdit, Relabel, Restart};
use meshupgrade_core::labels;
use meshupgrade_core::observed::Namespace;
use meshupgrade_core::record::Record;

use super::history::{Happening, Seen};
use super::views::Kind;
use super::{Labelled, TagService, World};
use crate::neighbours::gitops::takes_label;

/// Why the API server refused a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The object is gone.
    NotFound,
    /// A precondition does not hold.
    Conflict,
}

impl World {
    /// A JSON merge patch on a namespace.
    pub fn relabel(&mut self, effect: &Relabel, seen: &Arc<Seen>) -> Result<(), Refusal> {
        let namespace = self.namespaces.get(&effect.namespace).ok_or(Refusal::NotFound)?;
        if namespace.resource_version != effect.resource_version {
            return Err(Refusal::Conflict);
        }
        let now = self.now;
        let edit = effect.clone();
        self.edit_namespace(&effect.namespace, |namespace| {
            set(&mut namespace.labels, labels::REVISION, edit.revision.map(|revision| revision.0));
            set(&mut namespace.labels, labels::INJECTION, edit.injection);
            match edit.previous {
                PreviousEdit::Set(previous) => namespace.previous = Some(previous),
                PreviousEdit::Leave => {}
                PreviousEdit::Remove => namespace.previous = None,
            }
            namespace.relabelled_by = Some(edit.stamp);
            takes_label(namespace, labels::FIELD_MANAGER, false, now);
        });
        self.labelled.insert(effect.namespace.clone(), Labelled { since: now, by_operator: true });
        self.history.push(Happening::Relabelled { effect: effect.clone(), seen: Arc::clone(seen) });
        Ok(())
    }

    /// A patch on the webhook of a revision tag.
    pub fn move_tag(&mut self, effect: &MoveTag, seen: &Arc<Seen>) -> Result<(), Refusal> {
        let now = self.now;
        let version = self.version + 1;
        let tag = self.tags.get_mut(&effect.tag).ok_or(Refusal::NotFound)?;
        if tag.version.to_string() != effect.resource_version {
            return Err(Refusal::Conflict);
        }
        tag.revision = effect.revision.clone();
        (tag.version, tag.moved_at) = (version, now);
        tag.relabelled_by = Some(effect.stamp.clone());
        match &effect.previous {
            PreviousEdit::Set(previous) => tag.previous = Some(previous.clone()),
            PreviousEdit::Leave => {}
            PreviousEdit::Remove => tag.previous = None,
        }
        self.touch(Kind::Planes);
        self.tag_moved(&effect.tag, true);
        self.history.push(Happening::TagMoved { effect: effect.clone(), seen: Arc::clone(seen) });
        Ok(())
    }

    /// A patch on the Service of a revision tag.
    pub fn move_tag_service(&mut self, effect: &MoveTagService, seen: &Arc<Seen>) -> Result<(), Refusal> {
        let version = self.version + 1;
        let tag = self.tags.get_mut(&effect.tag).ok_or(Refusal::NotFound)?;
        if tag.service.version.to_string() != effect.resource_version {
            return Err(Refusal::Conflict);
        }
        tag.service = TagService {
            revision: effect.revision.clone(),
            version,
            relabelled_by: Some(effect.stamp.clone()),
        };
        self.touch(Kind::Planes);
        self.history.push(Happening::TagServiceMoved { effect: effect.clone(), seen: Arc::clone(seen) });
        Ok(())
    }

    /// New pods of the namespaces that follow a tag go elsewhere from now on.
    pub(super) fn tag_moved(&mut self, tag: &str, by_operator: bool) {
        let follows =
            |namespace: &Namespace| namespace.labels.get(labels::REVISION).is_some_and(|value| value == tag);
        for (name, _) in self.namespaces.iter().filter(|(_, namespace)| follows(namespace)) {
            self.labelled.insert(name.clone(), Labelled { since: self.now, by_operator });
        }
    }

    /// A server-side apply of the restart annotation; answers with the generation.
    pub fn restart(&mut self, effect: &Restart, seen: &Arc<Seen>) -> Result<i64, Refusal> {
        let app = self.apps.get(&effect.workload).ok_or(Refusal::NotFound)?;
        if app.view.uid != effect.uid {
            return Err(Refusal::Conflict);
        }
        let changed = app.view.template.restart.as_ref() != Some(&effect.stamp);
        if changed {
            let (stamp, now) = (effect.stamp.clone(), self.now);
            self.edit_spec(&effect.workload, |app| {
                Arc::make_mut(&mut app.view).template.restart = Some(stamp);
                app.progress = now;
            });
        }
        let effect = effect.clone();
        let generation = self.apps.get(&effect.workload).map_or(0, |app| app.view.generation);
        self.history.push(Happening::Restarted { effect, changed, seen: Arc::clone(seen) });
        Ok(generation)
    }

    /// A PUT of `status` with the object's uid and resource version.
    pub fn publish(
        &mut self,
        resource_version: u64,
        record: &Record,
        view: &View,
        seen: &Arc<Seen>,
    ) -> Result<(), Refusal> {
        if self.upgrade.resource_version != resource_version {
            return Err(Refusal::Conflict);
        }
        let record = Arc::new(record.clone());
        let view = Arc::new(view.clone());
        let before = std::mem::replace(&mut self.upgrade.record, Arc::clone(&record));
        self.upgrade.view = Arc::clone(&view);
        self.upgrade.resource_version = self.touch(Kind::Upgrade);
        self.history.push(Happening::Published {
            at: self.now,
            before,
            record,
            view,
            seen: Arc::clone(seen),
        });
        Ok(())
    }
}

fn set(labels: &mut std::collections::BTreeMap<String, String>, key: &str, value: Option<String>) {
    match value {
        Some(value) => labels.insert(key.to_owned(), value),
        None => labels.remove(key),
    };
}
