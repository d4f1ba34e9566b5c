//! What decisions need to know of a managed cluster.

use serde_json::Value;

use super::EGRESS_NAMESPACE;
use super::json::{is_true, items, text, texts};
use super::revision::normalised;
use crate::ids::Revision;

/// What a plug-in certificate authority consists of. AKS wants all of it (`istio-plugin-ca.md`).
const PLUGIN_CA: [&str; 5] =
    ["keyVaultId", "certObjectName", "keyObjectName", "rootCertObjectName", "certChainObjectName"];

/// A managed cluster, from the answer to `GET …/managedClusters/{name}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedCluster {
    /// The region, as ARM writes it: `westeurope`.
    pub location: String,
    /// How its last operation stands.
    pub provisioning_state: ProvisioningState,
    /// The Kubernetes version that was asked for; may be a minor only.
    pub kubernetes_version: Option<String>,
    /// The Kubernetes version of the control plane.
    pub current_kubernetes_version: Option<String>,
    /// Which support its Kubernetes version has.
    pub support_plan: SupportPlan,
    /// Which mesh it has.
    pub mesh_mode: MeshMode,
    /// The revisions of the mesh, in the order of the answer.
    pub revisions: Vec<Revision>,
    /// The ingress gateways of the add-on.
    pub ingress_gateways: Vec<IngressGateway>,
    /// The egress gateways of the add-on.
    pub egress_gateways: Vec<EgressGateway>,
    /// The plug-in certificate authority; `None` when istiod signs with its own.
    pub plugin_ca: Option<PluginCa>,
    /// Whether the add-on that reads keys from Azure Key Vault is on.
    pub key_vault_addon_enabled: bool,
    /// Whether Open Service Mesh is on, which excludes the Istio add-on.
    pub open_service_mesh_enabled: bool,
    /// Whether the answer has an eTag, so that a write can be tied to what was read.
    pub etag_present: bool,
}

/// `provisioningState`: how the last operation on a cluster stands. Anything but the three ends is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProvisioningState {
    /// It went well. Only now a cluster may be changed.
    Succeeded,
    /// It failed.
    Failed,
    /// It was cancelled.
    Canceled,
    /// It goes on, for example `Updating`, `Upgrading`, `Starting`; empty when the answer does not say.
    UnderWay(String),
}

/// Which support a cluster's Kubernetes version has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SupportPlan {
    /// As long as the community's.
    #[default]
    KubernetesOfficial,
    /// Two years.
    AksLongTermSupport,
}

/// Which mesh a cluster has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeshMode {
    /// The Istio add-on.
    Istio,
    /// None.
    Disabled,
    /// Something newer than this program.
    Other(String),
}

/// An ingress gateway of the add-on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressGateway {
    /// `External` or `Internal`.
    pub mode: String,
    /// Whether it is there.
    pub enabled: bool,
}

/// An egress gateway of the add-on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressGateway {
    /// Its name; `None` from api-versions in which it had none.
    pub name: Option<String>,
    /// Its namespace.
    pub namespace: String,
    /// Whether it is there.
    pub enabled: bool,
}

/// A plug-in certificate authority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginCa {
    /// The fields that are not set. AKS refuses every write while there is one.
    pub missing: Vec<&'static str>,
    /// Whether `keyVaultId` is set and not the id of a key vault.
    pub key_vault_id_malformed: bool,
}

impl PluginCa {
    /// Whether AKS can use it.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && !self.key_vault_id_malformed
    }
}

impl ProvisioningState {
    /// A state from ARM's word.
    pub fn from_word(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "succeeded" => Self::Succeeded,
            "failed" => Self::Failed,
            "canceled" | "cancelled" => Self::Canceled,
            _ => Self::UnderWay(word.to_owned()),
        }
    }

    /// Whether nothing goes on any more.
    pub fn is_terminal(&self) -> bool {
        !matches!(self, Self::UnderWay(_))
    }

    /// ARM's word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Canceled => "Canceled",
            Self::UnderWay(word) => word,
        }
    }
}

impl SupportPlan {
    /// The name that `compatibleWith` has for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KubernetesOfficial => "KubernetesOfficial",
            Self::AksLongTermSupport => "AKSLongTermSupport",
        }
    }
}

