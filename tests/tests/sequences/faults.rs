//! Every write goes wrong once, in every way: the run ends as if nothing had happened.

use meshupgrade_sequences::case::Case;
use meshupgrade_sequences::cases;
use meshupgrade_sequences::faults::Fault;
use meshupgrade_sequences::runner::{Run, run_ordered};

/// Runs a case with these faults, and compares its end with that of the run without any.
fn holds(case: &Case, clean: &Run, planned: &[(u64, Fault)]) -> Option<String> {
    let told = format!("with {planned:?}: ");
    match run_ordered(case, planned) {
        Err(failure) => Some(told + &failure),
        Ok(run) if run.world.essence() != clean.world.essence() => {
            let (is, was) = (run.world.essence(), clean.world.essence());
            Some(told + &run.failure(None, &format!("the end is another one: {is:?} instead of {was:?}")))
        }
        Ok(_) => None,
    }
}

fn complain(wrong: &[String], plans: usize) {
    println!("{plans} fault plans");
    assert!(wrong.is_empty(), "{} of {plans} plans fail, the first: {}", wrong.len(), wrong[0]);
}

/// Every write × every fault, in every case.
#[test]
fn one_fault_at_every_write() {
    let (mut wrong, mut plans) = (Vec::new(), 0);
    for case in cases::all() {
        let Ok(clean) = run_ordered(&case, &[]) else {
            continue;
        };
        for write in 1..=clean.faults.writes {
            for fault in Fault::ALL {
                plans += 1;
                wrong.extend(holds(&case, &clean, &[(write, fault)]));
            }
        }
    }
    complain(&wrong, plans);
}

/// All pairs of crashes, in small cases forward and back.
#[test]
fn two_crashes() {
    let (mut wrong, mut plans) = (Vec::new(), 0);
    for name in ["keep_both", "small_rollback", "shared_budget"] {
        let case = cases::find(name).unwrap();
        let clean = run_ordered(&case, &[]).unwrap();
        let crashes = [Fault::CrashBefore, Fault::CrashAfter];
        for first in 1..=clean.faults.writes {
            for second in first + 1..=clean.faults.writes + 2 {
                for (one, other) in
                    crashes.iter().flat_map(|one| crashes.iter().map(move |other| (*one, *other)))
                {
                    plans += 1;
                    wrong.extend(holds(&case, &clean, &[(first, one), (second, other)]));
                }
            }
        }
    }
    complain(&wrong, plans);
}

/// Storms: the first thirty writes fail, or every other one.
#[test]
fn storms() {
    let (mut wrong, mut plans) = (Vec::new(), 0);
    for case in cases::all() {
        let Ok(clean) = run_ordered(&case, &[]) else {
            continue;
        };
        for fault in Fault::ALL {
            let storm: Vec<(u64, Fault)> = (1..=30).map(|write| (write, fault)).collect();
            let every_other: Vec<(u64, Fault)> = (1..=200).map(|write| (write * 2, fault)).collect();
            for plan in [storm, every_other] {
                plans += 1;
                wrong.extend(holds(&case, &clean, &plan));
            }
        }
    }
    complain(&wrong, plans);
}
