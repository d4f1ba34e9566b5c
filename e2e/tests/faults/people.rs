//! What people say to a run: approvals in Git and by annotation, pause, resume and rollback.

use anyhow::{Context as _, Result, ensure};
use meshupgrade_api::MeshUpgradeStatus;
use meshupgrade_e2e::{Mesh, SOURCE, Scenario, TARGET, scenario};
use serde_json::{Value, json};

use crate::{begin, deployment, spec, untouched, up_to_the_middle};

/// The spec of the waves, each of which needs approval.
fn approved(names: &[&str]) -> Value {
    let mut spec = spec(names);
    for wave in spec["waves"].as_array_mut().into_iter().flatten() {
        wave["approval"] = json!("Required");
    }
    spec
}

/// Sets the annotation to what status offers.
async fn say(s: &Scenario, action: &str) -> Result<()> {
    let status = s.status("mesh").await?;
    let offer = status.actions.iter().find(|offer| offer.action == action);
    annotate(s, &offer.with_context(|| format!("no {action} in {:?}", status.actions))?.value).await
}

async fn annotate(s: &Scenario, value: &str) -> Result<()> {
    s.patch_upgrade("mesh", json!({"metadata": {"annotations": {"meshupgrade.io/action": value}}})).await
}

/// Commits an approval of the plan that a status shows.
async fn commit(s: &Scenario, status: &MeshUpgradeStatus, wave: &str) -> Result<()> {
    let digest = status.plan_digest.as_ref().context("no digest")?;
    let approval = json!({"throughWave": wave, "planDigest": digest});
    s.patch_upgrade("mesh", json!({"spec": {"approval": approval}})).await
}

async fn asked(s: &Scenario, phase: &str, wave: &str) -> Result<MeshUpgradeStatus> {
    let what = format!("approval of {wave}");
    s.wait_status("mesh", &what, |status| {
        status.phase == phase
            && status.condition("Paused").is_some_and(|paused| paused.reason == "ApprovalRequired")
            && status.message.contains(&format!("{wave:?}"))
    })
    .await
}

async fn approvals(s: &mut Scenario) -> Result<()> {
    let names = ["pe-first", "pe-second"];
    let mesh = begin(s, names).await?;
    s.start_operator()?;
    s.upgrade("mesh", approved(&names)).await?;
    let status = asked(s, "Planned", names[0]).await?;
    ensure!(s.revision_label(names[0]).await? == SOURCE, "relabelled before approval");
    commit(s, &status, names[0]).await?;
    asked(s, "Migrating", names[1]).await?;
    annotate(s, "approve/00000000").await?;
    let ignored = s.wait_event("ActionIgnored").await?;
    let note = ignored.note.unwrap_or_default();
    ensure!(note.contains("approve/00000000") && note.contains("status.actions"), "{note}");
    untouched(s, 2, &[deployment(names[1], "waiting")]).await?;
    ensure!(s.revision_label(names[1]).await? == SOURCE, "relabelled after a value of another step");
    say(s, "approve").await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.wait_mesh(&mesh, TARGET).await?;
    s.judge(&[]).await
}

#[test]
fn each_wave_waits_for_its_approval() {
    scenario("approvals", async |s: &mut Scenario| approvals(s).await);
}

/// A namespace appears between the approval and the start.
async fn another_plan(s: &mut Scenario) -> Result<()> {
    let names = ["pa-first", "pa-second"];
    let mut mesh = begin(s, names).await?;
    s.start_operator()?;
    let mut spec = approved(&names);
    spec["waves"].as_array_mut().context("no waves")?.push(json!({"name": "rest"}));
    spec["suspend"] = json!(true);
    s.upgrade("mesh", spec).await?;
    let before = s.wait_phase("mesh", "Planned").await?;
    commit(s, &before, names[1]).await?;
    let added = Mesh::new().on(SOURCE, "pa-added").deployments("pa-added", &["late"]);
    s.mesh(added.clone()).await?;
    s.wave(&["pa-added"], 1);
    s.wait_status("mesh", "another plan", |status| status.plan_digest != before.plan_digest).await?;
    s.patch_upgrade("mesh", json!({"spec": {"suspend": false}})).await?;
    let status = asked(s, "Planned", names[0]).await?;
    ensure!(status.message.contains("for another plan"), "{}", status.message);
    ensure!(s.revision_label(names[0]).await? == SOURCE, "an approval of another plan was taken");
    commit(s, &status, names[1]).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    mesh.apps.extend(added.apps);
    s.wait_mesh(&mesh, TARGET).await?;
    s.judge(&[]).await
}

#[test]
fn an_approval_is_void_when_the_plan_is_another_one() {
    scenario("another_plan", async |s: &mut Scenario| another_plan(s).await);
}

async fn paused(s: &mut Scenario) -> Result<()> {
    let names = ["pp-first", "pp-second"];
    let mesh = up_to_the_middle(s, names).await?;
    say(s, "pause").await?;
    s.wait_status("mesh", "no open batch", |status| {
        status.run.as_ref().is_some_and(|run| run.batch.is_none() && run.wave == 1)
            && status.condition("Paused").is_some_and(|paused| paused.reason == "Paused")
    })
    .await?;
    untouched(s, 3, &[deployment(names[1], "waiting")]).await?;
    ensure!(s.generation(&deployment(names[1], "waiting")).await? == 1, "a batch was opened");
    s.patch_upgrade("mesh", json!({"spec": {"completion": {"mode": "Manual"}}})).await?;
    say(s, "resume").await?;
    s.wait_condition("mesh", "Paused", "True", "ApprovalRequired").await?;
    s.wait_mesh(&mesh, TARGET).await?;
    say(s, "rollback").await?;
    s.wait_phase("mesh", "RolledBack").await?;
    s.wait_mesh(&mesh, SOURCE).await?;
    s.judge(&[]).await
}

#[test]
fn paused_resumed_and_turned_back_by_annotation() {
    scenario("paused", async |s: &mut Scenario| paused(s).await);
}
