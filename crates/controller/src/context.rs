//! What every pass shares: clients, stores, and what is remembered between passes (nothing that must survive the
//! process: that is in `status`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use kube::{Api, ResourceExt};
use meshupgrade_api::MeshUpgrade;
use meshupgrade_core::aks::gateways::default_namespaces;
use meshupgrade_core::decision::Needs;
use meshupgrade_core::ids::{NamespaceName, Uid, WorkloadRef};
use meshupgrade_core::intent::Intent;
use meshupgrade_core::observed::{IstiodService, LoadBalancer, OtherUpgrade, Snapshot};

use crate::census::Censuses;
use crate::client::{CallError, Clients};
use crate::election::Leadership;
use crate::events::Events;
use crate::health::Health;
use crate::managed_clusters::ManagedClusters;
use crate::memory::{self, Memory};
use crate::metric_sources::MetricSources;
use crate::metrics::Metrics;
use crate::observe::Stores;
use crate::observe::istiod_service::RawIstiodService;
use crate::observe::service::RawService;
use crate::proxies::ProxyCount;
use crate::stop::Stop;
use crate::watch::Poke;
use crate::watch::config_maps::ConfigMapWatches;
use crate::watch::namespaced::{Look, NamespacedWatches};
use crate::watch::pods::PodWatches;
use crate::watch::upgrades::{Guarded, UpgradeStore};

/// What can be set from outside.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often a status is written when only its words change.
    pub status_interval: Duration,
    /// How often a census may be taken.
    pub census_interval: Duration,
    /// How often the standing count of proxies is taken; never if it is not set.
    pub proxy_interval: Option<Duration>,
    /// The operator's own workload, which is restarted last.
    pub operator: Option<WorkloadRef>,
    /// Namespaces in which the AKS add-on may have gateways.
    pub addon_namespaces: BTreeSet<NamespaceName>,
}

/// What every pass shares.
#[derive(Debug)]
pub struct Context {
    /// Connections to the API server.
    pub clients: Clients,
    /// What the cluster-wide watches keep.
    pub stores: Stores,
    /// Watches of pods, on demand.
    pub pods: PodWatches,
    /// Watches of the ConfigMaps of Istio namespaces, on demand.
    pub config_maps: ConfigMapWatches,
    /// Watches of the Services of Istio namespaces, on demand.
    pub istiod_services: NamespacedWatches<RawIstiodService>,
    /// Watches of the Services of the AKS add-on's gateways, on demand.
    pub gateway_services: NamespacedWatches<RawService>,
    /// Cluster-wide looks, on demand.
    pub censuses: Censuses,
    /// Queries of metric sources, on demand.
    pub metric_sources: MetricSources,
    /// Managed clusters of Azure, on demand.
    pub managed_clusters: ManagedClusters,
    /// The standing count of proxies.
    pub proxies: ProxyCount,
    /// All MeshUpgrades.
    pub upgrades: UpgradeStore,
    /// What is remembered of each MeshUpgrade.
    pub memory: Memory,
    /// Whether this process may write.
    pub leadership: Leadership,
    /// Kubernetes events.
    pub events: Events,
    /// Metrics.
    pub metrics: Metrics,
    /// The watchdog.
    pub health: Health,
    /// Asks for a pass.
    pub poke: Poke,
    /// Whether the process is to end.
    pub stop: Stop,
    /// What can be set from outside.
    pub settings: Settings,
}

impl Context {
    /// Whether the first list of MeshUpgrades is in.
    pub fn upgrades_synced(&self) -> bool {
        self.upgrades.wait_until_ready().now_or_never().is_some_and(|ready| ready.is_ok())
    }

    /// The object that a pass works on: the newest version that we know, and the first time what the API server itself
    /// has. The watch may be behind what an earlier leader wrote, and nothing may rest on an old record. `None` when it
    /// is gone.
    pub async fn confirmed(&self, cached: &MeshUpgrade) -> Result<Option<Arc<MeshUpgrade>>, CallError> {
        if self.memory.is_confirmed(&memory::uid(cached)) {
            return Ok(Some(self.memory.freshest(cached)));
        }
        let api: Api<MeshUpgrade> = Api::all(self.clients.calls());
        let Some(mut read) = self.clients.call(api.get_opt(&cached.name_any())).await? else {
            return Ok(None);
        };
        if read.uid() != cached.uid() {
            return Ok(None);
        }
        read.metadata.managed_fields = None;
        let read = Arc::new(read);
        self.memory.confirm(&read);
        Ok(Some(read))
    }

    /// All valid MeshUpgrades, each in the newest version that we know.
    fn all_upgrades(&self) -> Vec<Arc<MeshUpgrade>> {
        let cached = self.upgrades.state();
        let valid = cached.iter().filter_map(|object| object.0.as_ref().ok());
        valid.map(|cached| self.memory.freshest(cached)).collect()
    }

