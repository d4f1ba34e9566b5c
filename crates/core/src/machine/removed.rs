//! What a run does when somebody removes one of its control planes in the middle. Where Azure is asked, see [`crate::machine::aks`].

use crate::gate;
use crate::ids::Revision;
use crate::machine::aks;
use crate::machine::pass::{Pass, after, shown};
use crate::machine::phase::Phase;
use crate::wait::WaitReason;

const NO_SIDECARS: &str =
    "new pods of namespaces that are still on it get no sidecar until the run has moved them";

/// How long the target may be away before everything goes back, in seconds: tools that replace objects delete them for a moment.
const AWAY_SECONDS: u32 = 60;

/// Looks whether both are there, in every pass.
pub fn watch(pass: &mut Pass<'_>) {
    watch_source(pass);
    watch_target(pass);
}

fn watch_source(pass: &mut Pass<'_>) {
    let needed = pass.intent.aks.is_none() && in_waves(pass) && pass.run.source != pass.run.target;
    let gone = needed && !pass.repairs_what_has_no_source() && gate::is_gone(pass.snapshot, &pass.run.source);
    if gone && !pass.run.source_gone {
        let note = format!("somebody removed the control plane of the source: {}", meaning(&pass.run.source));
        pass.event(true, "CompletedBySomebody", None, note);
    }
    pass.run.source_gone = gone;
}

fn watch_target(pass: &mut Pass<'_>) {
    let needed = pass.intent.aks.is_none()
        && pass.started()
        && (in_waves(pass) || pass.run.phase == Phase::Completing)
        && pass.run.source != pass.run.target;
    if !needed || !gate::is_gone(pass.snapshot, &pass.run.target) {
        pass.run.target_gone_since = None;
    } else if pass.run.target_gone_since.is_none() {
        pass.run.target_gone_since = Some(pass.now);
    }
}

/// Notes that the target is not there, with what comes of it.
pub fn note(pass: &mut Pass<'_>) {
    let Some(since) = pass.run.target_gone_since.filter(|_| pass.run.rollback.is_none()) else { return };
    let (until, source) = (after(since, AWAY_SECONDS), pass.run.source.clone());
    let next = if pass.can_turn_back() && !gate::is_gone(pass.snapshot, &source) {
        pass.wake_at(until);
        format!("everything goes back to {source} if it is not there again at {}", shown(until))
    } else {
        "install it again".to_owned()
    };
    let because = format!(
        "somebody removed the control plane of {}, and new pods of namespaces that have its label get no sidecar; {next}",
        pass.run.target
    );
    pass.wait(WaitReason::TargetRemoved, None, because);
}

/// Whether the target was away for so long that it does not come back by itself, and there is somewhere to go.
pub fn target_stays_away(pass: &Pass<'_>) -> bool {
    let is_over = |since| after(since, AWAY_SECONDS) <= pass.now;
    pass.run.target_gone_since.is_some_and(is_over) && !gate::is_gone(pass.snapshot, &pass.run.source)
}

fn in_waves(pass: &Pass<'_>) -> bool {
    matches!(pass.run.phase, Phase::Migrating | Phase::Soaking)
}

/// What it means for the waves; `None` while the source is there, or when they are over.
pub fn told(pass: &Pass<'_>) -> Option<String> {
    if aks::is_completed(pass) && in_waves(pass) {
        return Some(without_a_way_back(&pass.run.source));
    }
    (pass.run.source_gone && in_waves(pass)).then(|| meaning(&pass.run.source))
}

/// What it means where somebody can install the source again.
fn meaning(source: &Revision) -> String {
    format!("{source} is gone, and {NO_SIDECARS}; a rollback needs it to be installed again first")
}

/// What it means where Azure has removed the source, which does not come back.
pub fn without_a_way_back(source: &Revision) -> String {
    format!("{source} is gone, there is no way back, and {NO_SIDECARS}")
}
