//! Whether any live proxy is left on a revision, and what to do about each kind that is.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::completion::counted;
use super::{CheckInput, Finding, planned_names};
use crate::aks::gateways::goes_with;
use crate::census::{Census, JOB, UnmanagedPod};
use crate::gateways::pod_follows_newest;
use crate::ids::{NamespaceName, Revision, WorkloadRef};
use crate::intent::RunningJobs;
use crate::inventory::{Group, Pair, members, some_of, unrestartable};

/// Nothing runs on the source, and nothing that could: a proxy whose revision nobody knows may be one of it.
pub(super) fn all_moved(input: &CheckInput<'_>) -> Finding {
    counted(input, |census| match on_source(input, &of_users(input, census)) {
        Finding::Nothing => unknown(input, census),
        found => found,
    })
}

/// Without what is nobody's to move: the add-on's own gateways, which come and go with their revision, and those of the Gateway API that
/// Azure gives to the newest one.
fn of_users<'a>(input: &CheckInput<'_>, census: &'a Census) -> Cow<'a, Census> {
    census.without(
        |revision, workload| goes_with(input.intent, input.snapshot, revision, workload),
        |pod| pod_follows_newest(input.intent, input.snapshot, pod),
    )
}

/// Nothing of the plan runs on the source. Enough for a rollback: what it takes back was injected in the run, so its
/// revision is known; and who chose that revision without the run keeps it.
pub(super) fn planned_moved(input: &CheckInput<'_>) -> Finding {
    let names = planned_names(input).into_iter().cloned().collect();
    counted(input, |census| on_source(input, &of_users(input, &census.within(&names))))
}

/// Every pod of the plan's workloads has a proxy. One that was made while its namespace had no label, or no control plane, has none for as
/// long as it lives, and nobody is told.
pub(super) fn none_lacking(input: &CheckInput<'_>) -> Finding {
    counted(input, |census| {
        let pair = Pair { source: input.source, target: input.target };
        let names = planned_names(input).into_iter().cloned().collect();
        let groups = [Group::Application, Group::Last].into_iter();
        let all = groups.flat_map(|group| members(input.intent, input.snapshot, pair, &names, group));
        let lacking: Vec<&WorkloadRef> =
            all.map(|it| &it.reference).filter(|it| census.without_proxy.contains_key(*it)).collect();
        let found = lacking.iter().filter_map(|workload| census.without_proxy.get(*workload));
        let count: u32 = found.map(|found| found.pods).sum();
        match restart(&lacking) {
            Some(command) => Finding::Problem(format!("{count} pods have no sidecar. {command}")),
            None => Finding::Nothing,
        }
    })
}

fn on_source(input: &CheckInput<'_>, census: &Census) -> Finding {
    let (all, _) = census.proxies_on(input.source);
    let jobs = census.job_count.get(input.source).copied().unwrap_or_default();
    let count = if ignores_jobs(input) { all.saturating_sub(jobs) } else { all };
    if count == 0 {
        return Finding::Nothing;
    }
    let mut parts = vec![format!(
        "{} on {} in {}",
        proxies(count),
        input.source,
        some_of(&namespaces(census, input.source))
    )];
    parts.extend(managed(input, census));
    parts.extend(unmanaged(input, census));
    Finding::Problem(parts.join(". "))
}

fn ignores_jobs(input: &CheckInput<'_>) -> bool {
    input.intent.restart.running_jobs == RunningJobs::Ignore
}

/// Nothing of a Job runs on the source, where a run must not begin before.
pub(super) fn no_running_jobs(input: &CheckInput<'_>) -> Finding {
    let census =
        input.snapshot.census.as_ref().filter(|_| input.intent.restart.running_jobs == RunningJobs::Block);
    let Some(census) = census else { return Finding::Nothing };
    let pods: Vec<&UnmanagedPod> =
        census.unmanaged.iter().filter(|pod| pod.revision == *input.source && pod.is_of_a_job()).collect();
    match (census.job_count.get(input.source), sentence(Remedy::Wait, &pods)) {
        (Some(count), Some(remedy)) => Finding::Problem(format!(
            "{} of Jobs on {}, and spec.restart.runningJobs is Block. {remedy}",
            proxies(*count),
            input.source
        )),
        _ => Finding::Nothing,
    }
}

fn unknown(input: &CheckInput<'_>, census: &Census) -> Finding {
    let nobody = Revision::default();
    let (count, _) = census.proxies_on(&nobody);
    if count == 0 {
        return Finding::Nothing;
    }
    Finding::Problem(format!(
        "{} in {} without any sign of a revision: find out which istiod they use with istioctl proxy-status --istioNamespace \
         {}, and restart them",
        proxies(count),
        some_of(&namespaces(census, &nobody)),
        input.intent.istio_namespace
    ))
}

