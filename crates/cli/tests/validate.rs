//! Runs the program: exit codes, and what it says.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

struct Outcome {
    code: i32,
    out: String,
    err: String,
}

fn run(arguments: &[&str], input: &str) -> Outcome {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kubectl-mesh_upgrade"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that ends over its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn validate(input: &str) -> Outcome {
    run(&["validate", "-f", "-"], input)
}

fn fixtures(kind: &str) -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/tests/fixtures").join(kind);
    let mut paths: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

/// Compares with a file below `tests/golden`; with `UPDATE_GOLDEN=1` in the environment it is written instead.
fn assert_golden(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    for (ours, golden) in text.lines().zip(golden.lines()) {
        assert_eq!(ours, golden, "{file}");
    }
    assert!(text == golden, "{file} has another length: UPDATE_GOLDEN=1 writes it");
}

const MINIMAL: &str = "apiVersion: meshupgrade.io/v1alpha1
kind: MeshUpgrade
metadata:
  name: mesh
spec:
  targetRevision: asm-1-28
  controlPlane:
    external: {}
";

#[test]
fn valid_fixtures_are_valid() {
    for (name, text) in fixtures("valid") {
        let outcome = validate(&text);
        assert_eq!(
            (outcome.code, outcome.out.as_str(), outcome.err.as_str()),
            (0, "stdin: meshupgrade/mesh: valid\n", ""),
            "{name}"
        );
    }
}

/// Every invalid fixture that is wrong by itself ends with 3; the texts are the ones that people read.
#[test]
fn invalid_fixtures_are_explained() {
    let mut texts = String::new();
    for (name, text) in fixtures("invalid") {
        let outcome = validate(&text);
        if text.contains("# update: ") {
            assert_eq!(outcome.code, 0, "{name} is wrong as a change only");
            continue;
        }
        assert_eq!((outcome.code, outcome.err.as_str()), (3, ""), "{name}");
        let field = text.lines().next().unwrap().strip_prefix("# field: ").unwrap();
        assert!(outcome.out.contains(&format!(": {field}: ")), "{name}: {}", outcome.out);
        writeln!(texts, "{name}\n{}", outcome.out.replace("stdin: ", "  ")).unwrap();
    }
    let checks = meshupgrade_api::checks::names().join(", ");
    assert_golden("invalid.txt", &texts.replace(&checks, "<names of checks>"));
}

#[test]
fn several_documents_are_all_looked_at() {
    let second = MINIMAL.replace("name: mesh", "name: other").replace("spec:", "spec:\n  suspended: true");
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
    let outcome = validate(&format!("---\n{namespace}---\n{MINIMAL}---\n---\n{second}"));
    assert_eq!(outcome.code, 3);
    assert_eq!(
        outcome.out,
        "stdin: meshupgrade/mesh: valid\n\
         stdin: meshupgrade/other: spec.suspended: unknown field; did you mean suspend?\n"
    );
}

#[test]
fn all_findings_of_one_manifest_are_reported() {
    let outcome = validate(
        "apiVersion: meshupgrade.io/v1\nkind: MeshUpgrades\nmetadata: {labels: {a: 1}, annotation: {}}\n\
         spec: {targetRevision: x, waves: [{nam: a}]}\n",
    );
    assert_eq!(outcome.code, 3);
    let findings: Vec<_> = outcome
        .out
        .lines()
        .map(|line| line.strip_prefix("stdin: meshupgrade/<no name>: ").unwrap())
        .collect();
    assert_eq!(
        findings,
        [
            "apiVersion: must be meshupgrade.io/v1alpha1",
            "kind: must be MeshUpgrade",
            "metadata.annotation: unknown field; did you mean annotations?",
            "metadata.name: is required",
            "metadata.labels.a: must be a string",
            "spec.waves[0].nam: unknown field; did you mean name?",
            "spec.waves[0].name: is required",
            "spec.controlPlane: is required",
        ]
    );
}

