//! Which request is meant.

use hyper::Method;

/// The kinds of requests, as faults and the journal name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// OpenID configuration of the tenant.
    OpenIdConfiguration,
    /// The token endpoint of Microsoft Entra.
    Token,
    /// The token endpoint of managed identities.
    IdentityToken,
    /// List of subscriptions, or one of them.
    Subscriptions,
    /// List of tenants.
    Tenants,
    /// List of the clusters of a subscription or resource group.
    ListClusters,
    /// GET of a cluster.
    GetCluster,
    /// PUT of a cluster.
    PutCluster,
    /// Upgrade profiles of the mesh of a cluster, the list or the one item.
    MeshUpgrades,
    /// Revision profiles of a location, the list or the one item.
    MeshRevisions,
    /// State of an operation.
    Operation,
    /// Anything else.
    Other,
}

/// What a path names. Ids are in lower case, as ARM compares them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    OpenIdConfiguration { tenant: String },
    Token { tenant: String },
    Subscriptions,
    Subscription { id: String },
    Tenants,
    Clusters { prefix: String },
    Cluster { id: String },
    MeshUpgrades { cluster: String, list: bool },
    MeshRevisions { subscription: String, location: String, list: bool },
    Operation { id: String },
    Unknown,
}

impl Target {
    /// ARM compares paths without regard to case.
    ///
    /// Source: azure-cli test_aks_azure_service_mesh_canary_upgrade.yaml: the request says `resourceGroups`, the id in the
    /// answer `resourcegroups`.
    pub fn of(path: &str) -> Self {
        let path = path.trim_end_matches('/').to_lowercase();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match parts.as_slice() {
            [tenant, "v2.0", ".well-known", "openid-configuration"] => {
                Self::OpenIdConfiguration { tenant: (*tenant).to_owned() }
            }
            [tenant, "oauth2", "v2.0", "token"] => Self::Token { tenant: (*tenant).to_owned() },
            ["subscriptions"] => Self::Subscriptions,
            ["tenants"] => Self::Tenants,
            ["subscriptions", id] => Self::Subscription { id: (*id).to_owned() },
            ["subscriptions", subscription, "providers", "microsoft.containerservice", rest @ ..] => {
                Self::of_subscription(subscription, rest)
            }
            [
                "subscriptions",
                subscription,
                "resourcegroups",
                group,
                "providers",
                "microsoft.containerservice",
                "managedclusters",
                rest @ ..,
            ] => Self::of_clusters(subscription, group, rest),
            _ => Self::Unknown,
        }
    }

    fn of_subscription(subscription: &str, rest: &[&str]) -> Self {
        let revisions = |location: &str, list| Self::MeshRevisions {
            subscription: subscription.to_owned(),
            location: location.to_owned(),
            list,
        };
        match rest {
            ["managedclusters"] => Self::Clusters { prefix: format!("/subscriptions/{subscription}/") },
            ["locations", location, "meshrevisionprofiles"] => revisions(location, true),
            ["locations", location, "meshrevisionprofiles", "istio"] => revisions(location, false),
            ["locations", _, "operations", id] => Self::Operation { id: (*id).to_owned() },
            _ => Self::Unknown,
        }
    }

    fn of_clusters(subscription: &str, group: &str, rest: &[&str]) -> Self {
        let prefix = format!("/subscriptions/{subscription}/resourcegroups/{group}/");
        let id = |name: &str| format!("{prefix}providers/microsoft.containerservice/managedclusters/{name}");
        match rest {
            [] => Self::Clusters { prefix },
            [name] => Self::Cluster { id: id(name) },
            [name, "meshupgradeprofiles"] => Self::MeshUpgrades { cluster: id(name), list: true },
            [name, "meshupgradeprofiles", "istio"] => Self::MeshUpgrades { cluster: id(name), list: false },
            _ => Self::Unknown,
        }
    }

    pub fn call(&self, method: &Method) -> Call {
        match (self, method.as_str()) {
            (Self::OpenIdConfiguration { .. }, "GET") => Call::OpenIdConfiguration,
            (Self::Token { .. }, "POST") => Call::Token,
            (Self::Subscriptions | Self::Subscription { .. }, "GET") => Call::Subscriptions,
            (Self::Tenants, "GET") => Call::Tenants,
            (Self::Clusters { .. }, "GET") => Call::ListClusters,
            (Self::Cluster { .. }, "GET") => Call::GetCluster,
            (Self::Cluster { .. }, "PUT") => Call::PutCluster,
            (Self::MeshUpgrades { .. }, "GET") => Call::MeshUpgrades,
            (Self::MeshRevisions { .. }, "GET") => Call::MeshRevisions,
            (Self::Operation { .. }, "GET") => Call::Operation,
            _ => Call::Other,
        }
    }
}
