//! Each rule is red on a log with one thing wrong, and green without it.

use serde_json::{Value, json};

use super::planted::{FORWARD, OPERATOR, Planted, before, case, good};
use super::{Case, RULES, Violation, Wave, judge, restarts};

fn broken(case: &Case, log: &Planted) -> Vec<&'static str> {
    let mut rules: Vec<_> = judge(case, &log.log(), &[]).into_iter().map(|found| found.rule).collect();
    rules.dedup();
    rules
}

fn found(case: &Case, log: &Planted, rule: &str) -> String {
    let all = judge(case, &log.log(), &[]);
    let texts: Vec<String> =
        all.iter().filter(|found| found.rule == rule).map(|found| found.what.clone()).collect();
    assert!(!texts.is_empty(), "{rule} found nothing, others: {all:?}");
    texts.join("\n")
}

fn is_restart(event: &Value, namespace: &str) -> bool {
    event["user"]["username"] == OPERATOR
        && event["objectRef"]["resource"] == "deployments"
        && event["objectRef"]["namespace"] == namespace
}

#[test]
fn a_good_run_breaks_no_rule() {
    assert_eq!(judge(&case(), &good().log(), &[]), []);
    assert_eq!(restarts(&case(), &good().log()).values().copied().collect::<Vec<_>>(), [1, 1, 1, 1]);
}

#[test]
fn rules_have_different_names_and_can_be_left_out() {
    let mut names: Vec<_> = RULES.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), RULES.len());
    let log = before();
    assert_eq!(judge(&case(), &log.log(), &["log-shows-the-operator"]), []);
}

#[test]
fn a_log_without_the_operator_or_the_upgrade_proves_nothing() {
    assert_eq!(broken(&case(), &before()), ["log-shows-the-operator"]);
    let mut log = good();
    let creation =
        log.find(|event| event["objectRef"]["resource"] == "meshupgrades" && event["verb"] == "create");
    log.events.drain(..=creation);
    assert!(found(&case(), &log, "log-shows-the-operator").contains("meshupgrade/mesh"));
}

#[test]
fn a_restart_before_the_label_is_seen() {
    let mut log = before();
    log.intent("first", &["a"]);
    log.roll("first", "a", FORWARD, "old");
    assert!(found(&case(), &log, "label-before-restart").contains("said Some(\"old\")"));
}

#[test]
fn a_restart_within_the_settle_time_is_seen() {
    let mut log = before();
    log.label(OPERATOR, "first", "new", FORWARD);
    log.wait(700);
    log.intent("first", &["a"]);
    log.roll("first", "a", FORWARD, "new");
    assert_eq!(broken(&case(), &log), ["label-before-restart"]);
}

#[test]
fn a_label_that_was_put_back_counts_no_more() {
    let mut log = before();
    log.label(OPERATOR, "first", "new", FORWARD);
    log.wait(2000);
    log.label("argocd", "first", "old", "");
    log.intent("first", &["a"]);
    log.roll("first", "a", FORWARD, "old");
    assert_eq!(broken(&case(), &log), ["label-before-restart"]);
}

#[test]
fn a_restart_without_an_istiod_is_seen_and_its_news_may_take_a_second() {
    let run = |wait: u64| {
        let mut log = before();
        log.label(OPERATOR, "first", "new", FORWARD);
        log.wait(1000);
        log.istiod("new", 0);
        log.istiod("new", 0);
        log.intent("first", &["a"]);
        log.wait(wait);
        log.roll("first", "a", FORWARD, "new");
        log
    };
    assert_eq!(broken(&case(), &run(100)), Vec::<&str>::new());
    assert_eq!(broken(&case(), &run(1000)), ["istiod-ready-before-restart"]);
    let mut log = good();
    log.events.drain(..2);
    let unready = Case { unready: ["new".to_owned()].into(), ..case() };
    assert_eq!(broken(&case(), &log), Vec::<&str>::new());
    assert_eq!(broken(&unready, &log), ["istiod-ready-before-restart"]);
}

