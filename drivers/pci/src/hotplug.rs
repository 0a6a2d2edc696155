//! Cards that come and go: the driver of PCI Express ports and of other bridges.
//!
//! A card whose removal is asked for, by the attention button, is taken off the bus first and then loses its power.
//! One that has been pulled out, or has lost its link, is not touched any more: whoever used it gets errors. A card that
//! is new gets power, and once its link is up it is enumerated; its functions are new devices, whatever was in
//! the slot before. A bridge without a slot of this kind needs nothing.
//!
//! The button acts at once: the five seconds in which a second push takes it back (6.7.1.5) are for somebody who stands
//! before the machine, and a hypervisor that pushes it means it.
//!
//! Source: PCI Express Base 6.0, 6.7 (hot-plug) and 6.6.1 (waiting for a card after power on).

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use pci_types::{CommandRegister, PciAddress};
use vdpa::bus::{Bound, BusDevice, Driver, ProbeError};
use vdpa::device::Removal;
use vdpa::platform::{BoxFuture, Callback};
use vdpa::{Node, Platform};
use virtq::Event;

use super::access::ConfigSpace;
use super::bridge::BusNumbers;
use super::claim::Claim;
use super::device::{PciBus, PciDevice};
use super::id::PciId;
use super::msix::{Msix, Vector};
use super::slot::{Command, Slot, Status};

/// PCI-to-PCI bridges, ports among them.
const IDS: &[PciId] = &[PciId {
    class: 0x06_0400,
    class_mask: 0xff_ff00,
    ..PciId::ANY
}];

/// How often the slot of a port that cannot interrupt is looked at.
const POLL: Duration = Duration::from_millis(100);
/// Between one look at the slot's events and the next, so that one that bounces keeps nobody from working.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a link may take to come up, and a card to answer (6.6.1).
const CARD_LIMIT: Duration = Duration::from_secs(1);
/// How long a card must not be spoken to after its link has come up (6.6.1).
const CARD_REST: Duration = Duration::from_millis(100);
/// How long it may take until a slot without power is really without (6.7.1.8).
const POWER_REST: Duration = Duration::from_secs(1);
/// The vendor id of a card that is not ready to say who it is (2.3.2).
const NOT_READY: u16 = 0x0001;

/// What can only have happened to a card that is not there any more.
const LOST: Status = Status::PRESENCE_CHANGED
    .union(Status::LINK_CHANGED)
    .union(Status::POWER_FAULT);
/// What asks to look into a slot that is not in use.
const ASKED: Status = Status::PRESENCE_CHANGED.union(Status::BUTTON);

/// The driver of ports and other bridges.
pub struct PortDriver {
    bus: Weak<PciBus>,
}

impl PortDriver {
    /// A driver that puts new functions on `bus`, and takes others from it.
    #[must_use]
    pub fn new(bus: &Arc<PciBus>) -> Self {
        Self {
            bus: Arc::downgrade(bus),
        }
    }
}

impl Driver<PciDevice> for PortDriver {
    fn name(&self) -> &'static str {
        "pcieport"
    }

    fn ids(&self) -> &[PciId] {
        IDS
    }

    fn probe<'a>(
        &'a self,
        device: &'a Arc<PciDevice>,
        _: Option<&'a PciId>,
    ) -> BoxFuture<'a, Result<Box<dyn Bound>, ProbeError>> {
        Box::pin(async {
            let Some(slot) = Slot::of(device.config()) else {
                return Ok(Box::new(()) as Box<dyn Bound>);
            };
            // What is plugged in later must reach memory, and the port itself must interrupt.
            let needed = CommandRegister::MEMORY_ENABLE | CommandRegister::BUS_MASTER_ENABLE;
            device.config().update_command(|found| found | needed);
            let wake = Arc::<Event>::default();
            let interrupt = Interrupt::take(device, slot.message(), &wake);
            let port = Arc::new(Port {
                device: Arc::clone(device),
                bus: Weak::clone(&self.bus),
                interrupts: interrupt.is_some(),
                slot,
                wake,
                stop: AtomicBool::new(false),
                ended: Event::default(),
            });
            let task = Arc::clone(&port).serve();
            port.platform().spawn("hot-plug", Box::pin(task));
            Ok(Box::new(BoundPort {
                port: Stopper(port),
                _interrupt: interrupt,
            }) as Box<dyn Bound>)
        })
    }
}

