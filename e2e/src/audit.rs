//! The API server's audit log as typed calls. Everything that the referee knows, it knows from here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// Which object a call is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// API group, empty for the core group.
    pub group: String,
    /// Plural, for example `pods`.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Name, or empty.
    pub name: String,
}

impl Object {
    /// Whether it is this resource and subresource.
    pub fn is(&self, group: &str, resource: &str, subresource: &str) -> bool {
        self.group == group && self.resource == resource && self.subresource == subresource
    }

    /// The object itself, whichever of its subresources was called.
    fn whole(&self) -> Self {
        Self { subresource: String::new(), ..self.clone() }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, subresource, namespace, name, .. } = self;
        let slash = if subresource.is_empty() { "" } else { "/" };
        if namespace.is_empty() {
            write!(f, "{resource}{slash}{subresource} {name}")
        } else {
            write!(f, "{resource}{slash}{subresource} {namespace}/{name}")
        }
    }
}

/// One call to the API server that was answered.
#[derive(Clone, Debug)]
pub struct Call {
    /// Place in the order of all changes: the version that etcd gave the object. Calls without one get that of the
    /// newest change before them.
    pub order: u64,
    /// When the request came.
    pub received: Timestamp,
    /// When it was answered.
    pub at: Timestamp,
    /// Who called.
    pub user: String,
    /// `create`, `update`, `patch`, `delete`, `deletecollection`, `get`, `list` or `watch`.
    pub verb: String,
    /// About what.
    pub object: Object,
    /// HTTP status of the answer.
    pub code: u16,
    /// Body of the request, if the audit policy keeps it.
    pub request: Value,
    /// Body of the answer, if the audit policy keeps it.
    pub response: Value,
    /// Whether the object was another one afterwards: a repeated write changes nothing.
    pub changed: bool,
}

impl Call {
    /// Whether it asked for a change. Who asks for his own rights creates something that is nowhere afterwards.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
            && !self.object.is("authorization.k8s.io", "selfsubjectaccessreviews", "")
    }

    /// Whether it was accepted.
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// `metadata.resourceVersion` of the answer.
    pub fn version(&self) -> Option<u64> {
        self.response["metadata"]["resourceVersion"].as_str()?.parse().ok()
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {} by {}", self.at, self.verb, self.object, self.code, self.user)
    }
}

/// Why a log is no evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogError {
    /// Nothing is in it.
    Empty,
    /// Its last line has no end.
    Cut,
    /// A line is not an audit event.
    Line {
        /// Its number, from 1.
        number: usize,
        /// What is wrong with it.
        problem: String,
    },
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the audit log is empty"),
            Self::Cut => write!(f, "the audit log is cut off in the middle of its last line"),
            Self::Line { number, problem } => write!(f, "line {number} of the audit log: {problem}"),
        }
    }
}

impl std::error::Error for LogError {}

/// A stretch of the audit log, in the order in which changes took effect.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// The calls.
    pub calls: Vec<Call>,
}

impl Log {
    /// Reads a stretch of whole lines.
    pub fn parse(text: &str) -> Result<Self, LogError> {
        if text.trim().is_empty() {
            return Err(LogError::Empty);
        }
        if !text.ends_with('\n') {
            return Err(LogError::Cut);
        }
        let calls: Result<Vec<Option<Call>>, LogError> =
            text.lines().enumerate().map(|(index, line)| call(index + 1, line)).collect();
        let mut calls: Vec<Call> = calls?.into_iter().flatten().collect();
        calls.sort_by_key(|call| call.at);
        number(&mut calls);
        calls.sort_by_key(|call| (call.order, call.at));
        mark_changes(&mut calls);
        Ok(Self { calls })
    }

    /// All calls of one user.
    pub fn by<'a>(&'a self, user: &'a str) -> impl Iterator<Item = &'a Call> {
        self.calls.iter().filter(move |call| call.user == user)
    }

    /// Whether the write that made this version is in it.
    pub fn has_version(&self, object: &str, version: &str) -> bool {
        self.calls.iter().any(|call| {
            call.object.resource == object
                && call.is_write()
                && call.response["metadata"]["resourceVersion"].as_str() == Some(version)
        })
    }
}

