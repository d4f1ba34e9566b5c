//! What AKS offers: the revisions of a region, and those that a cluster can go to. Never computed: which revisions may be
//! skipped depends on what is supported on that day (`istio-upgrade.md`).

use serde_json::Value;

use super::cluster::SupportPlan;
use super::json::{items, text, texts};
use super::revision::normalised;
use crate::ids::Revision;

/// The name for the ordinary support plan before there were two.
const FORMER_NAME: &str = "kubernetes";

/// A revision of the add-on and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshRevision {
    /// The revision.
    pub revision: Revision,
    /// Where one can go from it; empty for the newest.
    pub upgrades: Vec<Revision>,
    /// What it runs on.
    pub compatible_with: Vec<CompatibleVersions>,
}

/// Versions of something that a revision runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompatibleVersions {
    /// `KubernetesOfficial`, `AKSLongTermSupport`, or formerly `kubernetes`.
    pub name: String,
    /// Minor versions, such as `1.29`.
    pub versions: Vec<String>,
}

/// What a cluster is offered, from the answer to `GET …/meshUpgradeProfiles`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeshUpgrades {
    /// The installed revision, and where it can go.
    Offered(MeshRevision),
    /// Nothing at all: AKS has no profile for this cluster.
    NothingOffered,
    /// Two revisions are installed, and AKS says nothing until one of them is gone.
    UpgradeInProgress,
}

impl MeshRevision {
    /// The minor versions of Kubernetes that it runs on, for a support plan: those of the plan's own name, else those of
    /// the name from before there were plans. Long-term support includes the ordinary versions.
    pub fn kubernetes_versions(&self, plan: SupportPlan) -> Vec<&str> {
        let named = |name: &str| -> Vec<&str> {
            let entries = self.compatible_with.iter().filter(|entry| entry.name.eq_ignore_ascii_case(name));
            entries.flat_map(|entry| entry.versions.iter().map(String::as_str)).collect()
        };
        let mut versions = named(SupportPlan::KubernetesOfficial.as_str());
        versions.extend(named(FORMER_NAME));
        if plan == SupportPlan::AksLongTermSupport {
            versions.extend(named(plan.as_str()));
        }
        versions.sort_unstable_by_key(|version| numbers(version));
        versions.dedup();
        versions
    }

    /// Whether it runs on a version of Kubernetes such as `1.29.4`; `None` if AKS does not say what it runs on.
    pub fn runs_on(&self, kubernetes: &str, plan: SupportPlan) -> Option<bool> {
        let versions = self.kubernetes_versions(plan);
        let [major, minor] = *numbers(kubernetes).first_chunk::<2>()?;
        let same = |version: &&str| numbers(version).starts_with(&[major, minor]);
        if versions.is_empty() { None } else { Some(versions.iter().any(same)) }
    }

    fn parse(properties: &Value) -> Option<Self> {
        Some(Self {
            revision: normalised(text(properties, "/revision")?),
            upgrades: texts(properties, "/upgrades").map(normalised).collect(),
            compatible_with: items(properties, "/compatibleWith").iter().filter_map(compatible).collect(),
        })
    }
}

fn compatible(entry: &Value) -> Option<CompatibleVersions> {
    let versions = texts(entry, "/versions").map(str::to_owned).collect();
    Some(CompatibleVersions { name: text(entry, "/name")?.to_owned(), versions })
}

/// The numbers of a version; a part that is none ends it.
fn numbers(version: &str) -> Vec<u32> {
    version.trim_start_matches('v').split('.').map_while(|part| part.parse().ok()).collect()
}

/// The profile of Istio in a list (`value`), or the answer itself if it is a single profile.
fn istio(answer: &Value) -> Option<&Value> {
    let Some(profiles) = answer.pointer("/value").and_then(Value::as_array) else {
        return answer.pointer("/properties").map(|_| answer);
    };
    let named =
        |profile: &&Value| text(profile, "/name").is_some_and(|name| name.eq_ignore_ascii_case("istio"));
    // The Azure CLI takes the first one.
    profiles.iter().find(named).or_else(|| profiles.first())
}

/// Reads the answer to `GET …/meshUpgradeProfiles` or `…/meshUpgradeProfiles/istio`; `None` if it is neither.
pub fn upgrades(answer: &Value) -> Option<MeshUpgrades> {
    match istio(answer) {
        Some(profile) => MeshRevision::parse(profile.pointer("/properties")?).map(MeshUpgrades::Offered),
        None => answer.pointer("/value").map(|_| MeshUpgrades::NothingOffered),
    }
}

