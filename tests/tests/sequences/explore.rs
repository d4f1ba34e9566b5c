//! Small worlds, searched exhaustively.

use meshupgrade_sequences::action::Action;
use meshupgrade_sequences::case::{CASE, Case};
use meshupgrade_sequences::explore::explore;
use meshupgrade_sequences::world::World;
use meshupgrade_sequences::world::build::{NEW, OLD, deployment, intent, rolling};

/// More states than any of the small worlds has.
const MOST: usize = 2_000_000;

fn small(replicas: &[u32]) -> World {
    let mut request = intent();
    request.settle_seconds = 1;
    // A search has no end if time alone makes new states.
    request.restart.timeout_seconds = 100_000;
    let mut world = World::new(request);
    world.namespace("a", Some(OLD));
    for (name, replicas) in ["db", "web"].iter().zip(replicas) {
        world.running(&deployment("a", name), *replicas, rolling(0, 1));
    }
    world
}

/// One workload of one pod.
fn tiny() -> World {
    small(&[1])
}

/// One workload of two pods.
fn one() -> World {
    small(&[2])
}

/// Two workloads of one pod, one at a time.
fn two() -> World {
    small(&[1, 1])
}

fn search(name: &'static str, world: fn() -> World, people: &[Action], crashes: usize) {
    let case = Case { name, world, remover: false, ..CASE };
    match explore(&case, people, crashes, MOST) {
        Ok(found) => {
            assert!(found.complete, "{name}: more than {MOST} states: make its world smaller");
            println!(
                "{name}: {} states, {} steps, {} deep, {} ends",
                found.states, found.steps, found.depth, found.ends
            );
        }
        Err(failure) => panic!("{name}: {failure}"),
    }
}

#[test]
fn forward() {
    search("forward, one crash", one, &[], 1);
    search("forward, two workloads", two, &[], 1);
}

#[test]
fn back() {
    search("back", tiny, &[Action::RequestRollback(true)], 0);
    search("created again", tiny, &[Action::Recreate(deployment("a", "db"))], 0);
    search("applied again", tiny, &[Action::Reapply], 1);
}

#[test]
fn disturbed() {
    let label = |revision| Action::Label("a".into(), Some(revision));
    search("label put back", one, &[label(OLD)], 0);
    search("label put back and mended", tiny, &[label(OLD), label(NEW)], 0);
    search("istiod dies", tiny, &[Action::Istiod(NEW, 0), Action::Istiod(NEW, 1)], 0);
    search("suspended", tiny, &[Action::Suspend(true), Action::Suspend(false)], 0);
}

/// Larger ones, minutes each: `make search`.
#[test]
#[ignore = "takes minutes: make search"]
fn more() {
    let label = |revision| Action::Label("a".into(), Some(revision));
    search("back, one crash", one, &[Action::RequestRollback(true)], 1);
    search("label put back and retried", tiny, &[label(OLD), Action::Retry], 0);
    search("template replaced", tiny, &[Action::ReplaceTemplate(deployment("a", "db")), Action::Retry], 0);
    search("applied again and back", tiny, &[Action::Reapply, Action::RequestRollback(true)], 0);
}