#[test]
fn a_patch_without_an_intent_is_seen() {
    let mut log = good();
    let intent =
        log.find(|event| event["requestObject"]["status"]["run"]["batch"]["entries"][0]["name"] == "b");
    log.events.remove(intent);
    assert_eq!(broken(&case(), &log), ["intent-before-patch"]);
}

#[test]
fn one_workload_too_many_in_rollout_is_seen() {
    let narrow =
        Case { waves: case().waves.into_iter().map(|wave| Wave { at_once: 1, ..wave }).collect(), ..case() };
    assert_eq!(broken(&narrow, &good()), ["at-most-so-many-at-once"]);
}

/// The controller says that it is done, but an old pod is still there when the next workload starts.
#[test]
fn an_old_pod_that_is_still_there_is_part_of_the_rollout() {
    let mut log = good();
    let last = log.find(|event| {
        event["verb"] == "delete"
            && event["objectRef"]["name"] == "a-h1-x"
            && event["requestObject"].is_object()
    });
    log.events.remove(last);
    assert!(found(&case(), &log, "at-most-so-many-at-once").contains("2 in rollout"));
}

/// A deletion is answered without a version.
#[test]
fn a_workload_that_is_deleted_right_after_its_restart_is_no_longer_in_rollout() {
    let narrow =
        Case { waves: case().waves.into_iter().map(|wave| Wave { at_once: 1, ..wave }).collect(), ..case() };
    let plant = |deleted: bool| {
        let mut log = before();
        log.label(OPERATOR, "first", "new", FORWARD);
        log.wait(1000);
        log.intent("first", &["a"]);
        log.restart("first", "a", 2, FORWARD);
        if deleted {
            log.delete("first", "a");
        }
        log.intent("first", &["b"]);
        log.restart("first", "b", 2, FORWARD);
        broken(&narrow, &log)
    };
    assert!(plant(false).contains(&"at-most-so-many-at-once"));
    assert!(!plant(true).contains(&"at-most-so-many-at-once"));
}

#[test]
fn a_second_wave_before_the_first_is_over_is_seen() {
    let mut log = before();
    for namespace in ["first", "second"] {
        log.label(OPERATOR, namespace, "new", FORWARD);
    }
    log.wait(1000);
    log.intent("first", &["a"]);
    log.restart("first", "a", 2, FORWARD);
    log.intent("second", &["a"]);
    log.restart("second", "a", 2, FORWARD);
    assert!(found(&case(), &log, "at-most-so-many-at-once").contains("several waves"));
}

#[test]
fn a_second_restart_is_seen_and_a_repetition_only_without_a_crash() {
    let mut log = good();
    log.intent("second", &["a"]);
    log.restart("second", "a", 3, "uid.1.forward.2");
    log.complete("second", "a", 3);
    assert_eq!(broken(&case(), &log), ["each-workload-once"]);
    assert_eq!(broken(&Case { retries: 1, ..case() }, &log), Vec::<&str>::new());

    let mut log = good();
    let patch = log.events[log.find(|event| is_restart(event, "second"))].clone();
    log.events.push(patch);
    assert_eq!(broken(&case(), &log), ["each-workload-once"]);
    assert_eq!(broken(&Case { crashes: true, ..case() }, &log), Vec::<&str>::new());
}

#[test]
fn a_label_fight_is_seen() {
    let mut log = good();
    log.label("argocd", "first", "old", "");
    log.label(OPERATOR, "first", "new", FORWARD);
    assert_eq!(broken(&case(), &log), ["each-label-once"]);
    let mut log = good();
    log.label(OPERATOR, "first", "new", "uid.1.forward.2");
    assert_eq!(broken(&case(), &log), ["each-label-once"]);
    assert_eq!(broken(&Case { retries: 1, ..case() }, &log), Vec::<&str>::new());
}

