//! The errors that are known: what each means to a user of MeshUpgrade.
//!
//! Rows 1 to 15 of "Error messages" in AKS's general troubleshooting of the add-on, the conflicts of its API, and the errors
//! of ARM itself that concern rights and names (azure-resource-manager: common-deployment-errors). In this order: the first
//! row that fits counts.

use super::super::symptom::Explanation;

/// What follows from a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Wait,
    Changed,
    Terminal,
    Permission,
    UpgradeInProgress,
}

/// A row: an error that has all these fragments, in any case.
#[derive(Debug)]
pub(super) struct Known {
    pub fragments: &'static [&'static str],
    pub kind: Kind,
    pub what: &'static str,
    pub why: &'static str,
    pub remedy: &'static str,
}

impl Known {
    pub(super) fn explanation(&self) -> Explanation {
        Explanation { what: self.what.into(), why: self.why.into(), remedy: self.remedy.into() }
    }
}

/// The row for an error, given all its codes and messages in lower case.
pub(super) fn find(words: &str) -> Option<&'static Known> {
    ROWS.iter().find(|row| row.fragments.iter().all(|fragment| words.contains(fragment)))
}

const NOT_OURS: &str =
    "MeshUpgrade never changes this part of the cluster: correct the cluster's definition, then it goes on.";
const OUR_BUG: &str = "MeshUpgrade sends back what it read, so this should not happen: please report it, with the answer to a GET of the cluster.";

/// All rows.
pub(super) const ROWS: &[Known] = &[
    // The body of this one also says that another operation is in progress.
    Known {
        fragments: &["etagmismatch"],
        kind: Kind::Changed,
        what: "The cluster changed while the request was on its way.",
        why: "Somebody else wrote to it between our reading and our writing.",
        remedy: "The operator reads the cluster again by itself.",
    },
    Known {
        fragments: &["servicemeshupgradeinprogress"],
        kind: Kind::UpgradeInProgress,
        what: UPGRADE_WHAT,
        why: UPGRADE_WHY,
        remedy: UPGRADE_REMEDY,
    },
    Known {
        fragments: &["mesh upgrade is in progress"],
        kind: Kind::UpgradeInProgress,
        what: UPGRADE_WHAT,
        why: UPGRADE_WHY,
        remedy: UPGRADE_REMEDY,
    },
    Known {
        fragments: &["exceeds maximum allowed number of revisions"],
        kind: Kind::UpgradeInProgress,
        what: "No further mesh revision can be installed.",
        why: "The cluster already has as many revisions as the add-on allows: an upgrade that somebody began is still open.",
        remedy: "Complete or roll back that upgrade first; if it has the same source and target, MeshUpgrade takes it over.",
    },
    Known {
        fragments: &["another", "operation", "in progress"],
        kind: Kind::Wait,
        what: WAIT_WHAT,
        why: WAIT_WHY,
        remedy: WAIT_REMEDY,
    },
    Known {
        fragments: &["there's an in progress", "operation"],
        kind: Kind::Wait,
        what: WAIT_WHAT,
        why: WAIT_WHY,
        remedy: WAIT_REMEDY,
    },
    Known {
        fragments: &["not supported in this region"],
        kind: Kind::Terminal,
        what: "The Istio add-on is not available for this cluster.",
        why: "AKS does not offer it in the cluster's region or cloud.",
        remedy: "Use a region that has it, or install Istio yourself and use controlPlane.external.",
    },
    Known {
        fragments: &["missing service mesh mode"],
        kind: Kind::Terminal,
        what: "AKS found no mode of the service mesh in the request.",
        why: "serviceMeshProfile.mode was not sent.",
        remedy: OUR_BUG,
    },
    Known {
        fragments: &["invalid istio ingress mode"],
        kind: Kind::Terminal,
        what: "AKS refuses an ingress gateway of the cluster.",
        why: "Its mode is neither External nor Internal.",
        remedy: NOT_OURS,
    },
    Known {
        fragments: &["too many ingresses for type"],
        kind: Kind::Terminal,
        what: "AKS refuses the ingress gateways of the cluster.",
        why: "There may be one External and one Internal, and there are more of one kind.",
        remedy: NOT_OURS,
    },
    Known {
        fragments: &["istio profile is missing even though service mesh mode is istio"],
        kind: Kind::Terminal,
        what: "AKS found no settings of Istio in the request.",
        why: "serviceMeshProfile.istio was not sent, although the mode is Istio.",
        remedy: OUR_BUG,
    },
    Known {
        fragments: &["incompatible with feature"],
        kind: Kind::Terminal,
        what: "AKS does not run the Istio add-on beside something else that is on in this cluster.",
        why: "The feature that Azure names excludes it; Open Service Mesh is one.",
        remedy: "Switch that feature off and remove what it left in the cluster, then it goes on.",
    },
    Known {
        fragments: &["missing required parameters", "plugin certificate authority"],
        kind: Kind::Terminal,
        what: "AKS refuses the plug-in certificate authority of the mesh.",
        why: "It needs the key vault and the names of four objects in it: certificate, key, root certificate and certificate chain.",
        remedy: "Set the fields that Azure names on the cluster, all five together, then it goes on.",
    },
    Known {
        fragments: &["azurekeyvaultsecretsprovider addon is required"],
        kind: Kind::Terminal,
        what: "AKS cannot give the mesh its plug-in certificate authority.",
        why: "The add-on that reads from Azure Key Vault is off in this cluster.",
        remedy: "Run az aks enable-addons --addons azure-keyvault-secrets-provider and let it read the vault, then it goes on.",
    },
    Known {
        fragments: &["is not a valid azure keyvault resource identifier"],
        kind: Kind::Terminal,
        what: "AKS refuses the key vault of the plug-in certificate authority.",
        why: "keyVaultId is not the resource id of a key vault.",
        remedy: "Write it as /subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.KeyVault/vaults/{name}, then it goes on.",
    },
    Known {
        fragments: &["kubernetes version is missing in orchestrator profile"],
        kind: Kind::Terminal,
        what: "AKS could not compare the revision with the cluster's version.",
        why: "The Kubernetes version was not sent.",
        remedy: OUR_BUG,
    },
    Known {
        fragments: &["is not compatible with cluster version"],
        kind: Kind::Terminal,
        what: "The target revision does not run on this cluster's Kubernetes version.",
        why: "Each revision supports a range of Kubernetes versions, and this cluster is outside of it.",
        remedy: "az aks mesh get-upgrades shows which revisions are offered; for another one upgrade the cluster first; az aks mesh get-revisions says which version each needs.",
    },
    Known {
        fragments: &["kubernetes version", "not supported", "supported cluster version"],
        kind: Kind::Terminal,
        what: "AKS changes nothing on a cluster of this Kubernetes version.",
        why: "The version is out of support.",
        remedy: "Upgrade the cluster first, then the mesh: AKS allows it even if the new version does not fit the installed revision.",
    },
    Known {
        fragments: &["revision field must not be empty"],
        kind: Kind::Terminal,
        what: "AKS found no revision in the request.",
        why: "An empty list or name was sent.",
        remedy: OUR_BUG,
    },
    Known {
        fragments: &["requested change in revisions is not allowed"],
        kind: Kind::Terminal,
        what: "AKS does not allow this change of mesh revisions.",
        why: "The revision may be out of support, or not one of the upgrades from the installed one; Azure names the reason at the end.",
        remedy: "az aks mesh get-upgrades shows what AKS offers to this cluster now.",
    },
    Known {
        fragments: &["noregisteredproviderfound"],
        kind: Kind::Terminal,
        what: API_VERSION_WHAT,
        why: API_VERSION_WHY,
        remedy: API_VERSION_REMEDY,
    },
    Known {
        fragments: &["invalidapiversionparameter"],
        kind: Kind::Terminal,
        what: API_VERSION_WHAT,
        why: API_VERSION_WHY,
        remedy: API_VERSION_REMEDY,
    },
    Known {
        fragments: &["requestdisallowedbypolicy"],
        kind: Kind::Permission,
        what: "Azure Policy does not allow the change.",
        why: "A policy that is assigned to the cluster, its group or its subscription denies it.",
        remedy: "Have the cluster brought in line with that policy, or exempted from it, then it goes on.",
    },
    Known {
        fragments: &["scopelocked"],
        kind: Kind::Permission,
        what: "The cluster is locked against changes.",
        why: "A read-only lock lies on the cluster, its group or its subscription.",
        remedy: "Have the lock removed for the time of the upgrade, then it goes on.",
    },
    Known {
        fragments: &["readonlydisabledsubscription"],
        kind: Kind::Permission,
        what: "The subscription allows no changes.",
        why: "It is disabled, so that everything in it can only be read.",
        remedy: "Have the subscription enabled again, then it goes on.",
    },
    Known {
        fragments: &["subscriptionnotfound"],
        kind: Kind::Terminal,
        what: "The subscription was not found.",
        why: "It does not exist in the operator's tenant, or the operator's identity has no right in it at all.",
        remedy: "Check the subscription in the MeshUpgrade and the role assignment of the operator's identity.",
    },
    Known {
        fragments: &["resourcegroupnotfound"],
        kind: Kind::Terminal,
        what: "The resource group was not found.",
        why: "The subscription has none of that name.",
        remedy: "Check subscription and resource group in the MeshUpgrade.",
    },
];

