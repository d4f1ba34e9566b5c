//! Builds the programs of the control plane once, into a cache outside the repository.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

/// The directory with the Go modules that have the versions of everything built here.
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../e2e");
/// Inputs of the build that are files of the modules.
const INPUTS: [&str; 10] = [
    "cluster/go.mod",
    "cluster/go.sum",
    "cluster/keeper/main.go",
    "cluster/xds-clients/fleet.go",
    "cluster/xds-clients/main.go",
    "cluster/xds-clients/proxy.go",
    "prometheus/go.mod",
    "prometheus/go.sum",
    "rollouts/go.mod",
    "rollouts/go.sum",
];
/// Version that the Kubernetes programs report; without it kubectl cannot parse its own.
const KUBERNETES: &str = "v1.36.3";
const TAGS: &str = "vtprotobuf,disable_pgv";
const ISTIO_CHARTS: &str = "manifests/charts/istio-control/istio-discovery";
const ISTIO_CRDS: &str = "manifests/charts/base/files/crd-all.gen.yaml";
const KWOK_STAGES: [&str; 2] = [
    "kustomize/stage/node/fast/node-initialize.yaml",
    "kustomize/stage/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
];

/// One program to build.
#[derive(Clone, Copy, Debug)]
struct Component {
    name: &'static str,
    package: &'static str,
    /// Directory of its Go module.
    module: &'static str,
    tags: &'static str,
}

impl Component {
    const fn new(name: &'static str, package: &'static str) -> Self {
        Self { name, package, module: "cluster", tags: TAGS }
    }

    /// In a module of its own: in that of the others it would raise versions that they are built from.
    const fn prometheus() -> Self {
        let package = "github.com/prometheus/prometheus/cmd/prometheus";
        // Discovery in the clouds is most of what it is built from; scenarios name their targets.
        Self { name: "prometheus", package, module: "prometheus", tags: "remove_all_sd" }
    }

    /// In a module of its own, which pins other versions of Kubernetes' libraries.
    const fn rollouts() -> Self {
        let package = "github.com/argoproj/argo-rollouts/cmd/rollouts-controller";
        Self { name: "rollouts-controller", package, module: "rollouts", tags: "" }
    }
}

