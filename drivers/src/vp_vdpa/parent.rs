//! A virtio function that has been brought up as far as the vDPA bus needs it.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use pci_types::CommandRegister;
use spin::Mutex;
use vdpa::bus::ProbeError;
use vdpa::ops::{NotificationArea, OpError, QueueAddress};
use vdpa::platform::Callback;
use vdpa::{Features, Platform};
use virtio::DeviceStatus;

use crate::pci::{Claim, Enabled, Msix, PciDevice};
use crate::virtio_pci::{Defect, LayoutError, OpenError, VirtioFunction};

use super::interrupts::{InterruptCounts, Interrupts};

/// How long a device may take to reset itself or a queue.
const RESET_DEADLINE: Duration = Duration::from_secs(1);
const RESET_POLL: Duration = Duration::from_millis(1);
/// More queues than this are left alone: nobody has use for them, and each costs memory.
const QUEUES_MAX: u16 = 1024;

/// A virtio function with the operations of a vDPA device. [`VpVdpa`](super::VpVdpa) puts it on the
/// vDPA bus.
pub struct Parent {
    // Dropped in this order: interrupts off, bus master off, registers given back.
    pub(super) state: Mutex<State>,
    _master: Enabled,
    pub(super) virtio: VirtioFunction,
    pub(super) claim: Claim,
    pub(super) platform: Arc<dyn Platform>,
    pub(super) device_type: u32,
    pub(super) vendor: u32,
    pub(super) features: Features,
    /// The function offers `VIRTIO_F_SUSPEND`, which is negotiated on behalf of every driver.
    pub(super) can_suspend: bool,
    pub(super) queues: Vec<QueueFacts>,
    vectors: usize,
}

/// What a queue is and what was counted for it, from the probe to the end of the device.
pub(super) struct QueueFacts {
    pub(super) size_max: u16,
    pub(super) notify_off: u16,
    /// The page of its doorbell, if nothing else lies there.
    pub(super) page: Option<NotificationArea>,
    pub(super) interrupts: Arc<InterruptCounts>,
}

/// What has been set since the last reset.
#[derive(Default)]
pub(super) struct State {
    pub(super) interrupts: Option<Interrupts>,
    pub(super) driver_features: Features,
    pub(super) config_callback: Option<Callback>,
    pub(super) queues: Vec<QueueState>,
}

#[derive(Clone, Default)]
pub(super) struct QueueState {
    pub(super) callback: Option<Callback>,
    pub(super) size: Option<u16>,
    pub(super) address: Option<QueueAddress>,
    /// The queue has been ready since it was last set to the start, so it has gone on from there.
    pub(super) was_ready: bool,
}

impl Parent {
    /// Takes the function, whose virtio device type is known, and resets it.
    ///
    /// # Errors
    /// [`ProbeError`]: the function cannot be driven; its configuration space is as before.
    pub async fn probe(
        function: &Arc<PciDevice>,
        platform: &Arc<dyn Platform>,
        device_type: u32,
    ) -> Result<Self, ProbeError> {
        let address = function.address();
        let claim = function.claim().map_err(|error| {
            log::warn!("pci {address}: {error}");
            ProbeError::Unsuitable("the function cannot be claimed")
        })?;
        let virtio = VirtioFunction::open(&claim).map_err(|error| {
            log::debug!("pci {address}: {error}");
            unsuitable(error)
        })?;
        // Whatever firmware left running must stop before it may reach memory again.
        reset(&virtio, &**platform).await?;
        let can_suspend = offers_suspend(&virtio);
        let features = usable_features(&virtio);
        if !features.contains(virtio::F::VERSION_1) {
            return Err(ProbeError::Unsuitable(
                "the function does not offer VERSION_1",
            ));
        }
        let msix = claim.msix().map_err(|error| {
            log::warn!("pci {address}: {error}");
            ProbeError::Unsuitable("the function's MSI-X table cannot be used")
        })?;
        let vectors = msix.as_ref().map_or(0, Msix::size);
        let queues = queue_facts(&virtio, msix.as_ref())?;
        drop(msix);
        // Nobody listens to the pin.
        let bits = CommandRegister::BUS_MASTER_ENABLE | CommandRegister::INTERRUPT_DISABLE;
        let master = claim.enable(bits);
        let state = State {
            queues: fresh_queues(queues.len()),
            ..State::default()
        };
        Ok(Self {
            state: Mutex::new(state),
            _master: master,
            virtio,
            claim,
            platform: Arc::clone(platform),
            device_type,
            vendor: u32::from(function.identity().subvendor),
            features,
            can_suspend,
            queues,
            vectors,
        })
    }

    /// How many MSI-X vectors the function has.
    pub(super) fn vectors(&self) -> usize {
        self.vectors
    }

    /// Resets the device, and forgets what was set even if it does not come out of the reset: no
    /// callback is called afterwards.
    pub(super) async fn reset_device(&self) -> Result<(), OpError> {
        let result = reset(&self.virtio, &*self.platform).await;
        let fresh = State {
            queues: fresh_queues(self.queues.len()),
            ..State::default()
        };
        let old = core::mem::replace(&mut *self.state.lock(), fresh);
        drop(old);
        result
    }

