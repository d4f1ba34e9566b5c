//! Arguments → clients → stores → tasks → run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kube::Config;
use kube::runtime::reflector;
use meshupgrade_controller::census::Censuses;
use meshupgrade_controller::client::Clients;
use meshupgrade_controller::context::{Context, Settings};
use meshupgrade_controller::election::Leadership;
use meshupgrade_controller::election::task::Elector;
use meshupgrade_controller::events::Events;
use meshupgrade_controller::health::Health;
use meshupgrade_controller::managed_clusters::{ManagedClusters, Pace};
use meshupgrade_controller::memory::Memory;
use meshupgrade_controller::metric_sources::MetricSources;
use meshupgrade_controller::metrics::Metrics;
use meshupgrade_controller::observe::Stores;
use meshupgrade_controller::proxies::ProxyCount;
use meshupgrade_controller::stop::{self, Stop};
use meshupgrade_controller::watch::Poke;
use meshupgrade_controller::watch::config_maps::ConfigMapWatches;
use meshupgrade_controller::watch::namespaced::NamespacedWatches;
use meshupgrade_controller::watch::pods::PodWatches;
use meshupgrade_controller::watch::upgrades::Guarded;
use meshupgrade_controller::{admin, controller};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::args::Args;

/// How often the watchdog looks.
const WATCHDOG_PERIOD: Duration = Duration::from_secs(10);
/// How long the end may take: a write in flight and the release of the lease.
const DRAIN: Duration = Duration::from_secs(25);

/// Runs the operator until a signal ends it, or until something is lost that only a new process can get back.
pub async fn run(args: Args) -> Result<()> {
    let sources = args.sources()?;
    // Who has no cluster in Azure need not configure it.
    let arm = args.arm().inspect_err(|error| tracing::info!(%error, "no access to Azure is configured"));
    let config = Config::infer().await.context("no access to a cluster is configured")?;
    let election = args.election(&config.default_namespace)?;
    let metrics = Metrics::new()?;
    let health = Health::default();
    let clients = Clients::new(config, args.call_timeout(), &metrics, &health)?;
    let leadership = Leadership::new(args.call_timeout());
    let (elector, elected) = Elector::new(election, clients.calls(), leadership.clone(), metrics.clone());

    let (stopper, stop) = stop::channel();
    let mut tasks = JoinSet::new();
    let (upgrades, writer) = reflector::store::<Guarded>();
    let (events, publisher) =
        Events::new(clients.calls(), args.identity(), args.call_timeout(), metrics.clone());
    tasks.spawn(publisher);
    let poke = Poke::default();
    let context = Arc::new(Context {
        pods: PodWatches::new(clients.clone(), poke.clone(), health.clone()),
        config_maps: ConfigMapWatches::new(clients.clone(), poke.clone(), health.clone()),
        istiod_services: NamespacedWatches::new(clients.clone(), poke.clone(), health.clone()),
        gateway_services: NamespacedWatches::new(clients.clone(), poke.clone(), health.clone()),
        censuses: Censuses::default(),
        proxies: ProxyCount::default(),
        managed_clusters: ManagedClusters::new(
            arm,
            Pace::every(Duration::from_secs(args.aks_poll_seconds)),
            poke.clone(),
            leadership.clone(),
        ),
        metric_sources: MetricSources::new(sources, metrics.clone(), poke.clone()),
        stores: Stores::default(),
        memory: Memory::default(),
        settings: settings(&args),
        clients,
        upgrades,
        leadership,
        events,
        metrics,
        health: health.clone(),
        poke,
        stop: stop.clone(),
    });
    let listener = TcpListener::bind(args.admin_address)
        .await
        .with_context(|| format!("cannot listen on {}", args.admin_address))?;
    tracing::info!(address = %args.admin_address, "admin port");
    tasks.spawn(log_failure(admin::serve(listener, Arc::clone(&context))));
    let mut watches = controller::start_watches(&context, writer);
    let mut passes = tokio::spawn(passes_when_elected(elected, Arc::clone(&context)));

    tokio::select! {
        signal = termination() => tracing::info!(signal = signal?, "ending"),
        loss = elector.run() => bail!("leadership lost: {loss}"),
        stuck = watchdog(health) => bail!("no progress: {stuck}"),
        ended = watches.join_next() => bail!("a watch ended: {ended:?}"),
        ended = &mut passes => bail!("the controller ended: {ended:?}"),
    }
    stopper.stop();
    // The lease is kept while a write is in flight, and given back after the last one.
    let drained = async {
        tokio::select! {
            _ = &mut passes => Ok(()),
            loss = elector.run() => bail!("leadership lost while ending: {loss}"),
        }
    };
    let drained = tokio::time::timeout(DRAIN, drained).await;
    drained.with_context(|| format!("a pass did not end within {} s", DRAIN.as_secs()))??;
    elector.release().await;
    Ok(())
}

fn settings(args: &Args) -> Settings {
    Settings {
        status_interval: Duration::from_secs(args.status_interval_seconds),
        census_interval: Duration::from_secs(args.census_interval_seconds),
        proxy_interval: Some(Duration::from_secs(args.proxy_count_interval_seconds))
            .filter(|interval| !interval.is_zero()),
        operator: args.operator(),
        addon_namespaces: args.addon_namespaces(),
    }
}

async fn passes_when_elected(mut elected: watch::Receiver<bool>, context: Arc<Context>) {
    let stop: Stop = context.stop.clone();
    tokio::select! {
        won = elected.wait_for(|leads| *leads) => if won.is_err() { return },
        () = stop.wait() => return,
    }
    controller::run(context).await;
}

async fn termination() -> Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

/// Outside of a cluster nobody asks /livez: the process ends by itself as well.
async fn watchdog(health: Health) -> String {
    loop {
        tokio::time::sleep(WATCHDOG_PERIOD).await;
        let stuck = health.stuck(Instant::now());
        if !stuck.is_empty() {
            return stuck.join("; ");
        }
    }
}

async fn log_failure(serving: impl Future<Output = std::io::Result<()>>) {
    if let Err(error) = serving.await {
        tracing::error!(%error, "the admin port failed");
    }
}
