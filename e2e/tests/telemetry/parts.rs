//! The parts by themselves, without any MeshUpgrade.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use meshupgrade_e2e::telemetry::{Fault, Telemetry};
use meshupgrade_e2e::{App, Mesh, SOURCE, Scenario, TARGET, scenario};
use meshupgrade_testbed::wait_for;

const NAME: &str = "tl-shop";
/// A few scrapes and the range of the rates.
const SCRAPED: Duration = Duration::from_secs(40);

/// Waits until a query has a value of this kind; without data it has none.
async fn until(telemetry: &Telemetry, query: &str, good: impl Fn(Option<f64>) -> bool) -> Result<()> {
    let ask = || async {
        let value = telemetry.value(query).await?;
        ensure!(good(value), "it is {value:?}");
        Ok(Some(()))
    };
    wait_for(query, SCRAPED, ask).await
}

fn near(value: Option<f64>, wanted: f64) -> bool {
    value.is_some_and(|value| (value - wanted).abs() < 0.1 * wanted)
}

fn connected(revision: &str) -> String {
    format!("sum(pilot_xds{{istio_io_rev=\"{revision}\"}})")
}

fn rejects(revision: &str) -> String {
    format!("sum(pilot_total_xds_rejects{{istio_io_rev=\"{revision}\"}})")
}

fn requests(workload: &str, more: &str) -> String {
    let which = format!("reporter=\"destination\",destination_workload=\"{workload}\"{more}");
    format!("sum(rate(istio_requests_total{{{which}}}[10s]))")
}

fn error_share(workload: &str) -> String {
    let errors = requests(workload, ",response_code=~\"5..\"");
    format!("{errors} / {}", requests(workload, ""))
}

fn p90(workload: &str) -> String {
    let buckets =
        format!("istio_request_duration_milliseconds_bucket{{destination_workload=\"{workload}\"}}[10s]");
    format!("histogram_quantile(0.9, sum by (le) (rate({buckets})))")
}

/// Two pods each; what the table says begins on the target.
async fn healthy(telemetry: &Telemetry) -> Result<()> {
    until(telemetry, &connected(SOURCE), |pods| pods == Some(4.0)).await?;
    until(telemetry, &requests("web", ""), |rate| near(rate, 100.0)).await?;
    until(telemetry, &p90("web"), |latency| latency.is_some_and(|latency| latency < 50.0)).await?;
    until(telemetry, "count(istio_agent_process_start_time_seconds)", |pods| pods == Some(4.0)).await?;
    ensure!(telemetry.value(&error_share("web")).await?.is_none(), "no error, so no series of errors");
    ensure!(telemetry.value(&rejects(SOURCE)).await?.unwrap_or_default() == 0.0, "nothing is refused");
    Ok(())
}

/// By hand, as a person would.
async fn move_to_target(s: &mut Scenario, mesh: &Mesh) -> Result<()> {
    let label = format!("istio.io/rev={TARGET}");
    s.cluster().kubectl(&["label", "namespace", NAME, &label, "--overwrite"]).await?;
    // The API server knows its namespaces from a watch.
    tokio::time::sleep(Duration::from_secs(1)).await;
    s.cluster().kubectl(&["rollout", "restart", "deployment", "-n", NAME]).await?;
    s.wait_mesh(mesh, TARGET).await
}

async fn broken(telemetry: &Telemetry) -> Result<()> {
    until(telemetry, &error_share("web"), |share| near(share, 0.25)).await?;
    until(telemetry, &p90("web"), |latency| latency.is_some_and(|latency| latency > 200.0)).await?;
    until(telemetry, &requests("api", ""), |rate| near(rate, 100.0)).await?;
    ensure!(telemetry.value(&error_share("api")).await?.is_none(), "only web answers with errors");
    // Clusters and listeners of two pods.
    until(telemetry, &rejects(TARGET), |count| count >= Some(4.0)).await?;
    until(telemetry, &connected(TARGET), |pods| pods == Some(4.0)).await?;
    until(telemetry, &connected(SOURCE), |pods| pods == Some(0.0)).await?;
    ensure!(telemetry.value(&rejects(SOURCE)).await?.unwrap_or_default() == 0.0, "only on the target");
    until(telemetry, "count(istio_agent_process_start_time_seconds)", |pods| pods == Some(4.0)).await
}

async fn gone_and_back(telemetry: &mut Telemetry) -> Result<()> {
    let url = telemetry.prometheus_url();
    telemetry.stop_prometheus().await?;
    ensure!(telemetry.query("1").await.is_err(), "nobody answers");
    telemetry.start_prometheus().await?;
    ensure!(telemetry.prometheus_url() == url, "at the same address");
    // What was scraped only before: the pods on the source.
    let query = format!("max_over_time({}[10m:1s])", connected(SOURCE));
    let most = telemetry.value(&query).await?.context("its data are lost")?;
    ensure!(most >= 4.0, "{most}");
    until(telemetry, &error_share("web"), |share| near(share, 0.25)).await
}

async fn smoke(s: &mut Scenario) -> Result<()> {
    let app = |name| App::deployment(NAME, name).replicas(2);
    let mesh = Mesh::new().on(SOURCE, NAME).app(app("web")).app(app("api"));
    s.mesh(mesh.clone()).await?;
    let faults = [
        Fault::of(NAME, "web", TARGET).errors(0.25).latency_ms(400.0),
        Fault::of(NAME, "api", TARGET).rejects_configuration(),
    ];
    let mut telemetry = Telemetry::start(s, &faults).await?;
    healthy(&telemetry).await?;
    move_to_target(s, &mesh).await?;
    broken(&telemetry).await?;
    gone_and_back(&mut telemetry).await?;
    telemetry.check_clients()
}

#[test]
fn a_mesh_tells_about_itself() {
    scenario("telemetry", async |s: &mut Scenario| smoke(s).await);
}
