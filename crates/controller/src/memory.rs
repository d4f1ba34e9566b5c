//! What is remembered of each MeshUpgrade between passes. All of it may be lost at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::ResourceExt;
use meshupgrade_api::MeshUpgrade;
use meshupgrade_core::decision::{About, Needs};
use meshupgrade_core::ids::Uid;
use meshupgrade_core::record::Record;

use crate::backoff::Failures;
use crate::store::ordinal;

/// What is remembered, by uid.
#[derive(Debug, Default)]
pub struct Memory(Mutex<BTreeMap<Uid, Remembered>>);

/// What is remembered of one MeshUpgrade.
#[derive(Debug, Default)]
struct Remembered {
    name: String,
    /// The answer to our last write: newer than what the watch has, for a moment.
    written: Option<Arc<MeshUpgrade>>,
    /// The record was read from the API server itself, and every change since then was ours.
    confirmed: bool,
    /// When the status was last written.
    written_at: Option<Instant>,
    /// Restart stamps that the API server confirmed, with the generation that it answered.
    applied: BTreeMap<(Uid, String), i64>,
    /// Writes that were refused.
    refused: BTreeMap<Write, Refusal>,
    needs: Needs,
    /// Until when it makes no sense to write: the API server drops fields.
    pruned_until: Option<Instant>,
    failures: Failures,
    /// The last record, for what follows from a change of it.
    record: Record,
}

/// A write: what it is about, and its stamp.
pub type Write = (About, String);

/// A write that was refused: how often, until when it must wait, and what was answered.
#[derive(Debug)]
struct Refusal {
    failures: Failures,
    until: Instant,
    answer: String,
}

/// A MeshUpgrade that is gone.
#[derive(Debug)]
pub struct Gone {
    /// Its name.
    pub name: String,
    /// Its last record.
    pub record: Record,
}

impl Memory {
    fn with<R>(&self, uid: &Uid, act: impl FnOnce(&mut Remembered) -> R) -> R {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(all.entry(uid.clone()).or_default())
    }

    /// The newer one of what the watch has and what we wrote last: a pass must see its own writes.
    pub fn freshest(&self, cached: &MeshUpgrade) -> Arc<MeshUpgrade> {
        self.with(&uid(cached), |known| {
            known.name = cached.name_any();
            let written = known.written.as_ref();
            match written.filter(|written| version(written) > version(cached)) {
                Some(written) => Arc::clone(written),
                None => Arc::new(cached.clone()),
            }
        })
    }

    /// Whether what we know of the object does not come from a watch alone.
    pub fn is_confirmed(&self, uid: &Uid) -> bool {
        self.with(uid, |known| known.confirmed)
    }

    /// Takes over what the API server itself has.
    pub fn confirm(&self, read: &Arc<MeshUpgrade>) {
        self.with(&uid(read), |known| {
            known.name = read.name_any();
            known.written = Some(Arc::clone(read));
            known.confirmed = true;
        });
    }

    /// The API server has something else than we thought: the next pass asks it.
    pub fn doubt(&self, uid: &Uid) {
        self.with(uid, |known| known.confirmed = false);
    }

    /// Whether this is exactly what we wrote last.
    pub fn is_last_written(&self, seen: &MeshUpgrade) -> bool {
        self.with(&uid(seen), |known| {
            let written = known.written.as_ref();
            written.is_some_and(|written| version(written) == version(seen))
        })
    }

    /// Remembers the answer to a write of the status.
    pub fn wrote(&self, written: &Arc<MeshUpgrade>) {
        self.with(&uid(written), |known| {
            known.written = Some(Arc::clone(written));
            known.written_at = Some(Instant::now());
        });
    }

    /// How long ago the status was written by this process.
    pub fn since_written(&self, uid: &Uid) -> Option<Duration> {
        self.with(uid, |known| known.written_at.map(|at| at.elapsed()))
    }

    /// The restart stamps that the API server confirmed, by the workload's uid, with the generation that it answered.
    pub fn applied(&self, uid: &Uid) -> BTreeMap<(Uid, String), i64> {
        self.with(uid, |known| known.applied.clone())
    }

    /// Remembers a confirmed restart.
    pub fn add_applied(&self, uid: &Uid, workload: &Uid, stamp: &str, generation: i64) {
        let confirmed = (workload.clone(), stamp.to_owned());
        self.with(uid, |known| known.applied.insert(confirmed, generation));
    }

    /// How long a write that was refused has to wait.
    pub fn refused_for(&self, uid: &Uid, write: &Write, now: Instant) -> Option<Duration> {
        self.with(uid, |known| {
            let until = known.refused.get(write)?.until;
            until.checked_duration_since(now).filter(|left| !left.is_zero())
        })
    }

    /// The writes that were refused, with what was answered.
    pub fn refused(&self, uid: &Uid) -> BTreeMap<Write, String> {
        self.with(uid, |known| {
            known.refused.iter().map(|(write, refusal)| (write.clone(), refusal.answer.clone())).collect()
        })
    }

    /// Remembers that a write was refused. Returns how long it has to wait.
    pub fn refuse(&self, uid: &Uid, write: Write, answer: &str, now: Instant) -> Duration {
        self.with(uid, |known| {
            let refusal = known.refused.entry(write).or_insert_with(|| Refusal {
                failures: Failures::default(),
                until: now,
                answer: String::new(),
            });
            let wait = refusal.failures.fail();
            refusal.until = now + wait;
            answer.clone_into(&mut refusal.answer);
            wait
        })
    }