/// The interrupt of a port.
struct Interrupt {
    _vectors: Vec<Vector>,
    _msix: Msix,
    _claim: Claim,
}

impl Interrupt {
    /// Lets the port's message number `message` raise `event`; `None`, if it has none or it cannot be had.
    fn take(device: &PciDevice, message: u16, event: &Arc<Event>) -> Option<Self> {
        let claim = device.claim().ok()?;
        let msix = claim.msix().ok()??;
        let platform = &**device.root().platform();
        let vectors = (0..=message)
            .map(|_| msix.allocate(platform, Callback::event(Arc::clone(event))))
            .collect::<Result<_, _>>();
        Some(Self {
            _vectors: vectors.ok()?,
            _msix: msix,
            _claim: claim,
        })
    }
}

/// The driver's hold on a port with a slot.
struct BoundPort {
    port: Stopper,
    _interrupt: Option<Interrupt>,
}

impl Bound for BoundPort {
    fn remove(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.port.stop();
            self.port.ended.wait().await;
        })
    }
}

/// Ends the port's task when the port is dropped.
struct Stopper(Arc<Port>);

impl Deref for Stopper {
    type Target = Arc<Port>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port with its slot.
struct Port {
    device: Arc<PciDevice>,
    bus: Weak<PciBus>,
    slot: Slot,
    interrupts: bool,
    wake: Arc<Event>,
    stop: AtomicBool,
    ended: Event,
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

impl Port {
    fn platform(&self) -> &dyn Platform {
        &**self.device.root().platform()
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake.raise();
    }

    /// Follows the slot's events until it shall end, or the port is gone itself.
    async fn serve(self: Arc<Self>) {
        let mut card = Card {
            port: &self,
            used: self.slot.is_powered() && self.slot.is_occupied(),
            off_at: None,
        };
        if self.interrupts {
            self.interrupt(Command::INTERRUPTS).await;
        }
        // A card that firmware has left without power wants some.
        let mut events = if card.used {
            Status::empty()
        } else {
            Status::BUTTON
        };
        while !self.stop.load(Ordering::Acquire) {
            if !events.is_empty() {
                card.follow(events).await;
                self.platform().sleep(PAUSE).await;
            } else if self.interrupts {
                self.wake.wait().await;
            } else {
                self.platform().sleep(POLL).await;
            }
            let Some(status) = self.slot.status() else {
                break;
            };
            events = status & (LOST | ASKED);
            self.slot.clear(events);
        }
        self.interrupt(Command::empty()).await;
        self.ended.raise();
    }

    async fn interrupt(&self, to: Command) {
        let fields = Command::INTERRUPTS;
        self.slot.command(self.platform(), fields, to).await;
    }
}

/// What is in the slot.
struct Card<'a> {
    port: &'a Port,
    /// Its functions are on the bus.
    used: bool,
    /// When the slot has lost its power.
    off_at: Option<Duration>,
}

impl Card<'_> {
    async fn follow(&mut self, events: Status) {
        let Some(bus) = self.port.bus.upgrade() else {
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
        if look && self.port.slot.is_occupied() {
            self.add(&bus).await;
        }
    }

    /// Takes the card's functions off the bus and the power from the slot.
    async fn remove(&mut self, bus: &PciBus, removal: Removal) {
        let Port { device, slot, .. } = self.port;
        let platform = self.port.platform();
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
        let Port { device, slot, .. } = self.port;
        let platform = self.port.platform();
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
                let count = device.root().enumerate_behind(bus, device).await;
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
        let Port { device, slot, .. } = self.port;
        let platform = self.port.platform();
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
        let first = ConfigSpace::new(Arc::clone(device.root().access()), first);
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
        self.port
            .slot
            .command(self.port.platform(), fields, to)
            .await;
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
        platform.sleep(PAUSE).await;
    }
}

impl fmt::Debug for PortDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortDriver").finish_non_exhaustive()
    }
}
