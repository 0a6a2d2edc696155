//! What stands between a function and the guest, and the commands that mend it.

use std::fmt;

use super::address::Address;
use super::binding::Step;
use super::function::{Function, folder};
use super::ids::Ids;
use super::usage::Use;

/// Something about the host that somebody should know before a function is passed through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// There is no such function.
    Absent {
        /// Where it was looked for.
        address: Address,
        /// The functions that the guest has a driver for and the host has no use for.
        candidates: Vec<Function>,
    },
    /// A bridge, whose bus the host needs.
    Bridge(Address),
    /// The guest has no driver for the function.
    NoDriver {
        /// Where it is.
        address: Address,
        /// What it is.
        ids: Ids,
    },
    /// The host has no IOMMU group at all.
    IommuOff(Cpu),
    /// No IOMMU is responsible for the function.
    NoGroup(Address),
    /// A function of the group is with a driver of the host.
    GroupShared {
        /// The function to pass through.
        address: Address,
        /// Its group.
        group: u32,
        /// Who else is in it and not with vfio.
        offenders: Vec<Function>,
    },
    /// The function is not bound to `vfio-pci`, and nobody has been asked to do that.
    NotBound {
        /// The function as it is.
        function: Function,
        /// What binds it.
        steps: Vec<Step>,
    },
    /// `--bind` lacks the right to bind.
    BindingDenied(Address),
    /// A device file of vfio does not exist.
    NodeAbsent(String),
    /// A device file of vfio is there, but this process may not use it.
    NodeDenied(String),
    /// Less memory may be locked than the guest needs, all of which the function may reach.
    LockedMemory {
        /// What may be locked, in bytes.
        limit: u64,
        /// What must be, in bytes.
        needed: u64,
    },
    /// The IOMMU lets any interrupt pass, and vfio has not been told to bear that.
    NoInterruptRemapping,
    /// Virtual functions of the function are switched on.
    VfsEnabled {
        /// The physical function.
        address: Address,
        /// How many.
        count: u32,
    },
    /// The host uses it.
    InUse {
        /// The function.
        address: Address,
        /// What for.
        uses: Vec<Use>,
    },
}

/// Whose processors the host has: they name their IOMMU differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cpu {
    /// VT-d, which the kernel has not been asked to switch on.
    Intel,
    /// VT-d, which the kernel has been asked to switch on.
    IntelAsked,
    /// AMD-Vi, which the kernel switches on by itself.
    Amd,
    /// Another one.
    Other,
}

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gravity {
    /// Without it nothing goes.
    Missing,
    /// It would go, and harm the host. Somebody can ask for it.
    Refused,
    /// It goes, and is probably not what was meant.
    Warning,
}

impl Finding {
    /// How much it weighs.
    pub fn gravity(&self) -> Gravity {
        match self {
            Self::NoInterruptRemapping | Self::VfsEnabled { .. } | Self::InUse { .. } => {
                Gravity::Refused
            }
            Self::NoDriver { .. } => Gravity::Warning,
            _ => Gravity::Missing,
        }
    }

