//! A PCI function of the host, as sysfs describes it.

use std::fmt;

use super::address::Address;
use super::host::{Host, PCI};
use super::ids::Ids;

/// What is known of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Where it sits.
    pub address: Address,
    /// What it is.
    pub ids: Ids,
    /// The driver of the host that it is bound to.
    pub driver: Option<String>,
    /// The only driver that may be bound to it, if somebody has said so.
    pub driver_override: Option<String>,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// The function whose virtual function it is.
    pub physical: Option<Address>,
    /// How many virtual functions of it are switched on.
    pub vfs: u32,
}

impl Host {
    /// Every PCI function, in the order of their addresses.
    pub fn functions(&self) -> Vec<Function> {
        let names = self.names(&format!("{PCI}/devices"));
        let addresses = names.iter().filter_map(|name| name.parse().ok());
        addresses
            .filter_map(|address| self.function(address))
            .collect()
    }

    /// The function at `address`, if there is one.
    pub fn function(&self, address: Address) -> Option<Function> {
        Function::read(self, address)
    }
}

impl Function {
    fn read(host: &Host, address: Address) -> Option<Self> {
        let folder = folder(address);
        let number = |name: &str| {
            let text = host.text(&format!("{folder}/{name}"))?;
            u32::from_str_radix(text.trim_start_matches("0x"), 16).ok()
        };
        let id = |name: &str| number(name).and_then(|id| u16::try_from(id).ok());
        let ids = Ids {
            vendor: id("vendor")?,
            device: id("device")?,
            subvendor: id("subsystem_vendor").unwrap_or_default(),
            subdevice: id("subsystem_device").unwrap_or_default(),
            class: number("class").unwrap_or_default(),
        };
        let vfs = host.text(&format!("{folder}/sriov_numvfs"));
        Some(Self {
            address,
            ids,
            driver: host.link(&format!("{folder}/driver")),
            driver_override: host
                .text(&format!("{folder}/driver_override"))
                .filter(|name| !name.is_empty() && name != "(null)"),
            group: host
                .link(&format!("{folder}/iommu_group"))
                .and_then(|group| group.parse().ok()),
            physical: host
                .link(&format!("{folder}/physfn"))
                .and_then(|physical| physical.parse().ok()),
            vfs: vfs.and_then(|count| count.parse().ok()).unwrap_or_default(),
        })
    }

    /// Whether a driver has it that hands it on to user space: `vfio-pci`, or one for a kind of
    /// function, such as `mlx5_vfio_pci`.
    pub fn is_with_vfio(&self) -> bool {
        let driver = self.driver.as_deref().unwrap_or_default();
        driver.replace('_', "-").ends_with("vfio-pci")
    }
}

/// Where sysfs has a function.
pub(super) fn folder(address: Address) -> String {
    format!("{PCI}/devices/{address}")
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.address, self.ids)?;
        match self.ids.taken() {
            Some((driver, kind)) => write!(f, " {kind} for {driver}")?,
            None => f.write_str(" of no use to the guest")?,
        }
        if let Some(physical) = self.physical {
            write!(f, ", VF of {physical}")?;
        }
        match &self.driver {
            Some(driver) => write!(f, ", driver {driver}"),
            None => f.write_str(", no driver"),
        }
    }
}
