//! EnvoyFilters that are written for the proxies of one version: after the move they are still there, and do nothing.

use std::collections::BTreeMap;

use regex::bytes::{Regex, RegexBuilder};

use super::{CheckInput, Finding, listed, shown};
use crate::aks::revision::minor;
use crate::census::{API_DISCOVERY, Census, ENVOY_FILTERS, VersionedFilter};
use crate::ids::Revision;
use crate::pods::image_version;

/// Istio 1.31 reads no longer expression, in bytes. Source: `maxProxyVersionLen` in pilot/pkg/model/envoyfilter.go.
const LONGEST_EXPRESSION: usize = 1024;
/// How large an expression may become when it is compiled, in bytes: whoever may write EnvoyFilters must not be able to keep the
/// operator busy.
const COMPILED_LIMIT: usize = 1 << 18;

/// What an expression (`match.proxy.proxyVersion`) means for the move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// It matches the proxies of both revisions, or of neither.
    Unchanged,
    /// Only proxies of the source: the patch ends with the move.
    Ends,
    /// Only proxies of the target: the patch begins with the move.
    Begins,
    /// It cannot be read.
    Unreadable,
}

pub(super) fn find(input: &CheckInput<'_>) -> Finding {
    let Some(census) = input.snapshot.census.as_deref() else { return Finding::Nothing };
    let filters = match (version(input, input.source), version(input, input.target)) {
        (Some(source), Some(target)) => judged(census, &source, &target),
        // Somebody else installs it, and these checks run again when it is there.
        (_, None) if !is_installed(input, input.target) => None,
        _ => without_versions(input, census),
    };
    let found: Vec<String> = [unread(census), filters].into_iter().flatten().collect();
    if found.is_empty() { Finding::Nothing } else { Finding::Warning(found.join(". ")) }
}

/// The version of the proxies of a revision, as they report it to istiod: the tag of the image that its injector gives, where that is
/// a version. Otherwise the name of an AKS revision says the minor version, and the first patch of it is assumed: expressions name
/// minor versions. `None` where neither says it.
fn version(input: &CheckInput<'_>, revision: &Revision) -> Option<String> {
    let plane = input.snapshot.control_planes.get(revision);
    let image = plane.and_then(|plane| plane.proxy_image.as_deref()).map(image_version);
    match image.filter(|version| begins_with_a_minor(version)) {
        Some(version) => Some(version.to_owned()),
        None => minor(revision).map(|minor| format!("{}.{}.0", minor.major, minor.minor)),
    }
}

fn begins_with_a_minor(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().is_ok());
    parts.next() == Some(true) && parts.next() == Some(true)
}

fn is_installed(input: &CheckInput<'_>, revision: &Revision) -> bool {
    input.snapshot.control_planes.get(revision).is_some_and(|plane| plane.injector_config)
}

/// What can be said of the filters where the versions on both sides are known.
fn judged(census: &Census, source: &str, target: &str) -> Option<String> {
    let mut meanings = BTreeMap::new();
    for expression in census.versioned_filters.iter().flat_map(|filter| &filter.versions) {
        meanings.entry(expression.as_str()).or_insert_with(|| meaning(expression, source, target));
    }
    let of = |expression: &String| meanings.get(expression.as_str()).copied().unwrap_or(Meaning::Unchanged);
    let named = |filter: &VersionedFilter, wanted: Meaning| {
        let expression = filter.versions.iter().find(|expression| of(expression) == wanted)?;
        Some(format!("{} ({})", name(filter), shown(expression)))
    };
    let count = |filter: &VersionedFilter, wanted: Meaning| {
        filter.versions.iter().filter(|expression| of(expression) == wanted).count()
    };
    let filters = || census.versioned_filters.iter();
    let ending = filters()
        .filter(|filter| count(filter, Meaning::Ends) > count(filter, Meaning::Begins))
        .filter_map(|filter| named(filter, Meaning::Ends));
    let ending = listed(ending).map(|names| {
        format!(
            "EnvoyFilter {names}: match.proxy.proxyVersion matches proxies of {source} and not of {target}, so that these patches \
             silently stop to apply with the move. Before it, add a copy of each patch for {target} to the same EnvoyFilter, or widen \
             the expression, in Git if Git has it"
        )
    });
    let unreadable = filters().filter_map(|filter| named(filter, Meaning::Unreadable));
    let unreadable = listed(unreadable).map(|names| {
        format!(
            "EnvoyFilter {names}: match.proxy.proxyVersion cannot be read as a regular expression: see whether it matches {target}"
        )
    });
    let found: Vec<String> = [ending, unreadable, uncounted(census)].into_iter().flatten().collect();
    (!found.is_empty()).then(|| found.join(". "))
}

