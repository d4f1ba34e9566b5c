//! Prints the CustomResourceDefinition of MeshUpgrade; with `--chart` as a template of the Helm chart.

use std::process::ExitCode;

use meshupgrade_api::crd;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let text = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => crd::yaml(),
        ["--chart"] => crd::chart_template(),
        _ => {
            eprintln!("usage: crdgen [--chart]");
            return ExitCode::from(2);
        }
    };
    match text {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
