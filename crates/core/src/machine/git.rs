//! What Git says of the labels that a rollback sets back. Where it had the target already, its next sync could put the target's label back
//! when nothing of the target is there any more, and pods would silently lose their sidecars.

use crate::check::{git_agrees_by, has_synced};
use crate::ids::NamespaceName;
use crate::inventory::some_of;
use crate::labels;
use crate::machine::pass::Pass;
use crate::observed::Namespace;
use crate::record::{Direction, MAX_GIT_NAMESPACES};
use crate::wait::WaitReason;

/// The check whose name in `spec.checks.skip` says that nobody need wait for Git.
const CHECK: &str = "GitAgrees";

/// Notes that Git has the target for a namespace whose label is about to be set back, if a sync has shown that.
pub fn remember(pass: &mut Pass<'_>, name: &NamespaceName) {
    if pass.run.direction() != Direction::Back || pass.run.git_on_target.len() >= MAX_GIT_NAMESPACES {
        return;
    }
    let on_target = |namespace: &Namespace| has(namespace, pass.run.target.as_str());
    let namespace = pass.snapshot.namespaces.get(name).filter(|namespace| on_target(namespace));
    if let Some(tool) = namespace.and_then(|namespace| git_agrees_by(namespace)) {
        pass.run.git_on_target.insert(name.clone(), tool.to_owned());
    }
}

/// Forgets those for which a sync has shown since that Git has the source again, and those that are gone. Once is enough: what the run
/// writes afterwards is newer than that sync.
pub fn forget_proven(pass: &mut Pass<'_>) {
    let (snapshot, target) = (pass.snapshot, pass.run.target.clone());
    pass.run.git_on_target.retain(|name, tool| {
        let namespace = snapshot.namespaces.get(name).filter(|namespace| !namespace.terminating);
        namespace.is_some_and(|namespace| has(namespace, target.as_str()) || !has_synced(namespace, tool))
    });
}

/// Whether Git has the source again, as far as it had the target; that is waited for before the target's control plane goes.
pub fn is_back(pass: &mut Pass<'_>) -> bool {
    let Some(told) = told(pass) else { return true };
    pass.wait(WaitReason::GitStillOnOldRevision, None, format!("{told}; or add {CHECK} to spec.checks.skip"));
    false
}

/// What to do where Git may still have the target, unless somebody said that it is no matter.
pub fn told(pass: &Pass<'_>) -> Option<String> {
    let behind: Vec<&str> = pass.run.git_on_target.keys().map(NamespaceName::as_str).collect();
    let waits = !behind.is_empty() && !pass.intent.skip_checks.contains(CHECK);
    waits.then(|| {
        format!(
            "Git had {label}={target} for {names}, and no sync has shown yet that it has {source} again: the next one could put {target} \
             back. Set it to {source} in Git and sync",
            label = labels::REVISION,
            target = pass.run.target,
            source = pass.run.source,
            names = some_of(&behind),
        )
    })
}

fn has(namespace: &Namespace, revision: &str) -> bool {
    namespace.labels.get(labels::REVISION).is_some_and(|value| value == revision)
}
