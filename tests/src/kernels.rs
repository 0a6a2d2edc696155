//! Kernels to boot, built once, with all that a build and a boot need.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use qemu::build::{self, Profile};
use qemu::prepare;

/// A kernel's place, once it is built. Whoever else wants it meanwhile waits.
type Place = Arc<Mutex<Option<PathBuf>>>;

/// A package, its profile and its features.
type Kernel = (String, Profile, Vec<String>);

/// The kernels of this process.
static PLACES: LazyLock<Mutex<HashMap<Kernel, Place>>> = LazyLock::new(Mutex::default);

/// Makes sure of target and QEMU and builds the program of `package`.
///
/// # Errors
///
/// What is missing, or what the compiler says.
pub fn build(package: &str, profile: Profile) -> Result<PathBuf, Box<dyn Error + Send + Sync>> {
    build_with(package, profile, &[])
}

/// The same with these features of the package.
///
/// # Errors
///
/// What is missing, what the compiler says, or what copying gives.
pub fn build_with(
    package: &str,
    profile: Profile,
    features: &[&str],
) -> Result<PathBuf, Box<dyn Error + Send + Sync>> {
    // Cargo has one place for a program, whatever its features: what is booted is a copy.
    static TURN: Mutex<()> = Mutex::new(());
    let place = {
        let features = features.iter().map(|&feature| feature.into()).collect();
        let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            places
                .entry((package.into(), profile, features))
                .or_default(),
        )
    };
    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kernel) = &*place {
        return Ok(kernel.clone());
    }
    prepare::target::ensure()?;
    prepare::emulator::ensure()?;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let kernel = build::kernel(package, profile, features)?;
    let copy = kernel.with_extension(format!("{}tests", features.join("-")));
    fs::copy(&kernel, &copy)?;
    Ok(place.insert(copy).clone())
}
