//! Requests as values: from each to the method that answers it.

use alloc::vec;
use alloc::vec::Vec;

use crate::{Reply, Request, VhostError};

use super::VhostHandle;

impl VhostHandle {
    /// Does what is asked for.
    ///
    /// # Errors
    /// Those of the method that the request names.
    pub async fn request(&self, request: Request) -> Result<Reply, VhostError> {
        use Request::*;
        match request {
            SetOwner => self.set_owner().map(done),
            GetFeatures => self.features().map(Reply::Features),
            SetFeatures(features) => self.set_features(features).map(done),
            GetBackendFeatures => self.backend_features().map(Reply::BackendFeatures),
            SetBackendFeatures(features) => self.set_backend_features(features).map(done),
            GetDeviceId => self.device_id().map(Reply::Id),
            GetVendorId => self.vendor_id().map(Reply::Id),
            GetStatus => self.status().map(Reply::Status),
            SetStatus(status) => self.set_status(status).await.map(done),
            GetConfigSize => self.config_size().map(Reply::Count),
            GetConfig { offset, len } => self.config_bytes(offset, len).map(Reply::Config),
            SetConfig { offset, bytes } => self.set_config(offset, &bytes).map(done),
            SetConfigCall(event) => self.set_config_call(event).map(done),
            GetVqsCount => Ok(Reply::Count(self.queue_count().into())),
            GetVringNum => self.vring_num_max().map(Reply::VringSize),
            GetVringSize { queue } => self.vring_size(queue).map(Reply::VringSize),
            SetVringNum { queue, size } => self.set_vring_num(queue, size).map(done),
            SetVringAddr { queue, address } => self.set_vring_addr(queue, address).map(done),
            GetVringBase { queue } => self.vring_base(queue).await.map(Reply::VringBase),
            SetVringBase { queue, state } => self.set_vring_base(queue, state).map(done),
            EnableVring { queue } => self.enable_vring(queue).await.map(done),
            DisableVring { queue } => self.disable_vring(queue).await.map(done),
            SetVringKick { queue, event } => self.set_vring_kick(queue, event).await.map(done),
            SetVringCall { queue, event } => self.set_vring_call(queue, event).map(done),
            SetVringErr { queue, event } => self.set_vring_err(queue, event).map(done),
            GetGroupNum => Ok(Reply::Count(self.group_count().into())),
            GetAsNum => Ok(Reply::Count(self.address_space_count().into())),
            GetVringGroup { queue } => self.vring_group(queue).map(Reply::Group),
            GetVringDescGroup { queue } => self.vring_desc_group(queue).map(Reply::Group),
            SetGroupAsid { group, asid } => self.set_group_asid(group, asid).await.map(done),
            GetIovaRange => self.iova_range().map(Reply::IovaRange),
            Suspend => self.suspend().await.map(done),
            Resume => self.resume().await.map(done),
            StartLog(log) => self.start_log(log).await.map(done),
            StopLog => self.stop_log().await.map(done),
        }
    }

    fn config_bytes(&self, offset: u32, len: u32) -> Result<Vec<u8>, VhostError> {
        // No more than there is, whatever the client says.
        if len > self.config_size()? {
            return Err(VhostError::NoSuchConfig);
        }
        let mut bytes = vec![0; len as usize];
        self.config(offset, &mut bytes)?;
        Ok(bytes)
    }
}

fn done((): ()) -> Reply {
    Reply::Done
}
