//! Namespaces that dropped out of the mesh: their label names a revision that is gone, so that new pods get no sidecar.

use anyhow::{Context as _, Result, ensure};
use meshupgrade_api::MeshUpgradeStatus;
use meshupgrade_e2e::{App, Mesh, SOURCE, Scenario, TARGET, scenario};
use meshupgrade_testbed::wait_for;
use serde_json::json;

use crate::spec;

const GONE: &str = "asm-1-20";

/// The first namespace is on the source. The second one names a revision that is gone; all of its pods are there, without a sidecar.
async fn begin(s: &mut Scenario, names: [&str; 2]) -> Result<Mesh> {
    let [first, lost] = names;
    s.mesh(Mesh::new().on(SOURCE, first).app(App::deployment(first, "web").replicas(2))).await?;
    let dropped = Mesh::new()
        .on(GONE, lost)
        // Slow, so that its batch is open for a while.
        .app(App::deployment(lost, "api").replicas(2).set("ready-after", "1500ms"))
        .app(App::stateful_set(lost, "db"));
    s.apply_mesh(&dropped).await?;
    let started = || async {
        let proxies = s.proxies(lost).await?;
        Ok((proxies == [("-".to_owned(), 3)].into()).then_some(()))
    };
    wait_for("pods without a sidecar", std::time::Duration::from_mins(1), started).await?;
    for name in names {
        s.wave(&[name], 1);
    }
    s.start_operator()?;
    let mut spec = spec(&names);
    spec["planOnly"] = json!(true);
    s.upgrade("mesh", spec).await?;
    Ok(dropped)
}

fn says(status: &MeshUpgradeStatus, words: &str) -> bool {
    let check = status.checks.iter().find(|check| check.name == "NamespacesDropped");
    check.is_some_and(|check| check.message.contains(words))
}

async fn repair(s: &mut Scenario, names: [&str; 2]) -> Result<()> {
    let reported = |status: &MeshUpgradeStatus| {
        says(status, names[1]) && says(status, "spec.injection.droppedNamespaces: Repair")
    };
    let status = s.wait_status("mesh", "the report", reported).await?;
    let plan = status.plan.context("no plan")?;
    ensure!(plan.left.iter().any(|left| left.namespace.as_str() == names[1]), "{plan:?}");
    let injection = json!({"droppedNamespaces": "Repair", "settleSeconds": 1});
    s.patch_upgrade("mesh", json!({"spec": {"planOnly": false, "injection": injection}})).await
}

async fn repaired(s: &mut Scenario) -> Result<()> {
    let names = ["dr-first", "dr-lost"];
    let dropped = begin(s, names).await?;
    repair(s, names).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.wait_mesh(&dropped, TARGET).await?;
    s.all_on(TARGET, &names).await?;
    s.judge(&[]).await
}

#[test]
fn they_are_reported_and_repaired_with_their_wave_when_that_is_asked_for() {
    scenario("dropped", async |s: &mut Scenario| repaired(s).await);
}

async fn goes_back(s: &mut Scenario) -> Result<()> {
    let names = ["db-first", "db-lost"];
    let dropped = begin(s, names).await?;
    repair(s, names).await?;
    s.wait_status("mesh", "the second wave", |status| {
        status.run.as_ref().is_some_and(|run| run.wave == 1 && run.batch.is_some())
    })
    .await?;
    s.patch_upgrade("mesh", json!({"spec": {"rollback": {"requested": true}}})).await?;
    s.wait_phase("mesh", "RolledBack").await?;
    s.wait_mesh(&dropped, SOURCE).await?;
    s.all_on(SOURCE, &names).await?;
    s.judge(&[]).await
}

#[test]
fn a_rollback_does_not_drop_them_again() {
    scenario("dropped_back", async |s: &mut Scenario| goes_back(s).await);
}