    /// Whether a watch event only brings back our own write, with nobody else who would care.
    pub fn is_own_echo(&self, object: &Guarded) -> bool {
        let alone = self.upgrades.len() <= 1;
        alone && object.0.as_ref().is_ok_and(|upgrade| self.memory.is_last_written(upgrade))
    }

    /// Forgets all that concerned MeshUpgrades which are gone. What they did stays as it is: no finalizer.
    pub fn forget_deleted(&self) {
        let cached = self.upgrades.state();
        let alive: BTreeSet<Uid> = cached.iter().filter_map(|object| object.uid().map(Uid)).collect();
        for (uid, gone) in self.memory.forget_all_but(&alive) {
            tracing::info!(upgrade = gone.name, "deleted: everything stays where it is");
            self.pods.want(&uid, &BTreeSet::new());
            self.censuses.forget(&uid);
            self.metric_sources.forget(&uid);
            self.managed_clusters.forget(&uid);
            if alive.is_empty() || !cached.iter().any(|object| object.name_any() == gone.name) {
                self.metrics.upgrades.forget(&gone.name, &gone.record);
            }
        }
        let intents: Vec<Intent> =
            self.all_upgrades().iter().filter_map(|upgrade| upgrade.intent().ok()).collect();
        self.config_maps.retain(&intents.iter().map(|intent| intent.istio_namespace.clone()).collect());
        self.istiod_services.retain(&intents.iter().map(|intent| intent.istio_namespace.clone()).collect());
        self.gateway_services.retain(&intents.iter().flat_map(gateway_namespaces).collect());
    }

    /// What one pass sees; `None` until the ConfigMaps of its Istio namespace are known, and the Services of gateways if they can be.
    pub fn snapshot(&self, upgrade: &MeshUpgrade, intent: &Intent) -> Option<Snapshot> {
        let config_maps = self.config_maps.get(&intent.istio_namespace)?;
        let gateway_services = self.gateway_services(intent)?;
        let istiod_services = match self.istiod_services(upgrade, intent) {
            Look::Known(services) => Some(services),
            Look::Unreadable => None,
            Look::Awaited => return None,
        };
        let needs = self.memory.needs(&intent.uid);
        Some(Snapshot {
            gateway_services,
            istiod_services,
            pods: self.pods.get(&needs.pods),
            census: self.censuses.last(&intent.uid),
            proxies: self.proxies.last(),
            census_problem: self.censuses.problem(&intent.uid),
            other_upgrades: self.other_upgrades(upgrade),
            applied: self.memory.applied(&intent.uid),
            refused: self.memory.refused(&intent.uid),
            operator: self.settings.operator.clone(),
            addon_namespaces: self.settings.addon_namespaces.clone(),
            aks: self.managed_clusters.last(&intent.uid),
            answers: self.metric_sources.answers(&intent.uid),
            ..self.stores.snapshot(&intent.istio_namespace, &config_maps)
        })
    }

    /// The Services of the add-on's gateways by namespace, without a namespace in which they cannot be read: nothing waits for a right
    /// that is missing. `None` while they are being read.
    fn gateway_services(&self, intent: &Intent) -> Option<BTreeMap<NamespaceName, Vec<Arc<LoadBalancer>>>> {
        let read = gateway_namespaces(intent).map(|name| (self.gateway_services.look(&name), name));
        let mut known = BTreeMap::new();
        // All of them are asked for before the first one is awaited.
        for (services, name) in read.collect::<Vec<_>>() {
            match services {
                Look::Known(services) => drop(known.insert(name, services)),
                Look::Unreadable => {}
                Look::Awaited => return None,
            }
        }
        Some(known)
    }

    /// What a snapshot waits for and cannot be read now: the reason for people, and what is wrong.
    pub fn unreadable(&self, intent: &Intent) -> Option<(&'static str, String)> {
        let told = |kind: &str, namespace: &NamespaceName, problem: String| {
            format!("the {kind} of namespace {namespace} cannot be read ({problem})")
        };
        let istio = &intent.istio_namespace;
        if let Some(problem) = self.config_maps.problem(istio) {
            return Some(("ConfigMapsUnreadable", told("ConfigMaps", istio, problem)));
        }
        // Without a right to Services the run goes on.
        let of_istiod = self.istiod_services.delay(istio).map(|problem| told("Services", istio, problem));
        let of_gateways = gateway_namespaces(intent).find_map(|name| {
            self.gateway_services.delay(&name).map(|problem| told("Services", &name, problem))
        });
        of_istiod.or(of_gateways).map(|told| ("ServicesUnreadable", told))
    }

    /// The Services of istiod, where the run moves a revision tag: nobody else needs them.
    fn istiod_services(&self, upgrade: &MeshUpgrade, intent: &Intent) -> Look<IstiodService> {
        let plan = upgrade.status.iter().filter_map(|status| status.plan.as_ref());
        let planned = plan.flat_map(|plan| &plan.waves).any(|wave| wave.tag.is_some());
        if planned || intent.tags().next().is_some() {
            self.istiod_services.look(&intent.istio_namespace)
        } else {
            Look::Unreadable
        }
    }

