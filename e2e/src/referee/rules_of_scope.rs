//! What the operator may write, and how much.

use serde_json::{Map, Value};

use super::Evidence;
use super::history::{RELABELLED_BY, RESTART};
use crate::audit::{Call, Object};

/// A log without the operator in it proves nothing.
pub fn log_shows_the_operator(evidence: &Evidence<'_>) -> Vec<String> {
    let case = evidence.case;
    let mut missing = Vec::new();
    let writes = evidence.log.by(&case.operator).filter(|call| counts(call) && call.succeeded()).count();
    if writes == 0 {
        missing.push(format!("no write of {} is in the log", case.operator));
    }
    for upgrade in &case.upgrades {
        let created = evidence.log.calls.iter().any(|call| {
            call.object.is("meshupgrade.io", "meshupgrades", "")
                && call.object.name == *upgrade
                && matches!(call.verb.as_str(), "create" | "patch")
                && call.user != case.operator
        });
        if !created {
            missing.push(format!("the creation of meshupgrade/{upgrade} is not in the log"));
        }
    }
    missing
}

/// Rule 5: nothing is written but the labels of namespaces and Gateways, where revision tags point, and the restart annotation (of Rollouts: time) of workloads in
/// scope, copies of the AKS add-on's shared mesh configuration, the status, leases and events.
pub fn nothing_outside_the_plan(evidence: &Evidence<'_>) -> Vec<String> {
    let writes = evidence.log.by(&evidence.case.operator).filter(|call| call.is_write());
    writes.filter_map(|call| outside(evidence, call).map(|why| format!("{call}: {why}"))).collect()
}

fn outside(evidence: &Evidence<'_>, call: &Call) -> Option<String> {
    let case = evidence.case;
    let Object { group, resource, subresource, namespace, name } = &call.object;
    match (group.as_str(), resource.as_str(), subresource.as_str(), call.verb.as_str()) {
        ("coordination.k8s.io", "leases", "", "create" | "update" | "patch") => {
            (*namespace != case.operator_namespace).then(|| "a lease outside its own namespace".to_owned())
        }
        ("events.k8s.io" | "", "events", "", "create" | "patch") => None,
        ("meshupgrade.io", "meshupgrades", "status", "update" | "patch") => {
            (!case.upgrades.contains(name)).then(|| "not a MeshUpgrade of this run".to_owned())
        }
        ("", "namespaces", "", "patch") if !case.in_scope(name) => Some("not in scope".into()),
        ("", "namespaces", "", "patch") => {
            other_label_fields(&call.request, &["istio.io/rev", "istio-injection"])
        }
        ("apps", "deployments" | "statefulsets" | "daemonsets", "", "patch") if !case.in_scope(namespace) => {
            Some("not in scope".into())
        }
        ("apps", "deployments" | "statefulsets" | "daemonsets", "", "patch") => {
            other_workload_fields(&call.request)
        }
        ("argoproj.io", "rollouts", "", "patch") if !case.in_scope(namespace) => Some("not in scope".into()),
        ("argoproj.io", "rollouts", "", "patch") => {
            keys(&call.request, &["apiVersion", "kind", "metadata", "spec"])
                .or_else(|| keys(&call.request["metadata"], &["name", "namespace", "uid"]))
                .or_else(|| keys(&call.request["spec"], &["restartAt"]))
        }
        ("gateway.networking.k8s.io", "gateways", "", "patch") => {
            let moves = case.gateways.contains(&format!("{namespace}/{name}"));
            if moves {
                other_label_fields(&call.request, &["istio.io/rev"])
            } else {
                Some("not in scope".into())
            }
        }
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", "", "patch") => {
            if case.tags.iter().any(|tag| case.is_webhook_of(tag, name)) {
                other_tag_fields(&call.request)
            } else {
                Some("not in scope".into())
            }
        }
        ("", "services", "", "patch") => {
            let moves = case.tags.iter().any(|tag| *name == format!("istiod-revision-tag-{tag}"));
            if moves && *namespace == case.istio_namespace {
                other_service_fields(&call.request)
            } else {
                Some("not in scope".into())
            }
        }
        ("", "configmaps", "", "create" | "delete") => {
            let shared = name.starts_with("istio-shared-configmap-");
            (*namespace != "aks-istio-system" || !shared).then(|| "not in scope".to_owned())
        }
        _ => Some("not a write of this product".into()),
    }
}

