//! The fakes by themselves: they keep the rules of what they stand for.

use std::collections::BTreeMap;
use std::sync::Arc;

use meshupgrade_core::ids::{NamespaceName, WorkloadRef};
use meshupgrade_core::observed::{PodTemplate, Strategy};
use meshupgrade_sequences::action::{Action, act};
use meshupgrade_sequences::neighbours::{self, Neighbour, kubelet};
use meshupgrade_sequences::rng::Rng;
use meshupgrade_sequences::world::World;
use meshupgrade_sequences::world::api::Refusal;
use meshupgrade_sequences::world::build::{
    NEW, OLD, daemon_set, default_rolling, deployment, intent, rolling, stateful_set,
};
use meshupgrade_sequences::world::injector::{Outcome, selected, webhooks};
use meshupgrade_sequences::world::views::Versions;

fn world() -> World {
    let mut world = World::new(intent());
    world.namespace("shop", Some(OLD));
    world
}

/// Steps of all controllers in random order, with a look at the world after each.
fn turn(world: &mut World, seed: u64, steps: usize, mut look: impl FnMut(&World)) {
    let mut rng = Rng::new(seed);
    for _ in 0..steps {
        let neighbour = Neighbour::CONTROLLERS[rng.index(Neighbour::CONTROLLERS.len())];
        neighbour.step()(world, &mut rng);
        look(world);
    }
}

fn live(world: &World, app: &WorkloadRef) -> (usize, usize) {
    let pods = world.pods_of(app);
    let live = pods.iter().filter(|(_, pod)| !pod.terminating()).count();
    (live, pods.iter().filter(|(_, pod)| pod.available()).count())
}

fn all_new(world: &World, app: &WorkloadRef) -> bool {
    let template = world.template_of(app);
    world.pods_of(app).iter().all(|(_, pod)| pod.template == template && pod.available())
}

#[test]
fn a_rolling_update_keeps_its_limits_and_ends() {
    for (surge, unavailable) in [(1, 0), (0, 1), (1, 1), (2, 2), (0, 0)] {
        for seed in 0..50 {
            let app = deployment("shop", "web");
            let mut world = world();
            world.running(&app, 4, rolling(surge, unavailable));
            act(&mut world, Action::Redeploy(app.clone()));
            let floor = 4 - unavailable.max(u32::from(surge == 0)) as usize;
            turn(&mut world, seed, 1_000, |world| {
                let (live, available) = live(world, &app);
                assert!(live <= 4 + surge as usize, "{live} pods with surge {surge}");
                assert!(available >= floor, "{available} available of at least {floor}");
            });
            assert!(all_new(&world, &app), "seed {seed}: it does not end");
            let status = &world.apps[&app].view.rollout;
            assert_eq!((status.updated, status.available, status.current), (4, 4, 4));
        }
    }
}

#[test]
fn recreate_never_has_both() {
    for seed in 0..50 {
        let app = deployment("shop", "web");
        let mut world = world();
        world.running(&app, 3, Strategy::Recreate);
        act(&mut world, Action::Redeploy(app.clone()));
        turn(&mut world, seed, 1_000, |world| {
            let template = world.template_of(&app);
            let new = world.pods_of(&app).iter().filter(|(_, pod)| pod.template == template).count();
            assert!(new == 0 || new == world.pods_of(&app).len());
        });
        assert!(all_new(&world, &app));
    }
}

#[test]
fn a_stateful_set_replaces_one_pod_at_a_time_from_the_top() {
    for seed in 0..50 {
        let app = stateful_set("shop", "db");
        let mut world = world();
        world.running(&app, 3, rolling(0, 1));
        act(&mut world, Action::Redeploy(app.clone()));
        turn(&mut world, seed, 1_000, |world| {
            assert!(live(world, &app).1 >= 2);
            let template = world.template_of(&app);
            let (new, old): (Vec<_>, Vec<_>) =
                world.pods_of(&app).into_iter().partition(|(_, pod)| pod.template == template);
            let lowest = new.iter().map(|(_, pod)| pod.slot).min();
            let highest = old.iter().map(|(_, pod)| pod.slot).max();
            assert!(lowest.is_none() || highest < lowest, "old pods are below new ones");
        });
        assert!(all_new(&world, &app));
    }
}

/// Kubernetes documentation, StatefulSet, "Forced rollback": a pod that cannot live blocks the better template too.
#[test]
fn an_ordered_stateful_set_stands_at_an_unready_pod() {
    let app = stateful_set("shop", "db");
    let mut world = world();
    world.running(&app, 2, rolling(0, 1));
    world.sick.insert((app.clone(), OLD.into()));
    act(&mut world, Action::Redeploy(app.clone()));
    turn(&mut world, 1, 200, |_| {});
    world.sick.clear();
    world.sick.insert((app.clone(), OLD.into()));
    act(&mut world, Action::Redeploy(app.clone()));
    turn(&mut world, 2, 300, |_| {});
    assert!(!all_new(&world, &app), "it stands");
    world.sick.clear();
    act(&mut world, Action::DeleteUnready(app.clone()));
    turn(&mut world, 3, 400, |_| {});
    assert!(all_new(&world, &app), "deleting the pod lets it go on");
}

