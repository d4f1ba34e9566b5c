use proptest::prelude::*;

use super::*;
use crate::selector::{LabelSelector, Operator, Requirement};

fn term(key: &str, operator: Operator, values: &[&str]) -> Requirement {
    Requirement { key: key.to_owned(), operator, values: values.iter().map(ToString::to_string).collect() }
}

fn entry(name: &str, namespace: Vec<Requirement>, object: Vec<Requirement>) -> WebhookEntry {
    let selector = |match_expressions| LabelSelector { match_expressions, ..LabelSelector::default() };
    WebhookEntry {
        name: format!("{name}.sidecar-injector.istio.io"),
        namespace_selector: selector(namespace),
        object_selector: selector(object),
        ..WebhookEntry::default()
    }
}

fn not_out() -> Requirement {
    term(labels::SIDECAR_INJECT, Operator::NotIn, &["false"])
}

fn absent(key: &str) -> Requirement {
    term(key, Operator::DoesNotExist, &[])
}

/// `rev.namespace.` and `rev.object.` of the istiod chart (templates/mutatingwebhook.yaml, revision-tags-mwc.yaml).
fn revision_entries(value: &str) -> Vec<WebhookEntry> {
    let named = || term(labels::REVISION, Operator::In, &[value]);
    vec![
        entry("rev.namespace", vec![named(), absent(labels::INJECTION)], vec![not_out()]),
        entry(
            "rev.object",
            vec![absent(labels::REVISION), absent(labels::INJECTION)],
            vec![not_out(), named()],
        ),
    ]
}

/// `namespace.`, `object.` and `auto.` of the default revision.
fn default_entries() -> Vec<WebhookEntry> {
    let unlabelled = || vec![absent(labels::INJECTION), absent(labels::REVISION)];
    let mut not_kube = unlabelled();
    not_kube.push(term(NAMESPACE_NAME, Operator::NotIn, &["kube-system", "excluded"]));
    vec![
        entry("namespace", vec![term(labels::INJECTION, Operator::In, &["enabled"])], vec![not_out()]),
        entry(
            "object",
            unlabelled(),
            vec![term(labels::SIDECAR_INJECT, Operator::In, &["true"]), absent(labels::REVISION)],
        ),
        entry("auto", not_kube, vec![absent(labels::SIDECAR_INJECT), absent(labels::REVISION)]),
    ]
}

fn configuration(
    name: &str,
    revision: &str,
    tag: Option<&str>,
    entries: Vec<WebhookEntry>,
) -> Arc<WebhookConfiguration> {
    Arc::new(WebhookConfiguration {
        name: name.to_owned(),
        revision: Some(revision.into()),
        tag: tag.map(ToOwned::to_owned),
        entries,
        ..WebhookConfiguration::default()
    })
}

fn revision(name: &str) -> Arc<WebhookConfiguration> {
    configuration(&format!("istio-sidecar-injector-{name}"), name, None, revision_entries(name))
}

fn two_revisions() -> Vec<Arc<WebhookConfiguration>> {
    vec![revision("asm-1-27"), revision("asm-1-28")]
}

fn with_default() -> Vec<Arc<WebhookConfiguration>> {
    let mut entries = revision_entries("default");
    entries.extend(default_entries());
    let mut webhooks = two_revisions();
    webhooks.push(configuration("istio-revision-tag-default", "asm-1-27", Some("default"), entries));
    webhooks
}

