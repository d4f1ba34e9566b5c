//! `validate`: looks at manifests without a cluster.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use meshupgrade_api::structure;
use serde_json::Value;
use serde_saphyr::UserMessageFormatter;

use crate::Exit;

/// Check MeshUpgrade manifests without a cluster.
///
/// Says what the API server would say, and more: unknown fields are errors. Documents of other kinds are passed over.
/// What depends on the state of the cluster, such as a change in the middle of a run, is not known here.
///
/// Ends with 0 when all manifests are valid, 3 when one is not, 2 for wrong arguments, 1 when a file cannot be read.
#[derive(Debug, Args)]
pub(crate) struct Validate {
    /// File with one or more YAML or JSON documents; `-` reads standard input. May be repeated.
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

impl Validate {
    /// Prints one line for each valid object and for each finding.
    pub(crate) fn run(&self) -> Exit {
        let mut exit = Exit::Ok;
        for file in &self.files {
            exit = exit.max(validate_file(file));
        }
        exit
    }
}

fn validate_file(file: &Path) -> Exit {
    let name = if file == Path::new("-") { "stdin".to_owned() } else { file.display().to_string() };
    let result = read(file).and_then(|text| {
        let (lines, exit) = report(&name, &text);
        let mut out = io::stdout().lock();
        for line in lines {
            writeln!(out, "{line}")?;
        }
        Ok(exit)
    });
    result.unwrap_or_else(|error| {
        eprintln!("error: {name}: {error}");
        Exit::Error
    })
}

fn read(file: &Path) -> io::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text)?;
        return Ok(text);
    }
    fs::read_to_string(file)
}

/// What is said about the text of one file.
fn report(file: &str, text: &str) -> (Vec<String>, Exit) {
    let options = serde_saphyr::options! { with_snippet: false };
    let documents: Vec<Value> = match serde_saphyr::from_multiple_with_options(text, options) {
        Ok(documents) => documents,
        Err(error) => {
            let message = error.render_with_formatter(&UserMessageFormatter);
            return (vec![format!("{file}: {message}")], Exit::Invalid);
        }
    };
    let mut lines = Vec::new();
    let mut exit = Exit::Ok;
    let ours = documents.into_iter().filter(|document| !structure::is_foreign(document));
    for document in ours {
        let title = format!("meshupgrade/{}", structure::name(&document).unwrap_or("<no name>"));
        match structure::parse(document) {
            Ok(_) => lines.push(format!("{file}: {title}: valid")),
            Err(errors) => {
                lines.extend(errors.iter().map(|error| format!("{file}: {title}: {error}")));
                exit = Exit::Invalid;
            }
        }
    }
    if lines.is_empty() {
        lines.push(format!("{file}: has no MeshUpgrade"));
        exit = Exit::Invalid;
    }
    (lines, exit)
}
