//! Programs of this workspace that run on the host, built once more where a test needs them.

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use thiserror::Error;

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

/// Builds the program that bears the name of its package.
///
/// # Errors
///
/// [`BuildError`].
pub fn build(package: &'static str) -> Result<PathBuf, BuildError> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--package", package, "--bin", package])
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
    let mut programs = messages.filter_map(|message| Some(message["executable"].as_str()?.into()));
    programs.next_back().ok_or_else(failed)
}
