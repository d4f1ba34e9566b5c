//! Whether it will be seen if the gateways of the AKS add-on lose their addresses.

use super::{CheckInput, Finding, warning};
use crate::aks::gateways::default_namespaces;

/// Namespaces of the add-on's gateways that are there, and whose Services cannot be read.
pub(super) fn find(input: &CheckInput<'_>) -> Finding {
    if !input.intent.is_addon() {
        return Finding::Nothing;
    }
    let unread = default_namespaces().filter(|name| {
        input.snapshot.namespaces.contains_key(name) && !input.snapshot.gateway_services.contains_key(name)
    });
    warning(unread.map(|name| name.to_string()), |names| {
        format!(
            "Services in {names} cannot be read, so that nobody will notice if a gateway's address changes with the start of {}: give \
             the operator that right (chart value aks.gatewayNamespaces), or look yourself, kubectl get services -n NAMESPACE",
            input.target
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Mesh, said};
    use crate::aks::{INGRESS_NAMESPACE, ISTIO_NAMESPACE};

    #[test]
    fn services_that_cannot_be_read_are_told_where_there_are_gateways() {
        let ingress = INGRESS_NAMESPACE;
        let told = |mesh: &Mesh| {
            said(&mesh.preflight()).into_iter().find(|text| text.starts_with("AksGatewayAddressesReadable"))
        };
        let mut mesh = Mesh::before();
        mesh.add_namespace(ingress, &[]);
        assert_eq!(told(&mesh), None, "not the add-on");
        mesh.intent.istio_namespace = ISTIO_NAMESPACE.into();
        let text = told(&mesh).unwrap();
        assert!(text.contains("Warning: Services in aks-istio-ingress cannot be read"), "{text}");
        mesh.snapshot.gateway_services.insert(ingress.into(), Vec::new());
        assert_eq!(told(&mesh), None);
    }
}
