//! Whether a demo ended as it should: a pure function from what was and what is to what is wrong.

use std::collections::BTreeSet;

use meshupgrade_api::MeshUpgradeStatus;
use meshupgrade_e2e::{App, Workload};
use meshupgrade_testbed::IstioRevision;

use crate::sight::{PodSight, Sight};
use crate::town;

/// How a demo must end.
#[derive(Debug)]
pub struct Expected<'a> {
    /// The phase.
    pub phase: &'a str,
    /// The revision that the mesh runs on.
    pub revision: &'a IstioRevision,
    /// The workloads.
    pub apps: &'a [App],
    /// The workload that must have turned the run back.
    pub broken: Option<(&'a str, &'a str)>,
}

/// Everything that is wrong at the end, in words.
pub fn faults(
    expected: &Expected<'_>,
    before: &Sight,
    after: &Sight,
    status: &MeshUpgradeStatus,
) -> Vec<String> {
    let mut found = Vec::new();
    if status.phase != expected.phase {
        found.push(format!("the phase is {}, not {}: {}", status.phase, expected.phase, status.message));
    }
    found.extend(expected.apps.iter().flat_map(|app| app_faults(expected, app, &after.pods)));
    found.extend(label_faults(expected, before, after));
    let outside = BTreeSet::from([town::OUTSIDE.to_owned()]);
    found.extend(moved(&outside, before, after).map(|pod| format!("{pod} is outside of the mesh and new")));
    if let Some(broken) = expected.broken {
        found.extend(rollback_faults(broken, before, after, status));
    }
    found
}

/// Every workload has its pods, ready and with the proxy that belongs to them.
fn app_faults(expected: &Expected<'_>, app: &App, pods: &[PodSight]) -> Vec<String> {
    let Workload { namespace, name, .. } = app.workload();
    let own: Vec<&PodSight> =
        pods.iter().filter(|pod| pod.namespace == namespace && pod.app == name).collect();
    let mut found = Vec::new();
    if own.len() != app.pods() {
        found.push(format!("{namespace}/{name} has {} pods, not {}", own.len(), app.pods()));
    }
    let outside = namespace == town::OUTSIDE;
    found.extend(own.iter().filter_map(|pod| pod_fault(expected, pod, outside)));
    found
}

fn pod_fault(expected: &Expected<'_>, pod: &PodSight, outside: bool) -> Option<String> {
    let name = format!("pod {}/{}", pod.namespace, pod.name);
    let image = pod.image.as_deref().unwrap_or("no proxy");
    let revision = pod.revision.as_deref().unwrap_or("no revision");
    let tag = format!(":{}", expected.revision.tag);
    match () {
        () if pod.ending => Some(format!("{name} is still ending")),
        () if !pod.ready => Some(format!("{name} is not ready")),
        () if outside => pod.image.as_ref().map(|image| format!("{name} is in the mesh now: {image}")),
        () if revision != expected.revision.name => {
            Some(format!("{name} runs on {revision}, not {}", expected.revision.name))
        }
        () if !image.ends_with(&tag) => Some(format!("{name} runs {image}, not tag {tag}")),
        () => None,
    }
}

/// Namespaces of the mesh name the revision; every other label is as it was.
fn label_faults(expected: &Expected<'_>, before: &Sight, after: &Sight) -> Vec<String> {
    town::namespaces()
        .filter_map(|name| {
            let mut wanted = before.labels.get(name).cloned().unwrap_or_default();
            if name != town::OUTSIDE {
                wanted.insert("istio.io/rev".into(), expected.revision.name.clone());
            }
            let labels = after.labels.get(name).cloned().unwrap_or_default();
            (labels != wanted).then(|| format!("namespace {name} has labels {labels:?}, not {wanted:?}"))
        })
        .collect()
}

fn rollback_faults(
    broken: (&str, &str),
    before: &Sight,
    after: &Sight,
    status: &MeshUpgradeStatus,
) -> Vec<String> {
    let mut found = Vec::new();
    if before.labels != after.labels {
        found.push("the labels are not what they were".to_owned());
    }
    let name = format!("{}/{}", broken.0, broken.1);
    let Some(rollback) = status.run.as_ref().and_then(|run| run.rollback.as_ref()) else {
        found.push("the status knows of no rollback".to_owned());
        return found;
    };
    if !rollback.message.contains(&name) {
        found.push(format!("it should be {name} that turned the run back: {}", rollback.message));
    }
    let later = status.plan.iter().flat_map(|plan| (0u32..).zip(&plan.waves));
    let later = later.filter(|(index, _)| *index > rollback.from_wave);
    // A gateway's wave has namespaces of other waves: a namespace is untouched when no wave that began has it.
    let untouched: BTreeSet<String> =
        later.flat_map(|(_, wave)| &wave.namespaces).map(|name| name.as_str().to_owned()).collect();
    found.extend(moved(&untouched, before, after).map(|pod| format!("{pod} is new: its wave never began")));
    found
}

