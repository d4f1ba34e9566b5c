use serde_json::{Value, json};

use super::*;

fn pod(metadata: &Value, spec: &Value, status: &Value) -> Pod {
    let value =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status});
    serde_json::from_value::<RawPod>(value).unwrap().observe().unwrap()
}

fn injected(annotations: &Value, proxy: &Value) -> Option<Proxy> {
    pod(
        &json!({"name": "web-1", "namespace": "shop", "annotations": annotations}),
        &json!({"containers": [{"name": "web"}, proxy]}),
        &json!({}),
    )
    .proxy
}

#[test]
fn a_classic_sidecar_is_found_among_the_containers() {
    let proxy = injected(
        &json!({"istio.io/rev": "asm-1-27"}),
        &json!({"name": "istio-proxy", "image": "proxyv2:1.27"}),
    )
    .unwrap();
    assert_eq!(proxy.revision.unwrap().as_str(), "asm-1-27");
    assert_eq!(proxy.image, "proxyv2:1.27");
    assert!(!proxy.native);
}

#[test]
fn a_native_sidecar_is_found_among_the_init_containers() {
    let seen = pod(
        &json!({"name": "web-1", "namespace": "shop", "annotations": {"istio.io/rev": "asm-1-29"}}),
        &json!({
            "initContainers": [
                {"name": "istio-validation", "image": "proxyv2:1.29"},
                {"name": "istio-proxy", "image": "proxyv2:1.29", "restartPolicy": "Always"},
            ],
            "containers": [{"name": "web"}],
        }),
        &json!({}),
    );
    let proxy = seen.proxy.unwrap();
    assert!(proxy.native);
    assert_eq!(proxy.revision.unwrap().as_str(), "asm-1-29");
}

#[test]
fn a_pod_without_the_container_has_no_proxy_whatever_its_annotations_say() {
    assert_eq!(injected(&json!({"istio.io/rev": "asm-1-27"}), &json!({"name": "envoy"})), None);
}

#[test]
fn the_revision_comes_from_annotation_then_report_then_address() {
    let proxy = json!({
        "name": "istio-proxy",
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "CA_ADDR", "value": "istiod-by-address.istio-system.svc:15012"},
        ],
    });
    let revision = |annotations: &Value| injected(annotations, &proxy).unwrap().revision.unwrap().0;
    let report = r#"{"initContainers":["istio-init"],"containers":["istio-proxy"],"revision":"by-report"}"#;
    assert_eq!(
        revision(&json!({"istio.io/rev": "by-annotation", "sidecar.istio.io/status": report})),
        "by-annotation"
    );
    assert_eq!(revision(&json!({"sidecar.istio.io/status": report})), "by-report");
    assert_eq!(revision(&json!({"sidecar.istio.io/status": "no JSON"})), "by-address");
    assert_eq!(revision(&json!({})), "by-address");
}

#[test]
fn the_discovery_address_is_the_last_resort() {
    let config = r#"{"discoveryAddress":"istiod-asm-1-28.aks-istio-system.svc:15012","concurrency":2}"#;
    let proxy = json!({"name": "istio-proxy", "env": [{"name": "PROXY_CONFIG", "value": config}]});
    assert_eq!(injected(&json!({}), &proxy).unwrap().revision.unwrap().as_str(), "asm-1-28");
    let bare = json!({"name": "istio-proxy"});
    assert_eq!(injected(&json!({}), &bare).unwrap().revision, None);
}

#[test]
fn addresses_name_revisions() {
    let revision = |address| address_revision(address);
    assert_eq!(revision("istiod.istio-system.svc:15012").as_deref(), Some("default"));
    assert_eq!(revision("istiod-a-1.ns.svc:15012").as_deref(), Some("a-1"));
    assert_eq!(revision("https://istiod-a-1.ns.svc:15017/inject").as_deref(), Some("a-1"));
    assert_eq!(revision("127.0.0.1:15012"), None);
    assert_eq!(revision("istiodine.ns.svc"), None);
}

#[test]
fn annotations_are_cut_down_and_the_restart_stamp_is_kept() {
    let seen = pod(
        &json!({"name": "web-1", "namespace": "shop", "annotations": {
            "istio.io/rev": "a", "sidecar.istio.io/status": "{}", "prometheus.io/scrape": "true",
            "meshupgrade.io/restart": "stamp", "sidecar.istio.io/proxyImage": "mine:1",
        }}),
        &json!({}),
        &json!({}),
    );
    let kept: Vec<&String> = seen.annotations.keys().collect();
    assert_eq!(kept, ["istio.io/rev", "sidecar.istio.io/proxyImage"]);
    assert_eq!(seen.restart.as_deref(), Some("stamp"));
}

