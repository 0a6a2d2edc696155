//! Kernels to boot, built once, with all that a build and a boot need.

use std::collections::HashMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use qemu::build::{self, Profile};
use qemu::prepare;

/// A kernel's place, once it is built. Whoever else wants it meanwhile waits.
type Place = Arc<Mutex<Option<PathBuf>>>;

/// The kernels of this process, by package and profile.
static PLACES: LazyLock<Mutex<HashMap<(String, Profile), Place>>> = LazyLock::new(Mutex::default);

/// Makes sure of target and QEMU and builds the program of `package`.
///
/// # Errors
///
/// What is missing, or what the compiler says.
pub fn build(package: &str, profile: Profile) -> Result<PathBuf, Box<dyn Error + Send + Sync>> {
    let place = {
        let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(places.entry((package.into(), profile)).or_default())
    };
    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kernel) = &*place {
        return Ok(kernel.clone());
    }
    prepare::target::ensure()?;
    prepare::emulator::ensure()?;
    let kernel = build::kernel(package, profile)?;
    Ok(place.insert(kernel).clone())
}
