//! Kernel, modules and busybox out of Debian's packages, fetched once and kept.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;
use thiserror::Error;

use super::apt::Release;

/// The package that depends on the newest kernel for virtual machines, a third of the usual one's
/// size.
const NEWEST_KERNEL: &str = "linux-image-cloud-amd64";

/// What the name of a kernel's own package begins with.
const KERNEL_PREFIX: &str = "linux-image-";

/// The package of a shell and its tools in one file without libraries.
const BUSYBOX: &str = "busybox-static";

/// Seconds that one command may take before it counts as never done.
const PATIENCE: &str = "300";

/// The files of a Debian system, unpacked.
#[derive(Clone, Debug)]
pub struct Debian {
    kernel: PathBuf,
    busybox: PathBuf,
}

/// Why there is no Linux to boot; a test without it is skipped.
#[derive(Debug, Error)]
pub enum Missing {
    /// A program of the host.
    #[error("needs {0}, which Debian has")]
    Program(&'static str),
    /// A package.
    #[error("needs Debian's package {0}, which cannot be fetched: {1}")]
    Package(String, String),
    /// A file in a package.
    #[error("needs {0}, which is not in Debian's package")]
    File(String),
    /// The packages cannot be kept.
    #[error("needs a place for Debian's packages: {0}")]
    Cache(#[from] io::Error),
}

impl Debian {
    /// Takes what `cache` holds, and fetches the rest.
    ///
    /// # Errors
    ///
    /// [`Missing`].
    pub fn ensure(cache: &Path) -> Result<Self, Missing> {
        Self::with_kernel(cache, "kernel", |folder| fetch(&newest_kernel()?, folder))
    }

    /// The same with the newest kernel of the release `suite`, whatever release this host is.
    ///
    /// # Errors
    ///
    /// [`Missing`].
    pub fn with_kernel_of(suite: &str, cache: &Path) -> Result<Self, Missing> {
        let name = format!("kernel-{suite}");
        Self::with_kernel(cache, &name, |folder| fetch_kernel_of(suite, folder))
    }

    fn with_kernel(
        cache: &Path,
        name: &str,
        fetch_kernel: impl FnOnce(&Path) -> Result<(), Missing>,
    ) -> Result<Self, Missing> {
        fs::create_dir_all(cache)?;
        let kernel = cache.join(name);
        if !kernel.is_dir() {
            fetch_kernel(&kernel)?;
        }
        let busybox = cache.join("busybox");
        if !busybox.is_dir() {
            fetch(BUSYBOX, &busybox)?;
        }
        Ok(Self { kernel, busybox })
    }

    /// The kernel's image.
    ///
    /// # Errors
    ///
    /// [`Missing::File`].
    pub fn kernel(&self) -> Result<PathBuf, Missing> {
        let found = find(&self.kernel.join("boot"), &|name| {
            name.starts_with("vmlinuz-")
        });
        found.ok_or_else(|| Missing::File("vmlinuz".into()))
    }

    /// The program `busybox`.
    ///
    /// # Errors
    ///
    /// [`Missing::Cache`], if it cannot be read.
    pub fn busybox(&self) -> Result<Vec<u8>, Missing> {
        let path = ["bin/busybox", "usr/bin/busybox"].map(|path| self.busybox.join(path));
        let found = path.iter().find(|path| path.is_file());
        let path = found.ok_or_else(|| Missing::File("busybox".into()))?;
        Ok(fs::read(path)?)
    }

    /// The modules `names` of the kernel and all that they need, each after what it needs. What is
    /// built into the kernel is left out.
    ///
    /// # Errors
    ///
    /// [`Missing`], if one cannot be read or unpacked.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<Vec<u8>>, Missing> {
        let (mut seen, mut modules) = (BTreeSet::new(), Vec::new());
        for name in names {
            self.add_module(name, &mut seen, &mut modules)?;
        }
        Ok(modules)
    }

    fn add_module(
        &self,
        name: &str,
        seen: &mut BTreeSet<String>,
        modules: &mut Vec<Vec<u8>>,
    ) -> Result<(), Missing> {
        if !seen.insert(name.into()) {
            return Ok(());
        }
        let Some(module) = self.module(name)? else {
            return Ok(());
        };
        for needed in needs(&module) {
            self.add_module(&needed, seen, modules)?;
        }
        modules.push(module);
        Ok(())
    }

    /// The module `name`; `None` if it is built in.
    fn module(&self, name: &str) -> Result<Option<Vec<u8>>, Missing> {
        let [plain, packed] = ["ko", "ko.xz"].map(|ending| format!("{name}.{ending}"));
        // Files and modules differ in how they join words.
        let wanted = |found: &str| [&plain, &packed].contains(&&found.replace('-', "_"));
        let Some(path) = find(&self.kernel, &wanted) else {
            return Ok(None);
        };
        if path.extension().is_some_and(|ending| ending == "ko") {
            return Ok(Some(fs::read(path)?));
        }
        let output = run("xz", Command::new("xz").args(["-dc"]).arg(path))?;
        Ok(Some(output.stdout))
    }
}

/// The modules that a module says it needs.
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else {
        return Vec::new();
    };
    let value = module[start + KEY.len()..].split(|&byte| byte == 0).next();
    let value = String::from_utf8_lossy(value.unwrap_or_default());
    let names = value.split(',').filter(|name| !name.is_empty());
    names.map(|name| name.replace('-', "_")).collect()
}

