use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::metric_sources::address::Class;
use crate::metric_sources::config::{parse, read};

fn error(entry: &str) -> String {
    let text = format!("sources:\n  - {}", entry.replace('\n', "\n    "));
    parse(&text).unwrap_err().to_string()
}

#[test]
fn what_is_left_away_has_the_documented_default() {
    let sources = parse("sources: [{name: default, url: 'https://prometheus:9090/prefix'}]").unwrap();
    let source = &sources["default"];
    assert_eq!(source.url.as_str(), "https://prometheus:9090/prefix");
    assert_eq!(source.timeout, Duration::from_secs(10));
    assert_eq!(source.max_body_bytes, 1_048_576);
    assert_eq!(source.istiod_matchers, "istio_io_rev=\"$(revision)\"");
    assert!(source.allow.is_empty() && source.ca_file.is_none() && source.token_file.is_none());
    assert!(parse("sources: []").unwrap().is_empty());
}

#[test]
fn every_field_is_read() {
    let text = "sources:\n- name: a\n  url: https://p\n  caFile: /ca\n  tokenFile: /token\n  timeoutSeconds: 30\n  \
                maxBodyBytes: 16777216\n  allow: [Loopback, LinkLocal]\n  istiodMatchers: 'rev=~\"$(revision)\"'\n";
    let source = parse(text).unwrap()["a"].clone();
    assert_eq!(source.ca_file.as_deref(), Some(Path::new("/ca")));
    assert_eq!(source.token_file.as_deref(), Some(Path::new("/token")));
    assert_eq!(source.timeout, Duration::from_secs(30));
    assert_eq!(source.max_body_bytes, 16_777_216);
    assert_eq!(source.allow, BTreeSet::from([Class::Loopback, Class::LinkLocal]));
    assert_eq!(source.istiod_matchers, "rev=~\"$(revision)\"");
}

#[test]
fn a_mistake_is_named_with_its_field() {
    for (entry, field) in [
        ("name: Upper\nurl: https://p", "sources[0].name"),
        ("name: -a\nurl: https://p", "sources[0].name"),
        ("name: a\nurl: prometheus", "sources[0].url"),
        ("name: a\nurl: ftp://p", "sources[0].url"),
        ("name: a\nurl: https://user:hush@p", "sources[0].url"),
        ("name: a\nurl: https://hush@p", "sources[0].url"),
        ("name: a\nurl: https://:hush@p", "sources[0].url"),
        ("name: a\nurl: https://p?x=hush", "sources[0].url"),
        ("name: a\nurl: https://p#hush", "sources[0].url"),
        ("name: a\nurl: http://p\ncaFile: /ca", "sources[0].caFile"),
        ("name: a\nurl: https://p\ntimeoutSeconds: 0", "sources[0].timeoutSeconds"),
        ("name: a\nurl: https://p\ntimeoutSeconds: 31", "sources[0].timeoutSeconds"),
        ("name: a\nurl: https://p\nmaxBodyBytes: 0", "sources[0].maxBodyBytes"),
        ("name: a\nurl: https://p\nmaxBodyBytes: 16777217", "sources[0].maxBodyBytes"),
        ("name: a\nurl: https://p\nistiodMatchers: 'app=\"istiod\"'", "sources[0].istiodMatchers"),
        ("name: a\nurl: https://p\ntokenFile: token", "sources[0].tokenFile"),
        ("name: a\nurl: http://p\ntokenFile: /token", "sources[0].tokenFile"),
        ("name: a\nurl: https://p\nallow: [Everything]", "metric sources"),
        ("name: a\nurl: https://p\ntoken: hush", "metric sources"),
        ("name: a\nurl: https://a\n- name: a\nurl: https://b", "metric sources"),
    ] {
        let error = error(entry);
        assert!(error.starts_with(&format!("{field}: ")), "{entry}: {error}");
        assert!(!error.contains("hush"), "{entry}: {error}");
    }
    let twice = parse("sources: [{name: a, url: 'https://a'}, {name: a, url: 'https://b'}]").unwrap_err();
    assert_eq!(twice.field, "sources[1].name");
}

#[test]
fn the_token_for_the_api_server_is_refused_on_every_path() {
    for path in [
        "/var/run/secrets/kubernetes.io/serviceaccount/token",
        "/run/secrets/kubernetes.io/serviceaccount/token",
        "/var/run/secrets/kubernetes.io/serviceaccount/..data/token",
        "/var/run/secrets/x/../kubernetes.io/serviceaccount/token",
    ] {
        let error = error(&format!("name: a\nurl: https://p\ntokenFile: {path}"));
        assert!(error.starts_with("sources[0].tokenFile: "), "{path}: {error}");
    }
    let text = "sources: [{name: a, url: 'https://p', tokenFile: /var/run/secrets/meshupgrade/token}]";
    assert!(parse(text).is_ok());
    let text = "sources: [{name: a, url: 'http://p', tokenFile: /token, allow: [Loopback]}]";
    assert!(parse(text).is_ok());
}

#[test]
fn files_must_be_there_at_the_start_and_hold_certificates() {
    let directory = tempfile::tempdir().unwrap();
    let (file, ca) = (directory.path().join("sources.yaml"), directory.path().join("ca.crt"));
    assert!(read(&file).unwrap_err().to_string().contains("cannot be read"));
    std::fs::write(&file, format!("sources: [{{name: a, url: 'https://p', caFile: '{}'}}]", ca.display()))
        .unwrap();
    assert_eq!(read(&file).unwrap_err().field, "caFile of source a");
    std::fs::write(&ca, "no certificate").unwrap();
    assert_eq!(read(&file).unwrap_err().field, "caFile of source a");
}

#[test]
fn an_address_is_not_shown() {
    let source = parse("sources: [{name: a, url: 'https://hush', tokenFile: /hush}]").unwrap();
    assert_eq!(format!("{source:?}"), "{\"a\": Source { name: \"a\", .. }}");
}
