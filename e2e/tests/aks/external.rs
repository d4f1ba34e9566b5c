//! The add-on without any right in Azure: a person starts and removes control planes with az, and the run says when.

use anyhow::{Result, ensure};
use meshupgrade_api::MeshUpgradeStatus;
use meshupgrade_arm_simulator::clients::Az;
use meshupgrade_e2e::azure::Azure;
use meshupgrade_e2e::{Mesh, SOURCE, Scenario, TARGET};
use serde_json::json;

use super::people::with_az;
use super::{End, RUN, begin};

/// A run that waits for the target's control plane, which az starts then.
async fn started<'a>(s: &mut Scenario, azure: &'a Azure, names: [&str; 2]) -> Result<(Mesh, Az<'a>)> {
    let more = json!({"controlPlane": {"external": {"namespace": "aks-istio-system"}}, "completion": {"mode": "Manual"}});
    let (mesh, az) = tokio::try_join!(begin(s, azure, names, more), Az::sign_in(&azure.simulator))?;
    let status = s.wait_blocked("mesh", "RevisionNotFound").await?;
    let start = format!("az aks mesh upgrade start -g RESOURCE_GROUP -n CLUSTER --revision {TARGET}");
    ensure!(status.message.contains(&start), "{}", status.message);
    az.mesh("upgrade start", &["--revision", TARGET]).await?;
    Ok((mesh, az))
}

/// Waits until the message has a command of az in a phase.
async fn says(s: &Scenario, phase: &str, verb: &str) -> Result<()> {
    let command = format!("az aks mesh upgrade {verb} -g RESOURCE_GROUP -n CLUSTER");
    let said = |status: &MeshUpgradeStatus| status.phase == phase && status.message.contains(&command);
    s.wait_status_within(RUN, "mesh", &command, said).await.map(drop)
}

async fn completed(s: &mut Scenario) -> Result<()> {
    let names = ["ae-first", "ae-second"];
    let azure = Azure::start(s, &[SOURCE]).await?;
    let (mesh, az) = started(s, &azure, names).await?;
    says(s, "Completing", "complete").await?;
    s.wait_mesh(&mesh, TARGET).await?;
    az.mesh("upgrade complete", &["--yes"]).await?;
    End::completed(0).reached(s, &azure, &mesh, &names).await?;
    azure.judge_az(&[&[SOURCE, TARGET], &[TARGET]])?;
    azure.judge_no_calls()?;
    s.judge(&[]).await
}

#[test]
fn a_person_starts_and_completes_when_the_run_says_so() {
    with_az("aks_external", async |s: &mut Scenario| completed(s).await);
}

async fn rolled_back(s: &mut Scenario) -> Result<()> {
    let names = ["ax-first", "ax-second"];
    let azure = Azure::start(s, &[SOURCE]).await?;
    let (mesh, az) = started(s, &azure, names).await?;
    // az has returned some time after Azure was done: the wave may be over as well.
    s.wait_status_within(RUN, "mesh", "the second wave", |status| {
        status.run.as_ref().is_some_and(|run| run.wave >= 1)
    })
    .await?;
    s.patch_upgrade("mesh", json!({"spec": {"rollback": {"requested": true}}})).await?;
    says(s, "RolledBack", "rollback").await?;
    s.wait_mesh(&mesh, SOURCE).await?;
    az.mesh("upgrade rollback", &["--yes"]).await?;
    End::rolled_back(0).reached(s, &azure, &mesh, &names).await?;
    azure.judge_no_calls()?;
    s.judge(&[]).await
}

#[test]
fn a_person_rolls_back_after_the_proof() {
    with_az("aks_external_back", async |s: &mut Scenario| rolled_back(s).await);
}
