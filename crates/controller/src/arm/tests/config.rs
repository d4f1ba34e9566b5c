use std::collections::BTreeMap;

use super::*;
use crate::arm::config::{API_VERSION, Identity};

fn wrong(change: impl Fn(&mut Options)) -> String {
    let mut options = Options::default();
    change(&mut options);
    Config::new(&options).unwrap_err().to_string()
}

#[test]
fn the_environment_of_the_webhook_is_read_and_the_rest_has_defaults() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let set = BTreeMap::from([
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_TENANT_ID", TENANT),
        ("AZURE_FEDERATED_TOKEN_FILE", path),
        ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us/"),
        ("AZURE_POD_IDENTITY_AUTHORITY_HOST", ""),
    ]);
    let options = Options::from_environment(|name| set.get(name).map(|value| (*value).to_owned()));
    let config = Config::new(&options).unwrap();
    assert_eq!(config.endpoint.as_str(), "https://management.azure.com/");
    assert_eq!(config.scope(".default"), "https://management.azure.com/.default");
    assert_eq!((config.api_version.as_str(), config.timeout), (API_VERSION, Duration::from_secs(30)));
    let Identity::Workload { token_url, .. } = &config.identity else { panic!() };
    assert_eq!(token_url.as_str(), format!("https://login.microsoftonline.us/{TENANT}/oauth2/v2.0/token"));
    assert!(!format!("{config:?}").contains(TENANT));

    let config = Config::new(&Options::from_environment(|_| None)).unwrap();
    let Identity::Managed { token_url } = &config.identity else { panic!() };
    assert_eq!(
        token_url.as_str(),
        "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F"
    );
    let chosen = Options { managed_identity: true, ..options };
    let Identity::Managed { token_url } = Config::new(&chosen).unwrap().identity else { panic!() };
    assert!(token_url.as_str().ends_with("&client_id=client"));
}

#[test]
fn a_mistake_is_named() {
    let set = |text: &str| Some(text.to_owned());
    for (error, option) in [
        (wrong(|options| options.endpoint = "http://management.azure.com".to_owned()), "ARM endpoint"),
        (wrong(|options| options.endpoint = "https://management.azure.com/x".to_owned()), "ARM endpoint"),
        (
            wrong(|options| options.endpoint = "https://u:hush@management.azure.com".to_owned()),
            "ARM endpoint",
        ),
        (wrong(|options| options.endpoint = "https://management.azure.com?hush".to_owned()), "ARM endpoint"),
        (wrong(|options| options.endpoint = "management".to_owned()), "ARM endpoint"),
        (wrong(|options| options.api_version = "2024-08-31".to_owned()), "ARM API version"),
        (wrong(|options| options.api_version = "2025-01-01-preview".to_owned()), "ARM API version"),
        (wrong(|options| options.api_version = "latest".to_owned()), "ARM API version"),
        (wrong(|options| options.timeout_seconds = 0), "ARM timeout"),
        (wrong(|options| options.timeout_seconds = 121), "ARM timeout"),
        (wrong(|options| options.tenant_id = set("t")), "AZURE_CLIENT_ID"),
        (wrong(|options| options.federated_token_file = Some("/missing".into())), "AZURE_CLIENT_ID"),
        (
            wrong(|options| options.managed_identity_host = "169.254.169.254".to_owned()),
            "AZURE_POD_IDENTITY_AUTHORITY_HOST",
        ),
    ] {
        assert!(error.starts_with(&format!("{option}: ")), "{error}");
        assert!(!error.contains("hush"), "{error}");
    }
    let workload = |client: &str, tenant: &str, file: Option<&str>, host: &str| {
        wrong(|options| {
            (options.client_id, options.tenant_id) = (set(client), set(tenant));
            options.federated_token_file = file.map(Into::into);
            host.clone_into(&mut options.authority_host);
        })
    };
    assert!(workload("c", "t", None, "https://h").starts_with("AZURE_FEDERATED_TOKEN_FILE: "));
    assert!(
        workload("c", "t", Some("/missing"), "https://h")
            .starts_with("AZURE_FEDERATED_TOKEN_FILE: cannot be read")
    );
    assert!(workload("c", "t/../x", Some("/dev/null"), "https://h").starts_with("AZURE_TENANT_ID: "));
    assert!(workload("c d", "t", Some("/dev/null"), "https://h").starts_with("AZURE_CLIENT_ID: "));
    assert!(workload("c", "t", Some("/dev/null"), "http://h").starts_with("AZURE_AUTHORITY_HOST: "));
}

#[test]
fn a_file_without_certificates_is_a_mistake() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for path in [file.path(), "/missing".as_ref()] {
        let options = Options { ca_file: Some(path.to_owned()), ..Options::default() };
        let error = Arm::new(Config::new(&options).unwrap()).unwrap_err();
        assert_eq!(error.option, "ARM CA file");
    }
}
