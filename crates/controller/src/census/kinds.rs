//! What a census reads besides pods, as far as it is parsed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meshupgrade_core::census::{CronJob, Reference, ReferenceKind, VersionedFilter};
use meshupgrade_core::ids::{NamespaceName, Revision};
use meshupgrade_core::labels;
use serde::Deserialize;

use crate::observe::gateway::RawGateway;
use crate::observe::pod::address_revision;
use crate::observe::webhook::RawWebhook;
use crate::observe::workload::RawTemplate;
use crate::slim::{self, Slim};

/// Name of the validator of objects without a revision label.
const DEFAULT_VALIDATOR: &str = "istiod-default-validator";

/// A CronJob.
pub type RawCronJob = Slim<CronJobSpec>;

slim::resource!(RawCronJob, NamespaceResourceScope, "batch", "v1", "CronJob", "cronjobs");

/// `spec` of a CronJob.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CronJobSpec {
    job_template: JobTemplate,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct JobTemplate {
    spec: JobSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct JobSpec {
    template: RawTemplate,
}

/// The CronJob as the core wants it.
pub fn cron_job(raw: RawCronJob) -> CronJob {
    CronJob {
        namespace: namespace_of(&raw.metadata).unwrap_or_default(),
        name: raw.metadata.name.unwrap_or_default(),
        template: raw.spec.job_template.spec.template.into(),
    }
}

/// A `ValidatingWebhookConfiguration`.
#[derive(Clone, Debug, Deserialize)]
pub struct RawValidating {
    #[serde(default, deserialize_with = "slim::slim_metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    webhooks: Vec<RawWebhook>,
}

slim::resource!(
    RawValidating,
    ClusterResourceScope,
    "admissionregistration.k8s.io",
    "v1",
    "ValidatingWebhookConfiguration",
    "validatingwebhookconfigurations"
);

/// What an Istio validator refers to. The default validator's label is the same whatever it points at: its Service
/// decides, where it has one.
pub fn validator(raw: &RawValidating) -> Option<Reference> {
    let entry = raw.webhooks.iter().find(|webhook| webhook.is_istio())?;
    let name = raw.metadata.name.clone().unwrap_or_default();
    let label = label(&raw.metadata, labels::REVISION);
    let (kind, revision) = if name == DEFAULT_VALIDATOR {
        let service = entry.endpoint();
        let pointed = service.split_once('/').and_then(|(_namespace, service)| address_revision(service));
        (ReferenceKind::DefaultValidator, pointed.or(label)?)
    } else {
        (ReferenceKind::OwnValidator, label?)
    };
    Some(Reference {
        kind,
        object_kind: "ValidatingWebhookConfiguration".to_owned(),
        namespace: None,
        name,
        revision: Revision(revision),
    })
}

/// What a Gateway means for a census.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayFound {
    /// It names a revision.
    pub reference: Option<Reference>,
    /// We do not cover it.
    pub uncovered: Option<String>,
}

/// Classes of Istio's own controllers.
pub fn gateway(raw: &RawGateway) -> GatewayFound {
    let class = raw.spec.gateway_class_name.as_str();
    let kind = match class {
        "istio" | "istio-remote" => None,
        "istio-waypoint" => Some("waypoint"),
        "istio-east-west" => Some("east-west gateway"),
        // Somebody else's controller.
        _ => return GatewayFound::default(),
    };
    let namespace = namespace_of(&raw.metadata);
    let name = raw.metadata.name.clone().unwrap_or_default();
    let place = namespace.as_ref().map_or("", NamespaceName::as_str);
    GatewayFound {
        uncovered: kind.map(|kind| format!("{kind} {place}/{name}")),
        reference: label(&raw.metadata, labels::REVISION).map(|revision| Reference {
            kind: ReferenceKind::Gateway,
            object_kind: "Gateway".to_owned(),
            namespace,
            name,
            revision: Revision(revision),
        }),
    }
}

