//! Revisions of the add-on: which there are, what they can be upgraded to, and with which Kubernetes they go.

use serde_json::{Map, Value, json};

/// One row of what AKS offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// For example `asm-1-28`.
    pub revision: String,
    /// Revisions to which it can be upgraded; none at all leaves the field out of answers, as AKS does.
    pub upgrades: Vec<String>,
    /// Minors of Kubernetes, such as `1.33`, that the plan `KubernetesOfficial` allows.
    pub official: Vec<String>,
    /// Minors of Kubernetes that the plan `AKSLongTermSupport` allows.
    pub long_term: Vec<String>,
    /// Whether it can be installed. One that no longer is may still run, and can be upgraded from.
    pub supported: bool,
}

impl Offer {
    /// A supported revision.
    pub fn new(revision: &str, upgrades: &[&str], official: &[&str], long_term: &[&str]) -> Self {
        Self {
            revision: revision.to_owned(),
            upgrades: owned(upgrades),
            official: owned(official),
            long_term: owned(long_term),
            supported: true,
        }
    }

    /// Whether a cluster of this minor and support plan may run it.
    pub(crate) fn allows(&self, minor: &str, plan: &str) -> bool {
        let versions = if plan == "AKSLongTermSupport" { &self.long_term } else { &self.official };
        versions.iter().any(|version| version == minor)
    }

    /// An element of `meshRevisions`, and without its name the properties of an upgrade profile.
    pub(crate) fn profile(&self, upgrades: &[String]) -> Value {
        let mut profile = Map::new();
        profile.insert("revision".to_owned(), json!(self.revision));
        // Source: azure-cli test_aks_azure_service_mesh_canary_upgrade.yaml: absent at the newest revision.
        if !upgrades.is_empty() {
            profile.insert("upgrades".to_owned(), json!(upgrades));
        }
        // Source: the same recording: both plans, minors only.
        profile.insert(
            "compatibleWith".to_owned(),
            json!([
                {"name": "KubernetesOfficial", "versions": self.official},
                {"name": "AKSLongTermSupport", "versions": self.long_term},
            ]),
        );
        Value::Object(profile)
    }
}

/// Four revisions, so that there are n+1 and n+2.
///
/// Source of the Kubernetes versions: AKS documentation, istio-support-policy (service mesh add-on release calendar).
/// Source of n+2: AKS changelog, release notes of 2024-10-25.
pub(crate) fn default_offers() -> Vec<Offer> {
    vec![
        Offer::new(
            "asm-1-26",
            &["asm-1-27", "asm-1-28"],
            &["1.29", "1.30", "1.31", "1.32", "1.33", "1.34"],
            &["1.28", "1.29", "1.30", "1.31", "1.32", "1.33", "1.34"],
        ),
        Offer::new(
            "asm-1-27",
            &["asm-1-28", "asm-1-29"],
            &["1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35"],
            &["1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35"],
        ),
        Offer::new(
            "asm-1-28",
            &["asm-1-29"],
            &["1.30", "1.31", "1.32", "1.33", "1.34", "1.35"],
            &["1.30", "1.31", "1.32", "1.33", "1.34", "1.35"],
        ),
        Offer::new(
            "asm-1-29",
            &[],
            &["1.31", "1.32", "1.33", "1.34", "1.35", "1.36"],
            &["1.31", "1.32", "1.33", "1.34", "1.35", "1.36"],
        ),
    ]
}

pub(crate) fn find<'a>(offers: &'a [Offer], revision: &str) -> Option<&'a Offer> {
    offers.iter().find(|offer| offer.revision == revision)
}

/// `asm-1-9` comes before `asm-1-29`.
pub(crate) fn order(revision: &str) -> Vec<u32> {
    revision.split('-').filter_map(|part| part.parse().ok()).collect()
}

fn owned(values: &[&str]) -> Vec<String> {
    values.iter().map(|&value| value.to_owned()).collect()
}
