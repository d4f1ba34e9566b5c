//! `status`: what the operator publishes, and the durable facts of the run.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use meshupgrade_core::decision::{ActionOffer, CheckOutcome, CheckResult, Outdated};
use meshupgrade_core::plan::Plan;
use meshupgrade_core::record::{MAX_SAMPLES, Record, Run, RunSummary, Sample, attempt_key};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits;

/// What the operator knows and did. Written by the operator only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshUpgradeStatus {
    /// The `metadata.generation` that was looked at last; -1 before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Summary of where the run is, for people. Other programs read the conditions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub phase: String,

    /// One sentence: what happens now, or what it waits for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,

    /// Restarted workloads of all, for example `12/48`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub progress: String,

    /// Wave in work of all, for example `2/3`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub wave: String,

    /// Who installs and removes the control planes, for example `External`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub provider: String,

    /// How many rows `blocked` has.
    #[serde(default)]
    pub blocked_count: u32,

    /// Conditions. `Ready`, `Reconciling` and `Stalled` follow kstatus.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = limits::CONDITIONS),
        extend("x-kubernetes-list-type" = "map"),
        extend("x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,

    /// Results of the named checks of preflight or completion.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = limits::CHECKS),
        extend("x-kubernetes-list-type" = "map"),
        extend("x-kubernetes-list-map-keys" = ["name"])
    )]
    pub checks: Vec<Check>,

    /// What waits, each with its cause; at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::BLOCKED), extend("x-kubernetes-list-type" = "atomic"))]
    pub blocked: Vec<Blocked>,

    /// What people may say now, as values of the annotation `meshupgrade.io/action`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::ACTIONS), extend("x-kubernetes-list-type" = "atomic"))]
    pub actions: Vec<Offer>,

    /// The last measurements of metrics, newest first; at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_SAMPLES), extend("x-kubernetes-list-type" = "atomic"))]
    pub analysis: Vec<Sample>,

    /// Proxies with another image than their injector gives now, by a count that is taken every few minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outdated_proxies: Option<OutdatedProxies>,

    /// The plan: recomputed until the run writes for the first time, frozen from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,

    /// Digest over revisions, mode, and which wave has which namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_digest: Option<String>,

    /// The durable facts of the run in progress, or of the last one. Not for people, and not to be edited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,

    /// Earlier runs, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<RunSummary>,
}

/// Result of a named check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Name of the check, as in `spec.checks.skip`.
    pub name: String,
    /// `Passed`, `Warning`, `Skipped` or `Failed`.
    pub outcome: String,
    /// What was found and what to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Something that people may say now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    /// `approve`, `pause`, `resume`, `rollback` or `retry`.
    pub action: String,
    /// The value of the annotation: the action and the id of what it is about.
    pub value: String,
    /// What happens then.
    pub message: String,
}

/// Proxies of a revision with another image than its injector gives now: a patch upgrade replaces them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutdatedProxies {
    /// The revision.
    pub revision: String,
    /// The version that its injector gives: tag or digest of the image.
    pub version: String,
    /// How many proxies have another one.
    pub proxies: u32,
    /// How many workloads they belong to.
    pub workloads: u32,
    /// Some of these workloads, as `Kind/namespace/name`; at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub examples: Vec<String>,
}

/// Something that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Blocked {
    /// CamelCase reason.
    pub reason: String,
    /// Kind of the object that it is about, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Namespace of that object, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of that object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The cause, with the remedy where a person must act.
    pub message: String,
}

impl MeshUpgradeStatus {
    /// The durable facts.
    pub fn record(&self) -> Record {
        Record {
            plan: self.plan.clone(),
            run: self.run.clone(),
            history: self.history.clone(),
            samples: self.analysis.clone(),
        }
    }

    /// The condition of a type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == kind)
    }
}

impl From<&Outdated> for OutdatedProxies {
    fn from(outdated: &Outdated) -> Self {
        Self {
            revision: outdated.revision.to_string(),
            version: outdated.version.clone(),
            proxies: outdated.proxies,
            workloads: outdated.workloads,
            examples: outdated.examples.iter().map(attempt_key).collect(),
        }
    }
}

impl From<&ActionOffer> for Offer {
    fn from(offer: &ActionOffer) -> Self {
        Self {
            action: offer.verb.as_str().to_owned(),
            value: offer.value.clone(),
            message: crate::publish::shortened(&offer.message),
        }
    }
}

impl From<&CheckResult> for Check {
    fn from(result: &CheckResult) -> Self {
        let outcome = match result.outcome {
            CheckOutcome::Passed => "Passed",
            CheckOutcome::Warning => "Warning",
            CheckOutcome::Skipped => "Skipped",
            CheckOutcome::Failed => "Failed",
        };
        Self {
            name: result.name.to_owned(),
            outcome: outcome.to_owned(),
            message: crate::publish::shortened(&result.message),
        }
    }
}
