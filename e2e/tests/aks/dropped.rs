//! An upgrade that somebody completed before anything was moved: the most common way to lose a mesh.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use meshupgrade_api::MeshUpgradeStatus;
use meshupgrade_e2e::azure::Azure;
use meshupgrade_e2e::{SOURCE, Scenario, TARGET};
use meshupgrade_testbed::wait_for;
use serde_json::json;

use super::{End, RUN, aks, begin};

/// Nothing of the source is there any more, its sidecars run on, and a new pod gets none.
async fn completed_too_early(s: &mut Scenario) -> Result<()> {
    let names = ["ad-first", "ad-second"];
    let azure = Azure::start(s, &[SOURCE]).await?;
    let mesh = begin(s, &azure, names, json!({"planOnly": true})).await?;
    s.wait_blocked("mesh", "PlanOnly").await?;
    azure.simulator.put_by_somebody_else(&azure.cluster, &[SOURCE, TARGET])?;
    wait_for("the target", RUN, || async { Ok(azure.has(&[SOURCE, TARGET]).is_ok().then_some(())) }).await?;
    azure.simulator.put_by_somebody_else(&azure.cluster, &[TARGET])?;
    let gone = || async { Ok(super::is_gone(s, SOURCE).await.is_ok().then_some(())) };
    wait_for("the source to go", RUN, gone).await?;
    s.cluster().kubectl(&["delete", "pods", "-n", names[1], "-l", "app=waiting"]).await?;
    let dropped = || async { Ok(s.proxies(names[1]).await?.contains_key("-").then_some(())) };
    wait_for("a pod without a sidecar", RUN, dropped).await?;
    let told = |status: &MeshUpgradeStatus| status.message.contains("droppedNamespaces: Repair");
    s.wait_status("mesh", "what to do", told).await?;
    // Named, because all that is left of it is its name.
    let injection = json!({"droppedNamespaces": "Repair", "settleSeconds": 1});
    let spec = json!({"planOnly": false, "sourceRevision": SOURCE, "injection": injection});
    s.patch_upgrade("mesh", json!({"spec": spec})).await?;
    End::completed(0).reached(s, &azure, &mesh, &names).await?;
    for name in names {
        let proxies: BTreeMap<String, usize> = s.proxies(name).await?;
        ensure!(!proxies.contains_key("-"), "{name}: {proxies:?}");
    }
    s.judge(&[]).await
}

#[test]
fn what_dropped_out_by_a_completion_that_came_too_early_is_brought_back() {
    aks("aks_dropped", async |s: &mut Scenario| completed_too_early(s).await);
}
