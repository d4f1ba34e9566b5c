//! What is not run on a real cluster, by name and with the reason. The names are read from the scenarios themselves.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::scenarios::NAMES;

const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
/// Why the scenarios of a file are left out.
const REASONS: [(&str, &str); 10] = [
    ("upgrade", "judged by the audit log"),
    ("rollback", "need faults of the simulated nodes, or are judged by the audit log"),
    ("defaults", "removes a control plane, and is judged by the audit log"),
    ("admission", "store a status, or write in the operator's name what it must not"),
    ("churn", "need the simulated nodes' slow pods, and are judged by the audit log"),
    ("completion", "remove a control plane, or write labels in the name of GitOps tools"),
    ("control_plane", "end istiods, or take webhooks away"),
    ("crash", "kill the operator at writes that are counted in the audit log"),
    ("holds", "judged by the audit log"),
    ("labels", "need the simulated nodes' slow pods, and are judged by the audit log"),
];
/// Files without a reason of their own.
const FAULTS: &str = "need faults of the test control plane, or are judged by its audit log";

/// Prints it.
pub fn tell() -> Result<()> {
    println!("left out, as a real cluster shows no audit log and has no faults to order:");
    for (file, names) in names(Path::new(TESTS))? {
        let reason = REASONS.iter().find(|(name, _)| *name == file).map_or(FAULTS, |(_, reason)| reason);
        println!("  {}\n      {reason}", names.join(", "));
    }
    Ok(())
}

/// Names of the scenarios in a directory and below, by file, without those that run here.
fn names(dir: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(names(&path)?);
            continue;
        }
        let names = names_in(&fs::read_to_string(&path)?);
        let file = path.file_stem().unwrap_or_default().display().to_string();
        if !names.is_empty() {
            found.insert(file, names);
        }
    }
    Ok(found)
}

fn names_in(text: &str) -> Vec<String> {
    let calls = text.split("scenario(\"").skip(1).filter_map(|rest| rest.split('"').next());
    calls.filter(|name| !NAMES.contains(name)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_either_run_or_told() {
        let told = names(Path::new(TESTS)).unwrap();
        assert!(told.values().map(Vec::len).sum::<usize>() > 25, "{told:?}");
        for (file, _) in REASONS {
            assert!(told.contains_key(file), "{file} has no scenarios: {told:?}");
        }
        let text = r#"scenario("a", x); scenario("plan_only", y);"#;
        assert_eq!(names_in(text), ["a"]);
    }
}
