//! What the caller says: make variables, which arrive as environment variables.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

/// How it is called.
pub const USAGE: &str = "make e2e KUBECONFIG=/path/to/kubeconfig SOURCE=asm-1-27 TARGET=asm-1-28";
/// Any image whose shell has `sleep`; nothing else is run in it.
const IMAGE: &str = "busybox:stable";

/// What the caller says.
#[derive(Clone, Debug)]
pub struct Given {
    /// Kubeconfig of an administrator.
    pub kubeconfig: PathBuf,
    /// The revision to leave.
    pub source: Option<String>,
    /// The revision to go to.
    pub target: Option<String>,
    /// Image of the workloads.
    pub image: String,
}

impl Given {
    /// From the environment of this process.
    pub fn from_environment() -> Result<Self> {
        Self::from(|name| std::env::var(name).ok())
    }

    fn from(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let kubeconfig: PathBuf =
            variable("KUBECONFIG").with_context(|| format!("which cluster? {USAGE}"))?.into();
        ensure!(
            kubeconfig.is_file(),
            "there is no file {}: give the path of one kubeconfig, as in {USAGE}",
            kubeconfig.display()
        );
        let (source, target) = (variable("SOURCE"), variable("TARGET"));
        ensure!(
            source.is_none() || source != target,
            "SOURCE and TARGET are the same revision: name two, as in {USAGE}"
        );
        let image = variable("IMAGE").unwrap_or_else(|| IMAGE.into());
        Ok(Self { kubeconfig, source, target, image })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a file that is there.
    fn given(pairs: &[(&str, &str)]) -> Result<Given> {
        Given::from(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn what_is_missing_is_named_with_the_remedy() {
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let nothing = given(&[]).unwrap_err().to_string();
        assert!(nothing.contains(USAGE), "{nothing}");
        let nowhere = given(&[("KUBECONFIG", "/nowhere")]).unwrap_err().to_string();
        assert!(nowhere.contains("no file /nowhere") && nowhere.contains(USAGE), "{nowhere}");
        let same = [("KUBECONFIG", here), ("SOURCE", "a"), ("TARGET", "a")];
        assert!(given(&same).unwrap_err().to_string().contains("same revision"));
        let good = given(&[("KUBECONFIG", here), ("SOURCE", "a"), ("TARGET", "b"), ("IMAGE", "")]).unwrap();
        assert_eq!((good.source.as_deref(), good.image.as_str()), (Some("a"), IMAGE));
    }
}