fn proxies(count: u32) -> String {
    if count == 1 { "1 proxy runs".to_owned() } else { format!("{count} proxies run") }
}

fn namespaces<'a>(census: &'a Census, revision: &Revision) -> Vec<&'a str> {
    census
        .proxies
        .iter()
        .filter(|(_, by_revision)| by_revision.get(revision).is_some_and(|count| *count > 0))
        .map(|(namespace, _)| NamespaceName::as_str(namespace))
        .collect()
}

/// Workloads whose pods are still there: unrestartable ones, which a restart would not help, and ones that fell back.
fn managed(input: &CheckInput<'_>, census: &Census) -> Vec<String> {
    let (mut held, mut fallen) = (Vec::new(), Vec::new());
    for reference in census.workloads.get(input.source).into_iter().flat_map(BTreeMap::keys) {
        let workload = input.snapshot.workloads.get(reference);
        match workload.and_then(|workload| unrestartable(input.intent, input.snapshot, workload)) {
            Some(why) => held.push(why),
            None => fallen.push(reference),
        }
    }
    let held = held.first().map(|first| {
        let names: Vec<String> =
            held.iter().map(|why| format!("{} ({})", why.workload, why.reason)).collect();
        format!("Not restarted by MeshUpgrade: {}. The first: {}", some_of(&names), first.message)
    });
    held.into_iter().chain(restart(&fallen)).collect()
}

fn restart(workloads: &[&WorkloadRef]) -> Option<String> {
    let first = workloads.first()?;
    let names: Vec<String> = workloads.iter().map(ToString::to_string).collect();
    Some(format!("Restart {}: {}", some_of(&names), first.restart_command()))
}

/// What helps a pod that MeshUpgrade does not restart, by what owns it; in the order in which they are told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Remedy {
    Recreate,
    Wait,
    Owner,
    Gateway,
}

fn remedy(pod: &UnmanagedPod) -> Remedy {
    match &pod.owner {
        _ if pod.gateway_api => Remedy::Gateway,
        None => Remedy::Recreate,
        Some((kind, _)) if kind == JOB => Remedy::Wait,
        Some(_) => Remedy::Owner,
    }
}

/// One sentence for each kind of owner that there is, and how many pods no example was kept of.
fn unmanaged(input: &CheckInput<'_>, census: &Census) -> Vec<String> {
    let pods: Vec<&UnmanagedPod> =
        census.unmanaged.iter().filter(|pod| pod.revision == *input.source).collect();
    let jobs_count = !ignores_jobs(input);
    let sentences =
        [Remedy::Recreate, Remedy::Wait, Remedy::Owner, Remedy::Gateway].into_iter().filter_map(|wanted| {
            let alike: Vec<&UnmanagedPod> = pods
                .iter()
                .copied()
                .filter(|pod| remedy(pod) == wanted && (jobs_count || !pod.is_of_a_job()))
                .collect();
            sentence(wanted, &alike)
        });
    let all = census.unmanaged_count.get(input.source).copied().unwrap_or_default();
    let unlisted = usize::try_from(all).unwrap_or(usize::MAX).saturating_sub(pods.len());
    let more = (unlisted > 0)
        .then(|| format!("{unlisted} more pods that MeshUpgrade does not restart are not listed here"));
    more.into_iter().chain(sentences).collect()
}

fn sentence(remedy: Remedy, pods: &[&UnmanagedPod]) -> Option<String> {
    let first = pods.first()?;
    let names: Vec<String> = pods.iter().map(|pod| name(pod)).collect();
    let names = some_of(&names);
    Some(match remedy {
        Remedy::Recreate => format!(
            "Without a controller: {names}; create each again from its manifest after kubectl delete pod {} -n {}",
            first.name, first.namespace
        ),
        Remedy::Wait => format!(
            "Of Jobs: {names}; wait until they end, kubectl wait --for=delete pod/{} -n {} --timeout=1h, or delete the Job",
            first.name, first.namespace
        ),
        Remedy::Owner => format!(
            "Of controllers that MeshUpgrade does not know: {names}; restart them through their owner"
        ),
        Remedy::Gateway => format!(
            "Of the Gateway API: {names}; they move when the label istio.io/rev of their Gateway or its namespace changes"
        ),
    })
}

fn name(pod: &UnmanagedPod) -> String {
    match &pod.owner {
        Some((kind, owner)) => format!("{}/{} ({kind} {owner})", pod.namespace, pod.name),
        None => format!("{}/{}", pod.namespace, pod.name),
    }
}
