//! A device that has been brought up as far as the vDPA bus needs it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::AtomicU64;
use core::time::Duration;

use spin::Mutex;
use vdpa::ops::{OpError, QueueAddress};
use vdpa::platform::{BoxFuture, Callback, InterruptLine};
use vdpa::{Features, Platform};
use virtio::DeviceStatus;

use super::description::Description;
use super::interrupts::Interrupts;
use super::registers::{MAGIC, Registers};

/// How long a device may take to reset itself or a queue.
const DEADLINE: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// More queues than this are left alone: nobody has use for them, and each costs memory.
const QUEUES_MAX: u16 = 1024;
/// The largest queue that there can be (VIRTIO 1.2, 2.7).
const SIZE_MAX: u32 = 1 << 15;

/// Why there is no device that could be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The registers cannot be mapped, or are too few.
    #[error("the registers cannot be mapped")]
    Registers,
    /// What is there is something else.
    #[error("no virtio device is there")]
    Magic,
    /// The place is one where a device could be, but none is.
    #[error("the place is empty")]
    Empty,
    /// The interface is the one from before VIRTIO 1.0.
    #[error(
        "only the interface from before VIRTIO 1.0 is offered (version 1), which is not supported"
    )]
    Legacy,
    /// The interface is one that nobody knows.
    #[error("version {0} is not known")]
    Version(u32),
    /// The device does not offer `VERSION_1`.
    #[error("the device does not offer VERSION_1")]
    NoVersion1,
    /// The device has no queue.
    #[error("the device has no queue")]
    NoQueue,
    /// An operation failed.
    #[error(transparent)]
    Device(#[from] OpError),
}

/// A virtio device with the operations of a vDPA device.
pub struct Parent {
    pub(crate) state: Mutex<State>,
    pub(crate) registers: Arc<Registers>,
    pub(crate) platform: Arc<dyn Platform>,
    line: InterruptLine,
    pub(crate) device_type: u32,
    pub(crate) vendor: u32,
    pub(crate) features: Features,
    pub(crate) queues: Vec<QueueFacts>,
}

/// What a queue is and what was counted for it, from the probe to the end of the device.
pub(crate) struct QueueFacts {
    pub(crate) size_max: u16,
    pub(crate) interrupts: Arc<AtomicU64>,
}

/// What has been set since the last reset.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) interrupts: Option<Interrupts>,
    pub(crate) driver_features: Features,
    pub(crate) config_callback: Option<Callback>,
    pub(crate) queues: Vec<QueueState>,
    /// Whether the device may have used memory since it was last known to be at rest.
    has_run: bool,
    /// Bits of the status that the device did not take back when it was asked to reset itself,
    /// before it ever ran.
    stuck: DeviceStatus,
}

#[derive(Clone, Default)]
pub(crate) struct QueueState {
    pub(crate) callback: Option<Callback>,
    pub(crate) size: Option<u16>,
    pub(crate) address: Option<QueueAddress>,
    /// Whether it has been made ready since the last reset.
    pub(crate) has_run: bool,
}

impl Parent {
    /// Looks at what is there, and leaves it reset.
    ///
    /// # Errors
    /// [`ProbeError`], if it cannot be driven.
    ///
    /// # Safety
    /// What lies at the place, if it says that it is a virtio device, is one, and nobody else uses
    /// it.
    pub async unsafe fn probe(
        description: &Description,
        platform: &Arc<dyn Platform>,
    ) -> Result<Self, ProbeError> {
        // SAFETY: the caller vouches for the range.
        let mmio = unsafe { platform.map_mmio(description.base, description.size) };
        let mmio = mmio.map_err(|_| ProbeError::Registers)?;
        // SAFETY: the registers are written as the operations of the vDPA device say.
        let registers = unsafe { Registers::new(mmio) };
        let registers = registers.ok_or(ProbeError::Registers)?;
        // 4.2.3.1.1: magic, version and id, in this order, before anything else.
        if registers.magic() != MAGIC {
            return Err(ProbeError::Magic);
        }
        let version = registers.version();
        let device_type = registers.device_id();
        match (version, device_type) {
            (_, 0) => return Err(ProbeError::Empty),
            (2, _) => {}
            (1, _) => return Err(ProbeError::Legacy),
            _ => return Err(ProbeError::Version(version)),
        }
        let before = registers.status()?;
        let mut parent = Self {
            state: Mutex::new(State {
                // Firmware may have used it.
                has_run: before.contains(DeviceStatus::DRIVER_OK),
                ..State::default()
            }),
            vendor: registers.vendor_id(),
            registers: Arc::new(registers),
            platform: Arc::clone(platform),
            line: description.line,
            device_type,
            features: Features::EMPTY,
            queues: Vec::new(),
        };
        parent.reset_device().await?;
        let (acknowledge, driver) = (DeviceStatus::ACKNOWLEDGE, DeviceStatus::DRIVER);
        parent.write_status(acknowledge)?;
        parent.write_status(acknowledge | driver)?;
        parent.features = usable(parent.registers.device_features());
        parent.queues = queues(&parent.registers);
        parent.reset_device().await?;
        if !parent.features.contains(virtio::F::VERSION_1) {
            return Err(ProbeError::NoVersion1);
        }
        if parent.queues.is_empty() {
            return Err(ProbeError::NoQueue);
        }
        Ok(parent)
    }

