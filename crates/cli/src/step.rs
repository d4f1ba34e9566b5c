//! What one verb means for an object as it is now: which annotation is written, and how the operator's answer is read.

use kube::ResourceExt as _;
use meshupgrade_api::MeshUpgrade;
use meshupgrade_core::ids::WorkloadKind;
use meshupgrade_core::intent::Verb;
use meshupgrade_core::labels;
use meshupgrade_core::machine::phase::Phase;
use meshupgrade_core::record::Run;

/// An annotation that asks the operator for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) verb: Verb,
    /// Key of the annotation.
    pub(crate) annotation: &'static str,
    /// Its value, with the id of what is meant.
    pub(crate) value: String,
    /// What the operator does then.
    pub(crate) effect: String,
    /// The run before.
    before: Run,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The operator has not looked at it.
    Pending,
    /// It does as told.
    Taken,
    /// It does not, for this reason.
    Refused(String),
}

impl Step {
    /// The step of a verb, or why there is none. A workload is `Kind/namespace/name`, and for a retry only.
    pub(crate) fn choose(upgrade: &MeshUpgrade, verb: Verb, workload: Option<&str>) -> Result<Self, String> {
        let Some((status, run)) =
            upgrade.status.as_ref().and_then(|status| Some((status, status.run.as_ref()?)))
        else {
            return Err("the operator has not looked at it yet".into());
        };
        let Some(offer) = status.actions.iter().find(|offer| offer.action == verb.as_str()) else {
            let reason = status.condition("Ready").map_or("", |ready| ready.reason.as_str());
            let name = upgrade.name_any();
            let why = nothing_to(verb, run);
            return Err(format!(
                "{why}: it is {} ({reason}); kubectl mesh-upgrade status {name} tells more",
                status.phase
            ));
        };
        let step = |annotation, value, effect| Self { verb, annotation, value, effect, before: run.clone() };
        let Some(workload) = workload else {
            return Ok(step(labels::ACTION, offer.value.clone(), offer.message.clone()));
        };
        let blocked: Vec<String> = status.blocked.iter().filter_map(about_workload).collect();
        if !blocked.iter().any(|name| name == workload) {
            let known = if blocked.is_empty() { "no workload is".into() } else { blocked.join(", ") };
            return Err(format!("{workload} is not among what is blocked: {known}"));
        }
        // The id makes the value another one for each attempt.
        let id = offer.value.split_once('/').map_or("", |(_, id)| id);
        Ok(step(labels::RETRY, format!("{workload}#{id}"), format!("tries {workload} once more")))
    }

    /// Another step that somebody asked for and the operator has not looked at: this one takes its place.
    pub(crate) fn displaced<'u>(&self, upgrade: &'u MeshUpgrade) -> Option<&'u str> {
        let there = upgrade.annotations().get(self.annotation)?;
        let status = upgrade.status.as_ref()?;
        let open = status.actions.iter().any(|offer| offer.value == *there);
        (open && *there != self.value).then_some(there)
    }

    /// The command that does the same.
    pub(crate) fn command(&self, name: &str, flags: &str) -> String {
        annotate(name, self.annotation, &self.value, flags)
    }

    /// What the operator did about it.
    pub(crate) fn answer(&self, upgrade: &MeshUpgrade) -> Answer {
        let Some(run) = upgrade.status.as_ref().and_then(|status| status.run.as_ref()) else {
            return Answer::Pending;
        };
        if run.counter != self.before.counter {
            return Answer::Refused("another run has begun".into());
        }
        let handled = self.handled(run) == Some(self.value.as_str());
        if handled && self.is_effective(run) {
            return Answer::Taken;
        }
        if handled && self.handled(&self.before) != Some(self.value.as_str()) {
            return Answer::Refused("what it was meant for has changed since".into());
        }
        match upgrade.annotations().get(self.annotation) {
            Some(value) if *value == self.value => Answer::Pending,
            Some(value) => Answer::Refused(format!("somebody wrote {value} in its place")),
            None => Answer::Refused("somebody took the annotation away".into()),
        }
    }

    fn handled<'r>(&self, run: &'r Run) -> Option<&'r str> {
        let handled = if self.annotation == labels::RETRY { &run.handled_retry } else { &run.handled_action };
        handled.as_deref()
    }

    fn is_effective(&self, run: &Run) -> bool {
        let before = &self.before;
        match self.verb {
            Verb::Approve if before.phase == Phase::Completing => run.completion_approved,
            Verb::Approve => run.approved_waves > before.wave,
            Verb::Pause => run.paused,
            Verb::Resume => !run.paused,
            Verb::Rollback => run.rollback.as_ref().is_some_and(|rollback| !rollback.wave_only),
            Verb::Retry => run.retries > before.retries,
        }
    }
}

