//! The real clients against the simulator: the Azure SDK for Python and the Azure CLI.

use std::sync::Arc;

use anyhow::Result;
use meshupgrade_arm_simulator::clients::{Az, Python, SDK};
use meshupgrade_arm_simulator::{Call, ClusterConfig, Config, End, Fault, InMemory, Simulator, Times};
use serde_json::{Value, json};

struct Setup {
    simulator: Simulator,
    control_planes: Arc<InMemory>,
}

async fn setup(retry_after: Option<u64>) -> Result<Setup> {
    let control_planes = InMemory::with(&["asm-1-27"]);
    let cluster = ClusterConfig::new(control_planes.clone(), &["asm-1-27"]);
    let simulator = Simulator::start(Config { retry_after, ..Config::new(vec![cluster]) }).await?;
    Ok(Setup { simulator, control_planes })
}

impl Setup {
    fn puts(&self) -> Vec<Vec<String>> {
        self.simulator.accepted_puts().into_iter().filter_map(|entry| entry.revisions).collect()
    }
}

#[tokio::test]
async fn the_azure_sdk_for_python_upgrades_completes_and_rolls_back() {
    let setup = setup(None).await.unwrap();
    // Four PUTs are accepted, two refused, and the operation of the next one fails.
    let failed = Fault::OperationEnds { end: End::Failed, reverted: true };
    setup.simulator.plant_at(Call::PutCluster, failed, Times::At { after: 6, count: 1 }).unwrap();
    let python = Python::new(&setup.simulator).await.unwrap();
    let output = python.run(&[SDK]).await.unwrap();
    let seen: Value = serde_json::from_str(output.lines().last().unwrap()).unwrap();
    eprintln!("SDK: {} s", seen["seconds"]);
    assert_eq!(
        seen["offered"],
        json!({
            "asm-1-26": ["asm-1-27", "asm-1-28"],
            "asm-1-27": ["asm-1-28", "asm-1-29"],
            "asm-1-28": ["asm-1-29"],
            "asm-1-29": null,
        })
    );
    assert_eq!(seen["upgrades"], json!(["asm-1-27", ["asm-1-28", "asm-1-29"]]));
    assert_eq!(seen["started"], json!(["asm-1-27", "asm-1-29"]));
    assert_eq!(
        (&seen["during"][0], &seen["during"][1]),
        (&json!(409), &json!("ServiceMeshUpgradeInProgress"))
    );
    assert_eq!(seen["rolled_back"], json!(["asm-1-27"]));
    assert_eq!(seen["started_again"], json!(["asm-1-27", "asm-1-28"]));
    assert_eq!(seen["completed"], json!(["asm-1-28"]));
    assert_eq!(seen["swap"][0], 400);
    assert!(seen["swap"][2].as_str().unwrap().contains("Requested change in revisions is not allowed"));
    assert_eq!(seen["stale"], json!([412, "PreconditionFailed"]));
    assert_eq!(seen["missing"], json!([404, "ResourceNotFound"]));
    assert!(seen["failed"][2].as_str().unwrap().contains("OperationFailed"), "{}", seen["failed"]);

    let asked = [
        vec!["asm-1-27", "asm-1-29"],
        vec!["asm-1-27"],
        vec!["asm-1-27", "asm-1-28"],
        vec!["asm-1-28"],
        vec!["asm-1-28", "asm-1-29"],
    ];
    assert_eq!(setup.puts(), asked);
    for put in setup.simulator.accepted_puts() {
        assert!(put.if_match.is_some_and(|etag| etag.starts_with('"')), "the SDK quotes eTags");
        assert_eq!(put.foreign_changes, [""; 0], "the SDK keeps fields that it does not know");
    }
    let polls = setup.simulator.journal().into_iter().filter(|entry| entry.call == Call::Operation).count();
    assert!(polls >= asked.len(), "{polls} looks at {} operations", asked.len());
    assert!(setup.control_planes.installed().into_iter().eq(["asm-1-28"]));
}

#[tokio::test]
async fn the_azure_cli_upgrades_completes_and_rolls_back() {
    // Without Retry-After it waits 30 s between two looks at an operation.
    let setup = setup(Some(1)).await.unwrap();
    let az = Az::sign_in(&setup.simulator).await.unwrap();
    let offered = az.run("aks mesh get-revisions", &["--location", "westus2"]).await.unwrap();
    assert_eq!(offered["meshRevisions"][3]["revision"], "asm-1-29");
    let upgrades = az.mesh("get-upgrades", &[]).await.unwrap();
    assert_eq!(
        (&upgrades["revision"], &upgrades["upgrades"]),
        (&json!("asm-1-27"), &json!(["asm-1-28", "asm-1-29"]))
    );
    let revisions = |cluster: &Value| cluster["serviceMeshProfile"]["istio"]["revisions"].clone();

    let started = az.mesh("upgrade start", &["--revision", "asm-1-28"]).await.unwrap();
    assert_eq!(revisions(&started), json!(["asm-1-27", "asm-1-28"]));
    let refusal = az.mesh("get-upgrades", &[]).await.unwrap_err().to_string();
    assert!(refusal.contains("(ServiceMeshUpgradeInProgress) Mesh upgrade is in progress."), "{refusal}");
    let rolled_back = az.mesh("upgrade rollback", &["--yes"]).await.unwrap();
    assert_eq!(revisions(&rolled_back), json!(["asm-1-27"]));
    az.mesh("upgrade start", &["--revision", "asm-1-28"]).await.unwrap();
    let completed = az.mesh("upgrade complete", &["--yes"]).await.unwrap();
    assert_eq!(revisions(&completed), json!(["asm-1-28"]));
    let refusal = az.mesh("upgrade start", &["--revision", "asm-1-27"]).await.unwrap_err().to_string();
    assert!(refusal.contains("Downgrade from asm-1-28 to asm-1-27 is not allowed."), "{refusal}");

    let asked =
        [vec!["asm-1-27", "asm-1-28"], vec!["asm-1-27"], vec!["asm-1-27", "asm-1-28"], vec!["asm-1-28"]];
    assert_eq!(setup.puts(), asked);
    for put in setup.simulator.accepted_puts() {
        assert_eq!(put.if_match, None, "az has no lock on what it read");
        assert_eq!(put.foreign_changes, [""; 0]);
    }
    assert!(setup.control_planes.installed().into_iter().eq(["asm-1-28"]));
    let strangers = setup.simulator.journal().into_iter().filter(|entry| entry.call == Call::Other);
    assert_eq!(strangers.count(), 0, "az asks for something that is not simulated");
}
