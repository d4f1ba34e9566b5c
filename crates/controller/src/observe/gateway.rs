//! Gateways of the Gateway API.

use meshupgrade_core::ids::GatewayRef;
use meshupgrade_core::labels;
use meshupgrade_core::observed::Gateway;
use serde::Deserialize;

use super::Observed;
use super::namespace::parse_previous;
use crate::slim::{self, Slim};

/// The class for which istiod renders Deployments. Source: `defaultClassName` in
/// pilot/pkg/features of Istio; a class of one's own for the same controller is reported and not moved.
const MANAGED_CLASS: &str = "istio";

/// A Gateway of the Gateway API, as far as it is parsed.
pub type RawGateway = Slim<GatewaySpec>;

slim::resource!(RawGateway, NamespaceResourceScope, "gateway.networking.k8s.io", "v1", "Gateway", "gateways");

/// `spec` of a Gateway.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewaySpec {
    /// Which controller it is for.
    pub gateway_class_name: String,
}

impl Observed for RawGateway {
    type Key = GatewayRef;
    type Value = Gateway;

    fn key(&self) -> GatewayRef {
        GatewayRef {
            namespace: self.metadata.namespace.clone().unwrap_or_default().into(),
            name: self.metadata.name.clone().unwrap_or_default(),
        }
    }

    fn observe(self) -> Option<Gateway> {
        let reference = self.key();
        let metadata = self.metadata;
        let annotations = metadata.annotations.unwrap_or_default();
        Some(Gateway {
            reference,
            uid: metadata.uid.unwrap_or_default().into(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            managed: self.spec.gateway_class_name == MANAGED_CLASS,
            revision: metadata.labels.and_then(|mut labels| labels.remove(labels::REVISION)),
            previous: annotations.get(labels::PREVIOUS_LABELS).and_then(|text| parse_previous(text)),
            relabelled_by: annotations.get(labels::RELABELLED_BY).cloned(),
            terminating: metadata.deletion_timestamp.is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_class_and_our_annotations_are_read() {
        let raw = json!({
            "metadata": {
                "name": "edge", "namespace": "shop", "uid": "u-1", "resourceVersion": "7",
                "labels": {"istio.io/rev": "asm-1-27", "team": "edge"},
                "annotations": {
                    "meshupgrade.io/previous-labels": r#"{"from":"asm-1-27","to":"asm-1-28"}"#,
                    "meshupgrade.io/relabelled-by": "u.1.forward.1.pin",
                },
            },
            "spec": {"gatewayClassName": "istio", "listeners": []},
        });
        let gateway = serde_json::from_value::<RawGateway>(raw).unwrap().observe().unwrap();
        assert_eq!(gateway.reference.to_string(), "Gateway shop/edge");
        assert_eq!((gateway.revision.as_deref(), gateway.managed), (Some("asm-1-27"), true));
        assert_eq!(gateway.relabelled_by.as_deref(), Some("u.1.forward.1.pin"));
        assert_eq!(gateway.previous.and_then(|previous| previous.revision), None);
    }

    #[test]
    fn a_waypoint_is_not_rendered_as_a_gateway() {
        let raw = json!({"metadata": {"name": "w"}, "spec": {"gatewayClassName": "istio-waypoint"}});
        assert!(!serde_json::from_value::<RawGateway>(raw).unwrap().observe().unwrap().managed);
    }
}