fn map(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// What happens to a pod with these labels, told shortly.
fn outcome(
    webhooks: &[Arc<WebhookConfiguration>],
    namespace: &[(&str, &str)],
    pod: &[(&str, &str)],
) -> String {
    let template = PodTemplate { labels: map(pod), ..PodTemplate::default() };
    told(&injection(webhooks, &"shop".into(), &map(namespace), &template.shape()))
}

fn told(injection: &Injection) -> String {
    match injection {
        Injection::None(reason) => format!("{reason:?}"),
        Injection::One(injector) => injector.revision.to_string(),
        Injection::Several(injectors) => {
            let names: Vec<&str> = injectors.iter().map(|injector| injector.webhook.as_str()).collect();
            names.join("+")
        }
    }
}

const REV: &str = labels::REVISION;
const OLD: &str = labels::INJECTION;
const INJECT: &str = labels::SIDECAR_INJECT;

#[test]
fn the_namespace_label_beats_the_pod_label() {
    let webhooks = two_revisions();
    assert_eq!(outcome(&webhooks, &[(REV, "asm-1-27")], &[(REV, "asm-1-28")]), "asm-1-27");
    assert_eq!(outcome(&webhooks, &[], &[(REV, "asm-1-28")]), "asm-1-28");
}

#[test]
fn with_other_selectors_the_pod_label_beats_the_namespace_label() {
    let by_pod = |name: &str| {
        let named = || term(REV, Operator::In, &[name]);
        configuration(
            name,
            name,
            None,
            vec![
                entry("rev.namespace", vec![named()], vec![not_out(), absent(REV)]),
                entry("rev.object", vec![], vec![not_out(), named()]),
            ],
        )
    };
    let webhooks = [by_pod("asm-1-27"), by_pod("asm-1-28")];
    assert_eq!(outcome(&webhooks, &[(REV, "asm-1-27")], &[(REV, "asm-1-28")]), "asm-1-28");
}

#[test]
fn istio_injection_hides_the_revision_label() {
    let both = [(REV, "asm-1-28"), (OLD, "enabled")];
    assert_eq!(outcome(&two_revisions(), &both, &[]), "NotSelected");
    assert_eq!(outcome(&with_default(), &both, &[]), "asm-1-27");
    let disabled = [(REV, "asm-1-28"), (OLD, "disabled")];
    assert_eq!(outcome(&with_default(), &disabled, &[]), "NotSelected");
}

#[test]
fn inject_true_without_a_revision_needs_a_default() {
    assert_eq!(outcome(&two_revisions(), &[], &[(INJECT, "true")]), "NotSelected");
    assert_eq!(outcome(&with_default(), &[], &[(INJECT, "true")]), "asm-1-27");
}

#[test]
fn a_label_that_nobody_answers_gives_no_sidecar() {
    assert_eq!(outcome(&two_revisions(), &[(REV, "asm-1-20")], &[]), "NotSelected");
    assert_eq!(outcome(&[], &[(REV, "asm-1-27")], &[]), "NotSelected");
}

#[test]
fn a_tag_resolves_to_the_revision_it_points_to() {
    let mut webhooks = two_revisions();
    webhooks.push(configuration(
        "istio-revision-tag-prod",
        "asm-1-27",
        Some("prod"),
        revision_entries("prod"),
    ));
    let found = namespace_injection(&webhooks, &"shop".into(), &map(&[(REV, "prod")]));
    let expected = Injector {
        revision: "asm-1-27".into(),
        tag: Some("prod".to_owned()),
        webhook: "istio-revision-tag-prod".to_owned(),
    };
    assert_eq!(found, Injection::One(expected));
}

#[test]
fn several_entries_of_one_configuration_count_once() {
    let mut entries = revision_entries("asm-1-27");
    entries.extend(revision_entries("asm-1-27"));
    let webhooks = [configuration("twice", "asm-1-27", None, entries)];
    assert_eq!(outcome(&webhooks, &[(REV, "asm-1-27")], &[]), "asm-1-27");
}

#[test]
fn two_configurations_that_match_are_told_by_name() {
    let webhooks = [
        configuration("b", "asm-1-27", None, revision_entries("asm-1-27")),
        configuration("a", "asm-1-28", None, revision_entries("asm-1-27")),
    ];
    assert_eq!(outcome(&webhooks, &[(REV, "asm-1-27")], &[]), "a+b");
}

#[test]
fn a_deactivated_configuration_matches_nothing() {
    let never = || vec![term("istio.io/deactivated", Operator::In, &["never-match"])];
    let webhooks = [configuration("off", "asm-1-27", None, vec![entry("namespace", never(), never())])];
    assert_eq!(outcome(&webhooks, &[(REV, "asm-1-27")], &[]), "NotSelected");
}

#[test]
fn the_label_to_opt_out_wins_over_the_annotation() {
    let webhooks = two_revisions();
    let shaped = |labels: &[(&str, &str)], annotations: &[(&str, &str)]| {
        let template =
            PodTemplate { labels: map(labels), annotations: map(annotations), ..PodTemplate::default() };
        told(&injection(&webhooks, &"shop".into(), &map(&[(REV, "asm-1-27")]), &template.shape()))
    };
    assert_eq!(shaped(&[(INJECT, "false")], &[]), "OptedOut");
    assert_eq!(shaped(&[], &[(INJECT, "false")]), "OptedOut");
    assert_eq!(shaped(&[(INJECT, "true")], &[(INJECT, "false")]), "asm-1-27");
    assert_eq!(shaped(&[(INJECT, "")], &[(INJECT, "false")]), "asm-1-27");
    assert_eq!(shaped(&[(INJECT, "false")], &[(INJECT, "true")]), "OptedOut");
}

#[test]
fn system_namespaces_and_the_node_network_are_never_injected() {
    let webhooks = two_revisions();
    let namespace = map(&[(REV, "asm-1-27")]);
    let pod = Pod { host_network: true, ..Pod::default() };
    assert_eq!(
        injection(&webhooks, &"shop".into(), &namespace, &pod.shape()),
        Injection::None(NoInjection::HostNetwork)
    );
    assert_eq!(
        namespace_injection(&webhooks, &"kube-system".into(), &namespace),
        Injection::None(NoInjection::SystemNamespace)
    );
}

fn with_own_proxy(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> PodTemplate {
    PodTemplate {
        labels: map(labels),
        annotations: map(annotations),
        own_proxy: true,
        ..PodTemplate::default()
    }
}

#[test]
fn an_own_proxy_is_merged_where_a_webhook_selects_the_pod() {
    let gateway =
        with_own_proxy(&[(INJECT, "true"), (REV, "asm-1-28")], &[(labels::INJECT_TEMPLATES, "gateway")]);
    let found = injection(&two_revisions(), &"ingress".into(), &Labels::new(), &gateway.shape());
    assert_eq!(told(&found), "asm-1-28");
    let sidecar_settings = with_own_proxy(&[], &[]);
    let found =
        injection(&two_revisions(), &"shop".into(), &map(&[(REV, "asm-1-27")]), &sidecar_settings.shape());
    assert_eq!(told(&found), "asm-1-27");
}

#[test]
fn an_own_proxy_stays_as_it_is_where_nothing_injects_the_pod() {
    let ask = |template: &PodTemplate, namespace: &[(&str, &str)]| {
        told(&injection(&two_revisions(), &"shop".into(), &map(namespace), &template.shape()))
    };
    assert_eq!(ask(&with_own_proxy(&[], &[]), &[]), "OwnProxy");
    assert_eq!(ask(&with_own_proxy(&[(INJECT, "false")], &[]), &[(REV, "asm-1-27")]), "OwnProxy");
    let uninjected_gateway = with_own_proxy(&[], &[(labels::INJECT_TEMPLATES, "sidecar, gateway")]);
    assert_eq!(ask(&uninjected_gateway, &[]), "NotSelected");
}

#[test]
fn a_live_pod_is_judged_as_if_it_were_created_again() {
    let pod = Pod {
        labels: map(&[(REV, "asm-1-28")]),
        proxy: Some(crate::observed::Proxy::default()),
        ..Pod::default()
    };
    let found = injection(&two_revisions(), &"shop".into(), &Labels::new(), &pod.shape());
    assert_eq!(told(&found), "asm-1-28");
    assert_eq!(told(&injection(&[], &"shop".into(), &Labels::new(), &pod.shape())), "NotSelected");
}

#[test]
fn selectors_may_use_the_name_that_every_namespace_has_as_a_label() {
    let webhooks = with_default();
    let ask = |name: &str| told(&namespace_injection(&webhooks, &name.into(), &Labels::new()));
    assert_eq!(ask("shop"), "asm-1-27");
    assert_eq!(ask("excluded"), "NotSelected");
}

#[test]
fn relabelling_sets_the_revision_and_removes_istio_injection() {
    let before = map(&[(REV, "asm-1-27"), (OLD, "enabled"), ("team", "a")]);
    let after = relabelled(&before, &"asm-1-28".into());
    assert_eq!(after, map(&[(REV, "asm-1-28"), ("team", "a")]));
}

fn some_labels() -> impl Strategy<Value = Labels> {
    let revision = prop_oneof![Just("asm-1-27"), Just("asm-1-28"), Just("default"), Just("gone")];
    let pair = prop_oneof![
        revision.prop_map(|value| (REV, value)),
        prop_oneof![Just("enabled"), Just("disabled")].prop_map(|value| (OLD, value)),
        prop_oneof![Just("true"), Just("false"), Just("")].prop_map(|value| (INJECT, value)),
    ];
    proptest::collection::vec(pair, 0..4).prop_map(|pairs| map(&pairs))
}

proptest! {
    #[test]
    fn the_order_of_the_webhooks_does_not_matter(namespace in some_labels(), pod in some_labels(), order in 0usize..6) {
        let mut webhooks = with_default();
        webhooks.push(configuration("extra", "asm-1-27", None, revision_entries("asm-1-27")));
        let template = PodTemplate { labels: pod, ..PodTemplate::default() };
        let straight = injection(&webhooks, &"shop".into(), &namespace, &template.shape());
        let length = webhooks.len();
        webhooks.rotate_left(order % length);
        if order % 2 == 1 {
            webhooks.reverse();
        }
        prop_assert_eq!(straight, injection(&webhooks, &"shop".into(), &namespace, &template.shape()));
    }

    #[test]
    fn after_relabelling_only_an_opt_out_keeps_a_pod_from_the_target(namespace in some_labels(), pod in some_labels()) {
        let template = PodTemplate { labels: pod, ..PodTemplate::default() };
        let moved = relabelled(&namespace, &"asm-1-28".into());
        let found = told(&injection(&with_default(), &"shop".into(), &moved, &template.shape()));
        let out = template.labels.get(INJECT).is_some_and(|value| value == "false");
        prop_assert_eq!(found, if out { "OptedOut" } else { "asm-1-28" });
    }

    #[test]
    fn relabelling_twice_is_relabelling_once(namespace in some_labels()) {
        let once = relabelled(&namespace, &"asm-1-28".into());
        prop_assert_eq!(&once, &relabelled(&once, &"asm-1-28".into()));
    }
}
