//! Checks of a managed cluster of Azure, before anything is asked of it. Those that need Azure's answers say nothing where the control
//! planes are not ours to start.

use std::cmp::Ordering;

use super::preflight::repairs_what_is_left;
use super::{CheckInput, Finding, warning};
use crate::aks::cluster::{ManagedCluster, MeshMode, ProvisioningState};
use crate::aks::offers::{MeshRevision, MeshUpgrades};
use crate::aks::revision::{Minor, compare, minor};
use crate::aks::seen::Offers;
use crate::gate;
use crate::gateways::follows_newest;
use crate::ids::Revision;
use crate::labels;
use crate::mesh_config::{difference, map_of};

/// From here on the add-on injects native sidecars on Kubernetes 1.33 and newer (`istio-native-sidecar.md`).
const NATIVE_SIDECARS: Minor = Minor { major: 1, minor: 29 };

fn cluster<'a>(input: &CheckInput<'a>) -> Option<&'a ManagedCluster> {
    input.intent.aks.as_ref()?;
    input.snapshot.aks.as_ref()?.cluster.as_ref().ok()
}

fn offers<'a>(input: &CheckInput<'a>) -> Option<&'a Offers> {
    input.intent.aks.as_ref()?;
    input.snapshot.aks.as_ref()?.offers.as_ref()
}

/// Whether both revisions are there already: an upgrade of the same pair, whoever began it, is taken over.
fn is_begun(input: &CheckInput<'_>, cluster: &ManagedCluster) -> bool {
    [input.source, input.target].iter().all(|revision| cluster.revisions.contains(revision))
}

