//! Pod disruption budgets against restarts.
//!
//! A rollout ignores budgets: only evictions ask for them. So what a workload's own strategy may take away is compared with
//! what its budgets allow, before each restart, with the arithmetic of Kubernetes' disruption controller (source:
//! `getExpectedPodCount` and `updatePdbStatus` in pkg/controller/disruption/disruption.go).

use std::sync::Arc;

use crate::ids::WorkloadKind;
use crate::observed::{DisruptionBudget, IntOrPercent, Strategy, Workload};

/// Whether budgets let a workload be restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Now.
    Allowed,
    /// Not now; the text names the budget and what it waits for.
    Wait(String),
    /// Not even with every pod healthy and nothing else in rollout; the text names the budget and the remedy.
    Never(String),
}

/// How many ready pods the workload's own strategy may take away at once.
///
/// Sources in Kubernetes: `ResolveFenceposts` (Deployment), `getStatefulSetMaxUnavailable` (StatefulSet; 1 where the
/// cluster does not know the field), `updatedDesiredNodeCounts` (DaemonSet).
///
/// Argo Rollouts evicts `maxUnavailable` pods at a time, one if that is 0 (`Reconcile` in rollout/restart.go).
pub fn strategy_disruption(workload: &Workload) -> u32 {
    let replicas = workload.replicas;
    let unbounded = match workload.strategy {
        Strategy::Recreate => replicas,
        Strategy::OnDelete => 0,
        Strategy::Partitioned { partition } => replicas.saturating_sub(partition).min(1),
        Strategy::RollingUpdate { max_unavailable, max_surge } => {
            let surge = max_surge.of_rounded_up(replicas);
            match workload.reference.kind {
                WorkloadKind::Deployment => or_one(max_unavailable.of_rounded_down(replicas), surge),
                WorkloadKind::StatefulSet | WorkloadKind::Rollout => {
                    max_unavailable.of_rounded_down(replicas).max(1)
                }
                WorkloadKind::DaemonSet if surge > 0 => 0,
                WorkloadKind::DaemonSet => max_unavailable.of_rounded_up(replicas).max(1),
            }
        }
    };
    unbounded.min(replicas)
}

/// With neither room below nor above nothing could move: Kubernetes then takes one away.
fn or_one(unavailable: u32, surge: u32) -> u32 {
    if surge == 0 { unavailable.max(1) } else { unavailable }
}

/// How many ready pods a rollout may add on top. They count as healthy until the old ones go, so that a budget seems to
/// have room that it has not.
fn strategy_surge(workload: &Workload) -> u32 {
    match workload.strategy {
        Strategy::RollingUpdate { max_surge, .. } => max_surge.of_rounded_up(workload.replicas),
        Strategy::Recreate | Strategy::OnDelete | Strategy::Partitioned { .. } => 0,
    }
}

/// Whether the budgets of its namespace let a workload be restarted now.
///
/// `open` are the workloads of the same namespace that are in rollout because of us: all that they may still take away is
/// subtracted, whether they took it yet or not, because their state and the budget's status are not of the same moment.
/// Every budget that selects the pods must hold. Without one the owner's strategy counts as accepted. Selectors see the
/// labels of the template; labels that only live pods have (ordinals, what injection adds) are not considered.
pub fn budget_verdict(workload: &Workload, budgets: &[Arc<DisruptionBudget>], open: &[&Workload]) -> Verdict {
    let disruption = needed(workload);
    if disruption == 0 {
        return Verdict::Allowed;
    }
    let mut waiting = None;
    for budget in budgets.iter().filter(|budget| selects(budget, workload)) {
        match one_budget(workload, disruption, budget, open) {
            Verdict::Allowed => {}
            Verdict::Wait(message) => waiting = waiting.or(Some(message)),
            never @ Verdict::Never(_) => return never,
        }
    }
    waiting.map_or(Verdict::Allowed, Verdict::Wait)
}

/// How much room a workload needs in its budgets. Evictions ask for them one by one and wait where there is none, so that a
/// Rollout of Argo Rollouts comes through with room for one pod, and needs no arithmetic of ours beyond that.
fn needed(workload: &Workload) -> u32 {
    let disruption = strategy_disruption(workload);
    if workload.reference.kind == WorkloadKind::Rollout { disruption.min(1) } else { disruption }
}

fn selects(budget: &DisruptionBudget, workload: &Workload) -> bool {
    budget.selector.as_ref().is_some_and(|selector| selector.matches(&workload.template.labels))
}

