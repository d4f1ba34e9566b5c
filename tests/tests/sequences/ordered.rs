//! The default order: golden logs.

use std::path::PathBuf;

use meshupgrade_sequences::cases;
use meshupgrade_sequences::runner::run_ordered;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.log"))
}

/// Every case ends as it says, and its log is the golden one. `UPDATE_GOLDEN=1` rewrites the logs: read the difference.
#[test]
fn golden_logs() {
    let mut wrong = Vec::new();
    for case in cases::all() {
        let log = match run_ordered(&case, &[]) {
            Ok(run) => run.referee.log.text(),
            Err(failure) => {
                wrong.push(failure);
                continue;
            }
        };
        let text = format!("{}: {}\n\n{log}", case.name, case.about);
        let path = golden(case.name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &text).unwrap();
        } else if std::fs::read_to_string(&path).unwrap_or_default() != text {
            wrong.push(format!(
                "case {}: the log is not the golden one any more (UPDATE_GOLDEN=1)\n{text}",
                case.name
            ));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}
