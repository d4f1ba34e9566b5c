//! What is wrong with a field.

use std::fmt;

/// One finding about one field of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldError {
    /// Path of the field, for example `spec.waves[0].name`.
    pub field: String,
    /// What is wrong with it, as the end of a sentence that begins with the field.
    pub message: String,
}

impl FieldError {
    /// A finding from its parts.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl std::error::Error for FieldError {}
