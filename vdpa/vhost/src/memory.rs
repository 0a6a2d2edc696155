//! What a client has mapped for its device: messages, batches, quota.
//!
//! Which ranges overlap, what splits and how a failed change is undone is the business of the
//! [`Attachment`].

use alloc::sync::Arc;

use vdpa::device::Attachment;
use vdpa::iotlb::{Iotlb, IovaRange, Permission, RangeError};
use vdpa::ops::{Backing, OpError};
use virtq::DeviceMemory;

use super::{BackendFeatures, IotlbMessage, OpenOptions, VhostError};

/// The memory of one client, from open to close.
#[derive(Debug)]
pub(super) struct ClientMemory {
    attachment: Arc<Attachment>,
    quota: u64,
    most_mappings: usize,
    /// How many mappings there are in all address spaces.
    mappings: usize,
    /// The address space that the open batch is about.
    batch: Option<u16>,
}

impl ClientMemory {
    pub(super) fn new(attachment: Arc<Attachment>, options: &OpenOptions) -> Self {
        Self {
            attachment,
            quota: options.quota,
            most_mappings: options.mappings,
            mappings: 0,
            batch: None,
        }
    }

    pub(super) fn attachment(&self) -> &Arc<Attachment> {
        &self.attachment
    }

    /// How many mappings there are.
    pub(super) fn mappings(&self) -> usize {
        self.mappings
    }

    /// Does what a message says.
    pub(super) fn handle(
        &mut self,
        message: IotlbMessage,
        acknowledged: BackendFeatures,
    ) -> Result<(), VhostError> {
        let asid = message.asid();
        self.check_space(asid, acknowledged)?;
        match message {
            IotlbMessage::Update {
                iova,
                size,
                memory,
                offset,
                permission,
                ..
            } => self.update(asid, range(iova, size)?, memory, offset, permission),
            IotlbMessage::Invalidate { iova, size, .. } => {
                self.invalidate(asid, range(iova, size)?)
            }
            IotlbMessage::BatchBegin { .. } => self.begin_batch(asid, acknowledged),
            IotlbMessage::BatchEnd { .. } => self.end_batch(asid),
        }
    }

    /// Ends an open batch, as the client would have to.
    pub(super) fn finish_batch(&mut self) -> Result<(), VhostError> {
        match self.batch {
            Some(space) => self.end_batch(space),
            None => Ok(()),
        }
    }

    /// Takes everything away, as far as the device lets it, and ends an open batch.
    pub(super) fn clear(&mut self) -> Result<(), VhostError> {
        self.batch = None;
        self.mappings = 0;
        let mut result = Ok(());
        for space in 0..self.attachment.space_count() {
            result = result.and(self.attachment.reset_map(space));
            self.mappings += self.count(space)?;
        }
        Ok(result?)
    }

    /// Only an address space that exists, and inside a batch only the batch's.
    fn check_space(&self, asid: u16, acknowledged: BackendFeatures) -> Result<(), VhostError> {
        let known = asid == 0 || acknowledged.contains(BackendFeatures::IOTLB_ASID);
        let fits = self.batch.is_none_or(|batch| batch == asid);
        if known && fits && asid < self.attachment.space_count() {
            Ok(())
        } else {
            Err(VhostError::Invalid)
        }
    }

    fn update(
        &mut self,
        space: u16,
        range: IovaRange,
        memory: DeviceMemory,
        offset: u64,
        permission: Permission,
    ) -> Result<(), VhostError> {
        if permission.is_empty() || !Permission::all().contains(permission) {
            return Err(VhostError::NoPermission);
        }
        if !self.attachment.iova_space().contains(range) {
            return Err(VhostError::NotReachable);
        }
        let size = u64::try_from(range.len()).map_err(|_| VhostError::BeyondMemory)?;
        let end = offset.checked_add(size);
        if end.is_none_or(|end| end > memory.len()) {
            return Err(VhostError::BeyondMemory);
        }
        let mapped = self.attachment.mapped_bytes();
        if mapped.checked_add(size).is_none_or(|all| all > self.quota) {
            return Err(VhostError::OverQuota);
        }
        if self.mappings >= self.most_mappings {
            return Err(VhostError::TooManyMappings);
        }
        let backing = Backing { memory, offset };
        self.change(space, |attachment| {
            attachment.map(space, range, permission, backing)
        })
        // Everything else that could be wrong has been looked at: nobody translates, and the memory
        // lies elsewhere.
        .map_err(|error| match error {
            VhostError::Invalid => VhostError::NotReachable,
            other => other,
        })
    }

    fn invalidate(&mut self, space: u16, range: IovaRange) -> Result<(), VhostError> {
        // One that is split becomes two.
        let splits = self.attachment.with_table(space, |table| {
            let mut touched = table.overlaps(range);
            touched.next().is_some_and(|mapping| {
                mapping.range.first() < range.first() && mapping.range.last() > range.last()
            })
        })?;
        if splits && self.mappings >= self.most_mappings {
            return Err(VhostError::TooManyMappings);
        }
        self.change(space, |attachment| attachment.unmap(space, range).map(drop))
    }

    fn begin_batch(&mut self, space: u16, acknowledged: BackendFeatures) -> Result<(), VhostError> {
        if !acknowledged.contains(BackendFeatures::IOTLB_BATCH) {
            return Err(VhostError::Unsupported);
        }
        if self.batch.is_some() {
            return Err(VhostError::Invalid);
        }
        self.attachment.begin_batch(space)?;
        self.batch = Some(space);
        Ok(())
    }

    fn end_batch(&mut self, space: u16) -> Result<(), VhostError> {
        if self.batch.take().is_none() {
            return Err(VhostError::Invalid);
        }
        self.change(space, |attachment| attachment.end_batch(space))
    }

    /// Changes an address space and counts what is mapped then.
    fn change(
        &mut self,
        space: u16,
        act: impl FnOnce(&Attachment) -> Result<(), OpError>,
    ) -> Result<(), VhostError> {
        let before = self.count(space)?;
        let result = act(&self.attachment);
        self.mappings = self.mappings - before + self.count(space)?;
        Ok(result?)
    }

    fn count(&self, space: u16) -> Result<usize, OpError> {
        self.attachment.with_table(space, Iotlb::len)
    }
}

impl IotlbMessage {
    fn asid(&self) -> u16 {
        match self {
            Self::Update { asid, .. }
            | Self::Invalidate { asid, .. }
            | Self::BatchBegin { asid }
            | Self::BatchEnd { asid } => *asid,
        }
    }
}

fn range(iova: u64, size: u64) -> Result<IovaRange, VhostError> {
    IovaRange::new(iova, size).map_err(|error| match error {
        RangeError::Empty => VhostError::EmptyRange,
        RangeError::Wraps => VhostError::RangeWraps,
    })
}
