//! The Istio add-on of AKS on the real control plane, with a simulated Azure.

mod crash;
mod dropped;
mod egress;
mod external;
mod gateway_address;
mod git;
mod mesh_config;
mod people;
mod tags;
mod versions;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use meshupgrade_api::MeshUpgradeStatus;
use meshupgrade_arm_simulator::{Call, Fault};
use meshupgrade_core::record::RollbackCause;
use meshupgrade_e2e::azure::Azure;
use meshupgrade_e2e::{App, Kind, Mesh, SOURCE, Scenario, TARGET, scenario_of};
use serde_json::{Value, json};

/// How long a whole run may take.
const RUN: Duration = Duration::from_mins(2);

fn aks(name: &str, body: impl AsyncFnOnce(&mut Scenario) -> Result<()>) {
    scenario_of(Kind::Aks, name, body);
}

/// Two waves of one namespace each, on the source. In the second one each of two pods takes its time, so that there is a middle.
fn mesh(names: [&str; 2], ready_after: &str) -> Mesh {
    let [first, second] = names;
    Mesh::new()
        .on(SOURCE, first)
        .on(SOURCE, second)
        .app(App::deployment(first, "web").replicas(2))
        .app(App::stateful_set(first, "db"))
        .app(App::deployment(second, "slow").replicas(2).set("ready-after", ready_after))
        .deployments(second, &["waiting"])
}

/// Applies mesh and MeshUpgrade, with an operator that signs in to Azure.
async fn begin(s: &mut Scenario, azure: &Azure, names: [&str; 2], more: Value) -> Result<Mesh> {
    begin_with(s, azure, mesh(names, "1500ms"), names, more).await
}

/// The same with another mesh.
async fn begin_with(
    s: &mut Scenario,
    azure: &Azure,
    mesh: Mesh,
    names: [&str; 2],
    more: Value,
) -> Result<Mesh> {
    s.mesh(mesh.clone()).await?;
    for name in names {
        s.wave(&[name], 1);
    }
    s.start_operator_as(&azure.operator())?;
    let waves: Value = names.iter().map(|name| json!({"name": name, "namespaces": [name]})).collect();
    let mut spec = json!({"targetRevision": TARGET, "waves": waves, "controlPlane": azure.control_plane(),
        "completion": {"mode": "Automatic"}});
    if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
        spec.extend(more);
    }
    s.upgrade("mesh", spec).await?;
    Ok(mesh)
}

/// How a run ends.
struct End<'a> {
    phase: &'a str,
    stays: &'a str,
    goes: &'a str,
    /// How often the operator wrote to Azure.
    writes: usize,
}

impl End<'_> {
    fn completed(writes: usize) -> Self {
        Self { phase: "Succeeded", stays: TARGET, goes: SOURCE, writes }
    }

    fn rolled_back(writes: usize) -> Self {
        Self { phase: "RolledBack", stays: SOURCE, goes: TARGET, writes }
    }

    /// Waits for it. Azure has the revision that stays, every workload runs on it, and nothing is left of the other one.
    async fn reached(
        &self,
        s: &Scenario,
        azure: &Azure,
        mesh: &Mesh,
        names: &[&str],
    ) -> Result<MeshUpgradeStatus> {
        let status =
            s.wait_status_within(RUN, "mesh", self.phase, |status| status.phase == self.phase).await?;
        azure.has(&[self.stays])?;
        azure.judge(self.writes)?;
        s.wait_mesh(mesh, self.stays).await?;
        s.all_on(self.stays, names).await?;
        is_gone(s, self.goes).await?;
        nothing_secret(s).await?;
        Ok(status)
    }
}

/// No token and no signed address is in what people read: status, events, and the operator's log.
async fn nothing_secret(s: &Scenario) -> Result<()> {
    let kubectl = async |what: &[&str]| s.cluster().kubectl(what).await;
    let status = kubectl(&["get", "meshupgrades", "-o", "json"]).await?;
    let events = kubectl(&["get", "events.events.k8s.io", "-A", "-o", "json"]).await?;
    for (place, text) in [("status", status), ("events", events), ("log", s.operator_log())] {
        // A JWT begins so; the simulator signs the addresses of its operations as Azure does.
        for secret in ["eyJ", "Bearer ", "&c=", "&s=", "client_assertion"] {
            ensure!(!text.contains(secret), "{secret:?} is in the {place}");
        }
    }
    Ok(())
}

/// Nothing of a revision is left in the cluster.
async fn is_gone(s: &Scenario, revision: &str) -> Result<()> {
    let selector = format!("istio.io/rev={revision}");
    let kinds = "deployments,mutatingwebhookconfigurations,configmaps";
    let left = s.cluster().kubectl(&["get", kinds, "-A", "-l", &selector, "-o", "name"]).await?;
    ensure!(left.is_empty(), "left of {revision}: {left}");
    Ok(())
}

async fn start_to_complete(s: &mut Scenario) -> Result<()> {
    let names = ["ak-first", "ak-second"];
    let azure = Azure::start(s, &[SOURCE]).await?;
    // The answers to both writes do not arrive: they are found in the cluster, and not sent again.
    azure.plant(Call::PutCluster, Fault::LoseAnswer)?;
    let mesh = begin(s, &azure, names, json!({})).await?;
    s.wait_status_within(RUN, "mesh", "Migrating", |status| status.phase == "Migrating").await?;
    azure.has(&[SOURCE, TARGET])?;
    azure.plant(Call::PutCluster, Fault::LoseAnswer)?;
    End::completed(2).reached(s, &azure, &mesh, &names).await?;
    s.wait_event("ControlPlaneStartRequested").await?;
    s.wait_event("ControlPlaneCompletionRequested").await?;
    s.judge(&[]).await
}

