//! What a log says happened, in order: restarts, labels, rollouts, readiness, intents.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde_json::Value;

use super::Case;
use super::pods::{self, Pods};
use crate::audit::{Call, Log};

/// Annotation of the pod template that restarts.
pub const RESTART: &str = "meshupgrade.io/restart";
/// Annotation of a namespace: which run, direction and attempt wrote the label last.
pub const RELABELLED_BY: &str = "meshupgrade.io/relabelled-by";
const REVISION: &str = "istio.io/rev";
const INJECTION: &str = "istio-injection";

/// A workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// `deployments`, `statefulsets` or `daemonsets`.
    pub resource: String,
    /// Its name.
    pub name: String,
}

impl Workload {
    /// A workload from its parts.
    pub fn new(namespace: &str, resource: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), resource: resource.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.resource.trim_end_matches('s'), self.namespace, self.name)
    }
}

/// Which way a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// To the target.
    Forward,
    /// To the source.
    Back,
}

/// A restart by the operator that was accepted.
#[derive(Clone, Debug)]
pub struct Restart {
    /// When in the order of changes.
    pub order: u64,
    /// When it was asked for.
    pub received: Timestamp,
    /// Of what.
    pub workload: Workload,
    /// Which way.
    pub direction: Direction,
    /// The stamp: one for each object, run, direction and attempt.
    pub stamp: String,
    /// Generation that it made.
    pub generation: i64,
    /// Whether it changed the object.
    pub changed: bool,
}

/// A relabelling by the operator that was accepted.
#[derive(Clone, Debug)]
pub struct Relabel {
    /// When in the order of changes.
    pub order: u64,
    /// Of which namespace.
    pub namespace: String,
    /// The stamp.
    pub stamp: String,
}

/// A namespace's labels from one moment on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// When in the order of changes.
    pub order: u64,
    /// When.
    pub at: Timestamp,
    /// `istio.io/rev`.
    pub revision: Option<String>,
    /// Whether `istio-injection` is set.
    pub hidden: bool,
}

/// A workload from one moment on, as its controller describes it.
#[derive(Clone, Debug)]
pub struct State {
    /// When in the order of changes.
    pub order: u64,
    /// The generation that the controller speaks of.
    pub observed: i64,
    /// Whether every pod is of the newest template and available.
    pub complete: bool,
    /// It was deleted.
    pub deleted: bool,
}

/// An istiod from one moment on.
#[derive(Clone, Copy, Debug)]
pub struct Readiness {
    /// When in the order of changes.
    pub order: u64,
    /// When.
    pub at: Timestamp,
    /// Whether it has a ready pod.
    pub ready: bool,
}

/// A write of a MeshUpgrade's status: which workloads its open batch names.
#[derive(Clone, Debug)]
pub struct Intent {
    /// When in the order of changes.
    pub order: u64,
    /// Which MeshUpgrade.
    pub upgrade: String,
    /// The workloads of the open batch.
    pub batch: BTreeSet<Workload>,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Restarts by the operator.
    pub restarts: Vec<Restart>,
    /// Relabellings by the operator.
    pub relabels: Vec<Relabel>,
    /// Labels of namespaces, by whomever.
    pub labels: BTreeMap<String, Vec<Labels>>,
    /// Revision tags by name, by whomever: what they point at.
    pub tags: BTreeMap<String, Vec<Labels>>,
    /// Workloads.
    pub workloads: BTreeMap<Workload, Vec<State>>,
    /// istiods by revision.
    pub istiods: BTreeMap<String, Vec<Readiness>>,
    /// Status writes.
    pub intents: Vec<Intent>,
    /// Pods.
    pub pods: Pods,
}

impl History {
    /// Reads a log.
    pub fn of(case: &Case, log: &Log) -> Self {
        let mut history = Self::default();
        for call in log.calls.iter().filter(|call| call.is_write() && call.succeeded()) {
            history.note(case, call);
        }
        history.pods = pods::read(log);
        history
    }

    fn note(&mut self, case: &Case, call: &Call) {
        match (call.object.group.as_str(), call.object.resource.as_str()) {
            ("", "namespaces") => self.namespace(case, call),
            ("admissionregistration.k8s.io", "mutatingwebhookconfigurations") => self.tag(case, call),
            ("", "services") if call.user == case.operator => {
                self.relabels.push(Relabel {
                    order: call.order,
                    stamp: text(&call.request["metadata"]["annotations"][RELABELLED_BY]).unwrap_or_default(),
                    namespace: format!("service {}", call.object.name),
                });
            }
            ("apps", "deployments" | "statefulsets" | "daemonsets") if call.object.subresource != "scale" => {
                self.workload(case, call);
            }
            ("meshupgrade.io", "meshupgrades") if call.user == case.operator => self.intent(call),
            _ => {}
        }
    }

    fn namespace(&mut self, case: &Case, call: &Call) {
        let name = call.object.name.clone();
        let metadata = &call.response["metadata"];
        if call.user == case.operator {
            let stamp = text(&call.request["metadata"]["annotations"][RELABELLED_BY]);
            self.relabels.push(Relabel {
                order: call.order,
                namespace: name.clone(),
                stamp: stamp.unwrap_or_default(),
            });
        }
        let now = Labels {
            order: call.order,
            // The change was made between the request and the end of the answer, and seen before that end.
            at: call.received,
            revision: text(&metadata["labels"][REVISION]),
            hidden: metadata["labels"][INJECTION].is_string(),
        };
        let before = self.labels.entry(name).or_default();
        let same =
            before.last().is_some_and(|last| last.revision == now.revision && last.hidden == now.hidden);
        if call.verb != "delete" && !same {
            before.push(now);
        }
    }

