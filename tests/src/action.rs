//! What people do: the steps of a case's script, and the menu of random runs.

use std::fmt;
use std::sync::Arc;

use meshupgrade_core::census::{Reference, ReferenceKind};
use meshupgrade_core::decision::View;
use meshupgrade_core::ids::{NamespaceName, Revision, Uid, WorkloadRef};
use meshupgrade_core::intent::{self, CompletionMode, OnFailure, Verb};
use meshupgrade_core::observed::{OtherUpgrade, Strategy};
use meshupgrade_core::planning::digest;
use meshupgrade_core::record::Record;

use crate::neighbours::telemetry::Source;
use crate::neighbours::{gitops, nodes, people, planes};
use crate::world::build::{KUBECTL, OLD};
use crate::world::views::Kind;
use crate::world::{Plane, World};

/// Something that a person does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sets `spec.suspend`.
    Suspend(bool),
    /// Sets `spec.planOnly`.
    PlanOnly(bool),
    /// Sets `spec.rollback.requested`.
    RequestRollback(bool),
    /// Sets `spec.targetRevision`.
    Target(&'static str),
    /// Sets `spec.runId`.
    RunId(&'static str),
    /// Sets `spec.rollback.onFailure`.
    OnFailure(OnFailure),
    /// Sets the retry annotation to a new value.
    Retry,
    /// Accepts completion.
    Complete,
    /// Sets the action annotation to what status offers for this verb, or to a value of another step.
    Say(Verb),
    /// Sets the action annotation to this.
    Annotate(&'static str),
    /// Commits an approval through this wave, for the plan that status shows.
    Approve(&'static str),
    /// Deletes the MeshUpgrade and applies it again: a new uid, and no status.
    Reapply,
    /// Sets or removes a namespace's revision label with kubectl.
    Label(NamespaceName, Option<&'static str>),
    /// Points a revision tag at a revision with istioctl.
    Tag(&'static str, &'static str),
    /// Points only the Service of a revision tag at a revision, with kubectl.
    TagService(&'static str, &'static str),
    /// Creates a namespace with a running application.
    CreateNamespace(String, Option<String>),
    /// Deletes a namespace with all that is in it.
    DeleteNamespace(NamespaceName),
    /// Creates a workload.
    Create(WorkloadRef, u32, Strategy),
    /// Deletes a workload.
    Delete(WorkloadRef),
    /// Deletes a workload and creates it again: a new uid.
    Recreate(WorkloadRef),
    /// Deploys a new version; a restart annotation that Git does not know stays (server-side apply).
    Redeploy(WorkloadRef),
    /// Changes the replicas.
    Scale(WorkloadRef, u32),
    /// Replaces the whole template by what Git says: the restart annotation is gone.
    ReplaceTemplate(WorkloadRef),
    /// Deletes the pods that are not ready.
    DeleteUnready(WorkloadRef),
    /// From now on pods of a workload never become ready on a revision.
    Sicken(WorkloadRef, &'static str),
    /// The pods of a workload become ready again.
    Cure(WorkloadRef),
    /// Changes how many pods of an istiod are ready.
    Istiod(&'static str, u32),
    /// Breaks or mends the webhook of a control plane.
    Webhook(&'static str, bool),
    /// Breaks or mends the injector's ConfigMap of a control plane.
    Config(&'static str, bool),
    /// Another MeshUpgrade is in the middle of its run, or is not any more.
    OtherUpgrade(bool),
    /// Installs a control plane.
    Install(&'static str),
    /// Removes a control plane.
    Uninstall(&'static str),
    /// Git changes the revision of a namespace.
    Commit(NamespaceName, &'static str),
    /// A sync of a namespace that writes even where nothing differs.
    Sync(NamespaceName),
    /// An ignore rule for a namespace's label comes or goes.
    Ignore(NamespaceName, bool),
    /// An Istio resource names a revision.
    Refer(&'static str),
    /// No Istio resource names a revision any more.
    Unrefer,
    /// The node of a workload's first pod falls silent while the pod is to go.
    Strand(WorkloadRef),
    /// All silent nodes return.
    HealNodes,
    /// The provider patches a control plane: its injector gives another image from now on.
    Patch(&'static str),
    /// A metric source changes.
    Telemetry(Source),
    /// From now on requests of a workload fail on a revision.
    Ail(WorkloadRef, &'static str),
    /// No requests fail any more.
    Soothe,
}

/// Does it, and notes it.
pub fn act(world: &mut World, action: Action) {
    world.note(format!("somebody: {action}"));
    match action {
        Action::Suspend(_)
        | Action::PlanOnly(_)
        | Action::RequestRollback(_)
        | Action::Target(_)
        | Action::RunId(_)
        | Action::OnFailure(_)
        | Action::Retry
        | Action::Complete
        | Action::Say(_)
        | Action::Annotate(_)
        | Action::Approve(_)
        | Action::Reapply => on_request(world, &action),
        Action::CreateNamespace(..) | Action::DeleteNamespace(_) => on_namespace(world, action),
        Action::Create(..)
        | Action::Delete(_)
        | Action::Recreate(_)
        | Action::Redeploy(_)
        | Action::Scale(..)
        | Action::ReplaceTemplate(_) => on_workload(world, action),
        Action::Tag(name, revision) => world.tag(name, revision),
        Action::TagService(name, revision) => world.tag_service(name, revision),
        Action::Label(name, revision) => world.set_label(&name, revision, KUBECTL, false),
        Action::DeleteUnready(workload) => people::delete_unready(world, &workload),
        Action::Sicken(workload, revision) => {
            world.sick.insert((workload, Revision::from(revision)));
            world.version += 1;
        }
        Action::Cure(workload) => {
            world.sick.retain(|(sick, _)| *sick != workload);
            world.version += 1;
        }
        Action::Istiod(revision, ready) => planes::set_ready(world, &Revision::from(revision), ready),
        Action::Patch(revision) => {
            if let Some(plane) = world.planes.get_mut(&Revision::from(revision)) {
                plane.patch += 1;
            }
            world.touch(Kind::Planes);
        }
        Action::Webhook(..) | Action::Config(..) | Action::OtherUpgrade(_) => on_surroundings(world, &action),
        Action::Install(revision) => {
            world.plane(revision, Plane { installed: true, ready: 2, ..Plane::default() })
        }
        Action::Uninstall(revision) => world.plane(revision, Plane::default()),
        Action::Commit(name, revision) => gitops::commit(world, &name, revision),
        Action::Sync(name) => gitops::full_sync(world, &name),
        Action::Ignore(name, ignores) => {
            if let Some(git) = world.git.get_mut(&name) {
                git.ignores = ignores;
            }
        }
        Action::Refer(revision) => world.references.push(reference(revision)),
        Action::Unrefer => world.references.clear(),
        Action::Strand(workload) => {
            if let Some(id) = world.pods_of(&workload).first().map(|(id, _)| *id) {
                nodes::strand(world, id);
            }
        }
        Action::HealNodes => nodes::heal(world),
        Action::Telemetry(source) => world.telemetry.source = source,
        Action::Ail(workload, revision) => {
            world.telemetry.ailing.insert((workload, Revision::from(revision)));
        }
        Action::Soothe => world.telemetry.ailing.clear(),
    }
}

fn reference(revision: &str) -> Reference {
    Reference {
        kind: ReferenceKind::IstioResource,
        object_kind: "EnvoyFilter".to_owned(),
        namespace: Some(NamespaceName::from("shop")),
        name: "headers".to_owned(),
        revision: Revision::from(revision),
    }
}

fn on_surroundings(world: &mut World, action: &Action) {
    match action {
        Action::Webhook(revision, there) => {
            if let Some(plane) = world.planes.get_mut(&Revision::from(*revision)) {
                plane.no_webhook = !there;
            }
        }
        Action::Config(revision, there) => {
            if let Some(plane) = world.planes.get_mut(&Revision::from(*revision)) {
                plane.no_config = !there;
            }
        }
        Action::OtherUpgrade(active) => {
            world.others =
                vec![OtherUpgrade { name: "other".to_owned(), active: *active, goes_first: false }];
        }
        _ => {}
    }
    world.touch(Kind::Planes);
}

fn on_request(world: &mut World, action: &Action) {
    let serial = world.version;
    match action {
        Action::Suspend(on) => world.edit_intent(|intent| intent.suspend = *on),
        Action::PlanOnly(on) => world.edit_intent(|intent| intent.plan_only = *on),
        Action::RequestRollback(on) => world.edit_intent(|intent| intent.rollback_requested = *on),
        Action::Target(revision) => world.edit_intent(|intent| intent.target = Revision::from(*revision)),
        Action::RunId(id) => world.edit_intent(|intent| (*id).clone_into(&mut intent.run_id)),
        Action::OnFailure(choice) => world.edit_intent(|intent| intent.on_failure = *choice),
        Action::Retry => world.edit_intent(|intent| intent.retry = Some(format!("retry-{serial}"))),
        Action::Complete => world.edit_intent(|intent| intent.completion.mode = CompletionMode::Automatic),
        Action::Say(verb) => {
            let offer = world.upgrade.view.actions.iter().find(|offer| offer.verb == *verb);
            let value =
                offer.map_or_else(|| format!("{}/00000000", verb.as_str()), |offer| offer.value.clone());
            world.edit_intent(|intent| intent.action = Some(intent::Action::parse(&value)));
        }
        Action::Annotate(value) => {
            world.edit_intent(|intent| intent.action = Some(intent::Action::parse(value)));
        }
        Action::Approve(wave) => {
            let record = &world.upgrade.record;
            let shown = record.plan.as_ref().zip(record.run.as_ref());
            let plan_digest = shown.map_or_else(String::new, |(plan, run)| digest(plan, run));
            let through_wave = (*wave).to_owned();
            let approval = intent::ApprovalIntent { through_wave, plan_digest };
            world.edit_intent(|intent| intent.approval = Some(approval));
        }
        Action::Reapply => {
            world.upgrade.record = Arc::new(Record::default());
            world.upgrade.view = Arc::new(View::default());
            world.edit_intent(|intent| {
                intent.uid = Uid::from(format!("upgrade-{serial}"));
                intent.generation = 0;
            });
        }
        _ => {}
    }
}

fn on_namespace(world: &mut World, action: Action) {
    match action {
        Action::CreateNamespace(name, revision) => {
            world.namespace(&name, revision.as_deref());
            let app = crate::world::build::deployment(&name, "late");
            world.app(&app, 1, crate::world::build::default_rolling());
        }
        Action::DeleteNamespace(name) => {
            let apps: Vec<WorkloadRef> =
                world.apps.keys().filter(|app| app.namespace == name).cloned().collect();
            for app in apps {
                remove(world, &app);
            }
            let doomed = world.pods.iter().filter(|(_, pod)| pod.workload.namespace == name);
            let doomed: Vec<u64> = doomed.map(|(id, _)| *id).collect();
            for id in doomed {
                world.remove_pod(id);
            }
            world.namespaces.remove(&name);
            world.labelled.remove(&name);
            world.git.remove(&name);
            world.budgets.remove(&name);
            world.touch(Kind::Namespaces);
        }
        _ => {}
    }
}

fn on_workload(world: &mut World, action: Action) {
    match action {
        Action::Create(workload, replicas, strategy) => world.app(&workload, replicas, strategy),
        Action::Delete(workload) => remove(world, &workload),
        Action::Recreate(workload) => {
            let app = world.apps.get(&workload).map(|app| (app.view.replicas, app.view.strategy.clone()));
            remove(world, &workload);
            if let Some((replicas, strategy)) = app {
                world.app(&workload, replicas, strategy);
            }
        }
        Action::Redeploy(workload) => world.edit_spec(&workload, |app| app.release += 1),
        Action::Scale(workload, replicas) => world.edit_spec(&workload, |app| {
            Arc::make_mut(&mut app.view).replicas = replicas;
        }),
        Action::ReplaceTemplate(workload) => world.edit_spec(&workload, |app| {
            Arc::make_mut(&mut app.view).template.restart = None;
        }),
        _ => {}
    }
}

fn remove(world: &mut World, workload: &WorkloadRef) {
    let ids: Vec<u64> = world.pods_of(workload).iter().map(|(id, _)| *id).collect();
    for id in ids {
        world.delete_pod(id, 1);
    }
    world.apps.remove(workload);
    world.touch(Kind::Workloads);
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Suspend(on) => write!(f, "sets suspend to {on}"),
            Self::PlanOnly(on) => write!(f, "sets planOnly to {on}"),
            Self::RequestRollback(on) => write!(f, "sets rollback.requested to {on}"),
            Self::Target(revision) => write!(f, "sets targetRevision to {revision}"),
            Self::RunId(id) => write!(f, "sets runId to {id:?}"),
            Self::OnFailure(choice) => write!(f, "sets rollback.onFailure to {choice:?}"),
            Self::Retry => write!(f, "asks for a retry"),
            Self::Complete => write!(f, "accepts completion"),
            Self::Say(verb) => write!(f, "annotates: {}", verb.as_str()),
            Self::Annotate(value) => write!(f, "annotates: {value}"),
            Self::Approve(wave) => write!(f, "commits an approval through wave {wave:?}"),
            Self::Reapply => write!(f, "deletes the MeshUpgrade and applies it again"),
            Self::Label(name, Some(revision)) => write!(f, "labels namespace {name} with {revision}"),
            Self::Label(name, None) => write!(f, "removes the label of namespace {name}"),
            Self::CreateNamespace(name, revision) => {
                write!(f, "creates namespace {name} on {}", revision.as_deref().unwrap_or("nothing"))
            }
            Self::DeleteNamespace(name) => write!(f, "deletes namespace {name}"),
            Self::Create(workload, ..) => write!(f, "creates {workload}"),
            Self::Delete(workload) => write!(f, "deletes {workload}"),
            Self::Recreate(workload) => write!(f, "deletes {workload} and creates it again"),
            Self::Redeploy(workload) => write!(f, "deploys a new version of {workload}"),
            Self::Scale(workload, replicas) => write!(f, "scales {workload} to {replicas}"),
            Self::ReplaceTemplate(workload) => write!(f, "replaces the template of {workload}"),
            Self::DeleteUnready(workload) => write!(f, "deletes the unready pods of {workload}"),
            Self::Sicken(workload, revision) => write!(f, "breaks {workload} on {revision}"),
            Self::Cure(workload) => write!(f, "repairs {workload}"),
            Self::Istiod(revision, ready) => write!(f, "scales istiod {revision} to {ready}"),
            Self::Webhook(revision, on) => write!(f, "sets the webhook of {revision} to {on}"),
            Self::Config(revision, on) => write!(f, "sets the injector ConfigMap of {revision} to {on}"),
            Self::OtherUpgrade(on) => write!(f, "sets the other MeshUpgrade to active={on}"),
            Self::Install(revision) => write!(f, "installs {revision}"),
            Self::Uninstall(revision) => write!(f, "removes the control plane {revision}"),
            Self::Commit(name, revision) => write!(f, "commits {revision} for namespace {name} to Git"),
            Self::Sync(name) => write!(f, "syncs namespace {name}"),
            Self::Ignore(name, on) => write!(f, "sets the ignore rule of namespace {name} to {on}"),
            Self::Refer(revision) => write!(f, "creates an EnvoyFilter for {revision}"),
            Self::Unrefer => write!(f, "removes the EnvoyFilter"),
            Self::Strand(workload) => write!(f, "loses the node of a pod of {workload}"),
            Self::HealNodes => write!(f, "brings the nodes back"),
            Self::Patch(revision) => write!(f, "patches the control plane {revision}"),
            Self::Telemetry(source) => write!(f, "sets the metric source to {source:?}"),
            Self::Ail(workload, revision) => write!(f, "lets requests of {workload} fail on {revision}"),
            Self::Tag(name, revision) => write!(f, "points revision tag {name} at {revision}"),
            Self::TagService(name, revision) => {
                write!(f, "points the Service of revision tag {name} at {revision}")
            }
            Self::Soothe => write!(f, "mends all requests"),
        }
    }
}

/// What platform people do at random.
pub fn usual_menu() -> Vec<Action> {
    let suspends = [Action::Suspend(true), Action::Suspend(false), Action::Suspend(false)];
    let rest = [
        Action::Retry,
        Action::Retry,
        Action::Complete,
        Action::Refer(OLD),
        Action::Unrefer,
        Action::HealNodes,
    ];
    suspends.into_iter().chain(rest).collect()
}
