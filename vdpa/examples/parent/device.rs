//! The device: its operations, and the task that is its DMA engine.

use std::collections::hash_map::RandomState;
use std::future::ready;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use spin::Mutex;
use vdpa::dma::AddressSpace;
use vdpa::features::ring_features;
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::ops::{Backing, DmaModel, IncrementalMap, OpError, QueueAddress, QueueState};
use vdpa::platform::{BoxFuture, Callback};
use vdpa::{Features, Platform, VdpaOps};
use virtio::DeviceStatus;
use virtq::device::{DeviceConfig, DeviceQueue, DeviceTlb};
use virtq::{Doorbell, Event, Pending, RingAddresses, RingState};

const QUEUE_SIZE: u16 = 8;
/// How many mappings there is room for.
const MAPPINGS: usize = 64;

type Ring = DeviceQueue<DeviceTlb<Arc<AddressSpace>>>;

/// A device whose only queue takes buffers and fills them with random bytes.
pub struct Entropy {
    space: Arc<AddressSpace>,
    /// Locked while the device uses memory: with the lock, nothing is under way.
    state: Mutex<State>,
    kick: Arc<Event>,
    stopped: AtomicBool,
    ended: Event,
}

#[derive(Default)]
struct State {
    features: Features,
    status: DeviceStatus,
    size: u16,
    address: Option<QueueAddress>,
    callback: Option<Callback>,
    ring: Option<Ring>,
}

impl Entropy {
    /// A device, whose task runs until the device has left the bus.
    pub fn start(platform: &dyn Platform) -> Box<dyn VdpaOps> {
        let device = Arc::new(Self {
            space: Arc::new(AddressSpace::new(MAPPINGS)),
            state: Mutex::default(),
            kick: Arc::default(),
            stopped: AtomicBool::new(false),
            ended: Event::new(),
        });
        platform.spawn("entropy", Box::pin(Arc::clone(&device).work()));
        Box::new(Ops(device))
    }

    async fn work(self: Arc<Self>) {
        while !self.stopped.load(Ordering::Acquire) {
            self.kick.wait().await;
            let mut state = self.state.lock();
            let State {
                status,
                callback,
                ring: Some(ring),
                ..
            } = &mut *state
            else {
                continue;
            };
            // Before that a device uses no buffer (VIRTIO 1.2, 2.1.2).
            if !status.contains(DeviceStatus::DRIVER_OK) {
                continue;
            }
            if serve(ring).is_none() {
                // What the driver wrote makes no sense (VIRTIO 1.2, 2.1.2).
                *status |= DeviceStatus::DEVICE_NEEDS_RESET;
            }
            if ring.notify()
                && let Some(callback) = callback
            {
                callback.call();
            }
        }
        self.ended.raise();
    }
}

/// Fills every buffer that is there. `None`, if the driver has broken the queue.
fn serve(ring: &mut Ring) -> Option<()> {
    loop {
        while let Some(chain) = ring.pop().ok()? {
            let mut written = 0;
            while let Ok(count @ 1..) = ring.push(&chain, written, &random()) {
                written += count as u64;
            }
            ring.complete(chain, u32::try_from(written).ok()?).ok()?;
        }
        if ring.enable_notifications().ok()? == Pending::No {
            return Some(());
        }
    }
}

fn random() -> [u8; 8] {
    RandomState::new().build_hasher().finish().to_le_bytes()
}

/// What the bus has of the device.
struct Ops(Arc<Entropy>);

// SAFETY: the ring reaches memory through the address space alone, under the lock of the state, and
// is dropped under it by a reset.
unsafe impl VdpaOps for Ops {
    fn device_id(&self) -> u32 {
        u8::from(virtio::Id::Rng).into()
    }

    fn vendor_id(&self) -> u32 {
        0
    }