/// The pods of namespaces that were not there before.
fn moved<'a>(
    namespaces: &'a BTreeSet<String>,
    before: &'a Sight,
    after: &'a Sight,
) -> impl Iterator<Item = String> + 'a {
    let known: BTreeSet<&str> = before.pods.iter().map(|pod| pod.uid.as_str()).collect();
    let theirs = after.pods.iter().filter(move |pod| namespaces.contains(&pod.namespace));
    theirs
        .filter(move |pod| !known.contains(pod.uid.as_str()))
        .map(|pod| format!("pod {}/{}", pod.namespace, pod.name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::fixture;

    fn sight(revision: &IstioRevision) -> Sight {
        let label = |name: &str| {
            let meshed = (name != town::OUTSIDE).then(|| ("istio.io/rev".to_owned(), revision.name.clone()));
            (name.to_owned(), meshed.into_iter().collect::<BTreeMap<_, _>>())
        };
        let mesh = town::mesh(None);
        let pods = mesh.apps.iter().flat_map(|app| {
            let workload = app.workload();
            let revision = (workload.namespace != town::OUTSIDE).then_some(revision);
            (0..app.pods())
                .map(|number| PodSight {
                    namespace: workload.namespace.clone(),
                    name: format!("{}-{number}", workload.name),
                    app: workload.name.clone(),
                    uid: format!("{}/{}-{number}", workload.namespace, workload.name),
                    revision: revision.map(|revision| revision.name.clone()),
                    image: revision.map(|revision| format!("proxyv2:{}", revision.tag)),
                    ready: true,
                    ending: false,
                })
                .collect::<Vec<_>>()
        });
        Sight { labels: town::namespaces().map(label).collect(), pods: pods.collect() }
    }

    fn judged(
        phase: &str,
        broken: Option<(&str, &str)>,
        revision: &IstioRevision,
        after: &Sight,
    ) -> Vec<String> {
        let mesh = town::mesh(None);
        let expected = Expected { phase, revision, apps: &mesh.apps, broken };
        let mut status = fixture::rolling_back();
        phase.clone_into(&mut status.phase);
        faults(&expected, &sight(&source()), after, &status)
    }

    fn outside(sight: &mut Sight) -> &mut PodSight {
        sight.pods.iter_mut().find(|pod| pod.namespace == town::OUTSIDE).unwrap()
    }

    fn source() -> IstioRevision {
        IstioRevision::new("asm-1-27", "1.27.5")
    }

    fn target() -> IstioRevision {
        IstioRevision::new("asm-1-28", "1.28.2")
    }

    #[test]
    fn a_good_end_has_no_fault() {
        assert!(judged("Succeeded", None, &target(), &sight(&target())).is_empty());
        assert!(judged("RolledBack", Some(("payments", "api")), &source(), &sight(&source())).is_empty());
    }

    #[test]
    fn another_phase_is_a_fault() {
        let mesh = town::mesh(None);
        let expected = Expected { phase: "Succeeded", revision: &source(), apps: &mesh.apps, broken: None };
        let sight = sight(&source());
        let found = faults(&expected, &sight, &sight, &fixture::migrating());
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains("the phase is Migrating"), "{found:#?}");
    }

    #[test]
    fn each_kind_of_fault_is_found() {
        let found = |change: fn(&mut Sight)| {
            let mut after = sight(&target());
            change(&mut after);
            let found = judged("Succeeded", None, &target(), &after);
            assert_eq!(found.len(), 1, "{found:#?}");
            found.concat()
        };
        assert!(found(|s| s.pods[0].revision = Some("asm-1-27".into())).contains("runs on asm-1-27"));
        assert!(found(|s| s.pods[0].image = Some("proxyv2:1.27.5".into())).contains("proxyv2:1.27.5"));
        assert!(found(|s| s.pods[0].ready = false).contains("not ready"));
        assert!(found(|s| s.pods[0].ending = true).contains("still ending"));
        assert!(found(|s| drop(s.pods.remove(0))).contains("has 1 pods, not 2"));
        assert!(found(|s| drop(s.labels.insert("edge".into(), BTreeMap::new()))).contains("namespace edge"));
        let text = found(|s| outside(s).uid = "other".into());
        assert!(text.contains("outside of the mesh"), "{text}");
        let text = found(|s| outside(s).image = Some("proxyv2:1.28.2".into()));
        assert!(text.contains("in the mesh now"), "{text}");
    }

    #[test]
    fn a_rollback_leaves_later_waves_alone_and_names_its_cause() {
        let mut after = sight(&source());
        after.pods.iter_mut().find(|pod| pod.namespace == "search").unwrap().uid = "other".into();
        let found = judged("RolledBack", Some(("payments", "vault")), &source(), &after);
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found[0].contains("payments/vault") && found[1].contains("its wave never began"));
    }
}
