//! The mesh configuration that users of the AKS add-on put beside the add-on's own: one ConfigMap for each revision, in the namespace
//! of the add-on. Source: `istio-meshconfig.md` of Azure's documentation, which asks for a copy before an upgrade is started.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::{ConfigMapRef, NamespaceName, Revision, Uid};

/// What the names of these ConfigMaps begin with; the revision follows after a `-`.
pub const NAME: &str = "istio-shared-configmap";
/// The key that has the configuration.
pub const KEY: &str = "mesh";

/// How many lines of a difference are shown.
const LINES_SHOWN: usize = 10;
/// How much of a line is shown, in characters.
const LINE_SHOWN: usize = 100;

/// The shared mesh configuration of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedMesh {
    /// The revision that its name ends in.
    pub revision: Revision,
    /// Its uid.
    pub uid: Uid,
    /// Its resource version.
    pub resource_version: String,
    /// The configuration as it is written; `None` without the key [`KEY`].
    pub text: Option<String>,
    /// Annotation [`crate::labels::MESH_CONFIG_COPY`]: it was copied by MeshUpgrade.
    pub mark: Option<CopyMark>,
}

/// What is noted on a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyMark {
    /// Revision whose configuration was copied.
    pub from: Revision,
    /// Revision that it was copied for.
    pub to: Revision,
    /// Digest of what was copied.
    pub digest: String,
}

impl CopyMark {
    /// The mark of a copy of this text.
    pub fn new(from: Revision, to: Revision, text: &str) -> Self {
        Self { from, to, digest: digest(text) }
    }
}

impl SharedMesh {
    /// Whether it is what MeshUpgrade once wrote here. A copy that somebody made of our copy has our mark, and another revision in it.
    pub fn is_unchanged_copy(&self) -> bool {
        let (Some(mark), Some(text)) = (&self.mark, &self.text) else { return false };
        mark.to == self.revision && mark.digest == digest(text)
    }
}

/// The ConfigMap of a revision.
pub fn map_of(namespace: &NamespaceName, revision: &Revision) -> ConfigMapRef {
    ConfigMapRef { namespace: namespace.clone(), name: format!("{NAME}-{revision}") }
}

fn digest(text: &str) -> String {
    format!("sha256:{:x}", Sha256::digest(text))
}

/// The lines that only one of two texts has: `-` those of the first, `+` those of the second. `None` when they say the same.
pub fn difference(first: &str, second: &str) -> Option<String> {
    if first.trim() == second.trim() {
        return None;
    }
    let only_first = only_in(first, second).into_iter().map(|line| ('-', line));
    let only_second = only_in(second, first).into_iter().map(|line| ('+', line));
    let lines: Vec<(char, &str)> = only_first.chain(only_second).collect();
    if lines.is_empty() {
        return Some("the same lines in another order".to_owned());
    }
    let mut shown = String::new();
    for (sign, line) in lines.iter().take(LINES_SHOWN) {
        let start: String = line.chars().take(LINE_SHOWN).collect();
        // Writing to a string does not fail.
        let _ = writeln!(shown, "{sign} {start}");
    }
    let more = lines.len().saturating_sub(LINES_SHOWN);
    if more > 0 {
        let _ = writeln!(shown, "and {more} more lines");
    }
    Some(shown.trim_end().to_owned())
}

/// The lines of a text that another one lacks, as often as it lacks them.
fn only_in<'a>(text: &'a str, other: &str) -> Vec<&'a str> {
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    for line in meaningful(other) {
        *left.entry(line).or_default() += 1;
    }
    let is_missing = |line: &&str| match left.get_mut(*line) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    };
    meaningful(text).filter(is_missing).collect()
}

fn meaningful(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim_end).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(text: &str) -> SharedMesh {
        SharedMesh {
            revision: "asm-1-28".into(),
            text: Some(text.to_owned()),
            mark: Some(CopyMark::new("asm-1-27".into(), "asm-1-28".into(), "a: 1\n")),
            ..SharedMesh::default()
        }
    }

    #[test]
    fn only_what_we_wrote_and_nobody_changed_is_our_copy() {
        assert!(copy("a: 1\n").is_unchanged_copy());
        assert!(!copy("a: 2\n").is_unchanged_copy());
        assert!(!SharedMesh { mark: None, ..copy("a: 1\n") }.is_unchanged_copy());
        assert!(!SharedMesh { revision: "asm-1-29".into(), ..copy("a: 1\n") }.is_unchanged_copy());
        assert!(!SharedMesh { text: None, ..copy("a: 1\n") }.is_unchanged_copy());
    }

    #[test]
    fn a_difference_is_the_lines_that_one_of_them_has() {
        assert_eq!(difference("a: 1\nb: 2\n", "a: 1\nb: 2"), None);
        let found = difference("a: 1\nb: 2\nb: 2\n", "a: 1\nb: 2\nc: 3\n");
        assert_eq!(found.as_deref(), Some("- b: 2\n+ c: 3"));
        let order = difference("a: 1\nb: 2\n", "b: 2\na: 1\n");
        assert_eq!(order.as_deref(), Some("the same lines in another order"));
    }

    #[test]
    fn a_long_difference_is_cut() {
        let long: Vec<String> = (0..30).map(|line| format!("{line}: {}", "x".repeat(500))).collect();
        let found = difference(&long.join("\n"), "").unwrap();
        assert_eq!(found.lines().count(), 11);
        assert!(
            found.lines().all(|line| line.len() <= LINE_SHOWN + 2) && found.ends_with("and 20 more lines")
        );
    }
}