    /// Resets one queue (VIRTIO 1.2, 2.6.1 and 4.1.5.1.3.1).
    pub(super) async fn reset_queue(&self, index: u16) -> Result<(), OpError> {
        let common = self.virtio.common();
        common.queue(index).reset();
        wait(&*self.platform, || match common.queue(index).resetting() {
            0 => Some(Ok(())),
            u16::MAX => Some(Err(OpError::Gone)),
            _ => None,
        })
        .await
    }
}

fn fresh_queues(count: usize) -> Vec<QueueState> {
    vec![QueueState::default(); count]
}

impl fmt::Debug for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parent({:?}, {} queues)", self.claim, self.queues.len())
    }
}

/// VIRTIO 1.2, 4.1.4.3.2: after writing 0 the driver waits until it reads 0.
async fn reset(virtio: &VirtioFunction, platform: &dyn Platform) -> Result<(), OpError> {
    virtio.common().set_status(DeviceStatus::empty());
    wait(platform, || match virtio.common().status() {
        None => Some(Err(OpError::Gone)),
        Some(status) if status.is_empty() => Some(Ok(())),
        Some(_) => None,
    })
    .await
}

/// Asks until there is an answer or the deadline has passed; the first time at once.
pub(super) async fn wait(
    platform: &dyn Platform,
    answer: impl Fn() -> Option<Result<(), OpError>>,
) -> Result<(), OpError> {
    let deadline = platform.now().saturating_add(RESET_DEADLINE);
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        if platform.now() >= deadline {
            return Err(OpError::Timeout);
        }
        platform.sleep(RESET_POLL).await;
    }
}

/// What the function offers, less what changes how queues are notified beyond what a doorbell can say, or
/// needs more than one function.
fn usable_features(virtio: &VirtioFunction) -> Features {
    let not_for_us = virtio::F::NOTIF_CONFIG_DATA | virtio::F::ADMIN_VQ | virtio::F::SR_IOV;
    let mut features = Features::from_bits(virtio.common().device_features());
    features = features.difference(Features::from(not_for_us | virtio::F::SUSPEND));
    if offers_suspend(virtio) {
        // Whoever resumes the device kicks its queues, without knowing where their drivers stand.
        features = features.difference(Features::from(virtio::F::NOTIFICATION_DATA));
    }
    if !virtio.common().has_queue_reset() {
        features = features.difference(Features::from(virtio::F::RING_RESET));
    }
    features
}

fn offers_suspend(virtio: &VirtioFunction) -> bool {
    Features::from_bits(virtio.common().device_features()).contains(virtio::F::SUSPEND)
}

/// Reads what every queue is. The queues end with the first that does not exist.
fn queue_facts(
    virtio: &VirtioFunction,
    msix: Option<&Msix>,
) -> Result<Vec<QueueFacts>, ProbeError> {
    let count = virtio.common().num_queues();
    if count == u16::MAX {
        return Err(ProbeError::Device(OpError::Gone));
    }
    let mut queues = Vec::new();
    for index in 0..count.min(QUEUES_MAX) {
        let queue = virtio.common().queue(index);
        let (size_max, notify_off) = (queue.size(), queue.notify_off());
        drop(queue);
        if size_max == 0 {
            break;
        }
        queues.push(QueueFacts {
            size_max,
            notify_off,
            page: None,
            interrupts: Arc::default(),
        });
    }
    let pages = free_pages(virtio, &queues, msix);
    for (queue, page) in queues.iter_mut().zip(pages) {
        queue.page = page;
    }
    if queues.is_empty() {
        return Err(ProbeError::Unsuitable("the function has no queue"));
    }
    Ok(queues)
}

/// The doorbell pages of the queues that have one for themselves.
fn free_pages(
    virtio: &VirtioFunction,
    queues: &[QueueFacts],
    msix: Option<&Msix>,
) -> Vec<Option<NotificationArea>> {
    let page = |(index, queue): (usize, &QueueFacts)| {
        let others = queues.iter().enumerate();
        let others = others.filter(|(other, _)| *other != index);
        let offsets = others.map(|(_, other)| other.notify_off);
        virtio.notification_page(queue.notify_off, offsets, msix)
    };
    queues.iter().enumerate().map(page).collect()
}

fn unsuitable(error: OpenError) -> ProbeError {
    ProbeError::Unsuitable(match error {
        OpenError::Map(_) => "the function's registers cannot be mapped",
        OpenError::Layout(LayoutError::List(_)) => "the capability list is malformed",
        OpenError::Layout(LayoutError::Missing(_)) => {
            "no modern virtio capabilities; a legacy-only function is not supported"
        }
        OpenError::Layout(LayoutError::Unusable(_, defect)) => match defect {
            Defect::ShortCapability => "a virtio capability is too short",
            Defect::NoBar => "a virtio structure is in a BAR that does not exist",
            Defect::IoBar => "a virtio structure is in a BAR of I/O ports",
            Defect::ShortStructure => "a virtio structure is too short",
            Defect::Misaligned => "a virtio structure is misaligned",
            Defect::OutsideBar => "a virtio structure ends outside its BAR",
        },
    })
}
