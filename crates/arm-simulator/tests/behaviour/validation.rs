use meshupgrade_arm_simulator::Offer;
use serde_json::{Value, json};

use crate::support::{Bench, set_revisions};

/// What is refused of a PUT with this change.
async fn refused(bench: &Bench, change: impl FnOnce(&mut Value)) -> String {
    let mut body = bench.get_cluster().await;
    change(&mut body);
    let answer = bench.put(&body).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(bench.simulator.accepted_puts().len(), 0);
    answer.message()
}

fn mesh(body: &mut Value) -> &mut Value {
    &mut body["properties"]["serviceMeshProfile"]
}

#[tokio::test]
async fn fields_that_a_put_must_have() {
    let bench = Bench::start().await;
    let message = refused(&bench, |body| body["location"] = Value::Null).await;
    assert_eq!(message, "The location property is required for this definition.");
    assert_eq!(bench.simulator.journal().last().unwrap().code.as_deref(), Some("LocationRequired"));
    let message = refused(&bench, |body| body["properties"]["kubernetesVersion"] = Value::Null).await;
    assert_eq!(message, "Kubernetes version is missing in orchestrator profile");
    let message = refused(&bench, |body| mesh(body)["mode"] = Value::Null).await;
    assert_eq!(message, "Missing service mesh mode: ");
    let message = refused(&bench, |body| mesh(body)["istio"] = Value::Null).await;
    assert_eq!(message, "Istio profile is missing even though Service Mesh mode is Istio");
    let message = refused(&bench, |body| set_revisions(body, &["asm-1-27", ""])).await;
    assert_eq!(message, "ServiceMeshProfile revision field must not be empty");
    let answer = bench.put(&json!("no object")).await;
    assert_eq!(answer.error(), (400, "LocationRequired".to_owned()));
}

#[tokio::test]
async fn other_features_and_gateways() {
    let bench = Bench::start().await;
    let message = refused(&bench, |body| {
        body["properties"]["addonProfiles"]["openServiceMesh"] = json!({"enabled": true});
    })
    .await;
    assert_eq!(message, "Istio based Azure service mesh is incompatible with feature Open Service Mesh");
    let gateways = |modes: [&'static str; 2]| {
        move |body: &mut Value| {
            let list = modes.map(|mode| json!({"enabled": true, "mode": mode}));
            mesh(body)["istio"]["components"]["ingressGateways"] = json!(list);
        }
    };
    let message = refused(&bench, gateways(["External", "Sideways"])).await;
    assert_eq!(message, "Invalid istio ingress mode: Sideways");
    let message = refused(&bench, gateways(["Internal", "Internal"])).await;
    assert_eq!(message, "Too many ingresses for type: Internal. Only 1 ingress gateway are allowed");
}

#[tokio::test]
async fn the_plug_in_certificate_authority() {
    let bench = Bench::start().await;
    let plugin = |body: &mut Value, field: &str, value: Value| {
        mesh(body)["istio"]["certificateAuthority"]["plugin"][field] = value;
    };
    let message = refused(&bench, |body| {
        plugin(body, "certObjectName", Value::Null);
        plugin(body, "certChainObjectName", json!(""));
    })
    .await;
    assert_eq!(
        message,
        "ServiceMeshProfile is missing required parameters: certObjectName, certChainObjectName for plugin certificate \
         authority"
    );
    let message = refused(&bench, |body| {
        body["properties"]["addonProfiles"]["azureKeyvaultSecretsProvider"]["enabled"] = json!(false);
    })
    .await;
    assert!(message.starts_with("AzureKeyvaultSecretsProvider addon is required"), "{message}");
    for bad in ["vault", "/subscriptions//resourceGroups/a/providers/Microsoft.KeyVault/vaults/b"] {
        let message = refused(&bench, |body| plugin(body, "keyVaultId", json!(bad))).await;
        assert!(
            message.starts_with(&format!("'KeyVaultId': '{bad}' is not a valid Azure keyvault")),
            "{message}"
        );
    }
}

/// Refusals of revisions on a cluster with these.
async fn step(from: &[&str], to: &[&str]) -> String {
    let bench = Bench::with(from, |_| {}).await;
    refused(&bench, |body| set_revisions(body, to)).await
}

