//! Builds kernels: packages of this workspace for the bare-metal target.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, io, thread};

use serde::Deserialize;
use thiserror::Error;

use crate::progress::Progress;
use crate::tree;

/// The target kernels are built for.
pub const TARGET: &str = "x86_64-unknown-none";

/// How much the compiler optimizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Optimized for size, but for what each frame and each request passes: what the default
    /// unikernel is built as.
    #[default]
    Compact,
    /// Optimized for speed.
    Release,
    /// Not optimized, with debug assertions.
    Debug,
    /// The same as tests are built: without what only a debugger reads.
    Test,
}

impl Profile {
    /// The profile's name, which is also its folder's below the target directory.
    pub fn name(self) -> &'static str {
        match self {
            Self::Compact => "compact",
            Self::Release => "release",
            Self::Debug | Self::Test => "debug",
        }
    }

    /// Cargo's options for it.
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Compact => &["--profile", "compact"],
            Self::Release => &["--release"],
            Self::Debug => &[],
            Self::Test => &["--profile", "test"],
        }
    }
}

/// Why there is no kernel.
#[derive(Debug, Error)]
pub enum BuildError {
    /// Cargo could not be started or read.
    #[error("cargo does not run: {0}")]
    Cargo(#[from] io::Error),
    /// The compiler refused the sources.
    #[error("{package} does not build:\n{messages}")]
    Compiler {
        /// The package asked for.
        package: String,
        /// What cargo and the compiler say.
        messages: String,
    },
    /// The build went well, but the package has no program in it.
    #[error("{0} builds, but has no program to boot")]
    NoProgram(String),
    /// Cargo's description of the workspace makes no sense.
    #[error("cargo does not say where it builds: {0}")]
    Metadata(String),
}

/// One line of `cargo build --message-format=json`, as far as it matters here.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    target: Option<Target>,
}

/// The target a [`Message`] is about.
#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Builds the program of `package` with these of its features and says where it is. Warnings go to
/// standard error.
///
/// # Errors
///
/// A [`BuildError`] with the compiler's messages in it.
pub fn kernel(package: &str, profile: Profile, features: &[&str]) -> Result<PathBuf, BuildError> {
    kernels(&[package], profile, features)?
        .pop()
        .ok_or_else(|| BuildError::NoProgram(package.into()))
}

/// The same for several packages at once, whose features are written `PACKAGE/FEATURE`. What they
/// share is built once, with the features that any of them asks for.
///
/// # Errors
///
/// A [`BuildError`] with the compiler's messages in it.
pub fn kernels(
    packages: &[&str],
    profile: Profile,
    features: &[&str],
) -> Result<Vec<PathBuf>, BuildError> {
    let names = packages.join(", ");
    let progress = Progress::spinner(format!("building {names} ({})", profile.name()));
    let mut cargo = Command::new(cargo())
        .current_dir(tree::root())
        .args(["build", "--quiet", "--target", TARGET])
        .args(packages.iter().flat_map(|package| ["--package", package]))
        .args(profile.options())
        .args(["--features", &features.join(",")])
        // What a user wants for the programs of this host does not fit the bare-metal target.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .args(["--message-format", "json-render-diagnostics"])
        .args([
            "--color",
            if stderr().is_terminal() {
                "always"
            } else {
                "never"
            },
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stderr = cargo.stderr.take().map(BufReader::new);
    let listener = thread::spawn(move || match stderr {
        Some(stderr) => stderr.lines().map_while(Result::ok).collect(),
        None => Vec::new(),
    });
    let mut programs = HashMap::new();
    for line in cargo
        .stdout
        .take()
        .map(BufReader::new)
        .into_iter()
        .flat_map(BufRead::lines)
    {
        let Ok(message) = serde_json::from_str::<Message>(&line?) else {
            continue;
        };
        let Some(target) = message.target else {
            continue;
        };
        progress.detail(&target.name);
        if let Some(program) = message.executable {
            programs.insert(target.name, program);
        }
    }
    let status = cargo.wait()?;
    let messages = listener.join().unwrap_or_default();
    drop(progress);
    if !status.success() {
        return Err(BuildError::Compiler {
            package: names,
            messages: messages.join("\n"),
        });
    }
    for line in messages {
        eprintln!("{line}");
    }
    let program = |package: &&str| {
        let program = programs.remove(*package);
        program.ok_or_else(|| BuildError::NoProgram((*package).into()))
    };
    packages.iter().map(program).collect()
}

/// Where [`kernel`] would leave its program, without building it.
///
/// # Errors
///
/// A [`BuildError`] when cargo does not say where it builds.
pub fn expected_kernel(package: &str, profile: Profile) -> Result<PathBuf, BuildError> {
    #[derive(Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let output = Command::new(cargo())
        .current_dir(tree::root())
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return Err(BuildError::Metadata(message.trim().into()));
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout)
        .map_err(|error| BuildError::Metadata(error.to_string()))?;
    Ok(program_path(&metadata.target_directory, package, profile))
}

/// Cargo's place for the program of `package`.
fn program_path(target_directory: &Path, package: &str, profile: Profile) -> PathBuf {
    target_directory
        .join(TARGET)
        .join(profile.name())
        .join(package)
}

/// The cargo that runs us, or the one on the path.
fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_is_below_the_target_and_the_profile() {
        let path = program_path(Path::new("/t"), "site", Profile::Debug);
        assert_eq!(path, Path::new("/t/x86_64-unknown-none/debug/site"));
    }
}
