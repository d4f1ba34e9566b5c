//! What must come before what, and how much at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Evidence;
use super::history::{Direction, Readiness, Restart};

/// How long an operator may take to learn that an istiod died: a watch event and a decision.
const NEWS: Duration = Duration::from_secs(1);

/// Rule 1: a restart comes after the label of its namespace leads to where the restart goes, and after that label has
/// stayed for the settle time.
pub fn label_before_restart(evidence: &Evidence<'_>) -> Vec<String> {
    let (case, history) = (evidence.case, &evidence.history);
    let check = |restart: &Restart| {
        let namespace = &restart.workload.namespace;
        let wanted = case.destination(restart.direction);
        let Some(labels) = history.led_at(namespace, restart.order) else {
            return Some(format!("{} was restarted before its namespace got a label", restart.workload));
        };
        if labels.hidden || labels.revision.as_deref() != Some(wanted) {
            return Some(format!(
                "{} was restarted for {wanted} while its namespace said {:?}{}",
                restart.workload,
                labels.revision,
                if labels.hidden { " behind istio-injection" } else { "" }
            ));
        }
        let stayed = Duration::try_from(restart.received.duration_since(labels.at)).unwrap_or_default();
        (stayed < case.settle).then(|| {
            format!(
                "{} was restarted {} ms after the label, {} ms are the settle time",
                restart.workload,
                stayed.as_millis(),
                case.settle.as_millis()
            )
        })
    };
    history.effective().filter_map(check).collect()
}

/// Rule 2: a restart comes while the istiod that its pods need has a ready pod.
pub fn istiod_ready_before_restart(evidence: &Evidence<'_>) -> Vec<String> {
    let (case, history) = (evidence.case, &evidence.history);
    let check = |restart: &Restart| {
        let revision = case.destination(restart.direction);
        let states = history.istiods.get(revision).map_or(&[][..], Vec::as_slice);
        let Some(since) = unready_since(states, restart.order) else {
            let known = states.iter().any(|state| state.order < restart.order);
            return (!known && case.unready.contains(revision)).then(|| {
                format!("{} was restarted before istiod of {revision} was ready", restart.workload)
            });
        };
        let late = Duration::try_from(restart.received.duration_since(since.at)).unwrap_or_default();
        (late > NEWS).then(|| {
            format!(
                "{} was restarted when istiod of {revision} had not been ready for {} ms",
                restart.workload,
                late.as_millis()
            )
        })
    };
    history.effective().filter_map(check).collect()
}

/// The beginning of the unready time that a moment falls into.
fn unready_since(states: &[Readiness], order: u64) -> Option<Readiness> {
    let before = states.iter().filter(|state| state.order < order);
    before.fold(None, |since, state| if state.ready { None } else { since.or(Some(*state)) })
}

/// Rule 8: before a workload is patched, the newest status names it in the open batch.
pub fn intent_before_patch(evidence: &Evidence<'_>) -> Vec<String> {
    let history = &evidence.history;
    let check = |restart: &Restart| {
        let newest: BTreeMap<&str, &BTreeSet<_>> = history
            .intents
            .iter()
            .filter(|intent| intent.order < restart.order)
            .map(|intent| (intent.upgrade.as_str(), &intent.batch))
            .collect();
        let named = newest.values().any(|batch| batch.contains(&restart.workload));
        (!named).then(|| format!("{} was patched and no status before it says so", restart.workload))
    };
    history.effective().filter_map(check).collect()
}

/// Rule 3: no more workloads in rollout than the wave allows, and those of one wave only, in each direction.
pub fn at_most_so_many_at_once(evidence: &Evidence<'_>) -> Vec<String> {
    let (case, history) = (evidence.case, &evidence.history);
    let ends: Vec<(&Restart, Option<u64>)> =
        history.effective().map(|restart| (restart, history.over(restart))).collect();
    let check = |(restart, _): &(&Restart, Option<u64>)| {
        let wave = case.wave_of(&restart.workload.namespace)?;
        let open: BTreeSet<_> = ends
            .iter()
            .filter(|(other, over)| {
                other.direction == restart.direction
                    && other.order <= restart.order
                    && over.is_none_or(|over| over > restart.order)
            })
            .map(|(other, _)| &other.workload)
            .collect();
        let names = || open.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if open.len() > wave.at_once {
            return Some(format!("{} in rollout at once, {} allowed: {}", open.len(), wave.at_once, names()));
        }
        let strangers = open.iter().any(|other| !wave.namespaces.contains(&other.namespace));
        strangers.then(|| format!("workloads of several waves in rollout at once: {}", names()))
    };
    ends.iter().filter_map(check).collect()
}

/// Rule 4: each workload is patched once in each direction. After a crash the same patch may come again, if it changes
/// nothing.
pub fn each_workload_once(evidence: &Evidence<'_>) -> Vec<String> {
    let case = evidence.case;
    let mut seen: BTreeMap<_, Vec<&Restart>> = BTreeMap::new();
    for restart in &evidence.history.restarts {
        seen.entry((&restart.workload, restart.direction)).or_default().push(restart);
    }
    let check = |((workload, direction), restarts): (&(_, Direction), &Vec<&Restart>)| {
        let effective = restarts.iter().filter(|restart| restart.changed).count();
        let counted = if case.crashes { effective } else { restarts.len() };
        (counted > 1 + case.retries).then(|| {
            format!("{workload} was restarted {counted} times ({direction:?}, {})", stamps(restarts))
        })
    };
    seen.iter().filter_map(check).collect()
}

fn stamps(restarts: &[&Restart]) -> String {
    let stamps: BTreeSet<&str> = restarts.iter().map(|restart| restart.stamp.as_str()).collect();
    stamps.into_iter().collect::<Vec<_>>().join(", ")
}

/// Rule 10: each namespace's label is written once in each direction and attempt. A rollback may write once more, to put
/// back what had to stay away until the workloads were back.
pub fn each_label_once(evidence: &Evidence<'_>) -> Vec<String> {
    let mut seen: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for relabel in &evidence.history.relabels {
        *seen.entry((&relabel.namespace, &relabel.stamp)).or_default() += 1;
    }
    let mut directions: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for (namespace, stamp) in seen.keys().filter(|(_, stamp)| !stamp.ends_with(".restored")) {
        let run = stamp.rsplit_once('.').map_or(*stamp, |(run, _)| run);
        directions.entry((namespace, run)).or_default().insert(stamp);
    }
    let twice = seen
        .iter()
        .filter(|(_, count)| **count > 1)
        .map(|((namespace, stamp), count)| format!("{namespace} was labelled {count} times by {stamp}"));
    let often = directions.iter().filter(|(_, stamps)| stamps.len() > 1 + evidence.case.retries).map(
        |((namespace, _), stamps)| {
            format!("{namespace} was labelled by {} attempts: {stamps:?}", stamps.len())
        },
    );
    twice.chain(often).collect()
}
