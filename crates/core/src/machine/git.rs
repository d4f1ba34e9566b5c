//! What Git says of the labels that a rollback sets back. Where it had the target already, its next sync could put the target's label back
//! when nothing of the target is there any more, and pods would silently lose their sidecars.

use crate::check::git_agrees_by;
use crate::ids::NamespaceName;
use crate::labels;
use crate::machine::pass::Pass;
use crate::observed::Namespace;
use crate::record::{Direction, MAX_GIT_NAMESPACES};
use crate::wait::WaitReason;

/// The check whose name in `spec.checks.skip` says that nobody need wait for Git.
const CHECK: &str = "GitAgrees";

/// Notes that Git has the target for a namespace whose label is about to be set back, if a sync has shown that.
pub fn remember(pass: &mut Pass<'_>, name: &NamespaceName) {
    let on_target = |namespace: &Namespace| has(namespace, pass.run.target.as_str());
    let namespace = pass.snapshot.namespaces.get(name).filter(|namespace| on_target(namespace));
    let moved = namespace.is_some_and(|namespace| git_agrees_by(namespace).is_some());
    let back = pass.run.direction() == Direction::Back;
    if back && moved && pass.run.git_on_target.len() < MAX_GIT_NAMESPACES {
        pass.run.git_on_target.insert(name.clone());
    }
}

/// Those of them for which no sync has shown since that Git has the source again.
pub fn behind<'p>(pass: &'p Pass<'_>) -> Vec<&'p str> {
    let proven = |namespace: &Namespace| {
        !has(namespace, pass.run.target.as_str()) && git_agrees_by(namespace).is_some()
    };
    let names = pass.run.git_on_target.iter();
    let there = names.filter_map(|name| pass.snapshot.namespaces.get(name));
    there
        .filter(|namespace| !namespace.terminating && !proven(namespace))
        .map(|it| it.name.as_str())
        .collect()
}

/// Whether Git has the source again, as far as it had the target; that is waited for before the target's control plane goes.
pub fn is_back(pass: &mut Pass<'_>) -> bool {
    if pass.intent.skip_checks.contains(CHECK) {
        return true;
    }
    let behind = behind(pass);
    if behind.is_empty() {
        return true;
    }
    let because = format!("{}; {}", told(pass, &behind), "or add GitAgrees to spec.checks.skip");
    pass.wait(WaitReason::GitStillOnOldRevision, None, because);
    false
}

/// What to do about them.
pub fn told(pass: &Pass<'_>, behind: &[&str]) -> String {
    format!(
        "Git had {label}={target} for {names}, and no sync has shown yet that it has {source} again: the next one could put {target} \
         back. Set it to {source} in Git and sync",
        label = labels::REVISION,
        target = pass.run.target,
        source = pass.run.source,
        names = crate::inventory::some_of(behind),
    )
}

fn has(namespace: &Namespace, revision: &str) -> bool {
    namespace.labels.get(labels::REVISION).is_some_and(|value| value == revision)
}
