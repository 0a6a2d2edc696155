//! Programs of a Debian for a guest, with the libraries of that Debian, whatever this host has.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::apt::Release;
use super::debian::{Missing, complaint, extract, run, settle};
use super::initramfs::Initramfs;

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// What runs a program that is not at its place, and where a guest looks for it.
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
const LOADER_PLACE: &str = "lib64/ld-linux-x86-64.so.2";

/// Packages with all that they need, unpacked.
#[derive(Clone, Debug)]
pub struct Tools {
    tree: PathBuf,
}

impl Tools {
    /// Takes what `cache` holds, or fetches `packages` of the release `suite`.
    ///
    /// # Errors
    ///
    /// [`Missing`].
    pub fn ensure(suite: &str, packages: &[&str], cache: &Path) -> Result<Self, Missing> {
        let tree = cache.join(format!("tools-{suite}"));
        if !tree.is_dir() {
            fetch(suite, packages, &tree)?;
        }
        Ok(Self { tree })
    }

    /// Adds programs to the files of a guest: those of the packages by their names, others by their
    /// paths. The guest has them in `/bin`.
    ///
    /// # Errors
    ///
    /// [`Missing`].
    pub fn add_to(&self, mut files: Initramfs, programs: &[&str]) -> Result<Initramfs, Missing> {
        let mut libraries = BTreeSet::new();
        for program in programs {
            let places = ["usr/bin", "usr/sbin"].map(|place| self.tree.join(place).join(program));
            let path = places.into_iter().find(|path| path.is_file());
            let path = path.ok_or_else(|| Missing::File((*program).into()))?;
            libraries.extend(self.libraries(&path)?);
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            files = files.with_program(&format!("bin/{name}"), &read(&path)?);
        }
        for library in libraries {
            let bytes = read(&self.tree.join(LIBRARIES).join(&library))?;
            files = files.with(&format!("{LIBRARIES}/{library}"), &bytes);
        }
        Ok(files.with_program(LOADER_PLACE, &read(&self.tree.join(LOADER))?))
    }

    /// The names of the libraries that a program needs.
    fn libraries(&self, program: &Path) -> Result<Vec<String>, Missing> {
        let mut loader = Command::new("timeout");
        loader.arg("60").arg(self.tree.join(LOADER));
        loader.arg("--library-path").arg(self.tree.join(LIBRARIES));
        let output = run("timeout", loader.arg("--list").arg(program))?;
        if !output.status.success() {
            return Err(Missing::File(complaint(&output)));
        }
        Ok(names(&String::from_utf8_lossy(&output.stdout)))
    }
}

/// The names in what the loader says: what each line begins with, but for what is no file in the
/// folder of libraries.
fn names(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.split_once(" => "));
    let names = lines.map(|(name, _)| name.trim());
    let in_folder = names.filter(|name| !name.contains('/'));
    in_folder.map(Into::into).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, Missing> {
    fs::read(path).map_err(|_| Missing::File(path.display().to_string()))
}

/// Unpacks packages and all that they need into the directory `place`, all of it or nothing.
fn fetch(suite: &str, packages: &[&str], place: &Path) -> Result<(), Missing> {
    let parent = place.parent().unwrap_or(place);
    fs::create_dir_all(parent)?;
    let work = TempDir::new_in(parent)?;
    let all = packages.join(" ");
    let release = Release::fetch(work.path(), &[suite], &all)?;
    let install = [
        "-y",
        "--no-install-recommends",
        "--download-only",
        "install",
    ];
    release.apt("apt-get", &[&install, packages].concat(), &all)?;
    let tree = work.path().join("tree");
    for package in release.packages()? {
        extract(&package, &tree, &all)?;
    }
    for needless in ["etc", "var", "usr/share"] {
        // They take room, and nothing else.
        let _ = fs::remove_dir_all(tree.join(needless));
    }
    settle(&tree, place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_named_and_the_loader_is_none_of_them() {
        let text = "\tlinux-vdso.so.1 (0x00007f)\n\
                    \tlibmnl.so.0 => /tree/usr/lib/libmnl.so.0 (0x00007f)\n\
                    \tlibc.so.6 => /tree/usr/lib/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 => /tree/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(names(text), ["libmnl.so.0", "libc.so.6"]);
    }
}
