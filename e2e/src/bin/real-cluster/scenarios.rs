//! The scenarios that any cluster with two revisions can show.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kube::Client;
use kube::api::PostParams;
use kube::core::Request;
use meshupgrade_e2e::operator::Operator;
use serde_json::{Value, json};

use crate::site::Site;
use crate::stage::Stage;

/// Their names; those of `e2e/tests` have the same.
pub const NAMES: [&str; 5] =
    ["invalid_manifests", "plan_only", "three_waves", "suspend", "rollback_requested"];
const UPGRADES: &str = "/apis/meshupgrade.io/v1alpha1/meshupgrades";
const INVALID: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/api/tests/fixtures/invalid");

/// Runs all of them, prints how each one ended, and says whether all passed.
pub async fn run(site: &Site, operator: &mut Operator) -> Result<bool> {
    let mut passed = true;
    for name in NAMES {
        let begun = Instant::now();
        let outcome = one(site, name).await;
        let seconds = begun.elapsed().as_secs_f32();
        let Err(error) = outcome else {
            println!("passed {name}: {seconds:.1} s");
            continue;
        };
        passed = false;
        println!("FAILED {name}: {seconds:.1} s: {error:#}\n--- operator\n{}", operator.log_tail(20));
        ensure!(operator.is_running(), "the operator has ended");
    }
    Ok(passed)
}

async fn one(site: &Site, name: &str) -> Result<()> {
    if name == "invalid_manifests" {
        return invalid_manifests(&site.client).await;
    }
    let stage = Stage::of(site, name);
    let outcome = play(&stage, name).await;
    outcome.and(stage.clear().await)
}

async fn play(stage: &Stage<'_>, name: &str) -> Result<()> {
    stage.set().await?;
    match name {
        "plan_only" => plan_only(stage).await,
        "three_waves" => waves(stage).await,
        "suspend" => suspend(stage).await,
        _ => rollback_requested(stage).await,
    }
}

/// The fixtures that are wrong by themselves are refused; changes of stored objects are not tried here.
async fn invalid_manifests(client: &Client) -> Result<()> {
    let mut tried = 0;
    for entry in fs::read_dir(INVALID)? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        if text.lines().any(|line| line.starts_with("# update:")) {
            continue;
        }
        let manifest: Value = serde_saphyr::from_str(&text)?;
        refused(&path, said_against(client, &manifest).await?)?;
        tried += 1;
    }
    ensure!(tried > 20, "only {tried} manifests");
    Ok(())
}

/// The server prunes fields that it does not know, unless it is asked to be strict: then it says so.
async fn said_against(client: &Client, manifest: &Value) -> Result<Option<kube::Error>> {
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let mut request = Request::new(UPGRADES).create(&dry, serde_json::to_vec(manifest)?)?;
    *request.uri_mut() = format!("{}&fieldValidation=Strict", request.uri()).parse()?;
    Ok(client.request::<Value>(request).await.err())
}

fn refused(path: &Path, answer: Option<kube::Error>) -> Result<()> {
    match answer {
        Some(kube::Error::Api(status)) if (400..500).contains(&status.code) => Ok(()),
        Some(error) => Err(error).with_context(|| path.display().to_string()),
        None => anyhow::bail!("{} was accepted", path.display()),
    }
}

async fn plan_only(stage: &Stage<'_>) -> Result<()> {
    stage.upgrade(json!({"planOnly": true})).await?;
    let status = stage.wait_phase("Planned").await?;
    let plan = status.plan.context("no plan")?;
    let waves: Vec<(&str, u32)> =
        plan.waves.iter().map(|wave| (wave.name.as_str(), wave.workloads)).collect();
    let [first, second] = &stage.namespaces;
    ensure!(waves == [(first.as_str(), 1), (second.as_str(), 2)], "{waves:?}");
    // Longer than the settle time.
    tokio::time::sleep(Duration::from_secs(4)).await;
    ensure!(stage.restarts().await? == [0, 0, 0], "something was restarted");
    stage.all_on(&stage.site.source).await
}

/// Two waves here.
async fn waves(stage: &Stage<'_>) -> Result<()> {
    stage.up_to_the_middle().await?;
    ensure!(stage.restarts().await? == [1, 1, 0], "one workload at a time, in the order of the waves");
    let status = stage.wait_phase("Succeeded").await?;
    ensure!(status.progress == "3/3" && status.wave == "2/2", "{} {}", status.progress, status.wave);
    ensure!(stage.restarts().await? == [1, 1, 1], "each workload once: {:?}", stage.restarts().await?);
    stage.all_on(&stage.site.target).await
}

async fn suspend(stage: &Stage<'_>) -> Result<()> {
    stage.up_to_the_middle().await?;
    stage.patch(json!({"suspend": true})).await?;
    let held = |status: &meshupgrade_api::MeshUpgradeStatus| {
        status.run.as_ref().is_some_and(|run| run.batch.is_none() && run.wave == 1)
            && status.condition("Paused").is_some_and(|paused| paused.reason == "Suspended")
    };
    stage.wait("no open batch", held).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(stage.restarts().await? == [1, 1, 0], "something was started while suspended");
    stage.patch(json!({"suspend": false})).await?;
    stage.wait_phase("Succeeded").await?;
    stage.all_on(&stage.site.target).await
}

async fn rollback_requested(stage: &Stage<'_>) -> Result<()> {
    stage.up_to_the_middle().await?;
    stage.patch(json!({"rollback": {"requested": true}})).await?;
    stage.wait_phase("RolledBack").await?;
    let restarts = stage.restarts().await?;
    ensure!(restarts == [2, 2, 0], "there and back, and what was not reached not at all: {restarts:?}");
    stage.all_on(&stage.site.source).await
}
