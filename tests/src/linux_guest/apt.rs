//! Packages of a Debian that this machine need not run. The machine's own lists and packages are not
//! touched.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Output;

use super::debian::{Missing, complaint, run, timed};

const MIRROR: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A release, or several, as if nothing were installed.
pub(crate) struct Release {
    options: Vec<String>,
    archives: PathBuf,
}

impl Release {
    /// Fetches the lists of `suites` into `folder`, where everything is kept.
    ///
    /// # Errors
    ///
    /// [`Missing`], with `package` as what is missing.
    pub(crate) fn fetch(folder: &Path, suites: &[&str], package: &str) -> Result<Self, Missing> {
        let [lists, archives] = ["lists", "archives"].map(|name| folder.join(name));
        for directory in [&lists, &archives] {
            fs::create_dir_all(directory.join("partial"))?;
        }
        let [status, sources] = ["status", "sources.list"].map(|name| folder.join(name));
        fs::write(&status, "")?;
        let source = |suite| format!("deb [signed-by={KEYRING}] {MIRROR} {suite} main\n");
        fs::write(&sources, suites.iter().map(source).collect::<String>())?;
        let options = [
            format!("Dir::State::Lists={}", lists.display()),
            format!("Dir::State::status={}", status.display()),
            format!("Dir::Cache={}", folder.display()),
            format!("Dir::Cache::archives={}", archives.display()),
            format!("Dir::Etc::sourcelist={}", sources.display()),
            "Dir::Etc::sourceparts=/dev/null".into(),
            "Dir::Etc::preferencesparts=/dev/null".into(),
            "APT::Architecture=amd64".into(),
            "APT::Sandbox::User=".into(),
            "Debug::NoLocking=1".into(),
            "Acquire::Languages=none".into(),
            "Acquire::http::Timeout=30".into(),
        ];
        let options = options.into_iter().flat_map(|option| ["-o".into(), option]);
        let release = Self {
            options: options.collect(),
            archives,
        };
        release.apt("apt-get", &["update"], package)?;
        Ok(release)
    }

    /// Runs one of apt's programs, which works in the folder of the packages.
    ///
    /// # Errors
    ///
    /// [`Missing`], with `package` as what is missing.
    pub(crate) fn apt(
        &self,
        program: &'static str,
        words: &[&str],
        package: &str,
    ) -> Result<Output, Missing> {
        let mut apt = timed(program);
        apt.arg("-q").args(&self.options).args(words);
        let output = run(program, apt.current_dir(&self.archives))?;
        if output.status.success() {
            Ok(output)
        } else {
            Err(Missing::Package(package.into(), complaint(&output)))
        }
    }

    /// The packages that were fetched.
    ///
    /// # Errors
    ///
    /// What reading their folder gives.
    pub(crate) fn packages(&self) -> io::Result<Vec<PathBuf>> {
        let files = fs::read_dir(&self.archives)?.map(|entry| Ok(entry?.path()));
        let files: Vec<PathBuf> = files.collect::<io::Result<_>>()?;
        let packed = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "deb");
        Ok(files.into_iter().filter(packed).collect())
    }
}
