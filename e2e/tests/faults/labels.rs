//! Somebody puts a namespace's label back.

use anyhow::{Context as _, Result, ensure};
use meshupgrade_api::MeshUpgradeStatus;
use meshupgrade_e2e::{Mesh, SOURCE, Scenario, TARGET, scenario};
use meshupgrade_testbed::wait_for;
use serde_json::json;
use std::time::Duration;

use crate::{begin, deployment, label, spec, sync, untouched, up_to_the_middle};

/// The row says who did it, where, and what helps.
fn named(status: &MeshUpgradeStatus, namespace: &str, manager: &str) -> Result<()> {
    let row = status.blocked.iter().find(|row| row.reason == "LabelReverted").context("no row")?;
    ensure!(row.name.as_deref() == Some(namespace), "{row:?}");
    for word in [manager, namespace, SOURCE, TARGET, "meshupgrade.io/retry"] {
        ensure!(row.message.contains(word), "{word} is not in {:?}", row.message);
    }
    Ok(())
}

async fn reverted(s: &Scenario) -> Result<MeshUpgradeStatus> {
    s.wait_condition("mesh", "Stalled", "True", "LabelReverted").await
}

/// Applies a mesh of one namespace with a long settle time, and waits for its label.
async fn settling(s: &mut Scenario, name: &str) -> Result<()> {
    s.case.settle = Duration::from_secs(3);
    s.mesh(Mesh::new().on(SOURCE, name).deployments(name, &["web", "api"])).await?;
    s.wave(&[name], 1);
    s.start_operator()?;
    let mut spec = spec(&[name]);
    spec["injection"] = json!({"settleSeconds": 3});
    s.upgrade("mesh", spec).await?;
    wait_for("the label", Duration::from_secs(30), || async {
        Ok((s.revision_label(name).await? == TARGET).then_some(()))
    })
    .await
}

async fn within_settle_by_kubectl(s: &mut Scenario) -> Result<()> {
    settling(s, "lw-shop").await?;
    label(s, "lw-shop", SOURCE).await?;
    named(&reverted(s).await?, "lw-shop", "kubectl")?;
    untouched(s, 4, &[deployment("lw-shop", "web"), deployment("lw-shop", "api")]).await?;
    ensure!(s.revision_label("lw-shop").await? == SOURCE, "it fought");
    label(s, "lw-shop", TARGET).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.all_on(TARGET, &["lw-shop"]).await?;
    s.judge(&[]).await
}

#[test]
fn within_the_settle_time_by_kubectl_and_set_again() {
    scenario("label_within_settle", async |s: &mut Scenario| within_settle_by_kubectl(s).await);
}

async fn within_settle_by_argocd(s: &mut Scenario) -> Result<()> {
    settling(s, "la-shop").await?;
    sync(s, "argocd-controller", "la-shop", SOURCE).await?;
    named(&reverted(s).await?, "la-shop", "argocd-controller")?;
    untouched(s, 4, &[deployment("la-shop", "web"), deployment("la-shop", "api")]).await?;
    s.case.retries = 1;
    s.retry("mesh", "1").await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.all_on(TARGET, &["la-shop"]).await?;
    s.judge(&[]).await
}

#[test]
fn within_the_settle_time_by_argocd_and_retried() {
    scenario("label_within_settle_retry", async |s: &mut Scenario| within_settle_by_argocd(s).await);
}

async fn after_settle_by_kubectl(s: &mut Scenario) -> Result<()> {
    let names = ["lk-first", "lk-second"];
    up_to_the_middle(s, names).await?;
    // In a namespace whose wave is over: what restarts there would go back to the source.
    label(s, names[0], SOURCE).await?;
    named(&reverted(s).await?, names[0], "kubectl")?;
    s.wait_mesh_on(&crate::slow_mesh(names[0], names[1]), &[SOURCE, TARGET]).await?;
    untouched(s, 3, &[deployment(names[0], "web"), deployment(names[1], "waiting")]).await?;
    ensure!(s.generation(&deployment(names[1], "waiting")).await? == 1);
    label(s, names[0], TARGET).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.all_on(TARGET, &names).await?;
    s.judge(&[]).await
}