#[tokio::test]
async fn changes_of_revisions_that_are_not_allowed() {
    const PREFIX: &str = "Requested change in revisions is not allowed. Reason: ";
    let reason =
        |message: String| message.strip_prefix(PREFIX).unwrap_or_else(|| panic!("{message}")).to_owned();
    assert_eq!(
        step(&["asm-1-27"], &["asm-1-26", "asm-1-27", "asm-1-28"]).await,
        "Request exceeds maximum allowed number of revisions (2)"
    );
    assert_eq!(
        reason(step(&["asm-1-27"], &["asm-1-27", "asm-1-17"]).await),
        "Revision asm-1-17 is not supported by the service mesh add-on."
    );
    assert_eq!(
        reason(step(&["asm-1-27"], &["asm-1-28"]).await),
        "Revision asm-1-27 must not be replaced by asm-1-28 without a canary upgrade."
    );
    assert_eq!(
        reason(step(&["asm-1-27"], &["asm-1-26", "asm-1-27"]).await),
        "Downgrade from asm-1-27 to asm-1-26 is not allowed."
    );
    assert_eq!(
        reason(step(&["asm-1-26"], &["asm-1-26", "asm-1-29"]).await),
        "Upgrade from asm-1-26 to asm-1-29 is not allowed."
    );
    assert_eq!(
        reason(step(&["asm-1-26", "asm-1-27"], &["asm-1-26", "asm-1-28"]).await),
        "Revision asm-1-26 must not be replaced by asm-1-28 without a canary upgrade."
    );
    assert_eq!(
        reason(step(&["asm-1-26"], &["asm-1-27", "asm-1-28"]).await),
        "More than one revision is added."
    );
}

#[tokio::test]
async fn revisions_that_do_not_go_with_the_cluster() {
    let bench = Bench::start().await;
    let add = |body: &mut Value| set_revisions(body, &["asm-1-27", "asm-1-29"]);
    bench.simulator.set_kubernetes_version(&bench.cluster.id(), "1.30.9").unwrap();
    let message = refused(&bench, add).await;
    assert!(
        message.starts_with("Service mesh revision asm-1-29 is not compatible with cluster version 1.30.9."),
        "{message}"
    );
    bench.simulator.set_kubernetes_version(&bench.cluster.id(), "1.27.3").unwrap();
    let message = refused(&bench, add).await;
    assert!(message.starts_with("Kubernetes version 1.27.3 not supported. Please upgrade"), "{message}");
    bench.simulator.set_kubernetes_version(&bench.cluster.id(), "1.28.3").unwrap();
    let plan =
        |plan: &'static str| move |document: &mut Value| document["properties"]["supportPlan"] = json!(plan);
    bench.simulator.change(&bench.cluster.id(), plan("AKSLongTermSupport")).unwrap();
    let message = refused(&bench, add).await;
    assert!(message.contains("not compatible"), "long-term support goes further back: {message}");
}

#[tokio::test]
async fn an_unsupported_revision_can_be_left_but_not_installed() {
    let bench = Bench::with(&["asm-1-26"], |config| {
        config.offers[0] = Offer { supported: false, ..config.offers[0].clone() };
    })
    .await;
    bench.upgrade(&["asm-1-26", "asm-1-28"]).await;
    bench.upgrade(&["asm-1-26"]).await;
    assert_eq!(bench.installed(), ["asm-1-26"], "keeping the unsupported one is accepted");
    bench.upgrade(&["asm-1-26", "asm-1-27"]).await;
    bench.upgrade(&["asm-1-27"]).await;
    let answer = bench.put_revisions(&["asm-1-26", "asm-1-27"]).await;
    assert!(answer.message().contains("asm-1-26 is not supported"), "{answer:?}");
}

#[tokio::test]
async fn empty_and_repeated_revisions_change_nothing() {
    let bench = Bench::with(&["asm-1-27", "asm-1-28"], |_| {}).await;
    for revisions in [vec![], vec!["asm-1-28", "asm-1-27", "asm-1-28"]] {
        assert_eq!(bench.upgrade(&revisions).await["status"], "Succeeded");
        assert_eq!(bench.installed(), ["asm-1-27", "asm-1-28"]);
    }
    let mut body = bench.get_cluster().await;
    mesh(&mut body)["istio"].as_object_mut().unwrap().remove("revisions");
    bench.ended(&bench.put(&body).await).await;
    assert_eq!(bench.installed(), ["asm-1-27", "asm-1-28"]);
}
