//! Two namespaces with workloads, and the MeshUpgrade that moves them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use meshupgrade_api::{MeshUpgrade, MeshUpgradeStatus};
use meshupgrade_e2e::upgrade::describe;
use meshupgrade_testbed::{apply_yaml, proxy_revisions, wait_for};
use serde_json::{Value, json};

use crate::install::MANAGER;
use crate::site::{RUN, Site};

/// Images may have to be pulled, and nodes to be found.
pub const PATIENCE: Duration = Duration::from_mins(5);
/// Phases in which a run is over.
const ENDS: [&str; 3] = ["Succeeded", "RolledBack", "Failed"];
/// Checks that look at the rest of the cluster, which is not this run's to judge.
const NOT_OURS: [&str; 6] = [
    "PodTemplatesMoved",
    "TagsMoved",
    "GatewaysMoved",
    "IstioResourcesMoved",
    "DefaultValidatorMoved",
    "NothingUncovered",
];

/// The stage of one scenario: `web` in the first namespace; `slow`, which takes its time, and `waiting` in the second.
pub struct Stage<'a> {
    /// The cluster.
    pub site: &'a Site,
    /// Its namespaces, which are its waves.
    pub namespaces: [String; 2],
    name: String,
}

impl<'a> Stage<'a> {
    /// The stage of a scenario; nothing is there yet.
    pub fn of(site: &'a Site, scenario: &str) -> Self {
        let name = format!("{}-{}", site.run, scenario.replace('_', "-"));
        Self { site, namespaces: [format!("{name}-1"), format!("{name}-2")], name }
    }

    /// Sets everything up on the source.
    pub async fn set(&self) -> Result<()> {
        let manifests: Vec<String> = self.manifests().iter().map(Value::to_string).collect();
        apply_yaml(&self.site.client, MANAGER, &manifests.join("\n---\n")).await?;
        self.wait_on(&self.site.source).await
    }

