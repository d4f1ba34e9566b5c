//! The names of the add-on's revisions: `asm-X-Y` is Istio X.Y.

use std::cmp::Ordering;

use crate::ids::Revision;

const PREFIX: &str = "asm-";

/// Istio's minor version that a revision of the add-on stands for. Ordered as versions, not as text: 1.9 is before 1.29.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minor {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

/// The version behind a revision, if its name has the add-on's form.
pub fn minor(revision: &Revision) -> Option<Minor> {
    let (major, minor) = revision.as_str().strip_prefix(PREFIX)?.split_once('-')?;
    Some(Minor { major: number(major)?, minor: number(minor)? })
}

/// Compares two revisions by their versions; `None` if one of them has no version in its name.
pub fn compare(one: &Revision, other: &Revision) -> Option<Ordering> {
    Some(minor(one)?.cmp(&minor(other)?))
}

/// A revision as the cluster names it. The examples of ARM's specification leave the prefix away (`1-18`).
pub fn normalised(text: &str) -> Revision {
    let text = text.trim();
    let with_prefix = Revision(format!("{PREFIX}{text}"));
    if minor(&with_prefix).is_some() { with_prefix } else { Revision(text.to_owned()) }
}

/// A number without sign, space or leading zero.
fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(one: &str, other: &str) -> Option<Ordering> {
        compare(&Revision::from(one), &Revision::from(other))
    }

    #[test]
    fn revisions_are_ordered_as_versions() {
        assert_eq!(order("asm-1-9", "asm-1-29"), Some(Ordering::Less));
        assert_eq!(order("asm-2-0", "asm-1-99"), Some(Ordering::Greater));
        assert_eq!(order("asm-1-28", "asm-1-28"), Some(Ordering::Equal));
    }

    #[test]
    fn a_name_of_another_form_has_no_place_in_the_order() {
        for name in
            ["", "default", "asm", "asm-1", "asm-1-", "asm-1-2-3", "asm-1-x", "asm-+1-2", "asm-01-2", "1-2"]
        {
            assert_eq!(minor(&Revision::from(name)), None, "{name}");
            assert_eq!(order(name, "asm-1-28"), None, "{name}");
        }
    }

    #[test]
    fn a_name_without_the_prefix_gets_it_and_others_stay() {
        for (text, name) in [
            ("1-18", "asm-1-18"),
            ("asm-1-18", "asm-1-18"),
            (" asm-1-18 ", "asm-1-18"),
            ("x-1", "x-1"),
            ("", ""),
        ] {
            assert_eq!(normalised(text).as_str(), name);
        }
    }
}
