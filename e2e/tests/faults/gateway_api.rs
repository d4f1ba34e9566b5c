//! Gateways of the Gateway API, which the real istiods render: one that follows the label of its namespace, and one with a
//! label of its own in a namespace that is not in scope.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use meshupgrade_api::MeshUpgradeStatus;
use meshupgrade_core::plan::WaveKind;
use meshupgrade_e2e::audit::Log;
use meshupgrade_e2e::{App, Mesh, SOURCE, Scenario, TARGET, scenario};
use meshupgrade_testbed::wait_for;
use serde_json::{Value, json};

use crate::waves;

const SHOP: &str = "ga-shop";
const EDGE: &str = "ga-edge";
/// istiod looks for new kinds now and then.
const PATIENCE: Duration = Duration::from_mins(1);

fn gateway(namespace: &str, name: &str, revision: Option<&str>) -> Value {
    // Without a load balancer it would wait for an address.
    let mut metadata = json!({"name": name, "namespace": namespace,
        "annotations": {"networking.istio.io/service-type": "ClusterIP"}});
    if let Some(revision) = revision {
        metadata["labels"] = json!({"istio.io/rev": revision});
    }
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": metadata,
        "spec": {"gatewayClassName": "istio", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}})
}

fn mesh() -> Mesh {
    Mesh::new()
        .on(SOURCE, SHOP)
        .namespace(EDGE, &[])
        .app(App::deployment(SHOP, "web").replicas(2))
        .object(gateway(SHOP, "follows", None))
        .object(gateway(EDGE, "own", Some(SOURCE)))
}

fn gateways(s: &Scenario, namespace: &str) -> Api<DynamicObject> {
    let resource =
        ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "Gateway"));
    Api::namespaced_with(s.client(), namespace, &resource)
}

async fn label(s: &Scenario, namespace: &str, name: &str) -> Result<Option<String>> {
    let gateway = gateways(s, namespace).get(name).await?;
    Ok(gateway.metadata.labels.and_then(|mut labels| labels.remove("istio.io/rev")))
}

/// Waits until istiod of this revision runs the one pod of a Gateway, and no other.
async fn wait_rendered(s: &Scenario, namespace: &str, name: &str, revision: &str) -> Result<()> {
    let selector = format!("gateway.networking.k8s.io/gateway-name={name}");
    let path = "-o=jsonpath={range .items[*]}{.metadata.annotations.istio\\.io/rev} {.status.phase};{end}";
    wait_for(&format!("the pod of {name} on {revision}"), PATIENCE, || async {
        let found = s.cluster().kubectl(&["get", "pods", "-n", namespace, "-l", &selector, path]).await?;
        ensure!(found == format!("{revision} Running;"), "{found:?}");
        Ok(Some(()))
    })
    .await
}

async fn install(s: &Scenario) -> Result<()> {
    let crds = s.cluster().binaries().gateway_api_crds()?;
    s.cluster().apply_yaml(&crds).await?;
    let kind = "crd/gateways.gateway.networking.k8s.io";
    s.cluster().kubectl(&["wait", "--for=condition=Established", kind, "--timeout=30s"]).await?;
    wait_for("istiod's GatewayClass", PATIENCE, || async {
        s.cluster().kubectl(&["get", "gatewayclass", "istio"]).await.map(Some)
    })
    .await
    .map(drop)
}

/// The writes of the operator to Gateways and namespaces, in order, as `name=label`.
fn label_writes(s: &Scenario, log: &Log) -> Vec<String> {
    let ours = log.by(&s.case.operator).filter(|call| {
        ["gateways", "namespaces"].contains(&call.object.resource.as_str())
            && call.is_write()
            && call.succeeded()
    });
    ours.map(|call| {
        let value = call.request["metadata"]["labels"]["istio.io/rev"].as_str().unwrap_or("none").to_owned();
        format!("{}={value}", call.object.name)
    })
    .collect()
}

fn is_planned(status: &MeshUpgradeStatus) -> Result<()> {
    let plan = status.plan.as_ref().context("no plan")?;
    let last = plan.waves.last().context("no waves")?;
    ensure!(last.kind == WaveKind::Gateways && last.workloads == 2, "{:?}", plan.waves);
    ensure!(plan.not_restarted.is_empty(), "{:?}", plan.not_restarted);
    Ok(())
}

