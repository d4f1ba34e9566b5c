//! Logs made by hand: a good run of two waves, and the same with one thing wrong.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Case, Floor, Wave, Workload};
use crate::audit::Log;

pub const OPERATOR: &str = "system:serviceaccount:meshupgrade-system:meshupgrade-operator";
const CONTROLLER: &str = "system:serviceaccount:kube-system:deployment-controller";
const REPLICAS: &str = "system:serviceaccount:kube-system:replicaset-controller";
const KUBELET: &str = "system:kwok";

/// Lines of a log under construction. Each call takes 100 ms and one version.
#[derive(Clone, Debug, Default)]
pub struct Planted {
    pub events: Vec<Value>,
    version: u64,
    millis: u64,
}

impl Planted {
    pub fn wait(&mut self, millis: u64) {
        self.millis += millis;
    }

    pub fn log(&self) -> Log {
        let lines: Vec<String> = self.events.iter().map(Value::to_string).collect();
        Log::parse(&(lines.join("\n") + "\n")).unwrap()
    }

    /// Appends a call; the answer is the object with its new version.
    pub fn call(&mut self, user: &str, verb: &str, about: &Value, request: &Value, mut response: Value) {
        self.version += 1;
        self.millis += 100;
        response["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let time = |millis: u64| {
            format!("2026-01-01T00:{:02}:{:02}.{:03}000Z", millis / 60_000, millis / 1000 % 60, millis % 1000)
        };
        self.events.push(json!({
            "stage": "ResponseComplete", "verb": verb, "user": {"username": user}, "objectRef": about,
            "responseStatus": {"code": 200}, "requestObject": request, "responseObject": response,
            "requestReceivedTimestamp": time(self.millis - 1), "stageTimestamp": time(self.millis),
        }));
    }

    /// An istiod has so many ready pods.
    pub fn istiod(&mut self, revision: &str, ready: u32) {
        let about = json!({"apiGroup": "apps", "resource": "deployments", "subresource": "status",
            "namespace": "istio-system", "name": format!("istiod-{revision}")});
        let object = json!({"metadata": {"labels": {"app": "istiod", "istio.io/rev": revision}},
            "spec": {"replicas": 1}, "status": {"readyReplicas": ready}});
        self.call(CONTROLLER, "update", &about, &Value::Null, object);
    }

    pub fn label(&mut self, user: &str, namespace: &str, revision: &str, stamp: &str) {
        let about = json!({"resource": "namespaces", "name": namespace});
        let metadata = json!({"labels": {"istio.io/rev": revision, "istio-injection": null},
            "annotations": {"meshupgrade.io/relabelled-by": stamp}, "resourceVersion": "1"});
        let answer = json!({"metadata": {"labels": {"istio.io/rev": revision}}});
        self.call(user, "patch", &about, &json!({"metadata": metadata}), answer);
    }

    /// The status names these workloads, all of one namespace.
    pub fn intent(&mut self, namespace: &str, names: &[&str]) {
        let about = json!({"apiGroup": "meshupgrade.io", "resource": "meshupgrades", "subresource": "status", "name": "mesh"});
        let entry = |name: &&str| json!({"namespace": namespace, "kind": "Deployment", "name": name});
        let entries: Vec<Value> = names.iter().map(entry).collect();
        let object = json!({"metadata": {}, "status": {"run": {"batch": {"entries": entries}}}});
        self.call(OPERATOR, "update", &about, &object.clone(), object);
    }

    pub fn restart(&mut self, namespace: &str, name: &str, generation: u64, stamp: &str) {
        let request = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": namespace, "uid": "u"},
            "spec": {"template": {"metadata": {"annotations": {"meshupgrade.io/restart": stamp}}}}});
        let answer = deployment(generation, generation - 1, 1);
        self.call(OPERATOR, "patch", &about_deployment(namespace, name, ""), &request, answer);
    }

    /// A person deletes a Deployment: the answer is no object.
    pub fn delete(&mut self, namespace: &str, name: &str) {
        self.call("admin", "delete", &about_deployment(namespace, name, ""), &Value::Null, json!({}));
        if let Some(metadata) =
            self.events.last_mut().and_then(|event| event.pointer_mut("/responseObject/metadata"))
        {
            *metadata = json!({});
        }
    }

    /// The controller says: everything is new and available.
    pub fn complete(&mut self, namespace: &str, name: &str, generation: u64) {
        let about = about_deployment(namespace, name, "status");
        self.call(CONTROLLER, "update", &about, &Value::Null, deployment(generation, generation, 1));
    }

    /// A pod of a Deployment with a proxy of this revision, or none.
    pub fn pod(&mut self, namespace: &str, name: &str, number: u64, revision: &str) {
        let about = json!({"resource": "pods", "namespace": namespace});
        self.call(REPLICAS, "create", &about, &Value::Null, pod(namespace, name, number, revision, false));
        self.ready(namespace, name, number, revision, true);
    }

    pub fn ready(&mut self, namespace: &str, name: &str, number: u64, revision: &str, ready: bool) {
        let about = json!({"resource": "pods", "subresource": "status", "namespace": namespace,
            "name": format!("{name}-h{number}-x")});
        self.call(KUBELET, "patch", &about, &Value::Null, pod(namespace, name, number, revision, ready));
    }

    /// The pod is deleted and gone.
    pub fn end(&mut self, namespace: &str, name: &str, number: u64, revision: &str) {
        let about =
            json!({"resource": "pods", "namespace": namespace, "name": format!("{name}-h{number}-x")});
        let mut ending = pod(namespace, name, number, revision, true);
        ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        ending["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        self.call(REPLICAS, "delete", &about, &Value::Null, ending.clone());
        self.call(KUBELET, "delete", &about, &json!({"gracePeriodSeconds": 0}), ending);
    }

    /// Index of the first event that fits.
    pub fn find(&self, fits: impl Fn(&Value) -> bool) -> usize {
        self.events.iter().position(fits).unwrap()
    }

    /// A whole restart of one workload: new pod first, then the old one goes.
    pub fn roll(&mut self, namespace: &str, name: &str, stamp: &str, to: &str) {
        self.restart(namespace, name, 2, stamp);
        self.pod(namespace, name, 2, to);
        self.end(namespace, name, 1, "old");
        self.complete(namespace, name, 2);
    }
}

