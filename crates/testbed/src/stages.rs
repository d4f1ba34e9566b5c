//! What the simulated kubelets do with pods, and when.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::binaries::Binaries;

/// Prefix of the annotations that tests set on pods.
pub const ANNOTATIONS: &str = "testbed.meshupgrade.io/";

/// One step in a pod's life.
struct PodStage {
    state: &'static str,
    /// The fault that the containers show, as its annotation is called.
    fault: &'static str,
    /// The annotation that sets the delay, and what it is without.
    delay: Option<(&'static str, &'static str)>,
}

const POD_STAGES: [PodStage; 6] = [
    PodStage { state: "Starting", fault: "none", delay: None },
    PodStage { state: "Ready", fault: "none", delay: Some(("ready-after", "0s")) },
    PodStage { state: "NeverReady", fault: "never-ready", delay: None },
    PodStage { state: "ImagePullFailure", fault: "image-pull-failure", delay: None },
    PodStage { state: "Crashed", fault: "fail-after", delay: Some(("fail-after", "0s")) },
    PodStage { state: "Completed", fault: "none", delay: Some(("complete-after", "1s")) },
];

/// Writes the configuration of kwok: its own node stages and our pod stages.
pub(crate) fn write_config(path: &Path, binaries: &Binaries) -> Result<()> {
    let mut documents = vec![json!({
        "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
        "kind": "KwokConfiguration",
        "options": {
            "podPlayStageParallelism": 8,
            "nodePlayStageParallelism": 4,
            "podsOnNodeSyncParallelism": 4,
            // Off by default; without leases the controller manager takes the nodes for dead after a while.
            "nodeLeaseDurationSeconds": 120,
            "nodeLeaseParallelism": 4,
        },
    })];
    documents.extend(POD_STAGES.iter().map(pod_stage));
    documents.push(delete_stage());
    let mut text = fs::read_to_string(binaries.node_stages())?;
    for document in documents {
        text.push_str("\n---\n");
        text.push_str(&document.to_string());
    }
    fs::write(path, text)?;
    Ok(())
}

fn pod_stage(pod_stage: &PodStage) -> Value {
    let template = include_str!("../assets/pod-status.tmpl");
    let status = template.replace("@STATE@", pod_stage.state).replace("@FAULT@", pod_stage.fault);
    let mut stage = stage(pod_stage.state);
    stage["spec"]["next"] = json!({"statusTemplate": status});
    if let Some((annotation, default)) = pod_stage.delay {
        stage["spec"]["delay"] = delay_from(annotation, default);
    }
    stage
}

/// Deletion ends with the object gone, as a kubelet's does.
fn delete_stage() -> Value {
    let mut stage = stage("Delete");
    stage["spec"]["next"] = json!({"delete": true});
    stage["spec"]["delay"] = delay_from("terminate-after", "0s");
    stage
}

fn stage(next: &str) -> Value {
    json!({
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": format!("pod-{}", next.to_lowercase())},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
            "selector": {"matchExpressions": [
                {"key": include_str!("../assets/pod-next.jq"), "operator": "In", "values": [next]},
            ]},
        },
    })
}

fn delay_from(annotation: &str, default: &str) -> Value {
    let expression = format!(".metadata.annotations[\"{ANNOTATIONS}{annotation}\"] // \"{default}\"");
    json!({"durationMilliseconds": 0, "durationFrom": {"expressionFrom": expression}})
}