    /// A write went through.
    pub fn accept(&self, uid: &Uid, write: &Write) {
        self.with(uid, |known| known.refused.remove(write));
    }

    /// The API server dropped fields of the status: nothing is written until then.
    pub fn pruned(&self, uid: &Uid, until: Instant) {
        self.with(uid, |known| known.pruned_until = Some(until));
    }

    /// For how long nothing is to be written because the API server drops fields.
    pub fn pruned_for(&self, uid: &Uid, now: Instant) -> Option<Duration> {
        let until = self.with(uid, |known| known.pruned_until)?;
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// What the next pass must see.
    pub fn needs(&self, uid: &Uid) -> Needs {
        self.with(uid, |known| known.needs.clone())
    }

    /// Sets what the next pass must see.
    pub fn set_needs(&self, uid: &Uid, needs: &Needs) {
        self.with(uid, |known| {
            if known.needs != *needs {
                known.needs = needs.clone();
            }
        });
    }

    /// Takes note of the record, for what follows from a change of it.
    pub fn set_record(&self, uid: &Uid, record: &Record) {
        self.with(uid, |known| {
            let counter = |record: &Record| record.run.as_ref().map(|run| run.counter);
            if counter(&known.record) != counter(record) {
                // Stamps carry the number of the run: those of earlier runs never come back.
                known.applied.clear();
                known.refused.clear();
            }
            known.record.clone_from(record);
        });
    }

    /// A pass failed: how long to wait before the next.
    pub fn fail(&self, uid: &Uid) -> Duration {
        self.with(uid, |known| known.failures.fail())
    }

    /// A pass went well.
    pub fn succeed(&self, uid: &Uid) {
        self.with(uid, |known| known.failures.succeed());
    }

    /// Forgets all but these.
    pub fn forget_all_but(&self, alive: &BTreeSet<Uid>) -> Vec<(Uid, Gone)> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<Uid> = all.keys().filter(|uid| !alive.contains(uid)).cloned().collect();
        gone.into_iter()
            .filter_map(|uid| {
                let known = all.remove(&uid)?;
                let gone = Gone { name: known.name, record: known.record };
                Some((uid, gone))
            })
            .collect()
    }
}

/// The uid of an object that the API server gave us.
pub fn uid(upgrade: &MeshUpgrade) -> Uid {
    Uid(upgrade.uid().unwrap_or_default())
}

fn version(upgrade: &MeshUpgrade) -> u64 {
    ordinal(upgrade.metadata.resource_version.as_deref())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn upgrade(version: &str) -> MeshUpgrade {
        serde_json::from_value(json!({
            "apiVersion": "meshupgrade.io/v1alpha1", "kind": "MeshUpgrade",
            "metadata": {"name": "prod", "uid": "u", "resourceVersion": version},
            "spec": {"targetRevision": "b", "controlPlane": {"external": {}}},
        }))
        .unwrap()
    }

    #[test]
    fn a_pass_sees_its_own_write_before_the_watch_does() {
        let memory = Memory::default();
        memory.wrote(&Arc::new(upgrade("9")));
        assert_eq!(version(&memory.freshest(&upgrade("8"))), 9);
        assert_eq!(version(&memory.freshest(&upgrade("10"))), 10);
        assert!(memory.is_last_written(&upgrade("9")));
        assert!(!memory.is_last_written(&upgrade("10")));
    }

    #[test]
    fn a_refused_write_waits_longer_each_time_and_not_at_all_once_accepted() {
        let memory = Memory::default();
        let (uid, now) = (Uid::from("u"), Instant::now());
        let write = (About::Namespace("shop".into()), "stamp".to_owned());
        assert_eq!(memory.refused_for(&uid, &write, now), None);
        let first = memory.refuse(&uid, write.clone(), "no", now);
        let second = memory.refuse(&uid, write.clone(), "no", now);
        assert!(second > first);
        assert_eq!(memory.refused_for(&uid, &write, now), Some(second));
        assert_eq!(memory.refused_for(&uid, &write, now + second), None);
        assert_eq!(memory.refused(&uid), [(write.clone(), "no".to_owned())].into());
        memory.accept(&uid, &write);
        assert_eq!(memory.refused_for(&uid, &write, now), None);
        assert!(memory.refused(&uid).is_empty());
    }

    #[test]
    fn confirmed_restarts_are_forgotten_with_their_run() {
        let memory = Memory::default();
        let uid = Uid::from("u");
        let run = |counter: u32| {
            let run =
                json!({"schema": 1, "counter": counter, "source": "a", "target": "b", "phase": "Migrating"});
            Record { run: Some(serde_json::from_value(run).unwrap()), ..Record::default() }
        };
        memory.set_record(&uid, &run(1));
        memory.add_applied(&uid, &Uid::from("w-1"), "s", 2);
        memory.set_record(&uid, &run(1));
        assert_eq!(memory.applied(&uid).len(), 1);
        memory.set_record(&uid, &run(2));
        assert!(memory.applied(&uid).is_empty());
    }

    #[test]
    fn what_is_deleted_is_forgotten() {
        let memory = Memory::default();
        memory.freshest(&upgrade("1"));
        assert!(memory.forget_all_but(&BTreeSet::from([Uid::from("u")])).is_empty());
        let gone = memory.forget_all_but(&BTreeSet::new());
        assert_eq!(gone[0].1.name, "prod");
        assert!(memory.forget_all_but(&BTreeSet::new()).is_empty());
    }
}
