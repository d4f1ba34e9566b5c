//! The waves on the way forward: labels, settle time, restarts, proof, soak.

use std::collections::BTreeSet;

use crate::gate;
use crate::ids::NamespaceName;
use crate::inventory::{Group, members_leaving};
use crate::machine::analysis::{self, Opinion};
use crate::machine::batch::{self, Front};
use crate::machine::gateways;
use crate::machine::pass::{Pass, after, pair, shown};
use crate::machine::people;
use crate::machine::phase::Trigger;
use crate::machine::relabel::{in_place_since, labels_in_place};
use crate::plan::{PlannedWave, WaveKind};
use crate::planning;
use crate::record::{Direction, WaveStep};
use crate::wait::WaitReason;

/// How many waves a plan may grow to before stragglers are left to a person.
const MAX_WAVES: usize = 128;

/// Moves the wave in work by one step. Says whether the position changed.
pub fn migrate(pass: &mut Pass<'_>) -> bool {
    let Some(wave) = pass.current_wave().cloned() else {
        return after_the_last(pass);
    };
    let namespaces: BTreeSet<NamespaceName> = wave.namespaces.iter().cloned().collect();
    pass.needs.pods.clone_from(&namespaces);
    let target = pass.run.target.clone();
    let gate = gate::control_plane(pass.snapshot, &pass.intent.istio_namespace, &target);
    let open = gate.is_none() && !pass.lacks_version();
    pass.waits.extend(gate);
    match pass.run.step {
        WaveStep::Relabel => relabel(pass, open),
        WaveStep::Settle => settle(pass),
        WaveStep::Restart | WaveStep::Proven => restart(pass, &wave, &namespaces, open),
    }
}

fn relabel(pass: &mut Pass<'_>, open: bool) -> bool {
    if is_held_after_return(pass) || !people::may_begin(pass) || !pass.may_start() {
        return false;
    }
    let wave = pass.run.wave;
    if !open || !gateways::pinned(pass) || !labels_in_place(pass, wave, Some(wave)) {
        return false;
    }
    // It has begun: an approval that goes away later changes nothing.
    pass.run.approved_waves = pass.run.approved_waves.max(wave.saturating_add(1));
    pass.run.step = WaveStep::Settle;
    pass.run.settled_since = Some(in_place_since(pass, wave));
    true
}

/// Whether the wave went back by itself and nobody has let it go on.
fn is_held_after_return(pass: &mut Pass<'_>) -> bool {
    let Some(why) = pass.run.returned.clone() else { return false };
    if pass.retries_all() {
        pass.run.returned = None;
        pass.event(false, "RetryAccepted", None, "the wave goes forward once more");
        return false;
    }
    let name = pass.current_wave().map_or_else(String::new, |wave| wave.name.clone());
    let because = format!(
        "wave {name:?} is back on {} ({why}); {}",
        pass.run.source,
        pass.how_to_retry("lets it go forward once more")
    );
    pass.wait(WaitReason::WaveRolledBack, None, because);
    true
}

fn settle(pass: &mut Pass<'_>) -> bool {
    if !settled(pass) {
        return false;
    }
    pass.run.step = WaveStep::Restart;
    true
}

/// Whether the labels of all waves so far are in place and have been for the settle time.
fn settled(pass: &mut Pass<'_>) -> bool {
    if pass.run.source == pass.run.target {
        return true;
    }
    if !labels_in_place(pass, pass.run.wave, None) {
        pass.run.settled_since = None;
        return false;
    }
    settle_time_is_over(pass)
}

/// Whether the settle time is over, which begins now if it had not begun.
pub fn settle_time_is_over(pass: &mut Pass<'_>) -> bool {
    let since = *pass.run.settled_since.get_or_insert(pass.now);
    let until = after(since, pass.intent.settle_seconds);
    if until > pass.now {
        pass.wait(
            WaitReason::Settling,
            None,
            format!("the labels must stay until {} before restarts begin", shown(until)),
        );
        pass.wake_at(until);
        return false;
    }
    true
}

fn restart(
    pass: &mut Pass<'_>,
    wave: &PlannedWave,
    namespaces: &BTreeSet<NamespaceName>,
    open: bool,
) -> bool {
    let settled = settled(pass);
    let analysis = analysis::of_wave(pass.intent, wave);
    let front = Front {
        analysis: (!analysis.metrics.is_empty()).then_some(analysis),
        ..front_of(pass, wave, namespaces, !open || !settled)
    };
    if !batch::advance(pass, &front) {
        // A failed workload may have turned the run back.
        return pass.run.rollback.is_some();
    }
    // Without an injector nobody knows who takes part in a patch upgrade.
    if !settled || (pass.run.patch && !open) {
        return false;
    }
    let done = u32::try_from(front.members.len()).unwrap_or(u32::MAX);
    pass.run.workloads_done = pass.run.workloads_done.saturating_add(done);
    pass.event(
        false,
        "WaveCompleted",
        None,
        format!("wave {:?}: {done} workloads run on {}", wave.name, pass.run.target),
    );
    if wave.soak_seconds > 0 {
        pass.run.step = WaveStep::Proven;
        pass.run.soak_since = Some(pass.now);
        let before = pass.run.wave_began.unwrap_or(pass.now);
        analysis::open(pass, analysis, before, Vec::new());
        return pass.go(Trigger::WaveProven);
    }
    next_wave(pass)
}

