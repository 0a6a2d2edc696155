//! The open handle, until it is closed, and what it makes of memory.

use alloc::sync::Arc;
use core::fmt;

use spin::Mutex;
use vdpa::dma::{Addressing, IovaSpace, MapTarget};
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::ops::{Backing, OpError};

use crate::{IotlbMessage, VhostError, VhostHandle};

/// The only address space that drivers of one device need.
const ASID: u16 = 0;

/// The handle, and the address space behind it.
pub(super) struct Link {
    handle: Mutex<Option<Arc<VhostHandle>>>,
    addressing: Addressing,
    iova_space: IovaSpace,
}

impl Link {
    pub(super) fn new(handle: VhostHandle) -> Result<Self, VhostError> {
        Ok(Self {
            addressing: handle.addressing()?,
            iova_space: handle.iova_space()?,
            handle: Mutex::new(Some(Arc::new(handle))),
        })
    }

    /// The handle, if it has not been closed.
    pub(super) fn handle(&self) -> Result<Arc<VhostHandle>, OpError> {
        self.handle.lock().clone().ok_or(OpError::Gone)
    }

    /// Closes the handle; somebody who is using it at this moment closes it afterwards.
    pub(super) async fn close(&self) {
        let handle = self.handle.lock().take();
        if let Some(handle) = handle.and_then(Arc::into_inner)
            && let Err(error) = handle.close().await
        {
            log::warn!("a vhost device was not closed properly: {error}");
        }
    }

    fn tell(&self, message: IotlbMessage) -> Result<(), OpError> {
        Ok(self.handle()?.message(message)?)
    }
}

// SAFETY: each call is a request about the device that the handle leads to.
unsafe impl MapTarget for Link {
    fn addressing(&self) -> Addressing {
        self.addressing
    }

    fn iova_space(&self) -> IovaSpace {
        self.iova_space.clone()
    }

    fn map(
        &self,
        range: IovaRange,
        permission: Permission,
        backing: Backing,
    ) -> Result<(), OpError> {
        self.tell(IotlbMessage::Update {
            asid: ASID,
            iova: range.first(),
            size: size(range)?,
            memory: backing.memory,
            offset: backing.offset,
            permission,
        })
    }

    fn unmap(&self, range: IovaRange) -> Result<(), OpError> {
        self.tell(IotlbMessage::Invalidate {
            asid: ASID,
            iova: range.first(),
            size: size(range)?,
        })
    }

    fn begin_batch(&self) -> Result<(), OpError> {
        self.tell(IotlbMessage::BatchBegin { asid: ASID })
    }

    fn end_batch(&self) -> Result<(), OpError> {
        self.tell(IotlbMessage::BatchEnd { asid: ASID })
    }
}

/// No memory is as long as the whole address space.
fn size(range: IovaRange) -> Result<u64, OpError> {
    u64::try_from(range.len()).map_err(|_| OpError::Invalid)
}

/// What a driver does with an error of the protocol.
impl From<VhostError> for OpError {
    fn from(error: VhostError) -> Self {
        match error {
            VhostError::HungUp | VhostError::NotFound => Self::Gone,
            VhostError::Timeout => Self::Timeout,
            VhostError::NoSuchQueue | VhostError::NoSuchConfig => Self::OutOfRange,
            VhostError::Exists => Self::Overlap,
            VhostError::Busy | VhostError::NoOwner | VhostError::WrongState => Self::WrongState,
            VhostError::NotIsolated | VhostError::UnitTaken => Self::NotOwner,
            VhostError::Unsupported | VhostError::WrongVersion => Self::Unsupported,
            VhostError::FeaturesRefused => Self::FeaturesRefused,
            VhostError::OutOfResources | VhostError::OverQuota | VhostError::TooManyMappings => {
                Self::OutOfResources
            }
            VhostError::Broken => Self::Broken,
            VhostError::Invalid
            | VhostError::EmptyRange
            | VhostError::RangeWraps
            | VhostError::NotReachable
            | VhostError::BeyondMemory
            | VhostError::NoPermission => Self::Invalid,
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("addressing", &self.addressing)
            .field("open", &self.handle.lock().is_some())
            .finish_non_exhaustive()
    }
}
