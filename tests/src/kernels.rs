//! Kernels to boot, built once, with all that a build and a boot need.

use std::error::Error;
use std::path::PathBuf;

use qemu::build::{self, Profile};
use qemu::prepare;

/// Makes sure of target and QEMU and builds the program of `package`.
///
/// # Errors
///
/// What is missing, or what the compiler says.
pub fn build(package: &str, profile: Profile) -> Result<PathBuf, Box<dyn Error + Send + Sync>> {
    prepare::target::ensure()?;
    prepare::emulator::ensure()?;
    Ok(build::kernel(package, profile)?)
}
