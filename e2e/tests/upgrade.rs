//! The way forward.

use std::time::Duration;

use anyhow::{Result, ensure};
use meshupgrade_e2e::referee::{Case, judge, restarts};
use meshupgrade_e2e::{App, Mesh, OperatorSpec, SOURCE, Scenario, TARGET, Workload, scenario};
use serde_json::{Value, json};

/// Canary by selector, named namespaces, the rest.
fn three_waves() -> Value {
    json!([
        {"name": "canary", "namespaceSelector": {"matchLabels": {"wave": "canary"}}},
        {"name": "named", "namespaces": ["up-cart", "up-stock"], "maxConcurrentWorkloads": 2},
        {"name": "rest", "maxConcurrentWorkloads": "50%"},
    ])
}

async fn everything_is_moved(s: &mut Scenario) -> Result<()> {
    let mesh = Mesh::new()
        .namespace("up-front", &[("istio.io/rev", SOURCE), ("wave", "canary")])
        .namespace("up-plain", &[("wave", "canary")])
        .on(SOURCE, "up-cart")
        .on(SOURCE, "up-stock")
        .on(SOURCE, "up-pay")
        .app(App::deployment("up-front", "web").replicas(2).min_available(1))
        .deployments("up-front", &["api"])
        .app(App::stateful_set("up-cart", "db").replicas(2))
        .deployments("up-cart", &["cart"])
        .app(App::deployment("up-stock", "stock").replicas(3).min_available(2))
        .app(App::daemon_set("up-pay", "agent"))
        .deployments("up-pay", &["pay", "books", "audit"])
        .deployments("up-plain", &["legacy"]);
    s.case.plain.insert(Workload::new("up-plain", "deployments", "legacy"));
    s.mesh(mesh).await?;
    s.wave(&["up-front"], 1);
    s.wave(&["up-cart", "up-stock"], 2);
    s.wave(&["up-pay"], 2);
    // Words every ten seconds, as the product does by default: they count in the write budget.
    s.start_operator_as(&OperatorSpec::default().flag("--status-interval-seconds=10"))?;
    let spec = json!({"targetRevision": TARGET, "waves": three_waves(), "completion": {"mode": "Keep"}});
    s.upgrade("mesh", spec).await?;
    let status = s.wait_phase("mesh", "Succeeded").await?;
    ensure!(status.progress == "9/9" && status.wave == "3/3", "{} {}", status.progress, status.wave);
    s.all_on(TARGET, &["up-front", "up-cart", "up-stock", "up-pay"]).await?;
    ensure!(s.proxies("up-plain").await?.keys().eq(["-"]), "the unmeshed namespace is in the mesh now");
    ensure!(s.revision_label("up-plain").await?.is_empty());
    s.judge(&[]).await?;
    the_referee_bites(s).await
}

/// Asks for something else.
type Change = fn(&mut Case);

/// The same real log breaks rules as soon as something stricter was asked for.
async fn the_referee_bites(s: &Scenario) -> Result<()> {
    let log = s.log().await?;
    let stricter: [(&str, Change); 8] = [
        ("log-shows-the-operator", |case| case.operator = "nobody".into()),
        ("label-before-restart", |case| case.settle = Duration::from_hours(1)),
        ("label-before-restart", |case| case.target = "other".into()),
        ("at-most-so-many-at-once", |case| case.waves.iter_mut().for_each(|wave| wave.at_once = 0)),
        ("nothing-outside-the-plan", |case| drop(case.waves.pop())),
        ("nothing-outside-the-plan", |case| case.upgrades.clear()),
        ("enough-pods-ready", |case| case.floors.iter_mut().for_each(|floor| floor.ready = 10)),
        ("every-pod-has-a-sidecar", |case| case.target = "other".into()),
    ];
    for (rule, change) in stricter {
        let mut case = s.case.clone();
        change(&mut case);
        let found = judge(&case, &log, &[]);
        ensure!(found.iter().any(|violation| violation.rule == rule), "{rule} is blind: {found:?}");
    }
    let restarted = restarts(&s.case, &log);
    ensure!(restarted.len() == 9 && restarted.values().all(|count| *count == 1), "{restarted:?}");
    Ok(())
}

#[test]
fn three_waves_move_everything_and_nothing_else() {
    scenario("three_waves", async |s: &mut Scenario| everything_is_moved(s).await);
}

/// Charts often render an empty map; a tool that applies it owns it.
async fn empty_annotations(s: &mut Scenario) -> Result<()> {
    let mut manifest = App::deployment("em-shop", "web").manifest();
    manifest["spec"]["template"]["metadata"]["annotations"] = json!({});
    s.apply_mesh(&Mesh::new().on(SOURCE, "em-shop")).await?;
    s.cluster().apply_yaml_as("kustomize-controller", &manifest.to_string()).await?;
    s.wait_mesh(&Mesh::new().app(App::deployment("em-shop", "web")), SOURCE).await?;
    s.wave(&["em-shop"], 1);
    s.start_operator()?;
    s.upgrade("mesh", json!({"targetRevision": TARGET, "completion": {"mode": "Keep"}})).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.all_on(TARGET, &["em-shop"]).await?;
    s.judge(&[]).await
}

#[test]
fn a_template_with_an_empty_map_of_annotations_is_restarted() {
    scenario("empty_annotations", async |s: &mut Scenario| empty_annotations(s).await);
}
