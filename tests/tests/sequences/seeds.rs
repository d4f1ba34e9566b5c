//! Random orders.

use std::time::Instant;

use meshupgrade_sequences::cases;
use meshupgrade_sequences::report::Reached;
use meshupgrade_sequences::runner::{run_ordered, run_random};

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// `SEEDS` seeds of each case, from `SEED_FROM` on.
#[test]
fn seeds() {
    let (from, count) = (variable("SEED_FROM", 0), variable("SEEDS", 300));
    let begun = Instant::now();
    let mut wrong = Vec::new();
    let mut runs = 0;
    for case in cases::all() {
        for seed in from..from + count {
            runs += 1;
            if let Err(failure) = run_random(&case, seed) {
                wrong.push(failure);
                break;
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{runs} seeds in {seconds:.1} s: {:.0} per second", f64::from(runs) / seconds);
    assert!(wrong.is_empty(), "{} cases fail:\n{}", wrong.len(), wrong.join("\n"));
}

/// Runs one case again and prints its log: `CASE=name [SEED=n]`.
#[test]
fn replay() {
    let Ok(name) = std::env::var("CASE") else {
        return;
    };
    let case = cases::find(&name).unwrap_or_else(|| panic!("no case {name}"));
    let run = match std::env::var("SEED").ok().and_then(|text| text.parse().ok()) {
        Some(seed) => run_random(&case, seed),
        None => run_ordered(&case, &[]),
    };
    match run {
        Ok(run) => println!("{}", run.referee.log.text()),
        Err(failure) => panic!("{failure}"),
    }
}

/// What no seed reached.
#[test]
fn report() {
    let mut reached = Reached::default();
    for case in cases::all() {
        if let Ok(run) = run_ordered(&case, &[]) {
            reached.merge(&run.referee.reached);
        }
        for seed in 0..variable("SEEDS", 300).min(100) {
            if let Ok(run) = run_random(&case, seed) {
                reached.merge(&run.referee.reached);
            }
        }
    }
    println!("never reached:\n{}{}", reached.missing(), reached.seen());
}