    /// Takes note of what the next pass must see. Returns when a census that has to wait can begin.
    pub fn need(&self, intent: &Intent, needs: &Needs) -> Option<Duration> {
        self.memory.set_needs(&intent.uid, needs);
        self.pods.want(&intent.uid, &needs.pods);
        self.metric_sources.want(&intent.uid, &needs.queries);
        self.managed_clusters.want(&intent.uid, needs.aks.as_ref());
        let since = needs.census_since?;
        self.censuses.want(self, intent, needs, since)
    }

    fn other_upgrades(&self, upgrade: &MeshUpgrade) -> Vec<OtherUpgrade> {
        let all = self.all_upgrades();
        let mut others: Vec<OtherUpgrade> = all
            .iter()
            .filter(|other| other.uid() != upgrade.uid())
            .map(|other| other_upgrade(upgrade, other))
            .collect();
        others.sort_by(|a, b| a.name.cmp(&b.name));
        others
    }
}

/// Where the add-on has gateways with addresses of their own, if the mesh is the add-on's.
fn gateway_namespaces(intent: &Intent) -> impl Iterator<Item = NamespaceName> + use<> {
    let addon = intent.is_addon();
    default_namespaces().filter(move |_| addon)
}

fn other_upgrade(upgrade: &MeshUpgrade, other: &MeshUpgrade) -> OtherUpgrade {
    let run = other.status.as_ref().and_then(|status| status.run.as_ref());
    let over = run.is_some_and(|run| run.ended_at.is_some());
    // One that only shows its plan, or is told to wait, keeps nobody waiting.
    let holds = other.spec.plan_only || other.spec.suspend;
    OtherUpgrade {
        name: other.name_any(),
        active: run.is_some_and(|run| run.started_at.is_some() && run.ended_at.is_none()),
        goes_first: !over && !holds && seniority(other) < seniority(upgrade),
    }
}

fn seniority(upgrade: &MeshUpgrade) -> (Option<Timestamp>, Option<String>) {
    (upgrade.creation_timestamp().map(|time| time.0), upgrade.uid())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn upgrade(name: &str, created: &str, status: &Value) -> MeshUpgrade {
        serde_json::from_value(json!({
            "apiVersion": "meshupgrade.io/v1alpha1", "kind": "MeshUpgrade",
            "metadata": {"name": name, "uid": format!("uid-{name}"), "creationTimestamp": created},
            "spec": {"targetRevision": "b", "controlPlane": {"external": {}}},
            "status": status,
        }))
        .unwrap()
    }

    fn run(started: bool, ended: bool) -> Value {
        let mut run = json!({"schema": 1, "counter": 1, "source": "a", "target": "b", "phase": "Migrating"});
        if started {
            run["startedAt"] = json!("2026-01-01T00:00:00Z");
        }
        if ended {
            run["endedAt"] = json!("2026-01-01T01:00:00Z");
        }
        json!({"run": run})
    }

    #[test]
    fn the_older_one_goes_first_and_of_the_same_age_the_smaller_uid() {
        let ours = upgrade("m", "2026-01-02T00:00:00Z", &json!({}));
        let first = |name, created| other_upgrade(&ours, &upgrade(name, created, &json!({}))).goes_first;
        assert!(first("z", "2026-01-01T00:00:00Z"));
        assert!(!first("a", "2026-01-03T00:00:00Z"));
        assert!(first("a", "2026-01-02T00:00:00Z"));
        assert!(!first("z", "2026-01-02T00:00:00Z"));
    }

    #[test]
    fn one_that_is_told_to_wait_keeps_nobody_waiting() {
        let ours = upgrade("m", "2026-01-02T00:00:00Z", &json!({}));
        for change in [
            |other: &mut MeshUpgrade| other.spec.plan_only = true,
            |other: &mut MeshUpgrade| other.spec.suspend = true,
        ] {
            let mut other = upgrade("old", "2026-01-01T00:00:00Z", &run(false, false));
            assert!(other_upgrade(&ours, &other).goes_first);
            change(&mut other);
            assert!(!other_upgrade(&ours, &other).goes_first);
        }
        let mut other = upgrade("old", "2026-01-01T00:00:00Z", &run(true, false));
        other.spec.suspend = true;
        assert!(other_upgrade(&ours, &other).active);
    }

    #[test]
    fn only_a_run_that_began_and_did_not_end_is_active() {
        let ours = upgrade("m", "2026-01-02T00:00:00Z", &json!({}));
        let other = |status| other_upgrade(&ours, &upgrade("old", "2026-01-01T00:00:00Z", &status));
        assert!(!other(run(false, false)).active);
        assert!(other(run(true, false)).active);
        let over = other(run(true, true));
        assert!(!over.active && !over.goes_first);
    }
}
