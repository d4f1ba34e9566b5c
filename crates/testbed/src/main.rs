//! `testbed`: builds, starts and ends the test control plane by hand.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use meshupgrade_testbed::session::Session;
use meshupgrade_testbed::{Binaries, Cluster, ClusterOptions, IstioRevision, NodeSpec};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A real Kubernetes control plane with real istiods on this machine, without containers.
#[derive(Debug, Parser)]
#[command(name = "testbed")]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Build the programs of the control plane into the cache.
    Build,
    /// Leave one cluster running in the background.
    Up(Shape),
    /// End the background cluster.
    Down,
    /// Run a cluster until Ctrl-C.
    Run {
        #[command(flatten)]
        shape: Shape,
        /// Keep everything in this directory instead of a temporary one.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Say whether the background cluster runs, and how to use it.
    Status,
    /// The background process of `up`.
    #[command(hide = true)]
    Serve(Shape),
}

/// What the cluster looks like.
#[derive(Debug, Clone, Args)]
struct Shape {
    /// A revision and the tag of its proxy image, may be repeated.
    #[arg(long = "revision", value_name = "NAME=TAG", default_values_t = ["asm-1-27=1.27.5".to_owned(), "asm-1-28=1.28.2".to_owned()])]
    revisions: Vec<String>,
    /// How many nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Kubelet version of the nodes: from v1.33 on, sidecars are native.
    #[arg(long, default_value = "v1.32.0")]
    kubelet_version: String,
    /// Requests per second of the controller manager.
    #[arg(long, default_value_t = 2000)]
    controller_qps: u32,
}

impl Shape {
    fn options(&self, dir: Option<PathBuf>) -> Result<ClusterOptions> {
        let revision = |text: &String| {
            let (name, tag) = text.split_once('=').with_context(|| format!("{text:?} is not NAME=TAG"))?;
            Ok(IstioRevision::new(name, tag))
        };
        let node = |number| NodeSpec {
            name: format!("node-{number}"),
            kubelet_version: self.kubelet_version.clone(),
        };
        Ok(ClusterOptions {
            dir,
            revisions: self.revisions.iter().map(revision).collect::<Result<_>>()?,
            nodes: (1..=self.nodes).map(node).collect(),
            controller_qps: self.controller_qps,
            ..ClusterOptions::default()
        })
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> =
            self.revisions.iter().map(|revision| format!("--revision={revision}")).collect();
        arguments.push(format!("--nodes={}", self.nodes));
        arguments.push(format!("--kubelet-version={}", self.kubelet_version));
        arguments.push(format!("--controller-qps={}", self.controller_qps));
        arguments
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    // Until the API server listens, every attempt to reach it is an error for the client library.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,kube_client=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match act().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn act() -> Result<()> {
    match Cli::parse().command {
        Action::Build => Binaries::ensure().await.map(|_| println!("built")),
        Action::Up(shape) => up(&shape).await,
        Action::Down => down(),
        Action::Status => {
            status();
            Ok(())
        }
        Action::Run { shape, dir } => {
            run(shape.options(dir)?, |cluster| {
                println!("export KUBECONFIG={}", cluster.kubeconfig().display());
                println!("ready; Ctrl-C ends it");
                Ok(())
            })
            .await
        }
        Action::Serve(shape) => {
            let session = Session::of_checkout()?;
            run(shape.options(Some(session.cluster_dir()))?, |_| session.mark_ready()).await
        }
    }
}

async fn up(shape: &Shape) -> Result<()> {
    let session = Session::of_checkout()?;
    if session.running().is_some() {
        println!("already up");
        print_usage(&session);
        return Ok(());
    }
    // Here, where somebody watches: the first build takes minutes.
    let binaries = Binaries::ensure().await?;
    let started = Instant::now();
    session.up(&shape.arguments(), Duration::from_mins(2))?;
    session.link_tools(&binaries)?;
    println!("up after {:.1} s", started.elapsed().as_secs_f64());
    print_usage(&session);
    Ok(())
}

fn down() -> Result<()> {
    let was_running = Session::of_checkout()?.down()?;
    println!("{}", if was_running { "down" } else { "nothing was up" });
    Ok(())
}

fn status() {
    match Session::of_checkout() {
        Ok(session) if session.running().is_some() => {
            println!("up");
            print_usage(&session);
        }
        _ => println!("down"),
    }
}

fn print_usage(session: &Session) {
    println!("export KUBECONFIG={}", session.kubeconfig().display());
    println!("export PATH={}:$PATH", session.bin_dir().display());
}

async fn run(options: ClusterOptions, ready: impl FnOnce(&Cluster) -> Result<()>) -> Result<()> {
    // Registered first: a signal during the start must end what has been started.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let ended = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::pin!(ended);
    let cluster = tokio::select! {
        cluster = Cluster::start(options) => cluster?,
        () = &mut ended => return Ok(()),
    };
    ready(&cluster)?;
    ended.await;
    cluster.shutdown().await
}
