//! The real clients against the simulator: the Azure SDK for Python and the Azure CLI.

mod python;

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use meshupgrade_arm_simulator::{Call, ClusterConfig, Config, End, Fault, InMemory, Simulator, Times};
use serde_json::{Value, json};
use tokio::process::Command;

struct Setup {
    simulator: Simulator,
    cluster: ClusterConfig,
    control_planes: Arc<InMemory>,
    directory: tempfile::TempDir,
    python: std::path::PathBuf,
}

async fn setup(retry_after: Option<u64>) -> Result<Setup> {
    let python = tokio::task::spawn_blocking(python::ensure).await??;
    let control_planes = InMemory::with(&["asm-1-27"]);
    let cluster = ClusterConfig::new(control_planes.clone(), &["asm-1-27"]);
    let simulator = Simulator::start(Config { retry_after, ..Config::new(vec![cluster.clone()]) }).await?;
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("ca.crt"), simulator.ca_pem())?;
    Ok(Setup { simulator, cluster, control_planes, directory, python })
}

impl Setup {
    /// Python with these arguments; nothing but the simulator can be reached.
    fn command(&self, arguments: &[&str]) -> Command {
        let config = self.simulator.config();
        let mut command = Command::new(&self.python);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.directory.path())
            .env("AZURE_CONFIG_DIR", self.directory.path().join("azure"))
            .env("REQUESTS_CA_BUNDLE", self.directory.path().join("ca.crt"))
            // Whatever wants to leave this machine meets a closed port.
            .env("HTTPS_PROXY", "http://127.0.0.1:1")
            .env("HTTP_PROXY", "http://127.0.0.1:1")
            .env("NO_PROXY", "127.0.0.1")
            .env("SIM_BASE_URL", self.simulator.base_url())
            .env("SIM_TENANT", &config.tenant)
            .env("SIM_CLIENT", &config.clients[0])
            .env("SIM_SUBSCRIPTION", &self.cluster.subscription)
            .env("SIM_GROUP", &self.cluster.resource_group)
            .env("SIM_CLUSTER", &self.cluster.name)
            .env("SIM_FEDERATED_TOKEN", federated_token())
            // These are az's own settings: section and key of its configuration file.
            .env("AZURE_CORE_COLLECT_TELEMETRY", "false")
            .env("AZURE_CORE_INSTANCE_DISCOVERY", "false")
            .env("AZURE_CORE_LOGIN_EXPERIENCE_V2", "off")
            .env("AZURE_EXTENSION_USE_DYNAMIC_INSTALL", "no")
            .kill_on_drop(true);
        command
    }

    /// The output, or everything that was said.
    async fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output().await.context("python")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!(
                "{arguments:?}\n{text}\n{}\n{:#?}",
                String::from_utf8_lossy(&output.stderr),
                self.simulator.journal()
            );
        }
        Ok(text)
    }

    fn puts(&self) -> Vec<Vec<String>> {
        self.simulator.accepted_puts().into_iter().filter_map(|entry| entry.revisions).collect()
    }
}

/// What a projected ServiceAccount token looks like to the token endpoint.
fn federated_token() -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let payload = json!({"aud": ["api://AzureADTokenExchange"], "sub": "system:serviceaccount:test:test"});
    format!("{}.{}.{}", part(json!({"alg": "RS256"})), part(payload), "signature")
}

#[tokio::test]
async fn the_azure_sdk_for_python_upgrades_completes_and_rolls_back() {
    let setup = setup(None).await.unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/sdk.py");
    // Four PUTs are accepted, two refused, and the operation of the next one fails.
    let failed = Fault::OperationEnds { end: End::Failed, reverted: true };
    setup.simulator.plant_at(Call::PutCluster, failed, Times::At { after: 6, count: 1 }).unwrap();
    let output = setup.run(&[script]).await.unwrap();
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

impl Setup {
    /// One command of az; what it prints is JSON or nothing.
    async fn az(&self, command: &str, arguments: &[&str]) -> Result<Value> {
        let mut all = vec!["-m", "azure.cli"];
        all.extend(command.split(' '));
        all.extend(arguments);
        all.extend(["--output", "json"]);
        let begun = Instant::now();
        let text = self.run(&all).await?;
        eprintln!("az {command}: {:.1} s", begun.elapsed().as_secs_f32());
        Ok(if text.trim().is_empty() { Value::Null } else { serde_json::from_str(&text)? })
    }

    async fn mesh(&self, command: &str, arguments: &[&str]) -> Result<Value> {
        let mut all = vec!["--resource-group", &self.cluster.resource_group, "--name", &self.cluster.name];
        all.extend(arguments);
        self.az(&format!("aks mesh {command}"), &all).await
    }

    async fn az_signs_in(&self) -> Result<()> {
        let base = self.simulator.base_url();
        let config = self.simulator.config();
        let register = [
            ["--name", "Simulated"],
            ["--endpoint-resource-manager", base],
            ["--endpoint-management", base],
            ["--endpoint-active-directory", base],
            ["--endpoint-active-directory-resource-id", base],
        ]
        .concat();
        self.az("cloud register --skip-endpoint-discovery", &register).await?;
        self.az("cloud set", &["--name", "Simulated"]).await?;
        let token = federated_token();
        let login =
            ["--username", &config.clients[0], "--tenant", &config.tenant, "--federated-token", &token];
        self.az("login --service-principal", &login).await?;
        Ok(())
    }
}

#[tokio::test]
async fn the_azure_cli_upgrades_completes_and_rolls_back() {
    // Without Retry-After it waits 30 s between two looks at an operation.
    let setup = setup(Some(1)).await.unwrap();
    setup.az_signs_in().await.unwrap();
    let offered = setup.az("aks mesh get-revisions", &["--location", "westus2"]).await.unwrap();
    assert_eq!(offered["meshRevisions"][3]["revision"], "asm-1-29");
    let upgrades = setup.mesh("get-upgrades", &[]).await.unwrap();
    assert_eq!(
        (&upgrades["revision"], &upgrades["upgrades"]),
        (&json!("asm-1-27"), &json!(["asm-1-28", "asm-1-29"]))
    );
    let revisions = |cluster: &Value| cluster["serviceMeshProfile"]["istio"]["revisions"].clone();

    let started = setup.mesh("upgrade start", &["--revision", "asm-1-28"]).await.unwrap();
    assert_eq!(revisions(&started), json!(["asm-1-27", "asm-1-28"]));
    let refusal = setup.mesh("get-upgrades", &[]).await.unwrap_err().to_string();
    assert!(refusal.contains("(ServiceMeshUpgradeInProgress) Mesh upgrade is in progress."), "{refusal}");
    let rolled_back = setup.mesh("upgrade rollback", &["--yes"]).await.unwrap();
    assert_eq!(revisions(&rolled_back), json!(["asm-1-27"]));
    setup.mesh("upgrade start", &["--revision", "asm-1-28"]).await.unwrap();
    let completed = setup.mesh("upgrade complete", &["--yes"]).await.unwrap();
    assert_eq!(revisions(&completed), json!(["asm-1-28"]));
    let refusal = setup.mesh("upgrade start", &["--revision", "asm-1-27"]).await.unwrap_err().to_string();
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
