//! The card as a device of vfio-user: its regions are the configuration space and the BARs, its
//! interrupts MSI-X.

use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_INFO_EVENTFD, VFIO_PCI_BAR5_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX,
    VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_NUM_IRQS, VFIO_PCI_NUM_REGIONS,
};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, ServerBackend};

use super::memory::ClientMemory;
use super::session::Description;
use super::vectors::Vectors;
use crate::Card;

/// The bytes of the configuration space, which has no extended part.
const CONFIG: u64 = 256;

/// The widest access that a PCI bus has.
const WIDEST: usize = 4;

/// A card that a client has.
#[derive(Debug)]
pub(super) struct Device {
    card: Arc<Card>,
    memory: Arc<ClientMemory>,
    vectors: Arc<Vectors>,
}

impl Device {
    pub(super) fn new(card: Arc<Card>, memory: Arc<ClientMemory>, vectors: Arc<Vectors>) -> Self {
        Self {
            card,
            memory,
            vectors,
        }
    }

    /// What the client finds.
    pub(super) fn description(&self) -> Description {
        let region = |index| match index {
            VFIO_PCI_CONFIG_REGION_INDEX => CONFIG,
            _ => bar(index).map_or(0, |bar| self.card.bar_size(bar)),
        };
        let interrupt = |index| {
            let (flags, count) = match index {
                VFIO_PCI_MSIX_IRQ_INDEX => (VFIO_IRQ_INFO_EVENTFD, self.card.vectors().into()),
                _ => (0, 0),
            };
            IrqInfo {
                index,
                flags,
                count,
            }
        };
        Description {
            regions: (0..VFIO_PCI_NUM_REGIONS).map(region).collect(),
            interrupts: (0..VFIO_PCI_NUM_IRQS).map(interrupt).collect(),
        }
    }
}

/// The BAR that a region is.
fn bar(region: u32) -> Option<u8> {
    let region = u8::try_from(region).ok()?;
    (u32::from(region) <= VFIO_PCI_BAR5_REGION_INDEX).then_some(region)
}

/// How many bytes of an access go over the bus at once: what lies in one aligned word.
fn width(offset: u64, left: usize) -> usize {
    let aligned = 1 << offset.trailing_zeros().min(2);
    // The largest power of two that is left.
    let left = 1 << left.min(WIDEST).ilog2();
    aligned.min(left)
}

impl ServerBackend for Device {
    fn region_read(&mut self, region: u32, mut offset: u64, data: &mut [u8]) -> io::Result<()> {
        let mut rest = data;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at_mut(width(offset, rest.len()));
            match (region, bar(region)) {
                (VFIO_PCI_CONFIG_REGION_INDEX, _) => {
                    let offset = u16::try_from(offset).map_err(|_| Errno::INVAL)?;
                    self.card.read_config(offset, piece);
                }
                (_, Some(bar)) => self.card.read_bar(bar, offset, piece),
                _ => return Err(Errno::INVAL.into()),
            }
            offset += piece.len() as u64;
            rest = after;
        }
        Ok(())
    }

    fn region_write(&mut self, region: u32, mut offset: u64, data: &[u8]) -> io::Result<()> {
        let mut rest = data;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(width(offset, rest.len()));
            match (region, bar(region)) {
                (VFIO_PCI_CONFIG_REGION_INDEX, _) => {
                    let offset = u16::try_from(offset).map_err(|_| Errno::INVAL)?;
                    self.card.write_config(offset, piece);
                }
                (_, Some(bar)) => self.card.write_bar(bar, offset, piece),
                _ => return Err(Errno::INVAL.into()),
            }
            offset += piece.len() as u64;
            rest = after;
        }
        Ok(())
    }

    fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        offset: u64,
        address: u64,
        size: u64,
        file: Option<File>,
    ) -> io::Result<()> {
        Ok(self.memory.map(flags, offset, address, size, file)?)
    }

    fn dma_unmap(&mut self, flags: DmaUnmapFlags, address: u64, size: u64) -> io::Result<()> {
        match flags {
            DmaUnmapFlags::UNMAP_ALL if address == 0 && size == 0 => self.memory.unmap_all(),
            _ if flags.is_empty() => self.memory.unmap(address, size)?,
            // Pages are logged where the card's driver asks for it, not here.
            DmaUnmapFlags::GET_DIRTY_PAGE_INFO => return Err(Errno::OPNOTSUPP.into()),
            _ => return Err(Errno::INVAL.into()),
        }
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        self.card.reset_function();
        Ok(())
    }

    fn set_irqs(
        &mut self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        files: Vec<File>,
    ) -> io::Result<()> {
        Ok(self.vectors.set(index, flags, start, count, files)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_of_any_length_is_made_of_aligned_words() {
        let widths = |mut offset: u64, mut left: usize| {
            let mut widths = Vec::new();
            while left > 0 {
                let width = width(offset, left);
                widths.push(width);
                offset += width as u64;
                left -= width;
            }
            widths
        };
        assert_eq!(widths(0, 8), [4, 4]);
        assert_eq!(widths(1, 8), [1, 2, 4, 1]);
        assert_eq!(widths(2, 4), [2, 2]);
        assert_eq!(widths(4, 3), [2, 1]);
        assert_eq!(widths(7, 1), [1]);
    }
}
