//! The linker's arguments for an application, given from its build script.
//!
//! Cargo directives are used rather than `rustflags`, because a `RUSTFLAGS` in the user's
//! environment replaces those, and because a dependency cannot set them for its users.

use std::env;
use std::path::Path;

/// Makes the binaries of the calling package bootable. Call it from `build.rs`:
///
/// ```no_run
/// boot::link();
/// ```
///
/// It prints directives for Cargo on the standard output. Built for another target than
/// bare metal, say by `cargo check` on the host, the package is left alone.
pub fn link() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("link.ld");
    println!("cargo:rerun-if-changed={}", script.display());
    if env::var_os("CARGO_CFG_TARGET_OS").is_some_and(|os| os == "none") {
        println!("cargo:rustc-link-arg-bins=-T{}", script.display());
        // The target makes position-independent executables, which cannot hold the 32-bit
        // absolute addresses of the entry code.
        println!("cargo:rustc-link-arg-bins=--no-pie");
        // The linker would gather writable sections that the script does not name for a region that
        // becomes read-only after relocation at run time. There is none here.
        println!("cargo:rustc-link-arg-bins=-znorelro");
    }
}