/// Reads the answer to `GET …/locations/{location}/meshRevisionProfiles`, or the one of its `istio`: the revisions of a
/// region, none if the add-on is not offered there. `None` if it is no such answer.
pub fn revisions(answer: &Value) -> Option<Vec<MeshRevision>> {
    match istio(answer) {
        Some(profile) => {
            profile.pointer("/properties")?;
            Some(items(profile, "/properties/meshRevisions").iter().filter_map(MeshRevision::parse).collect())
        }
        None => answer.pointer("/value").map(|_| Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn revision(compatible: &Value) -> MeshRevision {
        MeshRevision::parse(&json!({"revision": "asm-1-27", "compatibleWith": compatible})).unwrap()
    }

    #[test]
    fn the_upgrades_of_a_cluster_are_read_from_list_and_single_profile() {
        let profile = json!({"name": "istio", "properties": {
            "revision": "asm-1-27", "upgrades": ["asm-1-28", "1-29"],
            "compatibleWith": [{"name": "KubernetesOfficial", "versions": ["1.29", "1.30"]}]}});
        let expected = MeshUpgrades::Offered(MeshRevision {
            revision: "asm-1-27".into(),
            upgrades: vec!["asm-1-28".into(), "asm-1-29".into()],
            compatible_with: vec![CompatibleVersions {
                name: "KubernetesOfficial".to_owned(),
                versions: vec!["1.29".to_owned(), "1.30".to_owned()],
            }],
        });
        assert_eq!(upgrades(&profile), Some(expected.clone()));
        assert_eq!(upgrades(&json!({"value": [{"name": "other"}, profile]})), Some(expected));
    }

    #[test]
    fn an_empty_list_offers_nothing_and_anything_else_is_no_answer() {
        assert_eq!(upgrades(&json!({"value": []})), Some(MeshUpgrades::NothingOffered));
        for answer in
            [json!({}), json!(null), json!({"properties": {}}), json!({"value": [{"properties": {}}]})]
        {
            assert_eq!(upgrades(&answer), None, "{answer}");
        }
    }

    #[test]
    fn the_newest_revision_has_no_upgrades() {
        let answer = json!({"value": [{"name": "istio", "properties": {"meshRevisions": [
            {"revision": "asm-1-28", "upgrades": ["asm-1-29"]}, {"revision": "asm-1-29"}, {"upgrades": []}]}}]});
        let read = revisions(&answer).unwrap();
        let names: Vec<&str> = read.iter().map(|revision| revision.revision.as_str()).collect();
        assert_eq!(names, ["asm-1-28", "asm-1-29"]);
        assert_eq!(read[1].upgrades, []);
        assert_eq!(revisions(&json!({"value": []})), Some(Vec::new()));
        assert_eq!(revisions(&json!({"error": {}})), None);
    }

    #[test]
    fn the_support_plan_chooses_the_versions() {
        let both = revision(&json!([
            {"name": "KubernetesOfficial", "versions": ["1.29", "1.30"]},
            {"name": "AKSLongTermSupport", "versions": ["1.28", "1.29"]}]));
        assert_eq!(both.kubernetes_versions(SupportPlan::KubernetesOfficial), ["1.29", "1.30"]);
        assert_eq!(both.kubernetes_versions(SupportPlan::AksLongTermSupport), ["1.28", "1.29", "1.30"]);
        let former = revision(&json!([{"name": "kubernetes", "versions": ["1.9", "1.10"]}]));
        assert_eq!(former.kubernetes_versions(SupportPlan::KubernetesOfficial), ["1.9", "1.10"]);
    }

    #[test]
    fn versions_are_compared_by_their_minor() {
        let plan = SupportPlan::KubernetesOfficial;
        let some = revision(&json!([{"name": "kubernetes", "versions": ["1.29", "1.3"]}]));
        assert_eq!(some.runs_on("1.29.4", plan), Some(true));
        assert_eq!(some.runs_on("v1.29", plan), Some(true));
        assert_eq!(some.runs_on("1.2", plan), Some(false));
        assert_eq!(some.runs_on("1.30.0", plan), Some(false));
        assert_eq!(some.runs_on("1", plan), None);
        assert_eq!(revision(&json!([])).runs_on("1.29", plan), None);
    }
}