#[test]
fn from_start_to_completion_by_two_writes() {
    aks("aks_complete", async |s: &mut Scenario| start_to_complete(s).await);
}

async fn rollback(s: &mut Scenario) -> Result<()> {
    let names = ["ar-first", "ar-second"];
    let azure = Azure::start(s, &[SOURCE]).await?;
    azure.plant(Call::PutCluster, Fault::EtagMismatch)?;
    let mesh = begin(s, &azure, names, json!({})).await?;
    s.wait_status_within(RUN, "mesh", "the second wave", |status| {
        status.run.as_ref().is_some_and(|run| run.wave == 1 && run.batch.is_some())
    })
    .await?;
    s.patch_upgrade("mesh", json!({"spec": {"rollback": {"requested": true}}})).await?;
    End::rolled_back(2).reached(s, &azure, &mesh, &names).await?;
    s.judge(&[]).await
}

#[test]
fn a_rollback_in_the_middle_removes_the_target_after_the_proof() {
    aks("aks_rollback", async |s: &mut Scenario| rollback(s).await);
}

/// After the last wave, while the removal of the source waits for a person.
async fn rollback_of_everything(s: &mut Scenario) -> Result<()> {
    let names = ["al-first", "al-second"];
    let azure = Azure::start(s, &[SOURCE]).await?;
    let mesh = begin(s, &azure, names, json!({"completion": {"mode": "Manual"}})).await?;
    s.wait_status_within(RUN, "mesh", "the question whether the source may go", |status| {
        let paused = status.condition("Paused");
        status.phase == "Completing" && paused.is_some_and(|paused| paused.reason == "ApprovalRequired")
    })
    .await?;
    s.wait_mesh(&mesh, TARGET).await?;
    azure.judge(1)?;
    s.patch_upgrade("mesh", json!({"spec": {"rollback": {"requested": true}}})).await?;
    End::rolled_back(2).reached(s, &azure, &mesh, &names).await?;
    s.judge(&[]).await
}

#[test]
fn a_rollback_after_the_waves_removes_the_target_after_the_proof() {
    aks("aks_rollback_of_everything", async |s: &mut Scenario| rollback_of_everything(s).await);
}

/// Before anything moved: while Azure still starts the target.
async fn rollback_of_the_start(s: &mut Scenario) -> Result<()> {
    let names = ["as-first", "as-second"];
    let azure = Azure::start(s, &[SOURCE]).await?;
    azure.plant(Call::PutCluster, Fault::OperationTakes(Duration::from_secs(6)))?;
    let mesh = begin(s, &azure, names, json!({})).await?;
    s.wait_blocked("mesh", "ControlPlaneOperation").await?;
    s.patch_upgrade("mesh", json!({"spec": {"rollback": {"requested": true}}})).await?;
    End::rolled_back(2).reached(s, &azure, &mesh, &names).await?;
    s.judge(&[]).await
}

#[test]
fn a_rollback_while_azure_starts_the_target_waits_for_it() {
    aks("aks_rollback_of_the_start", async |s: &mut Scenario| rollback_of_the_start(s).await);
}

/// Somebody rolls back with `az` in the middle of the waves.
async fn removed_by_somebody(s: &mut Scenario) -> Result<()> {
    let names = ["af-first", "af-second"];
    let azure = Azure::start(s, &[SOURCE]).await?;
    let mesh = begin(s, &azure, names, json!({})).await?;
    s.wait_status_within(RUN, "mesh", "the second wave", |status| {
        status.run.as_ref().is_some_and(|run| run.wave == 1 && run.batch.is_some())
    })
    .await?;
    azure.simulator.put_by_somebody_else(&azure.cluster, &[SOURCE])?;
    let status = End::rolled_back(1).reached(s, &azure, &mesh, &names).await?;
    let rollback = status.run.and_then(|run| run.rollback).context("no cause")?;
    ensure!(rollback.cause == RollbackCause::TargetRemoved, "{rollback:?}");
    // What was made between the removal and our write has none, and was replaced.
    s.judge(&["every-pod-has-a-sidecar"]).await
}

#[test]
fn what_somebody_else_removed_turns_the_run_back() {
    aks("aks_removed", async |s: &mut Scenario| removed_by_somebody(s).await);
}

/// What would be refused is known before anything is written.
async fn refused_before(s: &mut Scenario) -> Result<()> {
    let names = ["ap-first", "ap-second"];
    let azure = Azure::start(s, &[SOURCE]).await?;
    azure.simulator.set_kubernetes_version(&azure.cluster, "1.28.9")?;
    begin(s, &azure, names, json!({})).await?;
    let status = s.wait_blocked("mesh", "PreflightFailed").await?;
    ensure!(status.message.contains("Aks"), "{}", status.message);
    azure.judge(0)?;
    ensure!(s.revision_label(names[0]).await? == SOURCE, "nothing is written");
    azure.simulator.set_kubernetes_version(&azure.cluster, "1.33.2")?;
    s.wait_status_within(RUN, "mesh", "Succeeded", |status| status.phase == "Succeeded").await?;
    azure.judge(2)
}

#[test]
fn a_cluster_that_is_too_old_goes_first() {
    aks("aks_refused", async |s: &mut Scenario| refused_before(s).await);
}
