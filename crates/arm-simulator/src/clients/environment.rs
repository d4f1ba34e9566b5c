//! A Python environment with the real clients, made once and kept in the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/requirements.txt");
const CONSTRAINTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/constraints.txt");
/// The oldest version for which azure-cli 2.91 is made.
const OLDEST: (u32, u32) = (3, 10);

/// The interpreter of an environment with the real clients; installs it into the cache if it is not there yet, which needs the
/// package index and takes minutes. A second caller waits for the first. Errors say what to install where Python is missing.
pub fn install() -> Result<PathBuf> {
    let version = version()?;
    let mut hash = Sha256::new();
    for file in [REQUIREMENTS, CONSTRAINTS] {
        hash.update(fs::read(file).context(file)?);
    }
    hash.update(&version);
    let hash = format!("{:x}", hash.finalize());
    let root = meshupgrade_cache::root()?.join("python");
    let environment = root.join(&hash[..16]);
    fs::create_dir_all(&root)?;
    let lock = fs::File::create(root.join("lock"))?;
    lock.lock().context("cannot lock the cache")?;
    if !environment.exists() {
        build(&root, &environment)?;
    }
    Ok(environment.join("bin/python"))
}

fn version() -> Result<String> {
    let code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])";
    let wanted = format!("install Python {}.{} or newer with its venv module", OLDEST.0, OLDEST.1);
    let output = match Command::new("python3").args(["-c", code]).output() {
        Ok(output) if output.status.success() => output,
        Ok(output) => bail!(
            "python3 lacks what tests with the real clients need: {wanted} (Debian: apt-get install python3-venv)\n{}",
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => {
            bail!("python3, with which tests run the real clients, does not start ({error}): {wanted}")
        }
    };
    let version = String::from_utf8(output.stdout)?.trim().to_owned();
    let number = version.split_once('.').context("version of python3")?;
    if (number.0.parse::<u32>()?, number.1.parse::<u32>()?) < OLDEST {
        bail!("python3 is {version}: {wanted}");
    }
    Ok(version)
}

/// Makes the environment elsewhere and moves it when it is whole. Its scripts then point to nowhere, so that clients are
/// started as modules of its interpreter.
fn build(root: &Path, environment: &Path) -> Result<()> {
    const UNFINISHED: &str = ".unfinished";
    for left in fs::read_dir(root)?.flatten() {
        // Of an installation that was interrupted. Its pip may still run and write; what it keeps goes the next time.
        if left.file_name().to_string_lossy().starts_with(UNFINISHED) {
            let _ = fs::remove_dir_all(left.path());
        }
    }
    let begun = Instant::now();
    eprintln!("installing the real clients from the package index (some minutes, once) …");
    let unfinished = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(root)?;
    run(Command::new("python3").args(["-m", "venv"]).arg(unfinished.path()))?;
    run(Command::new(unfinished.path().join("bin/python"))
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(["--requirement", REQUIREMENTS, "--constraint", CONSTRAINTS]))?;
    fs::rename(unfinished.keep(), environment)?;
    eprintln!("installed in {} s", begun.elapsed().as_secs());
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
