//! The slot of a PCI Express port: what its registers tell, and what they are told.
//!
//! A slot is described with its attention button, power controller and indicators, any of which it
//! may lack; a command to one that is not there does nothing. What happens when is no business of
//! this module.
//!
//! Source: PCI Express Base 6.0, 7.5.3 (registers) and 6.7.3.2 (commands).

use core::time::Duration;

use bitflags::bitflags;
use vdpa::Platform;

use super::access::ConfigSpace;
use super::capability::{self, PCI_EXPRESS};

/// Registers, from the start of the capability.
const PORT: u16 = 0x02;
const LINK_CAPABILITIES: u16 = 0x0c;
const LINK_STATUS: u16 = 0x12;
const SLOT_CAPABILITIES: u16 = 0x14;
const CONTROL: u16 = 0x18;
const STATUS: u16 = 0x1a;

/// [`PORT`]: there is a slot.
const SLOT_IMPLEMENTED: u16 = 1 << 8;
/// [`LINK_CAPABILITIES`]: the port tells whether the link is active.
const LINK_REPORTING: u32 = 1 << 20;
/// [`LINK_STATUS`]: it is.
const LINK_ACTIVE: u16 = 1 << 13;

/// How long a command may take (6.7.3.2).
const COMMAND_LIMIT: Duration = Duration::from_secs(1);
const COMMAND_POLL: Duration = Duration::from_millis(1);

bitflags! {
    /// What a slot has.
    #[derive(Clone, Copy)]
    struct Capabilities: u32 {
        const POWER_CONTROLLER = 1 << 1;
        const HOT_PLUG = 1 << 6;
        const NO_COMMAND_COMPLETED = 1 << 18;
    }

    /// What a slot is told.
    #[derive(Clone, Copy)]
    pub(super) struct Command: u16 {
        /// It interrupts for everything but completed commands.
        const INTERRUPTS = 0x102b;
        const ATTENTION_ON = 1 << 6;
        const ATTENTION_OFF = 3 << 6;
        const POWERED_ON = 1 << 8;
        const POWERED_BLINK = 2 << 8;
        const POWERED_OFF = 3 << 8;
        /// The power controller takes the power away.
        const POWER_OFF = 1 << 10;
    }

    /// What has happened to a slot, and how it is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Status: u16 {
        /// Somebody has pushed the attention button.
        const BUTTON = 1 << 0;
        const POWER_FAULT = 1 << 1;
        const PRESENCE_CHANGED = 1 << 3;
        const COMMAND_COMPLETED = 1 << 4;
        /// There is something in the slot. This is no event.
        const PRESENT = 1 << 6;
        const LINK_CHANGED = 1 << 8;
    }
}

impl Status {
    /// What is cleared by writing ones.
    const EVENTS: Self = Self::BUTTON
        .union(Self::POWER_FAULT)
        .union(Self::PRESENCE_CHANGED)
        .union(Self::COMMAND_COMPLETED)
        .union(Self::LINK_CHANGED);
}

/// The hot-plug capable slot of a port.
pub(super) struct Slot {
    config: ConfigSpace,
    /// Where the capability is.
    at: u16,
    has: Capabilities,
}

impl Slot {
    /// The slot behind a port; `None`, if nothing can be plugged in or out there.
    pub(super) fn of(config: &ConfigSpace) -> Option<Self> {
        let at = capability::find(config, PCI_EXPRESS)?;
        let has = Capabilities::from_bits_retain(config.read32(at + SLOT_CAPABILITIES));
        let is_slot = config.read16(at + PORT) & SLOT_IMPLEMENTED != 0;
        (is_slot && has.contains(Capabilities::HOT_PLUG)).then(|| Self {
            config: config.clone(),
            at,
            has,
        })
    }

    /// Which of the port's messages tells of events.
    pub(super) fn message(&self) -> u16 {
        (self.config.read16(self.at + PORT) >> 9) & 0x1f
    }

    /// How the slot is; `None` if the port does not answer.
    pub(super) fn status(&self) -> Option<Status> {
        let bits = self.config.read16(self.at + STATUS);
        (bits != u16::MAX).then(|| Status::from_bits_retain(bits))
    }

    /// Takes these events, so that they can happen again.
    pub(super) fn clear(&self, events: Status) {
        let events = events & Status::EVENTS;
        if !events.is_empty() {
            self.config.set16(self.at + STATUS, events.bits());
        }
    }

    /// Whether there is a card in the slot.
    pub(super) fn is_occupied(&self) -> bool {
        let present = |status: Status| status.contains(Status::PRESENT);
        self.status().is_some_and(present) || self.link() == Some(true)
    }

    /// Whether the link is active, if the port tells.
    pub(super) fn link(&self) -> Option<bool> {
        let reports = self.config.read32(self.at + LINK_CAPABILITIES) & LINK_REPORTING != 0;
        reports.then(|| self.config.read16(self.at + LINK_STATUS) & LINK_ACTIVE != 0)
    }

    /// Whether the slot has power.
    pub(super) fn is_powered(&self) -> bool {
        !self.has_power_controller() || self.control() & Command::POWER_OFF.bits() == 0
    }

    /// Whether the slot's power can be switched.
    pub(super) fn has_power_controller(&self) -> bool {
        self.has.contains(Capabilities::POWER_CONTROLLER)
    }

    /// Sets the fields in `fields` as in `to`, and waits until that is done: a command before is
    /// lost.
    pub(super) async fn command(&self, platform: &dyn Platform, fields: Command, to: Command) {
        let control = (self.control() & !fields.bits()) | to.bits();
        self.clear(Status::COMMAND_COMPLETED);
        self.config.set16(self.at + CONTROL, control);
        if self.has.contains(Capabilities::NO_COMMAND_COMPLETED) {
            return;
        }
        let until = platform.now() + COMMAND_LIMIT;
        while let Some(status) = self.status()
            && !status.contains(Status::COMMAND_COMPLETED)
            && platform.now() < until
        {
            platform.sleep(COMMAND_POLL).await;
        }
        self.clear(Status::COMMAND_COMPLETED);
    }

    fn control(&self) -> u16 {
        self.config.read16(self.at + CONTROL)
    }
}
