//! The operator as a process: started, killed, ended, with its output in a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How an operator is started.
#[derive(Clone, Debug)]
pub struct OperatorSpec {
    /// Its name in the Lease. A process of the same name takes the Lease over at once.
    pub identity: String,
    /// Short times, or the defaults of the product.
    pub flags: Vec<String>,
    /// Further variables of its environment.
    pub env: Vec<(String, String)>,
}

impl Default for OperatorSpec {
    fn default() -> Self {
        let flags = [
            // A busy machine may leave an operator, or the API server, without time for some seconds.
            "--lease-duration-seconds=15",
            "--lease-renew-deadline-seconds=10",
            "--lease-retry-seconds=1",
            "--call-timeout-seconds=5",
            "--census-interval-seconds=1",
            "--status-interval-seconds=1",
        ];
        Self { identity: "operator-0".into(), flags: flags.map(str::to_owned).to_vec(), env: Vec::new() }
    }
}

impl OperatorSpec {
    /// With every default of the product.
    pub fn with_defaults() -> Self {
        Self { flags: Vec::new(), ..Self::default() }
    }

    /// Under another name.
    pub fn named(identity: &str) -> Self {
        Self { identity: identity.into(), ..Self::default() }
    }

    /// With another flag; of two the last one counts.
    #[must_use]
    pub fn flag(mut self, flag: &str) -> Self {
        let name = flag.split('=').next().unwrap_or_default();
        self.flags.retain(|other| other.split('=').next() != Some(name));
        self.flags.push(flag.to_owned());
        self
    }

    /// With a variable of its environment, also instead of one that every operator gets.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running operator under the testbed's keeper: it ends when this process ends, however that happens.
#[derive(Debug)]
pub struct Operator {
    keeper: Child,
    stdin: Option<ChildStdin>,
    log: PathBuf,
}

impl Operator {
    /// Starts the operator.
    pub fn start(spec: &OperatorSpec, keeper: &Path, kubeconfig: &Path, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let log = dir.join(format!("{}.log", spec.identity));
        let output = fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let mut keeper = Command::new(keeper)
            .args(["--term-grace", "30s", "--"])
            .arg(binary()?)
            .args(&spec.flags)
            .env("KUBECONFIG", kubeconfig)
            .env("HOME", dir)
            .env("POD_NAME", &spec.identity)
            .env("POD_NAMESPACE", crate::install::NAMESPACE)
            .env("ADMIN_ADDRESS", "127.0.0.1:0")
            .env("RUST_LOG", "info,meshupgrade_controller=debug")
            .envs(spec.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("cannot start the operator")?;
        let stdin = keeper.stdin.take();
        Ok(Self { keeper, stdin, log })
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.keeper.try_wait(), Ok(None))
    }

    /// SIGKILL, as in a crash; returns when it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL);
        self.wait_end(Duration::from_secs(5)).map(drop)
    }

    /// SIGTERM, as Kubernetes ends a pod; returns its exit code.
    pub fn terminate(&mut self) -> Result<i32> {
        self.stdin = None;
        self.wait_end(Duration::from_secs(30))
    }

    /// Stops it in the middle of whatever it does, without ending it.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// The last lines of its output.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn signal(&self, signal: Signal) {
        for pid in children(self.keeper.id()) {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // Gone already is what we want.
                let _ = kill_process(pid, signal);
            }
        }
    }

    fn wait_end(&mut self, within: Duration) -> Result<i32> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.keeper.try_wait()? {
                return Ok(status.code().unwrap_or(-1));
            }
            if Instant::now() > deadline {
                self.keeper.kill()?;
                self.keeper.wait()?;
                bail!("the operator did not end within {} s", within.as_secs());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.thaw();
        // Best effort: without it the keeper ends the process when this one ends.
        let _ = self.kill();
    }
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

/// `target/debug` of the build that this program belongs to: tests are in its `deps`, the demo is in itself.
fn build_dir() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let mut dirs = program.ancestors().skip(1);
    let dir = dirs.find(|dir| !dir.ends_with("deps"));
    Ok(dir.context("the program has no build directory")?.to_owned())
}

fn binary() -> Result<PathBuf> {
    Ok(build_dir()?.join("meshupgrade-operator"))
}

/// The kubectl plugin.
pub fn plugin() -> Result<PathBuf> {
    Ok(build_dir()?.join("kubectl-mesh_upgrade"))
}

/// Builds the operator and the kubectl plugin, in the debug profile that has the release's assertions and more.
pub fn build() -> Result<()> {
    let target = build_dir()?.parent().context("the build directory has no parent")?.to_owned();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Command::new(cargo);
    cargo
        .args([
            "build",
            "--quiet",
            "--locked",
            "--package",
            "meshupgrade-operator",
            "--package",
            "meshupgrade-cli",
        ])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    // What cargo tells the program that it runs is a change to build scripts that look at it: half of the dependencies
    // would be built again, and once more by the next cargo.
    let ours = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in ours.filter(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
        cargo.env_remove(name);
    }
    let output = cargo.output().context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "the operator or the plugin does not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