impl ManagedCluster {
    /// Reads an answer; `None` if it is not that of a managed cluster, which has a location and properties.
    pub fn parse(answer: &Value) -> Option<Self> {
        answer.pointer("/properties").filter(|properties| properties.is_object())?;
        let property = |pointer: &str| text(answer, &format!("/properties/{pointer}")).map(str::to_owned);
        Some(Self {
            location: text(answer, "/location")?.to_owned(),
            provisioning_state: ProvisioningState::from_word(
                &property("provisioningState").unwrap_or_default(),
            ),
            kubernetes_version: property("kubernetesVersion"),
            current_kubernetes_version: property("currentKubernetesVersion"),
            support_plan: support_plan(property("supportPlan").as_deref()),
            mesh_mode: mesh_mode(answer),
            revisions: texts(answer, "/properties/serviceMeshProfile/istio/revisions")
                .map(normalised)
                .collect(),
            ingress_gateways: gateways(answer, "ingressGateways").iter().map(ingress_gateway).collect(),
            egress_gateways: gateways(answer, "egressGateways").iter().map(egress_gateway).collect(),
            plugin_ca: plugin_ca(answer),
            key_vault_addon_enabled: addon_enabled(answer, "azureKeyvaultSecretsProvider"),
            open_service_mesh_enabled: addon_enabled(answer, "openServiceMesh"),
            etag_present: text(answer, "/eTag").is_some(),
        })
    }
}

fn support_plan(word: Option<&str>) -> SupportPlan {
    let long = word.is_some_and(|word| word.eq_ignore_ascii_case(SupportPlan::AksLongTermSupport.as_str()));
    if long { SupportPlan::AksLongTermSupport } else { SupportPlan::KubernetesOfficial }
}

fn mesh_mode(answer: &Value) -> MeshMode {
    match text(answer, "/properties/serviceMeshProfile/mode") {
        None => MeshMode::Disabled,
        Some(word) if word.eq_ignore_ascii_case("Disabled") => MeshMode::Disabled,
        Some(word) if word.eq_ignore_ascii_case("Istio") => MeshMode::Istio,
        Some(word) => MeshMode::Other(word.to_owned()),
    }
}

fn gateways<'a>(answer: &'a Value, kind: &str) -> &'a [Value] {
    items(answer, &format!("/properties/serviceMeshProfile/istio/components/{kind}"))
}

fn ingress_gateway(gateway: &Value) -> IngressGateway {
    let mode = match text(gateway, "/mode").unwrap_or_default() {
        word if word.eq_ignore_ascii_case("External") => "External",
        word if word.eq_ignore_ascii_case("Internal") => "Internal",
        word => word,
    };
    IngressGateway { mode: mode.to_owned(), enabled: is_true(gateway, "/enabled") }
}

fn egress_gateway(gateway: &Value) -> EgressGateway {
    EgressGateway {
        name: text(gateway, "/name").map(str::to_owned),
        // Source of the default: the SDK, `IstioEgressGateway.namespace`.
        namespace: text(gateway, "/namespace").unwrap_or(EGRESS_NAMESPACE).to_owned(),
        enabled: is_true(gateway, "/enabled"),
    }
}

fn plugin_ca(answer: &Value) -> Option<PluginCa> {
    let plugin = answer.pointer("/properties/serviceMeshProfile/istio/certificateAuthority/plugin")?;
    // An empty object is how some clients write "none".
    if plugin.as_object().is_none_or(serde_json::Map::is_empty) {
        return None;
    }
    let field = |name: &str| text(plugin, &format!("/{name}"));
    Some(PluginCa {
        missing: PLUGIN_CA.into_iter().filter(|name| field(name).is_none()).collect(),
        key_vault_id_malformed: field("keyVaultId").is_some_and(|id| !is_key_vault_id(id)),
    })
}

/// Whether this is `/subscriptions/…/resourceGroups/…/providers/Microsoft.KeyVault/vaults/…`, in any case.
fn is_key_vault_id(id: &str) -> bool {
    let parts: Vec<&str> = id.split('/').collect();
    let [root, subscriptions, subscription, groups, group, providers, provider, vaults, vault] =
        parts.as_slice()
    else {
        return false;
    };
    let words = [
        (subscriptions, "subscriptions"),
        (groups, "resourceGroups"),
        (providers, "providers"),
        (provider, "Microsoft.KeyVault"),
        (vaults, "vaults"),
    ];
    root.is_empty()
        && words.into_iter().all(|(part, word)| part.eq_ignore_ascii_case(word))
        && [subscription, group, vault].into_iter().all(|part| !part.trim().is_empty())
}

