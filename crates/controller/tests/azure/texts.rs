//! What a user reads for each row of the error tables of the AKS documentation, and for each answer of its API: a golden file,
//! which `UPDATE_GOLDEN=1` rewrites.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use meshupgrade_arm_simulator::default_document;
use meshupgrade_core::aks::cluster::ManagedCluster;
use meshupgrade_core::aks::offers::{MeshUpgrades, revisions, upgrades};
use meshupgrade_core::aks::problem::{Answer, ArmProblem, Asked};
use meshupgrade_core::aks::seen::{ClusterSeen, Offers, WriteOutcome, WriteSeen};
use meshupgrade_core::decide;
use meshupgrade_core::decision::{CheckOutcome, Decision, Needs};
use meshupgrade_core::effect::Effect;
use meshupgrade_core::intent::Intent;
use meshupgrade_core::record::Record;
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::mesh::{Mesh, OTHER, SOURCE, TARGET, intent};

/// A cluster as a reading shows it, and what decisions make of it.
struct Reader {
    mesh: Mesh,
    intent: Intent,
    installed: BTreeSet<String>,
    ready: bool,
    seen: ClusterSeen,
    clock: Clock,
    record: Record,
    needs: Needs,
}

impl Reader {
    fn new(change: impl FnOnce(&mut Value)) -> Self {
        let mut document = default_document(&[SOURCE]);
        change(&mut document);
        let clock = Clock::default();
        let profile = |name: &str, goes: &[&str], versions: &[&str]| {
            json!({"revision": name, "upgrades": goes, "compatibleWith": [
                {"name": "KubernetesOfficial", "versions": versions}]})
        };
        let source = profile(SOURCE, &[TARGET, OTHER], &["1.32", "1.33"]);
        let all = json!({"value": [{"properties": {"meshRevisions": [source,
            profile(TARGET, &[OTHER], &["1.32", "1.33"]), profile(OTHER, &[], &["1.34"])]}}]});
        let seen = ClusterSeen {
            read_at: clock.now(),
            cluster: Ok(ManagedCluster::parse(&document).unwrap()),
            egress_gateways: None,
            offers: Some(Offers {
                upgrades: Ok(upgrades(&json!({"value": [{"properties": source}]})).unwrap()),
                revisions: Ok(revisions(&all).unwrap()),
            }),
            write: None,
        };
        Self {
            mesh: Mesh::new(),
            intent: intent(),
            installed: BTreeSet::from([SOURCE.to_owned()]),
            ready: true,
            seen,
            clock,
            record: Record::default(),
            needs: Needs::default(),
        }
    }

    fn pass(&mut self) -> Decision {
        let now = self.clock.now();
        self.seen.read_at = now;
        let mut snapshot = self.mesh.snapshot(&self.installed, &self.needs);
        if !self.ready {
            let target = snapshot.control_planes.get_mut(&TARGET.into()).unwrap();
            target.istiod.as_mut().unwrap().ready = 0;
        }
        snapshot.aks = Some(self.seen.clone());
        let decision = decide(now, &self.intent, &self.record, &snapshot);
        self.mesh.count(decision.needs.census_since, now);
        (self.record, self.needs) = (decision.record.clone(), decision.needs.clone());
        decision
    }

    /// What is shown when nothing goes on by itself any more: failed checks and warnings, or the first reason to wait.
    fn shows(mut self) -> String {
        let last = (0..10).map(|_| self.pass()).last().unwrap();
        let checks = last.view.checks.iter().filter(|it| it.name.starts_with("Aks"));
        let mut lines: Vec<String> = checks
            .filter(|check| check.outcome != CheckOutcome::Passed)
            .map(|check| format!("check {} ({:?}): {}", check.name, check.outcome, check.message))
            .collect();
        if lines.is_empty() {
            lines.extend(last.view.blocked.first().map(|wait| format!("{}: {}", wait.reason, wait.because)));
        }
        lines.join("\n  ")
    }

    /// What is shown when Azure has answered the start with this.
    fn shows_refusal(mut self, problem: ArmProblem) -> String {
        let asked = (0..10).find_map(|_| {
            self.pass().effects.into_iter().find_map(|effect| match effect {
                Effect::SetRevisions(change) => Some(change),
                _ => None,
            })
        });
        let at = self.clock.now();
        self.seen.write =
            Some(WriteSeen { stamp: asked.unwrap().stamp, outcome: WriteOutcome::Failed(problem), at });
        self.shows()
    }
}

fn answered(asked: Asked, status: u16, body: &Value) -> ArmProblem {
    let answer = Answer { status: Some(status), retry_after_seconds: Some(17), request_id: None, body };
    ArmProblem::from_answer(asked, &answer)
}

/// A refusal of a change of the mesh with these words.
fn refused(message: &str) -> String {
    let body = json!({"error": {"code": "BadRequest", "message": message}});
    Reader::new(|_| {}).shows_refusal(answered(Asked::SetRevisions, 400, &body))
}