    fn manifests(&self) -> Vec<Value> {
        let [first, second] = &self.namespaces;
        let namespace = |name: &String| {
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name,
                "labels": {RUN: self.site.run, "istio.io/rev": self.site.source}}})
        };
        vec![
            namespace(first),
            namespace(second),
            self.deployment(first, "web", 0),
            // Long enough to act in the middle of its rollout.
            self.deployment(second, "slow", 5),
            self.deployment(second, "waiting", 0),
        ]
    }

    fn deployment(&self, namespace: &str, name: &str, min_ready_seconds: u32) -> Value {
        let labels = json!({"app": name});
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": 1, "minReadySeconds": min_ready_seconds, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "app", "image": self.site.image, "command": ["sleep", "1000000"]}],
            }},
        }})
    }

    /// Applies the MeshUpgrade, with these fields on top.
    pub async fn upgrade(&self, more: Value) -> Result<()> {
        let mut upgrade = self.manifest();
        if let (Some(spec), Value::Object(more)) = (upgrade["spec"].as_object_mut(), more) {
            spec.extend(more);
        }
        let params = PatchParams::apply(MANAGER).force();
        self.upgrades().patch(&self.name, &params, &Patch::Apply(upgrade)).await?;
        Ok(())
    }

    /// The MeshUpgrade: a wave for each namespace, and the old control plane stays.
    pub fn manifest(&self) -> Value {
        let waves: Value =
            self.namespaces.iter().map(|name| json!({"name": name, "namespaces": [name]})).collect();
        json!({"apiVersion": "meshupgrade.io/v1alpha1", "kind": "MeshUpgrade", "metadata": {"name": self.name},
        "spec": {
            "sourceRevision": self.site.source, "targetRevision": self.site.target, "waves": waves,
            "controlPlane": {"external": {"namespace": self.site.istio_namespace}},
            "injection": {"settleSeconds": 2}, "completion": {"mode": "Keep"}, "checks": {"skip": NOT_OURS},
        }})
    }

    /// Changes its spec.
    pub async fn patch(&self, spec: Value) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.upgrades().patch(&self.name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Runs until `slow` is in rollout.
    pub async fn up_to_the_middle(&self) -> Result<()> {
        self.upgrade(json!({})).await?;
        let begun = || async { Ok((self.restarts().await?[1] == 1).then_some(())) };
        let Err(error) = wait_for("the rollout of slow", PATIENCE, begun).await else { return Ok(()) };
        bail!("{error:#}\n{}", self.told().await)
    }

    /// How often `web`, `slow` and `waiting` were restarted: nobody else changes them.
    pub async fn restarts(&self) -> Result<[i64; 3]> {
        let mut counts = [0; 3];
        for (count, [namespace, name]) in counts.iter_mut().zip(self.workloads()) {
            let generation = self.deployment_of(namespace, name).await?.metadata.generation;
            *count = generation.context("a Deployment without generation")? - 1;
        }
        Ok(counts)
    }

    /// Fails unless every namespace has this label, and every pod of it this proxy.
    pub async fn all_on(&self, revision: &str) -> Result<()> {
        for name in &self.namespaces {
            ensure!(self.label(name).await? == revision, "{name} is not labelled {revision}");
            let pods = proxy_revisions(&self.site.client, name).await?;
            let good = |pod: &&meshupgrade_testbed::ProxyRevision| {
                pod.ready && pod.image.is_some() && pod.revision.as_deref() == Some(revision)
            };
            ensure!(!pods.is_empty() && pods.values().all(|pod| good(&pod)), "{name}: {pods:?}");
        }
        Ok(())
    }

    async fn label(&self, name: &str) -> Result<String> {
        let namespace = Api::<Namespace>::all(self.site.client.clone()).get(name).await?;
        Ok(namespace.labels().get("istio.io/rev").cloned().unwrap_or_default())
    }

    async fn wait_on(&self, revision: &str) -> Result<()> {
        wait_for(&format!("all pods on {revision}"), PATIENCE, || async {
            for [namespace, name] in self.workloads() {
                let status = self.deployment_of(namespace, name).await?.status.unwrap_or_default();
                // Available is more than ready: before, it would be passed over, and another one come first.
                ensure!(status.available_replicas == Some(1), "{namespace}/{name} is not available");
            }
            self.all_on(revision).await.map(Some)
        })
        .await
    }

    fn workloads(&self) -> [[&str; 2]; 3] {
        let [first, second] = &self.namespaces;
        [[first, "web"], [second, "slow"], [second, "waiting"]]
    }

    async fn deployment_of(&self, namespace: &str, name: &str) -> Result<Deployment> {
        Ok(Api::namespaced(self.site.client.clone(), namespace).get(name).await?)
    }

    fn upgrades(&self) -> Api<MeshUpgrade> {
        Api::all(self.site.client.clone())
    }

    /// Waits until the status is as wanted, or cannot be any more because the run is over.
    pub async fn wait(
        &self,
        what: &str,
        wanted: impl Fn(&MeshUpgradeStatus) -> bool,
    ) -> Result<MeshUpgradeStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let upgrade = self.upgrades().get(&self.name).await;
            let status = upgrade.ok().and_then(|upgrade| upgrade.status);
            let over = status.as_ref().is_some_and(|status| ENDS.contains(&status.phase.as_str()));
            if let Some(status) = status.filter(&wanted) {
                return Ok(status);
            }
            if over || Instant::now() > deadline {
                bail!("waited in vain for {what}\n{}", self.told().await);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Its MeshUpgrade, for errors.
    async fn told(&self) -> String {
        let upgrade = self.upgrades().get(&self.name).await;
        upgrade.map_or_else(|error| error.to_string(), |upgrade| describe(&upgrade))
    }

    /// Waits for a phase.
    pub async fn wait_phase(&self, phase: &str) -> Result<MeshUpgradeStatus> {
        self.wait(&format!("phase {phase}"), |status| status.phase == phase).await
    }

    /// Takes the MeshUpgrade and the namespaces away: they would be in the scope of the next scenario.
    pub async fn clear(&self) -> Result<()> {
        let params = DeleteParams::background();
        or_gone(self.upgrades().delete(&self.name, &params).await)?;
        let namespaces: Api<Namespace> = Api::all(self.site.client.clone());
        for name in &self.namespaces {
            or_gone(namespaces.delete(name, &params).await)?;
        }
        wait_for("the end of its namespaces", PATIENCE, || async {
            let left = try_join_all(self.namespaces.iter().map(|name| namespaces.get_opt(name))).await?;
            Ok(left.iter().all(Option::is_none).then_some(()))
        })
        .await
    }
}

/// What is not there needs no deletion.
pub fn or_gone<T>(deleted: kube::Result<T>) -> kube::Result<()> {
    match deleted {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        outcome => outcome.map(drop),
    }
}
