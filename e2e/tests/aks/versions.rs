//! Which revision a run goes to: the one after the next, or the same one that the provider has patched.

use std::time::Duration;

use anyhow::{Result, ensure};
use meshupgrade_arm_simulator::Call;
use meshupgrade_e2e::azure::Azure;
use meshupgrade_e2e::{SOURCE, Scenario};
use serde_json::json;

use super::{End, RUN, aks, begin};

/// The revision after the next, which the simulated Azure offers too.
const AFTER_NEXT: &str = "asm-1-29";

async fn skipping_one(s: &mut Scenario) -> Result<()> {
    let names = ["av-first", "av-second"];
    s.case.target = AFTER_NEXT.into();
    let azure = Azure::start(s, &[SOURCE]).await?;
    let mesh = begin(s, &azure, names, json!({"targetRevision": AFTER_NEXT})).await?;
    let end = End { stays: AFTER_NEXT, ..End::completed(2) };
    let status = end.reached(s, &azure, &mesh, &names).await?;
    let row = status.run.map(|run| (run.source.to_string(), run.target.to_string()));
    ensure!(row == Some((SOURCE.to_owned(), AFTER_NEXT.to_owned())), "{row:?}");
    s.wait_proxy_version(&names, "1.29.0", 6).await?;
    s.judge(&[]).await
}

#[test]
fn one_revision_may_be_skipped() {
    aks("aks_skipping_one", async |s: &mut Scenario| skipping_one(s).await);
}

/// The provider has patched the control plane in place: its sidecars follow in waves, and Azure is asked for nothing.
async fn patched(s: &mut Scenario) -> Result<()> {
    let names = ["ao-first", "ao-second"];
    s.case.target = SOURCE.into();
    // No label moves, so that none has to settle.
    s.case.settle = Duration::ZERO;
    let azure = Azure::start(s, &[SOURCE]).await?;
    let patch =
        json!({"targetRevision": SOURCE, "sourceRevision": SOURCE, "runId": "1.27.6", "planOnly": true});
    let mesh = begin(s, &azure, names, patch).await?;
    s.patch_source("1.27.6", names[0]).await?;
    s.patch_upgrade("mesh", json!({"spec": {"planOnly": false}})).await?;
    s.wait_status_within(RUN, "mesh", "Succeeded", |status| status.phase == "Succeeded").await?;
    s.wait_proxy_version(&names, "1.27.6", 6).await?;
    s.wait_mesh(&mesh, SOURCE).await?;
    for name in names {
        ensure!(s.revision_label(name).await? == SOURCE, "no label is touched");
    }
    let journal = azure.simulator.journal();
    ensure!(journal.iter().any(|entry| entry.call == Call::GetCluster), "the journal saw no operator");
    ensure!(journal.iter().all(|entry| entry.call != Call::PutCluster), "Azure was asked for a change");
    azure.has(&[SOURCE])?;
    let restarted = meshupgrade_e2e::referee::restarts(&s.case, &s.log().await?);
    ensure!(restarted.len() == mesh.apps.len(), "each workload once: {restarted:?}");
    s.judge(&[]).await
}

#[test]
fn a_patch_of_the_provider_needs_no_write_to_azure() {
    aks("aks_patched", async |s: &mut Scenario| {
        let before = s.injector_values().await?;
        let result = patched(s).await;
        s.set_injector_values(&before).await?;
        result
    });
}
