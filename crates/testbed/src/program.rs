//! Further programs of a cluster, which only some tests need.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::cluster::Cluster;
use crate::lock;
use crate::process::{Kept, Spec};

/// Where one istiod answers without TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IstiodAddress {
    /// Its revision.
    pub revision: String,
    /// Host and port of its metrics.
    pub monitoring: String,
    /// Host and port of its plaintext xDS.
    pub xds: String,
}

/// How a program is started.
#[derive(Debug, Clone)]
pub struct ProgramSpec {
    /// One of the built programs, also the name of its log.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Where it runs and logs.
    pub dir: PathBuf,
}

/// A running program under the testbed's keeper: it ends when this is dropped or this process ends.
#[derive(Debug)]
pub struct Program(Kept);

impl Program {
    /// Fails with the end of its log when it has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        if !self.0.is_running() {
            bail!("{} ended:\n{}", self.0.name(), self.0.log_tail());
        }
        Ok(())
    }

    /// Ends it in order and waits until it is gone.
    pub async fn stop(self) -> Result<()> {
        tokio::task::spawn_blocking(move || drop(self)).await?;
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.0.terminate();
        self.0.wait_gone(Duration::from_secs(4));
    }
}

impl Cluster {
    /// Starts one of the built programs.
    pub fn start_program(&self, spec: &ProgramSpec) -> Result<Program> {
        let spec = Spec {
            name: spec.program.clone(),
            program: self.binaries.path(&spec.program),
            args: spec.args.clone(),
            env: Vec::new(),
            dir: spec.dir.clone(),
        };
        Ok(Program(Kept::spawn(&self.binaries.path("keeper"), &spec)?))
    }

    /// Takes one of the cluster's ports on 127.0.0.1 for good.
    pub fn take_port(&self) -> Result<u16> {
        lock(&self.ports).take()
    }

    /// The addresses of the installed istiods. They stay the same over restarts of the process, not of an installation.
    pub fn istiod_addresses(&self) -> Vec<IstiodAddress> {
        let local = |port: u16| format!("127.0.0.1:{port}");
        let istiods = lock(&self.istiods);
        let addresses = istiods.iter().map(|(revision, istiod)| IstiodAddress {
            revision: revision.clone(),
            monitoring: local(istiod.ports.monitoring),
            xds: local(istiod.ports.grpc),
        });
        addresses.collect()
    }
}
