//! The placeholder for istiod's labels, which only a source can fill in.

use std::borrow::Cow;

use meshupgrade_core::measure::{ISTIOD, Problem, ProblemKind};

use super::problem;

/// Stands for the revision in the matchers of a source.
pub(super) const REVISION: &str = "$(revision)";

/// The query with every `$(istiod:<revision>)` replaced by the matchers of that revision.
pub(super) fn fill<'a>(promql: &'a str, matchers: &str) -> Result<Cow<'a, str>, Problem> {
    let mut parts = promql.split(ISTIOD);
    let first = parts.next().unwrap_or_default();
    let mut filled = Cow::Borrowed(first);
    for part in parts {
        let revision = part.split_once(')').filter(|(revision, _)| is_revision(revision));
        let (revision, rest) = revision.ok_or_else(|| {
            let text = format!("the query has a {ISTIOD} without the name of a revision and \")\"");
            problem(ProblemKind::BadQuery, text)
        })?;
        let filled = filled.to_mut();
        filled.push_str(&matchers.replace(REVISION, revision));
        filled.push_str(rest);
    }
    Ok(filled)
}

/// Nothing that ends a quoted string, or means something in a regular expression except ".".
fn is_revision(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    !text.is_empty() && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_becomes_the_matchers_of_its_revision() {
        let fill = |promql| fill(promql, "rev=\"$(revision)\",app=\"$(revision)\"").map(Cow::into_owned);
        assert_eq!(fill("up").unwrap(), "up");
        assert_eq!(
            fill("a{$(istiod:asm-1-28)} / b{$(istiod:default),x=\"(y)\"}").unwrap(),
            "a{rev=\"asm-1-28\",app=\"asm-1-28\"} / b{rev=\"default\",app=\"default\",x=\"(y)\"}"
        );
    }

    #[test]
    fn a_placeholder_that_could_change_the_query_is_refused() {
        for promql in
            ["a{$(istiod:", "a{$(istiod:)}", "a{$(istiod:x\"} or b{y=\")}", "a{$(istiod:$(istiod:x))}"]
        {
            assert_eq!(
                fill(promql, "rev=\"$(revision)\"").unwrap_err().kind,
                ProblemKind::BadQuery,
                "{promql}"
            );
        }
    }
}
