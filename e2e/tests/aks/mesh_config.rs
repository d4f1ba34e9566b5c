//! The mesh configuration that users put beside the add-on's own.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use meshupgrade_api::MeshUpgradeStatus;
use meshupgrade_core::aks::ISTIO_NAMESPACE;
use meshupgrade_e2e::azure::Azure;
use meshupgrade_e2e::{SOURCE, Scenario, TARGET};
use meshupgrade_testbed::wait_for;
use serde_json::json;

use super::{RUN, aks, begin};

const TEXT: &str = "accessLogFile: /dev/stdout\nenableTracing: true\n";

fn maps(s: &Scenario) -> Api<ConfigMap> {
    Api::namespaced(s.client(), ISTIO_NAMESPACE)
}

fn named(revision: &str) -> String {
    format!("istio-shared-configmap-{revision}")
}

fn map(name: &str, text: &str) -> Result<ConfigMap> {
    Ok(serde_json::from_value(json!({"metadata": {"name": name}, "data": {"mesh": text}}))?)
}

/// The users' configuration of these revisions, and of no other.
async fn only(s: &Scenario, texts: &[(&str, &str)]) -> Result<()> {
    for revision in [SOURCE, TARGET] {
        if maps(s).get_opt(&named(revision)).await?.is_some() {
            maps(s).delete(&named(revision), &DeleteParams::default()).await?;
        }
    }
    for (revision, text) in texts {
        maps(s).create(&PostParams::default(), &map(&named(revision), text)?).await?;
    }
    Ok(())
}

async fn text(s: &Scenario, revision: &str) -> Result<Option<String>> {
    let map = maps(s).get_opt(&named(revision)).await?;
    Ok(map.and_then(|map| map.data?.remove("mesh")))
}

async fn goes(s: &Scenario, revision: &str) -> Result<()> {
    wait_for("the map to go", RUN, || async { Ok(text(s, revision).await?.is_none().then_some(())) }).await
}

/// A copy before the first write to Azure, which goes with the control plane that it was for.
async fn copied(s: &mut Scenario) -> Result<()> {
    let names = ["am-first", "am-second"];
    let azure = Azure::start(s, &[SOURCE]).await?;
    only(s, &[(SOURCE, TEXT)]).await?;
    begin(s, &azure, names, json!({})).await?;
    let asked = |status: &MeshUpgradeStatus| status.run.as_ref().is_some_and(|run| run.cloud.is_some());
    s.wait_status("mesh", "Azure to be asked", asked).await?;
    ensure!(text(s, TARGET).await?.as_deref() == Some(TEXT), "it is not there when Azure is asked");
    s.wait_status_within(RUN, "mesh", "Migrating", |status| status.phase == "Migrating").await?;
    s.patch_upgrade("mesh", json!({"spec": {"rollback": {"requested": true}}})).await?;
    s.wait_status_within(RUN, "mesh", "RolledBack", |status| status.phase == "RolledBack").await?;
    goes(s, TARGET).await?;
    ensure!(text(s, SOURCE).await?.as_deref() == Some(TEXT), "that of the source is the users'");
    s.judge(&[]).await?;
    nothing_else_may_be_written(s).await?;
    only(s, &[]).await
}

/// In the operator's name, after the referee has judged.
async fn nothing_else_may_be_written(s: &Scenario) -> Result<()> {
    let theirs: Api<ConfigMap> = Api::namespaced(s.operator_client().await?, ISTIO_NAMESPACE);
    let (new, only_try) = (PostParams::default(), DeleteParams::default());
    let other = theirs.create(&new, &map("istio-asm-1-99", TEXT)?).await.err().context("another map")?;
    ensure!(other.to_string().contains("istio-shared-configmap-REVISION"), "{other}");
    let mut fields = map(&named("asm-1-99"), TEXT)?;
    fields.data.get_or_insert_default().insert("values".into(), "{}".into());
    let fields = theirs.create(&new, &fields).await.err().context("another key")?;
    ensure!(fields.to_string().contains("with the key mesh"), "{fields}");
    let injector = format!("istio-sidecar-injector-{SOURCE}");
    let deleted = theirs.delete(&injector, &only_try).await.err().context("deleted the injector")?;
    ensure!(deleted.to_string().contains("istio-shared-configmap-REVISION"), "{deleted}");
    let change = Patch::Merge(json!({"data": {"mesh": ""}}));
    ensure!(theirs.patch(&named(SOURCE), &PatchParams::default(), &change).await.is_err(), "changed a map");
    Ok(())
}

#[test]
fn the_copy_comes_before_the_start_and_goes_with_its_revision() {
    aks("aks_mesh_config_copied", async |s: &mut Scenario| copied(s).await);
}

/// What users prepared for the target stays; that of the source goes because it is asked for.
async fn prepared(s: &mut Scenario) -> Result<()> {
    let names = ["an-first", "an-second"];
    let azure = Azure::start(s, &[SOURCE]).await?;
    let own = "accessLogFile: /dev/stdout\nenableTracing: false\n";
    only(s, &[(SOURCE, TEXT), (TARGET, own)]).await?;
    let mut control_plane = azure.control_plane();
    control_plane["aks"]["retiredMeshConfig"] = json!("Remove");
    begin(s, &azure, names, json!({"controlPlane": control_plane, "planOnly": true})).await?;
    let status = s.wait_blocked("mesh", "PlanOnly").await?;
    let check = status.checks.iter().find(|check| check.name == "AksMeshConfigCopied").context("no check")?;
    let message = &check.message;
    ensure!(message.contains("- enableTracing: true\n+ enableTracing: false"), "{message}");
    s.patch_upgrade("mesh", json!({"spec": {"planOnly": false}})).await?;
    s.wait_status_within(RUN, "mesh", "Succeeded", |status| status.phase == "Succeeded").await?;
    goes(s, SOURCE).await?;
    ensure!(text(s, TARGET).await?.as_deref() == Some(own), "what users prepared was changed");
    s.judge(&[]).await?;
    only(s, &[]).await
}

#[test]
fn what_users_prepared_stays_as_it_is() {
    aks("aks_mesh_config_prepared", async |s: &mut Scenario| prepared(s).await);
}
