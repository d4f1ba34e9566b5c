//! Services of type LoadBalancer.

use std::collections::BTreeSet;

use meshupgrade_core::observed::LoadBalancer;
use serde::Deserialize;

use super::Observed;
use crate::slim::{self, Slim};

/// The type of a Service that is reached from outside.
const LOAD_BALANCER: &str = "LoadBalancer";

/// A Service, as far as it is parsed.
pub type RawService = Slim<ServiceSpec, ServiceStatus>;

slim::resource!(RawService, NamespaceResourceScope, "", "v1", "Service", "services");

/// `spec` of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceSpec {
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// `status` of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    load_balancer: Option<LoadBalancerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct LoadBalancerStatus {
    ingress: Option<Vec<Ingress>>,
}

/// A cloud gives an IP address or a host name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Ingress {
    ip: Option<String>,
    hostname: Option<String>,
}

impl Observed for RawService {
    type Key = String;
    type Value = LoadBalancer;

    fn key(&self) -> String {
        self.metadata.name.clone().unwrap_or_default()
    }

    fn observe(self) -> Option<LoadBalancer> {
        self.spec.kind.as_deref().filter(|kind| *kind == LOAD_BALANCER)?;
        let ingress = self.status.load_balancer.and_then(|status| status.ingress).unwrap_or_default();
        let addresses = ingress.into_iter().flat_map(|one| [one.ip, one.hostname]).flatten();
        Some(LoadBalancer {
            name: self.metadata.name.unwrap_or_default(),
            addresses: addresses.filter(|address| !address.is_empty()).collect::<BTreeSet<String>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn observe(kind: &str, load_balancer: &Value) -> Option<LoadBalancer> {
        let raw = json!({
            "metadata": {"name": "edge", "namespace": "aks-istio-ingress"},
            "spec": {"type": kind, "clusterIP": "10.0.0.1"}, "status": {"loadBalancer": load_balancer},
        });
        serde_json::from_value::<RawService>(raw).unwrap().observe()
    }

    #[test]
    fn addresses_and_host_names_are_read_of_load_balancers_only() {
        let ingress = json!({"ingress": [{"ip": "20.0.0.1", "ipMode": "VIP"}, {"hostname": "edge.example"}, {"ip": ""}]});
        let found = observe("LoadBalancer", &ingress).unwrap();
        assert_eq!(
            (found.name.as_str(), found.addresses),
            ("edge", ["20.0.0.1", "edge.example"].map(Into::into).into())
        );
        assert_eq!(observe("ClusterIP", &ingress), None);
        for none in [json!({}), json!(null), json!({"ingress": null})] {
            assert_eq!(observe("LoadBalancer", &none).unwrap().addresses, BTreeSet::new());
        }
    }
}
