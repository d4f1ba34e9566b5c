//! A cluster-wide look at everything that refers to a revision: taken for the plan and for completion only, by paged
//! lists that are folded page by page, so that memory follows what is remarkable and not the size of the cluster.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::decision::About;
use crate::ids::{NamespaceName, Revision, WorkloadRef};
use crate::observed::{Labels, Pod, PodTemplate};
use crate::pods::{image_version, workload_of};

/// How many examples of one thing a census keeps; the rest is only counted.
pub const SAMPLES: usize = 50;

/// How many EnvoyFilters for certain versions of the proxy a census keeps; the rest is only counted.
pub const MAX_VERSIONED_FILTERS: usize = 500;
/// What [`Census::unreadable`] calls EnvoyFilters.
pub const ENVOY_FILTERS: &str = "envoyfilters.networking.istio.io";
/// What [`Census::unreadable`] calls the look at which kinds there are: without it no Istio resource is read.
pub const API_DISCOVERY: &str = "API discovery";

/// Kind of a Job.
pub const JOB: &str = "Job";

/// The result of one look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// When the look began: nothing older than this is missing from it.
    pub taken_at: Option<Timestamp>,
    /// Live proxies by namespace and revision, terminating ones included.
    pub proxies: BTreeMap<NamespaceName, BTreeMap<Revision, u32>>,
    /// Live proxies of Deployments, StatefulSets and DaemonSets by revision and workload.
    pub workloads: BTreeMap<Revision, BTreeMap<WorkloadRef, u32>>,
    /// Namespaces in which pods without a proxy are counted too, from [`crate::decision::Needs::sidecars_in`].
    pub sidecars_in: BTreeSet<NamespaceName>,
    /// Workloads of these namespaces with pods that have no proxy, without finished and terminating ones. Whether they are to have one is for
    /// others to say.
    pub without_proxy: BTreeMap<WorkloadRef, WithoutProxy>,
    /// Versions of these proxies (see [`crate::pods::image_version`]), without those whose pod fixes its image.
    pub versions: BTreeMap<Revision, BTreeMap<WorkloadRef, BTreeMap<String, u32>>>,
    /// Live proxies that no Deployment, StatefulSet or DaemonSet owns: bare pods, Jobs, other controllers, gateways
    /// of the Gateway API. At most [`SAMPLES`] for each revision.
    pub unmanaged: Vec<UnmanagedPod>,
    /// How many unmanaged proxies there are, by revision.
    pub unmanaged_count: BTreeMap<Revision, u32>,
    /// How many of them are of running Jobs.
    pub job_count: BTreeMap<Revision, u32>,
    /// CronJobs: their next run takes the namespace's revision of that time.
    pub cron_jobs: Vec<CronJob>,
    /// Objects that name a revision: Gateways, Istio resources, validators, tag Services.
    pub references: Vec<Reference>,
    /// EnvoyFilters with patches for certain versions of the proxy, without those that name a revision: they are references.
    /// At most [`MAX_VERSIONED_FILTERS`].
    pub versioned_filters: Vec<VersionedFilter>,
    /// How many such EnvoyFilters there are.
    pub versioned_filter_count: usize,
    /// What runs in the mesh and is not covered: WorkloadEntries, waypoints, east-west gateways.
    pub uncovered: Vec<String>,
    /// What the operator's rights were asked for: [`crate::decision::Needs::rights`].
    pub rights: BTreeSet<About>,
    /// What of that it may not patch.
    pub denied: BTreeSet<About>,
    /// Version of the API server, for example `1.33.2`; `None` where it could not be read.
    pub kubernetes_version: Option<String>,
    /// What could not be read, with the reason: whoever needs it must not assume that it is empty.
    pub unreadable: Vec<String>,
}

/// The pods of a workload that have no proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WithoutProxy {
    /// How many.
    pub pods: u32,
    /// When the newest of them was made, in whole seconds, rounded down.
    pub newest: Option<Timestamp>,
}

