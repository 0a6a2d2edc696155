//! The back-end's end of the vhost-user protocol: answers each request of the front-end.

use std::fs::File;
use std::io;
use std::sync::Arc;

use vdpa::Features;
use vdpa::features::ring_features;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    Error, GpuBackend, Result, VhostUserBackendReqHandlerMut, VhostUserProtocolFeatures,
    VhostUserVirtioFeatures,
};
use virtq::RingFeatures;
use virtq::device::Counters;

use super::blk::Disk;
use super::memory::GuestMemory;
use super::vring::{Readiness, Shared, UserAddresses, Vring, VringError};

/// A device that a front-end sets up and lets run.
#[derive(Debug)]
pub(super) struct Backend {
    shared: Shared,
    vrings: Vec<Vring>,
    features: u64,
}

impl Backend {
    /// A device with `queues` queues that nobody has set up.
    pub(super) fn new(disk: Arc<Disk>, queues: u16) -> Self {
        Self {
            shared: Shared {
                disk,
                memory: None,
                features: RingFeatures::default(),
            },
            vrings: (0..queues).map(|_| Vring::default()).collect(),
            features: 0,
        }
    }

    /// Stops everything.
    pub(super) fn stop(&mut self) -> std::result::Result<(), VringError> {
        self.vrings.iter_mut().try_for_each(Vring::pause)
    }

    /// What was last negotiated.
    pub(super) fn features(&self) -> u64 {
        self.features
    }

    /// What each queue did.
    pub(super) fn counters(&self) -> Vec<Counters> {
        self.vrings.iter().map(Vring::counters).collect()
    }

    /// How often queues went on from where they had stood.
    pub(super) fn resumed(&self) -> u64 {
        self.vrings.iter().map(Vring::resumed).sum()
    }

    /// Why queues stopped that should not have.
    pub(super) fn failures(&self) -> Vec<String> {
        let queues = self.vrings.iter().enumerate();
        queues
            .flat_map(|(index, vring)| {
                let failures = vring.failures().iter();
                failures.map(move |failure| format!("queue {index}: {failure}"))
            })
            .collect()
    }

    fn offered(&self) -> u64 {
        let ring = virtio::F::VERSION_1
            | virtio::F::EVENT_IDX
            | virtio::F::INDIRECT_DESC
            | virtio::F::RING_PACKED;
        let device = self.shared.disk.features();
        low_bits(ring.bits().to_ne())
            | low_bits(device.bits().to_ne())
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    /// Stops a ring, changes it and starts it again if it can run then.
    fn change(&mut self, index: u32, change: impl FnOnce(&mut Vring)) -> Result<()> {
        let vring = find(&mut self.vrings, index)?;
        vring.pause().map_err(failed)?;
        change(vring);
        vring.start(&self.shared).map_err(failed)
    }
}

impl VhostUserBackendReqHandlerMut for Backend {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.stop().map_err(failed)
    }

    fn reset_device(&mut self) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.offered())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !self.offered() != 0 {
            return Err(Error::InvalidParam);
        }
        self.stop().map_err(failed)?;
        self.features = features;
        self.shared.features = ring_features(Features::from_bits(features.into()));
        self.vrings
            .iter_mut()
            .try_for_each(|vring| vring.start(&self.shared))
            .map_err(failed)
    }

    fn set_mem_table(
        &mut self,
        table: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<Vec<u64>>> {
        self.stop().map_err(failed)?;
        let memory = GuestMemory::map(table, files).map_err(Error::ReqHandlerError)?;
        self.shared.memory = Some(Arc::new(memory));
        self.vrings
            .iter_mut()
            .try_for_each(|vring| vring.start(&self.shared))
            .map_err(failed)?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, size: u32) -> Result<()> {
        let size = u16::try_from(size).map_err(|_| Error::InvalidParam)?;
        self.change(index, |vring| vring.set_size(size))
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let addresses = UserAddresses {
            descriptor,
            available,
            used,
        };
        self.change(index, |vring| vring.set_addresses(addresses))
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.change(index, |vring| vring.set_base(base))
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let base = find(&mut self.vrings, index)?.stop().map_err(failed)?;
        Ok(VhostUserVringState::new(index, base))
    }

    fn set_vring_kick(&mut self, index: u8, kick: Option<File>) -> Result<()> {
        // Without a counter the back-end would have to poll.
        let kick = kick.ok_or(UNSUPPORTED)?;
        self.change(index.into(), |vring| vring.set_kick(kick))
    }

    fn set_vring_call(&mut self, index: u8, call: Option<File>) -> Result<()> {
        let vring = find(&mut self.vrings, index.into())?;
        vring.call().connect(call).map_err(Error::ReqHandlerError)
    }

    fn set_vring_err(&mut self, index: u8, error: Option<File>) -> Result<()> {
        let vring = find(&mut self.vrings, index.into())?;
        vring.error().connect(error).map_err(Error::ReqHandlerError)
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG)
    }

    fn set_protocol_features(&mut self, _features: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.vrings.len() as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let readiness = if enable {
            Readiness::Enabled
        } else {
            Readiness::Disabled
        };
        self.change(index, |vring| vring.set_readiness(readiness))
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> Result<Vec<u8>> {
        let queues = u16::try_from(self.vrings.len()).map_err(|_| Error::BackendInternalError)?;
        let config = self.shared.disk.config(queues);
        let range = usize::try_from(offset).ok().zip(usize::try_from(size).ok());
        range
            .and_then(|(offset, size)| config.get(offset..)?.get(..size))
            .map(<[u8]>::to_vec)
            .ok_or(Error::InvalidParam)
    }

    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        Err(UNSUPPORTED)
    }

    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(UNSUPPORTED)
    }

    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Err(UNSUPPORTED)
    }

    fn add_mem_region(
        &mut self,
        _: &VhostUserSingleMemoryRegion,
        _: File,
        _: Option<bool>,
    ) -> Result<Option<u64>> {
        Err(UNSUPPORTED)
    }

    fn remove_mem_region(&mut self, _: &VhostUserSingleMemoryRegion) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        Err(UNSUPPORTED)
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(UNSUPPORTED)
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        Err(UNSUPPORTED)
    }
}

/// The answer to what was not offered.
const UNSUPPORTED: Error = Error::InvalidOperation("not offered by this back-end");

fn failed(error: VringError) -> Error {
    Error::ReqHandlerError(io::Error::other(error))
}

fn find(vrings: &mut [Vring], index: u32) -> Result<&mut Vring> {
    let index = usize::try_from(index).map_err(|_| Error::InvalidParam)?;
    vrings.get_mut(index).ok_or(Error::InvalidParam)
}

/// The features below 64, which are all that the protocol knows.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the rest cannot be offered"
)]
fn low_bits(bits: u128) -> u64 {
    bits as u64
}
