//! A run that goes back after Git was moved on: the control plane that Git names does not go before Git is back too.

use anyhow::{Result, ensure};
use meshupgrade_api::MeshUpgradeStatus;
use meshupgrade_e2e::azure::Azure;
use meshupgrade_e2e::{SOURCE, Scenario, TARGET};
use serde_json::json;

use super::{End, RUN, aks, begin};

/// What Flux applies when Git says this.
async fn sync(s: &Scenario, namespace: &str, revision: &str) -> Result<()> {
    let manifest = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": namespace, "labels": {"istio.io/rev": revision, "e2e.meshupgrade.io/scenario": ""}}});
    s.cluster().apply_yaml_as("kustomize-controller", &manifest.to_string()).await
}

async fn git_goes_back_too(s: &mut Scenario) -> Result<()> {
    let names = ["ay-first", "ay-second"];
    let azure = Azure::start(s, &[SOURCE]).await?;
    let mesh = begin(s, &azure, names, json!({})).await?;
    s.wait_status_within(RUN, "mesh", "the second wave", |status| {
        status.run.as_ref().is_some_and(|run| run.wave == 1 && run.batch.is_some())
    })
    .await?;
    sync(s, names[0], TARGET).await?;
    s.patch_upgrade("mesh", json!({"spec": {"rollback": {"requested": true}}})).await?;
    let held = |status: &MeshUpgradeStatus| {
        let mut rows = status.blocked.iter();
        rows.any(|row| row.reason == "GitStillOnOldRevision" && row.message.contains(names[0]))
    };
    s.wait_status_within(RUN, "mesh", "Git to be waited for", held).await?;
    s.wait_mesh(&mesh, SOURCE).await?;
    s.all_on(SOURCE, &names).await?;
    azure.has(&[SOURCE, TARGET])?;
    azure.judge(1)?;
    ensure!(s.revision_label(names[0]).await? == SOURCE, "the label is not back");
    sync(s, names[0], SOURCE).await?;
    End::rolled_back(2).reached(s, &azure, &mesh, &names).await?;
    s.judge(&[]).await
}

#[test]
fn a_target_that_git_names_is_not_removed_before_git_is_back() {
    aks("aks_git", async |s: &mut Scenario| git_goes_back_too(s).await);
}
