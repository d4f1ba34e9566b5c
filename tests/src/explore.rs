//! A small world searched exhaustively: every order of everybody's steps, breadth first, states seen once.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;

use jiff::Timestamp;
use meshupgrade_core::ids::WorkloadRef;
use serde_json::Value;

use crate::action::Action;
use crate::case::Case;
use crate::neighbours::{daemonset, deployment, disruption, statefulset};
use crate::rng::Rng;
use crate::runner::Run;
use crate::world::World;

/// Ages beyond this many seconds are all the same: nothing in the small worlds waits longer, except for what never comes.
const OLD_AGE: i64 = 3;

/// One step that somebody may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The operator: a decision, or one write.
    Operator,
    /// The operator dies and another one starts.
    Crash,
    /// The controllers look at all workloads.
    Controllers,
    /// The disruption controller.
    Disruption,
    /// The kubelet of one pod.
    Kubelet(u64),
    /// A second passes.
    Clock,
    /// Somebody does something, once.
    People(Action),
}

/// What a search found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Different states.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// Longest way from the beginning.
    pub depth: usize,
    /// States in which nobody can do anything.
    pub ends: usize,
    /// The search came to its end: there are no other states.
    pub complete: bool,
}

struct State {
    run: Run,
    depth: usize,
    way: usize,
    key: u128,
    crashes: usize,
    done: Vec<Action>,
}

/// Searches the states of a case from its beginning. `people` may do each of their actions once, in any order, and the
/// operator may die `crashes` times.
pub fn explore(case: &Case, people: &[Action], crashes: usize, most: usize) -> Result<Found, String> {
    let mut ways: Vec<(usize, Choice)> = vec![(0, Choice::Clock)];
    let mut seen: BTreeSet<u128> = BTreeSet::new();
    let mut found = Found::default();
    let mut run = Run::new(case);
    run.referee.log.off = true;
    let first = key(&run, &[], 0);
    seen.insert(first);
    let mut queue =
        VecDeque::from([State { run, depth: 0, way: 0, key: first, crashes: 0, done: Vec::new() }]);
    while let Some(state) = queue.pop_front() {
        found.states += 1;
        found.depth = found.depth.max(state.depth);
        if found.states >= most {
            return Ok(found);
        }
        let mut moved = false;
        for choice in choices(&state, people, crashes) {
            let mut next = State { run: state.run.clone(), done: state.done.clone(), ..state };
            take(&mut next, &choice)
                .map_err(|violation| told(&violation, case, &ways, state.way, &choice))?;
            if next.key == state.key {
                continue;
            }
            moved |= !matches!(choice, Choice::Clock | Choice::Crash | Choice::People(_));
            found.steps += 1;
            if seen.insert(next.key) {
                ways.push((state.way, choice));
                next.way = ways.len() - 1;
                next.depth += 1;
                queue.push_back(next);
            }
        }
        if !moved {
            found.ends += 1;
            let rest = state.run.referee.judge_rest(&state.run.world);
            rest.map_err(|violation| told(&violation, case, &ways, state.way, &Choice::Clock))?;
        }
    }
    found.complete = true;
    Ok(found)
}

/// How often a step is tried before it counts as none: some of the operator's steps change only what it knows, which is
/// not all part of a state's identity.
fn steps_of(choice: &Choice) -> usize {
    if *choice == Choice::Operator { 5 } else { 1 }
}

/// What anybody could do.
fn choices(state: &State, people: &[Action], crashes: usize) -> Vec<Choice> {
    let run = &state.run;
    let mut choices = vec![Choice::Operator, Choice::Controllers, Choice::Disruption];
    if state.crashes < crashes && run.operator_is_busy() {
        choices.push(Choice::Crash);
    }
    let busy = run
        .world
        .pods
        .iter()
        .filter(|(_, pod)| pod.terminating() || (!pod.view.ready && !sick(&run.world, pod)));
    choices.extend(busy.map(|(id, _)| Choice::Kubelet(*id)));
    if run.operator_wakes_at().is_some_and(|at| at > run.world.now) {
        choices.push(Choice::Clock);
    }
    choices.extend(people.iter().filter(|action| !state.done.contains(action)).cloned().map(Choice::People));
    choices
}

fn sick(world: &World, pod: &crate::world::Pod) -> bool {
    let named = pod.view.problem.is_some();
    named
        && pod
            .revision()
            .is_some_and(|revision| world.sick.contains(&(pod.workload.clone(), revision.clone())))
}