#[test]
fn after_the_settle_time_by_kubectl_and_set_again() {
    scenario("label_after_settle", async |s: &mut Scenario| after_settle_by_kubectl(s).await);
}

async fn after_settle_by_argocd(s: &mut Scenario) -> Result<()> {
    let names = ["lg-first", "lg-second"];
    up_to_the_middle(s, names).await?;
    // In the middle of a rollout: its next pods get the source's sidecar, though their template has the restart.
    sync(s, "argocd-controller", names[1], SOURCE).await?;
    named(&reverted(s).await?, names[1], "argocd-controller")?;
    s.wait_mesh_on(&crate::slow_mesh(names[0], names[1]), &[SOURCE, TARGET]).await?;
    untouched(s, 3, &[deployment(names[1], "slow"), deployment(names[1], "waiting")]).await?;
    ensure!(s.generation(&deployment(names[1], "waiting")).await? == 1);
    s.case.retries = 1;
    s.retry("mesh", "1").await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.all_on(TARGET, &names).await?;
    s.judge(&[]).await
}

#[test]
fn in_the_middle_of_a_rollout_by_argocd_and_retried() {
    scenario("label_in_rollout", async |s: &mut Scenario| after_settle_by_argocd(s).await);
}

/// Somebody fights for one namespace while the run goes back: the other one does not wait for that.
async fn fought_in_rollback(s: &mut Scenario) -> Result<()> {
    let names = ["lf-first", "lf-second"];
    up_to_the_middle(s, names).await?;
    s.patch_upgrade("mesh", json!({"spec": {"rollback": {"requested": true}}})).await?;
    wait_for("the label to go back", Duration::from_secs(30), || async {
        Ok((s.revision_label(names[0]).await? == SOURCE).then_some(()))
    })
    .await?;
    label(s, names[0], TARGET).await?;
    named(&reverted(s).await?, names[0], "kubectl")?;
    wait_for("the other namespace to go back", Duration::from_mins(1), || async {
        Ok(s.all_on(SOURCE, &[names[1]]).await.ok())
    })
    .await?;
    let status = s.status("mesh").await?;
    ensure!(status.phase == "RollingBack", "{}", status.phase);
    ensure!(s.revision_label(names[0]).await? == TARGET, "it fought");
    label(s, names[0], SOURCE).await?;
    s.wait_phase("mesh", "RolledBack").await?;
    s.all_on(SOURCE, &names).await?;
    s.judge(&[]).await
}

#[test]
fn in_a_rollback_by_kubectl_and_set_again() {
    scenario("label_in_rollback", async |s: &mut Scenario| fought_in_rollback(s).await);
}

async fn old_manifest_after_the_last_wave(s: &mut Scenario) -> Result<()> {
    let names = ["om-first", "om-second"];
    sync(s, "argocd-controller", names[0], SOURCE).await?;
    let mesh = begin(s, names).await?;
    // From now on the tool is its only owner.
    s.cluster().kubectl(&["label", "namespace", names[0], "istio.io/rev-"]).await?;
    sync(s, "argocd-controller", names[0], SOURCE).await?;
    s.start_operator()?;
    s.upgrade("mesh", spec(&names)).await?;
    s.wait_condition("mesh", "Stalled", "True", "GitStillOnOldRevision").await?;
    sync(s, "argocd-controller", names[0], SOURCE).await?;
    named(&reverted(s).await?, names[0], "argocd-controller")?;
    let all: Vec<_> = mesh.apps.iter().map(meshupgrade_e2e::App::workload).collect();
    untouched(s, 2, &all).await?;
    ensure!(s.status("mesh").await?.phase == "Completing");
    sync(s, "argocd-controller", names[0], TARGET).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.all_on(TARGET, &names).await?;
    s.judge(&[]).await
}

#[test]
fn the_old_manifest_is_synced_after_the_last_wave() {
    scenario("old_manifest", async |s: &mut Scenario| old_manifest_after_the_last_wave(s).await);
}
