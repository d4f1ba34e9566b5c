//! Statuses for the tests of what is shown.

use meshupgrade_api::MeshUpgradeStatus;
use meshupgrade_core::record::Run;
use serde_json::{Value, json};

fn status(run: Value, rest: Value) -> MeshUpgradeStatus {
    let wave = |name: &str, workloads: u32, namespaces: &[&str]| json!({"name": name, "namespaces": namespaces, "workloads": workloads, "maxConcurrent": 3});
    let mut whole = json!({"plan": {"workloads": 38, "waves": [
        wave("canary", 3, &["sandbox"]),
        wave("shops", 12, &["payments", "shop-eu", "shop-us"]),
        wave("rest", 23, &["search"]),
    ]}});
    whole["run"] = json!({"schema": 1, "counter": 1, "source": "asm-1-27", "target": "asm-1-28"});
    extend(&mut whole["run"], run);
    extend(&mut whole, rest);
    serde_json::from_value(whole).unwrap()
}

fn extend(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// In the middle of the second wave, with two workloads in work.
pub fn migrating() -> MeshUpgradeStatus {
    let entry = |kind: &str, name: &str, since: &str| json!({"kind": kind, "namespace": "payments", "name": name, "uid": name, "since": since});
    status(
        json!({"phase": "Migrating", "wave": 1, "step": "Restart", "workloadsDone": 3, "batch": {
            "number": 4,
            "entries": [
                entry("Deployment", "api", "2026-01-01T12:00:00Z"),
                entry("StatefulSet", "ledger", "2026-01-01T12:00:08Z"),
            ],
        }}),
        json!({"phase": "Migrating", "wave": "2/3", "progress": "7/38", "blocked": [
            {"reason": "RolloutInProgress", "kind": "Deployment", "namespace": "payments", "name": "api",
             "message": "Deployment payments/api: 1 of 3 pods updated"},
            {"reason": "BudgetExhausted", "kind": "Deployment", "namespace": "shop-eu", "name": "web",
             "message": "its budget leaves no room"},
        ]}),
    )
}

/// On the way back from the second wave.
pub fn rolling_back() -> MeshUpgradeStatus {
    status(
        json!({"phase": "RollingBack", "wave": 1, "step": "Restart", "workloadsDone": 3, "rollback": {
            "cause": "WorkloadFailed", "message": "Deployment payments/api did not come through", "fromWave": 1,
            "since": "2026-01-01T12:00:00Z",
        }}),
        json!({"phase": "RollingBack", "wave": "2/3", "progress": "3/15"}),
    )
}

/// At the end, when the old control plane is to go.
pub fn completing() -> MeshUpgradeStatus {
    status(
        json!({"phase": "Completing", "wave": 3, "step": "Relabel", "workloadsDone": 38}),
        json!({"phase": "Completing", "wave": "3/3", "progress": "38/38",
            "checks": [{"name": "NamespacesMoved", "outcome": "Passed"}, {"name": "TagsMoved", "outcome": "Skipped"}],
            "blocked": [{"reason": "RemovalPending", "message":
                "nothing refers to asm-1-27 any more: remove it the way it was installed, for example with helm \
                 uninstall istiod-asm-1-27 -n istio-system, or by the commit that takes it out of Git"}],
        }),
    )
}

/// The run of a status, to be changed.
pub fn run(status: &mut MeshUpgradeStatus) -> &mut Run {
    status.run.as_mut().unwrap()
}
