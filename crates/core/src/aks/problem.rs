//! What went wrong with ARM or with the sign-in: what happened, why, and what to do about it.
//!
//! The words of Azure are matched by fragments that have stayed the same over the years, in any case, and are repeated only
//! in part and cleaned ([`super::words`]). What the operator does follows from the [`Class`], never from words.

mod known;
mod sign_in;

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

use super::symptom::Explanation;
use super::words::clean;
use known::{Kind, Known};

/// How deep errors inside errors are followed.
const DEEPEST: usize = 4;
/// How many errors inside an error are told.
const MOST_DETAILS: usize = 3;

/// Something that ARM or the sign-in service did not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArmProblem {
    /// What follows from it.
    pub class: Class,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// Azure's code, such as `OperationNotAllowed`, or one of our own for what never reached Azure; may be empty.
    pub code: String,
    /// Azure's words, cleaned and cut; may be empty.
    pub message: String,
    /// What happened, why, and what to do about it.
    pub told: Box<Explanation>,
    /// `x-ms-request-id` of the answer: what Azure's support asks for.
    pub request_id: Option<String>,
}

/// What follows from a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// Another operation runs on the cluster, or it is not in order: try again later.
    Wait {
        /// Which one, as far as Azure says.
        operation: String,
    },
    /// The cluster is not what was read any more: read it again and decide anew.
    Changed,
    /// It will be refused again until the MeshUpgrade or the cluster is another one.
    Terminal,
    /// A right is missing, or taken away by a lock or a policy: try again seldom.
    Permission {
        /// The action that is not allowed.
        action: String,
    },
    /// Azure does not accept who we are: try again seldom.
    SignIn,
    /// Too many calls, not only ours: try again after this.
    Throttled {
        /// In seconds; `None` if Azure does not say.
        retry_after_seconds: Option<u64>,
    },
    /// Nothing was changed: try again.
    Transient {
        /// In seconds; `None` if Azure does not say.
        retry_after_seconds: Option<u64>,
    },
    /// Two revisions are installed: read from the cluster which.
    UpgradeInProgress,
    /// Whether a change was accepted is not known: read the cluster.
    Unknown,
}

impl Class {
    /// The class as reasons, events and metric labels write it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Wait { .. } => "Wait",
            Self::Changed => "Changed",
            Self::Terminal => "Terminal",
            Self::Permission { .. } => "Permission",
            Self::SignIn => "SignIn",
            Self::Throttled { .. } => "Throttled",
            Self::Transient { .. } => "Transient",
            Self::UpgradeInProgress => "UpgradeInProgress",
            Self::Unknown => "Unknown",
        }
    }
}

/// What was asked of ARM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// `GET` of the cluster.
    Cluster,
    /// `GET` of its `meshUpgradeProfiles`.
    Upgrades,
    /// `GET` of the region's `meshRevisionProfiles`.
    Revisions,
    /// `PUT` of the cluster.
    SetRevisions,
    /// `GET` of the status of an operation.
    Operation,
}

impl Asked {
    /// The action that a role must allow for it. That of operations is inferred from the type of the resource.
    pub fn action(self) -> &'static str {
        match self {
            Self::Cluster => "Microsoft.ContainerService/managedClusters/read",
            Self::Upgrades => "Microsoft.ContainerService/managedClusters/meshUpgradeProfiles/read",
            Self::Revisions => "Microsoft.ContainerService/locations/meshRevisionProfiles/read",
            Self::SetRevisions => "Microsoft.ContainerService/managedClusters/write",
            Self::Operation => "Microsoft.ContainerService/locations/operations/read",
        }
    }

    /// What did not happen, as a sentence.
    pub fn failed(self) -> &'static str {
        match self {
            Self::Cluster => "The cluster could not be read from Azure.",
            Self::Upgrades => "The upgrades that Azure offers to the cluster could not be read.",
            Self::Revisions => "The mesh revisions that Azure offers in the region could not be read.",
            Self::SetRevisions => "Azure did not accept the cluster's new list of mesh revisions.",
            Self::Operation => "The operation on the cluster failed, or its state could not be read.",
        }
    }
}

/// An answer that is no success.
#[derive(Clone, Debug)]
pub struct Answer<'a> {
    /// The HTTP status; `None` for the error of an operation that failed after it was accepted.
    pub status: Option<u16>,
    /// `Retry-After`, in seconds.
    pub retry_after_seconds: Option<u64>,
    /// `x-ms-request-id`.
    pub request_id: Option<String>,
    /// The body; null if it is no JSON.
    pub body: &'a Value,
}

