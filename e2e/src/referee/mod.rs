//! Judges a stretch of the audit log. Each rule is a function over what happened, without a cluster: each is shown red
//! on a planted log below, and green on the same log without the plant.

mod history;
#[cfg(test)]
mod planted;
mod pods;
mod rules_of_order;
mod rules_of_scope;
mod rules_of_service;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

pub use history::{History, Workload};

use crate::audit::Log;

/// What was asked for: the referee knows it from the scenario, never from the operator.
#[derive(Clone, Debug, Default)]
pub struct Case {
    /// The operator's user name.
    pub operator: String,
    /// The namespace of its Deployment: its leases are there.
    pub operator_namespace: String,
    /// Names of the MeshUpgrades that it may write.
    pub upgrades: BTreeSet<String>,
    /// The namespace of the istiods.
    pub istio_namespace: String,
    /// The revision that is left.
    pub source: String,
    /// The revision that is gone to.
    pub target: String,
    /// How long a label must stay before restarts.
    pub settle: Duration,
    /// The waves with their namespaces: everything that may be written.
    pub waves: Vec<Wave>,
    /// Gateways of the Gateway API that move with the run, as `namespace/name`.
    pub gateways: BTreeSet<String>,
    /// The revision tags that move with the run.
    pub tags: BTreeSet<String>,
    /// Pods that must be there.
    pub floors: Vec<Floor>,
    /// Workloads that are in no mesh, in namespaces that are.
    pub plain: BTreeSet<Workload>,
    /// Revisions whose istiod was not ready when the log began.
    pub unready: BTreeSet<String>,
    /// The operator was killed or replaced: it may repeat a write whose answer it lost.
    pub crashes: bool,
    /// Attempts beyond the first that a person asked for (`retry`).
    pub retries: usize,
}

/// A wave.
#[derive(Clone, Debug, Default)]
pub struct Wave {
    /// Its namespaces.
    pub namespaces: BTreeSet<String>,
    /// How many workloads may be in rollout at once.
    pub at_once: usize,
}

/// How many ready pods some workloads must keep.
#[derive(Clone, Debug, Default)]
pub struct Floor {
    /// The workloads whose pods count.
    pub workloads: BTreeSet<Workload>,
    /// How many must be ready.
    pub ready: usize,
}

impl Case {
    /// Whether a namespace may be written.
    pub fn in_scope(&self, namespace: &str) -> bool {
        self.waves.iter().any(|wave| wave.namespaces.contains(namespace))
    }

    /// Whether this is the name of a tag's webhook configuration: one outside of `istio-system` has the namespace in it.
    fn is_webhook_of(&self, tag: &str, name: &str) -> bool {
        let own = name.strip_prefix("istio-revision-tag-").and_then(|name| name.strip_prefix(tag));
        own.is_some_and(|rest| rest.is_empty() || rest == format!("-{}", self.istio_namespace))
    }

    fn wave_of(&self, namespace: &str) -> Option<&Wave> {
        self.waves.iter().find(|wave| wave.namespaces.contains(namespace))
    }

    fn destination(&self, direction: history::Direction) -> &str {
        match direction {
            history::Direction::Forward => &self.target,
            history::Direction::Back => &self.source,
        }
    }
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Which rule.
    pub rule: &'static str,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// Everything that a rule may look at.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// What was asked for.
    pub case: &'a Case,
    /// All calls.
    pub log: &'a Log,
    /// What they come to.
    pub history: History,
}

/// A rule: every breach of it in words.
type Rule = fn(&Evidence<'_>) -> Vec<String>;

/// All rules by name.
pub const RULES: [(&str, Rule); 12] = [
    ("log-shows-the-operator", rules_of_scope::log_shows_the_operator),
    ("label-before-restart", rules_of_order::label_before_restart),
    ("istiod-ready-before-restart", rules_of_order::istiod_ready_before_restart),
    ("intent-before-patch", rules_of_order::intent_before_patch),
    ("at-most-so-many-at-once", rules_of_order::at_most_so_many_at_once),
    ("each-workload-once", rules_of_order::each_workload_once),
    ("each-label-once", rules_of_order::each_label_once),
    ("nothing-outside-the-plan", rules_of_scope::nothing_outside_the_plan),
    ("nothing-refused", rules_of_scope::nothing_refused),
    ("write-budget", rules_of_scope::write_budget),
    ("enough-pods-ready", rules_of_service::enough_pods_ready),
    ("every-pod-has-a-sidecar", rules_of_service::every_pod_has_a_sidecar),
];

/// Judges a log by all rules but those that the scenario breaks on purpose.
pub fn judge(case: &Case, log: &Log, except: &[&str]) -> Vec<Violation> {
    let evidence = Evidence { case, log, history: History::of(case, log) };
    RULES
        .iter()
        .filter(|(name, _)| !except.contains(name))
        .flat_map(|(name, rule)| rule(&evidence).into_iter().map(|what| Violation { rule: name, what }))
        .collect()
}

/// How often each workload was restarted, by any of the operator's writes that took effect.
pub fn restarts(case: &Case, log: &Log) -> BTreeMap<Workload, usize> {
    let history = History::of(case, log);
    let mut counts = BTreeMap::new();
    for restart in history.effective() {
        *counts.entry(restart.workload.clone()).or_default() += 1;
    }
    counts
}
