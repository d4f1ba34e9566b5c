use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use meshupgrade_arm_simulator::{Call, ControlPlanes, Fault};
use reqwest::Method;
use serde_json::json;

use crate::support::{Bench, set_revisions, until};

/// Long enough for a few requests on a busy machine.
const LONG: Duration = Duration::from_secs(3);

#[tokio::test]
async fn an_accepted_put_is_updating_until_its_operation_ends() {
    let bench = Bench::start().await;
    let id = bench.cluster.id();
    bench.simulator.plant(Call::PutCluster, Fault::OperationTakes(LONG)).unwrap();
    let before = bench.simulator.etag(&id);
    let accepted = bench.put_revisions(&["asm-1-27", "asm-1-28"]).await;
    assert_eq!(accepted.status, 200);
    let shown = accepted.json();
    assert_eq!(shown["properties"]["provisioningState"], "Updating");
    assert_eq!(shown["properties"]["agentPoolProfiles"][0]["provisioningState"], "Updating");
    assert_eq!(
        shown["properties"]["serviceMeshProfile"]["istio"]["revisions"],
        json!(["asm-1-27", "asm-1-28"])
    );
    let url = accepted.header("azure-asyncoperation").unwrap().to_owned();
    assert!(url.len() > 3000 && url.contains("/operations/") && url.contains("api-version=2016-03-30&t="));
    assert_eq!((accepted.header("location"), accepted.header("retry-after")), (None, None));
    let state = bench.send(Method::GET, &url, None, None).await.json();
    assert_eq!((&state["status"], state.get("endTime")), (&json!("InProgress"), None));
    assert_eq!(bench.installed(), ["asm-1-27"], "not before the operation has come that far");

    let busy = bench.put_revisions(&["asm-1-27"]).await;
    assert_eq!(busy.error(), (409, "OperationNotAllowed".to_owned()));
    assert!(busy.message().contains("Another operation (Updating) is in progress"), "{busy:?}");

    let state = bench.ended(&accepted).await;
    assert_eq!(state["status"], "Succeeded");
    assert!(state["endTime"].is_string() && state.get("error").is_none());
    assert_eq!(bench.installed(), ["asm-1-27", "asm-1-28"]);
    let after = bench.get_cluster().await;
    assert_eq!(after["properties"]["provisioningState"], "Succeeded");
    assert_ne!(bench.simulator.etag(&id), before);
    assert_ne!(after["eTag"], shown["eTag"], "the end is a change too");
}

#[tokio::test]
async fn complete_and_rollback_remove_what_is_left_out() {
    let bench = Bench::start().await;
    bench.upgrade(&["asm-1-27", "asm-1-29"]).await;
    bench.upgrade(&["asm-1-27"]).await;
    assert_eq!(bench.installed(), ["asm-1-27"]);
    bench.upgrade(&["asm-1-27", "asm-1-28"]).await;
    bench.upgrade(&["asm-1-28"]).await;
    assert_eq!(bench.installed(), ["asm-1-28"]);
    let asked: Vec<_> = bench.simulator.accepted_puts().into_iter().filter_map(|put| put.revisions).collect();
    assert_eq!(asked.len(), 4);
    assert_eq!(asked[1], ["asm-1-27"]);
}

#[tokio::test]
async fn a_disabled_mesh_loses_its_control_planes() {
    let bench = Bench::start().await;
    let mut body = bench.get_cluster().await;
    body["properties"]["serviceMeshProfile"] = json!({"mode": "Disabled"});
    let accepted = bench.put(&body).await;
    assert_eq!(bench.ended(&accepted).await["status"], "Succeeded");
    assert_eq!(bench.installed(), [""; 0]);
    let upgrades = bench.get(&format!("{}/meshUpgradeProfiles", bench.cluster.id())).await;
    assert_eq!(upgrades.json(), json!({"value": []}));
    assert_eq!(bench.get(&format!("{}/meshUpgradeProfiles/istio", bench.cluster.id())).await.status, 404);
}

#[tokio::test]
async fn if_match_must_be_the_etag_with_or_without_quotes() {
    let bench = Bench::start().await;
    let put = async |if_match: &str| {
        let mut body = bench.get_cluster().await;
        set_revisions(&mut body, &["asm-1-27"]);
        let etag = body["eTag"].as_str().unwrap().to_owned();
        let if_match = if_match.replace('@', &etag);
        let answer = bench.send(Method::PUT, &bench.cluster_url(), Some(&if_match), Some(&body)).await;
        if answer.status == 200 {
            bench.ended(&answer).await;
        }
        answer
    };
    for good in ["@", "\"@\"", "W/\"@\"", "*", ""] {
        assert_eq!(put(good).await.status, 200, "{good}");
    }
    let stale = put("\"older\"").await;
    assert_eq!(stale.error(), (412, "PreconditionFailed".to_owned()));
    assert_eq!(bench.simulator.journal().last().unwrap().if_match.as_deref(), Some("\"older\""));
}

#[tokio::test]
async fn a_write_of_somebody_else_makes_an_etag_stale() {
    let bench = Bench::start().await;
    let body = bench.get_cluster().await;
    bench
        .simulator
        .change(&bench.cluster.id(), |document| document["tags"]["team"] = json!("other"))
        .unwrap();
    let etag = body["eTag"].as_str().unwrap();
    let answer = bench.send(Method::PUT, &bench.cluster_url(), Some(etag), Some(&body)).await;
    assert_eq!(answer.status, 412);
    assert_eq!(bench.simulator.accepted_puts().len(), 0);
}

