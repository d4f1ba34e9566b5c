//! A Python environment with the real clients, made once and kept in the cache.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/requirements.txt");
/// The oldest version for which azure-cli 2.91 is made.
const OLDEST: (u32, u32) = (3, 10);

/// The interpreter of the environment; builds it if it is not there yet, which needs the package index. A second caller
/// waits for the first.
pub fn ensure() -> Result<PathBuf> {
    let version = version()?;
    let mut hash = Sha256::new();
    hash.update(fs::read(REQUIREMENTS).context(REQUIREMENTS)?);
    hash.update(&version);
    let hash = format!("{:x}", hash.finalize());
    let root = cache_root()?.join("python");
    let (environment, python) = (root.join(&hash[..16]), root.join(&hash[..16]).join("bin/python"));
    fs::create_dir_all(&root)?;
    let lock = fs::File::create(root.join("lock"))?;
    lock.lock().context("cannot lock the cache")?;
    // Written last: an environment without it was interrupted. It cannot be made elsewhere and moved, because its scripts
    // know where they are.
    let whole = environment.join("whole");
    if !whole.exists() {
        build(&environment, &python)?;
        fs::write(&whole, &version)?;
    }
    Ok(python)
}

/// The same place as for the programs of the test control plane, whose crate is not worth building for this.
fn cache_root() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("MESHUPGRADE_CACHE") {
        return Ok(dir.into());
    }
    if let Some(dir) = env::var_os("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(dir).join("meshupgrade"));
    }
    let home = env::var_os("HOME").context("set HOME or MESHUPGRADE_CACHE: the clients need a directory")?;
    Ok(PathBuf::from(home).join(".cache/meshupgrade"))
}

fn version() -> Result<String> {
    let code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])";
    let wanted = format!("install Python {}.{} or newer with its venv module", OLDEST.0, OLDEST.1);
    let output = match Command::new("python3").args(["-c", code]).output() {
        Ok(output) if output.status.success() => output,
        Ok(output) => bail!(
            "python3 lacks what the client tests need: {wanted} (Debian: apt-get install python3-venv)\n{}",
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => bail!("python3 does not start ({error}): {wanted}"),
    };
    let version = String::from_utf8(output.stdout)?.trim().to_owned();
    let number = version.split_once('.').context("version of python3")?;
    if (number.0.parse::<u32>()?, number.1.parse::<u32>()?) < OLDEST {
        bail!("python3 is {version}: {wanted}");
    }
    Ok(version)
}

fn build(environment: &Path, python: &Path) -> Result<()> {
    let begun = Instant::now();
    eprintln!("installing the real clients from the package index (some minutes, once) …");
    if environment.exists() {
        fs::remove_dir_all(environment)?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(environment))?;
    run(Command::new(python).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
        REQUIREMENTS,
    ]))?;
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
