//! Small worlds, searched exhaustively.

use meshupgrade_sequences::action::Action;
use meshupgrade_sequences::case::{CASE, Case, Tolerate};
use meshupgrade_sequences::explore::explore;
use meshupgrade_sequences::world::World;
use meshupgrade_sequences::world::build::{NEW, OLD, deployment, intent, rolling, stateful_set};

fn most() -> usize {
    std::env::var("STATES").ok().and_then(|text| text.parse().ok()).unwrap_or(30_000)
}

/// Two namespaces with two workloads of two pods, two at a time.
fn two_by_two() -> World {
    let mut request = intent();
    request.settle_seconds = 1;
    request.restart.timeout_seconds = 100_000;
    request.waves[0].max_concurrent_workloads = meshupgrade_core::observed::IntOrPercent::Int(2);
    let mut world = World::new(request);
    for name in ["a", "b"] {
        world.namespace(name, Some(OLD));
        world.running(&deployment(name, "web"), 2, rolling(0, 1));
        world.running(&stateful_set(name, "db"), 2, rolling(0, 1));
    }
    world
}

/// One namespace with two workloads of two pods.
fn one_by_two() -> World {
    let mut request = intent();
    request.settle_seconds = 1;
    request.restart.timeout_seconds = 100_000;
    let mut world = World::new(request);
    world.namespace("a", Some(OLD));
    world.running(&deployment("a", "web"), 2, rolling(0, 1));
    world.running(&stateful_set("a", "db"), 2, rolling(0, 1));
    world.budget("a", "web", 1);
    world
}

fn search(name: &'static str, world: fn() -> World, people: &[Action], crashes: usize) {
    let tolerate = Tolerate { lost_sidecars: false, budgets: false };
    let case = Case { name, world, tolerate, remover: false, ..CASE };
    match explore(&case, people, crashes, most()) {
        Ok(found) => println!(
            "{name}: {} states, {} steps, {} deep, {} ends, {}",
            found.states,
            found.steps,
            found.depth,
            found.ends,
            if found.complete { "complete" } else { "cut off" }
        ),
        Err(failure) => panic!("{name}: {failure}"),
    }
}

#[test]
fn forward() {
    search("forward", one_by_two, &[], 0);
    search("forward, one crash", one_by_two, &[], 1);
    search("forward, two by two", two_by_two, &[], 0);
}

#[test]
fn back() {
    search("back", one_by_two, &[Action::RequestRollback(true)], 0);
    search("back, one crash", one_by_two, &[Action::RequestRollback(true)], 1);
}

#[test]
fn disturbed() {
    let label = |revision| Action::Label("a".into(), Some(revision));
    search("label put back", one_by_two, &[label(OLD)], 0);
    search("label put back and mended", one_by_two, &[label(OLD), label(NEW), Action::Retry], 0);
    search("template replaced", one_by_two, &[Action::ReplaceTemplate(deployment("a", "web")), Action::Retry], 0);
    search("istiod dies", one_by_two, &[Action::Istiod(NEW, 0), Action::Istiod(NEW, 1)], 0);
    search("suspended", one_by_two, &[Action::Suspend(true), Action::Suspend(false)], 0);
    search("applied again", one_by_two, &[Action::Reapply, Action::RequestRollback(true)], 0);
}
