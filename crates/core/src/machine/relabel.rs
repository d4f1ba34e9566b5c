//! The labels of the namespaces of a run: what they should be, and whether we may write them. We write each namespace
//! once per run, direction and retry, and never fight.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::check::revision_owner;
use crate::decision::About;
use crate::effect::{Effect, PreviousEdit, Relabel};
use crate::gate;
use crate::ids::{NamespaceName, Revision};
use crate::injection::{Injection, is_relabelled, namespace_injection};
use crate::intent::InjectionMode;
use crate::inventory::{Standing, is_dropped, moved_by, standing};
use crate::labels;
use crate::machine::git;
use crate::machine::pass::{Pass, about_namespace, pair};
use crate::machine::permission::{Permission, permission};
use crate::machine::tags;
use crate::observed::{Labels, Namespace, PreviousLabels, WebhookConfiguration};
use crate::plan::{PlannedWave, WaveKind};
use crate::record::{Direction, Rollback};
use crate::tags::{find, followed, leads_to};
use crate::wait::WaitReason;

/// What is to be done about one namespace.
enum Label {
    /// It says what it should.
    InPlace,
    /// One write is due.
    Write(Box<Relabel>),
    /// Somebody else changed it after our write.
    Reverted,
    /// Somebody else is to change it.
    NotMoved,
    /// It is not ours to move: it is gone, or went elsewhere before we wrote.
    NotOurs,
}

/// Where the labels of a run stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standings {
    /// A write of ours is due or on its way.
    pub awaited: bool,
    /// Namespaces whose label somebody changed after our write, or has to change for us, or whose write is refused: a person must act.
    pub astray: BTreeSet<NamespaceName>,
    /// The same is true of a revision tag, whose namespaces are among these.
    pub tag_astray: bool,
}

impl Standings {
    /// Whether all of them say what they should.
    pub fn in_place(&self) -> bool {
        !self.awaited && self.astray.is_empty() && !self.tag_astray
    }
}

/// Brings the labels of the waves up to `last` in place, as far as it is allowed. `write` is the wave whose labels are
/// due; those of the others were written before and are only watched.
pub fn labels(pass: &mut Pass<'_>, last: u32, write: Option<u32>) -> Standings {
    let mut standings = Standings::default();
    tags::bring(pass, last, write, &mut standings);
    for (index, namespace) in namespaces_up_to(pass, last) {
        let may_write = write.is_some_and(|wave| index == wave || pass.run.direction() == Direction::Back);
        match label_of(pass, &namespace, last, may_write) {
            Label::InPlace => {
                pass.run.relabel_again.remove(&namespace);
            }
            Label::NotOurs => {}
            Label::Write(_) if !answers(pass) => standings.awaited = true,
            Label::Write(relabel) => {
                if pass.note_refusal(About::Namespace(namespace.clone()), &relabel.stamp) {
                    standings.astray.insert(namespace);
                } else {
                    standings.awaited = true;
                    announce(pass, &relabel);
                }
                git::remember(pass, &relabel.namespace);
                pass.effect(Effect::Relabel(*relabel));
            }
            Label::Reverted => {
                reverted(pass, &namespace);
                standings.astray.insert(namespace);
            }
            Label::NotMoved => {
                not_moved(pass, &namespace);
                standings.astray.insert(namespace);
            }
        }
    }
    standings
}

/// Whether the control plane that a label would lead to answers. Otherwise that is noted: new pods would get no sidecar.
pub fn answers(pass: &mut Pass<'_>) -> bool {
    let destination = pass.run.destination().clone();
    match gate::control_plane(pass.snapshot, &pass.intent.istio_namespace, &destination) {
        None => true,
        Some(wait) => {
            pass.wait(wait.reason, wait.about, wait.because);
            false
        }
    }
}

/// Whether all labels of the waves up to `last` are in place. See [`labels()`].
pub fn labels_in_place(pass: &mut Pass<'_>, last: u32, write: Option<u32>) -> bool {
    // Where nothing is moved, no label is anybody's business, and a namespace may follow a tag.
    pass.run.source == pass.run.target || labels(pass, last, write).in_place()
}

/// Since when the labels of a wave have been in place, as far as can be told: the last write to one of its namespaces, by
/// us or by anybody who may have set the label once more; else now.
pub fn in_place_since(pass: &Pass<'_>, last: u32) -> Timestamp {
    // `managedFields` times are whole seconds, rounded down: one more keeps the settle time whole.
    let written = namespaces_up_to(pass, last)
        .into_iter()
        .filter_map(|(_, name)| injection_written(pass, &name))
        .max()
        .and_then(|at| at.checked_add(SignedDuration::from_secs(1)).ok());
    written.map_or(pass.now, |at| at.min(pass.now))
}

