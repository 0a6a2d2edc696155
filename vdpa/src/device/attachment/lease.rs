//! What an owner has until he leaves: the address spaces of a device and the way by which it gets
//! to know of them.

use alloc::vec::Vec;
use core::fmt;
use core::mem;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Mutex;

use crate::dirty::LogError;
use crate::dma::{Addressing, Claim, IovaSpace, Owner, Trust};
use crate::ops::{DmaModel, OpError};

use super::super::VdpaDevice;
use super::AttachError;
use super::log::Log;
use super::route::Route;
use super::space::Space;

/// What an owner has until he leaves, and the device until the reset after that.
pub(super) struct Lease {
    owner: Owner,
    addressing: Addressing,
    iova_space: IovaSpace,
    /// How many faults of the device were there before.
    faults_before: u64,
    space_count: u16,
    /// The attachment is gone.
    orphaned: AtomicBool,
    /// The device may use the memory for ever.
    abandoned: AtomicBool,
    /// `None` after the end.
    holding: Mutex<Option<Holding>>,
}

/// What ends with a lease. An IOMMU has let go of memory before it is free.
pub(super) struct Holding {
    route: Route,
    pub(super) spaces: Vec<Space>,
    /// Of the pages that the device writes, if it keeps one.
    pub(super) log: Option<Log>,
    _claim: Option<Claim>,
}

impl Lease {
    /// Empty address spaces of a device that is as a reset has left it.
    pub(super) fn new(
        device: &VdpaDevice,
        owner: Owner,
        trust: Trust,
    ) -> Result<Self, AttachError> {
        let (route, claim) = if let DmaModel::Platform = device.ops.dma_model() {
            let unit = &device.config.dma;
            let claim = unit.claim(owner).map_err(AttachError::Taken)?;
            let platform = &*device.config.platform;
            let bypasses = device.bypasses_iommu();
            let route = Route::through_platform(platform, unit, &claim, owner, trust, bypasses)?;
            (route, Some(claim))
        } else {
            (Route::Device, None)
        };
        let space_count = match route {
            Route::Device => device.ops.address_space_count(),
            Route::Domain { .. } | Route::Identity => 1,
        };
        if let Route::Device = route {
            for space in 0..space_count {
                device
                    .map_notifier(space)
                    .reset()
                    .map_err(AttachError::Device)?;
            }
        }
        let holding = Holding {
            spaces: (0..space_count).map(|_| Space::new()).collect(),
            log: None,
            _claim: claim,
            route,
        };
        Ok(Self {
            owner,
            addressing: holding.route.addressing(),
            iova_space: holding.route.iova_space(&*device.ops),
            faults_before: device.config.dma.dma_faults().count,
            space_count,
            orphaned: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            holding: Mutex::new(Some(holding)),
        })
    }

    pub(super) fn owner(&self) -> Owner {
        self.owner
    }

    pub(super) fn addressing(&self) -> Addressing {
        self.addressing
    }

    pub(super) fn iova_space(&self) -> &IovaSpace {
        &self.iova_space
    }

    pub(super) fn faults_before(&self) -> u64 {
        self.faults_before
    }

    pub(super) fn space_count(&self) -> u16 {
        self.space_count
    }

    pub(super) fn mapped_bytes(&self) -> u64 {
        self.holding
            .lock()
            .iter()
            .flat_map(|holding| &holding.spaces)
            .map(Space::bytes)
            .sum()
    }

    /// Looks at an address space, or changes it. What is dropped meanwhile must not be the last of
    /// its kind: the lock is held.
    pub(super) fn edit<R>(
        &self,
        space: u16,
        edit: impl FnOnce(&Route, &mut Space) -> Result<R, OpError>,
    ) -> Result<R, OpError> {
        self.with_holding(|holding| {
            let space = holding
                .spaces
                .get_mut(usize::from(space))
                .ok_or(OpError::OutOfRange)?;
            edit(&holding.route, space)
        })
    }

    /// The same with everything that the owner has.
    pub(super) fn with_holding<R, E: From<OpError>>(
        &self,
        act: impl FnOnce(&mut Holding) -> Result<R, E>,
    ) -> Result<R, E> {
        act(self.holding.lock().as_mut().ok_or(OpError::NotOwner)?)
    }

    /// The device writes its log no more. Returns it, to be dropped without a lock.
    pub(super) fn take_log(&self) -> Option<Log> {
        self.holding.lock().as_mut()?.log.take()
    }

    /// The attachment is gone, and the device may still use what is mapped.
    pub(super) fn orphan(&self) {
        self.orphaned.store(true, Ordering::Release);
    }

    pub(super) fn is_orphaned(&self) -> bool {
        self.orphaned.load(Ordering::Acquire)
    }

    /// Whether the device may use the memory for ever, so that it must never be free again.
    pub(super) fn set_abandoned(&self, abandoned: bool) {
        self.abandoned.store(abandoned, Ordering::Release);
    }

    /// The device has forgotten what was mapped. Returns that, to be dropped without a lock.
    pub(super) fn forget(&self) -> Vec<Space> {
        let mut holding = self.holding.lock();
        let spaces = holding.iter_mut().flat_map(|holding| &mut holding.spaces);
        spaces
            .map(|space| mem::replace(space, Space::new()))
            .collect()
    }

    /// Makes the device, which is at rest, forget everything. Returns that, to be dropped without a
    /// lock.
    pub(super) fn end(&self, device: &VdpaDevice) -> Option<Holding> {
        let holding = self.holding.lock().take()?;
        if let Route::Device = holding.route {
            for space in 0..self.space_count {
                if let Err(error) = device.map_notifier(space).reset() {
                    // It is asked again before it gets another owner.
                    log::error!(
                        "{}: address space {space} is not empty after use: {error}",
                        device.node.path()
                    );
                }
            }
        }
        Some(holding)
    }
}

impl Holding {
    /// The log that the device keeps.
    pub(super) fn log(&self) -> Result<&Log, LogError> {
        self.log.as_ref().ok_or(LogError::NotRunning)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        for space in self.spaces.drain(..) {
            if let Err(error) = self.route.leave(space.told()) {
                log::error!("the memory of a device is kept from others for ever: {error}");
                mem::forget(space);
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.abandoned.load(Ordering::Acquire) {
            mem::forget(self.holding.get_mut().take());
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("owner", &self.owner)
            .field("addressing", &self.addressing)
            .field("mapped_bytes", &self.mapped_bytes())
            .finish_non_exhaustive()
    }
}
