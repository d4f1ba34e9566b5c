//! Follows one run to its end and shows it; where the run waits for a person, plays the person.

use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use jiff::Timestamp;
use kube::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use meshupgrade_api::status::Blocked;
use meshupgrade_api::{MeshUpgrade, MeshUpgradeStatus};
use meshupgrade_e2e::azure::Azure;
use meshupgrade_e2e::operator::Operator;
use meshupgrade_testbed::Cluster;

use crate::clocks::RunClocks;
use crate::cloud::{AzureSight, Planes};
use crate::journal::Journal;
use crate::line::{Line, Style, wrapped};
use crate::screen::Screen;
use crate::sight::{self, PodSight};
use crate::view::{Frame, clock, picture};

/// No run of the demo is worth more.
const DEADLINE: Duration = Duration::from_mins(6);
/// How long a run may be stalled: nobody is there to help.
const STALLED: Duration = Duration::from_secs(45);
/// Between two pictures when nothing happens.
const TICK: Duration = Duration::from_millis(400);
/// For the eye: between the question and the answer of the person.
const REFLECTION: Duration = Duration::from_secs(2);

/// What a run has come to.
#[derive(Debug)]
pub struct Followed {
    /// Its last status.
    pub status: MeshUpgradeStatus,
    /// How long its parts took.
    pub times: Vec<(String, Duration)>,
    /// What Azure and the cluster had when the first wave began.
    pub middle: Option<Planes>,
}

/// One run that is followed.
pub struct Watch<'a> {
    cluster: &'a Cluster,
    azure: Option<&'a Azure>,
    screen: &'a mut Screen,
    operator: &'a mut Operator,
    name: &'a str,
    begun: Instant,
    status: MeshUpgradeStatus,
    pods: Vec<PodSight>,
    azure_seen: Option<AzureSight>,
    middle: Option<Planes>,
    clocks: RunClocks,
    journal: Journal,
    stalled_since: Option<Instant>,
    removed: bool,
}

impl<'a> Watch<'a> {
    /// Of the MeshUpgrade that was applied just now.
    pub fn new(
        cluster: &'a Cluster,
        azure: Option<&'a Azure>,
        screen: &'a mut Screen,
        operator: &'a mut Operator,
        name: &'a str,
    ) -> Self {
        Self {
            cluster,
            azure,
            screen,
            operator,
            name,
            begun: Instant::now(),
            status: MeshUpgradeStatus::default(),
            pods: Vec::new(),
            azure_seen: azure.map(AzureSight::take),
            middle: None,
            clocks: RunClocks::default(),
            journal: Journal::default(),
            stalled_since: None,
            removed: false,
        }
    }

    /// Follows until the run is over, in whichever way.
    pub async fn follow(mut self) -> Result<Followed> {
        let upgrades: Api<MeshUpgrade> = Api::all(self.cluster.client());
        let mut changes = pin!(watcher::watch_object(upgrades, self.name).default_backoff());
        let mut tick = tokio::time::interval(TICK);
        while !is_over(&self.status) {
            tokio::select! {
                change = changes.next() => {
                    // An error is repeated with a backoff; what does not come back meets the deadline.
                    if let Ok(Some(upgrade)) = change.context("the watch ended")? {
                        self.see(upgrade.status.unwrap_or_default());
                    }
                }
                _ = tick.tick() => self.look().await,
            }
            self.look_at_azure()?;
            self.show()?;
            self.show_middle().await?;
            self.check_health()?;
            if let Some(row) = removal(&self.status).filter(|_| !self.removed) {
                let row = row.clone();
                self.remove(&row).await?;
            }
        }
        self.screen.keep();
        Ok(Followed { times: self.clocks.parts(), status: self.status, middle: self.middle })
    }

    /// At the pods, for the picture.
    async fn look(&mut self) {
        if self.screen.is_live()
            && let Ok(pods) = sight::pods(&self.cluster.client()).await
        {
            self.pods = pods;
        }
    }

    /// At what Azure has; a change is told.
    fn look_at_azure(&mut self) -> Result<()> {
        let now = self.azure.map(AzureSight::take);
        let news = now.as_ref().filter(|_| now != self.azure_seen && !self.screen.is_live());
        if let Some(azure) = news {
            let text = format!("{:>6}  {:<11}  {}", clock(self.begun.elapsed()), "Azure has", azure.told());
            self.screen.line(Line::of(Style::Good, text))?;
        }
        self.azure_seen = now;
        Ok(())
    }

