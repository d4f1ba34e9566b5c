//! A bearer token that cannot be shown by mistake.

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;

/// An access token. There is no way to print it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token(Arc<str>);

impl Token {
    pub(super) fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The value of `Authorization`, which HTTP's own debugging output does not show either. `None` if it is no token.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.0)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(<hidden>)")
    }
}