    /// Resets the device, and forgets what was set even if it does not come out of the reset: no
    /// callback is called afterwards.
    ///
    /// Some devices cannot be reset (Firecracker's, before it learned to). One that has not run
    /// since it was made uses no memory, so its first owner may have it all the same.
    pub(crate) fn reset_device(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            let (has_run, known) = {
                let state = self.state.lock();
                (state.has_run, !state.stuck.is_empty())
            };
            let result = if known && !has_run {
                Err(OpError::Timeout)
            } else {
                self.registers.set_status(DeviceStatus::empty());
                self.wait(&|| match self.registers.status() {
                    Err(error) => Some(Err(error)),
                    Ok(status) => status.is_empty().then_some(Ok(())),
                })
                .await
            };
            let mut fresh = State {
                queues: vec![QueueState::default(); self.queues.len()],
                ..State::default()
            };
            let result = match result {
                Err(OpError::Timeout) if !has_run => {
                    fresh.stuck = self.registers.status()?;
                    if !known {
                        log::warn!(
                            "virtio_mmio: the device does not reset itself; it can be used once"
                        );
                    }
                    Ok(())
                }
                other => {
                    fresh.has_run = has_run && other.is_err();
                    other
                }
            };
            let old = core::mem::replace(&mut *self.state.lock(), fresh);
            drop(old);
            result
        })
    }

    /// What the device has taken since its last reset.
    pub(crate) fn read_status(&self) -> Result<DeviceStatus, OpError> {
        let status = self.registers.status()?;
        Ok(status.difference(self.state.lock().stuck))
    }

    /// Writes a status that adds one bit. One that stuck is there already.
    pub(crate) fn write_status(&self, status: DeviceStatus) -> Result<(), OpError> {
        let before = self.registers.status()?;
        let stuck = {
            let mut state = self.state.lock();
            state.has_run |= status.contains(DeviceStatus::DRIVER_OK);
            state.stuck.remove(status);
            state.stuck
        };
        if !before.contains(status) {
            self.registers.set_status(status | stuck);
        }
        Ok(())
    }

    /// Asks until there is an answer or the deadline has passed; the first time at once.
    pub(crate) async fn wait(
        &self,
        answer: &(dyn Fn() -> Option<Result<(), OpError>> + Send + Sync),
    ) -> Result<(), OpError> {
        let deadline = self.platform.now().saturating_add(DEADLINE);
        loop {
            if let Some(answer) = answer() {
                return answer;
            }
            if self.platform.now() >= deadline {
                return Err(OpError::Timeout);
            }
            self.platform.sleep(POLL_INTERVAL).await;
        }
    }

    pub(crate) fn line(&self) -> InterruptLine {
        self.line
    }
}

/// What the device offers, less what its registers say nothing of.
fn usable(offered: Features) -> Features {
    let not_for_us =
        virtio::F::NOTIF_CONFIG_DATA | virtio::F::ADMIN_VQ | virtio::F::SR_IOV | virtio::F::SUSPEND;
    offered.difference(Features::from(not_for_us))
}

/// What every queue is. The queues end with the first that does not exist, or says something
/// impossible.
fn queues(registers: &Registers) -> Vec<QueueFacts> {
    let size = |index| match registers.queue(index).size_max() {
        0 | u32::MAX => None,
        size => u16::try_from(size.min(SIZE_MAX)).ok(),
    };
    let facts = |size_max| QueueFacts {
        size_max,
        interrupts: Arc::default(),
    };
    (0..QUEUES_MAX).map_while(size).map(facts).collect()
}

impl fmt::Debug for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parent({} queues)", self.queues.len())
    }
}

/// A future of an operation.
pub(crate) type Operation<'a> = BoxFuture<'a, Result<(), OpError>>;

impl Parent {
    /// Resets one queue (VIRTIO 1.2, 2.6.1 and 4.2.3.2), which is no way to end its use without
    /// `RING_RESET`.
    pub(crate) fn reset_queue(&self, index: u16) -> Operation<'_> {
        Box::pin(async move {
            let features = self.state.lock().driver_features;
            if !features.contains(virtio::F::RING_RESET) {
                return Err(OpError::Unsupported);
            }
            self.registers.queue(index).reset();
            self.wait(&|| match self.registers.queue(index).resetting() {
                0 => Some(Ok(())),
                u32::MAX => Some(Err(OpError::Gone)),
                _ => None,
            })
            .await?;
            // QEMU's devices offer the feature without having the register, and go on.
            match self.registers.queue(index).ready() {
                0 => Ok(()),
                _ => Err(OpError::Unsupported),
            }
        })
    }
}
