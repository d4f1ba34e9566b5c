//! Nothing shortened: the operator without flags, and a spec that sets only what it must. It takes as long as its settle
//! time, and so has a control plane of its own, beside the others.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use meshupgrade_e2e::{App, Mesh, OperatorSpec, SOURCE, Scenario, TARGET, scenario};
use serde_json::json;

/// The settle time, two cluster-wide counts that are 15 s apart, and the restarts.
const WITHIN: Duration = Duration::from_mins(2);
/// `injection.settleSeconds` when a spec does not say.
const SETTLE: Duration = Duration::from_secs(30);

async fn defaults(s: &mut Scenario) -> Result<()> {
    let name = "df-shop";
    let mesh = Mesh::new()
        .on(SOURCE, name)
        .app(App::deployment(name, "web").replicas(2))
        .app(App::stateful_set(name, "db").replicas(2));
    s.mesh(mesh).await?;
    // One wave of everything, one workload at a time.
    s.wave(&[name], 1);
    s.case.settle = SETTLE;
    s.start_operator_as(&OperatorSpec::with_defaults())?;
    s.apply_upgrade("mesh", &json!({"targetRevision": TARGET, "controlPlane": {"external": {}}})).await?;
    let asked = |status: &meshupgrade_api::MeshUpgradeStatus| {
        status.condition("Paused").is_some_and(|paused| paused.reason == "ApprovalRequired")
    };
    let status = s.wait_status_within(WITHIN, "mesh", "the removal to be asked for", asked).await?;
    ensure!(status.phase == "Completing" && status.progress == "2/2", "{} {}", status.phase, status.progress);
    ensure!(status.message.contains("helm uninstall"), "{}", status.message);
    let run = status.run.context("no run")?;
    ensure!(run.source.as_str() == SOURCE, "discovered {}", run.source);
    s.all_on(TARGET, &[name]).await?;
    // What the message says; that it is gone is the acceptance.
    s.cluster().remove_revision(SOURCE).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.all_on(TARGET, &[name]).await?;
    s.judge(&[]).await
}

#[test]
fn every_default_leads_to_the_end() {
    scenario("defaults", async |s: &mut Scenario| defaults(s).await);
}
