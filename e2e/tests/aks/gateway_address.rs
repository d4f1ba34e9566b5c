//! What preflight and start look at beside Azure: gateways, their address, and EnvoyFilters.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::rbac::v1::RoleBinding;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use meshupgrade_api::MeshUpgradeStatus;
use meshupgrade_arm_simulator::{Call, Fault};
use meshupgrade_e2e::azure::{Azure, GatewayService};
use meshupgrade_e2e::{SOURCE, Scenario};
use serde_json::json;

use super::{End, RUN, aks, begin};

const OLD: &str = "20.0.0.1";
const NEW: &str = "20.0.0.2";
const BINDING: &str = "meshupgrade-operator";

/// The address changes while Azure starts the target: no label moves before a person accepts that.
async fn changes_with_the_start(s: &mut Scenario) -> Result<()> {
    let names = ["ag-first", "ag-second"];
    let azure = Azure::start(s, &[SOURCE]).await?;
    azure.plant(Call::PutCluster, Fault::OperationTakes(Duration::from_secs(3)))?;
    let service = GatewayService::create(s, OLD).await?;
    begin(s, &azure, names, json!({})).await?;
    s.wait_blocked("mesh", "ControlPlaneOperation").await?;
    service.has(NEW).await?;
    let status = s.wait_blocked("mesh", "GatewayAddressChanged").await?;
    let row = status.blocked.iter().find(|row| row.reason == "GatewayAddressChanged").context("no row")?;
    let about = (row.kind.as_deref(), row.name.as_deref());
    ensure!(about == (Some("Service"), Some(GatewayService::NAME)), "{row:?}");
    ensure!(row.message.contains(OLD) && row.message.contains(NEW), "{}", row.message);
    let stalled = status.condition("Stalled").context("no condition Stalled")?;
    ensure!(stalled.status == "True" && stalled.reason == "GatewayAddressChanged", "{stalled:?}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(s.revision_label(names[0]).await? == SOURCE, "a label moved");
    s.patch_upgrade("mesh", json!({"metadata": {"annotations": {"meshupgrade.io/retry": "1"}}})).await?;
    let status = s.wait_status_within(RUN, "mesh", "Migrating", |status| status.phase == "Migrating").await?;
    let run = status.run.context("no run")?;
    ensure!(run.gateway_addresses.values().all(|addresses| addresses.contains(NEW)), "{run:?}");
    s.wait_event("RetryAccepted").await?;
    s.wait_status_within(RUN, "mesh", "Succeeded", |status| status.phase == "Succeeded").await?;
    service.delete().await?;
    s.judge(&[]).await
}

#[test]
fn an_address_that_changes_with_the_start_holds_up_every_label_until_it_is_accepted() {
    aks("aks_address", async |s: &mut Scenario| changes_with_the_start(s).await);
}

/// Gateways share the traffic from the start, so that no label cures one that does not come up.
async fn without_room(s: &mut Scenario) -> Result<()> {
    let names = ["an-room", "an-more"];
    let azure = Azure::start(s, &[SOURCE]).await?;
    azure.leave_no_room();
    let mesh = begin(s, &azure, names, json!({})).await?;
    let words = "node(s) didn't match Pod's node affinity/selector";
    let told = |status: &MeshUpgradeStatus| {
        let mut rows = status.blocked.iter().filter(|row| row.reason == "GatewayNotReady");
        rows.any(|row| row.message.contains(words) && row.message.contains("spec.rollback.requested: true"))
    };
    s.wait_status_within(RUN, "mesh", "the scheduler's reason", told).await?;
    ensure!(s.revision_label(names[0]).await? == SOURCE, "a label moved");
    s.patch_upgrade("mesh", json!({"spec": {"rollback": {"requested": true}}})).await?;
    End::rolled_back(2).reached(s, &azure, &mesh, &names).await?;
    s.judge(&[]).await
}

#[test]
fn a_gateway_without_room_is_told_in_the_schedulers_words_and_goes_with_its_control_plane() {
    aks("aks_without_room", async |s: &mut Scenario| without_room(s).await);
}

fn warns(status: &MeshUpgradeStatus, check: &str, words: &str) -> bool {
    let mut checks = status.checks.iter().filter(|result| result.name == check);
    checks.any(|result| result.message.contains(words))
}

/// What is known before anything is written. A right that is missing holds up nothing.
async fn told_in_the_plan(s: &mut Scenario) -> Result<()> {
    let names = ["ac-first", "ac-second"];
    let azure = Azure::start(s, &[SOURCE]).await?;
    let bindings: Api<RoleBinding> = Api::namespaced(s.client(), GatewayService::NAMESPACE);
    let mut binding = bindings.get(BINDING).await?;
    bindings.delete(BINDING, &DeleteParams::default()).await?;
    let patch = |version: &str| {
        json!({"applyTo": "HTTP_FILTER", "match": {"proxy": {"proxyVersion": version}},
        "patch": {"operation": "MERGE", "value": {"name": "envoy.filters.http.router"}}})
    };
    let filter = json!({"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
        "metadata": {"name": "old", "namespace": "default"}, "spec": {"configPatches": [patch(r"^1\.27.*")]}});
    s.cluster().apply_yaml(&filter.to_string()).await?;
    begin(s, &azure, names, json!({"planOnly": true})).await?;
    let told = s.wait_status("mesh", "both warnings", |status| {
        warns(status, "AksGatewayAddressesReadable", GatewayService::NAMESPACE)
            && warns(status, "EnvoyFiltersMatchTarget", r"default/old (^1\.27.*)")
    });
    let status = told.await;
    // Others need the right and not the filter, whatever came of this.
    binding.metadata = ObjectMeta { name: Some(BINDING.to_owned()), ..ObjectMeta::default() };
    bindings.create(&PostParams::default(), &binding).await?;
    s.cluster().kubectl(&["delete", "envoyfilter", "old", "-n", "default"]).await?;
    ensure!(status?.blocked.iter().any(|row| row.reason == "PlanOnly"), "it waits for something else");
    s.wait_status("mesh", "the right to be noticed", |status| {
        !warns(status, "AksGatewayAddressesReadable", "cannot be read")
    })
    .await?;
    azure.judge(0)
}

#[test]
fn services_that_cannot_be_read_and_filters_for_the_old_version_are_told_in_the_plan() {
    aks("aks_plan", async |s: &mut Scenario| told_in_the_plan(s).await);
}
