//! Takes one census: paged lists, folded page by page. What cannot be read is said so and never taken for empty.

use jiff::Timestamp;
use kube::api::{ApiResource, ListParams};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Api, Resource};
use meshupgrade_core::census::{API_DISCOVERY, Census, ENVOY_FILTERS, ReferenceKind};
use meshupgrade_core::decision::Needs;
use meshupgrade_core::ids::NamespaceName;
use meshupgrade_core::labels;
use serde::de::DeserializeOwned;

use super::kinds::{self, EnvoyFilterFound, RawCronJob, RawEnvoyFilter, RawObject, RawValidating};
use super::rights;
use crate::client::{CallError, Clients};
use crate::observe::Observed;
use crate::observe::gateway::RawGateway;
use crate::observe::pod::RawPod;

/// Objects per page.
const PAGE: u32 = 500;
/// API groups of Istio's own resources.
const ISTIO_GROUPS: [&str; 4] =
    ["networking.istio.io", "security.istio.io", "telemetry.istio.io", "extensions.istio.io"];
/// How many examples of what is not covered are kept.
const EXAMPLES: usize = 10;

/// Reads everything. An error when not all pods could be read: a part of them proves nothing. What else is missing is named in
/// [`Census::unreadable`].
pub async fn take(
    clients: &Clients,
    istio_namespace: &NamespaceName,
    needs: &Needs,
) -> Result<Census, CallError> {
    let sidecars_in = needs.sidecars_in.clone();
    let mut census = Census { taken_at: Some(Timestamp::now()), sidecars_in, ..Census::default() };
    let look = Look { clients };
    if let Err(error) = look.pods(&mut census).await {
        tracing::warn!(%error, "pods could not be counted");
        return Err(error);
    }
    census.rights.clone_from(&needs.rights);
    census.denied = rights::denied(clients, &needs.rights).await;
    census.kubernetes_version = look.kubernetes_version().await;
    look.cron_jobs(&mut census).await;
    look.gateways(&mut census).await;
    look.istio_resources(&mut census).await;
    look.validators(&mut census).await;
    look.tag_services(&mut census, istio_namespace).await;
    census.references.sort();
    census.references.dedup();
    Ok(census)
}

/// Counts the proxies and nothing else.
pub async fn proxies(clients: &Clients) -> Result<Census, CallError> {
    let mut census = Census { taken_at: Some(Timestamp::now()), ..Census::default() };
    Look { clients }.pods(&mut census).await?;
    Ok(census)
}

struct Look<'a> {
    clients: &'a Clients,
}

