//! The common configuration: registers, with what they remember and whom they wake.
//!
//! Source: VIRTIO 1.2, 4.1.3.1 and 4.1.4.3.

use crate::looks::Looks;
use crate::plan::{Faults, Plan, bits};
use crate::product::Kind;
use crate::queue_registers::{QueueRegisters, vector};
use crate::violations::Violations;

/// No vector.
pub(crate) const NO_VECTOR: u16 = 0xffff;
pub(crate) const ACKNOWLEDGE: u8 = 1;
pub(crate) const DRIVER: u8 = 2;
pub(crate) const DRIVER_OK: u8 = 4;
pub(crate) const FEATURES_OK: u8 = 8;
pub(crate) const NEEDS_RESET: u8 = 64;
pub(crate) const FAILED: u8 = 128;

/// What the card has to do because of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Nothing,
    /// The device is reset.
    Reset,
    /// A queue is enabled.
    Start(u16),
    /// It has stopped.
    Stopped(u16),
}

/// What the registers depend on.
pub(crate) struct Context<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) faults: &'a Faults,
    pub(crate) generation: u8,
    pub(crate) violations: &'a mut Violations,
}

/// The registers.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) status: u8,
    /// How many looks a reset still takes.
    resetting: Option<Looks>,
    device_select: u32,
    driver_select: u32,
    pub(crate) driver_features: u64,
    /// Which words of the features the driver has written since the reset.
    words: [bool; 2],
    pub(crate) config_vector: u16,
    select: u16,
    pub(crate) queues: Vec<QueueRegisters>,
}

impl Common {
    pub(crate) fn new(plan: &Plan) -> Self {
        let queue = QueueRegisters::new(plan.queue_size);
        Self {
            status: 0,
            resetting: None,
            device_select: 0,
            driver_select: 0,
            driver_features: 0,
            words: [false; 2],
            config_vector: NO_VECTOR,
            select: 0,
            queues: vec![queue; usize::from(plan.queue_count())],
        }
    }

    fn queue(&mut self) -> Option<&mut QueueRegisters> {
        self.queues.get_mut(usize::from(self.select))
    }

    pub(crate) fn read(
        &mut self,
        offset: u64,
        width: usize,
        cx: &mut Context<'_>,
    ) -> (u32, Action) {
        if !fits(offset, width, cx.violations) {
            return (u32::MAX, Action::Nothing);
        }
        let select = self.select;
        let value = match offset {
            0x00 => self.device_select,
            0x04 => word(cx.plan.features, self.device_select),
            0x08 => self.driver_select,
            0x0c => word(self.driver_features, self.driver_select),
            0x10 => self.config_vector.into(),
            0x12 => cx.plan.queue_count().into(),
            0x14 => return self.read_status(cx),
            0x15 => cx.generation.into(),
            0x16 => select.into(),
            _ => {
                let Some(queue) = self.queue() else {
                    return (0, Action::Nothing);
                };
                match offset {
                    0x18 => queue.size.into(),
                    0x1a => queue.vector.into(),
                    0x1c => return queue.read_enable(select, cx),
                    0x1e => select.into(),
                    _ => queue.read_address(offset),
                }
            }
        };
        (value, Action::Nothing)
    }

    fn read_status(&mut self, cx: &Context<'_>) -> (u32, Action) {
        let Some(looks) = &mut self.resetting else {
            return (self.status.into(), Action::Nothing);
        };
        if looks.look(cx.faults.reset) {
            return (0, Action::Reset);
        }
        // Something, for the driver to see that it is not done.
        (self.status.max(ACKNOWLEDGE).into(), Action::Nothing)
    }

    pub(crate) fn write(
        &mut self,
        offset: u64,
        width: usize,
        value: u32,
        cx: &mut Context<'_>,
    ) -> Action {
        if !fits(offset, width, cx.violations) {
            return Action::Nothing;
        }
        let half = u16::try_from(value & 0xffff).unwrap_or(0);
        match offset {
            0x00 => self.device_select = value,
            0x08 => self.driver_select = value,
            0x0c => self.write_features(value, cx.violations),
            0x10 => self.config_vector = vector(half, cx),
            0x14 => return self.write_status(value.to_le_bytes()[0], cx),
            0x16 => self.select = half,
            0x18..0x38 => return self.write_queue(offset, value, half, cx),
            _ => cx.violations.note(format!("write at common {offset:#x}")),
        }
        Action::Nothing
    }

