//! Workloads whose sidecar is unusual, or that have none: what is in the mesh is moved, what is not is left alone.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Api;
use kube::api::ListParams;
use meshupgrade_e2e::{App, Mesh, SOURCE, Scenario, TARGET, Workload, scenario};
use serde_json::json;

use crate::{deployment, spec};

const SHOP: &str = "sc-shop";
const IMAGE: &str = "registry.example/proxyv2:ours";

fn mesh() -> Mesh {
    let app = |name| App::deployment(SHOP, name);
    Mesh::new()
        .on(SOURCE, SHOP)
        .app(app("native").replicas(2).pod_annotation("sidecar.istio.io/nativeSidecar", "true"))
        .app(app("classic").replicas(2).pod_annotation("sidecar.istio.io/nativeSidecar", "false"))
        .app(app("own-image").pod_annotation("sidecar.istio.io/proxyImage", IMAGE))
        .app(app("on-host").host_network())
        .app(app("opted-out").pod_label("sidecar.istio.io/inject", "false"))
}

fn without_sidecar() -> [Workload; 2] {
    [deployment(SHOP, "on-host"), deployment(SHOP, "opted-out")]
}

async fn pods(s: &Scenario, app: &str) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(s.client(), SHOP);
    Ok(pods.list(&ListParams::default().labels(&format!("app={app}"))).await?.items)
}

fn proxy(containers: Option<&Vec<Container>>) -> Option<&Container> {
    containers.into_iter().flatten().find(|container| container.name == "istio-proxy")
}

/// Each pod has its proxy among these containers and nowhere else.
async fn is_of_its_kind(s: &Scenario, app: &str, native: bool) -> Result<()> {
    for pod in pods(s, app).await? {
        let spec = pod.spec.context("a pod without a spec")?;
        let found = (proxy(spec.init_containers.as_ref()).is_some(), proxy(Some(&spec.containers)).is_some());
        ensure!(found == (native, !native), "{app} has a proxy as init container, as container: {found:?}");
    }
    Ok(())
}

async fn unusual(s: &mut Scenario) -> Result<()> {
    s.case.plain.extend(without_sidecar());
    s.mesh(mesh()).await?;
    s.wave(&[SHOP], 1);
    is_of_its_kind(s, "native", true).await?;
    is_of_its_kind(s, "classic", false).await?;
    s.start_operator()?;
    s.upgrade("mesh", spec(&[SHOP])).await?;
    let status = s.wait_phase("mesh", "Succeeded").await?;
    let plan = status.plan.context("no plan")?;
    ensure!(plan.workloads == 3 && plan.not_restarted.is_empty(), "{plan:?}");
    s.wait_mesh(&mesh(), TARGET).await?;
    is_of_its_kind(s, "native", true).await?;
    is_of_its_kind(s, "classic", false).await?;
    for pod in pods(s, "own-image").await? {
        let spec = pod.spec.context("a pod without a spec")?;
        let proxy = proxy(spec.init_containers.as_ref()).or(proxy(Some(&spec.containers)));
        let image = proxy.and_then(|proxy| proxy.image.as_deref());
        ensure!(image == Some(IMAGE), "the revision decides, whatever the image: {image:?}");
    }
    for workload in without_sidecar() {
        ensure!(s.generation(&workload).await? == 1, "{workload} has no sidecar and was restarted");
    }
    s.judge(&[]).await?;
    // Where the image decides, one that the owner fixed is named: no restart changes it.
    let patch = json!({"spec": {"sourceRevision": TARGET, "targetRevision": TARGET, "runId": "patch"}});
    s.patch_upgrade("mesh", patch).await?;
    s.wait_status("mesh", "own-image among what is not restarted", |status| {
        let rows = status.plan.iter().flat_map(|plan| &plan.not_restarted);
        rows.into_iter().any(|row| row.name == "own-image" && row.reason == "CustomProxyImage")
    })
    .await?;
    let status = s.wait_phase("mesh", "Succeeded").await?;
    ensure!(status.run.is_some_and(|run| run.run_id == "patch"), "the second run");
    ensure!(s.generation(&deployment(SHOP, "own-image")).await? == 2, "nothing of it changed");
    Ok(())
}

#[test]
fn unusual_sidecars_are_moved_and_what_has_none_is_left_alone() {
    scenario("sidecars", async |s: &mut Scenario| unusual(s).await);
}
