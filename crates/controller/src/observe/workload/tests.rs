use serde_json::{Value, json};

use super::*;

fn deployment(value: Value) -> WorkloadSeen {
    serde_json::from_value::<RawDeployment>(value).unwrap().observe().unwrap()
}

#[test]
fn a_deployment_is_brought_to_the_common_form() {
    let seen = deployment(json!({
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "u-1", "generation": 7,
            "managedFields": [
                {"manager": "kubectl", "operation": "Update", "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:spec": {}}},
                {"manager": "argocd-controller", "operation": "Apply", "time": "2026-01-02T00:00:00Z"},
                {"manager": "meshupgrade-operator", "operation": "Apply", "time": "2026-01-03T00:00:00Z"},
                {"manager": "kube-controller-manager", "time": "2026-01-04T00:00:00Z", "subresource": "status"},
            ],
            "ownerReferences": [
                {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "r", "uid": "2", "controller": true},
            ],
        },
        "spec": {
            "replicas": 3,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {
                    "creationTimestamp": null,
                    "labels": {"app": "web"},
                    "annotations": {
                        "meshupgrade.io/restart": "stamp", "sidecar.istio.io/proxyCPU": "1", "team": "shop",
                    },
                },
                "spec": {"containers": [{"name": "web", "image": "web:1"}]},
            },
        },
        "status": {
            "observedGeneration": 6, "replicas": 4, "updatedReplicas": 2, "readyReplicas": 3, "availableReplicas": 1,
            "conditions": [
                {"type": "Available", "status": "True"},
                {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"},
            ],
        },
    }));
    assert_eq!(seen.istiod, None);
    let workload = &seen.workload;
    assert_eq!(workload.reference, WorkloadRef::new(WorkloadKind::Deployment, "shop", "web"));
    assert_eq!(workload.generation, 7);
    let owner = workload.controller.as_ref().unwrap();
    assert_eq!((owner.kind.as_str(), owner.group.as_str()), ("Rollout", "argoproj.io"));
    assert_eq!(workload.managers, ["argocd-controller", "kubectl"]);
    assert_eq!(workload.replicas, 3);
    assert_eq!(
        workload.strategy,
        Strategy::RollingUpdate {
            max_unavailable: IntOrPercent::Int(1),
            max_surge: IntOrPercent::Percent(25)
        }
    );
    assert_eq!(
        workload.rollout,
        RolloutStatus {
            observed_generation: 6,
            current: 4,
            updated: 2,
            ready: 3,
            available: 1,
            deadline_exceeded: true,
            create_failure: None,
        }
    );
    assert_eq!(workload.template.restart.as_deref(), Some("stamp"));
    let annotations: Vec<&String> = workload.template.annotations.keys().collect();
    assert_eq!(annotations, ["sidecar.istio.io/proxyCPU"]);
    assert!(!workload.template.own_proxy);
}

#[test]
fn an_istiod_is_known_by_its_labels() {
    let istiod = |labels: Value| {
        deployment(json!({
            "metadata": {"name": "istiod-asm-1-28", "namespace": "istio-system", "labels": labels},
            "spec": {"replicas": 2}, "status": {"readyReplicas": 1},
        }))
        .istiod
    };
    let (revision, seen) = istiod(json!({"app": "istiod", "istio.io/rev": "asm-1-28"})).unwrap();
    assert_eq!(revision.as_str(), "asm-1-28");
    assert_eq!((seen.desired, seen.ready), (2, 1));
    assert_eq!(istiod(json!({"app": "web", "istio.io/rev": "asm-1-28"})), None);
    assert_eq!(istiod(json!({"app": "istiod", "istio.io/rev": "a", "istio.io/tag": "prod"})), None);
}

#[test]
fn a_template_that_brings_its_own_proxy_is_seen_in_both_lists() {
    let own =
        |spec: Value| deployment(json!({"spec": {"template": {"spec": spec}}})).workload.template.own_proxy;
    assert!(own(json!({"containers": [{"name": "istio-proxy", "image": "auto"}]})));
    assert!(own(json!({"containers": [], "initContainers": [{"name": "istio-proxy"}]})));
    assert!(!own(json!({"containers": [{"name": "web"}]})));
}

#[test]
fn recreate_and_paused_are_seen() {
    let seen = deployment(json!({"spec": {"paused": true, "strategy": {"type": "Recreate"}}}));
    assert_eq!(seen.workload.strategy, Strategy::Recreate);
    assert!(seen.workload.paused);
    assert_eq!(seen.workload.replicas, 1);
}

#[test]
fn stateful_sets_differ_by_strategy_and_order() {
    let set = |spec: Value| {
        let raw: RawStatefulSet =
            serde_json::from_value(json!({"metadata": {"name": "db"}, "spec": spec})).unwrap();
        raw.observe().unwrap().workload
    };
    let plain = set(
        json!({"replicas": 3, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}}),
    );
    assert_eq!(
        plain.strategy,
        Strategy::RollingUpdate { max_unavailable: IntOrPercent::Int(1), max_surge: IntOrPercent::Int(0) }
    );
    assert!(plain.ordered);
    assert!(!set(json!({"podManagementPolicy": "Parallel"})).ordered);
    assert_eq!(set(json!({"updateStrategy": {"type": "OnDelete"}})).strategy, Strategy::OnDelete);
    assert_eq!(
        set(json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}})).strategy,
        Strategy::Partitioned { partition: 2 }
    );
}

#[test]
fn a_daemon_set_counts_what_is_scheduled() {
    let raw: RawDaemonSet = serde_json::from_value(json!({
        "metadata": {"name": "log", "namespace": "ops"},
        "spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%", "maxSurge": 0}}},
        "status": {
            "observedGeneration": 2, "desiredNumberScheduled": 5, "currentNumberScheduled": 4,
            "updatedNumberScheduled": 3, "numberReady": 2, "numberAvailable": 1, "numberMisscheduled": 0,
        },
    }))
    .unwrap();
    let workload = raw.observe().unwrap().workload;
    assert_eq!(workload.reference.kind, WorkloadKind::DaemonSet);
    assert_eq!(workload.replicas, 5);
    let rollout = &workload.rollout;
    assert_eq!((rollout.current, rollout.updated, rollout.ready, rollout.available), (4, 3, 2, 1));
}
