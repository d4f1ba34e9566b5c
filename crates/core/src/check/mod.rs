//! Named checks, run as a chain over one input: before a run writes anything, before the old revision may go, and after a
//! rollback. A check's name is what `spec.checks.skip` takes.

mod addon_labels;
mod aks;
mod completion;
#[cfg(test)]
mod completion_tests;
mod envoy_filters;
#[cfg(test)]
pub(crate) mod fixture;
mod gateway_addresses;
mod label_owners;
mod preflight;
#[cfg(test)]
mod preflight_tests;
mod proxies;
mod revision_tags;

pub use label_owners::{deploys_again, git_agrees_by, has_synced, revision_owner};

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::decision::{CheckOutcome, CheckResult};
use crate::ids::{NamespaceName, Revision};
use crate::intent::Intent;
use crate::inventory::some_of;
use crate::observed::{Namespace, Snapshot};
use crate::plan::{Plan, Unrestartable, WaveKind};

/// Names of the preflight checks, in the order of their results.
pub const PREFLIGHT: &[&str] = &names(&preflight::CHAIN);
/// Names of the completion checks, in the order of their results.
pub const COMPLETION: &[&str] = &names(&completion::CHAIN);

/// How many characters of a value that a person wrote are worth showing.
const VALUE_SHOWN: usize = 120;

/// What all checks look at. `source` and `target` are those of the run, whichever way it goes.
#[derive(Clone, Copy, Debug)]
pub struct CheckInput<'a> {
    /// What a person asked for.
    pub intent: &'a Intent,
    /// The revision that the run leaves on its way forward.
    pub source: &'a Revision,
    /// The revision that the run goes to on its way forward.
    pub target: &'a Revision,
    /// What this pass saw.
    pub snapshot: &'a Snapshot,
    /// The plan.
    pub plan: &'a Plan,
    /// Workloads in scope that cannot be restarted.
    pub unrestartable: &'a [Unrestartable],
    /// The time of this pass.
    pub now: Timestamp,
}

/// Runs the preflight checks. All of them are in the result, skipped ones with what they would have said.
pub fn preflight(input: &CheckInput<'_>) -> Vec<CheckResult> {
    run(&preflight::CHAIN, input, &input.intent.skip_checks)
}

/// Runs the completion checks: whether anything still refers to the source.
pub fn completion(input: &CheckInput<'_>) -> Vec<CheckResult> {
    run(&completion::CHAIN, input, &input.intent.skip_checks)
}

/// Runs the checks that prove a rollback: whether anything still refers to the target. Takes the same input as
/// [`completion`] and swaps the two revisions by itself. None of them is skipped: what a person takes on himself at the end of
/// the way forward says nothing about the way back.
pub fn rollback_proof(input: &CheckInput<'_>) -> Vec<CheckResult> {
    let back = CheckInput { source: input.target, target: input.source, ..*input };
    run(&completion::ROLLBACK_CHAIN, &back, &BTreeSet::new())
}

/// Runs the checks before the target's control plane is removed after a rollback: whether anything of anybody refers to it. What Git
/// says of the way forward is no matter here: what it says of the way back is looked at in [`crate::machine`]. Nor are pods without a sidecar,
/// which use no control plane.
pub fn removal_of_the_target(input: &CheckInput<'_>) -> Vec<CheckResult> {
    let back = CheckInput { source: input.target, target: input.source, ..*input };
    let mut results = run(&completion::CHAIN, &back, &input.intent.skip_checks);
    results.retain(|result| ![completion::GIT_AGREES, completion::SIDECARS_PRESENT].contains(&result.name));
    results
}

/// The results that hold a run back.
pub fn failed(results: &[CheckResult]) -> Vec<&CheckResult> {
    results.iter().filter(|result| result.outcome == CheckOutcome::Failed).collect()
}

/// What one check found. The text names what was found and ends in what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    /// Nothing to say.
    Nothing,
    /// Worth knowing.
    Warning(String),
    /// Must change before the run goes on.
    Problem(String),
}

/// A named check.
struct Check {
    name: &'static str,
    find: fn(&CheckInput<'_>) -> Finding,
}

fn run(chain: &[Check], input: &CheckInput<'_>, skip: &BTreeSet<String>) -> Vec<CheckResult> {
    chain
        .iter()
        .map(|check| {
            let (outcome, message) = match (check.find)(input) {
                Finding::Nothing => (CheckOutcome::Passed, String::new()),
                Finding::Warning(message) => (CheckOutcome::Warning, message),
                Finding::Problem(message) => (CheckOutcome::Failed, message),
            };
            let skipped = skip.contains(check.name);
            CheckResult {
                name: check.name,
                outcome: if skipped { CheckOutcome::Skipped } else { outcome },
                message,
            }
        })
        .collect()
}

const fn names<const N: usize>(chain: &[Check; N]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut index = 0;
    while index < N {
        names[index] = chain[index].name;
        index += 1;
    }
    names
}

/// The live namespaces of the plan's waves.
fn planned<'a>(input: &CheckInput<'a>) -> Vec<&'a Namespace> {
    planned_names(input)
        .into_iter()
        .filter_map(|name| input.snapshot.namespaces.get(name))
        .map(AsRef::as_ref)
        .collect()
}

/// The names of the namespaces that the plan's waves move. The wave of gateways has others too, for the sake of their Gateways.
fn planned_names<'a>(input: &CheckInput<'a>) -> BTreeSet<&'a NamespaceName> {
    let moved = input.plan.waves.iter().filter(|wave| wave.kind != WaveKind::Gateways);
    moved.flat_map(|wave| &wave.namespaces).collect()
}

/// The beginning of a value that a person wrote: enough to know it by.
fn shown(value: &str) -> String {
    match value.char_indices().nth(VALUE_SHOWN) {
        _ if value.is_empty() => "none".to_owned(),
        Some((end, _)) => format!("{}…", value.get(..end).unwrap_or_default()),
        None => value.to_owned(),
    }
}

/// Workloads that somebody has to look at one by one: up to `most` are named. They go to the end of a sentence, because a message of status is cut.
fn named(workloads: impl Iterator<Item = String>, most: usize) -> Option<String> {
    let names: Vec<String> = workloads.collect();
    let shown = names.get(..most).unwrap_or(&names).join(", ");
    match names.len().saturating_sub(most) {
        0 => (!names.is_empty()).then_some(shown),
        more => Some(format!("{shown} and {more} more")),
    }
}

/// A few of these names, if there are any at all.
fn listed<I>(names: I) -> Option<String>
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    let names: Vec<I::Item> = names.into_iter().collect();
    (!names.is_empty()).then(|| some_of(&names))
}

/// A problem about these names, or nothing when there are none.
fn problem<I>(names: I, text: impl FnOnce(String) -> String) -> Finding
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    listed(names).map_or(Finding::Nothing, |names| Finding::Problem(text(names)))
}

/// A warning about these names, or nothing when there are none.
fn warning<I>(names: I, text: impl FnOnce(String) -> String) -> Finding
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    listed(names).map_or(Finding::Nothing, |names| Finding::Warning(text(names)))
}
