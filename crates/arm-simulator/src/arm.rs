//! Azure Resource Manager: subscriptions, clusters, and what AKS says of the mesh.

use std::sync::Arc;

use hyper::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::answer::{
    Answer, cluster_not_found, etag_mismatch, nothing_there, operation_not_allowed, precondition_failed,
    revisions_refused,
};
use crate::cluster::{Cluster, location};
use crate::compare::accepted;
use crate::fault::Fault;
use crate::offers::find;
use crate::operation::{self, Plan, set_revisions};
use crate::route::Target;
use crate::shared::{Shared, State, uuid};
use crate::{lock, validate};

/// API versions of `Microsoft.ContainerService`.
///
/// Source: Azure/azure-rest-api-specs, containerservice, stable versions since 2024-02-01, which is the first one with
/// upgrade profiles of the mesh; 2026-06-01 and 2026-08-01 are the defaults of azure-mgmt-containerservice 41.6 and 41.8,
/// and 2026-07-01 is the one in azure-cli's recordings.
pub(crate) const CONTAINER_SERVICE_VERSIONS: &[&str] = &[
    "2024-02-01",
    "2024-05-01",
    "2024-07-01",
    "2024-08-01",
    "2024-09-01",
    "2024-10-01",
    "2025-01-01",
    "2025-02-01",
    "2025-03-01",
    "2025-04-01",
    "2025-05-01",
    "2025-06-01",
    "2025-07-01",
    "2025-08-01",
    "2025-09-01",
    "2025-10-01",
    "2026-01-01",
    "2026-02-01",
    "2026-03-01",
    "2026-04-01",
    "2026-05-01",
    "2026-06-01",
    "2026-07-01",
    "2026-08-01",
];
/// API versions of subscriptions and tenants.
///
/// Source: Azure/azure-sdk-for-go#246 and Azure/azure-cli#28038, lists of what is supported.
pub(crate) const SUBSCRIPTION_VERSIONS: &[&str] = &[
    "2016-06-01",
    "2018-02-01",
    "2019-03-01",
    "2019-06-01",
    "2019-11-01",
    "2020-01-01",
    "2021-01-01",
    "2022-01-01",
    "2022-09-01",
    "2022-12-01",
];

/// One request that is authenticated.
pub(crate) struct Ask<'a> {
    pub target: &'a Target,
    pub path: &'a str,
    pub query: &'a str,
    pub api_version: &'a str,
    pub headers: &'a HeaderMap,
    pub faults: &'a [Fault],
}

impl Ask<'_> {
    fn has(&self, fault: &Fault) -> bool {
        self.faults.contains(fault)
    }

    fn shown(&self, cluster: &Cluster) -> Value {
        cluster.shown(self.api_version, !self.has(&Fault::NoEtag))
    }
}

/// Answers a GET.
pub(crate) fn get(shared: &Shared, ask: &Ask<'_>) -> Answer {
    let state = lock(&shared.state);
    match ask.target {
        Target::Subscriptions => list(&subscriptions(shared)),
        Target::Subscription { id } => subscriptions(shared)
            .into_iter()
            .find(|subscription| subscription["subscriptionId"].as_str() == Some(id))
            .map_or_else(|| nothing_there(ask.path), |subscription| Answer::ok(&subscription)),
        Target::Tenants => list(&[tenant(shared)]),
        Target::Clusters { prefix } => {
            let matching = state.clusters.iter().filter(|(id, _)| id.starts_with(prefix));
            list(&matching.map(|(_, cluster)| ask.shown(cluster)).collect::<Vec<_>>())
        }
        Target::Cluster { id } => match state.clusters.get(id) {
            Some(cluster) => Answer::ok(&ask.shown(cluster)),
            None => cluster_not_found(ask.path),
        },
        Target::MeshUpgrades { cluster, list } => match state.clusters.get(cluster) {
            Some(cluster) => mesh_upgrades(shared, ask, cluster, *list),
            None => cluster_not_found(ask.path),
        },
        Target::MeshRevisions { subscription, location, list } => {
            mesh_revisions(shared, &state, ask.path, (subscription, location), *list)
        }
        Target::Operation { id } => operation::answer(shared, &state, id, ask.query),
        _ => nothing_there(ask.path),
    }
}

