//! ConfigMaps of an Istio namespace: injectors and mesh configurations of the revisions.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meshupgrade_core::ids::Revision;
use meshupgrade_core::labels;
use meshupgrade_core::mesh_config::{self, SharedMesh};
use meshupgrade_core::observed::{DEFAULT_TRUST_DOMAIN, MeshConfig};
use serde::Deserialize;
use serde_json::Value;

use super::Observed;
use crate::slim;

/// Revision of an installation without revisions.
const DEFAULT_REVISION: &str = "default";

/// A ConfigMap, as far as it is parsed.
#[derive(Clone, Debug, Deserialize)]
pub struct RawConfigMap {
    #[serde(default, deserialize_with = "slim::slim_metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    data: Data,
}

slim::resource!(RawConfigMap, NamespaceResourceScope, "", "v1", "ConfigMap", "configmaps");

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Data {
    mesh: Option<String>,
    values: Option<String>,
}

/// What a ConfigMap of an Istio namespace is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigMapSeen {
    /// The injector's templates of a revision, with the image of the proxies that it adds, if its values say so.
    Injector(Revision, Option<String>),
    /// The mesh configuration of a revision.
    Mesh(Revision, MeshSettings),
    /// What users of the AKS add-on put beside it; the add-on's own values win.
    SharedMesh(Arc<SharedMesh>, MeshSettings),
}

/// The settings that matter, where they are set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshSettings {
    trust_domain: Option<String>,
    discovery_selectors: Option<String>,
    /// The text is no YAML of a mesh configuration.
    unreadable: bool,
}

impl Observed for RawConfigMap {
    type Key = String;
    type Value = ConfigMapSeen;

    fn key(&self) -> String {
        self.metadata.name.clone().unwrap_or_default()
    }

    fn observe(self) -> Option<ConfigMapSeen> {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        let label = self.metadata.labels.as_ref().and_then(|all| all.get(labels::REVISION));
        // The label is newer than the name and tells `istio-a` (revision a) from other maps that begin so.
        let revision = |prefix: &str| {
            let suffix = suffix_revision(name, prefix)?;
            Some(Revision(label.cloned().unwrap_or(suffix)))
        };
        if let Some(revision) = revision("istio-sidecar-injector") {
            return Some(ConfigMapSeen::Injector(
                revision,
                self.data.values.as_deref().and_then(proxy_image),
            ));
        }
        // The add-on goes by the name alone: it is the users' object.
        if let Some(suffix) = suffix_revision(name, mesh_config::NAME) {
            let revision = Revision(suffix);
            return Some(self.into_shared(revision));
        }
        let settings = settings(self.data.mesh.as_deref()?);
        revision("istio").map(|revision| ConfigMapSeen::Mesh(revision, settings))
    }
}

impl RawConfigMap {
    fn into_shared(self, revision: Revision) -> ConfigMapSeen {
        let settings = self.data.mesh.as_deref().map(settings).unwrap_or_default();
        let annotations = self.metadata.annotations.as_ref();
        let mark = annotations.and_then(|all| all.get(labels::MESH_CONFIG_COPY));
        let map = SharedMesh {
            revision,
            uid: self.metadata.uid.unwrap_or_default().into(),
            resource_version: self.metadata.resource_version.unwrap_or_default(),
            text: self.data.mesh,
            // A mark that is not ours to read makes it somebody else's.
            mark: mark.and_then(|text| serde_json::from_str(text).ok()),
        };
        ConfigMapSeen::SharedMesh(map.into(), settings)
    }
}

/// The answer to a create.
impl From<ConfigMap> for RawConfigMap {
    fn from(map: ConfigMap) -> Self {
        let mut data = map.data.unwrap_or_default();
        Self {
            metadata: map.metadata,
            data: Data { mesh: data.remove("mesh"), values: data.remove("values") },
        }
    }
}

/// The shared mesh configurations by revision.
pub fn shared_mesh<'a>(seen: impl Iterator<Item = &'a ConfigMapSeen>) -> BTreeMap<Revision, Arc<SharedMesh>> {
    seen.filter_map(|one| match one {
        ConfigMapSeen::SharedMesh(map, _) => Some((map.revision.clone(), Arc::clone(map))),
        ConfigMapSeen::Injector(..) | ConfigMapSeen::Mesh(..) => None,
    })
    .collect()
}

/// `istio-sidecar-injector-asm-1-28` with the prefix `istio-sidecar-injector` gives `asm-1-28`; without suffix it is
/// the default revision.
fn suffix_revision(name: &str, prefix: &str) -> Option<String> {
    match name.strip_prefix(prefix)? {
        "" => Some(DEFAULT_REVISION.to_owned()),
        rest => rest.strip_prefix('-').map(str::to_owned),
    }
}

