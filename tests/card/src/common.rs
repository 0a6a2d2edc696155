//! The common configuration: registers, with what they remember and whom they wake.
//!
//! Source: VIRTIO 1.2, 4.1.3.1 and 4.1.4.3.

use crate::looks::Looks;
use crate::plan::{Faults, IdleWrites, Plan, bits};
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
    /// Somebody has asked for a reset since the power came.
    pub(crate) was_reset: bool,
    /// The status was read as 0 since then.
    pub(crate) zero_read: bool,
    /// It was read again since `FEATURES_OK` was set.
    reread: bool,
    /// What was mapped to the configuration's vector was read again.
    vector_read: bool,
    device_select: u32,
    driver_select: u32,
    pub(crate) driver_features: u128,
    /// Which words of the features the driver has written since the reset.
    words: [bool; 4],
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
            was_reset: false,
            zero_read: false,
            reread: false,
            vector_read: true,
            device_select: 0,
            driver_select: 0,
            driver_features: 0,
            words: [false; 4],
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
        self.check_time(offset, Way::Read, cx.violations);
        let select = self.select;
        let value = match offset {
            0x00 => self.device_select,
            0x04 => word(cx.plan.features, self.device_select),
            0x08 => self.driver_select,
            0x0c => word(self.driver_features, self.driver_select),
            0x10 => {
                self.vector_read = true;
                self.config_vector.into()
            }
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
                    0x1a => queue.read_vector().into(),
                    0x3a => return queue.read_reset(select, cx),
                    0x38.. => 0,
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
            self.zero_read |= self.status == 0;
            self.reread = true;
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
        self.check_time(offset, Way::Write, cx.violations);
        if offset != 0x14 && self.status == 0 && cx.plan.idle_writes == IdleWrites::Reset {
            let (was_reset, zero_read) = (self.was_reset, self.zero_read);
            *self = Self {
                was_reset,
                zero_read,
                ..Self::new(cx.plan)
            };
            return Action::Nothing;
        }
        match offset {
            0x00 => self.device_select = value,
            0x08 => self.driver_select = value,
            0x0c => self.write_features(value, cx),
            0x10 => {
                self.config_vector = vector(half, cx);
                self.vector_read = half == NO_VECTOR;
            }
            0x14 => return self.write_status(value.to_le_bytes()[0], cx),
            0x16 => self.select = half,
            0x18..0x1e | 0x20..0x38 | 0x3a => return self.write_queue(offset, value, half, cx),
            _ => {
                let fault = format_args!("write at common {offset:#x}");
                cx.violations.against("4.1.4.3.2", fault);
            }
        }
        Action::Nothing
    }

    /// The order of the initialisation: what may be accessed now.
    fn check_time(&self, offset: u64, way: Way, violations: &mut Violations) {
        if offset == 0x14 {
            return;
        }
        if self.resetting.is_some() || way == Way::Write && self.was_reset && !self.zero_read {
            let fault = format_args!("common {offset:#x} accessed during a reset");
            violations.against("4.1.4.3.2", fault);
            return;
        }
        let driven = self.status & (ACKNOWLEDGE | DRIVER) == ACKNOWLEDGE | DRIVER;
        let settled = self.status & FEATURES_OK != 0;
        let (allowed, what) = match (offset, way) {
            // Selectors can be read at any time, and what they select makes no difference then.
            (0x00 | 0x08 | 0x0c | 0x16, Way::Read) | (0x15, _) => (true, ""),
            (0x00..0x10, _) => (driven, "before ACKNOWLEDGE and DRIVER"),
            _ if settled && !self.reread => (false, "before FEATURES_OK was read again"),
            _ => (settled, "before FEATURES_OK"),
        };
        if !allowed {
            let fault = format_args!("common {offset:#x} accessed {what}");
            violations.against("3.1.1", fault);
        }
    }

    fn write_features(&mut self, value: u32, cx: &mut Context<'_>) {
        let settled = self.status & FEATURES_OK != 0 || self.status & DRIVER == 0;
        if settled {
            cx.violations
                .against("3.1.1", "features written outside the negotiation");
            return;
        }
        let shown = word(cx.plan.features, self.driver_select);
        if self.driver_select >= 2 && shown == 0 && value != 0 {
            cx.violations
                .against("2.2.1", "features in a word that has none");
        }
        let Ok(select @ 0..4) = usize::try_from(self.driver_select) else {
            return;
        };
        let shift = 32 * select;
        self.words[select] = true;
        self.driver_features &= !(0xffff_ffff << shift);
        self.driver_features |= u128::from(value) << shift;
    }

    fn write_status(&mut self, status: u8, cx: &mut Context<'_>) -> Action {
        if status == 0 {
            (self.was_reset, self.zero_read) = (true, false);
            self.resetting = Looks::begin(cx.faults.reset);
            return match self.resetting {
                None => Action::Reset,
                Some(_) => Action::Nothing,
            };
        }
        if self.resetting.is_some() {
            cx.violations
                .against("4.1.4.3.2", "status written during a reset");
            return Action::Nothing;
        }
        if !self.was_reset {
            cx.violations
                .against("3.1.1", "status written before the device was reset");
        } else if !self.zero_read {
            cx.violations.against(
                "4.1.4.3.2",
                "status written before it was read as 0, during a reset",
            );
        }
        if self.status & FAILED != 0 {
            cx.violations
                .against("2.1.1", "status written after FAILED without a reset");
        }
        let (old, new) = (self.status, status & !self.status);
        if old & !status & !NEEDS_RESET != 0 {
            let fault = format_args!("bits of the status taken away: {old:#x} to {status:#x}");
            cx.violations.against("2.1.1", fault);
        }
        let skips = [
            (DRIVER, ACKNOWLEDGE),
            (FEATURES_OK, DRIVER),
            (DRIVER_OK, FEATURES_OK),
        ];
        for (bit, before) in skips {
            if new & bit != 0 && status & before == 0 {
                let fault = format_args!("status {status:#x} skips {before:#x}");
                cx.violations.against("3.1.1", fault);
            } else if new & bit != 0 && old & before == 0 {
                let fault = format_args!("status {status:#x} sets {before:#x} at once");
                cx.violations.against("3.1.1", fault);
            }
        }
        if new & DRIVER_OK != 0 && old & FEATURES_OK != 0 && !self.reread {
            cx.violations
                .against("3.1.1", "DRIVER_OK before FEATURES_OK was read again");
        }
        if new & DRIVER_OK != 0 && !self.vector_read {
            let fault = "config_msix_vector was not read again";
            cx.violations.against("4.1.5.1.2.2", fault);
        }
        self.reread &= new & FEATURES_OK == 0;
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
        // Of a word that is 0 after the reset, and in which nothing is offered, nothing need be
        // said.
        let lacks = |(select, written): (u32, &bool)| {
            !written && (select < 2 || word(cx.plan.features, select) != 0)
        };
        if (0..).zip(&self.words).any(lacks) {
            cx.violations
                .note("FEATURES_OK before all words of the features were written".into());
        }
        if self.driver_features & !cx.plan.features != 0 {
            let extra = self.driver_features & !cx.plan.features;
            cx.violations
                .against("2.2.1", format_args!("features {extra:#x} are not offered"));
        }
        if let Some((feature, needs)) = lacking(cx.plan.product.kind(), self.driver_features) {
            let fault = format_args!("feature {feature} without one of {needs:#x}");
            cx.violations.against("2.2.1", fault);
        }
        let offers = |feature| cx.plan.features & bits(feature);
        if offers(virtio::F::VERSION_1) & !self.driver_features != 0 {
            cx.violations
                .against("6.1", "VERSION_1 is offered, and was not accepted");
        }
        let needed = if cx.plan.product.is_plain() {
            bits(virtio::F::VERSION_1)
        } else {
            bits(virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM)
        };
        let control = bits(F::CTRL_RX | F::CTRL_MAC_ADDR | F::MQ);
        let wanted = self.driver_features;
        let lacks_control = cx.plan.product.kind() == Kind::Net
            && wanted & control != 0
            && wanted & bits(F::CTRL_VQ) == 0;
        wanted & !cx.plan.features == 0 && wanted & needed == needed && !lacks_control
    }

    fn write_queue(&mut self, offset: u64, value: u32, half: u16, cx: &mut Context<'_>) -> Action {
        let (select, status) = (self.select, self.status);
        let packed = self.driver_features & bits(virtio::F::RING_PACKED) != 0;
        let features = self.driver_features;
        let Some(queue) = self.queue() else {
            let fault = format_args!("common {offset:#x} of queue {select}, which is not there");
            cx.violations.against("4.1.5.1.3", fault);
            return Action::Nothing;
        };
        if queue.enabled && !matches!(offset, 0x1c | 0x3a) {
            let name = register_name(offset);
            let fault = format_args!(
                "{name} (common {offset:#x}) of queue {select} written while it runs: queue_enable is 1"
            );
            cx.violations.against("4.1.4.3.2", fault);
            if offset != 0x1a {
                return Action::Nothing;
            }
        }
        match offset {
            0x18 if (packed && half > 0 || half.is_power_of_two())
                && half <= cx.plan.queue_size =>
            {
                queue.size = half;
            }
            0x18 => {
                let fault = format_args!("{half} entries for queue {select}");
                cx.violations.against("4.1.4.3.2", fault);
            }
            0x1a => queue.write_vector(half, cx),
            0x3a => return queue.write_reset(select, half, features, cx),
            0x1c => return queue.write_enable(select, half, status, cx),
            0x20.. => queue.write_address(offset, value, cx.violations),
            _ => cx.violations.note(format!("write at common {offset:#x}")),
        }
        Action::Nothing
    }
}

