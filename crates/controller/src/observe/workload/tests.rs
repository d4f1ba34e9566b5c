use serde_json::{Value, json};

use meshupgrade_core::observed::ArgoPhase;

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

fn rollout(value: Value) -> WorkloadSeen {
    serde_json::from_value::<RawRollout>(value).unwrap().observe().unwrap()
}

#[test]
fn a_rollout_of_argo_is_brought_to_the_common_form() {
    let seen = rollout(json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "u", "generation": 7},
        "spec": {
            "replicas": 4, "restartAt": "2026-03-01T10:00:01Z",
            "strategy": {"canary": {"maxUnavailable": "50%", "maxSurge": 1, "steps": [{"pause": {}}]}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web:1"}]},
            },
        },
        "status": {
            "observedGeneration": "6", "replicas": 5, "updatedReplicas": 1, "readyReplicas": 4, "availableReplicas": 3,
            "restartedAt": "2026-03-01T09:00:00Z", "phase": "Paused", "message": "CanaryPauseStep",
        },
    }));
    assert_eq!((&seen.istiod, &seen.borrowed), (&None, &None));
    let workload = &seen.workload;
    assert_eq!(workload.reference, WorkloadRef::new(WorkloadKind::Rollout, "shop", "web"));
    assert_eq!((workload.replicas, workload.paused), (4, false));
    let strategy = Strategy::RollingUpdate {
        max_unavailable: IntOrPercent::Percent(50),
        max_surge: IntOrPercent::Int(0),
    };
    assert_eq!(workload.strategy, strategy, "a restart makes no pods on top");
    let status = &workload.rollout;
    assert_eq!((status.observed_generation, status.current, status.updated), (6, 5, 1));
    assert_eq!((status.ready, status.available), (4, 3));
    let argo = ArgoRollout {
        restart_at: Some("2026-03-01T10:00:01Z".parse().unwrap()),
        restarted_at: Some("2026-03-01T09:00:00Z".parse().unwrap()),
        phase: ArgoPhase::Paused,
        message: "CanaryPauseStep".to_owned(),
        template_of: None,
    };
    assert_eq!(workload.argo, Some(argo));
    assert_eq!(workload.template.labels.get("app").map(String::as_str), Some("web"));
}

#[test]
fn what_an_unknown_argo_reports_is_no_end() {
    let generation = |text: &str| {
        let raw =
            json!({"metadata": {"generation": 7}, "status": {"observedGeneration": text, "phase": "Odd"}});
        let workload = rollout(raw).workload;
        assert_eq!(workload.argo.as_ref().unwrap().phase, ArgoPhase::Progressing);
        workload.rollout.observed_generation
    };
    assert_eq!(generation("7"), 7);
    assert_eq!(generation(""), 0);
    assert_eq!(generation("6c9d7f"), 7, "a hash, of a version without generations");
    let blue_green = rollout(json!({"spec": {"strategy": {"blueGreen": {"maxUnavailable": 2}}}})).workload;
    let Strategy::RollingUpdate { max_unavailable, .. } = blue_green.strategy else { panic!() };
    assert_eq!(max_unavailable, IntOrPercent::Int(2));
}

#[test]
fn a_borrowed_template_is_taken_from_its_deployment() {
    let borrows = |kind: &str| {
        rollout(json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "workloadRef": {"apiVersion": "apps/v1", "kind": kind, "name": "web-base"},
                "template": {"metadata": {"creationTimestamp": null}, "spec": {"containers": null}},
            },
        }))
    };
    let base = deployment(json!({
        "metadata": {"name": "web-base", "namespace": "shop"},
        "spec": {"template": {"metadata": {"labels": {"sidecar.istio.io/inject": "false"}}}},
    }));
    let seen = borrows("Deployment");
    assert_eq!(seen.borrowed, Some(WorkloadRef::new(WorkloadKind::Deployment, "shop", "web-base")));
    let elsewhere = |workload: &Workload| workload.argo.as_ref().unwrap().template_of.clone();
    assert_eq!(elsewhere(&seen.with_template_of(None)).as_deref(), Some("Deployment web-base"));
    let whole = seen.with_template_of(Some(&base));
    assert_eq!((elsewhere(&whole), &whole.template), (None, &base.workload.template));
    assert_eq!(borrows("PodTemplate").borrowed, None);
}
