//! A device that does everything as another one does, except for one lie.

use std::sync::Arc;
use std::sync::Mutex;

use vdpa::conformance::{Service, Subject};
use vdpa::ops::{
    Abilities, DirtyLog, DmaModel, NotificationArea, OpError, QueueAddress, QueueState, VdpaOps,
    VendorCounter,
};
use vdpa::platform::{BoxFuture, Callback};
use vdpa::testing::Traits;
use vdpa::{Features, Platform};
use virtio::DeviceStatus;
use virtq::Doorbell;
use virtq::testing::HeapDma;

use crate::fake::Fake;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It is a device of another type.
    Type,
    /// It offers another set of features each time.
    Features,
    /// It forgets what it has accepted.
    Accepted,
    /// It shows a bit that nobody has set.
    Status,
    /// It keeps its status over a reset.
    StatusAfterReset,
    /// It says that its queues are not ready.
    NotReady,
    /// It says that its queues are ready.
    Ready,
    /// The generation changes with each look.
    Generation,
    /// A part of the configuration is not the one of the whole.
    Config,
    /// It starts one entry further than it was told.
    State,
    /// It ignores a state that is set while the queue is in use, which only a suspended device
    /// allows.
    StateInUse,
    /// It goes on while it says that it is suspended.
    Suspend,
    /// It does not look at what was kicked while it was suspended.
    Resume,
    /// It claims to have counters and counts nothing.
    Statistics,
    /// It calls nobody.
    Silent,
    /// Its doorbell leads nowhere.
    Doorbell,
    /// Two of its doorbells share a page.
    Page,
    /// It knows no largest size.
    Size,
    /// It logs nothing.
    LogNothing,
    /// It logs other pages than it writes.
    LogElsewhere,
    /// It logs a page that it does not write.
    LogMore,
    /// It goes on with the log after its end.
    LogOn,
    /// It goes on with the log after a reset.
    LogOver,
    /// It logs beyond the end of the log.
    LogBeyond,
}

/// The subject: a network device that lies.
pub struct Liar {
    pub fake: Fake,
    lie: Lie,
}

impl Liar {
    pub fn new(lie: Lie) -> Self {
        Self {
            fake: Fake::new(Service::NetLoopback, Traits::default()),
            lie,
        }
    }
}

impl Subject for Liar {
    fn name(&self) -> &'static str {
        "liar"
    }

    fn device_type(&self) -> u32 {
        self.fake.device_type()
    }

    fn abilities(&self) -> Abilities {
        self.fake.abilities()
    }

    fn platform(&self) -> Arc<dyn Platform> {
        self.fake.platform()
    }

    fn make(&self) -> BoxFuture<'_, Result<Box<dyn VdpaOps>, OpError>> {
        Box::pin(async {
            Ok(Box::new(Ops {
                inner: self.fake.create(),
                lie: self.lie,
                log: Mutex::default(),
                heap: Arc::clone(self.fake.platform.heap()),
                looks: Mutex::default(),
            }) as _)
        })
    }

    fn service(&self) -> Service {
        self.fake.service()
    }

    fn change_config(&self) -> bool {
        self.fake.change_config()
    }
}

struct Ops {
    inner: Box<dyn VdpaOps>,
    lie: Lie,
    log: Mutex<Option<DirtyLog>>,
    heap: Arc<HeapDma>,
    looks: Mutex<u32>,
}

impl Ops {
    /// One more each time.
    fn look(&self) -> u32 {
        let mut looks = self.looks.lock().unwrap();
        *looks += 1;
        *looks
    }
}

// SAFETY: it lies about what it does, and touches what the device within does.
unsafe impl VdpaOps for Ops {
    fn device_id(&self) -> u32 {
        let truth = self.inner.device_id();
        if self.lie == Lie::Type { 19 } else { truth }
    }

    fn vendor_id(&self) -> u32 {
        self.inner.vendor_id()
    }

