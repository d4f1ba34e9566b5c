//! The table of phases and triggers, told as a whole: every pair in a golden file, the properties that must hold whatever
//! the table says, and the diagram of the documentation.
//!
//! `UPDATE_GOLDEN=1 cargo test -p meshupgrade-core --test transitions` writes the files again.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use meshupgrade_core::machine::phase::{Phase, TRANSITIONS, Trigger, diagram};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/transitions.txt")
}

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/state-diagram.md")
}

fn is_update() -> bool {
    env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1")
}

/// All pairs, phase by phase: where each trigger leads, or `-` when there is no such transition.
fn all_pairs() -> String {
    let mut text = String::from("# phase: trigger -> phase; - is no transition\n");
    for phase in Phase::ALL {
        let _ = writeln!(text, "\n{phase}");
        for trigger in Trigger::ALL {
            let to = phase.on(trigger).map_or("-", Phase::as_str);
            let _ = writeln!(text, "  {:<18} -> {to}", format!("{trigger:?}"));
        }
    }
    text
}

/// Where one trigger can lead from a phase.
fn next(phase: Phase) -> BTreeSet<Phase> {
    Trigger::ALL.into_iter().filter_map(|trigger| phase.on(trigger)).collect()
}

fn reachable(from: Phase) -> BTreeSet<Phase> {
    let mut seen = BTreeSet::from([from]);
    let mut open = vec![from];
    while let Some(phase) = open.pop() {
        open.extend(next(phase).into_iter().filter(|next| seen.insert(*next)));
    }
    seen
}

const INTRO: &str = "\
# The phases of a run

A run is always in one phase, and these are the only ways from one to another; an arrow is labelled with what moves the
run. Waiting is no phase: a run that waits (for a person, for a pod) stays where it is and says so in the
conditions `Paused` and `Stalled`. From every phase that is not over there is a way back, up to the accepted completion.

The diagram is made from the table in `crates/core/src/machine/phase.rs`; a test fails when the two differ.
";

fn state_diagram() -> String {
    format!("{INTRO}\n```mermaid\n{}```\n", diagram())
}

#[test]
fn every_pair_of_phase_and_trigger_is_as_written_down() {
    if is_update() {
        fs::create_dir_all(golden().parent().unwrap()).unwrap();
        fs::write(golden(), all_pairs()).unwrap();
    }
    let written = fs::read_to_string(golden()).unwrap_or_default();
    let pairs = all_pairs();
    let different = pairs.lines().zip(written.lines()).find(|(now, written)| now != written);
    assert!(
        pairs == written,
        "the table is not as written down, first here (now, written): {different:?}; if that is meant, run with UPDATE_GOLDEN=1"
    );
}

#[test]
fn the_documentation_shows_this_table() {
    if is_update() {
        fs::create_dir_all(document().parent().unwrap()).unwrap();
        fs::write(document(), state_diagram()).unwrap();
    }
    let written = fs::read_to_string(document()).unwrap_or_default();
    assert!(written.contains(&diagram()), "docs/state-diagram.md is stale: run with UPDATE_GOLDEN=1");
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = fs::read_to_string(readme).unwrap_or_default();
    assert!(
        readme.contains(&diagram()),
        "the diagram in README.md is stale: copy it from docs/state-diagram.md"
    );
}

#[test]
fn no_row_of_the_table_hides_another() {
    let mut seen = BTreeSet::new();
    for (trigger, sources, _) in TRANSITIONS {
        for source in *sources {
            assert!(seen.insert((*trigger, *source)), "{trigger:?} leaves {source} twice");
        }
    }
}

#[test]
fn the_lists_of_all_phases_and_triggers_are_complete() {
    let phases: BTreeSet<Phase> = Phase::ALL.into_iter().collect();
    let triggers: BTreeSet<Trigger> = Trigger::ALL.into_iter().collect();
    assert_eq!((phases.len(), triggers.len()), (Phase::ALL.len(), Trigger::ALL.len()));
    for (trigger, sources, to) in TRANSITIONS {
        assert!(triggers.contains(trigger), "{trigger:?}");
        assert!(sources.iter().chain([to]).all(|phase| phases.contains(phase)));
    }
}

#[test]
fn every_trigger_moves_some_phase() {
    for trigger in Trigger::ALL {
        assert!(Phase::ALL.into_iter().any(|phase| phase.on(trigger).is_some()), "{trigger:?}");
    }
}

#[test]
fn every_phase_is_reachable_from_the_first() {
    let all: BTreeSet<Phase> = Phase::ALL.into_iter().collect();
    assert_eq!(reachable(Phase::default()), all);
}

#[test]
fn a_run_that_is_over_goes_nowhere_and_every_other_can_end() {
    for phase in Phase::ALL {
        assert_eq!(phase.is_over(), next(phase).is_empty(), "{phase}");
        assert!(reachable(phase).into_iter().any(Phase::is_over), "{phase}");
    }
    assert!(Phase::Succeeded.is_over() && Phase::RolledBack.is_over());
}

#[test]
fn there_is_a_way_back_from_every_phase_that_is_not_over() {
    for phase in Phase::ALL.into_iter().filter(|phase| !phase.is_over()) {
        let back =
            phase == Phase::RollingBack || phase.on(Trigger::RollbackBegun) == Some(Phase::RollingBack);
        assert!(back, "{phase}");
    }
}

#[test]
fn only_a_wave_that_went_back_by_itself_leads_forward_again() {
    let forward: Vec<Trigger> = Trigger::ALL
        .into_iter()
        .filter(|trigger| {
            let to = Phase::RollingBack.on(*trigger);
            to.is_some_and(|to| to != Phase::RollingBack && to != Phase::RolledBack)
        })
        .collect();
    assert_eq!(forward, [Trigger::WaveReturned]);
}

#[test]
fn after_the_first_write_no_way_leads_back_to_planning() {
    let after = reachable(Phase::Migrating);
    for phase in [Phase::Pending, Phase::Preflight, Phase::Planned, Phase::StartingControlPlane] {
        assert!(!after.contains(&phase), "{phase}");
    }
}