impl ArmProblem {
    /// A problem that is not in an answer: the sentences say what happened, why, and what to do.
    pub fn own(class: Class, code: &str, what: &str, why: &str, remedy: &str) -> Self {
        Self {
            class,
            status: None,
            code: code.to_owned(),
            message: String::new(),
            told: Box::new(Explanation {
                what: what.to_owned().into(),
                why: why.to_owned().into(),
                remedy: remedy.to_owned().into(),
            }),
            request_id: None,
        }
    }

    /// The same, said of something else: `what` is the sentence that says what happened.
    #[must_use]
    pub fn about(mut self, what: &'static str) -> Self {
        self.told.what = what.into();
        self
    }

    /// A problem from an answer of ARM.
    pub fn from_answer(asked: Asked, answer: &Answer<'_>) -> Self {
        let words = Words::read(answer.body);
        let known = status_class(asked, answer).is_none().then(|| known::find(&words.all)).flatten();
        let class = match known {
            Some(known) => class_of(known, asked, &words),
            None => status_class(asked, answer).unwrap_or_else(|| other_class(asked, answer, &words)),
        };
        let told = match known {
            Some(known) => known.explanation(),
            None => general(asked, &class, answer.status),
        };
        Self {
            class,
            status: answer.status,
            code: words.code,
            message: words.message,
            told: Box::new(told),
            request_id: answer.request_id.as_deref().and_then(request_id),
        }
    }

    /// A problem from an answer of the sign-in service or of the managed identities' endpoint.
    pub fn from_sign_in(answer: &Answer<'_>) -> Self {
        sign_in::problem(answer)
    }
}

/// What happened, why, what to do, and Azure's own words at the end.
impl fmt::Display for ArmProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told.what)?;
        for sentence in
            [&self.told.why, &self.told.remedy].into_iter().filter(|sentence| !sentence.is_empty())
        {
            write!(f, " {sentence}")?;
        }
        let words: Vec<&str> =
            [self.code.as_str(), self.message.as_str()].into_iter().filter(|text| !text.is_empty()).collect();
        if words.is_empty() { Ok(()) } else { write!(f, " ({})", words.join(": ")) }
    }
}

/// What some states mean whatever the body says.
fn status_class(asked: Asked, answer: &Answer<'_>) -> Option<Class> {
    let retry_after_seconds = answer.retry_after_seconds;
    match answer.status? {
        401 => Some(Class::SignIn),
        412 => Some(Class::Changed),
        429 => Some(Class::Throttled { retry_after_seconds }),
        // It may have been carried out by something behind what answered.
        408 | 500..=599 if asked == Asked::SetRevisions => Some(Class::Unknown),
        408 | 500..=599 => Some(Class::Transient { retry_after_seconds }),
        _ => None,
    }
}

/// What the other states mean when the words are not known.
fn other_class(asked: Asked, answer: &Answer<'_>, words: &Words) -> Class {
    match answer.status {
        Some(403) => permission(asked, words),
        Some(409) => Class::Wait { operation: words.operation() },
        // Azure forgets operations after a while. The cluster knows how it ended.
        Some(404 | 410) if asked == Asked::Operation => Class::Unknown,
        // A redirect, or a success that is none: who answers is not ARM.
        Some(..400) if asked == Asked::SetRevisions => Class::Unknown,
        Some(..400) => Class::Transient { retry_after_seconds: None },
        None if words.all.contains("internalservererror") || words.all.contains("internaloperationerror") => {
            Class::Transient { retry_after_seconds: None }
        }
        Some(_) | None => Class::Terminal,
    }
}

fn class_of(known: &Known, asked: Asked, words: &Words) -> Class {
    match known.kind {
        Kind::Wait => Class::Wait { operation: words.operation() },
        Kind::Changed => Class::Changed,
        Kind::Terminal => Class::Terminal,
        Kind::Permission => permission(asked, words),
        Kind::UpgradeInProgress => Class::UpgradeInProgress,
    }
}

fn permission(asked: Asked, words: &Words) -> Class {
    Class::Permission { action: words.action().unwrap_or_else(|| asked.action().to_owned()) }
}

/// What to tell when only the class is known.
fn general(asked: Asked, class: &Class, status: Option<u16>) -> Explanation {
    let (why, remedy): (Cow<'static, str>, Cow<'static, str>) = match class {
        Class::Wait { operation } => {
            (format!("Azure answers that something else goes on: {operation}.").into(), AGAIN.into())
        }
        Class::Permission { action } => (
            format!("The operator's identity may not do {action}.").into(),
            format!(
                "Give it a role with that action; the scope is {}. It can take some minutes until it counts.",
                scope(asked)
            )
            .into(),
        ),
        _ => {
            let (why, remedy) = general_words(asked, class, status);
            (why.into(), remedy.into())
        }
    };
    Explanation { what: asked.failed().into(), why, remedy }
}

const AGAIN: &str = "The operator tries again by itself.";