const UPGRADE_WHAT: &str = "AKS does not say what it offers while a mesh upgrade is open.";
const UPGRADE_WHY: &str = "Two revisions are installed, by this upgrade or by somebody else's.";
const UPGRADE_REMEDY: &str = "MeshUpgrade goes by the revisions of the cluster; a foreign upgrade must be completed or rolled back first.";
const WAIT_WHAT: &str = "AKS is busy with the cluster.";
const WAIT_WHY: &str = "Another operation runs on it or on one of its node pools, and there can be only one.";
const WAIT_REMEDY: &str = "The operator tries again by itself; az aks show says what goes on, and az aks operation-abort ends what hangs.";
const API_VERSION_WHAT: &str = "Azure Resource Manager does not know the API version that the operator uses.";
const API_VERSION_WHY: &str = "The cluster's region or cloud does not have it, or it was retired.";
const API_VERSION_REMEDY: &str = "Set the operator's ARM API version to one that Azure names.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_lower_case_sentences_and_can_all_be_reached() {
        for row in ROWS {
            let words = row.fragments.join(" … ");
            assert_eq!(words, words.to_lowercase());
            assert_eq!(find(&words).unwrap().fragments, row.fragments, "hidden by an earlier row");
            for sentence in [row.what, row.why, row.remedy] {
                assert!(sentence.ends_with('.') && sentence.len() > 20, "{sentence}");
            }
        }
        assert!(find("anything else").is_none());
    }
}
