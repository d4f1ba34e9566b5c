//! The default cluster.

use serde_json::{Value, json};

/// A cluster with everything that a careless PUT loses: node pools, identities, network and add-on profiles, gateways, a
/// certificate authority, tags, and at several depths a field that no client knows yet.
///
/// Source of the fields: azure-cli test_aks_azure_service_mesh_canary_upgrade.yaml, GET of the cluster, and for those of
/// the mesh Azure/azure-rest-api-specs, managedClusters.json, ServiceMeshProfile. Inferred: nothing but the fields named
/// `futureField`, which stand for those of a later API version.
pub fn default_document(revisions: &[&str]) -> Value {
    json!({
        "location": "westus2",
        "tags": {"team": "platform", "env": "test"},
        "futureField": {"kept": true},
        "sku": {"name": "Base", "tier": "Standard"},
        "identity": {
            "type": "UserAssigned",
            "userAssignedIdentities": {
                "/subscriptions/33333333-3333-3333-3333-333333333333/resourceGroups/mesh-rg/providers/\
                 Microsoft.ManagedIdentity/userAssignedIdentities/mesh-test": {
                    "principalId": "44444444-4444-4444-4444-444444444444",
                    "clientId": "55555555-5555-5555-5555-555555555555",
                },
            },
        },
        "properties": {
            "provisioningState": "Succeeded",
            "powerState": {"code": "Running"},
            "kubernetesVersion": "1.33",
            "currentKubernetesVersion": "1.33.5",
            "supportPlan": "KubernetesOfficial",
            "dnsPrefix": "mesh-test",
            "fqdn": "mesh-test-abcd1234.hcp.westus2.azmk8s.io",
            "azurePortalFQDN": "mesh-test-abcd1234.portal.hcp.westus2.azmk8s.io",
            "nodeResourceGroup": "MC_mesh-rg_mesh-test_westus2",
            "enableRBAC": true,
            "maxAgentPools": 100,
            "resourceUID": "6684fa1c573167000133e540",
            "disableLocalAccounts": true,
            "futureField": [{"kept": 1}],
            "agentPoolProfiles": [pool("system", "System"), pool("apps", "User")],
            "networkProfile": network(),
            "addonProfiles": addons(),
            "autoUpgradeProfile": {"upgradeChannel": "patch", "nodeOSUpgradeChannel": "NodeImage"},
            "oidcIssuerProfile": {"enabled": true, "issuerURL": "https://westus2.oic.prod-aks.azure.com/mesh-test/"},
            "securityProfile": {"workloadIdentity": {"enabled": true}},
            "storageProfile": {"diskCSIDriver": {"enabled": true}, "snapshotController": {"enabled": true}},
            "serviceMeshProfile": mesh(revisions),
        },
    })
}

fn network() -> Value {
    json!({
        "networkPlugin": "azure",
        "networkPluginMode": "overlay",
        "networkDataplane": "cilium",
        "loadBalancerSku": "standard",
        "loadBalancerProfile": {
            "managedOutboundIPs": {"count": 1},
            "backendPoolType": "nodeIPConfiguration",
        },
        "podCidr": "10.244.0.0/16",
        "serviceCidr": "10.0.0.0/16",
        "dnsServiceIP": "10.0.0.10",
        "outboundType": "loadBalancer",
        "podCidrs": ["10.244.0.0/16"],
        "serviceCidrs": ["10.0.0.0/16"],
        "ipFamilies": ["IPv4"],
    })
}

fn addons() -> Value {
    json!({
        "azureKeyvaultSecretsProvider": {
            "enabled": true,
            "config": {"enableSecretRotation": "true", "rotationPollInterval": "2m"},
            "identity": {"clientId": "66666666-6666-6666-6666-666666666666"},
        },
        "omsagent": {"enabled": false},
    })
}

fn mesh(revisions: &[&str]) -> Value {
    json!({
        "mode": "Istio",
        "futureField": "kept",
        "istio": {
            "revisions": revisions,
            "futureField": {"kept": ["x"]},
            "components": {
                "ingressGateways": [
                    {"enabled": true, "mode": "External"},
                    {"enabled": true, "mode": "Internal", "futureField": 7},
                ],
                "egressGateways": [
                    {"enabled": true, "name": "egress", "namespace": "aks-istio-egress"},
                ],
            },
            "certificateAuthority": {"plugin": {
                "keyVaultId": "/subscriptions/33333333-3333-3333-3333-333333333333/resourceGroups/mesh-rg\
                               /providers/Microsoft.KeyVault/vaults/mesh-ca",
                "certObjectName": "ca-cert",
                "keyObjectName": "ca-key",
                "rootCertObjectName": "root-cert",
                "certChainObjectName": "cert-chain",
            }},
        },
    })
}

fn pool(name: &str, mode: &str) -> Value {
    json!({
        "name": name,
        "mode": mode,
        "count": 3,
        "vmSize": "Standard_D4s_v5",
        "osType": "Linux",
        "osSKU": "Ubuntu",
        "type": "VirtualMachineScaleSets",
        "provisioningState": "Succeeded",
        "powerState": {"code": "Running"},
        "orchestratorVersion": "1.33",
        "currentOrchestratorVersion": "1.33.5",
        "nodeImageVersion": "AKSUbuntu-2204gen2containerd-202608.19.0",
        "nodeLabels": {"pool": name},
        "nodeTaints": [],
        "upgradeSettings": {"maxSurge": "10%"},
        "futureField": true,
    })
}
