//! The disruption controller: `status` of pod disruption budgets.
//! Source: pkg/controller/disruption/disruption.go in kubernetes/kubernetes.

use std::sync::Arc;

use meshupgrade_core::ids::NamespaceName;
use meshupgrade_core::observed::DisruptionBudget;

use crate::rng::Rng;
use crate::world::World;
use crate::world::views::Kind;

/// Recomputes the budgets of some namespaces.
pub fn step(world: &mut World, rng: &mut Rng) {
    let all: Vec<NamespaceName> = world.budgets.keys().cloned().collect();
    for namespace in rng.part(all) {
        sync(world, &namespace);
    }
}

/// What a budget counts: pods it expects, pods that are healthy, pods that must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// By the workloads' replicas.
    pub expected: u32,
    /// Ready and not on their way out.
    pub healthy: u32,
    /// The floor.
    pub desired: u32,
}

/// The health that a budget sees now.
pub fn health(world: &World, namespace: &NamespaceName, budget: &DisruptionBudget) -> Health {
    let selects = |labels| {
        budget.selector.as_ref().is_some_and(|selector| {
            selector.match_labels.iter().all(|(key, value)| {
                let found: Option<&String> = std::collections::BTreeMap::get(labels, key);
                found == Some(value)
            })
        })
    };
    let expected = world
        .apps
        .values()
        .filter(|app| app.view.reference.namespace == *namespace && selects(&app.view.template.labels))
        .map(|app| app.view.replicas)
        .sum();
    let healthy = world
        .pods
        .values()
        .filter(|pod| pod.workload.namespace == *namespace && selects(&pod.view.labels) && pod.available())
        .count();
    let desired = match (budget.min_available, budget.max_unavailable) {
        (Some(minimum), _) => minimum.of_rounded_up(expected),
        (None, Some(maximum)) => expected.saturating_sub(maximum.of_rounded_up(expected)),
        (None, None) => 0,
    };
    Health { expected, healthy: u32::try_from(healthy).unwrap_or(u32::MAX), desired }
}

fn sync(world: &mut World, namespace: &NamespaceName) {
    let budgets = world.budgets.get(namespace).cloned().unwrap_or_default();
    let renewed: Vec<Arc<DisruptionBudget>> = budgets
        .iter()
        .map(|budget| {
            let health = health(world, namespace, budget);
            let mut budget = DisruptionBudget::clone(budget);
            budget.observed = true;
            budget.expected_pods = health.expected;
            budget.disruptions_allowed = health.healthy.saturating_sub(health.desired);
            Arc::new(budget)
        })
        .collect();
    if renewed != budgets {
        world.budgets.insert(namespace.clone(), renewed);
        world.touch(Kind::Budgets);
    }
}