fn controllers(world: &mut World, rng: &mut Rng) {
    deployment::step(world, rng);
    statefulset::step(world, rng);
    daemonset::step(world, rng);
}

/// Takes a step and gives the state its new identity.
fn take(state: &mut State, choice: &Choice) -> Result<(), String> {
    let before = state.key;
    for _ in 0..steps_of(choice) {
        step(state, choice)?;
        state.key = key(&state.run, &state.done, state.crashes);
        if state.key != before {
            break;
        }
    }
    Ok(())
}

fn step(state: &mut State, choice: &Choice) -> Result<(), String> {
    let run = &mut state.run;
    match choice {
        Choice::Operator => return run.operator_once(),
        Choice::Crash => {
            state.crashes += 1;
            run.crash();
        }
        Choice::Controllers => controllers(&mut run.world, &mut Rng::ordered()),
        Choice::Disruption => disruption::step(&mut run.world, &mut Rng::ordered()),
        Choice::Kubelet(id) => crate::neighbours::kubelet::finish(&mut run.world, *id),
        Choice::Clock => run.world.now = run.operator_wakes_at().unwrap_or(run.world.now),
        Choice::People(action) => {
            state.done.push(action.clone());
            return run.act(std::slice::from_ref(action));
        }
    }
    run.act(&[])
}

fn told(violation: &str, case: &Case, ways: &[(usize, Choice)], way: usize, last: &Choice) -> String {
    let mut steps = vec![last.clone()];
    let mut at = way;
    while at != 0 {
        steps.push(ways[at].1.clone());
        at = ways[at].0;
    }
    steps.reverse();
    let run = Run::new(case);
    let key = key(&run, &[], 0);
    let mut state = State { run, depth: 0, way: 0, key, crashes: 0, done: Vec::new() };
    for step in &steps {
        if take(&mut state, step).is_err() {
            break;
        }
    }
    format!("{violation}\nsteps: {steps:?}\n{}", state.run.referee.log.text())
}

/// A hash of everything that decides what can happen, without names of pods, versions, and times other than ages.
fn key(run: &Run, done: &[Action], crashes: usize) -> u128 {
    let world = &run.world;
    let mut text = format!("{crashes} {done:?} ");
    for namespace in world.namespaces.values() {
        let age = age(world, world.labelled.get(&namespace.name).map(|it| it.since));
        let _ = write!(
            text,
            "{} {:?} {:?} {:?} {age};",
            namespace.name, namespace.labels, namespace.previous, namespace.relabelled_by
        );
    }
    for (name, app) in &world.apps {
        let lag = app.view.generation - app.view.rollout.observed_generation;
        let status = &app.view.rollout;
        let _ = write!(
            text,
            "{name} {lag} {} {} {} {};",
            status.current, status.updated, status.available, app.view.replicas
        );
        let _ = write!(text, "{:?}{:?}", world.template_of(name), app.previous);
        pods(world, name, &mut text);
    }
    let _ = write!(text, "{:?}{:?}{:?}", world.planes, world.budgets, world.sick);
    let record = serde_json::to_value(&world.upgrade.record.run).unwrap_or_default();
    aged(world, &record, &mut text);
    run.fingerprint(&mut text);
    hash(&text)
}

fn pods(world: &World, name: &WorkloadRef, text: &mut String) {
    let mut pods: Vec<String> = world
        .pods_of(name)
        .iter()
        .map(|(_, pod)| {
            let late = age(world, pod.view.deletion);
            format!(
                "{:?}{:?}{}{late}{}{:?}",
                pod.template,
                pod.revision(),
                pod.view.ready,
                pod.slot,
                pod.view.problem
            )
        })
        .collect();
    pods.sort();
    text.push_str(&pods.concat());
}

fn age(world: &World, since: Option<Timestamp>) -> i64 {
    since.map_or(-9, |since| world.now.duration_since(since).as_secs().clamp(-OLD_AGE, OLD_AGE))
}

/// JSON with times replaced by ages.
fn aged(world: &World, value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                text.push_str(name);
                aged(world, field, text);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| aged(world, item, text)),
        Value::String(string) => match string.parse::<Timestamp>() {
            Ok(time) => {
                let _ = write!(text, "{}", age(world, Some(time)));
            }
            Err(_) => text.push_str(string),
        },
        other => {
            let _ = write!(text, "{other}");
        }
    }
}

/// FNV-1a.
fn hash(text: &str) -> u128 {
    text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}
