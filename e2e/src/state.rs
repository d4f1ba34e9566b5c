//! Reading what the cluster has come to.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt as _};
use meshupgrade_testbed::{is_ready, wait_for};
use serde_json::Value;

use crate::mesh::Mesh;
use crate::referee::Workload;
use crate::scenario::{SOON, Scenario};

/// Pods of each revision; `-` is for pods without a proxy.
pub type Proxies = BTreeMap<String, usize>;

impl Scenario {
    /// Waits until every workload of a mesh has its pods, ready and with the proxy of a revision.
    pub async fn wait_mesh(&self, mesh: &Mesh, revision: &str) -> Result<()> {
        self.wait_mesh_on(mesh, &[revision]).await
    }

    /// Waits until every workload of a mesh has its pods, ready and with the proxy of one of these revisions.
    pub async fn wait_mesh_on(&self, mesh: &Mesh, revisions: &[&str]) -> Result<()> {
        let revision = revisions.join(" or ");
        wait_for(&format!("the mesh to run on {revision}"), SOON, || async {
            let pods = self.pods().await?;
            for app in &mesh.apps {
                let workload = app.workload();
                let plain = self.case.plain.contains(&workload);
                let alike = pods.iter().filter(|pod| {
                    pod.namespace().as_deref() == Some(&workload.namespace)
                        && pod.labels().get("app") == Some(&workload.name)
                        && pod.metadata.deletion_timestamp.is_none()
                });
                let good = alike.filter(|pod| {
                    is_ready(pod)
                        && (plain
                            || pod
                                .annotations()
                                .get("istio.io/rev")
                                .is_some_and(|rev| revisions.contains(&rev.as_str())))
                });
                let count = good.count();
                ensure!(count == app.pods(), "{workload} has {count} of {} pods on {revision}", app.pods());
            }
            Ok(Some(()))
        })
        .await
    }

    async fn pods(&self) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::all(self.client());
        Ok(pods.list(&ListParams::default()).await?.items)
    }

    /// Live pods of a namespace by the revision of their proxy.
    pub async fn proxies(&self, namespace: &str) -> Result<Proxies> {
        let mut counts = Proxies::new();
        for pod in self.cluster().proxy_revisions(namespace).await?.into_values() {
            let revision = if pod.image.is_some() { pod.revision } else { None };
            *counts.entry(revision.unwrap_or_else(|| "-".into())).or_default() += 1;
        }
        Ok(counts)
    }

    /// Fails unless all pods of these namespaces run on one revision.
    pub async fn all_on(&self, revision: &str, namespaces: &[&str]) -> Result<()> {
        for namespace in namespaces {
            let proxies = self.proxies(namespace).await?;
            ensure!(
                !proxies.is_empty() && proxies.keys().all(|found| found == revision),
                "pods of {namespace} should all be on {revision}: {proxies:?}"
            );
        }
        Ok(())
    }

    /// Labels of a namespace without those of Kubernetes and of the scenario.
    pub async fn labels(&self, namespace: &str) -> Result<BTreeMap<String, String>> {
        let mut labels = self.namespace(namespace).await?.labels().clone();
        labels.retain(|key, _| key != crate::mesh::MARK && key != "kubernetes.io/metadata.name");
        Ok(labels)
    }

    /// A namespace.
    pub async fn namespace(&self, name: &str) -> Result<Namespace> {
        Ok(Api::<Namespace>::all(self.client()).get(name).await?)
    }

    /// The value of `istio.io/rev` of a namespace, empty without.
    pub async fn revision_label(&self, namespace: &str) -> Result<String> {
        Ok(self.labels(namespace).await?.remove("istio.io/rev").unwrap_or_default())
    }

    /// The objects of a workload's kind in its namespace.
    pub fn workloads(&self, workload: &Workload) -> Result<Api<DynamicObject>> {
        let kind = match workload.resource.as_str() {
            "deployments" => GroupVersionKind::gvk("apps", "v1", "Deployment"),
            "statefulsets" => GroupVersionKind::gvk("apps", "v1", "StatefulSet"),
            "rollouts" => GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Rollout"),
            _ => GroupVersionKind::gvk("apps", "v1", "DaemonSet"),
        };
        let resource = ApiResource::from_gvk(&kind);
        Ok(Api::namespaced_with(self.client(), &workload.namespace, &resource))
    }

    /// `metadata.generation` of a workload: 1 when nobody changed it.
    pub async fn generation(&self, workload: &Workload) -> Result<i64> {
        let object = self.workloads(workload)?.get(&workload.name).await?;
        object.metadata.generation.context("a workload without generation")
    }

    /// A merge patch of a workload by the field manager of somebody else.
    pub async fn patch_workload(&self, workload: &Workload, manager: &str, patch: Value) -> Result<()> {
        let params = PatchParams { field_manager: Some(manager.into()), ..PatchParams::default() };
        self.workloads(workload)?.patch(&workload.name, &params, &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Waits for an event of the operator with this reason about a namespace, and returns its note.
    pub async fn wait_event_about(&self, reason: &str, namespace: &str) -> Result<String> {
        let events: Api<Event> = Api::all(self.client());
        wait_for(&format!("an event {reason} about {namespace}"), SOON, || async {
            let all = events.list(&ListParams::default()).await?;
            let found = all.items.into_iter().find(|event| {
                event.reason.as_deref() == Some(reason)
                    && event.related.as_ref().and_then(|related| related.name.as_deref()) == Some(namespace)
            });
            Ok(found.map(|event| event.note.unwrap_or_default()))
        })
        .await
    }

    /// Waits for an event of the operator with this reason.
    pub async fn wait_event(&self, reason: &str) -> Result<Event> {
        let events: Api<Event> = Api::all(self.client());
        wait_for(&format!("an event {reason}"), SOON, || async {
            let all = events.list(&ListParams::default()).await?;
            Ok(all.items.into_iter().find(|event| {
                event.reason.as_deref() == Some(reason)
                    && event.reporting_controller.as_deref() == Some("meshupgrade-operator")
            }))
        })
        .await
    }
}
