use std::time::{Duration, Instant};

use meshupgrade_arm_simulator::{Call, End, Fault, Times};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Bench, set_revisions, until};

const BOTH: [&str; 2] = ["asm-1-27", "asm-1-28"];

#[tokio::test]
async fn refusals_of_a_put_leave_the_cluster_as_it_is() {
    let bench = Bench::start().await;
    let cases = [
        (Fault::OperationNotAllowed("nodepool1 - Upgrading"), 409, "OperationNotAllowed"),
        (Fault::PreconditionFailed, 412, "PreconditionFailed"),
        (Fault::RevisionsRefused("because"), 400, "BadRequest"),
        (Fault::Unauthorized, 401, "InvalidAuthenticationToken"),
        (Fault::Forbidden, 403, "AuthorizationFailed"),
        (Fault::NotFound, 404, "ResourceNotFound"),
        (Fault::TooManyRequests(9), 429, "ResourceRequestsThrottled"),
        (Fault::ServerError(500), 500, "InternalServerError"),
        (Fault::ServerError(502), 502, "BadGateway"),
        (Fault::ServerError(503), 503, "ServerTimeout"),
    ];
    for (fault, status, code) in cases {
        bench.simulator.plant(Call::PutCluster, fault.clone()).unwrap();
        let answer = bench.put_revisions(&BOTH).await;
        assert_eq!(answer.error(), (status, code.to_owned()), "{fault:?}");
        if status == 429 {
            assert_eq!(answer.header("retry-after"), Some("9"));
        }
        let entry = bench.simulator.journal().pop().unwrap();
        assert_eq!((entry.status, entry.code.as_deref()), (Some(status), Some(code)));
    }
    assert_eq!(bench.simulator.revisions(&bench.cluster.id()), ["asm-1-27"]);
    assert_eq!(bench.upgrade(&BOTH).await["status"], "Succeeded", "each fault showed once");
}

#[tokio::test]
async fn a_race_inside_aks_has_the_flat_form() {
    let bench = Bench::start().await;
    bench.simulator.plant(Call::PutCluster, Fault::EtagMismatch).unwrap();
    let answer = bench.put_revisions(&BOTH).await;
    let body = answer.json();
    assert_eq!((answer.status, &body["code"], body.get("error")), (409, &json!("EtagMismatch"), None));
    assert!(body["subcode"].is_string() && body["details"][0]["message"].is_string());
}

#[tokio::test]
async fn a_dropped_connection_does_nothing_and_a_lost_answer_everything() {
    let bench = Bench::start().await;
    let mut body = bench.get_cluster().await;
    set_revisions(&mut body, &BOTH);
    let put = async || bench.try_send(Method::PUT, &bench.cluster_url(), None, Some(&body)).await;
    bench.simulator.plant(Call::PutCluster, Fault::DropBefore).unwrap();
    assert!(put().await.is_err());
    let entry = bench.simulator.journal().pop().unwrap();
    assert_eq!((entry.status, entry.lost, entry.accepted), (None, true, false));
    assert_eq!(entry.revisions.unwrap(), BOTH, "what a PUT wants is noted whatever becomes of it");
    assert_eq!(bench.simulator.revisions(&bench.cluster.id()), ["asm-1-27"]);

    bench.simulator.plant(Call::PutCluster, Fault::LoseAnswer).unwrap();
    assert!(put().await.is_err());
    let entry = bench.simulator.journal().pop().unwrap();
    assert_eq!((entry.status, entry.lost, entry.accepted), (Some(200), true, true));
    assert_eq!(bench.simulator.revisions(&bench.cluster.id()), BOTH);
    until(|| bench.installed() == BOTH).await;
    assert_eq!(bench.get(&bench.cluster.id()).await.status, 200, "the next connection works");
}

#[tokio::test]
async fn answers_that_are_late_or_no_answers() {
    let bench = Bench::start().await;
    let id = bench.cluster.id();
    let plant = |fault| bench.simulator.plant(Call::GetCluster, fault).unwrap();
    plant(Fault::Delay(Duration::from_millis(150)));
    let begun = Instant::now();
    assert_eq!(bench.get(&id).await.status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(150));
    plant(Fault::Garbage);
    let garbage = bench.get(&id).await;
    assert!(garbage.status == 200 && serde_json::from_str::<Value>(&garbage.text).is_err());
    plant(Fault::Huge(5 << 20));
    assert_eq!(bench.get(&id).await.text.len(), 5 << 20);
    plant(Fault::Redirect("https://127.0.0.1:1/elsewhere".to_owned()));
    let redirect = bench.get(&id).await;
    assert_eq!((redirect.status, redirect.header("location")), (307, Some("https://127.0.0.1:1/elsewhere")));
}

#[tokio::test]
async fn a_put_whose_client_is_gone_is_carried_out() {
    let bench = Bench::start().await;
    let mut body = bench.get_cluster().await;
    set_revisions(&mut body, &BOTH);
    bench.simulator.plant(Call::PutCluster, Fault::Delay(Duration::from_secs(1))).unwrap();
    tokio::select! {
        _ = bench.put(&body) => panic!("it was answered"),
        () = until(|| bench.simulator.pending_faults() == 0) => {}
    }
    assert_eq!(bench.simulator.accepted_puts().len(), 0, "it has arrived, and waits");
    until(|| bench.installed() == BOTH).await;
    assert_eq!(bench.simulator.accepted_puts().len(), 1);
}

