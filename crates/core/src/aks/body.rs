//! The body of the one write: the cluster as it was read, with another list of revisions.
//!
//! ARM has no call that starts, completes or rolls back an upgrade of the mesh. All three are a PUT of the whole cluster
//! (`az aks mesh upgrade`: azure-cli, `managed_cluster_decorator.py`), so whatever is left out of it may be switched off.
//! That is why the body is made from the raw JSON: fields that this program does not know go back as they came.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value};

use super::json::text;
use super::revision::normalised;
use crate::ids::Revision;

/// Where the revisions are.
const REVISIONS: [&str; 4] = ["properties", "serviceMeshProfile", "istio", "revisions"];
/// Stands for any element of an array and any key of a map.
const ANY: &str = "*";
/// The fields that ARM sets and nobody else: those with visibility "read" alone in `ManagedCluster` and everything below
/// it, of azure-mgmt-containerservice 41.0.0 (api-version 2026-01-01), which leaves the same ones out of a PUT.
///
/// `nodeImageVersion` must not be sent: from api-version 2026-08-01 on it can be set, and setting it rolls back the node
/// pool (docstring in version 41.8.0). Left out, it stays as it is.
const READ_ONLY: [&[&str]; 32] = [
    &["id"],
    &["name"],
    &["type"],
    &["systemData"],
    &["eTag"],
    &["identity", "principalId"],
    &["identity", "tenantId"],
    &["identity", "userAssignedIdentities", ANY, "clientId"],
    &["identity", "userAssignedIdentities", ANY, "principalId"],
    &["properties", "addonProfiles", ANY, "identity"],
    &["properties", "agentPoolProfiles", ANY, "currentOrchestratorVersion"],
    &["properties", "agentPoolProfiles", ANY, "eTag"],
    &["properties", "agentPoolProfiles", ANY, "localDNSProfile", "state"],
    &["properties", "agentPoolProfiles", ANY, "nodeImageVersion"],
    &["properties", "agentPoolProfiles", ANY, "provisioningState"],
    &["properties", "agentPoolProfiles", ANY, "status", "provisioningError"],
    &["properties", "azurePortalFQDN"],
    &["properties", "currentKubernetesVersion"],
    &["properties", "fqdn"],
    &["properties", "ingressProfile", "webAppRouting", "identity"],
    &["properties", "maxAgentPools"],
    &["properties", "networkProfile", "loadBalancerProfile", "effectiveOutboundIPs"],
    &["properties", "networkProfile", "natGatewayProfile", "effectiveOutboundIPs"],
    &["properties", "oidcIssuerProfile", "issuerURL"],
    &["properties", "podIdentityProfile", "userAssignedIdentities", ANY, "provisioningInfo"],
    &["properties", "podIdentityProfile", "userAssignedIdentities", ANY, "provisioningState"],
    &["properties", "powerState"],
    &["properties", "privateFQDN"],
    &["properties", "privateLinkResources", ANY, "privateLinkServiceID"],
    &["properties", "provisioningState"],
    &["properties", "resourceUID"],
    &["properties", "status", "provisioningError"],
];

/// Why there is no body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The list is empty, has an empty name or one twice. An empty list means "keep what is there" to AKS
    /// (Azure/AKS CHANGELOG, August 2025).
    Revisions,
    /// The cluster's mesh is not Istio, but this.
    NotIstio(String),
    /// What was read lacks something without which AKS refuses the write or does something else: its JSON pointer.
    Missing(&'static str),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revisions => {
                f.write_str("the list of revisions is empty, or has an empty name or one twice")
            }
            Self::NotIstio(mode) => write!(f, "the mode of the cluster's mesh is {mode:?}, not \"Istio\""),
            Self::Missing(pointer) => write!(f, "the cluster as it was read has no {pointer}"),
        }
    }
}

/// The body of a PUT that gives a cluster these revisions, from the answer to the GET before it.
pub fn with_revisions(get: &Value, revisions: &[Revision]) -> Result<Value, BodyError> {
    check_list(revisions)?;
    check_cluster(get)?;
    let mut body = get.clone();
    for path in READ_ONLY {
        remove(&mut body, path);
    }
    let list = revisions.iter().map(|revision| Value::from(revision.as_str())).collect();
    *at(&mut body, &REVISIONS)
        .ok_or(BodyError::Missing("/properties/serviceMeshProfile/istio/revisions"))? = list;
    Ok(body)
}

