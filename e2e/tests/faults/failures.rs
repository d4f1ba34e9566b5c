//! Workloads that fail, and what the spec says is to be done about them.

use anyhow::{Context as _, Result, ensure};
use meshupgrade_e2e::{App, Mesh, SOURCE, Scenario, TARGET, scenario};
use serde_json::{Value, json};

use crate::{deployment, waves};

const BROKEN: &str = "never-ready-on";

/// A wave that is fine, and one where these workloads never become ready on the target, besides `web`.
fn mesh(names: [&str; 2], broken: &[&str]) -> Mesh {
    let [first, second] = names;
    let mesh = Mesh::new().on(SOURCE, first).on(SOURCE, second).deployments(first, &["web"]);
    let mesh = mesh.app(App::deployment(second, "web").replicas(2));
    broken.iter().fold(mesh, |mesh, name| mesh.app(App::deployment(second, name).set(BROKEN, TARGET)))
}

/// One workload at once, and as many more as may fail.
async fn begin(s: &mut Scenario, names: [&str; 2], broken: &[&str], more: Value) -> Result<Mesh> {
    let mesh = mesh(names, broken);
    s.mesh(mesh.clone()).await?;
    let tolerated = more["restart"]["maxFailedWorkloads"].as_u64().unwrap_or_default();
    for name in names {
        s.wave(&[name], 1 + usize::try_from(tolerated)?);
    }
    s.start_operator()?;
    let mut spec = json!({"targetRevision": TARGET, "waves": waves(&names), "completion": {"mode": "Keep"}});
    if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
        spec.extend(more);
    }
    s.upgrade("mesh", spec).await?;
    Ok(mesh)
}

/// The owner repairs a workload: its new template comes up. That restarts it, on the revision of its namespace.
async fn mend(s: &Scenario, namespace: &str, name: &str) -> Result<()> {
    let annotation = format!("{}{BROKEN}", meshupgrade_testbed::ANNOTATIONS);
    let template = json!({"spec": {"template": {"metadata": {"annotations": {annotation: null}}}}});
    s.patch_workload(&deployment(namespace, name), "team", template).await
}

async fn wave_goes_back(s: &mut Scenario) -> Result<()> {
    let names = ["fw-first", "fw-second"];
    let more =
        json!({"restart": {"timeoutSeconds": 10}, "rollback": {"onFailure": "Automatic", "scope": "Wave"}});
    let mesh = begin(s, names, &["broken"], more).await?;
    let status = s.wait_blocked("mesh", "WaveRolledBack").await?;
    ensure!(status.phase == "Migrating", "paused, not over: {}", status.phase);
    s.all_on(TARGET, &names[..1]).await?;
    s.all_on(SOURCE, &names[1..]).await?;
    ensure!(s.revision_label(names[0]).await? == TARGET && s.revision_label(names[1]).await? == SOURCE);
    s.wait_event("WaveRolledBack").await?;
    mend(s, names[1], "broken").await?;
    s.wait_mesh_on(&mesh, &[SOURCE, TARGET]).await?;
    ensure!(s.revision_label(names[1]).await? == SOURCE, "it waits for a person");
    s.retry("mesh", "mended").await?;
    s.case.retries = 1;
    s.wait_phase("mesh", "Succeeded").await?;
    s.wait_mesh(&mesh, TARGET).await?;
    // What the owner mends is a rollout of his own.
    s.judge(&["write-budget"]).await
}

#[test]
fn a_wave_goes_back_alone_and_forward_once_more() {
    scenario("wave_goes_back", async |s: &mut Scenario| wave_goes_back(s).await);
}

/// One failure is tolerated, so that `web` behind it is restarted; the second one stops the wave, until one of the two alone
/// is tried again.
async fn tolerated(s: &mut Scenario) -> Result<()> {
    let names = ["ft-first", "ft-second"];
    let more = json!({"restart": {"timeoutSeconds": 10, "maxFailedWorkloads": 1}});
    let mesh = begin(s, names, &["a-broken"], more).await?;
    s.wait_blocked("mesh", "WorkloadPassedOver").await?;
    let web = deployment(names[1], "web");
    s.wait_status("mesh", "web restarted behind it", |status| status.progress == "2/3").await?;
    ensure!(s.generation(&web).await? == 2, "web is restarted");
    let status = s.wait_blocked("mesh", "WorkloadFailed").await?;
    ensure!(status.phase == "Migrating", "nothing is left but what failed: {}", status.phase);
    mend(s, names[1], "a-broken").await?;
    s.retry("mesh", &format!("Deployment/{}/a-broken#1", names[1])).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.wait_mesh(&mesh, TARGET).await?;
    s.judge(&["write-budget"]).await
}

#[test]
fn a_tolerated_failure_holds_up_the_end_of_its_wave_only() {
    scenario("tolerated", async |s: &mut Scenario| tolerated(s).await);
}

/// The workload has ten minutes, its wave a few seconds.
async fn deadline(s: &mut Scenario) -> Result<()> {
    let names = ["fd-first", "fd-second"];
    let more = json!({"restart": {"progressDeadlineSeconds": 15}, "rollback": {"onFailure": "Automatic"}});
    let mesh = begin(s, names, &["broken"], more).await?;
    let status = s.wait_phase("mesh", "RolledBack").await?;
    let rollback = status.run.and_then(|run| run.rollback).context("no cause")?;
    ensure!(format!("{:?}", rollback.cause) == "ProgressDeadlineExceeded", "{rollback:?}");
    ensure!(rollback.message.contains("fd-second"), "{}", rollback.message);
    s.wait_mesh(&mesh, SOURCE).await?;
    s.all_on(SOURCE, &names).await?;
    s.judge(&[]).await
}

#[test]
fn a_wave_that_makes_no_progress_turns_the_run_back() {
    scenario("deadline", async |s: &mut Scenario| deadline(s).await);
}
