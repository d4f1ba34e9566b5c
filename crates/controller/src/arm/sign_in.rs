//! The sign-in: tokens of workload identity or of a managed identity, kept until shortly before they end.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use meshupgrade_core::aks::problem::{ArmProblem, Class};
use reqwest::{Client, RequestBuilder};
use serde_json::Value;
use tokio::sync::Mutex;

use super::config::{Config, ConfigError, Identity};
use super::exchange::{self, Reply};
use super::token::Token;

/// How long before its end a token is replaced, unless a quarter of its life is less.
const EARLY: Duration = Duration::from_mins(5);
/// The life of a token that does not tell it, and the longest that is believed.
const DEFAULT_LIFE: Duration = Duration::from_mins(5);
const LONGEST_LIFE: Duration = Duration::from_hours(24);
/// How often the managed identities' endpoint is asked again, with doubling pauses: 404 and 5xx are its way of saying that
/// it is busy (managed-identities: `how-to-use-vm-token.md`; limits and pauses as MSAL has them).
const RETRIES: u32 = 3;
/// 410 means that it is being updated, for 70 s at most: asked again every tenth pause.
const UPDATE_RETRIES: u32 = 7;
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const WHAT: &str = "The operator could not sign in to Azure.";

/// Gets tokens, and keeps the last one.
#[derive(Debug)]
pub(super) struct SignIn {
    config: Arc<Config>,
    web: Client,
    node: Client,
    /// Locked while a token is got, so that there is one sign-in at a time and the others wait for its token.
    held: Mutex<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    token: Token,
    got: Instant,
    life: Duration,
}

impl Held {
    fn is_valid(&self) -> bool {
        self.got.elapsed() < self.life
    }

    fn is_fresh(&self) -> bool {
        self.got.elapsed() < self.life.saturating_sub(EARLY.min(self.life / 4))
    }
}

impl SignIn {
    pub(super) fn new(config: Arc<Config>, web: Client) -> Result<Self, ConfigError> {
        Ok(Self { config, web, node: exchange::node_client()?, held: Mutex::new(None) })
    }

    /// A token that is valid for some time. When a new one cannot be got early, the old one is used to its end.
    pub(super) async fn token(&self) -> Result<Token, ArmProblem> {
        let mut held = self.held.lock().await;
        if let Some(held) = held.as_ref().filter(|held| held.is_fresh()) {
            return Ok(held.token.clone());
        }
        match (self.sign_in().await, held.as_ref().filter(|held| held.is_valid())) {
            (Ok(new), _) => Ok(held.insert(new).token.clone()),
            (Err(_), Some(old)) => Ok(old.token.clone()),
            (Err(problem), None) => Err(problem),
        }
    }

    /// Forgets a token that ARM does not accept, unless there is another one already.
    pub(super) async fn forget(&self, refused: &Token) {
        let mut held = self.held.lock().await;
        if held.as_ref().is_some_and(|held| held.token == *refused) {
            *held = None;
        }
    }

    async fn sign_in(&self) -> Result<Held, ArmProblem> {
        let got = Instant::now();
        let reply = match &self.config.identity {
            Identity::Workload { token_url, client_id, token_file } => {
                let assertion = assertion(token_file).await?;
                let form = [
                    ("grant_type", "client_credentials"),
                    ("client_id", client_id),
                    ("scope", &self.config.scope(".default")),
                    ("client_assertion_type", ASSERTION),
                    ("client_assertion", &assertion),
                ];
                self.exchange(self.web.post(token_url.clone()).form(&form)).await?
            }
            Identity::Managed { token_url } => {
                self.managed(|| self.node.get(token_url.clone()).header("metadata", "true")).await?
            }
        };
        let (token, life) = token_of(&reply)?;
        Ok(Held { token, got, life })
    }

    async fn managed(&self, request: impl Fn() -> RequestBuilder) -> Result<Reply, ArmProblem> {
        let mut attempt = 0;
        loop {
            let reply = self.exchange(request()).await;
            let status = reply.as_ref().ok().map(|reply| reply.status);
            let pause = match status {
                Some(StatusCode::GONE) if attempt < UPDATE_RETRIES => self.config.pause * 10,
                Some(StatusCode::NOT_FOUND | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
                | None
                    if attempt < RETRIES =>
                {
                    self.config.pause * (1 << attempt)
                }
                Some(status) if status.is_server_error() && attempt < RETRIES => {
                    self.config.pause * (1 << attempt)
                }
                _ => return reply,
            };
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    async fn exchange(&self, request: RequestBuilder) -> Result<Reply, ArmProblem> {
        let request = request.header(http::header::ACCEPT, "application/json");
        exchange::send(request, self.config.timeout)
            .await
            .map_err(|failure| exchange::unanswered(&failure).about(WHAT))
    }
}

/// The ServiceAccount token as it is now: it is replaced from time to time.
async fn assertion(file: &Path) -> Result<String, ArmProblem> {
    let unusable = |why: &str| {
        let remedy = "Check the projected volume of the operator's pod.";
        ArmProblem::own(
            Class::SignIn,
            "NoFederatedToken",
            WHAT,
            &format!("The federated token file {why}."),
            remedy,
        )
    };
    let text = tokio::fs::read_to_string(file).await;
    let text = text.map_err(|error| unusable(&format!("cannot be read ({})", error.kind())))?;
    match text.trim() {
        "" => Err(unusable("is empty")),
        assertion => Ok(assertion.to_owned()),
    }
}

fn token_of(reply: &Reply) -> Result<(Token, Duration), ArmProblem> {
    if reply.status != StatusCode::OK {
        return Err(ArmProblem::from_sign_in(&reply.answer()));
    }
    let unusable = |why: &str| {
        exchange::unusable(&format!("The answer of the sign-in service cannot be used: {why}.")).about(WHAT)
    };
    let body = reply.body.as_ref().map_err(|why| unusable(why))?;
    let token = body.get("access_token").and_then(Value::as_str).map(Token::new);
    let token =
        token.filter(|token| token.header().is_some()).ok_or_else(|| unusable("it has no access token"))?;
    Ok((token, life(body.get("expires_in"))))
}

/// Seconds, as a number or, from managed identities, as a text.
fn life(expires_in: Option<&Value>) -> Duration {
    let seconds = expires_in.and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
    seconds.map_or(DEFAULT_LIFE, Duration::from_secs).min(LONGEST_LIFE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_replaced_before_its_end() {
        let held = |age: u64, life: u64| Held {
            token: Token::new("x"),
            got: Instant::now().checked_sub(Duration::from_secs(age)).unwrap(),
            life: Duration::from_secs(life),
        };
        for (age, life, fresh, valid) in [
            (0, 3600, true, true),
            (3290, 3600, true, true),
            (3301, 3600, false, true),
            (3600, 3600, false, false),
            (74, 100, true, true),
            (76, 100, false, true),
            (0, 0, false, false),
        ] {
            let held = held(age, life);
            assert_eq!((held.is_fresh(), held.is_valid()), (fresh, valid), "{age} of {life}");
        }
    }

    #[test]
    fn the_life_of_a_token_is_a_number_or_a_text_and_bounded() {
        for (value, seconds) in [
            (json!(3599), 3599),
            (json!("86399"), 86_399),
            (json!(999_999_999), 86_400),
            (json!("soon"), 300),
            (json!(null), 300),
        ] {
            assert_eq!(life(Some(&value)), Duration::from_secs(seconds), "{value}");
        }
        assert_eq!(life(None), DEFAULT_LIFE);
    }
}
