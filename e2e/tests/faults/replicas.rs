//! Two replicas, none, and the object itself taken away.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use meshupgrade_e2e::install::NAMESPACE;
use meshupgrade_e2e::{App, Mesh, OperatorSpec, SOURCE, Scenario, TARGET, Workload, scenario};
use meshupgrade_testbed::wait_for;
use serde_json::{Value, json};

use crate::{begin, deployment, slow_mesh, spec, up_to_the_middle, wait_patched};

async fn wait_leader(s: &Scenario, identity: &str) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(s.client(), NAMESPACE);
    // More than twice the lease of one that was killed.
    wait_for(&format!("{identity} to lead"), Duration::from_secs(40), || async {
        let all = leases.list(&ListParams::default()).await?;
        let holders = all.items.into_iter().filter_map(|lease| lease.spec?.holder_identity);
        Ok(holders.into_iter().any(|holder| holder == identity).then_some(()))
    })
    .await
}

async fn takeover(s: &mut Scenario) -> Result<()> {
    let names = ["to-first", "to-second"];
    let mesh = begin(s, names).await?;
    s.start_operator_as(&OperatorSpec::named("operator-a"))?;
    wait_leader(s, "operator-a").await?;
    s.start_operator_as(&OperatorSpec::named("operator-b"))?;
    s.upgrade("mesh", spec(&names)).await?;
    wait_patched(s, &deployment(names[1], "slow"), 2).await?;
    wait_leader(s, "operator-a").await?;
    s.case.crashes = true;
    s.operators()[0].kill()?;
    wait_leader(s, "operator-b").await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.wait_mesh(&mesh, TARGET).await?;
    s.judge(&["write-budget"]).await
}

#[test]
fn of_two_replicas_the_other_takes_over() {
    scenario("takeover", async |s: &mut Scenario| takeover(s).await);
}

async fn scaled_to_zero(s: &mut Scenario) -> Result<()> {
    let names = ["sz-first", "sz-second"];
    let mesh = up_to_the_middle(s, names).await?;
    s.case.crashes = true;
    s.stop_operators()?;
    let mut follower = s.follow()?;
    // What was begun ends by itself, and everything serves.
    s.wait_mesh_on(&mesh, &[SOURCE, TARGET]).await?;
    ensure!(
        follower.next_write(Duration::from_secs(3)).await?.is_none(),
        "somebody wrote without an operator"
    );
    s.wait_mesh_on(&mesh, &[SOURCE, TARGET]).await?;
    ensure!(s.generation(&deployment(names[1], "waiting")).await? == 1);
    s.start_operator()?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.wait_mesh(&mesh, TARGET).await?;
    s.judge(&["write-budget"]).await
}

#[test]
fn scaled_to_zero_for_a_while() {
    scenario("scaled_to_zero", async |s: &mut Scenario| scaled_to_zero(s).await);
}

/// Longer than a workload may take, with a batch open: time in which nobody looked is no workload's failure.
async fn away_for_long(s: &mut Scenario) -> Result<()> {
    const TIMEOUT_SECONDS: u64 = 12;
    let name = "al-shop";
    let (slow, waiting) = (deployment(name, "slow"), deployment(name, "waiting"));
    let rolling = Mesh::new().app(App::deployment(name, "slow").replicas(2).set("ready-after", "1500ms"));
    let mesh = rolling.apps.iter().cloned().fold(Mesh::new(), Mesh::app).on(SOURCE, name);
    let mesh = mesh.deployments(name, &["waiting"]);
    s.mesh(mesh.clone()).await?;
    s.wave(&[name], 1);
    s.start_operator()?;
    let mut spec = spec(&[name]);
    spec["restart"] = json!({"timeoutSeconds": TIMEOUT_SECONDS});
    spec["rollback"] = json!({"onFailure": "Automatic"});
    s.upgrade("mesh", spec).await?;
    wait_patched(s, &slow, 2).await?;
    s.case.crashes = true;
    s.stop_operators()?;
    let run = s.status("mesh").await?.run.context("no run")?;
    ensure!(run.batch.is_some_and(|batch| batch.entries.len() == 1), "no batch is open");
    let mut follower = s.follow()?;
    let away = Duration::from_secs(TIMEOUT_SECONDS + 3);
    ensure!(follower.next_write(away).await?.is_none(), "somebody wrote without an operator");
    s.wait_mesh(&rolling, TARGET).await?;
    s.start_operator()?;
    let ends = |phase: &str| ["Succeeded", "RollingBack", "RolledBack"].contains(&phase);
    let status = s.wait_status("mesh", "the end of the run", |status| ends(&status.phase)).await?;
    ensure!(status.phase == "Succeeded", "it turned back: {}", status.message);
    s.wait_mesh(&mesh, TARGET).await?;
    for workload in [slow, waiting] {
        ensure!(s.generation(&workload).await? == 2, "{workload} was not restarted once");
    }
    s.judge(&[]).await
}