/// Istio looks for the expression anywhere in the version that the proxy reports (`regexp.MatchString` of Go). What it cannot compile
/// matches every version, and what is too long none. Source: `proxyMatch` in pilot/pkg/model/envoyfilter.go of Istio 1.31.
fn meaning(expression: &str, source: &str, target: &str) -> Meaning {
    let short = Some(expression).filter(|expression| expression.len() <= LONGEST_EXPRESSION);
    let Some(expression) = short.and_then(|expression| compiled(expression).ok()) else {
        return Meaning::Unreadable;
    };
    match (expression.is_match(source.as_bytes()), expression.is_match(target.as_bytes())) {
        (true, false) => Meaning::Ends,
        (false, true) => Meaning::Begins,
        (true, true) | (false, false) => Meaning::Unchanged,
    }
}

/// Versions are ASCII, for which this dialect means the same as Go's.
fn compiled(expression: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(expression).unicode(false).size_limit(COMPILED_LIMIT).build()
}

fn without_versions(input: &CheckInput<'_>, census: &Census) -> Option<String> {
    listed(census.versioned_filters.iter().map(name)).map(|names| {
        format!(
            "EnvoyFilter {names}: match.proxy.proxyVersion cannot be compared, because the images of the injectors do not say which \
             versions of Istio {} and {} are: see whether it matches the proxies of both",
            input.source, input.target
        )
    })
}

/// The census keeps only so many of them.
fn uncounted(census: &Census) -> Option<String> {
    let more = census.versioned_filter_count.saturating_sub(census.versioned_filters.len());
    (more > 0).then(|| format!("{more} more EnvoyFilters with match.proxy.proxyVersion were not looked at"))
}

fn unread(census: &Census) -> Option<String> {
    let missing = |gap: &&String| gap.starts_with(ENVOY_FILTERS) || gap.starts_with(API_DISCOVERY);
    let gap = census.unreadable.iter().find(missing)?;
    Some(format!("whether EnvoyFilters are written for one version of the proxies is unknown: {gap}"))
}