/// The package of the newest kernel.
fn newest_kernel() -> Result<String, Missing> {
    let depends = || {
        let mut apt_cache = timed("apt-cache");
        run("apt-cache", apt_cache.args(["depends", NEWEST_KERNEL]))
    };
    if let Some(name) = dependency(&depends()?) {
        return Ok(name);
    }
    refresh()?;
    let output = depends()?;
    dependency(&output).ok_or_else(|| Missing::Package(NEWEST_KERNEL.into(), complaint(&output)))
}

/// The kernel's package in what `apt-cache depends` has said.
fn dependency(output: &Output) -> Option<String> {
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(KERNEL_PREFIX))
        .map(Into::into)
}

/// Unpacks the newest kernel of a release into the directory `place`.
fn fetch_kernel_of(suite: &str, place: &Path) -> Result<(), Missing> {
    let work = TempDir::new_in(place.parent().unwrap_or(place))?;
    let release = Release::fetch(work.path(), &[suite], NEWEST_KERNEL)?;
    let depends = release.apt("apt-cache", &["depends", NEWEST_KERNEL], NEWEST_KERNEL)?;
    let name = dependency(&depends);
    let name = name.ok_or_else(|| Missing::Package(NEWEST_KERNEL.into(), suite.into()))?;
    let output = release.apt("apt-get", &["download", &name], &name)?;
    unpack(&name, work.path(), &output, place)
}

/// Unpacks the package `name` into the directory `place`, all of it or nothing.
fn fetch(name: &str, place: &Path) -> Result<(), Missing> {
    let parent = place.parent().unwrap_or(place);
    let work = TempDir::new_in(parent)?;
    let download = || {
        let apt = ["-o", "Acquire::http::Timeout=30", "download", name];
        let mut apt_get = timed("apt-get");
        run("apt-get", apt_get.args(apt).current_dir(work.path()))
    };
    let mut output = download()?;
    if !output.status.success() {
        // Lists that have grown old name packages that are no longer served.
        refresh()?;
        output = download()?;
    }
    unpack(name, work.path(), &output, place)
}

/// Unpacks the package that was fetched into the folder `work`, or into one in it.
fn unpack(name: &str, work: &Path, fetched: &Output, place: &Path) -> Result<(), Missing> {
    let archive = find(work, &|file| file.ends_with(".deb"));
    let archive = archive.ok_or_else(|| Missing::Package(name.into(), complaint(fetched)))?;
    let tree = work.join("tree");
    extract(&archive, &tree, name)?;
    settle(&tree, place)
}

