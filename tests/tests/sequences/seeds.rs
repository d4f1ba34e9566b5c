//! Random orders.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use meshupgrade_sequences::case::Case;
use meshupgrade_sequences::cases;
use meshupgrade_sequences::report::Reached;
use meshupgrade_sequences::runner::{run_ordered, run_random};

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// `SEEDS` seeds of each case, from `SEED_FROM` on. `VERBOSE=1` prints the time of each case.
#[test]
fn seeds() {
    let (from, count) = (variable("SEED_FROM", 0), variable("SEEDS", 100));
    let begun = Instant::now();
    let all = cases::all();
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(case) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    run_seeds(case, from..from + count, &wrong);
                }
            });
        }
    });
    let seconds = begun.elapsed().as_secs();
    let runs = all.len() as u64 * count;
    println!("{runs} seeds in {seconds} s: {} per second", runs / seconds.max(1));
    let wrong = wrong.into_inner().unwrap();
    let text: Vec<String> =
        wrong.values().map(|(times, first)| format!("{times} times, first: {first}")).collect();
    assert!(text.is_empty(), "{} different failures:\n{}", text.len(), text.join("\n"));
}

/// Failures by case and by what was broken, with how often, and the first of them in full.
type Failures = Mutex<BTreeMap<(&'static str, String), (u64, String)>>;

fn run_seeds(case: &Case, seeds: Range<u64>, wrong: &Failures) {
    let begun = Instant::now();
    let count = seeds.end - seeds.start;
    for seed in seeds {
        if let Err(failure) = run_random(case, seed) {
            let broken = failure.lines().next().unwrap_or_default();
            let kind = broken.split(": ").skip(1).take(1).collect::<String>();
            wrong.lock().unwrap().entry((case.name, kind)).or_insert((0, failure)).0 += 1;
        }
    }
    if std::env::var_os("VERBOSE").is_some() {
        println!("{:>30}: {} us per seed", case.name, begun.elapsed().as_micros() / u128::from(count.max(1)));
    }
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
        for seed in 0..variable("SEEDS", 100).min(100) {
            if let Ok(run) = run_random(&case, seed) {
                reached.merge(&run.referee.reached);
            }
        }
    }
    println!("never reached:\n{}{}", reached.missing(), reached.seen());
}
