//! The addresses of the AKS add-on's gateways. The gateways of both revisions are behind one Service, which is to keep its address
//! (`istio-upgrade.md` of Azure's documentation): that is looked at after the start of the target, before any label is written.

use std::collections::{BTreeMap, BTreeSet};

use crate::decision::About;
use crate::gate;
use crate::ids::ServiceRef;
use crate::machine::pass::Pass;
use crate::observed::LoadBalancer;
use crate::record::{MAX_GATEWAY_ADDRESSES, MAX_GATEWAY_SERVICES};
use crate::wait::WaitReason;

/// A Service that lost an address.
struct Change {
    service: ServiceRef,
    before: BTreeSet<String>,
    now: BTreeSet<String>,
}

/// Keeps the addresses as they are, up to the moment in which the target's control plane is there. A namespace whose Services are not
/// known keeps what was known of it.
pub fn remember(pass: &mut Pass<'_>) {
    let (source, target) = pass.revisions();
    let too_late = !gate::is_gone(pass.snapshot, &target) && !pass.run.gateway_addresses.is_empty();
    if !pass.intent.is_addon() || source == target || too_late {
        return;
    }
    let mut addresses = pass.run.gateway_addresses.clone();
    for (namespace, services) in &pass.snapshot.gateway_services {
        addresses.retain(|key, _| key.split_once('/').is_none_or(|(of, _)| of != namespace.as_str()));
        let reachable = services.iter().filter(|service| !service.addresses.is_empty());
        addresses.extend(reachable.map(|service| (format!("{namespace}/{}", service.name), some(service))));
    }
    pass.run.gateway_addresses = addresses.into_iter().take(MAX_GATEWAY_SERVICES).collect();
}

fn some(service: &LoadBalancer) -> BTreeSet<String> {
    service.addresses.iter().take(MAX_GATEWAY_ADDRESSES).cloned().collect()
}

/// Whether the Services still have the addresses that were remembered. A retry accepts what they have instead; otherwise each that
/// lost one is noted. One that gained an address has lost nothing.
pub fn kept(pass: &mut Pass<'_>) -> bool {
    let changes = changes(pass);
    let accepted = pass.retries_all();
    for change in &changes {
        if accepted {
            accept(pass, change);
        } else {
            tell(pass, change);
        }
    }
    accepted || changes.is_empty()
}

fn changes(pass: &Pass<'_>) -> Vec<Change> {
    let services = &pass.snapshot.gateway_services;
    let change = |(key, before): (&String, &BTreeSet<String>)| {
        let (namespace, name) = key.split_once('/')?;
        // Without a right to read them, or while they are being read, nothing is known and nothing held up.
        let there = services.get(&namespace.into())?;
        let now = there.iter().find(|service| service.name == name).map(|service| service.addresses.clone());
        let now = now.unwrap_or_default();
        let service = ServiceRef { namespace: namespace.into(), name: name.to_owned() };
        (!before.is_subset(&now)).then(|| Change { service, before: before.clone(), now })
    };
    pass.run.gateway_addresses.iter().filter_map(change).collect()
}

fn accept(pass: &mut Pass<'_>, change: &Change) {
    let key = format!("{}/{}", change.service.namespace, change.service.name);
    let addresses: &mut BTreeMap<String, BTreeSet<String>> = &mut pass.run.gateway_addresses;
    if change.now.is_empty() {
        addresses.remove(&key);
    } else {
        addresses.insert(key, change.now.iter().take(MAX_GATEWAY_ADDRESSES).cloned().collect());
    }
    let note =
        format!("{} may have {} instead of {}", change.service, shown(&change.now), shown(&change.before));
    pass.event(false, "RetryAccepted", Some(About::Service(change.service.clone())), note);
}

fn tell(pass: &mut Pass<'_>, change: &Change) {
    let Change { service, before, now } = change;
    let retry = pass.how_to_retry("accepts what it has now");
    let because = format!(
        "{service} had {} before {} was started, and has {} now: what uses the old address (DNS records, firewall rules, clients) \
         does not reach the gateways any more. Give it its address back (kubectl describe service {} -n {} shows what happened), or \
         let all of that use the new one, and then: {retry}. spec.rollback.requested: true goes back before anything is moved",
        shown(before),
        pass.run.target,
        shown(now),
        service.name,
        service.namespace
    );
    pass.wait(WaitReason::GatewayAddressChanged, Some(About::Service(service.clone())), because);
}

fn shown(addresses: &BTreeSet<String>) -> String {
    let all: Vec<&str> = addresses.iter().map(String::as_str).collect();
    if all.is_empty() { "no address".to_owned() } else { all.join(", ") }
}