#[tokio::test]
async fn a_put_that_is_answered_with_garbage_is_not_accepted() {
    let bench = Bench::start().await;
    bench.simulator.plant(Call::PutCluster, Fault::Garbage).unwrap();
    assert_eq!(bench.put_revisions(&BOTH).await.status, 200);
    assert_eq!(bench.simulator.accepted_puts().len(), 0);
    assert_eq!(bench.simulator.revisions(&bench.cluster.id()), ["asm-1-27"]);
}

#[tokio::test]
async fn clusters_without_an_etag_can_still_be_written() {
    let bench = Bench::start().await;
    for call in [Call::GetCluster, Call::PutCluster] {
        bench.simulator.plant_at(call, Fault::NoEtag, Times::Always).unwrap();
    }
    let cluster = bench.get_cluster().await;
    assert_eq!(cluster.get("eTag"), None);
    assert_eq!(cluster["properties"]["agentPoolProfiles"][0].get("eTag"), None);
    let accepted = bench.put_revisions(&BOTH).await;
    assert_eq!((accepted.status, accepted.json().get("eTag")), (200, None));
    bench.simulator.heal();
    assert!(bench.get_cluster().await["eTag"].is_string());
}

#[tokio::test]
async fn upgrade_profiles_without_upgrades() {
    let bench = Bench::start().await;
    let path = format!("{}/meshUpgradeProfiles", bench.cluster.id());
    let ask = async |fault| {
        bench.simulator.plant(Call::MeshUpgrades, fault).unwrap();
        bench.get(&path).await.json()["value"].clone()
    };
    assert_eq!(ask(Fault::UpgradesAbsent).await[0]["properties"].get("upgrades"), None);
    assert_eq!(ask(Fault::UpgradesEmpty).await[0]["properties"]["upgrades"], json!([]));
    assert_eq!(ask(Fault::NoProfiles).await, json!([]));
}

#[tokio::test]
async fn operations_that_do_not_succeed() {
    for (end, name) in [(End::Failed, "Failed"), (End::Canceled, "Canceled")] {
        for reverted in [false, true] {
            let bench = Bench::start().await;
            bench.simulator.plant(Call::PutCluster, Fault::OperationEnds { end, reverted }).unwrap();
            let state = bench.upgrade(&BOTH).await;
            assert_eq!(state["status"], name);
            assert!(state["error"]["code"].is_string());
            assert_eq!(bench.get_cluster().await["properties"]["provisioningState"], name);
            let kept: &[&str] = if reverted { &["asm-1-27"] } else { &BOTH };
            assert_eq!(bench.simulator.revisions(&bench.cluster.id()), kept);
            assert_eq!(bench.installed(), ["asm-1-27"]);
        }
    }
}

#[tokio::test]
async fn success_without_a_control_plane_and_its_rollback() {
    let bench = Bench::start().await;
    bench.simulator.plant(Call::PutCluster, Fault::NeverInstalled).unwrap();
    assert_eq!(bench.upgrade(&BOTH).await["status"], "Succeeded");
    assert_eq!(bench.installed(), ["asm-1-27"]);
    assert_eq!(bench.upgrade(&["asm-1-27"]).await["status"], "Succeeded");
    assert_eq!(bench.installed(), ["asm-1-27"]);
}

#[tokio::test]
async fn somebody_else_changes_the_revisions_during_an_operation() {
    let bench = Bench::start().await;
    bench.simulator.plant(Call::PutCluster, Fault::ForeignRevisions(&["asm-1-27"])).unwrap();
    assert_eq!(bench.upgrade(&BOTH).await["status"], "Succeeded");
    assert_eq!(bench.simulator.revisions(&bench.cluster.id()), ["asm-1-27"]);
    assert_eq!(bench.installed(), ["asm-1-27"]);
    assert_eq!(bench.simulator.accepted_puts().len(), 1, "it is no request of ours");
}

#[tokio::test]
async fn an_operation_that_is_never_found_still_ends() {
    let bench = Bench::start().await;
    bench.simulator.plant(Call::PutCluster, Fault::OperationLost).unwrap();
    let accepted = bench.put_revisions(&BOTH).await;
    let url = accepted.header("azure-asyncoperation").unwrap();
    assert_eq!(bench.send(Method::GET, url, None, None).await.status, 404);
    until(|| bench.installed() == BOTH).await;
}

#[tokio::test]
async fn faults_show_at_the_request_they_are_planted_for() {
    let bench = Bench::start().await;
    let times = Times::At { after: 2, count: 2 };
    bench.simulator.plant_at(Call::GetCluster, Fault::ServerError(503), times).unwrap();
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(bench.get(&bench.cluster.id()).await.status);
    }
    assert_eq!(seen, [200, 200, 503, 503, 200]);
    let wrong = bench.simulator.plant(Call::GetCluster, Fault::NeverInstalled);
    assert!(wrong.is_err(), "a fault that cannot show");
}

#[tokio::test]
async fn sign_in_can_be_down() {
    let bench = Bench::start().await;
    bench.simulator.plant(Call::Token, Fault::ServerError(503)).unwrap();
    assert_eq!(bench.ask_token(&bench.token_form()).await.status, 503);
    assert_eq!(bench.ask_token(&bench.token_form()).await.status, 200);
}