/// When what leads a namespace to a revision was last written, by anybody: its label, or the tag that it follows. Whole seconds,
/// rounded down.
pub fn injection_written(pass: &Pass<'_>, name: &NamespaceName) -> Option<Timestamp> {
    let namespace = pass.snapshot.namespaces.get(name)?;
    let tag = tags_of(pass).next().and_then(|_| followed(pass.snapshot, namespace));
    let webhook = tag.as_deref().and_then(|tag| find(pass.snapshot, tag));
    let moved = webhook.and_then(WebhookConfiguration::revision_written);
    [namespace.injection_labels_written(), moved].into_iter().flatten().max()
}

/// The revision tags of the plan.
fn tags_of<'p>(pass: &'p Pass<'_>) -> impl Iterator<Item = &'p str> {
    pass.plan.waves.iter().filter_map(|wave| wave.tag.as_deref())
}

/// The waves that the labels up to `last` belong to.
pub fn waves_up_to<'p>(pass: &'p Pass<'_>, last: u32) -> impl Iterator<Item = (u32, &'p PlannedWave)> {
    let first = pass.run.rollback.as_ref().map_or(0, Rollback::to_wave);
    (0u32..).zip(&pass.plan.waves).filter(move |(index, _)| (first..=last).contains(index))
}

/// The namespaces of the waves up to `last`, each once: with the last of its waves, if it came to the source again.
fn namespaces_up_to(pass: &Pass<'_>, last: u32) -> Vec<(u32, NamespaceName)> {
    let mut all: Vec<(u32, NamespaceName)> = waves_up_to(pass, last)
        .filter(|(_, wave)| wave.kind != WaveKind::Gateways)
        .flat_map(|(index, wave)| wave.namespaces.iter().map(move |name| (index, name.clone())))
        .collect();
    let mut seen = BTreeSet::new();
    all.reverse();
    all.retain(|(_, name)| seen.insert(name.clone()));
    all.reverse();
    all
}

fn label_of(pass: &Pass<'_>, name: &NamespaceName, last: u32, may_write: bool) -> Label {
    let Some(namespace) = pass.snapshot.namespaces.get(name).filter(|namespace| !namespace.terminating)
    else {
        return Label::NotOurs;
    };
    if let Some(tag) = planned_tag(pass, namespace) {
        // A tag that is due is looked at by itself. One of a later wave is not where this namespace is to be now.
        let is_due = waves_up_to(pass, last).any(|(_, wave)| wave.tag.as_ref() == Some(&tag));
        let in_place = is_due || leads_to(pass.snapshot, namespace, pass.run.destination());
        return if in_place { Label::InPlace } else { Label::NotMoved };
    }
    if pass.plan.injection != InjectionMode::NamespaceLabel {
        return if leads_to(pass.snapshot, namespace, pass.run.destination()) {
            Label::InPlace
        } else {
            Label::NotMoved
        };
    }
    match pass.run.direction() {
        Direction::Forward => forward(pass, namespace, may_write),
        Direction::Back => back(pass, namespace, may_write),
    }
}

/// The tag that a namespace follows, if the plan has a wave for it.
fn planned_tag(pass: &Pass<'_>, namespace: &Namespace) -> Option<String> {
    // Most plans have none.
    tags_of(pass).next()?;
    followed(pass.snapshot, namespace).filter(|tag| tags_of(pass).any(|moved| moved == tag))
}

/// Notes that a label which is not ours to write leads elsewhere.
fn not_moved(pass: &mut Pass<'_>, name: &NamespaceName) {
    let destination = pass.run.destination().clone();
    let namespace = pass.snapshot.namespaces.get(name);
    let why = match namespace.and_then(|namespace| planned_tag(pass, namespace)) {
        Some(tag) => format!("it follows the revision tag {tag}, which another wave moves"),
        None => format!("spec.injection.mode {} leaves its label to others", pass.plan.injection.as_str()),
    };
    let because = format!(
        "new pods of namespace {name} do not get the sidecar of {destination} yet, and {why}: set {}={destination} in Git, or point \
         the revision tag that it follows there",
        labels::REVISION
    );
    pass.wait(WaitReason::LabelNotMoved, about_namespace(name), because);
}