/// Which way an access goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Read,
    Write,
}

fn register_name(offset: u64) -> &'static str {
    match offset {
        0x18 => "queue_size",
        0x1a => "queue_msix_vector",
        0x20..0x28 => "queue_desc",
        0x28..0x30 => "queue_driver",
        _ => "queue_device",
    }
}

/// A feature that needs another one which was not accepted, and those of which it needs one (VIRTIO
/// 1.2, 5.1.3.1).
fn lacking(kind: Kind, features: u128) -> Option<(u32, u128)> {
    const CSUM: u128 = 1;
    const GUEST_CSUM: u128 = 1 << 1;
    const GUEST_TSO: u128 = 1 << 7 | 1 << 8;
    const HOST_TSO: u128 = 1 << 11 | 1 << 12;
    const CTRL_VQ: u128 = 1 << 17;
    let needs = [
        (7, GUEST_CSUM),
        (8, GUEST_CSUM),
        (9, GUEST_TSO),
        (10, GUEST_CSUM),
        (11, CSUM),
        (12, CSUM),
        (13, HOST_TSO),
        (14, CSUM),
        (18, CTRL_VQ),
        (19, CTRL_VQ),
        (21, CTRL_VQ),
        (22, CTRL_VQ),
        (23, CTRL_VQ),
        (60, CTRL_VQ),
        (61, HOST_TSO),
    ];
    let lacks =
        |(feature, needs): &(u32, u128)| features >> feature & 1 != 0 && features & needs == 0;
    needs.into_iter().filter(|_| kind == Kind::Net).find(lacks)
}

/// Whether an access has the width that the register demands (VIRTIO 1.2, 4.1.3.1).
fn fits(offset: u64, width: usize, violations: &mut Violations) -> bool {
    let (natural, aligned) = match offset {
        0x14 | 0x15 => (1, true),
        0x10..0x20 | 0x38..0x3c => (2, offset.is_multiple_of(2)),
        _ => (4, offset.is_multiple_of(4)),
    };
    let fits = width == natural && aligned;
    if !fits {
        let fault = format_args!("{width} bytes at common {offset:#x}");
        violations.against("4.1.3.1", fault);
    }
    fits
}

fn word(features: u128, select: u32) -> u32 {
    let shift = select.saturating_mul(32);
    let shifted = features.checked_shr(shift).unwrap_or(0);
    u32::try_from(shifted & 0xffff_ffff).unwrap_or(0)
}
