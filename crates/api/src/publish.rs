//! From a decision to the status that is published.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use meshupgrade_core::conditions::Conditions;
use meshupgrade_core::decision::{About, Decision};
use meshupgrade_core::planning::digest;
use meshupgrade_core::record::Run;
use meshupgrade_core::wait::Wait;

use crate::limits;
use crate::status::{Blocked, Check, MeshUpgradeStatus, Offer, OutdatedProxies};

/// Name of the only provider of this version, as `status.provider` shows it.
pub const PROVIDER_EXTERNAL: &str = "External";

/// The status after a decision. The same decision on its own result gives the same status again, whatever the time.
pub fn publish_status(
    previous: Option<&MeshUpgradeStatus>,
    decision: &Decision,
    generation: i64,
    now: Timestamp,
) -> MeshUpgradeStatus {
    let view = &decision.view;
    let record = &decision.record;
    let before = previous.map_or(&[][..], |status| &status.conditions);
    let blocked: Vec<Blocked> = view.blocked.iter().take(limits::BLOCKED).map(Blocked::from).collect();
    let plan_digest = match (&record.plan, &record.run) {
        (Some(plan), Some(run)) => Some(digest(plan, run)),
        _ => None,
    };
    MeshUpgradeStatus {
        observed_generation: Some(generation),
        phase: view.phase.to_string(),
        message: shortened(&view.message),
        progress: view.progress.clone(),
        wave: view.wave.clone(),
        provider: PROVIDER_EXTERNAL.to_owned(),
        blocked_count: u32::try_from(blocked.len()).unwrap_or(u32::MAX),
        conditions: merged_conditions(before, &view.conditions, generation, now),
        checks: checks(previous, decision),
        blocked,
        analysis: record.samples.clone(),
        outdated_proxies: view.outdated.as_ref().filter(|found| found.proxies > 0).map(OutdatedProxies::from),
        plan: record.plan.clone(),
        plan_digest,
        actions: view.actions.iter().map(Offer::from).collect(),
        run: record.run.clone(),
        history: record.history.clone(),
    }
}

/// Results of the checks that ran in this decision; those of the run's last ones while none run.
fn checks(previous: Option<&MeshUpgradeStatus>, decision: &Decision) -> Vec<Check> {
    let counter = |run: Option<&Run>| run.map(|run| run.counter);
    let same_run =
        |status: &&MeshUpgradeStatus| counter(status.run.as_ref()) == counter(decision.record.run.as_ref());
    match previous.filter(same_run) {
        Some(previous) if decision.view.checks.is_empty() => previous.checks.clone(),
        _ => decision.view.checks.iter().take(limits::CHECKS).map(Check::from).collect(),
    }
}

/// The conditions in their fixed order. A condition whose status did not change keeps its time.
pub fn merged_conditions(
    before: &[Condition],
    conditions: &Conditions,
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    conditions
        .iter()
        .map(|(kind, condition)| {
            let status = condition.status.as_str();
            let since = before
                .iter()
                .find(|old| old.type_ == kind.as_str() && old.status == status)
                .map_or_else(|| Time(whole_seconds(now)), |old| old.last_transition_time.clone());
            Condition {
                last_transition_time: since,
                message: condition.message.clone(),
                observed_generation: Some(generation),
                reason: condition.reason.clone(),
                status: status.to_owned(),
                type_: kind.as_str().to_owned(),
            }
        })
        .collect()
}

/// Kubernetes keeps seconds: what is compared later must not have more.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// A message no longer than `status` allows.
pub(crate) fn shortened(message: &str) -> String {
    message.chars().take(limits::MESSAGE).collect()
}

impl From<&Wait> for Blocked {
    fn from(wait: &Wait) -> Self {
        let (kind, namespace, name) = match &wait.about {
            None => (None, None, None),
            Some(About::Namespace(namespace)) => (Some("Namespace"), None, Some(namespace.to_string())),
            Some(About::Workload(workload)) => (
                Some(workload.kind.as_str()),
                Some(workload.namespace.to_string()),
                Some(workload.name.clone()),
            ),
            Some(About::Cluster(cluster)) => (Some("ManagedCluster"), None, Some(cluster.name().to_owned())),
            Some(About::ConfigMap(map)) => {
                (Some("ConfigMap"), Some(map.namespace.to_string()), Some(map.name.clone()))
            }
            Some(About::Webhook(name)) => (Some("MutatingWebhookConfiguration"), None, Some(name.clone())),
            Some(About::Service(service)) => {
                (Some("Service"), Some(service.namespace.to_string()), Some(service.name.clone()))
            }
            Some(About::Gateway(gateway)) => {
                (Some("Gateway"), Some(gateway.namespace.to_string()), Some(gateway.name.clone()))
            }
        };
        Self {
            reason: wait.reason.to_string(),
            kind: kind.map(ToOwned::to_owned),
            namespace,
            name,
            message: shortened(&wait.because),
        }
    }
}