impl Look<'_> {
    async fn pods(&self, census: &mut Census) -> Result<(), CallError> {
        let api: Api<RawPod> = Api::all(self.clients.calls());
        let mut ztunnels = 0_usize;
        let result = self
            .pages(&api, &ListParams::default(), |pod| {
                // ztunnel is one per node and follows no revision label: ambient mode is in use.
                let label = |key: &str| pod.metadata.labels.as_ref()?.get(key);
                ztunnels += usize::from(label("app").is_some_and(|app| app == "ztunnel"));
                if let Some(pod) = pod.observe() {
                    census.add_pod(&pod);
                }
            })
            .await;
        if ztunnels > 0 {
            census.uncovered.push(format!("ambient mode: {ztunnels} ztunnel pods"));
        }
        result
    }

    /// Only a warning rests on it.
    async fn kubernetes_version(&self) -> Option<String> {
        match self.clients.call(self.clients.calls().apiserver_version()).await {
            Ok(info) => Some(info.git_version.trim_start_matches('v').to_owned()),
            Err(error) => {
                tracing::warn!(%error, "the version of the API server could not be read");
                None
            }
        }
    }

    async fn cron_jobs(&self, census: &mut Census) {
        let api: Api<RawCronJob> = Api::all(self.clients.calls());
        let result =
            self.pages(&api, &ListParams::default(), |job| census.cron_jobs.push(kinds::cron_job(job))).await;
        note(census, "cronjobs", result);
    }

    async fn gateways(&self, census: &mut Census) {
        let api: Api<RawGateway> = Api::all(self.clients.calls());
        let mut uncovered = Vec::new();
        let result = self
            .pages(&api, &ListParams::default(), |gateway| {
                let found = kinds::gateway(&gateway);
                census.references.extend(found.reference);
                uncovered.extend(found.uncovered);
            })
            .await;
        census.uncovered.extend(shortened(uncovered));
        note(census, "gateways.gateway.networking.k8s.io", absent_is_fine(result));
    }

    async fn validators(&self, census: &mut Census) {
        let api: Api<RawValidating> = Api::all(self.clients.calls());
        let result = self
            .pages(&api, &ListParams::default(), |one| {
                census.references.extend(kinds::validator(&one));
            })
            .await;
        note(census, "validatingwebhookconfigurations", result);
    }

    async fn tag_services(&self, census: &mut Census, istio_namespace: &NamespaceName) {
        let services = ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&());
        let api: Api<RawObject> =
            Api::namespaced_with(self.clients.calls(), istio_namespace.as_str(), &services);
        let selected = ListParams::default().labels(&format!("{},{}", labels::TAG, labels::REVISION));
        let result = self
            .pages(&api, &selected, |service| {
                let found = kinds::labelled(ReferenceKind::TagService, "Service", service.meta());
                census.references.extend(found);
            })
            .await;
        note(census, "services", result);
    }

    /// Which kinds exist depends on the versions of Istio: the API server says. Each kind in its most stable version: a group's
    /// preferred one lacks some of them, since EnvoyFilter and ProxyConfig have no `v1`.
    async fn istio_resources(&self, census: &mut Census) {
        let discovery = Discovery::new(self.clients.calls()).filter(&ISTIO_GROUPS);
        let discovered = match self.clients.call(discovery.run_aggregated()).await {
            Ok(discovered) => discovered,
            Err(error) => return note(census, API_DISCOVERY, Err(error)),
        };
        for group in discovered.groups() {
            for (resource, capabilities) in group.resources_by_stability() {
                if capabilities.supports_operation(verbs::LIST) {
                    self.istio_kind(census, &resource, capabilities.scope == Scope::Namespaced).await;
                }
            }
        }
    }

    async fn istio_kind(&self, census: &mut Census, resource: &ApiResource, namespaced: bool) {
        if resource.kind == "EnvoyFilter" {
            return self.envoy_filters(census).await;
        }
        let api: Api<RawObject> = Api::all_with(self.clients.calls(), resource);
        let labelled = ListParams::default().labels(labels::REVISION);
        let result = self
            .pages(&api, &labelled, |object| {
                let found = kinds::labelled(ReferenceKind::IstioResource, &resource.kind, object.meta());
                census.references.extend(found);
            })
            .await;
        let name = format!("{}.{}", resource.plural, resource.group);
        note(census, &name, absent_is_fine(result));
        if namespaced && resource.kind == "WorkloadEntry" {
            let mut entries = Vec::new();
            let result = self
                .pages(&api, &ListParams::default(), |entry| {
                    let metadata = entry.meta();
                    let namespace = metadata.namespace.as_deref().unwrap_or_default();
                    let name = metadata.name.as_deref().unwrap_or_default();
                    entries.push(format!("WorkloadEntry {namespace}/{name}"));
                })
                .await;
            census.uncovered.extend(shortened(entries));
            note(census, &name, absent_is_fine(result));
        }
    }

    /// All of them are read, because any of them may be for certain versions of the proxy.
    async fn envoy_filters(&self, census: &mut Census) {
        let api: Api<RawEnvoyFilter> = Api::all(self.clients.calls());
        let result = self
            .pages(&api, &ListParams::default(), |filter| match kinds::envoy_filter(filter) {
                EnvoyFilterFound::Reference(reference) => census.references.push(reference),
                EnvoyFilterFound::Versioned(filter) => census.add_versioned_filter(filter),
            })
            .await;
        note(census, ENVOY_FILTERS, absent_is_fine(result));
    }

    /// Lists page by page. An expired token (410) begins nothing anew here: the next census does.
    async fn pages<K>(
        &self,
        api: &Api<K>,
        selected: &ListParams,
        mut take: impl FnMut(K),
    ) -> Result<(), CallError>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let mut page = selected.clone().limit(PAGE);
        loop {
            let list = self.clients.call(api.list(&page)).await;
            let list = list.map_err(|error| match error {
                // A list that ends in the middle (its token expired) is none that is empty.
                CallError::NotFound(message) if page.continue_token.is_some() => {
                    CallError::Server { code: 410, message }
                }
                error => error,
            })?;
            list.items.into_iter().for_each(&mut take);
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page.continue_token = Some(token),
                None => return Ok(()),
            }
        }
    }
}

fn absent_is_fine(result: Result<(), CallError>) -> Result<(), CallError> {
    match result {
        Err(CallError::NotFound(_)) => Ok(()),
        other => other,
    }
}

fn note(census: &mut Census, what: &str, result: Result<(), CallError>) {
    if let Err(error) = result {
        tracing::warn!(what, %error, "census incomplete");
        census.unreadable.push(format!("{what}: {error}"));
    }
}

/// The first few, and how many more there are.
fn shortened(mut all: Vec<String>) -> Vec<String> {
    let more = all.len().saturating_sub(EXAMPLES);
    if more > 0 {
        all.truncate(EXAMPLES);
        all.push(format!("and {more} more like the last one"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_that_does_not_exist_is_no_gap_and_one_that_is_refused_is() {
        let mut census = Census::default();
        note(&mut census, "gateways", absent_is_fine(Err(CallError::NotFound("no such kind".into()))));
        assert!(census.unreadable.is_empty());
        note(&mut census, "gateways", absent_is_fine(Err(CallError::Refused("forbidden".into()))));
        assert_eq!(census.unreadable, ["gateways: refused: forbidden"]);
    }

    #[test]
    fn long_lists_are_counted() {
        let many: Vec<String> = (0..13).map(|number| format!("WorkloadEntry a/{number}")).collect();
        let short = shortened(many);
        assert_eq!(short.len(), EXAMPLES + 1);
        assert_eq!(short[EXAMPLES], "and 3 more like the last one");
        assert_eq!(shortened(vec!["one".into()]), ["one"]);
    }
}
