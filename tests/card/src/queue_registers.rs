//! The registers of one queue.
//!
//! Source: VIRTIO 1.2, 4.1.4.3; what `queue_enable` takes beyond it is the IFC VF's own.

use virtq::{DmaAddr, RingAddresses};

use crate::common::{Action, Context, FEATURES_OK, NO_VECTOR};
use crate::looks::Looks;
use crate::plan::{Plan, Refused, VectorOf, bits};
use crate::violations::Violations;

/// The registers of one queue.
#[derive(Clone, Debug)]
pub(crate) struct QueueRegisters {
    pub(crate) size: u16,
    pub(crate) vector: u16,
    /// What it was when the queue was enabled.
    sampled: u16,
    /// What was mapped was read again (4.1.5.1.2.2).
    vector_read: bool,
    /// How many looks a reset of the queue still takes.
    resetting: Option<Looks>,
    /// A reset has not been read as done.
    reset_unread: bool,
    pub(crate) enabled: bool,
    /// How many looks the stop still takes.
    stopping: Option<Looks>,
    address: [Option<u32>; 6],
    /// The lower half that was written last, whose upper half is due.
    half: Option<usize>,
}

impl QueueRegisters {
    pub(crate) fn new(size: u16) -> Self {
        Self {
            size,
            vector: NO_VECTOR,
            sampled: NO_VECTOR,
            vector_read: true,
            resetting: None,
            reset_unread: false,
            enabled: false,
            stopping: None,
            address: [None; 6],
            half: None,
        }
    }

    /// Where the driver has put the ring, if it has said all of it.
    pub(crate) fn addresses(&self) -> Option<RingAddresses> {
        let part = |at: usize| {
            let (low, high) = (self.address[at]?, self.address[at + 1]?);
            Some(DmaAddr(u64::from(low) | u64::from(high) << 32))
        };
        Some(RingAddresses {
            descriptor: part(0)?,
            driver: part(2)?,
            device: part(4)?,
        })
    }

    /// What the queue interrupts with.
    pub(crate) fn interrupt(&self, plan: &Plan) -> u16 {
        match plan.vector_of {
            VectorOf::Register => self.vector,
            VectorOf::Enable => self.sampled,
        }
    }

    pub(crate) fn read_vector(&mut self) -> u16 {
        self.vector_read = true;
        self.vector
    }

    pub(crate) fn write_vector(&mut self, value: u16, cx: &mut Context<'_>) {
        self.vector = vector(value, cx);
        self.vector_read = value == NO_VECTOR;
    }

    /// `queue_reset` (2.6.1).
    pub(crate) fn read_reset(&mut self, index: u16, cx: &Context<'_>) -> (u32, Action) {
        if let Some(looks) = &mut self.resetting {
            if !looks.look(cx.faults.queue_reset) {
                return (1, Action::Nothing);
            }
            let action = self.end_reset(index, cx);
            self.reset_unread = false;
            return (0, action);
        }
        self.reset_unread = false;
        (0, Action::Nothing)
    }

    pub(crate) fn write_reset(
        &mut self,
        index: u16,
        value: u16,
        features: u128,
        cx: &mut Context<'_>,
    ) -> Action {
        if features & bits(virtio::F::RING_RESET) == 0 {
            let fault = "queue_reset written without RING_RESET";
            cx.violations.against("2.6.1", fault);
            return Action::Nothing;
        }
        if value != 1 || !self.enabled {
            let fault = format_args!("{value} written to queue_reset of queue {index}");
            cx.violations.against("4.1.4.3.2", fault);
            return Action::Nothing;
        }
        self.reset_unread = true;
        self.resetting = Looks::begin(cx.faults.queue_reset);
        match self.resetting {
            None => self.end_reset(index, cx),
            Some(_) => Action::Nothing,
        }
    }

    fn end_reset(&mut self, index: u16, cx: &Context<'_>) -> Action {
        *self = Self {
            reset_unread: self.reset_unread,
            ..Self::new(cx.plan.queue_size)
        };
        Action::Stopped(index)
    }

