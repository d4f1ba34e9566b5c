//! The endpoint of managed identities, on plain HTTP as in a virtual machine.

use std::collections::BTreeMap;

use hyper::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde_json::json;

use crate::answer::Answer;
use crate::fault::Fault;
use crate::shared::Shared;
use crate::sign_in::{give, lifetime};

pub(crate) const PATH: &str = "/metadata/identity/oauth2/token";

pub(crate) fn token(shared: &Shared, query: &str, headers: &HeaderMap, faults: &[Fault]) -> Answer {
    let query: BTreeMap<String, String> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    // Source: Azure Instance Metadata Service documentation, frequently asked questions: 400 with this text.
    if !headers.get("metadata").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true")) {
        return refused("Required metadata header not specified");
    }
    let Some(resource) = query.get("resource").filter(|resource| !resource.is_empty()) else {
        // Inferred: the text.
        return refused("Required query variable 'resource' is missing");
    };
    let client = ["client_id", "object_id", "msi_res_id"].iter().find_map(|name| query.get(*name));
    let known = &shared.config.clients;
    let Some(client) = client.or(known.first()).filter(|client| known.contains(client)) else {
        return refused("Identity not found");
    };
    if faults.contains(&Fault::InvalidClient) {
        return refused("Identity not found");
    }
    let lifetime = lifetime(shared, faults);
    let token = give(shared, client, resource, lifetime);
    let now = Timestamp::now().as_second();
    let until = now.saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX));
    // Source: Microsoft Entra documentation, how to use managed identities to acquire an access token: numbers are strings.
    Answer::ok(&json!({
        "access_token": token,
        "client_id": client,
        "expires_in": lifetime.as_secs().to_string(),
        "expires_on": until.to_string(),
        "not_before": now.to_string(),
        "resource": resource,
        "token_type": "Bearer",
    }))
}

/// Source: Azure/aad-pod-identity#1102 (text) and Azure/azure-sdk-for-python#10510 (status 400).
/// Inferred: the error code.
fn refused(text: &str) -> Answer {
    let body = json!({"error": "invalid_request", "error_description": text});
    Answer { code: Some("invalid_request".to_owned()), ..Answer::json(StatusCode::BAD_REQUEST, &body) }
}
