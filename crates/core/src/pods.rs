//! Live pods: whose they are, and whether they have the sidecar that they should have.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::ids::{Revision, WorkloadKind, WorkloadRef};
use crate::labels;
use crate::observed::Pod;

/// Pod label of a Deployment's ReplicaSet; its value ends the ReplicaSet's name.
const TEMPLATE_HASH: &str = "pod-template-hash";
/// Pod label of an Argo Rollout's ReplicaSet, in place of the other. Source: `DefaultRolloutUniqueLabelKey` of argo-rollouts.
const ROLLOUTS_TEMPLATE_HASH: &str = "rollouts-pod-template-hash";

/// The workload that a pod belongs to; `None` for bare pods and for pods of other controllers.
///
/// A Deployment's ReplicaSet is called `<deployment>-<hash>`, with the hash as label `pod-template-hash` on its pods, so
/// that ReplicaSets need not be watched. Source: `generateReplicaSetName` in Kubernetes' pkg/controller/deployment/sync.go.
/// The controller cuts a Deployment's name only where the whole exceeds 253 characters; such a pod belongs to no known
/// workload here. A Rollout's ReplicaSet is called in the same way (`createNewReplicaSet` in argo-rollouts' rollout/sync.go).
pub fn workload_of(pod: &Pod) -> Option<WorkloadRef> {
    let owner = pod.controller.as_ref().filter(|owner| owner.group == "apps")?;
    let (kind, name) = match owner.kind.as_str() {
        "ReplicaSet" => owner_of_replica_set(pod, &owner.name)?,
        "StatefulSet" => (WorkloadKind::StatefulSet, owner.name.as_str()),
        "DaemonSet" => (WorkloadKind::DaemonSet, owner.name.as_str()),
        _ => return None,
    };
    Some(WorkloadRef::new(kind, pod.namespace.clone(), name))
}

fn owner_of_replica_set<'a>(pod: &Pod, replica_set: &'a str) -> Option<(WorkloadKind, &'a str)> {
    let (kind, hash) = match pod.labels.get(ROLLOUTS_TEMPLATE_HASH) {
        Some(hash) => (WorkloadKind::Rollout, hash),
        None => (WorkloadKind::Deployment, pod.labels.get(TEMPLATE_HASH)?),
    };
    let name = replica_set.strip_suffix(hash.as_str())?.strip_suffix('-');
    name.filter(|name| !name.is_empty()).map(|name| (kind, name))
}

/// Pods grouped by workload, for one namespace. Pods of no known workload are left out.
pub fn by_workload(pods: &[Arc<Pod>]) -> BTreeMap<WorkloadRef, Vec<&Pod>> {
    let mut groups: BTreeMap<WorkloadRef, Vec<&Pod>> = BTreeMap::new();
    for pod in pods {
        if let Some(workload) = workload_of(pod) {
            groups.entry(workload).or_default().push(pod);
        }
    }
    groups
}

/// What the proxies of a run's workloads are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Of this revision.
    pub revision: &'a Revision,
    /// Of this version, see [`image_version`]. Only a patch upgrade asks for one.
    pub version: Option<&'a str>,
}

impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(version) => write!(f, "{} ({version})", self.revision),
            None => write!(f, "{}", self.revision),
        }
    }
}

/// Whether a live pod, which should have the wanted proxy, does not: it has no proxy, a proxy of another revision or version, or
/// one whose revision nobody knows. Terminating pods count, finished ones are never stale.
pub fn is_stale(pod: &Pod, wanted: Wanted<'_>) -> bool {
    !pod.finished
        && pod.proxy.as_ref().is_none_or(|proxy| {
            proxy.revision.as_ref() != Some(wanted.revision)
                || wanted.version.is_some_and(|version| !has_version(pod, version))
        })
}

/// Whether the proxy of a pod has a version. Where the pod's own annotation fixes the image, no restart changes it.
pub fn has_version(pod: &Pod, version: &str) -> bool {
    pod.annotations.contains_key(labels::PROXY_IMAGE)
        || pod.proxy.as_ref().is_some_and(|proxy| image_version(&proxy.image) == version)
}

/// What tells one build of a proxy image from another: its tag without the name of the variant, or its digest where it has no tag.
/// The registry does not, and neither does a digest beside a tag: mirrors and policies add and rewrite both. Source of the
/// variants: Istio's pkg/config/analysis/analyzers/injection/injection-image.go.
pub fn image_version(image: &str) -> &str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let tag = name.rsplit('/').next().unwrap_or(name).split_once(':').map(|(_, tag)| tag);
    match (tag, digest) {
        (None, Some(digest)) => digest,
        (tag, _) => without_variant(tag.unwrap_or("latest")),
    }
}

