//! Patch upgrades: the revision stays, its injector gives another image, and only what is outdated is restarted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use meshupgrade_e2e::referee::restarts;
use meshupgrade_e2e::{App, Mesh, OperatorSpec, SOURCE, Scenario, scenario};
use serde_json::json;

const FIRST: &str = "pt-first";
const SECOND: &str = "pt-second";

/// Names of what the operator restarted, and how often.
async fn restarted(s: &Scenario) -> Result<BTreeMap<String, usize>> {
    let found = restarts(&s.case, &s.log().await?);
    Ok(found.into_iter().map(|(workload, times)| (workload.name, times)).collect())
}

async fn twice(s: &mut Scenario, before: &str) -> Result<()> {
    let old = |name, namespace| App::deployment(namespace, name).replicas(2);
    let mesh =
        Mesh::new().on(SOURCE, FIRST).on(SOURCE, SECOND).app(old("one", FIRST)).app(old("two", SECOND));
    s.mesh(mesh.clone()).await?;
    s.patch_source("9.9.1", FIRST).await?;
    s.mesh(Mesh::new().app(old("fresh", SECOND))).await?;
    s.wave(&[FIRST], 1);
    s.wave(&[SECOND], 1);
    s.start_operator_as(&OperatorSpec::default().flag("--proxy-count-interval-seconds=2"))?;
    let waves = json!([{"name": "first", "namespaces": [FIRST]}, {"name": "second", "namespaces": [SECOND]}]);
    let spec = json!({"targetRevision": SOURCE, "sourceRevision": SOURCE, "waves": waves});
    s.upgrade("mesh", spec.clone()).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.wait_proxy_version(&[FIRST, SECOND], "9.9.1", 6).await?;
    let once = restarted(s).await?;
    ensure!(
        once == [("one".to_owned(), 1), ("two".to_owned(), 1)].into(),
        "only what was outdated: {once:?}"
    );
    s.patch_source("9.9.2", FIRST).await?;
    let status = s
        .wait_status("mesh", "the report of outdated proxies", |status| {
            status.outdated_proxies.as_ref().is_some_and(|found| found.proxies == 6)
        })
        .await?;
    let report = status.outdated_proxies.context("it was there")?;
    ensure!(report.version == "9.9.2" && report.workloads == 3, "{report:?}");
    ensure!(status.phase == "Succeeded" && restarted(s).await? == once, "nothing starts by itself");
    let mut again = spec;
    again["runId"] = json!("second");
    s.upgrade("mesh", again).await?;
    s.wait_status("mesh", "the end of the second run", |status| {
        status.phase == "Succeeded" && status.run.as_ref().is_some_and(|run| run.counter == 2)
    })
    .await?;
    s.wait_proxy_version(&[FIRST, SECOND], "9.9.2", 6).await?;
    let names: BTreeSet<String> = restarted(s).await?.into_keys().collect();
    ensure!(names == ["fresh", "one", "two"].map(str::to_owned).into(), "{names:?}");
    for namespace in [FIRST, SECOND] {
        ensure!(s.revision_label(namespace).await? == SOURCE, "no label is touched");
    }
    ensure!(s.injector_values().await? != before, "the values were changed");
    Ok(())
}

#[test]
fn only_outdated_proxies_are_replaced_twice() {
    scenario("patch", async |s: &mut Scenario| {
        let before = s.injector_values().await?;
        s.case.target = SOURCE.into();
        // No label moves, so that none has to settle.
        s.case.settle = Duration::ZERO;
        let result = twice(s, &before).await;
        s.set_injector_values(&before).await?;
        result?;
        // Two runs in one log, which the scenario counts for itself.
        s.judge(&["each-workload-once", "write-budget"]).await
    });
}
