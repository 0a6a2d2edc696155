//! VIOT: which virtio-iommu translates for which devices (ACPI 6.5, 5.2.34).

use alloc::vec::Vec;
use core::ops::RangeInclusive;

use super::{HEADER, Structure, TableError, length_of_structure, table};

const PCI_RANGE: u8 = 1;
const MMIO_ENDPOINT: u8 = 2;
const VIRTIO_PCI: u8 = 3;
const VIRTIO_MMIO: u8 = 4;

/// The whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Viot {
    /// The IOMMUs.
    pub iommus: Vec<ViotIommu>,
    /// Which PCI functions are behind one.
    pub pci_ranges: Vec<PciRange>,
    /// Which other devices are behind one.
    pub mmio_endpoints: Vec<MmioEndpoint>,
}

/// A virtio-iommu.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ViotIommu {
    /// A PCI function, by its segment (upper half) and bus, device and function.
    Pci(u32),
    /// A virtio-mmio device, by the address of its registers.
    Mmio(u64),
}

/// PCI functions behind an IOMMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciRange {
    /// What the IOMMU calls the first function of the first segment.
    pub endpoint: u32,
    /// The segments.
    pub segments: RangeInclusive<u16>,
    /// Bus, device and function, in each of the segments.
    pub functions: RangeInclusive<u16>,
    /// Who translates for them. The IOMMU may itself be one of them.
    pub iommu: ViotIommu,
}

impl PciRange {
    /// What the IOMMU calls a function, if it is in the range: segment (upper half), and bus, device
    /// and function.
    #[must_use]
    pub fn endpoint(&self, function: u32) -> Option<u32> {
        let (segment, function) = ((function >> 16) as u16, function as u16);
        let inside = self.segments.contains(&segment) && self.functions.contains(&function);
        inside.then(|| {
            self.endpoint
                + (u32::from(segment - self.segments.start()) << 16)
                + u32::from(function - self.functions.start())
        })
    }

    fn last_endpoint(&self) -> Option<u32> {
        let segments = self.segments.end() - self.segments.start();
        let functions = self.functions.end() - self.functions.start();
        self.endpoint
            .checked_add(u32::from(segments) << 16 | u32::from(functions))
    }
}

/// A device that is no PCI function, behind an IOMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmioEndpoint {
    /// What the IOMMU calls it.
    pub endpoint: u32,
    /// Where its registers are.
    pub base: u64,
    /// Who translates for it.
    pub iommu: ViotIommu,
}

impl Viot {
    /// Parses the table, which `bytes` begin with.
    ///
    /// # Errors
    /// [`TableError`]: some of it is wrong, so none of it counts.
    pub fn parse(bytes: &[u8]) -> Result<Self, TableError> {
        let bytes = table(bytes, b"VIOT")?;
        let table = Structure { at: 0, bytes };
        let (count, first) = (table.u16(HEADER)?, table.u16(HEADER + 2)?);
        if usize::from(first) < HEADER + 12 {
            return Err(TableError::Structure(first.into()));
        }
        let mut walk = table.inner(first.into(), length_of_structure)?;
        let nodes = (0..count)
            .map(|_| walk.next().unwrap_or(Err(TableError::Length)))
            .collect::<Result<Vec<_>, _>>()?;
        let iommus = Iommus::read(&nodes)?;
        let (mut pci_ranges, mut mmio_endpoints) = (Vec::new(), Vec::new());
        for node in &nodes {
            match node.u8(0)? {
                PCI_RANGE => pci_ranges.push(iommus.pci_range(node)?),
                MMIO_ENDPOINT => mmio_endpoints.push(MmioEndpoint {
                    endpoint: node.u32(4)?,
                    base: node.u64(8)?,
                    iommu: iommus.of(node)?,
                }),
                _ => {}
            }
        }
        let viot = Self {
            iommus: iommus.0.into_iter().map(|(_, iommu)| iommu).collect(),
            pci_ranges,
            mmio_endpoints,
        };
        viot.check_endpoints()?;
        Ok(viot)
    }

    /// Two devices that an IOMMU calls the same could not be told apart.
    fn check_endpoints(&self) -> Result<(), TableError> {
        let ranges = self.pci_ranges.iter().map(|range| {
            let last = range.last_endpoint().unwrap_or(u32::MAX);
            (range.iommu, range.endpoint, last)
        });
        let single = self
            .mmio_endpoints
            .iter()
            .map(|device| (device.iommu, device.endpoint, device.endpoint));
        let mut endpoints: Vec<_> = ranges.chain(single).collect();
        endpoints.sort_unstable();
        let apart = endpoints
            .is_sorted_by(|(iommu, _, last), (other, first, _)| iommu != other || last < first);
        if apart {
            Ok(())
        } else {
            Err(TableError::Duplicate)
        }
    }
}

/// The IOMMUs, by the offsets of their nodes, which rise.
struct Iommus(Vec<(usize, ViotIommu)>);

impl Iommus {
    fn read(nodes: &[Structure<'_>]) -> Result<Self, TableError> {
        let mut iommus = Vec::new();
        for node in nodes {
            let iommu = match node.u8(0)? {
                VIRTIO_PCI => {
                    ViotIommu::Pci(u32::from(node.u16(4)?) << 16 | u32::from(node.u16(6)?))
                }
                VIRTIO_MMIO => ViotIommu::Mmio(node.u64(8)?),
                _ => continue,
            };
            iommus.push((node.at, iommu));
        }
        let mut each: Vec<ViotIommu> = iommus.iter().map(|(_, iommu)| *iommu).collect();
        each.sort_unstable();
        if each.is_sorted_by(|a, b| a < b) {
            Ok(Self(iommus))
        } else {
            Err(TableError::Duplicate)
        }
    }

    /// Who translates for the devices of a node.
    fn of(&self, node: &Structure<'_>) -> Result<ViotIommu, TableError> {
        let at = usize::from(node.u16(16)?);
        self.0
            .binary_search_by_key(&at, |(at, _)| *at)
            .ok()
            .and_then(|index| self.0.get(index))
            .map(|(_, iommu)| *iommu)
            .ok_or(TableError::Reference(node.at))
    }

    fn pci_range(&self, node: &Structure<'_>) -> Result<PciRange, TableError> {
        let range = PciRange {
            endpoint: node.u32(4)?,
            segments: node.u16(8)?..=node.u16(10)?,
            functions: node.u16(12)?..=node.u16(14)?,
            iommu: self.of(node)?,
        };
        if range.segments.is_empty()
            || range.functions.is_empty()
            || range.last_endpoint().is_none()
        {
            return Err(TableError::Range(node.at));
        }
        Ok(range)
    }
}
