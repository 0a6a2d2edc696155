//! Kernels to boot, built once, with all that a build and a boot need.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use qemu::build::{self, Profile};
use qemu::prepare;

/// The programs that are booted optimized, with all of their features. The crates below them are
/// most of the work and have the same features for both.
const TOGETHER: [&str; 2] = ["guest-tests", "site"];
const FEATURES: [&str; 1] = ["site/nbd"];

/// Where the kernels of some packages are, once they are built. Whoever else wants one meanwhile
/// waits.
type Places = Arc<Mutex<Option<HashMap<&'static str, PathBuf>>>>;

/// Packages that are built at once, and how.
type Build = (&'static [&'static str], Profile);

/// The kernels of this process.
static PLACES: LazyLock<Mutex<HashMap<Build, Places>>> = LazyLock::new(Mutex::default);

/// Makes sure of target and QEMU and builds the program of `package`.
///
/// # Errors
///
/// What is missing, what the compiler says, or what copying gives.
pub fn build(
    package: &'static str,
    profile: Profile,
) -> Result<PathBuf, Box<dyn Error + Send + Sync>> {
    let (packages, features): (&[_], &[_]) = match package {
        "guest-tests" | "site" if profile == Profile::Compact => (&TOGETHER, &FEATURES),
        "guest-tests" => (&["guest-tests"], &[]),
        "hello" => (&["hello"], &[]),
        _ => return Err(format!("nothing boots {package} ({})", profile.name()).into()),
    };
    let places = {
        let mut all = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry((packages, profile)).or_default())
    };
    let mut places = places.lock().unwrap_or_else(PoisonError::into_inner);
    if places.is_none() {
        prepare::target::ensure()?;
        prepare::emulator::ensure()?;
        let kernels = build::kernels(packages, profile, features)?;
        let mut copies = HashMap::new();
        for (package, kernel) in packages.iter().zip(kernels) {
            // Cargo has one place for a program, whatever its features, and somebody may run it.
            let copy = kernel.with_extension("tests");
            fs::copy(&kernel, &copy)?;
            copies.insert(*package, copy);
        }
        *places = Some(copies);
    }
    let place = places.as_ref().and_then(|places| places.get(package));
    Ok(place.ok_or("it has not been built")?.clone())
}
