//! The target's control plane after a rollback, where somebody else is to remove it: who still needs it, or how it is removed.

use jiff::Timestamp;

use crate::check::{self, CheckInput};
use crate::gate;
use crate::ids::Revision;
use crate::injection::namespace_injection;
use crate::intent::RollbackControlPlane;
use crate::inventory::some_of;
use crate::labels;
use crate::machine::addon_gateways;
use crate::machine::pass::{Pass, after};
use crate::observed::Namespace;

/// Whether it is there and somebody else is to remove it.
pub fn is_left(pass: &Pass<'_>) -> bool {
    !gate::is_gone(pass.snapshot, &pass.run.target)
        && pass.intent.aks.is_none()
        && pass.intent.rollback_control_plane == RollbackControlPlane::Remove
        && pass.run.source != pass.run.target
}

/// For how long after a rollback the cluster is looked at often for what is to be mended, in seconds.
const LOOKS_FOR_SECONDS: u32 = 24 * 60 * 60;
/// How often after that, in seconds.
const SELDOM_SECONDS: u32 = 60 * 60;

/// Asks for a look at the cluster where there was none since the operator started, and for others while something is found that is to be
/// mended.
pub fn look(pass: &mut Pass<'_>) {
    if !is_left(pass) {
        return;
    }
    let counted = pass.snapshot.census.as_ref().and_then(|census| census.taken_at);
    let (Some(counted), Some(ended)) = (counted, pass.run.ended_at) else {
        pass.needs.census_since = Some(Timestamp::UNIX_EPOCH);
        return;
    };
    if in_the_way(pass).is_empty() {
        return;
    }
    let seldom = after(counted, SELDOM_SECONDS);
    if after(ended, LOOKS_FOR_SECONDS) > pass.now || seldom <= pass.now {
        pass.count_again(counted, ended);
    } else {
        pass.wake_at(seldom);
    }
}

/// What is to be done about it; `None` where nothing is.
pub fn told(pass: &Pass<'_>) -> Option<String> {
    if !is_left(pass) {
        return None;
    }
    let target = &pass.run.target;
    let users = users_of(pass, target);
    if !users.is_empty() {
        return Some(format!("{target} stays in use by {}, which the run did not move", some_of(&users)));
    }
    if pass.snapshot.census.is_none() {
        return Some(format!("what else uses {target} is being counted"));
    }
    let found = in_the_way(pass);
    if !found.is_empty() {
        return Some(format!("before {target} is removed: {}", found.join(". ")));
    }
    Some(format!(
        "nothing uses {target} any more: remove it, once kubectl get pods -A shows no pod of it that came since, the way it was \
         installed, for example with {}",
        gate::removal_command(&pass.intent.istio_namespace, target, "rollback")
    ))
}

/// What keeps it from being removed.
fn in_the_way(pass: &Pass<'_>) -> Vec<String> {
    let results = check::removal_of_the_target(&CheckInput {
        intent: pass.intent,
        source: &pass.run.source,
        target: &pass.run.target,
        snapshot: pass.snapshot,
        plan: &pass.plan,
        unrestartable: &[],
        now: pass.now,
    });
    let broken = gate::control_plane(pass.snapshot, &pass.intent.istio_namespace, &pass.run.source);
    let found = check::failed(&results).into_iter().map(|it| format!("{}: {}", it.name, it.message));
    let weaker = addon_gateways::weaker(pass, &pass.run.source, &pass.run.target).into_iter();
    let weaker = weaker.map(|(gateway, why)| format!("{gateway} is to carry the traffic alone: {why}"));
    found.chain(broken.map(|wait| wait.because)).chain(weaker).collect()
}

/// Namespaces whose new pods get a revision's sidecar, or whose label names it.
fn users_of<'p>(pass: &'p Pass<'_>, revision: &Revision) -> Vec<&'p str> {
    let uses = |namespace: &Namespace| {
        let named = namespace.labels.get(labels::REVISION).is_some_and(|it| it == revision.as_str());
        let found = namespace_injection(&pass.snapshot.webhooks, &namespace.name, &namespace.labels);
        named || found.injectors().iter().any(|injector| injector.revision == *revision)
    };
    let all = pass.snapshot.namespaces.values();
    all.filter(|namespace| uses(namespace)).map(|namespace| namespace.name.as_str()).collect()
}
