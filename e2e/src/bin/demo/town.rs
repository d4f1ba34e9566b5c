//! The mesh of the demo: the namespaces and workloads of a shop, all on the source revision but one namespace.

use meshupgrade_core::aks::ISTIO_NAMESPACE;
use meshupgrade_core::mesh_config;
use meshupgrade_e2e::{App, Mesh, SOURCE};
use serde_json::{Value, json};

/// Namespaces with a further label.
const NAMESPACES: [(&str, &[(&str, &str)]); 13] = [
    ("catalog", &[]),
    ("edge", &[]),
    ("identity", &[]),
    ("notifications", &[]),
    ("observability", &[]),
    ("orders", &[]),
    ("payments", &[]),
    ("sandbox", &[(WAVE, "canary")]),
    ("search", &[]),
    ("shipping", &[]),
    ("shop-eu", &[]),
    ("shop-us", &[]),
    (OUTSIDE, &[(WAVE, "canary")]),
];
/// The label that the canary wave selects.
const WAVE: &str = "mesh-upgrade-wave";
/// The label of all namespaces.
pub const SELECTOR: &str = "env=prod";
/// A namespace that the canary wave's selector matches and that is in no mesh.
pub const OUTSIDE: &str = "legacy-crm";
/// The workload that does not come up on the target in the demo of the way back.
pub const BROKEN: (&str, &str) = ("shop-eu", "checkout");

/// What controls the pods.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Deployment,
    StatefulSet,
    DaemonSet,
    /// A Deployment of an injected gateway.
    Gateway,
}

use Kind::{DaemonSet, Deployment, Gateway, StatefulSet};

/// Namespace, kind, name, replicas, how many of them a budget keeps (0: none), and milliseconds until a pod is ready.
type Row = (&'static str, Kind, &'static str, usize, usize, u32);

const WORKLOADS: [Row; 40] = [
    ("catalog", Deployment, "api", 2, 1, 2500),
    ("catalog", Deployment, "images", 2, 0, 1500),
    ("catalog", Deployment, "prices", 1, 0, 2000),
    ("edge", Gateway, "ingress", 2, 1, 1500),
    ("identity", Deployment, "login", 3, 2, 1500),
    ("identity", Deployment, "profile", 1, 0, 3500),
    ("identity", Deployment, "tokens", 2, 1, 2000),
    (OUTSIDE, Deployment, "crm", 2, 0, 1000),
    (OUTSIDE, Deployment, "reports", 1, 0, 1000),
    ("notifications", Deployment, "mail", 1, 0, 3000),
    ("notifications", Deployment, "push", 2, 0, 1500),
    ("notifications", Deployment, "templates", 1, 0, 2500),
    ("observability", DaemonSet, "collector", 3, 0, 1500),
    ("observability", Deployment, "dashboards", 1, 0, 4000),
    ("observability", DaemonSet, "node-logs", 3, 0, 1000),
    ("orders", Deployment, "api", 3, 2, 2000),
    ("orders", StatefulSet, "store", 2, 0, 2000),
    ("orders", Deployment, "worker", 4, 2, 2500),
    ("payments", Deployment, "api", 3, 2, 1500),
    ("payments", Deployment, "fraud-check", 2, 0, 2500),
    ("payments", StatefulSet, "ledger", 3, 2, 1500),
    ("payments", Deployment, "vault", 1, 0, 3500),
    ("sandbox", Deployment, "echo", 1, 0, 2000),
    ("sandbox", Deployment, "feature-flags", 2, 1, 1500),
    ("sandbox", StatefulSet, "scratch", 1, 0, 1500),
    ("search", StatefulSet, "index", 3, 2, 1500),
    ("search", Deployment, "indexer", 1, 0, 4500),
    ("search", Deployment, "query", 4, 3, 2000),
    ("shipping", Deployment, "labels", 2, 0, 2000),
    ("shipping", Deployment, "rates", 1, 0, 1500),
    ("shipping", Deployment, "tracker", 1, 0, 3000),
    ("shop-eu", Deployment, "cart", 2, 1, 2500),
    ("shop-eu", Deployment, "checkout", 2, 1, 2000),
    ("shop-eu", StatefulSet, "sessions", 2, 0, 1500),
    ("shop-eu", Deployment, "web", 3, 2, 1500),
    ("shop-us", Deployment, "cart", 2, 1, 2000),
    ("shop-us", Deployment, "checkout", 2, 1, 2500),
    ("shop-us", StatefulSet, "sessions", 2, 0, 1500),
    ("shop-us", Deployment, "web", 4, 3, 1500),
    ("shop-us", Deployment, "wishlist", 1, 0, 3000),
];

/// The mesh. `broken_on` names the revision on which one workload never becomes ready.
pub fn mesh(broken_on: Option<&str>) -> Mesh {
    let with_namespaces = NAMESPACES.iter().fold(Mesh::new(), |mesh, (name, labels)| {
        let revision = (*name != OUTSIDE).then_some(("istio.io/rev", SOURCE));
        let labels: Vec<(&str, &str)> =
            labels.iter().copied().chain(SELECTOR.split_once('=')).chain(revision).collect();
        mesh.namespace(name, &labels)
    });
    WORKLOADS.iter().fold(with_namespaces, |mesh, row| {
        let broken = broken_on.filter(|_| (row.0, row.2) == BROKEN);
        mesh.app(broken.iter().fold(app(*row), |app, revision| app.set("never-ready-on", revision)))
    })
}

/// What the users of the AKS add-on put beside its own mesh configuration, for the source revision.
pub fn mesh_config() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": format!("{}-{SOURCE}", mesh_config::NAME), "namespace": ISTIO_NAMESPACE},
        "data": {mesh_config::KEY: "accessLogFile: /dev/stdout\nenableTracing: true\n"}})
}

fn app((namespace, kind, name, replicas, kept, ready): Row) -> App {
    let app = match kind {
        Deployment => App::deployment(namespace, name),
        StatefulSet => App::stateful_set(namespace, name),
        DaemonSet => App::daemon_set(namespace, name),
        Gateway => App::deployment(namespace, name)
            .pod_label("sidecar.istio.io/inject", "true")
            .pod_annotation("inject.istio.io/templates", "gateway"),
    };
    let app = app.replicas(replicas).set("ready-after", &format!("{ready}ms"));
    if kept > 0 { app.min_available(kept) } else { app }
}

/// All namespaces.
pub fn namespaces() -> impl Iterator<Item = &'static str> {
    NAMESPACES.iter().map(|(name, _)| *name)
}

/// The namespaces of the mesh.
pub fn meshed() -> impl Iterator<Item = &'static str> {
    namespaces().filter(|name| *name != OUTSIDE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_town_is_what_the_readme_says() {
        let kinds =
            |wanted: &str| mesh(None).apps.iter().filter(|app| app.workload().resource == wanted).count();
        assert_eq!((kinds("deployments"), kinds("statefulsets"), kinds("daemonsets")), (32, 6, 2));
        assert_eq!(meshed().count(), 12);
        assert!(WORKLOADS.iter().any(|row| (row.0, row.2) == BROKEN));
        assert!(WORKLOADS.iter().all(|row| namespaces().any(|name| name == row.0)));
    }

    #[test]
    fn budgets_leave_room_for_a_restart() {
        assert!(WORKLOADS.iter().all(|row| row.4 == 0 || row.4 < row.3));
    }
}
