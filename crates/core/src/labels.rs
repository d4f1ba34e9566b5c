//! The labels and annotations that decide injection or that MeshUpgrade writes.

/// Namespace, pod or webhook label that names an Istio revision.
pub const REVISION: &str = "istio.io/rev";
/// Namespace label of unrevisioned injection; hides [`REVISION`] from the revision's webhook when both are set.
pub const INJECTION: &str = "istio-injection";
/// Label of a webhook configuration that is a revision tag; its value is the tag.
pub const TAG: &str = "istio.io/tag";
/// Pod label (formerly annotation) that opts a pod in or out.
pub const SIDECAR_INJECT: &str = "sidecar.istio.io/inject";
/// Pod annotation that names the injection templates; a template called `gateway` makes an injected gateway.
pub const INJECT_TEMPLATES: &str = "inject.istio.io/templates";
/// Namespace or pod label of ambient mode.
pub const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
/// Pod annotation that overrides the proxy image.
pub const PROXY_IMAGE: &str = "sidecar.istio.io/proxyImage";
/// Pod label of proxies that istiod renders itself from a Gateway API object.
pub const GATEWAY_MANAGED: &str = "gateway.istio.io/managed";
/// Pod label that names the Gateway API object of a managed proxy.
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// Field manager of every write of the operator. Flux strips managers that begin with `kubectl`.
pub const FIELD_MANAGER: &str = "meshupgrade-operator";
/// Pod-template annotation that restarts a workload; its value is a constant of the attempt ([`crate::record::Run::stamp`]).
pub const RESTART: &str = "meshupgrade.io/restart";
/// Namespace annotation: the label values before the first relabelling, as JSON ([`crate::observed::PreviousLabels`]).
pub const PREVIOUS_LABELS: &str = "meshupgrade.io/previous-labels";
/// Namespace annotation: which run, direction and attempt wrote the label last.
pub const RELABELLED_BY: &str = "meshupgrade.io/relabelled-by";
/// ConfigMap annotation: it is a copy that MeshUpgrade made, as JSON ([`crate::mesh_config::CopyMark`]).
pub const MESH_CONFIG_COPY: &str = "meshupgrade.io/mesh-config-copy";
/// Annotation on the MeshUpgrade: a new value asks for one more attempt of what is blocked.
pub const RETRY: &str = "meshupgrade.io/retry";
/// Annotation on the MeshUpgrade: one of the values in `status.actions`, for example `approve/3f9c2a1b`.
pub const ACTION: &str = "meshupgrade.io/action";

/// Namespaces that Istio never injects, whatever their labels.
/// Source: `IgnoredNamespaces` of Istio's injector (pkg/kube/inject).
pub const NEVER_INJECTED: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];
