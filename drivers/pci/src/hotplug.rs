//! Cards that come and go: the driver of PCI Express ports and of other bridges.
//!
//! A card whose removal is asked for, by the attention button, is taken off the bus first and then
//! loses its power. One that has been pulled out, or has lost its link, is not touched any more:
//! its users get errors. A card that is new gets power, and once its link is up it is enumerated;
//! its functions are new devices, whatever was in the slot before. A bridge without a slot of this
//! kind needs nothing.
//!
//! The button acts at once: the five seconds in which a second push takes it back (6.7.1.5) are for
//! somebody who stands before the machine, and a hypervisor that pushes it means it.
//!
//! Source: PCI Express Base 6.0, 6.7 (hot-plug) and 6.6.1 (waiting for a card after power on).

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use pci_types::CommandRegister;
use vdpa::Platform;
use vdpa::bus::{self, Bound, Driver, ProbeError};
use vdpa::platform::{BoxFuture, Callback};
use virtq::Event;

use super::card::{ASKED, Card, LOST};
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
/// Between one look at the slot's events and the next, so that one that bounces keeps nobody from
/// working.
const PAUSE: Duration = Duration::from_millis(10);

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
        device: bus::Claim<PciDevice>,
        _: Option<&'a PciId>,
    ) -> BoxFuture<'a, Result<Box<dyn Bound>, ProbeError>> {
        Box::pin(async move {
            let Some(slot) = Slot::of(device.config()) else {
                return Ok(Box::new(()) as Box<dyn Bound>);
            };
            // What is plugged in later must reach memory, and the port itself must interrupt.
            let needed = CommandRegister::MEMORY_ENABLE | CommandRegister::BUS_MASTER_ENABLE;
            device.config().update_command(|found| found | needed);
            let wake = Arc::<Event>::default();
            let interrupt = Interrupt::take(&device, slot.message(), &wake);
            let port = Arc::new(Port {
                device: Arc::clone(&device),
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
    /// Lets the port's message number `message` raise `event`; `None`, if it has none or it cannot
    /// be had.
    fn take(device: &PciDevice, message: u16, event: &Arc<Event>) -> Option<Self> {
        let claim = device.claim().ok()?;
        let msix = claim.msix().ok()??;
        let vectors = (0..=message)
            .map(|_| msix.allocate(Callback::event(Arc::clone(event))))
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

impl Port {
    fn platform(&self) -> &dyn Platform {
        &**self.device.segment().platform()
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake.raise();
    }

    /// Follows the slot's events until it shall end, or the port is gone itself.
    async fn serve(self: Arc<Self>) {
        let mut card = Card::new(&self.device, &self.bus, &self.slot);
        if self.interrupts {
            self.interrupt(Command::INTERRUPTS).await;
        }
        // A card that firmware has left without power wants some.
        let mut events = if card.is_used() {
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

impl fmt::Debug for PortDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortDriver").finish_non_exhaustive()
    }
}