/// A proxy that MeshUpgrade cannot restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnmanagedPod {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: String,
    /// Kind and name of its workload or controller; `None` for a bare pod.
    pub owner: Option<(String, String)>,
    /// Its revision.
    pub revision: Revision,
    /// Whether istiod manages it for a Gateway API object.
    pub gateway_api: bool,
}

impl UnmanagedPod {
    /// Whether a Job runs it.
    pub fn is_of_a_job(&self) -> bool {
        self.owner.as_ref().is_some_and(|(kind, _)| kind == JOB)
    }
}

/// A CronJob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronJob {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: String,
    /// Its pod template.
    pub template: PodTemplate,
}

/// An object that refers to a revision (or to a tag) by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// What it is.
    pub kind: ReferenceKind,
    /// Kind as Kubernetes writes it, for example `EnvoyFilter`.
    pub object_kind: String,
    /// Namespace, if it has one.
    pub namespace: Option<NamespaceName>,
    /// Name.
    pub name: String,
    /// The revision that it names.
    pub revision: Revision,
}

/// An EnvoyFilter with patches that apply to certain versions of the proxy only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionedFilter {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: String,
    /// The regular expression of each such patch (`spec.configPatches[].match.proxy.proxyVersion`).
    pub versions: Vec<String>,
}

/// Why a [`Reference`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReferenceKind {
    /// A Gateway of the Gateway API: istiod of that revision renders it.
    Gateway,
    /// An Istio resource: only the revision literally named so reads it.
    IstioResource,
    /// The revision's own validator: goes with the control plane.
    OwnValidator,
    /// The default validator: must point at a revision that stays.
    DefaultValidator,
    /// A Service of a revision tag.
    TagService,
}

impl Census {
    /// Counts one pod.
    pub fn add_pod(&mut self, pod: &Pod) {
        if pod.finished {
            return;
        }
        let Some(proxy) = &pod.proxy else {
            return self.add_pod_without_proxy(pod);
        };
        if pod.labels.get("app").is_some_and(|app| app == "ztunnel") {
            // The node proxy of ambient mode: its container has the sidecar's name, but it belongs to no revision.
            return;
        }
        let revision = proxy.revision.clone().unwrap_or_default();
        *self.proxies.entry(pod.namespace.clone()).or_default().entry(revision.clone()).or_default() += 1;
        let gateway_api = is_gateway_api(&pod.labels);
        let owner = match workload_of(pod) {
            Some(workload) if gateway_api => Some((workload.kind.to_string(), workload.name)),
            Some(workload) => {
                if !pod.annotations.contains_key(crate::labels::PROXY_IMAGE) {
                    let versions = self.versions.entry(revision.clone()).or_default();
                    let version = image_version(&proxy.image).to_owned();
                    *versions.entry(workload.clone()).or_default().entry(version).or_default() += 1;
                }
                *self.workloads.entry(revision).or_default().entry(workload).or_default() += 1;
                return;
            }
            None => pod.controller.as_ref().map(|owner| (owner.kind.clone(), owner.name.clone())),
        };
        if owner.as_ref().is_some_and(|(kind, _)| kind == JOB) {
            *self.job_count.entry(revision.clone()).or_default() += 1;
        }
        let count = self.unmanaged_count.entry(revision.clone()).or_default();
        *count += 1;
        if usize::try_from(*count).is_ok_and(|count| count <= SAMPLES) {
            self.unmanaged.push(UnmanagedPod {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                owner,
                revision,
                gateway_api,
            });
        }
    }

    fn add_pod_without_proxy(&mut self, pod: &Pod) {
        if pod.deletion.is_some() || !self.sidecars_in.contains(&pod.namespace) {
            return;
        }
        if let Some(workload) = workload_of(pod) {
            let found = self.without_proxy.entry(workload).or_default();
            found.pods += 1;
            found.newest = found.newest.max(pod.created);
        }
    }

    /// Takes note of an EnvoyFilter, if any of its patches is for certain versions of the proxy only.
    pub fn add_versioned_filter(&mut self, filter: VersionedFilter) {
        if filter.versions.is_empty() {
            return;
        }
        self.versioned_filter_count += 1;
        if self.versioned_filters.len() < MAX_VERSIONED_FILTERS {
            self.versioned_filters.push(filter);
        }
    }

