//! Bounds of the custom resource: the schema and the local rules take them from here.

/// Longest name: revisions, waves, namespaces, label values.
pub const NAME: usize = 63;
/// Longest label key: a prefix of 253, a slash, a name of 63.
pub const LABEL_KEY: usize = 317;
/// Most waves of a spec. Stragglers and gateways come on top.
pub const WAVES: usize = 31;
/// Most namespaces that one wave lists by name.
pub const NAMESPACES: usize = 1000;
/// Most labels, and most expressions, of a selector.
pub const SELECTOR_TERMS: usize = 16;
/// Most values of one expression of a selector.
pub const SELECTOR_VALUES: usize = 64;
/// Most maintenance windows.
pub const WINDOWS: usize = 16;
/// Longest name of a time zone.
pub const TIME_ZONE: usize = 64;
/// Most workloads in rollout at once, as a number or as a share.
pub const CONCURRENT: u32 = 100;
/// Longest time to wait on purpose, in seconds: 30 days.
pub const SOAK_SECONDS: u32 = 2_592_000;
/// Longest time that one workload may take, in seconds: a day.
pub const TIMEOUT_SECONDS: u32 = 86_400;
/// Longest settle time of a label, in seconds: an hour.
pub const SETTLE_SECONDS: u32 = 3_600;

/// Length of the id of a subscription.
pub const UUID: usize = 36;
/// The id of a subscription of Azure.
pub const UUID_PATTERN: &str = "^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$";
/// Longest name of a resource group.
pub const RESOURCE_GROUP: usize = 90;
/// Name of a resource group. Source: resource-name-rules.md of Azure's documentation.
pub const RESOURCE_GROUP_PATTERN: &str = r"^[\p{L}\p{N}_().-]*[\p{L}\p{N}_()-]$";
/// Name of a managed cluster. Source: the same.
pub const CLUSTER_PATTERN: &str = "^[a-zA-Z0-9]([a-zA-Z0-9_-]*[a-zA-Z0-9])?$";

/// Most metrics of a list.
pub const METRICS: usize = 8;
/// Longest query, in characters.
pub const QUERY: usize = 2048;
/// Longest window, interval and age of a metric, in seconds: a day.
pub const METRIC_SECONDS: u32 = 86_400;
/// Most measurements that are asked for or tolerated.
pub const MEASUREMENTS: u32 = 100;
/// Most samples that a value may be asked to rest on.
pub const SAMPLES: u32 = 1_000_000_000;
/// Largest whole number of a bound.
pub const LARGEST: i32 = 999_999_999;
/// Longest decimal number, with its sign and `%`.
pub const DECIMAL: usize = 18;
/// Length of a digest.
pub const DIGEST: usize = 71;
/// Most rows of `status.actions`.
pub const ACTIONS: usize = 8;
/// Most conditions; there are fewer types.
pub const CONDITIONS: usize = 32;
/// Most rows of `status.blocked`.
pub const BLOCKED: usize = 20;
/// Most rows of `status.checks`.
pub const CHECKS: usize = 40;
/// Longest message in `status`, in characters.
pub const MESSAGE: usize = 1024;

/// A DNS-1123 label.
pub const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// The key of a label.
pub const LABEL_KEY_PATTERN: &str =
    "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$";
/// The value of a label.
pub const LABEL_VALUE_PATTERN: &str = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$";
/// A time of day.
pub const TIME_PATTERN: &str = "^([01][0-9]|2[0-3]):[0-5][0-9]$";
/// The digest of a plan.
pub const DIGEST_PATTERN: &str = "^sha256:[0-9a-f]{64}$";
/// A decimal number.
pub const DECIMAL_PATTERN: &str = "^-?[0-9]{1,9}([.][0-9]{1,6})?$";
/// A decimal number that is not negative, or a share.
pub const CHANGE_PATTERN: &str = "^[0-9]{1,9}([.][0-9]{1,6})?%?$";
/// A share from 1% to 100%.
pub const PERCENT_PATTERN: &str = "^([1-9][0-9]?|100)%$";