    /// What must be there before a queue is enabled.
    fn check_complete(&self, index: u16, violations: &mut Violations) {
        if self.reset_unread {
            let fault = format_args!("queue {index} enabled before queue_reset was read as 0");
            violations.against("4.1.4.3.2", fault);
        }
        if self.addresses().is_none() {
            let fault = format_args!("queue {index} enabled before its addresses were written");
            violations.against("4.1.4.3.2", fault);
        }
        if !self.vector_read {
            let fault = format_args!("queue_msix_vector of queue {index} was not read again");
            violations.against("4.1.5.1.2.2", fault);
        }
    }

    /// `queue_enable`, which shows a stopped queue when there is nothing left to do for it.
    pub(crate) fn read_enable(&mut self, index: u16, cx: &Context<'_>) -> (u32, Action) {
        let stopped = self.stopping.as_mut();
        if stopped.is_some_and(|looks| looks.look(cx.faults.stop)) {
            return (0, self.stop(index));
        }
        (self.enabled.into(), Action::Nothing)
    }

    /// Begins to process the queue, or to stop that, which VIRTIO knows no way for.
    pub(crate) fn write_enable(
        &mut self,
        index: u16,
        value: u16,
        status: u8,
        cx: &mut Context<'_>,
    ) -> Action {
        match value {
            1 if self.enabled => {
                let fault = format_args!("queue {index} enabled twice");
                cx.violations.against("4.1.4.3.2", fault);
            }
            1 if status & FEATURES_OK == 0 => {
                let fault = format_args!("queue {index} enabled too early");
                cx.violations.against("3.1.1", fault);
            }
            1 => {
                self.check_complete(index, cx.violations);
                (self.enabled, self.sampled) = (true, self.vector);
                return Action::Start(index);
            }
            0 if cx.plan.product.is_plain() => {
                let fault = format_args!("0 written to queue_enable of queue {index}");
                cx.violations.against("4.1.4.3.2", fault);
            }
            0 if self.enabled => {
                self.stopping = Looks::begin(cx.faults.stop);
                if self.stopping.is_none() {
                    return self.stop(index);
                }
            }
            0 => {}
            _ => {
                let note = format!("{value} written to queue_enable");
                cx.violations.note(note);
            }
        }
        Action::Nothing
    }

    fn stop(&mut self, index: u16) -> Action {
        (self.enabled, self.stopping) = (false, None);
        Action::Stopped(index)
    }

    pub(crate) fn read_address(&self, offset: u64) -> u32 {
        self.address[part(offset)].unwrap_or(0)
    }

    pub(crate) fn write_address(&mut self, offset: u64, value: u32, violations: &mut Violations) {
        let at = part(offset);
        self.address[at] = Some(value);
        let due = self.half.take().map(|low| low + 1);
        if at.is_multiple_of(2) {
            self.half = Some(at);
        } else if due != Some(at) {
            violations.note(format!("the upper half first at common {offset:#x}"));
        }
    }
}

/// What the card makes of a vector (VIRTIO 1.2, 4.1.4.3.1).
pub(crate) fn vector(value: u16, cx: &mut Context<'_>) -> u16 {
    if value != NO_VECTOR && value >= cx.plan.vectors {
        let fault = format_args!("vector {value} of a table of {}", cx.plan.vectors);
        cx.violations.against("4.1.5.1.2.2", fault);
    }
    let refused = match &cx.faults.refused {
        Refused::Nothing => false,
        Refused::Vectors(vectors) => vectors.contains(&value),
        Refused::Everything => true,
    };
    if refused || value >= cx.plan.vectors {
        NO_VECTOR
    } else {
        value
    }
}

/// Which half of which address a register is.
fn part(offset: u64) -> usize {
    usize::try_from((offset - 0x20) / 4).unwrap_or(0).min(5)
}
