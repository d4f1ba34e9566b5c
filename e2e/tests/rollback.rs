//! The way back.

use anyhow::{Result, ensure};
use meshupgrade_e2e::{App, Mesh, SOURCE, Scenario, TARGET, Workload, scenario};
use serde_json::{Value, json};

/// Two waves of one namespace each, and a third that the run never reaches. In the second one everything is slow, so
/// that there is a middle.
fn slow_mesh(first: &str, second: &str, third: &str) -> Mesh {
    Mesh::new()
        .on(SOURCE, first)
        .namespace(second, &[("istio.io/rev", SOURCE), ("team", "blue")])
        .on(SOURCE, third)
        .app(App::deployment(first, "web").replicas(2))
        .app(App::stateful_set(first, "db").replicas(2))
        .app(App::deployment(second, "slow").replicas(2).set("ready-after", "1500ms"))
        .deployments(second, &["waiting"])
        .deployments(third, &["untouched"])
}

fn waves(names: [&str; 3]) -> Value {
    names.iter().map(|name| json!({"name": name, "namespaces": [name]})).collect()
}

/// Runs until the second wave is in work, with one workload in rollout and one that waits.
async fn up_to_the_middle(s: &mut Scenario, names: [&str; 3]) -> Result<()> {
    let [first, second, third] = names;
    s.mesh(slow_mesh(first, second, third)).await?;
    for name in names {
        s.wave(&[name], 1);
    }
    s.start_operator()?;
    s.upgrade("mesh", json!({"targetRevision": TARGET, "waves": waves(names)})).await?;
    let what = "the second wave's first batch";
    s.wait_status("mesh", what, |status| {
        status.run.as_ref().is_some_and(|run| run.wave == 1 && run.batch.is_some())
    })
    .await?;
    Ok(())
}

/// Everything is where it was, and what was never reached was never touched.
async fn everything_is_back(s: &Scenario, names: [&str; 3]) -> Result<()> {
    let [first, second, third] = names;
    s.all_on(SOURCE, &names).await?;
    for name in names {
        let labels = s.labels(name).await?;
        let before = if name == second { 2 } else { 1 };
        ensure!(labels.len() == before, "labels of {name}: {labels:?}");
        ensure!(
            labels.get("istio.io/rev").map(String::as_str) == Some(SOURCE),
            "labels of {name}: {labels:?}"
        );
        let annotations = s.namespace(name).await?.metadata.annotations.unwrap_or_default();
        ensure!(!annotations.contains_key("meshupgrade.io/previous-labels"), "{name}: {annotations:?}");
    }
    let touched =
        [(first, "deployments", "web"), (first, "statefulsets", "db"), (second, "deployments", "slow")];
    for (namespace, resource, name) in touched {
        let generation = s.generation(&Workload::new(namespace, resource, name)).await?;
        ensure!(generation == 3, "{namespace}/{name}: there and back makes generation 3, not {generation}");
    }
    for (namespace, name) in [(second, "waiting"), (third, "untouched")] {
        let generation = s.generation(&Workload::new(namespace, "deployments", name)).await?;
        ensure!(generation == 1, "{namespace}/{name} was touched: generation {generation}");
    }
    Ok(())
}

async fn requested(s: &mut Scenario) -> Result<()> {
    let names = ["rq-first", "rq-second", "rq-third"];
    up_to_the_middle(s, names).await?;
    s.patch_upgrade("mesh", json!({"spec": {"rollback": {"requested": true}}})).await?;
    let status = s.wait_condition("mesh", "RolledBack", "True", "Proven").await?;
    ensure!(status.phase == "RolledBack", "{}", status.phase);
    everything_is_back(s, names).await?;
    // Withdrawn later: it stays where it is.
    s.patch_upgrade("mesh", json!({"spec": {"rollback": {"requested": false}}})).await?;
    let generation = s.upgrades().get("mesh").await?.metadata.generation;
    let status = s
        .wait_status("mesh", "the withdrawal to be seen", |status| status.observed_generation == generation)
        .await?;
    ensure!(status.phase == "RolledBack", "withdrawn: {}", status.phase);
    everything_is_back(s, names).await?;
    s.judge(&[]).await
}