fn check_list(revisions: &[Revision]) -> Result<(), BodyError> {
    let distinct: BTreeSet<&str> = revisions.iter().map(Revision::as_str).collect();
    let empty = distinct.is_empty() || distinct.contains("");
    if empty || distinct.len() < revisions.len() { Err(BodyError::Revisions) } else { Ok(()) }
}

fn check_cluster(get: &Value) -> Result<(), BodyError> {
    for pointer in ["/location", "/properties/kubernetesVersion", "/properties/serviceMeshProfile/mode"] {
        text(get, pointer).ok_or(BodyError::Missing(pointer))?;
    }
    let mode = text(get, "/properties/serviceMeshProfile/mode").unwrap_or_default();
    if !mode.eq_ignore_ascii_case("Istio") {
        return Err(BodyError::NotIstio(mode.to_owned()));
    }
    for pointer in ["/properties/serviceMeshProfile/istio", "/properties/serviceMeshProfile/istio/revisions"]
    {
        let there = get.pointer(pointer).is_some_and(|value| value.is_object() || value.is_array());
        if !there {
            return Err(BodyError::Missing(pointer));
        }
    }
    Ok(())
}

fn at<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, key| value.get_mut(key))
}

/// Removes what a path with wildcards leads to.
fn remove(value: &mut Value, path: &[&str]) {
    match (path, value) {
        ([last], Value::Object(map)) => {
            map.remove(*last);
        }
        ([first, rest @ ..], value) => {
            for child in children(value, first) {
                remove(child, rest);
            }
        }
        ([], _) => {}
    }
}

fn children<'a>(value: &'a mut Value, key: &str) -> Vec<&'a mut Value> {
    match (value, key) {
        (Value::Object(map), ANY) => map.values_mut().collect(),
        (Value::Array(items), ANY) => items.iter_mut().collect(),
        (Value::Object(map), key) => map.get_mut(key).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// Checks a body on its own, before it is sent: compared with what was read, it may have another list of revisions, and
/// may lack read-only fields. Returns the JSON pointers of everything else that differs, also when revisions are no list.
pub fn assert_only_revisions_differ(get: &Value, put: &Value) -> Result<(), Vec<String>> {
    let mut found = Vec::new();
    compare(get, put, &mut Vec::new(), &mut found);
    if found.is_empty() { Ok(()) } else { Err(found) }
}

fn compare<'a>(get: &'a Value, put: &'a Value, path: &mut Vec<&'a str>, found: &mut Vec<String>) {
    if path.as_slice() == REVISIONS.as_slice() {
        if !is_list_of_names(put) {
            found.push(pointer(path));
        }
        return;
    }
    match (get, put) {
        (Value::Object(get), Value::Object(put)) => compare_maps(get, put, path, found),
        (Value::Array(get), Value::Array(put)) if get.len() == put.len() => {
            for (get, put) in get.iter().zip(put) {
                path.push(ANY);
                compare(get, put, path, found);
                path.pop();
            }
        }
        _ if get == put => {}
        _ => found.push(pointer(path)),
    }
}

fn compare_maps<'a>(
    get: &'a Map<String, Value>,
    put: &'a Map<String, Value>,
    path: &mut Vec<&'a str>,
    found: &mut Vec<String>,
) {
    for (key, value) in get {
        path.push(key);
        match put.get(key) {
            Some(other) => compare(value, other, path, found),
            None if is_read_only(path) => {}
            None => found.push(pointer(path)),
        }
        path.pop();
    }
    for key in put.keys().filter(|key| !get.contains_key(*key)) {
        path.push(key);
        found.push(pointer(path));
        path.pop();
    }
}

fn is_read_only(path: &[&str]) -> bool {
    let fits = |(key, pattern): (&&str, &&str)| *pattern == ANY || key == pattern;
    READ_ONLY.iter().any(|pattern| pattern.len() == path.len() && path.iter().zip(*pattern).all(fits))
}

fn is_list_of_names(value: &Value) -> bool {
    let names: Option<Vec<&str>> =
        value.as_array().and_then(|items| items.iter().map(Value::as_str).collect());
    names.is_some_and(|names| !names.is_empty() && names.iter().all(|name| !normalised(name).0.is_empty()))
}

/// As RFC 6901 writes it; elements of arrays are `*`.
fn pointer(path: &[&str]) -> String {
    let mut pointer = String::new();
    for key in path {
        pointer.push('/');
        pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
    }
    pointer
}

#[cfg(test)]
mod tests;
