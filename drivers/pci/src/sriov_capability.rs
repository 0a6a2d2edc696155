//! The registers of the SR-IOV extended capability: how many virtual functions there are, where
//! they are, and what memory they ask for.
//!
//! When they come and go is no business of this module.
//!
//! Source: PCI Express Base 6.0, 9.2.1.2 (routing ids) and 9.3.3 (registers).

use bitflags::bitflags;
use pci_types::PciAddress;

use super::access::ConfigSpace;
use super::bar::{BAR_COUNT, Bars, register, size_registers, write_register};
use super::capability;
use super::routing_id::{function_address, routing_id};

/// The extended capability.
const SR_IOV: u16 = 0x10;

/// Registers, from the start of the capability.
const CONTROL: u16 = 0x08;
const TOTAL: u16 = 0x0e;
const COUNT: u16 = 0x10;
const OFFSET: u16 = 0x14;
const STRIDE: u16 = 0x16;
const DEVICE: u16 = 0x1a;
const PAGE_SIZES: u16 = 0x1c;
const PAGE_SIZE: u16 = 0x20;
const BARS: u16 = 0x24;

/// Pages of 4 KiB, in both registers.
const PAGE_4_KIB: u32 = 1;

bitflags! {
    /// The control register.
    #[derive(Clone, Copy)]
    pub(super) struct Control: u16 {
        /// The virtual functions exist.
        const ENABLE = 1 << 0;
        /// They answer to their memory addresses.
        const MEMORY = 1 << 3;
        /// The port in front passes on all function numbers.
        const ARI_HIERARCHY = 1 << 4;
    }
}

/// The capability of a physical function.
#[derive(Clone, Debug)]
pub(super) struct SrIovCapability {
    config: ConfigSpace,
    at: u16,
}

impl SrIovCapability {
    pub(super) fn find(config: &ConfigSpace) -> Option<Self> {
        let at = capability::find_extended(config, SR_IOV)?;
        let config = config.clone();
        Some(Self { config, at })
    }

    /// How many virtual functions there can be.
    pub(super) fn total(&self) -> u16 {
        self.config.read16(self.at + TOTAL)
    }

    /// How many there are.
    pub(super) fn enabled_count(&self) -> u16 {
        if self.control().contains(Control::ENABLE) {
            self.config.read16(self.at + COUNT)
        } else {
            0
        }
    }

    /// Sets how many there will be. With the kind of hierarchy it decides about their places
    /// (9.3.3.9).
    pub(super) fn set_count(&self, count: u16) {
        self.config.set16(self.at + COUNT, count);
    }

    pub(super) fn control(&self) -> Control {
        Control::from_bits_retain(self.config.read16(self.at + CONTROL))
    }

    pub(super) fn set_control(&self, control: Control) {
        self.config.set16(self.at + CONTROL, control.bits());
    }

    /// Aligns their memory to pages of 4 KiB. Whether the card can.
    pub(super) fn set_page_size(&self) -> bool {
        let can = self.config.read32(self.at + PAGE_SIZES) & PAGE_4_KIB != 0;
        if can {
            self.config.write32(self.at + PAGE_SIZE, PAGE_4_KIB);
        }
        can
    }

    /// The device id of a virtual function, which has none in its own header.
    pub(super) fn device(&self) -> u16 {
        self.config.read16(self.at + DEVICE)
    }

    /// What memory one virtual function asks for. The addresses are those of the first.
    pub(super) fn size_bars(&self) -> Bars {
        size_registers(&self.config, self.at + BARS, BAR_COUNT)
    }

    pub(super) fn write_bars(&self, bars: &Bars) {
        for (index, bar) in bars.iter().enumerate() {
            if let Ok(Some(bar)) = bar {
                write_register(&self.config, register(self.at + BARS, index), bar);
            }
        }
    }

    /// Whether `count` of them have places that differ, from each other's and from that of the
    /// physical function.
    pub(super) fn are_apart(&self, count: u16) -> bool {
        self.config.read16(self.at + OFFSET) != 0
            && (count == 1 || self.config.read16(self.at + STRIDE) != 0)
    }

    /// Where a virtual function is; `None`, if there is no such place (9.2.1.2).
    pub(super) fn place(&self, index: u16) -> Option<PciAddress> {
        let own = self.config.address();
        let first = self.config.read16(self.at + OFFSET);
        let stride = self.config.read16(self.at + STRIDE);
        let id = stride
            .checked_mul(index)?
            .checked_add(first)?
            .checked_add(routing_id(own))?;
        Some(function_address(own.segment(), id))
    }
}
