//! The Azure CLI.

use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Python, federated_token};
use crate::Simulator;

/// `az`, signed in to a simulator as an application that it knows.
pub struct Az<'a>(Python<'a>);

impl<'a> Az<'a> {
    /// Registers the simulator as a cloud and signs in there. Installs az if need be: see [`super::install`].
    pub async fn sign_in(simulator: &'a Simulator) -> Result<Self> {
        let az = Self(Python::new(simulator).await?);
        let base = simulator.base_url();
        let register = [
            ["--name", "Simulated"],
            ["--endpoint-resource-manager", base],
            ["--endpoint-management", base],
            ["--endpoint-active-directory", base],
            ["--endpoint-active-directory-resource-id", base],
        ]
        .concat();
        az.run("cloud register --skip-endpoint-discovery", &register).await?;
        az.run("cloud set", &["--name", "Simulated"]).await?;
        let (client, tenant, token) = (az.0.client()?, &simulator.config().tenant, federated_token());
        let login = ["--username", client, "--tenant", tenant, "--federated-token", &token];
        az.run("login --service-principal", &login).await?;
        Ok(az)
    }

    /// One command; what it prints is JSON or nothing.
    pub async fn run(&self, command: &str, arguments: &[&str]) -> Result<Value> {
        let mut all = vec!["-m", "azure.cli"];
        all.extend(command.split(' '));
        all.extend(arguments);
        all.extend(["--output", "json"]);
        let begun = Instant::now();
        let text = self.0.run(&all).await?;
        eprintln!("az {command}: {:.1} s", begun.elapsed().as_secs_f32());
        Ok(if text.trim().is_empty() { Value::Null } else { serde_json::from_str(&text)? })
    }

    /// `az aks mesh` of the simulator's first cluster. Returns when Azure has done what it says.
    pub async fn mesh(&self, command: &str, arguments: &[&str]) -> Result<Value> {
        let cluster = self.0.simulator.config().clusters.first().context("the simulator has no cluster")?;
        let mut all = vec!["--resource-group", &cluster.resource_group, "--name", &cluster.name];
        all.extend(arguments);
        self.run(&format!("aks mesh {command}"), &all).await
    }
}
