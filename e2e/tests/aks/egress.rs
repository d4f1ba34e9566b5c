//! An egress gateway of the add-on in a namespace of somebody's own.

use anyhow::{Result, ensure};
use meshupgrade_e2e::azure::{Azure, gateway};
use meshupgrade_e2e::{SOURCE, Scenario, TARGET};
use meshupgrade_testbed::wait_for;
use serde_json::json;

use super::{End, RUN, aks, begin};

/// The first namespace is labelled, because clients of the gateway are in it.
async fn beside_its_clients(s: &mut Scenario) -> Result<()> {
    let names = ["eg-first", "eg-second"];
    let [home, _] = names;
    let azure = Azure::start(s, &[SOURCE]).await?;
    azure.add_egress_gateway(home, "out")?;
    let mesh = begin(s, &azure, names, json!({"planOnly": true})).await?;
    s.wait_blocked("mesh", "PlanOnly").await?;
    let old = format!("deployment/out-{SOURCE}");
    s.cluster().apply_yaml(&gateway(home, "out", SOURCE, true)).await?;
    s.cluster().kubectl(&["rollout", "status", &old, "-n", home, "--timeout=60s"]).await?;
    s.patch_upgrade("mesh", json!({"spec": {"planOnly": false}})).await?;
    // Azure has one for each revision.
    let status = s.wait_blocked("mesh", "GatewayNotReady").await?;
    ensure!(status.message.contains(&format!("{home}/out-{TARGET}")), "{}", status.message);
    s.cluster().apply_yaml(&gateway(home, "out", TARGET, true)).await?;
    // Its pods are of the source, by the label of their namespace, and would lose their control plane: they move.
    s.wait_status_within(RUN, "mesh", "Succeeded", |status| status.phase == "Succeeded").await?;
    let gone =
        || async { Ok(s.proxies(home).await?.keys().all(|revision| revision == TARGET).then_some(())) };
    wait_for("pods of the gateway that goes to end", RUN, gone).await?;
    End::completed(2).reached(s, &azure, &mesh, &names).await?;
    let log = s.log().await?;
    let restarted = |name: &str| {
        log.by(&s.case.operator).any(|call| call.is_write() && call.object.name == format!("out-{name}"))
    };
    ensure!(!restarted(SOURCE), "the gateway that goes is left alone");
    ensure!(restarted(TARGET), "the gateway that stays is moved");
    s.judge(&[]).await
}

#[test]
fn an_egress_gateway_beside_its_clients_is_left_to_azure() {
    aks("aks_egress", async |s: &mut Scenario| beside_its_clients(s).await);
}
