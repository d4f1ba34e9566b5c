//! Where tests and demo keep what they have built or installed once: outside of any build directory, so that all working
//! copies share it.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// The directory of the cache, which need not be there yet. Errors: no variable of the environment says where.
pub fn root() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("MESHUPGRADE_CACHE") {
        return Ok(dir.into());
    }
    if let Some(dir) = env::var_os("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(dir).join("meshupgrade"));
    }
    let home = env::var_os("HOME")
        .context("set HOME or MESHUPGRADE_CACHE: what tests build and install needs a directory")?;
    Ok(PathBuf::from(home).join(".cache/meshupgrade"))
}
