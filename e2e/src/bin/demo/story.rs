//! The demo from start to end.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use kube::ResourceExt as _;
use meshupgrade_api::{MeshUpgrade, MeshUpgradeStatus};
use meshupgrade_e2e::azure::{self, Azure, Orders};
use meshupgrade_e2e::operator::{self, Operator};
use meshupgrade_e2e::{App, Kind, Mesh, OperatorSpec, SOURCE, TARGET, install};
use meshupgrade_testbed::{Binaries, Cluster, ClusterOptions, IstioRevision};

use crate::check::{self, Expected};
use crate::clocks::Parts;
use crate::cloud::{self, Planes};
use crate::cloud_check::{self, CloudStory};
use crate::line::{Line, Style, wrapped};
use crate::screen::Screen;
use crate::sight::{self, Sight};
use crate::town;
use crate::view::{bar, seconds};
use crate::watch::{Followed, Watch};

/// How long the mesh may take to come up.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long what comes after the end of a run may take.
const LAST: Duration = Duration::from_secs(20);
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
    /// Who installs and removes control planes.
    pub kind: Kind,
}

/// From start to end on the new revision, with the add-on of AKS.
pub const FORWARD: Plot = Plot { sample: "demo.yaml", phase: "Succeeded", fails: false, kind: Kind::Aks };
/// From start to a workload that does not come up, and back.
pub const BACK: Plot =
    Plot { sample: "demo-rollback.yaml", phase: "RolledBack", fails: true, kind: Kind::Aks };
/// From start to end, without Azure.
pub const SELF_MANAGED: Plot =
    Plot { sample: "demo-self-managed.yaml", phase: "Succeeded", fails: false, kind: Kind::SelfManaged };

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
        let mesh = town::mesh(self.fails.then_some(TARGET));
        if self.kind == Kind::Aks { mesh.object(town::mesh_config()) } else { mesh }
    }

    /// What is in the cluster before the operator, besides istiods.
    fn manifests(&self) -> String {
        let mesh = self.mesh().manifests();
        if self.kind == Kind::Aks { format!("{mesh}\n---\n{}", azure::gateways(SOURCE, true)) } else { mesh }
    }

    /// What the control plane is, in words.
    fn told(&self) -> String {
        let names: Vec<String> =
            self.kind.options().revisions.into_iter().map(|revision| revision.name).collect();
        format!("control plane: API server, controllers, 3 nodes, istiod of {}", names.join(" and "))
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
    let start = Cluster::start(plot.kind.options());
    let cluster = screen.during("starting the control plane", start).await??;
    parts.add("control plane", begun.elapsed());
    screen.line(done(&plot.told(), begun))?;
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
    let manifests = plot.manifests();
    let apply = cluster.apply_yaml(&manifests);
    screen.during("applying namespaces and workloads", apply).await?.context("cannot apply the mesh")?;
    mesh_ready(cluster, screen, &mesh).await?;
    parts.add("mesh", begun.elapsed());
    screen.line(done(&told(&mesh), begun))?;
    let begun = Instant::now();
    let kubeconfig = screen.during("installing the operator", install::install(cluster)).await??;
    let keeper = cluster.binaries().path("keeper");
    let dir = cluster.dir().join("operator");
    let (azure, orders) = azure_for(plot, cluster, dir.clone()).await?;
    let spec = azure.as_ref().map_or_else(OperatorSpec::default, Azure::operator);
    let mut operator = Operator::start(&spec, &keeper, &kubeconfig, &dir)?;
    parts.add("install", begun.elapsed());
    screen.line(done("operator: CRD, rights and admission policies of its chart, and its process", begun))?;
    if azure.is_some() {
        screen.line(done("Azure: simulated; what it accepts really installs and removes istiods", begun))?;
    }
    let scene = Scene { plot, cluster, azure: azure.as_ref() };
    tokio::select! {
        outcome = upgrade(scene, screen, &mut operator, &mut parts) => outcome?,
        () = carry_out(cluster, orders) => bail!("the simulated Azure ended"),
    }
    let code = operator.terminate()?;
    ensure!(code == 0, "the operator did not end in order: exit code {code}");
    screen.print(&headed("how long it took", &parts.table()))
}

/// The simulated Azure with what it orders, where it is asked for control planes.
async fn azure_for(plot: &Plot, cluster: &Cluster, dir: PathBuf) -> Result<(Option<Azure>, Option<Orders>)> {
    if plot.kind == Kind::SelfManaged {
        return Ok((None, None));
    }
    let (azure, orders) = Azure::start_for(cluster, dir, &[SOURCE]).await?;
    Ok((Some(azure), Some(orders)))
}

/// Does what Azure orders. The cluster stays ours, so that it ends with us, however that happens.
async fn carry_out(cluster: &Cluster, orders: Option<Orders>) {
    match orders {
        Some(orders) => orders.carry_out(cluster).await,
        None => std::future::pending().await,
    }
}

/// Where a demo takes place.
#[derive(Clone, Copy)]
struct Scene<'a> {
    plot: &'a Plot,
    cluster: &'a Cluster,
    azure: Option<&'a Azure>,
}

