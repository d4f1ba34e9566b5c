//! Runs that stop, or turn back, for what their metrics say.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use meshupgrade_api::MeshUpgradeStatus;
use meshupgrade_core::analysis::verdict::Verdict;
use meshupgrade_core::record::Sample;
use meshupgrade_e2e::telemetry::{Fault, Telemetry};
use meshupgrade_e2e::{App, Mesh, SOURCE, Scenario, TARGET, scenario};
use serde_json::{Value, json};

use crate::{metric, operator};

/// How long a run there and back may take.
const RUN: Duration = Duration::from_mins(2);

/// A canary and a second wave with `web`, which has a fault on the target, and `other`. The names of the two namespaces.
async fn begin(
    s: &mut Scenario,
    names: [&str; 2],
    fault: fn(Fault) -> Fault,
    spec: Value,
) -> Result<(Mesh, Telemetry)> {
    let [canary, shop] = names;
    let mesh = Mesh::new()
        .on(SOURCE, canary)
        .on(SOURCE, shop)
        .app(App::deployment(canary, "first").replicas(2))
        .app(App::deployment(shop, "web").replicas(2))
        .app(App::deployment(shop, "other"));
    s.mesh(mesh.clone()).await?;
    s.wave(&[canary], 1);
    s.wave(&[shop], 2);
    let telemetry = Telemetry::start(s, &[fault(Fault::of(shop, "web", TARGET))]).await?;
    s.start_operator_as(&operator(s, &telemetry, &[])?)?;
    // So that there is a time before the restarts.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let waves = json!([
        {"name": "canary", "namespaces": [canary]},
        {"name": "shop", "namespaces": [shop], "maxConcurrentWorkloads": 2},
    ]);
    let mut whole = json!({"targetRevision": TARGET, "waves": waves, "completion": {"mode": "Keep"}});
    if let (Some(whole), Value::Object(spec)) = (whole.as_object_mut(), spec) {
        whole.extend(spec);
    }
    s.upgrade("mesh", whole).await?;
    Ok((mesh, telemetry))
}

/// Everything goes back, and status and an event say why.
async fn turned_back(
    s: &mut Scenario,
    mesh: &Mesh,
    names: [&str; 2],
    metric: &str,
) -> Result<MeshUpgradeStatus> {
    let status = s
        .wait_status_within(RUN, "mesh", "the end of the rollback", |status| status.phase == "RolledBack")
        .await?;
    s.wait_mesh(mesh, SOURCE).await?;
    s.all_on(SOURCE, &names).await?;
    let rollback = status.run.as_ref().and_then(|run| run.rollback.as_ref()).context("no cause")?;
    ensure!(rollback.message.contains(metric), "{}", rollback.message);
    ensure!(status.message.contains(metric), "{}", status.message);
    let failed = status.analysis.iter().find(|sample| sample.verdict == Verdict::Failed && !sample.dry_run);
    let failed = failed.with_context(|| format!("no failed measurement in {:?}", status.analysis))?;
    ensure!(failed.metric == metric && failed.wave == "shop" && failed.value.is_some(), "{failed:?}");
    ensure!(failed.query.contains(names[1]), "the query as it was asked: {}", failed.query);
    let canary = status
        .analysis
        .iter()
        .find(|sample| sample.wave == "canary" && !sample.dry_run)
        .context("the canary was not measured")?;
    ensure!(canary.verdict == Verdict::Passed, "{canary:?}");
    s.wait_event("MetricFailed").await?;
    s.wait_event("RollbackStarted").await?;
    s.judge(&[]).await?;
    Ok(status)
}

fn automatic(metrics: &[Value]) -> Value {
    json!({"rollback": {"onFailure": "Automatic"}, "analysis": {"metrics": metrics}})
}

#[test]
fn errors_on_the_target_turn_the_run_back() {
    scenario("gate-errors", async |s: &mut Scenario| {
        let metrics = [metric("success-rate", &json!({"builtin": "SuccessRate", "min": 95}))];
        let (mesh, telemetry) =
            begin(s, ["gt-errors-first", "gt-errors-shop"], |web| web.errors(0.3), automatic(&metrics))
                .await?;
        let status = turned_back(s, &mesh, ["gt-errors-first", "gt-errors-shop"], "success-rate").await?;
        ensure!(status.message.contains("gt-errors-shop/web"), "the workload is named: {}", status.message);
        drop(telemetry);
        Ok(())
    });
}

