//! The provider of a mesh patches a control plane in place: its injector gives proxies of another version.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use meshupgrade_testbed::wait_for;
use serde_json::{Value, json};

use crate::SOURCE;
use crate::scenario::{SOON, Scenario};

impl Scenario {
    fn injector_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client(), self.cluster().istio_namespace())
    }

    /// The values of the source's injector.
    pub async fn injector_values(&self) -> Result<String> {
        let map = self.injector_maps().get(&injector()).await?;
        map.data.and_then(|mut data| data.remove("values")).context("no values")
    }

    /// Sets the values of the source's injector, for example to what they were.
    pub async fn set_injector_values(&self, values: &str) -> Result<()> {
        let patch = Patch::Merge(json!({"data": {"values": values}}));
        self.injector_maps().patch(&injector(), &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// istiod of the source reads its values again, and new pods get a proxy of this version: tried in a namespace, without
    /// leaving a pod behind.
    pub async fn patch_source(&self, version: &str, namespace: &str) -> Result<()> {
        let mut all: Value = serde_json::from_str(&self.injector_values().await?)?;
        all["global"]["tag"] = json!(version);
        self.set_injector_values(&all.to_string()).await?;
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe", "namespace": namespace},
            "spec": {"containers": [{"name": "app", "image": "app:1"}]}});
        let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let pod: Pod = serde_json::from_value(pod)?;
        wait_for(&format!("istiod to inject {version}"), SOON, || async {
            let spec = pods.create(&dry, &pod).await?.spec.unwrap_or_default();
            let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
            let image = containers.filter(|one| one.name == "istio-proxy").find_map(|one| one.image.clone());
            ensure!(image.as_ref().is_some_and(|image| image.ends_with(version)), "it injects {image:?}");
            Ok(Some(()))
        })
        .await
    }

    /// How many pods of these namespaces have a proxy of each version.
    pub async fn proxy_versions(&self, namespaces: &[&str]) -> Result<BTreeMap<String, usize>> {
        let mut found = BTreeMap::new();
        for namespace in namespaces {
            for pod in self.cluster().proxy_revisions(namespace).await?.into_values() {
                let image = pod.image.unwrap_or_default();
                let version = image.rsplit(':').next().unwrap_or_default().to_owned();
                *found.entry(version).or_default() += 1;
            }
        }
        Ok(found)
    }

    /// Waits until these namespaces have so many pods, all with proxies of this version.
    pub async fn wait_proxy_version(&self, namespaces: &[&str], version: &str, pods: usize) -> Result<()> {
        wait_for(&format!("{pods} proxies of {version}"), Duration::from_secs(30), || async {
            let found = self.proxy_versions(namespaces).await?;
            ensure!(found == [(version.to_owned(), pods)].into(), "{found:?}");
            Ok(Some(()))
        })
        .await
    }
}

fn injector() -> String {
    format!("istio-sidecar-injector-{SOURCE}")
}