fn names<'a>(revisions: impl IntoIterator<Item = &'a Revision>) -> String {
    let names: Vec<&str> = revisions.into_iter().map(Revision::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

pub(super) fn mesh_installed(input: &CheckInput<'_>) -> Finding {
    let Some(cluster) = cluster(input) else { return Finding::Nothing };
    match &cluster.mesh_mode {
        MeshMode::Istio if !cluster.revisions.is_empty() => Finding::Nothing,
        MeshMode::Istio => Finding::Problem("the cluster's mesh has no revision: az aks show --query serviceMeshProfile".into()),
        MeshMode::Disabled => Finding::Problem(
            "the Istio add-on is off on this cluster: az aks mesh enable turns it on; for an Istio of your own use \
             spec.controlPlane.external"
                .into(),
        ),
        MeshMode::Other(mode) => Finding::Problem(format!(
            "the cluster's mesh has the mode {mode:?}, which this version of MeshUpgrade does not know"
        )),
    }
}

pub(super) fn no_foreign_upgrade(input: &CheckInput<'_>) -> Finding {
    let Some(cluster) = cluster(input) else { return Finding::Nothing };
    let strange = cluster.revisions.iter().any(|revision| ![input.source, input.target].contains(&revision));
    if cluster.revisions.len() > 1 && strange {
        return Finding::Problem(format!(
            "an upgrade between {} is in progress: complete or roll it back first (az aks mesh upgrade complete, or rollback), or let \
             spec.sourceRevision and spec.targetRevision name that pair",
            names(&cluster.revisions)
        ));
    }
    if input.source != input.target && !cluster.revisions.contains(input.source) {
        if repairs_what_is_left(input) {
            return Finding::Nothing;
        }
        return Finding::Problem(format!(
            "the cluster has {}, and namespaces use {}: {} is not there any more. \
             spec.injection.droppedNamespaces: Repair labels them, restarts their workloads, and proves that their sidecars are there",
            names(&cluster.revisions),
            input.source,
            input.source
        ));
    }
    Finding::Nothing
}

pub(super) fn no_downgrade(input: &CheckInput<'_>) -> Finding {
    if cluster(input).is_none() || compare(input.target, input.source) != Some(Ordering::Less) {
        return Finding::Nothing;
    }
    Finding::Problem(format!(
        "{} is older than {}: AKS goes back only by rolling back an upgrade that is in progress (spec.rollback.requested)",
        input.target, input.source
    ))
}

pub(super) fn target_offered(input: &CheckInput<'_>) -> Finding {
    let (Some(cluster), Some(offers)) = (cluster(input), offers(input)) else { return Finding::Nothing };
    if is_begun(input, cluster) || cluster.revisions.contains(input.target) {
        return Finding::Nothing;
    }
    let offered: &[Revision] = match &offers.upgrades {
        Ok(MeshUpgrades::Offered(profile)) => &profile.upgrades,
        Ok(MeshUpgrades::NothingOffered) => &[],
        Ok(MeshUpgrades::UpgradeInProgress) | Err(_) => return Finding::Nothing,
    };
    if offered.contains(input.target) {
        return Finding::Nothing;
    }
    let region = offers.revisions.as_deref().unwrap_or_default();
    let why = match region.iter().find(|known| known.revision == *input.target) {
        None => format!(
            "the region {} does not have it: it has {}",
            cluster.location,
            names(region.iter().map(|it| &it.revision))
        ),
        Some(known) => unlocked_by(cluster, known),
    };
    Finding::Problem(format!(
        "AKS does not offer {} to this cluster (it offers {}): {why}; az aks mesh get-upgrades shows the same",
        input.target,
        names(offered)
    ))
}

/// Why a revision of the region is not offered, as far as versions of Kubernetes explain it.
fn unlocked_by(cluster: &ManagedCluster, target: &MeshRevision) -> String {
    let versions = target.kubernetes_versions(cluster.support_plan);
    let current = version(cluster);
    match target.runs_on(current, cluster.support_plan) {
        Some(false) => format!(
            "it needs Kubernetes {}, and the cluster has {current}: upgrade the cluster first, which is allowed even if the mesh does \
             not support the new version yet",
            versions.join(", ")
        ),
        _ => "it may skip too many revisions, or the installed one is out of support: go to one that is offered first".to_owned(),
    }
}

fn version(cluster: &ManagedCluster) -> &str {
    cluster
        .current_kubernetes_version
        .as_deref()
        .or(cluster.kubernetes_version.as_deref())
        .unwrap_or("an unknown version")
}

pub(super) fn cluster_compatible(input: &CheckInput<'_>) -> Finding {
    let (Some(cluster), Some(offers)) = (cluster(input), offers(input)) else { return Finding::Nothing };
    let region = offers.revisions.as_deref().unwrap_or_default();
    let Some(known) = region.iter().find(|known| known.revision == *input.target) else {
        return Finding::Nothing;
    };
    if known.runs_on(version(cluster), cluster.support_plan) != Some(false) {
        return Finding::Nothing;
    }
    Finding::Problem(format!(
        "{} is not compatible with Kubernetes {}: it runs on {}; az aks get-upgrades shows where the cluster can go",
        input.target,
        version(cluster),
        known.kubernetes_versions(cluster.support_plan).join(", ")
    ))
}

pub(super) fn cluster_settled(input: &CheckInput<'_>) -> Finding {
    let Some(cluster) = cluster(input) else { return Finding::Nothing };
    match &cluster.provisioning_state {
        ProvisioningState::Succeeded => Finding::Nothing,
        ProvisioningState::UnderWay(state) => Finding::Warning(format!(
            "an operation runs on the cluster ({state}): the mesh is changed after it"
        )),
        ProvisioningState::Failed | ProvisioningState::Canceled => Finding::Problem(format!(
            "the last operation on the cluster ended as {}: repair it first (az aks update with the cluster's own names repeats it)",
            cluster.provisioning_state.as_str()
        )),
    }
}

pub(super) fn plugin_ca(input: &CheckInput<'_>) -> Finding {
    let Some(plugin) = cluster(input).and_then(|cluster| cluster.plugin_ca.as_ref()) else {
        return Finding::Nothing;
    };
    let mut wrong = Vec::new();
    if !plugin.missing.is_empty() {
        wrong.push(format!("it lacks {}", plugin.missing.join(", ")));
    }
    if plugin.key_vault_id_malformed {
        wrong.push("its keyVaultId is not the resource id of a key vault".to_owned());
    }
    if cluster(input).is_some_and(|cluster| !cluster.key_vault_addon_enabled) {
        wrong.push("the add-on azure-keyvault-secrets-provider, which reads its keys, is off".to_owned());
    }
    if wrong.is_empty() {
        return Finding::Nothing;
    }
    Finding::Problem(format!(
        "Azure would refuse every change of the mesh because of its plug-in certificate authority: {}; az aks show --query \
         serviceMeshProfile.istio.certificateAuthority",
        wrong.join("; ")
    ))
}

pub(super) fn no_open_service_mesh(input: &CheckInput<'_>) -> Finding {
    match cluster(input) {
        Some(cluster) if cluster.open_service_mesh_enabled => Finding::Problem(
            "Open Service Mesh is on, which excludes the Istio add-on: az aks disable-addons --addons open-service-mesh".into(),
        ),
        _ => Finding::Nothing,
    }
}

/// Also where Azure is not asked: the API server says which version it has.
pub(super) fn native_sidecars(input: &CheckInput<'_>) -> Finding {
    let counted = || input.snapshot.census.as_ref()?.kubernetes_version.as_deref();
    let Some(version) = cluster(input).map(version).or_else(counted).filter(|_| input.intent.is_addon())
    else {
        return Finding::Nothing;
    };
    let before = |revision: &Revision| minor(revision).is_some_and(|minor| minor < NATIVE_SIDECARS);
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or_default());
    let kubernetes = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    if !before(input.source) || before(input.target) || kubernetes < (1, 33) {
        return Finding::Nothing;
    }
    Finding::Warning(format!(
        "{} injects native sidecars: the proxy of every pod becomes an init container, which webhooks and policies that look for a \
         container istio-proxy must know",
        input.target
    ))
}

/// Gateways of the Gateway API that go to the target with its start, before any wave.
pub(super) fn gateways_named(input: &CheckInput<'_>) -> Finding {
    if !gate::is_gone(input.snapshot, input.target) {
        return Finding::Nothing;
    }
    let all = input.snapshot.gateways.values();
    let unnamed: Vec<_> = all.filter(|it| follows_newest(input.intent, input.snapshot, it)).collect();
    let first = unnamed.first().map(|gateway| gateway.reference.clone());
    warning(unnamed.iter().map(|gateway| gateway.reference.to_string()), |names| {
        let command = first.as_ref().map_or_else(String::new, |first| {
            format!(
                "kubectl label gateways.gateway.networking.k8s.io {} -n {} {}={}",
                first.name,
                first.namespace,
                labels::REVISION,
                input.source
            )
        });
        format!(
            "{names}: neither the Gateway nor its namespace names a revision, so that AKS gives it to {} as soon as that is started, before \
             any wave, and back when it goes. To move it with the run, after all waves, name its revision before the start: {command}",
            input.target
        )
    })
}

/// Whether the run will copy the shared mesh configuration of the source when it starts.
pub(super) fn copy_is_due(input: &CheckInput<'_>) -> bool {
    let maps = &input.snapshot.shared_mesh;
    let source = maps.get(input.source).is_some_and(|map| map.text.is_some());
    input.intent.is_addon() && source && !maps.contains_key(input.target)
}

pub(super) fn mesh_config_copied(input: &CheckInput<'_>) -> Finding {
    let maps = &input.snapshot.shared_mesh;
    let text = |revision| maps.get(revision).and_then(|map| map.text.as_deref());
    let (Some(source), true) = (text(input.source), maps.contains_key(input.target)) else {
        return Finding::Nothing;
    };
    if !input.intent.is_addon() || input.source == input.target {
        return Finding::Nothing;
    }
    let Some(difference) = difference(source, text(input.target).unwrap_or_default()) else {
        return Finding::Nothing;
    };
    let namespace = &input.intent.istio_namespace;
    Finding::Warning(format!(
        "{} is there already and is not what {} is: it stays as it is. Lines of {} only (-), of {} only (+):\n{difference}",
        map_of(namespace, input.target),
        map_of(namespace, input.source).name,
        input.source,
        input.target
    ))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::fixture::{Mesh, SOURCE, TARGET, said};
    use super::*;
    use crate::aks::ISTIO_NAMESPACE;
    use crate::aks::cluster::{PluginCa, SupportPlan};
    use crate::aks::id::ClusterId;
    use crate::aks::offers::CompatibleVersions;
    use crate::aks::seen::ClusterSeen;
    use crate::decision::CheckOutcome;
    use crate::mesh_config::SharedMesh;

    fn revision(name: &str, upgrades: &[&str], versions: &[&str]) -> MeshRevision {
        MeshRevision {
            revision: name.into(),
            upgrades: upgrades.iter().map(|name| Revision::from(*name)).collect(),
            compatible_with: vec![CompatibleVersions {
                name: "KubernetesOfficial".into(),
                versions: versions.iter().map(|version| (*version).to_owned()).collect(),
            }],
        }
    }

    fn mesh() -> Mesh {
        let mut mesh = Mesh::before();
        mesh.intent.aks = ClusterId::new("26fe00f8-9173-4872-9134-bb1d2e00343a", "rg", "mesh").ok();
        mesh.snapshot.aks = Some(ClusterSeen {
            read_at: Timestamp::UNIX_EPOCH,
            cluster: Ok(ManagedCluster {
                location: "westeurope".into(),
                provisioning_state: ProvisioningState::Succeeded,
                kubernetes_version: Some("1.32".into()),
                current_kubernetes_version: Some("1.32.4".into()),
                support_plan: SupportPlan::KubernetesOfficial,
                mesh_mode: MeshMode::Istio,
                revisions: vec![SOURCE.into()],
                ingress_gateways: Vec::new(),
                egress_gateways: Vec::new(),
                plugin_ca: None,
                key_vault_addon_enabled: false,
                open_service_mesh_enabled: false,
                etag_present: true,
            }),
            egress_gateways: Some(Vec::new()),
            offers: Some(Offers {
                upgrades: Ok(MeshUpgrades::Offered(revision(SOURCE, &[TARGET], &["1.32"]))),
                revisions: Ok(vec![
                    revision(SOURCE, &[TARGET], &["1.31", "1.32"]),
                    revision(TARGET, &[], &["1.32"]),
                ]),
            }),
            write: None,
        });
        mesh
    }

    fn seen(mesh: &mut Mesh) -> &mut ClusterSeen {
        mesh.snapshot.aks.as_mut().unwrap()
    }

    fn change(mesh: &mut Mesh, change: impl FnOnce(&mut ManagedCluster)) {
        change(seen(mesh).cluster.as_mut().unwrap());
    }

    /// Name and words of the one check of Azure's that has something to say.
    fn only(mesh: &Mesh, outcome: CheckOutcome) -> (&'static str, String) {
        let results = mesh.preflight();
        let mut found =
            results.iter().filter(|it| it.name.starts_with("Aks") && it.outcome != CheckOutcome::Passed);
        let first = found.next().unwrap();
        assert_eq!(first.outcome, outcome, "{first:?}");
        assert_eq!(found.next(), None);
        (first.name, first.message.clone())
    }

    #[test]
    fn a_cluster_in_order_passes_and_one_that_is_not_ours_is_not_looked_at() {
        let passes = |mesh: &Mesh| {
            mesh.preflight()
                .iter()
                .filter(|it| it.name.starts_with("Aks"))
                .all(|it| it.outcome == CheckOutcome::Passed)
        };
        let mut mesh = mesh();
        assert!(passes(&mesh));
        change(&mut mesh, |cluster| cluster.mesh_mode = MeshMode::Disabled);
        mesh.intent.aks = None;
        assert!(passes(&mesh));
    }

    #[test]
    fn a_mesh_that_is_off_is_named() {
        let mut mesh = mesh();
        change(&mut mesh, |cluster| cluster.mesh_mode = MeshMode::Disabled);
        let (name, message) = only(&mesh, CheckOutcome::Failed);
        assert!(name == "AksMeshInstalled" && message.contains("az aks mesh enable"), "{message}");
    }

    #[test]
    fn another_upgrade_is_named_and_the_same_one_is_taken_over() {
        let mut mesh = mesh();
        change(&mut mesh, |cluster| cluster.revisions.push("asm-1-29".into()));
        let (name, message) = only(&mesh, CheckOutcome::Failed);
        assert!(name == "AksNoForeignUpgrade" && message.contains("asm-1-27, asm-1-29"), "{message}");
        change(&mut mesh, |cluster| cluster.revisions[1] = TARGET.into());
        seen(&mut mesh).offers.as_mut().unwrap().upgrades = Ok(MeshUpgrades::UpgradeInProgress);
        assert!(
            mesh.preflight()
                .iter()
                .all(|it| !it.name.starts_with("Aks") || it.outcome == CheckOutcome::Passed)
        );
    }

    #[test]
    fn what_is_not_offered_on_this_version_either_is_told_without_a_version() {
        let mut mesh = mesh();
        let offers = seen(&mut mesh).offers.as_mut().unwrap();
        offers.upgrades = Ok(MeshUpgrades::Offered(revision(SOURCE, &["asm-1-26"], &["1.32"])));
        let (name, message) = only(&mesh, CheckOutcome::Failed);
        assert_eq!(name, "AksTargetOffered");
        let words = "it may skip too many revisions, or the installed one is out of support: go to one that is offered first";
        assert!(message.contains(words) && message.contains("(it offers asm-1-26)"), "{message}");
    }

    #[test]
    fn native_sidecars_begin_with_kubernetes_1_33() {
        let warned = |version: &str, source: &str, target: &str| {
            let mut mesh = mesh();
            (mesh.source, mesh.target) = (source.into(), target.into());
            change(&mut mesh, |cluster| cluster.current_kubernetes_version = Some(version.into()));
            mesh.preflight()
                .iter()
                .any(|it| it.name == "AksNativeSidecars" && it.outcome == CheckOutcome::Warning)
        };
        let (before, first) = ("asm-1-28", "asm-1-29");
        assert!(warned("1.33.1", before, first) && warned("2.0.0", before, first));
        assert!(!warned("1.32.9", before, first) && !warned("1.33.1", first, "asm-1-30"));
        // Where somebody else starts the control planes, the API server's own version counts.
        let mut external = mesh();
        (external.source, external.target) = (before.into(), first.into());
        external.intent.aks = None;
        let warns = |mesh: &Mesh| {
            said(&mesh.preflight())
                .iter()
                .any(|it| it.starts_with("AksNativeSidecars Warning: asm-1-29 injects"))
        };
        for (version, namespace, expected) in [
            (Some("1.33.2"), ISTIO_NAMESPACE, true),
            (Some("1.32.9"), ISTIO_NAMESPACE, false),
            (None, ISTIO_NAMESPACE, false),
            (Some("1.33.2"), "istio-system", false),
        ] {
            external.intent.istio_namespace = namespace.into();
            external.census(|census| census.kubernetes_version = version.map(str::to_owned));
            assert_eq!(warns(&external), expected, "{version:?} {namespace}");
        }
    }

    #[test]
    fn a_source_that_is_gone_tells_how_to_come_back_into_the_mesh() {
        let mut mesh = mesh();
        change(&mut mesh, |cluster| cluster.revisions = vec!["asm-1-26".into()]);
        let (name, message) = only(&mesh, CheckOutcome::Failed);
        assert!(
            name == "AksNoForeignUpgrade" && message.contains("droppedNamespaces: Repair labels them"),
            "{message}"
        );
    }

    #[test]
    fn a_target_that_is_not_offered_tells_what_unlocks_it() {
        let mut mesh = mesh();
        let offers = seen(&mut mesh).offers.as_mut().unwrap();
        offers.upgrades = Ok(MeshUpgrades::NothingOffered);
        let (name, message) = only(&mesh, CheckOutcome::Failed);
        assert!(name == "AksTargetOffered" && message.contains("it offers none"), "{message}");
        let offers = seen(&mut mesh).offers.as_mut().unwrap();
        offers.revisions = Ok(vec![revision(SOURCE, &[], &["1.32"])]);
        let (_, message) = only(&mesh, CheckOutcome::Failed);
        assert!(message.contains("westeurope does not have it: it has asm-1-27"), "{message}");
    }

    #[test]
    fn a_cluster_that_is_too_old_goes_first() {
        let mut mesh = mesh();
        change(&mut mesh, |cluster| cluster.current_kubernetes_version = Some("1.31.2".into()));
        let (name, message) = only(&mesh, CheckOutcome::Failed);
        assert!(name == "AksClusterCompatible" && message.contains("it runs on 1.32"), "{message}");
        seen(&mut mesh).offers.as_mut().unwrap().upgrades = Ok(MeshUpgrades::NothingOffered);
        let words: Vec<String> = mesh.preflight().into_iter().map(|it| it.message).collect();
        assert!(words.iter().any(|it| it.contains("upgrade the cluster first")), "{words:?}");
    }

    #[test]
    fn a_cluster_that_is_not_at_rest_is_told_and_one_that_failed_holds_up() {
        let mut mesh = mesh();
        change(&mut mesh, |cluster| {
            cluster.provisioning_state = ProvisioningState::UnderWay("Upgrading".into())
        });
        assert_eq!(only(&mesh, CheckOutcome::Warning).0, "AksClusterSettled");
        change(&mut mesh, |cluster| cluster.provisioning_state = ProvisioningState::Failed);
        assert_eq!(only(&mesh, CheckOutcome::Failed).0, "AksClusterSettled");
    }

    #[test]
    fn a_certificate_authority_that_azure_would_refuse_is_found_before() {
        let mut mesh = mesh();
        change(&mut mesh, |cluster| {
            cluster.plugin_ca =
                Some(PluginCa { missing: vec!["certObjectName"], key_vault_id_malformed: true });
        });
        let (name, message) = only(&mesh, CheckOutcome::Failed);
        assert_eq!(name, "AksPluginCa");
        for words in ["certObjectName", "resource id of a key vault", "azure-keyvault-secrets-provider"] {
            assert!(message.contains(words), "{words}: {message}");
        }
        change(&mut mesh, |cluster| {
            (cluster.plugin_ca, cluster.key_vault_addon_enabled) = (Some(PluginCa::default()), true);
        });
        assert!(
            mesh.preflight()
                .iter()
                .all(|it| !it.name.starts_with("Aks") || it.outcome == CheckOutcome::Passed)
        );
    }

    fn share(mesh: &mut Mesh, revision: &str, text: &str) {
        let map =
            SharedMesh { revision: revision.into(), text: Some(text.to_owned()), ..SharedMesh::default() };
        mesh.snapshot.shared_mesh.insert(revision.into(), map.into());
    }

    #[test]
    fn a_mesh_configuration_that_is_not_the_other_one_is_shown() {
        let mut mesh = mesh();
        share(&mut mesh, SOURCE, "a: 1\nb: 2\n");
        share(&mut mesh, TARGET, "a: 1\nb: 3\n");
        let (name, message) = only(&mesh, CheckOutcome::Warning);
        assert_eq!(name, "AksMeshConfigCopied");
        assert!(message.ends_with("- b: 2\n+ b: 3"), "{message}");
        share(&mut mesh, TARGET, "a: 1\nb: 2\n");
        let quiet = |mesh: &Mesh| mesh.preflight().iter().all(|it| it.outcome == CheckOutcome::Passed);
        assert!(quiet(&mesh));
    }

    #[test]
    fn what_the_copy_will_bring_is_no_difference() {
        let mut mesh = mesh();
        mesh.plane(SOURCE, |plane| {
            plane.mesh_config.as_mut().unwrap().discovery_selectors = "[{}]".into();
        });
        let passes = |mesh: &Mesh| mesh.preflight().iter().all(|it| it.outcome == CheckOutcome::Passed);
        assert!(!passes(&mesh));
        share(&mut mesh, SOURCE, "discoverySelectors: [{}]\n");
        assert!(passes(&mesh));
    }

    #[test]
    fn open_service_mesh_is_found_before() {
        let mut mesh = mesh();
        change(&mut mesh, |cluster| cluster.open_service_mesh_enabled = true);
        assert_eq!(only(&mesh, CheckOutcome::Failed).0, "AksNoOpenServiceMesh");
    }
}