    /// What of this is in some namespaces.
    #[must_use]
    pub fn within(&self, namespaces: &BTreeSet<NamespaceName>) -> Self {
        let mut part = Self { taken_at: self.taken_at, ..Self::default() };
        part.proxies
            .extend(self.proxies.iter().filter(|(name, _)| namespaces.contains(*name)).map(clone_pair));
        for (revision, workloads) in &self.workloads {
            let inside = workloads.iter().filter(|(workload, _)| namespaces.contains(&workload.namespace));
            part.workloads.insert(revision.clone(), inside.map(clone_pair).collect());
        }
        part.unmanaged
            .extend(self.unmanaged.iter().filter(|pod| namespaces.contains(&pod.namespace)).cloned());
        for pod in &part.unmanaged {
            *part.unmanaged_count.entry(pod.revision.clone()).or_default() += 1;
            if pod.is_of_a_job() {
                *part.job_count.entry(pod.revision.clone()).or_default() += 1;
            }
        }
        part
    }

    /// What of this is not of certain workloads on a revision, and not of certain of the pods in [`Self::unmanaged`].
    #[must_use]
    pub fn without(
        &self,
        is_left_out: impl Fn(&Revision, &WorkloadRef) -> bool,
        is_pod_left_out: impl Fn(&UnmanagedPod) -> bool,
    ) -> Cow<'_, Self> {
        let mut left = Vec::new();
        for (revision, workloads) in &self.workloads {
            let out = workloads.iter().filter(|(workload, _)| is_left_out(revision, workload));
            left.extend(out.map(|(workload, count)| (revision.clone(), workload.clone(), *count)));
        }
        let has_pods = self.unmanaged.iter().any(&is_pod_left_out);
        if left.is_empty() && !has_pods {
            return Cow::Borrowed(self);
        }
        let mut rest = self.clone();
        for (revision, workload, count) in left {
            rest.subtract(&workload.namespace, &revision, count);
            if let Some(workloads) = rest.workloads.get_mut(&revision) {
                workloads.remove(&workload);
            }
        }
        let (out, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut rest.unmanaged).into_iter().partition(is_pod_left_out);
        rest.unmanaged = kept;
        for pod in out {
            rest.subtract(&pod.namespace, &pod.revision, 1);
            if let Some(count) = rest.unmanaged_count.get_mut(&pod.revision) {
                *count = count.saturating_sub(1);
            }
        }
        Cow::Owned(rest)
    }

    fn subtract(&mut self, namespace: &NamespaceName, revision: &Revision, count: u32) {
        let Some(counts) = self.proxies.get_mut(namespace) else { return };
        if let Some(all) = counts.get_mut(revision) {
            *all = all.saturating_sub(count);
        }
        counts.retain(|_, all| *all > 0);
    }

    /// Workloads with proxies of a revision that have another version than its injector gives now, and how many such proxies.
    pub fn outdated(&self, revision: &Revision, version: &str) -> BTreeMap<&WorkloadRef, u32> {
        let old = |versions: &BTreeMap<String, u32>| -> u32 {
            versions.iter().filter(|(found, _)| *found != version).map(|(_, count)| count).sum()
        };
        let workloads = self.versions.get(revision).into_iter().flatten();
        workloads
            .map(|(workload, versions)| (workload, old(versions)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// How many live proxies of a revision there are, in how many namespaces.
    pub fn proxies_on(&self, revision: &Revision) -> (u32, usize) {
        let counts: Vec<u32> = self.proxies.values().filter_map(|by| by.get(revision)).copied().collect();
        (counts.iter().sum(), counts.len())
    }
}

fn clone_pair<K: Clone, V: Clone>((key, value): (&K, &V)) -> (K, V) {
    (key.clone(), value.clone())
}

/// Whether istiod renders this proxy from an object of the Gateway API.
pub fn is_gateway_api(labels: &Labels) -> bool {
    labels.contains_key(crate::labels::GATEWAY_MANAGED) || labels.contains_key(crate::labels::GATEWAY_NAME)
}
