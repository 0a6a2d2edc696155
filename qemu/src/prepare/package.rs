//! Programs of the system's packages: installed where that takes no question, else explained.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use super::{PrepareError, Step};

/// Where apt keeps its lists of packages.
const APT_LISTS: &str = "/var/lib/apt/lists";

/// One installation at a time: apt's next one would find its lock taken.
static INSTALLING: Mutex<()> = Mutex::new(());

/// What the package of a program is called on each platform where that is known.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// On Debian, Ubuntu and their like.
    pub debian: &'static str,
    /// On Fedora and its like.
    pub fedora: Option<&'static str>,
    /// On Arch.
    pub arch: Option<&'static str>,
    /// On Alpine.
    pub alpine: Option<&'static str>,
    /// In Homebrew.
    pub mac_os: Option<&'static str>,
}

impl Names {
    /// Of a package that is only known from Debian.
    #[must_use]
    pub const fn debian(name: &'static str) -> Self {
        Self {
            debian: name,
            fedora: None,
            arch: None,
            alpine: None,
            mac_os: None,
        }
    }
}

/// Makes sure that `program` is on the path.
///
/// # Errors
///
/// [`PrepareError::Missing`] with the command for this platform where it cannot be installed
/// without a question, [`PrepareError::Failed`] when the installation fails.
pub fn ensure(program: &'static str, names: &Names) -> Result<(), PrepareError> {
    let installed = || which::which(program).is_ok();
    let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if installed() {
        return Ok(());
    }
    let platform = Platform::of_this_host();
    let privilege = Privilege::of_this_process();
    let missing = PrepareError::Missing {
        what: program,
        command: platform.command(privilege, program, names),
    };
    let Some(apt) = (platform == Platform::Debian)
        .then(|| Apt::new(privilege, names.debian))
        .flatten()
    else {
        return Err(missing);
    };
    if !has_package_lists(Path::new(APT_LISTS)) {
        apt.update.run()?;
        apt.install.run()?;
    } else if apt.install.run().is_err() {
        // Lists that have grown old name packages that are no longer served.
        apt.update.run()?;
        apt.install.run()?;
    }
    if installed() { Ok(()) } else { Err(missing) }
}

/// The families of systems with packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Platform {
    Debian,
    Fedora,
    Arch,
    Alpine,
    MacOs,
    Other,
}

impl Platform {
    fn of_this_host() -> Self {
        if cfg!(target_os = "macos") {
            return Self::MacOs;
        }
        Self::from_os_release(&fs::read_to_string("/etc/os-release").unwrap_or_default())
    }

    /// Reads `ID` and `ID_LIKE` of an os-release file.
    fn from_os_release(text: &str) -> Self {
        let value = |key: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_default()
                .trim_matches(['"', '\''])
                .to_string()
        };
        let names = value("ID") + " " + &value("ID_LIKE");
        let known = names.split_whitespace().find_map(|name| match name {
            "debian" | "ubuntu" => Some(Self::Debian),
            "fedora" | "rhel" => Some(Self::Fedora),
            "arch" => Some(Self::Arch),
            "alpine" => Some(Self::Alpine),
            _ => None,
        });
        known.unwrap_or(Self::Other)
    }

    /// What a user types to install the package of `program`.
    fn command(self, privilege: Privilege, program: &str, names: &Names) -> String {
        let (install, name) = match self {
            Self::Debian => (
                "apt-get install --no-install-recommends",
                Some(names.debian),
            ),
            Self::Fedora => ("dnf install", names.fedora),
            Self::Arch => ("pacman -S", names.arch),
            Self::Alpine => ("apk add", names.alpine),
            Self::MacOs => ("brew install", names.mac_os),
            Self::Other => ("", None),
        };
        let Some(name) = name else {
            return format!("(the package of your system that has the program {program})");
        };
        match privilege {
            Privilege::Sudo | Privilege::None if self != Self::MacOs => {
                format!("sudo {install} {name}")
            }
            _ => format!("{install} {name}"),
        }
    }
}

