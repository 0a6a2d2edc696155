//! The linker's arguments for an application, given from its build script.
//!
//! Cargo directives are used rather than `rustflags`, because a `RUSTFLAGS` in the user's
//! environment replaces those, and because a dependency cannot set them for its users.

use std::env;
use std::fs;
use std::path::PathBuf;

/// The script travels inside this crate, so that nothing depends on where its source lies.
const SCRIPT: &str = include_str!("../link.ld");

/// Makes the binaries of the calling package bootable. Call it from `build.rs`:
///
/// ```no_run
/// boot::link();
/// ```
///
/// It prints directives for Cargo on the standard output. Built for another target than
/// bare metal, say by `cargo check` on the host, the package is left alone.
pub fn link() {
    // Nothing in the calling package matters; when this crate changes, Cargo builds and runs it
    // anew.
    println!("cargo:rerun-if-changed=build.rs");
    if env::var_os("CARGO_CFG_TARGET_OS").is_none_or(|os| os != "none") {
        return;
    }
    let directory = env::var_os("OUT_DIR").expect("Cargo gives build scripts a directory");
    let script = PathBuf::from(directory).join("link.ld");
    fs::write(&script, SCRIPT).expect("Cargo's directory can be written to");
    println!("cargo:rustc-link-arg-bins=-T{}", script.display());
    // The target makes position-independent executables, which cannot hold the 32-bit
    // absolute addresses of the entry code.
    println!("cargo:rustc-link-arg-bins=--no-pie");
    // The linker would gather writable sections that the script does not name for a region that
    // becomes read-only after relocation at run time. There is none here.
    println!("cargo:rustc-link-arg-bins=-znorelro");
    // A loader reads the segments into memory and maps nothing of the file, in which they need not
    // begin on page borders.
    println!("cargo:rustc-link-arg-bins=-zmax-page-size=16");
    // Where size counts, functions with the same instructions are one: in Rust a function's address
    // tells nobody which one it is.
    if env::var("OPT_LEVEL").is_ok_and(|level| matches!(&*level, "s" | "z")) {
        println!("cargo:rustc-link-arg-bins=--icf=all");
    }
}