fn name(filter: &VersionedFilter) -> String {
    format!("{}/{}", filter.namespace, filter.name)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Mesh, SOURCE, TARGET, said};
    use super::*;
    use crate::census::{MAX_VERSIONED_FILTERS, VersionedFilter};

    fn filter(namespace: &str, name: &str, versions: &[&str]) -> VersionedFilter {
        VersionedFilter {
            namespace: namespace.into(),
            name: name.to_owned(),
            versions: versions.iter().map(|version| (*version).to_owned()).collect(),
        }
    }

    /// Revisions of these proxies, and filters with these expressions.
    fn mesh(images: [Option<&str>; 2], filters: &[&[&str]]) -> Mesh {
        let mut mesh = Mesh::before();
        for (revision, image) in [SOURCE, TARGET].into_iter().zip(images) {
            mesh.plane(revision, |plane| plane.proxy_image = image.map(ToOwned::to_owned));
        }
        mesh.census(|census| {
            for (number, versions) in filters.iter().enumerate() {
                census.add_versioned_filter(filter("shop", &format!("f{number}"), versions));
            }
        });
        mesh
    }

    const IMAGES: [Option<&str>; 2] = [Some("hub/proxyv2:1.27.3-distroless"), Some("hub/proxyv2:1.28.1")];

    fn warned(mesh: &Mesh) -> Option<String> {
        said(&mesh.preflight()).into_iter().find(|text| text.starts_with("EnvoyFiltersMatchTarget"))
    }

    fn ends(expression: &str) -> bool {
        warned(&mesh(IMAGES, &[&[expression]])).is_some()
    }

    #[test]
    fn a_patch_for_the_old_version_only_is_named_with_expression_and_remedy() {
        let text = warned(&mesh(IMAGES, &[&[r"^1\.27.*"], &[r"^1\.28.*"], &[r"^1\.2[78].*"]])).unwrap();
        let begin = r"EnvoyFiltersMatchTarget Warning: EnvoyFilter shop/f0 (^1\.27.*): match.proxy.proxyVersion matches proxies of 1.27.3 and not of 1.28.1";
        assert!(text.starts_with(begin), "{text}");
        assert!(text.contains("copy of each patch") && text.contains("widen the expression"), "{text}");
        assert!(!text.contains("f1") && !text.contains("f2"), "{text}");
    }

    #[test]
    fn an_expression_is_looked_for_anywhere_in_the_version_as_istio_does() {
        for unchanged in ["", ".*", "1", r"^1\.", r"^1\.2\d", r"^1\.26.*", r"\.1$|\.3$"] {
            assert!(!ends(unchanged), "{unchanged}");
        }
        for ending in [r"^1\.27", r"1\.27\.3", r"\.27\.", "1.27.3$", r"27", r"^1\.([0-9]|1\d|2[0-7])\."] {
            assert!(ends(ending), "{ending}");
        }
    }

    #[test]
    fn a_filter_that_has_a_copy_for_the_new_version_is_in_order() {
        assert_eq!(warned(&mesh(IMAGES, &[&[r"^1\.27", r"^1\.28"]])), None);
        let one_is_missing = warned(&mesh(IMAGES, &[&[r"^1\.27", r"^1\.27", r"^1\.28"]]));
        assert!(one_is_missing.is_some());
    }

    #[test]
    fn what_is_no_expression_is_told() {
        let long = "1".repeat(LONGEST_EXPRESSION + 1);
        let text = warned(&mesh(IMAGES, &[&["1.28["], &[r"\d{999}{999}{999}"], &[&long]])).unwrap();
        assert!(text.contains("shop/f0 (1.28[), shop/f1") && text.contains("cannot be read"), "{text}");
        assert!(text.contains("shop/f2 (111") && text.contains("111…)"), "{text}");
    }

    #[test]
    fn the_name_of_an_aks_revision_says_the_version_before_it_is_installed() {
        let mut mesh = mesh([Some("mirror/proxyv2@sha256:abc"), None], &[&[r"^1\.27\..*"]]);
        mesh.plane(TARGET, |plane| plane.injector_config = false);
        let text = warned(&mesh).unwrap();
        assert!(text.contains("proxies of 1.27.0 and not of 1.28.0"), "{text}");
        assert_eq!(warned(&self::mesh([None, None], &[&[r"^1\.2[78]\..*"]])), None);
    }

    #[test]
    fn a_target_that_is_not_there_is_compared_when_it_is_and_one_without_a_version_is_told() {
        let mut mesh = mesh([Some("hub/proxyv2:1.27.3"), None], &[&[r"^1\.27"]]);
        mesh.target = "stable".into();
        assert_eq!(warned(&mesh), None);
        mesh.add_revision("stable");
        mesh.plane("stable", |plane| plane.proxy_image = Some("hub/proxyv2:nightly".to_owned()));
        let text = warned(&mesh).unwrap();
        assert!(text.contains("shop/f0: match.proxy.proxyVersion cannot be compared"), "{text}");
    }

    #[test]
    fn what_the_census_lacks_is_told_and_not_taken_for_nothing() {
        let mut mesh = mesh(IMAGES, &[]);
        mesh.census(|census| census.unreadable.push(format!("{ENVOY_FILTERS}: refused: forbidden")));
        assert!(warned(&mesh).unwrap().contains("refused: forbidden"));
        let many = vec![&[r"^1\.28"][..]; MAX_VERSIONED_FILTERS + 2];
        let text = warned(&self::mesh(IMAGES, &many)).unwrap();
        assert!(text.contains("2 more EnvoyFilters"), "{text}");
    }
}
