//! Simulated devices: a network card and a disk that need no hardware.
//!
//! Each is a whole vDPA parent. A worker task plays the hardware's DMA engine over the device side
//! of the rings, and every address that it meets goes through the device's own translation: an
//! address that is not mapped is a fault, also where it happens to be one of the platform's. With
//! the Cargo feature `faults` a test can make a device misbehave.
//!
//! Not for speed of their own: what they serve is what stands above the vDPA bus.
//!
//! Source: VIRTIO 1.2, 5.1 and 5.2; the role of Linux' `vdpa_sim`.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod bell;
mod blk;
mod device;
mod engine;
#[cfg(feature = "faults")]
mod faults;
#[cfg(not(feature = "faults"))]
#[path = "no_faults.rs"]
mod faults;
mod launch;
mod model;
mod net;
mod ops;
mod page_log;
mod sim_queue;
mod space;
mod worker;

#[cfg(feature = "faults")]
use alloc::sync::Arc;

use vdpa::Features;
use vdpa::iotlb::IovaRange;

pub use self::blk::{Access, DiskError, RamDisk, SECTOR_LEN, SimBlk, SimBlkConfig, Storage};
#[cfg(feature = "faults")]
pub use self::faults::Faults;
pub use self::net::{Cable, CableEnd, Link, Overrun, SimNet, SimNetConfig, Wiring};

/// The addresses of a simulated device unless it is told otherwise: above what a platform uses for
/// its memory, so that a platform's address is never valid by accident.
const IOVA_FIRST: u64 = 1 << 40;
const IOVA_LEN: u64 = 1 << 40;
/// The mappings that an address space can hold unless it is told otherwise, as in `vdpa_sim`.
const MAPPINGS_MAX: usize = 2048;
/// The largest size of a queue unless it is told otherwise.
const QUEUE_SIZE: u16 = 256;
/// The largest size that a device can be told: the scratch for its chains grows with it.
const QUEUE_SIZE_LIMIT: u16 = 1024;

/// How a device is told what is mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flavour {
    /// Change by change.
    #[default]
    Incremental,
    /// An address space at a time.
    Whole,
}

/// Whether a driver must accept `VIRTIO_F_ACCESS_PLATFORM`: that the device's addresses are
/// translated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessPlatform {
    /// It must: without, it would use addresses that mean nothing.
    #[default]
    Required,
    /// It need not, because the maker of the device maps memory at the addresses that the driver
    /// uses. For a driver that comes from a device without the feature, and cannot change its mind.
    Optional,
}

/// What all simulated devices have in common.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// How it is told what is mapped.
    pub flavour: Flavour,
    /// The features that it offers, of those that it has; all of them if there is nothing here.
    pub features: Option<Features>,
    /// Whether its driver must know that addresses are translated.
    pub access_platform: AccessPlatform,
    /// The largest size of a queue: a power of two, at most 1024.
    pub queue_size: u16,
    /// The addresses that can be mapped.
    pub iova_range: IovaRange,
    /// How many mappings an address space can hold.
    pub mappings_max: usize,
    /// What goes wrong.
    #[cfg(feature = "faults")]
    pub faults: Arc<Faults>,
}

impl Default for SimConfig {
    fn default() -> Self {
        let iova_range = IovaRange::new(IOVA_FIRST, IOVA_LEN);
        Self {
            flavour: Flavour::default(),
            features: None,
            access_platform: AccessPlatform::default(),
            queue_size: QUEUE_SIZE,
            iova_range: iova_range.expect("neither empty nor at the end of all addresses"),
            mappings_max: MAPPINGS_MAX,
            #[cfg(feature = "faults")]
            faults: Arc::default(),
        }
    }
}

impl SimConfig {
    /// What goes wrong.
    fn faults(&self) -> faults::Plan {
        #[cfg(feature = "faults")]
        return Arc::clone(&self.faults);
        #[cfg(not(feature = "faults"))]
        faults::Plan
    }
}

/// Why a simulated device cannot be made. Nothing is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// The device does not have all of the features, cannot work without one that is missing, or
    /// one of them needs another one.
    #[error("the device cannot work with these features")]
    BadFeatures,
    /// The size of a queue is no power of two between 2 and 1024.
    #[error("a queue's size must be a power of two between 2 and 1024")]
    BadQueueSize,
    /// The device cannot have so many queues.
    #[error("the device cannot have so many queues")]
    BadQueueCount,
    /// The address is one of a group, or nobody's.
    #[error("not an address of a network card")]
    BadMac,
    /// The MTU is below 68 (VIRTIO 1.2, 5.1.4.1).
    #[error("the MTU must be at least 68")]
    BadMtu,
    /// The capacity is zero, no multiple of a block, or more than a RAM disk can have.
    #[error("the capacity must be a multiple of the block size, and at most 64 GiB")]
    BadCapacity,
    /// The block size is no power of two between 512 and 65536.
    #[error("the block size must be a power of two between 512 and 65536")]
    BadBlockSize,
    /// Memory is short.
    #[error("out of memory")]
    OutOfMemory,
}
