//! Which cluster: what a MeshUpgrade names, and nothing that could lead a request elsewhere.

use std::fmt;

/// A managed cluster by its names in ARM. Made by [`ClusterId::new`], so that each of them is one segment of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterId {
    subscription: String,
    resource_group: String,
    name: String,
}

/// A name that Azure would not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidId {
    /// The subscription is no UUID.
    Subscription,
    /// The resource group is no name of one.
    ResourceGroup,
    /// The cluster is no name of one.
    Cluster,
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Subscription => "the subscription is not a UUID such as 00000000-0000-0000-0000-000000000000",
            Self::ResourceGroup => {
                "the resource group is not 1 to 90 letters, digits, \"-\", \"_\", \"(\", \")\" and \".\", with no \".\" at the end"
            }
            Self::Cluster => {
                "the cluster is not 1 to 63 letters, digits, \"-\" and \"_\", with a letter or digit at both ends"
            }
        })
    }
}

impl ClusterId {
    /// A cluster from its names. The rules are those of Azure's naming reference (resource-name-rules.md).
    pub fn new(subscription: &str, resource_group: &str, name: &str) -> Result<Self, InvalidId> {
        let refuse = |right: bool, why: InvalidId| if right { Ok(()) } else { Err(why) };
        refuse(is_uuid(subscription), InvalidId::Subscription)?;
        refuse(is_resource_group(resource_group), InvalidId::ResourceGroup)?;
        refuse(is_cluster(name), InvalidId::Cluster)?;
        Ok(Self {
            subscription: subscription.to_owned(),
            resource_group: resource_group.to_owned(),
            name: name.to_owned(),
        })
    }

    /// The subscription, a UUID.
    pub fn subscription(&self) -> &str {
        &self.subscription
    }

    /// The resource group.
    pub fn resource_group(&self) -> &str {
        &self.resource_group
    }

    /// The name of the cluster.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The resource id, as ARM writes it.
impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subscription, resource_group, name } = self;
        write!(
            f,
            "/subscriptions/{subscription}/resourceGroups/{resource_group}/providers/Microsoft.ContainerService/managedClusters/{name}"
        )
    }
}

fn is_uuid(text: &str) -> bool {
    let mut lengths = text.split('-').map(str::len);
    let shape = [8, 4, 4, 4, 12].iter().all(|length| lengths.next() == Some(*length));
    shape && lengths.next().is_none() && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn is_resource_group(text: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '(' | ')' | '.');
    (1..=90).contains(&text.chars().count()) && text.chars().all(allowed) && !text.ends_with('.')
}

fn is_cluster(text: &str) -> bool {
    let outer = |c: char| c.is_ascii_alphanumeric();
    (1..=63).contains(&text.len())
        && text.chars().all(|c| outer(c) || matches!(c, '-' | '_'))
        && text.starts_with(outer)
        && text.ends_with(outer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBSCRIPTION: &str = "26fe00f8-9173-4872-9134-bb1d2e00343a";

    #[test]
    fn an_id_is_written_as_arm_writes_it() {
        let id = ClusterId::new(SUBSCRIPTION, "rg-1.(a)_B", "mesh_1").unwrap();
        assert_eq!(
            id.to_string(),
            "/subscriptions/26fe00f8-9173-4872-9134-bb1d2e00343a/resourceGroups/rg-1.(a)_B/providers/Microsoft.ContainerService/managedClusters/mesh_1"
        );
        assert_eq!(
            (id.subscription(), id.resource_group(), id.name()),
            (SUBSCRIPTION, "rg-1.(a)_B", "mesh_1")
        );
    }

    #[test]
    fn what_could_lead_a_request_elsewhere_is_no_id() {
        for text in ["", "..", "a/b", "a?b", "a#b", "a%2fb", "a b", "a\n", "-a", "a-", "é"] {
            let error = ClusterId::new(SUBSCRIPTION, "rg", text).unwrap_err();
            assert_eq!(error, InvalidId::Cluster, "{text}");
        }
        for text in ["", "..", "a/b", "a?b", "a#b", "a%2fb", "a b", "a\n", "rg."] {
            let error = ClusterId::new(SUBSCRIPTION, text, "mesh").unwrap_err();
            assert_eq!(error, InvalidId::ResourceGroup, "{text}");
        }
        for text in ["", "1", "26fe00f8-9173-4872-9134-bb1d2e00343g", "26fe00f8-91734-872-9134-bb1d2e00343a"]
        {
            let error = ClusterId::new(text, "rg", "mesh").unwrap_err();
            assert_eq!(error, InvalidId::Subscription, "{text}");
        }
        assert!(ClusterId::new(SUBSCRIPTION, &"g".repeat(90), &"c".repeat(63)).is_ok());
        assert!(ClusterId::new(SUBSCRIPTION, &"g".repeat(91), "c").is_err());
        assert!(ClusterId::new(SUBSCRIPTION, "g", &"c".repeat(64)).is_err());
    }
}