fn other_tag_fields(body: &Value) -> Option<String> {
    let mut webhooks = body["webhooks"].as_array().into_iter().flatten();
    let metadata = serde_json::json!({"metadata": body["metadata"]});
    keys(body, &["metadata", "webhooks"])
        .or_else(|| other_label_fields(&metadata, &["istio.io/rev"]))
        .or_else(|| webhooks.find_map(|webhook| keys(webhook, &["name", "clientConfig"])))
}

fn other_service_fields(body: &Value) -> Option<String> {
    let metadata = serde_json::json!({"metadata": body["metadata"]});
    keys(body, &["metadata", "spec"])
        .or_else(|| other_label_fields(&metadata, &["istio.io/rev"]))
        .or_else(|| keys(&body["spec"], &["selector"]))
}

fn other_label_fields(body: &Value, labels: &[&str]) -> Option<String> {
    keys(body, &["metadata"])
        .or_else(|| keys(&body["metadata"], &["resourceVersion", "labels", "annotations"]))
        .or_else(|| keys(&body["metadata"]["labels"], labels))
        .or_else(|| {
            keys(&body["metadata"]["annotations"], &[RELABELLED_BY, "meshupgrade.io/previous-labels"])
        })
}

fn other_workload_fields(body: &Value) -> Option<String> {
    let template = &body["spec"]["template"];
    keys(body, &["apiVersion", "kind", "metadata", "spec"])
        .or_else(|| keys(&body["metadata"], &["name", "namespace", "uid"]))
        .or_else(|| keys(&body["spec"], &["template"]))
        .or_else(|| keys(template, &["metadata"]))
        .or_else(|| keys(&template["metadata"], &["annotations"]))
        .or_else(|| keys(&template["metadata"]["annotations"], &[RESTART]))
}

/// The first key that is none of these.
fn keys(value: &Value, allowed: &[&str]) -> Option<String> {
    let empty = Map::new();
    let object = value.as_object().unwrap_or(&empty);
    let other = object.keys().find(|key| !allowed.contains(&key.as_str()))?;
    Some(format!("it writes the field {other}"))
}

/// Rule 5, second half: whatever is called is allowed, reads as well.
pub fn nothing_refused(evidence: &Evidence<'_>) -> Vec<String> {
    let refused =
        evidence.log.by(&evidence.case.operator).filter(|call| matches!(call.code, 401 | 403 | 422));
    refused.map(|call| format!("{call}: {}", call.response["message"].as_str().unwrap_or_default())).collect()
}

/// Rule 6: writes without leases and events ≤ workloads + namespaces + 2 × batches + 3 × waves + 20. A batch is counted
/// when a status names workloads that the status before did not.
pub fn write_budget(evidence: &Evidence<'_>) -> Vec<String> {
    let (case, history) = (evidence.case, &evidence.history);
    let writes = evidence.log.by(&case.operator).filter(|call| counts(call)).count();
    let workloads = history.effective().count();
    let namespaces: usize = case.waves.iter().map(|wave| wave.namespaces.len()).sum();
    let opened = |pair: &[super::history::Intent]| matches!(pair, [a, b] if !b.batch.is_subset(&a.batch));
    let first = usize::from(history.intents.first().is_some_and(|intent| !intent.batch.is_empty()));
    let batches = first + history.intents.windows(2).filter(|pair| opened(pair)).count();
    let budget = workloads + namespaces + 2 * batches + 3 * case.waves.len() + 20;
    if writes <= budget {
        return Vec::new();
    }
    vec![format!(
        "{writes} writes, {budget} allowed ({workloads} workloads, {namespaces} namespaces, {batches} batches, {} waves)",
        case.waves.len()
    )]
}

/// Whether it is a write that counts: leases and events are not the run's.
fn counts(call: &Call) -> bool {
    call.is_write() && !matches!(call.object.resource.as_str(), "leases" | "events")
}
