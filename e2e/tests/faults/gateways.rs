//! Injected gateways.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use meshupgrade_core::ids::NamespaceName;
use meshupgrade_core::plan::WaveKind;
use meshupgrade_e2e::referee::History;
use meshupgrade_e2e::{App, Mesh, SOURCE, Scenario, TARGET, scenario};

use crate::spec;

/// As in Istio's guide: the injector fills in the container.
fn gateway(namespace: &str, name: &str) -> App {
    App::deployment(namespace, name)
        .container("istio-proxy", "auto")
        .pod_annotation("inject.istio.io/templates", "gateway")
        .pod_label("sidecar.istio.io/inject", "true")
}

/// Two namespaces of two waves, each with a gateway; in each wave two workloads at once.
async fn gateways_last(s: &mut Scenario) -> Result<()> {
    let names = ["gw-edge", "gw-shop"];
    let mesh = Mesh::new()
        .on(SOURCE, names[0])
        .on(SOURCE, names[1])
        .app(gateway(names[0], "ingress").replicas(2).set("ready-after", "1s"))
        .app(App::deployment(names[0], "web").replicas(2))
        .app(gateway(names[1], "egress"))
        .app(App::stateful_set(names[1], "db").replicas(2))
        .app(App::deployment(names[1], "slow").set("ready-after", "1500ms"));
    s.mesh(mesh.clone()).await?;
    for name in names {
        s.wave(&[name], 2);
    }
    s.start_operator()?;
    let mut spec = spec(&names);
    for wave in 0..names.len() {
        spec["waves"][wave]["maxConcurrentWorkloads"] = 2.into();
    }
    s.upgrade("mesh", spec).await?;
    let status = s.wait_phase("mesh", "Succeeded").await?;
    in_a_wave_of_their_own(s).await?;
    let waves = status.plan.context("no plan")?.waves;
    let last = waves.last().context("no waves")?;
    ensure!(waves.len() == 3 && last.kind == WaveKind::Gateways && last.workloads == 2, "{waves:?}");
    ensure!(last.namespaces.iter().map(NamespaceName::as_str).eq(names), "{last:?}");
    s.wait_mesh(&mesh, TARGET).await?;
    s.all_on(TARGET, &names).await?;
    s.judge(&[]).await
}

/// By the audit log: a gateway is restarted when everything that was restarted before is over.
async fn in_a_wave_of_their_own(s: &Scenario) -> Result<()> {
    let history = History::of(&s.case, &s.log().await?);
    let restarts: Vec<_> = history.effective().collect();
    let order: Vec<&str> = restarts.iter().map(|restart| restart.workload.name.as_str()).collect();
    let last: BTreeSet<&str> = order.iter().skip(3).copied().collect();
    ensure!(order.len() == 5 && last == ["ingress", "egress"].into(), "restarted in this order: {order:?}");
    for (index, gateway) in restarts.iter().enumerate().skip(3) {
        for before in &restarts[..index] {
            let over = history.over(before).is_some_and(|over| over < gateway.order);
            ensure!(over, "{} was restarted while {} was in rollout", gateway.workload, before.workload);
        }
    }
    Ok(())
}

#[test]
fn injected_gateways_are_restarted_last_in_a_wave_of_their_own() {
    scenario("gateways_last", async |s: &mut Scenario| gateways_last(s).await);
}
