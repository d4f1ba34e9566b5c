//! Rules for what runs.

use meshupgrade_core::ids::{Revision, WorkloadRef};

use super::{Referee, Violation, rule};
use crate::neighbours::disruption::health;
use crate::world::World;
use crate::world::views::Kind;

impl Referee {
    pub(super) fn judge_pods(&mut self, world: &World) -> Result<(), Violation> {
        let kinds = [Kind::Pods, Kind::Workloads];
        let version = kinds.iter().filter_map(|kind| world.changed.get(kind)).max().copied().unwrap_or(0);
        if version == self.pods_checked {
            return Ok(());
        }
        self.pods_checked = version;
        self.forget_what_came_to_rest(world);
        self.sidecars(world)?;
        self.budgets(world)
    }

    /// I1: a workload that had a sidecar never gets a ready pod without one, because of what the operator wrote.
    fn sidecars(&self, world: &World) -> Result<(), Violation> {
        for pod in world.pods.values().filter(|pod| pod.revision().is_none()) {
            rule!(pod.view.proxy.is_none(), "I1: pod {} was injected twice", pod.view.name);
            let meshed = world.apps.get(&pod.workload).is_some_and(|app| app.meshed);
            let lost = pod.view.ready && pod.labelled_by_operator && meshed;
            rule!(
                !lost || self.tolerate.lost_sidecars,
                "I1: pod {} is ready without a sidecar",
                pod.view.name
            );
        }
        Ok(())
    }

    /// I2: budgets are met all the time.
    fn budgets(&self, world: &World) -> Result<(), Violation> {
        if self.tolerate.budgets {
            return Ok(());
        }
        for (namespace, budgets) in &world.budgets {
            for budget in budgets {
                let health = health(world, namespace, budget);
                rule!(
                    health.healthy >= health.desired,
                    "I2: budget {namespace}/{} wants {} healthy pods and has {}",
                    budget.name,
                    health.desired,
                    health.healthy
                );
            }
        }
        Ok(())
    }

    pub(super) fn forget_what_came_to_rest(&mut self, world: &World) {
        self.rolling.retain(|(workload, _), rolling| {
            world.apps.get(workload).is_some_and(|app| app.view.uid == rolling.uid)
                && !at_rest(world, workload, &rolling.destination)
        });
    }
}

/// Whether all pods of a workload are from its newest template and ready. Those on their way out do not count, unless
/// they are what the rollout is to replace.
fn at_rest(world: &World, workload: &WorkloadRef, destination: &Revision) -> bool {
    let Some(app) = world.apps.get(workload) else {
        return true;
    };
    let template = world.template_of(workload);
    let mut live = 0;
    for (_, pod) in world.pods_of(workload) {
        if pod.terminating() {
            if pod.revision() != Some(destination) {
                return false;
            }
        } else if pod.template == template && pod.view.ready {
            live += 1;
        } else {
            return false;
        }
    }
    live == app.view.replicas
}