/// The restartable workloads of a wave.
pub fn front_of<'a>(
    pass: &Pass<'a>,
    wave: &PlannedWave,
    namespaces: &BTreeSet<NamespaceName>,
    held: bool,
) -> Front<'a> {
    let group = if wave.kind == WaveKind::Gateways { Group::Last } else { Group::Application };
    let revisions = pass.revisions();
    let leaving = match pass.run.direction() {
        Direction::Forward => &revisions.0,
        Direction::Back => &revisions.1,
    };
    Front {
        members: members_leaving(pass.intent, pass.snapshot, pair(&revisions), leaving, namespaces, group),
        max_concurrent: wave.max_concurrent,
        held,
        analysis: None,
        wave: wave.name.clone(),
    }
}

/// Watches a finished wave for its soak time, and sees to it that it is still fine at its end.
pub fn soak(pass: &mut Pass<'_>) -> bool {
    let Some(wave) = pass.current_wave().cloned() else {
        return after_the_last(pass);
    };
    let namespaces: BTreeSet<NamespaceName> = wave.namespaces.iter().cloned().collect();
    pass.needs.pods.clone_from(&namespaces);
    let until = after(*pass.run.soak_since.get_or_insert(pass.now), wave.soak_seconds);
    let well = soaks_well(pass, &wave, &namespaces, until);
    if well == Opinion::TurnedBack {
        return true;
    }
    if until > pass.now {
        pass.wait(WaitReason::Soaking, None, format!("wave {:?} soaks until {}", wave.name, shown(until)));
        pass.wake_at(until);
        return false;
    }
    if well == Opinion::Waits {
        return false;
    }
    // What was opened at the end of a soak is watched until it is over.
    if pass.run.batch.is_none() && !pass.may_start() {
        return false;
    }
    let target = pass.run.target.clone();
    let gate = gate::control_plane(pass.snapshot, &pass.intent.istio_namespace, &target);
    let open = gate.is_none();
    pass.waits.extend(gate);
    let settled = settled(pass);
    // A pod that was made while the label was elsewhere is brought over before the next wave.
    let front = front_of(pass, &wave, &namespaces, !open || !settled);
    if !batch::advance(pass, &front) || !settled || (pass.run.patch && !open) {
        return false;
    }
    next_wave(pass)
}

/// What the metrics of a wave say while it soaks.
fn soaks_well(
    pass: &mut Pass<'_>,
    wave: &PlannedWave,
    namespaces: &BTreeSet<NamespaceName>,
    until: jiff::Timestamp,
) -> Opinion {
    if pass.run.gate.is_none() {
        // The metrics were put into the spec while it soaks.
        let before = pass.run.wave_began.unwrap_or(pass.now);
        analysis::open(pass, analysis::of_wave(pass.intent, wave), before, Vec::new());
    }
    let front = front_of(pass, wave, namespaces, true);
    let workloads = front.members.iter().map(|workload| workload.reference.clone()).collect();
    analysis::gate(pass, analysis::of_wave(pass.intent, wave), &wave.name, &workloads, Some(until))
}

fn next_wave(pass: &mut Pass<'_>) -> bool {
    pass.run.wave += 1;
    pass.run.step = WaveStep::Relabel;
    pass.run.settled_since = None;
    pass.run.soak_since = None;
    pass.run.batch_closed_at = None;
    pass.run.wave_began = None;
    pass.run.progress = None;
    pass.run.gate = None;
    if let Some(wave) = pass.current_wave().cloned() {
        pass.event(
            false,
            "WaveStarted",
            None,
            format!(
                "wave {:?}: {} namespaces, {} workloads",
                wave.name,
                wave.namespaces.len(),
                wave.workloads
            ),
        );
        return pass.go(Trigger::NextWave);
    }
    after_the_last(pass)
}

/// After the last wave: late namespaces get a wave of their own, or the run is completed.
fn after_the_last(pass: &mut Pass<'_>) -> bool {
    let revisions = pass.revisions();
    let late = if revisions.0 == revisions.1 {
        BTreeSet::new()
    } else {
        planning::stragglers(pass.intent, pass.snapshot, pair(&revisions), &pass.plan)
    };
    if !late.is_empty() && append(pass, &late) {
        return pass.go(Trigger::NextWave);
    }
    if !gateways::released(pass) {
        return false;
    }
    pass.run.soak_since = Some(pass.now);
    pass.event(false, "WavesCompleted", None, format!("all waves run on {}", pass.run.target));
    pass.go(Trigger::WavesDone)
}

/// Appends a wave of stragglers, and one of their gateways. Says whether there was room.
pub fn append(pass: &mut Pass<'_>, namespaces: &BTreeSet<NamespaceName>) -> bool {
    if pass.plan.waves.len() + 2 > MAX_WAVES {
        return false;
    }
    let revisions = pass.revisions();
    let pair = pair(&revisions);
    let wave = planning::stragglers_wave(pass.intent, pass.snapshot, pair, namespaces);
    let names: Vec<&str> = namespaces.iter().map(NamespaceName::as_str).collect();
    let note = format!("not everything is on {} in {}", pair.target, crate::inventory::some_of(&names));
    let gateways = planning::gateways_wave(pass.intent, pass.snapshot, pair, namespaces);
    pass.run.wave = u32::try_from(pass.plan.waves.len()).unwrap_or(u32::MAX);
    pass.run.step = WaveStep::Relabel;
    pass.run.settled_since = None;
    pass.run.soak_since = None;
    pass.run.wave_began = None;
    pass.run.progress = None;
    pass.run.gate = None;
    pass.run.removal_due = None;
    for wave in [Some(wave), gateways].into_iter().flatten() {
        pass.plan.workloads = pass.plan.workloads.saturating_add(wave.workloads);
        pass.plan.waves.push(wave);
    }
    pass.event(true, "StragglersFound", None, note);
    true
}