/// In build order: the largest first warms the build cache for the others.
const COMPONENTS: [Component; 12] = [
    Component::new("keeper", "./keeper"),
    Component::new("etcd", "go.etcd.io/etcd/server/v3"),
    Component::new("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    Component::new("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    Component::new("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    Component::new("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    Component::new("kwok", "sigs.k8s.io/kwok/cmd/kwok"),
    Component::new("pilot-discovery", "istio.io/istio/pilot/cmd/pilot-discovery"),
    Component::new("helm", "helm.sh/helm/v3/cmd/helm"),
    Component::new("xds-clients", "./xds-clients"),
    Component::prometheus(),
    Component::rollouts(),
];
/// The CRDs that the controller of Argo Rollouts watches, in its module.
const ROLLOUTS_CRDS: [&str; 5] = [
    "manifests/crds/rollout-crd.yaml",
    "manifests/crds/analysis-run-crd.yaml",
    "manifests/crds/analysis-template-crd.yaml",
    "manifests/crds/cluster-analysis-template-crd.yaml",
    "manifests/crds/experiment-crd.yaml",
];

const GATEWAY_API: &str = "sigs.k8s.io/gateway-api";
/// The CRDs of the Gateway API that a Gateway needs.
const GATEWAY_API_CRDS: [&str; 2] = [
    "config/crd/standard/gateway.networking.k8s.io_gatewayclasses.yaml",
    "config/crd/standard/gateway.networking.k8s.io_gateways.yaml",
];

/// The built programs and the files that come with their modules.
#[derive(Debug, Clone)]
pub struct Binaries {
    root: PathBuf,
}

impl Binaries {
    /// Builds what the cache does not have yet, one line on stderr per program; a second caller waits for the first.
    pub async fn ensure() -> Result<Self> {
        tokio::task::spawn_blocking(Self::ensure_blocking).await?
    }

    /// [`Binaries::ensure`] for callers without a runtime.
    pub fn ensure_blocking() -> Result<Self> {
        let binaries = Self::find()?;
        if binaries.complete() {
            return Ok(binaries);
        }
        let _lock = binaries.lock()?;
        binaries.build(&COMPONENTS)?;
        binaries.copy_assets()?;
        Ok(binaries)
    }

    /// Builds only these programs, for callers that bring a cluster of their own.
    pub fn ensure_only_blocking(programs: &[&str]) -> Result<Self> {
        let binaries = Self::find()?;
        if programs.iter().all(|name| binaries.path(name).exists()) {
            return Ok(binaries);
        }
        let wanted: Vec<_> =
            COMPONENTS.into_iter().filter(|component| programs.contains(&component.name)).collect();
        let _lock = binaries.lock()?;
        binaries.build(&wanted)?;
        Ok(binaries)
    }

    fn find() -> Result<Self> {
        Ok(Self { root: meshupgrade_cache::root()?.join("testbed").join(build_hash()?) })
    }

    /// Until it is dropped, nobody else builds.
    fn lock(&self) -> Result<fs::File> {
        fs::create_dir_all(self.root.join("bin"))
            .with_context(|| format!("cannot create the cache directory {}", self.root.display()))?;
        let lock = fs::File::create(self.root.join("lock"))?;
        lock.lock().context("cannot lock the build cache")?;
        Ok(lock)
    }

    /// The path of one program, such as `kubectl`.
    pub fn path(&self, program: &str) -> PathBuf {
        self.root.join("bin").join(program)
    }

    pub(crate) fn chart(&self) -> PathBuf {
        self.root.join("assets/istio-discovery")
    }

    pub(crate) fn crds(&self) -> PathBuf {
        self.root.join("assets/crds.yaml")
    }

    /// The CRDs of Argo Rollouts, for tests that run its controller.
    pub fn rollouts_crds(&self) -> PathBuf {
        self.root.join("assets/rollouts-crds.yaml")
    }

    /// The CRDs of the Gateway API that Istio is built with, as YAML.
    pub fn gateway_api_crds(&self) -> Result<String> {
        // It is a dependency of istiod, so that a build has downloaded it; programs that were built elsewhere come without.
        go_output("cluster", &["mod", "download", GATEWAY_API])?;
        joined(&module_dir("cluster", GATEWAY_API)?, &GATEWAY_API_CRDS)
    }

    pub(crate) fn node_stages(&self) -> PathBuf {
        self.root.join("assets/node-stages.yaml")
    }

    fn complete(&self) -> bool {
        COMPONENTS.iter().all(|component| self.path(component.name).exists())
            && self.root.join("assets").exists()
    }

    fn build(&self, wanted: &[Component]) -> Result<()> {
        for (index, component) in wanted.iter().enumerate() {
            if self.path(component.name).exists() {
                continue;
            }
            eprint!("building {} ({}/{}) … ", component.name, index + 1, wanted.len());
            std::io::stderr().flush()?;
            let started = Instant::now();
            self.build_one(component)?;
            eprintln!("{} s", started.elapsed().as_secs());
        }
        Ok(())
    }

    fn build_one(&self, component: &Component) -> Result<()> {
        let Component { name, package, module, tags } = component;
        // Under another name until it is whole: an interrupted build leaves nothing that looks finished.
        let unfinished = self.root.join("bin").join(format!(".{name}.unfinished"));
        let output = go(module)
            .args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly"])
            .args(["-tags", tags, "-ldflags", &link_flags()])
            .arg("-o")
            .arg(&unfinished)
            .arg(package)
            .env("CGO_ENABLED", "0")
            .output()
            .context("cannot run go")?;
        if !output.status.success() {
            bail!("go build {package} failed:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        fs::rename(&unfinished, self.path(name))?;
        Ok(())
    }

    /// Charts, CRDs and stages are files of the modules, at the same versions as the programs.
    fn copy_assets(&self) -> Result<()> {
        let target = self.root.join("assets");
        if target.exists() {
            return Ok(());
        }
        let unfinished = tempfile::Builder::new().prefix(".assets").tempdir_in(&self.root)?;
        let istio = module_dir("cluster", "istio.io/istio")?;
        let kwok = module_dir("cluster", "sigs.k8s.io/kwok")?;
        let rollouts = module_dir("rollouts", "github.com/argoproj/argo-rollouts")?;
        copy_tree(&istio.join(ISTIO_CHARTS), &unfinished.path().join("istio-discovery"))?;
        fs::write(unfinished.path().join("crds.yaml"), fs::read(istio.join(ISTIO_CRDS))?)?;
        fs::write(unfinished.path().join("node-stages.yaml"), joined(&kwok, &KWOK_STAGES)?)?;
        fs::write(unfinished.path().join("rollouts-crds.yaml"), joined(&rollouts, &ROLLOUTS_CRDS)?)?;
        fs::rename(unfinished.keep(), target)?;
        Ok(())
    }
}

/// The directory of the cache that holds the locks of port blocks.
pub(crate) fn ports_dir() -> Result<PathBuf> {
    let dir = meshupgrade_cache::root()?.join("ports");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn go(module: &str) -> Command {
    let mut command = Command::new("go");
    command.current_dir(Path::new(MODULES).join(module));
    command
}

fn link_flags() -> String {
    format!(
        "-s -w -X k8s.io/component-base/version.gitVersion={KUBERNETES} \
         -X k8s.io/client-go/pkg/version.gitVersion={KUBERNETES}"
    )
}

fn go_output(module: &str, args: &[&str]) -> Result<String> {
    let output = match go(module).args(args).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "`go` was not found: install Go 1.26 or newer (https://go.dev/dl) and put it on PATH; \
             it builds the test control plane, no containers are needed"
        ),
        Err(error) => return Err(error).context("cannot run go"),
    };
    if !output.status.success() {
        bail!("go {} failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Where one module that another one is built from is kept.
fn module_dir(of: &str, module: &str) -> Result<PathBuf> {
    Ok(go_output(of, &["list", "-m", "-f", "{{.Dir}}", module])?.into())
}

fn build_hash() -> Result<String> {
    let mut hash = Sha256::new();
    for input in INPUTS {
        let path = Path::new(MODULES).join(input);
        hash.update(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        hash.update([0]);
    }
    hash.update(format!("{} {COMPONENTS:?} {KWOK_STAGES:?} {ROLLOUTS_CRDS:?}", link_flags()));
    hash.update(go_output("cluster", &["env", "GOVERSION", "GOOS", "GOARCH"])?);
    Ok(format!("{:x}", hash.finalize()).chars().take(16).collect())
}

/// Several files as one stream of YAML documents.
fn joined(dir: &Path, files: &[&str]) -> Result<String> {
    let mut text = String::new();
    for file in files {
        text.push_str("---\n");
        text.push_str(&fs::read_to_string(dir.join(file))?);
    }
    Ok(text)
}

/// Contents only: files of the module cache are read-only, and copies with that mode could not be removed.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::write(target, fs::read(entry.path())?)?;
        }
    }
    Ok(())
}
