//! What a user types about PCI, and what it does: functions are shown, and virtual functions come
//! and go.
//!
//! Functions and figures have the names of Linux' sysfs (`sriov_totalvfs`, `sriov_numvfs`,
//! `physfn`). Here is no console and no network: both belong to an application.

use alloc::collections::BinaryHeap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use pci_types::PciAddress;
use vdpa::bus::BusDevice;

use super::device::{PciBus, PciDevice};
use super::sriov::{SrIov, SrIovError};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Show one function, or all.
    Show(Option<PciAddress>),
    /// Let a physical function have so many virtual ones; 0 takes them away.
    SetVirtualFunctions {
        /// The physical function.
        physical: PciAddress,
        /// How many.
        count: u16,
    },
}

/// Why it is not done. The text says what to do instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// The words make no command.
    #[error("pci show [ADDRESS], or pci sriov ADDRESS numvfs COUNT")]
    Usage,
    /// It is no address of a function.
    #[error("a function's address is like 0000:03:00.0")]
    Address,
    /// Nothing is there.
    #[error("there is no function {0}; pci show lists them")]
    NoFunction(PciAddress),
    /// The function cannot have virtual functions.
    #[error("{0} is not SR-IOV capable")]
    NotCapable(PciAddress),
    /// The virtual functions stay as they are.
    #[error("{0}: {1}")]
    SrIov(PciAddress, SrIovError),
}

impl Command {
    /// Reads the words after `pci`.
    ///
    /// # Errors
    /// [`ToolError`].
    pub fn parse(words: &[&str]) -> Result<Self, ToolError> {
        match *words {
            [] | ["show"] => Ok(Self::Show(None)),
            ["show", function] => Ok(Self::Show(Some(address(function)?))),
            ["sriov", physical, "numvfs", count] => Ok(Self::SetVirtualFunctions {
                physical: address(physical)?,
                count: count.parse().map_err(|_| ToolError::Usage)?,
            }),
            _ => Err(ToolError::Usage),
        }
    }
}

/// The address of a function, with or without its segment.
///
/// # Errors
/// [`ToolError::Address`].
pub fn address(text: &str) -> Result<PciAddress, ToolError> {
    let parsed = || {
        let (place, function) = text.rsplit_once('.')?;
        let (bus, device) = place.rsplit_once(':')?;
        let (segment, bus) = bus.rsplit_once(':').unwrap_or(("0", bus));
        let number = |text: &str, max: u16| {
            let digits = text.bytes().all(|digit| digit.is_ascii_hexdigit());
            let number = u16::from_str_radix(text, 16).ok().filter(|_| digits)?;
            (number <= max).then_some(number)
        };
        let byte = |text, max| u8::try_from(number(text, max)?).ok();
        Some(PciAddress::new(
            number(segment, u16::MAX)?,
            byte(bus, 0xff)?,
            byte(device, 0x1f)?,
            byte(function, 7)?,
        ))
    };
    parsed().ok_or(ToolError::Address)
}

/// Does what the command says, and shows what it was about.
///
/// # Errors
/// [`ToolError`].
pub async fn run(bus: &Arc<PciBus>, command: Command) -> Result<Listing, ToolError> {
    let find = |address| {
        let mut devices = bus.devices().into_iter();
        let found = devices.find(|device| device.address() == address);
        found.ok_or(ToolError::NoFunction(address))
    };
    let shown = match command {
        Command::Show(None) => bus.devices(),
        Command::Show(Some(address)) => Vec::from([find(address)?]),
        Command::SetVirtualFunctions { physical, count } => {
            let device = find(physical)?;
            let sriov = SrIov::of(bus, &device).ok_or(ToolError::NotCapable(physical))?;
            let set = sriov.set_count(count).await;
            set.map_err(|error| ToolError::SrIov(physical, error))?;
            let mut shown = sriov.functions();
            shown.insert(0, device);
            shown
        }
    };
    // A heap sorts with a fraction of the code that the sorting of slices has.
    let rows: BinaryHeap<_> = shown.iter().map(|device| Row::of(bus, device)).collect();
    Ok(Listing(rows.into_sorted_vec()))
}

/// Functions, to be shown as text ([`Display`](fmt::Display)) or as [`json`](Self::json).
#[derive(Clone, Debug)]
pub struct Listing(Vec<Row>);

/// In the order of the addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    address: PciAddress,
    vendor: u16,
    device: u16,
    class: u32,
    driver: Option<String>,
    /// How many virtual functions there can be, and how many there are.
    sriov: Option<(u16, u16)>,
    physical: Option<PciAddress>,
}

impl Row {
    fn of(bus: &Arc<PciBus>, device: &Arc<PciDevice>) -> Self {
        let identity = device.identity();
        Self {
            address: device.address(),
            vendor: identity.vendor,
            device: identity.device,
            class: identity.class,
            driver: device.node().driver(),
            sriov: SrIov::of(bus, device).map(|sriov| (sriov.total(), sriov.count())),
            physical: device
                .physical_function()
                .map(|physical| physical.address()),
        }
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.0 {
            let (address, class, vendor, device) = (row.address, row.class, row.vendor, row.device);
            write!(f, "{address} {class:06x}: {vendor:04x}:{device:04x}")?;
            if let Some(driver) = &row.driver {
                write!(f, " driver {driver}")?;
            }
            if let Some((total, count)) = row.sriov {
                write!(f, " sriov_totalvfs {total} sriov_numvfs {count}")?;
            }
            if let Some(physical) = row.physical {
                write!(f, " physfn {physical}")?;
            }
            f.write_char('\n')?;
        }
        Ok(())
    }
}

impl Listing {
    /// An array with an object for each function. Its keys are the names of sysfs.
    #[must_use]
    pub fn json(&self) -> String {
        let mut text = String::from("[");
        for (index, row) in self.0.iter().enumerate() {
            // A string takes any text.
            let _ = row.write_json(&mut text, if index == 0 { "" } else { "," });
        }
        text.push_str("]\n");
        text
    }
}

impl Row {
    fn write_json(&self, text: &mut String, separator: &str) -> fmt::Result {
        let (address, class, vendor, device) = (self.address, self.class, self.vendor, self.device);
        write!(
            text,
            r#"{separator}{{"address":"{address}","class":"{class:#08x}","vendor":"{vendor:#06x}","device":"{device:#06x}""#
        )?;
        if let Some(driver) = &self.driver {
            // A driver's name is a word.
            write!(text, r#","driver":"{driver}""#)?;
        }
        if let Some((total, count)) = self.sriov {
            write!(text, r#","sriov_totalvfs":{total},"sriov_numvfs":{count}"#)?;
        }
        if let Some(physical) = self.physical {
            write!(text, r#","physfn":"{physical}""#)?;
        }
        text.write_char('}')
    }
}
