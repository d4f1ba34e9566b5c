//! A simulator with one cluster, and a client that is signed in.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use meshupgrade_arm_simulator::{ClusterConfig, Config, InMemory, Simulator};
use reqwest::{Client, Method, redirect};
use serde_json::{Value, json};

pub const API: &str = "2026-06-01";

/// An answer, read in full.
#[derive(Debug)]
pub struct Answered {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answered {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status and code of an error in ARM's usual form.
    pub fn error(&self) -> (u16, String) {
        (self.status, self.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
    }

    pub fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap_or_default().to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

pub struct Bench {
    pub simulator: Simulator,
    pub cluster: ClusterConfig,
    pub control_planes: Arc<InMemory>,
    pub client: Client,
    pub token: String,
}

impl Bench {
    /// With the one revision asm-1-27.
    pub async fn start() -> Self {
        Self::with(&["asm-1-27"], |_| {}).await
    }

    pub async fn with(revisions: &[&str], change: impl FnOnce(&mut Config)) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let control_planes = InMemory::with(revisions);
        let cluster = ClusterConfig::new(control_planes.clone(), revisions);
        let mut config = Config::new(vec![cluster.clone()]);
        config.operation_time = Duration::from_millis(20);
        change(&mut config);
        let simulator = Simulator::start(config).await.unwrap();
        let ca = reqwest::Certificate::from_pem(simulator.ca_pem().as_bytes()).unwrap();
        let client = Client::builder()
            .tls_certs_only([ca])
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()
            .unwrap();
        let mut bench = Self { simulator, cluster, control_planes, client, token: String::new() };
        bench.token = bench.sign_in().await;
        bench
    }

    pub async fn sign_in(&self) -> String {
        let answer = self.ask_token(&self.token_form()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// The form of a good token request.
    pub fn token_form(&self) -> Vec<(&'static str, String)> {
        let assertion = json!({"aud": ["api://AzureADTokenExchange"]}).to_string();
        vec![
            ("grant_type", "client_credentials".to_owned()),
            ("scope", "https://management.azure.com/.default".to_owned()),
            ("client_id", self.simulator.config().clients[0].clone()),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned()),
            ("client_assertion", format!("e30.{}.x", URL_SAFE_NO_PAD.encode(assertion))),
        ]
    }

    pub async fn ask_token(&self, form: &[(&str, String)]) -> Answered {
        let url =
            format!("{}/{}/oauth2/v2.0/token", self.simulator.base_url(), self.simulator.config().tenant);
        read(self.client.post(url).form(form)).await.unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}?api-version={API}", self.simulator.base_url())
    }

    pub async fn send(
        &self,
        method: Method,
        url: &str,
        if_match: Option<&str>,
        body: Option<&Value>,
    ) -> Answered {
        self.try_send(method, url, if_match, body).await.unwrap()
    }

    /// The error of the connection, where there is no answer.
    pub async fn try_send(
        &self,
        method: Method,
        url: &str,
        if_match: Option<&str>,
        body: Option<&Value>,
    ) -> reqwest::Result<Answered> {
        let mut request = self.client.request(method, url).bearer_auth(&self.token);
        if let Some(value) = if_match {
            request = request.header("If-Match", value);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        read(request).await
    }

    pub async fn get(&self, path: &str) -> Answered {
        self.send(Method::GET, &self.url(path), None, None).await
    }

    pub fn cluster_url(&self) -> String {
        self.url(&self.cluster.id())
    }

    pub async fn get_cluster(&self) -> Value {
        self.get(&self.cluster.id()).await.json()
    }

    pub async fn put(&self, body: &Value) -> Answered {
        self.send(Method::PUT, &self.cluster_url(), None, Some(body)).await
    }

    /// A PUT of what a GET answers, with these revisions.
    pub async fn put_revisions(&self, revisions: &[&str]) -> Answered {
        let mut body = self.get_cluster().await;
        set_revisions(&mut body, revisions);
        self.put(&body).await
    }

    /// Polls until the operation has ended.
    pub async fn ended(&self, accepted: &Answered) -> Value {
        let url =
            accepted.header("azure-asyncoperation").unwrap_or_else(|| panic!("{accepted:?}")).to_owned();
        for _ in 0..1500 {
            let state = self.send(Method::GET, &url, None, None).await.json();
            if state["status"] != "InProgress" {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the operation does not end");
    }

    /// A PUT of these revisions, to its end.
    pub async fn upgrade(&self, revisions: &[&str]) -> Value {
        let accepted = self.put_revisions(revisions).await;
        assert_eq!(accepted.status, 200, "{accepted:?}");
        self.ended(&accepted).await
    }

    pub fn installed(&self) -> Vec<String> {
        self.control_planes.installed().into_iter().collect()
    }
}

pub fn set_revisions(body: &mut Value, revisions: &[&str]) {
    body["properties"]["serviceMeshProfile"]["istio"]["revisions"] = json!(revisions);
}

pub async fn read(request: reqwest::RequestBuilder) -> reqwest::Result<Answered> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answered { status, headers, text: response.text().await? })
}

/// Waits until this holds.
pub async fn until(mut holds: impl FnMut() -> bool) {
    for _ in 0..1500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it does not come about");
}