async fn upgrade(
    scene: Scene<'_>,
    screen: &mut Screen,
    operator: &mut Operator,
    parts: &mut Parts,
) -> Result<()> {
    let Scene { plot, cluster, azure } = scene;
    let before = Sight::take(&cluster.client()).await?;
    let mut cloud = CloudStory::default();
    if let Some(azure) = azure {
        cloud.before = Planes::take(azure, &cluster.client()).await?;
        screen.print(&cloud.before.shown("before the run", azure))?;
    }
    let name = apply(plot, cluster, screen).await?;
    let Followed { status, times, middle } = follow(scene, screen, operator, &name).await?;
    for (part, time) in times {
        parts.add(part, time);
    }
    screen.line(Line::empty())?;
    for text in wrapped(&format!("{}: {}", status.phase, status.message), screen.width()) {
        screen.line(Line::of(Style::Strong, text))?;
    }
    let after = Sight::take(&cluster.client()).await?;
    show_end(cluster, screen, &after).await?;
    cloud.middle = middle;
    if let Some(azure) = azure {
        show_end_of_azure(scene, azure, screen, &mut cloud).await?;
    }
    judge(screen, &plot.mesh().apps, &Ended { plot, before, after, status, cloud: azure.map(|_| cloud) })
}

/// Follows the run to its end. Shows the operator's log if it does not come to one.
async fn follow(
    scene: Scene<'_>,
    screen: &mut Screen,
    operator: &mut Operator,
    name: &str,
) -> Result<Followed> {
    let watch = Watch::new(scene.cluster, scene.azure, screen, operator, name);
    let followed = Box::pin(watch.follow()).await;
    if followed.is_err() {
        let log = operator.log_tail(LOG_LINES);
        screen.keep();
        screen.print(&headed(
            "the operator's log ends with",
            &log.lines().map(Line::plain).collect::<Vec<_>>(),
        ))?;
    }
    followed
}

/// Shows the sample and applies it. Returns the name of the MeshUpgrade.
async fn apply(plot: &Plot, cluster: &Cluster, screen: &mut Screen) -> Result<String> {
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
    Ok(upgrade.name_any())
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

/// What Azure has in the end, and what it was asked for.
async fn show_end_of_azure(
    scene: Scene<'_>,
    azure: &Azure,
    screen: &mut Screen,
    cloud: &mut CloudStory,
) -> Result<()> {
    let begun = Instant::now();
    cloud.after = loop {
        let planes = Planes::take(azure, &scene.cluster.client()).await?;
        // After a rollback the copy of the mesh configuration goes last, when the run is over already.
        let is_last = !scene.plot.fails || !planes.planes.contains_key(TARGET);
        if is_last || begun.elapsed() > LAST {
            break planes;
        }
        tokio::time::sleep(TICK).await;
    };
    cloud.writes = cloud::writes(azure);
    screen.print(&cloud.after.shown("after the run", azure))?;
    screen.print(&headed("what Azure was asked to write and accepted", &cloud::ledger(&cloud.writes)))
}

/// What a demo has come to.
struct Ended<'a> {
    plot: &'a Plot,
    before: Sight,
    after: Sight,
    status: MeshUpgradeStatus,
    /// Of the add-on of AKS.
    cloud: Option<CloudStory>,
}

fn judge(screen: &mut Screen, apps: &[App], ended: &Ended<'_>) -> Result<()> {
    let revision = ended.plot.revision()?;
    let broken = ended.plot.fails.then_some(town::BROKEN);
    let expected = Expected { phase: ended.plot.phase, revision: &revision, apps, broken };
    let mut faults = check::faults(&expected, &ended.before, &ended.after, &ended.status);
    faults.extend(ended.cloud.iter().flat_map(|cloud| cloud_check::faults(&revision.name, cloud)));
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
    screen.print(&[Line::empty(), Line::of(Style::Good, text)])?;
    let told = |_: &CloudStory| {
        let gone = if revision.name == SOURCE { TARGET } else { SOURCE };
        let text = format!(
            "checked: Azure has {}, by two writes that changed nothing else; istiod, webhook and gateways of {gone} are gone",
            revision.name
        );
        Line::of(Style::Good, text)
    };
    screen.print(&ended.cloud.iter().map(told).collect::<Vec<_>>())
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
    use meshupgrade_arm_simulator::{ClusterConfig, InMemory};

    use super::*;

    #[test]
    fn the_samples_are_valid_and_go_from_one_of_our_revisions_to_the_other() {
        for plot in [&FORWARD, &BACK, &SELF_MANAGED] {
            let upgrade: MeshUpgrade = serde_saphyr::from_str(&plot.yaml().unwrap()).unwrap();
            assert!(upgrade.validate().is_empty(), "{:?}", upgrade.validate());
            assert_eq!(upgrade.spec.target_revision, TARGET);
            assert_eq!(upgrade.spec.waves.map(|waves| waves.len()), Some(3));
            assert!(plot.revision().is_ok());
            let names = upgrade.spec.control_plane.aks.map(|aks| aks.cluster().unwrap().to_string());
            // The cluster that the simulated Azure has.
            let azure = ClusterConfig::new(InMemory::with(&[]), &[]).id();
            assert_eq!(names, (plot.kind == Kind::Aks).then_some(azure), "{}", plot.sample);
        }
    }
}
