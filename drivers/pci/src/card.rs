//! The card in a slot: how it comes to the bus, and how it leaves.
//!
//! When that happens is the business of [`hotplug`](super::hotplug).
//!
//! Source: PCI Express Base 6.0, 6.6.1 (waiting for a card after power on) and 6.7.1.8 (power).

use alloc::sync::{Arc, Weak};
use core::time::Duration;

use pci_types::PciAddress;
use vdpa::bus::BusDevice;
use vdpa::{Node, Platform};

use super::access::ConfigSpace;
use super::bridge::BusNumbers;
use super::device::{PciBus, PciDevice};
use super::slot::{Command, Slot, Status};

/// Between one look at a card that is to come up and the next.
const POLL: Duration = Duration::from_millis(10);
/// How long a link may take to come up, and a card to answer (6.6.1).
const CARD_LIMIT: Duration = Duration::from_secs(1);
/// How long a card must not be spoken to after its link has come up (6.6.1).
const CARD_REST: Duration = Duration::from_millis(100);
/// How long it may take until a slot without power is really without (6.7.1.8).
const POWER_REST: Duration = Duration::from_secs(1);
/// The vendor id of a card that is not ready to say who it is (2.3.2).
const NOT_READY: u16 = 0x0001;

/// What can only have happened to a card that is not there any more.
pub(super) const LOST: Status = Status::PRESENCE_CHANGED
    .union(Status::LINK_CHANGED)
    .union(Status::POWER_FAULT);
/// What asks to look into a slot that is not in use.
pub(super) const ASKED: Status = Status::PRESENCE_CHANGED.union(Status::BUTTON);

/// How a card leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removal {
    /// It is asked to, and still there.
    Orderly,
    /// It is not there any more.
    Surprise,
}

/// Why a card is not used.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum CardError {
    #[error("the link stays down")]
    NoLink,
    #[error("the card does not answer")]
    Silent,
    #[error("power fault")]
    PowerFault,
}

/// What is in the slot.
pub(super) struct Card<'a> {
    port: &'a Arc<PciDevice>,
    bus: &'a Weak<PciBus>,
    slot: &'a Slot,
    /// Its functions are on the bus.
    used: bool,
    /// When the slot has lost its power.
    off_at: Option<Duration>,
}

impl<'a> Card<'a> {
    pub(super) fn new(port: &'a Arc<PciDevice>, bus: &'a Weak<PciBus>, slot: &'a Slot) -> Self {
        Self {
            port,
            bus,
            slot,
            used: slot.is_powered() && slot.is_occupied(),
            off_at: None,
        }
    }

    /// Whether its functions are on the bus.
    pub(super) fn is_used(&self) -> bool {
        self.used
    }

    /// Does what the slot's events ask for.
    pub(super) async fn follow(&mut self, events: Status) {
        let Some(bus) = self.bus.upgrade() else {
            return;
        };
        let mut look = events.intersects(ASKED);
        if self.used {
            let lost = events.intersects(LOST);
            look = lost && !events.contains(Status::POWER_FAULT);
            let removal = if lost {
                Removal::Surprise
            } else {
                Removal::Orderly
            };
            self.remove(&bus, removal).await;
        }
        if look && self.slot.is_occupied() {
            self.add(&bus).await;
        }
    }

    /// Takes the card's functions off the bus and the power from the slot.
    async fn remove(&mut self, bus: &PciBus, removal: Removal) {
        let (device, slot, platform) = (self.port, self.slot, self.platform());
        if removal == Removal::Orderly {
            self.indicate(Command::POWERED_BLINK).await;
        }
        take_off(bus, device, removal).await;
        let off = Command::POWERED_OFF | Command::POWER_OFF;
        slot.command(platform, off, off).await;
        self.off_at = slot.has_power_controller().then(|| platform.now());
        self.used = false;
        log::info!("pci {}: card removed ({removal:?})", device.address());
    }

    /// Gives the card power and puts its functions on the bus.
    async fn add(&mut self, bus: &Arc<PciBus>) {
        let (device, slot, platform) = (self.port, self.slot, self.platform());
        if let Some(off_at) = self.off_at.take() {
            let rest = (off_at + POWER_REST).saturating_sub(platform.now());
            platform.sleep(rest).await;
        }
        let power = Command::POWERED_OFF | Command::POWER_OFF;
        slot.command(platform, power, Command::POWERED_BLINK).await;
        match self.wait_for_card().await {
            Ok(()) => {
                self.used = true;
                self.indicate(Command::POWERED_ON | Command::ATTENTION_OFF)
                    .await;
                let count = device.segment().enumerate_behind(bus, device).await;
                log::info!("pci {}: card added, {count} functions", device.address());
            }
            Err(error) => {
                log::warn!("pci {}: {error}", device.address());
                let off = Command::POWERED_OFF | Command::ATTENTION_ON | Command::POWER_OFF;
                let fields = Command::POWERED_OFF | Command::ATTENTION_OFF | Command::POWER_OFF;
                slot.command(platform, fields, off).await;
                self.off_at = Some(platform.now());
            }
        }
    }

    /// Waits until the card that has been given power can be spoken to.
    async fn wait_for_card(&self) -> Result<(), CardError> {
        let (device, slot, platform) = (self.port, self.slot, self.platform());
        if !until(platform, || slot.link() != Some(false)).await {
            return Err(CardError::NoLink);
        }
        platform.sleep(CARD_REST).await;
        // So far they told of this card's coming.
        slot.clear(LOST - Status::POWER_FAULT);
        if slot
            .status()
            .is_some_and(|status| status.contains(Status::POWER_FAULT))
        {
            return Err(CardError::PowerFault);
        }
        let bus = BusNumbers::read(device.config()).secondary;
        let first = PciAddress::new(device.address().segment(), bus, 0, 0);
        let first = ConfigSpace::new(Arc::clone(device.segment().access()), first);
        let answers = || first.is_present() && first.read16(0) != NOT_READY;
        if bus != 0 && until(platform, answers).await {
            Ok(())
        } else {
            Err(CardError::Silent)
        }
    }

    /// Sets the indicators.
    async fn indicate(&self, to: Command) {
        let attention = if to.intersects(Command::ATTENTION_OFF) {
            Command::ATTENTION_OFF
        } else {
            Command::empty()
        };
        let fields = Command::POWERED_OFF | attention;
        self.slot.command(self.platform(), fields, to).await;
    }

    fn platform(&self) -> &'a dyn Platform {
        &**self.port.segment().platform()
    }
}

/// Takes everything behind `port` off the bus, what came last first.
async fn take_off(bus: &PciBus, port: &PciDevice, removal: Removal) {
    let behind = || {
        let mut devices = bus.devices();
        devices.retain(|device| is_below(device.node(), port.node()));
        devices
    };
    if removal == Removal::Surprise {
        for device in behind() {
            device.config().lose();
        }
    }
    while let Some(device) = behind().pop() {
        device.leave(bus).await;
    }
}

fn is_below(node: &Arc<Node>, port: &Arc<Node>) -> bool {
    let above = core::iter::successors(node.parent(), |node| node.parent());
    above.into_iter().any(|node| Arc::ptr_eq(&node, port))
}

/// Whether `ready` within the limit for cards.
async fn until(platform: &dyn Platform, ready: impl Fn() -> bool) -> bool {
    let end = platform.now() + CARD_LIMIT;
    loop {
        if ready() {
            return true;
        }
        if platform.now() >= end {
            return false;
        }
        platform.sleep(POLL).await;
    }
}
