//! Patch upgrades: the revision stays, its injector gives another image, and only what is outdated is restarted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use meshupgrade_e2e::referee::restarts;
use meshupgrade_e2e::{App, Mesh, OperatorSpec, SOURCE, Scenario, scenario};
use meshupgrade_testbed::{SYSTEM_NAMESPACE, wait_for};
use serde_json::{Value, json};

const FIRST: &str = "pt-first";
const SECOND: &str = "pt-second";

/// The values of the source's injector.
async fn values(s: &Scenario) -> Result<String> {
    let maps: Api<ConfigMap> = Api::namespaced(s.client(), SYSTEM_NAMESPACE);
    let map = maps.get(&injector()).await?;
    map.data.and_then(|mut data| data.remove("values")).context("no values")
}

fn injector() -> String {
    format!("istio-sidecar-injector-{SOURCE}")
}

async fn set_values(s: &Scenario, values: &str) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(s.client(), SYSTEM_NAMESPACE);
    let patch = Patch::Merge(json!({"data": {"values": values}}));
    maps.patch(&injector(), &PatchParams::default(), &patch).await?;
    Ok(())
}

/// The provider patches the control plane: istiod reads its values again, and new pods get another image.
async fn set_tag(s: &Scenario, tag: &str) -> Result<()> {
    let mut all: Value = serde_json::from_str(&values(s).await?)?;
    all["global"]["tag"] = json!(tag);
    set_values(s, &all.to_string()).await?;
    // Until a new pod has it, tried without leaving one behind.
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe", "namespace": FIRST},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]}});
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(s.client(), FIRST);
    let dry = kube::api::PostParams { dry_run: true, ..kube::api::PostParams::default() };
    let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod)?;
    wait_for(&format!("istiod to inject {tag}"), Duration::from_mins(1), || async {
        let made = pods.create(&dry, &pod).await?;
        let spec = made.spec.unwrap_or_default();
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let image = containers.filter(|one| one.name == "istio-proxy").find_map(|one| one.image.clone());
        ensure!(image.as_ref().is_some_and(|image| image.ends_with(tag)), "it injects {image:?}");
        Ok(Some(()))
    })
    .await
}

/// How many pods of each proxy image there are.
async fn images(s: &Scenario) -> Result<BTreeMap<String, usize>> {
    let mut found = BTreeMap::new();
    for namespace in [FIRST, SECOND] {
        for pod in s.cluster().proxy_revisions(namespace).await?.into_values() {
            let image = pod.image.unwrap_or_default();
            let tag = image.rsplit(':').next().unwrap_or_default().to_owned();
            *found.entry(tag).or_default() += 1;
        }
    }
    Ok(found)
}

async fn all_have(s: &Scenario, tag: &str, pods: usize) -> Result<()> {
    wait_for(&format!("{pods} proxies of {tag}"), Duration::from_secs(30), || async {
        let found = images(s).await?;
        ensure!(found == [(tag.to_owned(), pods)].into(), "{found:?}");
        Ok(Some(()))
    })
    .await
}

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
    set_tag(s, "9.9.1").await?;
    s.mesh(Mesh::new().app(old("fresh", SECOND))).await?;
    s.wave(&[FIRST], 1);
    s.wave(&[SECOND], 1);
    s.start_operator_as(&OperatorSpec::default().flag("--proxy-count-interval-seconds=2"))?;
    let waves = json!([{"name": "first", "namespaces": [FIRST]}, {"name": "second", "namespaces": [SECOND]}]);
    let spec = json!({"targetRevision": SOURCE, "sourceRevision": SOURCE, "waves": waves});
    s.upgrade("mesh", spec.clone()).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    all_have(s, "9.9.1", 6).await?;
    let once = restarted(s).await?;
    ensure!(
        once == [("one".to_owned(), 1), ("two".to_owned(), 1)].into(),
        "only what was outdated: {once:?}"
    );
    set_tag(s, "9.9.2").await?;
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
    all_have(s, "9.9.2", 6).await?;
    let names: BTreeSet<String> = restarted(s).await?.into_keys().collect();
    ensure!(names == ["fresh", "one", "two"].map(str::to_owned).into(), "{names:?}");
    for namespace in [FIRST, SECOND] {
        ensure!(s.revision_label(namespace).await? == SOURCE, "no label is touched");
    }
    ensure!(values(s).await? != before, "the values were changed");
    Ok(())
}

#[test]
fn only_outdated_proxies_are_replaced_twice() {
    scenario("patch", async |s: &mut Scenario| {
        let before = values(s).await?;
        s.case.target = SOURCE.into();
        let result = twice(s, &before).await;
        set_values(s, &before).await?;
        result?;
        // Two runs in one log, which the scenario counts for itself.
        s.judge(&["each-workload-once", "write-budget"]).await
    });
}
