//! A virtio function that has been brought up as far as the vDPA bus needs it.

use alloc::boxed::Box;
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

use super::function::Window;
use super::interrupts::{InterruptCounts, Interrupts};
use super::queues::{Phase, Position};
use super::states::StateRegisters;
use super::{Defect, LayoutError, OpenError, VirtioFunction};

/// How long a device may take to reset itself, to stop a queue or to be suspended.
pub(super) const DEADLINE: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// More queues than this are left alone: nobody has use for them, and each costs memory.
const QUEUES_MAX: u16 = 1024;

/// What a driver demands of the functions that it drives.
pub(crate) struct Demands {
    /// What they are.
    pub(crate) device_type: u32,
    /// What they must offer, and what whoever drives them must accept.
    pub(crate) features: Features,
    /// Where their virtio structures may lie.
    pub(crate) bars: &'static [u8],
    /// Finds what they may have beside the registers of virtio.
    pub(crate) states: fn(&Parent, row: u64) -> Option<Box<dyn StateRegisters>>,
    /// What it is told: [`driver_data`](crate::pci::PciId::driver_data).
    pub(crate) row: u64,
}

/// A virtio function with the operations of a vDPA device.
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
    /// Without these no driver is let through.
    pub(super) demanded: Features,
    /// The function offers `VIRTIO_F_SUSPEND`, which is negotiated on behalf of every driver.
    pub(super) can_suspend: bool,
    /// What it has beside the registers of virtio.
    pub(super) states: Option<Box<dyn StateRegisters>>,
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
    /// A queue did not stop in time. Until then no other is waited for, so whoever stops all of them is soon done.
    pub(super) gave_up_until: Duration,
}

#[derive(Clone, Default)]
pub(super) struct QueueState {
    pub(super) callback: Option<Callback>,
    pub(super) size: Option<u16>,
    pub(super) address: Option<QueueAddress>,
    pub(super) phase: Phase,
    /// Where it goes on when it is started.
    pub(super) position: Position,
}

impl Parent {
    /// Takes the function and resets it.
    ///
    /// # Errors
    /// [`ProbeError`]: the function cannot be driven; its configuration space is as before.
    pub(crate) async fn probe(
        function: &Arc<PciDevice>,
        platform: &Arc<dyn Platform>,
        demands: Demands,
    ) -> Result<Self, ProbeError> {
        let address = function.address();
        let claim = function.claim().map_err(|error| {
            log::warn!("pci {address}: {error}");
            ProbeError::Unsuitable("the function cannot be claimed")
        })?;
        let virtio = VirtioFunction::open(&claim, demands.bars).map_err(|error| {
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
        if !features.contains(demands.features) {
            return Err(ProbeError::Unsuitable(
                "the function does not offer ACCESS_PLATFORM",
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
        let mut parent = Self {
            state: Mutex::new(state),
            _master: master,
            virtio,
            claim,
            platform: Arc::clone(platform),
            device_type: demands.device_type,
            vendor: u32::from(function.identity().subvendor),
            features,
            demanded: demands.features,
            can_suspend,
            states: None,
            queues,
            vectors,
        };
        if let Some(states) = (demands.states)(&parent, demands.row) {
            parent.stop_with(states);
        }
        Ok(parent)
    }

    /// From now on queues are stopped and set with these registers.
    fn stop_with(&mut self, states: Box<dyn StateRegisters>) {
        let replaced =
            virtio::F::RING_RESET | virtio::F::RING_PACKED | virtio::F::NOTIFICATION_DATA;
        self.features = self.features.difference(replaced.into());
        self.can_suspend = false;
        // Nobody has asked for what may have been left running.
        let _ = states.stop_log();
        self.states = Some(states);
    }

    /// The first `len` bytes of a BAR; `None`, if they are not there or something else is known to lie
    /// in them.
    pub(crate) fn registers_of_its_own(&self, bar: u8, len: u64) -> Option<Window> {
        let bytes = 0..len;
        let msix = self.claim.msix().ok()?;
        let taken = self.virtio.layout.touches(bar, &bytes)
            || msix.is_some_and(|msix| msix.touches(bar, &bytes));
        let inside = len <= self.claim.memory_bar(bar).ok()?.size;
        (inside && !taken)
            .then(|| Window::of_bar(&self.claim, bar, bytes).ok())
            .flatten()
    }

    /// How many MSI-X vectors the function has.
    pub(super) fn vectors(&self) -> usize {
        self.vectors
    }

    /// Resets the device, and forgets what was set even if it does not come out of the reset: no
    /// callback is called afterwards.
    pub(super) async fn reset_device(&self) -> Result<(), OpError> {
        if let Some(states) = &self.states {
            // A reset of the virtio registers need not end the log.
            let _ = states.stop_log();
        }
        let result = reset(&self.virtio, &*self.platform).await;
        let fresh = State {
            queues: fresh_queues(self.queues.len()),
            ..State::default()
        };
        let old = core::mem::replace(&mut *self.state.lock(), fresh);
        drop(old);
        result
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
    wait(platform, &|| match virtio.common().status() {
        None => Some(Err(OpError::Gone)),
        Some(status) if status.is_empty() => Some(Ok(())),
        Some(_) => None,
    })
    .await
}

/// What a device says so far to what it has been asked for; nothing, as long as it is at it.
pub(super) type Answer<'a> = dyn Fn() -> Option<Result<(), OpError>> + Send + Sync + 'a;

/// Asks until there is an answer or the deadline has passed; the first time at once.
pub(super) async fn wait(platform: &dyn Platform, answer: &Answer<'_>) -> Result<(), OpError> {
    let deadline = platform.now().saturating_add(DEADLINE);
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        if platform.now() >= deadline {
            return Err(OpError::Timeout);
        }
        platform.sleep(POLL_INTERVAL).await;
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
            Defect::ForeignBar => "a virtio structure is in a BAR where the card has none",
            Defect::IoBar => "a virtio structure is in a BAR of I/O ports",
            Defect::ShortStructure => "a virtio structure is too short",
            Defect::Misaligned => "a virtio structure is misaligned",
            Defect::OutsideBar => "a virtio structure ends outside its BAR",
        },
    })
}
