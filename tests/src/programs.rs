//! Programs of this workspace that run on the host, built once more where a test needs them.

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use qemu::tree;
use serde_json::Value;
use thiserror::Error;

/// A test of the workspace that is soon built.
const TEST: &str = "public_api";

/// Why there is no program.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The compiler has something against it.
    #[error("{0} does not build:\n{1}")]
    Failed(&'static str, String),
    /// The compiler cannot be run.
    #[error("cargo: {0}")]
    Run(#[from] io::Error),
}

/// Builds a program that no other target bears the name of, as `qemu` does: the one that `cargo test` has built
/// already, if it was told nothing.
///
/// # Errors
///
/// [`BuildError`].
pub fn build(package: &'static str) -> Result<PathBuf, BuildError> {
    // Of the same packages, and with a test: so no dependency is built with other features.
    build_with(package, &["--profile", "test", "--test", TEST])
}

/// Builds it as its users do, to be measured.
///
/// # Errors
///
/// [`BuildError`].
pub fn build_fast(program: &'static str) -> Result<PathBuf, BuildError> {
    build_with(program, &["--release"])
}

fn build_with(package: &'static str, words: &[&str]) -> Result<PathBuf, BuildError> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(tree::root())
        .args(["build", "--quiet", "--bin", package])
        .args(words)
        .args(["--message-format", "json-render-diagnostics"])
        .stdin(Stdio::null())
        .output()?;
    let failed = || {
        let said = String::from_utf8_lossy(&output.stderr);
        BuildError::Failed(package, said.into_owned())
    };
    if !output.status.success() {
        return Err(failed());
    }
    let messages = output.stdout.split(|&byte| byte == b'\n');
    let messages = messages.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    // Others are built beside it.
    let of_program = messages.filter(|message| message["target"]["name"] == package);
    let mut programs =
        of_program.filter_map(|message| Some(message["executable"].as_str()?.into()));
    programs.next_back().ok_or_else(failed)
}