fn forward(pass: &Pass<'_>, namespace: &Namespace, may_write: bool) -> Label {
    let revisions = pass.revisions();
    if is_relabelled(&namespace.labels, &revisions.1) {
        return Label::InPlace;
    }
    // What istio-injection hides was found by the count of the plan, which a new process does not have.
    let names_source =
        namespace.labels.get(labels::REVISION).is_some_and(|value| value == revisions.0.as_str());
    let in_scope = names_source
        || standing(pass.intent, pass.snapshot, pair(&revisions), namespace) == Standing::InScope;
    let may_write = may_write && in_scope;
    match may_relabel(pass, namespace, may_write) {
        Permission::Granted => Label::Write(Box::new(Relabel {
            namespace: namespace.name.clone(),
            resource_version: namespace.resource_version.clone(),
            revision: Some(revisions.1.clone()),
            injection: None,
            previous: remember(pass, namespace, &revisions),
            stamp: pass.run.relabel_stamp(&pass.intent.uid, &namespace.name),
            because: format!("it is in scope of the move from {} to {}", revisions.0, revisions.1),
        })),
        Permission::Used => Label::Reverted,
        Permission::Never if in_scope => Label::Reverted,
        Permission::Never => Label::NotOurs,
    }
}

fn back(pass: &Pass<'_>, namespace: &Namespace, may_write: bool) -> Label {
    let (source, _) = pass.revisions();
    let (wanted, previous) = match memory(pass, namespace) {
        Some(before) if before.is_on(namespace) => return Label::InPlace,
        Some(_) if InjectionLabels::only(&source).is_on(namespace) => return Label::InPlace,
        Some(before) if before.leads_to(pass, namespace, &source) => (before, PreviousEdit::Remove),
        // Its workloads come back first: the rest is restored after the proof.
        Some(_) => (InjectionLabels::only(&source), PreviousEdit::Leave),
        // The memory is gone (or used up): the source's own label is the best that is known.
        None if names_target(pass, namespace) => (InjectionLabels::only(&source), PreviousEdit::Remove),
        None => return Label::InPlace,
    };
    if wanted.is_on(namespace) {
        return Label::InPlace;
    }
    match may_relabel(pass, namespace, may_write) {
        Permission::Granted => {
            let stamp = pass.run.relabel_stamp(&pass.intent.uid, &namespace.name);
            Label::Write(Box::new(return_to(pass, namespace, wanted, previous, stamp)))
        }
        Permission::Used | Permission::Never => Label::Reverted,
    }
}

/// Puts back what had to stay away while workloads came back, because it keeps new pods from the source's sidecar. Says
/// whether every namespace up to the wave `last` is what it was before the run.
pub fn memory_restored(pass: &mut Pass<'_>, last: u32) -> bool {
    let stamp = pass.run.restored_stamp(&pass.intent.uid);
    let mut restored = true;
    for (_, name) in namespaces_up_to(pass, last) {
        let Some(namespace) = pass.snapshot.namespaces.get(&name).filter(|namespace| !namespace.terminating)
        else {
            continue;
        };
        let Some(before) = memory(pass, namespace).filter(|before| !before.is_on(namespace)) else {
            continue;
        };
        restored = false;
        let relabel = return_to(pass, namespace, before, PreviousEdit::Remove, stamp.clone());
        if !pass.note_refusal(About::Namespace(name), &stamp) {
            announce(pass, &relabel);
        }
        pass.effect(Effect::Relabel(relabel));
    }
    restored
}

/// The two labels of a namespace that decide injection.
#[derive(Clone, Debug, PartialEq, Eq)]
struct InjectionLabels {
    revision: Option<String>,
    injection: Option<String>,
}

impl InjectionLabels {
    fn only(revision: &Revision) -> Self {
        Self { revision: Some(revision.0.clone()), injection: None }
    }

    fn is_on(&self, namespace: &Namespace) -> bool {
        namespace.labels.get(labels::REVISION) == self.revision.as_ref()
            && namespace.labels.get(labels::INJECTION) == self.injection.as_ref()
    }

    /// Whether new pods of the namespace would get this revision's sidecar with these labels.
    fn leads_to(&self, pass: &Pass<'_>, namespace: &Namespace, revision: &Revision) -> bool {
        let mut labels = namespace.labels.clone();
        for (key, value) in [(labels::REVISION, &self.revision), (labels::INJECTION, &self.injection)] {
            match value {
                Some(value) => labels.insert(key.to_owned(), value.clone()),
                None => labels.remove(key),
            };
        }
        let found = namespace_injection(&pass.snapshot.webhooks, &namespace.name, &labels);
        matches!(found, Injection::One(injector) if injector.revision == *revision)
    }
}

/// What the namespace said before this run's pair of revisions was written to it.
fn memory(pass: &Pass<'_>, namespace: &Namespace) -> Option<InjectionLabels> {
    let revisions = pass.revisions();
    let previous = namespace.previous.as_ref().filter(|_| moved_by(namespace, pair(&revisions)))?;
    Some(InjectionLabels { revision: previous.revision.clone(), injection: previous.injection.clone() })
}