/// Unpacks an archive of the package `name` into the directory `tree`.
pub(crate) fn extract(archive: &Path, tree: &Path, name: &str) -> Result<(), Missing> {
    let mut unpack = timed("dpkg-deb");
    let output = run("dpkg-deb", unpack.arg("-x").arg(archive).arg(tree))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(Missing::Package(name.into(), complaint(&output)))
    }
}

/// Moves a directory that is complete to its place.
pub(crate) fn settle(tree: &Path, place: &Path) -> Result<(), Missing> {
    match fs::rename(tree, place) {
        // Somebody else was quicker.
        Err(_) if place.is_dir() => Ok(()),
        result => Ok(result?),
    }
}

/// Fetches the lists of packages anew, where that is allowed.
fn refresh() -> Result<(), Missing> {
    // Who may not finds the lists as they are.
    run("apt-get", timed("apt-get").args(["-qq", "update"])).map(|_| ())
}

/// A command that ends by itself or is ended.
pub(crate) fn timed(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args([PATIENCE, program]);
    command
}

/// Runs a `command` that is or begins with `program`, and waits for its end.
pub(crate) fn run(program: &'static str, command: &mut Command) -> Result<Output, Missing> {
    if which::which(program).is_err() {
        return Err(Missing::Program(program));
    }
    let output = command.stdin(Stdio::null()).output();
    output.map_err(|_| Missing::Program("timeout"))
}

/// The last line of what a command said against it.
pub(crate) fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().last().unwrap_or("for no reason it gives");
    last.trim().into()
}

/// The first file below `directory` whose name is wanted.
fn find(directory: &Path, wanted: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(directory)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    entries.sort();
    let named = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path.is_file() && wanted(&name)
    };
    let here = entries.iter().find(|path| named(path)).cloned();
    // A link may lead back.
    let below = || {
        let directories = entries
            .iter()
            .filter(|path| path.is_dir() && !path.is_symlink());
        directories.into_iter().find_map(|path| find(path, wanted))
    };
    here.or_else(below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::ExitStatus;

    #[test]
    fn kernel_is_found_among_the_dependencies() {
        let said = |text: &str| Output {
            status: ExitStatus::default(),
            stdout: text.into(),
            stderr: Vec::new(),
        };
        let text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-9-cloud-amd64\n";
        assert_eq!(
            dependency(&said(text)).as_deref(),
            Some("linux-image-6.1.0-9-cloud-amd64")
        );
        assert_eq!(dependency(&said("N: Unable to locate package\n")), None);
    }

    #[test]
    fn modules_come_after_what_they_need_and_built_in_ones_not_at_all() {
        let cache = tempfile::tempdir().unwrap();
        let modules = cache.path().join("lib/modules/6.1/kernel/drivers/block");
        fs::create_dir_all(&modules).unwrap();
        let write = |name: &str, depends: &str| {
            let bytes = format!("{name}\0x=y\0depends={depends}\0z=\0");
            fs::write(modules.join(name), bytes).unwrap();
        };
        write("virtio_blk.ko", "virtio,virtio-ring");
        write("virtio-ring.ko", "virtio");
        write("virtio_pci.ko", "virtio_ring");
        let debian = Debian {
            kernel: cache.path().into(),
            busybox: cache.path().into(),
        };
        let found = debian.modules(&["virtio_blk", "virtio_pci"]).unwrap();
        let first = found
            .iter()
            .map(|module| module.split(|&byte| byte == 0).next());
        let first: Vec<&[u8]> = first.map(Option::unwrap).collect();
        assert_eq!(
            first,
            [&b"virtio-ring.ko"[..], b"virtio_blk.ko", b"virtio_pci.ko"]
        );
        assert!(debian.busybox().is_err() && debian.kernel().is_err());
    }
}