/// The image of the proxies, from the values of an injector. Source: `ProxyImage` in Istio's pkg/kube/inject: an image with a
/// slash is the whole reference, otherwise hub and tag belong to it.
fn proxy_image(values: &str) -> Option<String> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Values {
        global: Global,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Global {
        hub: String,
        tag: Value,
        variant: String,
        proxy: ProxyValues,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct ProxyValues {
        image: String,
    }
    let Global { hub, tag, variant, proxy } = serde_saphyr::from_str::<Values>(values).ok()?.global;
    if proxy.image.contains('/') {
        return Some(proxy.image);
    }
    let tag = match tag {
        Value::String(tag) => tag,
        Value::Number(tag) => tag.to_string(),
        _ => return None,
    };
    let name = if proxy.image.is_empty() { "proxyv2" } else { &proxy.image };
    let variant = if ["", "default"].contains(&variant.as_str()) || tag.contains(&variant) {
        String::new()
    } else {
        format!("-{variant}")
    };
    Some(format!("{hub}/{name}:{tag}{variant}")).filter(|_| !tag.is_empty())
}

fn settings(yaml: &str) -> MeshSettings {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Mesh {
        trust_domain: Option<String>,
        discovery_selectors: Option<Value>,
    }
    if yaml.trim().is_empty() {
        return MeshSettings::default();
    }
    match serde_saphyr::from_str_with_options::<Mesh>(yaml, serde_saphyr::options! { strict_booleans: true })
    {
        Ok(mesh) => MeshSettings {
            trust_domain: mesh.trust_domain.filter(|domain| !domain.is_empty()),
            // Maps of serde_json are ordered by key: the text is canonical.
            discovery_selectors: mesh
                .discovery_selectors
                .filter(|value| value.as_array().is_some_and(|list| !list.is_empty()))
                .map(|value| value.to_string()),
            unreadable: false,
        },
        Err(error) => {
            tracing::warn!(%error, "a mesh configuration is no YAML that we can read");
            MeshSettings { unreadable: true, ..MeshSettings::default() }
        }
    }
}

/// The mesh configuration of each revision; `None` for one that cannot be read.
pub fn mesh_configs<'a>(
    seen: impl Iterator<Item = &'a ConfigMapSeen> + Clone,
) -> BTreeMap<Revision, Option<MeshConfig>> {
    let shared: BTreeMap<&Revision, &MeshSettings> = seen
        .clone()
        .filter_map(|one| match one {
            ConfigMapSeen::SharedMesh(map, settings) => Some((&map.revision, settings)),
            ConfigMapSeen::Injector(..) | ConfigMapSeen::Mesh(..) => None,
        })
        .collect();
    seen.filter_map(|one| match one {
        ConfigMapSeen::Mesh(revision, settings) => {
            Some((revision.clone(), merged(settings, shared.get(revision).copied())))
        }
        ConfigMapSeen::Injector(..) | ConfigMapSeen::SharedMesh(..) => None,
    })
    .collect()
}

