//! Something happens at every moment of a run: whenever it comes, the run ends as it should.

use jiff::SignedDuration;
use meshupgrade_core::ids::NamespaceName;
use meshupgrade_core::intent::OnFailure;
use meshupgrade_core::machine::phase::Phase;
use meshupgrade_core::wait::WaitReason;
use meshupgrade_sequences::action::Action;
use meshupgrade_sequences::case::{Case, When};
use meshupgrade_sequences::cases;
use meshupgrade_sequences::runner::{Run, run_ordered};
use meshupgrade_sequences::world::build::{NEW, OLD, default_rolling, deployment, epoch, stateful_set};

/// Lets a run go so many rounds, does something, lets it go `between` more rounds, does something else, and lets it end.
fn interrupted(
    case: &Case,
    rounds: usize,
    what: &[Action],
    between: usize,
    then: &[Action],
) -> Result<Run, String> {
    let mut run = Run::new(case);
    let outcome = run
        .rounds(rounds)
        .and_then(|()| run.act(what))
        .and_then(|()| run.rounds(between))
        .and_then(|()| run.act(then))
        .and_then(|()| run.ordered());
    match outcome {
        Ok(()) => Ok(run),
        Err(violation) => Err(format!("after {rounds} rounds: {}", run.failure(None, &violation))),
    }
}

