//! Where things are in the source tree this program was built from.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The top of the workspace. Cargo names it to what it runs; otherwise it is where this program was
/// built, which is not asked first because a checkout can be moved.
pub fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let running = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let top = |package: PathBuf| package.parent().map(Path::to_path_buf);
        let is_ours = |top: &PathBuf| top.join("kernel/site/Cargo.toml").is_file();
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        running.and_then(top).filter(is_ours).unwrap_or(built)
    });
    &ROOT
}

/// The files of the sample site.
pub fn sample_site() -> PathBuf {
    root().join("kernel/site/files")
}