#[test]
fn writes_outside_the_plan_are_seen() {
    let plant = |change: fn(&mut Planted)| {
        let mut log = good();
        change(&mut log);
        found(&case(), &log, "nothing-outside-the-plan")
    };
    assert!(plant(|log| log.label(OPERATOR, "strange", "new", FORWARD)).contains("not in scope"));
    assert!(plant(|log| log.restart("strange", "a", 2, FORWARD)).contains("not in scope"));
    let delete = |log: &mut Planted| {
        let pod = json!({"resource": "pods", "namespace": "first", "name": "a"});
        log.call(OPERATOR, "delete", &pod, &Value::Null, json!({"metadata": {}}));
    };
    assert!(plant(delete).contains("not a write of this product"));
    let foreign = |log: &mut Planted| {
        let lease = json!({"apiGroup": "coordination.k8s.io", "resource": "leases", "namespace": "first", "name": "x"});
        log.call(OPERATOR, "update", &lease, &Value::Null, json!({"metadata": {}}));
    };
    assert!(plant(foreign).contains("outside its own namespace"));
    let field = |log: &mut Planted| {
        let at = log.find(|event| is_restart(event, "first"));
        log.events[at]["requestObject"]["spec"]["replicas"] = json!(3);
    };
    assert!(plant(field).contains("writes the field replicas"));
    let label = |log: &mut Planted| {
        let at = log.find(|event| {
            event["user"]["username"] == OPERATOR && event["objectRef"]["resource"] == "namespaces"
        });
        log.events[at]["requestObject"]["metadata"]["labels"]["team"] = json!("x");
    };
    assert!(plant(label).contains("writes the field team"));
    let gateway = |log: &mut Planted| {
        let about = json!({"apiGroup": "gateway.networking.k8s.io", "resource": "gateways", "namespace": "first", "name": "x"});
        log.call(OPERATOR, "patch", &about, &json!({"metadata": {}}), json!({"metadata": {}}));
    };
    assert!(plant(gateway).contains("not in scope"), "no Gateway of this run");
    let map = |log: &mut Planted| {
        let about =
            json!({"resource": "configmaps", "namespace": "aks-istio-system", "name": "istio-asm-1-28"});
        log.call(OPERATOR, "delete", &about, &Value::Null, json!({"metadata": {}}));
    };
    assert!(plant(map).contains("not in scope"), "no copy of ours");
    let other = |log: &mut Planted| {
        let about = json!({"apiGroup": "meshupgrade.io", "resource": "meshupgrades", "subresource": "status", "name": "other"});
        log.call(OPERATOR, "update", &about, &Value::Null, json!({"metadata": {}}));
    };
    assert!(plant(other).contains("not a MeshUpgrade of this run"));
}

#[test]
fn a_refused_read_is_seen() {
    let mut log = good();
    let about = json!({"resource": "secrets", "namespace": "first", "name": "x"});
    log.call(OPERATOR, "get", &about, &Value::Null, json!({"message": "forbidden"}));
    let last = log.events.len() - 1;
    log.events[last]["responseStatus"]["code"] = json!(403);
    assert_eq!(broken(&case(), &log), ["nothing-refused"]);
}

#[test]
fn too_many_writes_are_seen() {
    let mut log = good();
    for _ in 0..40 {
        log.intent("second", &[]);
    }
    assert!(found(&case(), &log, "write-budget").contains("4 workloads, 2 namespaces, 3 batches, 2 waves"));
}

#[test]
fn too_few_ready_pods_are_seen() {
    let mut log = before();
    log.label(OPERATOR, "first", "new", FORWARD);
    log.wait(1000);
    log.intent("first", &["a"]);
    log.restart("first", "a", 2, FORWARD);
    log.end("first", "a", 1, "old");
    log.pod("first", "a", 2, "new");
    log.complete("first", "a", 2);
    assert!(found(&case(), &log, "enough-pods-ready").contains("0 of 1 pods"));
}

#[test]
fn a_pod_without_a_sidecar_is_seen() {
    for (revision, text) in [("", "without a sidecar"), ("third", "a sidecar of third")] {
        let mut log = good();
        log.pod("first", "b", 3, revision);
        let violations: Vec<Violation> = judge(&case(), &log.log(), &[]);
        assert_eq!(violations.len(), 1, "{violations:?}");
        assert_eq!(violations[0].rule, "every-pod-has-a-sidecar");
        assert!(violations[0].what.contains(text));
    }
}