#[test]
fn a_daemon_set_keeps_to_one_node_at_a_time() {
    for (surge, unavailable) in [(0, 1), (1, 0)] {
        for seed in 0..50 {
            let app = daemon_set("shop", "agent");
            let mut world = world();
            world.running(&app, 3, rolling(surge, unavailable));
            act(&mut world, Action::Redeploy(app.clone()));
            turn(&mut world, seed, 1_000, |world| assert!(live(world, &app).1 >= 3 - unavailable as usize));
            assert!(all_new(&world, &app));
        }
    }
}

#[test]
fn pods_change_only_by_hand_with_on_delete() {
    let app = stateful_set("shop", "db");
    let mut world = world();
    world.running(&app, 2, Strategy::OnDelete);
    act(&mut world, Action::Redeploy(app.clone()));
    turn(&mut world, 1, 200, |_| {});
    let template = world.template_of(&app);
    assert!(world.pods_of(&app).iter().all(|(_, pod)| pod.template != template));
}

/// The table in Istio's chart, row by row.
#[test]
fn the_injector_selects_as_the_chart_says() {
    let world = world();
    let mut world_with_tag = world.clone();
    world_with_tag.tag("prod", OLD);
    let labels = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let injected = |world: &World, namespace: &[(&str, &str)], pod: &[(&str, &str)]| {
        let template = PodTemplate { labels: labels(pod), ..PodTemplate::default() };
        selected(&webhooks(world), &labels(namespace), &NamespaceName::from("shop"), &template)
    };
    let (rev, injection, inject) = ("istio.io/rev", "istio-injection", "sidecar.istio.io/inject");
    let old = Outcome::Injected(OLD.into());
    assert_eq!(injected(&world, &[(rev, OLD)], &[]), old);
    assert_eq!(injected(&world, &[(rev, OLD)], &[(rev, NEW)]), old, "the namespace wins");
    assert_eq!(injected(&world, &[], &[(rev, NEW)]), Outcome::Injected(NEW.into()));
    assert_eq!(injected(&world, &[(rev, OLD), (injection, "enabled")], &[]), Outcome::Nothing);
    assert_eq!(injected(&world, &[(rev, OLD)], &[(inject, "false")]), Outcome::Nothing);
    assert_eq!(injected(&world, &[], &[(inject, "true")]), Outcome::Nothing, "there is no default revision");
    assert_eq!(injected(&world, &[(rev, "prod")], &[]), Outcome::Nothing, "nothing has that name");
    assert_eq!(injected(&world_with_tag, &[(rev, "prod")], &[]), old);
}

#[test]
fn pods_are_not_created_while_their_istiod_is_down() {
    let app = deployment("shop", "web");
    let mut world = world();
    world.running(&app, 1, default_rolling());
    act(&mut world, Action::Istiod(OLD, 0));
    act(&mut world, Action::Scale(app.clone(), 2));
    turn(&mut world, 1, 100, |_| {});
    assert_eq!(live(&world, &app).0, 1);
    act(&mut world, Action::Istiod(OLD, 1));
    turn(&mut world, 2, 100, |_| {});
    assert_eq!(live(&world, &app), (2, 2));
}

#[test]
fn budgets_are_counted_as_kubernetes_does() {
    let app = deployment("shop", "web");
    let mut world = world();
    world.running(&app, 3, rolling(0, 1));
    world.budget("shop", "web", 2);
    let allowed = |world: &World| world.budgets[&NamespaceName::from("shop")][0].disruptions_allowed;
    assert_eq!(allowed(&world), 1);
    let id = world.pods_of(&app)[0].0;
    world.delete_pod(id, 5);
    neighbours::disruption::step(&mut world, &mut Rng::ordered());
    assert_eq!(allowed(&world), 0);
}

#[test]
fn caches_never_go_back_and_end_at_the_newest() {
    let app = deployment("shop", "web");
    let mut world = world();
    world.running(&app, 2, default_rolling());
    let mut versions = Versions::default();
    let mut seen = 0;
    let mut rng = Rng::new(7);
    act(&mut world, Action::Redeploy(app.clone()));
    for _ in 0..100 {
        neighbours::deployment::step(&mut world, &mut rng);
        kubelet::step(&mut world, &mut rng);
        versions.keep(&world);
        let lag = rng.index(4);
        let (version, _) = versions.behind(lag, seen).unwrap();
        assert!(*version >= seen);
        seen = *version;
    }
    let (version, views) = versions.behind(0, seen).unwrap();
    assert_eq!(*version, world.version);
    assert!(Arc::ptr_eq(&views.workloads[&app], &world.apps[&app].view));
}

#[test]
fn a_status_of_an_older_version_is_refused() {
    let mut world = world();
    let stale = world.upgrade.clone();
    act(&mut world, Action::Suspend(true));
    let seen = meshupgrade_sequences::world::history::Seen {
        at: world.now,
        intent: Arc::clone(&stale.intent),
        record: Arc::clone(&stale.record),
        snapshot: meshupgrade_core::observed::Snapshot::default(),
        labelled: Arc::default(),
        stale: false,
    };
    let answer = world.publish(stale.resource_version, &stale.record, &stale.view, &Arc::new(seen));
    assert_eq!(answer, Err(Refusal::Conflict));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let case = meshupgrade_sequences::cases::find("swarm").unwrap();
    let log = || match meshupgrade_sequences::runner::run_random(&case, 11) {
        Ok(run) => run.referee.log.text(),
        Err(failure) => failure,
    };
    assert_eq!(log(), log());
}