fn answer(status: u16, body: &Value) -> String {
    Reader::new(|_| {}).shows_refusal(answered(Asked::SetRevisions, status, body))
}

/// What is shown of a cluster that is like this.
fn found(change: impl FnOnce(&mut Value)) -> String {
    Reader::new(change).shows()
}

/// A row: what it is about in the table, and what is read.
type Row = (&'static str, Vec<String>);

fn messages() -> Vec<Row> {
    let plugin = "/properties/serviceMeshProfile/istio/certificateAuthority/plugin";
    vec![
        (
            "Azure service mesh is not supported in this region",
            vec![refused("Azure service mesh is not supported in this region"), no_region()],
        ),
        ("Missing service mesh mode: {}", vec![refused("Missing service mesh mode: {}")]),
        ("Invalid istio ingress mode: {}", vec![refused("Invalid istio ingress mode: Public")]),
        (
            "Too many ingresses for type: {}. Only {} ingress gateway are allowed",
            vec![refused("Too many ingresses for type: External. Only 1 ingress gateway are allowed")],
        ),
        (
            "Istio profile is missing even though Service Mesh mode is Istio",
            vec![refused("Istio profile is missing even though Service Mesh mode is Istio")],
        ),
        (
            "Istio based Azure service mesh is incompatible with feature %s",
            vec![
                refused("Istio based Azure service mesh is incompatible with feature OpenServiceMesh"),
                found(|cluster| {
                    cluster["properties"]["addonProfiles"]["openServiceMesh"] = json!({"enabled": true});
                }),
            ],
        ),
        (
            "ServiceMeshProfile is missing required parameters: %s for plugin certificate authority",
            vec![
                refused(
                    "ServiceMeshProfile is missing required parameters: certObjectName for plugin certificate authority",
                ),
                found(|cluster| {
                    *cluster.pointer_mut(&format!("{plugin}/certObjectName")).unwrap() = json!("")
                }),
            ],
        ),
        (
            "AzureKeyvaultSecretsProvider addon is required for Azure Service Mesh plugin certificate authority feature",
            vec![
                refused(
                    "AzureKeyvaultSecretsProvider addon is required for Azure Service Mesh plugin certificate authority feature",
                ),
                found(|cluster| {
                    cluster["properties"]["addonProfiles"]["azureKeyvaultSecretsProvider"]["enabled"] =
                        json!(false);
                }),
            ],
        ),
        (
            "'KeyVaultId': '%s' is not a valid Azure keyvault resource identifier",
            vec![
                refused("'KeyVaultId': 'my-vault' is not a valid Azure keyvault resource identifier."),
                found(|cluster| {
                    *cluster.pointer_mut(&format!("{plugin}/keyVaultId")).unwrap() = json!("my-vault")
                }),
            ],
        ),
        (
            "Kubernetes version is missing in orchestrator profile",
            vec![refused("Kubernetes version is missing in orchestrator profile")],
        ),
        (
            "Service mesh revision %s is not compatible with cluster version %s",
            vec![
                refused("Service mesh revision asm-1-28 is not compatible with cluster version 1.36."),
                found(|cluster| cluster["properties"]["currentKubernetesVersion"] = json!("1.36.0")),
            ],
        ),
        (
            "Kubernetes version %s not supported. Please upgrade to a supported cluster version first",
            vec![refused(
                "Kubernetes version 1.27 not supported. Please upgrade to a supported cluster version first.",
            )],
        ),
        (
            "ServiceMeshProfile revision field must not be empty",
            vec![refused("ServiceMeshProfile revision field must not be empty")],
        ),
        (
            "Request exceeds maximum allowed number of revisions (%d)",
            vec![
                refused("Request exceeds maximum allowed number of revisions (2)"),
                found(|cluster| {
                    cluster["properties"]["serviceMeshProfile"]["istio"]["revisions"] =
                        json!([SOURCE, OTHER]);
                }),
            ],
        ),
        (
            "Mesh upgrade is in progress. Please complete or roll back the current upgrade before attempting to retrieve …",
            vec![refused(
                "Mesh upgrade is in progress. Please complete or roll back the current upgrade before attempting to retrieve \
                 versioning and compatibility information",
            )],
        ),
    ]
}

fn no_region() -> String {
    let mut reader = Reader::new(|_| {});
    reader.seen.offers =
        Some(Offers { upgrades: Ok(MeshUpgrades::NothingOffered), revisions: Ok(Vec::new()) });
    reader.shows()
}

/// The matrix and the restrictions of the article on minor revision upgrades.
fn situations() -> Vec<Row> {
    let set = |cluster: &mut Value, names: &[&str]| {
        cluster["properties"]["serviceMeshProfile"]["istio"]["revisions"] = json!(names);
    };
    let mut pending = Reader::new(|cluster| set(cluster, &[SOURCE, TARGET]));
    pending.installed.insert(TARGET.to_owned());
    pending.ready = false;
    let mut absent = Reader::new(|cluster| set(cluster, &[SOURCE, TARGET]));
    absent.installed.insert(SOURCE.to_owned());
    let mut nothing = Reader::new(|_| {});
    if let Some(offers) = &mut nothing.seen.offers {
        offers.upgrades = Ok(MeshUpgrades::NothingOffered);
    }
    nothing.intent.target = OTHER.into();
    let mut down = Reader::new(|_| {});
    down.intent.target = "asm-1-26".into();
    let mut far = Reader::new(|_| {});
    far.intent.target = "asm-1-30".into();
    vec![
        ("Data plane workloads are dropped from the mesh", vec![found(|cluster| set(cluster, &[OTHER]))]),
        ("Control plane pods are in the pending state", vec![pending.shows(), absent.shows()]),
        ("get-upgrades returns no available upgrades", vec![nothing.shows()]),
        ("A downgrade isn't allowed", vec![down.shows()]),
        ("Available upgrades depend on what is supported", vec![far.shows()]),
    ]
}

/// The answers of the API.
fn answers() -> Vec<Row> {
    let error = |code: &str, message: &str| json!({"error": {"code": code, "message": message}});
    let busy = "Operation is not allowed: Another operation (nodepool1 - Updating) is in progress, please wait for it to finish before starting a new operation.";
    let raced = json!({"code": "EtagMismatch", "subcode": "PutManagedCluster_EtagMismatch",
        "message": "Operation is not allowed because there's an in progress update managed cluster operation", "details": null});
    let forbidden = "The client '2' with object id '2' does not have authorization to perform action 'Microsoft.ContainerService/managedClusters/write' over scope '/subscriptions/3'.";
    let change = "Requested change in revisions is not allowed. Reason: Revision asm-1-28 is not supported";
    // It comes with two revisions in the cluster, which say it all: the client takes it for an answer, not for a problem.
    let mut offers = Reader::new(|cluster| {
        cluster["properties"]["serviceMeshProfile"]["istio"]["revisions"] = json!([SOURCE, OTHER]);
    });
    if let Some(found) = &mut offers.seen.offers {
        found.upgrades = Ok(MeshUpgrades::UpgradeInProgress);
    }
    vec![
        ("409 OperationNotAllowed", vec![answer(409, &error("OperationNotAllowed", busy))]),
        ("409 EtagMismatch, flat", vec![answer(409, &raced)]),
        (
            "412",
            vec![answer(412, &error("PreconditionFailed", "The condition 'If-Match' evaluated to false."))],
        ),
        ("409 ServiceMeshUpgradeInProgress on meshUpgradeProfiles", vec![offers.shows()]),
        ("400 Requested change in revisions is not allowed", vec![answer(400, &error("BadRequest", change))]),
        (
            "404 ResourceNotFound",
            vec![answer(404, &error("ResourceNotFound", "The Resource was not found."))],
        ),
        ("401", vec![answer(401, &error("InvalidAuthenticationToken", "The access token is invalid."))]),
        ("403", vec![answer(403, &error("AuthorizationFailed", forbidden))]),
        ("429", vec![answer(429, &error("TooManyRequests", "The request is being throttled."))]),
        ("503", vec![answer(503, &error("ServerUnavailable", "Try again."))]),
    ]
}

/// Rows that nothing in the cluster shows, with what the guide has for them.
const COMMANDS: [(&str, &str); 4] = [
    (
        "sidecar.istio.io/inject doesn't enable injection",
        "kubectl get pods -A -l sidecar.istio.io/inject=true",
    ),
    ("Labeling must occur on a namespace level", "kubectl get pods -A -l istio.io/rev"),
    (
        "Shared MeshConfig must be copied",
        "kubectl get configmap istio-shared-configmap-asm-1-27 -n aks-istio-system -o yaml",
    ),
    ("Ingress gateways are deployed per revision", "kubectl get pods -n aks-istio-ingress"),
];

fn section(text: &mut String, title: &str, rows: Vec<Row>) {
    let _ = writeln!(text, "# {title}\n");
    for (row, read) in rows {
        let _ = writeln!(text, "{row}");
        for words in read {
            assert!(!words.is_empty(), "nobody is told anything about {row}");
            let _ = writeln!(text, "  {words}");
        }
        text.push('\n');
    }
}

#[test]
fn every_row_has_its_words() {
    let mut text = String::new();
    section(&mut text, "Error messages of the add-on (troubleshooting, general)", messages());
    section(&mut text, "Minor revision upgrades (troubleshooting matrix and restrictions)", situations());
    section(&mut text, "Answers of the API", answers());
    let guide =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/aks.md")).unwrap();
    let _ = writeln!(text, "# In the guide only (docs/aks.md)\n");
    for (row, command) in COMMANDS {
        assert!(guide.contains(command), "docs/aks.md does not have {command}");
        let _ = writeln!(text, "{row}\n  {command}\n");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/azure.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    for (ours, golden) in text.lines().zip(golden.lines()) {
        assert_eq!(ours, golden, "{}: read the difference, then UPDATE_GOLDEN=1", path.display());
    }
    assert_eq!(text.lines().count(), golden.lines().count());
}
