//! One control plane for each test binary, shared by its tests one after the other.

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use meshupgrade_core::aks::ISTIO_NAMESPACE as AKS_NAMESPACE;
use meshupgrade_testbed::{Cluster, ClusterOptions, IstioRevision};
use tokio::runtime::Runtime;

use crate::scenario::Scenario;
use crate::{SOURCE, install, operator};

/// No scenario is worth more: a hanging one must not eat the time of the others.
const DEADLINE: Duration = Duration::from_mins(8);

/// The control plane with the product installed.
#[derive(Debug)]
pub struct World {
    /// The control plane.
    pub cluster: Cluster,
    /// A kubeconfig with a bound token of the operator's ServiceAccount.
    pub kubeconfig: PathBuf,
    /// Where everything is kept, also after the end.
    pub dir: PathBuf,
    /// Which mesh it has.
    pub kind: Kind,
    /// Taken by the first scenario that asks for a Prometheus.
    pub prometheus_port: OnceLock<u16>,
    _lock: File,
}

/// Which mesh a test binary is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Two revisions, installed by somebody else.
    SelfManaged,
    /// The add-on of AKS, with the source only: the simulated Azure installs and removes revisions.
    Aks,
}

impl Kind {
    /// What is there at the beginning and the end of each scenario.
    pub fn options(self) -> ClusterOptions {
        match self {
            Self::SelfManaged => ClusterOptions::default(),
            Self::Aks => ClusterOptions {
                istio_namespace: AKS_NAMESPACE.into(),
                revisions: vec![IstioRevision::new(SOURCE, "1.27.5")],
                ..ClusterOptions::default()
            },
        }
    }
}

/// Outlives every test: the testbed's own tasks run on it.
static RUNTIME: OnceLock<Runtime> = OnceLock::new();
static WORLD: OnceLock<Result<World, String>> = OnceLock::new();
static TURN: Mutex<()> = Mutex::new(());

/// Runs a scenario on the control plane of this test binary and tidies up after it.
///
/// # Panics
///
/// If the scenario fails.
pub fn scenario(name: &str, body: impl AsyncFnOnce(&mut Scenario) -> Result<()>) {
    scenario_of(Kind::SelfManaged, name, body);
}

/// [`scenario`] on a mesh of this kind, which is the same for all scenarios of a test binary.
///
/// # Panics
///
/// If the scenario fails.
#[expect(clippy::panic, reason = "that is how a test fails")]
pub fn scenario_of(kind: Kind, name: &str, body: impl AsyncFnOnce(&mut Scenario) -> Result<()>) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => panic!("no runtime: {error:#}"),
    };
    let world = WORLD.get_or_init(|| {
        let begun = Instant::now();
        let started = runtime.block_on(start(kind)).map_err(|error| format!("{error:#}"));
        eprintln!("control plane started in {:.1} s", begun.elapsed().as_secs_f32());
        started
    });
    let world = match world {
        Ok(world) => world,
        Err(error) => panic!("no control plane: {error}"),
    };
    let begun = Instant::now();
    let failure = run(runtime, world, name, body);
    eprintln!("scenario {name}: {:.1} s", begun.elapsed().as_secs_f32());
    if let Some(failure) = failure {
        panic!("{name}: {failure}");
    }
}

fn run(
    runtime: &Runtime,
    world: &'static World,
    name: &str,
    body: impl AsyncFnOnce(&mut Scenario) -> Result<()>,
) -> Option<String> {
    let mut scenario = match Scenario::begin(world, name) {
        Ok(scenario) => scenario,
        Err(error) => return Some(format!("cannot begin: {error:#}")),
    };
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            tokio::time::timeout(DEADLINE, body(&mut scenario))
                .await
                .unwrap_or_else(|_| Err(anyhow!("not over after {} s", DEADLINE.as_secs())))
        })
    }));
    let failure = match &attempt {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}\n{}", runtime.block_on(scenario.report()))),
        Err(_) => Some(runtime.block_on(scenario.report())),
    };
    let tidied = runtime.block_on(scenario.end());
    if let Err(panic) = attempt {
        eprintln!("{}", failure.unwrap_or_default());
        resume_unwind(panic);
    }
    match (failure, tidied) {
        (None, Err(error)) => Some(format!("cannot tidy up: {error:#}")),
        (failure, _) => failure,
    }
}

fn runtime() -> Result<&'static Runtime> {
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    Ok(RUNTIME.get_or_init(|| runtime))
}

async fn start(kind: Kind) -> Result<World> {
    let (dir, lock) = directory()?;
    let options = ClusterOptions { dir: Some(dir.join("cluster")), ..kind.options() };
    let building = tokio::task::spawn_blocking(operator::build);
    let cluster = Cluster::start(options).await?;
    let kubeconfig = install::install(&cluster).await?;
    building.await??;
    Ok(World { cluster, kubeconfig, dir, kind, prometheus_port: OnceLock::new(), _lock: lock })
}

/// A directory for this test binary, emptied of what the last run left for inspection.
fn directory() -> Result<(PathBuf, File)> {
    let test = std::env::current_exe()?;
    let target = test.ancestors().nth(3).context("the test is in no target directory")?;
    let name = test.file_stem().and_then(|name| name.to_str()).context("the test has no name")?;
    let name = name.rsplit_once('-').map_or(name, |(name, _)| name);
    (0..10)
        .find_map(|number| take(&target.join("e2e").join(format!("{name}-{number}"))))
        .context("no free directory")
}

fn take(dir: &Path) -> Option<(PathBuf, File)> {
    fs::create_dir_all(dir).ok()?;
    let lock = File::create(dir.join("lock")).ok()?;
    // Another run of the same tests has it.
    lock.try_lock().ok()?;
    for left in ["cluster", "logs"] {
        let left = dir.join(left);
        if left.exists() {
            fs::remove_dir_all(left).ok()?;
        }
    }
    Some((dir.to_owned(), lock))
}