fn about_deployment(namespace: &str, name: &str, subresource: &str) -> Value {
    json!({"apiGroup": "apps", "resource": "deployments", "subresource": subresource, "namespace": namespace, "name": name})
}

fn deployment(generation: u64, observed: u64, ready: u64) -> Value {
    json!({
        "metadata": {"generation": generation}, "spec": {"replicas": 1},
        "status": {"observedGeneration": observed, "replicas": 1, "updatedReplicas": 1, "availableReplicas": ready},
    })
}

fn pod(namespace: &str, name: &str, number: u64, revision: &str, ready: bool) -> Value {
    let mut containers = vec![json!({"name": "app"})];
    if !revision.is_empty() {
        containers.push(json!({"name": "istio-proxy"}));
    }
    json!({
        "metadata": {
            "name": format!("{name}-h{number}-x"), "uid": format!("{namespace}/{name}/{number}"),
            "labels": {"pod-template-hash": format!("h{number}")}, "annotations": {"istio.io/rev": revision},
            "ownerReferences": [{"kind": "ReplicaSet", "name": format!("{name}-h{number}"), "controller": true}],
        },
        "spec": {"containers": containers},
        "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    })
}

/// What the good run was asked for.
pub fn case() -> Case {
    let wave = |namespace: &str, at_once| Wave { namespaces: [namespace.to_owned()].into(), at_once };
    Case {
        operator: OPERATOR.into(),
        operator_namespace: "meshupgrade-system".into(),
        upgrades: ["mesh".to_owned()].into(),
        istio_namespace: "istio-system".into(),
        source: "old".into(),
        target: "new".into(),
        settle: Duration::from_secs(1),
        waves: vec![wave("first", 1), wave("second", 2)],
        floors: vec![Floor { workloads: [Workload::new("first", "deployments", "a")].into(), ready: 1 }],
        ..Case::default()
    }
}

pub const FORWARD: &str = "uid.1.forward.1";

/// Everything up to the operator's first write.
pub fn before() -> Planted {
    let mut log = Planted::default();
    for revision in ["old", "new"] {
        log.istiod(revision, 1);
    }
    for namespace in ["first", "second", "strange"] {
        log.label("admin", namespace, "old", "");
        for name in ["a", "b"] {
            let about = about_deployment(namespace, name, "");
            log.call("admin", "create", &about, &Value::Null, deployment(1, 0, 0));
            log.pod(namespace, name, 1, "old");
            log.complete(namespace, name, 1);
        }
    }
    let about = json!({"apiGroup": "meshupgrade.io", "resource": "meshupgrades", "name": "mesh"});
    log.call("admin", "create", &about, &Value::Null, json!({"metadata": {}}));
    log
}

/// Two waves: in the first one workload after the other, in the second both at once.
pub fn good() -> Planted {
    let mut log = before();
    log.label(OPERATOR, "first", "new", FORWARD);
    log.wait(1000);
    for name in ["a", "b"] {
        log.intent("first", &[name]);
        log.roll("first", name, FORWARD, "new");
    }
    log.intent("first", &[]);
    log.label(OPERATOR, "second", "new", FORWARD);
    log.wait(1000);
    log.intent("second", &["a", "b"]);
    for name in ["a", "b"] {
        log.restart("second", name, 2, FORWARD);
        log.pod("second", name, 2, "new");
    }
    for name in ["a", "b"] {
        log.end("second", name, 1, "old");
        log.complete("second", name, 2);
    }
    log.intent("second", &[]);
    log
}
