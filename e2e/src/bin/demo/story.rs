//! The demo from start to end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use kube::ResourceExt as _;
use meshupgrade_api::MeshUpgrade;
use meshupgrade_e2e::operator::{self, Operator};
use meshupgrade_e2e::{App, Mesh, OperatorSpec, SOURCE, TARGET, install};
use meshupgrade_testbed::{Binaries, Cluster, ClusterOptions, IstioRevision};

use crate::check::{self, Expected};
use crate::clocks::Parts;
use crate::line::{Line, Style, wrapped};
use crate::screen::Screen;
use crate::sight::{self, Sight};
use crate::town;
use crate::view::{bar, seconds};
use crate::watch::Watch;

/// How long the mesh may take to come up.
const PATIENCE: Duration = Duration::from_mins(2);
const TICK: Duration = Duration::from_millis(250);
/// How much of the operator's log a failure shows.
const LOG_LINES: usize = 10;

/// Which demo.
#[derive(Debug)]
pub struct Plot {
    /// File name of the sample in `config/samples`.
    pub sample: &'static str,
    /// The phase at the end.
    pub phase: &'static str,
    /// Whether a workload fails and the run turns back.
    pub fails: bool,
}

/// From start to end on the new revision.
pub const FORWARD: Plot = Plot { sample: "demo.yaml", phase: "Succeeded", fails: false };
/// From start to a workload that does not come up, and back.
pub const BACK: Plot = Plot { sample: "demo-rollback.yaml", phase: "RolledBack", fails: true };

impl Plot {
    /// The path of the sample from the top of the repository.
    pub fn path(&self) -> String {
        format!("config/samples/{}", self.sample)
    }

    fn file(&self) -> String {
        format!("{}/../{}", env!("CARGO_MANIFEST_DIR"), self.path())
    }

    /// The sample as it is applied.
    pub fn yaml(&self) -> Result<String> {
        std::fs::read_to_string(self.file()).with_context(|| format!("cannot read {}", self.path()))
    }

    fn mesh(&self) -> Mesh {
        town::mesh(self.fails.then_some(TARGET))
    }

    fn revision(&self) -> Result<IstioRevision> {
        let name = if self.fails { SOURCE } else { TARGET };
        let all = ClusterOptions::default().revisions;
        all.into_iter().find(|revision| revision.name == name).context("the testbed has other revisions")
    }
}

/// Tells it. Fails when anything does not end as it should.
pub async fn tell(plot: &Plot, spent: Duration) -> Result<()> {
    let mut screen = Screen::new();
    let mut parts = Parts::new(spent);
    build(&mut screen).await?;
    parts.add("build", parts.begun().elapsed());
    let begun = Instant::now();
    let start = Cluster::start(ClusterOptions::default());
    let cluster = screen.during("starting the control plane", start).await??;
    parts.add("control plane", begun.elapsed());
    screen.line(done("control plane: API server, controllers, 3 nodes, istiods of two revisions", begun))?;
    let outcome = with_cluster(plot, &cluster, &mut screen, parts).await;
    let ended = screen.during("ending the control plane", cluster.shutdown()).await;
    screen.live(&[])?;
    ended??;
    outcome
}

async fn build(screen: &mut Screen) -> Result<()> {
    let begun = Instant::now();
    // Tells on its own what it builds: minutes the first time, nothing later.
    Binaries::ensure().await?;
    let build = tokio::task::spawn_blocking(operator::build);
    screen.during("building the operator", build).await???;
    screen.line(done("programs: Kubernetes, etcd, kwok and istiod from source, and the operator", begun))
}

async fn with_cluster(plot: &Plot, cluster: &Cluster, screen: &mut Screen, mut parts: Parts) -> Result<()> {
    let begun = Instant::now();
    let mesh = plot.mesh();
    let manifests = mesh.manifests();
    let apply = cluster.apply_yaml(&manifests);
    screen.during("applying namespaces and workloads", apply).await?.context("cannot apply the mesh")?;
    mesh_ready(cluster, screen, &mesh).await?;
    parts.add("mesh", begun.elapsed());
    screen.line(done(&told(&mesh), begun))?;
    let begun = Instant::now();
    let kubeconfig = screen.during("installing the operator", install::install(cluster)).await??;
    let keeper = cluster.binaries().path("keeper");
    let dir = cluster.dir().join("operator");
    let mut operator = Operator::start(&OperatorSpec::default(), &keeper, &kubeconfig, &dir)?;
    parts.add("install", begun.elapsed());
    screen.line(done("operator: CRD, rights and admission policies of its chart, and its process", begun))?;
    upgrade(plot, cluster, screen, &mut operator, &mut parts).await?;
    let code = operator.terminate()?;
    ensure!(code == 0, "the operator did not end in order: exit code {code}");
    screen.print(&headed("how long it took", &parts.table()))
}

