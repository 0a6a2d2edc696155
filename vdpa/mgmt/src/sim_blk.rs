//! `vdpasim_blk`: makes simulated disks, as Linux's module of that name does.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;

use spin::Mutex;
use vdpa::platform::BoxFuture;
use vdpa::{Features, Node, Platform};
use vdpa_sim::{Access, RamDisk, SECTOR_LEN, SimBlk, SimBlkConfig, SimConfig, Storage};

use super::attributes::{AttributeSet, Attributes};
use super::handle::Handle;
use super::manager::{CreateError, ManagementDevice, Product};
use super::simulators::{DEVICES_MAX, Place};

/// The virtio device type of disks (VIRTIO 1.2, 5).
const BLOCK: u32 = 2;
const NAME: &str = "vdpasim_blk";
/// The size of a disk whose user does not say, in bytes.
const CAPACITY: u64 = 4 << 20;
/// The block size of a disk whose user does not say, in bytes.
const BLOCK_SIZE: u32 = 512;

/// The management device of simulated disks. Each has memory of its own, which is taken when it is
/// written. What disks may still write is no other disk's.
pub struct SimBlks {
    handle: Handle,
    place: Place,
    disks: Mutex<Vec<Weak<RamDisk>>>,
}

impl SimBlks {
    /// Disks that hang below `root`.
    #[must_use]
    pub fn new(root: &Arc<Node>, platform: &Arc<dyn Platform>) -> Arc<Self> {
        Arc::new(Self {
            handle: Handle::named(NAME),
            place: Place::new(NAME, root, platform),
            disks: Mutex::default(),
        })
    }

    fn make(&self, attributes: &Attributes) -> Result<Product, CreateError> {
        let wanted = attributes.capacity.unwrap_or(CAPACITY / SECTOR_LEN);
        let queues = attributes.queues.unwrap_or(1);
        let disk = self.disk(wanted.saturating_mul(SECTOR_LEN), queues)?;
        let config = SimBlkConfig {
            disk,
            block_size: attributes.block_size.unwrap_or(BLOCK_SIZE),
            queues,
            access: Access::ReadWrite,
            sim: SimConfig {
                features: attributes.device_features,
                ..SimConfig::default()
            },
        };
        Ok(Product {
            ops: SimBlk::new(&config, self.place.platform())
                .map_err(|error| self.refused(error))?,
            config: self.place.config(),
            settings: None,
        })
    }

    /// Memory for a disk of so many bytes.
    fn disk(&self, capacity: u64, queues: u16) -> Result<Arc<RamDisk>, CreateError> {
        let mut disks = self.disks.lock();
        disks.retain(|disk| disk.strong_count() > 0);
        if disks.len() >= DEVICES_MAX {
            return Err(CreateError::TooMany);
        }
        let living = disks.iter().filter_map(Weak::upgrade);
        let promised: u64 = living.map(|disk| disk.promised()).sum();
        self.place
            .check_memory(queues, capacity.saturating_add(promised))?;
        let platform = Some(Arc::clone(self.place.platform()));
        let disk = RamDisk::within(platform, capacity, Storage::Sparse);
        let disk = disk.map_err(|error| self.refused(error))?;
        disks.push(Arc::downgrade(&disk));
        Ok(disk)
    }

    fn refused(&self, error: vdpa_sim::CreateError) -> CreateError {
        CreateError::of_simulator(error, self.place.platform().memory_left())
    }
}

impl ManagementDevice for SimBlks {
    fn handle(&self) -> &Handle {
        &self.handle
    }

    fn classes(&self) -> &[u32] {
        &[BLOCK]
    }

    fn max_queues(&self) -> u32 {
        SimBlk::QUEUES_MAX.into()
    }

    fn features(&self) -> Features {
        SimBlk::features()
    }

    fn attributes(&self) -> AttributeSet {
        AttributeSet::BLK | AttributeSet::DEVICE_FEATURES
    }

    fn create<'a>(
        &'a self,
        _name: &'a str,
        attributes: &'a Attributes,
    ) -> BoxFuture<'a, Result<Product, CreateError>> {
        Box::pin(async move { self.make(attributes) })
    }
}

impl fmt::Debug for SimBlks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimBlks").finish_non_exhaustive()
    }
}
