//! Rules for a run that came to rest.

use meshupgrade_core::conditions::ConditionType;

use super::{Referee, Violation, rule};
use crate::world::World;

impl Referee {
    /// I10: over, or waiting for something that has a name.
    pub fn judge_rest(&self, world: &World) -> Result<(), Violation> {
        let view = &world.upgrade.view;
        if view.phase.is_over() {
            return Ok(());
        }
        rule!(
            !view.blocked.is_empty(),
            "I10: it rests in {} and says nothing of why: {}",
            view.phase,
            view.message
        );
        let person = view.blocked.iter().any(|wait| wait.reason.needs_human());
        rule!(
            !person || view.conditions.is_true(ConditionType::Stalled),
            "I10: it waits for a person and is not Stalled"
        );
        Ok(())
    }
}
