//! What decides and computes, and touches nothing: protocols, tables, configuration. It is built for
//! the tests on the host, too.

pub(crate) mod acpi;
pub(crate) mod address_space;
pub(crate) mod backlog;
pub(crate) mod backtrace;
pub(crate) mod command_line;
pub(crate) mod data_paths;
pub(crate) mod dhcp;
pub(crate) mod ethernet;
pub(crate) mod exit_code;
#[cfg(any(feature = "iommu", test))]
pub(crate) mod iommu_policy;
pub(crate) mod ip6_config;
pub(crate) mod ip_config;
pub(crate) mod line_editor;
pub(crate) mod memory;
pub(crate) mod ndp;
#[cfg(any(feature = "iommu", test))]
pub(crate) mod node_name;
pub(crate) mod on_link;
pub(crate) mod static_config;
pub(crate) mod time;
