//! The objects that the tests of the Argo CD scripts use too: statuses that the operator wrote.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use meshupgrade_api::MeshUpgrade;
use serde_json::Value;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/argo-cd")
}

/// What `cases.yaml` says of each object.
pub(crate) fn cases() -> BTreeMap<String, Value> {
    let cases: BTreeMap<String, Value> =
        serde_saphyr::from_str(&fs::read_to_string(directory().join("cases.yaml")).unwrap()).unwrap();
    assert!(!cases.is_empty());
    cases
}

/// An object by its name in `cases.yaml`.
pub(crate) fn object(name: &str) -> MeshUpgrade {
    let file = directory().join("testdata").join(format!("{name}.yaml"));
    serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

/// Compares with a file below `tests/golden`; with `UPDATE_GOLDEN=1` in the environment it is written instead.
pub(crate) fn assert_golden(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    for (ours, golden) in text.lines().zip(golden.lines()) {
        assert_eq!(ours, golden, "{file}");
    }
    assert!(text == golden, "{file} has another length: UPDATE_GOLDEN=1 writes it");
}