async fn there(s: &Scenario) -> Result<()> {
    let status = s.wait_status("mesh", "Completing", |status| status.phase == "Completing").await?;
    is_planned(&status)?;
    s.all_on(TARGET, &[SHOP]).await?;
    wait_rendered(s, SHOP, "follows", TARGET).await?;
    wait_rendered(s, EDGE, "own", TARGET).await?;
    ensure!(label(s, SHOP, "follows").await?.is_none(), "it follows its namespace again");
    ensure!(label(s, EDGE, "own").await?.as_deref() == Some(TARGET));
    let found = label_writes(s, &s.log().await?);
    let pinned = [format!("follows={SOURCE}"), format!("{SHOP}={TARGET}")];
    let moved = [format!("own={TARGET}"), "follows=none".to_owned()];
    let right =
        found.len() == 4 && found[..2] == pinned && moved.iter().all(|write| found[2..].contains(write));
    ensure!(right, "pinned, relabelled, moved, each once: {found:?}");
    Ok(())
}

async fn and_back(s: &Scenario) -> Result<()> {
    s.patch_upgrade("mesh", json!({"spec": {"rollback": {"requested": true, "controlPlane": "Keep"}}}))
        .await?;
    s.wait_phase("mesh", "RolledBack").await?;
    s.wait_mesh(&mesh(), SOURCE).await?;
    wait_rendered(s, SHOP, "follows", SOURCE).await?;
    wait_rendered(s, EDGE, "own", SOURCE).await?;
    ensure!(label(s, SHOP, "follows").await?.is_none(), "as it was");
    ensure!(label(s, EDGE, "own").await?.as_deref() == Some(SOURCE));
    for (namespace, name) in [(SHOP, "follows"), (EDGE, "own")] {
        let gateway = gateways(s, namespace).get(name).await?;
        let memory =
            gateway.metadata.annotations.unwrap_or_default().remove("meshupgrade.io/previous-labels");
        ensure!(memory.is_none(), "{name} still remembers {memory:?}");
    }
    Ok(())
}

/// What the chart's policy does not let the operator write, whatever its rights say.
async fn is_bound(s: &Scenario) -> Result<()> {
    let resource =
        ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "Gateway"));
    let api: Api<DynamicObject> = Api::namespaced_with(s.operator_client().await?, SHOP, &resource);
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    let refused = [
        (json!({"spec": {"gatewayClassName": "other"}}), "not change the spec of a Gateway"),
        (json!({"metadata": {"labels": {"team": "x"}}}), "only change the label istio.io/rev"),
        (json!({"metadata": {"annotations": {"team": "x"}}}), "begin with meshupgrade.io/"),
        (json!({"metadata": {"finalizers": ["example.com/a"]}}), "only change labels and annotations"),
    ];
    for (patch, says) in refused {
        let Err(error) = api.patch("follows", &dry, &Patch::Merge(&patch)).await else {
            bail!("accepted: {patch}");
        };
        ensure!(error.to_string().contains(says), "{patch}: {error}");
    }
    let allowed = json!({"metadata": {"labels": {"istio.io/rev": TARGET}}});
    api.patch("follows", &dry, &Patch::Merge(&allowed)).await.map(drop)?;
    Ok(())
}

async fn gateway_api(s: &mut Scenario) -> Result<()> {
    install(s).await?;
    s.mesh(mesh()).await?;
    wait_rendered(s, SHOP, "follows", SOURCE).await?;
    wait_rendered(s, EDGE, "own", SOURCE).await?;
    s.wave(&[SHOP], 1);
    s.case.gateways = [format!("{SHOP}/follows"), format!("{EDGE}/own")].into();
    s.start_operator()?;
    s.upgrade("mesh", json!({"targetRevision": TARGET, "waves": waves(&[SHOP])})).await?;
    there(s).await?;
    and_back(s).await?;
    s.judge(&[]).await?;
    is_bound(s).await
}

#[test]
fn gateways_of_the_gateway_api_are_pinned_and_moved_last() {
    scenario("gateway_api", async |s: &mut Scenario| gateway_api(s).await);
}