#[test]
fn json_is_yaml_too() {
    let outcome = validate(
        r#"{"apiVersion": "meshupgrade.io/v1alpha1", "kind": "MeshUpgrade", "metadata": {"name": "mesh"},
            "spec": {"targetRevision": "x", "controlPlane": {"external": {}}}}"#,
    );
    assert_eq!((outcome.code, outcome.out.as_str()), (0, "stdin: meshupgrade/mesh: valid\n"));
}

#[test]
fn text_that_is_no_yaml_is_invalid() {
    let outcome = validate("a: [1\n");
    assert_eq!(outcome.code, 3);
    assert_eq!(outcome.out, "stdin: unclosed bracket '[' at line 1, column 4\n");
}

#[test]
fn repeated_keys_are_invalid() {
    let outcome = validate(&format!("{MINIMAL}  suspend: true\n  suspend: false\n"));
    assert_eq!(outcome.code, 3);
    assert!(
        outcome.out.starts_with("stdin: duplicate mapping key `suspend` is not allowed here at line 10"),
        "{}",
        outcome.out
    );
}

#[test]
fn files_without_a_mesh_upgrade_are_invalid() {
    for text in ["", "# nothing\n", "apiVersion: v1\nkind: Namespace\n"] {
        let outcome = validate(text);
        assert_eq!((outcome.code, outcome.out.as_str()), (3, "stdin: has no MeshUpgrade\n"));
    }
    let outcome = validate("- 1\n");
    assert_eq!(
        (outcome.code, outcome.out.as_str()),
        (3, "stdin: meshupgrade/<no name>: manifest: must be an object\n")
    );
}

#[test]
fn files_are_named_and_unreadable_ones_end_with_1() {
    let directory = tempfile::tempdir().unwrap();
    let good = directory.path().join("good.yaml");
    let bad = directory.path().join("bad.yaml");
    let missing = directory.path().join("missing.yaml");
    fs::write(&good, MINIMAL).unwrap();
    fs::write(&bad, MINIMAL.replace("asm-1-28", "ASM")).unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (good, bad, missing) = (path(&good), path(&bad), path(&missing));

    let outcome = run(&["validate", "-f", &good, "--filename", &bad], "");
    assert_eq!(outcome.code, 3);
    assert!(outcome.out.starts_with(&format!(
        "{good}: meshupgrade/mesh: valid\n{bad}: meshupgrade/mesh: spec.targetRevision: "
    )));

    let outcome = run(&["validate", "-f", &missing, "-f", &bad, "-f", &good], "");
    assert_eq!(outcome.code, 1);
    assert!(outcome.err.starts_with(&format!("error: {missing}: ")), "{}", outcome.err);
    assert!(outcome.out.contains("spec.targetRevision") && outcome.out.contains("valid"));
}

#[test]
fn wrong_arguments_end_with_2() {
    for arguments in [&[][..], &["validate"], &["validate", "-f"], &["check"], &["validate", "x.yaml"]] {
        let outcome = run(arguments, "");
        assert_eq!(outcome.code, 2, "{arguments:?}");
        assert_eq!(outcome.out, "");
        assert!(outcome.err.contains("--help"), "{}", outcome.err);
    }
}

#[test]
fn help_and_version_end_with_0() {
    let outcome = run(&["validate", "--help"], "");
    assert_eq!(outcome.code, 0);
    assert!(outcome.out.contains("Usage: kubectl mesh-upgrade validate"), "{}", outcome.out);
    assert_eq!(run(&["--version"], "").code, 0);
}

/// The sample that users begin with.
#[test]
fn the_sample_is_valid() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/samples/meshupgrade.yaml");
    let outcome = validate(&fs::read_to_string(sample).unwrap());
    assert_eq!((outcome.code, outcome.out.as_str()), (0, "stdin: meshupgrade/mesh: valid\n"));
}