#[test]
fn requested_in_the_middle_of_a_wave_and_withdrawn_later() {
    scenario("rollback_requested", async |s: &mut Scenario| requested(s).await);
}

async fn target_set_back(s: &mut Scenario) -> Result<()> {
    let names = ["tb-first", "tb-second", "tb-third"];
    up_to_the_middle(s, names).await?;
    s.patch_upgrade("mesh", json!({"spec": {"targetRevision": SOURCE}})).await?;
    s.wait_phase("mesh", "RolledBack").await?;
    everything_is_back(s, names).await?;
    s.judge(&[]).await
}

#[test]
fn target_set_back_to_the_source() {
    scenario("target_set_back", async |s: &mut Scenario| target_set_back(s).await);
}

/// A mesh in which one workload never becomes ready on the target, a wave before it and one after it.
async fn broken_mesh(s: &mut Scenario, names: [&str; 3], on_failure: &str) -> Result<()> {
    let [first, second, third] = names;
    let mesh = Mesh::new()
        .on(SOURCE, first)
        .on(SOURCE, second)
        .on(SOURCE, third)
        .deployments(first, &["web"])
        .app(App::deployment(second, "broken").set("never-ready-on", TARGET))
        .deployments(third, &["untouched"]);
    s.mesh(mesh).await?;
    for name in names {
        s.wave(&[name], 1);
    }
    s.start_operator()?;
    let spec = json!({
        "targetRevision": TARGET, "waves": waves(names), "completion": {"mode": "Keep"},
        "restart": {"timeoutSeconds": 10}, "rollback": {"onFailure": on_failure},
    });
    s.upgrade("mesh", spec).await
}

async fn automatic(s: &mut Scenario) -> Result<()> {
    let names = ["au-first", "au-second", "au-third"];
    broken_mesh(s, names, "Automatic").await?;
    let status = s.wait_phase("mesh", "RolledBack").await?;
    let rollback = status.run.and_then(|run| run.rollback);
    let message = rollback.map(|rollback| rollback.message).unwrap_or_default();
    ensure!(message.contains("au-second/broken") && message.contains("istio-proxy"), "cause: {message}");
    s.all_on(SOURCE, &names).await?;
    ensure!(s.generation(&Workload::new("au-third", "deployments", "untouched")).await? == 1);
    s.judge(&[]).await
}

#[test]
fn a_workload_that_never_becomes_ready_turns_the_run_back() {
    scenario("automatic", async |s: &mut Scenario| automatic(s).await);
}

async fn pause(s: &mut Scenario) -> Result<()> {
    let names = ["pa-first", "pa-second", "pa-third"];
    broken_mesh(s, names, "Pause").await?;
    let status = s.wait_condition("mesh", "Stalled", "True", "WorkloadFailed").await?;
    let row = status.blocked.iter().find(|row| row.reason == "WorkloadFailed");
    let row =
        row.map(|row| format!("{:?} {:?}: {}", row.namespace, row.name, row.message)).unwrap_or_default();
    ensure!(row.contains("broken") && row.contains("istio-proxy"), "{row}");
    let paused = status.condition("Paused").is_some_and(|paused| paused.status == "True");
    ensure!(paused && status.phase == "Migrating", "{}", status.phase);
    ensure!(s.revision_label("pa-third").await? == SOURCE, "the next wave was begun");
    // The cause is repaired where it is: the run goes on by itself.
    s.cluster()
        .kubectl(&["annotate", "pods", "-n", "pa-second", "--all", "testbed.meshupgrade.io/never-ready-on-"])
        .await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.all_on(TARGET, &names).await?;
    s.judge(&[]).await
}

#[test]
fn a_workload_that_never_becomes_ready_stops_the_run_until_it_is_repaired() {
    scenario("pause", async |s: &mut Scenario| pause(s).await);
}