    fn tag(&mut self, case: &Case, call: &Call) {
        let metadata = &call.response["metadata"];
        if call.user == case.operator {
            let stamp = text(&call.request["metadata"]["annotations"][RELABELLED_BY]).unwrap_or_default();
            let namespace = format!("webhook {}", call.object.name);
            self.relabels.push(Relabel { order: call.order, namespace, stamp });
        }
        let Some(tag) = text(&metadata["labels"]["istio.io/tag"]).filter(|_| call.verb != "delete") else {
            return;
        };
        let revision = text(&metadata["labels"][REVISION]);
        let before = self.tags.entry(tag).or_default();
        if before.last().is_none_or(|last| last.revision != revision) {
            before.push(Labels { order: call.order, at: call.received, revision, hidden: false });
        }
    }

    fn workload(&mut self, case: &Case, call: &Call) {
        let workload = Workload::new(&call.object.namespace, &call.object.resource, &call.object.name);
        if call.verb == "deletecollection" {
            return;
        }
        self.istiod(case, call);
        if call.user == case.operator
            && let Some(stamp) = text(&call.request["spec"]["template"]["metadata"]["annotations"][RESTART])
        {
            self.restarts.push(Restart {
                order: call.order,
                received: call.received,
                workload: workload.clone(),
                direction: direction(&stamp),
                stamp,
                generation: call.response["metadata"]["generation"].as_i64().unwrap_or_default(),
                changed: call.changed,
            });
        }
        let state = state(&call.object.resource, &call.response);
        let deleted = call.verb == "delete";
        self.workloads.entry(workload).or_default().push(State { order: call.order, deleted, ..state });
    }

    fn istiod(&mut self, case: &Case, call: &Call) {
        let metadata = &call.response["metadata"];
        let istiod = call.object.namespace == case.istio_namespace && metadata["labels"]["app"] == "istiod";
        let Some(revision) = text(&metadata["labels"][REVISION]).filter(|_| istiod) else { return };
        let ready = call.verb != "delete" && number(&call.response["status"]["readyReplicas"]) > 0;
        self.istiods.entry(revision).or_default().push(Readiness { order: call.order, at: call.at, ready });
    }

    fn intent(&mut self, call: &Call) {
        let entries = call.response["status"]["run"]["batch"]["entries"].as_array();
        let batch = entries.into_iter().flatten().map(|entry| {
            let kind = entry["kind"].as_str().unwrap_or_default().to_lowercase();
            let part = |key: &str| entry[key].as_str().unwrap_or_default();
            Workload::new(part("namespace"), &format!("{kind}s"), part("name"))
        });
        self.intents.push(Intent {
            order: call.order,
            upgrade: call.object.name.clone(),
            batch: batch.collect(),
        });
    }

    /// Restarts that took effect.
    pub fn effective(&self) -> impl Iterator<Item = &Restart> {
        self.restarts.iter().filter(|restart| restart.changed)
    }

    /// The labels of a namespace just before a moment.
    pub fn labels_at(&self, namespace: &str, order: u64) -> Option<&Labels> {
        self.labels.get(namespace)?.iter().rfind(|labels| labels.order < order)
    }

    /// Where a namespace led just before a moment, and since when: its label, or what the tag pointed at that it names.
    pub fn led_at(&self, namespace: &str, order: u64) -> Option<Labels> {
        let labels = self.labels_at(namespace, order)?.clone();
        let tag = labels.revision.as_ref().and_then(|value| self.tags.get(value));
        let Some(tag) = tag.and_then(|states| states.iter().rfind(|state| state.order < order)) else {
            return Some(labels);
        };
        Some(Labels { at: labels.at.max(tag.at), revision: tag.revision.clone(), ..labels })
    }

    /// When the rollout of a restart was over: its controller said so and no pod of an older template was left. `None`
    /// when it was not over at the end of the log.
    pub fn over(&self, restart: &Restart) -> Option<u64> {
        let states = self.workloads.get(&restart.workload)?;
        // A deletion makes no version: it has the order of the change before it, which may be the restart itself.
        let ends = |state: &&State| {
            let complete =
                state.order > restart.order && state.complete && state.observed >= restart.generation;
            complete || (state.deleted && state.order >= restart.order)
        };
        let done = states.iter().find(ends)?;
        if done.deleted {
            return Some(done.order);
        }
        let gone = self.pods.last_gone(&restart.workload, restart.order)?;
        Some(done.order.max(gone))
    }
}

fn direction(stamp: &str) -> Direction {
    // uid.run.direction.attempt
    if stamp.rsplit('.').nth(1) == Some("back") { Direction::Back } else { Direction::Forward }
}

fn state(resource: &str, object: &Value) -> State {
    let (spec, status) = (&object["spec"], &object["status"]);
    let complete = if resource == "daemonsets" {
        let wanted = number(&status["desiredNumberScheduled"]);
        number(&status["updatedNumberScheduled"]) >= wanted && number(&status["numberAvailable"]) >= wanted
    } else {
        let wanted = spec["replicas"].as_i64().unwrap_or(1);
        let updated = number(&status["updatedReplicas"]);
        updated >= wanted
            && number(&status["replicas"]) <= updated
            && number(&status["availableReplicas"]) >= wanted
    };
    State { order: 0, observed: number(&status["observedGeneration"]), complete, deleted: false }
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(ToOwned::to_owned)
}
