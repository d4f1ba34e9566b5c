//! The watch of MeshUpgrades themselves, in the store that the controller wants.

use std::sync::Arc;

use kube::core::DeserializeGuard;
use kube::runtime::reflector::{Store, store::Writer};
use kube::runtime::watcher::Event;
use kube::{Api, ResourceExt};
use meshupgrade_api::MeshUpgrade;

use crate::context::Context;

/// A MeshUpgrade, or what is left of one that cannot be parsed: it must not stop the watch of the others.
pub type Guarded = DeserializeGuard<MeshUpgrade>;
/// All MeshUpgrades.
pub type UpgradeStore = Store<Guarded>;

/// Watches MeshUpgrades for ever.
pub async fn run(context: Arc<Context>, mut writer: Writer<Guarded>) {
    let api: Api<Guarded> = Api::all(context.clients.watches());
    super::each_event(api, context.health.clone(), |event: Event<Guarded>| {
        let event = event.modify(|object| object.managed_fields_mut().clear());
        writer.apply_watcher_event(&event);
        match event {
            Event::Init | Event::InitApply(_) => return,
            Event::Apply(object) if context.is_own_echo(&object) => return,
            Event::Apply(_) => {}
            // A deletion may have been missed before a new list as well.
            Event::Delete(_) | Event::InitDone => context.forget_deleted(),
        }
        context.poke.poke();
    })
    .await;
}
