//! Memory of kernel drivers, at addresses that survive a change of the device.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::mem;

use spin::Mutex;
use virtq::{DeviceMemory, DmaAddr, DmaAllocator, DmaError, PlacedDma, Placement};

use crate::Platform;
use crate::backing::Backing;
use crate::error::OpError;
use crate::iotlb::{IovaRange, Permission};

use super::iova::Iovas;
use super::{Addressing, MapTarget};

/// What a driver has allocated, and where its device finds it.
///
/// The space can be attached to another device: whatever is allocated then lies at the same
/// addresses there, and the driver notices nothing. Addresses are decided by the device that the
/// space is attached to while nothing is allocated: one that translates gets I/O virtual addresses,
/// which are never those of the platform and have a free page on each side; any other, and no
/// device at all, gets those of the platform. A space that has begun with the platform's addresses
/// keeps to them, so that it can go back.
pub struct DmaSpace {
    source: Arc<dyn DmaAllocator>,
    state: Mutex<State>,
}

struct State {
    target: Option<Arc<dyn MapTarget>>,
    addressing: Addressing,
    /// In the order of their addresses.
    blocks: Vec<Block>,
    iovas: Iovas,
    /// The first addresses of freed blocks that the target could not be told to forget.
    stranded: Vec<u64>,
}

#[derive(Clone)]
struct Block {
    range: IovaRange,
    memory: DeviceMemory,
}

impl DmaSpace {
    /// A space without a device, whose memory comes from the platform.
    #[must_use]
    pub fn new(platform: &Arc<dyn Platform>) -> Arc<Self> {
        Arc::new(Self {
            source: platform.dma(),
            state: Mutex::new(State {
                target: None,
                addressing: Addressing::Platform,
                blocks: Vec::new(),
                iovas: Iovas::new(),
                stranded: Vec::new(),
            }),
        })
    }

    /// Memory of the space. An allocation fails if the device cannot be made to reach it.
    #[must_use]
    pub fn allocator(self: &Arc<Self>) -> Arc<dyn DmaAllocator> {
        PlacedDma::new(Arc::clone(&self.source), Placer(Arc::clone(self)))
    }

    /// Gives memory, parts of which somebody else hands out, an address for as long as the space
    /// lives.
    ///
    /// # Errors
    /// [`DmaError::OutOfMemory`], if the device cannot be made to reach it.
    pub fn place(&self, memory: &DeviceMemory) -> Result<DmaAddr, DmaError> {
        let range = self.state.lock().place(memory)?;
        Ok(DmaAddr(range.first()))
    }

    /// Lets a device reach all memory of the space, now and from now on. An earlier device keeps
    /// what it has until its attachment is given back, and is told of nothing more.
    ///
    /// # Errors
    /// [`OpError::Invalid`], if the device takes only the platform's addresses and memory lies at
    /// others; whatever [`MapTarget::map`] answers. Then the device reaches none of it, and nothing
    /// else has changed.
    pub fn attach(&self, target: Arc<dyn MapTarget>) -> Result<(), OpError> {
        let mut state = self.state.lock();
        map_all(&*target, &state.blocks)?;
        if state.blocks.is_empty() {
            state.addressing = target.addressing();
        }
        state.release_stranded();
        let earlier = state.target.replace(target);
        drop(state);
        drop(earlier);
        Ok(())
    }

    /// Takes all memory away from the device. Called when the device is at rest.
    pub fn detach(&self) {
        let mut state = self.state.lock();
        let Some(target) = state.target.take() else {
            return;
        };
        unmap_all(&*target, &state.blocks);
        state.release_stranded();
        drop(state);
        drop(target);
    }
}

/// Maps all blocks, or none.
fn map_all(target: &dyn MapTarget, blocks: &[Block]) -> Result<(), OpError> {
    target.begin_batch()?;
    let mut mapped = Vec::new();
    for block in blocks {
        if let Err(error) = block.map(target) {
            for range in mapped {
                let _ = target.unmap(range);
            }
            // Nothing is left that the device could refuse.
            let _ = target.end_batch();
            return Err(error);
        }
        mapped.push(block.range);
    }
    target.end_batch()
}

/// Unmaps all blocks as far as the device goes along: one that is somebody else's has lost them
/// already.
fn unmap_all(target: &dyn MapTarget, blocks: &[Block]) {
    let batch = target.begin_batch();
    for block in blocks {
        let _ = target.unmap(block.range);
    }
    if batch.is_ok() {
        let _ = target.end_batch();
    }
}

impl Block {
    fn map(&self, target: &dyn MapTarget) -> Result<(), OpError> {
        let backing = Backing {
            memory: self.memory.clone(),
            offset: 0,
        };
        target.map(self.range, Permission::all(), backing)
    }
}

impl State {
    fn place(&mut self, memory: &DeviceMemory) -> Result<IovaRange, DmaError> {
        let range = self.free_range(memory)?;
        let block = Block {
            range,
            memory: memory.clone(),
        };
        if let Some(target) = &self.target
            && let Err(error) = block.map(&**target)
        {
            log::debug!("{range} cannot be mapped: {error}");
            self.iovas.give_back(range.first());
            return Err(DmaError::OutOfMemory);
        }
        let place = self.first_from(range.first());
        self.blocks.insert(place, block);
        Ok(range)
    }

    fn free_range(&mut self, memory: &DeviceMemory) -> Result<IovaRange, DmaError> {
        let platforms = memory.platform_addr().map(|addr| addr.0);
        match self.addressing {
            Addressing::Platform => {
                platforms.and_then(|first| IovaRange::new(first, memory.len()).ok())
            }
            Addressing::Translated => {
                let space = self
                    .target
                    .as_ref()
                    .map_or_else(|| IovaRange::ALL.into(), |target| target.iova_space());
                self.iovas
                    .take(&space, memory.len(), memory.align(), platforms)
            }
        }
        .ok_or(DmaError::OutOfMemory)
    }

    /// Takes a block away from the device, which has stopped using it.
    fn withdraw(&mut self, addr: DmaAddr) -> Option<Block> {
        let place = self.first_from(addr.0);
        self.blocks
            .get(place)
            .filter(|block| block.range.first() == addr.0)?;
        let block = self.blocks.remove(place);
        match &self.target {
            // The device keeps the memory alive, and its address must not lead to any other.
            Some(target) if target.unmap(block.range).is_err() => self.stranded.push(addr.0),
            _ => self.iovas.give_back(addr.0),
        }
        Some(block)
    }

    /// The place of the first block that starts at or behind an address.
    fn first_from(&self, addr: u64) -> usize {
        self.blocks
            .partition_point(|block| block.range.first() < addr)
    }

    fn release_stranded(&mut self) {
        for first in mem::take(&mut self.stranded) {
            self.iovas.give_back(first);
        }
    }
}

impl fmt::Debug for DmaSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("DmaSpace")
            .field("addressing", &state.addressing)
            .field("attached", &state.target.is_some())
            .field("blocks", &state.blocks.len())
            .finish_non_exhaustive()
    }
}

/// Places what is allocated in the space.
struct Placer(Arc<DmaSpace>);

// SAFETY: a device that is attached to works on the queues of the driver that the space is of,
// which is what setting the address of a queue asks for.
unsafe impl Placement for Placer {
    fn place(&self, memory: &DeviceMemory) -> Result<DmaAddr, DmaError> {
        self.0.place(memory)
    }

    fn withdraw(&self, addr: DmaAddr, _len: u64) {
        let block = self.0.state.lock().withdraw(addr);
        // The memory may go back to where it came from, and not with the lock held.
        drop(block);
    }
}
