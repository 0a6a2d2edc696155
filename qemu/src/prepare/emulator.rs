//! QEMU itself: installed where that takes no question, else explained.

use super::PrepareError;
use super::package::{self, Names};
use crate::guest::QEMU;

/// The packages that have QEMU for this architecture.
const PACKAGES: Names = Names {
    debian: "qemu-system-x86",
    fedora: Some("qemu-system-x86-core"),
    arch: Some("qemu-system-x86"),
    alpine: Some("qemu-system-x86_64"),
    mac_os: Some("qemu"),
};

/// Makes sure that QEMU is on the path.
///
/// # Errors
///
/// [`PrepareError::Missing`] with the command for this platform where it cannot be installed
/// without a question, [`PrepareError::Failed`] when the installation fails.
pub fn ensure() -> Result<(), PrepareError> {
    package::ensure(QEMU, &PACKAGES)
}