    fn dma_model(&self) -> DmaModel<'_> {
        self.inner.dma_model()
    }

    fn abilities(&self) -> Abilities {
        self.inner.abilities()
    }

    fn suspend(&self) -> BoxFuture<'_, Result<(), OpError>> {
        if self.lie == Lie::Suspend {
            return Box::pin(async { Ok(()) });
        }
        self.inner.suspend()
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), OpError>> {
        if matches!(self.lie, Lie::Suspend | Lie::Resume) {
            return Box::pin(async { Ok(()) });
        }
        self.inner.resume()
    }

    unsafe fn start_dirty_log(&self, log: DirtyLog) -> Result<(), OpError> {
        let DirtyLog { base, len } = log;
        *self.log.lock().unwrap() = Some(log);
        let log = match self.lie {
            Lie::LogNothing => return Ok(()),
            Lie::LogElsewhere => DirtyLog {
                base: base.offset(1),
                len,
            },
            Lie::LogBeyond => DirtyLog {
                base,
                len: len + 4096,
            },
            Lie::LogMore => {
                let last = base.offset(usize::try_from(len - 1).unwrap());
                self.heap.write(last, &[0x80]).unwrap();
                log
            }
            _ => log,
        };
        // SAFETY: the caller vouches for the bitmap; the lie stays in the heap's memory.
        unsafe { self.inner.start_dirty_log(log) }
    }

    fn stop_dirty_log(&self) -> Result<(), OpError> {
        if self.lie == Lie::LogOn {
            return Ok(());
        }
        self.inner.stop_dirty_log()
    }

    fn device_features(&self) -> Features {
        let mut features = self.inner.device_features();
        if self.lie == Lie::Features && self.look().is_multiple_of(2) {
            features = features | virtio::net::F::MTU.into();
        }
        features
    }

    fn driver_features(&self) -> Features {
        if self.lie == Lie::Accepted {
            return Features::EMPTY;
        }
        self.inner.driver_features()
    }

    fn set_driver_features(&self, features: Features) -> Result<(), OpError> {
        self.inner.set_driver_features(features)
    }

    fn status(&self) -> Result<DeviceStatus, OpError> {
        let status = self.inner.status()?;
        Ok(match self.lie {
            Lie::Status if !status.is_empty() => status | DeviceStatus::FAILED,
            Lie::StatusAfterReset if status.is_empty() => DeviceStatus::ACKNOWLEDGE,
            _ => status,
        })
    }

    fn set_status(&self, status: DeviceStatus) -> BoxFuture<'_, Result<(), OpError>> {
        self.inner.set_status(status)
    }

    fn reset(&self) -> BoxFuture<'_, Result<(), OpError>> {
        let log = *self.log.lock().unwrap();
        Box::pin(async move {
            self.inner.reset().await?;
            match log.filter(|_| self.lie == Lie::LogOver) {
                // SAFETY: the bitmap is memory of its own.
                Some(log) => unsafe { self.inner.start_dirty_log(log) },
                None => Ok(()),
            }
        })
    }

    fn stop_workers(&self) -> BoxFuture<'_, ()> {
        self.inner.stop_workers()
    }

    fn queue_count(&self) -> u16 {
        self.inner.queue_count()
    }

    fn queue_size_max(&self, queue: u16) -> u16 {
        let truth = self.inner.queue_size_max(queue);
        if self.lie == Lie::Size {
            u16::MAX
        } else {
            truth
        }
    }

    fn queue_size_min(&self) -> u16 {
        self.inner.queue_size_min()
    }

    fn queue_align(&self) -> usize {
        self.inner.queue_align()
    }

    fn set_queue_size(&self, queue: u16, size: u16) -> Result<(), OpError> {
        self.inner.set_queue_size(queue, size)
    }

    unsafe fn set_queue_address(&self, queue: u16, address: QueueAddress) -> Result<(), OpError> {
        // SAFETY: the caller vouches for the rings.
        unsafe { self.inner.set_queue_address(queue, address) }
    }

    fn set_queue_state(&self, queue: u16, state: QueueState) -> Result<(), OpError> {
        if self.lie == Lie::StateInUse && self.inner.queue_ready(queue)? {
            return Ok(());
        }
        let state = match state {
            QueueState::Split { avail_index } if self.lie == Lie::State && avail_index > 0 => {
                QueueState::Split {
                    avail_index: avail_index.wrapping_add(1),
                }
            }
            truth => truth,
        };
        self.inner.set_queue_state(queue, state)
    }

    fn queue_state(&self, queue: u16) -> BoxFuture<'_, Result<QueueState, OpError>> {
        self.inner.queue_state(queue)
    }

    fn set_queue_callback(&self, queue: u16, callback: Option<Callback>) {
        let callback = callback.filter(|_| self.lie != Lie::Silent);
        self.inner.set_queue_callback(queue, callback);
    }

    fn set_queue_ready(&self, queue: u16, ready: bool) -> BoxFuture<'_, Result<(), OpError>> {
        self.inner.set_queue_ready(queue, ready)
    }

    fn queue_ready(&self, queue: u16) -> Result<bool, OpError> {
        match self.lie {
            Lie::Ready => Ok(true),
            Lie::NotReady => Ok(false),
            _ => self.inner.queue_ready(queue),
        }
    }

    fn doorbell(&self, queue: u16) -> Result<Doorbell, OpError> {
        if self.lie == Lie::Doorbell && queue == 1 {
            return Err(OpError::Broken);
        }
        self.inner.doorbell(queue)
    }

    fn notification_area(&self, _queue: u16) -> Option<NotificationArea> {
        (self.lie == Lie::Page).then_some(NotificationArea {
            base: vdpa::platform::PhysAddr(0x1000),
            len: 4096,
        })
    }

    fn queue_statistics(&self, queue: u16) -> Result<Vec<VendorCounter>, OpError> {
        if self.lie == Lie::Statistics {
            return Ok(vec![("completed", 0)]);
        }
        self.inner.queue_statistics(queue)
    }

    fn set_config_callback(&self, callback: Option<Callback>) {
        let callback = callback.filter(|_| self.lie != Lie::Silent);
        self.inner.set_config_callback(callback);
    }

    fn config_size(&self) -> u32 {
        self.inner.config_size()
    }

    fn read_config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), OpError> {
        self.inner.read_config(offset, bytes)?;
        if self.lie == Lie::Config && bytes.len() > 1 {
            bytes[1] ^= 1;
        }
        Ok(())
    }

    fn write_config(&self, offset: u32, bytes: &[u8]) -> Result<(), OpError> {
        self.inner.write_config(offset, bytes)
    }

    fn config_generation(&self) -> u32 {
        let truth = self.inner.config_generation();
        if self.lie == Lie::Generation {
            self.look()
        } else {
            truth
        }
    }
}
