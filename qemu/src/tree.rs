//! Where things are in the source tree this program was built from.

use std::path::{Path, PathBuf};

/// The top of the workspace.
pub fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// The files of the sample site.
pub fn sample_site() -> PathBuf {
    root().join("kernel/site/files")
}
