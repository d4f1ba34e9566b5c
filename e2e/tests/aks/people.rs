//! People with the real Azure CLI, or its SDK, on the same cluster: they start, complete and roll back upgrades that the operator is at work on.

use anyhow::{Context as _, Result, ensure};
use meshupgrade_api::MeshUpgradeStatus;
use meshupgrade_arm_simulator::clients::{self, Az, Python};
use meshupgrade_core::record::RollbackCause;
use meshupgrade_e2e::azure::Azure;
use meshupgrade_e2e::{Mesh, SOURCE, Scenario, TARGET};
use meshupgrade_testbed::wait_for;
use serde_json::json;

use super::{End, RUN, aks, begin, begin_with, mesh};

/// A scenario with az, which is installed before the time of the scenario begins.
#[expect(clippy::panic, reason = "that is how a test fails")]
pub fn with_az(name: &str, body: impl AsyncFnOnce(&mut Scenario) -> Result<()>) {
    if let Err(error) = clients::install() {
        panic!("{error:#}");
    }
    aks(name, body);
}

/// Somebody has started the upgrade: the run takes it over, and its end is the only write of the operator.
async fn started(s: &mut Scenario) -> Result<()> {
    let names = ["aa-first", "aa-second"];
    let azure = Azure::start(s, &[SOURCE]).await?;
    let az = Az::sign_in(&azure.simulator).await?;
    az.mesh("upgrade start", &["--revision", TARGET]).await?;
    azure.has(&[SOURCE, TARGET])?;
    let mesh = begin(s, &azure, names, json!({})).await?;
    End::completed(1).reached(s, &azure, &mesh, &names).await?;
    azure.judge_az(&[&[SOURCE, TARGET]])?;
    s.judge(&[]).await
}

#[test]
fn what_az_started_is_taken_over() {
    with_az("aks_az_start", async |s: &mut Scenario| started(s).await);
}

/// A pipeline starts and completes with the Azure SDK: the run takes over what was begun, and never writes to Azure.
async fn by_a_pipeline(s: &mut Scenario) -> Result<()> {
    let names = ["aq-first", "aq-second"];
    let azure = Azure::start(s, &[SOURCE]).await?;
    let sdk = Python::new(&azure.simulator).await?;
    sdk.set_revisions(&[SOURCE, TARGET]).await?;
    let mesh = begin(s, &azure, names, json!({"completion": {"mode": "Manual"}})).await?;
    s.wait_status_within(RUN, "mesh", "the question whether the source may go", |status| {
        status.phase == "Completing" && asks(status)
    })
    .await?;
    sdk.set_revisions(&[TARGET]).await?;
    End::completed(0).reached(s, &azure, &mesh, &names).await?;
    azure.judge_az(&[&[SOURCE, TARGET], &[TARGET]])?;
    s.wait_event("CompletedBySomebody").await?;
    s.judge(&[]).await
}

#[test]
fn what_the_sdk_started_is_taken_over_and_what_it_completed_is_over() {
    with_az("aks_sdk", async |s: &mut Scenario| by_a_pipeline(s).await);
}

/// The run up to the approval of its second wave.
async fn between_the_waves(s: &mut Scenario, azure: &Azure, names: [&str; 2]) -> Result<Mesh> {
    let waves = json!([{"name": names[0], "namespaces": [names[0]]},
        {"name": names[1], "namespaces": [names[1]], "approval": "Required"}]);
    let mesh = begin(s, azure, names, json!({"waves": waves, "completion": {"mode": "Manual"}})).await?;
    s.wait_status_within(RUN, "mesh", "the approval of the second wave", |status| {
        status.run.as_ref().is_some_and(|run| run.wave == 1) && asks(status)
    })
    .await?;
    azure.has(&[SOURCE, TARGET])?;
    Ok(mesh)
}

fn asks(status: &MeshUpgradeStatus) -> bool {
    status.condition("Paused").is_some_and(|paused| paused.reason == "ApprovalRequired")
}

/// Says yes to what the status asks for.
async fn approve(s: &Scenario) -> Result<()> {
    let status = s.status("mesh").await?;
    let offer = status.actions.into_iter().find(|offer| offer.action == "approve").context("no approval")?;
    s.patch_upgrade("mesh", json!({"metadata": {"annotations": {"meshupgrade.io/action": offer.value}}}))
        .await
}

