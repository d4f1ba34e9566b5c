//! Removes everything that a run made, by its label, however the run ended.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use meshupgrade_testbed::wait_for;

use crate::install;
use crate::site::{RUN, Site};
use crate::stage::or_gone;

/// Pods of a real cluster may take their grace period to end.
const PATIENCE: Duration = Duration::from_mins(3);

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";
/// Group and kind of what the chart and the guard install for the whole cluster.
const CLUSTER_WIDE: [(&str, &str); 5] = [
    // With it go all MeshUpgrades.
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
    (RBAC, "ClusterRoleBinding"),
    (RBAC, "ClusterRole"),
    (ADMISSION, "ValidatingAdmissionPolicyBinding"),
    (ADMISSION, "ValidatingAdmissionPolicy"),
];

/// Removes everything, and waits until the namespaces are gone. What fails does not keep the rest.
pub async fn remove(site: &Site) -> Result<()> {
    println!("removing everything of {}", site.run);
    // The operator's token is of no use to anybody after this.
    let _ = fs::remove_file(install::directory(site)?.join("kubeconfig"));
    let istio = Some(site.istio_namespace.as_str());
    let cluster_wide = CLUSTER_WIDE.map(|(group, kind)| (group, kind, None));
    let of_istio = [(RBAC, "RoleBinding", istio), (RBAC, "Role", istio)];
    let mut outcomes = join_all(cluster_wide.into_iter().chain(of_istio).map(|(group, kind, namespace)| {
        delete_all(site, GroupVersionKind::gvk(group, "v1", kind), namespace)
    }))
    .await;
    outcomes.push(remove_namespaces(site).await);
    outcomes.into_iter().collect()
}

async fn delete_all(site: &Site, gvk: GroupVersionKind, namespace: Option<&str>) -> Result<()> {
    let resource = match gvk.kind.as_str() {
        "ValidatingAdmissionPolicy" => ApiResource::from_gvk_with_plural(&gvk, "validatingadmissionpolicies"),
        _ => ApiResource::from_gvk(&gvk),
    };
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(site.client.clone(), namespace, &resource),
        None => Api::all_with(site.client.clone(), &resource),
    };
    let outcome = api.delete_collection(&DeleteParams::background(), &ours(site)).await;
    outcome.map(drop).with_context(|| format!("cannot delete every {}", gvk.kind))
}

/// Namespaces can only be deleted one by one.
async fn remove_namespaces(site: &Site) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(site.client.clone());
    let list = namespaces.list(&ours(site)).await?;
    for namespace in &list {
        let name = namespace.metadata.name.clone().unwrap_or_default();
        let deleted = namespaces.delete(&name, &DeleteParams::background()).await;
        or_gone(deleted).with_context(|| format!("cannot delete namespace {name}"))?;
    }
    wait_for("the end of the namespaces", PATIENCE, || async {
        Ok(namespaces.list(&ours(site)).await?.items.is_empty().then_some(()))
    })
    .await
}

fn ours(site: &Site) -> ListParams {
    ListParams::default().labels(&format!("{RUN}={}", site.run))
}
