//! Pods are watched only in the namespaces that a decision needs now: cost follows the active wave, not the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::Api;
use meshupgrade_core::ids::{NamespaceName, Uid};
use meshupgrade_core::observed::Pod;

use super::Poke;
use super::on_demand::OnDemand;
use crate::client::Clients;
use crate::health::Health;
use crate::observe::StoreOf;
use crate::observe::pod::RawPod;

/// Above so many namespaces one cluster-wide watch costs less than one connection for each.
const MAX_SEPARATE: usize = 20;
/// Below so many it is separate watches again; the distance keeps a wave's end from switching back and forth.
const MIN_CLUSTER: usize = 10;

/// The watches of pods.
#[derive(Debug)]
pub struct PodWatches {
    clients: Clients,
    poke: Poke,
    health: Health,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    wanted: BTreeMap<Uid, BTreeSet<NamespaceName>>,
    watches: Vec<Watch>,
}

/// One watch and what it covers.
#[derive(Debug)]
struct Watch {
    cover: Cover,
    pods: OnDemand<RawPod>,
}

/// What a watch covers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cover {
    /// One namespace.
    One(NamespaceName),
    /// All namespaces are read, pods of these are kept.
    Cluster(Arc<BTreeSet<NamespaceName>>),
}

impl Cover {
    fn contains(&self, namespace: &NamespaceName) -> bool {
        match self {
            Self::One(one) => one == namespace,
            Self::Cluster(all) => all.contains(namespace),
        }
    }

    fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}

/// The watches that should run for these namespaces, given the ones that do.
fn wanted_covers(union: &BTreeSet<NamespaceName>, running: &[Cover]) -> Vec<Cover> {
    let cluster = running.iter().find(|cover| cover.is_cluster());
    let limit = if cluster.is_some() { MIN_CLUSTER } else { MAX_SEPARATE };
    if union.len() <= limit {
        return union.iter().cloned().map(Cover::One).collect();
    }
    let sufficient =
        running.iter().find(|cover| matches!(cover, Cover::Cluster(all) if union.is_subset(all)));
    let cover = sufficient.cloned().unwrap_or_else(|| Cover::Cluster(Arc::new(union.clone())));
    vec![cover]
}

