//! What is compared: the same chains in the same batches through our queues and through those of
//! others, each against the least counterpart that plays the other side.

mod chains;
mod counterpart;
mod device_side;
mod driver_side;
#[path = "../../tests/interop/fake_transport.rs"]
mod fake_transport;
#[path = "../../tests/interop/guest_ram.rs"]
mod guest_ram;
mod memory;
mod theirs;

use std::fmt;

/// Entries of every ring.
const SIZE: u16 = 256;

/// Which side of the queue is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Add and publish, and take back.
    Driver,
    /// Pop, look at every segment, complete and publish.
    Device,
}

/// The chains of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Buffers of each chain.
    pub buffers: usize,
    /// Chains that are published together.
    pub batch: u16,
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// Only the counterpart, with the least that makes it do its work.
    SplitCounterpart,
    /// The same, for the packed format.
    PackedCounterpart,
    /// Ours, split.
    Split,
    /// Ours, split with indirect tables.
    SplitIndirect,
    /// Ours, packed.
    Packed,
    /// The same, with chains that are a pointer.
    SplitBoxed,
    SplitIndirectBoxed,
    PackedBoxed,
    /// Ours, split, and every buffer is found on the host.
    SplitInPlace,
    /// The same, through a translation cache.
    SplitTranslated,
    /// Another crate.
    Theirs,
    /// Another crate, with indirect tables.
    TheirsIndirect,
}

/// A contender with a load.
pub struct Case {
    pub side: Side,
    pub load: Load,
    pub contender: Contender,
    work: Box<dyn Run>,
}

/// One round is one batch, all the way.
trait Work {
    fn round(&mut self);
}

trait Run {
    fn run(&mut self, rounds: u64);
}

impl<W: Work> Run for W {
    #[inline(never)]
    fn run(&mut self, rounds: u64) {
        for _ in 0..rounds {
            self.round();
        }
    }
}

impl Case {
    pub fn run(&mut self, rounds: u64) {
        self.work.run(rounds);
    }

    fn new<W: Work + 'static>(side: Side, load: Load, contender: Contender, work: W) -> Self {
        Self {
            side,
            load,
            contender,
            work: Box::new(work),
        }
    }
}

/// Every case, those with the same side and load together.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for batch in [1, 16] {
        driver_side::cases(batch, &mut cases);
    }
    for buffers in [1, 3, 16] {
        for batch in [1, 16] {
            device_side::cases(Load { buffers, batch }, &mut cases);
        }
    }
    cases.sort_by_key(|case| {
        (
            case.side == Side::Device,
            case.load.buffers,
            case.load.batch,
        )
    });
    cases
}

impl Contender {
    /// Whose cost is a part of this one's.
    pub fn counterpart(self) -> Self {
        match self {
            Self::Packed | Self::PackedBoxed | Self::PackedCounterpart => Self::PackedCounterpart,
            _ => Self::SplitCounterpart,
        }
    }

    pub fn is_counterpart(self) -> bool {
        self == self.counterpart()
    }

    /// Whether it does what the other crate does.
    pub fn is_compared(self) -> bool {
        let others = [
            Self::SplitInPlace,
            Self::SplitTranslated,
            Self::Theirs,
            Self::TheirsIndirect,
        ];
        !self.is_counterpart() && !others.contains(&self)
    }

    /// Its name among those of the same side.
    pub fn name(self, side: Side) -> &'static str {
        match (self, side) {
            (Self::SplitCounterpart, _) => "(split counterpart)",
            (Self::PackedCounterpart, _) => "(packed counterpart)",
            (Self::Split, _) => "virtq split",
            (Self::SplitIndirect, _) => "virtq split indirect",
            (Self::Packed, _) => "virtq packed",
            (Self::SplitBoxed, _) => "virtq split, boxed",
            (Self::SplitIndirectBoxed, _) => "virtq indirect, boxed",
            (Self::PackedBoxed, _) => "virtq packed, boxed",
            (Self::SplitInPlace, _) => "virtq split, in place",
            (Self::SplitTranslated, _) => "virtq split, translated",
            (Self::Theirs, Side::Driver) => "virtio-drivers",
            (Self::TheirsIndirect, Side::Driver) => "virtio-drivers indirect",
            (Self::Theirs | Self::TheirsIndirect, Side::Device) => "virtio-queue",
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.buffers == 1 {
            "buffer"
        } else {
            "buffers"
        };
        write!(f, "{} {noun}, batch {}", self.buffers, self.batch)
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Driver => "driver side",
            Self::Device => "device side",
        })
    }
}