fn number(calls: &mut [Call]) {
    let mut newest = 0;
    for call in calls {
        let version = if call.is_write() && call.succeeded() { call.version() } else { None };
        newest = newest.max(version.unwrap_or(0));
        call.order = version.unwrap_or(newest);
    }
}

fn mark_changes(calls: &mut [Call]) {
    let mut seen: BTreeMap<Object, BTreeSet<u64>> = BTreeMap::new();
    for call in calls.iter_mut().filter(|call| call.is_write() && call.succeeded()) {
        call.changed = match call.version() {
            Some(version) => seen.entry(call.object.whole()).or_default().insert(version),
            None => true,
        };
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    stage: String,
    verb: String,
    user: User,
    #[serde(default)]
    object_ref: Option<ObjectRef>,
    #[serde(default)]
    response_status: Option<ResponseStatus>,
    #[serde(default)]
    request_object: Value,
    #[serde(default)]
    response_object: Value,
    request_received_timestamp: Timestamp,
    stage_timestamp: Timestamp,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct ResponseStatus {
    #[serde(default)]
    code: u16,
}

/// `None` for what is not about an object, such as discovery.
fn call(number: usize, line: &str) -> Result<Option<Call>, LogError> {
    let event: Event = serde_json::from_str(line)
        .map_err(|error| LogError::Line { number, problem: format!("not an audit event: {error}") })?;
    if event.stage != "ResponseComplete" {
        return Err(LogError::Line { number, problem: format!("unexpected stage {}", event.stage) });
    }
    let Some(about) = event.object_ref else { return Ok(None) };
    let created = event.response_object["metadata"]["name"].as_str();
    Ok(Some(Call {
        order: 0,
        received: event.request_received_timestamp,
        at: event.stage_timestamp,
        user: event.user.username,
        verb: event.verb,
        object: Object {
            group: about.api_group,
            resource: about.resource,
            subresource: about.subresource,
            namespace: about.namespace,
            // Names that the server makes are only in the answer.
            name: if about.name.is_empty() { created.unwrap_or_default().to_owned() } else { about.name },
        },
        code: event.response_status.map_or(0, |status| status.code),
        request: event.request_object,
        response: event.response_object,
        changed: false,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(second: u32, version: &str, code: u16) -> String {
        let event = json!({
            "stage": "ResponseComplete", "verb": "patch", "user": {"username": "somebody"},
            "objectRef": {"resource": "namespaces", "name": "shop", "apiVersion": "v1"},
            "responseStatus": {"code": code},
            "responseObject": {"metadata": {"resourceVersion": version}},
            "requestReceivedTimestamp": format!("2026-01-01T00:00:{second:02}.000000Z"),
            "stageTimestamp": format!("2026-01-01T00:00:{second:02}.500000Z"),
        });
        format!("{event}\n")
    }

    #[test]
    fn no_log_and_half_a_log_are_no_evidence() {
        assert_eq!(Log::parse("").unwrap_err(), LogError::Empty);
        assert_eq!(Log::parse("\n\n").unwrap_err(), LogError::Empty);
        let whole = line(1, "5", 200);
        assert_eq!(Log::parse(&whole[..whole.len() - 1]).unwrap_err(), LogError::Cut);
        let broken = format!("{whole}{}\n", &whole[..40]);
        assert!(matches!(Log::parse(&broken).unwrap_err(), LogError::Line { number: 2, .. }));
        assert!(Log::parse(&whole).is_ok());
    }

    #[test]
    fn changes_are_ordered_by_version_and_repetitions_are_none() {
        let text = [line(3, "7", 200), line(1, "9", 200), line(4, "9", 200), line(5, "11", 409)].concat();
        let log = Log::parse(&text).unwrap();
        let orders: Vec<(u64, bool)> = log.calls.iter().map(|call| (call.order, call.changed)).collect();
        assert_eq!(orders, [(7, true), (9, true), (9, false), (9, false)]);
        assert!(log.has_version("namespaces", "9"));
        assert!(!log.has_version("namespaces", "8"));
    }
}
