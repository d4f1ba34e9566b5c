//! What was asked: the referee for writes that were not needed, and for fields that got lost.

use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::route::Call;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Since the start of the simulator.
    pub at: Duration,
    /// What kind of request it was.
    pub call: Call,
    /// For example `PUT`.
    pub method: String,
    /// Without the query: that of an operation is signed, and must not get into logs here either.
    pub path: String,
    /// What was answered, also when the answer was then lost; none when the connection was dropped before.
    pub status: Option<u16>,
    /// The code in an error's body.
    pub code: Option<String>,
    /// Whether the client was left without the answer.
    pub lost: bool,
    /// The header `If-Match`, as sent.
    pub if_match: Option<String>,
    /// The header `x-ms-client-request-id`.
    pub client_request_id: Option<String>,
    /// The header `User-Agent`.
    pub user_agent: Option<String>,
    /// SHA-256 of the body in hex, when there is one.
    pub body_digest: Option<String>,
    /// The revisions that a PUT asks for.
    pub revisions: Option<Vec<String>>,
    /// Whether it is a PUT that was accepted and started an operation, whatever was then answered.
    pub accepted: bool,
    /// JSON pointers of everything besides `revisions` that a PUT drops, changes or adds, against what a GET would
    /// have answered. Read-only fields do not count.
    pub foreign_changes: Vec<String>,
}

pub(crate) fn digest(body: &[u8]) -> Option<String> {
    (!body.is_empty()).then(|| format!("{:x}", Sha256::digest(body)))
}

/// The revisions of a cluster document; empty where it names none.
pub(crate) fn revisions_of(document: &Value) -> Vec<String> {
    document
        .pointer("/properties/serviceMeshProfile/istio/revisions")
        .and_then(Value::as_array)
        .map(|values| values.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default()
}