fn list(value: &[Value]) -> Answer {
    Answer::ok(&json!({"value": value}))
}

/// Source: Azure Resource Manager REST reference, Subscriptions - List.
fn subscriptions(shared: &Shared) -> Vec<Value> {
    let mut ids: Vec<&str> =
        shared.config.clusters.iter().map(|cluster| cluster.subscription.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter()
        .map(|id| {
            json!({
                "id": format!("/subscriptions/{id}"),
                "subscriptionId": id,
                "tenantId": shared.config.tenant,
                "displayName": "Simulated",
                "state": "Enabled",
                "subscriptionPolicies": {"quotaId": "Internal_2014-09-01", "spendingLimit": "Off"},
                "authorizationSource": "RoleBased",
                "managedByTenants": [],
            })
        })
        .collect()
}

/// Source: Azure Resource Manager REST reference, Tenants - List.
fn tenant(shared: &Shared) -> Value {
    json!({
        "id": format!("/tenants/{}", shared.config.tenant),
        "tenantId": shared.config.tenant,
        "tenantCategory": "Home",
        "displayName": "Simulated",
    })
}

fn mesh_upgrades(shared: &Shared, ask: &Ask<'_>, cluster: &Cluster, as_list: bool) -> Answer {
    let revisions = cluster.revisions();
    if revisions.len() > 1 {
        return upgrade_in_progress();
    }
    let offers = &shared.config.offers;
    let offer = revisions.first().and_then(|revision| find(offers, revision));
    let profile = offer.filter(|_| !ask.has(&Fault::NoProfiles)).map(|offer| {
        let mut properties = offer.profile(&cluster.upgrades(offer, offers));
        if ask.has(&Fault::UpgradesEmpty) {
            properties["upgrades"] = json!([]);
        }
        if ask.has(&Fault::UpgradesAbsent) {
            properties.as_object_mut().and_then(|fields| fields.remove("upgrades"));
        }
        // Source: Azure/azure-rest-api-specs, ManagedClustersList_MeshUpgradeProfiles.json.
        json!({
            "id": format!("{}/meshUpgradeProfiles/istio", cluster.id),
            "name": "istio",
            "type": "Microsoft.ContainerService/managedClusters/meshUpgradeProfiles",
            "properties": properties,
        })
    });
    match profile {
        profile if as_list => list(profile.as_slice()),
        Some(profile) => Answer::ok(&profile),
        // Inferred: without a mesh there is no such item.
        None => nothing_there(ask.path),
    }
}

/// Source of status and code: Azure/ARO-Tools, pkg/istio/aks.go; of the text: AKS troubleshooting, general Istio add-on,
/// last row of the error messages.
fn upgrade_in_progress() -> Answer {
    Answer::error(
        StatusCode::CONFLICT,
        "ServiceMeshUpgradeInProgress",
        "Mesh upgrade is in progress. Please complete or roll back the current upgrade before attempting to retrieve \
         versioning and compatibility information",
    )
}

/// Source: azure-cli test_aks_azure_service_mesh_canary_upgrade.yaml, first interaction.
fn mesh_revisions(
    shared: &Shared,
    state: &State,
    path: &str,
    (subscription, name): (&str, &str),
    as_list: bool,
) -> Answer {
    let name = location(name);
    // Inferred: a location in which nobody has a cluster stands for one in which the add-on is not offered.
    let offered = state.clusters.values().any(|cluster| cluster.location() == name);
    let supported = shared.config.offers.iter().filter(|offer| offer.supported);
    let profile = json!({
        "id": format!(
            "/subscriptions/{subscription}/providers/Microsoft.ContainerService/locations/{name}\
             /meshRevisionProfiles/istio"
        ),
        "name": "istio",
        "type": "Microsoft.ContainerService/locations/meshRevisionProfiles",
        "properties": {
            "meshRevisions": supported.map(|offer| offer.profile(&offer.upgrades)).collect::<Vec<_>>(),
        },
    });
    match (as_list, offered) {
        (true, true) => list(&[profile]),
        (true, false) => list(&[]),
        (false, true) => Answer::ok(&profile),
        (false, false) => nothing_there(path),
    }
}

/// Answers a PUT of a cluster.
pub(crate) fn put(shared: &Arc<Shared>, id: &str, sent: &Value, ask: &Ask<'_>) -> Answer {
    let operation_id = uuid(&format!("operation {}", shared.number()));
    let mut state = lock(&shared.state);
    let Some(cluster) = state.clusters.get_mut(id) else {
        // Inferred: a real PUT would create it (201); a mesh upgrade must never do that.
        return cluster_not_found(ask.path);
    };
    if let Some(refusal) = refuse(cluster, ask) {
        return refusal;
    }
    let revisions = match validate::revisions(sent, cluster, &shared.config.offers) {
        Ok(revisions) => revisions,
        Err(refusal) => return refusal,
    };
    let before = cluster.revisions();
    cluster.change(|document| {
        *document = accepted(document, sent.clone());
        set_wanted(document, revisions.as_deref());
    });
    // Source: azure-cli test_aks_azure_service_mesh_canary_upgrade.yaml: 200, `Updating`, the requested revisions at once,
    // these two headers, and neither Location nor Retry-After.
    let url = operation::url(shared, &cluster.subscription, &cluster.location(), &operation_id);
    let answer = Answer::ok(&ask.shown(cluster))
        .with("azure-asyncoperation", &url)
        .with("x-ms-ratelimit-remaining-subscription-writes", "1199");
    let plan = Plan::new(operation_id, id.to_owned(), before, shared.config.operation_time, ask.faults);
    operation::start(shared, &mut state, plan, ask.has(&Fault::OperationLost));
    match shared.config.retry_after {
        Some(seconds) => answer.with("retry-after", &seconds.to_string()),
        None => answer,
    }
}

fn set_wanted(document: &mut Value, revisions: Option<&[String]>) {
    if let Some(revisions) = revisions {
        set_revisions(document, revisions);
    }
    Cluster::set_provisioning_state(document, "Updating");
}

/// An accepted PUT of somebody else, who changes nothing but the revisions. False for an unknown cluster.
pub(crate) fn put_by_somebody_else(shared: &Arc<Shared>, id: &str, revisions: &[String]) -> bool {
    let operation_id = uuid(&format!("operation {}", shared.number()));
    let mut state = lock(&shared.state);
    let Some(cluster) = state.clusters.get_mut(id) else { return false };
    let before = cluster.revisions();
    cluster.change(|document| set_wanted(document, Some(revisions)));
    let plan = Plan::new(operation_id, id.to_owned(), before, shared.config.operation_time, &[]);
    operation::start(shared, &mut state, plan, false);
    true
}

/// Why a PUT is refused before its content is looked at.
fn refuse(cluster: &Cluster, ask: &Ask<'_>) -> Option<Answer> {
    let if_match = ask.headers.get("if-match").and_then(|value| value.to_str().ok()).unwrap_or_default();
    for fault in ask.faults {
        match fault {
            Fault::OperationNotAllowed(other) => return Some(operation_not_allowed(other)),
            Fault::EtagMismatch => return Some(etag_mismatch()),
            Fault::PreconditionFailed => return Some(precondition_failed(if_match, &cluster.etag())),
            Fault::RevisionsRefused(reason) => return Some(revisions_refused(reason)),
            _ => {}
        }
    }
    // Source: AKS documentation, use-etags: it fails early; empty and `*` match whatever is there. The Azure SDK for Python
    // sends the value in quotation marks, az without.
    let given = if_match.trim_start_matches("W/").trim_matches('"');
    if !given.is_empty() && given != "*" && given != cluster.etag() {
        return Some(precondition_failed(if_match, &cluster.etag()));
    }
    // Source: Azure/azure-workload-identity#417; the states in which no operation runs: Azure Resource Manager documentation,
    // track asynchronous operations.
    match cluster.provisioning_state() {
        "Succeeded" | "Failed" | "Canceled" => None,
        running => Some(operation_not_allowed(running)),
    }
}