/// How this process may install packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Privilege {
    Root,
    /// `sudo` works without a password.
    Sudo,
    None,
}

impl Privilege {
    fn of_this_process() -> Self {
        if rustix::process::geteuid().is_root() {
            return Self::Root;
        }
        let sudo = Command::new("sudo")
            .args(["-n", "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if sudo.is_ok_and(|status| status.success()) {
            Self::Sudo
        } else {
            Self::None
        }
    }
}

/// The steps of an installation by apt.
#[derive(Debug, PartialEq, Eq)]
struct Apt {
    update: Step,
    install: Step,
}

impl Apt {
    /// `None` without the privilege to install.
    fn new(privilege: Privilege, package: &'static str) -> Option<Self> {
        let prefix: &[&str] = match privilege {
            Privilege::Root => &[],
            Privilege::Sudo => &["sudo", "-n"],
            Privilege::None => return None,
        };
        let step = |arguments: &[&'static str]| {
            let apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
            Step::new(&[prefix, &apt, arguments].concat())
        };
        Some(Self {
            update: step(&["update"]),
            install: step(&["install", "-y", "--no-install-recommends", package]),
        })
    }
}

/// Whether apt has ever fetched a list of packages into `lists`.
fn has_package_lists(lists: &Path) -> bool {
    fs::read_dir(lists).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_known_by_their_os_release() {
        for (text, platform) in [
            (
                "PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n",
                Platform::Debian,
            ),
            ("ID=ubuntu\nID_LIKE=debian\n", Platform::Debian),
            (
                "NAME=\"Linux Mint\"\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n",
                Platform::Debian,
            ),
            ("ID=fedora\nVERSION_ID=41\n", Platform::Fedora),
            (
                "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n",
                Platform::Fedora,
            ),
            ("ID=arch\n", Platform::Arch),
            ("ID=alpine\nVERSION_ID=3.20.0\n", Platform::Alpine),
            ("ID=nixos\n", Platform::Other),
            ("VERSION_ID=debian\n", Platform::Other),
            ("", Platform::Other),
        ] {
            assert_eq!(Platform::from_os_release(text), platform, "{text:?}");
        }
    }

    #[test]
    fn printed_command_asks_for_the_privilege_it_needs() {
        let names = Names {
            arch: Some("qemu-full"),
            mac_os: Some("qemu"),
            ..Names::debian("qemu-system-x86")
        };
        let command = |platform: Platform, privilege| platform.command(privilege, "qemu", &names);
        assert_eq!(
            command(Platform::Debian, Privilege::None),
            "sudo apt-get install --no-install-recommends qemu-system-x86"
        );
        assert_eq!(
            command(Platform::Arch, Privilege::Root),
            "pacman -S qemu-full"
        );
        assert_eq!(
            command(Platform::MacOs, Privilege::None),
            "brew install qemu"
        );
        assert_eq!(
            command(Platform::Fedora, Privilege::Root),
            "(the package of your system that has the program qemu)"
        );
    }

    #[test]
    fn apt_runs_only_where_no_password_is_asked() {
        assert_eq!(Apt::new(Privilege::None, "nbdkit"), None);
        let install = |privilege| Apt::new(privilege, "nbdkit").unwrap().install.to_string();
        let apt =
            "env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends nbdkit";
        assert_eq!(install(Privilege::Root), apt);
        assert_eq!(install(Privilege::Sudo), format!("sudo -n {apt}"));
    }

    #[test]
    fn fresh_system_has_no_package_lists() {
        let lists = tempfile::tempdir().unwrap();
        fs::create_dir(lists.path().join("partial")).unwrap();
        assert!(!has_package_lists(lists.path()));
        let name = "deb.debian.org_debian_dists_bookworm_main_binary-amd64_Packages.lz4";
        fs::write(lists.path().join(name), "").unwrap();
        assert!(has_package_lists(lists.path()));
    }
}
