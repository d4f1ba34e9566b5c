//! What a run says when somebody removes the control plane that it comes from while the waves still need it.

use crate::gate;
use crate::ids::Revision;
use crate::machine::aks;
use crate::machine::pass::Pass;
use crate::machine::phase::Phase;

const NO_SIDECARS: &str =
    "new pods of namespaces that are still on it get no sidecar until the run has moved them";

/// Looks whether the source is there, in every pass, and tells once that it is not. Azure is asked in [`aks::watch()`].
pub fn watch(pass: &mut Pass<'_>) {
    let needed = pass.intent.aks.is_none() && in_waves(pass) && pass.run.source != pass.run.target;
    let gone = needed && !pass.repairs_what_has_no_source() && gate::is_gone(pass.snapshot, &pass.run.source);
    if gone && !pass.run.source_gone {
        let note = format!("somebody removed the control plane of the source: {}", meaning(&pass.run.source));
        pass.event(true, "CompletedBySomebody", None, note);
    }
    pass.run.source_gone = gone;
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