    /// Once, when the first wave begins: both revisions are there then.
    async fn show_middle(&mut self) -> Result<()> {
        let due = self.status.phase == "Migrating" && self.middle.is_none();
        let Some(azure) = self.azure.filter(|_| due) else { return Ok(()) };
        let middle = Planes::take(azure, &self.cluster.client()).await?;
        self.screen.print(&middle.shown("in the middle", azure))?;
        self.screen.line(Line::empty())?;
        self.middle = Some(middle);
        Ok(())
    }

    fn see(&mut self, status: MeshUpgradeStatus) {
        let now = Instant::now();
        self.clocks.see(&status, now);
        let stalled = status.condition("Stalled").is_some_and(|condition| condition.status == "True");
        self.stalled_since = stalled.then(|| self.stalled_since.unwrap_or(now));
        self.status = status;
    }

    fn show(&mut self) -> Result<()> {
        let elapsed = self.begun.elapsed();
        if !self.screen.is_live() {
            let news = self.journal.note(&self.status, elapsed);
            return self.screen.print(&news);
        }
        let frame = Frame {
            name: self.name,
            status: &self.status,
            pods: &self.pods,
            azure: self.azure_seen.as_ref(),
            waves: &self.clocks.waves(Instant::now()),
            elapsed,
            now: Timestamp::now(),
            width: self.screen.width(),
        };
        self.screen.live(&picture(&frame))
    }

    fn check_health(&mut self) -> Result<()> {
        let last = || format!("{} {}: {}", self.status.phase, self.status.progress, self.status.message);
        if !self.operator.is_running() {
            bail!("the operator ended by itself");
        }
        if self.stalled_since.is_some_and(|since| since.elapsed() > STALLED) && !is_over(&self.status) {
            bail!("the run is stalled: {}", last());
        }
        if self.begun.elapsed() > DEADLINE {
            bail!("the run is not over after {} s: {}", DEADLINE.as_secs(), last());
        }
        Ok(())
    }

    /// What a person does whom the status asks to remove the old control plane.
    async fn remove(&mut self, row: &Blocked) -> Result<()> {
        let source = self.status.run.as_ref().map_or("", |run| run.source.as_str()).to_owned();
        if self.screen.is_live() {
            let question = wrapped(&format!("{}: {}", row.reason, row.message), self.screen.width());
            self.screen.line(Line::empty())?;
            self.screen
                .print(&question.into_iter().map(|text| Line::of(Style::Alert, text)).collect::<Vec<_>>())?;
        }
        tokio::time::sleep(REFLECTION).await;
        let command = command(&row.message).context("the status names no command for the removal")?;
        self.screen.print(&[
            Line::of(Style::Faint, "the demo plays the person who installed it:"),
            Line::of(Style::Typed, format!("$ {command}")),
        ])?;
        let removal = self.cluster.remove_revision(&source);
        self.screen.during("removing the old control plane", removal).await??;
        self.removed = true;
        Ok(())
    }
}

fn is_over(status: &MeshUpgradeStatus) -> bool {
    matches!(status.phase.as_str(), "Succeeded" | "RolledBack")
}

/// What asks for the removal of the old control plane, if something does.
fn removal(status: &MeshUpgradeStatus) -> Option<&Blocked> {
    let asks = |row: &&Blocked| matches!(row.reason.as_str(), "RemovalPending" | "ApprovalRequired");
    status.blocked.iter().find(asks).filter(|_| status.phase == "Completing")
}

/// The command in the words of a status.
fn command(message: &str) -> Option<&str> {
    let begin = message.find("helm uninstall ")?;
    let end = message[begin..].find([',', ';', '"']).map_or(message.len(), |length| begin + length);
    Some(message[begin..end].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn the_removal_is_found_with_its_command() {
        let status = fixture::completing();
        let row = removal(&status).unwrap();
        assert_eq!(command(&row.message), Some("helm uninstall istiod-asm-1-27 -n istio-system"));
        assert!(removal(&fixture::migrating()).is_none());
        assert!(command("remove it").is_none());
    }
}
