//! The file that names the metric sources. Only the operator's administrator writes it: whoever writes a MeshUpgrade can
//! choose among its names, and never gives an address.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;
use serde_saphyr::UserMessageFormatter;

use super::address::Class;
use super::{client, istiod};

/// Where the token of the pod's ServiceAccount for the API server lies, by both names of the directory.
const SERVICE_ACCOUNT: [&str; 2] =
    ["/var/run/secrets/kubernetes.io/serviceaccount", "/run/secrets/kubernetes.io/serviceaccount"];
const SECONDS: std::ops::RangeInclusive<u64> = 1..=30;
const MAX_BODY_BYTES: std::ops::RangeInclusive<usize> = 1..=16 * 1024 * 1024;

/// The metric sources, by name.
pub type Sources = BTreeMap<String, Arc<Source>>;

/// A metric source: a server that speaks Prometheus' HTTP API.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name, which MeshUpgrades use.
    pub name: String,
    /// Its address, without `/api/v1/…`.
    pub url: Url,
    /// PEM file of the only certificate authorities that are trusted; `None` means those of the system.
    pub ca_file: Option<PathBuf>,
    /// File of the bearer token, read anew for each query.
    pub token_file: Option<PathBuf>,
    /// How long a whole query may take.
    pub timeout: Duration,
    /// How many bytes a body may have.
    pub max_body_bytes: usize,
    /// Classes of addresses that it may have although they are normally refused.
    pub allow: BTreeSet<Class>,
    /// Matchers that select the istiods of `$(revision)`.
    pub istiod_matchers: String,
}

/// The address and the paths of files stay out of logs.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a file of metric sources is not used: the field, and what to do about it. Never repeats an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {remedy}")]
pub struct ConfigError {
    /// The field, for example `sources[0].url`; the file itself when it is no such document.
    pub field: String,
    /// What is wrong and what to write instead.
    pub remedy: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    sources: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    name: String,
    url: String,
    ca_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
    #[serde(default = "default_timeout_seconds")]
    timeout_seconds: u64,
    #[serde(default = "default_max_body_bytes")]
    max_body_bytes: usize,
    #[serde(default)]
    allow: BTreeSet<Class>,
    #[serde(default = "default_istiod_matchers")]
    istiod_matchers: String,
}

fn default_timeout_seconds() -> u64 {
    10
}

fn default_max_body_bytes() -> usize {
    1024 * 1024
}

fn default_istiod_matchers() -> String {
    format!("istio_io_rev=\"{}\"", istiod::REVISION)
}

/// Reads the file and looks at everything that can be known without speaking to a source.
pub fn read(file: &Path) -> Result<Sources, ConfigError> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| {
        wrong(&name, format!("cannot be read ({}): name a file that exists", error.kind()))
    })?;
    let sources = parse(&text)?;
    for source in sources.values() {
        readable(source)?;
    }
    Ok(sources)
}

/// The sources that a YAML text names.
pub fn parse(text: &str) -> Result<Sources, ConfigError> {
    // A snippet would repeat addresses in the log.
    let options = serde_saphyr::options! { with_snippet: false };
    let file: File = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| wrong("metric sources", error.render_with_formatter(&UserMessageFormatter)))?;
    let mut sources = Sources::new();
    for (index, entry) in file.sources.into_iter().enumerate() {
        let field = |name: &str| format!("sources[{index}].{name}");
        let source = entry.validated().map_err(|(name, remedy)| wrong(&field(name), remedy))?;
        if sources.insert(source.name.clone(), Arc::new(source)).is_some() {
            return Err(wrong(&field("name"), "another source has this name: give each its own"));
        }
    }
    Ok(sources)
}

fn wrong(field: &str, remedy: impl Into<String>) -> ConfigError {
    ConfigError { field: field.to_owned(), remedy: remedy.into() }
}

/// A field and what to do about it.
type Wrong = (&'static str, String);

impl Entry {
    fn validated(self) -> Result<Source, Wrong> {
        if !is_dns_label(&self.name) {
            let remedy =
                "write 1 to 63 lower-case letters, digits and \"-\", with a letter or digit at both ends";
            return Err(("name", remedy.to_owned()));
        }
        let url = url(&self.url).map_err(|remedy| ("url", remedy.to_owned()))?;
        let secure = url.scheme() == "https";
        if !secure && self.ca_file.is_some() {
            return Err(("caFile", "the url begins with http: use https, or leave caFile away".to_owned()));
        }
        if let Some(path) = &self.token_file {
            let loopback = self.allow.contains(&Class::Loopback);
            token_file(path, secure || loopback).map_err(|remedy| ("tokenFile", remedy.to_owned()))?;
        }
        if !SECONDS.contains(&self.timeout_seconds) {
            return Err((
                "timeoutSeconds",
                format!("write a number from {SECONDS:?}").replace("..=", " to "),
            ));
        }
        if !MAX_BODY_BYTES.contains(&self.max_body_bytes) {
            return Err((
                "maxBodyBytes",
                format!("write a number from {MAX_BODY_BYTES:?}").replace("..=", " to "),
            ));
        }
        if !self.istiod_matchers.contains(istiod::REVISION) {
            return Err(("istiodMatchers", format!("write {} where the revision belongs", istiod::REVISION)));
        }
        Ok(Source {
            name: self.name,
            url,
            ca_file: self.ca_file,
            token_file: self.token_file,
            timeout: Duration::from_secs(self.timeout_seconds),
            max_body_bytes: self.max_body_bytes,
            allow: self.allow,
            istiod_matchers: self.istiod_matchers,
        })
    }
}

fn is_dns_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn url(text: &str) -> Result<Url, &'static str> {
    let url =
        Url::parse(text).map_err(|_| "write an address such as https://prometheus.monitoring.svc:9090")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("begin it with https:// or http://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("leave user and password away: use tokenFile");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("leave away what begins with \"?\" or \"#\"");
    }
    Ok(url)
}

fn token_file(path: &Path, protected: bool) -> Result<(), &'static str> {
    if !protected {
        return Err("with http everybody on the way reads the token: use https");
    }
    if !path.is_absolute() {
        return Err("write an absolute path");
    }
    // The file may be a link, and the path take a detour.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let leads_there = |directory: &str| {
        let directory = Path::new(directory);
        let real_directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
        [path, &real].iter().any(|path| path.starts_with(directory) || path.starts_with(&real_directory))
    };
    if SERVICE_ACCOUNT.iter().any(|directory| leads_there(directory)) {
        return Err("this token opens the API server: project one with an audience of its own");
    }
    if path.components().any(|part| part == std::path::Component::ParentDir) {
        return Err("write the path without \"..\"");
    }
    Ok(())
}

/// A file that is missing when the process starts is a mistake; one that is missing later is a problem of its query.
fn readable(source: &Source) -> Result<(), ConfigError> {
    let field = |name: &str| format!("{name} of source {}", source.name);
    for (name, file) in [("caFile", &source.ca_file), ("tokenFile", &source.token_file)] {
        let Some(file) = file else { continue };
        std::fs::read(file)
            .map_err(|error| wrong(&field(name), format!("cannot be read ({}): mount it", error.kind())))?;
    }
    // No address is spoken to.
    client::http_client(source, Vec::new())
        .map(drop)
        .map_err(|problem| wrong(&field("caFile"), problem.message))
}
