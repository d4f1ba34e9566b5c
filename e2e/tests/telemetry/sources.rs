//! Metric sources that do not tell: a gate never passes for want of news, and says what it was.

use std::time::Duration;

use anyhow::{Result, ensure};
use meshupgrade_core::analysis::verdict::Verdict;
use meshupgrade_core::record::Sample;
use meshupgrade_e2e::telemetry::{Fault, Telemetry};
use meshupgrade_e2e::{Mesh, SOURCE, Scenario, TARGET, Workload, scenario};
use serde_json::{Value, json};

use crate::hostile::Hostile;
use crate::{metric, operator};

/// What is asked, and what becomes of it: the verdict, and a part of the words.
fn cases() -> [(Value, Verdict, &'static str); 11] {
    let from = |source: &str| json!({"source": source, "query": "vector(1)", "min": 1});
    let query = |query: &str| json!({"query": query, "min": 1});
    [
        (from("unauthorized"), Verdict::Error, "Unauthorized"),
        (from("slow"), Verdict::Error, "TimedOut"),
        (from("redirect"), Verdict::Error, "Redirected"),
        (from("flood"), Verdict::Error, "TooLarge"),
        (from("garbage"), Verdict::Error, "BadAnswer"),
        (from("forbidden"), Verdict::Error, "Forbidden"),
        (from("down"), Verdict::Error, "Unreachable"),
        (query("sum(("), Verdict::Error, "BadQuery"),
        (query("nothing_of_this_name"), Verdict::NoData, "empty"),
        (query("vector(0) / 0"), Verdict::NoData, "NaN"),
        (
            json!({"builtin": "SuccessRate", "min": 1, "minSamples": 1_000_000}),
            Verdict::NoData,
            "1000000 samples",
        ),
    ]
}

/// Waits until each metric was measured, in as many lists as it takes, with what is expected of it.
async fn nothing_passes(s: &Scenario) -> Result<()> {
    for (number, (more, verdict, words)) in cases().into_iter().enumerate() {
        let name = format!("m{number}");
        let metrics = json!([metric(&name, &more)]);
        s.patch_upgrade("mesh", json!({"spec": {"analysis": {"metrics": metrics}}})).await?;
        let what = format!("a measurement of {more} that says {words:?}");
        let status = s
            .wait_status("mesh", &what, |status| {
                let found = |sample: &&Sample| sample.metric == name && sample.message.contains(words);
                status.analysis.iter().any(|sample| found(&sample) && sample.verdict == verdict)
            })
            .await?;
        let passed =
            status.analysis.iter().any(|sample| sample.metric == name && sample.verdict == Verdict::Passed);
        ensure!(!passed, "{more} passed: {:?}", status.analysis);
        ensure!(status.run.as_ref().is_some_and(|run| run.gate.is_some()), "the gate of {more} is closed");
    }
    Ok(())
}

#[test]
fn no_news_is_no_good_news_and_the_way_back_needs_none() {
    scenario("gate-no-news", async |s: &mut Scenario| {
        let mesh = Mesh::new().on(SOURCE, "ns-mute").deployments("ns-mute", &["a", "b"]);
        s.mesh(mesh.clone()).await?;
        s.wave(&["ns-mute"], 1);
        let mut telemetry = Telemetry::start(s, &[]).await?;
        let hostile = Hostile::start().await?;
        s.start_operator_as(&operator(s, &telemetry, &hostile.sources())?)?;
        let first = metric("m", &json!({"source": "unknown", "query": "vector(1)", "min": 1}));
        s.upgrade(
            "mesh",
            json!({"targetRevision": TARGET, "completion": {"mode": "Keep"}, "analysis": {"metrics": [first]}}),
        )
        .await?;
        let status = s.wait_blocked("mesh", "AnalysisError").await?;
        let named = status.analysis.first().is_some_and(|sample| sample.message.contains("UnknownSource"));
        ensure!(named, "{:?}", status.analysis);
        nothing_passes(s).await?;
        telemetry.stop_prometheus().await?;
        // Only the first batch was restarted in all this time.
        let workloads =
            [Workload::new("ns-mute", "deployments", "a"), Workload::new("ns-mute", "deployments", "b")];
        let mut generations = 0;
        for workload in &workloads {
            generations += s.generation(workload).await?;
        }
        ensure!(generations == 3, "one of two is restarted, not {}", generations - 2);
        s.patch_upgrade("mesh", json!({"spec": {"rollback": {"requested": true}}})).await?;
        s.wait_phase("mesh", "RolledBack").await?;
        s.wait_mesh(&mesh, SOURCE).await?;
        ensure!(s.operator()?.is_running(), "the operator ended");
        // Each change of the spec and each measurement is a write of status.
        s.judge(&["write-budget"]).await
    });
}

#[test]
fn a_gate_goes_on_when_prometheus_is_back() {
    scenario("gate-comes-back", async |s: &mut Scenario| {
        let mesh = Mesh::new().on(SOURCE, "ns-back").deployments("ns-back", &["a", "b"]);
        s.mesh(mesh.clone()).await?;
        s.wave(&["ns-back"], 1);
        let mut telemetry = Telemetry::start(s, &[]).await?;
        s.start_operator_as(&operator(s, &telemetry, &[])?)?;
        telemetry.stop_prometheus().await?;
        let metrics =
            [metric("success-rate", &json!({"builtin": "SuccessRate", "min": 99, "errorLimit": 1}))];
        s.upgrade(
            "mesh",
            json!({
                "targetRevision": TARGET, "completion": {"mode": "Keep"},
                "rollback": {"onFailure": "Automatic"}, "analysis": {"metrics": metrics},
            }),
        )
        .await?;
        s.wait_condition("mesh", "Stalled", "True", "AnalysisError").await?;
        telemetry.start_prometheus().await?;
        s.wait_status_within(Duration::from_mins(2), "mesh", "success", |status| status.phase == "Succeeded")
            .await?;
        s.wait_mesh(&mesh, TARGET).await?;
        s.judge(&[]).await
    });
}

/// A collector that is behind: there are values in the window, and the newest of them is too old.
#[test]
fn stale_samples_are_no_data() {
    scenario("gate-stale", async |s: &mut Scenario| {
        let mesh = Mesh::new().on(SOURCE, "ns-stale").deployments("ns-stale", &["web"]);
        s.mesh(mesh.clone()).await?;
        s.wave(&["ns-stale"], 1);
        let late = Fault::of("ns-stale", "web", TARGET).late(Duration::from_secs(15));
        let telemetry = Telemetry::start(s, &[late]).await?;
        s.start_operator_as(&operator(s, &telemetry, &[])?)?;
        let rule = json!({"builtin": "SuccessRate", "min": 99, "windowSeconds": 30, "noDataLimit": 1});
        let metrics = json!([metric("success-rate", &rule)]);
        let spec = json!({"targetRevision": TARGET, "completion": {"mode": "Keep"}, "analysis": {"metrics": metrics}});
        s.upgrade("mesh", spec).await?;
        let status = s
            .wait_status_within(Duration::from_mins(2), "mesh", "no data", |status| {
                status.blocked.iter().any(|row| row.reason == "AnalysisNoData")
            })
            .await?;
        let all = status.analysis.iter().all(|sample| sample.verdict == Verdict::NoData);
        ensure!(all && !status.analysis.is_empty(), "{:?}", status.analysis);
        let some = telemetry
            .value("count(istio_requests_total{destination_workload_namespace=\"ns-stale\"})")
            .await?;
        ensure!(some.is_some(), "Prometheus has values, but old ones");
        // Who knows that his collector is behind says so.
        let patient = json!({"builtin": "SuccessRate", "min": 99, "windowSeconds": 30, "maxAgeSeconds": 25});
        let metrics = json!([metric("success-rate", &patient)]);
        s.patch_upgrade("mesh", json!({"spec": {"analysis": {"metrics": metrics}}})).await?;
        s.wait_status_within(Duration::from_mins(2), "mesh", "success", |status| status.phase == "Succeeded")
            .await?;
        s.wait_mesh(&mesh, TARGET).await?;
        s.judge(&["write-budget"]).await
    });
}