#[test]
fn slow_answers_on_the_target_turn_the_run_back() {
    scenario("gate-latency", async |s: &mut Scenario| {
        let metrics = [
            metric("latency", &json!({"builtin": "LatencyP99", "max": 200})),
            metric("success-rate", &json!({"builtin": "SuccessRate", "min": "99.9"})),
        ];
        let (mesh, telemetry) =
            begin(s, ["gt-lat-first", "gt-lat-shop"], |web| web.latency_ms(400.0), automatic(&metrics))
                .await?;
        turned_back(s, &mesh, ["gt-lat-first", "gt-lat-shop"], "latency").await?;
        drop(telemetry);
        Ok(())
    });
}

#[test]
fn what_is_worse_than_before_turns_the_run_back_within_its_bounds() {
    scenario("gate-baseline", async |s: &mut Scenario| {
        let rule = json!({"builtin": "SuccessRate", "min": 50, "baseline": {"maxDecrease": 5}});
        let slow = json!({"builtin": "LatencyP99", "max": 1, "dryRun": true});
        let metrics = [metric("no-worse", &rule), metric("slow", &slow)];
        let (mesh, telemetry) =
            begin(s, ["gt-base-first", "gt-base-shop"], |web| web.errors(0.2), automatic(&metrics)).await?;
        let status = turned_back(s, &mesh, ["gt-base-first", "gt-base-shop"], "no-worse").await?;
        let failed = status
            .analysis
            .iter()
            .find(|sample| sample.metric == "no-worse" && sample.verdict == Verdict::Failed);
        ensure!(
            failed.is_some_and(|sample| sample.baseline.as_deref() == Some("100")),
            "{:?}",
            status.analysis
        );
        let dry =
            status.analysis.iter().find(|sample| sample.metric == "slow").context("dryRun is measured")?;
        ensure!(dry.dry_run && dry.verdict == Verdict::Failed, "{dry:?}");
        drop(telemetry);
        Ok(())
    });
}

/// Each of these metrics passed in a wave.
fn passed(status: &MeshUpgradeStatus, wave: &str, names: &[&str]) -> Result<()> {
    for name in names {
        let is_it = |sample: &&Sample| sample.metric == *name && sample.wave == wave;
        let passed = status.analysis.iter().filter(is_it).any(|sample| sample.verdict == Verdict::Passed);
        ensure!(passed, "{name} in {wave}: {:?}", status.analysis);
    }
    Ok(())
}

/// All metrics of istiod and of proxies pass, and so does a query of the user, up to a workload whose proxies refuse what istiod
/// sends. They refuse when they connect, and at each push: once these are over, nothing is wrong any more after a
/// retry.
#[test]
fn refused_configuration_pauses_the_run_until_a_retry() {
    scenario("gate-istiod", async |s: &mut Scenario| {
        let requests = "istio_requests_total{destination_workload_namespace=~\"$(namespaces)\",destination_workload=~\"$(workloads)\"}[$(window)]";
        let own = json!({
            "query": format!("sum(rate({requests}))"), "samplesQuery": format!("sum(increase({requests}))"),
            "minSamples": 10, "min": 10,
        });
        let metrics = [
            metric("rejects", &json!({"builtin": "XdsRejects"})),
            metric("connected", &json!({"builtin": "ConnectedProxies"})),
            metric("restarts", &json!({"builtin": "ProxyRestarts"})),
            metric("own", &own),
        ];
        let spec = json!({"analysis": {"metrics": metrics}});
        let (mesh, telemetry) =
            begin(s, ["gt-istiod-first", "gt-istiod-shop"], Fault::rejects_configuration, spec).await?;
        let status = s
            .wait_status_within(RUN, "mesh", "a failed analysis", |status| {
                status.blocked.iter().any(|row| row.reason == "AnalysisFailed")
            })
            .await?;
        passed(&status, "canary", &["rejects", "connected", "restarts", "own"])?;
        let refused =
            status.analysis.iter().find(|sample| sample.wave == "shop" && sample.metric == "rejects");
        // How many it is, depends on istiod: each of its pushes is refused again.
        let count = refused.and_then(|sample| sample.value.as_deref()).and_then(|value| value.parse().ok());
        ensure!(
            refused.is_some_and(|sample| sample.verdict == Verdict::Failed) && count > Some(0_u32),
            "clusters and listeners of two pods: {refused:?}"
        );
        let paused = status.condition("Paused").context("no condition Paused")?;
        ensure!(paused.status == "True" && paused.reason == "AnalysisFailed", "{paused:?}");
        tokio::time::sleep(Duration::from_secs(3)).await;
        ensure!(s.status("mesh").await?.phase == "Migrating", "time alone does not mend it");
        s.retry("mesh", "looked-at").await?;
        let status =
            s.wait_status_within(RUN, "mesh", "success", |status| status.phase == "Succeeded").await?;
        passed(&status, "shop", &["rejects", "connected", "restarts", "own"])?;
        s.wait_mesh(&mesh, TARGET).await?;
        s.judge(&[]).await?;
        drop(telemetry);
        Ok(())
    });
}
