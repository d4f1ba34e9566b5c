//! What [`crate::decide()`] returns.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::aks::id::ClusterId;
use crate::aks::seen::ClusterNeed;
use crate::conditions::Conditions;
use crate::effect::Effect;
use crate::ids::{ConfigMapRef, GatewayRef, NamespaceName, Revision, ServiceRef, WorkloadRef};
use crate::intent::Verb;
use crate::machine::phase::Phase;
use crate::measure::Query;
use crate::record::Record;
use crate::wait::Wait;

/// The outcome of one pass.
///
/// The effects are covered by the record that was *passed in*. A changed record must be stored before `decide` is asked
/// again, and effects that rest on it come only from that next call: this is what makes the status a write-ahead log.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Writes to do now.
    pub effects: Vec<Effect>,
    /// The durable facts from now on.
    pub record: Record,
    /// What people see.
    pub view: View,
    /// What happened, for people, once each.
    pub events: Vec<Event>,
    /// When to decide again if nothing changes before.
    pub wake: Wake,
    /// What the next snapshot must contain.
    pub needs: Needs,
}

/// When to decide again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// At once: the record changed and the next decision rests on it.
    Again,
    /// At this time, or earlier if something changes.
    At(Timestamp),
    /// Only when something changes.
    OnChange,
}

impl Wake {
    /// The earlier of two.
    #[must_use]
    pub fn earliest(self, other: Self) -> Self {
        match (self, other) {
            (Self::Again, _) | (_, Self::Again) => Self::Again,
            (Self::At(a), Self::At(b)) => Self::At(a.min(b)),
            (Self::At(a), Self::OnChange) | (Self::OnChange, Self::At(a)) => Self::At(a),
            (Self::OnChange, Self::OnChange) => Self::OnChange,
        }
    }
}

/// What the next snapshot must contain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Namespaces whose pods to watch.
    pub pods: BTreeSet<NamespaceName>,
    /// A census that began no earlier than this.
    pub census_since: Option<Timestamp>,
    /// Namespaces in which a census is to count pods without a proxy as well: those of the run.
    pub sidecars_in: BTreeSet<NamespaceName>,
    /// What a census is to ask of the operator's own rights: whether it may patch these.
    pub rights: BTreeSet<About>,
    /// Queries of metric sources whose answers are needed. An answer is kept for as long as its query is listed here.
    pub queries: BTreeSet<Query>,
    /// The managed cluster to read, again and again while it is listed here.
    pub aks: Option<ClusterNeed>,
}

/// What is published for people and for other tools. Derived each time, never read back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// Summary of where the run is.
    pub phase: Phase,
    /// One sentence: what happens now, or what it waits for.
    pub message: String,
    /// Restarted workloads of all, for example `12/48`.
    pub progress: String,
    /// Wave in work of all, for example `2/3`.
    pub wave: String,
    /// The conditions.
    pub conditions: Conditions,
    /// What waits, at most 20, each with its cause.
    pub blocked: Vec<Wait>,
    /// Results of the named checks of preflight or completion.
    pub checks: Vec<CheckResult>,
    /// What people may say now by the annotation [`crate::labels::ACTION`].
    pub actions: Vec<ActionOffer>,
    /// Proxies with another image than their injector gives now, by the last standing count.
    pub outdated: Option<Outdated>,
}

/// Proxies of a revision with another image than its injector gives now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outdated {
    /// The revision.
    pub revision: Revision,
    /// The version that its injector gives, see [`crate::pods::image_version`].
    pub version: String,
    /// How many proxies have another one.
    pub proxies: u32,
    /// How many workloads they belong to.
    pub workloads: u32,
    /// Some of these workloads.
    pub examples: Vec<WorkloadRef>,
}

/// Something that people may say now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionOffer {
    /// What.
    pub verb: Verb,
    /// The value of the annotation.
    pub value: String,
    /// What happens then.
    pub message: String,
}

/// Result of a named check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckResult {
    /// Name of the check, as in `spec.checks.skip`.
    pub name: &'static str,
    /// How it went.
    pub outcome: CheckOutcome,
    /// What was found and what to do about it. Empty when it passed.
    pub message: String,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckOutcome {
    /// Nothing to say.
    Passed,
    /// Worth knowing; the run goes on.
    Warning,
    /// The user chose to skip it.
    Skipped,
    /// The run does not go on until this changes.
    Failed,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether a person should look at it.
    pub warning: bool,
    /// CamelCase reason.
    pub reason: &'static str,
    /// What happened.
    pub note: String,
    /// The object that it is about, besides the MeshUpgrade.
    pub about: Option<About>,
}

/// An object that an event or a wait is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// A namespace.
    Namespace(NamespaceName),
    /// A workload.
    Workload(WorkloadRef),
    /// A Gateway of the Gateway API.
    Gateway(GatewayRef),
    /// A `MutatingWebhookConfiguration`.
    Webhook(String),
    /// A ConfigMap.
    ConfigMap(ConfigMapRef),
    /// A Service.
    Service(ServiceRef),
    /// A managed cluster of Azure.
    Cluster(ClusterId),
}
