//! What the kernel does with the machine's IOMMUs, as the command line says.

use alloc::string::{String, ToString};

use crate::pure::command_line::CommandLine;

/// The key `iommu`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum IommuPolicy {
    /// Where there is one, a device reaches what is lent to it and nothing else.
    #[default]
    Strict,
    /// They stay as firmware has left them.
    Off,
    /// As strict, and no device without an IOMMU is used.
    Required,
}

/// The key has no such value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("iommu={0}: not one of strict, off, required")]
pub(crate) struct BadPolicy(String);

impl IommuPolicy {
    /// What the line says.
    ///
    /// # Errors
    /// [`BadPolicy`]: who has mistyped `required` is not to go without.
    pub(crate) fn new(line: &CommandLine) -> Result<Self, BadPolicy> {
        match line.get("iommu") {
            None | Some("strict") => Ok(Self::Strict),
            Some("off") => Ok(Self::Off),
            Some("required") => Ok(Self::Required),
            Some(other) => Err(BadPolicy(other.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_a_name_and_nothing_else_is_one() {
        let policy = |line| IommuPolicy::new(&CommandLine::new(line)).ok();
        assert_eq!(policy(""), Some(IommuPolicy::Strict));
        assert_eq!(policy("iommu=strict"), Some(IommuPolicy::Strict));
        assert_eq!(policy("iommu=off"), Some(IommuPolicy::Off));
        assert_eq!(policy("iommu=required"), Some(IommuPolicy::Required));
        for line in ["iommu", "iommu=", "iommu=on", "iommu=Required"] {
            assert_eq!(policy(line), None, "{line}");
        }
    }
}
