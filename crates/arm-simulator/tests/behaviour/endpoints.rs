use reqwest::Method;
use serde_json::json;

use crate::support::{API, Bench, read};

#[tokio::test]
async fn subscriptions_and_tenants_are_listed() {
    let bench = Bench::start().await;
    let url = |path: &str| format!("{}{path}?api-version=2022-12-01", bench.simulator.base_url());
    let id = &bench.cluster.subscription;
    let listed = bench.send(Method::GET, &url("/subscriptions"), None, None).await.json();
    assert_eq!(listed["value"][0]["subscriptionId"], json!(id));
    assert_eq!(listed["value"][0]["tenantId"], json!(bench.simulator.config().tenant));
    let one = bench.send(Method::GET, &url(&format!("/subscriptions/{id}")), None, None).await.json();
    assert_eq!(one, listed["value"][0]);
    let tenants = bench.send(Method::GET, &url("/tenants"), None, None).await.json();
    assert_eq!(tenants["value"][0]["tenantId"], json!(bench.simulator.config().tenant));
    let none = bench.send(Method::GET, &url("/subscriptions/none"), None, None).await;
    assert_eq!(none.error(), (404, "ResourceNotFound".to_owned()));
}

#[tokio::test]
async fn a_cluster_is_found_in_any_case_and_listed() {
    let bench = Bench::start().await;
    let cluster = bench.get_cluster().await;
    assert_eq!(cluster["id"], json!(bench.cluster.id()));
    assert_eq!(cluster["eTag"], json!(bench.simulator.etag(&bench.cluster.id())));
    assert!(cluster["properties"]["agentPoolProfiles"][1]["eTag"].is_string());
    assert_eq!(bench.get(&bench.cluster.id().to_uppercase()).await.json(), cluster);
    let group = format!(
        "/subscriptions/{}/resourceGroups/MESH-RG/providers/Microsoft.ContainerService/managedClusters",
        bench.cluster.subscription
    );
    assert_eq!(bench.get(&group).await.json(), json!({"value": [cluster]}));
    let elsewhere = group.replace("MESH-RG", "other");
    assert_eq!(bench.get(&elsewhere).await.json(), json!({"value": []}));
}

#[tokio::test]
async fn what_is_not_there_is_not_found_as_in_the_recording() {
    let bench = Bench::start().await;
    let path = bench.cluster.id().replace("mesh-test", "nobody");
    let answer = bench.get(&path).await;
    assert_eq!(answer.error(), (404, "ResourceNotFound".to_owned()));
    assert_eq!(answer.header("x-ms-failure-cause"), Some("gateway"));
    assert_eq!(
        answer.message(),
        "The Resource 'Microsoft.ContainerService/managedClusters/nobody' under resource group 'mesh-rg' was not \
         found. For more details please go to https://aka.ms/ARMResourceNotFoundFix"
    );
    assert_eq!(bench.get(&format!("{path}/meshUpgradeProfiles")).await.status, 404);
    assert_eq!(bench.get("/providers/Microsoft.Nothing").await.status, 404);
    let patched = bench.send(Method::PATCH, &bench.cluster_url(), None, Some(&json!({}))).await;
    assert_eq!(patched.status, 405);
}

#[tokio::test]
async fn api_versions_must_be_known_and_old_ones_have_no_etag() {
    let bench = Bench::start().await;
    let url = format!("{}{}", bench.simulator.base_url(), bench.cluster.id());
    let ask = async |query: &str| bench.send(Method::GET, &format!("{url}{query}"), None, None).await;
    assert_eq!(ask("").await.error(), (400, "MissingApiVersionParameter".to_owned()));
    let unknown = ask("?api-version=2019-01-01").await;
    assert_eq!(unknown.error(), (400, "InvalidApiVersionParameter".to_owned()));
    assert!(unknown.message().contains("2019-01-01") && unknown.message().contains(API), "{unknown:?}");
    assert_eq!(ask("?api-version=2024-08-01").await.json().get("eTag"), None);
    assert!(ask("?api-version=2024-09-01").await.json()["eTag"].is_string());
}

#[tokio::test]
async fn revisions_of_a_location_are_offered_with_their_upgrades() {
    let bench = Bench::start().await;
    let path = |location: &str| {
        format!(
            "/subscriptions/{}/providers/Microsoft.ContainerService/locations/{location}/meshRevisionProfiles",
            bench.cluster.subscription
        )
    };
    let listed = bench.get(&path("westus2")).await.json();
    let offered = &listed["value"][0]["properties"]["meshRevisions"];
    assert_eq!(offered[0]["revision"], "asm-1-26");
    assert_eq!(offered[0]["upgrades"], json!(["asm-1-27", "asm-1-28"]));
    assert_eq!(offered[0]["compatibleWith"][0]["name"], "KubernetesOfficial");
    assert_eq!(offered[0]["compatibleWith"][1]["name"], "AKSLongTermSupport");
    assert_eq!((&offered[3]["revision"], offered[3].get("upgrades")), (&json!("asm-1-29"), None));
    let one = bench.get(&format!("{}/istio", path("West%20US%202"))).await.json();
    assert_eq!(one, listed["value"][0]);
    assert_eq!(bench.get(&path("mars")).await.json(), json!({"value": []}));
    assert_eq!(bench.get(&format!("{}/istio", path("mars"))).await.status, 404);
}

#[tokio::test]
async fn upgrades_follow_the_version_of_the_cluster() {
    let bench = Bench::start().await;
    let path = format!("{}/meshUpgradeProfiles", bench.cluster.id());
    let listed = bench.get(&path).await.json();
    assert_eq!(listed["value"][0]["properties"]["revision"], "asm-1-27");
    assert_eq!(listed["value"][0]["properties"]["upgrades"], json!(["asm-1-28", "asm-1-29"]));
    assert_eq!(bench.get(&format!("{path}/istio")).await.json(), listed["value"][0]);
    bench.simulator.set_kubernetes_version(&bench.cluster.id(), "1.30.9").unwrap();
    let listed = bench.get(&path).await.json();
    assert_eq!(listed["value"][0]["properties"]["upgrades"], json!(["asm-1-28"]));
    bench.simulator.set_revisions(&bench.cluster.id(), &["asm-1-29"]).unwrap();
    assert_eq!(bench.get(&path).await.json()["value"][0]["properties"].get("upgrades"), None);
    bench.simulator.set_revisions(&bench.cluster.id(), &["asm-1-28", "asm-1-29"]).unwrap();
    let during = bench.get(&path).await;
    assert_eq!(during.error(), (409, "ServiceMeshUpgradeInProgress".to_owned()));
    assert!(during.message().starts_with("Mesh upgrade is in progress."));
}

#[tokio::test]
async fn answers_repeat_the_id_of_the_client() {
    let bench = Bench::start().await;
    let request = bench
        .client
        .get(bench.cluster_url())
        .bearer_auth(&bench.token)
        .header("x-ms-client-request-id", "mine")
        .header("user-agent", "me");
    let answer = read(request).await.unwrap();
    assert_eq!(answer.header("x-ms-client-request-id"), Some("mine"));
    assert!(answer.header("x-ms-request-id").is_some());
    let entry = bench.simulator.journal().pop().unwrap();
    assert_eq!((entry.client_request_id.as_deref(), entry.user_agent.as_deref()), (Some("mine"), Some("me")));
    assert_eq!((entry.status, entry.method.as_str()), (Some(200), "GET"));
}