    fn write_features(&mut self, value: u32, violations: &mut Violations) {
        let settled = self.status & FEATURES_OK != 0 || self.status & DRIVER == 0;
        if settled {
            violations.note("features written outside the negotiation".into());
            return;
        }
        let Ok(select @ 0..2) = usize::try_from(self.driver_select) else {
            if value != 0 {
                violations.note("features that nobody offers".into());
            }
            return;
        };
        let shift = 32 * select;
        self.words[select] = true;
        self.driver_features &= !(0xffff_ffff << shift);
        self.driver_features |= u64::from(value) << shift;
    }

    fn write_status(&mut self, status: u8, cx: &mut Context<'_>) -> Action {
        if status == 0 {
            self.resetting = Looks::begin(cx.faults.reset);
            return match self.resetting {
                None => Action::Reset,
                Some(_) => Action::Nothing,
            };
        }
        if self.resetting.is_some() {
            cx.violations.note("status written during a reset".into());
            return Action::Nothing;
        }
        let (old, new) = (self.status, status & !self.status);
        if old & !status & !NEEDS_RESET != 0 {
            let note = format!("bits of the status taken away: {old:#x} to {status:#x}");
            cx.violations.note(note);
        }
        let skips = [
            (DRIVER, ACKNOWLEDGE),
            (FEATURES_OK, DRIVER),
            (DRIVER_OK, FEATURES_OK),
        ];
        for (bit, before) in skips {
            if new & bit != 0 && status & before == 0 {
                cx.violations
                    .note(format!("status {status:#x} skips {before:#x}"));
            }
        }
        self.status = status | old & NEEDS_RESET;
        if new & FEATURES_OK != 0 && !self.accepts(cx) {
            self.status &= !FEATURES_OK;
        }
        if new & DRIVER_OK != 0 && self.status & FEATURES_OK == 0 {
            self.status &= !DRIVER_OK;
        }
        Action::Nothing
    }

    /// Whether the card works with what the driver wants (VIRTIO 1.2, 2.2.1 and 6.1).
    fn accepts(&self, cx: &mut Context<'_>) -> bool {
        use virtio::net::F;
        if self.words != [true; 2] {
            cx.violations
                .note("FEATURES_OK before both words were written".into());
        }
        let needed = bits(virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM);
        let control = bits(F::CTRL_RX | F::CTRL_MAC_ADDR | F::MQ);
        let wanted = self.driver_features;
        let lacks_control = cx.plan.product.kind() == Kind::Net
            && wanted & control != 0
            && wanted & bits(F::CTRL_VQ) == 0;
        wanted & !cx.plan.features == 0 && wanted & needed == needed && !lacks_control
    }

    fn write_queue(&mut self, offset: u64, value: u32, half: u16, cx: &mut Context<'_>) -> Action {
        let (select, status) = (self.select, self.status);
        let Some(queue) = self.queue() else {
            let note = format!("common {offset:#x} of queue {select}, which is not there");
            cx.violations.note(note);
            return Action::Nothing;
        };
        if queue.enabled && !matches!(offset, 0x1a | 0x1c) {
            let note = format!("common {offset:#x} of queue {select} written while it runs");
            cx.violations.note(note);
            return Action::Nothing;
        }
        match offset {
            0x18 if half.is_power_of_two() && half <= cx.plan.queue_size => queue.size = half,
            0x18 => {
                let note = format!("{half} entries for queue {select}");
                cx.violations.note(note);
            }
            0x1a => queue.vector = vector(half, cx),
            0x1c => return queue.write_enable(select, half, status, cx),
            0x20.. => queue.write_address(offset, value, cx.violations),
            _ => cx.violations.note(format!("write at common {offset:#x}")),
        }
        Action::Nothing
    }
}

/// Whether an access has the width that the register demands (VIRTIO 1.2, 4.1.3.1).
fn fits(offset: u64, width: usize, violations: &mut Violations) -> bool {
    let (natural, aligned) = match offset {
        0x14 | 0x15 => (1, true),
        0x10..0x20 => (2, offset.is_multiple_of(2)),
        _ => (4, offset.is_multiple_of(4)),
    };
    let fits = width == natural && aligned;
    if !fits {
        violations.note(format!("{width} bytes at common {offset:#x}"));
    }
    fits
}

fn word(features: u64, select: u32) -> u32 {
    let shifted = match select {
        0 => features,
        1 => features >> 32,
        _ => 0,
    };
    u32::try_from(shifted & 0xffff_ffff).unwrap_or(0)
}