/// Somebody completes when half of the workloads are moved: the others are moved all the same, and there is nothing left to
/// accept at the end.
async fn completed(s: &mut Scenario) -> Result<()> {
    let names = ["aj-first", "aj-second"];
    let azure = Azure::start(s, &[SOURCE]).await?;
    let (mesh, az) = tokio::try_join!(between_the_waves(s, &azure, names), Az::sign_in(&azure.simulator))?;
    az.mesh("upgrade complete", &["--yes"]).await?;
    azure.has(&[TARGET])?;
    s.wait_event("CompletedBySomebody").await?;
    let told = |status: &MeshUpgradeStatus| status.message.contains("no way back") && asks(status);
    s.wait_status("mesh", "what it means", told).await?;
    // No injector answers for a pod that comes now: the run brings it back into the mesh.
    s.cluster().kubectl(&["delete", "pods", "-n", names[1], "-l", "app=waiting"]).await?;
    let dropped = || async { Ok(s.proxies(names[1]).await?.contains_key("-").then_some(())) };
    wait_for("a pod without a sidecar", RUN, dropped).await?;
    approve(s).await?;
    End::completed(1).reached(s, &azure, &mesh, &names).await?;
    azure.judge_az(&[&[TARGET]])?;
    s.judge(&["every-pod-has-a-sidecar"]).await
}

#[test]
fn what_az_completed_goes_on_to_the_end() {
    with_az("aks_az_complete", async |s: &mut Scenario| completed(s).await);
}

/// The run up to a batch of its second wave that takes longer than a command of az, which is signed in. The run ends nothing
/// by itself: however slow az is, it finds the upgrade.
async fn within_a_batch<'a>(s: &mut Scenario, azure: &'a Azure, names: [&str; 2]) -> Result<(Mesh, Az<'a>)> {
    let az = Az::sign_in(&azure.simulator).await?;
    let manual = json!({"completion": {"mode": "Manual"}});
    let mesh = begin_with(s, azure, mesh(names, "6s"), names, manual).await?;
    s.wait_status_within(RUN, "mesh", "the second wave", |status| {
        status.run.as_ref().is_some_and(|run| run.wave == 1 && run.batch.is_some())
    })
    .await?;
    Ok((mesh, az))
}

/// Somebody completes while a workload is in rollout: the run goes on to its end.
async fn completed_within_a_batch(s: &mut Scenario) -> Result<()> {
    let names = ["aw-first", "aw-second"];
    let azure = Azure::start(s, &[SOURCE]).await?;
    let (mesh, az) = within_a_batch(s, &azure, names).await?;
    az.mesh("upgrade complete", &["--yes"]).await?;
    s.wait_event("CompletedBySomebody").await?;
    End::completed(1).reached(s, &azure, &mesh, &names).await?;
    azure.judge_az(&[&[TARGET]])?;
    s.judge(&[]).await
}

#[test]
fn what_az_completed_within_a_batch_goes_on_to_the_end() {
    with_az("aks_az_complete_within_a_batch", async |s: &mut Scenario| completed_within_a_batch(s).await);
}

/// Somebody rolls back while a workload is in rollout: what was moved comes back.
async fn rolled_back(s: &mut Scenario) -> Result<()> {
    let names = ["ab-first", "ab-second"];
    let azure = Azure::start(s, &[SOURCE]).await?;
    let (mesh, az) = within_a_batch(s, &azure, names).await?;
    az.mesh("upgrade rollback", &["--yes"]).await?;
    let status = End::rolled_back(1).reached(s, &azure, &mesh, &names).await?;
    let rollback = status.run.and_then(|run| run.rollback).context("no cause")?;
    ensure!(rollback.cause == RollbackCause::TargetRemoved, "{rollback:?}");
    azure.judge_az(&[&[SOURCE]])?;
    // What was made between the removal and our write has none, and was replaced.
    s.judge(&["every-pod-has-a-sidecar"]).await
}

#[test]
fn what_az_rolled_back_within_a_batch_comes_back() {
    with_az("aks_az_rollback", async |s: &mut Scenario| rolled_back(s).await);
}