async fn upgrade(
    plot: &Plot,
    cluster: &Cluster,
    screen: &mut Screen,
    operator: &mut Operator,
    parts: &mut Parts,
) -> Result<()> {
    let before = Sight::take(&cluster.client()).await?;
    let yaml = plot.yaml()?;
    let upgrade: MeshUpgrade = serde_saphyr::from_str(&yaml).context("the sample is no MeshUpgrade")?;
    screen.print(&headed(
        &format!("$ cat {}", plot.path()),
        &yaml.lines().map(Line::plain).collect::<Vec<_>>(),
    ))?;
    screen.print(&[Line::empty(), Line::of(Style::Typed, format!("$ kubectl apply -f {}", plot.path()))])?;
    let answer = cluster.kubectl(&["apply", "-f", &plot.file()]).await?;
    screen.line(Line::plain(answer.trim_end()))?;
    if !screen.is_live() {
        screen.line(Line::empty())?;
    }
    let name = upgrade.name_any();
    let followed = Box::pin(Watch::new(cluster, screen, operator, &name).follow()).await;
    if followed.is_err() {
        let log = operator.log_tail(LOG_LINES);
        screen.keep();
        screen.print(&headed(
            "the operator's log ends with",
            &log.lines().map(Line::plain).collect::<Vec<_>>(),
        ))?;
    }
    let (status, times) = followed?;
    for (part, time) in times {
        parts.add(part, time);
    }
    screen.line(Line::empty())?;
    for text in wrapped(&format!("{}: {}", status.phase, status.message), screen.width()) {
        screen.line(Line::of(Style::Strong, text))?;
    }
    let after = Sight::take(&cluster.client()).await?;
    show_end(cluster, screen, &after).await?;
    let mesh = plot.mesh();
    judge(screen, &mesh.apps, &Ended { plot, before, after, status })
}

async fn mesh_ready(cluster: &Cluster, screen: &mut Screen, mesh: &Mesh) -> Result<()> {
    let all: usize = mesh.apps.iter().map(App::pods).sum();
    let begun = Instant::now();
    loop {
        let pods = sight::pods(&cluster.client()).await?;
        let ready = pods.iter().filter(|pod| pod.ready).count();
        if ready == all && pods.len() == all {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "only {ready} of {all} pods of the mesh became ready");
        let (full, empty) = bar(u32::try_from(ready)?, u32::try_from(all)?, 40);
        screen.live(&[Line::of(Style::Faint, "filling the mesh  ")
            .and(Style::Good, full)
            .and(Style::Faint, empty)
            .and(Style::Plain, format!("  {ready}/{all} pods"))])?;
        tokio::time::sleep(TICK).await;
    }
}

async fn show_end(cluster: &Cluster, screen: &mut Screen, after: &Sight) -> Result<()> {
    for args in [&["get", "meshupgrades"][..], &["get", "ns", "-l", town::SELECTOR, "-L", "istio.io/rev"]] {
        let answer = cluster.kubectl(args).await?;
        let lines: Vec<Line> = answer.lines().map(Line::plain).collect();
        screen.print(&headed(&format!("$ kubectl {}", args.join(" ")), &lines))?;
    }
    screen.print(&headed("proxy images, counted from the pods", &sight::images(&after.pods)))
}

/// What a demo has come to.
struct Ended<'a> {
    plot: &'a Plot,
    before: Sight,
    after: Sight,
    status: meshupgrade_api::MeshUpgradeStatus,
}

fn judge(screen: &mut Screen, apps: &[App], ended: &Ended<'_>) -> Result<()> {
    let revision = ended.plot.revision()?;
    let broken = ended.plot.fails.then_some(town::BROKEN);
    let expected = Expected { phase: ended.plot.phase, revision: &revision, apps, broken };
    let faults = check::faults(&expected, &ended.before, &ended.after, &ended.status);
    if !faults.is_empty() {
        bail!("the end is not what it should be:\n  {}", faults.join("\n  "));
    }
    let meshed: usize = ended.after.pods.iter().filter(|pod| pod.image.is_some()).count();
    let text = format!(
        "checked: {}, {meshed} pods in {} namespaces ready on {}, {} as it was",
        ended.status.phase,
        town::meshed().count(),
        revision.name,
        town::OUTSIDE
    );
    screen.print(&[Line::empty(), Line::of(Style::Good, text)])
}

fn told(mesh: &Mesh) -> String {
    let pods: usize = mesh.apps.iter().map(App::pods).sum();
    format!(
        "mesh: {} namespaces on {SOURCE}, one outside, {} workloads, {pods} pods",
        town::meshed().count(),
        mesh.apps.len()
    )
}

fn done(what: &str, begun: Instant) -> Line {
    Line::of(Style::Good, "✔ ")
        .and(Style::Plain, what)
        .and(Style::Faint, format!("  {}", seconds(begun.elapsed())))
}

fn headed(title: &str, lines: &[Line]) -> Vec<Line> {
    let style = if title.starts_with('$') { Style::Typed } else { Style::Strong };
    [Line::empty(), Line::of(style, title)].into_iter().chain(lines.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_are_valid_and_go_from_one_of_our_revisions_to_the_other() {
        for plot in [&FORWARD, &BACK] {
            let upgrade: MeshUpgrade = serde_saphyr::from_str(&plot.yaml().unwrap()).unwrap();
            assert!(upgrade.validate().is_empty(), "{:?}", upgrade.validate());
            assert_eq!(upgrade.spec.target_revision, TARGET);
            assert_eq!(upgrade.spec.waves.map(|waves| waves.len()), Some(3));
            assert!(plot.revision().is_ok());
        }
    }
}
