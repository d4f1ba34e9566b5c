//! What AKS refuses in the mesh profile of a PUT. The texts are those of the AKS documentation.
//!
//! Source, where no other is named: AKS troubleshooting, general Istio add-on, table of error messages; the article gives
//! the texts without status and code. Inferred: 400 `BadRequest` for all of them, from MicrosoftDocs/azure-docs#120606.

use hyper::StatusCode;
use serde_json::Value;

use crate::answer::{Answer, revisions_refused};
use crate::cluster::Cluster;
use crate::offers::{Offer, find, order};

/// Source: AKS documentation, istio-upgrade: two revisions during a canary upgrade.
const MAX_REVISIONS: usize = 2;
/// Source: AKS troubleshooting, row of `Too many ingresses`: one external and one internal.
const MAX_INGRESSES: usize = 1;
/// Source: AKS documentation, istio-plugin-ca, parameters of the plug-in certificate authority.
const PLUGIN_FIELDS: [&str; 5] =
    ["keyVaultId", "certObjectName", "keyObjectName", "rootCertObjectName", "certChainObjectName"];

/// The revisions to set, or none where the stored ones stay, or the refusal.
pub(crate) fn revisions(
    sent: &Value,
    cluster: &Cluster,
    offers: &[Offer],
) -> Result<Option<Vec<String>>, Answer> {
    if text(sent, "/location").is_empty() {
        // Source: MicrosoftDocs/azure-docs#37944.
        let message = "The location property is required for this definition.";
        return Err(Answer::error(StatusCode::BAD_REQUEST, "LocationRequired", message));
    }
    if text(sent, "/properties/kubernetesVersion").is_empty() {
        return Err(refused("Kubernetes version is missing in orchestrator profile"));
    }
    let Some(profile) = sent.pointer("/properties/serviceMeshProfile").filter(|profile| !profile.is_null())
    else {
        // Inferred: a cluster without a mesh has no such profile.
        return Ok(None);
    };
    let mode = text(profile, "/mode");
    if mode.eq_ignore_ascii_case("Disabled") {
        return Ok(None);
    }
    if !mode.eq_ignore_ascii_case("Istio") {
        return Err(refused(&format!("Missing service mesh mode: {mode}")));
    }
    let Some(istio) = profile.get("istio").filter(|istio| istio.is_object()) else {
        return Err(refused("Istio profile is missing even though Service Mesh mode is Istio"));
    };
    check_features(sent)?;
    check_ingresses(istio)?;
    check_plugin(sent, istio)?;
    check_revisions(istio, cluster, offers)
}

