//! The real clients against a simulator: the Azure SDK for Python and the Azure CLI, which are installed into the cache once and
//! can reach nothing but the simulator while they run.
//!
//! ```no_run
//! # async fn example(simulator: &meshupgrade_arm_simulator::Simulator) -> anyhow::Result<()> {
//! use meshupgrade_arm_simulator::clients::Az;
//! let az = Az::sign_in(simulator).await?;
//! az.mesh("upgrade start", &["--revision", "asm-1-28"]).await?;
//! # Ok(())
//! # }
//! ```

mod az;
mod environment;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::Simulator;

/// A whole upgrade with the Azure SDK; with arguments, one change of the revisions.
pub const SDK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/sdk.py");

pub use az::Az;
pub use environment::install;

/// Python with the real clients, for one simulator and its first cluster.
pub struct Python<'a> {
    simulator: &'a Simulator,
    interpreter: PathBuf,
    /// Its home, with the configuration of az and the certificate authority of the simulator.
    home: tempfile::TempDir,
}

impl<'a> Python<'a> {
    /// With an empty home. Installs the clients if need be: see [`install`].
    pub async fn new(simulator: &'a Simulator) -> Result<Self> {
        let interpreter = tokio::task::spawn_blocking(install).await??;
        let home = tempfile::tempdir()?;
        std::fs::write(home.path().join("ca.crt"), simulator.ca_pem())?;
        Ok(Self { simulator, interpreter, home })
    }

    /// Sets the revisions of the cluster's mesh with the Azure SDK, and waits for the end of that operation.
    pub async fn set_revisions(&self, revisions: &[&str]) -> Result<()> {
        self.run(&[&[SDK], revisions].concat()).await.map(drop)
    }

    /// Runs Python with these arguments. Returns its output; its errors have everything that was said, and the journal.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command()?.args(arguments).output().await.context("python")?;
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

    /// Nothing but the simulator can be reached.
    fn command(&self) -> Result<Command> {
        let config = self.simulator.config();
        let cluster = config.clusters.first().context("the simulator has no cluster")?;
        let home = self.home.path();
        let mut command = Command::new(&self.interpreter);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home)
            .env("AZURE_CONFIG_DIR", home.join("azure"))
            .env("REQUESTS_CA_BUNDLE", home.join("ca.crt"))
            // Whatever wants to leave this machine meets a closed port.
            .env("HTTPS_PROXY", "http://127.0.0.1:1")
            .env("HTTP_PROXY", "http://127.0.0.1:1")
            .env("NO_PROXY", "127.0.0.1")
            .env("SIM_BASE_URL", self.simulator.base_url())
            .env("SIM_TENANT", &config.tenant)
            .env("SIM_CLIENT", self.client()?)
            .env("SIM_SUBSCRIPTION", &cluster.subscription)
            .env("SIM_GROUP", &cluster.resource_group)
            .env("SIM_CLUSTER", &cluster.name)
            .env("SIM_FEDERATED_TOKEN", federated_token())
            // These are az's own settings: section and key of its configuration file.
            .env("AZURE_CORE_COLLECT_TELEMETRY", "false")
            .env("AZURE_CORE_INSTANCE_DISCOVERY", "false")
            .env("AZURE_CORE_LOGIN_EXPERIENCE_V2", "off")
            .env("AZURE_EXTENSION_USE_DYNAMIC_INSTALL", "no")
            .kill_on_drop(true);
        Ok(command)
    }

    fn client(&self) -> Result<&str> {
        let client = self.simulator.config().clients.first();
        client.map(String::as_str).context("nobody may sign in to the simulator")
    }
}

/// What a projected ServiceAccount token looks like to the token endpoint.
fn federated_token() -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let payload = json!({"aud": ["api://AzureADTokenExchange"], "sub": "system:serviceaccount:test:test"});
    format!("{}.{}.{}", part(json!({"alg": "RS256"})), part(payload), "signature")
}