#[tokio::test]
async fn a_put_of_somebody_else_has_an_operation_and_no_line_in_the_journal() {
    let bench = Bench::with(&["asm-1-27"], |config| config.operation_time = LONG).await;
    let id = bench.cluster.id();
    bench.simulator.put_by_somebody_else(&id, &["asm-1-27", "asm-1-28"]).unwrap();
    assert_eq!(bench.put_revisions(&["asm-1-27"]).await.error(), (409, "OperationNotAllowed".to_owned()));
    until(|| bench.installed() == ["asm-1-27", "asm-1-28"]).await;
    assert_eq!(bench.simulator.accepted_puts().len(), 0);
    assert!(bench.simulator.put_by_somebody_else("/nobody", &[]).is_err());
}

#[tokio::test]
async fn the_journal_names_what_a_put_loses_and_the_cluster_loses_it() {
    let bench = Bench::with(&["asm-1-27"], |config| config.operation_time = LONG).await;
    let mut body = bench.get_cluster().await;
    body["properties"]["serviceMeshProfile"]["istio"].as_object_mut().unwrap().remove("components");
    body["properties"]["provisioningState"] = json!("Failed");
    bench.put(&body).await;
    let put = bench.simulator.accepted_puts().pop().unwrap();
    assert_eq!(put.foreign_changes, ["/properties/serviceMeshProfile/istio/components"]);
    assert_eq!(put.body_digest.unwrap().len(), 64);
    let document = bench.simulator.document(&bench.cluster.id()).unwrap();
    assert_eq!(document.pointer("/properties/serviceMeshProfile/istio/components"), None);
    assert_eq!(document["properties"]["provisioningState"], "Updating");
}

#[tokio::test]
async fn an_honest_put_has_no_foreign_changes() {
    let bench = Bench::start().await;
    bench.upgrade(&["asm-1-27", "asm-1-28"]).await;
    assert_eq!(bench.simulator.accepted_puts().pop().unwrap().foreign_changes, [""; 0]);
}

#[tokio::test]
async fn an_operation_is_found_only_under_the_url_that_was_given() {
    let bench = Bench::start().await;
    let accepted = bench.put_revisions(&["asm-1-27", "asm-1-28"]).await;
    let url = accepted.header("azure-asyncoperation").unwrap().to_owned();
    let cut = url.split("&h=").next().unwrap();
    assert_eq!(bench.send(Method::GET, cut, None, None).await.status, 403);
    let other = url.replacen("/operations/", "/operations/0", 1);
    assert_eq!(bench.send(Method::GET, &other, None, None).await.status, 404);
    let paths = bench.simulator.journal().into_iter().map(|entry| entry.path);
    assert!(paths.into_iter().all(|path| !path.contains('?')), "the signature is in the journal");
}

#[tokio::test]
async fn retry_after_is_sent_while_an_operation_runs_if_wanted() {
    let bench = Bench::with(&["asm-1-27"], |config| {
        config.retry_after = Some(7);
        config.operation_time = LONG;
    })
    .await;
    let accepted = bench.put_revisions(&["asm-1-27", "asm-1-28"]).await;
    assert_eq!(accepted.header("retry-after"), Some("7"));
    let url = accepted.header("azure-asyncoperation").unwrap();
    let running = bench.send(Method::GET, url, None, None).await;
    assert_eq!(running.header("retry-after"), Some("7"));
    bench.ended(&accepted).await;
    assert_eq!(bench.send(Method::GET, url, None, None).await.header("retry-after"), None);
}

/// Control planes that cannot be installed.
struct Broken;

impl ControlPlanes for Broken {
    fn install<'a>(&'a self, revision: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move { Err(format!("no room for {revision}")) })
    }

    fn remove<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn an_operation_fails_with_the_error_of_the_installation() {
    let bench =
        Bench::with(&["asm-1-27"], |config| config.clusters[0].control_planes = Arc::new(Broken)).await;
    let state = bench.upgrade(&["asm-1-27", "asm-1-28"]).await;
    assert_eq!(
        (&state["status"], &state["error"]["message"]),
        (&json!("Failed"), &json!("no room for asm-1-28"))
    );
    assert_eq!(bench.get_cluster().await["properties"]["provisioningState"], "Failed");
    let again = bench.upgrade(&["asm-1-27"]).await;
    assert_eq!(again["status"], "Succeeded", "a failed cluster can be written");
}

#[tokio::test]
async fn several_clusters_are_kept_apart() {
    let bench = Bench::with(&["asm-1-27"], |config| {
        let mut other = config.clusters[0].clone();
        other.name = "other".to_owned();
        config.clusters.push(other);
    })
    .await;
    bench.upgrade(&["asm-1-27", "asm-1-28"]).await;
    let other = bench.cluster.id().replace("mesh-test", "other");
    assert_eq!(bench.simulator.revisions(&other), ["asm-1-27"]);
    assert_eq!(bench.simulator.revisions(&bench.cluster.id()), ["asm-1-27", "asm-1-28"]);
}
