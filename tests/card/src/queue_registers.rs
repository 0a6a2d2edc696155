//! The registers of one queue.
//!
//! Source: VIRTIO 1.2, 4.1.4.3; what `queue_enable` takes beyond it is the IFC VF's own.

use virtq::{DmaAddr, RingAddresses};

use crate::common::{Action, Context, FEATURES_OK, NO_VECTOR};
use crate::looks::Looks;
use crate::plan::Refused;
use crate::violations::Violations;

/// The registers of one queue.
#[derive(Clone, Debug)]
pub(crate) struct QueueRegisters {
    pub(crate) size: u16,
    pub(crate) vector: u16,
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
                cx.violations.note(format!("queue {index} enabled twice"));
            }
            1 if status & FEATURES_OK == 0 => {
                let note = format!("queue {index} enabled too early");
                cx.violations.note(note);
            }
            1 => {
                self.enabled = true;
                return Action::Start(index);
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
pub(crate) fn vector(value: u16, cx: &Context<'_>) -> u16 {
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