/// The webhook of the tag `prod` is set to a revision.
fn tag(log: &mut Planted, user: &str, revision: &str, entry: &Value) {
    let about = json!({"apiGroup": "admissionregistration.k8s.io", "resource": "mutatingwebhookconfigurations",
        "name": "istio-revision-tag-prod"});
    let labels = json!({"istio.io/rev": revision});
    let request = json!({"metadata": {"resourceVersion": "1", "labels": labels,
        "annotations": {"meshupgrade.io/relabelled-by": FORWARD}}, "webhooks": [entry]});
    let answer = json!({"metadata": {"labels": {"istio.io/rev": revision, "istio.io/tag": "prod"}}});
    log.call(user, "patch", &about, &request, answer);
}

#[test]
fn a_tag_leads_its_namespaces_and_is_written_as_little_as_a_label() {
    let mut case = case();
    case.tags.insert("prod".to_owned());
    let entry = json!({"name": "rev.namespace", "clientConfig": {}});
    let begun = || {
        let mut log = before();
        tag(&mut log, "admin", "old", &entry);
        log.label("admin", "first", "prod", "");
        log
    };
    let restarted = |log: &mut Planted| {
        log.wait(5000);
        log.intent("first", &["a"]);
        log.roll("first", "a", FORWARD, "new");
    };
    let mut log = begun();
    tag(&mut log, OPERATOR, "new", &entry);
    restarted(&mut log);
    assert!(!broken(&case, &log).contains(&"label-before-restart"), "{:?}", judge(&case, &log.log(), &[]));
    assert!(!broken(&case, &log).contains(&"nothing-outside-the-plan"));
    let mut early = begun();
    restarted(&mut early);
    assert!(found(&case, &early, "label-before-restart").contains("said Some(\"old\")"));
    tag(&mut log, OPERATOR, "new", &entry);
    assert!(found(&case, &log, "each-label-once").contains("webhook istio-revision-tag-prod"));
    let mut selector = begun();
    tag(&mut selector, OPERATOR, "new", &json!({"name": "rev.namespace", "objectSelector": {}}));
    assert!(found(&case, &selector, "nothing-outside-the-plan").contains("objectSelector"));
    case.tags.clear();
    assert!(found(&case, &log, "nothing-outside-the-plan").contains("not in scope"));
}

/// The operator writes to the Service of the tag `prod`.
fn service(log: &mut Planted, namespace: &str, spec: &Value) {
    let about = json!({"resource": "services", "namespace": namespace, "name": "istiod-revision-tag-prod"});
    let request = json!({"metadata": {"resourceVersion": "1", "labels": {"istio.io/rev": "new"},
        "annotations": {"meshupgrade.io/relabelled-by": FORWARD}}, "spec": spec});
    log.call(OPERATOR, "patch", &about, &request, json!({"metadata": {}}));
}

#[test]
fn the_service_of_a_tag_is_written_once_and_nothing_but_where_it_leads() {
    let mut case = case();
    case.tags.insert("prod".to_owned());
    let namespace = case.istio_namespace.clone();
    let selector = json!({"selector": {"istio.io/rev": "new"}});
    let written = |namespace: &str, spec: &Value| {
        let mut log = good();
        service(&mut log, namespace, spec);
        log
    };
    let mut log = written(&namespace, &selector);
    assert!(judge(&case, &log.log(), &[]).is_empty(), "{:?}", judge(&case, &log.log(), &[]));
    service(&mut log, &namespace, &selector);
    assert!(found(&case, &log, "each-label-once").contains("service istiod-revision-tag-prod"));
    let ports = written(&namespace, &json!({"ports": []}));
    assert!(found(&case, &ports, "nothing-outside-the-plan").contains("ports"));
    let elsewhere = written("first", &selector);
    assert!(found(&case, &elsewhere, "nothing-outside-the-plan").contains("not in scope"));
    case.tags.clear();
    let log = written(&namespace, &selector);
    assert!(found(&case, &log, "nothing-outside-the-plan").contains("not in scope"));
}
