//! The control plane that stays when the other one is taken away: it has to work by then, with its gateways.

use crate::gate;
use crate::ids::Revision;
use crate::machine::addon_gateways;
use crate::machine::pass::Pass;
use crate::wait::WaitReason;

/// Whether `stays` can carry the mesh without `goes`. What it lacks is noted: nothing is taken away, and nobody is told to, before.
pub fn is_well(pass: &mut Pass<'_>, stays: &Revision, goes: &Revision) -> bool {
    let namespace = pass.intent.istio_namespace.clone();
    if let Some(mut wait) = gate::control_plane(pass.snapshot, &namespace, stays) {
        if wait.reason == WaitReason::IstiodNotReady {
            // Why its pods do not come up is told by the pods themselves.
            pass.needs.pods.insert(namespace);
        }
        wait.because = format!("{}; {goes} has to stay until {stays} works", wait.because);
        pass.waits.push(wait);
        return false;
    }
    addon_gateways::can_stay_alone(pass, stays, goes)
}