/// An EnvoyFilter.
pub type RawEnvoyFilter = Slim<EnvoyFilterSpec>;

slim::resource!(
    RawEnvoyFilter,
    NamespaceResourceScope,
    "networking.istio.io",
    "v1alpha3",
    "EnvoyFilter",
    "envoyfilters"
);

/// `spec` of an EnvoyFilter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvoyFilterSpec {
    config_patches: Option<Vec<ConfigPatch>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ConfigPatch {
    r#match: Option<PatchMatch>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PatchMatch {
    proxy: Option<ProxyMatch>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ProxyMatch {
    proxy_version: Option<String>,
}

/// What an EnvoyFilter means for a census.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvoyFilterFound {
    /// It names a revision: no other reads it, whatever its patches are for.
    Reference(Reference),
    /// It is read by every revision. Of its patches those that are for certain versions of the proxy.
    Versioned(VersionedFilter),
}

/// Looks at an EnvoyFilter. An empty expression is none: it matches every version.
pub fn envoy_filter(raw: RawEnvoyFilter) -> EnvoyFilterFound {
    if let Some(reference) = labelled(ReferenceKind::IstioResource, "EnvoyFilter", &raw.metadata) {
        return EnvoyFilterFound::Reference(reference);
    }
    let patches = raw.spec.config_patches.unwrap_or_default().into_iter();
    let versions = patches.filter_map(|patch| patch.r#match?.proxy?.proxy_version);
    EnvoyFilterFound::Versioned(VersionedFilter {
        namespace: namespace_of(&raw.metadata).unwrap_or_default(),
        versions: versions.filter(|version| !version.is_empty()).collect(),
        name: raw.metadata.name.unwrap_or_default(),
    })
}

/// An object of which only the metadata is read.
pub type RawObject = kube::core::PartialObjectMeta<kube::core::DynamicObject>;

/// A reference by the label `istio.io/rev`.
pub fn labelled(kind: ReferenceKind, object_kind: &str, metadata: &ObjectMeta) -> Option<Reference> {
    Some(Reference {
        kind,
        object_kind: object_kind.to_owned(),
        namespace: namespace_of(metadata),
        name: metadata.name.clone().unwrap_or_default(),
        revision: Revision(label(metadata, labels::REVISION)?),
    })
}

fn namespace_of(metadata: &ObjectMeta) -> Option<NamespaceName> {
    metadata.namespace.clone().map(NamespaceName)
}

fn label(metadata: &ObjectMeta, key: &str) -> Option<String> {
    metadata.labels.as_ref()?.get(key).cloned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn validating(name: &str, labels: &Value, client_config: &Value) -> Option<Reference> {
        let raw: RawValidating = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels},
            "webhooks": [{"name": "validation.istio.io", "clientConfig": client_config}],
        }))
        .unwrap();
        validator(&raw)
    }

    #[test]
    fn a_validator_belongs_to_the_revision_of_its_label() {
        let found = validating(
            "istio-validator-asm-1-27-aks-istio-system",
            &json!({"istio.io/rev": "asm-1-27"}),
            &json!({"url": "https://127.0.0.1:1/validate"}),
        )
        .unwrap();
        assert_eq!((found.kind, found.revision.as_str()), (ReferenceKind::OwnValidator, "asm-1-27"));
    }

    #[test]
    fn the_default_validator_points_where_its_service_is() {
        let labels = json!({"istio.io/rev": "default"});
        let service =
            json!({"service": {"namespace": "istio-system", "name": "istiod-asm-1-27", "path": "/validate"}});
        let found = validating(DEFAULT_VALIDATOR, &labels, &service).unwrap();
        assert_eq!((found.kind, found.revision.as_str()), (ReferenceKind::DefaultValidator, "asm-1-27"));
        let url = json!({"url": "https://127.0.0.1:1/validate"});
        let found = validating(DEFAULT_VALIDATOR, &json!({"istio.io/rev": "asm-1-28"}), &url).unwrap();
        assert_eq!(found.revision.as_str(), "asm-1-28");
    }

    #[test]
    fn validators_of_others_are_left_out() {
        let raw: RawValidating = serde_json::from_value(json!({
            "metadata": {"name": "gatekeeper", "labels": {"istio.io/rev": "x"}},
            "webhooks": [{"name": "validation.gatekeeper.sh"}],
        }))
        .unwrap();
        assert_eq!(validator(&raw), None);
    }

    fn found(class: &str, labels: &Value) -> GatewayFound {
        let raw: RawGateway = serde_json::from_value(json!({
            "metadata": {"name": "edge", "namespace": "shop", "labels": labels},
            "spec": {"gatewayClassName": class, "listeners": []},
        }))
        .unwrap();
        gateway(&raw)
    }

    #[test]
    fn a_gateway_counts_when_it_names_a_revision() {
        let reference = found("istio", &json!({"istio.io/rev": "asm-1-27"})).reference.unwrap();
        assert_eq!((reference.name.as_str(), reference.revision.as_str()), ("edge", "asm-1-27"));
        assert_eq!(found("istio", &json!({})), GatewayFound::default());
        assert_eq!(found("nginx", &json!({"istio.io/rev": "asm-1-27"})), GatewayFound::default());
    }

    #[test]
    fn waypoints_and_east_west_gateways_are_not_covered() {
        assert_eq!(found("istio-waypoint", &json!({})).uncovered.as_deref(), Some("waypoint shop/edge"));
        assert!(found("istio-east-west", &json!({})).uncovered.unwrap().starts_with("east-west"));
    }

    #[test]
    fn an_envoy_filter_is_the_versions_of_its_patches_unless_it_names_a_revision() {
        let filter = |labels: &Value| {
            let raw: RawEnvoyFilter = serde_json::from_value(json!({
                "metadata": {"name": "lua", "namespace": "shop", "labels": labels},
                "spec": {"workloadSelector": {"labels": {"app": "web"}}, "configPatches": [
                    {"applyTo": "HTTP_FILTER", "patch": {"operation": "MERGE"}},
                    {"match": {"context": "ANY"}},
                    {"match": {"proxy": {"metadata": {"a": "b"}}}},
                    {"match": {"proxy": {"proxyVersion": ""}}},
                    {"match": {"proxy": {"proxyVersion": "^1\\.27.*"}}},
                    {"match": null},
                ]},
            }))
            .unwrap();
            envoy_filter(raw)
        };
        let EnvoyFilterFound::Versioned(found) = filter(&json!({})) else { panic!("a reference") };
        assert_eq!((found.namespace.as_str(), found.name.as_str()), ("shop", "lua"));
        assert_eq!(found.versions, [r"^1\.27.*"]);
        let EnvoyFilterFound::Reference(found) = filter(&json!({"istio.io/rev": "asm-1-27"})) else {
            panic!("not a reference")
        };
        assert_eq!((found.object_kind.as_str(), found.revision.as_str()), ("EnvoyFilter", "asm-1-27"));
        let empty: RawEnvoyFilter = serde_json::from_value(json!({"metadata": {"name": "e"}})).unwrap();
        assert!(
            matches!(envoy_filter(empty), EnvoyFilterFound::Versioned(found) if found.versions.is_empty())
        );
    }

    #[test]
    fn a_cron_job_is_its_template() {
        let raw: RawCronJob = serde_json::from_value(json!({
            "metadata": {"name": "nightly", "namespace": "shop"},
            "spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template": {
                "metadata": {"labels": {"sidecar.istio.io/inject": "false"}},
                "spec": {"hostNetwork": true, "containers": [{"name": "job"}]},
            }}}},
        }))
        .unwrap();
        let job = cron_job(raw);
        assert_eq!((job.namespace.as_str(), job.name.as_str()), ("shop", "nightly"));
        assert!(job.template.host_network);
        assert_eq!(job.template.labels.get("sidecar.istio.io/inject").map(String::as_str), Some("false"));
    }
}
