//! `demo`: a real control plane, a believable mesh, and its upgrade from one Istio revision to the other, live in the
//! terminal. The mesh is the add-on of AKS, with a simulated Azure. With `--rollback` one workload does not come up on the new
//! revision, and everything goes back; with `--self-managed` there is no Azure, and somebody else installs and removes istiods.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use meshupgrade_e2e::interrupt::{INTERRUPTED, until_interrupted};
use tokio::runtime::Runtime;

mod check;
mod clocks;
mod cloud;
mod cloud_check;
#[cfg(test)]
mod fixture;
mod journal;
mod line;
mod screen;
mod sight;
mod stage;
mod story;
mod town;
mod view;
mod watch;

const USAGE: u8 = 2;

fn main() -> ExitCode {
    let Some((plot, spent)) = arguments(std::env::args().skip(1)) else {
        eprintln!("usage: demo [--rollback | --self-managed] [--since SECONDS-OF-THE-EPOCH]");
        return ExitCode::from(USAGE);
    };
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(until_interrupted(story::tell(plot, spent)));
    // A build that was interrupted: nobody waits for it.
    runtime.shutdown_background();
    match ended {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
        None => {
            eprintln!("\ninterrupted: everything that ran is ended");
            ExitCode::from(INTERRUPTED)
        }
    }
}

/// Which demo, and how much time was spent on it before this program began.
fn arguments(mut given: impl Iterator<Item = String>) -> Option<(&'static story::Plot, Duration)> {
    let mut plot = &story::FORWARD;
    let mut spent = Duration::ZERO;
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--rollback" => plot = &story::BACK,
            "--self-managed" => plot = &story::SELF_MANAGED,
            "--since" => {
                let since = UNIX_EPOCH + Duration::from_secs(given.next()?.parse().ok()?);
                spent = SystemTime::now().duration_since(since).unwrap_or_default();
            }
            _ => return None,
        }
    }
    Some((plot, spent))
}

#[cfg(test)]
mod tests {
    use meshupgrade_e2e::Kind;

    use super::*;

    #[test]
    fn arguments_choose_the_demo() {
        let given =
            |list: &[&str]| arguments(list.iter().map(ToString::to_string).collect::<Vec<_>>().into_iter());
        assert_eq!(given(&[]).unwrap().0.kind, Kind::Aks);
        assert!(!given(&[]).unwrap().0.fails);
        assert_eq!(given(&["--self-managed"]).unwrap().0.kind, Kind::SelfManaged);
        let (plot, spent) = given(&["--rollback", "--since", "1000"]).unwrap();
        assert!(plot.fails && spent > Duration::from_hours(24));
        assert!(given(&["--since"]).is_none());
        assert!(given(&["--fast"]).is_none());
    }
}
