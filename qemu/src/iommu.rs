//! The IOMMU of the machine, which QEMU wants before all other devices.

use clap::ValueEnum;
use thiserror::Error;

use crate::accel::Accel;
use crate::machine::Machine;

/// Which IOMMU stands before the devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Iommu {
    /// Intel VT-d, with interrupt remapping
    Intel,
    /// AMD-Vi, with interrupt remapping
    Amd,
    /// virtio-iommu, which remaps no interrupts
    Virtio,
}

/// Why a machine cannot have an IOMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoIommu {
    /// QEMU has it on other boards.
    #[error("only --machine q35 has this IOMMU")]
    Board,
    /// VFIO is not told what the guest maps.
    #[error("QEMU passes functions through behind --iommu intel alone")]
    Passthrough,
}

/// What stands behind the IOMMU besides virtio devices of QEMU's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// Nothing.
    Emulated,
    /// Functions of the host, for which VFIO must be told of each mapping.
    Functions,
}

impl Iommu {
    /// Whether QEMU has it on this board, before these functions.
    ///
    /// # Errors
    ///
    /// [`NoIommu`]
    pub fn check(self, machine: Machine, behind: Behind) -> Result<(), NoIommu> {
        let boards: &[_] = match self {
            Self::Intel | Self::Amd => &[Machine::Q35],
            Self::Virtio => &[Machine::Q35, Machine::Pc],
        };
        if !boards.contains(&machine) {
            return Err(NoIommu::Board);
        }
        if behind == Behind::Functions && self != Self::Intel {
            return Err(NoIommu::Passthrough);
        }
        Ok(())
    }

    /// What of it is a property of the board.
    pub fn machine_options(self, accel: Accel) -> &'static str {
        match (self, accel) {
            // KVM's own I/O APIC remaps nothing.
            (Self::Intel | Self::Amd, Accel::Kvm) => ",kernel-irqchip=split",
            _ => "",
        }
    }

    /// The value of QEMU's `-device`.
    pub fn device(self, behind: Behind) -> &'static str {
        match (self, behind) {
            (Self::Intel, Behind::Emulated) => "intel-iommu,intremap=on,aw-bits=48",
            (Self::Intel, Behind::Functions) => {
                "intel-iommu,intremap=on,aw-bits=48,caching-mode=on"
            }
            (Self::Amd, _) => "amd-iommu,intremap=on",
            (Self::Virtio, _) => "virtio-iommu-pci",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boards_and_functions_that_do_not_go_with_it_are_refused() {
        for (iommu, machine, behind, expected) in [
            (Iommu::Intel, Machine::Q35, Behind::Functions, Ok(())),
            (Iommu::Amd, Machine::Q35, Behind::Emulated, Ok(())),
            (Iommu::Virtio, Machine::Pc, Behind::Emulated, Ok(())),
            (
                Iommu::Intel,
                Machine::Pc,
                Behind::Emulated,
                Err(NoIommu::Board),
            ),
            (
                Iommu::Virtio,
                Machine::MicrovmPcie,
                Behind::Emulated,
                Err(NoIommu::Board),
            ),
            (
                Iommu::Amd,
                Machine::Q35,
                Behind::Functions,
                Err(NoIommu::Passthrough),
            ),
        ] {
            assert_eq!(iommu.check(machine, behind), expected, "{iommu:?}");
        }
    }
}
