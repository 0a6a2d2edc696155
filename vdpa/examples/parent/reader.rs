//! A driver on the vDPA bus: it starts a device, asks it for some bytes, and stops it when it
//! leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use embassy_futures::select::{Either, select};
use vdpa::Features;
use vdpa::bus::{Bound, Driver, ProbeError};
use vdpa::device::{Attachment, VdpaClaim, VdpaDevice, VdpaId};
use vdpa::dma::{DmaSpace, MapTarget, Owner, Trust};
use vdpa::features::ring_features;
use vdpa::ops::{OpError, QueueAddress};
use vdpa::platform::{BoxFuture, Callback};
use virtio::DeviceStatus;
use virtq::{
    DeviceHold, DmaAllocator, DmaBuffer, Event, Notify, Pending, Queue, QueueConfig, Writable,
};

/// How many bytes it asks for.
pub const WANTED: usize = 16;
/// How long the device has for them.
const DEADLINE: Duration = Duration::from_secs(5);
const QUEUE: u16 = 0;
const QUEUE_SIZE: u16 = 8;

/// The driver.
#[derive(Default)]
pub struct Reader {
    read: AtomicUsize,
}

impl Reader {
    /// How many bytes its devices have given it.
    pub fn bytes_read(&self) -> usize {
        self.read.load(Ordering::Relaxed)
    }
}

impl Driver<VdpaDevice> for Reader {
    fn name(&self) -> &'static str {
        "reader"
    }

    fn ids(&self) -> &[VdpaId] {
        // An entropy device (VIRTIO 1.2, 5.4).
        &[VdpaId::Type(4)]
    }

    fn probe<'a>(
        &'a self,
        device: VdpaClaim,
        _id: Option<&'a VdpaId>,
    ) -> BoxFuture<'a, Result<Box<dyn Bound>, ProbeError>> {
        Box::pin(async move {
            let mut source = Source::start(device).await?;
            let bytes = match source.read().await {
                Ok(bytes) => bytes,
                Err(error) => {
                    source.stop().await;
                    return Err(error.into());
                }
            };
            println!("{} gives {bytes:02x?}", source.device.node().name());
            self.read.fetch_add(bytes.len(), Ordering::Relaxed);
            Ok(Box::new(source) as Box<dyn Bound>)
        })
    }
}

/// A device that runs.
struct Source {
    device: VdpaClaim,
    attachment: Arc<Attachment>,
    space: Arc<DmaSpace>,
    /// The ring and its buffers are of one allocator.
    memory: Arc<dyn DmaAllocator>,
    hold: Arc<DeviceHold>,
    ring: Queue<Writable>,
    event: Arc<Event>,
}

impl Source {
    /// The order is that of VIRTIO 1.2, 3.1.1.
    async fn start(device: VdpaClaim) -> Result<Self, ProbeError> {
        device.reset().await?;
        let attachment = device.attach(Owner::Kernel, Trust::Isolated);
        let attachment = attachment.map_err(ProbeError::unsuitable)?;
        let space = DmaSpace::new(device.platform());
        space.attach(Arc::clone(&attachment) as Arc<dyn MapTarget>)?;

        let mut status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        device.set_status(status).await?;
        let understood = virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM | virtio::F::EVENT_IDX;
        let features = device
            .device_features()?
            .intersection(Features::from(understood));
        device.set_driver_features(features)?;
        status |= DeviceStatus::FEATURES_OK;
        device.set_status(status).await?;

        let hold = DeviceHold::new();
        let config = QueueConfig {
            size: QUEUE_SIZE,
            align: device.queue_align(),
            features: ring_features(features),
        };
        let memory = space.allocator();
        let ring = Queue::new(&config, &memory, &hold).map_err(OpError::from)?;
        let event = Arc::<Event>::default();
        device.set_queue_callback(QUEUE, Some(Callback::event(Arc::clone(&event))))?;
        device.set_queue_size(QUEUE, ring.size())?;
        let addresses = ring.addresses();
        let address = QueueAddress {
            descriptor: addresses.descriptor,
            driver: addresses.driver,
            device: addresses.device,
        };
        // SAFETY: the ring is that of a `Queue`, which is held until the device has been reset.
        unsafe { device.set_queue_address(QUEUE, address) }?;
        device.start_queue(QUEUE).await?;

        // From here on the device uses the ring.
        hold.hold();
        status |= DeviceStatus::DRIVER_OK;
        device.set_status(status).await?;
        Ok(Self {
            device,
            attachment,
            space,
            memory,
            hold,
            ring,
            event,
        })
    }

    async fn read(&mut self) -> Result<Vec<u8>, OpError> {
        let doorbell = self.device.doorbell(QUEUE)?;
        let buffer = DmaBuffer::new(&self.memory, WANTED);
        let buffer = buffer.map_err(|_| OpError::OutOfResources)?;
        let added = self.ring.add(Writable(buffer));
        added.map_err(|_| OpError::OutOfResources)?;
        if self.ring.publish() == Notify::Needed {
            doorbell.ring(self.ring.place());
        }
        loop {
            if let Some(used) = self.ring.take().map_err(|_| OpError::Broken)? {
                return Ok(used.chain.0[..used.written as usize].to_vec());
            }
            if self.ring.enable_interrupts() == Pending::Yes {
                continue;
            }
            let silence = self.device.platform().sleep(DEADLINE);
            if let Either::Second(()) = select(self.event.wait(), silence).await {
                return Err(OpError::Timeout);
            }
        }
    }

    async fn stop(self) {
        // Only a device that has confirmed its reset lets go of memory.
        if self.device.reset().await.is_ok() {
            self.hold.release();
        }
        drop(self.ring);
        self.space.detach();
        if let Err(error) = self.attachment.detach().await {
            println!("{}: {error}", self.device.node().name());
        }
    }
}

impl Bound for Source {
    fn remove(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(self.stop())
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // The system ends in any case.
            let _ = self.device.reset().await;
        })
    }
}
