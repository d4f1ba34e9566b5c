//! `status`: where a run is, what it waits for, and what may be said to it.

use std::fmt::{self, Write as _};

use clap::Args;
use jiff::Unit;
use kube::ResourceExt as _;
use meshupgrade_api::{MeshUpgrade, MeshUpgradeStatus};
use meshupgrade_core::labels;
use meshupgrade_core::record::Sample;

use crate::Exit;
use crate::cluster::{Connection, Failure, read};
use crate::step::annotate;

/// How many measurements are shown.
const SAMPLES: usize = 5;

/// Show where a run is, what it waits for, and what may be said to it.
///
/// Ends with 0 when there is such an object, 2 for wrong arguments, 1 when the cluster was of no use.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Name of the MeshUpgrade.
    name: String,
    #[command(flatten)]
    connection: Connection,
}

impl Status {
    /// Prints the summary.
    pub(crate) async fn run(&self) -> Exit {
        match self.summary().await {
            Ok(text) => {
                print!("{text}");
                Exit::Ok
            }
            Err(failure) => {
                eprintln!("error: {failure}");
                Exit::Error
            }
        }
    }

    async fn summary(&self) -> Result<String, Failure> {
        let upgrades = self.connection.upgrades().await?;
        Ok(summary(&read(&upgrades, &self.name).await?, &self.connection.flags()))
    }
}

/// The summary of an object.
fn summary(upgrade: &MeshUpgrade, flags: &str) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut text, upgrade, flags);
    text
}

fn write(text: &mut String, upgrade: &MeshUpgrade, flags: &str) -> fmt::Result {
    let name = upgrade.name_any();
    writeln!(text, "meshupgrade/{name}")?;
    let Some(status) = upgrade.status.as_ref().filter(|status| status.run.is_some()) else {
        return writeln!(text, "  the operator has not looked at it yet: is it running?");
    };
    if let Some(run) = &status.run {
        let source = if run.source.as_str().is_empty() { "?" } else { run.source.as_str() };
        row(text, "Revisions", &format!("{source} -> {}", run.target))?;
    }
    row(text, "Phase", &format!("{}, wave {}, workloads {}", status.phase, status.wave, status.progress))?;
    row(text, "State", &state(status))?;
    row(text, "Message", &status.message)?;
    if status.observed_generation != upgrade.metadata.generation {
        row(text, "Note", "the spec has changed since the operator last looked")?;
    }
    actions(text, &name, status, flags)?;
    blocked(text, status)?;
    samples(text, &status.analysis)
}

fn row(text: &mut String, title: &str, value: &str) -> fmt::Result {
    writeln!(text, "  {:<11}{value}", format!("{title}:"))
}

/// Whether it goes on, waits for somebody, or is stuck, with the reason that the guide explains.
fn state(status: &MeshUpgradeStatus) -> String {
    let is_true = |kind: &str| status.condition(kind).filter(|condition| condition.status == "True");
    let found = [
        ("Ready", "done"),
        ("Stalled", "stalled until somebody acts"),
        ("Paused", "waits for people"),
        ("Reconciling", "goes on by itself"),
    ];
    let first = found.iter().find_map(|(kind, words)| Some((is_true(kind)?, words)));
    first.map_or_else(|| "unknown".to_owned(), |(condition, words)| format!("{words} ({})", condition.reason))
}

fn actions(text: &mut String, name: &str, status: &MeshUpgradeStatus, flags: &str) -> fmt::Result {
    for (number, offer) in status.actions.iter().enumerate() {
        if number == 0 {
            writeln!(text, "\nYou can say:")?;
        }
        writeln!(text, "  {:<9} {}", offer.action, offer.message)?;
        writeln!(text, "            {}", annotate(name, labels::ACTION, &offer.value, flags))?;
    }
    Ok(())
}

fn blocked(text: &mut String, status: &MeshUpgradeStatus) -> fmt::Result {
    for (number, row) in status.blocked.iter().enumerate() {
        if number == 0 {
            writeln!(text, "\nWaiting:")?;
        }
        let parts = [&row.kind, &row.namespace, &row.name];
        let about: Vec<&str> = parts.into_iter().filter_map(Option::as_deref).collect();
        let gap = if about.is_empty() { "" } else { "  " };
        writeln!(text, "  {}{gap}{}", row.reason, about.join("/"))?;
        // The first one is told above.
        if !status.message.ends_with(&row.message) {
            writeln!(text, "            {}", row.message)?;
        }
    }
    Ok(())
}

fn samples(text: &mut String, samples: &[Sample]) -> fmt::Result {
    for (number, sample) in samples.iter().take(SAMPLES).enumerate() {
        if number == 0 {
            writeln!(text, "\nMeasured last:")?;
        }
        let wave = if sample.wave.is_empty() { "the end" } else { &sample.wave };
        let dry = if sample.dry_run { ", without effect" } else { "" };
        let at = sample.at.round(Unit::Second).unwrap_or(sample.at);
        writeln!(text, "  {at}  {} of {wave}: {}{dry}", sample.metric, sample.verdict.as_str())?;
        if !sample.message.is_empty() {
            writeln!(text, "            {}", sample.message)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{assert_golden, cases, object};

    #[test]
    fn summaries_are_the_ones_that_people_read() {
        let mut texts = String::new();
        for name in cases().keys() {
            let _ = writeln!(texts, "# {name}\n{}", summary(&object(name), ""));
        }
        assert_golden("status.txt", &texts);
    }

    #[test]
    fn a_summary_tells_that_nobody_looked() {
        let mut upgrade = object("approval");
        upgrade.metadata.generation = Some(1000);
        assert!(summary(&upgrade, "").contains("the spec has changed since the operator last looked"));
        upgrade.status = None;
        assert!(summary(&upgrade, "").contains("is it running?"));
    }

    #[test]
    fn commands_name_the_cluster() {
        let text = summary(&object("approval"), " --context=prod");
        assert!(text.contains("--overwrite --context=prod\n"), "{text}");
    }
}
