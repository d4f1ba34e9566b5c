//! A CustomResourceDefinition that is older than the operator.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use meshupgrade_e2e::{Mesh, SOURCE, Scenario, TARGET, scenario};
use meshupgrade_testbed::wait_for;
use serde_json::{Value, json};

use crate::{deployment, spec, untouched};

const CRD: &str = "crd/meshupgrades.meshupgrade.io";
/// What the operator stores before it restarts anything.
const FIELD: &str =
    "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/run/properties/batch";

async fn patch_crd(s: &Scenario, patch: Value) -> Result<()> {
    let patch = Value::Array(vec![patch]).to_string();
    s.cluster().kubectl(&["patch", CRD, "--type=json", "--patch", &patch]).await.map(drop)
}

/// What is not stored is not acted on: nothing is restarted until the CRD knows the field.
async fn nothing_without_it(s: &mut Scenario, name: &str) -> Result<()> {
    wait_for("the operator to see that its CRD is old", Duration::from_secs(30), || async {
        Ok(s.operator_log().contains("dropped fields of the status").then_some(()))
    })
    .await?;
    s.wait_condition("mesh", "Stalled", "True", "StatusPruned").await?;
    let web = deployment(name, "web");
    ensure!(s.generation(&web).await? == 1, "restarted without a stored batch");
    untouched(s, 2, &[web]).await
}

async fn older(s: &mut Scenario) -> Result<()> {
    let name = "oc-shop";
    s.mesh(Mesh::new().on(SOURCE, name).deployments(name, &["web"])).await?;
    s.wave(&[name], 1);
    let crd: Value = serde_json::from_str(&s.cluster().kubectl(&["get", CRD, "-o", "json"]).await?)?;
    let known = crd.pointer(FIELD).context("the CRD has no such field")?.clone();
    patch_crd(s, json!({"op": "remove", "path": FIELD})).await?;
    s.start_operator()?;
    s.upgrade("mesh", spec(&[name])).await?;
    let waited = nothing_without_it(s, name).await;
    // The control plane is shared: whatever was found, the CRD is put right.
    patch_crd(s, json!({"op": "add", "path": FIELD, "value": known})).await?;
    waited?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.all_on(TARGET, &[name]).await?;
    // Each attempt to store the batch is a write.
    s.judge(&["write-budget"]).await
}

#[test]
fn a_definition_that_drops_fields_stops_the_run() {
    scenario("older_crd", async |s: &mut Scenario| older(s).await);
}
