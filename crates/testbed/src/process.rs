//! Child processes that end when this process ends, however it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

/// What to start.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub dir: PathBuf,
}

/// A running program under its keeper: closing the keeper's stdin ends the program, and the kernel closes it for us
/// when this process dies.
#[derive(Debug)]
pub(crate) struct Kept {
    name: String,
    keeper: Child,
    stdin: Option<ChildStdin>,
    log: PathBuf,
}

impl Kept {
    /// Starts the program; its output is appended to `<name>.log` in its directory.
    pub fn spawn(keeper: &Path, spec: &Spec) -> Result<Self> {
        fs::create_dir_all(&spec.dir)?;
        let log = spec.dir.join(format!("{}.log", spec.name));
        let output = fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let mut child = Command::new(keeper)
            .args(["--term-grace", "2s", "--"])
            .arg(&spec.program)
            .args(&spec.args)
            .envs(spec.env.iter().map(|(key, value)| (key, value)))
            // Nobody's own configuration may leak into what is tested.
            .env("HOME", &spec.dir)
            .env_remove("KUBECONFIG")
            .current_dir(&spec.dir)
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}", spec.name))?;
        let stdin = child.stdin.take();
        Ok(Self { name: spec.name.clone(), keeper: child, stdin, log })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.keeper.try_wait(), Ok(None))
    }

    /// The pids of the keeper and of the program under it.
    pub fn pids(&self) -> Vec<u32> {
        let keeper = self.keeper.id();
        let mut pids = vec![keeper];
        pids.extend(children(keeper));
        pids
    }

    /// The end of the log, for error messages.
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Asks the program to end; the keeper kills it after its grace.
    pub fn terminate(&mut self) {
        self.stdin = None;
    }

    /// SIGKILL for the program itself: no cleanup, as in a crash.
    pub fn kill(&mut self) {
        let program = children(self.keeper.id());
        if program.is_empty() {
            // Too early to have one; the kernel takes the program along with its keeper.
            let _ = self.keeper.kill();
        }
        for pid in program {
            signal(pid, Signal::KILL);
        }
    }

    /// Waits for the end; kills the keeper (and with it the program) at the deadline.
    pub fn wait_gone(&mut self, within: Duration) {
        let deadline = Instant::now() + within;
        while self.is_running() {
            if Instant::now() > deadline {
                let _ = self.keeper.kill();
                let _ = self.keeper.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Ends all of them, the last first, and waits until they are gone.
pub(crate) fn end_all(processes: &mut [Kept]) {
    for process in processes.iter_mut().rev() {
        process.terminate();
    }
    for process in processes.iter_mut() {
        process.wait_gone(Duration::from_secs(4));
    }
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // Gone already is as good as killed.
        let _ = kill_process(pid, signal);
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
