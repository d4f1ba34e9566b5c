//! Logs.

use std::io::{IsTerminal as _, stdout};

use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;

/// What is logged when RUST_LOG does not say. Failed calls are logged by us, once.
const DEFAULT_FILTER: &str = "info,kube_runtime=warn,kube_client=off";

/// Begins to log.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    match format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Text => builder.with_ansi(has_colors()).init(),
    }
}

/// A file or a pipe takes no colors.
fn has_colors() -> bool {
    stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