#[test]
fn scaled_to_zero_for_longer_than_a_workload_may_take() {
    scenario("away_for_long", async |s: &mut Scenario| away_for_long(s).await);
}

/// A spec whose run is not over when its last workload is: there is time to ask for a rollback.
fn without_end(names: &[&str]) -> Value {
    let mut spec = spec(names);
    spec["completion"]["soakSeconds"] = json!(300);
    spec
}

/// The object that was applied later knows where the earlier one came from.
async fn back_to_the_true_source(s: &Scenario, names: [&str; 2]) -> Result<()> {
    let status = s.status("mesh").await?;
    ensure!(status.run.as_ref().is_some_and(|run| run.source.as_str() == SOURCE), "source: {:?}", status.run);
    s.patch_upgrade("mesh", json!({"spec": {"rollback": {"requested": true}}})).await?;
    s.wait_phase("mesh", "RolledBack").await?;
    s.all_on(SOURCE, &names).await?;
    for name in names {
        ensure!(s.revision_label(name).await? == SOURCE);
    }
    Ok(())
}

async fn applied_again(s: &mut Scenario) -> Result<()> {
    let names = ["aa-first", "aa-second"];
    let mesh = up_to_the_middle(s, names).await?;
    s.upgrades().delete("mesh", &DeleteParams::default()).await?;
    // Whatever was begun comes to its end, and nothing new is begun.
    let slow = mesh.apps.iter().filter(|app| app.workload() == deployment(names[1], "slow"));
    s.wait_mesh(&slow.cloned().fold(Mesh::new(), Mesh::app), TARGET).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(s.generation(&deployment(names[1], "waiting")).await? == 1, "nobody asked for it any more");
    s.upgrade("mesh", without_end(&names)).await?;
    wait_patched(s, &deployment(names[1], "waiting"), 2).await?;
    for workload in slow_mesh(names[0], names[1]).apps.iter().map(App::workload) {
        let generation = s.generation(&workload).await?;
        ensure!(generation == 2, "{workload} has generation {generation}");
    }
    back_to_the_true_source(s, names).await?;
    for (resource, name) in [("deployments", "web"), ("statefulsets", "db")] {
        ensure!(
            s.generation(&Workload::new(names[0], resource, name)).await? == 3,
            "{name} was not there and back"
        );
    }
    s.judge(&["write-budget"]).await
}

#[test]
fn deleted_and_applied_again() {
    scenario("applied_again", async |s: &mut Scenario| applied_again(s).await);
}

/// The new object knows of no batch, and the rollout that the old one began goes on for a while.
async fn applied_again_in_rollout(s: &mut Scenario) -> Result<()> {
    let names = ["ar-first", "ar-second"];
    let (slow, waiting) = (deployment(names[1], "slow"), deployment(names[1], "waiting"));
    let mesh = Mesh::new()
        .on(SOURCE, names[0])
        .on(SOURCE, names[1])
        .deployments(names[0], &["web"])
        // Three pods one after the other: long enough for the new object to come to the same wave.
        .app(App::deployment(names[1], "slow").replicas(3).set("ready-after", "4s"))
        .deployments(names[1], &["waiting"]);
    s.mesh(mesh).await?;
    for name in names {
        s.wave(&[name], 1);
    }
    s.start_operator()?;
    s.upgrade("mesh", spec(&names)).await?;
    wait_patched(s, &slow, 2).await?;
    s.upgrades().delete("mesh", &DeleteParams::default()).await?;
    s.upgrade("mesh", without_end(&names)).await?;
    let status = s
        .wait_status("mesh", "the rollout from before to be waited for", |status| {
            let mut rows = status.blocked.iter().filter(|row| row.reason == "RolloutInProgress");
            status.run.as_ref().is_some_and(|run| run.wave == 1)
                && rows.any(|row| row.name.as_deref() == Some("slow"))
        })
        .await?;
    ensure!(status.run.as_ref().is_some_and(|run| run.batch.is_none()), "a batch is open: {:?}", status.run);
    ensure!(s.generation(&waiting).await? == 1, "two workloads are in rollout");
    wait_patched(s, &waiting, 2).await?;
    ensure!(s.generation(&slow).await? == 2, "restarted once more");
    back_to_the_true_source(s, names).await?;
    s.judge(&["write-budget"]).await
}

#[test]
fn deleted_and_applied_again_in_the_middle_of_a_rollout() {
    scenario("applied_again_in_rollout", async |s: &mut Scenario| applied_again_in_rollout(s).await);
}