fn problem_of(status: &Value) -> Option<String> {
    pod(&json!({"name": "web-1"}), &json!({}), status).problem.map(|problem| problem.message)
}

#[test]
fn a_ready_or_finished_pod_has_no_problem() {
    let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    assert_eq!(problem_of(&ready), None);
    let finished = json!({"phase": "Failed", "containerStatuses": [
        {"name": "web", "state": {"terminated": {"exitCode": 1}}},
    ]});
    assert_eq!(problem_of(&finished), None);
    let seen = pod(&json!({}), &json!({}), &finished);
    assert!(seen.finished);
}

#[test]
fn a_pod_that_finds_no_node_says_why() {
    let status = json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"},
    ]});
    assert_eq!(problem_of(&status).as_deref(), Some("not scheduled: 0/3 nodes are available"));
}

#[test]
fn an_image_that_cannot_be_pulled_goes_before_containers_that_merely_wait() {
    let status = json!({
        "phase": "Pending",
        "initContainerStatuses": [
            {"name": "istio-proxy", "state": {"waiting": {
                "reason": "ImagePullBackOff", "message": "Back-off pulling image \"proxyv2:1.29\""}}},
        ],
        "containerStatuses": [{"name": "web", "state": {"waiting": {"reason": "PodInitializing"}}}],
    });
    assert_eq!(
        problem_of(&status).as_deref(),
        Some("container istio-proxy: ImagePullBackOff: Back-off pulling image \"proxyv2:1.29\"")
    );
}

#[test]
fn a_crash_is_named_with_its_exit_code() {
    let status = json!({"phase": "Running", "containerStatuses": [
        {"name": "web", "ready": false, "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}},
    ]});
    assert_eq!(problem_of(&status).as_deref(), Some("container web: OOMKilled (exit code 137)"));
}

#[test]
fn a_container_that_runs_without_being_ready_is_named_native_proxies_too() {
    let running = json!({"startedAt": "2026-01-01T00:00:00Z"});
    let native = json!({
        "initContainerStatuses": [
            {"name": "istio-init", "ready": true, "state": {"terminated": {"exitCode": 0}}},
            {"name": "istio-proxy", "ready": false, "state": {"running": running}},
        ],
        "containerStatuses": [{"name": "web", "ready": true, "state": {"running": running}}],
    });
    assert_eq!(problem_of(&native).as_deref(), Some("container istio-proxy is not ready"));
    let classic =
        json!({"containerStatuses": [{"name": "web", "ready": false, "state": {"running": running}}]});
    assert_eq!(problem_of(&classic).as_deref(), Some("container web is not ready"));
}

#[test]
fn a_readiness_gate_speaks_through_the_ready_condition() {
    let status = json!({"conditions": [
        {"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady", "message": "gate x is not met"},
    ]});
    assert_eq!(problem_of(&status).as_deref(), Some("gate x is not met"));
}

#[test]
fn a_pod_that_goes_says_when_its_grace_ends() {
    let seen = pod(
        &json!({"name": "web-1", "deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30}),
        &json!({"hostNetwork": true}),
        &json!({}),
    );
    assert_eq!(seen.deletion, Some("2026-01-01T00:00:30Z".parse().unwrap()));
    assert!(seen.host_network);
}

#[test]
fn what_merely_starts_has_no_reason_and_what_fails_has_kubernetes_own() {
    let reason = |status: &Value| pod(&json!({"name": "web-1"}), &json!({}), status).problem.unwrap().reason;
    let waiting =
        |why: &str| json!({"containerStatuses": [{"name": "web", "state": {"waiting": {"reason": why}}}]});
    assert_eq!(reason(&waiting("ContainerCreating")), "");
    assert_eq!(reason(&waiting("ImagePullBackOff")), "ImagePullBackOff");
    let unscheduled =
        json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]});
    assert_eq!(reason(&unscheduled), "Unschedulable");
    let running = |restarts: u32| json!({"containerStatuses": [{"name": "web", "restartCount": restarts, "state": {"running": {}}}]});
    assert_eq!(reason(&running(0)), "");
    assert_eq!(reason(&running(3)), "Restarted", "between two crashes");
}