impl PodWatches {
    /// No watch yet.
    pub fn new(clients: Clients, poke: Poke, health: Health) -> Self {
        Self { clients, poke, health, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says which namespaces a MeshUpgrade needs from now on; none when it is gone.
    pub fn want(&self, upgrade: &Uid, namespaces: &BTreeSet<NamespaceName>) {
        let mut state = self.lock();
        let unchanged = match state.wanted.get(upgrade) {
            Some(wanted) => wanted == namespaces,
            None => namespaces.is_empty(),
        };
        if unchanged {
            return;
        }
        if namespaces.is_empty() {
            state.wanted.remove(upgrade);
        } else {
            state.wanted.insert(upgrade.clone(), namespaces.clone());
        }
        self.adjust(&mut state);
    }

    /// The pods of those of these namespaces that are in sync. One that is missing is unknown, not empty.
    pub fn get(&self, namespaces: &BTreeSet<NamespaceName>) -> BTreeMap<NamespaceName, Vec<Arc<Pod>>> {
        let mut state = self.lock();
        self.adjust(&mut state);
        let mut pods = BTreeMap::new();
        for namespace in namespaces {
            let mut watches = state.watches.iter().filter(|watch| watch.cover.contains(namespace));
            if let Some(store) = watches.find_map(|watch| watch.pods.known()) {
                pods.insert(namespace.clone(), in_namespace(store, namespace));
            }
        }
        pods
    }

    fn adjust(&self, state: &mut State) {
        state.watches.retain(|watch| !watch.pods.is_broken());
        let union: BTreeSet<NamespaceName> = state.wanted.values().flatten().cloned().collect();
        let running: Vec<Cover> = state.watches.iter().map(|watch| watch.cover.clone()).collect();
        for cover in wanted_covers(&union, &running) {
            if !running.contains(&cover) {
                let watch = self.start(cover);
                state.watches.push(watch);
            }
        }
        retire(state);
    }

    fn start(&self, cover: Cover) -> Watch {
        let api: Api<RawPod> = match &cover {
            Cover::One(namespace) => Api::namespaced(self.clients.watches(), namespace.as_str()),
            Cover::Cluster(_) => Api::all(self.clients.watches()),
        };
        let kept = cover.clone();
        let keep = move |key: &(NamespaceName, String)| kept.contains(&key.0);
        Watch { pods: OnDemand::start(api, keep, self.poke.clone(), self.health.clone()), cover }
    }
}

/// Ends watches that are not wanted, but not before what replaces them is in sync: a namespace that is known must
/// not become unknown because another one joined.
fn retire(state: &mut State) {
    let union: BTreeSet<NamespaceName> = state.wanted.values().flatten().cloned().collect();
    let running: Vec<Cover> = state.watches.iter().map(|watch| watch.cover.clone()).collect();
    let wanted = wanted_covers(&union, &running);
    let syncing =
        state.watches.iter().any(|watch| wanted.contains(&watch.cover) && watch.pods.known().is_none());
    state.watches.retain(|watch| {
        let useful = syncing && union.iter().any(|namespace| watch.cover.contains(namespace));
        wanted.contains(&watch.cover) || useful
    });
}

fn in_namespace(store: &StoreOf<RawPod>, namespace: &NamespaceName) -> Vec<Arc<Pod>> {
    let mut pods = Vec::new();
    store.range((namespace.clone(), String::new()).., |key, pod| {
        let inside = key.0 == *namespace;
        if inside {
            pods.push(Arc::clone(pod));
        }
        inside
    });
    pods
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(count: usize) -> BTreeSet<NamespaceName> {
        (0..count).map(|number| NamespaceName(format!("n{number:03}"))).collect()
    }

    #[test]
    fn few_namespaces_have_a_watch_each() {
        let covers = wanted_covers(&namespaces(MAX_SEPARATE), &[]);
        assert_eq!(covers.len(), MAX_SEPARATE);
        assert!(covers.iter().all(|cover| !cover.is_cluster()));
    }

    #[test]
    fn many_namespaces_share_one_watch_that_is_kept_while_it_covers_them() {
        let covers = wanted_covers(&namespaces(30), &[]);
        assert_eq!(covers, [Cover::Cluster(Arc::new(namespaces(30)))]);
        assert_eq!(wanted_covers(&namespaces(25), &covers), covers);
        assert_eq!(wanted_covers(&namespaces(15), &covers), covers);
        assert_eq!(wanted_covers(&namespaces(MIN_CLUSTER), &covers).len(), MIN_CLUSTER);
    }

    #[test]
    fn a_namespace_that_joins_starts_another_watch() {
        let covers = wanted_covers(&namespaces(30), &[]);
        let more = wanted_covers(&namespaces(31), &covers);
        assert_ne!(more, covers);
        assert!(more[0].contains(&NamespaceName("n030".into())));
    }

    #[test]
    fn the_pods_of_a_namespace_are_cut_out_of_the_store() {
        use crate::store::Entry;
        let store = StoreOf::<RawPod>::default();
        for (namespace, name) in [("a", "1"), ("b", "1"), ("b", "2"), ("ba", "1"), ("c", "1")] {
            let pod = Pod { namespace: namespace.into(), name: name.into(), ..Pod::default() };
            store.upsert((namespace.into(), name.into()), Entry::new(Some("1"), pod));
        }
        let names: Vec<String> = in_namespace(&store, &"b".into())
            .iter()
            .map(|pod| format!("{}/{}", pod.namespace, pod.name))
            .collect();
        assert_eq!(names, ["b/1", "b/2"]);
    }
}