/// The names of add-ons come in more than one case.
fn addon_enabled(answer: &Value, name: &str) -> bool {
    let addons = answer.pointer("/properties/addonProfiles").and_then(Value::as_object);
    addons
        .into_iter()
        .flatten()
        .any(|(key, profile)| key.eq_ignore_ascii_case(name) && is_true(profile, "/enabled"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cluster() -> Value {
        json!({
            "location": "westeurope", "eTag": "1", "properties": {
                "provisioningState": "Succeeded", "kubernetesVersion": "1.31", "currentKubernetesVersion": "1.31.7",
                "supportPlan": "AKSLongTermSupport",
                "addonProfiles": {"azureKeyVaultSecretsProvider": {"enabled": true}, "openServiceMesh": {"enabled": false}},
                "serviceMeshProfile": {"mode": "istio", "istio": {
                    "revisions": ["asm-1-28", "1-27"],
                    "components": {
                        "ingressGateways": [{"enabled": true, "mode": "external"}, {"enabled": false, "mode": "Internal"}],
                        "egressGateways": [
                            {"enabled": true, "name": "out", "namespace": "egress"}, {"enabled": true, "name": "o"},
                        ]},
                    "certificateAuthority": {"plugin": {
                        "keyVaultId": "/subscriptions/s/resourcegroups/g/providers/microsoft.keyvault/vaults/v",
                        "certObjectName": "a", "keyObjectName": "b", "rootCertObjectName": "c", "certChainObjectName": "d"}},
                }},
            },
        })
    }

    #[test]
    fn everything_that_decisions_need_is_read() {
        let gateway = |mode: &str, enabled| IngressGateway { mode: mode.to_owned(), enabled };
        let egress = |name: &str, namespace: &str| EgressGateway {
            name: Some(name.to_owned()),
            namespace: namespace.to_owned(),
            enabled: true,
        };
        assert_eq!(
            ManagedCluster::parse(&cluster()).unwrap(),
            ManagedCluster {
                location: "westeurope".to_owned(),
                provisioning_state: ProvisioningState::Succeeded,
                kubernetes_version: Some("1.31".to_owned()),
                current_kubernetes_version: Some("1.31.7".to_owned()),
                support_plan: SupportPlan::AksLongTermSupport,
                mesh_mode: MeshMode::Istio,
                revisions: vec!["asm-1-28".into(), "asm-1-27".into()],
                ingress_gateways: vec![gateway("External", true), gateway("Internal", false)],
                egress_gateways: vec![egress("out", "egress"), egress("o", EGRESS_NAMESPACE)],
                plugin_ca: Some(PluginCa::default()),
                key_vault_addon_enabled: true,
                open_service_mesh_enabled: false,
                etag_present: true,
            }
        );
    }

    #[test]
    fn a_cluster_without_a_mesh_has_defaults_and_never_counts_as_ready_by_silence() {
        let cluster = ManagedCluster::parse(&json!({"location": "l", "properties": {}})).unwrap();
        assert_eq!(cluster.mesh_mode, MeshMode::Disabled);
        assert_eq!(cluster.provisioning_state, ProvisioningState::UnderWay(String::new()));
        assert_eq!(cluster.support_plan, SupportPlan::KubernetesOfficial);
        assert!(cluster.revisions.is_empty() && cluster.plugin_ca.is_none() && !cluster.etag_present);
    }

    #[test]
    fn what_is_no_cluster_is_not_read() {
        for answer in [
            json!(null),
            json!([]),
            json!({}),
            json!({"location": "l"}),
            json!({"location": 1, "properties": {}}),
        ] {
            assert_eq!(ManagedCluster::parse(&answer), None, "{answer}");
        }
    }

    #[test]
    fn states_are_read_in_any_case_and_only_three_are_ends() {
        for (word, state) in [
            ("SUCCEEDED", ProvisioningState::Succeeded),
            ("failed", ProvisioningState::Failed),
            ("Canceled", ProvisioningState::Canceled),
            ("Cancelled", ProvisioningState::Canceled),
            ("Upgrading", ProvisioningState::UnderWay("Upgrading".to_owned())),
        ] {
            assert_eq!(ProvisioningState::from_word(word), state);
            assert_eq!(state.is_terminal(), word != "Upgrading");
        }
        assert_eq!(ProvisioningState::from_word("Upgrading").as_str(), "Upgrading");
    }

    #[test]
    fn a_certificate_authority_is_complete_or_names_what_is_missing() {
        let of = |plugin: Value| {
            let mut answer = cluster();
            answer["properties"]["serviceMeshProfile"]["istio"]["certificateAuthority"]["plugin"] = plugin;
            ManagedCluster::parse(&answer).unwrap().plugin_ca
        };
        assert_eq!(of(json!({})), None);
        assert_eq!(of(json!(null)), None);
        let partly = of(json!({"keyVaultId": "", "certObjectName": "a", "keyObjectName": "b"})).unwrap();
        assert_eq!(partly.missing, ["keyVaultId", "rootCertObjectName", "certChainObjectName"]);
        assert!(!partly.is_complete() && !partly.key_vault_id_malformed);
        for id in [
            "v",
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults",
            "/subscriptions//resourceGroups//providers/Microsoft.KeyVault/vaults/",
            "/subscriptions//resourceGroups/g/providers/Microsoft.KeyVault/vaults/v",
            "/subscriptions/s/resourceGroups/ /providers/Microsoft.KeyVault/vaults/v",
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/vaults/v",
            "https:/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/v",
        ] {
            assert!(of(json!({"keyVaultId": id})).unwrap().key_vault_id_malformed, "{id}");
        }
    }
}