fn refused(message: &str) -> Answer {
    Answer::error(StatusCode::BAD_REQUEST, "BadRequest", message)
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn enabled(sent: &Value, addon: &str) -> bool {
    sent.pointer(&format!("/properties/addonProfiles/{addon}/enabled"))
        .and_then(Value::as_bool)
        .unwrap_or(false)
}

fn check_features(sent: &Value) -> Result<(), Answer> {
    if enabled(sent, "openServiceMesh") {
        // Inferred: how the feature is called in the text.
        return Err(refused("Istio based Azure service mesh is incompatible with feature Open Service Mesh"));
    }
    Ok(())
}

fn check_ingresses(istio: &Value) -> Result<(), Answer> {
    let gateways = istio.pointer("/components/ingressGateways").and_then(Value::as_array);
    let modes: Vec<&str> = gateways.into_iter().flatten().map(|gateway| text(gateway, "/mode")).collect();
    if let Some(mode) = modes.iter().find(|mode| !["External", "Internal"].contains(*mode)) {
        return Err(refused(&format!("Invalid istio ingress mode: {mode}")));
    }
    for kind in ["External", "Internal"] {
        if modes.iter().filter(|mode| **mode == kind).count() > MAX_INGRESSES {
            let message = format!(
                "Too many ingresses for type: {kind}. Only {MAX_INGRESSES} ingress gateway are allowed"
            );
            return Err(refused(&message));
        }
    }
    Ok(())
}

fn check_plugin(sent: &Value, istio: &Value) -> Result<(), Answer> {
    let Some(plugin) = istio.pointer("/certificateAuthority/plugin").filter(|plugin| !plugin.is_null())
    else {
        return Ok(());
    };
    let missing: Vec<&str> =
        PLUGIN_FIELDS.into_iter().filter(|field| text(plugin, &format!("/{field}")).is_empty()).collect();
    if !missing.is_empty() {
        // Inferred: that the parameters are separated by a comma.
        let message = format!(
            "ServiceMeshProfile is missing required parameters: {} for plugin certificate authority",
            missing.join(", ")
        );
        return Err(refused(&message));
    }
    if !enabled(sent, "azureKeyvaultSecretsProvider") {
        return Err(refused(
            "AzureKeyvaultSecretsProvider addon is required for Azure Service Mesh plugin certificate authority feature",
        ));
    }
    let vault = text(plugin, "/keyVaultId");
    if !is_key_vault(vault) {
        let message = format!(
            "'KeyVaultId': '{vault}' is not a valid Azure keyvault resource identifier. Please make sure that the \
             format matches '/subscriptions//resourceGroups//providers/Microsoft.KeyVault/vaults/'"
        );
        return Err(refused(&message));
    }
    Ok(())
}

fn is_key_vault(id: &str) -> bool {
    let id = id.to_lowercase();
    let parts: Vec<&str> = id.split('/').collect();
    matches!(
        parts.as_slice(),
        ["", "subscriptions", subscription, "resourcegroups", group, "providers", "microsoft.keyvault", "vaults", name]
            if [subscription, group, name].iter().all(|part| !part.is_empty())
    )
}

fn check_revisions(
    istio: &Value,
    cluster: &Cluster,
    offers: &[Offer],
) -> Result<Option<Vec<String>>, Answer> {
    let named = istio.get("revisions").and_then(Value::as_array);
    let mut wanted: Vec<String> = Vec::new();
    for revision in named.into_iter().flatten().map(|revision| revision.as_str().unwrap_or_default()) {
        if revision.is_empty() {
            // Inferred: an empty name; of an empty list the changelog says something else.
            return Err(refused("ServiceMeshProfile revision field must not be empty"));
        }
        if !wanted.iter().any(|other| other == revision) {
            wanted.push(revision.to_owned());
        }
    }
    let current = cluster.revisions();
    if wanted.is_empty() {
        // Source: AKS changelog, August 2025: with an empty list the existing revisions stay.
        return Ok(Some(current));
    }
    if wanted.len() > MAX_REVISIONS {
        let message = format!("Request exceeds maximum allowed number of revisions ({MAX_REVISIONS})");
        return Err(refused(&message));
    }
    for revision in wanted.iter().filter(|revision| !current.contains(revision)) {
        check_new(revision, cluster, offers)?;
    }
    check_step(&current, &wanted, offers)?;
    Ok(Some(wanted))
}

/// Whether a revision can be installed at all.
fn check_new(revision: &str, cluster: &Cluster, offers: &[Offer]) -> Result<(), Answer> {
    let (minor, full) = cluster.kubernetes();
    let allowed = |offer: &Offer| offer.supported && offer.allows(&minor, cluster.support_plan());
    let Some(offer) = find(offers, revision).filter(|offer| offer.supported) else {
        // Source: MicrosoftDocs/azure-docs#120606.
        let reason = format!("Revision {revision} is not supported by the service mesh add-on.");
        return Err(revisions_refused(&reason));
    };
    if !offers.iter().any(allowed) {
        return Err(refused(&format!(
            "Kubernetes version {full} not supported. Please upgrade to a supported cluster version first. To find \
             compatibility information, use 'az aks mesh get-upgrades'"
        )));
    }
    if !allowed(offer) {
        // Source: Azure/ARO-HCP#5156: with the full version of the cluster.
        return Err(refused(&format!(
            "Service mesh revision {revision} is not compatible with cluster version {full}. To find information about \
             mesh-cluster compatibility, use 'az aks mesh get-upgrades'"
        )));
    }
    Ok(())
}

/// Whether the one set of revisions can follow the other.
///
/// Source: AKS troubleshooting, minor revision upgrade, restrictions: no downgrade outside of a rollback, and only to
/// revisions that are offered as upgrades. Inferred: the reasons in the texts.
fn check_step(current: &[String], wanted: &[String], offers: &[Offer]) -> Result<(), Answer> {
    let added: Vec<&String> = wanted.iter().filter(|revision| !current.contains(revision)).collect();
    let removed = current.iter().any(|revision| !wanted.contains(revision));
    let [added] = added.as_slice() else {
        return if current.is_empty() || added.is_empty() {
            Ok(())
        } else {
            Err(revisions_refused("More than one revision is added."))
        };
    };
    let Some(from) = current.first() else { return Ok(()) };
    if removed {
        let reason = format!("Revision {from} must not be replaced by {added} without a canary upgrade.");
        return Err(revisions_refused(&reason));
    }
    if order(added) < order(from) {
        return Err(revisions_refused(&format!("Downgrade from {from} to {added} is not allowed.")));
    }
    if !find(offers, from).is_some_and(|offer| offer.upgrades.contains(added)) {
        return Err(revisions_refused(&format!("Upgrade from {from} to {added} is not allowed.")));
    }
    Ok(())
}