/// The command that writes an annotation.
pub(crate) fn annotate(name: &str, annotation: &str, value: &str, flags: &str) -> String {
    format!("kubectl annotate meshupgrade {name} {annotation}={value} --overwrite{flags}")
}

/// A workload on the command line.
pub(crate) fn parse_workload(text: &str) -> Result<String, String> {
    let kinds = WorkloadKind::ALL.map(WorkloadKind::as_str);
    let parts: Vec<&str> = text.split('/').collect();
    match parts[..] {
        [kind, namespace, name] if kinds.contains(&kind) && !namespace.is_empty() && !name.is_empty() => {
            Ok(text.to_owned())
        }
        _ => Err(format!("must be Kind/namespace/name, where Kind is one of {}", kinds.join(", "))),
    }
}

fn about_workload(blocked: &meshupgrade_api::status::Blocked) -> Option<String> {
    let (kind, namespace, name) =
        (blocked.kind.as_ref()?, blocked.namespace.as_ref()?, blocked.name.as_ref()?);
    Some(format!("{kind}/{namespace}/{name}"))
}

/// Why a verb is not offered.
fn nothing_to(verb: Verb, run: &Run) -> &'static str {
    if run.phase.is_over() {
        return "the run is over";
    }
    let back = run.rollback.is_some();
    match verb {
        Verb::Approve => "nothing waits for approval",
        Verb::Pause if run.paused => "it is paused already",
        Verb::Pause if back => "a rollback cannot be paused",
        Verb::Resume if !run.paused => "it was not paused by this command",
        Verb::Rollback if back => "it goes back already",
        Verb::Rollback if run.source == run.target => "a patch upgrade cannot go back",
        Verb::Pause | Verb::Rollback if run.started_at.is_none() => {
            "nothing was written yet; spec.suspend holds it back"
        }
        Verb::Rollback => "the old control plane is gone",
        Verb::Retry => "nothing is blocked that a retry could mend",
        Verb::Pause => "it cannot be paused now",
        Verb::Resume => "it cannot be resumed now",
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::fixtures::{assert_golden, cases, object};

    /// The same table as for the scripts of Argo CD: both write what status offers, and nothing else.
    #[test]
    fn steps_are_those_that_status_offers() {
        let mut refusals = String::new();
        for (name, case) in cases() {
            for verb in Verb::ALL {
                let expected = case["actions"][verb.as_str()].as_str();
                let chosen = Step::choose(&object(&name), verb, None);
                let written = chosen.as_ref().ok().map(|step| (step.annotation, step.value.as_str()));
                assert_eq!(
                    written,
                    expected.map(|value| (labels::ACTION, value)),
                    "{name}: {}",
                    verb.as_str()
                );
                if let Err(why) = chosen {
                    writeln!(refusals, "{name} {}: {why}", verb.as_str()).unwrap();
                }
            }
        }
        assert_golden("refusals.txt", &refusals);
    }

    fn retry(upgrade: &MeshUpgrade, workload: &str) -> Result<Step, String> {
        Step::choose(upgrade, Verb::Retry, Some(workload))
    }

    #[test]
    fn one_workload_is_retried_by_its_name_with_the_id_of_the_attempt() {
        let upgrade = object("restart-reverted");
        let blocked = upgrade.status.as_ref().unwrap().blocked.iter().find_map(about_workload).unwrap();
        let step = retry(&upgrade, &blocked).unwrap();
        let all = Step::choose(&upgrade, Verb::Retry, None).unwrap();
        let id = all.value.strip_prefix("retry/").unwrap();
        assert_eq!((step.annotation, step.value.clone()), (labels::RETRY, format!("{blocked}#{id}")));
        assert_eq!(
            step.command("mesh", " --context=prod"),
            format!(
                "kubectl annotate meshupgrade mesh meshupgrade.io/retry={blocked}#{id} --overwrite --context=prod"
            )
        );
        let other = retry(&upgrade, "Deployment/a/b").unwrap_err();
        assert_eq!(other, format!("Deployment/a/b is not among what is blocked: {blocked}"));
    }

    fn set(upgrade: &mut MeshUpgrade, step: &Step) {
        upgrade.annotations_mut().insert(step.annotation.to_owned(), step.value.clone());
    }

    fn run(upgrade: &mut MeshUpgrade) -> &mut Run {
        upgrade.status.as_mut().unwrap().run.as_mut().unwrap()
    }

    #[test]
    fn an_answer_is_what_the_run_does() {
        let mut upgrade = object("approval");
        let step = Step::choose(&upgrade, Verb::Approve, None).unwrap();
        set(&mut upgrade, &step);
        assert_eq!(step.answer(&upgrade), Answer::Pending);
        let mut ignored = upgrade.clone();
        run(&mut ignored).handled_action = Some(step.value.clone());
        assert!(matches!(step.answer(&ignored), Answer::Refused(why) if why.contains("changed since")));
        let mut taken = ignored;
        run(&mut taken).approved_waves = run(&mut taken).wave + 1;
        assert_eq!(step.answer(&taken), Answer::Taken);
        run(&mut taken).counter += 1;
        assert!(matches!(step.answer(&taken), Answer::Refused(why) if why.contains("another run")));
        upgrade.annotations_mut().insert(labels::ACTION.to_owned(), "pause/1".to_owned());
        assert!(
            matches!(step.answer(&upgrade), Answer::Refused(why) if why.contains("pause/1 in its place"))
        );
        upgrade.annotations_mut().clear();
        assert!(matches!(step.answer(&upgrade), Answer::Refused(why) if why.contains("took the annotation")));
    }

    /// The id of a pause is that of the run: the second one of a run has been looked at once already.
    #[test]
    fn a_second_pause_waits_for_its_own_answer() {
        let mut upgrade = object("migrating");
        let value = Step::choose(&upgrade, Verb::Pause, None).unwrap().value;
        run(&mut upgrade).handled_action = Some(value);
        let step = Step::choose(&upgrade, Verb::Pause, None).unwrap();
        set(&mut upgrade, &step);
        assert_eq!(step.answer(&upgrade), Answer::Pending);
        run(&mut upgrade).paused = true;
        assert_eq!(step.answer(&upgrade), Answer::Taken);
    }

    #[test]
    fn a_step_says_whose_place_it_takes() {
        let mut upgrade = object("migrating");
        let pause = Step::choose(&upgrade, Verb::Pause, None).unwrap();
        let rollback = Step::choose(&upgrade, Verb::Rollback, None).unwrap();
        set(&mut upgrade, &pause);
        assert_eq!(pause.displaced(&upgrade), None);
        assert_eq!(rollback.displaced(&upgrade), Some(pause.value.as_str()));
        upgrade.annotations_mut().insert(labels::ACTION.to_owned(), "approve/old".to_owned());
        assert_eq!(rollback.displaced(&upgrade), None);
    }

    #[test]
    fn workloads_have_kind_namespace_and_name() {
        assert_eq!(parse_workload("Rollout/shop/web").as_deref(), Ok("Rollout/shop/web"));
        for wrong in
            ["web", "shop/web", "deployment/shop/web", "Pod/shop/web", "Deployment//web", "Deployment/a/b/c"]
        {
            assert!(parse_workload(wrong).unwrap_err().contains("Deployment, StatefulSet"), "{wrong}");
        }
    }
}
