//! Azure has accepted our last write, and somebody writes another list of revisions: in the middle of our operation, or after it and
//! before anybody looked.

use meshupgrade_arm_simulator::{Call, Fault, Times};
use meshupgrade_core::wait::WaitReason;

use crate::mesh::{OTHER, SOURCE, TARGET};
use crate::world::{Stage, Way, World, case, run_all};

const BOTH: &[&str] = &[SOURCE, TARGET];

/// A run in whose last operation somebody else's list gets into the cluster.
fn crossed(way: Way, list: &'static [&'static str]) -> World {
    let mut world = World::going(way);
    world.at(Stage::EndDue, move |world| {
        world.others_break_it = true;
        world.azure.plant(Call::PutCluster, Fault::ForeignRevisions(list)).unwrap();
    });
    world
}

/// It is told in these words.
fn is_told(world: &mut World, words: &str) -> Result<(), String> {
    world.until("it is told", |world| world.shown.contains_key(&WaitReason::RevisionsChanged))?;
    let told = world.shown[&WaitReason::RevisionsChanged].clone();
    if !told.contains(words) {
        return Err(format!("nothing is said of {words:?}: {told}"));
    }
    Ok(())
}

/// The last write is asked for once more.
fn ends_by_asking_again(world: &mut World, way: Way) -> Result<(), String> {
    world.ends(way)?;
    let [start, last] = way.writes();
    world.accepted(&[start, last, last])
}

/// Both revisions again: told, not fought at once, and asked for once more when some time has passed.
#[test]
fn in_the_middle_of_our_operation() {
    let cases = Way::BOTH.map(|way| {
        case(format!("{way:?}"), move || {
            let mut world = crossed(way, BOTH);
            is_told(&mut world, "Terraform")?;
            ends_by_asking_again(&mut world, way)
        })
    });
    run_all(cases.into());
}

/// The same with a write of its own, which is over before the cluster is read again. A process that remembers its write tells who
/// fights with it; one that does not asks at once.
#[test]
fn before_anybody_looked() {
    let cases = Way::BOTH.into_iter().flat_map(|way| {
        [false, true].map(|dies| {
            case(format!("{way:?}, dies {dies}"), move || {
                let mut world = World::going(way);
                world.ends_slowly();
                world.at(Stage::EndAccepted, |world| {
                    world.holds_still = true;
                    world.azure.plant_at(Call::GetCluster, Fault::ServerError(503), Times::Always).unwrap();
                });
                world.reaches(Stage::EndAccepted)?;
                world.until("ours is over", |world| world.state() == "Succeeded")?;
                world.put_by_somebody_else(BOTH);
                world.until("theirs is over", |world| world.state() == "Succeeded")?;
                if dies {
                    world.die();
                }
                world.azure.heal();
                if !dies {
                    is_told(&mut world, "Terraform")?;
                }
                world.holds_still = false;
                ends_by_asking_again(&mut world, way)
            })
        })
    });
    run_all(cases.collect());
}

/// What was to go is gone, and a third revision is there: the next upgrade of others is left alone.
#[test]
fn the_next_upgrade_in_the_middle_of_our_operation() {
    let ways: [(Way, &[&str]); 2] = [(Way::Forward, &[TARGET, OTHER]), (Way::Back, &[SOURCE, OTHER])];
    let cases = ways.map(|(way, list)| {
        case(format!("{way:?}"), move || {
            let mut world = crossed(way, list);
            world.until("it is over", World::is_over)?;
            if world.azure.revisions(&world.cluster()) != list {
                return Err("the list of others was written over".to_owned());
            }
            world.wrote(&way.writes())
        })
    });
    run_all(cases.into());
}

/// What was to stay is gone: told, and never written over. When both are back, the run goes on.
#[test]
fn the_other_way_in_the_middle_of_our_operation() {
    let lists: [(Way, &[&str]); 4] = [
        (Way::Forward, &[SOURCE]),
        (Way::Forward, &[SOURCE, OTHER]),
        (Way::Back, &[TARGET]),
        (Way::Back, &[TARGET, OTHER]),
    ];
    let cases = lists.map(|(way, list)| {
        case(format!("{list:?}, {way:?}"), move || {
            let mut world = crossed(way, list);
            is_told(&mut world, &list.join(" and "))?;
            world.for_seconds(600)?;
            if world.puts().len() != 2 || world.is_over() {
                return Err(format!("{} writes, {}", world.puts().len(), world.phase()));
            }
            world.put_by_somebody_else(BOTH);
            ends_by_asking_again(&mut world, way)
        })
    });
    run_all(cases.into());
}
