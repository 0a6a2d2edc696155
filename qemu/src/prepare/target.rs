//! The standard library for the bare-metal target, which rustup adds.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{PrepareError, Step};
use crate::build::TARGET;

/// Makes sure that the compiler has the bare-metal target.
///
/// # Errors
///
/// [`PrepareError::Missing`] without rustup, [`PrepareError::Failed`] when rustup fails.
pub fn ensure() -> Result<(), PrepareError> {
    if sysroot().is_some_and(|sysroot| has_target(&sysroot)) {
        return Ok(());
    }
    let add = Step::new(&["rustup", "target", "add", TARGET]);
    if which::which("rustup").is_err() {
        return Err(PrepareError::Missing {
            what: "the compiler's target x86_64-unknown-none (rustup, from https://rustup.rs, adds it)",
            command: add.to_string(),
        });
    }
    add.run()
}

/// Where the compiler keeps its libraries.
fn sysroot() -> Option<PathBuf> {
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(compiler)
        .args(["--print", "sysroot"])
        .output()
        .ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| path.trim().into())
}

/// Whether `sysroot` holds the target's library.
fn has_target(sysroot: &Path) -> bool {
    sysroot
        .join("lib/rustlib")
        .join(TARGET)
        .join("lib")
        .is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn target_is_found_by_its_library() {
        let sysroot = tempfile::tempdir().unwrap();
        assert!(!has_target(sysroot.path()));
        fs::create_dir_all(sysroot.path().join("lib/rustlib/x86_64-unknown-none/lib")).unwrap();
        assert!(has_target(sysroot.path()));
    }
}
