//! Which accelerator runs the guest's instructions.
//!
//! A `/dev/kvm` proves little: inside a virtual machine it may answer without hardware behind it
//! (the software module `kvm_pvm`), and then boots thirty times slower than QEMU's translator.
//! KVM is chosen only when the processor shows its virtualization extension.

use std::fmt;
use std::fs::{self, File};
use std::path::Path;

use clap::ValueEnum;

/// What the user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AccelChoice {
    /// KVM where the hardware is really there, else the translator.
    #[default]
    Auto,
    /// QEMU's translator.
    Tcg,
    /// Linux KVM, whatever the detection says.
    Kvm,
}

impl AccelChoice {
    /// Decides, looking at this host if it is left to us.
    pub fn resolve(self) -> Accel {
        match self {
            Self::Auto if hardware_kvm(Path::new("/")) => Accel::Kvm,
            Self::Kvm => Accel::Kvm,
            Self::Auto | Self::Tcg => Accel::Tcg,
        }
    }
}

/// An accelerator of QEMU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accel {
    /// QEMU's translator: works everywhere.
    #[default]
    Tcg,
    /// Linux KVM.
    Kvm,
}

impl Accel {
    /// The processor model that gives the guest most under this accelerator.
    pub fn default_cpu(self) -> &'static str {
        match self {
            Self::Tcg => "max",
            Self::Kvm => "host",
        }
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        })
    }
}

/// Whether the host whose root directory is `root` has KVM on real hardware: an x86-64 host, the
/// device opens for reading and writing, the processor shows VMX or SVM, and the software module
/// is not what answers.
pub fn hardware_kvm(root: &Path) -> bool {
    let device_opens = || {
        File::options()
            .read(true)
            .write(true)
            .open(root.join("dev/kvm"))
            .is_ok()
    };
    let extension_shown = || {
        fs::read_to_string(root.join("proc/cpuinfo")).is_ok_and(|cpuinfo| has_extension(&cpuinfo))
    };
    let software_module = || root.join("sys/module/kvm_pvm").exists();
    cfg!(all(target_os = "linux", target_arch = "x86_64"))
        && extension_shown()
        && !software_module()
        && device_opens()
}

/// Whether `/proc/cpuinfo` lists Intel VMX or AMD SVM among the processor's flags.
fn has_extension(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.trim() == "flags")
        .any(|(_, flags)| {
            flags
                .split_whitespace()
                .any(|flag| flag == "vmx" || flag == "svm")
        })
}

#[cfg(test)]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use super::*;

    /// A host with a `/dev/kvm` that opens and this `/proc/cpuinfo`.
    fn host(cpuinfo: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("dev")).unwrap();
        fs::create_dir_all(root.path().join("proc")).unwrap();
        fs::write(root.path().join("dev/kvm"), "").unwrap();
        fs::write(root.path().join("proc/cpuinfo"), cpuinfo).unwrap();
        root
    }

    #[test]
    fn hardware_extension_and_device_make_kvm_usable() {
        for flags in ["fpu vmx sse2", "fpu svm", "svm"] {
            let root = host(&format!(
                "processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: none\n"
            ));
            assert!(hardware_kvm(root.path()), "{flags}");
        }
    }

    #[test]
    fn device_without_hardware_is_not_used() {
        let root =
            host("processor\t: 0\nflags\t\t: fpu sse2 hypervisor svm_lock\nvmx flags\t: vnmi\n");
        assert!(!hardware_kvm(root.path()));
    }

    #[test]
    fn software_module_is_not_used() {
        let root = host("flags\t\t: vmx\n");
        fs::create_dir_all(root.path().join("sys/module/kvm_pvm")).unwrap();
        assert!(!hardware_kvm(root.path()));
    }

    #[test]
    fn hardware_without_a_device_that_opens_is_not_used() {
        let root = host("flags\t\t: vmx\n");
        fs::remove_file(root.path().join("dev/kvm")).unwrap();
        assert!(!hardware_kvm(root.path()));
        fs::create_dir(root.path().join("dev/kvm")).unwrap();
        assert!(!hardware_kvm(root.path()));
    }

    #[test]
    fn explicit_choices_are_not_second_guessed() {
        assert_eq!(AccelChoice::Tcg.resolve(), Accel::Tcg);
        assert_eq!(AccelChoice::Kvm.resolve(), Accel::Kvm);
    }
}