fn names_target(pass: &Pass<'_>, namespace: &Namespace) -> bool {
    namespace.labels.get(labels::REVISION).is_some_and(|value| value == pass.run.target.as_str())
}

fn return_to(
    pass: &Pass<'_>,
    namespace: &Namespace,
    wanted: InjectionLabels,
    previous: PreviousEdit,
    stamp: String,
) -> Relabel {
    Relabel {
        namespace: namespace.name.clone(),
        resource_version: namespace.resource_version.clone(),
        revision: wanted.revision.map(Revision::from),
        injection: wanted.injection,
        previous,
        stamp,
        because: format!("the run goes back from {} to {}", pass.run.target, pass.run.source),
    }
}

/// See [`permission()`].
fn may_relabel(pass: &Pass<'_>, namespace: &Namespace, may_write: bool) -> Permission {
    let stamp = pass.run.relabel_stamp(&pass.intent.uid, &namespace.name);
    let again = pass.run.relabel_again.contains(&namespace.name);
    permission(pass, namespace.relabelled_by.as_deref(), &stamp, again, may_write)
}

/// The first value of the annotation is never overwritten while it is about this pair.
fn remember(pass: &Pass<'_>, namespace: &Namespace, revisions: &(Revision, Revision)) -> PreviousEdit {
    if moved_by(namespace, pair(revisions)) {
        return PreviousEdit::Leave;
    }
    let value = |labels: &Labels, key: &str| labels.get(key).cloned();
    // What dropped out of the mesh does not drop out again in a rollback.
    let dropped = is_dropped(pass.snapshot, namespace).then(|| revisions.0.to_string());
    PreviousEdit::Set(PreviousLabels {
        from: revisions.0.clone(),
        to: revisions.1.clone(),
        revision: dropped.or_else(|| value(&namespace.labels, labels::REVISION)),
        injection: value(&namespace.labels, labels::INJECTION),
        manager: revision_owner(namespace).map(|manager| manager.name.clone()),
    })
}

fn announce(pass: &mut Pass<'_>, relabel: &Relabel) {
    let Some(namespace) = pass.snapshot.namespaces.get(&relabel.namespace) else {
        return;
    };
    let about = about_namespace(&relabel.namespace);
    let value = relabel.revision.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
    let back = pass.run.direction() == Direction::Back;
    let injection = relabel
        .injection
        .as_ref()
        .map_or_else(String::new, |value| format!(" and {}={value} put back", labels::INJECTION));
    pass.effect_event(
        false,
        // Reasons of their own: the event recorder folds events of one reason and drops the later note.
        if back { "NamespaceRestored" } else { "NamespaceRelabeled" },
        about.clone(),
        format!("{} is set to {value}{injection}: {}", labels::REVISION, relabel.because),
    );
    if back {
        return;
    }
    if let Some(injection) = namespace.labels.get(labels::INJECTION) {
        pass.effect_event(
            true,
            "InjectionLabelRemoved",
            about.clone(),
            format!("{}={injection} beside {} would hide it from the revision's webhook; it comes back in a rollback", labels::INJECTION, labels::REVISION),
        );
    }
    if let Some(manager) = revision_owner(namespace).filter(|manager| manager.name != labels::FIELD_MANAGER) {
        pass.effect_event(
            true,
            "LabelTakenOver",
            about,
            format!(
                "{} owned {} here: change it at its origin too, or it will come back",
                manager.name,
                labels::REVISION
            ),
        );
    }
}

fn reverted(pass: &mut Pass<'_>, name: &NamespaceName) {
    if pass.retries_all() {
        let attempt = pass.run.label_attempts.entry(name.clone()).or_insert(1);
        *attempt += 1;
        pass.run.relabel_again.insert(name.clone());
        pass.event(false, "RetryAccepted", about_namespace(name), "the label will be written once more");
        return;
    }
    let namespace = pass.snapshot.namespaces.get(name);
    let now = namespace
        .and_then(|namespace| namespace.labels.get(labels::REVISION))
        .map_or_else(|| "gone".to_owned(), |value| format!("{value:?}"));
    let who = namespace
        .and_then(|namespace| revision_owner(namespace))
        .map_or_else(|| "somebody".to_owned(), |manager| manager.name.clone());
    let destination = pass.run.destination().clone();
    pass.wait(
        WaitReason::LabelReverted,
        about_namespace(name),
        format!(
            "{who} changed {} of namespace {name} after MeshUpgrade set it (now {now}): set it to {destination} at its \
             origin, or let its owner ignore it; kubectl annotate meshupgrade {} {}=$(date +%s) --overwrite writes it once more",
            labels::REVISION,
            pass.intent.name,
            labels::RETRY
        ),
    );
}
