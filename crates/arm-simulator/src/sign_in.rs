//! Microsoft Entra: discovery and the token endpoint, for applications with a federated credential.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::answer::{Answer, unauthorized};
use crate::fault::Fault;
use crate::lock;
use crate::shared::{Shared, Token, uuid};

/// Source: AKS documentation, workload-identity-overview, and azure-identity, workload_identity.py.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Source: AKS documentation, workload-identity-overview.
const ASSERTION_AUDIENCE: &str = "api://AzureADTokenExchange";

/// Source: Azure/azure-workload-identity#682, log of the OpenID configuration; the hosts are those of the simulator.
pub(crate) fn openid_configuration(shared: &Shared, tenant: &str) -> Answer {
    let base = format!("{}/{tenant}", shared.base_url);
    Answer::ok(&json!({
        "issuer": format!("{base}/v2.0"),
        "token_endpoint": format!("{base}/oauth2/v2.0/token"),
        "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
        "device_authorization_endpoint": format!("{base}/oauth2/v2.0/devicecode"),
        "end_session_endpoint": format!("{base}/oauth2/v2.0/logout"),
        "jwks_uri": format!("{base}/discovery/v2.0/keys"),
        "token_endpoint_auth_methods_supported":
            ["client_secret_post", "private_key_jwt", "client_secret_basic"],
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
    }))
}

/// The token endpoint.
pub(crate) fn token(shared: &Shared, tenant: &str, body: &[u8], faults: &[Fault]) -> Answer {
    let form: BTreeMap<String, String> = form_urlencoded::parse(body).into_owned().collect();
    let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    if faults.contains(&Fault::InvalidClient) {
        return no_federated_identity();
    }
    if let Some(refusal) = refuse(shared, tenant, &field) {
        return refusal;
    }
    let audience = field("scope").trim_end_matches("/.default").to_owned();
    let lifetime = lifetime(shared, faults);
    let token = give(shared, field("client_id"), &audience, lifetime);
    // Source: Microsoft identity platform, OAuth 2.0 client credentials flow, successful response.
    Answer::ok(&json!({
        "token_type": "Bearer",
        "expires_in": lifetime.as_secs(),
        "ext_expires_in": lifetime.as_secs(),
        "access_token": token,
    }))
}

/// Source: Azure/azure-workload-identity#1200. Inferred: the status 401, which the thread does not show.
fn no_federated_identity() -> Answer {
    refused(
        StatusCode::UNAUTHORIZED,
        "invalid_client",
        700_211,
        "No matching federated identity record found for presented assertion issuer \
         'https://issuer.example/'. Please check your federated identity credential Subject, Audience and Issuer \
         against the presented assertion.",
    )
}

fn refuse<'a>(shared: &Shared, tenant: &str, field: &impl Fn(&str) -> &'a str) -> Option<Answer> {
    let bad = |error, code, text: &str| Some(refused(StatusCode::BAD_REQUEST, error, code, text));
    if !shared.config.tenant.eq_ignore_ascii_case(tenant) {
        // Inferred: number and text.
        return bad("invalid_request", 90_002, &format!("Tenant '{tenant}' not found."));
    }
    if field("grant_type") != "client_credentials" {
        // Inferred: number and text.
        return bad("unsupported_grant_type", 70_003, "The app requested an unsupported grant type.");
    }
    if !field("scope").ends_with("/.default") {
        // Source: MicrosoftDocs/azure-docs#99862.
        let text = format!(
            "The provided value for scope {} is not valid. Client credential flows must have a scope value with \
             /.default suffixed to the resource identifier (application ID URI).",
            field("scope")
        );
        return bad("invalid_scope", 1_002_012, &text);
    }
    if !shared.config.clients.iter().any(|client| client == field("client_id")) {
        // Inferred: number and text.
        let text = format!(
            "Application with identifier '{}' was not found in the directory '{tenant}'.",
            field("client_id")
        );
        return bad("unauthorized_client", 700_016, &text);
    }
    refuse_assertion(field)
}

