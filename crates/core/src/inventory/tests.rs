use super::*;
use crate::check::fixture::{Mesh, SOURCE, TARGET, map};
use crate::observed::PreviousLabels;

/// Where `shop` stands with these labels. It has a pod on the source; `remembers`: an earlier run of the pair moved it.
fn shop(labels: &[(&str, &str)], remembers: bool) -> Standing {
    let mut mesh = Mesh::before();
    mesh.census(|_| {});
    mesh.proxies("shop", SOURCE, 1);
    mesh.namespace("shop", |namespace| {
        namespace.labels = map(labels);
        namespace.previous = remembers.then(|| PreviousLabels {
            from: SOURCE.into(),
            to: TARGET.into(),
            revision: Some(SOURCE.to_owned()),
            ..PreviousLabels::default()
        });
    });
    let pair = Pair { source: &mesh.source, target: &mesh.target };
    standing(&mesh.intent, &mesh.snapshot, pair, &mesh.snapshot.namespaces[&NamespaceName::from("shop")])
}

#[test]
fn a_namespace_that_was_taken_out_of_the_mesh_is_not_brought_back_by_what_it_remembers() {
    assert_eq!(shop(&[], true), Standing::Outside);
    assert_eq!(shop(&[], false), Standing::Outside);
    assert_eq!(shop(&[(labels::REVISION, TARGET)], true), Standing::InScope);
    assert_eq!(shop(&[(labels::REVISION, TARGET)], false), Standing::Outside);
}

#[test]
fn istio_injection_hides_the_revision_only_where_it_says_enabled() {
    let with = |value| shop(&[(labels::REVISION, SOURCE), (labels::INJECTION, value)], false);
    assert_eq!(with("enabled"), Standing::InScope);
    let Standing::Left(left) = with("disabled") else { panic!("{:?}", with("disabled")) };
    assert_eq!(left.reason, "InjectionDisabled");
}