fn without_variant(tag: &str) -> &str {
    ["-distroless", "-debug", "-default"].iter().find_map(|variant| tag.strip_suffix(variant)).unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::{Owner, Proxy};

    fn pod(kind: &str, owner: &str, labels: &[(&str, &str)]) -> Pod {
        Pod {
            namespace: "shop".into(),
            name: format!("{owner}-x"),
            controller: Some(Owner {
                kind: kind.to_owned(),
                name: owner.to_owned(),
                group: "apps".to_owned(),
            }),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ..Pod::default()
        }
    }

    fn owner(pod: &Pod) -> String {
        workload_of(pod).map_or_else(|| "none".to_owned(), |workload| workload.to_string())
    }

    #[test]
    fn a_replica_set_leads_to_its_deployment_by_the_hash() {
        let web = pod("ReplicaSet", "web-v2-5d9c7b", &[(TEMPLATE_HASH, "5d9c7b")]);
        assert_eq!(owner(&web), "Deployment shop/web-v2");
    }

    #[test]
    fn a_replica_set_that_no_deployment_owns_leads_nowhere() {
        assert_eq!(owner(&pod("ReplicaSet", "web-5d9c7b", &[])), "none");
        assert_eq!(owner(&pod("ReplicaSet", "web-5d9c7b", &[(TEMPLATE_HASH, "other")])), "none");
        assert_eq!(owner(&pod("ReplicaSet", "web5d9c7b", &[(TEMPLATE_HASH, "5d9c7b")])), "none");
        assert_eq!(owner(&pod("ReplicaSet", "-5d9c7b", &[(TEMPLATE_HASH, "5d9c7b")])), "none");
    }

    #[test]
    fn a_replica_set_with_the_hash_of_argo_leads_to_its_rollout() {
        let web = pod("ReplicaSet", "web-v2-5d9c7b", &[(ROLLOUTS_TEMPLATE_HASH, "5d9c7b")]);
        assert_eq!(owner(&web), "Rollout shop/web-v2");
        let both =
            pod("ReplicaSet", "web-5d9c7b", &[(ROLLOUTS_TEMPLATE_HASH, "5d9c7b"), (TEMPLATE_HASH, "5d9c7b")]);
        assert_eq!(owner(&both), "Rollout shop/web");
        assert_eq!(owner(&pod("ReplicaSet", "web-5d9c7b", &[(ROLLOUTS_TEMPLATE_HASH, "other")])), "none");
    }

    #[test]
    fn stateful_sets_and_daemon_sets_own_their_pods_themselves() {
        assert_eq!(owner(&pod("StatefulSet", "db", &[])), "StatefulSet shop/db");
        assert_eq!(owner(&pod("DaemonSet", "agent", &[])), "DaemonSet shop/agent");
    }

    #[test]
    fn bare_pods_jobs_and_kinds_of_other_groups_belong_to_no_workload() {
        assert_eq!(owner(&Pod::default()), "none");
        assert_eq!(owner(&pod("Job", "migrate", &[])), "none");
        let mut cloned = pod("StatefulSet", "db", &[]);
        if let Some(owner) = &mut cloned.controller {
            owner.group = "apps.kruise.io".to_owned();
        }
        assert_eq!(owner(&cloned), "none");
    }

    #[test]
    fn pods_are_grouped_by_workload_and_strangers_left_out() {
        let pods: Vec<Arc<Pod>> = [
            pod("StatefulSet", "db", &[]),
            pod("ReplicaSet", "web-a", &[(TEMPLATE_HASH, "a")]),
            pod("Job", "migrate", &[]),
            pod("ReplicaSet", "web-b", &[(TEMPLATE_HASH, "b")]),
        ]
        .map(Arc::new)
        .into();
        let groups = by_workload(&pods);
        let counts: Vec<(String, usize)> =
            groups.iter().map(|(workload, pods)| (workload.to_string(), pods.len())).collect();
        assert_eq!(counts, [("Deployment shop/web".to_owned(), 2), ("StatefulSet shop/db".to_owned(), 1)]);
    }

    fn with_proxy(revision: Option<&str>) -> Pod {
        Pod {
            proxy: Some(Proxy { revision: revision.map(Revision::from), ..Proxy::default() }),
            ..Pod::default()
        }
    }

    #[test]
    fn a_pod_without_the_expected_proxy_is_stale() {
        let revision = Revision::from("asm-1-28");
        let expected = Wanted { revision: &revision, version: None };
        assert!(is_stale(&Pod::default(), expected));
        assert!(is_stale(&with_proxy(Some("asm-1-27")), expected));
        assert!(is_stale(&with_proxy(None), expected));
        assert!(!is_stale(&with_proxy(Some("asm-1-28")), expected));
    }

    #[test]
    fn a_terminating_pod_may_be_stale_and_a_finished_one_never_is() {
        let revision = Revision::from("asm-1-28");
        let expected = Wanted { revision: &revision, version: None };
        let mut old = with_proxy(Some("asm-1-27"));
        old.deletion = Some(jiff::Timestamp::UNIX_EPOCH);
        assert!(is_stale(&old, expected));
        old.finished = true;
        assert!(!is_stale(&old, expected));
    }

    #[test]
    fn a_version_is_a_digest_or_a_tag_without_its_variant() {
        for (image, version) in [
            ("mcr.microsoft.com/oss/istio/proxyv2:1.28.2-distroless", "1.28.2"),
            ("localhost:5000/istio/proxyv2:1.28.2", "1.28.2"),
            ("proxyv2:1.30.2-2", "1.30.2-2"),
            ("mirror/proxyv2:1.28.2@sha256:abc", "1.28.2"),
            ("mirror/proxyv2@sha256:abc", "sha256:abc"),
            ("localhost:5000/proxyv2", "latest"),
        ] {
            assert_eq!(image_version(image), version);
        }
    }

    #[test]
    fn a_patch_asks_for_the_version_too_unless_the_pod_fixes_its_image() {
        let revision = Revision::from("asm-1-28");
        let wanted = Wanted { revision: &revision, version: Some("1.28.2") };
        let mut pod = with_proxy(Some("asm-1-28"));
        pod.proxy.as_mut().unwrap().image = "hub/proxyv2:1.28.1".into();
        assert!(is_stale(&pod, wanted));
        pod.proxy.as_mut().unwrap().image = "mirror/proxyv2:1.28.2-distroless".into();
        assert!(!is_stale(&pod, wanted));
        pod.proxy.as_mut().unwrap().image = "own/proxy:7".into();
        pod.annotations.insert(labels::PROXY_IMAGE.into(), "own/proxy:7".into());
        assert!(!is_stale(&pod, wanted));
    }
}
