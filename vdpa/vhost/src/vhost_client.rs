//! The user's side of vhost: a device that a client has opened, as a device of a virtio bus.
//!
//! The same drivers run here as over [`virtio_vdpa`]. What differs is below them: rings and buffers
//! lie in an arena of the client's own, at addresses of the client's own, and whatever the device
//! is told goes through a [`VhostHandle`], which believes nothing. A client that goes wrong harms
//! only itself.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use vhost_vdpa::vhost_client::{Client, ClientError, ClientOptions};
//! # use vhost_vdpa::{OpenOptions, VhostRegistry};
//! # use vdpa::Platform;
//! # use virtio_bus::VirtioBus;
//! # async fn run(registry: &VhostRegistry, platform: &Arc<dyn Platform>) -> Result<(), ClientError> {
//! let bus = VirtioBus::new("client");
//! // Here the client puts its drivers on its bus.
//! let handle = registry.open("vhost-vdpa-0", OpenOptions::default()).await?;
//! let client = Client::attach(handle, platform, &bus, ClientOptions::default()).await?;
//! // The drivers have the device now.
//! client.detach().await;
//! # Ok(())
//! # }
//! ```

mod link;
mod transport;

use alloc::boxed::Box;
use alloc::sync::Arc;

use embassy_futures::select::select;
use vdpa::Platform;
use vdpa::device::{VdpaBus, VdpaDevice};
use vdpa::dma::DmaSpace;
use vdpa::ops::OpError;
use virtio_bus::virtio_vdpa::{self, VirtioVdpa};
use virtio_bus::{CreateError, Memory, MoveError, Transport, VirtioBus, VirtioDevice};
use virtq::{Arena, ArenaError, DeviceMemory, DmaError, Event, SharedMemory};

use crate::{VhostError, VhostHandle};

use self::transport::ClientTransport;

/// What a client can choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// How many bytes its arena has, for rings and buffers. All of it is mapped at the start, and
    /// counts against the quota that the handle was opened with.
    pub arena: usize,
}

/// 4 MiB, enough for the drivers of this project with full queues.
impl Default for ClientOptions {
    fn default() -> Self {
        Self { arena: 4 << 20 }
    }
}

/// Why a client cannot use a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The other side refused something.
    #[error(transparent)]
    Vhost(#[from] VhostError),
    /// There is no memory for the arena.
    #[error(transparent)]
    Memory(#[from] DmaError),
    /// The device gives the arena an address that it cannot have.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// No virtio device can be made of it.
    #[error(transparent)]
    Device(#[from] CreateError),
}

/// A device that a client has opened, on the client's virtio bus.
///
/// It leaves the bus when it is [detached](Self::detach), when this value is dropped, and when the
/// device is taken away from the client.
#[derive(Debug)]
pub struct Client {
    device: Arc<VirtioDevice>,
    platform: Arc<dyn Platform>,
    /// Raised to end the task that watches the device.
    end: Arc<Event>,
    /// Raised by that task at its end.
    ended: Arc<Event>,
}

impl Client {
    /// Makes a device that has been opened one of `bus`, where the client's drivers find it.
    ///
    /// # Errors
    /// [`ClientError`]: the handle has been closed.
    pub async fn attach(
        handle: VhostHandle,
        platform: &Arc<dyn Platform>,
        bus: &Arc<VirtioBus>,
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        let transport = ClientTransport::open(handle, platform)?;
        let result = Self::create(&transport, platform, bus, options).await;
        if result.is_err() {
            transport.close().await;
        }
        Ok(Self::watch(result?, &transport))
    }

    /// Takes over a device of this kernel's drivers while it runs: what [`VirtioVdpa`] has made of
    /// `from` goes on over `handle`, with its driver and everything in flight. It stays on the bus
    /// where it is.
    ///
    /// # Errors
    /// [`MoveError`]; the handle has been closed.
    pub async fn take_over(
        handle: VhostHandle,
        platform: &Arc<dyn Platform>,
        virtio_vdpa: &VirtioVdpa,
        vdpa: &VdpaBus,
        from: &Arc<VdpaDevice>,
    ) -> Result<Self, MoveError> {
        let transport = ClientTransport::open(handle, platform)
            .map_err(|error| MoveError::To(OpError::from(error)))?;
        let to = Arc::clone(&transport) as Arc<dyn Transport>;
        let device = virtio_vdpa.hand_over(vdpa, from, to).await?;
        Ok(Self::watch(device, &transport))
    }

    /// Gives the device to the driver `virtio_vdpa` while it runs: it goes on over `to`, which is
    /// on `vdpa` and has no driver, and the handle is closed. On failure the client has the device
    /// as before.
    ///
    /// # Errors
    /// [`MoveError`].
    pub async fn hand_back(&self, vdpa: &VdpaBus, to: &Arc<VdpaDevice>) -> Result<(), MoveError> {
        virtio_vdpa::adopt(vdpa, to, &self.device).await?;
        self.end.raise();
        Ok(())
    }

    /// The virtio device.
    #[must_use]
    pub fn device(&self) -> &Arc<VirtioDevice> {
        &self.device
    }

    /// Returns when the device has left its bus and is closed, for whatever reason.
    pub async fn ended(&self) {
        self.ended.wait().await;
        // A second call has the same answer.
        self.ended.raise();
    }

    /// Takes the device off its bus and closes it; returns when both is done.
    pub async fn detach(self) {
        self.end.raise();
        self.ended().await;
    }

    async fn create(
        transport: &Arc<ClientTransport>,
        platform: &Arc<dyn Platform>,
        bus: &Arc<VirtioBus>,
        options: ClientOptions,
    ) -> Result<Arc<VirtioDevice>, ClientError> {
        let space = DmaSpace::new(platform);
        let attached = space.attach(transport.map_target());
        attached.map_err(CreateError::from)?;
        let block = SharedMemory::new(&platform.dma(), options.arena)?;
        // SAFETY: the handle is this client's alone, and its rings are those of a driver's queues.
        let lent = unsafe { DeviceMemory::lent(&block) };
        let base = space.place(&lent)?;
        let memory = Memory {
            allocator: Arena::new(block, base)?,
            space: Arc::clone(&space),
        };
        let transport = Arc::clone(transport) as Arc<dyn Transport>;
        // SAFETY: all of the arena is mapped at its addresses.
        let created = unsafe { VirtioDevice::create(bus, transport, memory) }.await;
        if created.is_err() {
            space.detach();
        }
        Ok(created?)
    }

    /// Starts the task that takes the device off its bus when it is over.
    fn watch(device: Arc<VirtioDevice>, transport: &Arc<ClientTransport>) -> Self {
        let client = Self {
            platform: Arc::clone(&transport.info().platform),
            device,
            end: Arc::default(),
            ended: Arc::default(),
        };
        let (device, transport) = (Arc::clone(&client.device), Arc::clone(transport));
        let (end, ended) = (Arc::clone(&client.end), Arc::clone(&client.ended));
        // Its drivers must hear of the end, also if the client has forgotten the bus.
        let bus = device.bus();
        let task = async move {
            select(end.wait(), transport.hang_up().wait()).await;
            if device.is_over(&*transport).await {
                device.withdraw().await;
            }
            drop(bus);
            ended.raise();
        };
        client
            .platform
            .spawn(client.device.node().name(), Box::pin(task));
        client
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.end.raise();
    }
}
