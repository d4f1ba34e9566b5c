//! The mesh changes while it is moved.

use std::time::Duration;

use anyhow::{Result, ensure};
use kube::api::DeleteParams;
use meshupgrade_e2e::{App, Mesh, SOURCE, Scenario, TARGET, scenario};
use meshupgrade_testbed::wait_for;
use serde_json::json;

use crate::{deployment, spec, up_to_the_middle, wait_patched};

/// Everything in the second wave, while its first workload is in rollout.
async fn churn(s: &mut Scenario) -> Result<()> {
    let [first, second, third] = ["ch-first", "ch-second", "ch-third"];
    let mesh = Mesh::new()
        .on(SOURCE, first)
        .on(SOURCE, second)
        .on(SOURCE, third)
        .deployments(first, &["web"])
        .app(App::deployment(second, "busy").replicas(3).set("ready-after", "1500ms"))
        .app(App::deployment(second, "doomed"))
        .app(App::deployment(second, "grown"))
        .app(App::deployment(second, "redeployed").replicas(2))
        .deployments(third, &["gone"]);
    s.mesh(mesh).await?;
    for name in [first, second, third, "ch-late"] {
        s.wave(&[name], 1);
    }
    s.start_operator()?;
    s.upgrade("mesh", spec(&[first, second, third])).await?;
    wait_patched(s, &deployment(second, "busy"), 2).await?;
    // Deleted, scaled, redeployed and created, each by its owner.
    s.workloads(&deployment(second, "doomed"))?.delete("doomed", &DeleteParams::background()).await?;
    let scale = |replicas| json!({"spec": {"replicas": replicas}});
    s.patch_workload(&deployment(second, "grown"), "owner", scale(3)).await?;
    s.patch_workload(&deployment(second, "busy"), "owner", scale(4)).await?;
    let image = json!({"spec": {"template": {"metadata": {"annotations": {"release": "2"}}}}});
    s.patch_workload(&deployment(second, "redeployed"), "owner", image).await?;
    s.cluster().kubectl(&["delete", "namespace", third, "--wait=false"]).await?;
    let late = Mesh::new()
        .on(SOURCE, "ch-late")
        .deployments("ch-late", &["late"])
        .app(App::deployment(second, "new"));
    s.apply_mesh(&late).await?;
    let status = s.wait_phase("mesh", "Succeeded").await?;
    let stragglers = status.plan.is_some_and(|plan| plan.waves.iter().any(|wave| wave.name == "stragglers"));
    ensure!(stragglers, "the late namespace has no wave");
    s.all_on(TARGET, &[first, second, "ch-late"]).await?;
    let pods = s.proxies(second).await?;
    ensure!(pods[TARGET] == 4 + 3 + 2 + 1, "{pods:?}");
    s.judge(&["write-budget"]).await
}

#[test]
fn namespaces_and_workloads_come_and_go() {
    scenario("churn", async |s: &mut Scenario| churn(s).await);
}

/// The workload that is in rollout right now goes away.
async fn vanished(s: &mut Scenario) -> Result<()> {
    let names = ["va-first", "va-second"];
    up_to_the_middle(s, names).await?;
    let slow = deployment(names[1], "slow");
    s.workloads(&slow)?.delete("slow", &DeleteParams::background()).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    wait_for("the last pod", Duration::from_secs(30), || async {
        Ok((s.proxies(names[1]).await?.get(TARGET) == Some(&1)).then_some(()))
    })
    .await?;
    // Its pods end with it.
    s.judge(&["enough-pods-ready"]).await
}

#[test]
fn the_workload_in_rollout_is_deleted() {
    scenario("vanished", async |s: &mut Scenario| vanished(s).await);
}

/// Its owner deploys a new version in the middle of the restart, with our annotation kept (server-side apply).
async fn redeployed(s: &mut Scenario) -> Result<()> {
    let names = ["rd-first", "rd-second"];
    let mesh = up_to_the_middle(s, names).await?;
    let slow = deployment(names[1], "slow");
    let release = json!({"spec": {"template": {"metadata": {"annotations": {"release": "2"}}}}});
    s.patch_workload(&slow, "owner", release).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.wait_mesh(&mesh, TARGET).await?;
    ensure!(s.generation(&slow).await? == 3, "restarted once, deployed once");
    s.judge(&[]).await
}

#[test]
fn the_workload_in_rollout_is_redeployed() {
    scenario("redeployed", async |s: &mut Scenario| redeployed(s).await);
}