fn general_words(asked: Asked, class: &Class, status: Option<u16>) -> (&'static str, &'static str) {
    match class {
        Class::Changed => (
            "The cluster was changed by somebody else since it was read.",
            "The operator reads it again by itself.",
        ),
        Class::SignIn => (
            "Azure Resource Manager does not accept the operator's token.",
            "Check that the operator's tenant is that of the subscription, and that its endpoint and authority belong to the same cloud.",
        ),
        Class::Throttled { .. } => {
            ("There were too many calls to Azure, of all who use this subscription.", AGAIN)
        }
        Class::Transient { .. } => ("Azure did not give a usable answer.", AGAIN),
        Class::Unknown if asked == Asked::SetRevisions => (
            "Whether Azure accepted the change is not known.",
            "The operator reads the cluster before it does anything else.",
        ),
        Class::Unknown => {
            ("Azure does not know this operation any more.", "The operator goes by the state of the cluster.")
        }
        Class::UpgradeInProgress => {
            ("Two revisions are installed.", "Complete or roll back the open upgrade first.")
        }
        Class::Terminal if status == Some(404) => (
            "Azure does not find it.",
            "Check subscription, resource group and name of the cluster in the MeshUpgrade, and that the operator's identity may read it.",
        ),
        Class::Terminal | Class::Wait { .. } | Class::Permission { .. } => {
            ("", "See what Azure says, and correct the cluster or the MeshUpgrade.")
        }
    }
}

fn scope(asked: Asked) -> &'static str {
    match asked {
        Asked::Cluster | Asked::Upgrades | Asked::SetRevisions => "the cluster or its resource group",
        // Their paths do not contain the cluster.
        Asked::Revisions | Asked::Operation => "the subscription",
    }
}

/// A request id is a UUID or something like it.
fn request_id(text: &str) -> Option<String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (plain && (1..=64).contains(&text.len())).then(|| text.to_owned())
}

/// The words of an error, from either of its two forms: `{"error": {code, message, details}}`, or the same without `error`
/// and with `subcode`.
#[derive(Debug)]
struct Words {
    code: String,
    message: String,
    /// Everything, in lower case, to look for fragments in. Not cleaned.
    all: String,
    /// All messages as they came.
    raw: String,
}

impl Words {
    fn read(body: &Value) -> Self {
        let error = body.get("error").filter(|error| error.is_object()).unwrap_or(body);
        let mut found = Vec::new();
        collect(error, 0, &mut found);
        let raw = found.iter().map(|(_, message)| *message).collect::<Vec<_>>().join("\n");
        let codes = found.iter().map(|(code, _)| *code).chain(error.get("subcode").and_then(Value::as_str));
        let all = codes.chain([raw.as_str()]).collect::<Vec<_>>().join("\n").to_lowercase();
        let code = found.first().map_or("", |(code, _)| *code);
        let mut told: Vec<&str> = Vec::new();
        for (_, message) in found.iter().filter(|(_, message)| !message.is_empty()) {
            if told.len() <= MOST_DETAILS && !told.iter().any(|before| before.contains(*message)) {
                told.push(message);
            }
        }
        Self { code: clean(code), message: clean(&told.join("; ")), all, raw }
    }

    /// The operation that is in the way: `Another operation (nodepool1 - Updating) is in progress` (issue 417 of
    /// Azure/azure-workload-identity), or `there's an in progress update managed cluster operation (operation ID: …)`
    /// (pull request 9855 of Azure/azure-cli-extensions).
    fn operation(&self) -> String {
        let lower = self.raw.to_ascii_lowercase();
        let between = |start: &str, end: &str| {
            let from = lower.find(start)? + start.len();
            let to = from + lower[from..].find(end)?;
            self.raw.get(from..to)
        };
        let named = if lower.contains("another ") {
            between("operation (", ")")
        } else {
            between("an in progress ", " operation")
        };
        named.map_or_else(|| "another operation".to_owned(), clean)
    }

    /// The action that is not allowed: `… perform action 'Microsoft.X/y/write' …`. A message about a linked resource names the action that is
    /// allowed first.
    fn action(&self) -> Option<String> {
        let (_, rest) = self.raw.rsplit_once("perform action")?;
        let action = rest.split(['\'', '"', '\n']).nth(1)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '*' | '-' | '_');
        (action.contains('/') && action.len() <= 200 && action.chars().all(plain)).then(|| action.to_owned())
    }
}

fn collect<'a>(error: &'a Value, depth: usize, found: &mut Vec<(&'a str, &'a str)>) {
    let field = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
    found.push((field("code"), field("message")));
    let details = error.get("details").and_then(Value::as_array).into_iter().flatten();
    if depth < DEEPEST {
        details.for_each(|detail| collect(detail, depth + 1, found));
    }
}

#[cfg(test)]
mod tests;
