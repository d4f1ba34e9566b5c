//! The simulator as a program, with control planes in memory. It ends on SIGTERM, on SIGINT, and when its standard input
//! is closed.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use meshupgrade_arm_simulator::{ClusterConfig, Config, InMemory, Simulator};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Simulates Azure Resource Manager with one AKS cluster on 127.0.0.1.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Port of ARM and sign-in (HTTPS); 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Port of the managed-identity endpoint (HTTP); 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    identity_port: u16,
    /// The revision that is installed at the start.
    #[arg(long, default_value = "asm-1-27")]
    revision: String,
    /// How long an operation takes, in milliseconds.
    #[arg(long, default_value_t = 2000)]
    operation_millis: u64,
    /// Seconds of Retry-After; without it clients wait 30 s between two looks at an operation.
    #[arg(long)]
    retry_after: Option<u64>,
    /// Where to write the certificate of the authority; by default into a directory that is removed at the end.
    #[arg(long)]
    ca_file: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // Before anything is printed: whoever has read it may send a signal at once.
    let told = until_told()?;
    let directory = tempfile::tempdir()?;
    let ca_file = arguments.ca_file.unwrap_or_else(|| directory.path().join("ca.crt"));
    let revisions = [arguments.revision.as_str()];
    let cluster = ClusterConfig::new(InMemory::with(&revisions), &revisions);
    let simulator = Simulator::start(Config {
        port: arguments.port,
        identity_port: arguments.identity_port,
        operation_time: Duration::from_millis(arguments.operation_millis),
        retry_after: arguments.retry_after,
        ..Config::new(vec![cluster.clone()])
    })
    .await?;
    std::fs::write(&ca_file, simulator.ca_pem()).with_context(|| ca_file.display().to_string())?;
    let config = simulator.config();
    println!("base-url={}", simulator.base_url());
    println!("identity-url={}", simulator.identity_url());
    println!("ca-file={}", ca_file.display());
    println!("tenant={}", config.tenant);
    println!("client={}", config.clients.first().map(String::as_str).unwrap_or_default());
    println!("cluster={}", cluster.id());
    told.await;
    Ok(())
}

/// The end that somebody asks for.
fn until_told() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = input_closed() => {}
        }
    })
}

/// Whoever started us has gone. On a thread of its own: a read that never ends must not keep the runtime from ending.
async fn input_closed() {
    let (ended, wait) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = ended.send(());
    });
    let _ = wait.await;
}