    /// What mends it, a line each.
    pub fn remedy(&self) -> Vec<String> {
        match self {
            Self::Absent { candidates, .. } if candidates.is_empty() => {
                vec!["this host has none to spare that the guest has a driver for; all there are: lspci -Dnn".into()]
            }
            Self::Absent { candidates, .. } => {
                let head = "functions of this host that could be passed through:".into();
                let rest = candidates.iter().map(Function::to_string);
                [head].into_iter().chain(rest).collect()
            }
            Self::Bridge(_) => vec!["name a function behind it: lspci -Dnnt".into()],
            Self::NoDriver { .. } => {
                vec!["it has drivers for virtio network and block functions, Intel's IFC among them".into()]
            }
            Self::IommuOff(cpu) => cpu.remedy(),
            Self::NoGroup(_) => vec!["what the kernel says about its IOMMUs: sudo dmesg | grep -e DMAR -e AMD-Vi".into()],
            Self::GroupShared { offenders, .. } => {
                let steps = offenders.iter().flat_map(Step::binding);
                ["bind these too, or take a slot whose port keeps them apart (ACS):".into()]
                    .into_iter()
                    .chain(steps.map(|step| step.to_string()))
                    .collect()
            }
            Self::NotBound { steps, .. } => ["--bind does this for the time of the run; by hand:".into()]
                .into_iter()
                .chain(steps.iter().map(Step::to_string))
                .collect(),
            Self::BindingDenied(_) => vec![
                "as root: sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo run -- --passthrough ... --bind".into(),
                "or by hand, with the commands that --dry-run --bind prints".into(),
            ],
            Self::NodeAbsent(_) => vec![
                "sudo modprobe vfio-pci".into(),
                "in a container: give it the folder /dev/vfio of the host".into(),
            ],
            Self::NodeDenied(node) => vec![
                format!("sudo chown \"$USER\" {node}"),
                "for good: echo \"SUBSYSTEM==\\\"vfio\\\", OWNER=\\\"$USER\\\"\" | sudo tee /etc/udev/rules.d/70-vfio.rules".into(),
            ],
            Self::LockedMemory { needed, .. } => vec![
                format!("in this shell: sudo prlimit --pid $$ --memlock={needed}:{needed}"),
                format!("from the next login on: echo \"$USER - memlock {}\" | sudo tee -a /etc/security/limits.conf", needed / 1024),
            ],
            Self::NoInterruptRemapping => vec![
                "switch interrupt remapping on in the firmware (with VT-d or AMD-Vi; some call it x2APIC)".into(),
                "or trust the guest: sudo modprobe vfio_iommu_type1 allow_unsafe_interrupts=1".into(),
                "or, if it is loaded: echo Y | sudo tee /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts".into(),
            ],
            Self::VfsEnabled { address, .. } => vec![
                "pass one of them through instead".into(),
                format!("or switch them off: echo 0 | sudo tee /{}/sriov_numvfs", folder(*address)),
            ],
            Self::InUse { .. } => vec!["end that, or say --force if the host can do without it".into()],
        }
    }
}

impl Cpu {
    fn remedy(self) -> Vec<String> {
        let firmware = |name: &str| format!("switch {name} on in the firmware");
        let parameters = |words: &str| {
            format!(
                "add {words} to GRUB_CMDLINE_LINUX in /etc/default/grub; sudo update-grub; sudo reboot"
            )
        };
        match self {
            Self::Intel => vec![firmware("VT-d"), parameters("intel_iommu=on iommu=pt")],
            Self::IntelAsked => vec![firmware(
                "VT-d (the kernel's command line asks for it already)",
            )],
            Self::Amd => vec![firmware("the IOMMU (AMD-Vi)"), parameters("iommu=pt")],
            Self::Other => vec!["the host needs an IOMMU that Linux has a driver for".into()],
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent { address, .. } => write!(f, "there is no function {address}"),
            Self::Bridge(address) => write!(f, "{address} is a bridge"),
            Self::NoDriver { address, ids } => {
                write!(f, "{address} [{ids}]: no driver of the guest takes it")
            }
            Self::IommuOff(_) => f.write_str("the IOMMU is off: /sys/kernel/iommu_groups is empty"),
            Self::NoGroup(address) => write!(f, "{address} is in no IOMMU group"),
            Self::GroupShared {
                address,
                group,
                offenders,
            } => {
                write!(f, "IOMMU group {group} of {address} is not free:")?;
                for (index, offender) in offenders.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    let driver = offender.driver.as_deref().unwrap_or("no driver");
                    write!(f, "{comma} {} is with {driver}", offender.address)?;
                }
                Ok(())
            }
            Self::NotBound { function, .. } => {
                let driver = function.driver.as_deref().unwrap_or("no driver");
                write!(
                    f,
                    "{} is with {driver}, not with vfio-pci",
                    function.address
                )
            }
            Self::BindingDenied(address) => {
                write!(f, "--bind may not change which driver {address} has")
            }
            Self::NodeAbsent(node) => write!(f, "{node} is not there"),
            Self::NodeDenied(node) => write!(f, "{node} is not yours to open"),
            Self::LockedMemory { limit, needed } => write!(
                f,
                "{} KiB of memory may be locked, and the guest needs {} KiB",
                limit / 1024,
                needed / 1024
            ),
            Self::NoInterruptRemapping => {
                f.write_str("interrupts are not remapped: a guest could raise any of this host's")
            }
            Self::VfsEnabled { address, count } => write!(
                f,
                "{address} has virtual functions that go with it: {count} are switched on"
            ),
            Self::InUse { address, uses } => {
                write!(f, "this host uses {address}:")?;
                for (index, reason) in uses.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma} {reason}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Gravity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::Refused => "refused",
            Self::Warning => "warning",
        })
    }
}
