//! MeshUpgrades as a person writes and watches them.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use meshupgrade_api::{MeshUpgrade, MeshUpgradeStatus};
use serde_json::{Value, json};

use crate::scenario::{SOON, Scenario};

/// How a status is told in errors.
pub fn describe(upgrade: &MeshUpgrade) -> String {
    let mut text = format!("--- meshupgrade/{}\n", upgrade.name_any());
    let Some(status) = &upgrade.status else { return text + "no status\n" };
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "{} wave {} progress {}: {}",
        status.phase, status.wave, status.progress, status.message
    );
    for condition in &status.conditions {
        let _ = writeln!(
            text,
            "  {}={} {}: {}",
            condition.type_, condition.status, condition.reason, condition.message
        );
    }
    for check in status.checks.iter().filter(|check| check.outcome != "Passed") {
        let _ = writeln!(text, "  check {} {}: {}", check.name, check.outcome, check.message);
    }
    for sample in &status.analysis {
        let _ = writeln!(text, "  measured {} {:?}: {}", sample.metric, sample.verdict, sample.message);
    }
    for blocked in &status.blocked {
        let _ = writeln!(text, "  blocked {}: {}", blocked.reason, blocked.message);
    }
    text
}

impl Scenario {
    /// The MeshUpgrades.
    pub fn upgrades(&self) -> Api<MeshUpgrade> {
        Api::all(self.client())
    }

    /// Applies a MeshUpgrade of external control planes with a short settle time, unless the spec says otherwise.
    pub async fn upgrade(&mut self, name: &str, spec: Value) -> Result<()> {
        self.case.upgrades.insert(name.to_owned());
        let mut whole = json!({"controlPlane": {"external": {}}, "injection": {"settleSeconds": 1}});
        if let (Some(whole), Value::Object(spec)) = (whole.as_object_mut(), spec) {
            whole.extend(spec);
        }
        self.apply_upgrade(name, &whole).await
    }

    /// Applies exactly this spec.
    pub async fn apply_upgrade(&mut self, name: &str, spec: &Value) -> Result<()> {
        self.case.upgrades.insert(name.to_owned());
        let manifest = json!({"apiVersion": "meshupgrade.io/v1alpha1", "kind": "MeshUpgrade",
            "metadata": {"name": name}, "spec": spec});
        let params = PatchParams::apply("gitops").force();
        self.upgrades()
            .patch(name, &params, &Patch::Apply(manifest))
            .await
            .context("cannot apply the MeshUpgrade")?;
        Ok(())
    }

    /// A merge patch of a MeshUpgrade, as `kubectl patch` sends it.
    pub async fn patch_upgrade(&self, name: &str, patch: Value) -> Result<()> {
        self.upgrades().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Asks for one more attempt of what is blocked.
    pub async fn retry(&self, name: &str, value: &str) -> Result<()> {
        self.patch_upgrade(name, json!({"metadata": {"annotations": {"meshupgrade.io/retry": value}}})).await
    }

    /// The status of a MeshUpgrade.
    pub async fn status(&self, name: &str) -> Result<MeshUpgradeStatus> {
        Ok(self.upgrades().get(name).await?.status.unwrap_or_default())
    }

    /// Waits until a MeshUpgrade is in a phase.
    pub async fn wait_phase(&self, name: &str, phase: &str) -> Result<MeshUpgradeStatus> {
        self.wait_status(name, &format!("phase {phase}"), |status| status.phase == phase).await
    }

    /// Waits until a condition has this status and reason.
    pub async fn wait_condition(
        &self,
        name: &str,
        kind: &str,
        value: &str,
        reason: &str,
    ) -> Result<MeshUpgradeStatus> {
        let what = format!("condition {kind}={value} with reason {reason}");
        self.wait_status(name, &what, |status| {
            status.condition(kind).is_some_and(|found| found.status == value && found.reason == reason)
        })
        .await
    }

    /// Waits until something is blocked for this reason.
    pub async fn wait_blocked(&self, name: &str, reason: &str) -> Result<MeshUpgradeStatus> {
        let what = format!("something blocked by {reason}");
        self.wait_status(name, &what, |status| status.blocked.iter().any(|row| row.reason == reason)).await
    }

    /// Waits until the status is as wanted.
    pub async fn wait_status(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&MeshUpgradeStatus) -> bool,
    ) -> Result<MeshUpgradeStatus> {
        self.wait_status_within(SOON, name, what, wanted).await
    }

    /// Waits so long until the status is as wanted.
    pub async fn wait_status_within(
        &self,
        within: Duration,
        name: &str,
        what: &str,
        wanted: impl Fn(&MeshUpgradeStatus) -> bool,
    ) -> Result<MeshUpgradeStatus> {
        let deadline = Instant::now() + within;
        loop {
            let upgrade = self.upgrades().get(name).await;
            if let Ok(upgrade) = &upgrade
                && let Some(status) = &upgrade.status
                && wanted(status)
            {
                return Ok(status.clone());
            }
            if Instant::now() > deadline {
                let last = upgrade.map_or_else(|error| error.to_string(), |upgrade| describe(&upgrade));
                bail!("waited {} s in vain for {what}; last seen:\n{last}", within.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
