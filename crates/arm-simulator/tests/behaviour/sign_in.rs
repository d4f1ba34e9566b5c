use std::time::Duration;

use meshupgrade_arm_simulator::{Call, Fault};
use reqwest::Method;
use serde_json::json;

use crate::support::{Answered, Bench, read};

/// A good request but for this field.
async fn with(bench: &Bench, name: &str, value: &str) -> Answered {
    let form = bench.token_form().into_iter();
    let form: Vec<_> =
        form.map(|(field, good)| (field, if field == name { value.to_owned() } else { good })).collect();
    bench.ask_token(&form).await
}

fn number(answer: &Answered) -> (u16, String, u64) {
    let body = answer.json();
    let description = body["error_description"].as_str().unwrap().to_owned();
    let number = body["error_codes"][0].as_u64().unwrap();
    assert!(description.starts_with(&format!("AADSTS{number}: ")), "{description}");
    (answer.status, body["error"].as_str().unwrap().to_owned(), number)
}

#[tokio::test]
async fn discovery_names_the_token_endpoint() {
    let bench = Bench::start().await;
    let (base, tenant) = (bench.simulator.base_url(), &bench.simulator.config().tenant);
    let url = format!("{base}/{tenant}/v2.0/.well-known/openid-configuration");
    let answer = read(bench.client.get(url)).await.unwrap().json();
    assert_eq!(answer["token_endpoint"], json!(format!("{base}/{tenant}/oauth2/v2.0/token")));
}

#[tokio::test]
async fn a_good_request_gets_what_looks_like_a_jwt() {
    let bench = Bench::start().await;
    let answer = bench.ask_token(&bench.token_form()).await.json();
    assert_eq!(answer["expires_in"], 3600);
    assert_eq!(answer["access_token"].as_str().unwrap().split('.').count(), 3);
}

#[tokio::test]
async fn bad_requests_are_refused_by_their_number() {
    let bench = Bench::start().await;
    let answer = with(&bench, "grant_type", "password").await;
    assert_eq!(number(&answer), (400, "unsupported_grant_type".to_owned(), 70_003));
    let answer = with(&bench, "scope", "https://management.azure.com/").await;
    assert_eq!(number(&answer), (400, "invalid_scope".to_owned(), 1_002_012));
    let answer = with(&bench, "client_id", "nobody").await;
    assert_eq!(number(&answer), (400, "unauthorized_client".to_owned(), 700_016));
    let answer = with(&bench, "client_assertion", "").await;
    assert_eq!(number(&answer), (401, "invalid_client".to_owned(), 7_000_218));
    let answer = with(&bench, "client_assertion", "e30.e30.x").await;
    assert_eq!(number(&answer), (401, "invalid_client".to_owned(), 700_212));
    let url = format!("{}/other/oauth2/v2.0/token", bench.simulator.base_url());
    let answer = read(bench.client.post(url).form(&bench.token_form())).await.unwrap();
    assert_eq!(number(&answer), (400, "invalid_request".to_owned(), 90_002));
    bench.simulator.plant(Call::Token, Fault::InvalidClient).unwrap();
    let answer = bench.ask_token(&bench.token_form()).await;
    assert_eq!(number(&answer), (401, "invalid_client".to_owned(), 700_211));
}

#[tokio::test]
async fn only_a_valid_token_for_arm_is_let_in() {
    let mut bench = Bench::start().await;
    let code = async |bench: &Bench| bench.get(&bench.cluster.id()).await.error();
    let bare = read(bench.client.get(bench.cluster_url())).await.unwrap();
    assert_eq!(bare.error(), (401, "AuthenticationFailed".to_owned()));
    assert!(bare.header("www-authenticate").unwrap().starts_with("Bearer "));
    bench.token = "made.up.token".to_owned();
    assert_eq!(code(&bench).await, (401, "InvalidAuthenticationToken".to_owned()));
    let other = with(&bench, "scope", "https://vault.azure.net/.default").await.json();
    other["access_token"].as_str().unwrap().clone_into(&mut bench.token);
    assert_eq!(code(&bench).await, (401, "InvalidAuthenticationTokenAudience".to_owned()));
    bench.simulator.plant(Call::Token, Fault::TokenLifetime(Duration::from_millis(50))).unwrap();
    bench.token = bench.sign_in().await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(code(&bench).await, (401, "ExpiredAuthenticationToken".to_owned()));
    bench.token = bench.sign_in().await;
    assert_eq!(bench.get(&bench.cluster.id()).await.status, 200);
}

#[tokio::test]
async fn managed_identities_get_tokens_that_arm_takes() {
    let mut bench = Bench::start().await;
    let url = |query: &str| {
        format!(
            "{}/metadata/identity/oauth2/token?api-version=2018-02-01{query}",
            bench.simulator.identity_url()
        )
    };
    let resource = "&resource=https%3A%2F%2Fmanagement.azure.com%2F";
    let ask =
        async |query: &str| read(bench.client.get(url(query)).header("Metadata", "true")).await.unwrap();
    let answer = ask(resource).await;
    assert_eq!((answer.status, &answer.json()["expires_in"]), (200, &json!("3600")));
    let token = answer.json()["access_token"].as_str().unwrap().to_owned();
    let client = &bench.simulator.config().clients[0];
    assert_eq!(ask(&format!("{resource}&client_id={client}")).await.status, 200);
    let unknown = ask(&format!("{resource}&client_id=nobody")).await;
    assert_eq!((unknown.status, &unknown.json()["error_description"]), (400, &json!("Identity not found")));
    assert_eq!(ask("").await.status, 400);
    let bare = read(bench.client.get(url(resource))).await.unwrap();
    assert_eq!(bare.status, 400, "without the header Metadata");
    bench.token = token;
    assert_eq!(bench.send(Method::GET, &bench.cluster_url(), None, None).await.status, 200);
}