    fn dma_model(&self) -> DmaModel<'_> {
        DmaModel::Incremental(self)
    }

    fn reset_map(&self, _space: u16) -> Result<(), OpError> {
        self.0.space.clear();
        Ok(())
    }

    fn settle(&self, _space: u16) -> BoxFuture<'_, Result<(), OpError>> {
        // What uses memory after this looks at the address space first.
        drop(self.0.state.lock());
        Box::pin(ready(Ok(())))
    }

    fn device_features(&self) -> Features {
        (virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM | virtio::F::EVENT_IDX).into()
    }

    fn driver_features(&self) -> Features {
        self.0.state.lock().features
    }

    fn set_driver_features(&self, features: Features) -> Result<(), OpError> {
        if !features.contains(virtio::F::VERSION_1) {
            return Err(OpError::FeaturesRefused);
        }
        self.0.state.lock().features = features;
        Ok(())
    }

    fn status(&self) -> Result<DeviceStatus, OpError> {
        Ok(self.0.state.lock().status)
    }

    fn set_status(&self, status: DeviceStatus) -> BoxFuture<'_, Result<(), OpError>> {
        self.0.state.lock().status = status;
        // There may be something to do already.
        self.0.kick.raise();
        Box::pin(ready(Ok(())))
    }

    fn reset(&self) -> BoxFuture<'_, Result<(), OpError>> {
        *self.0.state.lock() = State::default();
        Box::pin(ready(Ok(())))
    }

    fn stop_workers(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.0.stopped.store(true, Ordering::Release);
            self.0.kick.raise();
            self.0.ended.wait().await;
        })
    }

    fn queue_count(&self) -> u16 {
        1
    }

    fn queue_size_max(&self, _queue: u16) -> u16 {
        QUEUE_SIZE
    }

    fn queue_align(&self) -> usize {
        1
    }

    fn set_queue_size(&self, _queue: u16, size: u16) -> Result<(), OpError> {
        self.0.state.lock().size = size;
        Ok(())
    }

    unsafe fn set_queue_address(&self, _queue: u16, address: QueueAddress) -> Result<(), OpError> {
        self.0.state.lock().address = Some(address);
        Ok(())
    }

    fn set_queue_state(&self, _queue: u16, state: QueueState) -> Result<(), OpError> {
        match state {
            QueueState::Split { avail_index: 0 } => Ok(()),
            _ => Err(OpError::Unsupported),
        }
    }

    fn queue_state(&self, _queue: u16) -> BoxFuture<'_, Result<QueueState, OpError>> {
        Box::pin(ready(Err(OpError::Unsupported)))
    }

    fn set_queue_callback(&self, _queue: u16, callback: Option<Callback>) {
        self.0.state.lock().callback = callback;
    }

    fn set_queue_ready(&self, _queue: u16, ready: bool) -> BoxFuture<'_, Result<(), OpError>> {
        let state = &mut *self.0.state.lock();
        state.ring = None;
        let opened = if ready {
            let open = self.open(state);
            open.map(|ring| state.ring = Some(ring))
        } else {
            Ok(())
        };
        Box::pin(std::future::ready(opened))
    }

    fn queue_ready(&self, _queue: u16) -> Result<bool, OpError> {
        Ok(self.0.state.lock().ring.is_some())
    }

    fn doorbell(&self, _queue: u16) -> Result<Doorbell, OpError> {
        Ok(Doorbell::event(Arc::clone(&self.0.kick)))
    }

    fn set_config_callback(&self, _callback: Option<Callback>) {}

    /// An entropy device has no configuration (VIRTIO 1.2, 5.4.4).
    fn config_size(&self) -> u32 {
        0
    }

    fn read_config(&self, _offset: u32, _bytes: &mut [u8]) -> Result<(), OpError> {
        Err(OpError::OutOfRange)
    }

    fn write_config(&self, _offset: u32, _bytes: &[u8]) -> Result<(), OpError> {
        Err(OpError::OutOfRange)
    }

    fn config_generation(&self) -> u32 {
        0
    }
}

impl Ops {
    fn open(&self, state: &State) -> Result<Ring, OpError> {
        let features = ring_features(state.features);
        let address = state.address.ok_or(OpError::WrongState)?;
        let config = DeviceConfig {
            size: state.size,
            features,
            addresses: RingAddresses {
                descriptor: address.descriptor,
                driver: address.driver,
                device: address.device,
            },
            state: RingState::start(features),
            chain_max: QUEUE_SIZE,
            in_flight_max: QUEUE_SIZE,
        };
        let memory = DeviceTlb::new(Arc::clone(&self.0.space));
        DeviceQueue::new(&config, memory).map_err(|_| OpError::Invalid)
    }
}

impl IncrementalMap for Ops {
    fn map(
        &self,
        _space: u16,
        range: IovaRange,
        permission: Permission,
        backing: Backing,
    ) -> Result<(), OpError> {
        Ok(self.0.space.map(range, permission, backing)?)
    }

    fn unmap(&self, _space: u16, range: IovaRange) -> Result<(), OpError> {
        Ok(self.0.space.unmap(range)?)
    }
}
