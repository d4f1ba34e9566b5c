//! The one cluster of this checkout that `testbed up` leaves running.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::binaries::Binaries;
use crate::process::signal;

/// The git-ignored directory of this checkout.
const RUN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.run");

/// Where a background cluster keeps its files, and who it is.
#[derive(Debug, Clone)]
pub struct Session {
    run: PathBuf,
}

impl Session {
    /// The session of this checkout.
    pub fn of_checkout() -> Result<Self> {
        fs::create_dir_all(RUN)?;
        Ok(Self { run: Path::new(RUN).canonicalize()? })
    }

    /// The directory of the background cluster.
    pub fn cluster_dir(&self) -> PathBuf {
        self.run.join("cluster")
    }

    /// The kubeconfig of the background cluster's administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.cluster_dir().join("kubeconfig")
    }

    /// Where the built kubectl and helm are linked.
    pub fn bin_dir(&self) -> PathBuf {
        self.run.join("bin")
    }

    fn log(&self) -> PathBuf {
        self.run.join("cluster.log")
    }

    fn record(&self) -> PathBuf {
        self.run.join("cluster.json")
    }

    fn ready_mark(&self) -> PathBuf {
        self.cluster_dir().join("ready")
    }

    /// The pid of the background process, if it is still the one that was recorded.
    pub fn running(&self) -> Option<u32> {
        let record: Value = serde_json::from_slice(&fs::read(self.record()).ok()?).ok()?;
        let pid = u32::try_from(record["pid"].as_u64()?).ok()?;
        (start_time(pid)? == record["startTime"].as_u64()?).then_some(pid)
    }

    /// Starts `testbed serve` with these arguments in the background and waits until it is ready.
    pub fn up(&self, serve_args: &[String], within: Duration) -> Result<()> {
        let cluster = self.cluster_dir();
        if cluster.exists() {
            fs::remove_dir_all(&cluster).context("cannot remove the previous cluster")?;
        }
        let log = fs::File::create(self.log())?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .args(serve_args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C in this terminal is not meant for it.
            .process_group(0)
            .spawn()?;
        let record = json!({"pid": child.id(), "startTime": start_time(child.id())});
        fs::write(self.record(), record.to_string())?;
        let deadline = Instant::now() + within;
        while !self.ready_mark().exists() {
            if let Some(status) = child.try_wait()? {
                bail!("the cluster did not start ({status}):\n{}", self.log_tail());
            }
            if Instant::now() > deadline {
                signal(child.id(), Signal::TERM);
                bail!("the cluster was not ready after {} s:\n{}", within.as_secs(), self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Called by the background process when everything is ready.
    pub fn mark_ready(&self) -> Result<()> {
        Ok(fs::write(self.ready_mark(), "")?)
    }

    /// Makes the built kubectl and helm reachable under `.run/bin`.
    pub fn link_tools(&self, binaries: &Binaries) -> Result<()> {
        let bin = self.bin_dir();
        fs::create_dir_all(&bin)?;
        for tool in ["kubectl", "helm"] {
            let link = bin.join(tool);
            // Absent the first time, of an older build later.
            let _ = fs::remove_file(&link);
            symlink(binaries.path(tool), &link)?;
        }
        Ok(())
    }

    /// Ends the background cluster and waits until it is gone; `false` when none was running.
    pub fn down(&self) -> Result<bool> {
        let Some(pid) = self.running() else { return Ok(false) };
        signal(pid, Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.running().is_some() {
            if Instant::now() > deadline {
                // Its keepers notice and end everything below it.
                signal(pid, Signal::KILL);
                bail!("the cluster did not end in time and was killed");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = fs::remove_file(self.record());
        Ok(true)
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// When the process started, in ticks since boot; `None` when it is gone or only waits to be collected.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name is in parentheses and may contain anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if fields.first() == Some(&"Z") {
        return None;
    }
    fields.get(19)?.parse().ok()
}
