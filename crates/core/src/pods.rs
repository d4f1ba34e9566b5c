//! Live pods: whose they are, and whether they have the sidecar that they should have.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{Revision, WorkloadKind, WorkloadRef};
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

/// Whether a live pod, which should be injected by `expected`, is not: it has no proxy, a proxy of another revision, or
/// one whose revision nobody knows. Terminating pods count, finished ones are never stale.
pub fn is_stale(pod: &Pod, expected: &Revision) -> bool {
    !pod.finished && pod.proxy.as_ref().is_none_or(|proxy| proxy.revision.as_ref() != Some(expected))
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
        let expected = Revision::from("asm-1-28");
        assert!(is_stale(&Pod::default(), &expected));
        assert!(is_stale(&with_proxy(Some("asm-1-27")), &expected));
        assert!(is_stale(&with_proxy(None), &expected));
        assert!(!is_stale(&with_proxy(Some("asm-1-28")), &expected));
    }

    #[test]
    fn a_terminating_pod_may_be_stale_and_a_finished_one_never_is() {
        let expected = Revision::from("asm-1-28");
        let mut old = with_proxy(Some("asm-1-27"));
        old.deletion = Some(jiff::Timestamp::UNIX_EPOCH);
        assert!(is_stale(&old, &expected));
        old.finished = true;
        assert!(!is_stale(&old, &expected));
    }
}
