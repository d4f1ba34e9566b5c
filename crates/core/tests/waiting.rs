//! The guide to waiting has every reason, under the heading that fits it.

use std::path::Path;

use meshupgrade_core::wait::WaitReason;

const BY_ITSELF: &str = "## It goes on by itself";
const ASKED_FOR: &str = "## It waits for you, because you asked for it";
const NEEDS_YOU: &str = "## It needs you";

#[test]
fn the_guide_has_every_reason() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/waiting.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (rest, needs_you) = text.split_once(NEEDS_YOU).unwrap();
    let (rest, asked_for) = rest.split_once(ASKED_FOR).unwrap();
    let (_, by_itself) = rest.split_once(BY_ITSELF).unwrap();
    for reason in WaitReason::ALL {
        let row = format!("\n| `{reason}` |");
        let found = [by_itself, asked_for, needs_you].map(|part| part.matches(&row).count());
        let expected = if reason.needs_human() { vec![[0, 0, 1]] } else { vec![[1, 0, 0], [0, 1, 0]] };
        assert!(
            expected.contains(&found),
            "{reason} is {found:?} times in the three parts of docs/waiting.md"
        );
    }
}
