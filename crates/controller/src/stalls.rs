//! What newly waits for a person, or for Azure, told as events: a status shows what is, events also what was.

use std::collections::BTreeSet;

use meshupgrade_api::MeshUpgradeStatus;
use meshupgrade_core::decision::Event;
use meshupgrade_core::wait::{Wait, WaitReason};

/// How many rows of one reason an event repeats.
const ROWS: usize = 3;

/// One event for each reason that the status before did not have.
pub fn new_stalls(before: Option<&MeshUpgradeStatus>, waits: &[Wait]) -> Vec<Event> {
    let known: BTreeSet<&str> =
        before.iter().flat_map(|status| &status.blocked).map(|row| row.reason.as_str()).collect();
    let reasons: BTreeSet<WaitReason> = waits.iter().map(|wait| wait.reason).collect();
    let new = reasons.into_iter().filter(|reason| is_told(*reason) && !known.contains(reason.as_str()));
    new.map(|reason| event(reason, waits)).collect()
}

/// A refused write has an event of its own for each object.
fn is_told(reason: WaitReason) -> bool {
    let azure = matches!(reason, WaitReason::ClusterBusy | WaitReason::AzureUnavailable);
    reason != WaitReason::WriteRefused && (reason.needs_human() || azure)
}

fn event(reason: WaitReason, waits: &[Wait]) -> Event {
    let rows: Vec<&Wait> = waits.iter().filter(|wait| wait.reason == reason).collect();
    let mut notes: Vec<String> = rows.iter().take(ROWS).map(|wait| wait.because.clone()).collect();
    if rows.len() > ROWS {
        notes.push(format!("{} more in status.blocked", rows.len() - ROWS));
    }
    let about = if let [only] = rows[..] { only.about.clone() } else { None };
    Event { warning: true, reason: reason.as_str(), note: notes.join("; "), about }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wait(reason: WaitReason, because: &str) -> Wait {
        Wait { reason, about: None, because: because.to_owned() }
    }

    fn told(before: Option<&MeshUpgradeStatus>, waits: &[Wait]) -> Vec<(&'static str, String)> {
        new_stalls(before, waits).into_iter().map(|event| (event.reason, event.note)).collect()
    }

    #[test]
    fn each_reason_that_is_new_is_told_once_with_its_rows() {
        let waits = [
            wait(WaitReason::AzureRefused, "what happened, why, what to do"),
            wait(WaitReason::Soaking, "time"),
            wait(WaitReason::PreflightFailed, "one"),
            wait(WaitReason::PreflightFailed, "two"),
            wait(WaitReason::ClusterBusy, "another operation"),
        ];
        let found = told(None, &waits);
        let expected = [
            ("PreflightFailed", "one; two"),
            ("ClusterBusy", "another operation"),
            ("AzureRefused", "what happened, why, what to do"),
        ];
        assert_eq!(found, expected.map(|(reason, note)| (reason, note.to_owned())));
        let before: MeshUpgradeStatus = serde_json::from_value(json!({
            "blocked": [{"reason": "AzureRefused", "message": "before"}, {"reason": "ClusterBusy", "message": "x"}],
        }))
        .unwrap();
        assert_eq!(told(Some(&before), &waits), [("PreflightFailed", "one; two".to_owned())]);
    }

    #[test]
    fn many_rows_of_a_reason_are_counted_and_refused_writes_are_told_elsewhere() {
        let mut waits = vec![wait(WaitReason::WriteRefused, "no")];
        waits.extend(["a", "b", "c", "d", "e"].map(|name| wait(WaitReason::WorkloadFailed, name)));
        let expected = ("WorkloadFailed", "a; b; c; 2 more in status.blocked".to_owned());
        assert_eq!(told(None, &waits), [expected]);
    }
}
