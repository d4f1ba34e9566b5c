//! Starts the tasks around a [`Context`]: the watches, and the passes once this process leads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::store::Writer;
use kube::{Api, ResourceExt};
use tokio::task::JoinSet;

use crate::context::Context;
use crate::memory;
use crate::metrics::Pass;
use crate::observe::budget::RawBudget;
use crate::observe::gateway::RawGateway;
use crate::observe::namespace::RawNamespace;
use crate::observe::webhook::RawMutating;
use crate::observe::workload::{RawDaemonSet, RawDeployment, RawRollout, RawStatefulSet};
use crate::observe::{Observed, StoreOf};
use crate::proxies;
use crate::reconcile::{Error, pass};
use crate::watch;
use crate::watch::upgrades::Guarded;

/// One pass at a time: two MeshUpgrades that both decided to begin, each before it could see the other's record, would
/// be two upgrades of one mesh. Passes are short, and nothing in them waits for a cluster.
const CONCURRENCY: u16 = 1;
/// How often it is looked whether the first lists are in.
const SYNC_POLL: Duration = Duration::from_millis(50);
/// When to look again although nothing seems to change.
const SAFETY: Duration = Duration::from_mins(5);

/// Starts the cluster-wide watches. They run for ever, also while another process leads: a new leader must not begin
/// by reading the cluster.
pub fn start_watches(context: &Arc<Context>, writer: Writer<Guarded>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let stores = &context.stores;
    start::<RawNamespace>(&mut tasks, context, &stores.namespaces);
    start::<RawDeployment>(&mut tasks, context, &stores.deployments);
    start::<RawStatefulSet>(&mut tasks, context, &stores.stateful_sets);
    start::<RawDaemonSet>(&mut tasks, context, &stores.daemon_sets);
    start::<RawMutating>(&mut tasks, context, &stores.webhooks);
    start::<RawBudget>(&mut tasks, context, &stores.budgets);
    start_optional::<RawRollout>(&mut tasks, context, &stores.rollouts);
    start_optional::<RawGateway>(&mut tasks, context, &stores.gateways);
    tasks.spawn(watch::upgrades::run(Arc::clone(context), writer));
    tasks
}

fn start<S: Observed>(tasks: &mut JoinSet<()>, context: &Context, store: &Arc<StoreOf<S>>) {
    let api: Api<S> = Api::all(context.clients.watches());
    let (store, poke, health) = (Arc::clone(store), context.poke.clone(), context.health.clone());
    tasks.spawn(watch::run(api, store, |_| true, poke, health));
}

fn start_optional<S: Observed>(tasks: &mut JoinSet<()>, context: &Context, store: &Arc<StoreOf<S>>) {
    let api: Api<S> = Api::all(context.clients.watches());
    let (store, poke, health) = (Arc::clone(store), context.poke.clone(), context.health.clone());
    tasks.spawn(watch::optional::run(api, store, poke, health));
}

/// Runs passes until the process is to end; those in work are ended first.
pub async fn run(context: Arc<Context>) {
    while !(context.stores.unsynced().is_empty() && context.upgrades_synced()) {
        if context.stop.is_stopping() {
            return;
        }
        tokio::time::sleep(SYNC_POLL).await;
    }
    tracing::info!("all first lists are in");
    context.metrics.process.set_max_workers(CONCURRENCY);
    context.poke.poke();
    let counts =
        context.settings.proxy_interval.map(|every| tokio::spawn(proxies::run(Arc::clone(&context), every)));
    // The trigger of the controller's own is never used: our watches share no backoff with anything.
    Controller::for_stream(futures::stream::pending(), context.upgrades.clone())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_all_on(context.poke.clone().stream())
        .graceful_shutdown_on(context.stop.clone().wait())
        .run(reconcile, on_error, Arc::clone(&context))
        .for_each(|result| async {
            if let Err(error) = result {
                tracing::debug!(%error, "pass");
            }
        })
        .await;
    if let Some(counts) = counts {
        counts.abort();
    }
}

/// One pass over one MeshUpgrade, measured and supervised.
async fn reconcile(object: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    let _supervised = context.health.reconcile(&object.name_any());
    let began = Instant::now();
    context.metrics.process.pass_began();
    let result = match &object.0 {
        // What a pass sees of the cluster is large.
        Ok(cached) => Box::pin(pass(&context, cached)).await.inspect(|_| {
            context.memory.succeed(&memory::uid(cached));
        }),
        Err(invalid) => {
            // The CRD's schema admits no such object; one that an older CRD let in must be repaired by hand.
            tracing::error!(upgrade = object.name_any(), error = invalid.error, "cannot be parsed");
            Ok(None)
        }
    };
    let ended = match &result {
        Ok(None) => Pass::Success,
        Ok(Some(_)) => Pass::RequeueAfter,
        Err(_) => Pass::Error,
    };
    context.metrics.process.pass_ended(ended, began.elapsed());
    result.map(|wait| Action::requeue(wait.unwrap_or(SAFETY).min(SAFETY)))
}

/// What happens after a failed pass.
#[allow(clippy::needless_pass_by_value)] // the signature that the controller calls
fn on_error(object: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    let wait = match &object.0 {
        Ok(upgrade) => context.memory.fail(&memory::uid(upgrade)),
        Err(_) => SAFETY,
    };
    tracing::warn!(%error, ?wait, "pass failed");
    Action::requeue(wait)
}
