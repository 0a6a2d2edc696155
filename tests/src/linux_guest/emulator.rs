//! Programs of this host as files for a guest: with the libraries they need, and QEMU with its
//! translator and firmware.

use std::path::{Path, PathBuf};
use std::process::Command;

use qemu::guest::QEMU;

use super::debian::{Missing, run};

/// Where Debian's QEMU has the translator, which is a file of its own there.
const TRANSLATOR: &str = "/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so";

/// What QEMU loads into a machine without a display that is given a kernel.
const FIRMWARE: [&str; 4] = [
    "bios-256k.bin",
    "kvmvapic.bin",
    "linuxboot_dma.bin",
    "pvh.bin",
];

/// The files of the QEMU that is on the path. They must keep their places.
///
/// # Errors
///
/// [`Missing`].
pub fn emulator() -> Result<Vec<PathBuf>, Missing> {
    let program = which::which(QEMU).map_err(|_| Missing::Program(QEMU))?;
    let mut files = with_libraries(&program)?;
    files.push(TRANSLATOR.into());
    let directories = data_directories()?;
    for name in FIRMWARE {
        let places = directories.iter().map(|directory| directory.join(name));
        // A file that this version does not have it does not need.
        files.extend({ places }.find(|place| place.is_file()));
    }
    files.retain(|file| file.is_file());
    Ok(files)
}

/// `program`, the libraries that it is linked with, and what loads them.
///
/// # Errors
///
/// [`Missing`].
pub fn with_libraries(program: &Path) -> Result<Vec<PathBuf>, Missing> {
    let output = run("ldd", Command::new("ldd").arg(program))?;
    let mut files = paths(&String::from_utf8_lossy(&output.stdout));
    files.push(program.into());
    Ok(files)
}

/// The files in what `ldd` says: the first word of each line that is a path.
fn paths(text: &str) -> Vec<PathBuf> {
    text.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(Into::into)
        .collect()
}

/// Where QEMU looks for its firmware.
fn data_directories() -> Result<Vec<PathBuf>, Missing> {
    let output = run(QEMU, Command::new(QEMU).args(["-L", "help"]))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().map(Into::into).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_their_loader_are_read_and_what_is_no_file_is_not() {
        let text = "\tlinux-vdso.so.1 (0x00007ffc)\n\
                    \tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f)\n\
                    \tlibgone.so => not found\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            paths(text),
            [
                Path::new("/lib/x86_64-linux-gnu/libz.so.1"),
                Path::new("/lib64/ld-linux-x86-64.so.2"),
            ]
        );
    }
}