fn refuse_assertion<'a>(field: &impl Fn(&str) -> &'a str) -> Option<Answer> {
    if field("client_assertion_type") != ASSERTION_TYPE || field("client_assertion").is_empty() {
        // Source: MicrosoftDocs/azure-docs#25959; the error code from Azure-Samples/ms-identity-javascript-v2#18.
        return Some(refused(
            StatusCode::UNAUTHORIZED,
            "invalid_client",
            7_000_218,
            "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
        ));
    }
    let audience = audience(field("client_assertion"));
    if audience.as_deref() != Some(ASSERTION_AUDIENCE) {
        // Source: AKS documentation, workload-identity-overview: the number for a wrong audience.
        // Inferred: the text, from Azure/azure-workload-identity#1200.
        let text = format!(
            "No matching federated identity record found for presented assertion audience '{}'. Please check your \
             federated identity credential Subject, Audience and Issuer against the presented assertion.",
            audience.unwrap_or_default()
        );
        return Some(refused(StatusCode::UNAUTHORIZED, "invalid_client", 700_212, &text));
    }
    None
}

/// The (first) audience of what has the shape of a JWT.
fn audience(token: &str) -> Option<String> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let payload: Value = serde_json::from_slice(&payload).ok()?;
    let audience = payload.get("aud")?;
    audience.get(0).unwrap_or(audience).as_str().map(str::to_owned)
}

/// Source of the form: Azure/azure-workload-identity#1200 and #616.
fn refused(status: StatusCode, error: &str, number: u32, text: &str) -> Answer {
    let timestamp = Timestamp::now().strftime("%Y-%m-%d %H:%M:%SZ").to_string();
    let (trace, correlation) =
        (uuid(&format!("trace {timestamp}")), uuid(&format!("correlation {timestamp}")));
    let description = format!(
        "AADSTS{number}: {text} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {timestamp}"
    );
    let body = json!({
        "error": error,
        "error_description": description,
        "error_codes": [number],
        "timestamp": timestamp,
        "trace_id": trace,
        "correlation_id": correlation,
    });
    Answer { code: Some(error.to_owned()), ..Answer::json(status, &body) }
}

pub(crate) fn lifetime(shared: &Shared, faults: &[Fault]) -> Duration {
    let planted = faults.iter().find_map(|fault| match fault {
        Fault::TokenLifetime(lifetime) => Some(*lifetime),
        _ => None,
    });
    planted.unwrap_or(shared.config.token_lifetime)
}

/// Gives a token. It has the shape of a JWT, because clients look into it; nobody can check its signature.
pub(crate) fn give(shared: &Shared, client: &str, audience: &str, lifetime: Duration) -> String {
    let number = shared.number();
    let now = Timestamp::now().as_second();
    let until = now.saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX));
    let header = json!({"typ": "JWT", "alg": "RS256", "kid": "simulated"});
    let payload = json!({
        "aud": audience,
        "iss": format!("{}/{}/", shared.base_url, shared.config.tenant),
        "iat": now, "nbf": now, "exp": until,
        "appid": client, "oid": client, "sub": client,
        "tid": shared.config.tenant,
        "uti": number.to_string(),
        "ver": "1.0",
    });
    let [header, payload] = [header, payload].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let token = format!("{header}.{payload}.{}", URL_SAFE_NO_PAD.encode(uuid(&payload)));
    let given = Token { client: client.to_owned(), expires: Instant::now() + lifetime };
    lock(&shared.state).tokens.insert(token.clone(), given);
    token
}

/// The client that this header proves, or why it proves none.
pub(crate) fn authenticated(shared: &Shared, headers: &HeaderMap) -> Result<String, Answer> {
    let Some(header) = headers.get("authorization") else {
        let message = "Authentication failed. The 'Authorization' header is missing.";
        return Err(unauthorized("AuthenticationFailed", message));
    };
    let token = header.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    match lock(&shared.state).tokens.get(token) {
        None => Err(unauthorized("InvalidAuthenticationToken", "The access token is invalid.")),
        Some(known) if known.expires <= Instant::now() => Err(expired()),
        Some(known) if !accepts(shared, token) => {
            let message =
                format!("The access token has been obtained for wrong audience, by '{}'.", known.client);
            Err(unauthorized("InvalidAuthenticationTokenAudience", &message))
        }
        Some(known) => Ok(known.client.clone()),
    }
}

/// Source: microsoft/vscode-azureappservice#2483.
fn expired() -> Answer {
    let now = Timestamp::now();
    let message =
        format!("The access token expiry UTC time '{now}' is earlier than current UTC time '{now}'.");
    unauthorized("ExpiredAuthenticationToken", &message)
}

/// Source: Azure/azure-cli, cloud definitions: resource ids of Azure Resource Manager in the public cloud.
fn accepts(shared: &Shared, token: &str) -> bool {
    let known =
        [shared.base_url.as_str(), "https://management.azure.com", "https://management.core.windows.net"];
    audience(token).is_some_and(|audience| known.contains(&audience.trim_end_matches('/')))
}