fn merged(own: &MeshSettings, shared: Option<&MeshSettings>) -> Option<MeshConfig> {
    if own.unreadable || shared.is_some_and(|shared| shared.unreadable) {
        return None;
    }
    let pick = |of: fn(&MeshSettings) -> Option<String>| of(own).or_else(|| shared.and_then(of));
    Some(MeshConfig {
        trust_domain: pick(|one| one.trust_domain.clone()).unwrap_or_else(|| DEFAULT_TRUST_DOMAIN.to_owned()),
        discovery_selectors: pick(|one| one.discovery_selectors.clone()).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn observe(name: &str, data: &Value) -> Option<ConfigMapSeen> {
        let value = json!({"metadata": {"name": name, "namespace": "istio-system"}, "data": data});
        serde_json::from_value::<RawConfigMap>(value).unwrap().observe()
    }

    fn config(maps: &[(&str, &str)]) -> BTreeMap<Revision, Option<MeshConfig>> {
        let seen: Vec<ConfigMapSeen> =
            maps.iter().filter_map(|(name, mesh)| observe(name, &json!({"mesh": mesh}))).collect();
        mesh_configs(seen.iter())
    }

    #[test]
    fn injectors_and_meshes_are_known_by_name() {
        let injector = |name| observe(name, &json!({"config": "…", "values": "{}"}));
        let revision = |name: &str| Some(ConfigMapSeen::Injector(name.into(), None));
        assert_eq!(injector("istio-sidecar-injector"), revision("default"));
        assert_eq!(injector("istio-sidecar-injector-asm-1-28"), revision("asm-1-28"));
        assert_eq!(injector("istio-ca-root-cert"), None);
        assert_eq!(injector("istio-asm-1-28"), None);
        assert_eq!(observe("istiod-a", &json!({"mesh": ""})), None);
    }

    #[test]
    fn the_image_of_proxies_is_read_from_the_values() {
        let image = |values: &str| proxy_image(values);
        let parts = r#"{"global":{"hub":"docker.io/istio","tag":"1.28.2","variant":"distroless","proxy":{"image":"proxyv2"}}}"#;
        assert_eq!(image(parts).as_deref(), Some("docker.io/istio/proxyv2:1.28.2-distroless"));
        let whole = r#"{"global":{"hub":"x","tag":"1","proxy":{"image":"mcr.example/oss/proxyv2:1.28.2-distroless"}}}"#;
        assert_eq!(image(whole).as_deref(), Some("mcr.example/oss/proxyv2:1.28.2-distroless"));
        assert_eq!(image(r#"{"global":{"hub":"h","tag":1.5}}"#).as_deref(), Some("h/proxyv2:1.5"));
        for nothing in ["", "{}", r#"{"global":{"hub":"h"}}"#, "["] {
            assert_eq!(image(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn trust_domain_and_selectors_are_read_with_their_defaults() {
        let found = config(&[
            ("istio-a", "trustDomain: td.example\ndiscoverySelectors:\n- matchLabels:\n    b: x\n    a: y\n"),
            ("istio", "defaultConfig:\n  discoveryAddress: istiod.istio-system.svc:15012\n"),
        ]);
        let a = found.get(&Revision::from("a")).unwrap().as_ref().unwrap();
        assert_eq!(a.trust_domain, "td.example");
        assert_eq!(a.discovery_selectors, r#"[{"matchLabels":{"a":"y","b":"x"}}]"#);
        let default = found.get(&Revision::from("default")).unwrap().as_ref().unwrap();
        assert_eq!(default.trust_domain, "cluster.local");
        assert_eq!(default.discovery_selectors, "");
    }

    #[test]
    fn what_the_addon_sets_wins_over_what_users_share() {
        let found = config(&[
            ("istio-asm-1-28", "trustDomain: own\n"),
            (
                "istio-shared-configmap-asm-1-28",
                "trustDomain: shared\ndiscoverySelectors: [{matchLabels: {a: b}}]\n",
            ),
        ]);
        let mesh = found.get(&Revision::from("asm-1-28")).unwrap().as_ref().unwrap();
        assert_eq!(mesh.trust_domain, "own");
        assert_eq!(mesh.discovery_selectors, r#"[{"matchLabels":{"a":"b"}}]"#);
    }

    #[test]
    fn what_users_share_is_kept_with_the_mark_of_our_copy() {
        let seen = |annotations: Value, data: Value| {
            let value = json!({
                "metadata": {
                    "name": "istio-shared-configmap-asm-1-28", "uid": "u", "resourceVersion": "7",
                    // Whoever copied it by hand may have copied this too.
                    "labels": {"istio.io/rev": "asm-1-27"}, "annotations": annotations,
                },
                "data": data,
            });
            let seen = [serde_json::from_value::<RawConfigMap>(value).unwrap().observe().unwrap()];
            let shared = shared_mesh(seen.iter());
            SharedMesh::clone(shared.get(&Revision::from("asm-1-28")).unwrap())
        };
        let mark = r#"{"from":"asm-1-27","to":"asm-1-28","digest":"sha256:1"}"#;
        let map = seen(json!({"meshupgrade.io/mesh-config-copy": mark}), json!({"mesh": "a: 1\n"}));
        assert_eq!((map.uid.as_str(), map.resource_version.as_str()), ("u", "7"));
        assert_eq!(map.text.as_deref(), Some("a: 1\n"));
        assert_eq!(
            map.mark.map(|mark| (mark.from, mark.digest)),
            Some(("asm-1-27".into(), "sha256:1".into()))
        );
        let map = seen(json!({"meshupgrade.io/mesh-config-copy": "yes"}), json!({"other": ""}));
        assert_eq!((map.text, map.mark), (None, None));
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_the_defaults() {
        let found = config(&[("istio-a", "trustDomain: [")]);
        assert_eq!(found.get(&Revision::from("a")), Some(&None));
    }
}
