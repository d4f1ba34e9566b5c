//! What people say to a run: approval of a wave or of the end, by Git or by one annotation, and the other actions that the
//! annotation takes. An action names what it is about by an id from status, so that one that comes late, or twice, or for
//! another step, changes nothing.

use sha2::{Digest, Sha256};

use crate::decision::ActionOffer;
use crate::intent::{Action, CompletionMode, Intent, Verb};
use crate::labels;
use crate::machine::pass::Pass;
use crate::machine::phase::Phase;
use crate::plan::{Plan, PlannedWave, WaveKind};
use crate::planning;
use crate::record::{RollbackCause, Run, WaveStep};
use crate::wait::WaitReason;

/// Bytes of the digest that make an id.
const ID_BYTES: usize = 4;

/// Acts on the annotation if its value is offered, and says once that it is not.
pub fn act(pass: &mut Pass<'_>) {
    let Some(action) = pass.intent.action.clone() else { return };
    // What is offered (again) is acted on: no action leaves its own offer standing. What is not is answered once.
    let offered = offers(pass).iter().any(|offer| offer.value == action.value);
    if !offered && pass.run.handled_action.as_ref() == Some(&action.value) {
        return;
    }
    pass.run.handled_action = Some(action.value.clone());
    if let Err(why) = accept(pass, &action) {
        let note = format!("{}={} changes nothing: {why}", labels::ACTION, action.value);
        pass.event(true, "ActionIgnored", None, note);
    }
}

fn accept(pass: &mut Pass<'_>, action: &Action) -> Result<(), String> {
    let Some(verb) = action.verb else {
        return Err("it must be one of the values of status.actions".into());
    };
    let Some(offer) = offers(pass).into_iter().find(|offer| offer.verb == verb) else {
        return Err(format!("there is nothing to {} now", verb.as_str()));
    };
    if offer.value != action.value {
        return Err(format!("its id is not the one in status.actions, which is now {}", offer.value));
    }
    match verb {
        Verb::Approve if pass.run.phase == Phase::Completing => pass.run.completion_approved = true,
        Verb::Approve => pass.run.approved_waves = pass.run.wave + 1,
        Verb::Pause => pass.run.paused = true,
        Verb::Resume => pass.run.paused = false,
        Verb::Retry => (pass.retry, pass.retry_of) = (true, None),
        Verb::Rollback => {
            pass.turn_back(RollbackCause::Requested, format!("{}={} was set", labels::ACTION, action.value));
        }
    }
    pass.event(false, "ActionAccepted", None, format!("{}: {}", action.value, offer.message));
    Ok(())
}

/// What people may say now.
pub fn offers(pass: &Pass<'_>) -> Vec<ActionOffer> {
    let Pass { run, intent, .. } = pass;
    let mut offers = Vec::new();
    if run.phase.is_over() {
        return offers;
    }
    let mut offer = |verb: Verb, id: String, message: String| {
        let value = format!("{}/{id}", verb.as_str());
        offers.push(ActionOffer { verb, value, message });
    };
    let id = |parts: &[&str]| id(intent, run, parts);
    if let Some(wave) = waiting_wave(pass) {
        let digest = planning::digest(&pass.plan, run);
        offer(Verb::Approve, id(&["wave", &wave.name, &digest]), format!("wave {:?} begins", wave.name));
    }
    if run.phase == Phase::Completing
        && intent.completion.mode == CompletionMode::Manual
        && !run.completion_approved
        && run.source != run.target
    {
        let what = format!("once every check has passed, status says how to remove {}", run.source);
        offer(Verb::Approve, id(&["completion"]), what);
    }
    if pass.started() && run.rollback.is_none() {
        if run.paused {
            offer(Verb::Resume, id(&[]), "goes on".into());
        } else {
            offer(Verb::Pause, id(&[]), "holds as soon as no batch is open".into());
        }
    }
    if pass.can_turn_back() {
        offer(Verb::Rollback, id(&[]), format!("everything goes back to {}", run.source));
    }
    if pass.started() {
        let attempt = run.retries.to_string();
        offer(Verb::Retry, id(&["retry", &attempt]), "tries once more what is blocked".into());
    }
    offers
}

/// A short name of a step, the same for as long as the step is.
fn id(intent: &Intent, run: &Run, parts: &[&str]) -> String {
    let counter = run.counter.to_string();
    let mut hash = Sha256::new();
    for part in [intent.uid.as_str(), &counter].into_iter().chain(parts.iter().copied()) {
        hash.update(part);
        hash.update([0]);
    }
    let short = hash.finalize().iter().take(ID_BYTES).fold(0_u32, |id, byte| (id << 8) | u32::from(*byte));
    format!("{short:08x}")
}

/// The wave that waits for its approval now.
fn waiting_wave<'p>(pass: &'p Pass<'_>) -> Option<&'p PlannedWave> {
    let run = &pass.run;
    let before_the_first = matches!(run.phase, Phase::Planned | Phase::StartingControlPlane);
    let before_the_next = run.phase == Phase::Migrating && run.step == WaveStep::Relabel;
    let wave = pass.current_wave().filter(|_| before_the_first || before_the_next)?;
    (!is_approved(pass.intent, run, &pass.plan, run.wave)).then_some(wave)
}

/// Whether a wave needs no approval, or has it: by the annotation, or in Git for this very plan.
pub fn is_approved(intent: &Intent, run: &Run, plan: &Plan, index: u32) -> bool {
    let wave = usize::try_from(index).ok().and_then(|index| plan.waves.get(index));
    let Some(wave) = wave.filter(|wave| wave.approval && wave.kind == WaveKind::Declared) else {
        return true;
    };
    if index < run.approved_waves {
        return true;
    }
    let Some(approval) = &intent.approval else { return false };
    let through = plan.waves.iter().position(|wave| wave.name == approval.through_wave);
    let own = plan.waves.iter().position(|other| other.name == wave.name);
    approval.plan_digest == planning::digest(plan, run) && own <= through
}

/// Whether the wave in work may begin as far as people are concerned; otherwise what it waits for is noted.
pub fn may_begin(pass: &mut Pass<'_>) -> bool {
    let Some(wave) = waiting_wave(pass) else { return true };
    let name = wave.name.clone();
    let digest = planning::digest(&pass.plan, &pass.run);
    let value = offers(pass).into_iter().find(|offer| offer.verb == Verb::Approve).map(|offer| offer.value);
    let stale = pass
        .intent
        .approval
        .as_ref()
        .filter(|approval| approval.plan_digest != digest)
        .map_or("", |_| "; the approval in the spec is for another plan");
    let because = format!(
        "wave {name:?} waits for approval{stale}: kubectl annotate meshupgrade {} {}={} --overwrite, or commit spec.approval \
         with throughWave: {name} and planDigest: {digest}",
        pass.intent.name,
        labels::ACTION,
        value.unwrap_or_default(),
    );
    pass.wait(WaitReason::ApprovalRequired, None, because);
    false
}