fn one_budget(
    workload: &Workload,
    disruption: u32,
    budget: &DisruptionBudget,
    open: &[&Workload],
) -> Verdict {
    if uncountable(workload, budget) {
        return Verdict::Never(uncountable_message(workload, budget));
    }
    if !budget.observed {
        return Verdict::Wait(format!(
            "Kubernetes has not computed pod disruption budget {} yet: kubectl describe poddisruptionbudget {} -n {}",
            budget.name, budget.name, workload.reference.namespace
        ));
    }
    // Pods that are not there yet are counted as if they were: a budget is not hopeless because a workload scales up.
    let expected = budget.expected_pods.max(workload.replicas);
    let desired = desired_healthy(budget, expected);
    let room = expected.saturating_sub(desired);
    if room < disruption {
        return Verdict::Never(never_message(workload, disruption, budget, expected, desired));
    }
    let taken = taken(workload, budget, open);
    // Ready pods on top of what is asked for, of any rollout, make a budget seem roomier than it can be.
    let allowed = budget.disruptions_allowed.min(room);
    if allowed.saturating_sub(taken) < disruption {
        return Verdict::Wait(wait_message(disruption, budget, allowed, taken));
    }
    Verdict::Allowed
}

/// What open rollouts may take from a budget, plus the room that their extra pods only seem to make.
fn taken(workload: &Workload, budget: &DisruptionBudget, open: &[&Workload]) -> u32 {
    open.iter()
        .filter(|other| other.reference != workload.reference && selects(budget, other))
        .map(|other| strategy_disruption(other).saturating_add(strategy_surge(other)))
        .fold(0, u32::saturating_add)
}

/// How many pods a budget wants healthy of those that it counts. One that sets neither field allows nothing.
fn desired_healthy(budget: &DisruptionBudget, expected: u32) -> u32 {
    match (budget.max_unavailable, budget.min_available) {
        (Some(unavailable), _) => expected.saturating_sub(unavailable.of_rounded_up(expected)),
        (None, Some(available)) => available.of_rounded_up(expected),
        (None, None) => expected,
    }
}

/// Kubernetes cannot ask a DaemonSet for its scale, so a budget for one is never computed unless `minAvailable` is a plain
/// number (source: `getExpectedScale`). Waiting for it would not end.
fn uncountable(workload: &Workload, budget: &DisruptionBudget) -> bool {
    workload.reference.kind == WorkloadKind::DaemonSet
        && (budget.max_unavailable.is_some() || !matches!(budget.min_available, Some(IntOrPercent::Int(_))))
}

fn uncountable_message(workload: &Workload, budget: &DisruptionBudget) -> String {
    format!(
        "pod disruption budget {name} cannot be computed for a DaemonSet: Kubernetes counts its pods only if \
         spec.minAvailable is a number: kubectl edit poddisruptionbudget {name} -n {namespace}",
        name = budget.name,
        namespace = workload.reference.namespace,
    )
}

fn never_message(
    workload: &Workload,
    disruption: u32,
    budget: &DisruptionBudget,
    expected: u32,
    desired: u32,
) -> String {
    let edit =
        format!("kubectl edit poddisruptionbudget {} -n {}", budget.name, workload.reference.namespace);
    let remedy = match owner_remedy(workload, disruption, budget, expected) {
        Some(remedy) => format!("{remedy}, or {edit}"),
        None => edit,
    };
    format!(
        "pod disruption budget {} wants {desired} of {expected} pods healthy, and a rollout of {} {} may take {disruption} \
         away: {remedy}",
        budget.name, workload.reference.kind, workload.reference.name,
    )
}

/// What the workload's owner can do instead of changing the budget, if that helps.
fn owner_remedy(
    workload: &Workload,
    disruption: u32,
    budget: &DisruptionBudget,
    expected: u32,
) -> Option<String> {
    let reference = &workload.reference;
    match reference.kind {
        WorkloadKind::Deployment if workload.strategy == Strategy::Recreate => {
            Some("set spec.strategy.type to RollingUpdate with maxUnavailable 0 and maxSurge 1".to_owned())
        }
        WorkloadKind::Deployment => {
            Some("set spec.strategy.rollingUpdate.maxUnavailable to 0 and maxSurge to 1".to_owned())
        }
        WorkloadKind::DaemonSet => {
            Some("set spec.updateStrategy.rollingUpdate.maxUnavailable to 0 and maxSurge to 1".to_owned())
        }
        WorkloadKind::StatefulSet | WorkloadKind::Rollout => {
            let more = expected.saturating_add(1);
            (more.saturating_sub(desired_healthy(budget, more)) >= disruption).then(|| {
                format!(
                    "kubectl scale {} {} -n {} --replicas={}",
                    reference.kind.as_str().to_lowercase(),
                    reference.name,
                    reference.namespace,
                    workload.replicas.saturating_add(1)
                )
            })
        }
    }
}

fn wait_message(disruption: u32, budget: &DisruptionBudget, allowed: u32, taken: u32) -> String {
    let others = if taken == 0 {
        String::new()
    } else {
        format!(", of which rollouts that are open may need {taken}")
    };
    format!(
        "pod disruption budget {} allows {allowed} now{others}, and {needed} needed: waits until its pods are healthy",
        budget.name,
        needed = if disruption == 1 { "1 is".to_owned() } else { format!("{disruption} are") },
    )
}

#[cfg(test)]
mod tests;