/// Does it at every moment of the case; `ends` judges the end.
fn everywhere(name: &str, what: &[Action], between: usize, then: &[Action], ends: fn(&Run) -> bool) {
    let case = cases::find(name).unwrap();
    let last = run_ordered(&case, &[]).unwrap().round;
    let mut wrong = Vec::new();
    for rounds in 0..last {
        match interrupted(&case, rounds, what, between, then) {
            Err(failure) => wrong.push(failure),
            Ok(run) if !ends(&run) => {
                let message = run.world.upgrade.view.message.clone();
                wrong.push(format!(
                    "after {rounds} rounds: {}",
                    run.failure(None, &format!("ends with: {message}"))
                ));
            }
            Ok(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{name}: {} of {last} moments fail, the first: {}", wrong.len(), wrong[0]);
}

fn phase(run: &Run) -> Phase {
    run.world.upgrade.view.phase
}

/// I5: rollback is reachable from everywhere before the accepted completion.
#[test]
fn rollback_from_everywhere() {
    for name in ["three_waves", "all_kinds", "stragglers", "pauses_and_soaks", "churn", "shared_budget"] {
        everywhere(name, &[Action::RequestRollback(true)], 0, &[], |run| {
            phase(run) == Phase::RolledBack || phase(run) == Phase::Succeeded
        });
    }
}

/// The same by `git revert`.
#[test]
fn target_set_back_from_everywhere() {
    everywhere("three_waves", &[Action::Target(OLD)], 0, &[], |run| {
        // Before the first write, source and target are one and the same: there is nothing to do. After the end, it is
        // the next run, which waits for a control plane that is gone.
        matches!(phase(run), Phase::RolledBack | Phase::Succeeded)
            || (run.world.upgrade.record.history.len() == 1
                && When::Waits(WaitReason::RevisionNotFound).has_come(&run.world, epoch()))
    });
}

/// The object is deleted and applied again: nothing is restarted twice, and the run ends.
#[test]
fn reapplied_everywhere() {
    everywhere("three_waves", &[Action::Reapply], 0, &[], |run| phase(run) == Phase::Succeeded);
    everywhere("three_waves", &[Action::Reapply, Action::RequestRollback(true)], 0, &[], |run| {
        // After the end the source's control plane is gone: a new object that asks for rollback waits for it.
        matches!(phase(run), Phase::RolledBack | Phase::Succeeded)
            || When::Waits(WaitReason::RevisionNotFound).has_come(&run.world, epoch())
    });
}

/// The object is applied again, and a little later it is to go back: all that the first one moved goes back.
#[test]
fn reapplied_and_rolled_back_everywhere() {
    for between in [1, 5, 40] {
        everywhere("three_waves", &[Action::Reapply], between, &[Action::RequestRollback(true)], |run| {
            matches!(phase(run), Phase::RolledBack | Phase::Succeeded)
                || When::Waits(WaitReason::RevisionNotFound).has_come(&run.world, epoch())
        });
    }
}

/// Suspension holds, and ends.
#[test]
fn suspended_everywhere() {
    everywhere("three_waves", &[Action::Suspend(true)], 30, &[Action::Suspend(false)], |run| {
        phase(run) == Phase::Succeeded
    });
}

/// The target's istiod dies and returns.
#[test]
fn istiod_dies_everywhere() {
    everywhere("three_waves", &[Action::Istiod(NEW, 0)], 40, &[Action::Istiod(NEW, 2)], |run| {
        phase(run) == Phase::Succeeded
    });
}

/// The target's istiod dies, and the run is to go back.
#[test]
fn istiod_dies_and_rolled_back_everywhere() {
    everywhere("three_waves", &[Action::Istiod(NEW, 0)], 3, &[Action::RequestRollback(true)], |run| {
        matches!(phase(run), Phase::RolledBack | Phase::Succeeded)
    });
}

/// A label is put back, and the run is to go back.
#[test]
fn label_put_back_and_rolled_back_everywhere() {
    let back = [Action::Label(NamespaceName::from("shop"), Some(OLD))];
    everywhere("three_waves", &back, 3, &[Action::RequestRollback(true)], |run| {
        // Where the source's control plane went meanwhile, there is no way back: the label is to be set to the target.
        matches!(phase(run), Phase::RolledBack | Phase::Succeeded)
            || When::Waits(WaitReason::LabelReverted).has_come(&run.world, epoch())
    });
}

/// A label is put back and, later, set to the target by its owner.
#[test]
fn label_put_back_everywhere() {
    let name = NamespaceName::from("shop");
    let back = [Action::Label(name.clone(), Some(OLD))];
    let again = [Action::Label(name, Some(NEW)), Action::Retry];
    everywhere("three_waves", &back, 20, &again, |run| {
        !phase(run).is_over() || phase(run) == Phase::Succeeded
    });
}

/// A team deploys a new version.
#[test]
fn redeployed_everywhere() {
    everywhere("three_waves", &[Action::Redeploy(deployment("shop", "web"))], 0, &[], |run| {
        phase(run) == Phase::Succeeded
    });
}

/// The operator is away for longer than a workload may take, at any moment: that is no workload's failure.
#[test]
fn away_for_longer_than_the_timeout() {
    let case = cases::find("three_waves").unwrap();
    let last = run_ordered(&case, &[]).unwrap().round;
    for rounds in 0..last {
        let mut run = Run::new(&case);
        run.world.request().on_failure = OnFailure::Automatic;
        let outcome = run.rounds(rounds).and_then(|()| {
            run.crash();
            run.world.now += SignedDuration::from_secs(1_000);
            run.ordered()
        });
        let failure = outcome.err().unwrap_or_default();
        assert!(failure.is_empty(), "after {rounds} rounds: {}", run.failure(None, &failure));
        let message = &run.world.upgrade.view.message;
        assert_eq!(phase(&run), Phase::Succeeded, "after {rounds} rounds: {message}");
    }
}

/// A team deletes a workload and creates it again under the same name.
#[test]
fn recreated_everywhere() {
    for app in [deployment("shop", "web"), stateful_set("billing", "db")] {
        everywhere("three_waves", &[Action::Recreate(app)], 0, &[], |run| phase(run) == Phase::Succeeded);
    }
}

/// A team deletes a workload, and a namespace.
#[test]
fn deleted_everywhere() {
    let what =
        [Action::Delete(deployment("shop", "web")), Action::DeleteNamespace(NamespaceName::from("stock"))];
    everywhere("three_waves", &what, 0, &[], |run| phase(run) == Phase::Succeeded);
}

/// A workload of the open batch is deleted and created again while its label leads back, and the operator starts anew: it
/// is another workload, with an entry of its own.
#[test]
fn recreated_in_the_batch() {
    let (shop, cart) = (NamespaceName::from("shop"), deployment("shop", "cart"));
    let again = [Action::Delete(cart.clone()), Action::Create(cart, 2, default_rolling())];
    let mut case = cases::find("three_waves").unwrap();
    case.tolerate.budgets = true;
    let mut run = Run::new(&case);
    while !When::Wave(1).has_come(&run.world, epoch()) {
        run.rounds(1).unwrap();
    }
    run.act(&[Action::Label(shop, Some(OLD))]).unwrap();
    run.rounds(2).unwrap();
    run.act(&again).unwrap();
    run.crash();
    run.rounds(20).unwrap();
    run.act(&[Action::Retry]).unwrap();
    let outcome = run.ordered();
    assert!(
        outcome.is_ok() && phase(&run) == Phase::Succeeded,
        "{}",
        run.failure(None, &format!("{outcome:?}"))
    );
}

/// An owner puts a template back, and a person asks for a retry.
#[test]
fn template_replaced_everywhere() {
    everywhere(
        "three_waves",
        &[Action::ReplaceTemplate(deployment("shop", "web"))],
        30,
        &[Action::Retry],
        |run| phase(run) == Phase::Succeeded,
    );
}
